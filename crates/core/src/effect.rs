//! Effects: what a call does to the world. One intent, written before; one result, after.

use serde::{Deserialize, Serialize};

use crate::id::{ContentRef, DedupeKey, EffectId, IdempotencyKey};
use crate::refs::{DestinationRef, EntityRef, PolicyRef, SourceRef};
use crate::word::words;

words! {
    /// What an effect touches. PascalCase on the wire.
    EffectClass {
        /// Looks, changes nothing.
        Read = "Read",
        /// Changes stored state.
        Write = "Write",
        /// Starts a process whose effect is not known further.
        Process = "Process",
        /// Talks to another machine.
        Network = "Network",
        /// Asks somebody for approval.
        ApprovalDispatch = "ApprovalDispatch",
        /// Hands output to a person or system.
        OutputDelivery = "OutputDelivery",
    }
}

words! {
    /// How much harm a call can do. PascalCase on the wire.
    RiskClass {
        /// None worth a person's time.
        Low = "Low",
        /// Bounded and reversible.
        Medium = "Medium",
        /// Wide, or hard to reverse.
        High = "High",
        /// Irreversible, or beyond this system.
        Critical = "Critical",
    }
}

words! {
    /// The mechanism of an effect.
    EffectKind {
        /// A model is called.
        ProviderRequest = "provider_request",
        /// A tool runs.
        ToolExecution = "tool_execution",
        /// A person is asked.
        ApprovalDispatch = "approval_dispatch",
        /// Something is remembered beyond the run.
        MemoryWrite = "memory_write",
        /// An extension acts on its own.
        ExtensionAction = "extension_action",
        /// A result is handed over.
        OutputDelivery = "output_delivery",
        /// A file is changed by the runtime itself.
        FileWrite = "file_write",
        /// A process is started.
        ProcessStart = "process_start",
        /// A process is sent a signal.
        ProcessSignal = "process_signal",
        /// A process is started where it is confined.
        IsolatedProcessStart = "isolated_process_start",
        /// Another agent is started.
        ChildAgentStart = "child_agent_start",
        /// A message reaches another run.
        RunMessageDelivery = "run_message_delivery",
        /// What a run left running is stopped.
        ChildArtifactShutdown = "child_artifact_shutdown",
        /// What a run left running is handed to somebody else.
        DetachTransfer = "detach_transfer",
        /// A hook changes or stops something.
        HookMutation = "hook_mutation",
    }
}

words! {
    /// How an effect ended.
    EffectTerminalStatus {
        /// It happened and reported success.
        Completed = "completed",
        /// It happened and reported failure, or could not start.
        Failed = "failed",
        /// Its deadline came first.
        TimedOut = "timed_out",
        /// It was called off.
        Cancelled = "cancelled",
        /// It never started, by decision.
        DeniedBeforeExecution = "denied_before_execution",
        /// Nobody can say; it is never run again by itself.
        Unknown = "unknown",
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
    pub reconciliation_ref: Option<String>,
    /// A stable code of what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_ref: Option<String>,
    /// Output and other content, by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content_refs: Vec<ContentRef>,
    /// What happened, without secrets, for people.
    pub redacted_summary: String,
}

impl EffectIntent {
    /// An announcement without destination, policies, keys or content.
    #[must_use]
    pub fn new(
        effect_id: EffectId,
        kind: EffectKind,
        subject_ref: EntityRef,
        source: SourceRef,
        redacted_summary: impl Into<String>,
    ) -> Self {
        Self {
            effect_id,
            kind,
            subject_ref,
            source,
            destination: None,
            policy_refs: Vec::new(),
            idempotency_key: None,
            dedupe_key: None,
            content_refs: Vec::new(),
            redacted_summary: redacted_summary.into(),
        }
    }
}

impl EffectResult {
    /// An end without references or content.
    #[must_use]
    pub fn new(
        effect_id: EffectId,
        terminal_status: EffectTerminalStatus,
        redacted_summary: impl Into<String>,
    ) -> Self {
        Self {
            effect_id,
            terminal_status,
            external_operation_id: None,
            reconciliation_ref: None,
            error_ref: None,
            content_refs: Vec::new(),
            redacted_summary: redacted_summary.into(),
        }
    }
}
