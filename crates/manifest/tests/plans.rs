//! What a call becomes.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::time::Instant;

use common::{argv, manifest, object};
use countersign_core::plan::{CommandPlan, Plan};
use countersign_manifest::{
    Envelope, EnvelopeStatus, Manifest, ManifestSet, OutputFormat, RiskTier, Severity,
    render_command,
};
use proptest::prelude::*;
use serde_json::json;

/// A manifest, calls of it, and the argv of each.
fn check(rest: &str, calls: &[(&str, &[&str])]) {
    let manifest = manifest(rest);
    for (args, expected) in calls {
        let planned = manifest.plan(&object(args)).unwrap_or_else(|e| panic!("{args}: {e:?}"));
        assert_eq!(argv(&planned), *expected, "{rest}\n{args}");
        assert_eq!(manifest.plan(&object(args)).as_ref(), Ok(&planned));
    }
}

const S: &str = "type = \"string\"\n";

#[test]
fn a_value_fills_one_token() {
    check(
        &format!("[args.x]\n{S}[command]\ntemplate = \"tool --a={{x}} 'b c' {{{{x}}}}\""),
        &[(r#"{"x": "1"}"#, &["tool", "--a=1", "b c", "{x}"]), ("{}", &["tool", "b c", "{x}"])],
    );
    check(
        &format!(
            "[args.x]\n{S}allow_whitespace = true\n[args.y]\n{S}\
             [command]\nexec = [\"tool\", \"{{x}}:{{y}}\", \"\"]"
        ),
        &[(r#"{"x": "a b", "y": "c"}"#, &["tool", "a b:c", ""]), (r#"{"x": "a"}"#, &["tool", ""])],
    );
    // A value that looks like a placeholder is text.
    check(
        "[args.x]\ntype = \"literal_text\"\n[args.y]\ntype = \"literal_text\"\n\
         [command]\nexec = [\"tool\", \"{x}\", \"{y}\"]",
        &[(
            r#"{"x": "{y} {_secret:k}", "y": "--help"}"#,
            &["tool", "--", "{y} {_secret:k}", "--help"],
        )],
    );
}

#[test]
fn values_come_from_the_call_then_the_command_then_the_argument() {
    check(
        &format!(
            "[args.x]\n{S}default = \"arg\"\n[args.y]\n{S}default = \"arg\"\n\
             [command]\nexec = [\"tool\", \"x={{x}}\", \"y={{y}}\", \"r={{rate}}\"]\n\
             [command.defaults]\nx = \"command\"\nrate = 1000\n"
        ),
        &[
            ("{}", &["tool", "x=command", "y=arg", "r=1000"]),
            (r#"{"x": "call"}"#, &["tool", "x=call", "y=arg", "r=1000"]),
        ],
    );
}

#[test]
fn options_end_before_the_first_operand() {
    let two = |exec: &str, more: &str| {
        format!("[args.x]\n{S}[args.y]\n{S}[command]\nexec = [\"tool\", {exec}]\n{more}")
    };
    let both = r#"{"x": "1", "y": "2"}"#;
    check(
        &two(r#""-v", "{x}", "{y}""#, ""),
        &[
            // `-v` is taken to need `x`.
            (both, &["tool", "-v", "1", "--", "2"]),
            (r#"{"y": "2"}"#, &["tool", "--", "2"]),
        ],
    );
    check(
        &two(r#""-v=1", "{x}", "{y}""#, ""),
        &[
            (both, &["tool", "-v=1", "--", "1", "2"]),
            (r#"{"y": "2"}"#, &["tool", "-v=1", "--", "2"]),
            ("{}", &["tool", "-v=1"]),
        ],
    );
    check(
        &two(r#""-v", "--", "{x}", "{y}""#, ""),
        &[(both, &["tool", "-v", "--", "1", "2"]), ("{}", &["tool", "-v", "--"])],
    );
    check(
        &two(r#""{x}", "--", "{y}""#, "end_of_options = \"--end\""),
        &[(both, &["tool", "--end", "1", "--", "2"]), (r#"{"y": "2"}"#, &["tool", "--", "2"])],
    );
    check(&two(r#""{x}", "{y}""#, "end_of_options = \"\""), &[(both, &["tool", "1", "2"])]);
    check(
        "[args.v]\ntype = \"enum\"\nallowed = [\"start\"]\n[args.n]\ntype = \"integer\"\nmin = -9\n\
         [command]\nexec = [\"tool\", \"{v}\", \"{n}\"]",
        &[(r#"{"v": "start", "n": -5}"#, &["tool", "start", "--", "-5"])],
    );
}

#[test]
fn mappings_and_conditionals_give_whole_tokens() {
    let text = r#"
[args.scan_type]
type = "enum"
allowed = ["quick", "full"]
[args.port]
type = "port"
[args.deep]
type = "boolean"
default = false
[command]
template = "tool {_scan_flags} {_deep_flags} {_on_port} {_scan_type_flags} end"
[command.mappings.scan_type]
quick = "-q"
full = "-f 'a b' --p={port}"
[command.mappings.deep]
true = "--deep"
false = ""
[command.conditionals.on_port]
when = "port != '' and (scan_type == full or deep == true)"
template = "-s {port}"
"#;
    check(
        text,
        &[
            ("{}", &["tool", "end"]),
            (r#"{"scan_type": "quick"}"#, &["tool", "-q", "-q", "end"]),
            (r#"{"port": 8, "scan_type": "quick"}"#, &["tool", "-q", "-q", "end"]),
            (r#"{"port": 8, "deep": true}"#, &["tool", "--deep", "-s", "8", "end"]),
            (
                r#"{"port": 8, "scan_type": "full"}"#,
                &["tool", "-f", "a b", "--p=8", "-s", "8", "-f", "a b", "--p=8", "end"],
            ),
            (r#"{"scan_type": "full"}"#, &["tool", "-f", "a b", "-f", "a b", "end"]),
        ],
    );
}

#[test]
fn every_bad_argument_is_named() {
    let manifest = manifest(&format!(
        "[args.a]\n{S}required = true\n[args.b]\ntype = \"port\"\n[args.c]\n{S}\
         [command]\nexec = [\"tool\", \"{{a}}\", \"{{b}}\", \"{{c}}\"]"
    ));
    let found = manifest.plan(&object(r#"{"b": 0, "c": ["x"], "d": 1}"#)).unwrap_err();
    let found: Vec<_> = found.iter().map(|p| (p.arg.as_str(), p.code)).collect();
    assert_eq!(
        found,
        [
            ("a", "missing_argument"),
            ("b", "not_a_port"),
            ("c", "wrong_type"),
            ("d", "unknown_argument"),
        ]
    );
}

#[test]
fn a_manifest_tells_about_itself() {
    let text = r#"
[tool]
name = "t"
version = "1.2.3"
description = "A tool"
binary = "tool"
timeout_seconds = 7
risk_tier = "high"
human_approval = true
[tool.limits]
nproc = 3
[tool.cedar]
resource = "A::B"
action = "c"
[args.z]
type = "path"
required = true
description = "Where"
[args.n]
type = "integer"
min = 2
max = 9
default = 3
[args.first]
position = 1
type = "enum"
allowed = ["a", "b"]
[args.q]
type = "number"
[args.w]
type = "string"
pattern = "^[a-z]+$"
[command]
exec = ["tool", "{first}", "{n}", "{q}", "{w}", "{z}"]
[output]
format = "json"
max_bytes = 99
"#;
    let (manifest, found) = Manifest::parse("t.clad.toml", text);
    let m = manifest.unwrap_or_else(|| panic!("{found:?}"));
    assert_eq!(
        (m.name(), m.version(), m.description(), m.risk_tier(), m.human_approval()),
        ("t", "1.2.3", "A tool", RiskTier::High, true)
    );
    assert_eq!(m.cedar().map(|c| (&*c.resource, &*c.action)), Some(("A::B", "c")));
    let limits = m.limits();
    assert_eq!((limits.timeout.as_secs(), limits.nproc, limits.output_max_bytes), (7, Some(3), 99));
    assert_eq!((m.output().format(), m.output().max_bytes()), (OutputFormat::Json, 99));
    assert!(m.digest().starts_with("sha256:") && m.digest().len() == 71);
    let args: Vec<_> = m.args().map(|a| (a.name(), a.type_name(), a.required())).collect();
    assert_eq!(
        args,
        [
            ("first", "enum", false),
            ("z", "path", true),
            ("n", "integer", false),
            ("q", "number", false),
            ("w", "string", false),
        ]
    );
    assert_eq!(
        m.input_schema(),
        json!({
            "type": "object",
            "properties": {
                "first": {"type": "string", "enum": ["a", "b"]},
                "z": {"type": "string", "minLength": 1, "maxLength": 4096, "description": "Where"},
                "n": {"type": "integer", "minimum": 2, "maximum": 9, "default": 3},
                "q": {"type": "number", "minimum": 0.0},
                "w": {"type": "string", "minLength": 1, "maxLength": 4096, "pattern": "^[a-z]+$"},
            },
            "required": ["z"],
            "additionalProperties": false,
        })
    );
    let planned = m.plan(&object(r#"{"z": "a/b", "q": 0.5}"#)).unwrap();
    assert_eq!(
        planned.args,
        [
            ("z".to_owned(), "a/b".to_owned()),
            ("n".to_owned(), "3".to_owned()),
            ("q".to_owned(), "0.5".to_owned()),
        ]
    );
    let Plan::Command(command) = &planned.plan else { panic!("{planned:?}") };
    assert_eq!(command.paths, ["a/b"]);
    assert!(RiskTier::Info < RiskTier::Critical);
}

#[test]
fn output_is_always_an_object() {
    let text = manifest("[command]\nexec = [\"tool\"]");
    let parse = |bytes: &[u8]| text.output().parse(bytes);
    assert_eq!(parse(b"a\n"), Ok(json!({"text": "a\n"})));
    assert_eq!(parse(b""), Ok(json!({"text": ""})));
    assert_eq!(parse(&[0xff, 0]), Ok(json!({"base64": "/wA="})));
    let json_tool = common::text("[command]\nexec = [\"tool\"]").replace("\"text\"", "\"json\"");
    let (json_tool, _) = Manifest::parse("t", &json_tool);
    let json_tool = json_tool.unwrap();
    let parse = |bytes: &[u8]| json_tool.output().parse(bytes);
    assert_eq!(parse(b"{\"a\": 1}"), Ok(json!({"a": 1})));
    assert_eq!(parse(b"[1]"), Ok(json!({"value": [1]})));
    for bad in [&b""[..], b"{", b"{} {}", &[0xff]] {
        assert!(parse(bad).is_err());
    }
}

#[test]
fn an_envelope_fits_its_schema() {
    let mut envelope = Envelope {
        status: EnvelopeStatus::Success,
        scan_id: "1".into(),
        tool: "t".into(),
        command: "tool".into(),
        duration_ms: 3,
        timestamp: "2026-01-01T00:00:00Z".into(),
        output_hash: format!("sha256:{}", "0".repeat(64)),
        exit_code: None,
        stderr: None,
        results: json!({}),
        output_file: None,
        output_truncated: None,
    };
    let schema = Envelope::output_schema();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let short = serde_json::to_value(&envelope).unwrap();
    let required: Vec<String> = serde_json::from_value(schema["required"].clone()).unwrap();
    assert_eq!(keys(&short), required);
    envelope.exit_code = Some(1);
    envelope.stderr = Some(String::new());
    envelope.output_file = Some(String::new());
    envelope.output_truncated = Some(true);
    let long = serde_json::to_value(&envelope).unwrap();
    assert_eq!(
        keys(&long),
        [
            "status",
            "scan_id",
            "tool",
            "command",
            "duration_ms",
            "timestamp",
            "output_hash",
            "exit_code",
            "stderr",
            "results",
            "output_file",
            "output_truncated",
        ]
    );
    assert_eq!(keys(&long), keys(&schema["properties"]));
    assert_eq!(short["status"], "success");
}

#[test]
fn commands_are_shown_as_one_line() {
    for (argv, expected) in [
        (vec!["git", "log", "-n", "5"], "git log -n 5"),
        (vec!["a", ""], "a ''"),
        (vec!["a", "b c"], "a 'b c'"),
        (vec!["a", "it's"], "a 'it'\\''s'"),
        (vec!["a", "$(x)"], "a '$(x)'"),
        (vec!["a", "b\nc"], "a $'b\\nc'"),
        (vec!["a", "b\u{202e}c'"], "a $'b\\u{202e}c\\''"),
        (vec!["a", "b\\n"], "a 'b\\n'"),
        (vec!["a", "b\\\nc"], "a $'b\\\\\\nc'"),
    ] {
        let argv = argv.into_iter().map(String::from).collect();
        let plan = Plan::Command(CommandPlan { argv, ..CommandPlan::default() });
        assert_eq!(render_command(&plan), expected);
    }
}

#[test]
fn one_bad_file_hides_no_good_one() {
    let good = |name: &str| {
        common::text("[command]\nexec = [\"tool\"]").replace("\"t\"", &format!("\"{name}\""))
    };
    let files = [
        ("b.clad.toml", good("b")),
        ("a.clad.toml", "not toml".to_owned()),
        ("e.clad.toml", good("twice")),
        ("c.clad.toml", good("twice")),
        ("d.clad.toml", good("d").replace("1.0.0", "1")),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text));
    let (set, found) = ManifestSet::load(files.clone());
    let names: Vec<_> = set.iter().map(|m| m.name()).collect();
    assert_eq!(names, ["b", "d"]);
    assert!(set.get("twice").is_none() && set.get("b").is_some());
    let found: Vec<_> =
        found.iter().map(|d| (d.file.as_str(), d.diagnostic.code, d.line)).collect();
    assert_eq!(
        found,
        [
            ("a.clad.toml", "syntax", 1),
            ("c.clad.toml", "duplicate_tool", 3),
            ("d.clad.toml", "version_not_semver", 4),
            ("e.clad.toml", "duplicate_tool", 3),
        ]
    );
    let mut reversed = files.to_vec();
    reversed.reverse();
    assert_eq!(ManifestSet::load(reversed).0.digest(), set.digest());
    assert_ne!(ManifestSet::default().digest(), set.digest());
}

fn examples() -> ManifestSet {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tools");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).unwrap())
    });
    let (set, found) = ManifestSet::load(files);
    assert!(found.is_empty(), "{}", found.iter().map(|d| format!("{d}\n")).collect::<String>());
    set
}

#[test]
fn the_examples_plan() {
    let set = examples();
    for (tool, args, expected) in [
        (
            "git_log",
            r#"{"repository": "my repo", "limit": 500, "revision": "main~3", "path": "src"}"#,
            "git --no-pager --no-optional-locks -C 'my repo' --git-dir=.git/ --work-tree=. \
             -c core.hooksPath=/dev/null -c core.fsmonitor=false -c protocol.allow=never -c protocol.ext.allow=never \
             -c protocol.file.allow=never -c protocol.git.allow=never -c protocol.http.allow=never \
             -c protocol.https.allow=never -c protocol.ssh.allow=never log --no-color --no-ext-diff \
             --no-textconv --no-show-signature --max-count=200 --date=short \
             '--format=%h %ad %an: %s' --end-of-options 'main~3' -- src",
        ),
        (
            "git_diff",
            r#"{"staged": true}"#,
            "git --no-pager --no-optional-locks -C . --git-dir=.git/ --work-tree=. \
             -c core.hooksPath=/dev/null -c core.fsmonitor=false -c protocol.allow=never -c protocol.ext.allow=never \
             -c protocol.file.allow=never -c protocol.git.allow=never -c protocol.http.allow=never \
             -c protocol.https.allow=never -c protocol.ssh.allow=never diff --no-color --no-ext-diff \
             --no-textconv --ignore-submodules=all --staged --",
        ),
        (
            "list_files",
            r#"{"name": "*.rs"}"#,
            r"find . -mindepth 1 -maxdepth 1 -name '*.rs' -printf '%y %s %P\n'",
        ),
        ("read_file", r#"{"path": "a"}"#, "head --bytes=65536 -- a"),
        (
            "search_text",
            r#"{"text": "-x", "ignore_case": true}"#,
            "grep --recursive --line-number --with-filename --color=never \
             --binary-files=without-match --devices=skip --exclude-dir=.git --fixed-strings \
             --ignore-case --max-count=50 --regexp=-x -- .",
        ),
        (
            "move_file",
            r#"{"from": "a", "to": "b"}"#,
            "mv --no-clobber --no-target-directory --verbose -- a b",
        ),
        ("create_directory", r#"{"path": "a/b"}"#, "mkdir --parents --verbose -- a/b"),
        (
            "disk_usage",
            "{}",
            "df --human-readable --output=source,fstype,size,used,avail,pcent -- .",
        ),
    ] {
        let manifest = set.get(tool).unwrap();
        let planned = manifest.plan(&object(args)).unwrap_or_else(|e| panic!("{tool}: {e:?}"));
        assert_eq!(render_command(&planned.plan), expected);
    }
    let waiting: Vec<_> = set.iter().filter(|m| m.human_approval()).map(|m| m.name()).collect();
    assert_eq!(waiting, ["create_directory", "git_commit", "git_diff", "git_status", "move_file"]);
    for (tool, args) in [
        ("git_log", r#"{"revision": "--output=x"}"#),
        ("git_log", r#"{"repository": "../other"}"#),
        ("read_file", r#"{"path": "/etc/passwd"}"#),
        ("git_commit", r#"{"message": " \n"}"#),
        ("search_text", r#"{"text": "a\nb"}"#),
    ] {
        assert!(set.get(tool).unwrap().plan(&object(args)).is_err(), "{tool} {args}");
    }
}

/// Five microseconds on a quiet machine in a release build; the bound leaves room for others.
#[test]
fn planning_is_cheap() {
    let set = examples();
    let manifest = set.get("git_log").unwrap();
    let args = object(
        r#"{"repository": "a", "revision": "main", "limit": 5, "style": "full", "path": "src/x"}"#,
    );
    let rounds = 2_000_u32;
    let start = Instant::now();
    for _ in 0..rounds {
        assert!(manifest.plan(&args).is_ok());
    }
    let each = start.elapsed() / rounds;
    println!("{each:?} for five arguments");
    assert!(each.as_micros() < 500, "{each:?}");
}

const HOSTILE: &str = "[ -~\\n\\t'\"\\\\;{}$`|&<>\\u{0}\\u{202e}\\u{200b}é日]{0,24}";

#[test]
fn deep_text_does_not_exhaust_the_stack() {
    for piece in ["a.", "[", "{a=", "(", "a=[", "[a.", "{a.a.a="] {
        let deep = piece.repeat(40_000);
        for text in [
            deep.clone(),
            format!("a = {deep}"),
            format!("[{deep}a]\n"),
            format!("{deep}a = 1"),
            format!("[command.conditionals.c]\nwhen = \"{deep}\""),
        ] {
            assert!(Manifest::parse("t.clad.toml", &text).0.is_none());
        }
    }
}

proptest! {
    /// No value adds, removes, splits or moves an element, whatever it is.
    #[test]
    fn a_value_stays_in_its_element(a in HOSTILE, b in HOSTILE, c in HOSTILE) {
        let manifest = manifest(
            "[args.a]\ntype = \"literal_text\"\n[args.b]\ntype = \"string\"\nallow_whitespace = true\n\
             [args.c]\ntype = \"path\"\n\
             [command]\nexec = [\"tool\", \"--b={b}\", \"--c={c}\", \"mid\", \"{a}\", \"end\"]",
        );
        let all = json!({"a": a, "b": b, "c": c});
        for (key, value) in all.as_object().unwrap() {
            let call = json!({"a": "1", "b": "2", "c": "3"});
            let mut call = call.as_object().unwrap().clone();
            call.insert(key.clone(), value.clone());
            let value = value.as_str().unwrap();
            let Ok(planned) = manifest.plan(&call) else { continue };
            let text = |name: &str, other: &'static str| {
                if key == name { value.to_owned() } else { other.to_owned() }
            };
            let expected = [
                "tool".to_owned(), format!("--b={}", text("b", "2")),
                format!("--c={}", text("c", "3")), "mid".to_owned(), "--".to_owned(),
                text("a", "1"), "end".to_owned(),
            ];
            prop_assert_eq!(argv(&planned), &expected[..]);
        }
    }

    /// Whatever is accepted as a path stays beneath where it starts.
    #[test]
    fn an_accepted_path_never_climbs(path in "[a./%2efF~:-]{1,12}") {
        let manifest = common::one("type = \"path\"");
        if manifest.plan(&object(&json!({"x": path}).to_string())).is_ok() {
            let path = std::path::Path::new(&path);
            prop_assert!(path.components().all(|c| matches!(
                c, std::path::Component::Normal(_) | std::path::Component::CurDir
            )));
        }
    }

    #[test]
    fn no_text_panics_the_parser(text in "\\PC{0,200}") {
        let (manifest, found) = Manifest::parse("t.clad.toml", &text);
        prop_assert!(manifest.is_some() || found.iter().any(|d| d.severity == Severity::Error));
    }

    /// Valid manifests with one piece replaced reach deeper than noise does.
    #[test]
    fn no_edit_panics_the_parser(
        file in 0usize..10, at in 0usize..2000, len in 0usize..30,
        piece in "[\\[\\]{}'\"=.a-z_\\\\\\n\\t0-9é-]{0,8}",
    ) {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tools");
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        let mut text = std::fs::read_to_string(&names[file % names.len()]).unwrap();
        let floor = |text: &str, mut at: usize| {
            at = at.min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let (start, end) = (floor(&text, at), floor(&text, at + len));
        text.replace_range(start..end, &piece);
        common::codes(&text);
    }
}
