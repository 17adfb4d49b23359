//! The queue's own sources on other primitives: what happens in whatever order its callers,
//! its timer and its recorder come.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(dead_code, missing_docs, unreachable_pub, reason = "the sources are a library elsewhere")]

#[path = "../../src/contain.rs"]
mod contain;
mod driver;
#[path = "../../src/events.rs"]
mod events;
#[path = "../../src/held.rs"]
mod held;
#[path = "../../src/index.rs"]
mod index;
#[path = "../../src/machine.rs"]
mod machine;
#[path = "../../src/notify.rs"]
mod notify;
#[path = "../../src/page.rs"]
mod page;
#[path = "../../src/parts.rs"]
mod parts;
#[path = "../../src/queue.rs"]
mod queue;
#[path = "../../src/shard.rs"]
mod shard;
#[path = "../../src/slab.rs"]
mod slab;
#[path = "../../src/store.rs"]
mod store;
mod sync;
#[path = "../../src/time.rs"]
mod time;
#[path = "../../src/voter.rs"]
mod voter;
#[path = "../../src/waiting.rs"]
mod waiting;
#[path = "../../src/wheel.rs"]
mod wheel;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::digest::Digest;
use countersign_core::hold::{
    Approver, Decision, DecisionKind, Factor, HoldKind, HoldPolicy, HoldStatus, Surface,
};
use countersign_core::id::ApprovalRequestId;
use countersign_ports::clock::Clock;
use shuttle::future::block_on;
use shuttle::rand::Rng as _;
use shuttle::scheduler::RandomScheduler;
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

use crate::held::{Held, HoldRequest};
use crate::machine::Outcome;
use crate::queue::{EscalationQueue, Limits, RecordError, Recorder, ResolveError, Resolved, Voted};
use crate::voter::Voter;
use crate::waiting::{Admission, Waiting};

const START: u64 = 1_000_000;
const SEED: u64 = 0xc0de;

/// Tries so many interleavings, the same ones every time.
fn interleavings(count: usize, test: impl Fn() + Send + Sync + 'static) {
    let scheduler = RandomScheduler::new_from_seed(SEED, count);
    shuttle::Runner::new(scheduler, shuttle::Config::default()).run(test);
}

struct Hand(AtomicU64);

impl Clock for Hand {
    fn now_millis(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Takes a moment for each record, in which anything may happen.
#[derive(Default)]
struct Slow(Mutex<Vec<HoldStatus>>);

#[async_trait]
impl Recorder for Slow {
    async fn record(&self, _: &Held, outcome: &Outcome) -> Result<(), RecordError> {
        shuttle::future::yield_now().await;
        self.0.lock().unwrap().push(outcome.status);
        Ok(())
    }

    async fn record_change(&self, _: &Held, _: &machine::Change) -> Result<(), RecordError> {
        shuttle::future::yield_now().await;
        Ok(())
    }
}

#[derive(Clone)]
struct World {
    queue: EscalationQueue,
    clock: Arc<Hand>,
    recorder: Arc<Slow>,
}

fn world() -> World {
    let (clock, recorder) = (Arc::new(Hand(AtomicU64::new(START))), Arc::new(Slow::default()));
    let queue = EscalationQueue::new(clock.clone(), recorder.clone(), Limits::default());
    // The timer has looked at the clock before it jumps.
    queue.0.tick(5_000);
    World { queue, clock, recorder }
}

fn id() -> ApprovalRequestId {
    ApprovalRequestId::new("id.1").unwrap()
}

fn person(name: &str) -> Approver {
    Approver { surface: Surface::Cli, id: name.into(), display: name.into() }
}

impl World {
    fn place(&self) -> Admission {
        self.queue.admit("agent.a".parse().unwrap(), Duration::from_secs(60)).unwrap()
    }

    fn request(&self) -> HoldRequest {
        HoldRequest {
            id: id(),
            kind: HoldKind::ToolCall,
            summary: String::new(),
            reason: String::new(),
            context_snapshot: serde_json::Value::Null.into(),
            created_at_millis: START,
            fingerprint: Some(Digest::of("asked")),
            rendering_digest: None,
        }
    }

    fn hold(&self) -> Waiting {
        self.place().hold(self.request())
    }

    fn vote(&self, who: &str, decision: DecisionKind) -> Result<Voted, ResolveError> {
        let voter = Voter::of(person(who), vec!["ops".into()]);
        let decision = Decision { decision, reason: None, grant: None };
        block_on(self.queue.vote(&id(), voter, decision, None))
    }

    fn voting(
        &self,
        who: &'static str,
        decision: DecisionKind,
    ) -> thread::JoinHandle<Result<Voted, ResolveError>> {
        let world = self.clone();
        thread::spawn(move || world.vote(who, decision))
    }

    /// The deadline comes, and the timer looks.
    fn deadline(&self) -> thread::JoinHandle<()> {
        let world = self.clone();
        // The scheduler's own chance, so that a seed still names one interleaving.
        let wait = shuttle::rand::thread_rng().gen_range(0..24);
        thread::spawn(move || {
            (0..wait).for_each(|_| thread::yield_now());
            world.clock.0.store(START + 60_000, Ordering::SeqCst);
            world.queue.0.tick(5_000);
        })
    }

    /// The one ending there was, when everything is done.
    fn ending(&self) -> Arc<Outcome> {
        // A hold that is pending now is nobody's any more but the timer's.
        self.clock.0.fetch_max(START + 120_000, Ordering::SeqCst);
        self.queue.0.tick(5_000);
        loop {
            let (held, outcome) = self.queue.find_held(&id()).unwrap();
            if let Some(outcome) = outcome {
                assert_eq!(*self.recorder.0.lock().unwrap(), [outcome.status], "recorded once");
                assert_eq!(held.status(), outcome.status);
                assert!(self.queue.list_pending().is_empty());
                assert!(self.queue.find_call(held.agent_id(), &Digest::of("asked")).is_none());
                return outcome;
            }
            thread::yield_now();
        }
    }
}

/// What somebody who decided was told has to be what happened.
fn agrees(told: Result<Voted, ResolveError>, who: &str, outcome: &Arc<Outcome>) {
    let by = |outcome: &Outcome| outcome.decision.as_ref().map(|(_, by)| by.id.clone());
    match told {
        Ok(Voted::Ended(Resolved { outcome: told, .. })) => {
            assert_eq!((&told, by(&told).as_deref()), (outcome, Some(who)));
        }
        Err(ResolveError::Expired(told)) => {
            assert_eq!((&told.outcome, told.outcome.status), (outcome, HoldStatus::Expired));
        }
        Err(ResolveError::AlreadyResolved(told)) => {
            assert_eq!(&told.outcome, outcome);
            assert_ne!(by(outcome).as_deref(), Some(who));
        }
        told => panic!("{told:?}"),
    }
}

#[test]
fn a_decision_racing_the_deadline_in_10_000_interleavings() {
    let ended = Arc::new(std::sync::Mutex::new([0; 2]));
    let count = ended.clone();
    interleavings(10_000, move || {
        let world = world();
        let waiting = world.hold();
        let (deadline, decision) = (world.deadline(), world.voting("ada", DecisionKind::Approve));
        let released = block_on(waiting.outcome()).unwrap();
        assert_eq!(*world.recorder.0.lock().unwrap(), [released.status], "recorded, then released");
        agrees(decision.join().unwrap(), "ada", &released);
        deadline.join().unwrap();
        assert_eq!(world.ending(), released);
        count.lock().unwrap()[usize::from(released.status == HoldStatus::Expired)] += 1;
    });
    let ended = ended.lock().unwrap();
    assert!(ended.iter().all(|ended| *ended > 500), "both come first at times: {ended:?}");
}

#[test]
fn a_decision_racing_the_deadline_and_a_waiter_that_goes() {
    interleavings(1_000, || {
        let world = world();
        let waiting = world.hold();
        let decision = world.voting("ada", DecisionKind::Deny);
        let deadline = world.deadline();
        let gone = thread::spawn(move || drop(waiting));
        let told = decision.join().unwrap();
        gone.join().unwrap();
        deadline.join().unwrap();
        let outcome = world.ending();
        agrees(told, "ada", &outcome);
        assert!(world.queue.is_empty());
    });
}

#[test]
fn two_approvers_and_one_that_denies() {
    interleavings(1_000, || {
        let world = world();
        let waiting = world.hold();
        let people = ["ada", "bob", "eve"];
        let kinds = [DecisionKind::Approve, DecisionKind::Approve, DecisionKind::Deny];
        let votes: Vec<_> =
            people.into_iter().zip(kinds).map(|(who, kind)| world.voting(who, kind)).collect();
        let outcome = block_on(waiting.outcome()).unwrap();
        for (who, vote) in people.into_iter().zip(votes) {
            agrees(vote.join().unwrap(), who, &outcome);
        }
        assert_eq!(world.ending(), outcome);
    });
}

#[test]
fn votes_of_a_quorum_at_once_are_all_counted() {
    interleavings(1_000, || {
        let world = world();
        let policy = HoldPolicy::new(vec![Factor::new("ops", 2).unwrap()]).unwrap();
        let waiting = world.place().under(Arc::new(policy)).hold(world.request());
        let votes = ["ada", "bob"].map(|who| world.voting(who, DecisionKind::Approve));
        let mut ended = 0;
        for vote in votes {
            ended += usize::from(matches!(vote.join().unwrap().unwrap(), Voted::Ended(_)));
        }
        assert_eq!(ended, 1, "one made it enough");
        assert_eq!(block_on(waiting.outcome()).unwrap().status, HoldStatus::Approved);
        assert_eq!(world.queue.find_held(&id()).unwrap().0.votes().len(), 2);
        world.ending();
    });
}

#[test]
fn whoever_joins_while_the_last_waiter_goes_has_a_hold_or_none() {
    interleavings(1_000, || {
        let world = world();
        let waiting = world.hold();
        let gone = thread::spawn(move || drop(waiting));
        let joined = world.queue.join_call(&"agent.a".parse().unwrap(), &Digest::of("asked"));
        let outcome = joined.map(|joined| {
            let vote = world.voting("ada", DecisionKind::Approve);
            let outcome = block_on(joined.outcome()).unwrap();
            agrees(vote.join().unwrap(), "ada", &outcome);
            outcome
        });
        gone.join().unwrap();
        let ending = world.ending();
        assert!(outcome.is_none_or(|outcome| outcome == ending));
    });
}

#[test]
fn closing_wakes_whoever_waits_and_listing_stands_in_nobodys_way() {
    interleavings(1_000, || {
        let world = world();
        let waiting = world.hold();
        let decision = world.voting("ada", DecisionKind::Approve);
        let closing = world.queue.clone();
        let closing = thread::spawn(move || closing.close());
        let listed = world.queue.list_pending();
        assert!(listed.len() <= 1);
        let outcome = block_on(waiting.outcome());
        closing.join().unwrap();
        match decision.join().unwrap() {
            Ok(Voted::Ended(resolved)) => {
                assert!(outcome.is_err() || outcome == Ok(resolved.outcome))
            }
            Err(ResolveError::Closed) => assert!(outcome.is_err()),
            told => panic!("{told:?}"),
        }
    });
}
