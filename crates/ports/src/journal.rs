//! The journal: one append-only sequence of records, which is also the log.

use std::sync::Arc;

use async_trait::async_trait;
use countersign_core::digest::Digest;
use countersign_core::id::RecordId;
use countersign_core::journal::EncodedDraft;
use tokio::sync::watch;

/// What one step wants recorded: all of it, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The records, in order.
    pub drafts: Vec<EncodedDraft>,
    /// Content the records speak about. It is filed under the first record, and not stored
    /// again when that record was in the journal already.
    pub contents: Vec<Content>,
}

/// Content beside the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    digest: Digest,
    bytes: Vec<u8>,
}

impl Content {
    /// Hashes the bytes; the digest is the only name content has.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(&bytes), bytes }
    }

    /// The name records refer to it by.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The content.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A batch that is in the journal for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The place of each record, in the order of the batch.
    pub seqs: Vec<u64>,
    /// Why the log's checkpoint covers the last record of the batch. `None` from a journal
    /// that does not sign.
    pub coverage: Option<Coverage>,
}

/// What a receipt needs beside the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The RFC 6962 inclusion proof, the leaf's neighbour first.
    pub proof: Vec<[u8; 32]>,
    /// The signed checkpoint.
    pub checkpoint: Arc<str>,
}

/// Why a batch is not in the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The record id is taken by other content.
    #[error("record {record_id} is already in the journal as {stored}, not as {offered}")]
    Conflict {
        /// The id.
        record_id: RecordId,
        /// Digest of the stored bytes.
        stored: Digest,
        /// Digest of the offered bytes, at the stored place.
        offered: Digest,
    },
    /// There was no room. Nothing is lost; a later append may succeed.
    #[error("the journal has no room: {0}")]
    NoRoom(String),
    /// The log key could not sign. Nothing is recorded without a signature.
    #[error("the journal is not signed: {0}")]
    NotSigned(String),
    /// The journal accepts nothing any more until it is opened anew, because it cannot know
    /// what reached the disk, or because it was closed.
    #[error("the journal has stopped: {0}")]
    Stopped(String),
}

/// A record as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place, from 1.
    pub seq: u64,
    /// Its stored bytes: a `JournalRecord` in JSON.
    pub bytes: Vec<u8>,
}

/// Why nothing could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be read: {0}")]
pub struct ReadError(pub String);

/// Keeps records. The journal alone numbers them.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Returns once every record of the batch is durable and covered by a signed checkpoint.
    /// Before that, nothing that depends on the records may be visible to anybody.
    ///
    /// A record id appended again with equal content returns its first place.
    ///
    /// # Errors
    /// Nothing of the batch is in the journal then, except after [`AppendError::Stopped`],
    /// where it may turn out to be when the journal is opened anew.
    async fn append(&self, batch: Batch) -> Result<Committed, AppendError>;

    /// Up to `limit` records from place `from` on, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn read(&self, from: u64, limit: usize) -> Result<Vec<Entry>, ReadError>;

    /// All records of one call, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn read_call(&self, call: &str) -> Result<Vec<Entry>, ReadError>;

    /// Why the newest checkpoint covers the record at this place. `None` where there is none,
    /// and from a journal that does not sign.
    ///
    /// # Errors
    /// When the store cannot be read, or is damaged there.
    async fn coverage(&self, seq: u64) -> Result<Option<Coverage>, ReadError> {
        let _ = seq;
        Ok(None)
    }

    /// Content filed under the record at this place, by its digest.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn content(&self, seq: u64, digest: Digest) -> Result<Option<Vec<u8>>, ReadError>;

    /// The place of the newest durable record; 0 for an empty journal.
    fn head(&self) -> watch::Receiver<u64>;
}
