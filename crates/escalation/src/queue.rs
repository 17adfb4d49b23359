//! The queue as others use it.

use std::time::Duration;

use async_trait::async_trait;
use countersign_core::digest::Digest;
use countersign_core::hold::{Approver, Decision, HeldAction, HoldStatus};
use countersign_core::id::{AgentId, ApprovalRequestId};
use countersign_ports::clock::Clock;
use tokio::sync::watch;

use crate::driver;
use crate::events::Subscription;
use crate::held::{Edit, Held, HoldRequest};
use crate::machine::{Change, Event, Illegal, Outcome, Refusal, State};
use crate::notify::Notifiers;
use crate::page::{Cursor, Page};
use crate::store::{Applied, Begun, Ended, Inner, Unapplied};
use crate::sync::Arc;
use crate::voter::Voter;
use crate::waiting::{Admission, Waiting};

/// The longest time a hold may wait.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Makes outcomes durable.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// Returns once the outcome is durable; only then does anybody learn of it. The votes of
    /// the hold are those that made it.
    ///
    /// Polled once where the decision is made, so that a recorder that is done at once costs
    /// no task, and then by a task of its own: whoever decided may hang up. A panic is
    /// contained and counts as an error.
    ///
    /// # Errors
    /// When it could not be recorded, or does not count. The hold is then denied.
    async fn record(&self, hold: &Held, outcome: &Outcome) -> Result<(), RecordError>;

    /// Returns once what a person did to a hold that goes on is durable; only then does it
    /// count. `hold` is as it will be, unless something else happens first: the change may
    /// come too late, and then it is on record and does not count.
    ///
    /// A step of escalation comes here as well, once it has been taken: it follows from the
    /// policy and the time, whether or not it can be recorded.
    ///
    /// # Errors
    /// When it could not be recorded. What a person did then has not happened.
    async fn record_change(&self, hold: &Held, change: &Change) -> Result<(), RecordError> {
        let _ = (hold, change);
        Ok(())
    }
}

/// Records nothing: for a queue whose holds need not outlive the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRecorder;

#[async_trait]
impl Recorder for NoRecorder {
    async fn record(&self, _: &Held, _: &Outcome) -> Result<(), RecordError> {
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
    /// How long an ended hold stays readable, unless there are too many.
    pub finished_for: Duration,
}

impl Default for Limits {
    /// 10,000 in all, 100 for one agent, 10,000 ended, for a day.
    fn default() -> Self {
        let finished_for = Duration::from_secs(24 * 60 * 60);
        Self { total: 10_000, per_agent: 100, finished: 10_000, finished_for }
    }
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
    /// This person cannot, or not in this form; the hold is unchanged.
    #[error(transparent)]
    Refused(Refusal),
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
    /// It could not be made durable, and was not to end the hold, which is unchanged.
    #[error("it is not recorded, so it does not count: {0}")]
    NotCounted(String),
    /// The queue is being shut down; the hold stays as it is.
    #[error("the gateway is stopping")]
    Closed,
}

impl ResolveError {
    /// Why nothing counts any more about a hold that has ended so.
    #[must_use]
    pub fn ended(hold: Held, outcome: Arc<Outcome>) -> Self {
        let resolved = Box::new(Resolved { hold, outcome });
        match resolved.outcome.status {
            HoldStatus::Expired => Self::Expired(resolved),
            _ => Self::AlreadyResolved(resolved),
        }
    }
}

impl From<Refusal> for ResolveError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OwnRequest => Self::OwnRequest,
            refusal => Self::Refused(refusal),
        }
    }
}

/// A hold that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// With its final status.
    pub hold: Held,
    /// How it ended.
    pub outcome: Arc<Outcome>,
}

impl Eq for Resolved {}

/// What became of a vote.
#[derive(Clone, Debug, PartialEq)]
pub enum Voted {
    /// It is on record, and the hold waits for more.
    Counted(Held),
    /// It ended the hold.
    Ended(Resolved),
}

/// The gateway stops before there was an outcome; the hold itself goes on in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway is stopping; the call is still held")]
pub struct Closed;

/// Every hold that waits. Clones share one queue.
#[derive(Clone)]
pub struct EscalationQueue(pub(crate) Arc<Inner>);

impl EscalationQueue {
    /// An empty queue. Must be called inside a tokio runtime: one task of it watches all
    /// deadlines, and ends with the last clone of the queue.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, recorder: Arc<dyn Recorder>, limits: Limits) -> Self {
        Self::started(Inner::new(clock, recorder, limits, None))
    }

    /// As [`EscalationQueue::new`], with people who are told about each hold.
    #[must_use]
    pub fn with_notifiers(
        clock: Arc<dyn Clock>,
        recorder: Arc<dyn Recorder>,
        limits: Limits,
        notifiers: Notifiers,
    ) -> Self {
        Self::started(Inner::new(clock, recorder, limits, Some(notifiers)))
    }

    fn started(inner: Inner) -> Self {
        let inner = Arc::new(inner);
        driver::start(&inner);
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
        if self.0.is_closed() {
            return Err(HoldError::Closed);
        }
        let agent = self.0.admit(agent_id)?;
        Ok(Admission::new(Arc::clone(&self.0), agent, timeout))
    }

    /// A place for a hold from before a restart. It was admitted once, so no limit that has
    /// been lowered since can shut it out.
    #[must_use]
    pub fn readmit(&self, agent_id: AgentId, timeout: Duration) -> Admission {
        let agent = self.0.readmit(agent_id);
        Admission::new(Arc::clone(&self.0), agent, timeout.min(MAX_TIMEOUT))
    }

    /// Takes a place and makes the hold visible: for whoever has nothing to do in between.
    ///
    /// # Errors
    /// As [`EscalationQueue::admit`].
    pub fn enqueue(
        &self,
        agent_id: AgentId,
        timeout: Duration,
        request: HoldRequest,
    ) -> Result<Waiting, HoldError> {
        Ok(self.admit(agent_id, timeout)?.hold(request))
    }

    /// Waits for a hold as well, or for one that nobody waits for any more, as after a
    /// restart. `None` when there is no such hold or it has ended.
    #[must_use]
    pub fn join(&self, id: &ApprovalRequestId) -> Option<Waiting> {
        Waiting::join(&self.0, self.0.find(id)?)
    }

    /// Waits for the oldest pending hold of this agent for this call, by the fingerprint it was
    /// asked with.
    #[must_use]
    pub fn join_call(&self, agent_id: &AgentId, fingerprint: &Digest) -> Option<Waiting> {
        let keys = self.0.find_call(agent_id, fingerprint);
        keys.into_iter().find_map(|key| Waiting::join(&self.0, key))
    }

    /// The oldest pending hold of this agent for this call.
    #[must_use]
    pub fn find_call(&self, agent_id: &AgentId, fingerprint: &Digest) -> Option<Held> {
        let keys = self.0.find_call(agent_id, fingerprint);
        keys.into_iter().find_map(|key| self.0.with(key, |live| live.state.held().clone()))
    }

    /// Decides, for a hold that any approver may answer, and denies any. Returns once the
    /// decision is durable and the waiter has been released.
    ///
    /// # Errors
    /// When it does not count; the error says who or what was first.
    pub async fn resolve(
        &self,
        id: &ApprovalRequestId,
        decision: Decision,
        approver: Approver,
    ) -> Result<Resolved, ResolveError> {
        match self.vote(id, Voter::new(approver), decision, None).await? {
            Voted::Ended(resolved) => Ok(resolved),
            Voted::Counted(_) => Err(ResolveError::NotAllowed("this takes a vote".to_owned())),
        }
    }

    /// Answers. One denial ends the hold; an approval does when the hold's policy is met with
    /// it. Returns once the answer is durable and, when it ended the hold, the waiter released.
    ///
    /// With `seen`, an answer counts only while the call has that fingerprint.
    ///
    /// # Errors
    /// When it does not count; the error says why, or who or what was first.
    pub async fn vote(
        &self,
        id: &ApprovalRequestId,
        voter: Voter,
        decision: Decision,
        seen: Option<Digest>,
    ) -> Result<Voted, ResolveError> {
        let ended = match self.act(id, Event::Vote { voter, decision, seen }).await? {
            Acted::Pending(held) => return Ok(Voted::Counted(held)),
            Acted::Ended { own, ended } => (own, ended),
        };
        match ended {
            (true, Ended { failure: Some(failure), .. }) => Err(match *failure {
                RecordError::Failed(why) => ResolveError::NotRecorded(why),
                RecordError::Overruled { code, reason } => ResolveError::Overruled { code, reason },
            }),
            (true, ended) if ended.outcome.status != HoldStatus::Expired => {
                Ok(Voted::Ended(ended.into()))
            }
            (_, ended) => Err(too_late(ended)),
        }
    }

    /// Changes the call that an approval releases, or changes it back. What was voted before does
    /// not count any more; whoever edits may vote then, like everybody. Returns once that is
    /// durable.
    ///
    /// # Errors
    /// When it does not count; the error says why.
    pub async fn edit(
        &self,
        id: &ApprovalRequestId,
        by: Approver,
        edit: Edit,
    ) -> Result<Held, ResolveError> {
        self.change(id, Event::Edit(by, Box::new(edit))).await
    }

    /// Tells others that somebody is looking at a hold, for so long at most. It keeps nobody
    /// from deciding. Claiming again moves the end.
    ///
    /// # Errors
    /// When somebody else is, or they may not decide about it, or it has ended.
    pub async fn claim(
        &self,
        id: &ApprovalRequestId,
        by: Approver,
        time: Duration,
    ) -> Result<Held, ResolveError> {
        let for_millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.change(id, Event::Claim { by, for_millis }).await
    }

    /// Takes a claim back.
    ///
    /// # Errors
    /// When they have none, or the hold has ended.
    pub async fn unclaim(
        &self,
        id: &ApprovalRequestId,
        by: Approver,
    ) -> Result<Held, ResolveError> {
        self.change(id, Event::Unclaim(by)).await
    }

    async fn change(&self, id: &ApprovalRequestId, event: Event) -> Result<Held, ResolveError> {
        match self.act(id, event).await? {
            Acted::Pending(held) => Ok(held),
            Acted::Ended { ended, .. } => Err(too_late(ended)),
        }
    }

    /// What a person does, and what comes of it once it is durable.
    async fn act(&self, id: &ApprovalRequestId, event: Event) -> Result<Acted, ResolveError> {
        let (pin, begun) = self.0.begin(id, event).ok_or(ResolveError::NotFound)?;
        let applied = match begun {
            Ok(Begun::Applied(applied)) => Ok(applied),
            Ok(Begun::Changing(changing)) => {
                let changed = self.0.record_change(pin.key(), changing).await;
                changed.map_err(|error| ResolveError::NotCounted(error.to_string()))?
            }
            Err(error) => Err(error),
        };
        let own = match applied {
            Ok(Applied::Pending(held)) => return Ok(Acted::Pending(held)),
            Ok(Applied::Ending) => true,
            Err(Unapplied::Illegal(Illegal::Refused(refusal))) => return Err(refusal.into()),
            Err(Unapplied::Closed) => return Err(ResolveError::Closed),
            Err(Unapplied::Gone) => return Err(ResolveError::NotFound),
            Err(Unapplied::Illegal(Illegal::Pair { .. })) => false,
        };
        let ended = pin.ended().await.ok_or(ResolveError::NotFound)?;
        Ok(Acted::Ended { own, ended })
    }

    /// Every pending hold, the oldest first, then by id. Copies them all, with their contexts:
    /// [`EscalationQueue::page`] does not.
    #[must_use]
    pub fn pending(&self) -> Vec<HeldAction> {
        self.list_pending().iter().map(Held::to_action).collect()
    }

    /// Every pending hold, the oldest first, then by id.
    #[must_use]
    pub fn list_pending(&self) -> Vec<Held> {
        self.page(None, usize::MAX).holds
    }

    /// So many pending holds after a place, the oldest first, then by id. A hold that is
    /// pending all the time is in one of the pages and in no other.
    #[must_use]
    pub fn page(&self, after: Option<&Cursor>, limit: usize) -> Page {
        crate::page::page(&self.0, after, limit)
    }

    /// How many holds are pending or about to be.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.admitted()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One hold, pending or ended, with its outcome if it has one.
    #[must_use]
    pub fn find(&self, id: &ApprovalRequestId) -> Option<(HeldAction, Option<Arc<Outcome>>)> {
        let (held, outcome) = self.find_held(id)?;
        Some((held.to_action(), outcome))
    }

    /// As [`EscalationQueue::find`], without copying the hold.
    #[must_use]
    pub fn find_held(&self, id: &ApprovalRequestId) -> Option<(Held, Option<Arc<Outcome>>)> {
        let state = self.0.with(self.0.find(id)?, |live| live.state.clone())?;
        Some(match state {
            State::Final(held, outcome) => (held, Some(outcome)),
            State::Pending(held) | State::Recording(held, _) => (held, None),
        })
    }

    /// Changes whenever a hold appears, changes or ends.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Follows what happens after the event of this number; with `None`, from now on.
    #[must_use]
    pub fn subscribe(&self, after: Option<u64>) -> Subscription {
        Subscription::new(Arc::clone(&self.0), after)
    }

    /// Lets every waiter go without an outcome and takes no more holds or decisions. The
    /// holds stay pending in the journal, and are found there at the next start.
    pub fn close(&self) {
        self.0.close();
    }
}

/// What came of what a person did.
enum Acted {
    Pending(Held),
    Ended { own: bool, ended: Ended },
}

impl From<Ended> for Resolved {
    fn from(ended: Ended) -> Self {
        Self { hold: ended.held, outcome: ended.outcome }
    }
}

fn too_late(ended: Ended) -> ResolveError {
    let Resolved { hold, outcome } = Resolved::from(ended);
    ResolveError::ended(hold, outcome)
}
