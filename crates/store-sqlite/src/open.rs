//! Opening a database, or refusing to.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use countersign_audit::checkpoint::{Checkpoint, CheckpointError};
use countersign_audit::key::PublicKey;
use countersign_audit::tree::{Frontier, Hash, Place, leaf_hash};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::schema::{APPLICATION_ID, TABLES, VERSION, node_row};

/// Why a database is not opened. Nothing has been changed in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file or its folder cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no database.
    #[error("{0}: no such database")]
    Missing(PathBuf),
    /// Another process has the database open for writing.
    #[error(
        "{0} is in use by another gateway; stop that one, or give this one a database of its own"
    )]
    InUse(PathBuf),
    /// The file is something else.
    #[error("{0} is not a Countersign database; move it away or name another path")]
    Foreign(PathBuf),
    /// The file was written by a later version.
    #[error(
        "{path} has schema version {found}, this program knows {VERSION}; use the version of \
         Countersign that wrote it, or a later one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file is damaged.
    #[error(
        "{path} is damaged: {what}; keep the file, run `countersign audit verify` on it, and \
         restore a copy that verifies"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The log was signed by another key.
    #[error("{path} belongs to another log key: {source}")]
    OtherKey {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: CheckpointError,
    },
}

impl OpenError {
    pub(crate) fn sql(path: &Path, error: &rusqlite::Error) -> Self {
        Self::Damaged { path: path.to_owned(), what: error.to_string() }
    }

    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// Reads the file's first bytes without SQLite, so that refusing touches nothing.
/// `Ok(false)` when there is no file, or an empty one.
pub(crate) fn check_header(path: &Path) -> Result<bool, OpenError> {
    let mut header = Vec::with_capacity(100);
    match File::open(path) {
        Ok(file) => {
            file.take(100).read_to_end(&mut header).map_err(|e| OpenError::io(path, e))?;
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(OpenError::io(path, e)),
    }
    if header.is_empty() {
        return Ok(false);
    }
    let number = |at: usize| {
        header.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
    };
    if !header.starts_with(b"SQLite format 3\0") || number(68) != APPLICATION_ID.cast_unsigned() {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    match number(60) {
        VERSION => Ok(true),
        found => Err(OpenError::Newer { path: path.to_owned(), found }),
    }
}

/// Held for as long as the database is open for writing.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] File);

pub(crate) fn lock(path: &Path) -> Result<Lock, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(|e| OpenError::io(&name, e))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(e)) => Err(OpenError::io(&name, e)),
    }
}

/// Makes the database under another name first: whoever is killed meanwhile leaves nothing
/// behind that could be taken for a database.
pub(crate) fn create(path: &Path) -> Result<(), OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(OpenError::io(&new, error));
        }
        _ => {}
    }
    let make = || -> rusqlite::Result<()> {
        let connection = Connection::open(&new)?;
        connection.execute_batch(&format!(
            "PRAGMA journal_mode=DELETE; BEGIN; PRAGMA application_id={APPLICATION_ID};
             PRAGMA user_version={VERSION}; {TABLES} COMMIT;"
        ))?;
        connection.close().map_err(|(_, error)| error)
    };
    make().map_err(|error| OpenError::sql(&new, &error))?;
    std::fs::rename(&new, path).map_err(|error| OpenError::io(path, error))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| OpenError::io(dir, error))
}

pub(crate) fn writer(path: &Path, max_bytes: Option<u64>) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000;
         PRAGMA cache_size=-4096; PRAGMA temp_store=MEMORY; PRAGMA trusted_schema=OFF;",
    )?;
    if let Some(max) = max_bytes {
        let page: u64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        connection.execute_batch(&format!("PRAGMA max_page_count={}", (max / page).max(1)))?;
    }
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

pub(crate) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("PRAGMA cache_size=-2048; PRAGMA trusted_schema=OFF;")?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

/// Every group ends with one, so this looks at the last row.
pub(crate) const LAST_CHECKPOINT: &str =
    "SELECT seq, checkpoint FROM records WHERE checkpoint IS NOT NULL ORDER BY seq DESC LIMIT 1";

pub(crate) fn node(connection: &Connection, place: Place) -> rusqlite::Result<Hash> {
    connection
        .prepare_cached("SELECT substr(nodes, ?2, 32) FROM records WHERE seq = ?1")?
        .query_row((node_row(place), 32 * u32::from(place.level) + 1), |row| row.get(0))
}

/// What in the schema is not as this program makes it: a trigger or a view could change what
/// is read and written.
pub(crate) fn foreign_schema(connection: &Connection) -> rusqlite::Result<Option<String>> {
    fn schema(connection: &Connection) -> rusqlite::Result<Vec<(String, String, String)>> {
        connection
            .prepare("SELECT type, name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    }
    let own = Connection::open_in_memory()?;
    own.execute_batch(TABLES)?;
    let (own, found) = (schema(&own)?, schema(connection)?);
    let strange = found.iter().find(|entry| !own.contains(entry));
    let missing = own.iter().find(|entry| !found.contains(entry));
    Ok(strange.or(missing).map(|(kind, name, _)| {
        format!("the {kind} `{name}` is missing, or not as Countersign makes it")
    }))
}

/// Takes up the tree where the last checkpoint left it, and holds the two against each other.
pub(crate) fn load_frontier(
    path: &Path,
    connection: &Connection,
    key: &PublicKey,
) -> Result<(Frontier, String), OpenError> {
    let damaged = |what: String| OpenError::Damaged { path: path.to_owned(), what };
    let sql = |e: rusqlite::Error| OpenError::sql(path, &e);
    if let Some(what) = foreign_schema(connection).map_err(sql)? {
        return Err(damaged(what));
    }
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql)?;
    if verdict != "ok" {
        return Err(damaged(verdict));
    }
    let (count, size): (u64, u64) = connection
        .query_row("SELECT count(*), coalesce(max(seq), 0) FROM records", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(sql)?;
    if count != size {
        return Err(damaged(format!("{} of its {size} records are missing", size - count)));
    }
    let last: Option<(u64, String)> = connection
        .query_row(LAST_CHECKPOINT, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(sql)?;
    let Some((covered, note)) = last else {
        return if size == 0 {
            Ok((Frontier::default(), String::new()))
        } else {
            Err(damaged(format!("it has {size} records and no checkpoint")))
        };
    };
    if covered != size {
        return Err(damaged(format!("the last checkpoint covers {covered} of {size} records")));
    }
    let checkpoint = Checkpoint::open(&note, key)
        .map_err(|source| OpenError::OtherKey { path: path.to_owned(), source })?;
    // Whoever starts from these records believes them, so every one is held against the root.
    let mut frontier = Frontier::default();
    let mut rows =
        connection.prepare("SELECT seq, bytes FROM records ORDER BY seq").map_err(sql)?;
    let mut rows = rows.query([]).map_err(sql)?;
    while let Some(row) = rows.next().map_err(sql)? {
        let bytes = row.get_ref(1).and_then(|bytes| Ok(bytes.as_bytes()?)).map_err(sql)?;
        frontier.push(leaf_hash(bytes), |_, _| ());
    }
    if checkpoint.size != size || checkpoint.root != frontier.root() {
        return Err(damaged("its records do not have the root that was signed".to_owned()));
    }
    Ok((frontier, note))
}
