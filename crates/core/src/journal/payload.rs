//! What a record says.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::approval::ApprovalRecord;
use crate::effect::{EffectIntent, EffectResult};
use crate::hook::HookRecord;
use crate::journal::{
    JournalRecordKind, RecoveryMarker, RunCheckpoint, RunLifecycle, TerminalResult, TurnLifecycle,
};
use crate::tool::ToolCallRecord;

/// What a record says: an object whose `type` names which of these it is.
///
/// Reads from JSON, text or value; an unknown payload is kept as text, which no other format
/// has.
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
    /// The state of a run.
    Checkpoint(RunCheckpoint),
    /// A restart found unfinished effects.
    Recovery(RecoveryMarker),
    /// A run started or ended.
    RunLifecycle(RunLifecycle),
    /// A step of a run started or ended.
    TurnLifecycle(TurnLifecycle),
    /// A run has its result.
    TerminalResult(TerminalResult),
    /// A payload of another `type`, kept whole.
    Other(UnknownPayload),
}

/// A payload this version does not know. Written back as it was read, but for white space
/// between its tokens: numbers, escapes, order and repetitions stay.
#[derive(Clone, Debug)]
pub struct UnknownPayload {
    kind: String,
    json: Box<RawValue>,
}

impl UnknownPayload {
    /// Its `type`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The whole object as compact JSON, `type` included.
    #[must_use]
    pub fn json(&self) -> &str {
        self.json.get()
    }
}

impl PartialEq for UnknownPayload {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl JournalPayload {
    /// The family its record belongs to. A payload nobody here knows is an extension's.
    #[must_use]
    pub fn record_kind(&self) -> JournalRecordKind {
        use JournalRecordKind as Kind;
        match self {
            Self::Approval(_) => Kind::Approval,
            Self::Tool(_) => Kind::Tool,
            Self::Hook(_) => Kind::Hook,
            Self::EffectIntent(_) => Kind::EffectIntent,
            Self::EffectResult(_) => Kind::EffectResult,
            Self::Checkpoint(_) => Kind::Checkpoint,
            Self::Recovery(_) => Kind::Recovery,
            Self::RunLifecycle(_) | Self::TerminalResult(_) => Kind::Run,
            Self::TurnLifecycle(_) => Kind::Turn,
            Self::Other(unknown) => match unknown.kind() {
                "context_projection" => Kind::Context,
                "output_delivery" => Kind::OutputDispatch,
                word => Kind::from_word(word).unwrap_or(Kind::ExtensionAction),
            },
        }
    }
}

macro_rules! from {
    ($($payload:ty => $variant:ident,)*) => {$(
        impl From<$payload> for JournalPayload {
            fn from(payload: $payload) -> Self {
                Self::$variant(payload.into())
            }
        }
    )*};
}

from! {
    ApprovalRecord => Approval,
    ToolCallRecord => Tool,
    HookRecord => Hook,
    EffectIntent => EffectIntent,
    EffectResult => EffectResult,
    RunCheckpoint => Checkpoint,
    RecoveryMarker => Recovery,
    RunLifecycle => RunLifecycle,
    TurnLifecycle => TurnLifecycle,
    TerminalResult => TerminalResult,
}

impl Serialize for JournalPayload {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "type", rename_all = "snake_case", rename = "JournalPayload")]
        enum Known<'a> {
            Approval(&'a ApprovalRecord),
            Tool(&'a ToolCallRecord),
            Hook(&'a HookRecord),
            EffectIntent(&'a EffectIntent),
            EffectResult(&'a EffectResult),
            Checkpoint(&'a RunCheckpoint),
            Recovery(&'a RecoveryMarker),
            RunLifecycle(&'a RunLifecycle),
            TurnLifecycle(&'a TurnLifecycle),
            TerminalResult(&'a TerminalResult),
        }
        let known = match self {
            Self::Approval(record) => Known::Approval(record),
            Self::Tool(record) => Known::Tool(record),
            Self::Hook(record) => Known::Hook(record),
            Self::EffectIntent(record) => Known::EffectIntent(record),
            Self::EffectResult(record) => Known::EffectResult(record),
            Self::Checkpoint(record) => Known::Checkpoint(record),
            Self::Recovery(record) => Known::Recovery(record),
            Self::RunLifecycle(record) => Known::RunLifecycle(record),
            Self::TurnLifecycle(record) => Known::TurnLifecycle(record),
            Self::TerminalResult(record) => Known::TerminalResult(record),
            Self::Other(unknown) => return unknown.json.serialize(to),
        };
        known.serialize(to)
    }
}

impl<'de> Deserialize<'de> for JournalPayload {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Payload)
    }
}

struct Payload;

impl<'de> Visitor<'de> for Payload {
    type Value = JournalPayload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a payload, an object with a `type`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JournalPayload, A::Error> {
        // Every writer puts the type first, and then nothing has to be read twice.
        match map.next_key::<String>()? {
            Some(key) if key == "type" => {
                let kind: String = map.next_value()?;
                known(&kind, map)
            }
            Some(key) => late_type(key, map),
            None => Err(A::Error::custom(NO_TYPE)),
        }
    }
}

const NO_TYPE: &str = "a payload without `type`";

fn known<'de, A: MapAccess<'de>>(kind: &str, map: A) -> Result<JournalPayload, A::Error> {
    fn read<'de, T, A>(map: A) -> Result<JournalPayload, A::Error>
    where
        T: Deserialize<'de> + Into<JournalPayload>,
        A: MapAccess<'de>,
    {
        T::deserialize(MapAccessDeserializer::new(map)).map(Into::into)
    }
    match kind {
        "approval" => read::<ApprovalRecord, A>(map),
        "tool" => read::<ToolCallRecord, A>(map),
        "hook" => read::<HookRecord, A>(map),
        "effect_intent" => read::<EffectIntent, A>(map),
        "effect_result" => read::<EffectResult, A>(map),
        "checkpoint" => read::<RunCheckpoint, A>(map),
        "recovery" => read::<RecoveryMarker, A>(map),
        "run_lifecycle" => read::<RunLifecycle, A>(map),
        "turn_lifecycle" => read::<TurnLifecycle, A>(map),
        "terminal_result" => read::<TerminalResult, A>(map),
        other => unknown(other, map),
    }
}

fn unknown<'de, A: MapAccess<'de>>(kind: &str, map: A) -> Result<JournalPayload, A::Error> {
    let mut text = String::from("{\"type\":");
    text.push_str(&serde_json::to_string(kind).map_err(A::Error::custom)?);
    collect(&mut text, map)?;
    let json = RawValue::from_string(text).map_err(A::Error::custom)?;
    Ok(JournalPayload::Other(UnknownPayload { kind: kind.to_owned(), json }))
}

/// Adds the rest of an object, and its end.
fn collect<'de, A: MapAccess<'de>>(text: &mut String, mut map: A) -> Result<(), A::Error> {
    while let Some((key, value)) = map.next_entry::<Box<RawValue>, Box<RawValue>>()? {
        text.push(',');
        text.push_str(key.get());
        text.push(':');
        compact(value.get(), text);
    }
    text.push('}');
    Ok(())
}

/// A payload whose type is not its first key: read whole, then once more with the type known.
fn late_type<'de, A: MapAccess<'de>>(
    first: String,
    mut map: A,
) -> Result<JournalPayload, A::Error> {
    #[derive(Deserialize)]
    struct Tag {
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    let mut text = String::from("{");
    text.push_str(&serde_json::to_string(&first).map_err(A::Error::custom)?);
    text.push(':');
    compact(map.next_value::<Box<RawValue>>()?.get(), &mut text);
    collect(&mut text, map)?;
    let Tag { kind } = serde_json::from_str(&text).map_err(A::Error::custom)?;
    let kind = kind.ok_or_else(|| A::Error::custom(NO_TYPE))?;
    let reader = &mut serde_json::Deserializer::from_str(&text);
    let payload = reader.deserialize_map(Typed(&kind)).map_err(A::Error::custom)?;
    Ok(match payload {
        JournalPayload::Other(_) => {
            let json = RawValue::from_string(text).map_err(A::Error::custom)?;
            JournalPayload::Other(UnknownPayload { kind, json })
        }
        known => known,
    })
}

/// Reads a payload whose type was looked up before.
struct Typed<'a>(&'a str);

impl<'de> Visitor<'de> for Typed<'_> {
    type Value = JournalPayload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Payload.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<JournalPayload, A::Error> {
        known(self.0, map)
    }
}

/// Copies valid JSON without the white space between its tokens.
fn compact(json: &str, to: &mut String) {
    let (mut quoted, mut escaped) = (false, false);
    for c in json.chars() {
        if quoted {
            (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
        } else if matches!(c, ' ' | '\t' | '\n' | '\r') {
            continue;
        } else {
            quoted = c == '"';
        }
        to.push(c);
    }
}
