//! The error that crosses the boundaries of a runtime: what went wrong, whether trying again
//! helps, and which records it belongs to.

use serde::{Deserialize, Serialize};

use crate::id::{AttemptId, EventId, RunId, SpanId, ToolCallId, TurnId};
use crate::refs::{DestinationRef, EntityRef, PolicyRef, PrivacyClass, SourceRef};
use crate::word::words;

words! {
    /// Which part of a runtime failed. PascalCase on the wire.
    AgentErrorKind {
        /// A package of tools, rules or hooks contradicts itself.
        InvalidPackage = "InvalidPackage",
        /// Something was asked for at the wrong time.
        InvalidStateTransition = "InvalidStateTransition",
        /// A model's provider did not answer, or wrongly.
        ProviderFailure = "ProviderFailure",
        /// A model's context could not be assembled.
        ProjectionFailure = "ProjectionFailure",
        /// A tool ran and failed.
        ToolFailure = "ToolFailure",
        /// A person could not be asked, or the answer does not count.
        ApprovalFailure = "ApprovalFailure",
        /// A rule, a hook or a person said no.
        PolicyDenial = "PolicyDenial",
        /// Something could not be recorded, so it does not happen.
        JournalFailure = "JournalFailure",
        /// A metric or trace was lost.
        TelemetryFailure = "TelemetryFailure",
        /// A process could not be confined.
        IsolationFailure = "IsolationFailure",
        /// An answer does not have the form it was asked to have.
        StructuredOutputFailure = "StructuredOutputFailure",
        /// A rule over a live stream failed.
        StreamRuleFailure = "StreamRuleFailure",
        /// An agent that another started failed.
        SubagentFailure = "SubagentFailure",
        /// An extension failed.
        ExtensionFailure = "ExtensionFailure",
        /// Somebody called it off.
        Cancellation = "Cancellation",
        /// What a run left running could not be ended or handed over.
        ChildLifecycleFailure = "ChildLifecycleFailure",
        /// A hook broke, was late or answered what it may not.
        HookFailure = "HookFailure",
        /// A deadline came first.
        Timeout = "Timeout",
        /// A person has to find out what happened.
        RecoveryRepairNeeded = "RecoveryRepairNeeded",
        /// The host has left something out.
        HostConfigurationNeeded = "HostConfigurationNeeded",
    }
}

words! {
    /// Whether the same thing may be tried again. PascalCase on the wire.
    RetryClassification {
        /// Yes, as it is.
        Retryable = "Retryable",
        /// No: the answer would be the same.
        NotRetryable = "NotRetryable",
        /// Only after something was put right.
        RepairNeeded = "RepairNeeded",
        /// Only after a person did something.
        UserActionNeeded = "UserActionNeeded",
        /// Only after the host's configuration was changed.
        HostConfigurationNeeded = "HostConfigurationNeeded",
    }
}

/// What went wrong, in the form the peer's hosts read. Externally tagged on the wire, with
/// absent values written as `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AgentError {
    /// A field has to be there and is not.
    #[error("missing required field: {field}")]
    MissingRequiredField {
        /// Its name, with the record's in front: `approval_request.policy_refs`.
        field: String,
    },
    /// A value breaks a rule of the contract.
    #[error("contract violation: {message}")]
    ContractViolation {
        /// Which value, and which rule.
        message: String,
    },
    /// The host has left something out.
    #[error("host configuration needed: {message}")]
    HostConfigurationNeeded {
        /// What, and where it belongs.
        message: String,
    },
    /// Everything else, sorted.
    #[error("{kind}: {}", context.message)]
    Classified {
        /// Which part failed.
        kind: AgentErrorKind,
        /// Whether trying again helps.
        retry: RetryClassification,
        /// What, where and under which rule.
        context: Box<ErrorContext>,
        /// Which records it belongs to.
        causal_ids: Box<CausalIds>,
    },
}

impl AgentError {
    /// A classified error that belongs to no record yet.
    #[must_use]
    pub fn new(
        kind: AgentErrorKind,
        retry: RetryClassification,
        message: impl Into<String>,
    ) -> Self {
        let context = ErrorContext { message: message.into(), ..ErrorContext::default() };
        let (context, causal_ids) = (Box::new(context), Box::default());
        Self::Classified { kind, retry, context, causal_ids }
    }

    /// Which part failed. The three short forms count as what the peer counts them:
    /// `InvalidPackage`, `InvalidStateTransition` and `HostConfigurationNeeded`.
    #[must_use]
    pub fn kind(&self) -> AgentErrorKind {
        match self {
            Self::MissingRequiredField { .. } => AgentErrorKind::InvalidPackage,
            Self::ContractViolation { .. } => AgentErrorKind::InvalidStateTransition,
            Self::HostConfigurationNeeded { .. } => AgentErrorKind::HostConfigurationNeeded,
            Self::Classified { kind, .. } => *kind,
        }
    }

    /// Whether trying again helps.
    #[must_use]
    pub fn retry(&self) -> RetryClassification {
        match self {
            Self::MissingRequiredField { .. } | Self::HostConfigurationNeeded { .. } => {
                RetryClassification::HostConfigurationNeeded
            }
            Self::ContractViolation { .. } => RetryClassification::RepairNeeded,
            Self::Classified { retry, .. } => *retry,
        }
    }
}

/// What went wrong, where and under which rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorContext {
    /// One sentence without secrets.
    pub message: String,
    /// The rules that applied; written even when there are none.
    pub policy_refs: Vec<PolicyRef>,
    /// Who caused it.
    pub source: Option<SourceRef>,
    /// What it was to act on.
    pub destination: Option<DestinationRef>,
    /// What it is about.
    pub subject: Option<EntityRef>,
    /// How widely it may be shown.
    pub privacy: Option<PrivacyClass>,
    /// A text for surfaces that must not show the message.
    pub redacted_summary: Option<String>,
}

/// The records and traces an error belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CausalIds {
    /// The run it ended or hindered.
    pub run_id: Option<RunId>,
    /// The step of that run.
    pub turn_id: Option<TurnId>,
    /// The try of that step.
    pub attempt_id: Option<AttemptId>,
    /// The event that told of it.
    pub event_id: Option<EventId>,
    /// The call it stopped.
    pub tool_call_id: Option<ToolCallId>,
    /// The span it happened in.
    pub span_id: Option<SpanId>,
    /// Whatever else; written even when there is nothing.
    pub related: Vec<EntityRef>,
}
