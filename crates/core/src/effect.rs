//! Effects: what a call does to the world. One intent, written before; one result, after.

use serde::{Deserialize, Serialize};

use crate::id::{ContentRef, DedupeKey, EffectId, IdempotencyKey, RefId};
use crate::refs::{DestinationRef, EntityRef, PolicyRef, SourceRef, words};

/// What an effect touches. PascalCase on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EffectClass {
    /// Looks, changes nothing.
    Read,
    /// Changes stored state.
    Write,
    /// Starts a process whose effect is not known further.
    Process,
    /// Talks to another machine.
    Network,
    /// Asks somebody for approval.
    ApprovalDispatch,
    /// Hands output to a person or system.
    OutputDelivery,
}

/// How much harm a call can do. PascalCase on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RiskClass {
    /// None worth a person's time.
    Low,
    /// Bounded and reversible.
    Medium,
    /// Wide, or hard to reverse.
    High,
    /// Irreversible, or beyond this system.
    Critical,
}

words! {
    /// The mechanism of an effect.
    #[allow(missing_docs)]
    EffectKind {
        ProviderRequest, ToolExecution, ApprovalDispatch, MemoryWrite, ExtensionAction,
        OutputDelivery, FileWrite, ProcessStart, ProcessSignal, IsolatedProcessStart,
        ChildAgentStart, RunMessageDelivery, ChildArtifactShutdown, DetachTransfer,
        HookMutation,
    }
}

words! {
    /// How an effect ended.
    EffectTerminalStatus {
        /// It happened and reported success.
        Completed,
        /// It happened and reported failure, or could not start.
        Failed,
        /// Its deadline came first.
        TimedOut,
        /// It was called off.
        Cancelled,
        /// It never started, by decision.
        DeniedBeforeExecution,
        /// Nobody can say; it is never run again by itself.
        Unknown,
    }
}

/// The durable announcement of an effect. Nothing happens before it is in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectIntent {
    /// The effect; its result carries the same id.
    pub effect_id: EffectId,
    /// The mechanism.
    pub kind: EffectKind,
    /// What the effect belongs to, such as a tool call.
    pub subject_ref: EntityRef,
    /// Who caused it.
    pub source: SourceRef,
    /// What it acts on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<DestinationRef>,
    /// The rules that allowed it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_refs: Vec<PolicyRef>,
    /// The caller's name for this effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// The caller's name for repeated deliveries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_key: Option<DedupeKey>,
    /// Arguments and other content, by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content_refs: Vec<ContentRef>,
    /// What will happen, without secrets, for people.
    pub redacted_summary: String,
}

/// The durable end of an effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectResult {
    /// The effect that was announced.
    pub effect_id: EffectId,
    /// How it ended.
    pub terminal_status: EffectTerminalStatus,
    /// The other system's name for the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_operation_id: Option<String>,
    /// Where an unknown outcome is being cleared up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciliation_ref: Option<RefId>,
    /// A stable code of what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_ref: Option<RefId>,
    /// Output and other content, by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content_refs: Vec<ContentRef>,
    /// What happened, without secrets, for people.
    pub redacted_summary: String,
}
