//! What a record says.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, forward_to_deserialize_any};
use serde_json::value::RawValue;

use crate::approval::ApprovalRecord;
use crate::effect::{EffectIntent, EffectResult};
use crate::hold::HoldRecord;
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
    /// Something happened to a hold that goes on.
    Hold(HoldRecord),
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
            Self::Approval(_) | Self::Hold(_) => Kind::Approval,
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
    HoldRecord => Hold,
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
            Hold(&'a HoldRecord),
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
            Self::Hold(record) => Known::Hold(record),
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
        match map.next_key::<Token>()? {
            Some(key) if key.is_type() => {
                let token: Token = map.next_value()?;
                typed(&token.text().map_err(elsewhere)?, &token.0, map)
            }
            Some(key) => late_type(&key, map),
            None => Err(A::Error::custom(NO_TYPE)),
        }
    }
}

const NO_TYPE: &str = "a payload without `type`";

/// A JSON text as it was spelled, with its quotes. A [`Value`](serde_json::Value) has forgotten
/// the spelling of its keys; then it is the shortest.
struct Token<'a>(Cow<'a, str>);

impl Token<'_> {
    /// The text it stands for.
    fn text(&self) -> serde_json::Result<Cow<'_, str>> {
        match self.0.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
            _ => serde_json::from_str(&self.0).map(Cow::Owned),
        }
    }

    fn is_type(&self) -> bool {
        self.text().is_ok_and(|text| text == "type")
    }
}

impl<'de> Deserialize<'de> for Token<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // What `RawValue` asks for, which by itself cannot read the keys of a `Value`. Were the
        // name to change, keys would come back in their shortest spelling.
        from.deserialize_newtype_struct("$serde_json::private::RawValue", Spelled)
    }
}

/// Reads a [`Token`], lent by the input where that can lend.
struct Spelled;

impl<'de> Visitor<'de> for Spelled {
    type Value = Token<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Token<'de>, A::Error> {
        map.next_key::<IgnoredAny>()?;
        map.next_value_seed(self)
    }

    fn visit_borrowed_str<E>(self, token: &'de str) -> Result<Token<'de>, E> {
        Ok(Token(Cow::Borrowed(token)))
    }

    fn visit_str<E>(self, token: &str) -> Result<Token<'de>, E> {
        Ok(Token(Cow::Owned(token.to_owned())))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Token<'de>, D::Error> {
        let text = String::deserialize(from)?;
        serde_json::to_string(&text).map(Cow::Owned).map(Token).map_err(D::Error::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Spelled {
    type Value = Token<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Token<'de>, D::Error> {
        from.deserialize_str(self)
    }
}

/// Reads what follows a type; `token` is the type as it was spelled.
fn typed<'de, A: MapAccess<'de>>(
    kind: &str,
    token: &str,
    map: A,
) -> Result<JournalPayload, A::Error> {
    if KNOWN.contains(&kind) {
        return known(kind, Rest(map));
    }
    let mut text = String::from("{\"type\":");
    text.push_str(token);
    collect(&mut text, map, |key| if key.is_type() { Err(twice()) } else { Ok(()) })?;
    let json = RawValue::from_string(text).map_err(A::Error::custom)?;
    Ok(JournalPayload::Other(UnknownPayload { kind: kind.to_owned(), json }))
}

const KNOWN: &[&str] = &[
    "approval",
    "hold",
    "tool",
    "hook",
    "effect_intent",
    "effect_result",
    "checkpoint",
    "recovery",
    "run_lifecycle",
    "turn_lifecycle",
    "terminal_result",
];

fn twice<E: serde::de::Error>() -> E {
    E::duplicate_field("type")
}

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
        "hold" => read::<HoldRecord, A>(map),
        "tool" => read::<ToolCallRecord, A>(map),
        "hook" => read::<HookRecord, A>(map),
        "effect_intent" => read::<EffectIntent, A>(map),
        "effect_result" => read::<EffectResult, A>(map),
        "checkpoint" => read::<RunCheckpoint, A>(map),
        "recovery" => read::<RecoveryMarker, A>(map),
        "run_lifecycle" => read::<RunLifecycle, A>(map),
        "turn_lifecycle" => read::<TurnLifecycle, A>(map),
        "terminal_result" => read::<TerminalResult, A>(map),
        other => Err(A::Error::unknown_variant(other, KNOWN)),
    }
}

/// An object whose type has been read: a second one would let two readers read two things.
struct Rest<A>(A);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(Untyped(seed))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}

/// Three wrappers for one look at a key on its way to whoever wants it.
struct Untyped<T>(T);

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Untyped<K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<K::Value, D::Error> {
        self.0.deserialize(Untyped(from))
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Untyped<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_str(Untyped(visitor))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Untyped<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<V::Value, E> {
        if key == "type" { Err(twice()) } else { self.0.visit_str(key) }
    }
}

/// Adds the rest of an object, and its end.
fn collect<'de, A: MapAccess<'de>>(
    text: &mut String,
    mut map: A,
    check: impl Fn(&Token<'_>) -> Result<(), A::Error>,
) -> Result<(), A::Error> {
    while let Some((key, value)) = map.next_entry::<Token, Box<RawValue>>()? {
        check(&key)?;
        text.push(',');
        text.push_str(&key.0);
        text.push(':');
        compact(value.get(), text);
    }
    text.push('}');
    Ok(())
}

/// A payload whose type is not its first key: read whole, then once more with the type known.
fn late_type<'de, A: MapAccess<'de>>(
    first: &Token<'_>,
    mut map: A,
) -> Result<JournalPayload, A::Error> {
    #[derive(Deserialize)]
    struct Tag {
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    let mut text = String::from("{");
    text.push_str(&first.0);
    text.push(':');
    compact(map.next_value::<Box<RawValue>>()?.get(), &mut text);
    collect(&mut text, map, |_| Ok(()))?;
    let Tag { kind } = serde_json::from_str(&text).map_err(elsewhere)?;
    let kind = kind.ok_or_else(|| A::Error::custom(NO_TYPE))?;
    if KNOWN.contains(&kind.as_str()) {
        let reader = &mut serde_json::Deserializer::from_str(&text);
        return reader.deserialize_map(Typed(&kind)).map_err(elsewhere);
    }
    let json = RawValue::from_string(text).map_err(A::Error::custom)?;
    Ok(JournalPayload::Other(UnknownPayload { kind, json }))
}

/// An error without its place: that is one in a copy, and whoever reads the original knows
/// where he stands.
fn elsewhere<E: serde::de::Error>(error: serde_json::Error) -> E {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    E::custom(text.strip_suffix(&place).unwrap_or(&text))
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
