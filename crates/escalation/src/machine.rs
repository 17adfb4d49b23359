//! The life of one hold, without a clock and without I/O.
//!
//! ```text
//! pending ──decide, deadline, abandon──▶ recording ──recorded, record failed──▶ final
//! ```
//!
//! Nobody learns an outcome while it is only `recording`.

use countersign_core::hold::{Approver, Decision, DecisionKind, HoldStatus};

/// How a hold ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The final status; never `pending`.
    pub status: HoldStatus,
    /// A stable code, such as `approval.denied`.
    pub code: &'static str,
    /// What a person decided, and who; absent when nobody did.
    pub decision: Option<(Decision, Approver)>,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub at_millis: u64,
}

/// Where a hold stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Waiting for a decision.
    Pending {
        /// Milliseconds since the Unix epoch; from then on silence is a denial.
        expires_at: u64,
    },
    /// Decided, and not durable yet.
    Recording(Outcome),
    /// Decided and durable, or denied because it could not be made durable.
    Final(Outcome),
}

/// What can happen to a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A person answered.
    Decide(Decision, Approver),
    /// The time may have come.
    Deadline,
    /// Whoever waited has gone away.
    Abandon,
    /// The outcome is durable.
    Recorded,
    /// The outcome could not be made durable.
    RecordFailed,
    /// The outcome is durable, and so is that it does not count; with a stable code.
    Overruled(&'static str),
}

/// What the shell has to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make the outcome durable, then report `Recorded` or `RecordFailed`.
    Record(Outcome),
    /// Tell whoever waits.
    Release(Outcome),
}

/// Why an event does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// Another outcome is being recorded.
    #[error("a decision is being recorded")]
    Recording,
    /// The hold has ended.
    #[error("already {0:?}")]
    Final(HoldStatus),
    /// Nothing was being recorded.
    #[error("nothing is being recorded")]
    NotRecording,
}

/// Applies an event at the time `now`, in milliseconds since the Unix epoch.
///
/// A decision that arrives at or after the deadline does not count: the hold expires instead,
/// and the caller sees that in the effect.
///
/// # Errors
/// When the event does not apply to the state. The state is then unchanged.
pub fn step(state: &State, now: u64, event: Event) -> Result<(State, Option<Effect>), Illegal> {
    let record =
        |outcome: Outcome| Ok((State::Recording(outcome.clone()), Some(Effect::Record(outcome))));
    let ended = |status, code| Outcome { status, code, decision: None, at_millis: now };
    match (state, event) {
        (State::Pending { expires_at }, Event::Decide(decision, approver)) => {
            if now >= *expires_at {
                return record(ended(HoldStatus::Expired, "approval.timeout"));
            }
            let (status, code) = match decision.decision {
                DecisionKind::Approve => (HoldStatus::Approved, "approval.approved"),
                DecisionKind::Deny => (HoldStatus::Denied, "approval.denied"),
            };
            record(Outcome { decision: Some((decision, approver)), ..ended(status, code) })
        }
        (State::Pending { expires_at }, Event::Deadline) if now >= *expires_at => {
            record(ended(HoldStatus::Expired, "approval.timeout"))
        }
        (State::Pending { .. }, Event::Abandon) => {
            record(ended(HoldStatus::Cancelled, "approval.cancelled"))
        }
        (State::Pending { .. }, Event::Recorded | Event::RecordFailed) => {
            Err(Illegal::NotRecording)
        }
        (State::Pending { .. } | State::Final(_), Event::Overruled(_)) => {
            Err(Illegal::NotRecording)
        }
        (State::Recording(_), Event::Overruled(code)) => {
            let denied = ended(HoldStatus::Denied, code);
            Ok((State::Final(denied.clone()), Some(Effect::Release(denied))))
        }
        (State::Recording(outcome), Event::Recorded) => {
            Ok((State::Final(outcome.clone()), Some(Effect::Release(outcome.clone()))))
        }
        (State::Recording(_), Event::RecordFailed) => {
            let denied = ended(HoldStatus::Denied, "approval.not_recorded");
            Ok((State::Final(denied.clone()), Some(Effect::Release(denied))))
        }
        (State::Recording(_), Event::Decide(..)) => Err(Illegal::Recording),
        (State::Final(outcome), Event::Decide(..)) => Err(Illegal::Final(outcome.status)),
        (State::Final(_), Event::Recorded | Event::RecordFailed) => Err(Illegal::NotRecording),
        // A deadline that has not come, or comes after the decision, changes nothing; neither
        // does a waiter that leaves while its answer is being written or after it is.
        (state, Event::Deadline | Event::Abandon) => Ok((state.clone(), None)),
    }
}
