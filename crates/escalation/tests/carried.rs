//! What a hold carries over a restart.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::hold::{DecisionKind, HoldPolicy, HoldStatus, Vote};
use countersign_escalation::{Carried, Change, Claimed};

use crate::common::*;

fn vote(who: &str, call: &str) -> Vote {
    Vote {
        decision: DecisionKind::Approve,
        reason: None,
        approver: person(who),
        on_behalf_of: None,
        groups: vec!["ops".into()],
        fingerprint: Some(Digest::of(call)),
        at: "2026-01-01T00:00:00Z".into(),
    }
}

/// Opens a hold of `policy` again that was made a minute ago, with this.
fn reopened(b: &Bench, policy: HoldPolicy, carried: Carried) {
    let place = b.queue.readmit(agent(), Duration::from_secs(600));
    place.under(Arc::new(policy)).carrying(carried).reopen(request(1, START - 60_000));
}

async fn tick(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn answers_count_on_and_each_person_once() {
    let b = bench();
    let votes = vec![vote("ada", "asked"), vote("ada", "asked"), vote("ada", "before")];
    reopened(&b, policy(&[("ops", 2)]), Carried { votes, ..Carried::default() });
    let hold = &b.queue.pending()[0];
    assert_eq!(hold.votes, [vote("ada", "asked"), vote("ada", "before")]);
    assert!(b.approve(1, of("ada", &["ops"])).await.is_err());
    assert_eq!(b.approve(1, of("bob", &["ops"])).await, Ok(Err(HoldStatus::Approved)));
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_enough_are_decided_by_and_no_others_are() {
    for (votes, expected) in [
        (vec![vote("ada", "asked"), vote("bob", "asked")], Some(HoldStatus::Approved)),
        (vec![vote("ada", "asked"), vote("ada", "asked")], None),
        (vec![vote("ada", "asked"), vote("bob", "before")], None),
        (Vec::new(), None),
    ] {
        let b = bench();
        // A claim that is over stands in nobody's way.
        let claim = Some(Claimed { by: person("eve"), at_millis: 0, until_millis: 1 });
        reopened(&b, policy(&[("ops", 2)]), Carried { votes, claim, ..Carried::default() });
        let (hold, outcome) = b.queue.find(&id(1)).unwrap();
        assert_eq!(outcome.as_ref().map(|outcome| outcome.status), expected);
        if let Some(outcome) = outcome {
            assert_eq!(outcome.decision.as_ref().unwrap().1.id, "bob");
        } else {
            assert_eq!((hold.status, hold.claim), (HoldStatus::Pending, None));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn steps_that_were_taken_are_not_taken_again_and_each_is_recorded_once() {
    let b = bench();
    let policy = policy(&[("ops", 2)])
        .escalating(30_000, factors(&[("leads", 1)]))
        .and_then(|policy| policy.escalating(90_000, factors(&[("ops", 1)])))
        .unwrap();
    let votes = vec![vote("ada", "asked")];
    reopened(&b, policy, Carried { votes, escalated: 1, ..Carried::default() });
    tick(29).await;
    assert_eq!(b.queue.pending()[0].escalated, 1);
    assert_eq!(*b.sink.changes.lock().unwrap(), []);
    // ada's answer is enough from the second step on.
    tick(2).await;
    assert_eq!(b.recorded(), [HoldStatus::Approved]);
    let b = bench();
    let policy = common::policy(&[("ops", 2)]).escalating(90_000, factors(&[("leads", 1)]));
    reopened(&b, policy.unwrap(), Carried::default());
    tick(31).await;
    assert_eq!(*b.sink.changes.lock().unwrap(), [Change::Escalated(1)]);
}
