//! The whole journey with clients nobody here wrote: the official Python and TypeScript MCP
//! clients, over HTTP and over standard input and output, and a browser.
//!
//! `cargo xtask e2e` provides them and runs this.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "e2e/critics.rs"]
mod critics;
#[path = "e2e/servers.rs"]
mod servers;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use countersign_audit::key::PublicKey;
use countersign_audit::receipt::Receipt;
use serde_json::{Value, json};

use crate::common::{BINARY, Gateway, World, finish, wait_for};

fn provided(name: &str) -> PathBuf {
    let value = std::env::var_os(name);
    PathBuf::from(value.unwrap_or_else(|| panic!("{name} is not set; run `cargo xtask e2e`")))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Client {
    Python,
    TypeScript,
}

const CLIENTS: [Client; 2] = [Client::Python, Client::TypeScript];

impl Client {
    fn command(self) -> Command {
        let scripts = common::repository().join("tests/e2e");
        match self {
            Self::Python => {
                let mut command = Command::new(provided("COUNTERSIGN_E2E_PYTHON"));
                command.arg(scripts.join("client.py"));
                command
            }
            Self::TypeScript => {
                let project = provided("COUNTERSIGN_E2E_NODE_DIR");
                let mut command = Command::new("node");
                command.arg(project.join("client.mjs"));
                command
            }
        }
    }

    fn over_http(self, gateway: &Gateway, args: &[&str]) -> Child {
        self.over_http_as(gateway, gateway.token(), args)
    }

    fn over_http_as(self, gateway: &Gateway, token: &str, args: &[&str]) -> Child {
        self.command()
            .args(args)
            .args(["--http", gateway.mcp(), "--token", token])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn over_stdio(self, world: &World, args: &[&str]) -> Child {
        let state = world.state();
        let serve = world.serve_args();
        self.command()
            .current_dir(world.dir.path())
            .args(args)
            .args(["--stdio", BINARY, "--state", state.to_str().unwrap()])
            .args(serve)
            .arg("--stdio")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{result}"))
}

fn check_receipt(world: &World, result: &Value) {
    let receipt = &result["_meta"]["countersign/receipt"];
    let receipt: Receipt = serde_json::from_value(receipt.clone()).unwrap_or_else(|error| {
        panic!("{error}: {result}");
    });
    let key = std::fs::read_to_string(world.state().join("log.pub")).unwrap();
    receipt.verify(&PublicKey::parse(&key).unwrap()).unwrap();
    assert!(receipt.record.contains(result["_meta"]["countersign/call"].as_str().unwrap()));
}

fn journey(world: &World, call: impl Fn(&[&str]) -> Child) {
    let tools = finish(call(&["list"]));
    let tools = tools["tools"].as_array().unwrap_or_else(|| panic!("{tools}"));
    let log = tools.iter().find(|tool| tool["name"] == "git_log").unwrap();
    assert_eq!(log["inputSchema"]["additionalProperties"], false);
    assert!(log["outputSchema"]["properties"]["scan_id"].is_object());

    let allowed = finish(call(&["call", "git_log", r#"{"limit": 5}"#]));
    assert_ne!(allowed["isError"], true, "{allowed}");
    assert_eq!(allowed["structuredContent"]["status"], "success");
    assert!(text(&allowed).contains("first commit"));
    check_receipt(world, &allowed);

    let bad = finish(call(&["call", "git_log", r#"{"limit": "x", "nope": 1}"#]));
    assert_eq!(bad["isError"], true);
    assert!(text(&bad).contains("limit") && text(&bad).contains("nope"), "{bad}");
    check_receipt(world, &bad);

    let unknown = finish(call(&["call", "no_such_tool", "{}"]));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
}

fn held_calls(world: &World, call: impl Fn(&[&str]) -> Child) {
    let held = call(&["call", "create_directory", r#"{"path": "made"}"#]);
    let hold = world.held("create_directory");
    assert_eq!(hold["context_snapshot"]["command"], hold["summary"]);
    let id = hold["id"].as_str().unwrap();
    world.text(&["approvals", "approve", id]);
    let result = finish(held);
    assert_ne!(result["isError"], true, "{result}");
    assert!(world.root().join("made").is_dir());
    check_receipt(world, &result);

    let denied = call(&["call", "create_directory", r#"{"path": "other"}"#]);
    let id = world.held("create_directory")["id"].as_str().unwrap().to_owned();
    world.text(&["approvals", "deny", &id, "--reason", "not today"]);
    let result = finish(denied);
    assert_eq!(result["isError"], true, "{result}");
    assert!(text(&result).contains("denied by Operator: not today"), "{result}");
    assert_eq!(result["structuredContent"]["status"], "denied");
    assert!(!world.root().join("other").exists());
    check_receipt(world, &result);
}

#[test]
fn the_journey_over_http() {
    for client in CLIENTS {
        let world = World::new();
        let gateway = world.start();
        journey(&world, |args| client.over_http(&gateway, args));
        held_calls(&world, |args| client.over_http(&gateway, args));
        let story = world.text(&["journal", "tail", "-n", "100"]);
        for part in ["Run started", "Approved by Operator", "Denied by Operator  “not today”"] {
            assert!(story.contains(part), "{part} is missing from\n{story}");
        }
        assert_eq!(gateway.stop().0, Some(0));
        let (whole, report) = world.verify();
        assert!(whole, "{report}");
    }
}

#[test]
fn the_journey_over_stdio() {
    for client in CLIENTS {
        let world = World::new();
        journey(&world, |args| client.over_stdio(&world, args));
        held_calls(&world, |args| client.over_stdio(&world, args));
        let (whole, report) = world.verify();
        assert!(whole, "{report}");
    }
}

#[test]
fn a_deadline_is_an_error_result_that_says_so() {
    for client in CLIENTS {
        let world = World::new();
        world.configure("[policy]\napproval_timeout_seconds = 2\n");
        let gateway = world.start();
        let result = finish(
            client.over_http(&gateway, &["call", "create_directory", r#"{"path": "made"}"#]),
        );
        assert_eq!(result["isError"], true, "{result}");
        assert!(text(&result).contains("deadline"), "{result}");
        assert!(!world.root().join("made").exists());
    }
}

#[test]
fn rest_lists_shows_and_decides_what_an_mcp_client_is_waiting_for() {
    let world = World::new();
    let gateway = world.start();
    let held =
        Client::TypeScript.over_http(&gateway, &["call", "create_directory", r#"{"path": "a"}"#]);
    let hold = world.held("create_directory");
    let token = std::fs::read_to_string(world.state().join("credentials/approver.token")).unwrap();
    let api = gateway.banner["api"].as_str().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (listed, decided) = runtime.block_on(async {
        let get = client.get(format!("{api}/approvals")).bearer_auth(&token);
        let listed: Value = get.send().await.unwrap().json().await.unwrap();
        let url = format!("{api}/approvals/{}/approve", hold["id"].as_str().unwrap());
        let post = client.post(url).bearer_auth(&token).json(&json!({"reason": "fine"}));
        let decided: Value = post.send().await.unwrap().json().await.unwrap();
        (listed, decided)
    });
    assert_eq!(listed, json!([hold]));
    assert_eq!(decided["status"], "approved", "{decided}");
    assert_eq!(decided["decision"]["approver"]["surface"], "rest");
    assert_ne!(finish(held)["isError"], true);
}

#[test]
fn a_person_decides_in_the_console() {
    for (action, made, status) in [
        ("approve", Some("made"), "completed"),
        ("approve", Some("edited"), "completed"),
        ("deny", None, "denied_before_execution"),
    ] {
        let world = World::new();
        let gateway = world.start();
        let args = ["call", "create_directory", r#"{"path": "made"}"#];
        let held = Client::Python.over_http(&gateway, &args);
        world.held("create_directory");
        let project = provided("COUNTERSIGN_E2E_NODE_DIR");
        let output = Command::new("node")
            .arg(project.join("console.mjs"))
            .args(["--link", gateway.banner["console"].as_str().unwrap()])
            .args(["--action", action, "--tool", "create_directory", "--reason", "seen"])
            .args(made.filter(|made| *made == "edited").map(|made| format!("--edit=path={made}")))
            .arg("--chromium")
            .arg(provided("COUNTERSIGN_E2E_CHROMIUM"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{problem}");
        let seen: Value = serde_json::from_str(said.trim()).unwrap();
        assert_eq!(seen["final_status"], status, "{seen}");
        let result = finish(held);
        assert_eq!(result["isError"] == true, action == "deny", "{result}");
        for path in ["made", "edited"] {
            assert_eq!(world.root().join(path).exists(), made == Some(path), "{path}");
        }
        let story = world.text(&["journal", "tail", "-n", "100"]);
        assert!(story.contains("by Operator  “seen”"), "{story}");
    }
}

#[test]
fn wrong_tokens_and_oversized_messages_are_refused_with_a_reason_a_client_shows() {
    let world = World::new();
    let gateway = world.start();
    for client in CLIENTS {
        let wrong = client
            .command()
            .args(["list", "--http", gateway.mcp(), "--token", "wrong"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let answer = finish(wrong).to_string();
        assert!(answer.contains("bearer token is missing or wrong"), "{client:?}: {answer}");
        let file = world.dir.path().join("large.json");
        std::fs::write(&file, json!({"text": "x".repeat(10 << 20)}).to_string()).unwrap();
        let argument = format!("@{}", file.display());
        let answer = finish(client.over_http(&gateway, &["call", "search_text", &argument]));
        assert!(answer.to_string().contains("larger than"), "{client:?}: {answer}");
    }
    assert!(!world.story().iter().any(|kind| kind.starts_with("tool")));
}

#[test]
fn a_client_that_goes_away_does_not_end_the_hold_and_one_that_cancels_does() {
    for client in CLIENTS {
        let world = World::new();
        let gateway = world.start();
        let args = r#"{"path": "made"}"#;
        let gone =
            client.over_http(&gateway, &["call", "create_directory", args, "--kill-after", "3"]);
        let hold = world.held("create_directory");
        assert_eq!(gone.wait_with_output().unwrap().status.code(), Some(124));
        assert_eq!(world.held("create_directory")["id"], hold["id"]);
        world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);
        wait_for("the approved call to run", || world.root().join("made").is_dir().then_some(()));

        let cancelled =
            client.over_http(&gateway, &["call", "create_directory", args, "--cancel-after", "2"]);
        world.held("create_directory");
        cancelled.wait_with_output().unwrap();
        wait_for("the hold to be cancelled", || {
            world.json(&["approvals", "list"]).as_array().unwrap().is_empty().then_some(())
        });
        let story = world.text(&["journal", "tail", "-n", "100"]);
        assert!(story.contains("the caller went away"), "{story}");
    }
}

#[test]
fn a_client_that_cannot_wait_is_told_so_and_the_same_call_goes_on_over_a_restart() {
    for client in CLIENTS {
        let world = World::new();
        world.configure("[server]\npending_after_seconds = 1\n");
        let gateway = world.start();
        let args = ["call", "create_directory", r#"{"path": "made"}"#];
        let pending = finish(client.over_http(&gateway, &args));
        assert_ne!(pending["isError"], true, "{client:?}: {pending}");
        assert!(text(&pending).starts_with("pending approval: hold "), "{pending}");
        assert_eq!(pending["structuredContent"]["status"], "pending");
        let hold = world.held("create_directory");
        assert_eq!(pending["_meta"]["countersign/hold"], hold["id"]);
        let again = finish(client.over_http(&gateway, &args));
        assert_eq!(again["structuredContent"], pending["structuredContent"], "{again}");
        gateway.kill();

        // Decided while nobody is there: nothing runs until the call is sent again, and then once.
        let gateway = world.start();
        assert_eq!(world.held("create_directory")["id"], hold["id"]);
        world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);
        assert!(!world.root().join("made").exists());
        let done = finish(client.over_http(&gateway, &args));
        assert_eq!(done["structuredContent"]["status"], "success", "{done}");
        assert!(world.root().join("made").is_dir());
        check_receipt(&world, &done);
        let story = world.story();
        let count = |what: &str| story.iter().filter(|kind| *kind == what).count();
        assert_eq!((count("approval_requested"), count("tool_intent_recorded")), (1, 1));
        let (whole, report) = world.verify();
        assert!(whole, "{report}");
    }
}

#[test]
fn a_killed_gateway_is_taken_up_again_by_the_same_client() {
    for client in CLIENTS {
        let world = World::new();
        let gateway = world.start();
        let args = ["call", "create_directory", r#"{"path": "made"}"#];
        let mut lost = client.over_http(&gateway, &[&args[..], &["--timeout", "20"]].concat());
        let hold = world.held("create_directory");
        gateway.kill();
        let gateway = world.start();
        assert_eq!(world.held("create_directory"), hold);
        world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);
        let again = finish(client.over_http(&gateway, &args));
        assert_ne!(again["isError"], true, "{again}");
        let asked = world.story().iter().filter(|kind| *kind == "approval_requested").count();
        assert_eq!(asked, 1, "asked again");
        let _ = lost.kill();
        let _ = lost.wait();
    }
}

#[test]
fn a_task_outlives_its_client_and_the_gateway() {
    for client in CLIENTS {
        let world = World::new();
        let gateway = world.start();
        // The Python client looks after tasks, and takes none as the answer to a call.
        let make = |gateway: &Gateway, path: &str| {
            let args = json!({ "path": path }).to_string();
            let args = ["task", "create_directory", &args];
            finish(Client::TypeScript.over_http(gateway, &args))
        };
        let made = make(&gateway, "made");
        let id = made["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{client:?}: {made}"));
        let hold = world.held("create_directory");
        gateway.kill();

        let gateway = world.start();
        let held = finish(client.over_http(&gateway, &["task-get", id]));
        assert_eq!(held["status"], "working", "{client:?}: {held}");
        let result = client.over_http(&gateway, &["task-result", id]);
        world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);
        let result = finish(result);
        assert_eq!(result["structuredContent"]["status"], "success", "{client:?}: {result}");
        assert!(world.root().join("made").is_dir());
        check_receipt(&world, &result);

        let other = make(&gateway, "b");
        world.held("create_directory");
        let id = other["task"]["taskId"].as_str().unwrap();
        let cancelled = finish(client.over_http(&gateway, &["task-cancel", id]));
        assert_eq!(cancelled["status"], "cancelled", "{client:?}: {cancelled}");
        assert_eq!(world.json(&["approvals", "list"]), json!([]));
    }
    // The TypeScript client can follow a task by itself.
    let world = World::new();
    let gateway = world.start();
    let args = ["task", "create_directory", r#"{"path": "made"}"#, "--follow"];
    let followed = Client::TypeScript.over_http(&gateway, &args);
    let hold = world.held("create_directory");
    world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);
    let followed = finish(followed);
    assert_eq!(followed["structuredContent"]["status"], "success", "{followed}");
    check_receipt(&world, &followed);
}

/// The verifier that shares no code with this one.
fn python_verifier(arguments: &[&str]) -> (Option<i32>, String) {
    let script = common::repository().join("examples/verify.py");
    let output = Command::new(provided("COUNTERSIGN_E2E_PYTHON"))
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_python_verifier_agrees_on_every_fixture() {
    let at = |name: &str| {
        common::repository().join("fixtures/audit").join(name).to_str().unwrap().to_owned()
    };
    for (version, files) in [
        ("v1", &["bundles", "critics", "receipts", "rules"][..]),
        ("v2", &["bundles", "receipts", "rules"]),
        ("v3", &["rules"]),
        ("v4", &["receipts"]),
        ("v5", &["bundles", "critics", "receipts", "rules"]),
        ("v6", &["bundles", "critics", "receipts"]),
    ] {
        let files: Vec<_> =
            files.iter().map(|file| at(&format!("attacks/{version}/{file}.ndjson"))).collect();
        let arguments: Vec<_> =
            std::iter::once("cases").chain(files.iter().map(String::as_str)).collect();
        let (code, said) = python_verifier(&arguments);
        assert_eq!(code, Some(0), "{said}");
    }
    let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
    let key = read("critic/v1/critic.pub");
    let (chain, anchor) =
        (at("critic/v1/countersign-1.json"), at("critic/v1/countersign-1.anchor.json"));
    let (code, said) = python_verifier(&["critic", &chain, "--key", &key, "--anchor", &anchor]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn the_python_verifier_agrees_on_what_a_gateway_wrote_and_on_changed_keys() {
    let world = World::new();
    let gateway = world.start();
    let call = world.spawn_call("create_directory", &json!({"path": "made"}));
    let id = world.held("create_directory")["id"].as_str().unwrap().to_owned();
    world.text(&["approvals", "approve", &id]);
    finish(call);
    let call = world.spawn_call("create_directory", &json!({"path": "asked"}));
    let id = world.held("create_directory")["id"].as_str().unwrap().to_owned();
    let edit = ["approvals", "edit", &id, "--args", r#"{"path": "edited"}"#];
    let shown = world.json(&edit)["fingerprint"].as_str().unwrap().to_owned();
    world.text(&[&edit[..], &["--yes", "--fingerprint", &shown]].concat());
    finish(call);
    gateway.stop();
    let old = std::fs::read_to_string(world.state().join("log.pub")).unwrap();
    let new = world.text(&["audit", "key", "rotate"]);
    world.text(&["audit", "key", "retire"]);
    let gateway = world.start();
    world.json(&["call", "git_log"]);
    gateway.stop();
    let path = |name: &str| world.dir.path().join(name).to_str().unwrap().to_owned();
    let (bundle, receipt) = (path("log.bundle"), path("receipt.json"));
    world.text(&["audit", "export", "--bundle", &bundle]);
    world.text(&["audit", "receipt", "3", "--out", &receipt]);
    for key in [&old, &new] {
        let (code, said) = python_verifier(&["log", &bundle, "--key", key]);
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!(python_verifier(&["receipt", &receipt, "--key", &new]).0, Some(0));
    assert_eq!(python_verifier(&["receipt", &receipt, "--key", &old]).0, Some(1));
}
