//! Critic chains: what critics said of directors' outputs, each entry signed and chained to the
//! one before. The texts themselves never enter a chain, only their hashes.
//!
//! Two formats are known. [`symbi`] reads and writes the chain of symbi-runtime exactly, gaps
//! included, and its verifier names the gaps. [`successor`] is Countersign's own, `countersign-1`,
//! and leaves none of them.

mod document;
mod key;
pub mod successor;
pub mod symbi;
mod time;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use document::{Document, Pins, Unusable};
pub use key::{CriticKey, CriticKeyError, CriticSigner};
pub use time::{Timestamp, TimestampError};

/// Findings kept; further ones are counted.
pub const MAX_FINDINGS: usize = 100;

/// What a critic concluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The output may go on.
    Approved,
    /// It may not.
    Rejected,
    /// It has to be changed and judged again.
    NeedsRevision,
}

impl Verdict {
    /// The word that `symbi-1` hashes.
    #[must_use]
    pub const fn variant(self) -> &'static str {
        match self {
            Self::Approved => "Approved",
            Self::Rejected => "Rejected",
            Self::NeedsRevision => "NeedsRevision",
        }
    }
}

/// Who judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Identity {
    /// A model.
    Llm {
        /// Its name.
        model_id: String,
    },
    /// A person.
    Human {
        /// Their id.
        user_id: String,
        /// Their name.
        name: String,
    },
}

/// What is recorded of one judgement, whatever the format.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// The entry's id.
    pub entry_id: String,
    /// [`text_hash`] of the output that was judged.
    pub director_output_hash: String,
    /// [`text_hash`] of what the critic said.
    pub critic_assessment_hash: String,
    /// The conclusion.
    pub verdict: Verdict,
    /// Scores by dimension.
    pub dimension_scores: BTreeMap<String, f64>,
    /// The score over all.
    pub score: f64,
    /// Who judged.
    pub critic_identity: Identity,
    /// When.
    pub timestamp: Timestamp,
    /// Which round of revision this was.
    pub iteration: u64,
}

/// The hash under which a text stands in a chain: 64 lower-case hex digits of its SHA-256.
#[must_use]
pub fn text_hash(text: &[u8]) -> String {
    hex::encode(Sha256::digest(text))
}

/// The format of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// That of symbi-runtime 1.7 to 3.0.
    #[serde(rename = "symbi-1")]
    Symbi1,
    /// Countersign's own.
    #[serde(rename = "countersign-1")]
    Countersign1,
}

impl Format {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Symbi1 => "symbi-1",
            Self::Countersign1 => "countersign-1",
        }
    }
}

/// The rule a break is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CriticRule {
    /// The entry's hash is not that of its fields and of the entry before it: something was
    /// changed, or an entry was swapped, dropped, inserted or repeated just before.
    ChainHash,
    /// The key did not sign the entry's hash, or not in the one form a signature has.
    Signature,
    /// Two readings of the fields have the same hash: a hash field contains the separator.
    AmbiguousFields,
    /// The entry is of another chain.
    ChainId,
    /// The entry names another key than the one in force.
    KeyId,
    /// The entry stands elsewhere than it says.
    Index,
    /// The entry follows another than the one before it.
    PreviousHash,
    /// A score is outside 0..=1.
    Score,
    /// A number cannot be written in canonical JSON without loss.
    Number,
    /// A change of keys is not signed by the new key as well.
    Rotation,
    /// An anchor is not signed by the key in force at its end.
    AnchorSignature,
    /// The chain is shorter than its anchor says.
    Truncated,
    /// The chain goes on behind its anchor.
    Extended,
    /// The chain is another than the anchored one.
    Substituted,
}

impl CriticRule {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChainHash => "chain_hash",
            Self::Signature => "signature",
            Self::AmbiguousFields => "ambiguous_fields",
            Self::ChainId => "chain_id",
            Self::KeyId => "key_id",
            Self::Index => "index",
            Self::PreviousHash => "previous_hash",
            Self::Score => "score",
            Self::Number => "number",
            Self::Rotation => "rotation",
            Self::AnchorSignature => "anchor_signature",
            Self::Truncated => "truncated",
            Self::Extended => "extended",
            Self::Substituted => "substituted",
        }
    }
}

/// One break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CriticFinding {
    /// The entry, from 0. Of an anchor, how many entries it covers.
    pub index: u64,
    /// Which rule.
    pub rule: CriticRule,
    /// What should stand there.
    pub expected: String,
    /// What does.
    pub found: String,
    /// What may have happened, where more is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What the verifier saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CriticReport {
    /// Whether the chain is whole.
    pub ok: bool,
    /// The format it was read as.
    pub format: Format,
    /// The key it was held against, 64 hex digits.
    pub key: String,
    /// Entries read.
    pub entries: u64,
    /// The first break: `index`, `rule`, `expected` and `found` at the top of the report.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub first: Option<CriticFinding>,
    /// The breaks, first ones first, at most [`MAX_FINDINGS`].
    pub findings: Vec<CriticFinding>,
    /// How many breaks there are in all.
    pub finding_count: u64,
    /// What may have been changed without this verdict noticing.
    pub not_covered: Vec<String>,
}

/// Collects breaks.
#[derive(Debug, Default)]
struct Findings {
    kept: Vec<CriticFinding>,
    count: u64,
}

impl Findings {
    fn add(&mut self, finding: CriticFinding) {
        self.count += 1;
        if self.kept.len() < MAX_FINDINGS {
            self.kept.push(finding);
        }
    }

    fn report(
        self,
        format: Format,
        key: &CriticKey,
        entries: usize,
        not_covered: Vec<String>,
    ) -> CriticReport {
        CriticReport {
            ok: self.count == 0,
            format,
            key: key.to_string(),
            entries: entries as u64,
            first: self.kept.first().cloned(),
            findings: self.kept,
            finding_count: self.count,
            not_covered,
        }
    }
}
