//! Notices that are tried again, on virtual time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::hold::{DecisionKind, HoldStatus};
use countersign_escalation::{EscalationQueue, Limits, LostNotice, LostReason, Notifiers};
use countersign_ports::notifier::{Notice, Notifier, NotifyError};
use tokio::time::{Instant, sleep};

use crate::common::*;

/// What happens at the next tries; whatever comes after that succeeds.
#[derive(Clone, Copy)]
enum Try {
    Down,
    Hung,
}

struct Bell {
    start: Instant,
    plan: Vec<Try>,
    ends: bool,
    /// When each try began, and for what.
    tries: Mutex<Vec<(u64, String)>>,
}

#[async_trait]
impl Notifier for Bell {
    fn name(&self) -> &str {
        "bell"
    }

    fn wants(&self, notice: &Notice) -> bool {
        self.ends || notice.id().ends_with("_held")
    }

    async fn notify(&self, notice: Arc<Notice>) -> Result<(), NotifyError> {
        let number = {
            let mut tries = self.tries.lock().unwrap();
            tries.push((self.start.elapsed().as_secs(), notice.id()));
            tries.len() - 1
        };
        match self.plan.get(number) {
            Some(Try::Down) => Err(NotifyError("nobody there".into())),
            Some(Try::Hung) => std::future::pending().await,
            None => Ok(()),
        }
    }
}

struct Rig {
    bench: Bench,
    bell: Arc<Bell>,
    lost: Arc<Mutex<Vec<LostNotice>>>,
}

fn rig(plan: Vec<Try>, ends: bool) -> Rig {
    let lost: Arc<Mutex<Vec<LostNotice>>> = Arc::default();
    let sent = Arc::clone(&lost);
    let bell = Arc::new(Bell { start: Instant::now(), plan, ends, tries: Mutex::default() });
    let notifiers = Notifiers::new(move |notice| sent.lock().unwrap().push(notice))
        .with_retries(bell.clone(), Duration::from_secs(5));
    let sink = sink(1 << 20);
    let (clock, limits) = (tokio_clock(), Limits::default());
    let queue = EscalationQueue::with_notifiers(clock, sink.clone(), limits, notifiers);
    Rig { bench: Bench { queue, sink }, bell, lost }
}

impl Rig {
    /// When each try began, in seconds.
    fn times(&self) -> Vec<u64> {
        self.bell.tries.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }

    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> =
            self.bell.tries.lock().unwrap().iter().map(|(_, id)| id.clone()).collect();
        ids.dedup();
        ids
    }

    fn lost(&self) -> Vec<(u32, LostReason)> {
        let lost = self.lost.lock().unwrap();
        lost.iter().map(|lost| (lost.tries, lost.reason.clone())).collect()
    }
}

fn down() -> LostReason {
    LostReason::Failed("nobody there".into())
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_was_down_is_told_when_it_is_up_again_under_the_same_id() {
    let r = rig(vec![Try::Down; 4], false);
    let _waiting = r.bench.hold(1, 300);
    sleep(Duration::from_secs(299)).await;
    assert_eq!(r.times(), [0, 1, 3, 7, 15]);
    assert_eq!(r.ids(), [format!("{}_held", id(1))]);
    assert_eq!(r.lost(), []);
}

#[tokio::test(start_paused = true)]
async fn a_hung_endpoint_is_given_up_at_each_try_and_asked_again() {
    let r = rig(vec![Try::Hung, Try::Hung], false);
    let _waiting = r.bench.hold(1, 300);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(r.times(), [0, 6, 13]);
    assert_eq!(r.lost(), []);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_the_tries_and_is_not_delayed_by_them() {
    let r = rig(vec![Try::Hung; 9], false);
    let start = Instant::now();
    let outcome = r.bench.hold(1, 9).outcome().await.unwrap();
    assert_eq!(outcome.status, HoldStatus::Expired);
    assert!((9_000..9_100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    sleep(Duration::from_secs(300)).await;
    assert_eq!(r.times(), [0, 6]);
    assert_eq!(r.lost(), [(2, LostReason::TimedOut(Duration::from_secs(3)))]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_once_the_hold_has_ended_and_one_loss_is_reported() {
    let r = rig(vec![Try::Down; 99], false);
    let waiting = r.bench.hold(1, 300);
    sleep(Duration::from_secs(4)).await;
    r.bench.decide(1, DecisionKind::Deny, "ada").await.unwrap();
    drop(waiting);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(r.times(), [0, 1, 3]);
    assert_eq!(r.lost(), [(3, down())]);
}

#[tokio::test(start_paused = true)]
async fn whoever_wants_to_is_told_of_the_end_and_that_is_tried_again_too() {
    let r = rig(vec![Try::Down; 1], true);
    for (n, decision) in [(1, DecisionKind::Approve), (2, DecisionKind::Deny)] {
        let _waiting = r.bench.hold(n, 300);
        sleep(Duration::from_secs(2)).await;
        r.bench.decide(n, decision, "ada").await.unwrap();
    }
    r.bench.hold(3, 5).outcome().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let expected =
        [(1, "held"), (1, "approved"), (2, "held"), (2, "denied"), (3, "held"), (3, "expired")];
    assert_eq!(r.ids(), expected.map(|(n, what)| format!("{}_{what}", id(n))));

    let r = rig(vec![Try::Down; 99], true);
    r.bench.hold(1, 1).outcome().await.unwrap();
    sleep(Duration::from_secs(1000)).await;
    let last = r.times().pop().unwrap();
    assert!((200..=301).contains(&last), "the end is told for five minutes, not {last} s");
    assert_eq!(r.lost().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_a_restart_opens_again_is_told_under_the_same_id() {
    let r = rig(vec![], false);
    r.bench.queue.readmit(agent(), Duration::from_secs(60)).reopen(request(1, START));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(r.ids(), [format!("{}_held", id(1))]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_closed_tries_nothing_and_leaves_it_to_whoever_starts_anew() {
    let r = rig(vec![Try::Down; 99], false);
    let _waiting = r.bench.hold(1, 300);
    sleep(Duration::from_secs(2)).await;
    r.bench.queue.close();
    sleep(Duration::from_secs(200)).await;
    assert_eq!(r.times(), [0, 1]);
    assert_eq!(r.lost(), []);
}
