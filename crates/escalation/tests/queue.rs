//! The queue in general use; what it promises in particular is in `promises.rs` and
//! `people.rs`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use countersign_core::hold::{DecisionKind, HoldStatus};
use countersign_escalation::{HoldRequest, ResolveError};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::common::*;

#[tokio::test(start_paused = true)]
async fn an_approval_releases_the_waiter_with_who_and_why() {
    let b = bench();
    let waiting = b.hold(1, 60);
    assert_eq!(b.queue.pending()[0].id, id(1));
    assert_eq!(b.decide(1, DecisionKind::Approve, "ada").await, Ok(HoldStatus::Approved));
    let outcome = waiting.outcome().await.unwrap();
    let (decision, approver) = outcome.decision.as_ref().unwrap();
    assert_eq!((decision.reason.as_deref(), approver.id.as_str()), (Some("because"), "ada"));
    assert_eq!(b.recorded(), [HoldStatus::Approved]);
    assert_eq!(b.queue.pending(), []);
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_denial_at_the_deadline() {
    let b = bench();
    let start = Instant::now();
    let outcome = b.hold(1, 5).outcome().await.unwrap();
    assert_eq!(outcome.status, HoldStatus::Expired);
    assert!((5_000..5_100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let late = b.decide(1, DecisionKind::Approve, "ada").await;
    assert!(matches!(late, Err(ResolveError::Expired(_))));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_is_not_held_up_by_a_later_one() {
    let b = bench();
    let _long = b.hold(1, 3600);
    let start = Instant::now();
    b.hold(2, 2).outcome().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn deadlines_of_every_length_come_when_they_are_due() {
    let b = bench();
    let start = Instant::now();
    let times = [1, 2, 63, 64, 65, 4_095, 4_096, 300_000, 16_777_216, 20_000_000];
    let waiting: Vec<_> = times
        .into_iter()
        .zip(1..)
        .map(|(millis, n)| {
            let place = b.queue.admit(agent(), Duration::from_millis(millis)).unwrap();
            (millis, place.hold(request(n, START)))
        })
        .collect();
    for (millis, waiting) in waiting {
        assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Expired);
        let elapsed = start.elapsed().as_millis() as u64;
        assert!((millis..millis + 5).contains(&elapsed), "{millis}: {elapsed}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_deadlines_at_one_moment_all_come() {
    let b = bench();
    let mut waiting = Vec::new();
    for n in 0..100 {
        waiting.push(b.hold(n, 5));
        for other in 1..30 {
            let agent = format!("agent.{other}").parse().unwrap();
            let place = b.queue.admit(agent, Duration::from_secs(5)).unwrap();
            waiting.push(place.hold(request(other * 1000 + n, START)));
        }
    }
    for waiting in waiting {
        assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Expired);
    }
    assert!(b.queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_held_comes_back_as_it_was() {
    let b = bench();
    let deep = (0..500).fold(json!("core"), |inner, _| json!([inner]));
    for (n, context) in [json!({"a": [1.5, "é", null, u64::MAX], "b": {}}), Value::Null, deep]
        .into_iter()
        .enumerate()
    {
        let n = n as u32;
        let summary = "rm -rf — \"здесь\"".to_owned();
        let request =
            HoldRequest { context_snapshot: context.clone().into(), summary, ..request(n, START) };
        let waiting = b.admit(60).hold(request.clone());
        let listed = b.queue.pending().remove(0);
        assert_eq!(listed.context_snapshot, context);
        assert_eq!((listed.summary, listed.reason), (request.summary, request.reason));
        assert_eq!(listed.created_at, "1970-01-01T00:16:40Z");
        assert_eq!(listed.expires_at, "1970-01-01T00:17:40Z");
        assert_eq!(listed.fingerprint, request.fingerprint);
        waiting.call_off().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_whose_id_is_taken_is_denied_unseen() {
    let b = bench();
    let first = b.hold(1, 60);
    let outcome = b.hold(1, 60).outcome().await.unwrap();
    assert_eq!((outcome.status, outcome.code), (HoldStatus::Denied, "approval.id_taken"));
    assert_eq!((b.queue.pending().len(), b.queue.len()), (1, 1));
    b.decide(1, DecisionKind::Approve, "ada").await.unwrap();
    assert_eq!(first.outcome().await.unwrap().status, HoldStatus::Approved);
    assert_eq!(b.recorded(), [HoldStatus::Approved]);
    let again = b.hold(1, 60).outcome().await.unwrap();
    assert_eq!(again.code, "approval.id_taken", "also by one that has ended");
}
