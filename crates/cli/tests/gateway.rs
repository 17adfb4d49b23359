//! The binary as a whole: starting, refusing, stopping, dying, and what is left then.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{World, finish, wait_for};

const SLOW: &str = r#"
[tool]
name = "slow"
version = "1.0.0"
description = "Takes its time."
binary = "sleep"
[args.seconds]
type = "integer"
required = true
min = 1
max = 600
[command]
exec = ["sleep", "{seconds}"]
[output]
format = "text"
"#;

#[test]
fn an_allowed_call_runs_and_a_held_one_waits_for_its_decision() {
    let world = World::new();
    let _gateway = world.start();
    let answer = world.json(&["call", "git_log", "--args", r#"{"limit": 5}"#]);
    assert_eq!(answer["envelope"]["status"], "success", "{answer}");
    assert!(answer["envelope"]["results"]["text"].as_str().unwrap().contains("first commit"));

    let call = world.spawn_call("create_directory", &json!({"path": "made"}));
    let hold = world.held("create_directory");
    assert!(!world.root().join("made").exists());
    let id = hold["id"].as_str().unwrap();
    let shown = world.text(&["approvals", "show", &id[..6]]);
    assert!(shown.contains("path = made"), "{shown}");
    let approved = world.text(&["approvals", "approve", &id[..6], "--reason", "go on"]);
    assert!(approved.starts_with("approved mkdir"), "{approved}");
    assert_eq!(finish(call)["envelope"]["status"], "success");
    assert!(world.root().join("made").is_dir());

    let again = world.run(&["approvals", "deny", id]);
    assert_eq!(again.status.code(), Some(1));
    let why = String::from_utf8(again.stderr).unwrap();
    assert!(why.contains("approved by Operator"), "{why}");

    let story = world.text(&["journal", "tail"]);
    for part in
        ["Approval requested by agent", "Approved by Operator  “go on”", "About to run", "Done"]
    {
        assert!(story.contains(part), "{part} is missing from\n{story}");
    }
    let (whole, report) = world.verify();
    assert!(whole, "{report}");
}

#[test]
fn a_denial_and_a_deadline_say_who_or_what_and_why() {
    let world = World::new();
    world.configure("[policy]\napproval_timeout_seconds = 3\n");
    let _gateway = world.start();
    let call = world.spawn_call("create_directory", &json!({"path": "a"}));
    let hold = world.held("create_directory");
    let id = hold["id"].as_str().unwrap();
    world.text(&["approvals", "deny", id, "--reason", "not on a Friday"]);
    let answer = finish(call);
    let denied = &answer["envelope"]["results"]["denied"];
    assert_eq!(denied["message"], "denied by Operator: not on a Friday");
    assert_eq!(denied["by"]["surface"], "cli");

    let call = world.spawn_call("create_directory", &json!({"path": "b"}));
    let answer = finish(call);
    let message = answer["envelope"]["results"]["denied"]["message"].as_str().unwrap();
    assert!(message.contains("deadline"), "{message}");
    assert!(answer["receipt"]["seq"].is_number(), "{answer}");
    assert!(!world.root().join("a").exists() && !world.root().join("b").exists());
}

#[test]
fn bad_arguments_are_all_named_and_nothing_else_happens() {
    let world = World::new();
    let _gateway = world.start();
    let args = r#"{"limit": "many", "nope": true}"#;
    let answer = world.json(&["call", "git_log", "--args", args]);
    let named: Vec<_> = answer["envelope"]["results"]["denied"]["arguments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem["arg"].as_str().unwrap().to_owned())
        .collect();
    assert!(named.contains(&"limit".to_owned()) && named.contains(&"nope".to_owned()));
    let answer = world.json(&["call", "no_such_tool"]);
    assert_eq!(answer["envelope"]["results"]["denied"]["code"], "unknown_tool");
    assert_eq!(world.story(), ["tool_denied", "tool_denied"]);
}

#[test]
fn one_bad_manifest_hides_no_other_and_is_reported_with_its_place() {
    let world = World::with_tools(&[("bad.clad.toml", "[tool]\nname = \"Bad\"\n")]);
    let gateway = world.start();
    assert!(gateway.banner["manifest_problems"].as_u64().unwrap() > 0);
    assert_eq!(world.json(&["call", "git_log"])["envelope"]["status"], "success");
    let (_, stderr) = gateway.stop();
    assert!(stderr.contains("bad.clad.toml:2:8: "), "{stderr}");
}

#[test]
fn a_newer_or_damaged_database_is_refused_with_a_way_out_and_left_alone() {
    let world = World::new();
    let gateway = world.start();
    world.json(&["call", "git_log"]);
    assert_eq!(gateway.stop().0, Some(0));
    let good = std::fs::read(world.database()).unwrap();
    let mut newer = good.clone();
    newer[63] = 9;
    let cut = good[..good.len() - 4096].to_vec();
    for (bytes, what, way_out) in [
        (newer, "schema version 9", "use the version of Countersign"),
        (cut, "is damaged", "audit verify"),
        (b"something else".to_vec(), "is not a Countersign database", "move it away"),
    ] {
        std::fs::write(world.database(), &bytes).unwrap();
        let args = world.serve_args();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let output = world.run(&args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(what) && stderr.contains(way_out), "{stderr}");
        assert_eq!(std::fs::read(world.database()).unwrap(), bytes, "{what}: it was changed");
    }
}

#[test]
fn nothing_of_the_gateways_own_may_lie_where_tools_work() {
    let world = World::new();
    let (root, tools) = (world.root(), world.tools.clone());
    let (root, tools) = (root.to_str().unwrap(), tools.to_str().unwrap());
    let inside = world.root().join("inside");
    let inside = inside.to_str().unwrap();
    for args in [
        ["--state", inside, "serve", "--tools", tools, "--root", root],
        ["--state", root, "serve", "--tools", tools, "--root", root],
        ["--state", "/", "serve", "--tools", tools, "--root", root],
        ["--state", "elsewhere", "serve", "--tools", root, "--root", root],
    ] {
        let output = std::process::Command::new(common::BINARY)
            .current_dir(world.dir.path())
            .args(args)
            .args(["--bind", "127.0.0.1:0"])
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains("folder tools work in"), "{args:?}: {stderr}");
    }
    assert!(!world.root().join("inside").exists());
}

#[test]
fn a_hostile_repository_starts_no_program_in_a_call_that_nobody_approved() {
    let world = World::new();
    let marker = world.dir.path().join("marker");
    let command = format!("ext::sh -c touch${{IFS}}{}", marker.display());
    let git = world.root().join("proj/.git");
    for dir in ["objects", "refs/heads"] {
        std::fs::create_dir_all(git.join(dir)).unwrap();
    }
    std::fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    std::fs::write(git.join("refs/heads/main"), format!("{}\n", "1".repeat(40))).unwrap();
    std::fs::write(
        git.join("config"),
        format!(
            "[core]\nrepositoryformatversion = 1\n[extensions]\npartialClone = o\n\
             [remote \"o\"]\npromisor = true\nurl = \"{command}\"\n\
             [protocol \"ext\"]\nallow = always\n"
        ),
    )
    .unwrap();
    let _gateway = world.start();
    let answer = world.json(&["call", "git_log", "--args", r#"{"repository": "proj"}"#]);
    assert_eq!(answer["envelope"]["status"], "error", "{answer}");
    assert!(!marker.exists(), "git_log ran a program that the repository named: {answer}");
    for tool in ["git_status", "git_diff"] {
        let mut call = world.spawn_call(tool, &json!({"repository": "proj"}));
        world.held(tool);
        call.kill().unwrap();
        call.wait().unwrap();
    }
    let to = json!({"from": "notes.md", "to": "proj/.git/config"}).to_string();
    let answer = world.json(&["call", "move_file", "--args", &to]);
    assert_eq!(answer["envelope"]["results"]["denied"]["code"], "bad_arguments", "{answer}");
}

#[test]
fn the_agents_client_on_stdio_is_told_nothing_by_which_it_could_decide() {
    let world = World::new();
    let mut args = world.serve_args();
    args.push("--stdio".to_owned());
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let output = world.run(&args);
    let said =
        String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("\"mcp\""), "{said}");
    assert!(!said.contains("code=") && !said.contains("cs_approver"), "{said}");
}

#[test]
fn a_token_goes_only_to_a_gateway_that_runs() {
    let world = World::new();
    let gateway = world.start();
    let at =
        gateway.mcp().strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap().to_owned();
    gateway.kill();
    let squatter = std::net::TcpListener::bind(&at).unwrap();
    squatter.set_nonblocking(true).unwrap();
    let output = world.run(&["approvals", "list"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no gateway is running"));
    assert!(squatter.accept().is_err(), "somebody else was asked");
}

#[test]
fn a_second_gateway_on_the_same_database_is_refused() {
    let world = World::new();
    let _gateway = world.start();
    let args = world.serve_args();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let output = world.run(&args);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("in use by another gateway"));
    assert_eq!(world.json(&["call", "git_log"])["envelope"]["status"], "success");
}

#[test]
fn a_full_disk_denies_by_name_and_the_gateway_stays_up() {
    let world = World::new();
    world.configure("[store]\nmax_bytes = 262144\n");
    let _gateway = world.start();
    let denied = wait_for("a full database", || {
        let answer = world.run(&["call", "git_log", "--json"]);
        let text =
            String::from_utf8(answer.stdout).unwrap() + &String::from_utf8(answer.stderr).unwrap();
        text.contains("full").then_some(text)
    });
    assert!(denied.contains("journal") || denied.contains("recorded"), "{denied}");
    assert_eq!(world.json(&["approvals", "list"]), json!([]));
}

#[test]
fn stopping_keeps_what_is_held() {
    let world = World::new();
    let gateway = world.start();
    let args = json!({"path": "made"});
    let call = world.spawn_call("create_directory", &args);
    let before = world.held("create_directory");
    let (code, stderr) = gateway.stop();
    assert_eq!(code, Some(0), "{stderr}");
    let output = call.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("gateway_stopping"), "{text}");

    let gateway = world.start();
    assert_eq!(gateway.banner["holds_reopened"], 1);
    let after = world.held("create_directory");
    assert_eq!(after, before);
    let call = world.spawn_call("create_directory", &args);
    world.text(&["approvals", "approve", after["id"].as_str().unwrap()]);
    let answer = finish(call);
    assert_eq!(answer["envelope"]["status"], "success", "{answer}");
    let asked = world.story().iter().filter(|kind| *kind == "approval_requested").count();
    assert_eq!(asked, 1);
}

#[test]
fn sigkill_loses_no_decision_and_runs_nothing_twice() {
    let world = World::with_tools(&[("slow.clad.toml", SLOW)]);
    let gateway = world.start();
    let args = json!({"message": "approved once"});
    std::fs::write(world.root().join("file"), "text").unwrap();
    assert!(
        std::process::Command::new("git")
            .current_dir(world.root())
            .args(["add", "file"])
            .status()
            .unwrap()
            .success()
    );
    let mut call = world.spawn_call("git_commit", &args);
    let hold = world.held("git_commit");
    gateway.kill();
    call.wait().unwrap();

    // Killed while it waited: it waits on, and a decision made meanwhile is kept.
    let gateway = world.start();
    assert_eq!(gateway.banner["holds_reopened"], 1);
    world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);
    gateway.kill();

    // Killed after the decision: the same call is released by it, once.
    let gateway = world.start();
    assert_eq!(gateway.banner["unused_approvals"], 1);
    let answer = world.json(&["call", "git_commit", "--args", &args.to_string()]);
    assert_eq!(answer["envelope"]["status"], "success", "{answer}");
    assert_eq!(world.git_log(), ["approved once", "first commit"]);
    let mut again = world.spawn_call("git_commit", &args);
    world.held("git_commit");
    again.kill().unwrap();
    again.wait().unwrap();
    // A hold never ends because a connection did: the same call joins it, and learns of it.
    let again = world.spawn_call("git_commit", &args);
    let hold = world.held("git_commit");
    world.text(&["approvals", "deny", hold["id"].as_str().unwrap()]);
    assert_eq!(finish(again)["envelope"]["status"], "denied");
    assert_eq!(world.json(&["approvals", "list"]), json!([]));

    // Killed while a tool ran: what ran is dead, its outcome is listed, nothing runs again.
    let mut call = world.spawn_call("slow", &json!({"seconds": 599}));
    wait_for("the intent", || {
        let story = world.story();
        (story.last().unwrap() == "tool_intent_recorded").then_some(())
    });
    gateway.kill();
    call.wait().unwrap();
    let gateway = world.start();
    assert_eq!(gateway.banner["unknown_effects"].as_array().unwrap().len(), 1);
    wait_for("the killed gateway's tool to die", || (!runs("sleep\x00599\x00")).then_some(()));
    assert_eq!(gateway.stop().0, Some(0));
    let gateway = world.start();
    assert_eq!(gateway.banner["unknown_effects"].as_array().unwrap().len(), 1);
    let listed = world.story().iter().filter(|kind| *kind == "effect_outcome_unknown").count();
    assert_eq!(listed, 1, "listed again at every start");
    let (whole, report) = world.verify();
    assert!(whole, "{report}");
}

fn runs(command_line: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|text| text.ends_with(command_line.as_bytes()))
    })
}

#[test]
fn sigterm_lets_a_running_call_finish() {
    let world = World::with_tools(&[("slow.clad.toml", SLOW)]);
    let gateway = world.start();
    let call = world.spawn_call("slow", &json!({"seconds": 2}));
    wait_for("the intent", || (!world.story().is_empty()).then_some(()));
    let (code, _) = gateway.stop();
    assert_eq!(code, Some(0));
    assert_eq!(finish(call)["envelope"]["status"], "success");
    assert_eq!(world.story(), ["tool_intent_recorded", "tool_result_recorded"]);
}

#[test]
fn sigterm_waits_for_an_approved_call_whose_caller_left() {
    let held = SLOW.replace("name = \"slow\"", "name = \"slow_held\"");
    let held = held.replace("binary =", "human_approval = true\nbinary =");
    let world = World::with_tools(&[("slow_held.clad.toml", &held)]);
    let gateway = world.start();
    let mut call = world.spawn_call("slow_held", &json!({"seconds": 3}));
    let hold = world.held("slow_held");
    world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);
    let intent = || world.story().contains(&"tool_intent_recorded".to_owned()).then_some(());
    wait_for("the intent", intent);
    call.kill().unwrap();
    call.wait().unwrap();
    assert_eq!(gateway.stop().0, Some(0));
    assert_eq!(world.story().last().unwrap(), "tool_result_recorded");
    // The run ends after what belongs to it.
    let text = world.text(&["journal", "tail", "-n", "1000", "--json"]);
    let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let records: Vec<_> = records.collect();
    let result = |r: &serde_json::Value| r["event_index"]["event_kind"] == "tool_result_recorded";
    let at = records.iter().position(result).unwrap();
    let run = &records[at]["run_id"];
    let ended = |r: &serde_json::Value| {
        r["run_id"] == *run && r["event_index"]["event_kind"] == "run_ended"
    };
    assert!(records.iter().position(ended).unwrap() > at, "{text}");
}

fn raw(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn hostile_requests_get_a_clear_answer_and_nothing_else() {
    let world = World::new();
    let gateway = world.start();
    let address = gateway.mcp().strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap();
    let host = format!("Host: {address}\r\nConnection: close\r\n");
    let agent = format!("{host}Authorization: Bearer {}\r\n", gateway.token());
    let json = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
    for (what, request, status, part) in [
        (
            "no token",
            format!("POST /mcp HTTP/1.1\r\n{host}{json}Content-Length: 2\r\n\r\n{{}}"),
            "401",
            "bearer token",
        ),
        (
            "wrong token",
            format!("GET /api/v1/approvals HTTP/1.1\r\n{host}Authorization: Bearer no\r\n\r\n"),
            "401",
            "unauthorized",
        ),
        (
            "an agent listing approvals",
            format!("GET /api/v1/approvals HTTP/1.1\r\n{agent}\r\n"),
            "403",
            "approver",
        ),
        (
            "an agent approving",
            format!(
                "POST /api/v1/approvals/00/approve HTTP/1.1\r\n{agent}Content-Length: 0\r\n\r\n"
            ),
            "403",
            "approver",
        ),
        (
            "another host",
            "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_owned(),
            "421",
            "allowed_hosts",
        ),
        (
            "malformed JSON-RPC",
            format!("POST /mcp HTTP/1.1\r\n{agent}{json}Content-Length: 5\r\n\r\n{{\"a\":"),
            "400",
            "-32700",
        ),
        (
            "malformed JSON",
            format!("POST /api/v1/calls HTTP/1.1\r\n{agent}{json}Content-Length: 1\r\n\r\n{{"),
            "400",
            "bad_request",
        ),
        (
            "an unknown field",
            format!(
                "POST /api/v1/calls HTTP/1.1\r\n{agent}{json}Content-Length: 20\r\n\r\n{{\"tool\":\"a\",\"x\":123}}"
            ),
            "400",
            "unknown field",
        ),
        (
            "an oversized body",
            format!(
                "POST /api/v1/calls HTTP/1.1\r\n{agent}{json}Content-Length: 5000000\r\n\r\n{}",
                "x".repeat(5_000_000)
            ),
            "413",
            "larger than",
        ),
        (
            "no such place",
            format!("GET /nowhere HTTP/1.1\r\n{host}\r\n"),
            "404",
            "nothing at this address",
        ),
    ] {
        let answer = raw(address, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {answer}");
        assert!(answer.contains(part), "{what}: {answer}");
        assert!(answer.contains("content-security-policy"), "{what}: {answer}");
    }
    let story = world.text(&["journal", "tail", "-n", "100"]);
    assert!(story.contains("Access refused"), "{story}");
    assert!(!world.story().iter().any(|kind| kind.starts_with("tool")), "{story}");
    // A client that never finishes its request is not waited for.
    let start = Instant::now();
    let answer = raw(address, b"POST /mcp HTTP/1.1\r\nHost: ");
    assert!(start.elapsed() < Duration::from_secs(29), "a slow client was waited for: {answer}");
    assert_eq!(world.json(&["call", "git_log"])["envelope"]["status"], "success");
}

#[test]
fn wrong_tokens_are_counted_and_a_right_one_is_never_locked_out() {
    let world = World::new();
    let gateway = world.start();
    let address = gateway.mcp().strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap();
    let request = format!(
        "GET /api/v1/me HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer no\r\n\r\n"
    );
    let limited = (0..80).any(|_| raw(address, request.as_bytes()).starts_with("HTTP/1.1 429"));
    assert!(limited, "wrong tokens are not limited");
    assert_eq!(world.json(&["call", "git_log"])["envelope"]["status"], "success");
}

#[test]
fn no_token_ever_reaches_the_journal_or_the_log() {
    let world = World::new();
    let gateway = world.start();
    let token = gateway.token().to_owned();
    world.json(&["call", "git_log"]);
    let (_, stderr) = gateway.stop();
    let mut files = Vec::new();
    for name in ["journal.db", "principals.toml"] {
        files.extend(std::fs::read(world.state().join(name)).unwrap());
    }
    files.extend(stderr.into_bytes());
    assert!(!files.windows(token.len()).any(|window| window == token.as_bytes()));
}

#[test]
fn a_changed_byte_fails_verification_and_names_the_record() {
    let world = World::new();
    let gateway = world.start();
    world.json(&["call", "git_log"]);
    assert_eq!(gateway.stop().0, Some(0));
    assert_eq!(world.run(&["audit", "verify"]).status.code(), Some(0));
    let mut bytes = std::fs::read(world.database()).unwrap();
    let needle = b"\"status\":\"intent_recorded\"";
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at + 12] ^= 1;
    std::fs::write(world.database(), bytes).unwrap();
    let output = world.run(&["audit", "verify"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("record_changed") && text.contains("journal.record.tool.call."),
        "{text}"
    );
    let other = "countersign-00000000+00000000+AQ==";
    assert_eq!(world.run(&["audit", "verify", "--key", other]).status.code(), Some(2));
}

#[test]
fn the_small_commands_do_what_they_say() {
    let world = World::new();
    let tools = world.tools.to_str().unwrap();
    let check = world.json(&["manifest", "check", tools]);
    assert_eq!((&check["ok"], &check["diagnostics"]), (&json!(true), &json!([])));
    let file = world.tools.join("git_log.clad.toml");
    let file = file.to_str().unwrap();
    let plan = world.json(&["manifest", "plan", file, "--args", r#"{"limit": 3}"#]);
    assert_eq!(plan["decision"], "accept");
    assert_eq!(plan["plan"]["argv"][0], "git");
    let refused = world.run(&["manifest", "plan", file, "--args", r#"{"limit": "3;x"}"#, "--json"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stdout).unwrap().contains("\"decision\":\"reject\""));
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.text(&["completions", shell]).contains("countersign"));
    }
    world.configure(&format!("[tools]\ndir = {tools:?}\n[server]\nbind = \"127.0.0.1:0\"\n"));
    assert_eq!(world.run(&["doctor"]).status.code(), Some(0));
    world.configure("[sever]\n");
    let output = world.run(&["check-config"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("countersign.toml:1:2") && stderr.contains("`server`"), "{stderr}");
    assert_eq!(world.run(&["approvals", "list"]).status.code(), Some(2));
}
