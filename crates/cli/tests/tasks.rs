//! Calls as MCP tasks: over a session's end, a connection's, and the gateway's.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::thread::JoinHandle;

use countersign_audit::key::PublicKey;
use countersign_audit::receipt::Receipt;
use countersign_core::digest::Digest;
use serde_json::{Value, json};

use crate::common::{Gateway, World, wait_for};

/// One session of an MCP client that sends what it is told to.
#[derive(Clone)]
struct Session {
    url: String,
    token: String,
    id: Option<String>,
}

impl Session {
    fn open(gateway: &Gateway, token: &str) -> Self {
        let mut session = Self { url: gateway.mcp().to_owned(), token: token.to_owned(), id: None };
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": { "name": "raw", "version": "1" },
        });
        let (id, answer) = session.send("initialize", &params);
        let tasks = &answer["result"]["capabilities"]["tasks"];
        assert!(tasks["requests"]["tools"]["call"].is_object(), "{answer}");
        session.id = id;
        session
    }

    fn send(&self, method: &str, params: &Value) -> (Option<String>, Value) {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut request = reqwest::Client::new()
                .post(&self.url)
                .bearer_auth(&self.token)
                .header("accept", "application/json, text/event-stream")
                .json(&message);
            if let Some(id) = &self.id {
                request = request.header("mcp-session-id", id);
            }
            let response = request.send().await.unwrap();
            let id = response.headers().get("mcp-session-id").cloned();
            let text = response.text().await.unwrap();
            // A JSON document, or events, of which one has the answer.
            let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
            let answer = data.chain([text.as_str()]).find_map(|data| {
                let message: Value = serde_json::from_str(data.trim()).ok()?;
                message.get("id").is_some().then_some(message)
            });
            let answer = answer.unwrap_or_else(|| panic!("{method}: {text}"));
            (id.map(|id| id.to_str().unwrap().to_owned()), answer)
        })
    }

    fn ask(&self, method: &str, params: &Value) -> Value {
        let (_, answer) = self.send(method, params);
        answer.get("result").unwrap_or_else(|| panic!("{method}: {answer}")).clone()
    }

    fn refused(&self, method: &str, params: &Value) -> String {
        let (_, answer) = self.send(method, params);
        assert_eq!(answer["error"]["code"], -32602, "{method}: {answer}");
        answer["error"]["message"].as_str().unwrap().to_owned()
    }

    fn start(&self, tool: &str, arguments: &Value) -> Value {
        let params = json!({ "name": tool, "arguments": arguments, "task": { "ttl": 600_000 } });
        self.ask("tools/call", &params)["task"].clone()
    }

    fn get(&self, task: &Value) -> Value {
        self.ask("tasks/get", &json!({ "taskId": task["taskId"] }))
    }

    fn result(&self, task: &Value) -> Value {
        self.ask("tasks/result", &json!({ "taskId": task["taskId"] }))
    }

    fn waiting(&self, task: &Value) -> JoinHandle<Value> {
        let (session, task) = (self.clone(), task.clone());
        std::thread::spawn(move || session.result(&task))
    }

    /// The task, once it waits for this hold.
    fn held(&self, task: &Value, hold: &Value) -> Value {
        wait_for("the task to wait for its hold", || {
            let task = self.get(task);
            (task["_meta"]["countersign/hold"] == hold["id"]).then_some(task)
        })
    }

    fn end(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(async {
            let request = reqwest::Client::new().delete(&self.url).bearer_auth(&self.token);
            let id = self.id.clone().unwrap();
            request.header("mcp-session-id", id).send().await.unwrap().status()
        });
        assert!(status.is_success(), "{status}");
    }
}

fn approve(world: &World, hold: &Value) {
    world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);
}

fn check_receipt(world: &World, result: &Value) {
    let receipt = result["_meta"]["countersign/receipt"].clone();
    let receipt: Receipt = serde_json::from_value(receipt).unwrap();
    let key = std::fs::read_to_string(world.state().join("log.pub")).unwrap();
    receipt.verify(&PublicKey::parse(&key).unwrap()).unwrap();
}

#[test]
fn a_task_is_made_at_once_and_its_result_is_that_of_the_call() {
    let world = World::new();
    let gateway = world.start();
    let session = Session::open(&gateway, gateway.token());
    let tools = session.ask("tools/list", &json!({}));
    let tools = tools["tools"].as_array().unwrap();
    assert!(tools.iter().all(|tool| tool["execution"]["taskSupport"] == "optional"));

    let task = session.start("create_directory", &json!({ "path": "made" }));
    assert_eq!((&task["status"], &task["ttl"]), (&json!("working"), &json!(600_000)));
    let id = task["taskId"].as_str().unwrap();
    assert!(id.len() >= 32, "{id}");
    let hold = world.held("create_directory");
    let held = session.held(&task, &hold);
    let said = held["statusMessage"].as_str().unwrap();
    let short = &hold["id"].as_str().unwrap()[..8];
    assert!(said.starts_with(&format!("waits for a person: hold {short}")), "{said}");
    assert_eq!(held["status"], "working");
    let waiting = session.waiting(&task);
    approve(&world, &hold);
    let result = waiting.join().unwrap();
    assert_eq!(result["isError"], false, "{result}");
    assert_eq!(result["structuredContent"]["status"], "success");
    assert_eq!(result["_meta"]["io.modelcontextprotocol/related-task"]["taskId"], task["taskId"]);
    check_receipt(&world, &result);
    assert!(world.root().join("made").is_dir());
    assert_eq!(session.result(&task), result, "told differently the second time");
    assert_eq!(session.get(&task)["status"], "completed");
    let listed = session.ask("tasks/list", &json!({}));
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 1, "{listed}");

    // A denial is a failure, and its result says who denied.
    let task = session.start("create_directory", &json!({ "path": "other" }));
    let hold = world.held("create_directory");
    world.text(&["approvals", "deny", hold["id"].as_str().unwrap(), "--reason", "no"]);
    let result = session.result(&task);
    assert_eq!(result["isError"], true, "{result}");
    let ended = session.get(&task);
    assert_eq!(
        (&ended["status"], &ended["statusMessage"]),
        (&json!("failed"), &json!("denied by Operator: no"))
    );

    // What needs nobody is a task all the same.
    let task = session.start("git_log", &json!({ "limit": 1 }));
    assert_eq!(session.result(&task)["structuredContent"]["status"], "success");
}

#[test]
fn cancelling_calls_the_call_off_and_that_is_recorded() {
    let world = World::new();
    let gateway = world.start();
    let session = Session::open(&gateway, gateway.token());
    let task = session.start("create_directory", &json!({ "path": "made" }));
    let hold = world.held("create_directory");
    session.held(&task, &hold);
    let cancelled = session.ask("tasks/cancel", &json!({ "taskId": task["taskId"] }));
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    assert_eq!(world.json(&["approvals", "list"]), json!([]));
    let story = world.story();
    assert_eq!(story.last().unwrap(), "tool_denied", "{story:?}");
    assert_eq!(session.result(&task)["isError"], true);
    let why = session.refused("tasks/cancel", &json!({ "taskId": task["taskId"] }));
    assert!(why.contains("it is cancelled"), "{why}");
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        let why = session.refused(method, &json!({ "taskId": "task.none" }));
        assert!(why.contains("no such task"), "{method}: {why}");
        session.refused(method, &json!({}));
    }
}

#[test]
fn a_task_is_its_agents_alone_and_one_for_each_key() {
    let world = World::new();
    let digest = |token: &str| Digest::of(token).to_string();
    let principal = |id: &str, role: &str, token: &str| {
        format!(
            "[[principals]]\nid = \"{id}\"\ndisplay = \"{id}\"\nroles = [\"{role}\"]\n\
             token_sha256 = [\"{}\"]\n",
            digest(token)
        )
    };
    let all = [("one", "agent", "token-one"), ("two", "agent", "token-two")];
    let all = all.map(|(id, role, token)| principal(id, role, token));
    world.configure(&(all.concat() + &principal("ada", "approver", "token-ada")));
    let gateway = world.start();
    let (one, two) = (Session::open(&gateway, "token-one"), Session::open(&gateway, "token-two"));
    let call = |key: &str, limit: u32| {
        json!({
            "name": "git_log",
            "arguments": { "limit": limit },
            "task": {},
            "_meta": { "countersign/idempotency-key": key },
        })
    };
    let task = one.ask("tools/call", &call("mine", 1))["task"].clone();
    let result = one.result(&task);
    assert_eq!(result["structuredContent"]["status"], "success", "{result}");
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        let why = two.refused(method, &json!({ "taskId": task["taskId"] }));
        assert!(why.contains("no such task"), "{why}");
    }
    assert_eq!(two.ask("tasks/list", &json!({}))["tasks"], json!([]));
    // Sent again under the same key, it is the same task; another call is an error.
    assert_eq!(one.ask("tools/call", &call("mine", 1))["task"]["taskId"], task["taskId"]);
    assert_eq!(one.result(&task), result);
    let why = one.refused("tools/call", &call("mine", 2));
    assert!(why.contains("idempotency key"), "{why}");
    let intents = world.story().iter().filter(|kind| *kind == "tool_intent_recorded").count();
    assert_eq!(intents, 1);
}

#[test]
fn a_task_outlives_its_session_and_the_gateway() {
    let world = World::new();
    let gateway = world.start();
    let first = Session::open(&gateway, gateway.token());
    let held = first.start("create_directory", &json!({ "path": "made" }));
    let hold = world.held("create_directory");
    first.held(&held, &hold);
    let done = first.start("git_log", &json!({ "limit": 1 }));
    let before = first.result(&done);
    first.end();

    // Another session of the same agent looks after it.
    let second = Session::open(&gateway, gateway.token());
    assert_eq!(second.held(&held, &hold)["status"], "working");
    assert_eq!(second.result(&done), before);
    gateway.kill();

    let gateway = world.start();
    assert_eq!(gateway.banner["holds_reopened"], 1);
    let third = Session::open(&gateway, gateway.token());
    let again = third.held(&held, &hold);
    assert_eq!((&again["status"], &again["taskId"]), (&json!("working"), &held["taskId"]));
    let waiting = third.waiting(&held);
    approve(&world, &hold);
    let result = waiting.join().unwrap();
    assert_eq!(result["structuredContent"]["status"], "success", "{result}");
    check_receipt(&world, &result);
    assert!(world.root().join("made").is_dir());
    let after = third.result(&done);
    for part in ["status", "scan_id", "results", "output_hash"] {
        assert_eq!(after["structuredContent"][part], before["structuredContent"][part], "{part}");
    }
    let story = world.story();
    let count = |what: &str| story.iter().filter(|kind| *kind == what).count();
    assert_eq!((count("approval_requested"), count("tool_intent_recorded")), (1, 2), "{story:?}");
    let (whole, report) = world.verify();
    assert!(whole, "{report}");
}
