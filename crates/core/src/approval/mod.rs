//! Approvals: what is asked, what was answered, and the records of both.

mod grant;
mod lifecycle;
mod record;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::effect::{EffectClass, EffectIntent, EffectResult, RiskClass};
use crate::hold::{Approver, HoldPolicy, Vote};
use crate::id::{
    AgentId, ApprovalRequestId, ContentRef, EffectId, HookId, RefId, RunId,
    RuntimePackageFingerprint, SessionId, ToolCallId, TurnId,
};
use crate::refs::{DestinationRef, EntityKind, EntityRef, PolicyRef, SourceRef};
use crate::word::words;

pub use grant::{ApprovalGrant, GrantCall, GrantMismatch};
pub use lifecycle::{ApprovalEvent, ApprovalLifecycleStatus, ApprovalTerminalStatus, IllegalStep};
pub use record::{ApprovalOutcome, ApprovalPart, DecisionRefused};

words! {
    /// What an approver may answer. PascalCase on the wire.
    ApprovalDecisionKind {
        /// This call, once.
        Approved = "Approved",
        /// This call and later ones within a grant.
        ApprovedForSession = "ApprovedForSession",
        /// Not this call.
        Denied = "Denied",
    }
}

words! {
    /// Who is asked. PascalCase on the wire.
    DispatcherScope {
        /// Whoever the host names.
        Host = "Host",
        /// Whoever answers for the source of the call.
        SourceScoped = "SourceScoped",
        /// Nobody can be asked.
        Headless = "Headless",
    }
}

/// A request for a person's decision on one call. Its id is the hold's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// The request, and the hold that waits for its answer.
    pub approval_request_id: ApprovalRequestId,
    /// The effect of asking, which is itself announced and ended in the journal.
    pub approval_dispatch_effect_id: EffectId,
    /// The run of the call.
    pub run_id: RunId,
    /// The client's own session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Who wants to act.
    pub agent_id: AgentId,
    /// The call's position in its run.
    pub turn_id: TurnId,
    /// The call.
    pub tool_call_id: ToolCallId,
    /// Who asked; can never be the one who decides.
    pub source: SourceRef,
    /// What the call acts on.
    pub destination: DestinationRef,
    /// The tool's name in the manifest.
    pub canonical_tool_name: String,
    /// Where the tool comes from.
    pub tool_source: SourceRef,
    /// What the call touches.
    pub effect_class: EffectClass,
    /// How much harm it can do.
    pub risk_class: RiskClass,
    /// The arguments, by digest.
    pub requested_args_ref: ContentRef,
    /// The arguments as the approver sees them, without secrets.
    pub redacted_args_summary: String,
    /// The rules by which a person is asked.
    pub policy_refs: Vec<PolicyRef>,
    /// Who is asked.
    pub dispatcher_scope: DispatcherScope,
    /// Milliseconds from creation until silence means no.
    pub timeout_ms: u64,
    /// Answers that count; any other is refused.
    pub allowed_decisions: Vec<ApprovalDecisionKind>,
    /// Milliseconds since the Unix epoch.
    pub created_at_millis: u64,
    /// The runtime and its configuration at the time.
    pub runtime_package_fingerprint: RuntimePackageFingerprint,
    /// The exact call this request is about; an approval releases no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Digest>,
    /// The digest of what the approver was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendering_digest: Option<Digest>,
    /// What hooks changed of how the question is put. Countersign's addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presentation: Option<Box<ApprovalPresentation>>,
    /// Whose approvals it takes; absent when one of any approver is enough. Countersign's
    /// addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_policy: Option<Box<HoldPolicy>>,
}

/// How a question is put, where hooks have changed it. What was asked stands beside what is
/// shown, and every surface shows both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalPresentation {
    /// The line that is shown.
    pub summary: String,
    /// The reason that is shown.
    pub reason: String,
    /// Something to consider that was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The line without hooks: what would run.
    pub asked_summary: String,
    /// The reason without hooks: the rule that asks for a person.
    pub asked_reason: String,
    /// The hooks that changed something, in their order.
    pub changed_by: Vec<HookId>,
}

/// Which rule a request breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalRequestError {
    /// A field that must say something is empty.
    #[error("{field} is empty")]
    Empty {
        /// The field's name on the wire.
        field: &'static str,
    },
    /// A request with no time to answer would be denied before anyone saw it.
    #[error("timeout_ms is 0")]
    NoTime,
}

impl ApprovalRequest {
    /// Holds the request against the contract.
    ///
    /// # Errors
    /// When the tool name, arguments summary, policies or allowed decisions are empty, or the
    /// timeout is zero.
    pub fn validate(&self) -> Result<(), ApprovalRequestError> {
        for (field, empty) in [
            ("canonical_tool_name", self.canonical_tool_name.is_empty()),
            ("redacted_args_summary", self.redacted_args_summary.is_empty()),
            ("policy_refs", self.policy_refs.is_empty()),
            ("allowed_decisions", self.allowed_decisions.is_empty()),
        ] {
            if empty {
                return Err(ApprovalRequestError::Empty { field });
            }
        }
        if self.timeout_ms == 0 {
            return Err(ApprovalRequestError::NoTime);
        }
        Ok(())
    }

    /// The request as other records refer to it.
    #[must_use]
    pub fn subject_ref(&self) -> EntityRef {
        EntityRef::new(EntityKind::ApprovalRequest, RefId::from(&self.approval_request_id))
    }

    /// Milliseconds since the Unix epoch from which on silence is a denial.
    #[must_use]
    pub fn expires_at_millis(&self) -> u64 {
        self.created_at_millis.saturating_add(self.timeout_ms)
    }
}

/// What was answered, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum ApprovalDecision {
    /// This call, once.
    Approved {
        /// Who approved.
        actor_ref: SourceRef,
        /// The reason given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Milliseconds since the Unix epoch when the decision arrived.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decided_at_millis: Option<u64>,
        /// The call that was shown to the approver.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<Digest>,
        /// The digest of what the approver was shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rendering_digest: Option<Digest>,
    },
    /// This call and later ones within a grant.
    ApprovedForSession {
        /// Who approved.
        actor_ref: SourceRef,
        /// The reason given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Milliseconds since the Unix epoch when the decision arrived.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decided_at_millis: Option<u64>,
        /// The call that was shown to the approver.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<Digest>,
        /// The digest of what the approver was shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rendering_digest: Option<Digest>,
        /// The later calls. Without it this call alone is released.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grant: Option<Box<ApprovalGrant>>,
    },
    /// Not this call.
    Denied {
        /// A stable code.
        reason_code: String,
        /// Who denied; written as `null` when nobody did, as at a deadline.
        actor_ref: Option<SourceRef>,
        /// The reason given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Milliseconds since the Unix epoch when the decision arrived.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decided_at_millis: Option<u64>,
        /// The call that was shown to the approver.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<Digest>,
        /// The digest of what the approver was shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rendering_digest: Option<Digest>,
    },
}

impl ApprovalDecision {
    /// The answer of a channel that knows three words only: `approved`,
    /// `approved_for_session` and `denied`, exactly so. Any other text is no answer.
    #[must_use]
    pub fn from_finite_token(token: &str, actor_ref: SourceRef) -> Option<Self> {
        let (reason, decided_at_millis, fingerprint, rendering_digest) = (None, None, None, None);
        match token {
            "approved" => Some(Self::Approved {
                actor_ref,
                reason,
                decided_at_millis,
                fingerprint,
                rendering_digest,
            }),
            "approved_for_session" => Some(Self::ApprovedForSession {
                actor_ref,
                reason,
                decided_at_millis,
                fingerprint,
                rendering_digest,
                grant: None,
            }),
            "denied" => Some(Self::Denied {
                reason_code: "approval.denied".to_owned(),
                actor_ref: Some(actor_ref),
                reason,
                decided_at_millis,
                fingerprint,
                rendering_digest,
            }),
            _ => None,
        }
    }

    /// Which of the three answers it is.
    #[must_use]
    pub const fn kind(&self) -> ApprovalDecisionKind {
        match self {
            Self::Approved { .. } => ApprovalDecisionKind::Approved,
            Self::ApprovedForSession { .. } => ApprovalDecisionKind::ApprovedForSession,
            Self::Denied { .. } => ApprovalDecisionKind::Denied,
        }
    }

    /// Who answered; `None` for a denial that nobody made, as at a deadline.
    #[must_use]
    pub const fn actor_ref(&self) -> Option<&SourceRef> {
        match self {
            Self::Approved { actor_ref, .. } | Self::ApprovedForSession { actor_ref, .. } => {
                Some(actor_ref)
            }
            Self::Denied { actor_ref, .. } => actor_ref.as_ref(),
        }
    }
}

/// Other arguments that an approver gave a held call, and what follows from them: both
/// fingerprints, and the digests of both renderings. Countersign's addition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalEdit {
    /// Who changed them.
    pub by: Approver,
    /// The call as it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_fingerprint: Option<Digest>,
    /// The digest of what the approver was shown of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_rendering_digest: Option<Digest>,
    /// The call with the changed arguments; an approval releases no other.
    pub fingerprint: Digest,
    /// The digest of what the approver was shown of that.
    pub rendering_digest: Digest,
    /// The changed arguments, by digest.
    pub args_ref: ContentRef,
    /// The changed arguments as the approver saw them, without secrets.
    pub redacted_args_summary: String,
}

/// One step in the life of a request, as the journal holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record_type", content = "record", rename_all = "snake_case")]
pub enum ApprovalRecord {
    /// Somebody's decision is needed.
    Requested {
        /// The whole question.
        request: Box<ApprovalRequest>,
    },
    /// The question is about to be put to somebody.
    DispatchIntent {
        /// The request.
        request_id: ApprovalRequestId,
        /// The effect of asking.
        effect_intent: EffectIntent,
    },
    /// Asking has ended.
    DispatchResult {
        /// The request.
        request_id: ApprovalRequestId,
        /// Where the request stands now.
        lifecycle_status: ApprovalLifecycleStatus,
        /// How asking ended.
        effect_result: EffectResult,
    },
    /// Somebody answered.
    Responded {
        /// The request.
        request_id: ApprovalRequestId,
        /// The answer.
        decision: ApprovalDecision,
        /// The answers that made it, the last one included, where the request names a policy.
        /// Their reasons stand in records of their own. Countersign's addition.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        votes: Vec<Vote>,
        /// What an approver had changed of the call: the answer is about the changed one then.
        /// Countersign's addition.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        edit: Option<Box<ApprovalEdit>>,
    },
    /// The call is denied though nobody answered so, or what was approved is taken back.
    Denied {
        /// The request.
        request_id: ApprovalRequestId,
        /// A stable code of why.
        reason_code: String,
        /// Who took it back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor_ref: Option<SourceRef>,
        /// The reason given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

impl ApprovalRecord {
    /// The request this record is about.
    #[must_use]
    pub fn request_id(&self) -> &ApprovalRequestId {
        match self {
            Self::Requested { request } => &request.approval_request_id,
            Self::DispatchIntent { request_id, .. }
            | Self::DispatchResult { request_id, .. }
            | Self::Responded { request_id, .. }
            | Self::Denied { request_id, .. } => request_id,
        }
    }
}
