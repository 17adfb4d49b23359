//! Typed identifiers: transparent strings without control characters, checked when they are made
//! and when they are read.

use std::fmt;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::has_any;

/// Longest identifier, in bytes.
pub const MAX_LEN: usize = 512;

/// Longest [`RecordId`], in bytes: it is made of other identifiers and the words between them.
pub const MAX_RECORD_ID_LEN: usize = 4 * MAX_LEN;

/// Why a text is no identifier. Names the kind of identifier and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text has no bytes.
    #[error("{kind} is empty")]
    Empty {
        /// The identifier type.
        kind: &'static str,
    },
    /// The text has too many bytes.
    #[error("{kind} has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// The identifier type.
        kind: &'static str,
        /// Bytes found.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A control character would let an identifier forge a line in a log or a terminal.
    #[error("{kind} has a control character at byte {at}")]
    Control {
        /// The identifier type.
        kind: &'static str,
        /// Byte offset of the character.
        at: usize,
    },
}

fn check(kind: &'static str, text: &str, max: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { kind });
    }
    if text.len() > max {
        return Err(IdError::TooLong { kind, len: text.len(), max });
    }
    // Above the ASCII ones, the control characters are U+0080 to U+009F: C2 and one byte more.
    if !has_any::<0x20, 0x7f, 0xc2>(text.as_bytes()) {
        return Ok(());
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(IdError::Control { kind, at }),
        None => Ok(()),
    }
}

/// For what only making is checked.
fn any(_: &'static str, _: &str, _: usize) -> Result<(), IdError> {
    Ok(())
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $max:expr, $reading:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// Clones share one allocation.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text.
            ///
            /// # Errors
            /// When it is empty, has a control character, or is longer than [`MAX_LEN`] bytes
            /// ([`MAX_RECORD_ID_LEN`] for a [`RecordId`]).
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                check(stringify!($name), text, $max)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text as it stands on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("the text of a ", stringify!($name)))
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $reading(stringify!($name), text, $max).map_err(E::custom)?;
                        Ok($name(Arc::from(text)))
                    }
                }
                from.deserialize_str(Text)
            }
        }
    )*};
}

macro_rules! as_ref_id {
    ($($name:ident)*) => {$(
        impl From<&$name> for RefId {
            /// Every such id fits: the rules are the same. The text is shared, not copied.
            fn from(id: &$name) -> Self {
                Self(Arc::clone(&id.0))
            }
        }
    )*};
}

as_ref_id! {
    AgentId RunId SessionId TurnId AttemptId EffectId ToolCallId ApprovalRequestId ContentRef
    ContextItemId ContextProjectionId MessageId IdempotencyKey DedupeKey EventId SpanId
    JournalCursor HookId HookExecutorRef
}

ids! {
    /// A principal that calls tools.
    AgentId, MAX_LEN, check;
    /// One MCP session, or one command-line call; its start and end are records.
    RunId, MAX_LEN, check;
    /// The client's own session, where it has one beside the run.
    SessionId, MAX_LEN, check;
    /// The position of a call in its run.
    TurnId, MAX_LEN, check;
    /// One try of a turn.
    AttemptId, MAX_LEN, check;
    /// What one call does to the world: one intent, one result.
    EffectId, MAX_LEN, check;
    /// One tool call.
    ToolCallId, MAX_LEN, check;
    /// The record that asks for approval; also the id of the hold that waits for it.
    ApprovalRequestId, MAX_LEN, check;
    /// Content stored beside the log. Countersign's own are `sha256:` digests.
    ContentRef, MAX_LEN, check;
    /// A piece of context that compaction must not drop, as a hook names it.
    ContextItemId, MAX_LEN, check;
    /// One assembly of context for a model, as a turn's record names it.
    ContextProjectionId, MAX_LEN, check;
    /// A message a turn began or ended with.
    MessageId, MAX_LEN, check;
    /// A caller's name for one intended effect; sent again, it is the same effect.
    IdempotencyKey, MAX_LEN, check;
    /// A caller's name under which repeated deliveries fall together.
    DedupeKey, MAX_LEN, check;
    /// An event of a live stream, as an error names its cause.
    EventId, MAX_LEN, check;
    /// A span of a trace, as an error names its cause.
    SpanId, MAX_LEN, check;
    /// A place in a journal, `journal.` and the sequence number: see [`JournalCursor::at`].
    JournalCursor, MAX_LEN, check;
    /// A hook as it was registered.
    HookId, MAX_LEN, check;
    /// The code behind a hook.
    HookExecutorRef, MAX_LEN, check;
    /// One record of the journal, unique in it for ever.
    ///
    /// Reading takes any text: the peer writes record ids that it does not check.
    RecordId, MAX_RECORD_ID_LEN, any;
    /// What a reference points at; its kind stands beside it.
    RefId, MAX_LEN, check;
}

impl JournalCursor {
    /// The cursor of the record with this sequence number.
    #[must_use]
    pub fn at(seq: u64) -> Self {
        Self(Arc::from(format!("journal.{seq}")))
    }

    /// The sequence number, if the cursor has the form of [`at`](Self::at).
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        let digits = self.0.strip_prefix("journal.")?;
        let seq = digits.parse().ok()?;
        (digits == u64::to_string(&seq)).then_some(seq)
    }
}

/// Which runtime, tools and rules were in force: a text that only equality is asked of.
///
/// Unlike the identifiers it may be empty and is not checked, as in the peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuntimePackageFingerprint(Arc<str>);

impl RuntimePackageFingerprint {
    /// Takes the text as it is.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuntimePackageFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_could_forge_a_line() {
        let long = "x".repeat(MAX_LEN + 1);
        for (text, ok) in [
            ("call.1", true),
            ("", false),
            ("a\nb", false),
            ("a\u{7f}", false),
            ("a\u{85}b", false),
            ("é", true),
            ("Â£", true),
            ("\u{a0}", true),
            (&long[..MAX_LEN], true),
            (&long, false),
        ] {
            assert_eq!(RunId::new(text).is_ok(), ok, "{text:?}");
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(serde_json::from_str::<RunId>(&json).is_ok(), ok, "{text:?}");
        }
    }

    #[test]
    fn a_cursor_tells_its_place() {
        for (text, seq) in [
            ("journal.1", Some(1)),
            ("journal.18446744073709551615", Some(u64::MAX)),
            ("journal.01", None),
            ("journal.+1", None),
            ("journal.", None),
            ("1", None),
        ] {
            assert_eq!(JournalCursor::new(text).unwrap().seq(), seq, "{text}");
        }
        assert_eq!(JournalCursor::at(7).as_str(), "journal.7");
    }

    #[test]
    fn errors_name_the_type_and_the_rule() {
        assert_eq!(HookId::new("").unwrap_err().to_string(), "HookId is empty");
    }
}
