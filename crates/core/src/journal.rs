//! Journal records: the envelope every record shares, and the payloads known here.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::approval::ApprovalRecord;
use crate::effect::{EffectIntent, EffectResult};
use crate::hook::HookRecord;
use crate::id::{
    AgentId, AttemptId, ContentRef, DedupeKey, EffectId, IdempotencyKey, RecordId, RunId,
    SessionId, TurnId,
};
use crate::refs::words;
use crate::refs::{
    CorrelationEntry, DestinationRef, EntityRef, PolicyRef, PrivacyClass, SourceRef,
};
use crate::tool::ToolCallRecord;

/// The envelope's version. Reading refuses a newer one.
pub const SCHEMA_VERSION: u32 = 1;

/// Most bytes of one stored record: the limit of the log's tile format.
pub const MAX_RECORD_LEN: usize = 65_535;

/// The correlation key under which every record of a call carries the call's id.
pub const TOOL_CALL_KEY: &str = "tool_call";

words! {
    /// The family of a record.
    #[allow(missing_docs)]
    JournalRecordKind {
        Run, Turn, Context, Message, ModelAttempt, StructuredOutput, StreamRule,
        RealtimeSession, Hook, Approval, Tool, Isolation, ChildLifecycle, AgentPool,
        RunMessage, Wake, OutputDispatch, Subagent, ExtensionAction, Telemetry, Recovery,
        Checkpoint, EffectIntent, EffectResult,
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
    pub delivery_semantics: String,
}

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// [`SCHEMA_VERSION`].
    pub journal_schema_version: u32,
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
    /// What it follows from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causal_refs: Vec<EntityRef>,
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
    /// `journal_backed`.
    pub delivery_semantics: String,
    /// What an event index needs.
    pub event_index: EventIndexProjection,
    /// Milliseconds since the Unix epoch, by the writer's clock.
    pub timestamp_millis: u64,
    /// The runtime and its configuration at the time.
    pub runtime_package_fingerprint: String,
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

/// The start or end of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLifecycle {
    /// What became of the run, such as `started`.
    pub status: String,
    /// Why, for people.
    pub reason: String,
}

/// What a restart found unfinished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryMarker {
    /// Effects that may have happened and are not run again.
    pub unsafe_pending: Vec<UnsafePendingEffect>,
    /// Why the marker was written.
    pub recovery_reason: String,
    /// The rules that applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_refs: Vec<PolicyRef>,
}

/// One effect with an intent and no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsafePendingEffect {
    /// The effect.
    pub effect_id: EffectId,
    /// The record that announced it.
    pub intent_record_id: RecordId,
    /// The caller's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// The caller's name for repeated deliveries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_key: Option<DedupeKey>,
    /// Why its outcome is not known.
    pub unsafe_pending_reason: String,
}

/// What a record says. A payload of another `type` is kept whole and written back unchanged.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalPayload {
    /// A step in the life of an approval request.
    Approval(ApprovalRecord),
    /// A step of a tool call.
    Tool(Box<ToolCallRecord>),
    /// An event of a hook.
    Hook(HookRecord),
    /// An effect outside a tool call is announced.
    EffectIntent(EffectIntent),
    /// An effect outside a tool call has ended.
    EffectResult(EffectResult),
    /// A run started or ended.
    RunLifecycle(RunLifecycle),
    /// A restart found unfinished effects.
    Recovery(RecoveryMarker),
    /// A payload this version does not know: the whole object, `type` included.
    Other(Map<String, Value>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Known<T, H, A, I, R, L, M> {
    Tool(T),
    Hook(H),
    Approval(A),
    EffectIntent(I),
    EffectResult(R),
    RunLifecycle(L),
    Recovery(M),
}

type KnownRef<'a> = Known<
    &'a ToolCallRecord,
    &'a HookRecord,
    &'a ApprovalRecord,
    &'a EffectIntent,
    &'a EffectResult,
    &'a RunLifecycle,
    &'a RecoveryMarker,
>;

impl Serialize for JournalPayload {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let known: KnownRef<'_> = match self {
            Self::Other(object) => return object.serialize(to),
            Self::Tool(r) => Known::Tool(r),
            Self::Hook(r) => Known::Hook(r),
            Self::Approval(r) => Known::Approval(r),
            Self::EffectIntent(r) => Known::EffectIntent(r),
            Self::EffectResult(r) => Known::EffectResult(r),
            Self::RunLifecycle(r) => Known::RunLifecycle(r),
            Self::Recovery(r) => Known::Recovery(r),
        };
        known.serialize(to)
    }
}

impl<'de> Deserialize<'de> for JournalPayload {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        fn read<T: serde::de::DeserializeOwned, E: serde::de::Error>(
            object: Map<String, Value>,
        ) -> Result<T, E> {
            serde_json::from_value(Value::Object(object)).map_err(E::custom)
        }
        let object = Map::deserialize(from)?;
        let Some(kind) = object.get("type").and_then(Value::as_str) else {
            return Err(D::Error::custom("payload has no `type`"));
        };
        Ok(match kind {
            "approval" => Self::Approval(read(object)?),
            "tool" => Self::Tool(read(object)?),
            "hook" => Self::Hook(read(object)?),
            "effect_intent" => Self::EffectIntent(read(object)?),
            "effect_result" => Self::EffectResult(read(object)?),
            "run_lifecycle" => Self::RunLifecycle(read(object)?),
            "recovery" => Self::Recovery(read(object)?),
            _ => Self::Other(object),
        })
    }
}

/// A record that has no place in the journal yet. Only a journal gives it one.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalDraft(JournalRecord);

/// Why a draft cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// More than [`MAX_RECORD_LEN`] bytes: content belongs beside the log, not in it.
    #[error("record {record_id} has {len} bytes, at most {MAX_RECORD_LEN} are allowed")]
    TooLong {
        /// The record.
        record_id: RecordId,
        /// Bytes found, with the longest possible sequence number.
        len: usize,
    },
    /// The record is no JSON.
    #[error("record {record_id} cannot be written as JSON")]
    Json {
        /// The record.
        record_id: RecordId,
        /// Why.
        source: serde_json::Error,
    },
}

const SEQ_PLACE: &str = "{\"journal_schema_version\":1,\"journal_seq\":";
const SEQ_MAX_LEN: usize = 20;

impl JournalDraft {
    /// Takes everything of the record but its sequence number and schema version.
    #[must_use]
    pub fn new(record: JournalRecord) -> Self {
        Self(JournalRecord { journal_schema_version: SCHEMA_VERSION, journal_seq: 0, ..record })
    }

    /// The record, with sequence number 0.
    #[must_use]
    pub fn record(&self) -> &JournalRecord {
        &self.0
    }

    /// Writes the record down, all but its sequence number.
    ///
    /// # Errors
    /// When it is longer than [`MAX_RECORD_LEN`] bytes.
    pub fn encode(&self) -> Result<EncodedDraft, EncodeError> {
        let record_id = &self.0.record_id;
        let mut bytes = Vec::with_capacity(2048);
        serde_json::to_writer(&mut bytes, &self.0)
            .map_err(|source| EncodeError::Json { record_id: record_id.clone(), source })?;
        let tail = bytes.split_off((SEQ_PLACE.len() + 1).min(bytes.len()));
        let len = SEQ_PLACE.len() + SEQ_MAX_LEN + tail.len();
        if len > MAX_RECORD_LEN {
            return Err(EncodeError::TooLong { record_id: record_id.clone(), len });
        }
        Ok(EncodedDraft {
            record_id: record_id.clone(),
            call: self.0.correlation(TOOL_CALL_KEY).map(str::to_owned),
            tail,
        })
    }
}

/// A record's bytes before and after the place of its sequence number.
///
/// Writing a record is most of the work of appending it; this lets every caller do its own
/// and leaves the journal's single writer a copy and a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedDraft {
    record_id: RecordId,
    call: Option<String>,
    tail: Vec<u8>,
}

impl EncodedDraft {
    /// The record's id.
    #[must_use]
    pub fn record_id(&self) -> &RecordId {
        &self.record_id
    }

    /// The call it belongs to, by its [`TOOL_CALL_KEY`] correlation.
    #[must_use]
    pub fn call(&self) -> Option<&str> {
        self.call.as_deref()
    }

    /// The record's stored bytes at this place in the journal.
    #[must_use]
    pub fn stamp(&self, seq: u64) -> Vec<u8> {
        let seq = seq.to_string();
        let mut bytes = Vec::with_capacity(SEQ_PLACE.len() + seq.len() + self.tail.len());
        bytes.extend_from_slice(SEQ_PLACE.as_bytes());
        bytes.extend_from_slice(seq.as_bytes());
        bytes.extend_from_slice(&self.tail);
        bytes
    }

    /// Whether stored bytes are this record, wherever in the journal they stand.
    #[must_use]
    pub fn same_content(&self, stored: &[u8]) -> bool {
        stored
            .strip_prefix(SEQ_PLACE.as_bytes())
            .and_then(|rest| {
                let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
                rest.get(digits..)
            })
            .is_some_and(|tail| tail == self.tail)
    }
}
