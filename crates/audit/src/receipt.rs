//! Receipts: the proof for one record, complete in itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::key::PublicKey;
use crate::strict;
use crate::tree::{Hash, leaf_hash, verify_inclusion};

/// A record, its place in the log, and why the log's checkpoint covers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// 1.
    pub receipt_version: u32,
    /// The record's sequence number in the journal, from 1; its leaf is one less.
    pub seq: u64,
    /// The record's stored bytes. They are JSON, kept as text so that no reader rewrites them.
    pub record: String,
    /// Base64 hashes from the leaf's neighbour up to the root (RFC 6962 §2.1.1).
    pub inclusion_proof: Vec<String>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

/// Why a receipt proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The receipt is of a later version.
    #[error("receipt version {0} is not known")]
    Version(u32),
    /// The checkpoint is not vouched for.
    #[error("checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// A hash of the proof is not 32 bytes of base64.
    #[error("hash {0} of the proof is not 32 bytes of base64")]
    Hash(usize),
    /// The path does not lead from this record at this place to the signed root.
    #[error("record {seq} is not in the log of the checkpoint (size {size})")]
    NotIncluded {
        /// Where the receipt says the record stands.
        seq: u64,
        /// Records under the checkpoint.
        size: u64,
    },
    /// The record is no journal record.
    #[error("the record cannot be read: {0}")]
    Unreadable(String),
    /// The record says that it stands elsewhere.
    #[error("record {seq} says that it is record {found}")]
    Misfiled {
        /// Where the receipt says the record stands.
        seq: u64,
        /// What the record says.
        found: u64,
    },
}

impl ReceiptError {
    /// A stable word for the rule that is broken.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Version(_) => "version",
            Self::Checkpoint(_) => "checkpoint_invalid",
            Self::Hash(_) | Self::NotIncluded { .. } => "not_included",
            Self::Unreadable(_) => "record_unreadable",
            Self::Misfiled { .. } => "record_misfiled",
        }
    }
}

impl Receipt {
    /// Puts a receipt together; nothing is checked.
    #[must_use]
    pub fn new(seq: u64, record: String, proof: &[Hash], checkpoint: String) -> Self {
        let inclusion_proof = proof.iter().map(|hash| STANDARD.encode(hash)).collect();
        Self { receipt_version: 1, seq, record, inclusion_proof, checkpoint }
    }

    /// Reads a receipt. Nothing in it may be believed before it is verified.
    ///
    /// # Errors
    /// When the text is no receipt, or has a field twice or one that is not known: nothing covers
    /// it.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        // A receipt has no objects in it, so that a field twice is all that could stand there twice.
        countersign_core::json::read(text).map(|strict::Object(receipt)| receipt)
    }

    /// Checks the receipt with the log's public key alone.
    ///
    /// # Errors
    /// When anything in it does not fit. No part may be trusted then.
    pub fn verify(&self, key: &PublicKey) -> Result<Checkpoint, ReceiptError> {
        if self.receipt_version != 1 {
            return Err(ReceiptError::Version(self.receipt_version));
        }
        let checkpoint = Checkpoint::open(&self.checkpoint, key)?;
        let mut path = Vec::with_capacity(self.inclusion_proof.len());
        for (i, hash) in self.inclusion_proof.iter().enumerate() {
            let bytes = STANDARD.decode(hash).ok().and_then(|bytes| Hash::try_from(bytes).ok());
            path.push(bytes.ok_or(ReceiptError::Hash(i))?);
        }
        let leaf = leaf_hash(self.record.as_bytes());
        let included = self.seq.checked_sub(1).is_some_and(|index| {
            verify_inclusion(index, checkpoint.size, leaf, &path, &checkpoint.root)
        });
        if included {
            Ok(checkpoint)
        } else {
            Err(ReceiptError::NotIncluded { seq: self.seq, size: checkpoint.size })
        }
    }
}

impl Receipt {
    /// Checks the receipt, and that the journal record in it says of itself that it stands where
    /// the receipt says. Of the record, only what every record has is read; no key may stand there
    /// twice, at any depth.
    ///
    /// # Errors
    /// When anything in it does not fit. No part may be trusted then.
    pub fn verify_record(&self, key: &PublicKey) -> Result<Checkpoint, ReceiptError> {
        let checkpoint = self.verify(key)?;
        let found = strict::journal_seq(&self.record)
            .map_err(|error| ReceiptError::Unreadable(error.to_string()))?;
        let seq = self.seq;
        if seq == found { Ok(checkpoint) } else { Err(ReceiptError::Misfiled { seq, found }) }
    }
}

/// A hash as it stands in receipts and checkpoints.
pub(crate) fn base64(hash: &Hash) -> String {
    STANDARD.encode(hash)
}
