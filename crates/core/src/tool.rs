//! The journal's record of one tool call.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::effect::{EffectClass, EffectIntent, EffectResult, EffectTerminalStatus, RiskClass};
use crate::id::{ContentRef, HookId, IdempotencyKey, RefId, RunId, ToolCallId, TurnId};
use crate::refs::{DestinationRef, PolicyRef, PrivacyClass, RetentionClass, SourceRef};
use crate::word::words;

words! {
    /// How far a call has come.
    ToolCallStatus {
        /// It arrived.
        Requested = "requested",
        /// A hook changed its arguments.
        RequestModified = "request_modified",
        /// Its effect is announced and may have started.
        IntentRecorded = "intent_recorded",
        /// It succeeded.
        Completed = "completed",
        /// It ran and failed, or could not start.
        Failed = "failed",
        /// Its deadline came first.
        TimedOut = "timed_out",
        /// It was called off.
        Cancelled = "cancelled",
        /// It was refused; nothing happened.
        DeniedBeforeExecution = "denied_before_execution",
        /// A hook replaced its result.
        ResultRewritten = "result_rewritten",
        /// Nobody can say how it ended.
        Unknown = "unknown",
        /// A person has to find out how it ended.
        RecoveryRequired = "recovery_required",
    }
}

impl From<EffectTerminalStatus> for ToolCallStatus {
    fn from(status: EffectTerminalStatus) -> Self {
        match status {
            EffectTerminalStatus::Completed => Self::Completed,
            EffectTerminalStatus::Failed => Self::Failed,
            EffectTerminalStatus::TimedOut => Self::TimedOut,
            EffectTerminalStatus::Cancelled => Self::Cancelled,
            EffectTerminalStatus::DeniedBeforeExecution => Self::DeniedBeforeExecution,
            EffectTerminalStatus::Unknown => Self::Unknown,
        }
    }
}

/// A document that describes a tool beside its name, such as a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarRef {
    /// Which document.
    pub sidecar_id: String,
    /// What kind.
    pub kind: String,
    /// Which edition.
    pub version: String,
    /// The digest of its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<String>,
}

/// One step of a tool call: its announcement, or its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallRecord {
    /// The call.
    pub tool_call_id: ToolCallId,
    /// Its run.
    pub run_id: RunId,
    /// Its position in the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_id: Option<TurnId>,
    /// What the tool is registered as.
    pub capability_id: RefId,
    /// The tool's name in the manifest.
    pub canonical_tool_name: String,
    /// The tool's name with the space it lives in.
    pub namespace: String,
    /// Who called.
    pub source: SourceRef,
    /// What the call acts on.
    pub destination: DestinationRef,
    /// What runs the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_ref: Option<RefId>,
    /// The rules that applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_refs: Vec<PolicyRef>,
    /// Documents that describe the tool; Countersign names the manifest and its digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sidecar_refs: Vec<SidecarRef>,
    /// What the call touches.
    pub effect_class: EffectClass,
    /// How much harm it can do.
    pub risk_class: RiskClass,
    /// How widely the record may be shown.
    pub privacy: PrivacyClass,
    /// How long its content is kept.
    pub retention: RetentionClass,
    /// The arguments, by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested_args_refs: Vec<ContentRef>,
    /// The arguments without secrets, for people.
    pub redacted_args_summary: String,
    /// That summary before a hook changed the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_redacted_args_summary: Option<String>,
    /// That summary after a hook changed the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patched_redacted_args_summary: Option<String>,
    /// The output, by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub result_content_refs: Vec<ContentRef>,
    /// How the call ended, without secrets, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redacted_result_summary: Option<String>,
    /// That summary before a hook replaced the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_redacted_result_summary: Option<String>,
    /// That summary after a hook replaced the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patched_redacted_result_summary: Option<String>,
    /// The hook that changed something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_id: Option<HookId>,
    /// The caller's name for the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// How far the call has come.
    pub status: ToolCallStatus,
    /// A policy's verdict on the call, kept as it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_outcome: Option<Value>,
    /// The announcement, in a record with status `intent_recorded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect_intent: Option<EffectIntent>,
    /// The end, in a record with a final status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect_result: Option<EffectResult>,
    /// Why nobody can say how the call ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsafe_pending_reason: Option<String>,
    /// The exact call, as the approver saw it. Absent when the arguments were refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Digest>,
    /// Which use of a grant released the call, from 1. The grant is the approval request among
    /// the record's related references. Countersign's addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_use: Option<u64>,
}
