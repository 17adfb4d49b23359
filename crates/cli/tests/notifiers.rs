//! Notifiers of the configuration, with the real binary: the files of `examples/notifiers` as
//! they are, endpoints that misbehave, and restarts. The receiver is Python 3.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{World, finish, repository, wait_for};

/// `receiver.py`, and the lines it has printed.
struct Receiver {
    child: Child,
    address: String,
    said: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    fn start(world: &World, port: u16) -> Self {
        let mut child = Command::new("python3")
            .arg(repository().join("examples/notifiers/receiver.py"))
            .current_dir(world.dir.path())
            .args(["--secret-file=receiver.secret", &format!("--port={port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("these tests need python3: {error}"));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                heard.lock().unwrap().push(line);
            }
        });
        Self { child, address, said }
    }

    /// The lines so far that begin so.
    fn lines(&self, begin: &str) -> Vec<String> {
        let said = self.said.lock().unwrap();
        said.iter().filter(|line| line.starts_with(begin)).cloned().collect()
    }

    fn wait(&self, begin: &str) -> String {
        wait_for(&format!("a notice {begin}"), || self.lines(begin).pop())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn world() -> World {
    let world = World::new();
    secret(&world, "bm90IGEgc2VjcmV0LCBvbmx5IGEgdGVzdCBrZXk=");
    world
}

fn secret(world: &World, key: &str) {
    std::fs::write(world.dir.path().join("receiver.secret"), format!("whsec_{key}\n")).unwrap();
}

/// The configuration of `examples/notifiers`, for this endpoint.
fn configure(world: &World, address: &str, more: &str) {
    let file = repository().join("examples/notifiers/countersign.toml");
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("http://127.0.0.1:8791/"), "the example names another address");
    let text = text.replace("http://127.0.0.1:8791/", &format!("{address}/"));
    world.configure(&format!("{text}{more}"));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What is recorded of notices that nobody got.
fn lost(world: &World) -> Vec<Value> {
    let text = world.text(&["journal", "tail", "-n", "100000", "--json"]);
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(|record| record["event_index"]["event_kind"] == "notice_lost").collect()
}

#[test]
fn a_held_call_and_its_end_are_told_as_the_example_shows() {
    let world = world();
    let receiver = Receiver::start(&world, 0);
    configure(&world, &receiver.address, "");
    let gateway = world.start();
    assert_eq!(gateway.banner["notifiers"], 1);
    let call = world.spawn_call("create_directory", &json!({"path": "made"}));
    let hold = world.held("create_directory");
    let id = hold["id"].as_str().unwrap();
    let line = receiver.wait("hold.held");
    assert!(line.contains("agent \"mkdir --parents --verbose -- made\""), "{line}");
    let base = gateway.mcp().strip_suffix("/mcp").unwrap();
    assert!(line.ends_with(&format!(" {base}/#/hold/{id}")), "{line}");
    world.text(&["approvals", "approve", id]);
    finish(call);
    receiver.wait("hold.decided");
    assert_eq!(receiver.lines("hold.").len(), 2);
    assert_eq!(lost(&world), [Value::Null; 0]);
}

#[test]
fn an_endpoint_that_is_down_is_told_when_it_is_up_though_the_gateway_was_killed_in_between() {
    let world = world();
    let port = free_port();
    let more = "[server]\npublic_url = \"https://gateway.example.org/\"\n";
    configure(&world, &format!("http://127.0.0.1:{port}"), more);
    let gateway = world.start();
    let mut call = world.spawn_call("create_directory", &json!({"path": "made"}));
    let hold = world.held("create_directory");
    let id = hold["id"].as_str().unwrap().to_owned();
    gateway.kill();
    call.wait().unwrap();

    let receiver = Receiver::start(&world, port);
    let gateway = world.start();
    let line = receiver.wait("hold.held");
    assert!(line.ends_with(&format!(" https://gateway.example.org/#/hold/{id}")), "{line}");
    wait_for("the notice to be remembered", || {
        let notices = std::fs::read_to_string(world.state().join("notices")).unwrap();
        notices.contains(&format!("chat {id}_held\n")).then_some(())
    });
    gateway.kill();
    drop(receiver);

    // What arrived is not told again: a receiver that remembers nothing hears of others only.
    let receiver = Receiver::start(&world, port);
    let gateway = world.start();
    let mut other = world.spawn_call("create_directory", &json!({"path": "other"}));
    let line = receiver.wait("hold.held");
    assert!(line.contains("-- other"), "told again after a restart: {line}");
    world.text(&["approvals", "deny", &id]);
    receiver.wait("hold.decided");
    assert_eq!(receiver.lines("hold.held").len(), 1);
    gateway.kill();
    other.wait().unwrap();
    assert_eq!(lost(&world), [Value::Null; 0]);
}

#[test]
fn a_wrong_secret_tells_nobody_and_that_is_one_record_of_the_call() {
    let world = world();
    let receiver = Receiver::start(&world, 0);
    secret(&world, "YW5vdGhlciBzZWNyZXQsIGFsc28gZm9yIGEgdGVzdCBvbmx5");
    configure(&world, &receiver.address, "");
    let text = std::fs::read_to_string(world.dir.path().join("countersign.toml")).unwrap();
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with("events")).collect();
    world.configure(&format!("{}\n", text.join("\n")));
    let _gateway = world.start();
    let call = world.spawn_call("create_directory", &json!({"path": "made"}));
    let id = world.held("create_directory")["id"].as_str().unwrap().to_owned();
    world.text(&["approvals", "deny", &id]);
    let answer = finish(call);
    let records =
        wait_for("the loss to be recorded", || Some(lost(&world)).filter(|lost| !lost.is_empty()));
    assert_eq!(records.len(), 1, "{records:?}");
    let reason = records[0]["payload"]["reason"].as_str().unwrap();
    assert!(reason.contains("chat was not told") && reason.contains("401"), "{reason}");
    assert!(!reason.contains("whsec"), "{reason}");
    let call = answer["call_id"].as_str().unwrap();
    let story = world.text(&["journal", "show", call]);
    assert!(story.contains("Nobody told"), "{story}");
    assert_eq!(receiver.lines("hold."), [""; 0]);
}

#[test]
fn a_hung_endpoint_delays_neither_the_deadline_nor_the_stop() {
    let world = world();
    // Connections are taken by the system, and nobody ever answers.
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", hung.local_addr().unwrap());
    configure(&world, &address, "[policy]\napproval_timeout_seconds = 2\n");
    let gateway = world.start();
    let start = Instant::now();
    let answer = finish(world.spawn_call("create_directory", &json!({"path": "made"})));
    assert_eq!(answer["envelope"]["results"]["denied"]["code"], "approval.timeout", "{answer}");
    assert!(start.elapsed() < Duration::from_secs(60), "the deadline of 2 s was delayed");
    let records =
        wait_for("the loss to be recorded", || Some(lost(&world)).filter(|lost| !lost.is_empty()));
    let reason = records[0]["payload"]["reason"].as_str().unwrap();
    assert!(reason.contains("not done within"), "{reason}");
    assert_eq!(gateway.stop().0, Some(0));
}
