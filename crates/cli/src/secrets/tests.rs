use super::*;
use crate::config::Config;

fn checked(text: &str) -> Result<(), Failure> {
    let config: Config = toml::from_str(text).map_err(|e| Failure::new(e.message().to_owned()))?;
    check("c.toml", text, &config.secrets, &config.http)
}

#[test]
fn the_configuration_says_where_a_secret_is_and_is_never_repeated_when_it_holds_one() {
    for (text, reason) in [
        ("[secrets]\nkey = \"hunter2hunter2\"\n", "does not stand in the configuration"),
        ("[secrets]\nkey = { value = \"hunter2hunter2\" }\n", "unknown field `value`"),
        ("[secrets]\nkey = 77777777\n", "does not stand in the configuration"),
        ("[secrets]\nkey = -77777777\n", "does not stand in the configuration"),
        ("[secrets]\nkey = 7777.7777\n", "does not stand in the configuration"),
        ("[secrets]\nkey = true\n", "does not stand in the configuration"),
        ("[secrets]\nkey = { file = 77777777 }\n", "where the secret is"),
        ("[secrets]\nkey = { env = [\"hunter2hunter2\"] }\n", "where the secret is"),
        ("[secrets]\nkey = [\"hunter2hunter2\"]\n", "where a secret is"),
        ("[secrets]\nkey = { }\n", "either `file` or `env`"),
        ("[secrets]\nkey = { file = \"a\", env = \"B\" }\n", "c.toml:2:7: a secret has either"),
        ("[http]\nallow = [\"10.0.0.0/33\"]\n", "c.toml:2:9: `10.0.0.0/33` is no network"),
        ("[http]\nproxy = \"x\"\n", "unknown field `proxy`"),
    ] {
        let failure = checked(text).unwrap_err();
        assert!(failure.message.contains(reason), "{}", failure.message);
        for value in ["hunter2", "77777777", "7777.7777"] {
            assert!(!format!("{failure:?}").contains(value), "{}", failure.message);
        }
    }
    let text =
        "[secrets]\na = { file = \"a\" }\nb = { env = \"B\" }\n[http]\nallow = [\"::1/128\"]\n";
    checked(text).unwrap();
}
