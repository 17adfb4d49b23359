//! The offline verifier: was anything changed since it was signed?
//!
//! Records and checkpoints are fed in log order; memory use does not grow with the log. It
//! says where the first break is, and names the record. Whether the records tell a story in
//! which the rules were kept is not judged here yet.

use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::key::PublicKey;
use crate::tree::{Frontier, Hash, leaf_hash};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
    /// What stands there, and what should.
    pub detail: String,
}

/// What the verifier saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether there are no findings.
    pub ok: bool,
    /// The key everything was held against.
    pub key: String,
    /// Records read.
    pub records: u64,
    /// Checkpoints read.
    pub checkpoints: u64,
    /// Records under the newest valid checkpoint.
    pub covered: u64,
    /// The breaks, first ones first, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// How many findings there are in all.
    pub finding_count: u64,
}

/// Reads a log from its first record to its last.
#[derive(Debug)]
pub struct Verifier<'k> {
    key: &'k PublicKey,
    frontier: Frontier,
    checkpoints: u64,
    covered: u64,
    root_broken: bool,
    findings: Vec<Finding>,
    finding_count: u64,
}

impl<'k> Verifier<'k> {
    /// Starts with an empty log and the only key that is trusted.
    #[must_use]
    pub fn new(key: &'k PublicKey) -> Self {
        Self {
            key,
            frontier: Frontier::default(),
            checkpoints: 0,
            covered: 0,
            root_broken: false,
            findings: Vec::new(),
            finding_count: 0,
        }
    }

    /// Notes a break found by whoever reads the store.
    pub fn finding(&mut self, rule: Rule, seq: u64, record_id: Option<&str>, detail: String) {
        self.finding_count += 1;
        if self.findings.len() < MAX_FINDINGS {
            let record_id = record_id.map(str::to_owned);
            self.findings.push(Finding { rule, seq, record_id, detail });
        }
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
        self.frontier.push(leaf, |_, _| ());
    }

    /// Takes a checkpoint, after the records it covers and before the next.
    pub fn checkpoint(&mut self, size: u64, note: &str) {
        self.checkpoints += 1;
        let checkpoint = match Checkpoint::open(note, self.key) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                self.finding(Rule::CheckpointInvalid, size, None, error.to_string());
                return;
            }
        };
        let (records, root) = (self.frontier.size(), self.frontier.root());
        if checkpoint.size != size || checkpoint.size != records {
            self.finding(
                Rule::CheckpointInvalid,
                size,
                None,
                format!(
                    "the checkpoint covers {} records, it is filed under {size} and stands \
                     behind {records}",
                    checkpoint.size
                ),
            );
        } else if checkpoint.root == root {
            self.covered = records;
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

    /// Says what was found.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let records = self.frontier.size();
        if self.covered < records && self.finding_count == 0 {
            let (from, covered) = (self.covered + 1, self.covered);
            self.finding(
                Rule::NotCovered,
                from,
                None,
                format!("records {from} to {records} stand behind the last checkpoint ({covered})"),
            );
        }
        Report {
            ok: self.finding_count == 0,
            key: self.key.to_string(),
            records,
            checkpoints: self.checkpoints,
            covered: self.covered,
            findings: self.findings,
            finding_count: self.finding_count,
        }
    }
}

fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
