//! Hooks of the configuration, with the real binary: the files of `examples/hooks` as they are,
//! and programs that misbehave. The programs and the server are Python 3.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::common::mcp::Session;
use crate::common::{Gateway, World, finish, repository, wait_for};

/// `webhook.py`, on a port of its own.
struct Receiver {
    child: Child,
    address: String,
}

impl Receiver {
    fn start(world: &World, secret_file: &str) -> Self {
        let mut child = Command::new("python3")
            .current_dir(world.dir.path())
            .args(["webhook.py", "--port=0", "--frozen=git_commit", "--secret-file", secret_file])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("these tests need python3: {error}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, address }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Replaces what a test has to, and only what is there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is not in the example");
    text.replace(from, to)
}

/// A world with the files of `examples/hooks` in it, and folders for them to guard.
fn examples() -> World {
    let world = World::new();
    for name in ["guard.py", "webhook.py"] {
        let from = repository().join("examples/hooks").join(name);
        std::fs::copy(from, world.dir.path().join(name)).unwrap();
    }
    for folder in ["private", "shared", "open"] {
        std::fs::create_dir(world.root().join(folder)).unwrap();
        std::fs::write(world.root().join(folder).join("file"), "hello\n").unwrap();
    }
    std::os::unix::fs::symlink("private", world.root().join("link")).unwrap();
    secret(&world, "webhook.secret", "bm90IGEgc2VjcmV0LCBvbmx5IGEgdGVzdCBrZXk=");
    world
}

fn secret(world: &World, name: &str, key: &str) {
    std::fs::write(world.dir.path().join(name), format!("whsec_{key}\n")).unwrap();
}

/// The configuration of `examples/hooks`, for this root and this server.
fn configure_examples(world: &World, address: &str) {
    let file = repository().join("examples/hooks/countersign.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let text = replaced(&text, "--root=../../workspace", "--root=root");
    // A busy machine may take long to start a program.
    let text = replaced(&text, "timeout_ms = 5000", "timeout_ms = 30000");
    let text = replaced(&text, "timeout_ms = 2000", "timeout_ms = 30000");
    world.configure(&replaced(&text, "http://127.0.0.1:8790/", &format!("{address}/")));
}

/// A world with one program as its hook, and what else the hook's table says.
fn hooked(point: &str, program: &str, keys: &str) -> World {
    let world = World::new();
    let also = "import json, sys, time\nasked = json.load(sys.stdin)\n\
                view = asked[\"view\"]\ncontent = view.get(\"content\")\n\
                def say(kind, **payload):\n    \
                    print(json.dumps({\"type\": kind, \"payload\": payload}))\n    sys.exit()\n";
    std::fs::write(world.dir.path().join("hook.py"), format!("{also}{program}")).unwrap();
    world.configure(&format!(
        "[[hooks]]\nid = \"h\"\npoint = \"{point}\"\ncommand = [\"python3\", \"hook.py\"]\n\
         timeout_ms = 30000\nprivacy = \"content_capture_allowed\"\n{keys}"
    ));
    world
}

/// One call over REST: a run of its own.
fn call(world: &World, tool: &str, args: &Value) -> Value {
    world.json(&["call", tool, "--args", &args.to_string()])["envelope"].clone()
}

fn read(world: &World, path: &str) -> Value {
    call(world, "read_file", &json!({ "path": path }))
}

fn denied(envelope: &Value) -> (&str, &str) {
    assert_eq!(envelope["status"], "denied", "{envelope}");
    let denied = &envelope["results"]["denied"];
    (denied["code"].as_str().unwrap(), denied["message"].as_str().unwrap())
}

fn records(world: &World) -> Vec<Value> {
    let text = world.text(&["journal", "tail", "-n", "100000", "--json"]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kind(record: &Value) -> &str {
    record["event_index"]["event_kind"].as_str().unwrap()
}

/// What is recorded about this hook, but for its registration.
fn of_hook(world: &World, id: &str) -> Vec<Value> {
    let payloads = records(world).into_iter().map(|mut record| record["payload"].take());
    payloads
        .filter(|payload| payload["type"] == "hook" && payload["hook_id"] == id)
        .map(|mut payload| payload["payload"].take())
        .filter(|payload| payload["type"] != "registered")
        .collect()
}

fn count(world: &World, what: &str) -> usize {
    records(world).iter().filter(|record| kind(record) == what).count()
}

fn whole(world: &World) {
    let (whole, report) = world.verify();
    assert!(whole, "{report}");
}

/// Decides over REST, with terms; the status and the answer.
fn approve(world: &World, gateway: &Gateway, hold: &Value, body: &Value) -> (u16, Value) {
    let token = std::fs::read_to_string(world.state().join("credentials/approver.token")).unwrap();
    let api = gateway.banner["api"].as_str().unwrap();
    let url = format!("{api}/approvals/{}/approve", hold["id"].as_str().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = reqwest::Client::new().post(url).bearer_auth(token.trim()).json(body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    })
}

#[test]
fn the_examples_do_what_they_say_and_outlive_a_restart() {
    let world = examples();
    let receiver = Receiver::start(&world, "webhook.secret");
    configure_examples(&world, &receiver.address);
    assert!(world.text(&["check-config"]).contains("is good"));
    let gateway = world.start();
    assert_eq!(gateway.banner["hooks"], 4);

    // A program denies: the agent and the journal have the reason.
    for (path, argument) in [("private/file", "path"), ("link/file", "path"), ("private", "path")] {
        let envelope = read(&world, path);
        let (code, message) = denied(&envelope);
        assert_eq!(code, "hook.denied");
        assert_eq!(
            message,
            format!(
                "denied by hook `keep_out`: path.kept_out: `{argument}` leads to private, which \
                 is not for agents"
            )
        );
    }
    let envelope = call(&world, "search_text", &json!({ "text": "hello" }));
    assert_eq!(denied(&envelope).0, "hook.denied", "what is searched has `private` in it");
    let envelope = call(&world, "list_files", &json!({ "depth": 2 }));
    assert_eq!(denied(&envelope).0, "hook.denied", "and so has what is listed");
    let all = records(&world);
    let refusal = all.iter().find(|record| kind(record) == "tool_denied").unwrap();
    let payload = &refusal["payload"];
    assert_eq!(payload["hook_id"], "keep_out");
    assert!(
        payload["redacted_result_summary"].as_str().unwrap().contains("path.kept_out"),
        "{payload}"
    );
    assert!(all.iter().all(|record| kind(record) != "tool_intent_recorded"));
    let told = world.text(&["journal", "tail", "-n", "1000"]);
    assert!(told.contains("`path` leads to private, which is not for agents"), "{told}");

    assert_eq!(call(&world, "list_files", &json!({}))["status"], "success");

    // A program changes the arguments: the call is planned again.
    let args = json!({ "text": "hello", "path": "open" });
    let envelope = call(&world, "search_text", &args);
    assert_eq!(envelope["status"], "success", "{envelope}");
    assert!(envelope["command"].as_str().unwrap().contains("--max-count=20"), "{envelope}");
    let args = json!({ "text": "hello", "path": "open", "max_per_file": 3 });
    let envelope = call(&world, "search_text", &args);
    assert!(envelope["command"].as_str().unwrap().contains("--max-count=3"), "{envelope}");
    let all = records(&world);
    let modified = all.iter().filter(|record| kind(record) == "tool_request_modified");
    let modified: Vec<_> = modified.map(|record| &record["payload"]).collect();
    assert_eq!(modified.len(), 2, "one search over everything, one over `open`");
    let summary = |name: &str| modified[1][name].as_str().unwrap().to_owned();
    assert!(summary("original_redacted_args_summary").contains("max_per_file=50"));
    assert!(summary("patched_redacted_args_summary").contains("max_per_file=20"));

    // A program asks for a person, though neither policy nor manifest does.
    let waiting = world.spawn_call("read_file", &json!({ "path": "shared/file" }));
    let hold = world.held("read_file");
    assert_eq!(hold["reason"], "a hook asks for a person: `path` leads to shared");
    world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);
    assert_eq!(finish(waiting)["envelope"]["status"], "success");

    // The server denies a frozen tool, and masks what an agent is not to see.
    let envelope = call(&world, "git_commit", &json!({ "message": "x" }));
    assert_eq!(
        denied(&envelope).1,
        "denied by hook `freeze`: tool.frozen: git_commit is frozen for now"
    );
    std::fs::write(world.root().join("open/env"), "name = x\npassword = hunter2\n").unwrap();
    let envelope = read(&world, "open/env");
    assert_eq!(envelope["results"], json!({ "text": "name = x\n[masked]\n" }));
    let all = records(&world);
    let rewritten = all.iter().find(|record| kind(record) == "tool_result_rewritten").unwrap();
    assert_eq!(rewritten["payload"]["hook_id"], "mask_secrets");
    assert_eq!(
        rewritten["payload"]["patched_redacted_result_summary"],
        "what looks like a secret is masked"
    );

    // Registered once, and numbered on.
    assert_eq!(gateway.stop().0, Some(0));
    let gateway = world.start();
    assert_eq!(denied(&read(&world, "private/file")).0, "hook.denied");
    assert_eq!(read(&world, "open/file")["results"]["text"], "hello\n");
    assert_eq!(gateway.stop().0, Some(0));
    assert_eq!(count(&world, "hook_registered"), 4);
    let all = records(&world);
    let started = all.iter().filter(|record| kind(record) == "hook_invocation_started");
    let started: Vec<_> =
        started.map(|r| r["payload"]["payload"]["invocation_id"].clone()).collect();
    let expected: Vec<_> =
        (1..=started.len()).map(|n| json!(format!("hook.invocation.{n}"))).collect();
    assert_eq!(started, expected);
    whole(&world);

    // Another specification is another registration.
    let file = world.dir.path().join("countersign.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    world.configure(&replaced(&text, "order = 10 ", "order = 11 "));
    drop(world.start());
    assert_eq!(count(&world, "hook_registered"), 5);
}

#[test]
fn a_server_that_knows_another_secret_or_is_gone_lets_nothing_through() {
    let world = examples();
    secret(&world, "other.secret", "YW5vdGhlciBzZWNyZXQsIGFsc28gZm9yIGEgdGVzdCE=");
    let receiver = Receiver::start(&world, "other.secret");
    configure_examples(&world, &receiver.address);
    let _gateway = world.start();
    let envelope = read(&world, "notes.md");
    assert_eq!(denied(&envelope).0, "hook.failed");
    let why = "answered 401 Unauthorized: {\"error\": \"no signature that fits\"}";
    assert_eq!(denied(&envelope).1, "denied by hook `freeze`: it gave no answer");
    let failed = of_hook(&world, "freeze").pop().unwrap();
    assert_eq!(failed["type"], "failed");
    assert_eq!(
        (&failed["failure_policy"], &failed["redacted_summary"]),
        (&json!("Deny"), &json!(why))
    );

    drop(receiver);
    let envelope = read(&world, "notes.md");
    assert_eq!(denied(&envelope).0, "hook.failed");
    let failed = of_hook(&world, "freeze").pop().unwrap();
    let why = failed["redacted_summary"].as_str().unwrap();
    assert!(why.starts_with("no connection to http://127.0.0.1:"), "{why}");
    assert_eq!(count(&world, "tool_intent_recorded"), 0);
    whole(&world);
}

/// Does what the path of a `read_file` says.
const MOODS: &str = r#"
path = content["arguments"].get("path")
if path == "crash":
    sys.exit("no idea\nand more")
if path == "signal":
    __import__("os").kill(__import__("os").getpid(), 9)
if path == "words":
    print("yes")
if path == "two":
    print('{"type":"observe_only"} {"type":"observe_only"}')
if path == "unknown":
    say("do_something")
if path == "long":
    print(" " * (1 << 20) + '{"type":"observe_only"}')
if path == "no-right":
    say("request_approval", redacted_summary="please")
if path == "no-place":
    say("stop_run", code="x", redacted_summary="stop")
if path == "bad-patch":
    say("modify_tool_request", redacted_summary="more", merge_patch={"max_bytes": "many"})
if path == "escape":
    say("modify_tool_request", redacted_summary="up", merge_patch={"path": "../state/log.key"})
"#;

#[test]
fn a_hook_that_does_not_answer_as_it_may_refuses_the_call_and_is_recorded() {
    let keys = "rights = [\"deny\", \"modify_tool_request\"]\non_failure = \"deny\"\n";
    let world = hooked("before_tool_call", MOODS, keys);
    let _gateway = world.start();
    assert_eq!(read(&world, "notes.md")["status"], "success", "it answers nothing to most calls");
    for (path, code, message, record) in [
        ("crash", "hook.failed", "the hook exited with code 1: no idea", "failed"),
        ("signal", "hook.failed", "the hook ended by signal 9", "failed"),
        (
            "words",
            "hook.failed",
            "the answer is not one hook response: expected value at line 1 column 1",
            "failed",
        ),
        (
            "two",
            "hook.failed",
            "the answer is not one hook response: trailing characters at line 1 column 25",
            "failed",
        ),
        (
            "unknown",
            "hook.failed",
            "the answer is not one hook response: unknown variant",
            "failed",
        ),
        ("long", "hook.failed", "the answer exceeds 1048576 bytes", "failed"),
        (
            "no-right",
            "hook.rejected",
            "its answer `request_approval` was rejected: the hook has no right to `request_approval`",
            "rejected_mutation_right",
        ),
        (
            "no-place",
            "hook.rejected",
            "its answer `stop_run` was rejected: `stop_run` is not possible at `before_tool_call`",
            "rejected_point_matrix",
        ),
        (
            "bad-patch",
            "hook.rejected",
            "its answer `modify_tool_request` was rejected: the changed arguments are refused: \
             max_bytes",
            "rejected_policy",
        ),
        (
            "escape",
            "hook.rejected",
            "its answer `modify_tool_request` was rejected: the changed arguments are refused: path",
            "rejected_policy",
        ),
    ] {
        let envelope = read(&world, path);
        assert_eq!(denied(&envelope).0, code, "{path}");
        let why = denied(&envelope).1;
        let last = of_hook(&world, "h").pop().unwrap();
        match last["type"].as_str().unwrap() {
            "response_decision" => {
                assert_eq!(last["decision"], record, "{path}");
                assert!(why.starts_with(&format!("denied by hook `h`: {message}")), "{why}");
            }
            // The record has the program's words, the agent has not.
            other => {
                assert_eq!(other, record, "{path}");
                assert_eq!(why, "denied by hook `h`: it gave no answer", "{path}");
                let words = last["redacted_summary"].as_str().unwrap();
                assert!(words.starts_with(message), "{path}: {words}");
            }
        }
    }
    assert_eq!(count(&world, "tool_intent_recorded"), 1, "something else ran than `notes.md`");
    assert_eq!(count(&world, "tool_denied"), 10);
    whole(&world);
}

#[test]
fn a_late_hook_is_killed_at_its_deadline_with_all_it_started() {
    let world = World::new();
    world.configure(
        "[[hooks]]\nid = \"h\"\npoint = \"before_tool_call\"\ntimeout_ms = 2000\n\
         command = [\"sh\", \"-c\", \"sleep 599.25 & sleep 599.25\"]\non_failure = \"deny\"\n",
    );
    let _gateway = world.start();
    let runs = || {
        let found = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
            std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|text| text.ends_with(b"sleep\x00599.25\x00"))
        });
        found.count()
    };
    let waiting = world.spawn_call("read_file", &json!({ "path": "notes.md" }));
    wait_for("the hook to start two", || (runs() == 2).then_some(()));
    let answer = finish(waiting);
    assert_eq!(
        denied(&answer["envelope"]),
        ("hook.timed_out", "denied by hook `h`: no answer within 2000 ms")
    );
    let late = of_hook(&world, "h").pop().unwrap();
    assert_eq!((&late["type"], &late["failure_policy"]), (&json!("timed_out"), &json!("Deny")));
    let elapsed = late["elapsed_ms"].as_u64().unwrap();
    assert!((2000..4000).contains(&elapsed), "{late}");
    wait_for("both to be killed", || (runs() == 0).then_some(()));
    assert_eq!(count(&world, "tool_intent_recorded"), 0);
    whole(&world);
}

#[test]
fn a_hook_that_fails_open_is_recorded_and_changes_nothing() {
    let keys = "mode = \"blocking\"\non_failure = \"fail_open_observe_only\"\n";
    let world = hooked("after_tool_call", "sys.exit(\"no idea\")\n", keys);
    let _gateway = world.start();
    assert_eq!(read(&world, "notes.md")["results"]["text"], "hello\n");
    let failed = wait_for("the record", || {
        of_hook(&world, "h").pop().filter(|payload| payload["type"] == "failed")
    });
    assert_eq!(failed["failure_policy"], "FailOpenObserveOnly", "{failed}");
}

#[test]
fn a_result_whose_hook_fails_or_goes_too_far_is_withheld() {
    let program = r#"
if "hello" in content["results"]["text"]:
    say("request_retry", redacted_summary="once more")
say("rewrite_tool_result", redacted_summary="shorter", replacement={"text": "less"})
"#;
    let keys = "rights = [\"rewrite_tool_result\"]\non_failure = \"deny\"\n";
    let world = hooked("after_tool_call", program, keys);
    std::fs::write(world.root().join("other.md"), "other\n").unwrap();
    let _gateway = world.start();
    assert_eq!(read(&world, "other.md")["results"], json!({ "text": "less" }));
    let args = json!({ "path": "notes.md" }).to_string();
    let answer = world.json(&["call", "read_file", "--args", &args]);
    // What the agent gets proves the intent: the result's record has the digest of the output.
    let digest = countersign_core::digest::Digest::of("hello\n").to_string();
    assert!(!answer.to_string().contains(&digest), "{answer}");
    let proven = answer["receipt"]["record"].as_str().unwrap();
    assert!(proven.contains("tool_intent_recorded"), "{proven}");
    let envelope = &answer["envelope"];
    assert_eq!(envelope["status"], "error");
    assert_eq!(envelope["results"]["error"], "the call has run, and its result is withheld");
    assert_eq!(envelope["results"]["withheld"]["code"], "hook.rejected");
    assert!(!envelope.to_string().contains("hello"), "{envelope}");
    assert_eq!(count(&world, "tool_result_recorded"), 2, "both calls have run");
    assert_eq!(count(&world, "tool_result_rewritten"), 1);
    whole(&world);
}

#[test]
fn a_failing_hook_can_end_the_run_and_nothing_else() {
    for (policy, status) in [("interrupt_run", "interrupted"), ("fail_run", "failed")] {
        let program = "if content[\"arguments\"].get(\"path\") == \"crash\":\n    sys.exit(3)\n";
        let world = hooked("before_tool_call", program, &format!("on_failure = \"{policy}\"\n"));
        let gateway = world.start();
        let args = json!({ "path": "notes.md" });
        let session = Session::open(&gateway, "one").unwrap();
        let other = Session::open(&gateway, "two").unwrap();
        assert_eq!(session.call("read_file", &args)["status"], "success");
        let envelope = session.call("read_file", &json!({ "path": "crash" }));
        assert_eq!(denied(&envelope).0, "hook.failed");
        let envelope = session.call("read_file", &args);
        assert_eq!(denied(&envelope).0, "run_stopped");
        assert_eq!(
            denied(&envelope).1,
            "the run takes no further call, start a new one: hook `h`: it gave no answer"
        );
        assert_eq!(other.call("read_file", &args)["status"], "success", "another run goes on");
        assert_eq!(gateway.stop().0, Some(0));
        let all = records(&world);
        let ended = all.iter().filter(|record| kind(record) == "run_ended");
        let mut ended: Vec<_> =
            ended.map(|record| record["payload"]["status"].as_str().unwrap()).collect();
        ended.sort_unstable();
        let mut expected = ["ended", "ended", status];
        expected.sort_unstable();
        assert_eq!(ended, expected);
        whole(&world);
    }
}

#[test]
fn a_run_that_a_hook_does_not_let_begin_makes_no_call() {
    let program = "if \"evil\" in content[\"reason\"] or \"REST\" in content[\"reason\"]:\n    \
                   say(\"stop_run\", code=\"client.unknown\", redacted_summary=\"not this one\")\n";
    let world = hooked("run_starting", program, "rights = [\"stop_run\"]\n");
    let gateway = world.start();
    let why = "the run may not begin: hook `h`: client.unknown: not this one";
    assert_eq!(Session::open(&gateway, "evil").err().unwrap()["message"], why);
    let output = world.run(&["call", "read_file", "--args", "{\"path\": \"notes.md\"}"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("error: {why} (403)\n"));
    let session = Session::open(&gateway, "good").unwrap();
    let answer = session.call("read_file", &json!({ "path": "notes.md" }));
    assert_eq!(answer["status"], "success", "{answer}");
    let all = records(&world);
    let started = all.iter().filter(|record| kind(record) == "run_started");
    assert_eq!(started.count(), 2, "the gateway's own, and the good one");
    assert_eq!(count(&world, "hook_invocation_started"), 3, "the gateway's own run has no hooks");
    whole(&world);
}

#[test]
fn a_run_whose_caller_left_while_hooks_looked_at_it_is_ended() {
    let program = "import os\nwhile not os.path.exists(\"go\"):\n    time.sleep(0.01)\n";
    let world = hooked("run_starting", program, "rights = [\"stop_run\"]\n");
    let gateway = world.start();
    let mut call = world.spawn_call("read_file", &json!({ "path": "notes.md" }));
    wait_for("the hook", || (count(&world, "hook_invocation_started") == 1).then_some(()));
    call.kill().unwrap();
    call.wait().unwrap();
    std::fs::write(world.dir.path().join("go"), "").unwrap();
    wait_for("the end of the run", || (count(&world, "run_ended") == 1).then_some(()));
    assert_eq!(gateway.stop().0, Some(0));
    assert_eq!(count(&world, "run_started"), count(&world, "run_ended"));
    assert_eq!(count(&world, "tool_intent_recorded"), 0);
    whole(&world);
}

#[test]
fn a_run_can_be_kept_from_counting_as_complete() {
    let program = "say(\"stop_completion_with_repair_needed\", code=\"work.open\", \
                   redacted_summary=\"files are left\")\n";
    let keys = "rights = [\"stop_completion_with_repair_needed\"]\n";
    let world = hooked("before_run_complete", program, keys);
    let gateway = world.start();
    assert_eq!(read(&world, "notes.md")["status"], "success");
    assert_eq!(gateway.stop().0, Some(0));
    let all = records(&world);
    let ended = all.iter().find(|record| kind(record) == "run_ended").unwrap();
    assert_eq!(ended["payload"]["status"], "repair_needed");
    assert_eq!(ended["payload"]["reason"], "the call ended; hook `h`: work.open: files are left");
    whole(&world);
}

#[test]
fn what_an_approver_is_shown_can_be_changed_or_the_question_refused() {
    let program = r#"
if content["arguments"][0]["value"] == "no":
    say("deny", code="not.today", redacted_summary="nobody is there")
say("modify_approval_request", redacted_summary="more to go by", merge_patch={
    "summary": "make a folder", "note": "ticket 12\u202e"})
"#;
    let keys = "rights = [\"deny\", \"modify_approval_request\"]\n";
    let world = hooked("before_approval_request", program, keys);
    let gateway = world.start();
    let envelope = call(&world, "create_directory", &json!({ "path": "no" }));
    assert_eq!(denied(&envelope).1, "denied by hook `h`: not.today: nobody is there");
    assert_eq!(count(&world, "approval_requested"), 0, "nobody was asked");

    let waiting = world.spawn_call("create_directory", &json!({ "path": "yes" }));
    let hold = world.held("create_directory");
    assert_eq!(hold["summary"], "make a folder");
    let shown = &hold["context_snapshot"];
    assert_eq!(shown["command"], "mkdir --parents --verbose -- yes", "the call is as it is");
    assert_eq!(shown["presentation"]["note"], "ticket 12\\u{202e}");
    assert_eq!(shown["presentation"]["asked_summary"], shown["command"]);
    assert_eq!(shown["presentation"]["changed_by"], json!(["h"]));
    assert_eq!(approve(&world, &gateway, &hold, &json!({})).0, 200);
    assert_eq!(finish(waiting)["envelope"]["status"], "success");
    whole(&world);
}

#[test]
fn an_approval_is_taken_back_when_the_hook_after_it_fails() {
    let keys = "mode = \"blocking\"\non_failure = \"deny\"\n";
    let world = hooked("after_approval_decision", "sys.exit(\"no ledger\")\n", keys);
    let gateway = world.start();
    let waiting = world.spawn_call("create_directory", &json!({ "path": "made" }));
    let hold = world.held("create_directory");
    let (status, answer) = approve(&world, &gateway, &hold, &json!({}));
    assert_eq!((status, answer["code"].as_str()), (409, Some("overruled")), "{answer}");
    let why = "the decision was overruled, so the call is denied: hook `h`: it gave no answer";
    assert_eq!(answer["error"], why);
    let why = "a hook took the approval back: hook `h`: it gave no answer";
    let answer = finish(waiting);
    assert_eq!(denied(&answer["envelope"]), ("hook.failed", why));
    assert!(!world.root().join("made").exists());
    // The decision stays recorded, and so does that it was taken back.
    let kinds = world.story();
    let kinds: Vec<_> = kinds.iter().filter(|kind| kind.starts_with("approval_")).collect();
    assert_eq!(kinds.len(), 5, "{kinds:?}");
    let failed = of_hook(&world, "h").pop().unwrap();
    assert_eq!(failed["redacted_summary"], "the hook exited with code 1: no ledger");
    whole(&world);
}

#[test]
fn an_approval_for_the_session_covers_later_calls_of_that_session_only() {
    let program = "if content[\"arguments\"].get(\"path\") == \"asked\":\n    \
                   say(\"request_approval\", redacted_summary=\"always\")\n";
    let world = hooked("before_tool_call", program, "rights = [\"request_approval\"]\n");
    let gateway = world.start();
    let session = Session::open(&gateway, "one").unwrap();
    let make = |path: &str| json!({ "path": path });
    let decide = |waiting: JoinHandle<Value>, terms: &Value| {
        let (status, answer) = approve(&world, &gateway, &world.held("create_directory"), terms);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(waiting.join().unwrap()["status"], "success");
    };
    // The very same call, twice.
    let waiting = session.spawn("create_directory", make("same"));
    decide(waiting, &json!({ "grant": { "max_uses": 2, "valid_for_ms": 60000 } }));
    assert_eq!(session.call("create_directory", &make("same"))["status"], "success");
    // One with another argument is asked about, and may then have any.
    let waiting = session.spawn("create_directory", make("a"));
    decide(
        waiting,
        &json!({ "grant": {
        "max_uses": 2, "valid_for_ms": 60000, "any_value_of": ["path"],
    } }),
    );
    assert_eq!(session.call("create_directory", &make("b"))["status"], "success");

    // A hook that asks is not answered by a grant.
    let waiting = session.spawn("create_directory", make("asked"));
    assert_eq!(world.held("create_directory")["reason"], "a hook asks for a person: always");
    decide(waiting, &json!({}));

    // Another session is another run.
    let other = Session::open(&gateway, "two").unwrap();
    decide(other.spawn("create_directory", make("c")), &json!({}));

    // And twice is twice: one use of each grant is left, and then none.
    for _ in 0..2 {
        assert_eq!(session.call("create_directory", &make("same"))["status"], "success");
    }
    decide(session.spawn("create_directory", make("same")), &json!({}));
    assert_eq!(count(&world, "tool_intent_recorded"), 9);
    assert_eq!(count(&world, "approval_requested"), 5);
    whole(&world);
}

#[test]
fn a_hook_that_is_not_waited_for_holds_up_nothing_and_its_queue_is_bounded() {
    for (keys, ends, why) in [
        ("", "cancelled", Value::Null),
        (
            "overflow = \"summarize_and_continue\"\n",
            "failed",
            json!("dropped, because the queue was full: 1, this one last"),
        ),
        (
            "overflow = \"fail_hook_invocation\"\non_failure = \"interrupt_run\"\n",
            "failed",
            json!("its queue is full"),
        ),
    ] {
        let keys = format!("queue_capacity = 2\nterminal_reserve = 1\n{keys}");
        let program = "import os\nwhile not os.path.exists(\"go\"):\n    time.sleep(0.02)\n";
        let world = hooked("after_tool_call", program, &keys);
        let gateway = world.start();
        // One runs, and one waits: the other place is for points where something ends.
        for _ in 0..2 {
            assert_eq!(read(&world, "notes.md")["results"]["text"], "hello\n");
            wait_for("an invocation", || (!of_hook(&world, "h").is_empty()).then_some(()));
        }
        // One is too many.
        let envelope = read(&world, "notes.md");
        if why == "its queue is full" {
            let message = &envelope["results"]["withheld"]["message"];
            assert_eq!(message, "denied by hook `h`: its queue is full");
        } else {
            assert_eq!(envelope["results"]["text"], "hello\n");
        }
        std::fs::write(world.dir.path().join("go"), "").unwrap();
        assert_eq!(gateway.stop().0, Some(0));
        let all = of_hook(&world, "h");
        let end = |n: u32| {
            let id = json!(format!("hook.invocation.{n}"));
            let mut of = all.iter().rev().filter(|payload| payload["invocation_id"] == id);
            of.next().unwrap()
        };
        assert_eq!((&end(1)["type"], &end(2)["type"]), (&json!("completed"), &json!("completed")));
        assert_eq!((&end(3)["type"], &end(3)["redacted_summary"]), (&json!(ends), &why));
        whole(&world);
    }
}

#[test]
fn a_hook_is_shown_what_its_privacy_policy_lets_it_see() {
    for (privacy, content, summary) in [
        ("content_capture_allowed", true, "read_file: path=notes.md max_bytes=65536"),
        ("envelope_and_redacted_summary", false, "read_file: path=notes.md max_bytes=65536"),
        ("content_refs_only", false, "before_tool_call"),
    ] {
        let program = "json.dump(view, open(\"seen.json\", \"w\"))\n";
        let world = hooked("before_tool_call", program, "");
        let file = world.dir.path().join("countersign.toml");
        let text = std::fs::read_to_string(file).unwrap();
        world.configure(&replaced(&text, "content_capture_allowed", privacy));
        let _gateway = world.start();
        assert_eq!(read(&world, "notes.md")["status"], "success");
        let seen = std::fs::read_to_string(world.dir.path().join("seen.json")).unwrap();
        let seen: Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen.get("content").is_some(), content, "{privacy}: {seen}");
        assert_eq!(seen["redacted_summary"], summary, "{privacy}");
        assert_eq!(seen["content_refs"].as_array().unwrap().len(), 1, "{privacy}");
    }
}

#[test]
fn a_hook_that_is_not_waited_for_and_fails_closed_ends_the_run() {
    let keys = "mode = \"non_blocking\"\non_failure = \"deny\"\n";
    let world = hooked("after_tool_call", "sys.exit(3)\n", keys);
    let gateway = world.start();
    let session = Session::open(&gateway, "one").unwrap();
    let args = json!({ "path": "notes.md" });
    assert_eq!(session.call("read_file", &args)["status"], "success");
    wait_for("the run to be stopped", || {
        let envelope = session.call("read_file", &args);
        (envelope["results"]["denied"]["code"] == "run_stopped").then_some(())
    });
    whole(&world);
}

/// The keys of an object, those of objects in it included.
fn keys(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                keys(value, &path, found);
                found.push(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, path, found)),
        _ => {}
    }
    found.sort();
    found.dedup();
}

#[test]
fn every_point_shows_what_the_page_about_hooks_says() {
    let page = std::fs::read_to_string(repository().join("docs/hooks.md")).unwrap();
    let points = [
        "run_starting",
        "before_tool_call",
        "before_approval_request",
        "after_approval_decision",
        "after_tool_call",
        "before_run_complete",
        "after_run_terminal",
    ];
    let program = "open(\"seen\", \"a\").write(json.dumps(asked) + \"\\n\")\n";
    let world = hooked("after_tool_call", program, "");
    let table = |point: &&str| {
        format!(
            "[[hooks]]\nid = \"at.{point}\"\npoint = \"{point}\"\nmode = \"blocking\"\n\
             timeout_ms = 30000\ncommand = [\"python3\", \"hook.py\"]\nprivacy = \"content_capture_allowed\"\n"
        )
    };
    world.configure(&points.iter().map(table).collect::<String>());
    let gateway = world.start();
    let waiting = world.spawn_call("create_directory", &json!({ "path": "made" }));
    let hold = world.held("create_directory");
    assert_eq!(approve(&world, &gateway, &hold, &json!({})).0, 200);
    assert_eq!(finish(waiting)["envelope"]["status"], "success");
    assert_eq!(gateway.stop().0, Some(0));
    let seen = std::fs::read_to_string(world.dir.path().join("seen")).unwrap();
    let seen: Vec<Value> = seen.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let order: Vec<_> = seen.iter().map(|input| input["point"].as_str().unwrap()).collect();
    assert_eq!(order, points);
    for input in &seen {
        let point = input["point"].as_str().unwrap();
        let rows = page.split("| point | `view.content` |").nth(1).unwrap_or_default();
        let named = format!("`{point}`");
        let row = rows.lines().find(|line| line.starts_with('|') && line.contains(&named));
        let row = row.unwrap_or_else(|| panic!("the page does not say what {point} shows"));
        let shown = row.rsplit('|').nth(1).unwrap();
        for name in input["view"]["content"].as_object().unwrap().keys() {
            assert!(shown.contains(&format!("`{name}`")), "{point} shows {name}: {row}");
        }
    }
    // The document on the page has the form of a real one.
    let document = page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let (mut on_page, mut real) = (Vec::new(), Vec::new());
    keys(&serde_json::from_str(document).unwrap(), "", &mut on_page);
    keys(&seen[1], "", &mut real);
    assert_eq!(on_page, real);
}
