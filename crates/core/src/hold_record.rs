//! What happens to a hold before it ends, as the journal keeps it.

use serde::{Deserialize, Serialize};

use crate::approval::{ApprovalEdit, ApprovalRequest};
use crate::digest::Digest;
use crate::hold::{Approver, Vote};
use crate::id::{ApprovalRequestId, IdError, RecordId, RefId};
use crate::journal::{JournalRecord, RecordBase};
use crate::refs::{EntityKind, EntityRef};

/// One thing that happened to a hold that goes on. Countersign's addition to the records of an
/// approval request: a reader that does not know it keeps it as it is.
///
/// A record says what was about to happen. What came first in the journal counts: an answer of
/// somebody who has been counted, or of a hold that has ended, is on record and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record_type", content = "record", rename_all = "snake_case")]
pub enum HoldRecord {
    /// Somebody approved, and more approvals are needed.
    Voted {
        /// The request.
        request_id: ApprovalRequestId,
        /// The answer.
        vote: Box<Vote>,
    },
    /// Somebody is looking at it.
    Claimed {
        /// The request.
        request_id: ApprovalRequestId,
        /// Who.
        by: Approver,
        /// Milliseconds since the Unix epoch.
        at_millis: u64,
        /// Milliseconds since the Unix epoch; from then on the claim is over.
        until_millis: u64,
    },
    /// Somebody is not looking at it any more.
    Released {
        /// The request.
        request_id: ApprovalRequestId,
        /// Who.
        by: Approver,
    },
    /// Its time brought others in.
    Escalated {
        /// The request.
        request_id: ApprovalRequestId,
        /// How many steps of its policy's `escalate` have been taken.
        steps: u32,
    },
    /// Somebody changed the arguments. What was answered before is about another call.
    Edited {
        /// The request.
        request_id: ApprovalRequestId,
        /// Who, and to which call.
        edit: Box<ApprovalEdit>,
    },
}

impl HoldRecord {
    /// The request this record is about.
    #[must_use]
    pub fn request_id(&self) -> &ApprovalRequestId {
        match self {
            Self::Voted { request_id, .. }
            | Self::Claimed { request_id, .. }
            | Self::Released { request_id, .. }
            | Self::Escalated { request_id, .. }
            | Self::Edited { request_id, .. } => request_id,
        }
    }

    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Voted { .. } => ("vote", "approval_voted"),
            Self::Claimed { .. } => ("claim", "approval_claimed"),
            Self::Released { .. } => ("release", "approval_released"),
            Self::Escalated { .. } => ("escalation", "approval_escalated"),
            Self::Edited { .. } => ("edit", "approval_edited"),
        }
    }
}

impl ApprovalRequest {
    /// A record of what happened to the request's hold, with id
    /// `journal.record.approval.{id}.{part}.{digest}`: there may be many of a kind, so the
    /// digest over the time and the record tells them apart.
    ///
    /// # Errors
    /// Never with an id that was checked; the signature does not rely on it.
    pub fn hold_record(
        &self,
        base: RecordBase,
        record: HoldRecord,
    ) -> Result<JournalRecord, IdError> {
        let (part, event_kind) = record.words();
        let said = serde_json::to_vec(&(base.timestamp_millis, &record)).unwrap_or_default();
        let digest = hex::encode(Digest::of(said).as_bytes());
        let digest = digest.get(..16).unwrap_or_default();
        let id = &self.approval_request_id;
        let record_id = RecordId::new(format!("journal.record.approval.{id}.{part}.{digest}"))?;
        let effect = RefId::from(&self.approval_dispatch_effect_id);
        let related = vec![EntityRef::new(EntityKind::Effect, effect)];
        let content_refs = match &record {
            HoldRecord::Edited { edit, .. } => vec![edit.args_ref.clone()],
            _ => Vec::new(),
        };
        let event = ("approval", event_kind);
        let record = base.record(record_id, event, self.subject_ref(), related, record.into());
        Ok(JournalRecord { content_refs, ..record })
    }

    /// Whether these answers release the call of this fingerprint, judged by the records alone:
    /// approvals of it by distinct people whom the policy does not exclude and who did not ask,
    /// enough for what the policy asks for at that time. Always, where the request names no
    /// policy: then one answer is enough, and it stands in the decision.
    #[must_use]
    pub fn met_by(&self, votes: &[Vote], fingerprint: Option<Digest>, at_millis: u64) -> bool {
        let Some(policy) = &self.hold_policy else { return true };
        let mut counted: Vec<&Vote> = Vec::new();
        for vote in votes {
            let barred = vote.involves(self.agent_id.as_str())
                || vote.involves(self.source.id.as_str())
                || policy.excluded().iter().any(|principal| vote.involves(principal));
            if vote.approves(fingerprint)
                && !barred
                && !counted.iter().any(|other| other.shares_person(vote))
            {
                counted.push(vote);
            }
        }
        let steps = policy.steps_open(at_millis.saturating_sub(self.created_at_millis));
        policy.met(steps, &counted)
    }
}
