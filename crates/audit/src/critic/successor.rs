//! The chain `countersign-1`: everything in an entry is covered, chains have names, keys can be
//! changed, and an anchor says where a chain ends.
//!
//! ```text
//! body        = the entry without chain_hash and signature, and in a change of keys without
//!               new_key_signature
//! chain_hash  = hex(SHA-256("countersign-1/critic-entry\n" ++ RFC 8785 canonical JSON of body))
//! signature   = hex(Ed25519("countersign-1/critic-signature\n" ++ chain_hash))
//! anchor      = hex(Ed25519("countersign-1/critic-anchor\n" ++ canonical JSON of the anchor
//!               without its signature))
//! key_id      = hex(SHA-256("countersign-1/critic-key\n" ++ the 32 bytes of the key))
//! ```
//!
//! The chain's id, the key's id, the entry's index and the hash of the entry before are fields of
//! the body. A field this version does not know is covered as well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{
    Assessment, CriticFinding, CriticKey, CriticReport, CriticRule, CriticSigner, Findings, Format,
    Identity, Pins, Timestamp, Verdict,
};

const ENTRY: &str = "countersign-1/critic-entry\n";
const SIGNATURE: &str = "countersign-1/critic-signature\n";
const NEW_KEY: &str = "countersign-1/critic-new-key\n";
const ANCHOR: &str = "countersign-1/critic-anchor\n";
const KEY_ID: &str = "countersign-1/critic-key\n";

/// The hash before the first entry, and the head of a chain without any.
pub const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Numbers beyond this lose digits in canonical JSON.
const MAX_NUMBER: u64 = 1 << 53;

/// Most characters of a chain's id.
const MAX_CHAIN_ID: usize = 128;

/// One entry, as it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// `countersign-1`.
    pub format: Format,
    /// The chain's id; the same in every entry.
    pub chain_id: String,
    /// [`key_id`] of the key that signs this entry.
    pub key_id: String,
    /// The entry's place, from 0.
    pub index: u64,
    /// `chain_hash` of the entry before, or [`NO_HASH`].
    pub previous_hash: String,
    /// What it says.
    #[serde(flatten)]
    pub body: Body,
    /// 64 lower-case hex digits.
    pub chain_hash: String,
    /// 128 lower-case hex digits.
    pub signature: String,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// A critic judged.
    Assessment {
        /// The entry's id.
        entry_id: String,
        /// The hash of the output that was judged.
        director_output_hash: String,
        /// The hash of what the critic said.
        critic_assessment_hash: String,
        /// The conclusion.
        verdict: Verdict,
        /// Scores by dimension, each within 0..=1.
        dimension_scores: BTreeMap<String, f64>,
        /// The score over all, within 0..=1.
        score: f64,
        /// Who judged.
        critic_identity: Identity,
        /// When.
        timestamp: Timestamp,
        /// Which round of revision this was.
        iteration: u64,
    },
    /// From the next entry on another key signs.
    KeyRotation {
        /// The new key, 64 hex digits.
        new_key: String,
        /// When.
        timestamp: Timestamp,
        /// By the new key over `"countersign-1/critic-new-key\n" ++ chain_hash`.
        new_key_signature: String,
    },
}

/// Where a chain ends. Kept apart from the chain, it shows whether the chain was cut, went on or
/// was swapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// The chain.
    pub chain_id: String,
    /// Entries it has.
    pub len: u64,
    /// `chain_hash` of the last one, or [`NO_HASH`].
    pub head: String,
    /// [`key_id`] of the key that signs this: the one in force behind the last entry.
    pub key_id: String,
    /// 128 lower-case hex digits.
    pub signature: String,
}

impl Anchor {
    fn message(&self) -> Result<Vec<u8>, RecordError> {
        let Self { chain_id, len, head, key_id, .. } = self;
        let body = serde_json::json!({
            "chain_id": chain_id, "head": head, "key_id": key_id, "len": len,
        });
        message(ANCHOR, &body)
    }
}

/// A chain as it is written: entries as JSON, so that what is not known here stays.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chain {
    pub(super) format: Format,
    pub(super) chain_id: String,
    pub(super) entries: Vec<Value>,
    /// Where it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
}

/// Why an entry was not recorded. The chain is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A score is no number from 0 to 1.
    #[error("`{name}` is {value}, scores are from 0 to 1")]
    Score {
        /// `score`, or the dimension.
        name: String,
        /// What was offered.
        value: String,
    },
    /// A number would lose digits in canonical JSON.
    #[error("iteration {0} is above 2^53")]
    Iteration(u64),
    /// The signer is not the chain's.
    #[error("the chain is signed by key {expected}, not by {found}")]
    OtherKey {
        /// The id of the key in force.
        expected: String,
        /// The id of the key offered.
        found: String,
    },
    /// A chain needs a name.
    #[error("a chain's id has 1 to 128 characters")]
    ChainId,
    /// The entry has no canonical JSON.
    #[error("the entry cannot be written as canonical JSON: {0}")]
    Canonical(String),
}

/// The id of a key.
#[must_use]
pub fn key_id(key: &CriticKey) -> String {
    hex::encode(Sha256::new_with_prefix(KEY_ID).chain_update(key.as_bytes()).finalize())
}

fn message(prefix: &str, body: &Value) -> Result<Vec<u8>, RecordError> {
    let json = serde_json_canonicalizer::to_vec(body)
        .map_err(|error| RecordError::Canonical(error.to_string()))?;
    Ok([prefix.as_bytes(), &json].concat())
}

/// `chain_hash` of an entry.
fn hash(entry: &Map<String, Value>) -> Result<String, RecordError> {
    let mut body = entry.clone();
    body.remove("chain_hash");
    body.remove("signature");
    if body.get("kind").and_then(Value::as_str) == Some("key_rotation") {
        body.remove("new_key_signature");
    }
    Ok(hex::encode(Sha256::digest(message(ENTRY, &Value::Object(body))?)))
}

fn signed(hash: &str) -> Vec<u8> {
    [SIGNATURE, hash].concat().into_bytes()
}

fn signed_new(hash: &str) -> Vec<u8> {
    [NEW_KEY, hash].concat().into_bytes()
}

fn out_of_range(score: f64, dimensions: &BTreeMap<String, f64>) -> Option<(&str, f64)> {
    let dimensions = dimensions.iter().map(|(name, score)| (name.as_str(), *score));
    // Not a number is in no range.
    dimensions.chain([("score", score)]).find(|(_, score)| !(0.0..=1.0).contains(score))
}

impl Chain {
    /// A chain without entries.
    ///
    /// # Errors
    /// When the id is empty or longer than 128 characters.
    pub fn new(chain_id: &str) -> Result<Self, RecordError> {
        if chain_id.is_empty() || chain_id.chars().count() > MAX_CHAIN_ID {
            return Err(RecordError::ChainId);
        }
        let (format, chain_id) = (Format::Countersign1, chain_id.to_owned());
        Ok(Self { format, chain_id, entries: Vec::new(), anchor: None })
    }

    /// The entries, as JSON.
    #[must_use]
    pub fn entries(&self) -> &[Value] {
        &self.entries
    }

    /// Where the chain stands.
    #[must_use]
    pub fn tail(&self) -> Tail {
        let (chain_id, len) = (self.chain_id.clone(), self.entries.len() as u64);
        Tail::behind(chain_id, len, self.entries.last())
    }

    /// Signs a judgement and adds it. An anchor from before is taken away.
    ///
    /// # Errors
    /// When a score is out of range, or the signer's is not the key in force.
    pub fn append(
        &mut self,
        assessment: Assessment,
        key: &CriticSigner,
    ) -> Result<(), RecordError> {
        let entry = self.tail().assess(assessment, key)?;
        self.push(entry);
        Ok(())
    }

    /// Hands the chain over to another key, by an entry that both sign.
    ///
    /// # Errors
    /// When `key` is not the key in force.
    pub fn rotate(
        &mut self,
        key: &CriticSigner,
        new: &CriticSigner,
        timestamp: Timestamp,
    ) -> Result<(), RecordError> {
        let entry = self.tail().rotate(key, new, timestamp)?;
        self.push(entry);
        Ok(())
    }

    fn push(&mut self, entry: Value) {
        self.entries.push(entry);
        self.anchor = None;
    }

    /// Says, signed, where the chain ends now.
    ///
    /// # Errors
    /// When `key` is not the key in force.
    pub fn close(&mut self, key: &CriticSigner) -> Result<&Anchor, RecordError> {
        let anchor = self.tail().anchor(key)?;
        Ok(self.anchor.insert(anchor))
    }
}

/// Where a chain stands: all that is needed to go on with it, however long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    chain_id: String,
    len: u64,
    head: String,
    key_in_force: Option<String>,
}

impl Tail {
    /// Of a chain without entries.
    ///
    /// # Errors
    /// When the id is empty or longer than 128 characters.
    pub fn new(chain_id: &str) -> Result<Self, RecordError> {
        Chain::new(chain_id).map(|chain| chain.tail())
    }

    /// Of the chain that ends with this entry. The entry is believed: nothing of it is verified.
    ///
    /// # Errors
    /// When it is no entry.
    pub fn after(entry: &Value) -> Result<Self, RecordError> {
        let read = Entry::deserialize(entry);
        let read = read.map_err(|error| RecordError::Canonical(error.to_string()))?;
        Ok(Self::behind(read.chain_id, read.index + 1, Some(entry)))
    }

    fn behind(chain_id: String, len: u64, last: Option<&Value>) -> Self {
        let text = |field: &str| last.and_then(|entry| entry.get(field)?.as_str());
        let rotated = text("new_key").and_then(|key| CriticKey::parse(key).ok());
        let key_in_force =
            rotated.map(|key| key_id(&key)).or_else(|| text("key_id").map(str::to_owned));
        let head = text("chain_hash").unwrap_or(NO_HASH).to_owned();
        Self { chain_id, len, head, key_in_force }
    }

    /// The chain's id.
    #[must_use]
    pub fn chain_id(&self) -> &str {
        &self.chain_id
    }

    /// Entries there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The id of the key in force; `None` before the first entry, which any key may sign.
    #[must_use]
    pub fn key_in_force(&self) -> Option<&str> {
        self.key_in_force.as_deref()
    }

    /// The next entry, signed: a judgement. The tail stays where it is.
    ///
    /// # Errors
    /// When a score is out of range, or the signer's is not the key in force.
    pub fn assess(&self, assessment: Assessment, key: &CriticSigner) -> Result<Value, RecordError> {
        let Assessment { score, dimension_scores, iteration, .. } = &assessment;
        if let Some((name, value)) = out_of_range(*score, dimension_scores) {
            return Err(RecordError::Score { name: name.to_owned(), value: value.to_string() });
        }
        if *iteration > MAX_NUMBER {
            return Err(RecordError::Iteration(*iteration));
        }
        let body = Body::Assessment {
            entry_id: assessment.entry_id,
            director_output_hash: assessment.director_output_hash,
            critic_assessment_hash: assessment.critic_assessment_hash,
            verdict: assessment.verdict,
            dimension_scores: assessment.dimension_scores,
            score: assessment.score,
            critic_identity: assessment.critic_identity,
            timestamp: assessment.timestamp,
            iteration: assessment.iteration,
        };
        self.entry(body, key, None)
    }

    /// The next entry, signed by both: another key follows. The tail stays where it is.
    ///
    /// # Errors
    /// When `key` is not the key in force.
    pub fn rotate(
        &self,
        key: &CriticSigner,
        new: &CriticSigner,
        timestamp: Timestamp,
    ) -> Result<Value, RecordError> {
        let new_key = new.public().to_string();
        let new_key_signature = String::new();
        self.entry(Body::KeyRotation { new_key, timestamp, new_key_signature }, key, Some(new))
    }

    /// Says, signed, that the chain ends here.
    ///
    /// # Errors
    /// When `key` is not the key in force.
    pub fn anchor(&self, key: &CriticSigner) -> Result<Anchor, RecordError> {
        let mut anchor = Anchor {
            chain_id: self.chain_id.clone(),
            len: self.len,
            head: self.head.clone(),
            key_id: self.signer(key)?,
            signature: String::new(),
        };
        anchor.signature = key.sign(&anchor.message()?);
        Ok(anchor)
    }

    fn signer(&self, key: &CriticSigner) -> Result<String, RecordError> {
        let found = key_id(&key.public());
        match &self.key_in_force {
            Some(expected) if *expected != found => {
                Err(RecordError::OtherKey { expected: expected.clone(), found })
            }
            _ => Ok(found),
        }
    }

    fn entry(
        &self,
        body: Body,
        key: &CriticSigner,
        new: Option<&CriticSigner>,
    ) -> Result<Value, RecordError> {
        let entry = Entry {
            format: Format::Countersign1,
            chain_id: self.chain_id.clone(),
            key_id: self.signer(key)?,
            index: self.len,
            previous_hash: self.head.clone(),
            body,
            chain_hash: String::new(),
            signature: String::new(),
        };
        let canonical = |error: serde_json::Error| RecordError::Canonical(error.to_string());
        let Value::Object(mut entry) = serde_json::to_value(entry).map_err(canonical)? else {
            return Err(RecordError::Canonical("no object".to_owned()));
        };
        let hash = hash(&entry)?;
        if let Some(new) = new {
            entry.insert("new_key_signature".to_owned(), new.sign(&signed_new(&hash)).into());
        }
        entry.insert("signature".to_owned(), key.sign(&signed(&hash)).into());
        entry.insert("chain_hash".to_owned(), hash.into());
        Ok(Value::Object(entry))
    }
}

/// Holds a chain against the key of its first entry, and what is pinned of it.
pub(super) fn verify(
    chain: &Chain,
    entries: &[Entry],
    key: &CriticKey,
    pins: &Pins,
) -> CriticReport {
    let mut findings = Findings::default();
    // The key in force at each place, and one more for the end.
    let mut keys = vec![key.clone()];
    let mut previous = NO_HASH;
    let chain_id = pins.chain_id.as_deref().unwrap_or(&chain.chain_id);
    for (index, (entry, value)) in entries.iter().zip(&chain.entries).enumerate() {
        let index = index as u64;
        let mut check = |fits: bool, rule, expected: &str, found: &str| {
            if !fits {
                let (expected, found) = (expected.to_owned(), found.to_owned());
                findings.add(CriticFinding { index, rule, expected, found, detail: None });
            }
        };
        let key = keys.last().cloned().unwrap_or_else(|| key.clone());
        let mut same = |rule, expected: &str, found: &str| {
            check(expected == found, rule, expected, found);
        };
        same(CriticRule::ChainId, chain_id, &entry.chain_id);
        same(CriticRule::Index, &index.to_string(), &entry.index.to_string());
        same(CriticRule::KeyId, &key_id(&key), &entry.key_id);
        same(CriticRule::PreviousHash, previous, &entry.previous_hash);
        match value.as_object().map(hash) {
            Some(Ok(hash)) => same(CriticRule::ChainHash, &hash, &entry.chain_hash),
            _ => same(CriticRule::Number, "canonical JSON", "none"),
        }
        if let Some(number) = lossy(value) {
            check(false, CriticRule::Number, "a number up to 2^53", &number);
        }
        let by = |key: &CriticKey| format!("128 lower-case hex digits, the signature of {key}");
        let good = key.verify(&signed(&entry.chain_hash), &entry.signature);
        check(good, CriticRule::Signature, &by(&key), &entry.signature);
        match &entry.body {
            Body::Assessment { score, dimension_scores, .. } => {
                if let Some((name, value)) = out_of_range(*score, dimension_scores) {
                    let found = format!("`{name}` is {value}");
                    check(false, CriticRule::Score, "a number from 0 to 1", &found);
                }
            }
            Body::KeyRotation { new_key, new_key_signature, .. } => match CriticKey::parse(new_key)
            {
                Ok(new) => {
                    let message = signed_new(&entry.chain_hash);
                    let good = new.verify(&message, new_key_signature);
                    check(good, CriticRule::Rotation, &by(&new), new_key_signature);
                    keys.push(new);
                }
                Err(error) => {
                    check(false, CriticRule::Rotation, "an Ed25519 key", &error.to_string());
                }
            },
        }
        if (keys.len() as u64) < index + 2 {
            keys.push(key);
        }
        previous = &entry.chain_hash;
    }
    let anchors: Vec<_> = pins.anchor.iter().chain(&chain.anchor).collect();
    for anchor in &anchors {
        check_anchor(&mut findings, anchor, chain_id, entries, &keys);
    }
    let named = pins.chain_id.is_some() || pins.anchor.is_some();
    let mut open = Vec::new();
    if entries.is_empty() && anchors.is_empty() {
        open.push("anything: an empty chain without an anchor passes any key".to_owned());
    }
    if pins.anchor.is_none() {
        open.push(match chain.anchor {
            Some(_) => "the end: an older anchor and chain in the place of both are whole too; \
                        keep the anchor elsewhere and give it with --anchor"
                .to_owned(),
            None => "the end: entries cut off the tail leave a whole chain; there is no anchor"
                .to_owned(),
        });
    }
    if !named {
        open.push(
            "the chain itself: another chain under the same key in its place is whole too; pin \
             its id or an anchor"
                .to_owned(),
        );
    }
    findings.report(Format::Countersign1, key, entries.len(), open)
}

/// Holds an anchor against the entries; `keys` has the key in force at each place and the end.
fn check_anchor(
    findings: &mut Findings,
    anchor: &Anchor,
    chain_id: &str,
    entries: &[Entry],
    keys: &[CriticKey],
) {
    let mut found = |rule, expected: String, found: String| {
        let index = anchor.len;
        findings.add(CriticFinding { index, rule, expected, found, detail: None });
    };
    let len = entries.len() as u64;
    let place = usize::try_from(anchor.len.min(len)).unwrap_or(usize::MAX);
    let key = keys.get(place);
    let signed = key.zip(anchor.message().ok()).is_some_and(|(key, message)| {
        key_id(key) == anchor.key_id && key.verify(&message, &anchor.signature)
    });
    if !signed {
        let by = key.map(ToString::to_string).unwrap_or_default();
        let expected = format!("an anchor signed by the key in force at its end, {by}");
        let given = format!("key {}, signature {}", anchor.key_id, anchor.signature);
        found(CriticRule::AnchorSignature, expected, given);
        return;
    }
    if anchor.chain_id != chain_id {
        found(CriticRule::Substituted, anchor.chain_id.clone(), chain_id.to_owned());
        return;
    }
    if anchor.len > len {
        let given = format!("{len} entries");
        found(CriticRule::Truncated, format!("{} entries", anchor.len), given);
        return;
    }
    let before = place.checked_sub(1).and_then(|last| entries.get(last));
    let head = before.map_or(NO_HASH, |entry| &entry.chain_hash);
    if head != anchor.head {
        found(CriticRule::Substituted, anchor.head.clone(), head.to_owned());
    } else if anchor.len < len {
        found(CriticRule::Extended, format!("{} entries", anchor.len), format!("{len} entries"));
    }
}

/// A whole number that canonical JSON cannot hold.
fn lossy(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => {
            let whole = number.as_u64().or(number.as_i64().map(i64::unsigned_abs))?;
            (whole > MAX_NUMBER).then(|| number.to_string())
        }
        Value::Array(values) => values.iter().find_map(lossy),
        Value::Object(fields) => fields.values().find_map(lossy),
        _ => None,
    }
}
