//! The life of one hold, without a clock and without I/O.
//!
//! ```text
//! pending ──vote, tick, abandon, lapse──▶ recording ──recorded, record failed──▶ final
//!  └─┘ vote, edit, claim, unclaim, tick
//! ```
//!
//! Nobody learns an outcome while it is only `recording`. One denial ends a hold; how many
//! approvals do is the policy's to say, and without a policy one does.

use countersign_core::digest::Digest;
use countersign_core::hold::{Approver, Decision, DecisionKind, HoldStatus, Vote};

use crate::held::{Claimed, Edit, Held};
use crate::sync::Arc;
use crate::time::rfc3339;
use crate::voter::Voter;

/// How a hold ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The final status; never `pending`.
    pub status: HoldStatus,
    /// A stable code, such as `approval.denied`.
    pub code: &'static str,
    /// What a person decided, and who; absent when nobody did. Of several, the last one.
    pub decision: Option<(Decision, Approver)>,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub at_millis: u64,
}

/// Where a hold stands.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Waiting for a decision.
    Pending(Held),
    /// Decided, and not durable yet.
    Recording(Held, Arc<Outcome>),
    /// Decided and durable, or denied because it could not be made durable.
    Final(Held, Arc<Outcome>),
}

/// What can happen to a hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A person answered.
    Vote {
        /// Who.
        voter: Voter,
        /// What.
        decision: Decision,
        /// The fingerprint of the call they were shown. An answer about another call is
        /// refused; without this it is about the call as it is.
        seen: Option<Digest>,
    },
    /// A person changed the arguments, or changed them back. What was voted before does not count
    /// any more.
    Edit(Approver, Box<Edit>),
    /// A person says that they are looking at it.
    Claim {
        /// Who.
        by: Approver,
        /// For how many milliseconds; the hold's own end is the claim's too.
        for_millis: u64,
    },
    /// They are not any more.
    Unclaim(Approver),
    /// The time of something may have come.
    Tick,
    /// Whoever waited has gone away.
    Abandon,
    /// After a restart its time is found to be over, unobserved.
    Lapse,
    /// The outcome is durable.
    Recorded,
    /// The outcome could not be made durable.
    RecordFailed,
    /// The outcome is durable, and so is that it does not count; with a stable code.
    Overruled(&'static str),
}

/// What the shell has to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make the outcome durable, then report `Recorded` or `RecordFailed`.
    Record(Arc<Outcome>),
    /// Tell whoever waits.
    Release(Arc<Outcome>),
    /// Tell whoever looks. The hold is still pending.
    Tell(Change),
}

/// What changed about a hold that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An approval counts, and is not enough: the last one of the hold's votes.
    Voted,
    /// Somebody changed the arguments.
    Edited(Approver),
    /// Somebody is looking at it: the hold's claim.
    Claimed,
    /// They are not any more, or their time is over.
    Unclaimed(Approver),
    /// Another step of escalation was taken, the number of steps so far.
    Escalated(u32),
}

/// Why an event does not apply. The hold is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// Nothing of the kind can happen to a hold in this state.
    #[error("`{event}` does not apply to a hold that is {state}")]
    Pair {
        /// [`State::name`].
        state: &'static str,
        /// [`Event::name`].
        event: &'static str,
    },
    /// It could, but not by this person or in this form.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why what a person wants does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Whoever asked cannot decide.
    #[error("an agent cannot decide about its own call")]
    OwnRequest,
    /// The policy excludes them.
    #[error("the policy keeps `{0}` from deciding about this call")]
    Excluded(String),
    /// They belong to no group whose approval is asked for now.
    #[error("the policy asks for no approval of {0}'s groups now")]
    NoGroup(String),
    /// They, or the one they vote for, have been counted.
    #[error("`{0}` has approved this call already")]
    AlreadyVoted(String),
    /// The call has been edited since they looked.
    #[error("the call has another fingerprint now; look at it again")]
    OtherCall,
    /// They may not, or may not any more, answer for somebody else.
    #[error("no delegation lets `{0}` answer now")]
    NotDelegated(String),
    /// An approval that covers later calls, of which several approvers would have to know.
    #[error("an approval for the session is given by one approver alone")]
    SharedGrant,
    /// Somebody else is looking at it.
    #[error("`{0}` is looking at it already")]
    Claimed(String),
    /// They had not claimed it.
    #[error("`{0}` has not claimed it")]
    NotClaimed(String),
    /// The edit changes nothing.
    #[error("the call is the same as before")]
    SameCall,
}

impl State {
    /// The hold as it is listed.
    #[must_use]
    pub fn held(&self) -> &Held {
        let (Self::Pending(held) | Self::Recording(held, _) | Self::Final(held, _)) = self;
        held
    }

    /// A word for it; of a final state, its status.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending(_) => "pending",
            Self::Recording(..) => "recording",
            Self::Final(_, outcome) => outcome.status.as_str(),
        }
    }
}

impl Event {
    /// A word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vote { decision, .. } => decision.decision.as_str(),
            Self::Edit(..) => "edit",
            Self::Claim { .. } => "claim",
            Self::Unclaim(_) => "unclaim",
            Self::Tick => "tick",
            Self::Abandon => "abandon",
            Self::Lapse => "lapse",
            Self::Recorded => "recorded",
            Self::RecordFailed => "record_failed",
            Self::Overruled(_) => "overruled",
        }
    }
}

/// What follows from an event.
pub type Step = (State, Option<Effect>);

/// Applies an event at the time `now`, in milliseconds since the Unix epoch.
///
/// What a person does at or after the deadline does not count: the hold expires instead, and
/// the caller sees that in the effect. A [`Event::Tick`] takes one step; there may be another
/// one due.
///
/// # Errors
/// When the event does not apply. The state is then unchanged.
pub fn step(state: &State, now: u64, event: Event) -> Result<Step, Illegal> {
    match (state, event) {
        (State::Pending(held), Event::Vote { .. } | Event::Edit(..) | Event::Claim { .. })
            if now >= held.expires_at_millis() =>
        {
            Ok(expire(held, now))
        }
        (State::Pending(held), Event::Vote { voter, decision, seen }) => {
            vote(held, now, voter, decision, seen)
        }
        (State::Pending(held), Event::Edit(by, edit)) => {
            check_person(held, &by.id)?;
            if held.fingerprint() == Some(edit.fingerprint) {
                return Err(Refusal::SameCall.into());
            }
            Ok(tell(held.with_edit(*edit), Change::Edited(by)))
        }
        (State::Pending(held), Event::Claim { by, for_millis }) => {
            check_person(held, &by.id)?;
            let other =
                held.claim().filter(|claim| claim.by.id != by.id && now < claim.until_millis);
            if let Some(claim) = other {
                return Err(Refusal::Claimed(claim.by.id.clone()).into());
            }
            let until_millis = now.saturating_add(for_millis).min(held.expires_at_millis());
            let claim = Claimed { by, at_millis: now, until_millis };
            Ok(tell(held.with_claim(Some(claim)), Change::Claimed))
        }
        (State::Pending(held), Event::Unclaim(by)) => match held.claim() {
            Some(claim) if claim.by.id == by.id => {
                Ok(tell(held.with_claim(None), Change::Unclaimed(by)))
            }
            _ => Err(Refusal::NotClaimed(by.id).into()),
        },
        (State::Pending(held), Event::Tick) => Ok(tick(held, now)),
        (State::Pending(held), Event::Abandon) => {
            Ok(record(held.clone(), ended(HoldStatus::Cancelled, "approval.cancelled", now)))
        }
        (State::Pending(held), Event::Lapse) => {
            Ok(record(held.clone(), ended(HoldStatus::RecoveryRequired, "approval.lapsed", now)))
        }
        (State::Recording(held, outcome), Event::Recorded) => {
            let state = State::Final(held.with_status(outcome.status), Arc::clone(outcome));
            Ok((state, Some(Effect::Release(Arc::clone(outcome)))))
        }
        (State::Recording(held, _), Event::RecordFailed) => {
            Ok(deny(held, "approval.not_recorded", now))
        }
        (State::Recording(held, _), Event::Overruled(code)) => Ok(deny(held, code, now)),
        // Time that passes, or a waiter that leaves, after the decision changes nothing.
        (State::Recording(..) | State::Final(..), Event::Tick | Event::Abandon) => {
            Ok((state.clone(), None))
        }
        (state, event) => Err(Illegal::Pair { state: state.name(), event: event.name() }),
    }
}

fn ended(status: HoldStatus, code: &'static str, now: u64) -> Outcome {
    Outcome { status, code, decision: None, at_millis: now }
}

fn deny(held: &Held, code: &'static str, now: u64) -> Step {
    let denied = Arc::new(ended(HoldStatus::Denied, code, now));
    let state = State::Final(held.with_status(denied.status), Arc::clone(&denied));
    (state, Some(Effect::Release(denied)))
}

fn record(held: Held, outcome: Outcome) -> Step {
    let outcome = Arc::new(outcome);
    (State::Recording(held, Arc::clone(&outcome)), Some(Effect::Record(outcome)))
}

fn expire(held: &Held, now: u64) -> Step {
    record(held.clone(), ended(HoldStatus::Expired, "approval.timeout", now))
}

fn tell(held: Held, change: Change) -> Step {
    (State::Pending(held), Some(Effect::Tell(change)))
}

impl Held {
    /// Whether an approval of this person could count now, were they to look at the call as it
    /// is.
    ///
    /// # Errors
    /// Why it could not.
    pub fn admits(&self, voter: &Voter) -> Result<(), Refusal> {
        check_person(self, &voter.approver.id)?;
        let Some(policy) = self.policy() else { return Ok(()) };
        let mut asked = policy.routes(self.escalated()).flatten();
        match asked.any(|factor| voter.groups.iter().any(|group| group == factor.group())) {
            true => Ok(()),
            false => Err(Refusal::NoGroup(voter.approver.id.clone())),
        }
    }
}

fn check_person(held: &Held, principal: &str) -> Result<(), Refusal> {
    if held.agent_id().as_str() == principal {
        return Err(Refusal::OwnRequest);
    }
    match held.policy() {
        Some(policy) if policy.excluded().iter().any(|other| other == principal) => {
            Err(Refusal::Excluded(principal.to_owned()))
        }
        _ => Ok(()),
    }
}

fn decided(decision: Decision, approver: Approver, now: u64) -> Outcome {
    let (status, code) = match decision.decision {
        DecisionKind::Approve => (HoldStatus::Approved, "approval.approved"),
        DecisionKind::Deny => (HoldStatus::Denied, "approval.denied"),
    };
    Outcome { decision: Some((decision, approver)), ..ended(status, code, now) }
}

fn vote(
    held: &Held,
    now: u64,
    voter: Voter,
    decision: Decision,
    seen: Option<Digest>,
) -> Result<Step, Illegal> {
    let Voter { approver, groups, on_behalf_of } = voter;
    check_person(held, &approver.id)?;
    if let Some(delegation) = &on_behalf_of {
        check_person(held, delegation.delegator())?;
        if !delegation.covers(&approver.id, now) {
            return Err(Refusal::NotDelegated(approver.id).into());
        }
    }
    if seen.is_some() && seen != held.fingerprint() {
        return Err(Refusal::OtherCall.into());
    }
    let Some(policy) = held.policy() else {
        return Ok(record(held.clone(), decided(decision, approver, now)));
    };
    let vote = Vote {
        decision: decision.decision,
        reason: decision.reason.clone(),
        approver: approver.clone(),
        on_behalf_of: on_behalf_of.map(|delegation| delegation.delegator().to_owned()),
        groups,
        fingerprint: held.fingerprint(),
        at: rfc3339(now),
    };
    if decision.decision == DecisionKind::Deny {
        return Ok(record(held.with_vote(vote), decided(decision, approver, now)));
    }
    let open = held.open_steps(now);
    let asked =
        |group: &String| policy.routes(open).flatten().any(|factor| factor.group() == group);
    if !vote.groups.iter().any(asked) {
        return Err(Refusal::NoGroup(approver.id).into());
    }
    if held.approvals().iter().any(|other| other.shares_person(&vote)) {
        return Err(Refusal::AlreadyVoted(approver.id).into());
    }
    let with = held.with_vote(vote);
    let (approvals, grant) = (with.approvals(), decision.grant.is_some());
    let met = policy.met(open, &approvals);
    if grant && !(met && approvals.len() == 1) {
        return Err(Refusal::SharedGrant.into());
    }
    drop(approvals);
    Ok(match met {
        true => record(with, decided(decision, approver, now)),
        false => tell(with, Change::Voted),
    })
}

fn tick(held: &Held, now: u64) -> Step {
    if now >= held.expires_at_millis() {
        return expire(held, now);
    }
    // After a restart, what was approved before may be enough.
    if let Some(step) = enough(held, now) {
        return step;
    }
    if let Some(claim) = held.claim().filter(|claim| now >= claim.until_millis) {
        let by = claim.by.clone();
        return tell(held.with_claim(None), Change::Unclaimed(by));
    }
    if held.escalates_at().is_none_or(|at| now < at) {
        return (State::Pending(held.clone()), None);
    }
    let wider = held.with_escalation();
    // What was not enough before may be now.
    enough(&wider, now).unwrap_or_else(|| {
        let steps = wider.escalated();
        tell(wider, Change::Escalated(steps))
    })
}

/// The end of a hold whose approvals so far are enough.
fn enough(held: &Held, now: u64) -> Option<Step> {
    let (policy, approvals) = (held.policy()?, held.approvals());
    let last = approvals.last().filter(|_| policy.met(held.escalated(), &approvals))?;
    let reason = last.reason.clone();
    let decision = Decision { decision: DecisionKind::Approve, reason, grant: None };
    Some(record(held.clone(), decided(decision, last.approver.clone(), now)))
}
