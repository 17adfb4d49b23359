//! The chain `symbi-1`, as symbi-runtime 1.7 to 3.0 writes it.
//!
//! ```text
//! previous   = hex(SHA-256("genesis"))                    of the first entry
//! data       = entry_id|director_output_hash|critic_assessment_hash|Verdict|score|timestamp|iteration
//! chain_hash = hex(SHA-256(previous ++ data))             no separator between the two
//! signature  = hex(Ed25519(the 64 characters of chain_hash))
//! ```
//!
//! `Verdict` is the variant's name, `score` the shortest decimal that reads back as the same
//! number, never with an exponent, and the time has the offset `+00:00`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Assessment, CriticFinding, CriticKey, CriticReport, CriticRule, CriticSigner, Findings, Format,
    Identity, MAX_FINDINGS, Timestamp, Verdict, text_hash,
};

/// One judgement. Fields stand in the order in which the peer writes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The entry's id.
    pub entry_id: String,
    /// The hash of the output that was judged.
    pub director_output_hash: String,
    /// The hash of what the critic said.
    pub critic_assessment_hash: String,
    /// The conclusion.
    pub verdict: Verdict,
    /// Scores by dimension. Covered by nothing.
    pub dimension_scores: BTreeMap<String, f64>,
    /// The score over all.
    pub score: f64,
    /// Who judged. Covered by nothing.
    pub critic_identity: Identity,
    /// When.
    pub timestamp: Timestamp,
    /// 64 hex digits over this entry and the one before.
    pub chain_hash: String,
    /// 128 hex digits, by the critic's key over `chain_hash`.
    pub signature: String,
    /// Which round of revision this was.
    pub iteration: u64,
}

/// Why an entry was not recorded. The chain is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// JSON has no word for the score, so that nobody could read the entry again.
    #[error("the score {0} cannot be written as JSON")]
    Score(String),
    /// Two readings of the entry would have the same hash.
    #[error("`{0}` contains `|`, which divides the fields")]
    Separator(&'static str),
}

/// The hash before the first entry.
#[must_use]
pub fn genesis() -> String {
    text_hash(b"genesis")
}

impl Entry {
    fn hash(&self, previous: &str, time: &str) -> String {
        let Self { entry_id, director_output_hash, critic_assessment_hash, .. } = self;
        let (verdict, score, iteration) = (self.verdict.variant(), self.score, self.iteration);
        let data = format!(
            "{entry_id}|{director_output_hash}|{critic_assessment_hash}|{verdict}|{score}|{time}|\
             {iteration}"
        );
        hex::encode(Sha256::new_with_prefix(previous).chain_update(data).finalize())
    }

    /// The hashes this entry may have behind `previous`: one, or two where its time is spelled
    /// in a way that the peer would not have written. The first is that of the spelling.
    fn hashes(&self, previous: &str) -> Vec<String> {
        self.timestamp.hashed().iter().map(|time| self.hash(previous, time)).collect()
    }

    /// Which field makes the hashed text ambiguous. The id alone may contain the separator: as
    /// the other fields do not, the text is read from its end in one way only.
    fn ambiguous(&self) -> Option<(&'static str, &str)> {
        [
            ("director_output_hash", self.director_output_hash.as_str()),
            ("critic_assessment_hash", self.critic_assessment_hash.as_str()),
        ]
        .into_iter()
        .find(|(_, value)| value.contains('|'))
    }
}

/// Signs a judgement and adds it to the chain.
///
/// # Errors
/// When the entry could not be read back, or be read in two ways.
pub fn append(
    chain: &mut Vec<Entry>,
    assessment: Assessment,
    key: &CriticSigner,
) -> Result<(), RecordError> {
    let scores = assessment.dimension_scores.values().chain([&assessment.score]);
    if let Some(score) = scores.copied().find(|score| !score.is_finite()) {
        return Err(RecordError::Score(score.to_string()));
    }
    let mut entry = Entry {
        entry_id: assessment.entry_id,
        director_output_hash: assessment.director_output_hash,
        critic_assessment_hash: assessment.critic_assessment_hash,
        verdict: assessment.verdict,
        dimension_scores: assessment.dimension_scores,
        score: assessment.score,
        critic_identity: assessment.critic_identity,
        timestamp: assessment.timestamp,
        chain_hash: String::new(),
        signature: String::new(),
        iteration: assessment.iteration,
    };
    if let Some((field, _)) = entry.ambiguous() {
        return Err(RecordError::Separator(field));
    }
    let previous = chain.last().map_or_else(genesis, |last| last.chain_hash.clone());
    entry.chain_hash = entry.hashes(&previous).into_iter().next_back().unwrap_or_default();
    entry.signature = key.sign(entry.chain_hash.as_bytes());
    chain.push(entry);
    Ok(())
}

/// Holds a chain against the key.
#[must_use]
pub fn verify(chain: &[Entry], key: &CriticKey) -> CriticReport {
    let mut findings = Findings::default();
    let mut previous = genesis();
    for (index, entry) in chain.iter().enumerate() {
        let explained = findings.count < MAX_FINDINGS as u64;
        let mut found = |rule, expected: String, found: &str, detail| {
            let (index, found) = (index as u64, found.to_owned());
            findings.add(CriticFinding { index, rule, expected, found, detail });
        };
        if let Some((field, value)) = entry.ambiguous() {
            let expected = format!("no `|` in {field}");
            found(CriticRule::AmbiguousFields, expected, value, None);
        }
        let hashes = entry.hashes(&previous);
        if !hashes.contains(&entry.chain_hash) {
            let expected = hashes.into_iter().next().unwrap_or_default();
            let detail = explained.then(|| explain(chain, index, key)).flatten();
            found(CriticRule::ChainHash, expected, &entry.chain_hash, detail);
        }
        if !key.verify(entry.chain_hash.as_bytes(), &entry.signature) {
            let expected = format!("128 lower-case hex digits, the signature of {key}");
            found(CriticRule::Signature, expected, &entry.signature, None);
        }
        // Behind a break the chain goes on from what it says, so that one break is one finding.
        previous.clone_from(&entry.chain_hash);
    }
    findings.report(Format::Symbi1, key, chain.len(), not_covered(chain.is_empty()))
}

/// What may have happened to an entry whose hash does not fit.
fn explain(chain: &[Entry], index: usize, key: &CriticKey) -> Option<String> {
    let entry = chain.get(index)?;
    if !key.verify(entry.chain_hash.as_bytes(), &entry.signature) {
        return Some("the key did not sign this hash either: the entry was made up".to_owned());
    }
    let follows = |previous: &str| entry.hashes(previous).contains(&entry.chain_hash);
    if follows(&genesis()) {
        return Some("the entry is whole and the first of a chain: it was moved".to_owned());
    }
    let from = chain.iter().position(|other| follows(&other.chain_hash));
    Some(match from {
        Some(from) => format!("the entry is whole and follows entry {from}: entries were moved"),
        None => "the key signed this hash: a field of the entry was changed, or the entry before \
                 it was dropped"
            .to_owned(),
    })
}

fn not_covered(empty: bool) -> Vec<String> {
    let mut open = Vec::new();
    if empty {
        open.push("anything: an empty chain passes any key".to_owned());
    }
    open.extend(
        [
            "critic_identity: neither hashed nor signed, in any entry",
            "dimension_scores: neither hashed nor signed, in any entry",
            "fields the format does not have, in any entry or beside them",
            "the end: entries cut off the tail leave a whole chain",
            "the chain itself: another chain under the same key in its place is whole too",
        ]
        .map(str::to_owned),
    );
    open
}
