//! What `[[hooks]]` accepts and refuses, and how it says so.

use super::*;
use crate::args::Global;
use crate::config;

const KEY: &str = "whsec_bm90IGEgc2VjcmV0LCBvbmx5IGEgdGVzdCBrZXk=\n";

/// A folder with a configuration, a folder for tools, and a program.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        for (name, text) in [
            ("bin/guard", "#!"),
            ("root/guard", "#!"),
            ("guard.py", ""),
            ("good.secret", KEY),
            ("short.secret", "whsec_c2hvcnQ="),
            ("bare.secret", "bm90IGEgc2VjcmV0LCBvbmx5IGEgdGVzdCBrZXk="),
            ("root/my.secret", KEY),
            ("empty.pem", ""),
        ] {
            write(name, text);
        }
        std::os::unix::fs::symlink("root/guard", dir.path().join("link")).unwrap();
        Self(dir)
    }

    fn load(&self, text: &str) -> Result<Loaded, Failure> {
        let file = self.0.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        config::load(&Global { config: Some(file), state: None, json: false })
    }

    fn build(&self, loaded: &Loaded, path: &[&str]) -> Result<Vec<Hook>, Failure> {
        let folder = self.0.path().canonicalize().unwrap();
        let setting = Setting {
            tool_root: folder.join("root"),
            path: path.iter().map(|dir| folder.join(dir)).collect(),
            clock: Arc::new(SystemClock),
        };
        build(loaded, &setting)
    }

    /// The failure without the file's name, and with a word for the test's own folder.
    fn shown(&self, failure: Failure) -> (String, Option<String>) {
        let file = format!("{}/c.toml:", self.0.path().display());
        let Some(rest) = failure.message.strip_prefix(&file) else {
            panic!("no place: {}", failure.message);
        };
        let folder = self.0.path().display().to_string();
        (rest.replace(&folder, "DIR"), failure.hint)
    }
}

/// A hook at `before_tool_call` that is this and that.
fn hook(keys: &str) -> String {
    format!("[[hooks]]\nid = \"h\"\npoint = \"before_tool_call\"\n{keys}\n")
}

fn at_point(point: &str, keys: &str) -> String {
    hook(keys).replace("before_tool_call", point)
}

const COMMAND: &str = "command = [\"guard\"]";
const URL: &str = "url = \"https://example.com/\"\nsecret_file = \"good.secret\"";

#[test]
fn what_the_text_gets_wrong_is_refused_with_its_place() {
    let place = Place::new();
    let twice = format!("{}{}", hook(COMMAND), hook(COMMAND));
    let with = |keys: &str| hook(&format!("{COMMAND}\n{keys}"));
    let web = |keys: &str| hook(&format!("{URL}\n{keys}"));
    let url = |url: &str, more: &str| {
        hook(&format!("url = \"{url}\"\nsecret_file = \"good.secret\"\n{more}"))
    };
    for (text, expected, hint) in [
        (
            at_point("befor_tool_call", COMMAND),
            "3:9: unknown variant `befor_tool_call`, expected one of `run_starting`, …",
            "did you mean `before_tool_call`?",
        ),
        (
            at_point("after_model_call", COMMAND),
            "3:9: the gateway never passes `after_model_call`, only `run_starting`, \
             `before_tool_call`, `after_tool_call`, `before_approval_request`, \
             `after_approval_decision`, `before_run_complete`, `after_run_terminal`",
            "",
        ),
        (
            with("timeout = 5"),
            "5:1: unknown field `timeout`, expected one of `id`, …",
            "did you mean `timeout_ms`?",
        ),
        (
            with("rights = [\"denny\"]"),
            "5:11: unknown variant `denny`, expected one of `observe`, …",
            "did you mean `deny`?",
        ),
        (
            with("on_failure = \"denny\""),
            "5:14: unknown variant `denny`, expected one of `fail_open_observe_only`, \
             `deny`, `interrupt_run`, `fail_run`",
            "did you mean `deny`?",
        ),
        (
            with("mode = \"async\""),
            "5:8: unknown variant `async`, expected `blocking` or `non_blocking`",
            "",
        ),
        (hook(COMMAND).replace("\"h\"", "\"\""), "2:6: HookId is empty", ""),
        (twice, "6:6: two hooks have the id `h`", ""),
        (
            with("rights = [\"stop_run\"]"),
            "5:10: `stop_run` is not possible at `before_tool_call`, only `observe`, \
             `modify_tool_request`, `deny`, `request_approval`",
            "",
        ),
        (
            at_point("run_starting", "command = [\"guard\"]\nrights = [\"inject_context\"]"),
            "5:10: the gateway has nothing to apply `inject_context` to at `run_starting`",
            "",
        ),
        (
            with("rights = [\"deny\"]\nmode = \"non_blocking\"\non_failure = \"deny\""),
            "6:8: the right `deny` needs mode = \"blocking\"",
            "",
        ),
        (
            with("mode = \"non_blocking\""),
            "5:8: `fail_open_observe_only`, the default of a hook that is not waited for, is \
             not possible at `before_tool_call`, where something irreversible comes next; set \
             another `on_failure`",
            "",
        ),
        (
            with("on_failure = \"fail_open_observe_only\""),
            "5:14: `fail_open_observe_only` is not possible at `before_tool_call`, where \
             something irreversible comes next; set another `on_failure`",
            "",
        ),
        (
            at_point(
                "after_tool_call",
                "command = [\"guard\"]\nrights = [\"rewrite_tool_result\"]\n\
                 on_failure = \"fail_open_observe_only\"",
            ),
            "6:14: `fail_open_observe_only` is not possible with the right \
             `rewrite_tool_result`, which changes what happens; set another `on_failure`",
            "",
        ),
        (with("timeout_ms = 0"), "5:14: no hook answers in 0 ms", ""),
        (with("timeout_ms = -1"), "5:14: invalid value: integer `-1`, expected u64", ""),
        (with("queue_capacity = 9"), no_queue(18).as_str(), ""),
        (with("terminal_reserve = 9"), &no_queue(20), ""),
        (with("overflow = \"drop_observe_only\""), &no_queue(12), ""),
        (
            at_point("after_tool_call", "command = [\"guard\"]\nqueue_capacity = 0"),
            "5:18: invalid value: integer `0`, expected a nonzero usize",
            "",
        ),
        (with("url = \"https://example.com/\""), "5:7: a hook has either `command` or `url`", ""),
        (hook(""), "2:6: a hook has either `command` or `url`", ""),
        (hook("command = []"), "4:11: the command names no program", ""),
        (hook("command = [\"\"]"), "4:11: the command names no program", ""),
        (hook("command = [\"guard\", \"a\\u0000b\"]"), "4:11: the command has a NUL byte", ""),
        (with("secret_file = \"s\""), &foreign(15, "secret_file", "command"), ""),
        (with("secret_env = \"S\""), &foreign(14, "secret_env", "command"), ""),
        (with("allow = [\"10.0.0.0/8\"]"), &foreign(9, "allow", "command"), ""),
        (with("ca_file = \"ca.pem\""), &foreign(11, "ca_file", "command"), ""),
        (web("env = [\"HOME\"]"), "6:7: `env` means nothing for a hook with `url`", ""),
        (web("secret_env = \"SECRET\""), &one_secret("6:14"), ""),
        (hook("url = \"https://example.com/\""), &one_secret("4:7"), ""),
        (
            web("allow = [\"10.0.0.0/8\", \"10.0.0.256/8\"]"),
            "6:9: `10.0.0.256/8` is no network such as 10.0.0.0/8: invalid IP address syntax",
            "",
        ),
        (url("example.com", ""), "4:7: url is not valid: relative URL without a base", ""),
        (url("ftp://example.com/", ""), "4:7: url must begin with https://", ""),
        (url("http://example.com/", ""), "4:7: url must begin with https:// or be in `allow`", ""),
        (
            url("http://93.184.215.14/", "allow = [\"10.0.0.0/8\"]"),
            "4:7: url leads to 93.184.215.14, which is not in `allow` and thus needs https://",
            "",
        ),
        (
            url("https://127.0.0.1/", ""),
            "4:7: url leads to 127.0.0.1, which is loopback and not in `allow`",
            "",
        ),
        (
            url("https://[::ffff:169.254.169.254]/", "allow = [\"169.254.0.0/16\"]"),
            "4:7: url leads to ::ffff:169.254.169.254, where machines are told secrets about \
             themselves; no configuration allows that",
            "",
        ),
        (url("https://user@example.com/", ""), "4:7: url must not hold a user or a password", ""),
        (
            url("https://example.com/#part", ""),
            "4:7: url must not have a fragment, which is never sent",
            "",
        ),
    ] {
        let failure = place.load(&text).err().unwrap_or_else(|| panic!("loaded:\n{text}"));
        let (message, hinted) = place.shown(failure);
        match expected.strip_suffix('…') {
            Some(start) => assert!(message.starts_with(start), "{message}"),
            None => assert_eq!(message, expected, "{text}"),
        }
        assert_eq!(hinted.unwrap_or_default(), hint, "{text}");
    }
}

fn no_queue(column: usize) -> String {
    format!("5:{column}: a hook that is waited for has no queue; set mode = \"non_blocking\"")
}

fn foreign(column: usize, key: &str, kind: &str) -> String {
    format!("5:{column}: `{key}` means nothing for a hook with `{kind}`")
}

fn one_secret(place: &str) -> String {
    format!(
        "{place}: a webhook has either `secret_file` or `secret_env`: whsec_ and 24 to 64 \
         bytes in base64, by which it knows the gateway"
    )
}

#[test]
fn what_only_the_machine_can_tell_is_refused_at_the_start() {
    let place = Place::new();
    let command = |argv: &str| hook(&format!("command = [{argv}]"));
    let file = |name: &str| hook(&format!("url = \"https://example.com/\"\n{name}"));
    let inside = "lies in the folder tools work in: an agent could change it";
    for (text, path, expected) in [
        (command("\"nowhere\""), "bin", "4:11: there is no program `nowhere` in DIR/bin"),
        (command("\"./nowhere\""), "bin", "4:11: there is no file DIR/./nowhere"),
        (command("\"./bin\""), "bin", "4:11: there is no file DIR/./bin"),
        (command("\"root/guard\""), "bin", &format!("4:11: DIR/root/guard {inside}")),
        (command("\"./link\""), "bin", &format!("4:11: DIR/./link {inside}")),
        (
            command("\"guard\", \"root/../root/guard\""),
            "bin",
            &format!("4:11: DIR/root/../root/guard {inside}"),
        ),
        // Found on a search path that leads to where tools work.
        (command("\"guard\""), "root", &format!("4:11: DIR/root/guard {inside}")),
        (
            file("secret_file = \"no.secret\""),
            "bin",
            "5:15: DIR/no.secret: No such file or directory (os error 2)",
        ),
        (
            file("secret_file = \"root/my.secret\""),
            "bin",
            "5:15: DIR/root/my.secret lies in the folder tools work in: an agent could read \
             or change it",
        ),
        (file("secret_file = \"bare.secret\""), "bin", "5:15: secret must begin with whsec_"),
        (file("secret_file = \"short.secret\""), "bin", "5:15: secret must have 24 to 64 bytes"),
        (file("secret_file = \"guard.py\""), "bin", "5:15: secret must begin with whsec_"),
        (
            file("secret_env = \"COUNTERSIGN_NO_SUCH_VARIABLE\""),
            "bin",
            "5:14: the environment has no `COUNTERSIGN_NO_SUCH_VARIABLE`",
        ),
        (file("secret_env = \"PATH\""), "bin", "5:14: secret must begin with whsec_"),
        (
            file("secret_file = \"good.secret\"\nca_file = \"no.pem\""),
            "bin",
            "6:11: DIR/no.pem: No such file or directory (os error 2)",
        ),
        (
            file("secret_file = \"good.secret\"\nca_file = \"empty.pem\""),
            "bin",
            "6:11: ca_file holds no certificate",
        ),
    ] {
        let loaded = place.load(&text).unwrap_or_else(|why| panic!("{text}: {why:?}"));
        let failure = place.build(&loaded, &[path]).err();
        let failure = failure.unwrap_or_else(|| panic!("built:\n{text}"));
        assert_eq!(place.shown(failure), (expected.to_owned(), None), "{text}");
    }
}

#[test]
fn a_good_hook_is_registered_as_it_was_meant() {
    let place = Place::new();
    let spec = |text: &str| {
        let loaded = place.load(text).unwrap_or_else(|why| panic!("{text}: {why:?}"));
        let hooks = place.build(&loaded, &["bin"]);
        let hooks = hooks.unwrap_or_else(|why| panic!("{text}: {why:?}"));
        // What follows the @ is the digest of the code.
        let mut spec = serde_json::to_value(&hooks[0].spec).unwrap();
        let named = spec["executor_ref"].as_str().unwrap().to_owned();
        let (name, digest) = named.split_once('@').unwrap();
        assert!(countersign_core::digest::Digest::parse(digest).is_ok(), "{named}");
        spec["executor_ref"] = serde_json::Value::from(name);
        spec
    };
    let expected = |point: &str, changed: serde_json::Value| {
        let mut spec = serde_json::json!({
            "hook_id": "h",
            "point": point,
            "source": "host_config",
            "ordering": { "phase": "normal", "order": 100 },
            "execution": { "mode": "blocking" },
            "timeout": { "timeout_ms": 2000 },
            "failure": "interrupt_run",
            "mutation_rights": { "rights": ["observe"] },
            "privacy": "envelope_and_redacted_summary",
            "policy_ref": { "kind": "host", "id": "policy.hooks.h" },
            "executor_ref": "process.h",
        });
        for (name, value) in changed.as_object().unwrap() {
            spec[name] = value.clone();
        }
        spec
    };
    let queue = |capacity: u32, reserve: u32, overflow: &str| {
        serde_json::json!({
            "execution": {
                "mode": "non_blocking",
                "queue": { "capacity": capacity, "terminal_reserve": reserve },
                "overflow": overflow,
            },
            "failure": "fail_open_observe_only",
        })
    };
    // Waited for where something irreversible comes next.
    assert_eq!(spec(&hook(COMMAND)), expected("before_tool_call", serde_json::json!({})));
    // Not waited for elsewhere,
    assert_eq!(
        spec(&at_point("after_run_terminal", COMMAND)),
        expected("after_run_terminal", queue(64, 4, "drop_observe_only"))
    );
    // unless it may change something, or is told to be.
    assert_eq!(
        spec(&at_point(
            "after_tool_call",
            "command = [\"./bin/guard\"]\nrights = [\"rewrite_tool_result\"]"
        )),
        expected(
            "after_tool_call",
            serde_json::json!({
                "mutation_rights": { "rights": ["observe", "rewrite_tool_result"] },
            })
        )
    );
    assert_eq!(
        spec(&at_point(
            "after_tool_call",
            "command = [\"guard\", \"guard.py\"]\nmode = \"blocking\"\n\
             on_failure = \"fail_open_observe_only\""
        )),
        expected("after_tool_call", serde_json::json!({ "failure": "fail_open_observe_only" }))
    );
    assert_eq!(
        spec(&at_point(
            "after_tool_call",
            "command = [\"guard\"]\nqueue_capacity = 7\nterminal_reserve = 2\n\
             overflow = \"summarize_and_continue\""
        )),
        expected("after_tool_call", queue(7, 2, "summarize_and_continue"))
    );
    // Every other key.
    assert_eq!(
        spec(&hook(
            "url = \"http://127.0.0.1:1/\"\nsecret_file = \"good.secret\"\n\
             allow = [\"127.0.0.1/32\"]\nrights = [\"deny\", \"request_approval\"]\n\
             timeout_ms = 300\non_failure = \"fail_run\"\nphase = \"late\"\norder = -5\n\
             privacy = \"content_refs_only\"\npolicy = \"policy.four.eyes\""
        )),
        expected(
            "before_tool_call",
            serde_json::json!({
                "ordering": { "phase": "late", "order": -5 },
                "timeout": { "timeout_ms": 300 },
                "failure": "fail_run",
                "mutation_rights": { "rights": ["observe", "deny", "request_approval"] },
                "privacy": "content_refs_only",
                "policy_ref": { "kind": "host", "id": "policy.four.eyes" },
                "executor_ref": "webhook.h",
            })
        )
    );
}
