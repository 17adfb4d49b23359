//! Critics' verdicts: recorded over REST and MCP, taken out of the log, and held against the key.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use serde_json::{Value, json};

use crate::common::mcp::Session;
use crate::common::{Answer, Gateway, World, principal};

const CRITIC: Option<&str> = Some("critic-token");
const AGENT: Option<&str> = Some("agent-token");
const TOOL: &str = "countersign_record_verdict";

fn world() -> World {
    let world = World::new();
    let roles = ["agent", "critic", "approver", "auditor", "admin"];
    world.configure(&roles.iter().map(|role| principal(role, role)).collect::<String>());
    world
}

fn verdict(more: &Value) -> Value {
    let mut verdict = json!({
        "director_output": "the director's own words",
        "critic_assessment": "what the critic thinks",
        "verdict": "needs_revision",
        "score": 0.30000000000000004,
        "dimension_scores": { "clarity": 1, "Ünïcode \"quoted\"": 1e-9 },
        "iteration": 2,
    });
    for (name, value) in more.as_object().unwrap() {
        match value {
            Value::Null => drop(verdict.as_object_mut().unwrap().remove(name)),
            value => verdict[name] = value.clone(),
        }
    }
    verdict
}

fn judge(gateway: &Gateway, token: Option<&str>, body: &Value) -> Answer {
    gateway.send("POST /api/v1/verdicts", token, Some(body))
}

fn judged(gateway: &Gateway, more: &Value) -> Value {
    let answer = judge(gateway, CRITIC, &verdict(more));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn code(world: &World, args: &[&str]) -> Option<i32> {
    world.run(args).status.code()
}

/// The chain in the live database, in a bundle, and taken out of both.
fn whole(world: &World, key: &str, entries: u64) {
    world.text(&["audit", "export", "--bundle", "log.bundle"]);
    world.text(&["audit", "critic", "export", "--out", "chain.json", "--anchor", "anchor.json"]);
    world.text(&["audit", "critic", "export", "log.bundle", "--out", "again.json"]);
    let read = |name: &str| std::fs::read_to_string(world.dir.path().join(name)).unwrap();
    assert_eq!(read("chain.json"), read("again.json"));
    let database = world.database().display().to_string();
    for file in [&database, "log.bundle", "chain.json"] {
        let report = world.json(&["audit", "critic", "verify", file, "--key", key]);
        assert_eq!(
            (&report["ok"], &report["entries"]),
            (&json!(true), &json!(entries)),
            "{report}"
        );
        assert_eq!(report["format"], "countersign-1");
        let anchored = ["audit", "critic", "verify", file, "--key", key, "--anchor", "anchor.json"];
        assert_eq!(code(world, &anchored), Some(0));
    }
    let (kept, report) = world.verify();
    assert!(kept, "{report}");
    assert_eq!(world.json(&["audit", "verify", "log.bundle"])["ok"], true);
}

#[test]
fn verdicts_are_one_chain_over_rest_mcp_restarts_and_a_change_of_keys() {
    let world = world();
    let gateway = world.start();
    let first = judged(&gateway, &json!({}));
    assert_eq!(
        first["entry"]["critic_identity"],
        json!({ "type": "human", "user_id": "critic", "name": "critic" })
    );
    std::fs::write(world.dir.path().join("receipt.json"), first["receipt"].to_string()).unwrap();
    assert_eq!(world.json(&["audit", "verify", "receipt.json"])["ok"], true);
    let key = std::fs::read_to_string(world.state().join("critic.pub")).unwrap().trim().to_owned();

    // Over MCP a critic has this tool and no other.
    let session = Session::open_as(&gateway, "critic-token", "critic").unwrap();
    let list = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/list" });
    let tools = session.send(&list).1["result"]["tools"].clone();
    assert_eq!((tools.as_array().unwrap().len(), &tools[0]["name"]), (1, &json!(TOOL)));
    let second = session.call(TOOL, &verdict(&json!({ "model_id": "judge-1" })));
    assert_eq!(second["entry"]["critic_identity"], json!({ "type": "llm", "model_id": "judge-1" }));
    assert_eq!(second["entry"]["previous_hash"], first["entry"]["chain_hash"]);
    let refused = session.call(TOOL, &verdict(&json!({ "score": 1.5 })));
    assert_eq!(refused["code"], "not_allowed", "{refused}");
    let other = json!({ "jsonrpc": "2.0", "id": 8, "method": "tools/call",
        "params": { "name": "git_log", "arguments": {} } });
    assert!(session.send(&other).1["error"]["message"].as_str().unwrap().contains(TOOL));
    whole(&world, &key, 2);

    // A restart goes on, and so does one after SIGKILL.
    gateway.stop();
    let gateway = world.start();
    let third = judged(&gateway, &json!({ "verdict": "approved" }));
    assert_eq!(third["entry"]["index"], 2);
    gateway.kill();
    std::fs::rename(world.dir.path().join("anchor.json"), world.dir.path().join("early.json"))
        .unwrap();
    let next = world.json(&["audit", "critic", "rotate"])["next_key"].as_str().unwrap().to_owned();
    assert_ne!(next, key);
    let gateway = world.start();
    let fifth = judged(&gateway, &json!({}));
    assert_eq!(
        (&fifth["entry"]["index"], &fifth["entry"]["kind"]),
        (&json!(4), &json!("assessment"))
    );
    whole(&world, &key, 5);
    gateway.stop();
    let gateway = world.start();
    assert_eq!(judged(&gateway, &json!({}))["entry"]["index"], 5);
    whole(&world, &key, 6);
    gateway.stop();
    let early =
        ["audit", "critic", "verify", "chain.json", "--key", &key, "--anchor", "early.json"];
    assert_eq!(world.json(&early)["rule"], "extended");
    assert_eq!(code(&world, &early), Some(1));
    assert_eq!(code(&world, &["audit", "critic", "verify", "chain.json", "--key", &next]), Some(1));

    // The texts are nowhere, and still can be matched.
    for (name, text) in
        [("said", "the director's own words"), ("thought", "what the critic thinks")]
    {
        std::fs::write(world.dir.path().join(name), text).unwrap();
        for file in ["journal.db", "journal.db-wal"] {
            let bytes = std::fs::read(world.state().join(file)).unwrap_or_default();
            let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(!found, "{file} has {text}");
        }
    }
    let database = world.database().display().to_string();
    let fits =
        ["audit", "critic", "match", &database, "--index", "0", "--director", "said", "--critic"];
    assert_eq!(code(&world, &[&fits[..], &["thought", "--key", &key]].concat()), Some(0));
    assert_eq!(code(&world, &[&fits[..], &["said"]].concat()), Some(1));

    // A changed score in the bundle breaks both, each by its own rule.
    let path = world.dir.path().join("log.bundle");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("0.30000000000000004", "0.90000000000000004", 1)).unwrap();
    let report = world.json(&["audit", "critic", "verify", "log.bundle", "--key", &key]);
    assert_eq!((&report["rule"], &report["index"]), (&json!("chain_hash"), &json!(0)), "{report}");
    assert_eq!(world.json(&["audit", "verify", "log.bundle"])["ok"], false);
}

#[test]
fn only_a_critic_judges_and_what_cannot_be_recorded_is_refused_by_name() {
    let world = world();
    let gateway = world.start();
    for token in ["agent-token", "approver-token", "auditor-token", "admin-token"] {
        assert_eq!(judge(&gateway, Some(token), &verdict(&json!({}))).status, 403, "{token}");
    }
    assert_eq!(judge(&gateway, None, &verdict(&json!({}))).status, 401);
    for (more, status) in [
        (json!({ "score": -0.1 }), 422),
        (json!({ "dimension_scores": { "a": 2 } }), 422),
        (json!({ "iteration": 9_007_199_254_740_993_u64 }), 422),
        (json!({ "score": "1" }), 400),
        (json!({ "verdict": "fine" }), 400),
        (json!({ "director_output": null }), 400),
        (json!({ "director_output_hash": "00" }), 400),
        (json!({ "director_output": null, "director_output_hash": "A".repeat(64) }), 400),
        (json!({ "director_output": null, "director_output_hash": "a|b" }), 400),
        (json!({ "model_id": "" }), 400),
        (json!({ "model_id": "x".repeat(129) }), 400),
        (json!({ "call_id": "call.nowhere" }), 404),
        (json!({ "timestamp": "2026-01-01T00:00:00Z" }), 400),
    ] {
        let answer = judge(&gateway, CRITIC, &verdict(&more));
        assert_eq!(answer.status, status, "{more}: {}", answer.text());
    }
    // An agent has no such tool, and a critic's token calls none.
    let call = json!({ "tool": TOOL, "arguments": verdict(&json!({})) });
    let denied = gateway.send("POST /api/v1/calls", AGENT, Some(&call)).json();
    assert_eq!(denied["envelope"]["results"]["denied"]["code"], "unknown_tool");
    assert_eq!(gateway.send("POST /api/v1/calls", CRITIC, Some(&call)).status, 403);
    for path in ["/calls", "/approvals", "/receipts/x"] {
        assert_eq!(gateway.send(&format!("GET /api/v1{path}"), CRITIC, None).status, 403, "{path}");
    }
    // Nothing of it began a chain; a verdict about somebody's call does.
    let judged = judged(&gateway, &json!({ "call_id": denied["call_id"] }));
    assert_eq!(judged["entry"]["index"], 0);
    assert!(judged["receipt"]["record"].as_str().unwrap().contains("\"judged_tool_call\""));
    gateway.stop();
    let story = world.text(&["journal", "tail", "-n", "1000"]);
    assert!(story.contains("recording a verdict by agent"), "{story}");

    // Under another key nothing goes on, by name.
    std::fs::write(world.state().join("critic.key"), format!("{}\n", "11".repeat(32))).unwrap();
    let args = world.serve_args();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let refused = world.run(&args);
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("the chain of verdicts is signed by the key"), "{why}");
}
