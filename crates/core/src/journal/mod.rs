//! Journal records: the envelope every record shares, and the payloads known here.

mod base;
mod draft;
mod lifecycle;
mod payload;

use std::borrow::Cow;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{
    AgentId, AttemptId, ContentRef, DedupeKey, IdempotencyKey, RecordId, RunId,
    RuntimePackageFingerprint, SessionId, TurnId,
};
use crate::refs::{CorrelationEntry, DestinationRef, EntityRef, PrivacyClass, SourceRef};
use crate::word::words;

pub use base::RecordBase;
pub use draft::{EncodeError, EncodedDraft, JournalDraft};
pub use lifecycle::{
    RecoveryMarker, RunCheckpoint, RunLifecycle, TerminalResult, TurnLifecycle,
    TurnLifecycleStatus, UnsafePendingEffect,
};
pub use payload::{JournalPayload, UnknownPayload};

/// The envelope's version. Reading refuses any other.
pub const SCHEMA_VERSION: u16 = 1;

/// Most bytes of one stored record: the limit of the log's tile format.
pub const MAX_RECORD_LEN: usize = 65_535;

/// The correlation key under which every record of a call carries the call's id.
pub const TOOL_CALL_KEY: &str = "tool_call";

words! {
    /// The family of a record.
    JournalRecordKind {
        /// A run starts, ends, or has something happen to it outside a call.
        Run = "run",
        /// A step of a run starts or ends.
        Turn = "turn",
        /// A model's context was assembled.
        Context = "context",
        /// A person or model said something.
        Message = "message",
        /// A model was called.
        ModelAttempt = "model_attempt",
        /// An answer was held against its form.
        StructuredOutput = "structured_output",
        /// A rule over a live stream.
        StreamRule = "stream_rule",
        /// A live voice or video session.
        RealtimeSession = "realtime_session",
        /// A hook was registered, invoked or answered.
        Hook = "hook",
        /// A person is asked, or answered.
        Approval = "approval",
        /// A step of a tool call.
        Tool = "tool",
        /// A confined process.
        Isolation = "isolation",
        /// What a run leaves running.
        ChildLifecycle = "child_lifecycle",
        /// Agents that share work.
        AgentPool = "agent_pool",
        /// A message between runs.
        RunMessage = "run_message",
        /// A sleeping run.
        Wake = "wake",
        /// A result on its way to whoever gets it.
        OutputDispatch = "output_dispatch",
        /// An agent that another started.
        Subagent = "subagent",
        /// What an extension does on its own.
        ExtensionAction = "extension_action",
        /// Metrics and traces.
        Telemetry = "telemetry",
        /// What a restart found unfinished.
        Recovery = "recovery",
        /// The state of a run.
        Checkpoint = "checkpoint",
        /// An effect outside a tool call is announced.
        EffectIntent = "effect_intent",
        /// An effect outside a tool call has ended.
        EffectResult = "effect_result",
    }
}

/// What an event index needs to know of a record without reading its payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventIndexProjection {
    /// As in the record.
    pub run_id: RunId,
    /// As in the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// As in the record.
    pub agent_id: AgentId,
    /// As in the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_id: Option<TurnId>,
    /// The family of events, such as `tool`.
    pub event_family: String,
    /// The event, such as `tool_intent_recorded`.
    pub event_kind: String,
    /// As in the record.
    pub source: SourceRef,
    /// As in the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<DestinationRef>,
    /// As in the record.
    pub subject_ref: EntityRef,
    /// As in the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related_refs: Vec<EntityRef>,
    /// As in the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub correlation_keys: Vec<CorrelationEntry>,
    /// As in the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// As in the record.
    pub privacy_class: PrivacyClass,
    /// As in the record.
    #[serde(deserialize_with = "delivery")]
    pub delivery_semantics: Cow<'static, str>,
}

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// [`SCHEMA_VERSION`]. A record of another version cannot be read: it may mean something
    /// else.
    #[serde(deserialize_with = "known_version")]
    pub journal_schema_version: u16,
    /// The position in the journal, from 1, given by the journal alone.
    pub journal_seq: u64,
    /// Unique in the journal for ever.
    pub record_id: RecordId,
    /// The family of the payload.
    pub record_kind: JournalRecordKind,
    /// The run it belongs to.
    pub run_id: RunId,
    /// The client's own session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// The agent it is about.
    pub agent_id: AgentId,
    /// The call's position in its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_id: Option<TurnId>,
    /// The try of the turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<AttemptId>,
    /// What it is about.
    pub subject_ref: EntityRef,
    /// What else it touches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related_refs: Vec<EntityRef>,
    /// What it follows from, by record id or whatever else the writer names causes by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causal_refs: Vec<String>,
    /// Who caused it.
    pub source: SourceRef,
    /// What it acts on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<DestinationRef>,
    /// Keys under which it is found again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub correlation_keys: Vec<CorrelationEntry>,
    /// Words to filter by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// How the record reaches whoever follows the journal. Every writer known says
    /// `journal_backed`, that is after it is durable; the contract leaves the words open.
    #[serde(deserialize_with = "delivery")]
    pub delivery_semantics: Cow<'static, str>,
    /// What an event index needs.
    pub event_index: EventIndexProjection,
    /// Milliseconds since the Unix epoch, by the writer's clock.
    pub timestamp_millis: u64,
    /// The runtime and its configuration at the time.
    pub runtime_package_fingerprint: RuntimePackageFingerprint,
    /// How widely the record may be shown.
    pub privacy: PrivacyClass,
    /// Content it speaks about, by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content_refs: Vec<ContentRef>,
    /// How its summaries were redacted.
    pub redaction_policy_id: String,
    /// The caller's name for the effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// The caller's name for repeated deliveries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_key: Option<DedupeKey>,
    /// A checkpoint of the run, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_ref: Option<String>,
    /// What happened.
    pub payload: JournalPayload,
}

impl JournalRecord {
    /// The value of a correlation key.
    #[must_use]
    pub fn correlation(&self, key: &str) -> Option<&str> {
        self.correlation_keys.iter().find(|e| e.key == key).map(|e| e.value.as_str())
    }
}

const JOURNAL_BACKED: &str = "journal_backed";

/// Two texts of every record that are always the same need no memory.
fn delivery<'de, D: Deserializer<'de>>(from: D) -> Result<Cow<'static, str>, D::Error> {
    struct Word;
    impl Visitor<'_> for Word {
        type Value = Cow<'static, str>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string")
        }
        fn visit_str<E>(self, word: &str) -> Result<Cow<'static, str>, E> {
            Ok(match word {
                JOURNAL_BACKED => Cow::Borrowed(JOURNAL_BACKED),
                other => Cow::Owned(other.to_owned()),
            })
        }
    }
    from.deserialize_str(Word)
}

fn known_version<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    match u64::deserialize(from)? {
        1 => Ok(SCHEMA_VERSION),
        other => Err(D::Error::custom(format_args!(
            "journal_schema_version is {other}, and only {SCHEMA_VERSION} is known here"
        ))),
    }
}
