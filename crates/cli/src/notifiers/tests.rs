//! What `[[notifiers]]` accepts and refuses, and how it says so.

use super::*;
use crate::args::Global;
use crate::config;

fn load(text: &str) -> Result<Loaded, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, text).unwrap();
    let shown = dir.path().display().to_string();
    config::load(&Global { config: Some(file), state: None, json: false }).map_err(|failure| {
        let message = failure.message.replace(&format!("{shown}/"), "");
        Failure::new(message)
    })
}

/// A notifier that is this and that.
fn notifier(keys: &str) -> String {
    format!("[[notifiers]]\nid = \"chat\"\n{keys}\n")
}

const URL: &str = "url = \"https://example.org/\"\nsecret_env = \"S\"";

#[test]
fn what_the_text_gets_wrong_is_refused_with_its_place() {
    let with = |keys: &str| notifier(&format!("{URL}\n{keys}"));
    for (text, place, part) in [
        (notifier("secret_env = \"S\""), "c.toml:1:1", "missing field `url`"),
        (notifier("url = \"https://example.org/\""), "c.toml:3:7", "`secret_file` or `secret_env`"),
        (notifier(URL).replace("chat", "a b"), "c.toml:2:6", "at most 64 letters"),
        (with("secret_file = \"s\""), "c.toml:4:14", "a notifier has either"),
        (notifier(URL).replace("https", "http"), "c.toml:3:7", "must begin with https://"),
        (notifier(URL).replace("example.org", "10.0.0.1"), "c.toml:3:7", "not in `allow`"),
        (notifier(URL).replace("example.org", "169.254.169.254"), "c.toml:3:7", "no configuration"),
        (with("allow = [\"10.0.0.0/40\"]"), "c.toml:5:9", "no network"),
        (with("timeout_ms = 0"), "c.toml:5:14", "0 ms"),
        (with("events = []"), "c.toml:5:10", "no event"),
        (with("events = [\"held\", \"lost\"]"), "c.toml:5:19", "`lost` is none of `held`"),
        (with("event = [\"held\"]"), "c.toml:5:1", "unknown field `event`"),
        (format!("{}{}", notifier(URL), notifier(URL)), "c.toml:6:6", "two notifiers"),
    ] {
        let failure = load(&text).unwrap_err();
        assert!(failure.message.starts_with(&format!("{place}: ")), "{text}: {}", failure.message);
        assert!(failure.message.contains(part), "{text}: {}", failure.message);
    }
}

#[test]
fn people_are_told_of_what_they_can_act_on_unless_told_otherwise() {
    for (keys, expected) in [
        ("", &[NoticeEvent::Held, NoticeEvent::Escalated][..]),
        ("events = [\"expired\", \"held\"]", &[NoticeEvent::Held, NoticeEvent::Expired]),
    ] {
        let loaded = load(&notifier(&format!("{URL}\n{keys}"))).unwrap();
        let events = loaded.config.notifiers[0].events().unwrap();
        assert_eq!(events.into_iter().collect::<Vec<_>>(), expected);
    }
}
