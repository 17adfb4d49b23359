//! A queue whose recorder is watched, on virtual time.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::digest::Digest;
use countersign_core::hold::{
    Approver, Decision, DecisionKind, Factor, HoldKind, HoldPolicy, HoldStatus, Surface,
};
use countersign_core::id::{AgentId, ApprovalRequestId};
use countersign_escalation::{
    Admission, Change, Edit, EscalationQueue, Held, HoldRequest, Limits, Outcome, RecordError,
    Recorder, ResolveError, Voted, Voter, Waiting,
};
use countersign_ports::clock::Clock;
use tokio::sync::Semaphore;

/// The wall time at which every test begins, in milliseconds.
pub(crate) const START: u64 = 1_000_000;

/// Keeps what it is given; can be told to fail, to panic, or to wait until it is let through.
pub(crate) struct Sink {
    pub(crate) recorded: Mutex<Vec<(String, HoldStatus)>>,
    pub(crate) changes: Mutex<Vec<Change>>,
    pub(crate) fails: AtomicBool,
    pub(crate) panics: AtomicBool,
    pub(crate) gate: Semaphore,
}

impl Sink {
    async fn pass(&self) -> Result<(), RecordError> {
        self.gate.acquire().await.unwrap().forget();
        assert!(!self.panics.load(Ordering::SeqCst), "told to");
        match self.fails.load(Ordering::SeqCst) {
            true => Err(RecordError::Failed("no room".into())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Recorder for Sink {
    async fn record(&self, hold: &Held, outcome: &Outcome) -> Result<(), RecordError> {
        self.pass().await?;
        self.recorded.lock().unwrap().push((hold.id().to_string(), outcome.status));
        Ok(())
    }

    async fn record_change(&self, _: &Held, change: &Change) -> Result<(), RecordError> {
        self.pass().await?;
        self.changes.lock().unwrap().push(change.clone());
        Ok(())
    }
}

/// Wall time that goes along with tokio's, so that pausing and advancing moves both.
pub(crate) struct TokioClock(pub tokio::time::Instant);

impl Clock for TokioClock {
    fn now_millis(&self) -> u64 {
        START + self.0.elapsed().as_millis() as u64
    }
}

pub(crate) fn tokio_clock() -> Arc<dyn Clock> {
    Arc::new(TokioClock(tokio::time::Instant::now()))
}

pub(crate) struct Bench {
    pub(crate) queue: EscalationQueue,
    pub(crate) sink: Arc<Sink>,
}

pub(crate) fn sink(permits: usize) -> Arc<Sink> {
    Arc::new(Sink {
        recorded: Mutex::default(),
        changes: Mutex::default(),
        fails: false.into(),
        panics: false.into(),
        gate: Semaphore::new(permits),
    })
}

pub(crate) fn bench_with(limits: Limits, clock: Arc<dyn Clock>, permits: usize) -> Bench {
    let sink = sink(permits);
    Bench { queue: EscalationQueue::new(clock, sink.clone(), limits), sink }
}

pub(crate) fn bench() -> Bench {
    bench_with(Limits::default(), tokio_clock(), 1 << 20)
}

pub(crate) fn id(n: u32) -> ApprovalRequestId {
    ApprovalRequestId::new(format!("{n:032x}")).unwrap()
}

pub(crate) fn agent() -> AgentId {
    AgentId::new("agent.a").unwrap()
}

pub(crate) fn request(n: u32, created_at_millis: u64) -> HoldRequest {
    HoldRequest {
        id: id(n),
        kind: HoldKind::ToolCall,
        summary: "git commit".into(),
        reason: "manifest".into(),
        context_snapshot: serde_json::json!({"tool": "git", "arguments": [1, "two", null]}).into(),
        created_at_millis,
        fingerprint: Some(Digest::of("asked")),
        rendering_digest: None,
    }
}

pub(crate) fn person(name: &str) -> Approver {
    Approver { surface: Surface::Cli, id: name.into(), display: name.into() }
}

pub(crate) fn of(name: &str, groups: &[&str]) -> Voter {
    Voter::of(person(name), groups.iter().map(ToString::to_string).collect())
}

pub(crate) fn answer(decision: DecisionKind) -> Decision {
    Decision { decision, reason: Some("because".into()), grant: None }
}

pub(crate) fn factors(factors: &[(&str, u32)]) -> Vec<Factor> {
    factors.iter().map(|(group, count)| Factor::new(*group, *count).unwrap()).collect()
}

pub(crate) fn policy(of: &[(&str, u32)]) -> HoldPolicy {
    HoldPolicy::new(factors(of)).unwrap()
}

pub(crate) fn edit(to: &str) -> Edit {
    Edit {
        fingerprint: Digest::of(to),
        rendering_digest: Some(Digest::of("shown")),
        summary: to.into(),
        context_snapshot: serde_json::json!({"edited": to}).into(),
    }
}

impl Bench {
    pub(crate) fn admit(&self, seconds: u64) -> Admission {
        self.queue.admit(agent(), Duration::from_secs(seconds)).unwrap()
    }

    pub(crate) fn hold(&self, n: u32, seconds: u64) -> Waiting {
        self.admit(seconds).hold(request(n, START))
    }

    pub(crate) fn hold_under(&self, n: u32, seconds: u64, policy: HoldPolicy) -> Waiting {
        self.admit(seconds).under(Arc::new(policy)).hold(request(n, START))
    }

    pub(crate) async fn decide(
        &self,
        n: u32,
        decision: DecisionKind,
        who: &str,
    ) -> Result<HoldStatus, ResolveError> {
        let resolved = self.queue.resolve(&id(n), answer(decision), person(who)).await?;
        Ok(resolved.outcome.status)
    }

    /// How many approvals count after this one, or how the hold ended.
    pub(crate) async fn approve(
        &self,
        n: u32,
        voter: Voter,
    ) -> Result<Result<usize, HoldStatus>, ResolveError> {
        let voted = self.queue.vote(&id(n), voter, answer(DecisionKind::Approve), None).await?;
        Ok(match voted {
            Voted::Counted(held) => Ok(held.approvals().len()),
            Voted::Ended(resolved) => Err(resolved.outcome.status),
        })
    }

    pub(crate) fn recorded(&self) -> Vec<HoldStatus> {
        self.sink.recorded.lock().unwrap().iter().map(|(_, s)| *s).collect()
    }
}
