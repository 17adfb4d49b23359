//! The single writer: takes whatever is waiting, and makes it durable in one transaction.

use std::collections::HashMap;
use std::sync::Arc;

use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::Signer;
use countersign_audit::tree::{Frontier, Hash, Place, inclusion_proof, leaf_hash};
use countersign_core::digest::Digest;
use countersign_core::journal::EncodedDraft;
use countersign_ports::journal::{AppendError, Batch, Committed, Coverage};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use tokio::sync::{mpsc, oneshot, watch};

use crate::open::node;
use crate::schema::node_key;

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
            Some(ErrorCode::DiskFull) => Self::TakenBack(AppendError::NoRoom(error.to_string())),
            _ => Self::Stop(error.to_string()),
        }
    }
}

type Outcome = Result<Committed, AppendError>;

impl Writer {
    /// Serves appends until every sender is gone, then folds the WAL into the database.
    pub(crate) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut stopped: Option<String> = None;
        let mut group = Vec::with_capacity(64);
        while let Some(first) = requests.blocking_recv() {
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
        let mut frontier = self.frontier.clone();
        let mut nodes: HashMap<Place, Hash> = frontier.peaks().collect();
        let mut placed = Vec::with_capacity(group.len());
        for request in group {
            placed.push(self.place(&request.batch, &mut frontier, &mut nodes)?);
        }
        let size = frontier.size();
        let note = if size == self.frontier.size() {
            self.note.clone()
        } else {
            let note = Checkpoint::sign(size, frontier.root(), &*self.signer).map_err(|error| {
                GroupError::TakenBack(AppendError::NotSigned(error.to_string()))
            })?;
            self.connection
                .prepare_cached("INSERT INTO checkpoints (size, note) VALUES (?1, ?2)")?
                .execute(params![size, note])?;
            Arc::from(note)
        };
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
                        nodes
                            .get(&place)
                            .copied()
                            .map_or_else(|| node(&self.connection, node_key(place)), Ok)
                    })?
                    .map(|proof| Coverage { proof, checkpoint: note.clone() }),
                };
                Ok(Ok(Committed { seqs, coverage }))
            })
            .collect::<Result<_, GroupError>>()?;
        Ok((frontier, note, outcomes))
    }

    /// Writes one batch, or nothing of it when one of its ids is taken by other content.
    fn place(
        &self,
        batch: &Batch,
        frontier: &mut Frontier,
        nodes: &mut HashMap<Place, Hash>,
    ) -> Result<Result<Vec<u64>, AppendError>, GroupError> {
        let mut known: HashMap<&str, (u64, Option<&EncodedDraft>)> = HashMap::new();
        let mut next = frontier.size();
        let mut plan = Vec::with_capacity(batch.drafts.len());
        for draft in &batch.drafts {
            let id = draft.record_id().as_str();
            let stored = match known.get(id) {
                Some((seq, Some(earlier))) => Some((*seq, earlier.stamp(*seq))),
                Some((_, None)) | None => self
                    .connection
                    .prepare_cached("SELECT seq, bytes FROM records WHERE record_id = ?1")?
                    .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?,
            };
            match stored {
                Some((seq, bytes)) if draft.same_content(&bytes) => plan.push((seq, false)),
                Some((seq, bytes)) => {
                    return Ok(Err(AppendError::Conflict {
                        record_id: draft.record_id().clone(),
                        stored: Digest::of(bytes),
                        offered: Digest::of(draft.stamp(seq)),
                    }));
                }
                None => {
                    next += 1;
                    known.insert(id, (next, Some(draft)));
                    plan.push((next, true));
                }
            }
        }
        for content in &batch.contents {
            self.connection
                .prepare_cached("INSERT OR IGNORE INTO contents (digest, bytes) VALUES (?1, ?2)")?
                .execute(params![content.digest().as_bytes(), content.bytes()])?;
        }
        for (draft, (seq, _)) in batch.drafts.iter().zip(&plan).filter(|(_, (_, new))| *new) {
            let bytes = draft.stamp(*seq);
            self.connection
                .prepare_cached(
                    "INSERT INTO records (seq, record_id, call, bytes) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![seq, draft.record_id().as_str(), draft.call(), bytes])?;
            let mut closed = Vec::with_capacity(2);
            frontier.push(leaf_hash(&bytes), |place, hash| closed.push((place, hash)));
            for (place, hash) in closed {
                self.connection
                    .prepare_cached("INSERT INTO nodes (place, hash) VALUES (?1, ?2)")?
                    .execute(params![node_key(place), hash])?;
                nodes.insert(place, hash);
            }
        }
        Ok(Ok(plan.into_iter().map(|(seq, _)| seq).collect()))
    }
}
