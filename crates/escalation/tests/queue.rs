//! The promises of the queue, each by name.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::hold::{
    Approver, Decision, DecisionKind, HeldAction, HoldKind, HoldStatus, Surface,
};
use countersign_core::id::{AgentId, ApprovalRequestId};
use countersign_escalation::{
    Closed, EscalationQueue, HoldError, HoldRequest, Limits, Outcome, RecordError, Recorder,
    ResolveError, Waiting,
};
use countersign_ports::clock::Clock;
use countersign_ports::memory::ManualClock;
use tokio::sync::Semaphore;

/// Keeps what it is given; can be told to fail, or to wait until it is let through.
struct Sink {
    recorded: Mutex<Vec<(String, HoldStatus)>>,
    fails: AtomicBool,
    gate: Semaphore,
}

#[async_trait]
impl Recorder for Sink {
    async fn record(&self, hold: &HeldAction, outcome: &Outcome) -> Result<(), RecordError> {
        self.gate.acquire().await.unwrap().forget();
        if self.fails.load(Ordering::SeqCst) {
            return Err(RecordError::Failed("no room".into()));
        }
        self.recorded.lock().unwrap().push((hold.id.to_string(), outcome.status));
        Ok(())
    }
}

/// Wall time that goes along with tokio's, so that pausing and advancing moves both.
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn now_millis(&self) -> u64 {
        1_000_000 + self.0.elapsed().as_millis() as u64
    }
}

struct Bench {
    queue: EscalationQueue,
    sink: Arc<Sink>,
}

fn bench_with(limits: Limits, clock: Arc<dyn Clock>, permits: usize) -> Bench {
    let sink = Arc::new(Sink {
        recorded: Mutex::default(),
        fails: false.into(),
        gate: Semaphore::new(permits),
    });
    Bench { queue: EscalationQueue::new(clock, sink.clone(), limits), sink }
}

fn bench() -> Bench {
    bench_with(Limits::default(), Arc::new(TokioClock(tokio::time::Instant::now())), 1 << 20)
}

fn id(n: u32) -> ApprovalRequestId {
    ApprovalRequestId::new(format!("{n:032x}")).unwrap()
}

fn agent() -> AgentId {
    AgentId::new("agent.a").unwrap()
}

fn request(n: u32, created_at_millis: u64) -> HoldRequest {
    HoldRequest {
        id: id(n),
        kind: HoldKind::ToolCall,
        summary: "git commit".into(),
        reason: "manifest".into(),
        context_snapshot: serde_json::Value::Null,
        created_at_millis,
        fingerprint: None,
        rendering_digest: None,
    }
}

impl Bench {
    fn hold(&self, n: u32, seconds: u64) -> Waiting {
        let place = self.queue.admit(agent(), Duration::from_secs(seconds)).unwrap();
        place.hold(request(n, 1_000_000))
    }

    async fn decide(
        &self,
        n: u32,
        decision: DecisionKind,
        who: &str,
    ) -> Result<HoldStatus, ResolveError> {
        let approver = Approver { surface: Surface::Cli, id: who.into(), display: who.into() };
        let decision = Decision { decision, reason: Some("because".into()), grant: None };
        self.queue.resolve(&id(n), decision, approver).await.map(|r| r.outcome.status)
    }

    fn recorded(&self) -> Vec<HoldStatus> {
        self.sink.recorded.lock().unwrap().iter().map(|(_, s)| *s).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn an_approval_releases_the_waiter_with_who_and_why() {
    let b = bench();
    let waiting = b.hold(1, 60);
    assert_eq!(b.queue.pending()[0].id, id(1));
    assert_eq!(b.decide(1, DecisionKind::Approve, "ada").await, Ok(HoldStatus::Approved));
    let outcome = waiting.outcome().await.unwrap();
    let (decision, approver) = outcome.decision.unwrap();
    assert_eq!((decision.reason.as_deref(), approver.id.as_str()), (Some("because"), "ada"));
    assert_eq!(b.recorded(), [HoldStatus::Approved]);
    assert_eq!(b.queue.pending(), []);
}

#[tokio::test(start_paused = true)]
async fn record_before_release() {
    let b = bench_with(Limits::default(), Arc::new(TokioClock(tokio::time::Instant::now())), 0);
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
async fn a_failing_sink_denies() {
    let b = bench();
    b.sink.fails.store(true, Ordering::SeqCst);
    let waiting = b.hold(1, 60);
    let error = b.decide(1, DecisionKind::Approve, "ada").await.unwrap_err();
    assert!(matches!(error, ResolveError::NotRecorded(why) if why == "no room"));
    let outcome = waiting.outcome().await.unwrap();
    assert_eq!((outcome.status, outcome.code), (HoldStatus::Denied, "approval.not_recorded"));
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_denial_at_the_deadline_and_is_recorded() {
    let b = bench();
    let start = tokio::time::Instant::now();
    let outcome = b.hold(1, 5).outcome().await.unwrap();
    assert_eq!(outcome.status, HoldStatus::Expired);
    assert!((5_000..5_100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(b.recorded(), [HoldStatus::Expired]);
    assert!(matches!(
        b.decide(1, DecisionKind::Approve, "ada").await,
        Err(ResolveError::Expired(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_is_not_held_up_by_a_later_one() {
    let b = bench();
    let _long = b.hold(1, 3600);
    let start = tokio::time::Instant::now();
    b.hold(2, 2).outcome().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_cancels_the_hold_and_that_is_recorded() {
    let b = bench();
    drop(b.hold(1, 60));
    assert_eq!(
        b.decide(1, DecisionKind::Approve, "ada").await.map_err(|e| match e {
            ResolveError::AlreadyResolved(r) => r.outcome.status,
            e => panic!("{e}"),
        }),
        Err(HoldStatus::Cancelled)
    );
    assert_eq!(b.recorded(), [HoldStatus::Cancelled]);
    assert_eq!(b.queue.pending(), []);
}

#[tokio::test(start_paused = true)]
async fn two_approvers_at_once_one_decides_and_the_other_learns_who() {
    let b = bench();
    let waiting = b.hold(1, 60);
    let (first, second) = tokio::join!(
        b.decide(1, DecisionKind::Deny, "ada"),
        b.decide(1, DecisionKind::Approve, "bob")
    );
    assert_eq!(first, Ok(HoldStatus::Denied));
    let Err(ResolveError::AlreadyResolved(resolved)) = second else { panic!("{second:?}") };
    assert_eq!(resolved.outcome.decision.unwrap().1.id, "ada");
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Denied);
    assert_eq!(b.recorded(), [HoldStatus::Denied]);
}

#[tokio::test(start_paused = true)]
async fn no_self_approval() {
    let b = bench();
    let _waiting = b.hold(1, 60);
    assert_eq!(b.decide(1, DecisionKind::Approve, "agent.a").await, Err(ResolveError::OwnRequest));
    assert_eq!(b.queue.pending().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn listing_is_ordered_by_creation_then_id() {
    let b = bench();
    let mut waiting = Vec::new();
    for (n, created) in [(5, 30), (1, 20), (9, 10), (3, 20)] {
        let place = b.queue.admit(agent(), Duration::from_secs(3600)).unwrap();
        waiting.push(place.hold(request(n, 1_000_000 + created)));
    }
    let ids: Vec<_> = b.queue.pending().into_iter().map(|h| h.id).collect();
    assert_eq!(ids, [id(9), id(1), id(3), id(5)]);
}

#[tokio::test(start_paused = true)]
async fn full_means_denied_at_once_by_name() {
    let limits = Limits { total: 3, per_agent: 2, finished: 10 };
    let b = bench_with(limits, Arc::new(ManualClock::at(1_000_000)), 100);
    let (one, _two) = (b.hold(1, 60), b.hold(2, 60));
    let admit = |name: &str| b.queue.admit(AgentId::new(name).unwrap(), Duration::from_secs(1));
    let error = admit("agent.a").err().unwrap();
    assert!(error.to_string().starts_with("queue_full"), "{error}");
    let place = admit("agent.b").unwrap();
    assert!(matches!(admit("agent.c"), Err(HoldError::QueueFull { limit: 3, .. })));
    drop(place);
    b.decide(1, DecisionKind::Deny, "ada").await.unwrap();
    one.outcome().await.unwrap();
    admit("agent.a").unwrap();
}

#[tokio::test]
async fn impossible_times_are_refused_by_name() {
    let b = bench();
    for timeout in [Duration::ZERO, Duration::MAX, Duration::from_secs(u64::MAX)] {
        let error = b.queue.admit(agent(), timeout).err().unwrap();
        assert_eq!(error, HoldError::Timeout(timeout));
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_gives_no_more_time_and_one_set_forward_takes_it() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let b = bench_with(Limits::default(), clock.clone(), 100);
    let waiting = b.hold(1, 10);
    clock.set(0);
    let start = tokio::time::Instant::now();
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Expired);
    assert!(start.elapsed() < Duration::from_secs(11));

    clock.set(1_000_000);
    let waiting = b.hold(2, 3600);
    clock.set(1_000_000 + 3_600_000);
    let start = tokio::time::Instant::now();
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Expired);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn closing_lets_waiters_go_and_leaves_the_holds() {
    let b = bench();
    let waiting = b.hold(1, 60);
    b.queue.close();
    assert_eq!(waiting.outcome().await, Err(Closed));
    assert_eq!(b.queue.pending().len(), 1);
    assert_eq!(b.decide(1, DecisionKind::Approve, "ada").await, Err(ResolveError::Closed));
    assert!(matches!(b.queue.admit(agent(), Duration::from_secs(1)), Err(HoldError::Closed)));
    assert_eq!(b.recorded(), []);
}

#[tokio::test(start_paused = true)]
async fn a_reopened_hold_waits_on_with_the_time_it_has_left_and_can_be_joined() {
    let clock = Arc::new(ManualClock::at(1_040_000));
    let b = bench_with(Limits::default(), clock, 100);
    let place = b.queue.admit(agent(), Duration::from_secs(60)).unwrap();
    place.reopen(request(1, 1_000_000));
    let waiting = b.queue.join(&id(1)).unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Expired);
    assert!((19..22).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(b.queue.join(&id(1)).is_none());
    assert!(b.queue.join(&id(2)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_second_decision_always_learns_of_the_first() {
    let b = bench();
    let waiting = b.hold(1, 60);
    b.decide(1, DecisionKind::Approve, "ada").await.unwrap();
    waiting.outcome().await.unwrap();
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(matches!(
        b.decide(1, DecisionKind::Deny, "bob").await,
        Err(ResolveError::AlreadyResolved(_))
    ));
    assert_eq!(b.decide(2, DecisionKind::Deny, "bob").await, Err(ResolveError::NotFound));
}
