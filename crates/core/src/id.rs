//! Typed identifiers: transparent strings that were checked when they were made.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest identifier, in bytes.
pub const MAX_LEN: usize = 512;

/// Why a text is no identifier. Names the kind of identifier and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text has no bytes.
    #[error("{kind} is empty")]
    Empty {
        /// The identifier type.
        kind: &'static str,
    },
    /// The text has more than [`MAX_LEN`] bytes.
    #[error("{kind} has {len} bytes, at most {MAX_LEN} are allowed")]
    TooLong {
        /// The identifier type.
        kind: &'static str,
        /// Bytes found.
        len: usize,
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

fn check(kind: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { kind });
    }
    if text.len() > MAX_LEN {
        return Err(IdError::TooLong { kind, len: text.len() });
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(IdError::Control { kind, at }),
        None => Ok(()),
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// 1 to 512 bytes without control characters, checked on reading too. Clones share
        /// one allocation.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text.
            ///
            /// # Errors
            /// When it is empty, longer than 512 bytes or has a control character.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                check(stringify!($name), text)?;
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
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A principal that calls tools.
    AgentId;
    /// One MCP session, or one command-line call; its start and end are records.
    RunId;
    /// The client's own session, where it has one beside the run.
    SessionId;
    /// The position of a call in its run.
    TurnId;
    /// One try of a turn.
    AttemptId;
    /// What one call does to the world: one intent, one result.
    EffectId;
    /// One tool call.
    ToolCallId;
    /// The record that asks for approval; also the id of the hold that waits for it.
    ApprovalRequestId;
    /// Content stored beside the log. Countersign's own are `sha256:` digests.
    ContentRef;
    /// A caller's name for one intended effect; sent again, it is the same effect.
    IdempotencyKey;
    /// A caller's name under which repeated deliveries fall together.
    DedupeKey;
    /// A hook as it was registered.
    HookId;
    /// The code behind a hook.
    HookExecutorRef;
    /// One record of the journal, unique in it for ever.
    RecordId;
    /// What a reference points at; its kind stands beside it.
    RefId;
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
            (&long[..MAX_LEN], true),
            (&long, false),
        ] {
            assert_eq!(RunId::new(text).is_ok(), ok, "{text:?}");
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(serde_json::from_str::<RunId>(&json).is_ok(), ok, "{text:?}");
        }
    }

    #[test]
    fn errors_name_the_type_and_the_rule() {
        assert_eq!(HookId::new("").unwrap_err().to_string(), "HookId is empty");
    }
}
