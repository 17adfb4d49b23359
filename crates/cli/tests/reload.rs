//! Other manifests while the gateway runs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use common::{World, finish, put, wait_for};
use serde_json::{Value, json};

const REPLACED: &str = "manifests_replaced";
const REFUSED: &str = "manifests_refused";

/// A tool that writes a word.
fn says(word: &str) -> String {
    format!(
        "[tool]\nname = \"says\"\nversion = \"1.0.0\"\ndescription = \"Says {word}.\"\n\
         binary = \"printf\"\nrisk_tier = \"info\"\n\n[command]\nexec = [\"printf\", \"{word}\"]\n\n\
         [output]\nformat = \"text\"\n\n[output.schema]\ntype = \"object\"\n"
    )
}

/// A tool that says when it has begun, and ends when it may.
const WAITS: &str = r#"
[tool]
name = "waits"
version = "1.0.0"
description = "Waits."
binary = "sh"
allow_interpreter = true
risk_tier = "info"

[command]
exec = ["sh", "-c", ": > begun; until [ -e go ]; do sleep 0.02; done; echo first"]

[output]
format = "text"

[output.schema]
type = "object"
"#;

fn said(world: &World) -> Option<String> {
    let answer = world.json(&["call", "says"]);
    Some(answer["envelope"]["results"]["text"].as_str()?.to_owned())
}

#[test]
fn a_signal_reloads_the_whole_set_or_nothing_and_calls_keep_theirs() {
    let world = World::with_tools(&[("says.clad.toml", &says("one")), ("waits.clad.toml", WAITS)]);
    world.configure("[tools]\nwatch_seconds = 0\n");
    let gateway = world.start();
    let (says_file, waits_file) =
        (world.tools.join("says.clad.toml"), world.tools.join("waits.clad.toml"));
    assert_eq!(said(&world).as_deref(), Some("one"));

    // One file is right and the other is not: neither counts.
    put(&says_file, &says("two"));
    put(&waits_file, &WAITS.replace("version", "vers"));
    gateway.signal("-HUP");
    let refused = || world.reloads(REFUSED).pop();
    let why = wait_for("the refusal", refused);
    assert!(why.contains("waits.clad.toml:2:1: error[missing_key]"), "{why}");
    assert_eq!(said(&world).as_deref(), Some("one"));
    assert!(world.reloads(REPLACED).is_empty());

    let new = world.tools.join("other.clad.toml");
    put(&waits_file, WAITS);
    put(&says_file, &says("one"));
    put(&new, &says("new").replace("\"says\"", "\"other\""));
    gateway.signal("-HUP");
    let other = || {
        let answer = world.json(&["call", "other"]);
        (answer["envelope"]["status"] == "success").then_some(())
    };
    wait_for("a new tool", other);

    // A call in flight keeps the tool that it began with, and nobody else gets it any more.
    let call = world.spawn_call("waits", &json!({}));
    let begun = world.root().join("begun");
    wait_for("the call to begin", || begun.exists().then_some(()));
    put(&waits_file, &WAITS.replace("echo first", "echo second"));
    put(&says_file, &says("two"));
    std::fs::remove_file(&new).unwrap();
    gateway.signal("-HUP");
    wait_for("the other tools", || (said(&world)? == "two").then_some(()));
    assert_eq!(other(), None);
    std::fs::write(world.root().join("go"), "").unwrap();
    assert_eq!(finish(call)["envelope"]["results"]["text"], "first\n");
    let after = world.json(&["call", "waits"]);
    assert_eq!(after["envelope"]["results"]["text"], "second\n");

    let noted = world.reloads(REPLACED);
    assert_eq!(noted.len(), 2, "{noted:?}");
    assert!(noted[0].contains("new: other"), "{noted:?}");
    assert!(noted[1].contains("changed: says, waits; gone: other"), "{noted:?}");
    // Each names the set before and the one after it, so the chain of sets is in the journal.
    let digests = |noted: &str| {
        let (before, after) = noted.split_once(" to sha256:").unwrap();
        (before[before.len() - 64..].to_owned(), after[..64].to_owned())
    };
    let (one, two) = (digests(&noted[0]), digests(&noted[1]));
    assert!(one.0 != one.1 && one.1 == two.0 && two.0 != two.1, "{noted:?}");
    let (code, stderr) = gateway.stop();
    assert_eq!(code, Some(0));
    assert!(stderr.contains("not reloaded, the "), "{stderr}");
    assert!(world.verify().0);
}

#[test]
fn pipes_and_broken_scopes_neither_hang_the_gateway_nor_let_a_call_through() {
    // Its own scope allows the target; the folder's has a slip of the pen.
    let scoped = says("{x}").replace(
        "[command]",
        "[args.x]\ntype = \"scope_target\"\nscope_check = true\n[scope]\n\
         targets = [\"10.0.0.0/8\"]\n[command]",
    );
    let broken = "[scope]\ntargets = [\"10.0.0.0/8\"]\nexclud = [\"10.9.0.0/16\"]\n";
    let world = World::with_tools(&[("says.clad.toml", &scoped), ("scope.toml", broken)]);
    world.configure("[tools]\nwatch_seconds = 0\n");
    let fifo = world.tools.join("pipe.clad.toml");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let gateway = world.start();
    let call = || finish(world.spawn_call("says", &json!({"x": "10.1.2.3"})));
    let refused = call().to_string();
    assert!(refused.contains("it is broken: "), "{refused}");
    gateway.signal("-HUP");
    let why = wait_for("the refusal", || world.reloads(REFUSED).pop());
    assert!(why.contains("no regular file") && why.contains("2 problems"), "{why}");
    std::fs::remove_file(&fifo).unwrap();
    put(&world.tools.join("scope.toml"), &broken.replace("exclud ", "exclude "));
    gateway.signal("-HUP");
    wait_for("the reload", || world.reloads(REPLACED).pop());
    assert_eq!(call()["envelope"]["results"]["text"], "10.1.2.3");
    let (code, stderr) = gateway.stop();
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn changed_files_are_noticed_without_a_signal() {
    let world = World::with_tools(&[("says.clad.toml", &says("one"))]);
    world.configure("[tools]\nwatch_seconds = 1\n");
    let _gateway = world.start();
    assert_eq!(said(&world).as_deref(), Some("one"));
    put(&world.tools.join("says.clad.toml"), &says("two"));
    wait_for("the changed tool", || (said(&world)? == "two").then_some(()));
    assert_eq!(world.reloads(REPLACED).len(), 1);
}

#[test]
fn an_approval_for_a_tool_that_changed_meanwhile_releases_nothing_and_says_so() {
    let held = |word: &str| {
        says(word)
            .replace("risk_tier", "human_approval = true\nrisk_tier")
            .replace("\"printf\", ", "\"touch\", ")
            .replace("\"printf\"", "\"touch\"")
    };
    let world = World::with_tools(&[("says.clad.toml", &held("one"))]);
    world.configure("[tools]\nwatch_seconds = 0\n");
    let gateway = world.start();
    let call = world.spawn_call("says", &json!({}));
    let hold = world.held("says");
    put(&world.tools.join("says.clad.toml"), &held("two"));
    gateway.signal("-HUP");
    wait_for("the reload", || world.reloads(REPLACED).pop());
    world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);
    let answer = finish(call);
    let denied = &answer["envelope"]["results"]["denied"];
    assert_eq!(denied["code"], "approval.stale", "{answer}");
    assert!(denied["message"].as_str().unwrap().contains("has changed since"), "{answer}");
    // Sent again, it needs another approval, and then the tool is the new one.
    let call = world.spawn_call("says", &json!({}));
    let again = world.held("says");
    assert_ne!(again["id"], hold["id"]);
    world.text(&["approvals", "approve", again["id"].as_str().unwrap()]);
    assert_eq!(finish(call)["envelope"]["status"], "success");
    assert!(!world.root().join("one").exists() && world.root().join("two").exists());
}

#[test]
fn an_mcp_client_is_told_that_there_are_other_tools() {
    let world = World::with_tools(&[("says.clad.toml", &says("one"))]);
    world.configure("[tools]\nwatch_seconds = 0\n");
    let mut args = world.serve_args();
    args.push("--stdio".to_owned());
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let mut gateway = world
        .command(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = gateway.stdin.take().unwrap();
    let mut lines = BufReader::new(gateway.stdout.take().unwrap()).lines();
    let mut send = |message: Value| writeln!(input, "{message}").unwrap();
    let mut read = |wanted: &dyn Fn(&Value) -> bool| {
        lines
            .by_ref()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
            .find(|message| wanted(message))
            .unwrap()
    };
    send(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }}));
    let hello = read(&|message| message["id"] == 1);
    assert_eq!(hello["result"]["capabilities"]["tools"]["listChanged"], true, "{hello}");
    send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    send(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}));
    let described = |list: &Value| {
        let mut tools = list["result"]["tools"].as_array().unwrap().iter();
        tools.find(|tool| tool["name"] == "says").unwrap()["description"].to_string()
    };
    assert!(described(&read(&|message| message["id"] == 2)).contains("Says one."));
    put(&world.tools.join("says.clad.toml"), &says("two"));
    let id = gateway.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
    read(&|message| message["method"] == "notifications/tools/list_changed");
    send(json!({"jsonrpc": "2.0", "id": 3, "method": "tools/list"}));
    assert!(described(&read(&|message| message["id"] == 3)).contains("Says two."));
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}
