//! Those who wait for a hold, and the place they took before it was one.

use std::task::Poll;
use std::time::Duration;

use countersign_core::hold::HoldPolicy;
use countersign_core::id::{AgentId, ApprovalRequestId};

use crate::held::{Carried, Held, HoldRequest};
use crate::machine::{Event, Outcome, State};
use crate::parts::Hashed;
use crate::queue::Closed;
use crate::shard::Key;
use crate::store::{Draft, Ended, Inner};
use crate::sync::Arc;

/// Keeps a hold from being forgotten, and learns of its end.
pub(crate) struct Pin {
    inner: Arc<Inner>,
    key: Key,
    token: u32,
}

impl Pin {
    pub(crate) fn new(inner: &Arc<Inner>, key: Key, token: u32) -> Self {
        Self { inner: Arc::clone(inner), key, token }
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// How the hold ended. `None` never comes while the pin lives.
    pub(crate) async fn ended(&self) -> Option<Ended> {
        std::future::poll_fn(|cx| self.inner.poll_ended(self.key, self.token, cx)).await
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.inner.unpin(self.key, self.token);
    }
}

/// A place in the queue, taken before anything is recorded, so that a full queue is known
/// first. Dropped without a hold, it is free again.
pub struct Admission {
    inner: Arc<Inner>,
    agent: Hashed<AgentId>,
    timeout: Duration,
    policy: Option<Arc<HoldPolicy>>,
    carried: Carried,
    kept: bool,
    used: bool,
}

/// One who waits for a hold. When the last one is dropped before there is an outcome, the hold
/// is cancelled and that is recorded, unless it is [kept](Admission::kept).
pub struct Waiting {
    inner: Arc<Inner>,
    key: Key,
    token: u32,
    id: ApprovalRequestId,
}

impl Admission {
    pub(crate) fn new(inner: Arc<Inner>, agent: Hashed<AgentId>, timeout: Duration) -> Self {
        let carried = Carried::default();
        Self { inner, agent, timeout, policy: None, carried, kept: false, used: false }
    }

    /// Whose approvals it takes. Without it, one of any approver.
    #[must_use]
    pub fn under(mut self, policy: Arc<HoldPolicy>) -> Self {
        self.policy = Some(policy);
        self
    }

    /// What had happened to the hold when the process ended: for [`Admission::reopen`].
    #[must_use]
    pub fn carrying(mut self, carried: Carried) -> Self {
        self.carried = carried;
        self
    }

    /// The hold goes on when nobody waits for it any more: a hold never ends because a
    /// connection did.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    /// Makes the hold visible and waits for it. When another hold has the id, this one is not
    /// seen by anybody, and denied with `approval.id_taken`.
    #[must_use]
    pub fn hold(self, request: HoldRequest) -> Waiting {
        let (id, inner) = (request.id.clone(), Arc::clone(&self.inner));
        let (key, token) = self.insert(request, 1);
        Waiting { inner, key, token, id }
    }

    /// Makes the hold visible with nobody waiting for it, as after a restart. Where what it
    /// [carries](Admission::carrying) is enough by now, it is approved, and that is recorded.
    pub fn reopen(self, request: HoldRequest) {
        let inner = Arc::clone(&self.inner);
        let (key, _) = self.insert(request, 0);
        // The last of several answers may be on record without what follows from it.
        let _ = inner.apply(key, Event::Tick);
    }

    /// Ends a hold that is found after a restart with its time over, as `recovery_required`,
    /// and waits until that is recorded.
    #[must_use]
    pub fn lapse(self, request: HoldRequest) -> Waiting {
        let waiting = self.hold(request);
        // A hold that was just made can lapse, unless its id was taken: then it has ended.
        let _ = waiting.inner.apply(waiting.key, Event::Lapse);
        waiting
    }

    fn insert(mut self, request: HoldRequest, waiters: u32) -> (Key, u32) {
        self.used = true;
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let expires_at = request.created_at_millis.saturating_add(timeout_ms);
        let Hashed { hash: agent_hash, key: agent_id } = self.agent.clone();
        let held = Held::new(agent_id, request, expires_at, self.policy.take())
            .carrying(std::mem::take(&mut self.carried));
        let (timeout, kept) = (self.timeout, self.kept);
        self.inner.insert(Draft { held, agent_hash, timeout, kept, waiters })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.used {
            self.inner.leave(&self.agent);
        }
    }
}

impl Waiting {
    pub(crate) fn join(inner: &Arc<Inner>, key: Key) -> Option<Self> {
        let joined = inner.with(key, |live| match &live.state {
            State::Final(..) => None,
            State::Pending(held) | State::Recording(held, _) => {
                let id = held.id().clone();
                live.waiters += 1;
                Some((id, live.pin()))
            }
        });
        let (id, token) = joined??;
        Some(Self { inner: Arc::clone(inner), key, token, id })
    }

    /// The hold that is waited for.
    #[must_use]
    pub fn id(&self) -> &ApprovalRequestId {
        &self.id
    }

    /// Waits for the outcome, which is durable when this returns, or a denial.
    ///
    /// # Errors
    /// When the queue is closed first. The hold stays pending in the journal.
    pub async fn outcome(mut self) -> Result<Arc<Outcome>, Closed> {
        self.decided().await
    }

    /// As [`Waiting::outcome`]; may be dropped and called again.
    ///
    /// # Errors
    /// When the queue is closed first. The hold stays pending in the journal.
    pub async fn decided(&mut self) -> Result<Arc<Outcome>, Closed> {
        let ended = std::future::poll_fn(|cx| {
            match self.inner.poll_ended(self.key, self.token, cx) {
                // Looked at after the waker was left: closing wakes whoever it finds.
                Poll::Pending if self.inner.is_closed() => Poll::Ready(None),
                ended => ended,
            }
        });
        ended.await.map(|ended| ended.outcome).ok_or(Closed)
    }

    /// Cancels the hold, kept or not, and waits until that is recorded. A decision that came
    /// first stands, and so does the hold when somebody else waits for it as well.
    pub async fn call_off(mut self) {
        let alone = self.inner.with(self.key, |live| live.waiters <= 1) == Some(true);
        if alone && !self.inner.is_closed() {
            let _ = self.inner.apply(self.key, Event::Abandon);
            let _ = self.decided().await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.inner.stop_waiting(self.key, self.token);
    }
}
