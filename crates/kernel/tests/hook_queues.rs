//! Hooks that nobody waits for, and what is written behind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;
mod rig;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{answers, blocking, observing, outside, settle, until};
use countersign_core::hook::{
    HookFailurePolicy, HookOverflowPolicy, HookPoint, HookRecordPayload as Payload, HookResponse,
    HookResponseClass, HookResponseDecision as Verdict, HookSpec,
};
use countersign_kernel::StopScope;
use rig::{AFTER, BEFORE, Board, Slow, WRONG, first, queued, rejected, rig, within};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn non_blocking_hooks_are_not_waited_for() {
    let slow = Slow::new();
    let spec = within(60_000, observing("h", BEFORE));
    let spec = HookSpec { failure: HookFailurePolicy::Deny, ..spec };
    let w = rig(vec![slow.hook(spec, HookResponse::ObserveOnly)]);
    let before = Instant::now();
    for _ in 0..3 {
        w.pass(BEFORE).await.unwrap();
    }
    assert_eq!((before.elapsed(), w.recorded().await.len()), (Duration::ZERO, 0));
    until(async || slow.begun() == 1).await;
    // One after the other, each with its own deadline.
    tokio::time::advance(Duration::from_secs(1)).await;
    slow.permits.add_permits(2);
    until(async || w.recorded().await.len() == 2).await;
    let id = |n| format!("hook.invocation.{n}");
    let completed = |n, elapsed_ms| Payload::Completed { invocation_id: id(n), elapsed_ms };
    assert_eq!(w.recorded().await, [completed(1, 1000), completed(2, 0)]);
    assert!(w.brake.engaged().is_none());
    let mut head = countersign_ports::journal::Journal::head(&*w.journal);
    head.wait_for(|head| *head == 3).await.unwrap();
    let recorded = w.recorded().await;
    assert!(matches!(&recorded[2], Payload::TimedOut { elapsed_ms: 60_000, .. }), "{recorded:?}");
    assert_eq!(w.brake.engaged().unwrap().code, "hook.timed_out");
}

#[tokio::test(start_paused = true)]
async fn a_queue_has_its_capacity_and_a_reserve_for_points_where_something_ends() {
    let over = HookPoint::AfterRunTerminal;
    for (point, capacity, reserve, room) in
        [(AFTER, 5, 2, 3), (over, 5, 2, 5), (AFTER, 2, 2, 1), (AFTER, 1, 9, 1), (over, 1, 9, 1)]
    {
        let slow = Slow::new();
        let spec = within(60_000, observing("h", point));
        let spec = queued(capacity, reserve, HookOverflowPolicy::DropObserveOnly, spec);
        let w = rig(vec![slow.hook(spec, HookResponse::ObserveOnly)]);
        w.pass(point).await.unwrap();
        until(async || slow.begun() == 1).await;
        for _ in 0..9 {
            w.pass(point).await.unwrap();
        }
        let at = format!("{capacity} places, {reserve} reserved, at {point}");
        assert_eq!(w.recorded().await.len(), 9 - room, "{at}");
        slow.permits.add_permits(100);
        w.hooks.close(Duration::from_secs(1)).await;
        assert_eq!(slow.begun(), 1 + room, "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_too_many_is_dropped_summed_up_or_failed_as_the_overflow_policy_says() {
    use HookOverflowPolicy::{DropObserveOnly, FailHookInvocation, SummarizeAndContinue};
    let id = |n| format!("hook.invocation.{n}");
    let completed = |n| Payload::Completed { invocation_id: id(n), elapsed_ms: 0 };
    let cancelled = |n| Payload::Cancelled { invocation_id: id(n) };
    let failed = |n, policy: &str, why: &str| Payload::Failed {
        invocation_id: id(n),
        failure_policy: policy.into(),
        redacted_summary: why.into(),
    };
    let open = HookFailurePolicy::FailOpenObserveOnly;
    let closed = HookFailurePolicy::InterruptRun;
    for (overflow, failure, stops, expected) in [
        (
            DropObserveOnly,
            closed,
            false,
            vec![cancelled(3), cancelled(4), completed(1), completed(2)],
        ),
        (
            SummarizeAndContinue,
            open,
            false,
            vec![
                completed(1),
                failed(
                    4,
                    "FailOpenObserveOnly",
                    "dropped, because the queue was full: 2, this one last",
                ),
                completed(2),
            ],
        ),
        (
            FailHookInvocation,
            open,
            false,
            vec![
                failed(3, "FailOpenObserveOnly", "its queue is full"),
                failed(4, "FailOpenObserveOnly", "its queue is full"),
                completed(1),
                completed(2),
            ],
        ),
        (
            FailHookInvocation,
            closed,
            true,
            vec![
                failed(3, "InterruptRun", "its queue is full"),
                failed(4, "InterruptRun", "its queue is full"),
                completed(1),
                completed(2),
            ],
        ),
    ] {
        let slow = Slow::new();
        let spec = queued(2, 1, overflow, within(60_000, observing("h", AFTER)));
        let w = rig(vec![slow.hook(HookSpec { failure, ..spec }, HookResponse::ObserveOnly)]);
        w.pass(AFTER).await.unwrap();
        until(async || slow.begun() == 1).await;
        w.pass(AFTER).await.unwrap();
        for _ in 0..2 {
            let stopped = w.pass(AFTER).await;
            assert_eq!(stopped.is_err(), stops, "{overflow}: {stopped:?}");
        }
        assert_eq!(w.brake.engaged().is_some(), stops, "{overflow}");
        slow.permits.add_permits(2);
        w.hooks.close(Duration::from_secs(1)).await;
        assert_eq!(w.recorded().await, expected, "{overflow}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_failure_of_a_non_blocking_hook_pulls_the_brake_of_the_run() {
    use HookFailurePolicy::{Deny, FailOpenObserveOnly, FailRun, InterruptRun};
    for (wrong, make, records, code) in WRONG {
        for (failure, word, scope) in [
            (FailOpenObserveOnly, "FailOpenObserveOnly", None),
            // The step has passed: what is left to refuse is the next one.
            (Deny, "Deny", Some(StopScope::InterruptRun)),
            (InterruptRun, "InterruptRun", Some(StopScope::InterruptRun)),
            (FailRun, "FailRun", Some(StopScope::FailRun)),
        ] {
            let w = rig(vec![make(HookSpec { failure, ..observing("h", AFTER) })]);
            w.pass(AFTER).await.unwrap();
            w.hooks.close(Duration::from_secs(1)).await;
            let found = w.brake.engaged().map(|stop| (stop.code, stop.scope));
            assert_eq!(found, scope.map(|scope| (*code, scope)), "a hook {wrong}, {word}");
            let expected = match *wrong {
                // Such a hook has no right to anything, so no domain is asked.
                "answers what the domain refuses" => {
                    rejected(Verdict::RejectedMutationRight, HookResponseClass::RewriteToolResult)
                }
                _ => records(word),
            };
            assert_eq!(w.recorded().await, expected, "a hook {wrong}, {word}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn closing_runs_the_queues_empty_and_cancels_what_is_left_at_the_limit() {
    let slow = Slow::new();
    let spec = within(3_600_000, observing("h", AFTER));
    let w = rig(vec![slow.hook(spec, HookResponse::ObserveOnly)]);
    for _ in 0..3 {
        w.pass(AFTER).await.unwrap();
    }
    slow.permits.add_permits(1);
    let before = Instant::now();
    w.hooks.close(Duration::from_secs(2)).await;
    assert_eq!(before.elapsed(), Duration::from_secs(2));
    let id = |n| format!("hook.invocation.{n}");
    let cancelled = |n| Payload::Cancelled { invocation_id: id(n) };
    let completed = Payload::Completed { invocation_id: id(1), elapsed_ms: 0 };
    assert_eq!(w.recorded().await, [completed.clone(), cancelled(2), cancelled(3)]);
    slow.dropped().await;
    // Too late for the queue; that is on record too.
    w.pass(AFTER).await.unwrap();
    assert_eq!(w.recorded().await, [completed, cancelled(2), cancelled(3), cancelled(4)]);
    assert_eq!(slow.begun(), 2);
}

#[tokio::test]
async fn what_a_closed_queue_does_not_take_is_recorded_by_every_overflow_policy() {
    for overflow in HookOverflowPolicy::ALL {
        let spec = queued(9, 1, *overflow, observing("h", AFTER));
        let w = rig(vec![answers(spec, HookResponse::ObserveOnly)]);
        w.hooks.close(Duration::from_secs(1)).await;
        settle().await;
        w.pass(AFTER).await.unwrap();
        settle().await;
        assert_eq!(w.recorded().await.len(), 1, "{overflow}");
    }
}

#[tokio::test]
async fn dropping_the_coordinator_ends_its_tasks_and_records_what_waited() {
    let slow = Slow::new();
    let spec = within(3_600_000, observing("h", AFTER));
    let w = rig(vec![slow.hook(spec, HookResponse::ObserveOnly)]);
    w.pass(AFTER).await.unwrap();
    until(async || slow.begun() == 1).await;
    w.pass(AFTER).await.unwrap();
    drop(w.hooks);
    slow.dropped().await;
    until(async || w.journal.hooks().await.len() == 2).await;
    until(async || Arc::strong_count(&w.journal) == 1).await;
}

#[tokio::test]
async fn flush_returns_when_all_is_durable_and_says_when_it_is_not() {
    let w = rig(vec![answers(blocking("h", AFTER, &[]), HookResponse::ObserveOnly)]);
    w.journal.permits.forget_permits(usize::MAX);
    w.pass(AFTER).await.unwrap();
    let hooks = w.hooks.clone();
    let flushed = tokio::spawn(async move { hooks.flush().await });
    settle().await;
    assert!(!flushed.is_finished(), "flushed before it was durable");
    w.journal.permits.add_permits(1000);
    assert!(flushed.await.unwrap());
    assert_eq!(w.recorded().await.len(), 1);
    w.journal.fails.store(true, Ordering::SeqCst);
    w.pass(AFTER).await.unwrap();
    assert!(!w.hooks.flush().await);
    w.journal.fails.store(false, Ordering::SeqCst);
    assert!(w.hooks.flush().await);
}

#[tokio::test]
async fn one_record_that_cannot_be_written_takes_no_other_along() {
    let quiet = |id| answers(blocking(id, AFTER, &[]), HookResponse::ObserveOnly);
    let w = rig(vec![quiet("a"), quiet("b"), quiet("c")]);
    w.journal.refuse(Some("hook.b."));
    w.journal.permits.forget_permits(usize::MAX);
    w.pass(AFTER).await.unwrap();
    w.journal.permits.add_permits(1000);
    assert!(!w.hooks.flush().await);
    let hooks: Vec<_> = w.journal.hooks().await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(hooks, ["a", "c"]);
}

#[tokio::test]
async fn a_hook_with_an_outside_effect_is_announced_before_it_is_invoked() {
    for (blocks, spec) in [(true, blocking("h", AFTER, &[])), (false, observing("h", AFTER))] {
        let slow = Slow::new();
        slow.permits.add_permits(10);
        let w = rig(vec![outside(slow.hook(spec, HookResponse::ObserveOnly))]);
        w.journal.permits.forget_permits(usize::MAX);
        let (hooks, moment) = (w.hooks.clone(), w.moment(AFTER));
        let passed = tokio::spawn(async move { hooks.run(&moment, &mut Board::default()).await });
        settle().await;
        assert_eq!((slow.begun(), passed.is_finished()), (0, !blocks), "invoked unannounced");
        w.journal.permits.add_permits(1);
        until(async || slow.begun() == 1).await;
        let started = Payload::InvocationStarted { invocation_id: first() };
        assert_eq!(w.journal.hooks().await, [("h".to_owned(), started)]);
        w.journal.permits.add_permits(100);
        passed.await.unwrap().unwrap();
        until(async || w.recorded().await.len() == 2).await;
    }
}

#[tokio::test]
async fn a_hook_with_an_outside_effect_is_not_invoked_unless_that_is_recorded() {
    let slow = Slow::new();
    let blocks = outside(slow.hook(blocking("h", AFTER, &[]), HookResponse::ObserveOnly));
    let w = rig(vec![blocks]);
    w.journal.refuse(Some(".started"));
    assert_eq!(w.pass(AFTER).await.unwrap_err().code, "not_recorded");

    // Several at once, whose announcements go into one append and fail with it.
    let failure = HookFailurePolicy::Deny;
    let many = ["a", "b", "c"].map(|id| {
        let spec = HookSpec { failure, ..observing(id, AFTER) };
        outside(slow.hook(spec, HookResponse::ObserveOnly))
    });
    for held in [0, 1] {
        let w = rig(many.to_vec());
        w.journal.refuse(Some(".started"));
        w.journal.permits.forget_permits(usize::MAX);
        w.journal.permits.add_permits(held);
        w.pass(AFTER).await.unwrap();
        settle().await;
        w.journal.permits.add_permits(1000);
        until(async || w.journal.hooks().await.len() == 3).await;
        for (hook, payload) in w.journal.hooks().await {
            let Payload::Failed { redacted_summary, .. } = payload else { panic!("{payload:?}") };
            assert_eq!(redacted_summary, "not invoked: that could not be recorded", "{hook}");
        }
        assert_eq!(slow.begun(), 0, "invoked unannounced");
        assert_eq!(w.brake.engaged().unwrap().scope, StopScope::InterruptRun);
    }
}

#[tokio::test]
async fn an_announcement_does_not_fail_with_what_others_could_not_record() {
    let (slow, failure) = (Slow::new(), HookFailurePolicy::Deny);
    slow.permits.add_permits(1);
    let spec = HookSpec { failure, ..observing("b", AFTER) };
    let w = rig(vec![
        answers(blocking("a", AFTER, &[]), HookResponse::ObserveOnly),
        outside(slow.hook(spec, HookResponse::ObserveOnly)),
    ]);
    w.journal.refuse(Some("hook.a."));
    w.pass(AFTER).await.unwrap();
    until(async || w.journal.hooks().await.len() == 2).await;
    assert_eq!(slow.begun(), 1);
    assert!(w.brake.engaged().is_none());
}
