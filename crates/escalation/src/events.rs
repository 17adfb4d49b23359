//! What happened lately, numbered, for those who follow the queue.

use std::collections::VecDeque;
use std::sync::PoisonError;

use countersign_core::hold::HoldStatus;
use countersign_core::id::ApprovalRequestId;

use crate::machine::Change;
use crate::store::Inner;
use crate::sync::{Arc, Mutex};

/// How many events are kept.
const KEPT: usize = 16_384;

/// Something that happened to a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueEvent {
    /// Its number: from 1, without gaps, and only good until the process ends.
    pub seq: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at_millis: u64,
    /// To which hold.
    pub id: ApprovalRequestId,
    /// What.
    pub kind: QueueEventKind,
}

/// What can happen to a hold, to those who look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueEventKind {
    /// It can be seen.
    Held,
    /// An approval was counted, and is not enough.
    Voted,
    /// The arguments were changed, and what was voted before does not count.
    Edited,
    /// Somebody is looking at it.
    Claimed,
    /// They are not any more.
    Unclaimed,
    /// So many steps of escalation have been taken.
    Escalated(u32),
    /// It has ended, and that is recorded.
    Ended(HoldStatus),
}

impl From<&Change> for QueueEventKind {
    fn from(change: &Change) -> Self {
        match change {
            Change::Voted => Self::Voted,
            Change::Edited(_) => Self::Edited,
            Change::Claimed => Self::Claimed,
            Change::Unclaimed(_) => Self::Unclaimed,
            Change::Escalated(steps) => Self::Escalated(*steps),
        }
    }
}

/// Why there is no next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// The follower was too slow, or resumed too late. Those that are left follow; what is
    /// pending has to be listed again.
    #[error("{0} events are not kept any more")]
    Missed(u64),
    /// The queue is closed, and all events have been seen.
    #[error("the queue is closed")]
    Closed,
}

#[derive(Default)]
struct Ring {
    last: u64,
    events: VecDeque<QueueEvent>,
}

#[derive(Default)]
pub(crate) struct EventLog(Mutex<Ring>);

impl EventLog {
    pub(crate) fn push(&self, at_millis: u64, id: &ApprovalRequestId, kind: QueueEventKind) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last += 1;
        let seq = ring.last;
        let oldest = (ring.events.len() >= KEPT).then(|| ring.events.pop_front());
        ring.events.push_back(QueueEvent { seq, at_millis, id: id.clone(), kind });
        // Its id may be the last one of a hold that has gone: it goes outside the lock.
        drop(ring);
        drop(oldest);
    }

    fn last(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    fn after(&self, seq: u64) -> Result<Option<QueueEvent>, SubscriptionError> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ring.last + 1 - ring.events.len() as u64;
        match (seq + 1).checked_sub(first) {
            None => Err(SubscriptionError::Missed(first - seq - 1)),
            Some(at) => Ok(usize::try_from(at).ok().and_then(|at| ring.events.get(at)).cloned()),
        }
    }
}

/// Follows the events of a queue, from some number on.
pub struct Subscription {
    inner: Arc<Inner>,
    seen: u64,
    changed: tokio::sync::watch::Receiver<u64>,
}

impl Subscription {
    /// After this number; with `None`, what happens from now on.
    pub(crate) fn new(inner: Arc<Inner>, after: Option<u64>) -> Self {
        let changed = inner.changed.subscribe();
        let last = inner.events.last();
        // A number from before a restart is no number of this queue.
        let seen = after.unwrap_or(last).min(last);
        Self { inner, seen, changed }
    }

    /// The number of the last event that was seen: where to resume.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The next event. May be dropped and called again without losing one.
    ///
    /// # Errors
    /// When events were missed, or there will be none.
    pub async fn next(&mut self) -> Result<QueueEvent, SubscriptionError> {
        loop {
            self.changed.mark_unchanged();
            match self.inner.events.after(self.seen) {
                Ok(Some(event)) => {
                    self.seen = event.seq;
                    return Ok(event);
                }
                Err(SubscriptionError::Missed(events)) => {
                    self.seen += events;
                    return Err(SubscriptionError::Missed(events));
                }
                Err(error) => return Err(error),
                Ok(None) if self.inner.is_closed() => return Err(SubscriptionError::Closed),
                Ok(None) => {
                    if self.changed.changed().await.is_err() {
                        return Err(SubscriptionError::Closed);
                    }
                }
            }
        }
    }
}
