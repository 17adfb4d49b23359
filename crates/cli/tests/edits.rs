//! Other arguments for a held call, with a real gateway: shown first, then exactly that runs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::common::{Gateway, World, finish, principal, wait_for};

const APPROVER: Option<&str> = Some("approver-token");

#[test]
fn what_was_shown_after_the_edit_runs_and_nothing_else() {
    let world = World::new();
    let gateway = world.start();
    let call = world.spawn_call("create_directory", &json!({"path": "asked"}));
    let hold = world.held("create_directory");
    let id = hold["id"].as_str().unwrap();
    let edit = |args: Value, more: &[&str]| {
        let args = args.to_string();
        let output = world.run(&[&["approvals", "edit", id, "--args", &args], more].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout) + &text(output.stderr))
    };
    let edited = json!({"path": "edited"});

    // A look at it changes nothing.
    let (code, text) = edit(edited.clone(), &[]);
    assert_eq!(code, Some(1), "{text}");
    for part in ["- path = asked", "+ path = edited", "Nothing has changed"] {
        assert!(text.contains(part), "{part} is missing from\n{text}");
    }
    let short = text.trim_end().rsplit(' ').next().unwrap();
    let still = world.held("create_directory");
    assert_eq!(
        (&still["status"], &still["fingerprint"]),
        (&json!("pending"), &hold["fingerprint"])
    );

    for (args, more, code, part) in [
        (json!({"path": "../out"}), &[][..], 2, "path"),
        (json!({"path": "edited", "more": 1}), &[], 2, "more"),
        (json!({"path": "asked"}), &[], 2, "same"),
        (json!({"path": "edited"}), &["--yes"], 2, "fingerprint"),
        (json!({"path": "other"}), &["--yes", "--fingerprint", short], 2, "fingerprint"),
    ] {
        let (found, text) = edit(args.clone(), more);
        assert_eq!(found, Some(code), "{args} {more:?}: {text}");
        assert!(text.contains(part), "{args} {more:?}: {text}");
    }

    let (code, text) = edit(edited, &["--yes", "--fingerprint", short, "--reason", "over there"]);
    assert!(code == Some(0) && text.contains("approved as edited"), "{code:?} {text}");
    let answer = finish(call);
    assert_eq!(answer["envelope"]["status"], "success", "{answer}");
    assert!(answer.to_string().contains("edited"), "the agent is told: {answer}");
    assert!(world.root().join("edited").is_dir() && !world.root().join("asked").exists());
    drop(gateway);

    let (whole, report) = world.verify();
    assert!(whole, "{report}");
    let story = world.text(&["journal", "tail"]);
    assert!(story.to_lowercase().contains("edited"), "{story}");
}

/// A held call of `create_directory`, and people of every role.
fn held() -> (World, Gateway, Child, Value) {
    let world = World::new();
    let roles = ["agent", "critic", "auditor", "approver", "admin"];
    world.configure(&roles.iter().map(|role| principal(role, role)).collect::<String>());
    let gateway = world.start();
    let mut call = world.command(&["call", "create_directory", "--json"]);
    call.args(["--args", r#"{"path": "asked"}"#]).env("COUNTERSIGN_TOKEN", "agent-token");
    let call = call.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let hold = wait_for("the hold", || {
        let holds = gateway.send("GET /api/v1/approvals", APPROVER, None).json();
        holds.as_array().unwrap().first().cloned()
    });
    (world, gateway, call, hold)
}

#[test]
fn only_who_may_decide_can_edit_and_what_is_no_call_is_refused() {
    let (world, gateway, call, hold) = held();
    let id = hold["id"].as_str().unwrap();
    let preview = format!("POST /api/v1/approvals/{id}/edit");
    let approve = format!("POST /api/v1/approvals/{id}/approve");
    let before = world.story();
    let edited = json!({ "arguments": { "path": "edited" } });
    let shown = gateway.send(&preview, APPROVER, Some(&edited)).json();
    let confirmed = |token: Option<&str>, arguments: Value, fingerprint: &Value| {
        let body = json!({ "arguments": arguments, "fingerprint": fingerprint });
        let answer = gateway.send(&approve, token, Some(&body));
        (answer.status, answer.json()["code"].clone())
    };
    for role in ["agent", "critic", "auditor"] {
        let token = format!("{role}-token");
        assert_eq!(gateway.send(&preview, Some(&token), Some(&edited)).status, 403, "{role}");
        let refused = confirmed(Some(&token), json!({ "path": "edited" }), &shown["fingerprint"]);
        assert_eq!(refused, (403, json!("forbidden")), "{role}");
    }
    assert_eq!(gateway.send(&preview, None, Some(&edited)).status, 401);

    let deep = format!("{{\"arguments\": {{\"path\": {}1{}}}}}", "[".repeat(200), "]".repeat(200));
    let nested = format!("{{\"arguments\": {{\"path\": {}1{}}}}}", "[".repeat(60), "]".repeat(60));
    let huge = format!("{{\"arguments\": {{\"path\": \"{}\"}}}}", "x".repeat(5 << 20));
    let long = format!("{{\"arguments\": {{\"path\": \"{}\"}}}}", "x".repeat(1 << 20));
    for (body, status, code) in [
        (deep.as_str(), 400, "bad_request"),
        (&nested, 422, "bad_arguments"),
        (&huge, 413, "too_large"),
        (&long, 422, "bad_arguments"),
        (r#"{"arguments": {"path": "e"}, "tool": "git_log"}"#, 400, "bad_request"),
        (r#"{"arguments": [{"path": "e"}]}"#, 400, "bad_request"),
        (r#"[{"path": "e"}]"#, 400, "bad_request"),
        (r#"{"arguments": {"path": "e", "__proto__": {}}}"#, 422, "bad_arguments"),
        (r#"{"arguments": {"path": "../e"}}"#, 422, "bad_arguments"),
        (r#"{"arguments": {"path": null}}"#, 422, "bad_arguments"),
        (r#"{"arguments": {}}"#, 422, "bad_arguments"),
        (r#"{"arguments": {"path": "e"}"#, 400, "bad_request"),
    ] {
        let answer = gateway.send_text(&preview, APPROVER, body);
        let text: String = body.chars().take(60).collect();
        assert_eq!(answer.status, status, "{text}: {}", answer.text());
        assert_eq!(answer.json()["code"], code, "{text}");
    }
    // Of a name that stands there twice, what is shown is what would run.
    let twice = r#"{"arguments": {"path": "one", "path": "two"}}"#;
    let twice = gateway.send_text(&preview, APPROVER, twice).json();
    assert_eq!(twice["arguments"], json!({ "path": "two" }), "{twice}");
    assert_eq!(twice["context_snapshot"]["arguments"][0]["value"], "two", "{twice}");

    let fingerprints = [&Value::Null, &hold["fingerprint"], &twice["fingerprint"]];
    for (fingerprint, code) in fingerprints.iter().zip([400, 409, 409]) {
        let refused = confirmed(APPROVER, json!({ "path": "edited" }), fingerprint);
        assert_eq!(refused.0, code, "{fingerprint}: {refused:?}");
    }
    assert_eq!(gateway.send("GET /api/v1/approvals", APPROVER, None).json(), json!([hold]));
    let refused = |kind: &String| *kind == "access_refused";
    assert!(!world.story().iter().any(refused), "of another run");
    assert_eq!(world.story(), before, "nothing of it has changed the call");

    // That somebody looks at it keeps nobody from it, and is said.
    let claim = format!("POST /api/v1/approvals/{id}/claim");
    assert_eq!(gateway.send(&claim, Some("admin-token"), None).status, 200);
    let shown = gateway.send(&preview, APPROVER, Some(&edited)).json();
    assert_eq!(shown["hold"]["claim"]["by"]["id"], "admin", "{shown}");
    let (status, _) = confirmed(APPROVER, json!({ "path": "edited" }), &shown["fingerprint"]);
    assert_eq!(status, 200);
    let answer = finish(call);
    assert_eq!(answer["envelope"]["status"], "success", "{answer}");
    assert!(world.root().join("edited").is_dir() && !world.root().join("asked").exists());
    let late = gateway.send(&preview, APPROVER, Some(&edited));
    assert_eq!((late.status, &late.json()["code"]), (409, &json!("already_resolved")));
    let none = gateway.send("POST /api/v1/approvals/none/edit", APPROVER, Some(&edited));
    assert_eq!((none.status, &none.json()["code"]), (404, &json!("not_found")));
}

#[test]
fn an_edit_shows_secrets_by_name() {
    let tool = r#"
[tool]
name = "send"
version = "1.0.0"
description = "Sends."
human_approval = true
[args.text]
type = "string"
required = true
[http]
method = "POST"
url = "http://127.0.0.1:9/send"
body_template = '{"text": "{text}", "token": "{_secret:token}"}'
[http.headers]
Authorization = "Bearer {_secret:token}"
[output]
format = "json"
"#;
    let mut world = World::with_tools(&[("send.clad.toml", tool)]);
    let secret = "a-secret-nobody-may-see";
    world.env.push(("TEST_TOKEN", secret.to_owned()));
    world.configure(
        "[http]\nallow = [\"127.0.0.1/32\"]\n[secrets]\ntoken = { env = \"TEST_TOKEN\" }\n",
    );
    let gateway = world.start();
    let call = world.spawn_call("send", &json!({"text": "asked"}));
    let hold = world.held("send");
    let id = hold["id"].as_str().unwrap();
    // Neither as it is, nor when somebody asks for it by name.
    for text in ["edited", "{_secret:token}"] {
        let args = json!({ "text": text }).to_string();
        let output = world.run(&["approvals", "edit", id, "--args", &args, "--json"]);
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(!shown.contains(secret), "{shown}");
        assert!(text != "edited" || shown.contains("{_secret:token}"), "{shown}");
    }
    let args = r#"{"text": "edited"}"#;
    let shown = world.json(&["approvals", "edit", id, "--args", args]);
    let fingerprint = shown["fingerprint"].as_str().unwrap();
    world.text(&["approvals", "edit", id, "--args", args, "--yes", "--fingerprint", fingerprint]);
    let answer = finish(call).to_string();
    assert!(!answer.contains(secret), "{answer}");
    drop(gateway);
    let (whole, report) = world.verify();
    assert!(whole, "{report}");
    let story = world.text(&["journal", "tail", "-n", "1000", "--json"]);
    assert!(story.contains("approval_edited") && !story.contains(secret), "{story}");
}
