//! The log over a journal, as others fetch it: checkpoint, tiles and proofs.

use async_trait::async_trait;

use crate::journal::{Coverage, Entry, ReadError};

/// A record, and why the newest checkpoint covers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The record.
    pub entry: Entry,
    /// The proof.
    pub coverage: Coverage,
}

/// Serves what is under a signed checkpoint, and nothing else. Each question costs as much as the
/// tree is high, or a tile is wide, however long the log is.
#[async_trait]
pub trait Log: Send + Sync {
    /// The newest checkpoint, as it was signed; `None` of an empty log.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn checkpoint(&self) -> Result<Option<String>, ReadError>;

    /// A tile by its path, `tile/…`, as C2SP `tlog-tiles` spells it; `None` for any other text,
    /// and for a tile the log has not reached. What was once given for a path never changes.
    ///
    /// # Errors
    /// When the store cannot be read, or is damaged there.
    async fn tile(&self, path: &str) -> Result<Option<Vec<u8>>, ReadError>;

    /// The record at this place, from 1, with its proof; `None` where there is none.
    ///
    /// # Errors
    /// When the store cannot be read, or is damaged there.
    async fn proven(&self, seq: u64) -> Result<Option<Proven>, ReadError>;
}
