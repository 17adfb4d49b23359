//! What the queue promises, each by name.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::hold::{DecisionKind, HoldStatus};
use countersign_core::id::AgentId;
use countersign_escalation::{
    Closed, EscalationQueue, HoldError, Limits, LostReason, Notifiers, ResolveError,
};
use countersign_ports::memory::ManualClock;
use countersign_ports::notifier::{Notice, NoticeKind, Notifier, NotifyError};
use tokio::time::Instant;

use crate::common::*;

/// Behaves as its name says.
struct Bell {
    name: &'static str,
    rung: Mutex<Vec<(NoticeKind, String)>>,
    began: AtomicUsize,
}

#[async_trait]
impl Notifier for Bell {
    fn name(&self) -> &str {
        self.name
    }

    async fn notify(&self, notice: Arc<Notice>) -> Result<(), NotifyError> {
        self.began.fetch_add(1, Ordering::SeqCst);
        match self.name {
            "hung" => std::future::pending().await,
            "slow" => tokio::time::sleep(Duration::from_secs(60)).await,
            "failing" => return Err(NotifyError("nobody there".into())),
            "panicking" => panic!("told to"),
            _ => {}
        }
        self.rung.lock().unwrap().push((notice.kind, notice.hold.id.to_string()));
        Ok(())
    }
}

struct Bells {
    bench: Bench,
    bells: Vec<Arc<Bell>>,
    lost: Arc<Mutex<Vec<(String, LostReason)>>>,
}

fn bells(names: &[&'static str], limit: Duration) -> Bells {
    let lost = Arc::new(Mutex::new(Vec::new()));
    let sent = Arc::clone(&lost);
    let mut notifiers = Notifiers::new(move |notice| {
        sent.lock().unwrap().push((notice.notifier, notice.reason));
    });
    let mut bells = Vec::new();
    for name in names {
        let bell = Bell { name, rung: Mutex::default(), began: 0.into() };
        bells.push(Arc::new(bell));
        notifiers = notifiers.with(bells.last().unwrap().clone(), limit);
    }
    let sink = sink(1 << 20);
    let (clock, limits) = (tokio_clock(), Limits::default());
    let queue = EscalationQueue::with_notifiers(clock, sink.clone(), limits, notifiers);
    Bells { bench: Bench { queue, sink }, bells, lost }
}

#[tokio::test(start_paused = true)]
async fn a_hung_notifier_holds_up_neither_the_others_nor_the_decision_and_is_reported() {
    let b = bells(&["hung", "prompt"], Duration::from_secs(10));
    let waiting = b.bench.hold(1, 60);
    tokio::time::advance(Duration::from_millis(1)).await;
    tokio::task::yield_now().await;
    assert_eq!(b.bells[1].rung.lock().unwrap().len(), 1);
    b.bench.decide(1, DecisionKind::Approve, "ada").await.unwrap();
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Approved);
    tokio::time::sleep(Duration::from_secs(11)).await;
    let limit = Duration::from_secs(10);
    assert_eq!(*b.lost.lock().unwrap(), [("hung".to_owned(), LostReason::TimedOut(limit))]);
}

#[tokio::test(start_paused = true)]
async fn a_60_second_notifier_leaves_a_5_second_deadline_at_5_seconds() {
    let b = bells(&["slow", "slow", "slow"], Duration::from_secs(120));
    let start = Instant::now();
    let outcome = b.bench.hold(1, 5).outcome().await.unwrap();
    assert_eq!(outcome.status, HoldStatus::Expired);
    assert!((5_000..5_100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lost = b.lost.lock().unwrap();
    assert_eq!(lost.len(), 3, "the hold's own end is a limit too");
    assert_eq!(lost[0].1, LostReason::TimedOut(Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn notifiers_run_side_by_side_and_each_lost_one_is_reported() {
    let b = bells(&["slow", "failing", "panicking", "prompt", "slow"], Duration::from_secs(90));
    let _waiting = b.bench.hold(1, 300);
    tokio::time::sleep(Duration::from_secs(61)).await;
    let rung: Vec<_> = b.bells.iter().map(|bell| bell.rung.lock().unwrap().len()).collect();
    assert_eq!(rung, [1, 0, 0, 1, 1], "two that take a minute are done after a minute");
    let mut lost = b.lost.lock().unwrap().clone();
    lost.sort_by(|a, b| a.0.cmp(&b.0));
    let failed = LostReason::Failed("nobody there".into());
    assert_eq!(
        lost,
        [("failing".to_owned(), failed), ("panicking".to_owned(), LostReason::Panicked)]
    );
    assert_eq!(b.bench.queue.list_pending().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_cancels_the_hold_and_that_is_recorded() {
    let b = bench();
    drop(b.hold(1, 60));
    let Err(ResolveError::AlreadyResolved(r)) = b.decide(1, DecisionKind::Approve, "ada").await
    else {
        panic!("it can still be approved");
    };
    assert_eq!(r.outcome.status, HoldStatus::Cancelled);
    assert_eq!(b.recorded(), [HoldStatus::Cancelled]);
    assert_eq!(b.queue.pending(), []);
}

#[tokio::test(start_paused = true)]
async fn a_kept_hold_outlives_those_who_wait_for_it() {
    let b = bench();
    drop(b.admit(60).kept().hold(request(1, START)));
    assert_eq!(b.queue.pending().len(), 1);
    let waiting = b.queue.join(&id(1)).unwrap();
    b.decide(1, DecisionKind::Approve, "ada").await.unwrap();
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Approved);
    let called_off = b.admit(60).kept().hold(request(2, START));
    called_off.call_off().await;
    assert_eq!(b.recorded(), [HoldStatus::Approved, HoldStatus::Cancelled]);
}

#[tokio::test(start_paused = true)]
async fn several_waiters_share_one_hold_and_the_last_to_go_cancels_it() {
    let b = bench();
    let first = b.hold(1, 60);
    let (call, other) = (request(1, START).fingerprint.unwrap(), AgentId::new("agent.b").unwrap());
    assert!(b.queue.join_call(&other, &call).is_none());
    assert_eq!(b.queue.find_call(&agent(), &call).unwrap().id(), &id(1));
    let second = b.queue.join_call(&agent(), &call).unwrap();
    let third = b.queue.join(&id(1)).unwrap();
    drop(first);
    second.call_off().await;
    assert_eq!(b.queue.pending().len(), 1, "somebody still waits");
    drop(third);
    assert_eq!(b.recorded(), [HoldStatus::Cancelled]);
    assert!(b.queue.join_call(&agent(), &call).is_none());

    let waiting = [b.hold(2, 60), b.hold(3, 60)];
    let joined = b.queue.join_call(&agent(), &call).unwrap();
    assert_eq!(joined.id(), &id(2), "the oldest of two");
    b.decide(2, DecisionKind::Approve, "ada").await.unwrap();
    assert_eq!(b.queue.join_call(&agent(), &call).unwrap().id(), &id(3));
    let [second, _third] = waiting;
    for waiting in [second, joined] {
        assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Approved);
    }
}

#[tokio::test(start_paused = true)]
async fn every_terminal_state_is_recorded() {
    let b = bench();
    let waiting = [b.hold(1, 60), b.hold(2, 60), b.hold(3, 5)];
    b.decide(1, DecisionKind::Approve, "ada").await.unwrap();
    b.decide(2, DecisionKind::Deny, "ada").await.unwrap();
    let mut outcomes = Vec::new();
    for waiting in waiting {
        outcomes.push(waiting.outcome().await.unwrap().status);
    }
    drop(b.hold(4, 60));
    outcomes.push(b.queue.find(&id(4)).unwrap().1.unwrap().status);
    let lapsed = b.queue.readmit(agent(), Duration::from_secs(1)).lapse(request(5, 0));
    outcomes.push(lapsed.outcome().await.unwrap().status);
    let all: Vec<_> =
        HoldStatus::ALL.iter().copied().filter(|status| *status != HoldStatus::Pending).collect();
    assert_eq!(b.recorded(), outcomes);
    assert_eq!(outcomes.iter().filter(|status| all.contains(status)).count(), all.len());
    for n in 1..=5 {
        assert_eq!(b.queue.find(&id(n)).unwrap().0.status, outcomes[n as usize - 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn record_before_release() {
    let b = bench_with(Limits::default(), tokio_clock(), 0);
    let waiting = b.hold(1, 60);
    let mut outcome = Box::pin(waiting.outcome());
    let mut decision = Box::pin(b.decide(1, DecisionKind::Approve, "ada"));
    for _ in 0..20 {
        tokio::select! {
            biased;
            _ = &mut outcome => panic!("released before it was recorded"),
            _ = &mut decision => panic!("confirmed before it was recorded"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(b.queue.find(&id(1)).unwrap().1, None);
    b.sink.gate.add_permits(1);
    assert_eq!(decision.await, Ok(HoldStatus::Approved));
    assert_eq!(outcome.await.unwrap().status, HoldStatus::Approved);
}

#[tokio::test(start_paused = true)]
async fn a_failing_or_panicking_audit_sink_denies() {
    for panics in [false, true] {
        let b = bench();
        b.sink.fails.store(true, Ordering::SeqCst);
        b.sink.panics.store(panics, Ordering::SeqCst);
        let waiting = b.hold(1, 60);
        let error = b.decide(1, DecisionKind::Approve, "ada").await.unwrap_err();
        let why = if panics { "the recorder panicked" } else { "no room" };
        assert_eq!(error, ResolveError::NotRecorded(why.into()));
        let outcome = waiting.outcome().await.unwrap();
        assert_eq!((outcome.status, outcome.code), (HoldStatus::Denied, "approval.not_recorded"));
        assert_eq!(b.recorded(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_decides_may_hang_up_and_the_decision_is_recorded() {
    let b = bench_with(Limits::default(), tokio_clock(), 0);
    let waiting = b.hold(1, 60);
    tokio::select! {
        biased;
        _ = b.decide(1, DecisionKind::Approve, "ada") => panic!("not recorded yet"),
        () = tokio::task::yield_now() => {}
    }
    b.sink.gate.add_permits(1);
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Approved);
    assert_eq!(b.recorded(), [HoldStatus::Approved]);
}

#[tokio::test(start_paused = true)]
async fn a_decision_racing_the_deadline_has_one_ending_in_each_of_10_000_interleavings() {
    let b = bench();
    let (start, mut ended) = (Instant::now(), [0; 2]);
    for n in 0..10_000_u32 {
        let place = b.queue.admit(agent(), Duration::from_millis(5)).unwrap();
        let waiting = place.hold(request(n, START + start.elapsed().as_millis() as u64));
        let chance = n.wrapping_mul(2_654_435_761) >> 16;
        let decided = async {
            tokio::time::sleep(Duration::from_millis(4 + u64::from(chance % 3))).await;
            for _ in 0..chance % 5 {
                tokio::task::yield_now().await;
            }
            b.decide(n, DecisionKind::Approve, "ada").await
        };
        let (decided, outcome) = tokio::join!(decided, waiting.outcome());
        let outcome = outcome.unwrap().status;
        match decided {
            Ok(status) => assert_eq!((status, outcome), (HoldStatus::Approved, status)),
            Err(ResolveError::Expired(resolved)) => {
                assert_eq!((resolved.outcome.status, outcome), (HoldStatus::Expired, outcome));
            }
            Err(error) => panic!("{error}"),
        }
        ended[usize::from(outcome == HoldStatus::Expired)] += 1;
        let recorded = b.sink.recorded.lock().unwrap().pop();
        assert_eq!(recorded, Some((id(n).to_string(), outcome)));
        assert!(b.sink.recorded.lock().unwrap().is_empty(), "recorded once");
    }
    assert!(ended.iter().all(|ended| *ended > 1_000), "both came first at times: {ended:?}");
}

#[tokio::test(start_paused = true)]
async fn two_approvers_at_once_one_decides_and_the_other_learns_who_and_when() {
    let b = bench_with(Limits::default(), tokio_clock(), 0);
    let waiting = b.hold(1, 60);
    let permit = async {
        tokio::task::yield_now().await;
        b.sink.gate.add_permits(1);
    };
    let (first, second, ()) = tokio::join!(
        b.decide(1, DecisionKind::Deny, "ada"),
        b.decide(1, DecisionKind::Approve, "bob"),
        permit
    );
    assert_eq!(first, Ok(HoldStatus::Denied));
    let Err(ResolveError::AlreadyResolved(resolved)) = second else { panic!("{second:?}") };
    assert_eq!(resolved.outcome.decision.as_ref().unwrap().1.id, "ada");
    assert_eq!(resolved.outcome.at_millis, START);
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Denied);
    assert_eq!(b.recorded(), [HoldStatus::Denied]);
}

#[tokio::test(start_paused = true)]
async fn conflict_or_not_found_never_depends_on_a_race() {
    for (n, late) in (0..300).flat_map(|n| [(n, false), (n, true)]) {
        let b = bench_with(Limits::default(), tokio_clock(), 0);
        let waiting = b.hold(1, 60);
        let mut yields = n % 7;
        let second = async {
            for _ in 0..n % 5 {
                tokio::task::yield_now().await;
            }
            if late {
                waiting.outcome().await.unwrap();
            } else {
                drop(waiting.outcome());
            }
            b.decide(1, DecisionKind::Approve, "bob").await
        };
        let permit = async {
            while yields > 0 {
                yields -= 1;
                tokio::task::yield_now().await;
            }
            b.sink.gate.add_permits(9);
        };
        let first = b.decide(1, DecisionKind::Deny, "ada");
        let (first, second, ()) = tokio::join!(first, second, permit);
        assert_eq!(first, Ok(HoldStatus::Denied));
        let Err(ResolveError::AlreadyResolved(resolved)) = second else { panic!("{second:?}") };
        assert_eq!(resolved.outcome.decision.as_ref().unwrap().1.id, "ada");
    }
}

#[tokio::test(start_paused = true)]
async fn ended_holds_stay_readable_for_a_time_and_up_to_a_count() {
    let finished_for = Duration::from_secs(100);
    let limits = Limits { finished: 3, finished_for, ..Limits::default() };
    let b = bench_with(limits, tokio_clock(), 1 << 20);
    for n in 1..=5 {
        let waiting = b.hold(n, 60);
        b.decide(n, DecisionKind::Deny, "ada").await.unwrap();
        drop(waiting);
    }
    let kept = |b: &Bench| (1..=5).filter(|n| b.queue.find(&id(*n)).is_some()).collect::<Vec<_>>();
    assert_eq!(kept(&b), [3, 4, 5]);
    tokio::time::sleep(Duration::from_secs(99)).await;
    assert_eq!(kept(&b), [3, 4, 5]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(kept(&b), [0; 0]);
    assert_eq!(b.decide(3, DecisionKind::Deny, "bob").await, Err(ResolveError::NotFound));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_not_robbed_of_an_outcome_by_others_that_end() {
    let b = bench_with(Limits { finished: 0, ..Limits::default() }, tokio_clock(), 100);
    let waiting = b.hold(1, 60);
    b.decide(1, DecisionKind::Approve, "ada").await.unwrap();
    drop(b.hold(2, 60));
    assert!(b.queue.find(&id(2)).is_none());
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Approved);
    assert!(b.queue.find(&id(1)).is_none());
}

#[tokio::test(start_paused = true)]
async fn listing_is_ordered_by_creation_then_id() {
    let b = bench();
    let mut waiting = Vec::new();
    for (n, created) in [(5, 30), (1, 20), (9, 10), (3, 20)] {
        waiting.push(b.admit(3600).hold(request(n, START + created)));
    }
    let ids: Vec<_> = b.queue.pending().into_iter().map(|h| h.id).collect();
    assert_eq!(ids, [id(9), id(1), id(3), id(5)]);
}

#[tokio::test(start_paused = true)]
async fn paging_by_cursor_neither_repeats_nor_skips_while_holds_come_and_go() {
    let limits = Limits { total: 2_000, per_agent: 2_000, ..Limits::default() };
    let b = bench_with(limits, tokio_clock(), 1 << 20);
    let mut waiting: Vec<_> = (0..1000)
        .map(|n| Some(b.admit(3600).hold(request(n, START + u64::from(n) / 10))))
        .collect();
    for limit in [1, 7, 100, 999, 1000, 5000] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = b.queue.page(cursor.as_ref(), limit);
            assert!(page.holds.len() == limit || page.next.is_none());
            seen.extend(page.holds.iter().map(|held| held.id().clone()));
            let Some(next) = page.next else { break };
            // The cursor goes over the wire, and the hold it was taken from ends.
            cursor = Some(next.to_string().parse().unwrap());
            pages += 1;
            if pages == 1 && limit == 7 {
                b.decide(6, DecisionKind::Deny, "ada").await.unwrap();
                waiting[3] = None;
                waiting.push(Some(b.admit(3600).hold(request(5_000, START - 1))));
                waiting.push(Some(b.admit(3600).hold(request(5_001, START + 90))));
            }
        }
        let listed = b.queue.list_pending();
        let mut all: Vec<_> = listed.iter().map(|held| held.id().clone()).collect();
        if limit == 7 {
            // What ended was listed before, and what came in front of the cursor was not.
            all.retain(|other| *other != id(5_000));
            seen.retain(|other| ![id(3), id(6)].contains(other));
        }
        assert!(seen == all, "{limit}: {} seen, {} there", seen.len(), all.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_denies_at_once_by_name() {
    let limits = Limits { total: 3, per_agent: 2, ..Limits::default() };
    let b = bench_with(limits, Arc::new(ManualClock::at(START)), 100);
    let (one, _two) = (b.hold(1, 60), b.hold(2, 60));
    let admit = |name: &str| b.queue.admit(AgentId::new(name).unwrap(), Duration::from_secs(1));
    let scope = " for one agent";
    let error = admit("agent.a").err().unwrap();
    assert_eq!(error, HoldError::QueueFull { pending: 2, limit: 2, scope });
    assert!(error.to_string().starts_with("queue_full"), "{error}");
    let place = admit("agent.b").unwrap();
    let error = admit("agent.c").err().unwrap();
    assert_eq!(error, HoldError::QueueFull { pending: 3, limit: 3, scope: "" });
    drop(place);
    b.decide(1, DecisionKind::Deny, "ada").await.unwrap();
    one.outcome().await.unwrap();
    drop(admit("agent.a").unwrap());
    assert_eq!(b.queue.len(), 1, "what was refused has taken no place");
}

#[tokio::test]
async fn duration_max_and_zero_are_refused_by_name() {
    let b = bench();
    for timeout in [Duration::ZERO, Duration::MAX, Duration::from_secs(u64::MAX)] {
        let error = b.queue.admit(agent(), timeout).err().unwrap();
        assert_eq!(error, HoldError::Timeout(timeout));
        assert!(error.to_string().starts_with("timeout"), "{error}");
    }
    assert!(b.queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_extends_no_hold_and_one_set_forward_ends_it() {
    let clock = Arc::new(ManualClock::at(START));
    let b = bench_with(Limits::default(), clock.clone(), 100);
    let waiting = b.hold(1, 10);
    // The timer has looked at the clock once.
    tokio::time::sleep(Duration::from_millis(1)).await;
    clock.set(0);
    let start = Instant::now();
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Expired);
    assert!(start.elapsed() < Duration::from_secs(11));

    // Set back before the hold is taken up again: it has the time it was allowed, no more.
    b.admit(10).reopen(request(2, START));
    let start = Instant::now();
    let waiting = b.queue.join(&id(2)).unwrap();
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Expired);
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());

    // A hold made while the clock is behind ends when it is set right.
    let waiting = b.admit(900).hold(request(3, 0));
    tokio::time::sleep(Duration::from_secs(60)).await;
    clock.set(START);
    let start = Instant::now();
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Expired);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_hold_from_before_a_restart_waits_on_with_the_time_it_has_left() {
    let b = bench_with(Limits::default(), Arc::new(ManualClock::at(START + 40_000)), 100);
    b.admit(60).reopen(request(1, START));
    let waiting = b.queue.join(&id(1)).unwrap();
    let start = Instant::now();
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Expired);
    assert!((19..22).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    let lapsed = b.queue.readmit(agent(), Duration::from_secs(10)).lapse(request(2, START));
    let outcome = lapsed.outcome().await.unwrap();
    assert_eq!((outcome.status, outcome.code), (HoldStatus::RecoveryRequired, "approval.lapsed"));
}

#[tokio::test(start_paused = true)]
async fn closing_lets_waiters_go_and_leaves_the_holds() {
    let b = bench();
    let (waiting, dropped) = (b.hold(1, 60), b.hold(2, 60));
    let woken = tokio::spawn(waiting.outcome());
    tokio::task::yield_now().await;
    b.queue.close();
    assert_eq!(woken.await.unwrap(), Err(Closed));
    drop(dropped);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(b.queue.pending().len(), 2);
    assert_eq!(b.decide(1, DecisionKind::Approve, "ada").await, Err(ResolveError::Closed));
    assert!(matches!(b.queue.admit(agent(), Duration::from_secs(1)), Err(HoldError::Closed)));
    assert_eq!(b.recorded(), []);
}
