//! `countersign contract roundtrip`, as a program sees it: bytes in, bytes out, an exit code.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const APPROVER: &str = r#"{"surface":"cli","id":"ada","display":"Ada"}"#;
const PLAN: &str = r#"{"argv":["git","log"]}"#;
const SPEC: &str = concat!(
    r#"{"hook_id":"audit.before_context","point":"before_context_assembly","source":"in_process","#,
    r#""ordering":{"phase":"normal","order":100},"execution":{"mode":"non_blocking","queue":"#,
    r#"{"capacity":64,"terminal_reserve":4},"overflow":"drop_observe_only"},"timeout":"#,
    r#"{"timeout_ms":250},"failure":"fail_open_observe_only","mutation_rights":{"rights":"#,
    r#"["observe"]},"privacy":"envelope_and_redacted_summary","policy_ref":{"kind":"#,
    r#""runtime_package","id":"policy.hooks.observe"},"executor_ref":"executor.audit.before_context"}"#
);
const HASH: &str = "sha256:84ace2312950b68b1a55135021a62c8d1d260dfeb7117bb1afc91251a6d93956";

fn roundtrip(options: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(["contract", "roundtrip"]).args(options);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that refuses its options reads nothing.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn fixture(name: &str) -> String {
    format!("{}/../../fixtures/records/v1/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn what_the_contract_writes_comes_back_byte_for_byte() {
    for name in [
        "approval-records.json",
        "hook-records.json",
        "journal-approval-dispatch-intent.json",
        "journal-hook-accepted.json",
        "journal-tool-intent.json",
    ] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let out = roundtrip(&[&fixture(name)], b"");
        assert_eq!(out.status.code(), Some(0), "{name}: {}", text(&out.stderr));
        assert_eq!(text(&out.stdout), text(&bytes), "{name}");
        assert_eq!(text(&out.stderr), "", "{name}");
    }
}

#[test]
fn documents_that_are_read() {
    let deny = r#"{"type":"deny","payload":{"code":"c","redacted_summary":"s"}}"#;
    let hashed = format!(r#"{{"spec":{SPEC},"spec_hash":"{HASH}"}}"#);
    let spread = PLAN.replace(',', " ,\r\n\t");
    let long = format!(r#"{{"argv":["{}"]}}"#, "x".repeat(200_000));
    for (why, options, input, expected) in [
        ("one document", &[][..], APPROVER.to_owned(), format!("{APPROVER}\n")),
        ("white space goes", &[], format!("\n\t{spread}  \n\n"), format!("{PLAN}\n")),
        (
            "several, on lines and not",
            &[],
            format!("{PLAN}{APPROVER} {deny}\n{SPEC}"),
            format!("{PLAN}\n{APPROVER}\n{deny}\n{SPEC}\n"),
        ),
        ("larger than any buffer", &[], format!("{long}{PLAN}"), format!("{long}\n{PLAN}\n")),
        (
            "an array is one line",
            &[],
            format!("[ {PLAN}, {APPROVER} ]"),
            format!("[{PLAN},{APPROVER}]\n"),
        ),
        ("an empty array", &[], "[ ]".to_owned(), "[]\n".to_owned()),
        ("the type by name", &["--type", "approver"], APPROVER.to_owned(), format!("{APPROVER}\n")),
        ("a hash that is right", &[], hashed.clone(), format!("{hashed}\n")),
        ("the same by name", &["--type", "hook-spec"], hashed.clone(), format!("{hashed}\n")),
        (
            "brackets and quotes in texts",
            &[],
            r#"{"argv":["]}\"[{","\\"]}{"argv":["}"]}"#.to_owned(),
            "{\"argv\":[\"]}\\\"[{\",\"\\\\\"]}\n{\"argv\":[\"}\"]}\n".to_owned(),
        ),
    ] {
        let out = roundtrip(&[options, &["-"]].concat(), input.as_bytes());
        assert_eq!(text(&out.stderr), "", "{why}");
        assert_eq!(out.status.code(), Some(0), "{why}");
        assert_eq!(text(&out.stdout), expected, "{why}");
    }
}

#[test]
fn every_type_is_told_by_its_keys() {
    for (expected, document) in [
        ("approval-decision", r#"{"decision":"denied","reason_code":"c","actor_ref":null}"#),
        ("decision", r#"{"decision":"approve","reason":null}"#),
        ("approver", APPROVER),
        ("plan", PLAN),
        ("hook-spec", SPEC),
        ("hook-response", r#"{"type":"observe_only"}"#),
        ("agent-error", r#"{"ContractViolation":{"message":"m"}}"#),
        (
            "approval-outcome",
            r#"{"approval_request_id":"a","status":"timed_out","decision":null,"reason_code":"c"}"#,
        ),
        (
            "approval-outcome",
            r#"{"approval_request_id":"a","status":"denied","decision":{"decision":"denied","reason_code":"c","actor_ref":null},"reason_code":"c"}"#,
        ),
        (
            "effect-result",
            r#"{"effect_id":"e","terminal_status":"unknown","redacted_summary":"s"}"#,
        ),
        (
            "effect-intent",
            r#"{"effect_id":"e","kind":"file_write","subject_ref":{"kind":"run","id":"r","privacy":"public"},"source":{"kind":"sdk","id":"s","trust":"trusted","privacy":"public"},"redacted_summary":"s"}"#,
        ),
        (
            "hook-input",
            r#"{"hook_id":"h","point":"run_starting","run_id":"r","agent_id":"a","source":{"kind":"sdk","id":"s","trust":"trusted","privacy":"public"},"package_fingerprint":"","view":{"privacy":"public","redacted_summary":"s"},"cancellation":{"cancelled":false}}"#,
        ),
        (
            "hook-record",
            r#"{"schema_version":1,"hook_id":"h","point":"run_starting","payload":{"type":"cancelled","invocation_id":"i"}}"#,
        ),
        (
            "approval-record",
            r#"{"record_type":"denied","record":{"request_id":"a","reason_code":"c"}}"#,
        ),
        (
            "held-action",
            r#"{"id":"a","agent_id":"a","kind":"other","summary":"s","reason":"r","context_snapshot":null,"created_at":"2026-01-01T00:00:00Z","expires_at":"2026-01-01T00:01:00Z","status":"pending"}"#,
        ),
    ] {
        let out = roundtrip(&["--json", "-"], document.as_bytes());
        let line: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(line["types"], serde_json::json!([expected]), "{line}");
        assert!(text(&out.stdout).contains(document), "{expected}");
        assert_eq!(line["dropped"], serde_json::json!([]), "{expected}");
        let named = roundtrip(&["--type", expected, "-"], document.as_bytes());
        assert_eq!(text(&named.stdout), format!("{document}\n"), "{expected}");
    }
}

#[test]
fn documents_that_are_refused() {
    let wrong = format!(r#"{{"spec":{SPEC},"spec_hash":"{}"}}"#, HASH.replace("84ac", "84ad"));
    let invalid = format!(r#"{{"spec":{},"spec_hash":"{HASH}"}}"#, SPEC.replace(":250", ":0"));
    let record = std::fs::read_to_string(fixture("journal-tool-intent.json")).unwrap();
    let late = record
        .replace(r#""payload":{"type":"tool","#, r#""payload":{"#)
        .replace(r#""status":"intent_recorded","#, r#""status":"lost","type":"tool","#);
    assert_ne!(late, record);
    let late_at = format!("<stdin>:1:{}: unknown variant `lost`", late.trim_end().len() - 1);
    for (why, options, input, at) in [
        ("nothing", &[][..], "", "<stdin>:1:1: there is no document"),
        ("white space", &[], " \n", "<stdin>:1:1: there is no document"),
        ("no JSON", &[], "nonsense", "<stdin>:1:2: expected ident"),
        ("a scalar", &[], "\n 7 ", "<stdin>:2:2: invalid type: integer `7`"),
        ("a bracket too many", &[], "{}}", "<stdin>:1:1: its keys do not tell what it is"),
        ("cut short", &[], "{\"argv\":[\n\"a\"", "<stdin>:2:3: EOF while parsing a list"),
        (
            "a line in a text",
            &[],
            "{\"argv\":\n[\"\n",
            "<stdin>:2:2: control character (\\u0000-\\u001F)",
        ),
        ("a key of nobody's", &[], "{\"x\":1}", "<stdin>:1:1: its keys do not tell what it is"),
        (
            "a type it is not",
            &["--type", "approver"],
            PLAN,
            "<stdin>:1:22: missing field `surface`",
        ),
        (
            "the second line",
            &[],
            "{\"argv\":[\"a\"]}\n  {\"surface\":\"moon\",\"id\":\"a\"}",
            "<stdin>:2:19: unknown variant `moon`",
        ),
        (
            "the second element",
            &[],
            "[{\"argv\":[\"a\"]},\n {\"surface\":\"cli\",\n\"id\":7}]",
            "<stdin>:3:6: invalid type: integer `7`",
        ),
        ("an array in an array", &[], "[\n[]]", "<stdin>:2:1: invalid type: sequence"),
        ("a type that comes late", &[], &late, &late_at),
        ("another hash", &[], &wrong, &format!("84ad{}, but the spec has {HASH}", &HASH[11..])),
        ("a hash of what is not valid", &[], &invalid, "timeout.timeout_ms is 0"),
        (
            "a hook without a name",
            &[],
            &SPEC.replace("\"audit.before_context\"", "\"\""),
            "<stdin>:1:13: HookId is empty",
        ),
    ] {
        let out = roundtrip(&[options, &["-"]].concat(), input.as_bytes());
        let said = text(&out.stderr);
        assert!(said.contains(at), "{why}: {said}");
        assert_eq!(said.lines().count(), 1, "{why}: {said}");
        assert_eq!(out.status.code(), Some(1), "{why}");
    }
    let out = roundtrip(&["-"], b"{\"argv\":\n[\"\xff\"]}");
    assert!(text(&out.stderr).starts_with("<stdin>:2:3: this is not UTF-8"));
}

#[test]
fn what_the_contract_does_not_know_is_left_out_and_named() {
    for (document, warning) in [
        (r#"{"argv":["a"],"x":1}"#, "$.x"),
        (r#"{"argv":["a"],"x":null,"y":[]}"#, "$.x, $.y"),
        (r#"[{"argv":["a"]},{"argv":["a"],"a b":1}]"#, "$[1][\"a b\"]"),
        (
            r#"{"effect_id":"e","terminal_status":"failed","error_ref":null,"content_refs":[],"redacted_summary":"s","more":{"x":1}}"#,
            "$.more",
        ),
        (r#"{"argv":[],"\u001b[2J":1}"#, r#"$["\u001b[2J"]"#),
        (
            r#"{"argv":[],"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1}"#,
            "$.a, $.b, $.c, $.d, $.e, $.f, $.g, $.h, $.i, $.j and 2 more",
        ),
    ] {
        let out = roundtrip(&["-"], document.as_bytes());
        assert_eq!(out.status.code(), Some(0), "{document}");
        let expected = format!("<stdin>:1:1: warning: not of the contract, left out: {warning}\n");
        assert_eq!(text(&out.stderr), expected, "{document}");
        assert!(!text(&out.stdout).contains('x'), "{document}");
    }
    let known = r#"{"effect_id":"e","terminal_status":"failed","error_ref":null,"content_refs":[],"redacted_summary":"s"}"#;
    let out = roundtrip(&["-"], known.as_bytes());
    assert_eq!(text(&out.stderr), "", "empty is not unknown");
    let unknown = std::fs::read_to_string(fixture("journal-tool-intent.json"))
        .unwrap()
        .replace(r#"{"type":"tool","#, r#"{"type":"loom","#);
    let out = roundtrip(&["-"], unknown.as_bytes());
    assert_eq!(text(&out.stdout), unknown, "an unknown payload is kept whole");
    assert_eq!(text(&out.stderr), "");
}

#[test]
fn one_bad_file_does_not_hide_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (bad, good) = (file("bad", &format!("{PLAN}\n{{}}\n{PLAN}")), file("good", APPROVER));
    let out = roundtrip(&[&bad, &good], b"");
    assert_eq!(text(&out.stdout), format!("{PLAN}\n{APPROVER}\n"));
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).starts_with(&format!("{bad}:2:1: ")));

    let absent = dir.path().join("absent");
    let out = roundtrip(&[absent.to_str().unwrap(), &good], b"");
    assert_eq!(text(&out.stdout), format!("{APPROVER}\n"));
    assert_eq!(out.status.code(), Some(2), "a file that cannot be read at all");
    let folder: &Path = dir.path();
    assert_eq!(roundtrip(&[folder.to_str().unwrap()], b"").status.code(), Some(2));
    assert_eq!(roundtrip(&["--type", "nothing", "-"], b"").status.code(), Some(2));
    assert_eq!(roundtrip(&[], b"").status.code(), Some(2));
}

#[test]
fn for_machines_every_document_is_a_line() {
    let out = roundtrip(
        &["--json", "-"],
        format!("{{\"x\":1,\"argv\":[]}}\n {APPROVER} {{}}").as_bytes(),
    );
    let lines: Vec<Value> =
        text(&out.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(text(&out.stderr), "");
    assert_eq!(
        lines,
        [
            serde_json::json!({"file": "<stdin>", "line": 1, "column": 1, "types": ["plan"],
                "dropped": ["$.x"], "document": {"argv": []}}),
            serde_json::json!({"file": "<stdin>", "line": 2, "column": 2, "types": ["approver"],
                "dropped": [], "document": serde_json::from_str::<Value>(APPROVER).unwrap()}),
            serde_json::json!({"file": "<stdin>", "line": 2, "column": 47,
                "error": "its keys do not tell what it is; name that with --type"}),
        ]
    );
}

#[test]
fn a_refusal_is_told_by_the_exit_code_though_nobody_hears_it() {
    for deaf in ["out", "err"] {
        let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(["contract", "roundtrip", "-"]).stdin(Stdio::piped());
        match deaf {
            "out" => command.stdout(full()).stderr(Stdio::null()),
            _ => command.stdout(Stdio::null()).stderr(full()),
        };
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("{APPROVER}\n{{\"surface\":\"nowhere\"}}").as_bytes()).unwrap();
        drop(stdin);
        assert_eq!(child.wait().unwrap().code(), Some(1), "std{deaf}");
    }
}

#[test]
fn a_document_of_many_unknown_fields_is_read_at_once() {
    let unknown: String = (0..20_000).map(|n| format!(r#","x{n}":null"#)).collect();
    let document = APPROVER.replace('}', &format!("{unknown}}}"));
    let out = roundtrip(&["-"], document.as_bytes());
    assert_eq!((out.status.code(), text(&out.stdout).trim()), (Some(0), APPROVER));
    let warning = text(&out.stderr);
    assert!(warning.contains("$.x0, ") && warning.ends_with(" and others\n"), "{warning}");
}
