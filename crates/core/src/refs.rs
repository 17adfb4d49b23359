//! References: who, whence, whither, under which rule. They carry no content.

use serde::{Deserialize, Serialize};

use crate::id::RefId;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every word, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
        }
    };
}
pub(crate) use words;

words! {
    /// What an [`EntityRef`] points at.
    #[allow(missing_docs)]
    EntityKind {
        Run, Turn, Attempt, Agent, AgentPool, Topic, Event, Message, WakeCondition,
        ContextContribution, ContextItem, ContextProjection, Content, Artifact, Capability,
        PackageSidecar, RuntimePackage, PolicyDecision, Effect, EffectIntent, EffectResult,
        ToolCall, ApprovalRequest, StreamRule, RealtimeSession, Hook, ExecutionEnvironment,
        ChildArtifact, SubagentRun, ExtensionAction, OutputDelivery,
    }
}

words! {
    /// What kind of party something came from.
    #[allow(missing_docs)]
    SourceKind {
        Sdk, Host, User, System, Developer, Memory, Compaction, Hook, Extension, Tool,
        RemoteChannel, ScheduledTask, Subagent, ExternalRuntime, Replay,
    }
}

words! {
    /// What kind of party something goes to.
    #[allow(missing_docs)]
    DestinationKind {
        Agent, AgentPool, Topic, Provider, ContextProjection, Journal, EventStream, Telemetry,
        OutputSink, Host, User, RemoteChannel, Tool, Extension, Subagent, ExternalRuntime,
    }
}

words! {
    /// What a policy governs.
    #[allow(missing_docs)]
    PolicyKind {
        Approval, Permission, Sandbox, Context, Privacy, Retention, Redaction, RuntimePackage,
        Host,
    }
}

words! {
    /// How widely a record may be shown.
    #[derive(Default)]
    PrivacyClass {
        /// To anybody.
        Public,
        /// Inside the operator's organisation.
        Internal,
        /// The record may be shown, the content it points at needs its own permission.
        #[default]
        ContentRefsOnly,
        /// To named people only.
        Sensitive,
        /// To nobody through a surface.
        Secret,
    }
}

words! {
    /// How long content is kept.
    #[derive(Default)]
    RetentionClass {
        /// Not beyond the call.
        Ephemeral,
        /// Until the run ends.
        RunScoped,
        /// Until the session ends.
        SessionScoped,
        /// Across restarts.
        Durable,
        /// Until somebody deletes it.
        Persistent,
        /// As the host decides.
        #[default]
        HostPolicy,
    }
}

words! {
    /// How far the word of a source is taken.
    #[derive(Default)]
    TrustClass {
        /// Verified by the system itself.
        Trusted,
        /// Made by the runtime.
        SdkGenerated,
        /// Asserted by the host that embeds the runtime.
        #[default]
        HostProvided,
        /// Asserted by a person.
        UserProvided,
        /// From outside, plausible.
        External,
        /// From outside, possibly hostile.
        Untrusted,
    }
}

/// One key under which records of different runs and systems belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorrelationEntry {
    /// What is correlated, such as `tool_call`.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Who or what something came from.
///
/// Identity is `(kind, id)`: the labels beside them never decide anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRef {
    /// Half of the identity.
    pub kind: SourceKind,
    /// Half of the identity.
    pub id: RefId,
    /// How far its word is taken.
    #[serde(default)]
    pub trust: TrustClass,
    /// How widely this reference may be shown.
    #[serde(default)]
    pub privacy: PrivacyClass,
    /// Ties together what one outside request caused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub correlation: Vec<CorrelationEntry>,
    /// A text without secrets, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redacted_summary: Option<String>,
}

impl SourceRef {
    /// A reference with the contract's defaults: host-provided, content references only.
    #[must_use]
    pub fn new(kind: SourceKind, id: RefId) -> Self {
        Self {
            kind,
            id,
            trust: TrustClass::default(),
            privacy: PrivacyClass::default(),
            correlation: Vec::new(),
            redacted_summary: None,
        }
    }

    /// Whether both are the same party, whatever their labels say.
    #[must_use]
    pub fn same_identity(&self, other: &Self) -> bool {
        self.kind == other.kind && self.id == other.id
    }
}

/// Who or what something goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationRef {
    /// What kind of party.
    pub kind: DestinationKind,
    /// Which one.
    pub id: RefId,
    /// How widely this reference may be shown.
    #[serde(default)]
    pub privacy: PrivacyClass,
    /// How long the destination keeps what it gets.
    #[serde(default)]
    pub retention: RetentionClass,
    /// Ties together what one outside request caused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub correlation: Vec<CorrelationEntry>,
    /// A text without secrets, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redacted_summary: Option<String>,
}

impl DestinationRef {
    /// A reference with the contract's defaults: content references only, host policy.
    #[must_use]
    pub fn new(kind: DestinationKind, id: RefId) -> Self {
        Self {
            kind,
            id,
            privacy: PrivacyClass::default(),
            retention: RetentionClass::default(),
            correlation: Vec::new(),
            redacted_summary: None,
        }
    }
}

/// Anything a record speaks about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityRef {
    /// What it is.
    pub kind: EntityKind,
    /// Which one.
    pub id: RefId,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceRef>,
    /// How widely this reference may be shown.
    #[serde(default)]
    pub privacy: PrivacyClass,
    /// A text without secrets, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redacted_summary: Option<String>,
}

impl EntityRef {
    /// A reference with the contract's default privacy.
    #[must_use]
    pub fn new(kind: EntityKind, id: RefId) -> Self {
        Self { kind, id, source: None, privacy: PrivacyClass::default(), redacted_summary: None }
    }
}

/// A rule that was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRef {
    /// What it governs.
    pub kind: PolicyKind,
    /// Which rule.
    pub id: RefId,
    /// Which edition of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}
