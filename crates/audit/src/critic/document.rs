//! Reading a chain from a file: an array of entries, or an object with `entries`.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::successor::{self, Anchor, Chain};
use super::{CriticKey, CriticReport, Format, symbi};
use crate::strict;

/// A chain that was read and not verified.
#[derive(Clone, Debug)]
pub enum Document {
    /// In the peer's format.
    Symbi1(Vec<symbi::Entry>),
    /// In Countersign's own: as JSON, and understood.
    Countersign1(Chain, Vec<successor::Entry>),
}

/// What is known of a chain from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// The chain's id. `symbi-1` has none.
    pub chain_id: Option<String>,
    /// Where the chain ends. `symbi-1` has no such thing.
    pub anchor: Option<Anchor>,
}

/// Why a text is no chain at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is no JSON, or repeats a key.
    #[error("not usable as JSON: {0}")]
    Json(String),
    /// It is JSON of another shape.
    #[error("not a critic chain: {0}")]
    Shape(&'static str),
    /// An entry lacks a field, or has one of another kind.
    #[error("entry {index} is no entry of a `{}` chain: {problem}", format.as_str())]
    Entry {
        /// Which, from 0.
        index: u64,
        /// What it was read as.
        format: Format,
        /// What is wrong with it.
        problem: String,
    },
    /// The anchor beside the entries lacks a field, or has one of another kind.
    #[error("the anchor cannot be read: {0}")]
    Anchor(String),
    /// A pin was given for a chain whose format has nothing to hold it against.
    #[error("a `symbi-1` chain has neither an id nor an anchor")]
    Pin,
}

impl Document {
    /// Reads a chain. Without a format the entries tell it, and an empty chain is `symbi-1`
    /// unless the object says otherwise.
    ///
    /// # Errors
    /// When the text is no chain. Nothing can be said of whether one was changed then.
    pub fn parse(text: &[u8], format: Option<Format>) -> Result<Self, Unusable> {
        let value = strict::parse(text).map_err(|error| Unusable::Json(error.to_string()))?;
        let (entries, mut beside) = match value {
            Value::Array(entries) => (entries, Map::new()),
            Value::Object(mut object) => match object.remove("entries") {
                Some(Value::Array(entries)) => (entries, object),
                Some(_) => return Err(Unusable::Shape("`entries` is no array")),
                None => return Err(Unusable::Shape("the object has no `entries`")),
            },
            _ => return Err(Unusable::Shape("neither an array nor an object with `entries`")),
        };
        let named = |value: Option<&Value>| {
            value.and_then(Value::as_str) == Some(Format::Countersign1.as_str())
        };
        let own = named(beside.get("format"))
            || entries.first().is_some_and(|entry| named(entry.get("format")));
        let format = format.unwrap_or(if own { Format::Countersign1 } else { Format::Symbi1 });
        if format == Format::Symbi1 {
            return Ok(Self::Symbi1(read(&entries, format)?));
        }
        let understood: Vec<successor::Entry> = read(&entries, format)?;
        let chain_id = match (beside.remove("chain_id"), understood.first()) {
            (Some(Value::String(id)), _) => id,
            (None, Some(first)) => first.chain_id.clone(),
            (None, None) => String::new(),
            (Some(_), _) => return Err(Unusable::Shape("`chain_id` is no text")),
        };
        let anchor = match beside.remove("anchor") {
            None => None,
            Some(anchor) => {
                Some(strict::object(&anchor).map_err(|error| Unusable::Anchor(error.to_string()))?)
            }
        };
        Ok(Self::Countersign1(Chain { format, chain_id, entries, anchor }, understood))
    }

    /// Reads an anchor.
    ///
    /// # Errors
    /// When the text is none.
    pub fn parse_anchor(text: &[u8]) -> Result<Anchor, Unusable> {
        let value = strict::parse(text).map_err(|error| Unusable::Json(error.to_string()))?;
        strict::object(&value).map_err(|error| Unusable::Anchor(error.to_string()))
    }

    /// The format it was read as.
    #[must_use]
    pub fn format(&self) -> Format {
        match self {
            Self::Symbi1(_) => Format::Symbi1,
            Self::Countersign1(..) => Format::Countersign1,
        }
    }

    /// The hashes of an entry's texts, the director's and the critic's. `None` when there is no
    /// such entry, or it is no judgement.
    #[must_use]
    pub fn hashes(&self, index: usize) -> Option<(&str, &str)> {
        match self {
            Self::Symbi1(entries) => entries.get(index).map(|entry| {
                (entry.director_output_hash.as_str(), entry.critic_assessment_hash.as_str())
            }),
            Self::Countersign1(_, entries) => match &entries.get(index)?.body {
                successor::Body::Assessment {
                    director_output_hash,
                    critic_assessment_hash,
                    ..
                } => Some((director_output_hash, critic_assessment_hash)),
                successor::Body::KeyRotation { .. } => None,
            },
        }
    }

    /// Entries read.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Symbi1(entries) => entries.len(),
            Self::Countersign1(_, entries) => entries.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Holds the chain against the key of its first entry and what is pinned of it.
    ///
    /// # Errors
    /// When something is pinned that the format does not have.
    pub fn verify(&self, key: &CriticKey, pins: &Pins) -> Result<CriticReport, Unusable> {
        match self {
            Self::Symbi1(_) if pins.chain_id.is_some() || pins.anchor.is_some() => {
                Err(Unusable::Pin)
            }
            Self::Symbi1(entries) => Ok(symbi::verify(entries, key)),
            Self::Countersign1(chain, entries) => Ok(successor::verify(chain, entries, key, pins)),
        }
    }
}

/// What an entry says in words that choose among forms. Whoever reads such a choice takes its number
/// as well, and any format's name for that of the chain, which no other reader would.
fn other_word(entry: &Value, format: Format) -> Option<&'static str> {
    if entry.get("critic_identity").is_some_and(|identity| !identity.is_object()) {
        return Some("/critic_identity");
    }
    let own = format == Format::Countersign1;
    let number = |path: &&str| entry.pointer(path).is_some_and(|found| !found.is_string());
    if own && entry.get("format").is_some_and(|found| found != format.as_str()) {
        return Some("/format");
    }
    ["/critic_identity/type", "/kind"].into_iter().take(1 + usize::from(own)).find(number)
}

fn read<T: DeserializeOwned>(entries: &[Value], format: Format) -> Result<Vec<T>, Unusable> {
    let one = |(index, value): (usize, &Value)| {
        if !value.is_object() {
            let (index, problem) = (index as u64, "it is no object".to_owned());
            return Err(Unusable::Entry { index, format, problem });
        }
        let problem = |problem| Unusable::Entry { index: index as u64, format, problem };
        if let Some(path) = other_word(value, format) {
            return Err(problem(format!("`{path}` is of another kind, or another word")));
        }
        T::deserialize(value).map_err(|error| problem(error.to_string()))
    };
    entries.iter().enumerate().map(one).collect()
}
