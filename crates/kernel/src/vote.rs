//! People and a held call: their answers and claims, and the records of them.

use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::hold::{Approver, Decision, DecisionKind, HoldRecord, Vote};
use countersign_core::id::ApprovalRequestId;
use countersign_escalation::{Change, Held, ResolveError, Resolved, Voted, Voter};

use crate::broker::SettleError;
use crate::govern::Kernel;

/// The record of a change of a hold; `None` for one that has no record of its own.
pub(crate) fn record(hold: &Held, change: &Change) -> Option<HoldRecord> {
    let request_id = hold.id().clone();
    match change {
        Change::Voted => {
            let vote = Box::new(hold.votes().last()?.clone());
            Some(HoldRecord::Voted { request_id, vote })
        }
        Change::Claimed => {
            let claim = hold.claim()?;
            Some(HoldRecord::Claimed {
                request_id,
                by: claim.by.clone(),
                at_millis: claim.at_millis,
                until_millis: claim.until_millis,
            })
        }
        Change::Unclaimed(by) => Some(HoldRecord::Released { request_id, by: by.clone() }),
        Change::Escalated(steps) => Some(HoldRecord::Escalated { request_id, steps: *steps }),
        // It stands with the arguments that were given.
        Change::Edited(_) => None,
    }
}

/// The answers that made a decision, as its record has them: those about the call as it is.
/// Their reasons stand in records of their own, so that all of them fit into one.
pub(crate) fn made_by(hold: &Held) -> Vec<Vote> {
    let about = hold.votes().iter().filter(|vote| vote.fingerprint == hold.fingerprint());
    about.map(|vote| Vote { reason: None, ..vote.clone() }).collect()
}

impl Kernel {
    /// Decides about a held call that one answer of any approver is enough for, or denies any.
    /// Returns once the decision is durable and the call released.
    ///
    /// # Errors
    /// When it does not count: the hold is unchanged, or had ended before.
    pub async fn decide(
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

    /// Answers a held call. One denial ends it; an approval does when the call's policy is met
    /// with it. Returns once the answer is durable and, when it ended the hold, the call
    /// released. With `seen`, it counts only while the call has that fingerprint. An approval
    /// without it is of the call as it was asked, and does not count once that was edited.
    ///
    /// # Errors
    /// When it does not count: the hold is unchanged, or had ended before.
    pub async fn vote(
        &self,
        id: &ApprovalRequestId,
        voter: Voter,
        decision: Decision,
        seen: Option<Digest>,
    ) -> Result<Voted, ResolveError> {
        let seen = match (seen, decision.decision) {
            (None, DecisionKind::Approve) => {
                let held = self.queue().find_held(id);
                held.and_then(|(held, _)| held.asked_fingerprint())
            }
            (seen, _) => seen,
        };
        self.votable(id, &decision, &voter.approver, seen)?;
        let voter = self.fitting(id, voter)?;
        self.queue().vote(id, voter, decision, seen).await
    }

    /// An answer that can never be recorded must not end the hold.
    pub(crate) fn votable(
        &self,
        id: &ApprovalRequestId,
        decision: &Decision,
        approver: &Approver,
        about: Option<Digest>,
    ) -> Result<(), ResolveError> {
        let checked = match self.broker().decision(id, decision, approver, (self.now(), about)) {
            Ok(decision) => self.broker().check_about(id, &decision, about),
            // Of a hold that has ended, the queue knows how.
            Err(SettleError::Grant(_)) if self.ended_hold(id) => Ok(()),
            Err(error) => Err(error),
        };
        match checked {
            Err(
                error @ (SettleError::Refused(_)
                | SettleError::Grant(_)
                | SettleError::NotRecorded(_)),
            ) => Err(ResolveError::NotAllowed(error.to_string())),
            _ => Ok(()),
        }
    }

    /// The voter with the groups that the call's policy speaks of: no others are anybody's
    /// business, and the records stay small.
    pub(crate) fn fitting(
        &self,
        id: &ApprovalRequestId,
        voter: Voter,
    ) -> Result<Voter, ResolveError> {
        let Some((held, _)) = self.queue().find_held(id) else { return Ok(voter) };
        let Some(policy) = held.policy() else {
            if voter.on_behalf_of.is_some() {
                let why = "anybody who may decide may answer this call, for themselves";
                return Err(ResolveError::NotAllowed(why.to_owned()));
            }
            return Ok(voter);
        };
        let asked: Vec<&str> = policy.groups().collect();
        let groups = voter.groups.into_iter().filter(|group| asked.contains(&group.as_str()));
        Ok(Voter { groups: groups.collect(), ..voter })
    }

    /// Tells others that somebody is looking at a held call, for so long at most. It keeps
    /// nobody from deciding. Returns once that is durable.
    ///
    /// # Errors
    /// When somebody else is, or they may not decide about it, or it has ended.
    pub async fn claim(
        &self,
        id: &ApprovalRequestId,
        by: Approver,
        time: Duration,
    ) -> Result<Held, ResolveError> {
        self.queue().claim(id, by, time).await
    }

    /// Takes a claim back. Returns once that is durable.
    ///
    /// # Errors
    /// When they have none, or the hold has ended.
    pub async fn unclaim(
        &self,
        id: &ApprovalRequestId,
        by: Approver,
    ) -> Result<Held, ResolveError> {
        self.queue().unclaim(id, by).await
    }
}
