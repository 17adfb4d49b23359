//! References: who, whence, whither, under which rule. They carry no content.

use serde::{Deserialize, Serialize};

use crate::id::RefId;
use crate::word::words;

words! {
    /// What an [`EntityRef`] points at.
    EntityKind {
        /// One MCP session, or one command-line call.
        Run = "run",
        /// A step of a run.
        Turn = "turn",
        /// One try of a turn.
        Attempt = "attempt",
        /// A principal that calls tools.
        Agent = "agent",
        /// Agents that share work.
        AgentPool = "agent_pool",
        /// What a pool's messages are sorted by.
        Topic = "topic",
        /// An entry of a live stream.
        Event = "event",
        /// What a person or model said.
        Message = "message",
        /// What a sleeping run waits for.
        WakeCondition = "wake_condition",
        /// What one source added to a model's context.
        ContextContribution = "context_contribution",
        /// One piece of that context.
        ContextItem = "context_item",
        /// The context as one model call got it.
        ContextProjection = "context_projection",
        /// Bytes stored beside the log.
        Content = "content",
        /// A file or document that was made.
        Artifact = "artifact",
        /// What an agent is registered to do.
        Capability = "capability",
        /// A document that describes part of a runtime package.
        PackageSidecar = "package_sidecar",
        /// The tools, rules and settings of a run, frozen.
        RuntimePackage = "runtime_package",
        /// What a rule decided.
        PolicyDecision = "policy_decision",
        /// What a call does to the world.
        Effect = "effect",
        /// The announcement of an effect.
        EffectIntent = "effect_intent",
        /// The end of an effect.
        EffectResult = "effect_result",
        /// One call of a tool.
        ToolCall = "tool_call",
        /// A question to a person; the hold that waits has its id.
        ApprovalRequest = "approval_request",
        /// A rule over a live stream.
        StreamRule = "stream_rule",
        /// A live voice or video session.
        RealtimeSession = "realtime_session",
        /// A hook as it was registered.
        Hook = "hook",
        /// Where a process is confined.
        ExecutionEnvironment = "execution_environment",
        /// What a run left running behind it.
        ChildArtifact = "child_artifact",
        /// The run of an agent that another started.
        SubagentRun = "subagent_run",
        /// What an extension does on its own.
        ExtensionAction = "extension_action",
        /// A result on its way to whoever gets it.
        OutputDelivery = "output_delivery",
    }
}

words! {
    /// What kind of party something came from.
    SourceKind {
        /// The runtime itself.
        Sdk = "sdk",
        /// The program the runtime lives in.
        Host = "host",
        /// A person.
        User = "user",
        /// The system prompt.
        System = "system",
        /// Whoever built the agent.
        Developer = "developer",
        /// What an agent remembered.
        Memory = "memory",
        /// A summary that replaced context.
        Compaction = "compaction",
        /// A hook.
        Hook = "hook",
        /// An extension of the runtime.
        Extension = "extension",
        /// A tool and what it returned.
        Tool = "tool",
        /// A chat or phone line.
        RemoteChannel = "remote_channel",
        /// A clock.
        ScheduledTask = "scheduled_task",
        /// An agent that another started.
        Subagent = "subagent",
        /// A runtime of somebody else's, such as an MCP client.
        ExternalRuntime = "external_runtime",
        /// A journal that is read again.
        Replay = "replay",
    }
}

words! {
    /// What kind of party something goes to.
    DestinationKind {
        /// A principal that calls tools.
        Agent = "agent",
        /// Agents that share work.
        AgentPool = "agent_pool",
        /// Whoever listens to a topic.
        Topic = "topic",
        /// A model's provider.
        Provider = "provider",
        /// A model's context.
        ContextProjection = "context_projection",
        /// This journal.
        Journal = "journal",
        /// A live stream.
        EventStream = "event_stream",
        /// Metrics and traces.
        Telemetry = "telemetry",
        /// Where results are delivered.
        OutputSink = "output_sink",
        /// The program the runtime lives in.
        Host = "host",
        /// A person.
        User = "user",
        /// A chat or phone line.
        RemoteChannel = "remote_channel",
        /// What a tool acts on.
        Tool = "tool",
        /// An extension of the runtime.
        Extension = "extension",
        /// An agent that another started.
        Subagent = "subagent",
        /// A runtime of somebody else's.
        ExternalRuntime = "external_runtime",
    }
}

words! {
    /// What a policy governs.
    PolicyKind {
        /// Which calls need a person.
        Approval = "approval",
        /// Which calls are allowed at all.
        Permission = "permission",
        /// How a process is confined.
        Sandbox = "sandbox",
        /// What a model may see.
        Context = "context",
        /// Who may see a record.
        Privacy = "privacy",
        /// How long content is kept.
        Retention = "retention",
        /// What a summary leaves out.
        Redaction = "redaction",
        /// What a package may contain.
        RuntimePackage = "runtime_package",
        /// Whatever the host decides.
        Host = "host",
    }
}

words! {
    /// How widely a record may be shown.
    #[derive(Default)]
    PrivacyClass {
        /// To anybody.
        Public = "public",
        /// Inside the operator's organisation.
        Internal = "internal",
        /// The record may be shown, the content it points at needs its own permission.
        #[default]
        ContentRefsOnly = "content_refs_only",
        /// To named people only.
        Sensitive = "sensitive",
        /// To nobody through a surface.
        Secret = "secret",
    }
}

words! {
    /// How long content is kept.
    #[derive(Default)]
    RetentionClass {
        /// Not beyond the call.
        Ephemeral = "ephemeral",
        /// Until the run ends.
        RunScoped = "run_scoped",
        /// Until the session ends.
        SessionScoped = "session_scoped",
        /// Across restarts.
        Durable = "durable",
        /// Until somebody deletes it.
        Persistent = "persistent",
        /// As the host decides.
        #[default]
        HostPolicy = "host_policy",
    }
}

words! {
    /// How far the word of a source is taken.
    #[derive(Default)]
    TrustClass {
        /// Verified by the system itself.
        Trusted = "trusted",
        /// Made by the runtime.
        SdkGenerated = "sdk_generated",
        /// Asserted by the host that embeds the runtime.
        #[default]
        HostProvided = "host_provided",
        /// Asserted by a person.
        UserProvided = "user_provided",
        /// From outside, plausible.
        External = "external",
        /// From outside, possibly hostile.
        Untrusted = "untrusted",
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
