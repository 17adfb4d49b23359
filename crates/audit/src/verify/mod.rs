//! The offline verifier: was anything changed since it was signed, and were the rules kept?
//!
//! *Integrity* is judged from the bytes: every record is hashed as it is stored, every
//! checkpoint's root and signature checked, and the first break named. Memory does not grow with
//! the log. *Meaning* is judged from what the records say, in their order: every effect announced
//! before it ended, every approval given in time by somebody else for this very call and used
//! once. Memory grows by a few bytes for each call.

mod bundle;
mod facts;
mod meaning;

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Serialize;

use crate::checkpoint::{Checkpoint, CheckpointError, Signed};
use crate::key::PublicKey;
use crate::tree::{Frontier, Hash, leaf_hash};
use facts::{Facts, What};
use meaning::Meaning;

pub use bundle::{BundleError, BundleWriter, Options, verify_bundle};
pub use facts::KEY_ROTATION;

/// Findings kept; further ones are counted.
pub const MAX_FINDINGS: usize = 100;

/// A record as a store holds it.
#[derive(Clone, Copy, Debug)]
pub struct StoredRecord<'a> {
    /// Its place, from 1.
    pub seq: u64,
    /// The id it is filed under.
    pub record_id: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The leaf hash the store's tree has for it.
    pub leaf: Option<Hash>,
}

/// The rule a finding breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// A record's bytes are not those that were signed.
    RecordChanged,
    /// A record is missing, or stands in the wrong place.
    RecordMissing,
    /// A record is filed under an id, call or place that its bytes do not carry.
    RecordMisfiled,
    /// A checkpoint's root is not the root over the records before it.
    RootMismatch,
    /// A checkpoint is malformed, of another log, or not signed by the pinned key.
    CheckpointInvalid,
    /// Records stand behind the last checkpoint: nobody vouches for them.
    NotCovered,
    /// Content stored beside the log does not have the digest it is filed under.
    ContentChanged,
    /// Content that a record speaks about is not stored.
    ContentMissing,
    /// The database itself is damaged.
    StoreDamaged,
    /// A checkpoint kept elsewhere is not of this log: history was cut or rewritten.
    Forked,
    /// A bundle does not end as it should, or says something of itself that is not so.
    BundleDamaged,
    /// A record cannot be understood, so that nothing can be said of what it means.
    RecordUnreadable,
    /// An effect ended, or is said to have, without an announcement before.
    EffectWithoutIntent,
    /// An effect is announced twice, or a call has two.
    EffectRepeated,
    /// An effect ended twice.
    ResultRepeated,
    /// A call was announced as running and then told as refused before.
    DeniedAfterIntent,
    /// An effect that needed approval began without one.
    IntentWithoutDecision,
    /// An approval released a second effect.
    ApprovalReused,
    /// An approval released the effect of another call.
    ApprovalOfOtherCall,
    /// What was approved was taken back before the effect.
    ApprovalRevoked,
    /// A grant covered what it does not cover.
    GrantExceeded,
    /// What ran, or was decided about, is not what was asked.
    FingerprintMismatch,
    /// What was decided about is not what was shown.
    RenderingMismatch,
    /// The same id asks twice.
    RequestRepeated,
    /// A decision about what was never asked.
    RequestMissing,
    /// A decision about what was put to nobody.
    DecisionNotAsked,
    /// A decision came outside its time.
    DecisionLate,
    /// Whoever asked decided.
    DecisionOwnRequest,
    /// An answer that was not offered, or by somebody who cannot decide.
    DecisionNotAllowed,
    /// Fewer people approved than the request asks for, or not those it asks for.
    QuorumNotMet,
    /// A request is decided twice.
    DecisionRepeated,
    /// A request ended otherwise than it was decided.
    OutcomeMismatch,
    /// Nobody knows how an effect ended, and no record says so.
    OutcomeNotListed,
    /// A hook ran that was not registered before.
    HookNotRegistered,
}

impl Rule {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(word)) => word,
            _ => String::new(),
        }
    }

    /// Whether it is about what the records say, and not about their bytes.
    #[must_use]
    pub const fn is_meaning(self) -> bool {
        !matches!(
            self,
            Self::RecordChanged
                | Self::RecordMissing
                | Self::RecordMisfiled
                | Self::RootMismatch
                | Self::CheckpointInvalid
                | Self::NotCovered
                | Self::ContentChanged
                | Self::ContentMissing
                | Self::StoreDamaged
                | Self::Forked
                | Self::BundleDamaged
        )
    }
}

/// One break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// The record's place, or the size of the checkpoint.
    pub seq: u64,
    /// The record, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_id: Option<String>,
    /// The places of other records that this is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<u64>,
    /// What stands there, and what should.
    pub detail: String,
}

/// What the verifier saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether there are no findings.
    pub ok: bool,
    /// Whether there are none about the bytes.
    pub integrity_ok: bool,
    /// Whether there are none about what the records say; `None` when that was not judged.
    pub meaning_ok: Option<bool>,
    /// The key everything was held against.
    pub key: String,
    /// The key in force at the end, where the log has changed keys since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_now: Option<String>,
    /// Records read.
    pub records: u64,
    /// Checkpoints read.
    pub checkpoints: u64,
    /// Records under the newest valid checkpoint.
    pub covered: u64,
    /// The root over all records, base64 as in a checkpoint.
    pub root: String,
    /// Where effects were announced that have not ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub open_effects: Vec<u64>,
    /// The breaks, first ones first, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// How many findings there are in all.
    pub finding_count: u64,
    /// What was not checked, or could have been changed unnoticed.
    pub not_covered: Vec<String>,
}

/// Reads a log from its first record to its last.
#[derive(Debug)]
pub struct Verifier<'k> {
    key: &'k PublicKey,
    current: PublicKey,
    /// The key that the log goes over to with the next checkpoint, and the record that says so.
    next: Option<(PublicKey, u64)>,
    /// Checkpoints before the first by the pinned key, which may be a later one.
    unsigned: Option<(u64, String)>,
    frontier: Frontier,
    checkpoints: u64,
    covered: u64,
    root_broken: bool,
    pinned: Vec<Checkpoint>,
    meaning: Option<Meaning>,
    integrity_count: u64,
    findings: Vec<Finding>,
    finding_count: u64,
    begins: u64,
    /// By how much the last record's number is above its place.
    moved: i128,
}

/// A record that was hashed, by whatever thread.
struct Hashed {
    leaf: Hash,
    facts: Option<Result<Facts, String>>,
}

/// A note that was read and held against a key, by whatever thread.
struct Opened {
    by: PublicKey,
    signed: Result<Signed, CheckpointError>,
    verified: Result<(), CheckpointError>,
}

impl Opened {
    fn new(note: &str, by: &PublicKey) -> Self {
        let signed = Signed::parse(note);
        let verified = signed.as_ref().map_err(Clone::clone).and_then(|signed| signed.verify(by));
        Self { by: by.clone(), signed, verified }
    }
}

/// Whether a record, or one of several, may change keys and has to be read for that alone.
fn may_rotate(bytes: &[u8]) -> bool {
    static ROTATION: LazyLock<Finder<'static>> =
        LazyLock::new(|| Finder::new(KEY_ROTATION.as_bytes()));
    ROTATION.find(bytes).is_some()
}

impl<'k> Verifier<'k> {
    /// Starts with an empty log and the only key that is trusted.
    #[must_use]
    pub fn new(key: &'k PublicKey) -> Self {
        Self {
            key,
            current: key.clone(),
            next: None,
            unsigned: None,
            frontier: Frontier::default(),
            checkpoints: 0,
            covered: 0,
            root_broken: false,
            pinned: Vec::new(),
            meaning: None,
            integrity_count: 0,
            findings: Vec::new(),
            finding_count: 0,
            begins: 0,
            moved: 0,
        }
    }

    /// Judges what the records say as well.
    #[must_use]
    pub fn with_meaning(mut self) -> Self {
        self.meaning = Some(Meaning::default());
        self
    }

    /// Expects the log to contain this checkpoint, which was kept elsewhere. The caller has
    /// checked its signature, or trusts it otherwise.
    #[must_use]
    pub fn with_checkpoint(mut self, checkpoint: Checkpoint) -> Self {
        self.pinned.push(checkpoint);
        self.pinned.sort_by_key(|pinned| std::cmp::Reverse(pinned.size));
        self
    }

    /// Begins behind records that are not there: their tree stands for them.
    fn begin(&mut self, frontier: Frontier) {
        self.begins = frontier.size();
        self.frontier = frontier;
        self.check_pinned();
    }

    fn current(&self) -> &PublicKey {
        &self.current
    }

    /// Notes a break found by whoever reads the store.
    pub fn finding(&mut self, rule: Rule, seq: u64, record_id: Option<&str>, detail: String) {
        let record_id = record_id.map(str::to_owned);
        self.add(Finding { rule, seq, record_id, related: Vec::new(), detail });
    }

    fn add(&mut self, finding: Finding) {
        add(&mut self.findings, &mut self.finding_count, &mut self.integrity_count, finding);
    }

    /// Takes the next record.
    pub fn record(&mut self, record: StoredRecord<'_>) {
        let id = Some(record.record_id);
        let expected = self.frontier.size() + 1;
        if record.seq != expected {
            self.finding(
                Rule::RecordMissing,
                expected,
                None,
                format!("record {expected} is missing, the next one is {}", record.seq),
            );
        }
        let found = leaf_hash(record.bytes);
        // Where the store's own tree disagrees, its leaf goes on, so that one changed record
        // is one finding and the rest of the log is still held against the signed roots.
        let leaf = record.leaf.unwrap_or(found);
        if leaf != found {
            self.finding(
                Rule::RecordChanged,
                record.seq,
                id,
                format!("leaf hash {} was signed, the bytes give {}", hex(&leaf), hex(&found)),
            );
        }
        let read = self.meaning.is_some() || may_rotate(record.bytes);
        let facts = read.then(|| Facts::read(record.bytes).map_err(|error| error.to_string()));
        self.hashed(Hashed { leaf, facts });
    }

    /// Takes the next record, which somebody has hashed.
    fn hashed(&mut self, record: Hashed) {
        // One of no records is of this log or not before there are any.
        self.check_pinned();
        self.frontier.push(record.leaf, |_, _| ());
        let seq = self.frontier.size();
        match record.facts {
            None => {}
            Some(Ok(facts)) => self.facts(seq, facts),
            Some(Err(error)) if self.meaning.is_some() => {
                self.finding(Rule::RecordUnreadable, seq, None, error);
            }
            Some(Err(_)) => {}
        }
        self.check_pinned();
    }

    fn facts(&mut self, seq: u64, mut facts: Facts) {
        // What was dropped or put in moves all that follows; it is told once.
        let moved = i128::from(facts.seq) - i128::from(seq);
        if moved > self.moved {
            let detail = format!("record {} stands in the place of record {seq}", facts.seq);
            self.finding(Rule::RecordMissing, seq, Some(&facts.record_id), detail);
        } else if moved < self.moved {
            let detail = format!("record {seq} says it is record {}", facts.seq);
            self.finding(Rule::RecordMisfiled, seq, Some(&facts.record_id), detail);
        }
        self.moved = moved;
        facts.seq = seq;
        if let What::NewKey(text) = &facts.what {
            match PublicKey::parse(text) {
                Ok(key) if key.name() == self.key.name() => {
                    if key == self.current {
                        // What came before was signed by the key before this one.
                        self.unsigned = None;
                    } else {
                        self.next = Some((key, seq));
                    }
                }
                Ok(key) => {
                    let detail = format!("the new key is of another log, `{}`", key.name());
                    self.finding(Rule::CheckpointInvalid, seq, Some(&facts.record_id), detail);
                }
                Err(error) => {
                    let detail = format!("the new key cannot be used: {error}");
                    self.finding(Rule::CheckpointInvalid, seq, Some(&facts.record_id), detail);
                }
            }
        }
        let Self { meaning, findings, finding_count, integrity_count, .. } = self;
        if let Some(meaning) = meaning {
            meaning.take(&facts, &mut |finding| {
                add(findings, finding_count, integrity_count, finding);
            });
        }
    }

    fn check_pinned(&mut self) {
        while let Some(pinned) = self.pinned.pop_if(|pinned| pinned.size <= self.frontier.size()) {
            let root = self.frontier.root();
            if pinned.size == self.frontier.size() && pinned.root != root {
                let detail = format!(
                    "the checkpoint kept elsewhere has the root {}, records 1 to {} give {}",
                    hex(&pinned.root),
                    pinned.size,
                    hex(&root)
                );
                self.finding(Rule::Forked, pinned.size, None, detail);
            }
        }
    }

    /// Takes a checkpoint, after the records it covers and before the next.
    pub fn checkpoint(&mut self, size: u64, note: &str) {
        let opened = Opened::new(note, &self.current);
        self.opened(Some(size), opened);
    }

    /// Takes a checkpoint that somebody has read; `size` is where it is filed, if that is known
    /// apart from where it stands.
    fn opened(&mut self, size: Option<u64>, opened: Opened) {
        self.checkpoints += 1;
        let records = self.frontier.size();
        let size = size.unwrap_or(records);
        let invalid = |error: &CheckpointError| format!("the checkpoint at {size}: {error}");
        let signed = match opened.signed {
            Ok(signed) => signed,
            Err(error) => {
                self.finding(Rule::CheckpointInvalid, size, None, invalid(&error));
                return;
            }
        };
        let verified =
            if opened.by == self.current { opened.verified } else { signed.verify(&self.current) };
        let mut vouched = true;
        match verified {
            Ok(()) => {}
            Err(CheckpointError::Unsigned(name)) if self.covered == 0 => {
                let detail = invalid(&CheckpointError::Unsigned(name));
                self.unsigned.get_or_insert((size, detail));
                vouched = false;
            }
            Err(error) => {
                self.finding(Rule::CheckpointInvalid, size, None, invalid(&error));
                return;
            }
        }
        let checkpoint = signed.checkpoint.clone();
        let root = self.frontier.root();
        if checkpoint.size != size || size != records {
            self.finding(
                Rule::RecordMissing,
                size,
                None,
                format!(
                    "the checkpoint covers {} records, it is filed under {size} and stands \
                     behind {records}",
                    checkpoint.size
                ),
            );
        } else if checkpoint.root == root {
            if vouched {
                self.covered = records;
                self.hand_over(&signed, size);
            }
        } else if !self.root_broken {
            // Every later root is wrong as well; one finding says where it began.
            self.root_broken = true;
            let (since, to) = (self.covered + 1, records);
            self.finding(
                Rule::RootMismatch,
                size,
                None,
                format!(
                    "the signed root is {}, records {since} to {to} give {}",
                    hex(&checkpoint.root),
                    hex(&root)
                ),
            );
        }
    }

    /// Goes over to the next key, if the key in force has signed the record that names it, and
    /// the next key the same checkpoint.
    fn hand_over(&mut self, signed: &Signed, size: u64) {
        let Some((key, seq)) = self.next.take() else { return };
        match signed.verify(&key) {
            Ok(()) => self.current = key,
            Err(error) => {
                let detail = format!("record {seq} names a new key, and {error}");
                self.finding(Rule::CheckpointInvalid, size, None, detail);
            }
        }
    }

    /// Says what was found.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let records = self.frontier.size();
        self.check_pinned();
        if let Some((size, detail)) = self.unsigned.take() {
            self.finding(Rule::CheckpointInvalid, size, None, detail);
        }
        if self.covered < records && self.finding_count == 0 {
            let (from, covered) = (self.covered + 1, self.covered);
            self.finding(
                Rule::NotCovered,
                from,
                None,
                format!("records {from} to {records} stand behind the last checkpoint ({covered})"),
            );
        }
        for pinned in std::mem::take(&mut self.pinned) {
            let detail = format!(
                "the checkpoint kept elsewhere covers {} records, there are {records}",
                pinned.size
            );
            self.finding(Rule::Forked, pinned.size, None, detail);
        }
        let mut open_effects = Vec::new();
        if let Some(meaning) = self.meaning.take() {
            open_effects = meaning.finish(&mut |finding| self.add(finding));
            open_effects.truncate(MAX_FINDINGS);
            self.meaning = Some(meaning);
        }
        let mut not_covered = vec![
            "a log cut back to an earlier checkpoint is whole: compare with one kept elsewhere"
                .to_owned(),
            "a key's holder can write another history: witnesses and published checkpoints show it"
                .to_owned(),
        ];
        if self.begins > 0 {
            not_covered.push(format!("what records 1 to {} say", self.begins));
        }
        let judged = self.meaning.is_some();
        if !judged {
            not_covered.push("whether the rules were kept".to_owned());
        }
        Report {
            ok: self.finding_count == 0,
            integrity_ok: self.integrity_count == 0,
            meaning_ok: judged.then_some(self.finding_count == self.integrity_count),
            key: self.key.to_string(),
            key_now: (self.current != *self.key).then(|| self.current.to_string()),
            records,
            checkpoints: self.checkpoints,
            covered: self.covered,
            root: crate::receipt::base64(&self.frontier.root()),
            open_effects,
            findings: self.findings,
            finding_count: self.finding_count,
            not_covered,
        }
    }
}

fn add(findings: &mut Vec<Finding>, count: &mut u64, integrity: &mut u64, finding: Finding) {
    *count += 1;
    *integrity += u64::from(!finding.rule.is_meaning());
    if findings.len() < MAX_FINDINGS {
        findings.push(finding);
    }
}

fn hex(hash: &Hash) -> String {
    hex::encode(hash)
}
