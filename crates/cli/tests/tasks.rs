//! Calls as MCP tasks: over a session's end, a connection's, and the gateway's.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::thread::JoinHandle;

use countersign_audit::key::PublicKey;
use countersign_audit::receipt::Receipt;
use countersign_core::digest::Digest;
use serde_json::{Value, json};

use crate::common::mcp::Session;
use crate::common::{Gateway, PATIENCE, World, principal, wait_for};

const VERSION: &str = "2025-11-25";

/// A client that knows tasks.
#[derive(Clone)]
struct Client(Session);

impl Client {
    fn open(gateway: &Gateway, token: &str) -> Self {
        let (session, about) = Session::open_in(gateway, token, "raw", VERSION).unwrap();
        let tasks = &about["capabilities"]["tasks"];
        assert!(tasks["requests"]["tools"]["call"].is_object(), "{about}");
        Self(session)
    }

    fn ask(&self, method: &str, params: &Value) -> Value {
        let answer = self.0.ask(method, params);
        answer.get("result").unwrap_or_else(|| panic!("{method}: {answer}")).clone()
    }

    fn refused(&self, method: &str, params: &Value) -> String {
        let answer = self.0.ask(method, params);
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
    let session = Client::open(&gateway, gateway.token());
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
    let session = Client::open(&gateway, gateway.token());
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
    let (one, two) = (Client::open(&gateway, "token-one"), Client::open(&gateway, "token-two"));
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
    // Sent again under the same key, it is the same task, in whatever order it is spelled;
    // another call is an error.
    assert_eq!(one.ask("tools/call", &call("mine", 1))["task"]["taskId"], task["taskId"]);
    let spelled = |arguments: Value| {
        let mut call = call("spelled", 1);
        call["arguments"] = arguments;
        one.ask("tools/call", &call)["task"]["taskId"].clone()
    };
    let first = spelled(json!({ "limit": 1, "style": "full" }));
    assert_eq!(spelled(json!({ "style": "full", "limit": 1 })), first);
    assert_eq!(one.result(&task), result);
    let why = one.refused("tools/call", &call("mine", 2));
    assert!(why.contains("idempotency key"), "{why}");
    let intents = world.story().iter().filter(|kind| *kind == "tool_intent_recorded").count();
    assert_eq!(intents, 2);
}

#[test]
fn a_task_outlives_its_session_and_the_gateway() {
    let world = World::new();
    let gateway = world.start();
    let first = Client::open(&gateway, gateway.token());
    let held = first.start("create_directory", &json!({ "path": "made" }));
    let hold = world.held("create_directory");
    first.held(&held, &hold);
    let done = first.start("git_log", &json!({ "limit": 1 }));
    let before = first.result(&done);
    first.0.end();

    // Another session of the same agent looks after it.
    let second = Client::open(&gateway, gateway.token());
    assert_eq!(second.held(&held, &hold)["status"], "working");
    assert_eq!(second.result(&done), before);
    gateway.kill();

    let gateway = world.start();
    assert_eq!(gateway.banner["holds_reopened"], 1);
    let third = Client::open(&gateway, gateway.token());
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
    // With the proof of the same record, under a later checkpoint.
    check_receipt(&world, &after);
    let record = |result: &Value| result["_meta"]["countersign/receipt"]["record"].clone();
    assert_eq!(record(&after), record(&before));
    let other = json!({
        "name": "git_log",
        "arguments": { "limit": 2 },
        "task": {},
        "_meta": { "countersign/idempotency-key": done["taskId"] },
    });
    let why = third.refused("tools/call", &other);
    assert!(why.contains("another call"), "{why}");
    let story = world.story();
    let count = |what: &str| story.iter().filter(|kind| *kind == what).count();
    assert_eq!((count("approval_requested"), count("tool_intent_recorded")), (1, 2), "{story:?}");
    let (whole, report) = world.verify();
    assert!(whole, "{report}");
}

#[test]
fn what_becomes_of_a_task_is_told_to_its_session_once() {
    let world = World::new();
    let gateway = world.start();
    let client = Client::open(&gateway, gateway.token());
    let other = Client::open(&gateway, gateway.token());
    let (notes, others) = (client.0.notes(), other.0.notes());
    let call = json!({
        "name": "create_directory",
        "arguments": { "path": "made" },
        "task": {},
        "_meta": { "countersign/idempotency-key": "mine" },
    });
    let held = client.ask("tools/call", &call)["task"].clone();
    let hold = world.held("create_directory");
    client.held(&held, &hold);
    for _ in 0..3 {
        client.ask("tools/call", &call);
    }
    approve(&world, &hold);
    client.result(&held);
    let quick = client.start("git_log", &json!({ "limit": 1 }));
    let mut told = Vec::new();
    // In the order in which they came, up to the end of the last task.
    loop {
        let note = notes.recv_timeout(PATIENCE).unwrap();
        assert_eq!(note["method"], "notifications/tasks/status", "{note}");
        let task = note["params"].clone();
        let end = (&task["taskId"], &task["status"]) == (&quick["taskId"], &json!("completed"));
        told.push(task);
        if end {
            break;
        }
    }
    let count = |status: &str, of: &Value| {
        let same = |told: &&Value| told["status"] == status && told["taskId"] == of["taskId"];
        told.iter().filter(same).count()
    };
    assert_eq!((count("completed", &held), count("completed", &quick)), (1, 1), "{told:?}");
    let waits = |task: &Value| task["_meta"]["countersign/hold"] == hold["id"];
    assert!(count("working", &held) == 1 && waits(&told[0]), "{told:?}");
    assert!(others.try_recv().is_err(), "told to a session that did not make it");
}

#[test]
fn an_agent_has_so_many_tasks_and_ended_ones_are_kept_for_their_time() {
    let world = World::new();
    world.configure("[limits]\npending_per_agent = 300\n");
    let gateway = world.start();
    let client = Client::open(&gateway, gateway.token());
    let call = |tool: &str, arguments: Value| json!({ "name": tool, "arguments": arguments, "task": { "ttl": 1 } });
    let mut before = call("git_log", json!({ "limit": 1 }));
    before["_meta"] = json!({ "countersign/idempotency-key": "before" });
    let ended = client.ask("tools/call", &before)["task"].clone();
    let result = client.result(&ended);
    let listed = || {
        let listed = client.ask("tasks/list", &json!({}));
        listed["tasks"].as_array().unwrap().clone()
    };
    wait_for("the end of the time of a task that has ended", || listed().is_empty().then_some(()));
    // The call's records have it all the same.
    assert_eq!(client.result(&ended), result);

    // One that has not ended is kept, however long that takes.
    let held = |n: usize| call("create_directory", json!({ "path": format!("made-{n}") }));
    let held: Vec<_> =
        (0..256).map(|n| client.ask("tools/call", &held(n))["task"].clone()).collect();
    assert!(listed().len() >= 256);
    let refused = |method: &str, params: &Value| {
        let answer = client.0.ask(method, params);
        assert_eq!(answer["error"]["code"], -32000, "{answer}");
        answer["error"]["message"].as_str().unwrap().to_owned()
    };
    let one_more = call("git_log", json!({ "limit": 1 }));
    let why = refused("tools/call", &one_more);
    assert!(why.contains("256 tasks") && why.contains("cancel"), "{why}");
    // Nor by asking for one from before.
    wait_for("the time of the other task to end", || (listed().len() == 256).then_some(()));
    refused("tasks/get", &json!({ "taskId": "before" }));
    assert_eq!(listed().len(), 256);
    client.ask("tasks/cancel", &json!({ "taskId": held[7]["taskId"] }));
    let task = client.ask("tools/call", &one_more)["task"].clone();
    assert_eq!(client.result(&task)["isError"], false);
    assert_eq!(client.get(&ended)["status"], "completed");
    assert_eq!(client.get(&held[0])["status"], "working");
}

#[test]
fn a_critic_asks_for_a_task_and_gets_the_verdict() {
    let world = World::new();
    let all = [("agent", "agent"), ("critic", "critic"), ("ada", "approver")];
    world.configure(&all.map(|(id, role)| principal(id, role)).concat());
    let gateway = world.start();
    let (critic, about) = Session::open_in(&gateway, "critic-token", "raw", VERSION).unwrap();
    assert_eq!(about["capabilities"]["tasks"], Value::Null, "{about}");
    let tools = critic.ask("tools/list", &json!({}))["result"]["tools"].clone();
    let name = tools[0]["name"].clone();
    assert_eq!((tools.as_array().unwrap().len(), &tools[0]["execution"]), (1, &Value::Null));
    let verdict = json!({
        "director_output": "words",
        "critic_assessment": "what the critic thinks",
        "verdict": "approved",
        "score": 0.5,
        "dimension_scores": {},
        "iteration": 1,
    });
    let call = json!({ "name": name, "arguments": verdict, "task": { "ttl": 1000 } });
    let answer = critic.ask("tools/call", &call);
    assert_eq!(answer["result"]["structuredContent"]["entry"]["index"], 0, "{answer}");
    assert_eq!(answer["result"]["task"], Value::Null, "{answer}");
    let call = json!({ "name": "git_log", "arguments": {}, "task": {} });
    assert_eq!(critic.ask("tools/call", &call)["error"]["code"], -32602);
    // Whether the agent has a task is nothing a critic can ask.
    let agent = Client::open(&gateway, "agent-token");
    let task = agent.start("git_log", &json!({ "limit": 1 }));
    for method in ["tasks/get", "tasks/result", "tasks/cancel", "tasks/list"] {
        let answer = critic.ask(method, &json!({ "taskId": task["taskId"] }));
        assert_eq!(answer["error"]["code"], -32601, "{method}: {answer}");
    }
    agent.result(&task);
    let intents = world.story().iter().filter(|kind| *kind == "tool_intent_recorded").count();
    assert_eq!(intents, 1);
}
