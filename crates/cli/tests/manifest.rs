//! `countersign manifest`, as a program sees it: files in, text or JSON out, an exit code.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

const GOOD: &str = "[tool]\nname = \"t\"\nversion = \"1.0.0\"\ndescription = \"A tool\"\n\
    binary = \"tool\"\n\n[args.x]\ntype = \"string\"\nrequired = true\n\n[command]\n\
    exec = [\"tool\", \"{x}\"]\n\n[output]\n\n[output.schema]\ntype = \"object\"\n";

struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {} {}", self.out, self.err))
    }
}

fn run(dir: &Path, args: &[&str]) -> Run {
    // Whatever waits for ever is ended, with another exit code than any here.
    let mut command = Command::new("timeout");
    command.args(["120", env!("CARGO_BIN_EXE_countersign"), "manifest"]).args(args);
    let output = command.current_dir(dir).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

#[test]
fn plan_accepts_and_rejects_in_the_forms_of_the_format() {
    let dir = folder(&[("t.clad.toml", GOOD), ("bad.clad.toml", &GOOD.replace("{x}", "{y}"))]);
    let plan = |file, args| run(dir.path(), &["plan", file, "--args", args, "--json"]);
    let accepted = plan("t.clad.toml", r#"{"x": "a"}"#);
    assert_eq!(accepted.code, 0);
    assert_eq!(
        accepted.json(),
        json!({"decision": "accept", "plan": {"argv": ["tool", "--", "a"]}})
    );
    for (args, code, arg) in [
        (r#"{"x": "a;b"}"#, "shell_character", "x"),
        ("{}", "missing_argument", "x"),
        (r#"{"x": "a", "y": 1}"#, "unknown_argument", "y"),
        (r#"{"x": "a", "x": "b"}"#, "duplicate_argument", "x"),
        (r#"{"x": 1e999}"#, "not_finite", "x"),
        (r#"{"x": 1e-999}"#, "rounds_to_zero", "x"),
        (r#"{"x": "\ud800"}"#, "unreadable_value", "x"),
        (r#"{"x": "a\udc00b"}"#, "unreadable_value", "x"),
    ] {
        let refused = plan("t.clad.toml", args);
        let found = refused.json();
        assert_eq!((refused.code, &found["decision"]), (1, &json!("reject")), "{args}");
        let found = &found["diagnostics"][0];
        assert_eq!((&found["code"], &found["arg"]), (&json!(code), &json!(arg)), "{args}");
        assert!(found["message"].is_string());
    }
    let broken = plan("bad.clad.toml", r#"{"x": "a"}"#);
    assert_eq!(broken.code, 1);
    assert_eq!(broken.json()["diagnostics"][0]["code"], "unknown_placeholder");
    for (args, code) in [
        ("[]", "not_an_object"),
        ("null", "not_an_object"),
        ("\"x\"", "not_an_object"),
        ("", "bad_json"),
        ("{", "bad_json"),
        ("{} {}", "bad_json"),
        (r#"{"x": NaN}"#, "bad_json"),
    ] {
        let refused = plan("t.clad.toml", args);
        let found = refused.json();
        assert_eq!((refused.code, &found["decision"]), (1, &json!("reject")), "{args}");
        let found = &found["diagnostics"][0];
        assert_eq!((&found["code"], &found["arg"]), (&json!(code), &Value::Null), "{args}");
        assert!(found["message"].is_string());
        let text = run(dir.path(), &["plan", "t.clad.toml", "--args", args]);
        assert!(text.out.starts_with("the arguments are no JSON"), "{}", text.out);
    }
    assert_eq!(plan("nothing.clad.toml", "{}").code, 2);
    let text = run(dir.path(), &["plan", "t.clad.toml", "--args", r#"{"x": "a"}"#]);
    assert_eq!((text.code, text.out.as_str()), (0, "tool -- a\n"));
}

#[test]
fn types_and_scope_are_found_beside_the_manifest_or_named() {
    let typed = GOOD.replace("type = \"string\"", "type = \"host\"");
    let types = "[types.host]\nbase = \"scope_target\"\nscope_check = true\n";
    let scope = "[scope]\ndomains = [\"example.com\"]\n";
    for files in [
        vec![("t.clad.toml", typed.as_str()), ("toolclad.toml", types), ("scope.toml", scope)],
        vec![
            ("t.clad.toml", typed.as_str()),
            ("toolclad.toml", types),
            ("scope/scope.toml", scope),
        ],
        vec![("t.clad.toml", typed.as_str()), ("a/types", types), ("a/scope", scope)],
    ] {
        let dir = folder(&files);
        let named = ["--types", "a/types", "--scope", "a/scope"];
        let options: &[&str] = if files[1].0 == "a/types" { &named } else { &[] };
        let check = run(dir.path(), &[&["check", "t.clad.toml", "--json"], options].concat());
        assert_eq!((check.code, &check.json()["diagnostics"]), (0, &json!([])), "{}", check.out);
        for (host, code) in [("example.com", 0), ("evil.com", 1)] {
            let args = json!({"x": host}).to_string();
            let plan =
                run(dir.path(), &[&["plan", "t.clad.toml", "--args", &args], options].concat());
            assert_eq!(plan.code, code, "{host}: {}{}", plan.out, plan.err);
        }
    }
    let dir =
        folder(&[("t.clad.toml", &typed), ("toolclad.toml", "[types.host]\nbase = \"hots\"\n")]);
    let found = run(dir.path(), &["check", ".", "--json"]);
    let codes: Vec<_> = found.json()["diagnostics"].as_array().unwrap().to_vec();
    let codes: Vec<_> = codes.iter().map(|d| (d["file"].clone(), d["code"].clone())).collect();
    assert_eq!(found.code, 1);
    assert_eq!(
        json!(codes),
        json!([["./t.clad.toml", "unknown_type"], ["./toolclad.toml", "unknown_type"]])
    );
}

#[test]
fn check_reports_every_file_in_order_as_text_json_and_sarif() {
    let dir = folder(&[
        ("b.clad.toml", GOOD),
        ("a.clad.toml", &GOOD.replace("\"t\"", "\"T\"")),
        ("c.clad.toml", &GOOD.replace("\"t\"", "\"u\"").replace("1.0.0", "1")),
    ]);
    std::fs::write(dir.path().join("d.clad.toml"), b"\xff").unwrap();
    // Neither can be read, and neither hides the others.
    std::fs::create_dir(dir.path().join("e.clad.toml")).unwrap();
    std::os::unix::fs::symlink("f.clad.toml", dir.path().join("f.clad.toml")).unwrap();
    let text = run(dir.path(), &["check", "."]);
    assert_eq!(text.code, 1);
    let lines: Vec<_> = text.out.lines().map(|l| l.split(':').next().unwrap()).collect();
    assert_eq!(lines[..3], ["./a.clad.toml", "./c.clad.toml", "./d.clad.toml"]);
    assert_eq!(lines[3..5], ["./e.clad.toml", "./f.clad.toml"]);
    assert_eq!(lines[5], "6 files, 2 tools, 4 errors, 1 warning");
    let json = run(dir.path(), &["check", ".", "--json"]).json();
    assert_eq!((&json["ok"], &json["tools"]), (&json!(false), &json!(["t", "u"])));
    let sarif = run(dir.path(), &["check", ".", "--sarif"]);
    let sarif_json = sarif.json();
    let first = &sarif_json["runs"][0]["results"][0];
    assert_eq!((sarif.code, &first["ruleId"]), (1, &json!("bad_name")));
    let region = &first["locations"][0]["physicalLocation"]["region"];
    assert_eq!(
        *region,
        json!({"startLine": 2, "startColumn": 8, "byteOffset": 14, "byteLength": 3})
    );
    assert_eq!(run(dir.path(), &["check", "b.clad.toml"]).code, 0);
    // A name that leads nowhere hides nothing either.
    for paths in [vec!["nothing"], vec!["nothing", "b.clad.toml"]] {
        let found = run(dir.path(), &[&["check", "--json"], paths.as_slice()].concat());
        let json = found.json();
        assert_eq!((found.code, json["diagnostics"].as_array().unwrap().len()), (2, 1), "{json}");
        let first = &json["diagnostics"][0];
        assert_eq!((&first["file"], &first["code"]), (&json!("nothing"), &json!("unreadable")));
        assert_eq!(json["tools"].as_array().unwrap().len(), paths.len() - 1);
    }
}

/// Of a manifest with its own scope, which is no other's.
fn scoped() -> String {
    let typed = GOOD.replace("type = \"string\"", "type = \"scope_target\"\nscope_check = true");
    format!("{typed}\n[scope]\ntargets = [\"10.0.0.0/8\"]\n")
}

#[test]
fn a_scope_that_cannot_be_read_or_is_there_twice_refuses_whatever_needs_one() {
    let scope = "[scope]\ntargets = [\"10.0.0.0/8\"]\n";
    let typo = "[scope]\ntargets = [\"10.0.0.0/8\"]\nexclud = [\"10.9.0.0/16\"]\n";
    let (long, own) = ("#".repeat((1 << 20) + 1), scoped());
    // What stands beside the manifest, the code, and in which file; none: all is well.
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<(&'a str, &'a str)>);
    let cases: &[Case] = &[
        (&[("scope.toml", scope)], None),
        (&[("scope/scope.toml", scope)], None),
        (&[("toolclad.toml", scope)], None),
        (&[("scope.toml", scope), ("toolclad.toml", "[types]\n")], None),
        (&[("scope.toml", typo)], Some(("unknown_key", "scope.toml"))),
        (&[("scope/scope.toml", typo)], Some(("unknown_key", "scope/scope.toml"))),
        (&[("toolclad.toml", typo)], Some(("unknown_key", "toolclad.toml"))),
        (&[("scope.toml", "")], Some(("missing_table", "scope.toml"))),
        (&[("scope.toml", "[scope")], Some(("syntax", "scope.toml"))),
        (&[("scope.toml", &long)], Some(("too_large", "scope.toml"))),
        (&[("toolclad.toml", "[scop]\ntargets = []\n")], Some(("unknown_table", "toolclad.toml"))),
        (&[("toolclad.toml", "[scope")], Some(("syntax", "toolclad.toml"))),
        (&[("scope.toml/x", "")], Some(("unreadable", "scope.toml"))),
        (&[("scope/scope.toml/x", "")], Some(("unreadable", "scope/scope.toml"))),
        (
            &[("scope.toml", scope), ("scope/scope.toml", scope)],
            Some(("several_scopes", "scope/scope.toml")),
        ),
        (
            &[("scope.toml", scope), ("toolclad.toml", scope)],
            Some(("several_scopes", "toolclad.toml")),
        ),
        (
            &[("scope/scope.toml", typo), ("toolclad.toml", scope)],
            Some(("unknown_key", "scope/scope.toml")),
        ),
        (&[("scope.toml", "\u{0}dangling")], Some(("unreadable", "scope.toml"))),
        (&[("toolclad.toml", "\u{0}dangling")], Some(("unreadable", "toolclad.toml"))),
        (&[("scope", "\u{0}dangling")], Some(("unreadable", "scope/scope.toml"))),
        (&[("scope.toml", "\u{0}bytes")], Some(("not_utf8", "scope.toml"))),
        (&[("scope.toml", "\u{0}fifo")], Some(("unreadable", "scope.toml"))),
        (&[("toolclad.toml", "\u{0}fifo")], Some(("unreadable", "toolclad.toml"))),
    ];
    for (beside, wrong) in cases {
        // Also in a folder that is itself called `scope`, and by another spelling.
        for (place, spelling) in [("tools", "tools"), ("scope", "./scope//"), ("tools", "tools/")] {
            let dir = folder(&[]);
            let at = dir.path().join(place);
            std::fs::create_dir(&at).unwrap();
            for (name, text) in beside.iter().chain([&("t.clad.toml", own.as_str())]) {
                let path = at.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                match *text {
                    "\u{0}dangling" => std::os::unix::fs::symlink("nowhere", path).unwrap(),
                    "\u{0}bytes" => std::fs::write(path, b"[scope]\n# \xff\n").unwrap(),
                    "\u{0}fifo" => pipe(&path),
                    text => std::fs::write(path, text).unwrap(),
                }
            }
            let file = format!("{spelling}/t.clad.toml");
            let args = ["plan", &file, "--args", r#"{"x": "10.1.2.3"}"#, "--json"];
            let plan = run(dir.path(), &args);
            for path in [spelling, &file] {
                let check = run(dir.path(), &["check", path, "--json"]);
                let found = check.json()["diagnostics"].clone();
                let Some((code, name)) = wrong else {
                    assert_eq!((check.code, &found), (0, &json!([])), "{beside:?}");
                    continue;
                };
                assert_eq!(check.code, 1, "{beside:?}: {found}");
                let told = |d: &Value| {
                    d["code"] == *code
                        && d["file"].as_str().unwrap().ends_with(&format!("{place}/{name}"))
                };
                assert!(found.as_array().unwrap().iter().any(told), "{beside:?}: {found}");
            }
            if let Some((code, _)) = wrong {
                let found = plan.json();
                assert_eq!((plan.code, &found["decision"]), (1, &json!("reject")), "{beside:?}");
                let found = &found["diagnostics"];
                assert_eq!(found[0]["code"], "no_scope", "{beside:?}: {found}");
                assert!(
                    found[0]["message"].as_str().unwrap().contains("it is broken: "),
                    "{found}"
                );
                assert!(found.as_array().unwrap().iter().any(|d| d["code"] == *code), "{found}");
            } else {
                assert_eq!(plan.code, 0, "{beside:?}: {}{}", plan.out, plan.err);
            }
        }
    }
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_pipe_a_folder_or_a_flood_in_place_of_a_manifest_is_a_finding_of_that_file() {
    let dir = folder(&[("t.clad.toml", GOOD), ("huge.clad.toml", "")]);
    let huge = std::fs::File::create(dir.path().join("huge.clad.toml")).unwrap();
    huge.set_len(1 << 40).unwrap();
    pipe(&dir.path().join("pipe.clad.toml"));
    std::fs::create_dir(dir.path().join("dir.clad.toml")).unwrap();
    let expected = json!([
        ["./dir.clad.toml", "unreadable"],
        ["./huge.clad.toml", "too_large"],
        ["./pipe.clad.toml", "unreadable"],
    ]);
    for (args, code) in [(["check", ".", "--json"], 1), (["fmt", ".", "--json"], 1)] {
        let found = run(dir.path(), &args);
        let json = found.json();
        let told = json["diagnostics"].as_array().unwrap().iter();
        let told: Vec<_> = told.map(|d| json!([d["file"], d["code"]])).collect();
        assert_eq!((found.code, json!(told)), (code, expected.clone()), "{args:?}");
    }
    for file in ["pipe.clad.toml", "dir.clad.toml"] {
        let plan = run(dir.path(), &["plan", file, "--args", "{}", "--json"]);
        assert_eq!((plan.code, plan.out.as_str()), (2, ""), "{file}");
    }
}

#[test]
fn fmt_replaces_whole_files_keeps_their_mode_and_goes_on_after_an_error() {
    use std::os::unix::fs::PermissionsExt as _;
    let messy = GOOD.replace("name = ", "name=");
    let dir = folder(&[("a.clad.toml", "[tool"), ("b.clad.toml", &messy), ("real/c", &messy)]);
    std::os::unix::fs::symlink("real/c", dir.path().join("c.clad.toml")).unwrap();
    let b = dir.path().join("b.clad.toml");
    std::fs::set_permissions(&b, std::fs::Permissions::from_mode(0o604)).unwrap();
    // Whoever has the file open reads the old text to its end, not half of the new one.
    let mut open = std::fs::File::open(&b).unwrap();
    let found = run(dir.path(), &["fmt", ".", "nothing", "--json"]);
    assert_eq!(found.code, 2, "{}", found.out);
    assert_eq!(found.json()["changed"], json!(["./b.clad.toml", "./c.clad.toml"]));
    let codes: Vec<_> = found.json()["diagnostics"].as_array().unwrap().to_vec();
    let codes: Vec<_> = codes.iter().map(|d| json!([d["file"], d["code"]])).collect();
    assert_eq!(json!(codes), json!([["nothing", "unreadable"], ["./a.clad.toml", "syntax"]]));
    let mut old = String::new();
    std::io::Read::read_to_string(&mut open, &mut old).unwrap();
    assert_eq!(old, messy);
    assert_eq!(std::fs::read_to_string(&b).unwrap(), GOOD);
    assert_eq!(std::fs::metadata(&b).unwrap().permissions().mode() & 0o777, 0o604);
    assert!(dir.path().join("c.clad.toml").symlink_metadata().unwrap().is_symlink());
    assert_eq!(std::fs::read_to_string(dir.path().join("real/c")).unwrap(), GOOD);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
    assert_eq!(run(dir.path(), &["fmt", "."]).code, 1);
}

#[test]
fn the_other_subcommands_do_what_they_say() {
    let dir = folder(&[("t.clad.toml", GOOD)]);
    let mcp = run(dir.path(), &["mcp", "t.clad.toml", "--json"]).json();
    assert_eq!(mcp["inputSchema"]["additionalProperties"], false);
    let schema = run(dir.path(), &["schema"]).json();
    assert_eq!(schema["additionalProperties"], false);
    for (value, code, word) in [("a", 0, "accepted"), ("-a", 1, "leading_dash")] {
        let found = run(dir.path(), &["explain", "t.clad.toml", "x", value]);
        assert_eq!(found.code, code);
        assert!(found.out.contains(word), "{}", found.out);
    }
    assert_eq!(run(dir.path(), &["explain", "t.clad.toml", "y", "a"]).code, 2);
    let bare = GOOD.replace("[args.x]\ntype = \"string\"\nrequired = true\n", "");
    let bare = bare.replace(", \"{x}\"", "");
    let port = GOOD.replace("\"string\"", "\"port\"");
    let others = folder(&[("bare.clad.toml", &bare), ("port.clad.toml", &port)]);
    let none = run(others.path(), &["explain", "bare.clad.toml", "y", "a"]);
    assert!(none.err.contains("it has none"), "{}", none.err);
    let port = run(others.path(), &["explain", "port.clad.toml", "x", "0"]);
    assert!(port.out.starts_with("x, of the type port:\n"), "{}", port.out);
    let why = "refused: x: 0 is not between 1 and 65535 (not_a_port)\n";
    assert!(port.out.ends_with(why), "{}", port.out);

    let messy = GOOD.replace("name = ", "name=").replace("[args.x]", "# why\n[args.x]");
    std::fs::write(dir.path().join("t.clad.toml"), &messy).unwrap();
    assert_eq!(run(dir.path(), &["fmt", "--check", "."]).code, 1);
    assert_eq!(run(dir.path(), &["fmt", "."]).code, 0);
    let text = std::fs::read_to_string(dir.path().join("t.clad.toml")).unwrap();
    assert_eq!(text, GOOD.replace("[args.x]", "# why\n[args.x]"));
    assert_eq!(run(dir.path(), &["fmt", "--check", "."]).code, 0);
}

#[test]
fn what_is_imported_loads_and_never_writes_over_a_file() {
    let list = json!({"result": {"tools": [{
        "name": "read-File", "description": "Read \u{202e} it",
        "inputSchema": {"properties": {"path": {"type": "string"}, "n": {"type": "integer"}},
                        "required": ["path"]},
    }]}});
    let api = json!({
        "servers": [{"url": "https://api.example.com/v1"}],
        "paths": {"/users/{userId}": {"post": {
            "operationId": "addUser",
            "parameters": [
                {"name": "userId", "in": "path", "required": true, "schema": {"type": "integer"}},
                {"name": "fields", "in": "query", "schema": {"type": "string"}},
            ],
            "requestBody": {"content": {"application/json": {"schema": {
                "properties": {"na{me": {"type": "string"}, "age": {"type": "integer"}},
            }}}},
        }}},
    });
    let help = "Show things.\nUsage: show [OPTIONS]\n  -n, --number <N>  How many\n  \
                -q, --quiet       Say less\n      --help  Print help\n";
    let dir = folder(&[
        ("list.json", &list.to_string()),
        ("api.json", &api.to_string()),
        ("help.txt", help),
    ]);
    for args in [
        vec!["import", "mcp", "--server", "files", "list.json", "--out", "tools"],
        vec!["import", "openapi", "api.json", "--out", "tools"],
        vec!["import", "help", "show", "help.txt", "--out", "tools"],
    ] {
        let found = run(dir.path(), &args);
        assert_eq!(found.code, 0, "{args:?}: {}", found.err);
        let again = run(dir.path(), &args);
        let why = (again.err.contains("is there, and"), again.err.contains("--out"));
        assert_eq!((again.code, why), (2, (true, true)), "{args:?}: {}", again.err);
    }
    let check = run(dir.path(), &["check", "tools", "--json"]);
    assert_eq!(check.json()["tools"], json!(["add_user", "read_file", "show"]), "{}", check.out);
    assert_eq!(check.code, 0);
    let plan = |tool: &str, args: &Value| {
        let file = format!("tools/{tool}.clad.toml");
        let found = run(dir.path(), &["plan", &file, "--args", &args.to_string(), "--json"]);
        found.json()["plan"].clone()
    };
    let upstream = plan("read_file", &json!({"path": "a", "n": 1}));
    assert_eq!(
        upstream,
        json!({"server": "files", "tool": "read-File", "arguments": {"path": "a", "n": 1}})
    );
    let request = plan("add_user", &json!({"user_id": 7, "na_me": "x", "age": 3}));
    assert_eq!(request["url"], "https://api.example.com/v1/users/7");
    assert_eq!(request["body"], json!(["{\"na{me\":\"x\",\"age\":3}"]));
    let command = plan("show", &json!({"number": "3", "quiet": true}));
    assert_eq!(command["argv"], json!(["show", "--number=3", "--quiet"]));
}
