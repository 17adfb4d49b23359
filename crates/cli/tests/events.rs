//! `/api/v1/events` as a browser follows it: a connection that stays open, and another after a
//! restart that begins where the first one broke off.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::common::{Gateway, PATIENCE, World, finish};

/// A server-sent event: its id if it has one, its name, its data.
type Event = (Option<u64>, String, Value);

/// An open stream of events.
struct Follower(BufReader<TcpStream>);

impl Follower {
    fn connect(world: &World, gateway: &Gateway, last: Option<u64>) -> Self {
        let address = gateway.mcp().strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap();
        let token = world.state().join("credentials/approver.token");
        let token = std::fs::read_to_string(token).unwrap();
        let last = last.map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET /api/v1/events HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\
             Authorization: Bearer {}\r\n{last}\r\n",
            token.trim()
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        reader.read_line(&mut status).unwrap();
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        Self(reader)
    }

    /// The next event; `None` when the stream breaks off.
    fn next(&mut self) -> Option<Event> {
        let (mut id, mut name, mut data) = (None, None, None);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            // Sizes of chunks and headers have no such beginnings.
            match line.trim_end().split_once(": ") {
                Some(("id", text)) => id = Some(text.parse().unwrap()),
                Some(("event", text)) => name = Some(text.to_owned()),
                Some(("data", text)) => data = Some(serde_json::from_str(text).unwrap()),
                _ if line.trim_end().is_empty() => {
                    if let (Some(name), Some(data)) = (name.take(), data.take()) {
                        return Some((id, name, data));
                    }
                }
                _ => {}
            }
        }
    }

    /// The records up to the first of this kind.
    fn until(&mut self, kind: &str) -> Vec<(u64, String)> {
        let mut records = Vec::new();
        loop {
            let Some((id, name, data)) = self.next() else {
                panic!("the stream broke off before {kind}; there was {records:?}");
            };
            if name == "approvals" {
                assert_eq!(id, None, "a reader would resume at what is no record: {data}");
                continue;
            }
            let id = id.unwrap();
            assert_eq!(data["seq"], id);
            let told = data["event_kind"].as_str().unwrap().to_owned();
            records.push((id, told.clone()));
            if told == kind {
                return records;
            }
        }
    }
}

#[test]
fn a_follower_resumes_after_a_restart_and_misses_and_repeats_nothing() {
    let world = World::new();
    let gateway = world.start();
    let mut follower = Follower::connect(&world, &gateway, None);
    let (id, name, data) = follower.next().unwrap();
    assert_eq!((id, name.as_str(), &data["pending"]), (None, "approvals", &json!(0)));
    world.json(&["call", "git_log"]);
    let seen = follower.until("tool_result_recorded");
    let last = seen.last().unwrap().0;

    // Unseen: the follower has gone, and then the gateway goes too.
    drop(follower);
    let mut call = world.spawn_call("create_directory", &json!({"path": "made"}));
    let hold = world.held("create_directory");
    gateway.kill();
    call.wait().unwrap();
    let gateway = world.start();
    world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);

    let mut follower = Follower::connect(&world, &gateway, Some(last));
    let call = world.spawn_call("create_directory", &json!({"path": "made"}));
    let missed = follower.until("tool_result_recorded");
    finish(call);
    let kinds: Vec<_> = missed.iter().map(|(_, kind)| kind.as_str()).collect();
    for kind in ["approval_requested", "approval_responded", "tool_intent_recorded"] {
        assert_eq!(kinds.iter().filter(|told| **told == kind).count(), 1, "{kind}: {kinds:?}");
    }
    let ids: Vec<_> = missed.iter().map(|(id, _)| *id).collect();
    let expected: Vec<_> = (last + 1..=last + ids.len() as u64).collect();
    assert_eq!(ids, expected, "with a gap, or one twice");

    // The stream ends when the gateway does, and a reader from long ago gets it all.
    let mut from_the_start = Follower::connect(&world, &gateway, Some(0));
    let all = from_the_start.until("tool_result_recorded");
    assert_eq!(all.first().unwrap().0, 1);
    assert_eq!(gateway.stop().0, Some(0));
    while follower.next().is_some() {}
}
