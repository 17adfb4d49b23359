//! The single writer: takes whatever is waiting, and makes it durable in one transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::Signer;
use countersign_audit::tree::{Frontier, Hash, Place, inclusion_proof, leaf_hash};
use countersign_core::digest::Digest;
use countersign_core::journal::EncodedDraft;
use countersign_ports::journal::{AppendError, Batch, Committed, Content, Coverage};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::open::node;

/// Appends of one transaction; bounds its memory and the wait of the first in it.
const GROUP_MAX: usize = 1024;

pub(crate) struct Request {
    pub(crate) batch: Batch,
    pub(crate) reply: oneshot::Sender<Result<Committed, AppendError>>,
}

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) frontier: Frontier,
    pub(crate) note: Arc<str>,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) head: watch::Sender<u64>,
}

/// Why a whole group failed.
enum GroupError {
    /// The transaction was taken back; the next one may succeed.
    TakenBack(AppendError),
    /// What is on disk is not known any more.
    Stop(String),
}

impl From<rusqlite::Error> for GroupError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::TooBig) => {
                Self::TakenBack(AppendError::NoRoom(error.to_string()))
            }
            _ => Self::Stop(error.to_string()),
        }
    }
}

type Outcome = Result<Committed, AppendError>;

/// How long the writer looks for the next append before it sleeps. Being woken takes about as
/// long, and one caller's next append comes about as soon.
const LOOK: Duration = Duration::from_micros(50);

fn next(requests: &mut mpsc::Receiver<Request>) -> Option<Request> {
    let start = Instant::now();
    while start.elapsed() < LOOK {
        match requests.try_recv() {
            Ok(request) => return Some(request),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => std::thread::yield_now(),
        }
    }
    requests.blocking_recv()
}

impl Writer {
    /// Serves appends until every sender is gone, then folds the WAL into the database.
    pub(crate) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut stopped: Option<String> = None;
        let mut group = Vec::with_capacity(64);
        while let Some(first) = next(&mut requests) {
            group.push(first);
            while group.len() < GROUP_MAX {
                let Ok(next) = requests.try_recv() else { break };
                group.push(next);
            }
            let outcomes = match &stopped {
                Some(why) => Err(AppendError::Stopped(why.clone())),
                None => self.commit(&group).map_err(|error| match error {
                    GroupError::TakenBack(error) => error,
                    GroupError::Stop(why) => {
                        stopped = Some(why.clone());
                        AppendError::Stopped(why)
                    }
                }),
            };
            // A caller that has gone away does not need its answer.
            match outcomes {
                Ok(outcomes) => group.drain(..).zip(outcomes).for_each(|(request, outcome)| {
                    let _ = request.reply.send(outcome);
                }),
                Err(error) => group.drain(..).for_each(|request| {
                    let _ = request.reply.send(Err(error.clone()));
                }),
            }
        }
        if stopped.is_none() {
            // Failing to tidy up loses nothing: the WAL is replayed when the file is opened.
            let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        }
    }

    fn commit(&mut self, group: &[Request]) -> Result<Vec<Outcome>, GroupError> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let result = self.fill(group).and_then(|filled| {
            self.connection.execute_batch("COMMIT")?;
            Ok(filled)
        });
        match result {
            Ok((frontier, note, outcomes)) => {
                self.frontier = frontier;
                self.note = note;
                self.head.send_replace(self.frontier.size());
                Ok(outcomes)
            }
            Err(GroupError::TakenBack(error)) => {
                // SQLite may have rolled back by itself, as it does when the disk is full.
                if !self.connection.is_autocommit()
                    && let Err(error) = self.connection.execute_batch("ROLLBACK")
                {
                    return Err(GroupError::Stop(error.to_string()));
                }
                Err(GroupError::TakenBack(error))
            }
            Err(stop) => Err(stop),
        }
    }

    fn fill(&self, group: &[Request]) -> Result<(Frontier, Arc<str>, Vec<Outcome>), GroupError> {
        let mut filling = Filling::new(&self.connection, &self.frontier);
        let placed = group
            .iter()
            .map(|request| filling.place(&request.batch))
            .collect::<Result<Vec<_>, GroupError>>()?;
        let Filling { frontier, nodes, rows, contents, .. } = filling;
        let size = frontier.size();
        let note: Arc<str> = if rows.is_empty() {
            self.note.clone()
        } else {
            Checkpoint::sign(size, frontier.root(), &*self.signer)
                .map_err(|error| GroupError::TakenBack(AppendError::NotSigned(error.to_string())))?
                .into()
        };
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO records (seq, nodes, checkpoint, record_id, call, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for row in &rows {
            let checkpoint = (row.seq == size).then_some(&*note);
            insert.execute(params![
                row.seq,
                row.nodes,
                checkpoint,
                row.draft.record_id().as_str(),
                row.draft.call(),
                row.bytes
            ])?;
        }
        let mut insert = self
            .connection
            .prepare_cached("INSERT INTO contents (seq, digest, bytes) VALUES (?1, ?2, ?3)")?;
        for (seq, content) in contents {
            insert.execute(params![seq, content.digest().as_bytes(), content.bytes()])?;
        }
        let outcomes = placed
            .into_iter()
            .map(|placed| {
                let seqs = match placed {
                    Ok(seqs) => seqs,
                    Err(conflict) => return Ok(Err(conflict)),
                };
                let coverage = match seqs.last() {
                    None => None,
                    Some(seq) => inclusion_proof(seq - 1, size, |place| {
                        let new = nodes.get(&place).copied();
                        new.map_or_else(|| node(&self.connection, place), Ok)
                    })?
                    .map(|proof| Coverage { proof, checkpoint: note.clone() }),
                };
                Ok(Ok(Committed { seqs, coverage }))
            })
            .collect::<Result<_, GroupError>>()?;
        Ok((frontier, note, outcomes))
    }
}

/// A record that is about to be written.
struct Row<'a> {
    seq: u64,
    nodes: Vec<u8>,
    draft: &'a EncodedDraft,
    bytes: Vec<u8>,
}

/// A group on its way into the tables.
struct Filling<'a> {
    connection: &'a Connection,
    frontier: Frontier,
    /// What inclusion proofs of this group's records need: the old peaks and all new nodes.
    nodes: HashMap<Place, Hash>,
    rows: Vec<Row<'a>>,
    contents: Vec<(u64, &'a Content)>,
    /// The group's own records, which are not in the tables yet.
    known: HashMap<&'a str, (u64, &'a EncodedDraft)>,
}

impl<'a> Filling<'a> {
    fn new(connection: &'a Connection, frontier: &Frontier) -> Self {
        Self {
            connection,
            frontier: frontier.clone(),
            nodes: frontier.peaks().collect(),
            rows: Vec::new(),
            contents: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// Takes a batch in, or nothing of it when one of its ids is taken by other content.
    fn place(&mut self, batch: &'a Batch) -> Result<Result<Vec<u64>, AppendError>, GroupError> {
        let mut fresh: Vec<(u64, &EncodedDraft)> = Vec::with_capacity(batch.drafts.len());
        let mut seqs = Vec::with_capacity(batch.drafts.len());
        let mut next = self.frontier.size();
        for draft in &batch.drafts {
            let id = draft.record_id();
            let earlier = fresh.iter().find(|(_, earlier)| earlier.record_id() == id).copied();
            let stored = match earlier.or_else(|| self.known.get(id.as_str()).copied()) {
                Some((seq, earlier)) => Some((seq, earlier.stamp(seq))),
                None => self
                    .connection
                    .prepare_cached("SELECT seq, bytes FROM records WHERE record_id = ?1")?
                    .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?,
            };
            match stored {
                Some((seq, bytes)) if draft.same_content(&bytes) => seqs.push(seq),
                Some((seq, bytes)) => {
                    return Ok(Err(AppendError::Conflict {
                        record_id: id.clone(),
                        stored: Digest::of(bytes),
                        offered: Digest::of(draft.stamp(seq)),
                    }));
                }
                None => {
                    next += 1;
                    fresh.push((next, draft));
                    seqs.push(next);
                }
            }
        }
        for (seq, draft) in fresh {
            let bytes = draft.stamp(seq);
            let mut nodes = Vec::with_capacity(64);
            self.frontier.push(leaf_hash(&bytes), |place, hash| {
                nodes.extend_from_slice(&hash);
                self.nodes.insert(place, hash);
            });
            self.known.insert(draft.record_id().as_str(), (seq, draft));
            self.rows.push(Row { seq, nodes, draft, bytes });
            if Some(&seq) == seqs.first() {
                self.contents.extend(batch.contents.iter().map(|content| (seq, content)));
            }
        }
        Ok(Ok(seqs))
    }
}
