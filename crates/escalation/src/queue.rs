//! The queue: every hold that waits, who waits for it, and when its time is over.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::digest::Digest;
use countersign_core::hold::{Approver, Decision, HeldAction, HoldKind, HoldStatus};
use countersign_core::id::{AgentId, ApprovalRequestId};
use countersign_ports::clock::Clock;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::machine::{Effect, Event, Illegal, Outcome, State, step};
use crate::time::rfc3339;

/// The longest time a hold may wait.
const MAX_TIMEOUT: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// How often the wall clock is looked at when no deadline is nearer.
const CLOCK_CHECK: Duration = Duration::from_secs(5);

/// Makes outcomes durable.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// Returns once the outcome is durable; only then does anybody learn of it.
    ///
    /// # Errors
    /// When it could not be recorded, or does not count. The hold is then denied.
    async fn record(&self, hold: &HeldAction, outcome: &Outcome) -> Result<(), RecordError>;
}

/// Records nothing: for a queue whose holds need not outlive the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRecorder;

#[async_trait]
impl Recorder for NoRecorder {
    async fn record(&self, _: &HeldAction, _: &Outcome) -> Result<(), RecordError> {
        Ok(())
    }
}

/// Why an outcome is not released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is not durable.
    #[error("{0}")]
    Failed(String),
    /// It is, and so is that it does not count after all.
    #[error("{reason}")]
    Overruled {
        /// A stable code, such as `hook.denied`.
        code: &'static str,
        /// Who or what overruled it, and why.
        reason: String,
    },
}

/// Bounds of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Holds pending at once.
    pub total: usize,
    /// Holds pending at once for one agent.
    pub per_agent: usize,
    /// Ended holds that stay readable.
    pub finished: usize,
}

impl Default for Limits {
    /// 10,000 in all, 100 for one agent, 10,000 ended.
    fn default() -> Self {
        Self { total: 10_000, per_agent: 100, finished: 10_000 }
    }
}

/// What is to be held.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldRequest {
    /// The approval request that waits; 128 bits nobody can guess.
    pub id: ApprovalRequestId,
    /// What kind of action.
    pub kind: HoldKind,
    /// One line: what would happen.
    pub summary: String,
    /// Which rule asks for a person.
    pub reason: String,
    /// What the approver needs to see.
    pub context_snapshot: Value,
    /// Milliseconds since the Unix epoch; the time allowed counts from here.
    pub created_at_millis: u64,
    /// The exact call an approval would release.
    pub fingerprint: Option<Digest>,
    /// The digest of what the approver is shown.
    pub rendering_digest: Option<Digest>,
}

/// Why an action is not held. It is denied, then and there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// Too many wait already.
    #[error("queue_full: {pending} calls wait for a decision already, {limit} are allowed{scope}")]
    QueueFull {
        /// How many wait.
        pending: usize,
        /// How many may.
        limit: usize,
        /// Empty, or " for one agent".
        scope: &'static str,
    },
    /// No time at all, or more than a year.
    #[error("timeout: a hold may wait from 1 ms to 366 days, not {0:?}")]
    Timeout(Duration),
    /// The queue is being shut down.
    #[error("closed: the gateway is stopping")]
    Closed,
}

/// Why a decision does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No hold has this id, or it ended too long ago to be kept.
    #[error("there is no hold with this id")]
    NotFound,
    /// Somebody decided before, or whoever asked went away.
    #[error("the hold has ended already")]
    AlreadyResolved(Box<Resolved>),
    /// The deadline came first.
    #[error("the hold's time is over")]
    Expired(Box<Resolved>),
    /// Whoever asked cannot decide.
    #[error("an agent cannot decide about its own call")]
    OwnRequest,
    /// The request does not offer such a decision; the hold is unchanged.
    #[error("{0}")]
    NotAllowed(String),
    /// The decision could not be made durable; the hold is denied.
    #[error("the decision does not count, so the call is denied: {0}")]
    NotRecorded(String),
    /// The decision is on record, and so is what overruled it; the hold is denied.
    #[error("the decision was overruled, so the call is denied: {reason}")]
    Overruled {
        /// A stable code, such as `hook.denied`.
        code: &'static str,
        /// Who or what overruled it, and why.
        reason: String,
    },
    /// The queue is being shut down; the hold stays as it is.
    #[error("the gateway is stopping")]
    Closed,
}

/// A hold that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// As it was listed, with its final status.
    pub hold: HeldAction,
    /// How it ended.
    pub outcome: Outcome,
}

impl Eq for Resolved {}

/// The gateway stops before there was an outcome; the hold itself goes on in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway is stopping; the call is still held")]
pub struct Closed;

struct Slot {
    hold: HeldAction,
    state: State,
    place: (u64, ApprovalRequestId),
    /// Wall time and monotonic time of one and the same moment.
    wall_anchor: u64,
    anchor: Instant,
    expires: Instant,
    failure: Option<RecordError>,
    released: watch::Sender<Option<Outcome>>,
}

#[derive(Default)]
struct Table {
    slots: HashMap<ApprovalRequestId, Slot>,
    pending: BTreeMap<(u64, ApprovalRequestId), ()>,
    deadlines: BTreeSet<(Instant, ApprovalRequestId)>,
    admitted: usize,
    admitted_by_agent: HashMap<AgentId, usize>,
    finished: VecDeque<ApprovalRequestId>,
    closed: bool,
}

struct Inner {
    table: Mutex<Table>,
    clock: Arc<dyn Clock>,
    recorder: Arc<dyn Recorder>,
    limits: Limits,
    earlier_deadline: Notify,
    changed: watch::Sender<u64>,
    closing: watch::Sender<bool>,
}

/// Every hold that waits. Clones share one queue.
#[derive(Clone)]
pub struct EscalationQueue(Arc<Inner>);

/// A place in the queue, taken before anything is recorded, so that a full queue is known
/// first. Dropped without a hold, it is free again.
pub struct Admission {
    inner: Arc<Inner>,
    agent_id: AgentId,
    timeout: Duration,
    used: bool,
}

/// One who waits for a hold. Dropping it before there is an outcome cancels the hold, and
/// that is recorded.
pub struct Waiting {
    inner: Arc<Inner>,
    id: ApprovalRequestId,
    outcome: watch::Receiver<Option<Outcome>>,
    done: bool,
}

impl EscalationQueue {
    /// An empty queue. Must be called inside a tokio runtime: one task of it watches all
    /// deadlines, and ends with the last clone of the queue.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, recorder: Arc<dyn Recorder>, limits: Limits) -> Self {
        let inner = Arc::new(Inner {
            table: Mutex::default(),
            clock,
            recorder,
            limits,
            earlier_deadline: Notify::new(),
            changed: watch::Sender::new(0),
            closing: watch::Sender::new(false),
        });
        tokio::spawn(watch_deadlines(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// Takes a place for one hold of this agent.
    ///
    /// # Errors
    /// When the queue is full or closed, or the time is out of bounds.
    pub fn admit(&self, agent_id: AgentId, timeout: Duration) -> Result<Admission, HoldError> {
        if timeout < Duration::from_millis(1) || timeout > MAX_TIMEOUT {
            return Err(HoldError::Timeout(timeout));
        }
        let limits = self.0.limits;
        let mut table = self.0.lock();
        if table.closed {
            return Err(HoldError::Closed);
        }
        let own = table.admitted_by_agent.get(&agent_id).copied().unwrap_or(0);
        for (pending, limit, scope) in
            [(table.admitted, limits.total, ""), (own, limits.per_agent, " for one agent")]
        {
            if pending >= limit {
                return Err(HoldError::QueueFull { pending, limit, scope });
            }
        }
        table.admitted += 1;
        *table.admitted_by_agent.entry(agent_id.clone()).or_default() += 1;
        let inner = Arc::clone(&self.0);
        Ok(Admission { inner, agent_id, timeout, used: false })
    }

    /// A place for a hold from before a restart. It was admitted once, so no limit that has
    /// been lowered since can shut it out.
    #[must_use]
    pub fn readmit(&self, agent_id: AgentId, timeout: Duration) -> Admission {
        let mut table = self.0.lock();
        table.admitted += 1;
        *table.admitted_by_agent.entry(agent_id.clone()).or_default() += 1;
        let (inner, timeout) = (Arc::clone(&self.0), timeout.min(MAX_TIMEOUT));
        Admission { inner, agent_id, timeout, used: false }
    }

    /// Waits for a hold that nobody waits for any more, as after a restart. `None` when there
    /// is no such hold or it has ended.
    #[must_use]
    pub fn join(&self, id: &ApprovalRequestId) -> Option<Waiting> {
        let table = self.0.lock();
        let slot = table.slots.get(id)?;
        if matches!(slot.state, State::Final(_)) {
            return None;
        }
        let outcome = slot.released.subscribe();
        Some(Waiting { inner: Arc::clone(&self.0), id: id.clone(), outcome, done: false })
    }

    /// Decides. Returns once the decision is durable and the waiter has been released.
    ///
    /// # Errors
    /// When it does not count; the error says who or what was first.
    pub async fn resolve(
        &self,
        id: &ApprovalRequestId,
        decision: Decision,
        approver: Approver,
    ) -> Result<Resolved, ResolveError> {
        let (mut released, own) = {
            let mut table = self.0.lock();
            let closed = table.closed;
            let slot = table.slots.get_mut(id).ok_or(ResolveError::NotFound)?;
            if slot.hold.agent_id.as_str() == approver.id {
                return Err(ResolveError::OwnRequest);
            }
            let released = slot.released.subscribe();
            if closed && !matches!(slot.state, State::Final(_)) {
                return Err(ResolveError::Closed);
            }
            let event = Event::Decide(decision, approver);
            let own = match self.0.apply(&mut table, id, event) {
                Ok(()) => true,
                Err(Illegal::Recording | Illegal::Final(_) | Illegal::NotRecording) => false,
            };
            (released, own)
        };
        // The sender lives in the slot, which outlives its outcome.
        let outcome = match released.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().ok_or(ResolveError::NotFound)?,
            Err(_) => return Err(ResolveError::NotFound),
        };
        let (hold, failure) = {
            let table = self.0.lock();
            let slot = table.slots.get(id).ok_or(ResolveError::NotFound)?;
            (slot.hold.clone(), slot.failure.clone())
        };
        if let Some(failure) = failure {
            return Err(match failure {
                RecordError::Failed(why) => ResolveError::NotRecorded(why),
                RecordError::Overruled { code, reason } => ResolveError::Overruled { code, reason },
            });
        }
        let resolved = Resolved { hold, outcome };
        match resolved.outcome.status {
            HoldStatus::Expired => Err(ResolveError::Expired(Box::new(resolved))),
            _ if own => Ok(resolved),
            _ => Err(ResolveError::AlreadyResolved(Box::new(resolved))),
        }
    }

    /// Every pending hold, the oldest first, then by id.
    #[must_use]
    pub fn pending(&self) -> Vec<HeldAction> {
        let table = self.0.lock();
        let slots = table.pending.keys().filter_map(|(_, id)| table.slots.get(id));
        slots.map(|slot| slot.hold.clone()).collect()
    }

    /// One hold, pending or ended, with its outcome if it has one.
    #[must_use]
    pub fn find(&self, id: &ApprovalRequestId) -> Option<(HeldAction, Option<Outcome>)> {
        let table = self.0.lock();
        let slot = table.slots.get(id)?;
        let outcome = match &slot.state {
            State::Final(outcome) => Some(outcome.clone()),
            State::Pending { .. } | State::Recording(_) => None,
        };
        Some((slot.hold.clone(), outcome))
    }

    /// Changes whenever a hold appears or ends.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Lets every waiter go without an outcome and takes no more holds or decisions. The
    /// holds stay pending in the journal, and are found there at the next start.
    pub fn close(&self) {
        self.0.lock().closed = true;
        self.0.closing.send_replace(true);
    }
}

impl Admission {
    /// Makes the hold visible and waits for it.
    #[must_use]
    pub fn hold(mut self, request: HoldRequest) -> Waiting {
        let id = request.id.clone();
        let outcome = self.insert(request);
        Waiting { inner: Arc::clone(&self.inner), id, outcome, done: false }
    }

    /// Makes the hold visible with nobody waiting for it, as after a restart.
    pub fn reopen(mut self, request: HoldRequest) {
        drop(self.insert(request));
    }

    fn insert(&mut self, request: HoldRequest) -> watch::Receiver<Option<Outcome>> {
        self.used = true;
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let expires_at = request.created_at_millis.saturating_add(timeout_ms);
        let (wall, now) = (self.inner.clock.now_millis(), Instant::now());
        let left = Duration::from_millis(expires_at.saturating_sub(wall)).min(self.timeout);
        let place = (request.created_at_millis, request.id.clone());
        let (released, outcome) = watch::channel(None);
        let slot = Slot {
            hold: HeldAction {
                id: request.id.clone(),
                agent_id: self.agent_id.clone(),
                kind: request.kind,
                summary: request.summary,
                reason: request.reason,
                context_snapshot: request.context_snapshot,
                created_at: rfc3339(request.created_at_millis),
                expires_at: rfc3339(expires_at),
                status: HoldStatus::Pending,
                fingerprint: request.fingerprint,
                rendering_digest: request.rendering_digest,
            },
            state: State::Pending { expires_at },
            place: place.clone(),
            wall_anchor: wall,
            anchor: now,
            expires: now + left,
            failure: None,
            released,
        };
        let mut table = self.inner.lock();
        let first = table.deadlines.first().is_none_or(|(first, _)| slot.expires < *first);
        table.deadlines.insert((slot.expires, request.id.clone()));
        table.pending.insert(place, ());
        table.slots.insert(request.id, slot);
        drop(table);
        if first {
            self.inner.earlier_deadline.notify_one();
        }
        self.inner.changed.send_modify(|n| *n += 1);
        outcome
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.used {
            self.inner.lock().release_place(&self.agent_id);
        }
    }
}

impl Waiting {
    /// The hold that is waited for.
    #[must_use]
    pub fn id(&self) -> &ApprovalRequestId {
        &self.id
    }

    /// Waits for the outcome, which is durable when this returns, or a denial.
    ///
    /// # Errors
    /// When the queue is closed first. The hold stays pending in the journal.
    pub async fn outcome(mut self) -> Result<Outcome, Closed> {
        self.decided().await
    }

    /// As [`Waiting::outcome`]; may be dropped and called again.
    ///
    /// # Errors
    /// When the queue is closed first. The hold stays pending in the journal.
    pub async fn decided(&mut self) -> Result<Outcome, Closed> {
        let mut closing = self.inner.closing.subscribe();
        let outcome = tokio::select! {
            biased;
            outcome = self.outcome.wait_for(Option::is_some) => {
                outcome.map_err(|_| Closed)?.clone().ok_or(Closed)
            }
            _ = closing.wait_for(|closing| *closing) => Err(Closed),
        };
        self.done = true;
        outcome
    }

    /// Cancels the hold, as dropping does, and waits until that is recorded. A decision that
    /// came first stands.
    pub async fn call_off(mut self) {
        if self.abandon() {
            let _ = self.decided().await;
        }
        self.done = true;
    }

    /// Whether the hold ends with this. A queue that is closed leaves its holds as they are,
    /// and a hold that somebody else waits for as well goes on.
    fn abandon(&self) -> bool {
        let mut table = self.inner.lock();
        let alone = table.slots.get(&self.id).is_some_and(|s| s.released.receiver_count() <= 1);
        if alone && !table.closed {
            let _ = self.inner.apply(&mut table, &self.id, Event::Abandon);
            return true;
        }
        false
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.done {
            self.abandon();
        }
    }
}

impl Table {
    fn release_place(&mut self, agent_id: &AgentId) {
        self.admitted = self.admitted.saturating_sub(1);
        if let Some(own) = self.admitted_by_agent.get_mut(agent_id) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.admitted_by_agent.remove(agent_id);
            }
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time as this hold counts it: a wall clock that was set back does not give it more,
    /// one that was set forward takes it away.
    fn now_for(&self, slot: &Slot) -> u64 {
        let elapsed = u64::try_from(slot.anchor.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.clock.now_millis().max(slot.wall_anchor.saturating_add(elapsed))
    }

    fn apply(
        self: &Arc<Self>,
        table: &mut Table,
        id: &ApprovalRequestId,
        event: Event,
    ) -> Result<(), Illegal> {
        let Some(slot) = table.slots.get_mut(id) else { return Ok(()) };
        let now = self.now_for(slot);
        let (state, effect) = step(&slot.state, now, event)?;
        slot.state = state;
        match effect {
            None => {}
            Some(Effect::Record(outcome)) => {
                table.deadlines.remove(&(slot.expires, id.clone()));
                let (inner, id, hold) = (Arc::clone(self), id.clone(), slot.hold.clone());
                // Not in the caller's future: whoever decides may hang up meanwhile.
                tokio::spawn(async move {
                    let recorded = inner.recorder.record(&hold, &outcome).await;
                    let mut table = inner.lock();
                    let event = match recorded {
                        Ok(()) => Event::Recorded,
                        Err(error) => {
                            let event = match &error {
                                RecordError::Failed(_) => Event::RecordFailed,
                                RecordError::Overruled { code, .. } => Event::Overruled(code),
                            };
                            if let Some(slot) = table.slots.get_mut(&id) {
                                slot.failure = Some(error);
                            }
                            event
                        }
                    };
                    // INVARIANT: only this task leaves the recording state.
                    let _ = inner.apply(&mut table, &id, event);
                });
            }
            Some(Effect::Release(outcome)) => {
                slot.hold.status = outcome.status;
                let (place, agent_id) = (slot.place.clone(), slot.hold.agent_id.clone());
                slot.released.send_replace(Some(outcome));
                table.pending.remove(&place);
                table.release_place(&agent_id);
                table.finished.push_back(id.clone());
                while table.finished.len() > self.limits.finished {
                    if let Some(oldest) = table.finished.pop_front() {
                        table.slots.remove(&oldest);
                    }
                }
                self.changed.send_modify(|n| *n += 1);
            }
        }
        Ok(())
    }
}

async fn watch_deadlines(queue: Weak<Inner>) {
    loop {
        let Some(inner) = queue.upgrade() else { return };
        let next = {
            let mut table = inner.lock();
            let now = Instant::now();
            let due: Vec<_> = table
                .deadlines
                .iter()
                .filter(|(expires, id)| {
                    *expires <= now
                        || table.slots.get(id).is_some_and(|slot| match slot.state {
                            State::Pending { expires_at } => inner.now_for(slot) >= expires_at,
                            State::Recording(_) | State::Final(_) => false,
                        })
                })
                .map(|(_, id)| id.clone())
                .collect();
            if !table.closed {
                for id in due {
                    let _ = inner.apply(&mut table, &id, Event::Deadline);
                }
            }
            let latest = now + CLOCK_CHECK;
            // A deadline that has passed by the monotonic clock and not by the wall clock's
            // milliseconds is looked at again a millisecond later.
            let soonest = now + Duration::from_millis(1);
            table.deadlines.first().map_or(latest, |(first, _)| (*first).clamp(soonest, latest))
        };
        // The last clone may go while this task sleeps; it ends at the next look.
        let wake = tokio::time::sleep_until(next);
        let notified = inner.earlier_deadline.notified();
        tokio::select! {
            () = wake => {}
            () = notified => {}
        }
    }
}
