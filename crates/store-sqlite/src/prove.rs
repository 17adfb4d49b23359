//! Proofs from the stored tree: each asks for as many nodes as the tree is high.

use countersign_audit::checkpoint::Signed;
use countersign_audit::receipt::Receipt;
use countersign_audit::tiles::{Row, WIDTH};
use countersign_audit::tree::{self, Hash, Place, consistency_proof, inclusion_proof};
use countersign_ports::journal::{Coverage, Entry};
use countersign_ports::log::Proven;
use rusqlite::{Connection, OptionalExtension as _};

use crate::open::{self, OpenError, node};
use crate::verify::LogReader;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] OpenError),
    /// Nothing has been signed yet.
    #[error("the log is empty")]
    Empty,
    /// There is no such record.
    #[error("there is no record {0}")]
    Record(u64),
    /// No record is of this call.
    #[error("nothing is recorded of call `{0}`")]
    Call(String),
    /// The log is shorter, or the sizes are the wrong way round.
    #[error("there is no proof from {old} to {new} records, the log has {size}")]
    Sizes {
        /// The smaller tree.
        old: u64,
        /// The larger.
        new: u64,
        /// Records there are.
        size: u64,
    },
    /// The record or its checkpoint is damaged; the verifier says more.
    #[error("{0}")]
    Damaged(String),
}

/// That the log only grew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// Records of the smaller tree.
    pub old: u64,
    /// Its root.
    pub old_root: Hash,
    /// Records of the larger tree.
    pub new: u64,
    /// Its root.
    pub new_root: Hash,
    /// The path of RFC 6962 §2.1.2.
    pub path: Vec<Hash>,
}

impl LogReader {
    /// One snapshot for everything that belongs to one proof: the gateway may be writing.
    fn snapshot<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, ProofError>,
    ) -> Result<T, ProofError> {
        let snapshot = self.connection.unchecked_transaction().map_err(|e| self.sql(&e))?;
        work(&snapshot)
    }

    fn sql(&self, error: &rusqlite::Error) -> OpenError {
        OpenError::sql(&self.path, error)
    }

    /// The receipt for a record, under the newest checkpoint. The checkpoint's signature is not
    /// checked: that is for whoever gets the receipt.
    ///
    /// # Errors
    /// When there is no such record, or the file is damaged there.
    pub fn receipt(&self, seq: u64) -> Result<Receipt, ProofError> {
        let Proven { entry, coverage } = self.proven(seq)?;
        let record = String::from_utf8(entry.bytes)
            .map_err(|_| ProofError::Damaged(format!("record {seq} is no text")))?;
        Ok(Receipt::new(seq, record, &coverage.proof, coverage.checkpoint.to_string()))
    }

    pub(crate) fn proven(&self, seq: u64) -> Result<Proven, ProofError> {
        let index = seq.checked_sub(1).filter(|_| i64::try_from(seq).is_ok());
        let index = index.ok_or(ProofError::Record(seq))?;
        self.snapshot(|db| {
            let sql = |error: rusqlite::Error| ProofError::Read(self.sql(&error));
            let note: Option<String> = db
                .prepare_cached(open::LAST_CHECKPOINT)
                .and_then(|mut last| last.query_row([], |row| row.get(1)).optional())
                .map_err(sql)?;
            let note = note.ok_or(ProofError::Empty)?;
            let signed = Signed::parse(&note).map_err(|e| ProofError::Damaged(e.to_string()))?;
            let size = signed.checkpoint.size;
            let record: Option<Vec<u8>> = db
                .prepare_cached("SELECT bytes FROM records WHERE seq = ?1")
                .and_then(|mut record| record.query_row([seq], |row| row.get(0)).optional())
                .map_err(sql)?;
            let bytes = record.ok_or(ProofError::Record(seq))?;
            let path = inclusion_proof(index, size, |place| node(db, place)).map_err(sql)?;
            let proof = path.ok_or(ProofError::Record(seq))?;
            let coverage = Coverage { proof, checkpoint: note.into() };
            Ok(Proven { entry: Entry { seq, bytes }, coverage })
        })
    }

    /// The place of a call's last record.
    ///
    /// # Errors
    /// When nothing is recorded of it.
    pub fn call_end(&self, call: &str) -> Result<u64, ProofError> {
        let last: Option<u64> = self
            .connection
            .prepare_cached("SELECT max(seq) FROM records WHERE call = ?1")
            .and_then(|mut last| last.query_row([call], |row| row.get(0)))
            .map_err(|e| self.sql(&e))?;
        last.ok_or_else(|| ProofError::Call(call.to_owned()))
    }

    /// Shows that the log of `old` records is the beginning of the one with `new`, or with all
    /// there are.
    ///
    /// # Errors
    /// When there are not that many.
    pub fn consistency(&self, old: u64, new: Option<u64>) -> Result<Consistency, ProofError> {
        self.snapshot(|db| {
            let sql = |error: rusqlite::Error| ProofError::Read(self.sql(&error));
            let size: u64 = db
                .query_row("SELECT coalesce(max(seq), 0) FROM records", [], |row| row.get(0))
                .map_err(sql)?;
            let new = new.unwrap_or(size);
            if old > new || new > size {
                return Err(ProofError::Sizes { old, new, size });
            }
            let path = consistency_proof(old, new, |place| node(db, place)).map_err(sql)?;
            Ok(Consistency {
                old,
                old_root: tree::root(old, |place| node(db, place)).map_err(sql)?,
                new,
                new_root: tree::root(new, |place| node(db, place)).map_err(sql)?,
                path: path.unwrap_or_default(),
            })
        })
    }

    /// The complete subtrees of the tree over the first `size` records, the widest first: all
    /// that a reader needs who begins behind them.
    ///
    /// # Errors
    /// When there are not that many records.
    pub fn peaks(&self, size: u64) -> Result<Vec<Hash>, ProofError> {
        let frontier = tree::Frontier::load(size, |place| node(&self.connection, place))
            .map_err(|e| self.sql(&e))?;
        Ok(frontier.peaks().map(|(_, hash)| hash).collect())
    }

    /// The bytes of a tile, from the stored tree; `None` when the log does not have that many
    /// hashes or records there. [`parse`](countersign_audit::tiles::parse) reads its path.
    ///
    /// # Errors
    /// When the file is damaged there.
    pub fn tile(&self, row: Row, index: u64, width: usize) -> Result<Option<Vec<u8>>, ProofError> {
        self.snapshot(|db| {
            let sql = |error: rusqlite::Error| ProofError::Read(self.sql(&error));
            let size: u64 = db
                .query_row("SELECT coalesce(max(seq), 0) FROM records", [], |row| row.get(0))
                .map_err(sql)?;
            let level = match row {
                Row::Hashes(level) if level < 8 => level * 8,
                Row::Hashes(_) => return Ok(None),
                Row::Entries => 0,
            };
            let there = size >> level;
            let begin = index.checked_mul(WIDTH as u64).filter(|begin| *begin < there);
            let Some(begin) = begin.filter(|begin| {
                (1..=WIDTH as u64).contains(&(width as u64)) && there - begin >= width as u64
            }) else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            for at in begin..begin + width as u64 {
                if row == Row::Entries {
                    let record: Vec<u8> = db
                        .prepare_cached("SELECT bytes FROM records WHERE seq = ?1")
                        .and_then(|mut record| record.query_row([at + 1], |row| row.get(0)))
                        .map_err(sql)?;
                    let len = u16::try_from(record.len()).map_err(|_| {
                        ProofError::Damaged(format!("record {} is too long", at + 1))
                    })?;
                    bytes.extend_from_slice(&len.to_be_bytes());
                    bytes.extend_from_slice(&record);
                } else {
                    bytes.extend_from_slice(&node(db, Place { level, index: at }).map_err(sql)?);
                }
            }
            Ok(Some(bytes))
        })
    }

    /// Passes on records from `from` on, in order, each with the checkpoint that was signed
    /// behind it, up to the newest checkpoint. Returns how many there are in the log.
    ///
    /// # Errors
    /// When the file cannot be read, or whatever `take` returns.
    pub fn walk<E: From<ProofError>>(
        &self,
        from: u64,
        mut take: impl FnMut(u64, &[u8], Option<&str>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let snapshot =
            self.connection.unchecked_transaction().map_err(|e| ProofError::Read(self.sql(&e)))?;
        let sql = |error: rusqlite::Error| E::from(ProofError::Read(self.sql(&error)));
        let mut statement = snapshot
            .prepare("SELECT seq, bytes, checkpoint FROM records WHERE seq >= ?1 ORDER BY seq")
            .map_err(sql)?;
        let mut rows = statement.query([from]).map_err(sql)?;
        let mut last = from.saturating_sub(1);
        while let Some(row) = rows.next().map_err(sql)? {
            let read = || -> rusqlite::Result<_> {
                Ok((row.get(0)?, row.get_ref(1)?.as_bytes()?, row.get_ref(2)?.as_str_or_null()?))
            };
            let (seq, bytes, note) = read().map_err(sql)?;
            take(seq, bytes, note)?;
            last = seq;
        }
        Ok(last)
    }
}
