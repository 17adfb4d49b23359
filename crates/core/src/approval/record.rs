//! Building the records of an approval request, and its outcome.

use serde::{Deserialize, Serialize};

use crate::approval::{
    ApprovalDecision, ApprovalDecisionKind, ApprovalRecord, ApprovalRequest, ApprovalTerminalStatus,
};
use crate::effect::{EffectIntent, EffectKind, EffectResult, EffectTerminalStatus};
use crate::id::{ApprovalRequestId, IdError, RecordId, RefId};
use crate::journal::{JournalRecord, RecordBase};
use crate::refs::{EntityKind, EntityRef};

/// How a request ended, as whoever asked is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalOutcome {
    /// The request.
    pub approval_request_id: ApprovalRequestId,
    /// How it ended.
    pub status: ApprovalTerminalStatus,
    /// What was answered; written as `null` when nobody did.
    pub decision: Option<ApprovalDecision>,
    /// A stable code: `approval.approved`, `approval.timeout`, `missing.approval_dispatcher`,
    /// or whatever a denial gave.
    pub reason_code: String,
}

impl ApprovalOutcome {
    /// The outcome of an answer.
    ///
    /// # Errors
    /// When the answer does not count. The request stays open.
    pub fn decided(
        request: &ApprovalRequest,
        decision: ApprovalDecision,
    ) -> Result<Self, DecisionRefused> {
        request.admits(&decision)?;
        let (status, code) = match &decision {
            ApprovalDecision::Approved { .. } => {
                (ApprovalTerminalStatus::Approved, "approval.approved")
            }
            ApprovalDecision::ApprovedForSession { .. } => {
                (ApprovalTerminalStatus::ApprovedForSession, "approval.approved_for_session")
            }
            ApprovalDecision::Denied { reason_code, .. } => {
                (ApprovalTerminalStatus::Denied, reason_code.as_str())
            }
        };
        let reason_code = code.to_owned();
        let approval_request_id = request.approval_request_id.clone();
        Ok(Self { approval_request_id, status, decision: Some(decision), reason_code })
    }

    /// The outcome of a request nobody answered.
    #[must_use]
    pub fn unanswered(
        request: &ApprovalRequest,
        status: ApprovalTerminalStatus,
        reason_code: impl Into<String>,
    ) -> Self {
        Self {
            approval_request_id: request.approval_request_id.clone(),
            status,
            decision: None,
            reason_code: reason_code.into(),
        }
    }

    /// Whether the call may run.
    #[must_use]
    pub const fn releases_tool(&self) -> bool {
        self.status.releases_tool()
    }
}

/// Why an answer does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecisionRefused {
    /// The request does not offer this answer.
    #[error("`{answer}` is not among the decisions this request allows")]
    NotAllowed {
        /// The answer.
        answer: ApprovalDecisionKind,
    },
    /// Whoever asked cannot decide. Identity is kind and id; labels beside them do not count.
    #[error("whoever asked cannot decide: {who}")]
    OwnRequest {
        /// The identity's id.
        who: RefId,
    },
}

/// Which record of a request, as its record id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalPart {
    /// `requested`: the question.
    Requested,
    /// `intent`: it will be put to somebody.
    Intent,
    /// `responded`: what somebody answered.
    Responded,
    /// `denied`: that nobody answered.
    Denied,
    /// `revoked`: what was approved is taken back.
    Revoked,
    /// `result`: how asking ended.
    Result,
    /// `recovery`: how it ended, as a restart found it.
    Recovery,
}

impl ApprovalPart {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Requested => ("requested", "approval_requested"),
            Self::Intent => ("intent", "approval_dispatch_intent"),
            Self::Responded => ("responded", "approval_responded"),
            Self::Denied => ("denied", "approval_denied"),
            Self::Revoked => ("revoked", "approval_revoked"),
            Self::Result => ("result", "approval_dispatch_result"),
            Self::Recovery => ("recovery", "approval_dispatch_result"),
        }
    }
}

impl ApprovalRequest {
    /// Whether an answer counts: the request offers it, and whoever gives it did not ask.
    ///
    /// # Errors
    /// Which rule the answer breaks.
    pub fn admits(&self, decision: &ApprovalDecision) -> Result<(), DecisionRefused> {
        if let Some(actor) = decision.actor_ref()
            && actor.same_identity(&self.source)
        {
            return Err(DecisionRefused::OwnRequest { who: actor.id.clone() });
        }
        match self.allowed_decisions.contains(&decision.kind()) {
            true => Ok(()),
            false => Err(DecisionRefused::NotAllowed { answer: decision.kind() }),
        }
    }

    /// The announcement of asking.
    #[must_use]
    pub fn dispatch_intent(&self) -> EffectIntent {
        let summary = format!(
            "approval dispatch for {}: {}",
            self.canonical_tool_name, self.redacted_args_summary
        );
        EffectIntent {
            destination: Some(self.destination.clone()),
            policy_refs: self.policy_refs.clone(),
            content_refs: vec![self.requested_args_ref.clone()],
            ..EffectIntent::new(
                self.approval_dispatch_effect_id.clone(),
                EffectKind::ApprovalDispatch,
                self.subject_ref(),
                self.source.clone(),
                summary,
            )
        }
    }

    /// The end of asking.
    #[must_use]
    pub fn dispatch_result(
        &self,
        status: EffectTerminalStatus,
        redacted_summary: impl Into<String>,
    ) -> EffectResult {
        EffectResult::new(self.approval_dispatch_effect_id.clone(), status, redacted_summary)
    }

    /// What the records of this request have in common. Time and correlation are the caller's.
    #[must_use]
    pub fn record_base(&self, timestamp_millis: u64) -> RecordBase {
        RecordBase {
            session_id: self.session_id.clone(),
            turn_id: Some(self.turn_id.clone()),
            destination: Some(self.destination.clone()),
            tags: vec!["approval".to_owned()],
            timestamp_millis,
            ..RecordBase::new(
                self.run_id.clone(),
                self.agent_id.clone(),
                self.source.clone(),
                self.runtime_package_fingerprint.clone(),
            )
        }
    }

    /// One of the request's records, with id `journal.record.approval.{id}.{part}`. The event
    /// index leaves out what the record is related to, as the peer's does.
    ///
    /// # Errors
    /// Never with an id that was checked; the signature does not rely on it.
    pub fn journal_record(
        &self,
        base: RecordBase,
        part: ApprovalPart,
        record: ApprovalRecord,
    ) -> Result<JournalRecord, IdError> {
        let (word, event_kind) = part.words();
        let id = &self.approval_request_id;
        let record_id = RecordId::new(format!("journal.record.approval.{id}.{word}"))?;
        let content_refs = match &record {
            ApprovalRecord::DispatchIntent { effect_intent, .. } => {
                effect_intent.content_refs.clone()
            }
            ApprovalRecord::DispatchResult { effect_result, .. } => {
                effect_result.content_refs.clone()
            }
            ApprovalRecord::Requested { request } => vec![request.requested_args_ref.clone()],
            ApprovalRecord::Responded { .. } | ApprovalRecord::Denied { .. } => Vec::new(),
        };
        let event = ("approval", event_kind);
        let effect = RefId::from(&self.approval_dispatch_effect_id);
        let record = base.record(record_id, event, self.subject_ref(), Vec::new(), record.into());
        let related_refs = vec![EntityRef::new(EntityKind::Effect, effect)];
        Ok(JournalRecord { related_refs, content_refs, ..record })
    }
}
