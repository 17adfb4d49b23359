//! Reading a database offline: for the verifier, and for people.

use std::path::{Path, PathBuf};

use countersign_audit::key::PublicKey;
use countersign_audit::tree::Frontier;
use countersign_audit::verify::{Report, Rule, StoredRecord, Verifier};
use countersign_core::digest::Digest;
use countersign_core::journal::TOOL_CALL_KEY;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement, Transaction};
use serde::Deserialize;

use crate::open::{self, OpenError};
use crate::wal;

/// A database opened read-only, also while a gateway writes to it.
#[derive(Debug)]
pub struct LogReader {
    pub(crate) path: PathBuf,
    pub(crate) connection: Connection,
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
        if i64::try_from(from).is_err() {
            return Ok(Vec::new());
        }
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
            .query_row(open::LAST_CHECKPOINT, [], |row| row.get(1))
            .optional()
            .map_err(|e| OpenError::sql(&self.path, &e))
    }

    /// Holds everything in the database against the key, and what the records say against the
    /// rules. `progress` is told the records read and the records there are.
    ///
    /// # Errors
    /// Only when the file cannot be read at all; damage is a finding.
    pub fn verify(
        &mut self,
        key: &PublicKey,
        progress: impl FnMut(u64, u64),
    ) -> Result<Report, OpenError> {
        self.verify_by(Verifier::new(key).with_meaning(), progress)
    }

    /// The same, by a verifier that was told what to look at.
    ///
    /// # Errors
    /// Only when the file cannot be read at all; damage is a finding.
    pub fn verify_by(
        &mut self,
        mut verifier: Verifier<'_>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Report, OpenError> {
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
    if let Some(what) = open::foreign_schema(db)? {
        verifier.finding(Rule::StoreDamaged, 0, None, what);
    }
    let total = db.query_row("SELECT count(*) FROM records", [], |row| row.get(0))?;
    let mut records = db.prepare(
        "SELECT seq, record_id, call, bytes, nodes, checkpoint FROM records ORDER BY seq",
    )?;
    let mut contents = db.prepare("SELECT digest, bytes FROM contents WHERE seq = ?1")?;
    let mut rows = records.query([])?;
    let mut tree = Frontier::default();
    let mut last = 0;
    while let Some(row) = rows.next()? {
        let (seq, bytes): (u64, &[u8]) = (row.get(0)?, row.get_ref(3)?.as_bytes()?);
        let (record_id, call): (&str, Option<&str>) =
            (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str_or_null()?);
        let stored: &[u8] = row.get_ref(4)?.as_bytes()?;
        let leaf = stored.first_chunk::<32>().copied();
        let mut nodes = Vec::with_capacity(stored.len());
        tree.push(leaf.unwrap_or_default(), |_, hash| nodes.extend_from_slice(&hash));
        verifier.record(StoredRecord { seq, record_id, bytes, leaf });
        if nodes != stored {
            let detail = "its tree nodes are not those of the leaves below them".to_owned();
            verifier.finding(Rule::StoreDamaged, seq, Some(record_id), detail);
        }
        let present = check_contents(verifier, &mut contents, seq, record_id)?;
        check_filing(db, verifier, (seq, record_id, call), bytes, &present)?;
        let checkpoint = row.get_ref(5)?;
        if checkpoint != ValueRef::Null {
            // A note that is no text any more is a changed note, and is reported as such.
            verifier.checkpoint(seq, &String::from_utf8_lossy(checkpoint.as_bytes()?));
        }
        last = seq;
        if seq.is_multiple_of(1024) {
            progress(seq, total);
        }
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

/// Hashes the content filed under a record, and returns the digests that are there and right.
fn check_contents(
    verifier: &mut Verifier<'_>,
    statement: &mut Statement<'_>,
    seq: u64,
    record_id: &str,
) -> rusqlite::Result<Vec<Digest>> {
    let mut rows = statement.query([seq])?;
    let mut present = Vec::new();
    while let Some(row) = rows.next()? {
        let filed = row.get_ref(0)?.as_bytes()?;
        let found = Digest::of(row.get_ref(1)?.as_bytes()?);
        if found.as_bytes() == filed {
            present.push(found);
        } else {
            let filed = <[u8; 32]>::try_from(filed).map(Digest::from_bytes);
            let filed = filed.map_or("no digest".to_owned(), |digest| digest.to_string());
            let detail = format!("content filed as {filed}, its bytes give {found}");
            verifier.finding(Rule::ContentChanged, seq, Some(record_id), detail);
        }
    }
    Ok(present)
}

/// Whether an earlier record of the same call brought the content.
fn brought_earlier(
    db: &Transaction<'_>,
    call: Option<&str>,
    seq: u64,
    digest: &Digest,
) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM records r JOIN contents c ON c.seq = r.seq
         WHERE r.call = ?1 AND r.seq < ?2 AND c.digest = ?3",
    )?
    .exists((call, seq, digest.as_bytes()))
}

fn check_filing(
    db: &Transaction<'_>,
    verifier: &mut Verifier<'_>,
    (seq, record_id, call): (u64, &str, Option<&str>),
    bytes: &[u8],
    present: &[Digest],
) -> rusqlite::Result<()> {
    let filing: Filing<'_> = match serde_json::from_slice(bytes) {
        Ok(filing) => filing,
        Err(error) => {
            let detail = format!("the bytes are no journal record: {error}");
            verifier.finding(Rule::RecordMisfiled, seq, Some(record_id), detail);
            return Ok(());
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
            && !present.contains(&digest)
            && !brought_earlier(db, call, seq, &digest)?
        {
            let detail = format!("{digest} is missing or changed");
            verifier.finding(Rule::ContentMissing, seq, Some(record_id), detail);
        }
    }
    Ok(())
}
