//! The journal port on a database file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use countersign_audit::key::Signer;
use countersign_audit::tiles;
use countersign_core::digest::Digest;
use countersign_ports::journal::{
    AppendError, Batch, Committed, Coverage, Entry, Journal, ReadError,
};
use countersign_ports::log::{Log, Proven};
use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::{mpsc, oneshot, watch};

use crate::append::{Request, Writer};
use crate::open::{self, Lock, OpenError};
use crate::prove::ProofError;
use crate::verify::LogReader;

/// Appends that may wait for the writer before a caller has to wait to be let in.
const QUEUE: usize = 4096;

/// A journal in one SQLite file, which no other process can open for writing meanwhile.
///
/// Dropping it waits until everything that was handed in is durable.
pub struct SqliteJournal {
    requests: Option<mpsc::Sender<Request>>,
    head: watch::Receiver<u64>,
    readers: Arc<Readers>,
    writer: Option<JoinHandle<()>>,
    _lock: Lock,
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<LogReader>>,
}

impl SqliteJournal {
    /// Opens the database, or makes one where there is none. The signer's key is the only one
    /// this log accepts.
    ///
    /// `max_bytes` bounds the database file; an append that would exceed it is refused with
    /// [`AppendError::NoRoom`].
    ///
    /// # Errors
    /// When the file is in use, of another program, newer, damaged or of another key. It is
    /// left as it was.
    pub fn open(
        path: &Path,
        signer: Arc<dyn Signer>,
        max_bytes: Option<u64>,
    ) -> Result<Self, OpenError> {
        let exists = open::check_header(path)?;
        let lock = open::lock(path)?;
        if !exists {
            open::create(path)?;
        }
        let sql = |e: rusqlite::Error| OpenError::sql(path, &e);
        let connection = open::writer(path, max_bytes).map_err(sql)?;
        let (frontier, note) = open::load_frontier(path, &connection, signer.public())?;
        let (head_sender, head) = watch::channel(frontier.size());
        let (requests, receiver) = mpsc::channel(QUEUE);
        let writer = Writer { connection, frontier, note: note.into(), signer, head: head_sender };
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let readers = Readers { path: path.to_owned(), idle: Mutex::new(Vec::new()) };
        Ok(Self {
            requests: Some(requests),
            head,
            readers: Arc::new(readers),
            writer: Some(writer),
            _lock: lock,
        })
    }

    async fn with_reader<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.with_log(move |reader| {
            work(&reader.connection).map_err(|error| ReadError(error.to_string()))
        })
        .await
    }

    async fn with_log<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LogReader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let readers = Arc::clone(&self.readers);
        let done = tokio::task::spawn_blocking(move || {
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let reader = match idle {
                Some(reader) => reader,
                None => LogReader {
                    path: readers.path.clone(),
                    connection: open::reader(&readers.path)
                        .map_err(|error| ReadError(error.to_string()))?,
                },
            };
            let result = work(&reader);
            let mut idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < 4 {
                idle.push(reader);
            }
            result
        });
        done.await.map_err(|error| ReadError(error.to_string()))?
    }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn entries(
    statement: &mut rusqlite::CachedStatement<'_>,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Entry>> {
    statement.query_map(params, |row| Ok(Entry { seq: row.get(0)?, bytes: row.get(1)? }))?.collect()
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn append(&self, batch: Batch) -> Result<Committed, AppendError> {
        let closed = || AppendError::Stopped("it was closed".to_owned());
        let requests = self.requests.as_ref().ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        requests.send(Request { batch, reply }).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(AppendError::Stopped("its writer died".to_owned())))
    }

    async fn read(&self, from: u64, limit: usize) -> Result<Vec<Entry>, ReadError> {
        self.with_reader(move |connection| {
            entries(
                &mut connection.prepare_cached(
                    "SELECT seq, bytes FROM records WHERE seq >= ?1 ORDER BY seq LIMIT ?2",
                )?,
                (from, limit),
            )
        })
        .await
    }

    async fn read_call(&self, call: &str) -> Result<Vec<Entry>, ReadError> {
        let call = call.to_owned();
        self.with_reader(move |connection| {
            entries(
                &mut connection.prepare_cached(
                    "SELECT seq, bytes FROM records WHERE call = ?1 ORDER BY seq",
                )?,
                [call],
            )
        })
        .await
    }

    async fn content(&self, seq: u64, digest: Digest) -> Result<Option<Vec<u8>>, ReadError> {
        self.with_reader(move |connection| {
            connection
                .prepare_cached("SELECT bytes FROM contents WHERE seq = ?1 AND digest = ?2")?
                .query_row((seq, digest.as_bytes()), |row| row.get(0))
                .optional()
        })
        .await
    }

    async fn coverage(&self, seq: u64) -> Result<Option<Coverage>, ReadError> {
        Ok(self.proven(seq).await?.map(|proven| proven.coverage))
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }
}

fn read_error(error: &ProofError) -> ReadError {
    ReadError(error.to_string())
}

#[async_trait]
impl Log for SqliteJournal {
    async fn checkpoint(&self) -> Result<Option<String>, ReadError> {
        self.with_log(|reader| reader.checkpoint().map_err(|e| ReadError(e.to_string()))).await
    }

    async fn tile(&self, path: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let Some((row, index, width)) = tiles::parse(path) else { return Ok(None) };
        self.with_log(move |reader| {
            reader.tile(row, index, width).map_err(|error| read_error(&error))
        })
        .await
    }

    async fn proven(&self, seq: u64) -> Result<Option<Proven>, ReadError> {
        self.with_log(move |reader| match reader.proven(seq) {
            Ok(proven) => Ok(Some(proven)),
            Err(ProofError::Empty | ProofError::Record(_)) => Ok(None),
            Err(error) => Err(read_error(&error)),
        })
        .await
    }
}
