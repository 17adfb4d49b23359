//! Receipts: the proof for one record, complete in itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::key::PublicKey;
use crate::tree::{Hash, leaf_hash, verify_inclusion};

/// A record, its place in the log, and why the log's checkpoint covers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Receipt {
    /// Puts a receipt together; nothing is checked.
    #[must_use]
    pub fn new(seq: u64, record: String, proof: &[Hash], checkpoint: String) -> Self {
        let inclusion_proof = proof.iter().map(|hash| STANDARD.encode(hash)).collect();
        Self { receipt_version: 1, seq, record, inclusion_proof, checkpoint }
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
