//! Reading a database offline: for the verifier, and for people.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use countersign_audit::key::PublicKey;
use countersign_audit::verify::{Report, Rule, StoredRecord, Verifier};
use countersign_core::digest::Digest;
use countersign_core::journal::TOOL_CALL_KEY;
use rusqlite::{Connection, Rows, Transaction};
use serde::Deserialize;

use crate::open::{self, OpenError};
use crate::wal;

/// A database opened read-only, also while a gateway writes to it.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    connection: Connection,
}

/// A record with the columns it is filed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place, from 1.
    pub seq: u64,
    /// The id it is filed under.
    pub record_id: String,
    /// The call it is filed under.
    pub call: Option<String>,
    /// Its stored bytes.
    pub bytes: Vec<u8>,
}

/// What a record says about where it belongs.
#[derive(Deserialize)]
struct Filing<'a> {
    journal_seq: u64,
    #[serde(borrow)]
    record_id: std::borrow::Cow<'a, str>,
    #[serde(default, borrow)]
    correlation_keys: Vec<Correlation<'a>>,
    #[serde(default, borrow)]
    content_refs: Vec<std::borrow::Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Correlation<'a> {
    #[serde(borrow)]
    key: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    value: std::borrow::Cow<'a, str>,
}

impl LogReader {
    /// Opens the database without changing it.
    ///
    /// # Errors
    /// When there is none, or the file is of another program or a later version.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if !open::check_header(path)? {
            return Err(OpenError::Missing(path.to_owned()));
        }
        let connection = open::reader(path).map_err(|e| OpenError::sql(path, &e))?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Records from place `from` on, in order; `call` selects those of one call.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn records(
        &self,
        from: u64,
        limit: usize,
        call: Option<&str>,
    ) -> Result<Vec<Stored>, OpenError> {
        self.select(from, limit, call).map_err(|e| OpenError::sql(&self.path, &e))
    }

    fn select(&self, from: u64, limit: usize, call: Option<&str>) -> rusqlite::Result<Vec<Stored>> {
        self.connection
            .prepare_cached(
                "SELECT seq, record_id, call, bytes FROM records
                 WHERE seq >= ?1 AND (?3 IS NULL OR call = ?3) ORDER BY seq LIMIT ?2",
            )?
            .query_map((from, limit, call), |row| {
                Ok(Stored {
                    seq: row.get(0)?,
                    record_id: row.get(1)?,
                    call: row.get(2)?,
                    bytes: row.get(3)?,
                })
            })?
            .collect()
    }

    /// The newest record's place; 0 for an empty log.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn head(&self) -> Result<u64, OpenError> {
        self.connection
            .query_row("SELECT coalesce(max(seq), 0) FROM records", [], |row| row.get(0))
            .map_err(|e| OpenError::sql(&self.path, &e))
    }

    /// The newest checkpoint, as it was signed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn checkpoint(&self) -> Result<Option<String>, OpenError> {
        use rusqlite::OptionalExtension as _;
        self.connection
            .query_row("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1", [], |row| {
                row.get(0)
            })
            .optional()
            .map_err(|e| OpenError::sql(&self.path, &e))
    }

    /// Holds everything in the database against the key. `progress` is told the records read
    /// and the records there are.
    ///
    /// # Errors
    /// Only when the file cannot be read at all; damage is a finding.
    pub fn verify(
        &mut self,
        key: &PublicKey,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Report, OpenError> {
        let mut verifier = Verifier::new(key);
        match wal::damaged_frame(&self.path) {
            Ok(None) => {}
            Ok(Some(frame)) => {
                let detail = format!(
                    "frame {frame} of the write-ahead log is damaged; SQLite ignores the commits \
                     behind it, though they were acknowledged"
                );
                verifier.finding(Rule::StoreDamaged, 0, None, detail);
            }
            Err(source) => {
                return Err(OpenError::Io { path: self.path.clone(), source });
            }
        }
        let sql = |e: rusqlite::Error| OpenError::sql(&self.path, &e);
        // One snapshot for everything: the gateway may be writing.
        let snapshot = self.connection.transaction().map_err(sql)?;
        if let Err(error) = walk(&snapshot, &mut verifier, &mut progress) {
            verifier.finding(Rule::StoreDamaged, 0, None, error.to_string());
        }
        Ok(verifier.finish())
    }
}

fn walk(
    db: &Transaction<'_>,
    verifier: &mut Verifier<'_>,
    progress: &mut impl FnMut(u64, u64),
) -> rusqlite::Result<()> {
    let total = db.query_row("SELECT count(*) FROM records", [], |row| row.get(0))?;
    let contents = contents(db, verifier)?;
    let mut records = db.prepare(
        "SELECT r.seq, r.record_id, r.call, r.bytes, n.hash
         FROM records r LEFT JOIN nodes n ON n.place = r.seq - 1 ORDER BY r.seq",
    )?;
    let mut checkpoints = db.prepare("SELECT size, note FROM checkpoints ORDER BY size")?;
    let mut checkpoints = checkpoints.query([])?;
    let mut pending = next_checkpoint(&mut checkpoints)?;
    let mut rows = records.query([])?;
    let mut last = 0;
    while let Some(row) = rows.next()? {
        let (seq, bytes): (u64, &[u8]) = (row.get(0)?, row.get_ref(3)?.as_bytes()?);
        let (record_id, call): (&str, Option<&str>) =
            (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str_or_null()?);
        verifier.record(StoredRecord { seq, record_id, bytes, leaf: row.get(4)? });
        check_filing(verifier, seq, record_id, call, bytes, &contents);
        while let Some((size, note)) = pending.take_if(|(size, _)| *size <= seq) {
            verifier.checkpoint(size, &note);
            pending = next_checkpoint(&mut checkpoints)?;
        }
        last = seq;
        if seq.is_multiple_of(1024) {
            progress(seq, total);
        }
    }
    while let Some((size, note)) = pending {
        verifier.checkpoint(size, &note);
        pending = next_checkpoint(&mut checkpoints)?;
    }
    progress(last, total);
    let mut check = db.prepare("PRAGMA integrity_check(10)")?;
    let mut problems = check.query([])?;
    while let Some(row) = problems.next()? {
        let problem: String = row.get(0)?;
        if problem != "ok" {
            verifier.finding(Rule::StoreDamaged, 0, None, problem);
        }
    }
    Ok(())
}

fn next_checkpoint(rows: &mut Rows<'_>) -> rusqlite::Result<Option<(u64, String)>> {
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    // A note that is no text any more is a changed note, and is reported as such.
    let note = row.get_ref(1)?.as_bytes().map(String::from_utf8_lossy)?.into_owned();
    Ok(Some((row.get(0)?, note)))
}

/// Hashes every content, and returns the digests that are there and right.
fn contents(
    db: &Transaction<'_>,
    verifier: &mut Verifier<'_>,
) -> rusqlite::Result<HashSet<[u8; 32]>> {
    let mut statement = db.prepare("SELECT digest, bytes FROM contents")?;
    let mut rows = statement.query([])?;
    let mut good = HashSet::new();
    while let Some(row) = rows.next()? {
        let digest = row.get_ref(0)?.as_bytes()?;
        let found = Digest::of(row.get_ref(1)?.as_bytes()?);
        if found.as_bytes() == digest {
            good.insert(*found.as_bytes());
        } else {
            let detail = match <[u8; 32]>::try_from(digest) {
                Ok(digest) => {
                    format!("filed as {}, the bytes give {found}", Digest::from_bytes(digest))
                }
                Err(_) => format!("filed under no digest, the bytes give {found}"),
            };
            verifier.finding(Rule::ContentChanged, 0, None, detail);
        }
    }
    Ok(good)
}

fn check_filing(
    verifier: &mut Verifier<'_>,
    seq: u64,
    record_id: &str,
    call: Option<&str>,
    bytes: &[u8],
    contents: &HashSet<[u8; 32]>,
) {
    let filing: Filing<'_> = match serde_json::from_slice(bytes) {
        Ok(filing) => filing,
        Err(error) => {
            let detail = format!("the bytes are no journal record: {error}");
            verifier.finding(Rule::RecordMisfiled, seq, Some(record_id), detail);
            return;
        }
    };
    let own_call = filing.correlation_keys.iter().find(|e| e.key == TOOL_CALL_KEY);
    let own_call = own_call.map(|e| e.value.as_ref());
    for (column, same, own) in [
        ("seq", filing.journal_seq == seq, filing.journal_seq.to_string()),
        ("record_id", filing.record_id == record_id, filing.record_id.to_string()),
        ("call", own_call == call, own_call.unwrap_or("none").to_owned()),
    ] {
        if !same {
            let detail = format!("filed under another {column} than the record's own, {own}");
            verifier.finding(Rule::RecordMisfiled, seq, Some(record_id), detail);
        }
    }
    for content in &filing.content_refs {
        // References of other forms point at content that is kept elsewhere.
        if let Ok(digest) = Digest::parse(content)
            && !contents.contains(digest.as_bytes())
        {
            let detail = format!("{digest} is missing or changed");
            verifier.finding(Rule::ContentMissing, seq, Some(record_id), detail);
        }
    }
}
