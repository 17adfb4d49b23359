//! Recording, durable and covered when an append returns, beside group commit of the same rows with
//! the same duties but for the tree and the signature.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use countersign_core::journal::EncodedDraft;
use countersign_ports::journal::{Batch, Journal as _};
use countersign_store_sqlite::SqliteJournal;
use countersign_testkit::draft::draft;
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::{mpsc, oneshot};

use crate::audit::{key, processor};

/// Appends of one round, one record each, by so many callers at once.
const APPENDS: usize = 20_000;
const CALLERS: usize = 64;

/// Appends of one transaction, and how long the writer looks for the next: as the journal does.
const GROUP_MAX: usize = 1024;
const LOOK: Duration = Duration::from_micros(50);

type Request = (EncodedDraft, oneshot::Sender<u64>);

/// What the median round of an arm took.
#[derive(serde::Serialize)]
struct Arm {
    records_per_s: f64,
    processor_us: f64,
}

#[derive(serde::Serialize)]
pub(crate) struct Recorded {
    covered: Arm,
    bare: Arm,
    /// The median of what a round reaches as a share of the bare one beside it.
    share: f64,
    /// The same by processor time.
    processor_share: f64,
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, arm) in [
            ("recording, durable and covered", &self.covered),
            ("recording, no tree and no signature", &self.bare),
        ] {
            let Arm { records_per_s, processor_us } = arm;
            writeln!(f, "{what:<36} {records_per_s:>8.0}/s {processor_us:>7.1} µs processor each")?;
        }
        let (share, processor) = (self.share * 100.0, self.processor_share * 100.0);
        write!(f, "covered reaches {share:.0} % of it; by processor time {processor:.0} %")
    }
}

pub(crate) fn run(dir: &Path, rounds: usize) -> Recorded {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut taken = Vec::new();
    for round in 0..rounds.max(2) {
        let covered = {
            let dir = tempfile::tempdir_in(dir).unwrap();
            let path = dir.path().join("journal.db");
            let journal = Arc::new(SqliteJournal::open(&path, Arc::new(key()), None).unwrap());
            timed(&runtime, round, move |draft| {
                let journal = Arc::clone(&journal);
                async move {
                    let batch = Batch { drafts: vec![draft], contents: Vec::new() };
                    journal.append(batch).await.unwrap().seqs[0]
                }
            })
        };
        let bare = {
            let dir = tempfile::tempdir_in(dir).unwrap();
            let connection = database(&dir.path().join("bare.db"));
            let (to, requests) = mpsc::channel::<Request>(4096);
            let writer = std::thread::spawn(move || write(&connection, requests));
            let times = timed(&runtime, round, move |draft| {
                let to = to.clone();
                async move {
                    let (reply, answer) = oneshot::channel();
                    to.send((draft, reply)).await.unwrap();
                    answer.await.unwrap()
                }
            });
            writer.join().unwrap();
            times
        };
        taken.push((covered, bare));
    }
    taken.remove(0);
    let median = |pick: &dyn Fn(&Round) -> f64| {
        let mut all: Vec<f64> = taken.iter().map(pick).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let each = 1e6 / APPENDS as f64;
    let arm = |wall: f64, processor: f64| Arm {
        records_per_s: APPENDS as f64 / wall,
        processor_us: processor * each,
    };
    Recorded {
        covered: arm(median(&|t| t.0.0), median(&|t| t.0.1)),
        bare: arm(median(&|t| t.1.0), median(&|t| t.1.1)),
        share: median(&|t| t.1.0 / t.0.0),
        processor_share: median(&|t| t.1.1 / t.0.1),
    }
}

/// Wall and processor time in seconds, of what is covered and of the bare commits.
type Round = ((f64, f64), (f64, f64));

/// Seconds by the clock and of the processor that all appends took.
fn timed<F, A>(runtime: &tokio::runtime::Runtime, round: usize, append: F) -> (f64, f64)
where
    F: Fn(EncodedDraft) -> A + Send + Sync + 'static,
    A: Future<Output = u64> + Send + 'static,
{
    let drafts: Vec<_> = (0..APPENDS)
        .map(|n| draft(&format!("record.{round}.{n}"), "bench", Some(&format!("call.{n}"))))
        .map(|draft| draft.encode().unwrap())
        .collect();
    let work = Arc::new((AtomicUsize::new(0), drafts, append));
    let (wall, cpu) = (Instant::now(), processor());
    runtime.block_on(async {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let work = Arc::clone(&work);
                tokio::spawn(async move {
                    let (next, drafts, append) = &*work;
                    while let Some(draft) = drafts.get(next.fetch_add(1, Ordering::Relaxed)) {
                        assert!(append(draft.clone()).await > 0);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
    });
    (wall.elapsed().as_secs_f64(), (processor() - cpu).as_secs_f64())
}

fn database(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000;
             PRAGMA cache_size=-4096; PRAGMA temp_store=MEMORY;
             CREATE TABLE records (seq INTEGER PRIMARY KEY, record_id TEXT NOT NULL, call TEXT,
                                   bytes BLOB NOT NULL) STRICT;
             CREATE UNIQUE INDEX records_by_id ON records (record_id);
             CREATE INDEX records_by_call ON records (call) WHERE call IS NOT NULL;",
        )
        .unwrap();
    connection
}

/// Makes whatever waits durable in one transaction: the same id is looked for, the same rows and
/// indexes are written, the same sync is waited for.
fn write(connection: &Connection, mut requests: mpsc::Receiver<Request>) {
    let mut size = 0;
    let mut group = Vec::new();
    while let Some(first) = next(&mut requests) {
        group.push(first);
        while group.len() < GROUP_MAX
            && let Ok(more) = requests.try_recv()
        {
            group.push(more);
        }
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut seqs = Vec::with_capacity(group.len());
        for (draft, _) in &group {
            let known: Option<u64> = connection
                .prepare_cached("SELECT seq FROM records WHERE record_id = ?1")
                .unwrap()
                .query_row([draft.record_id().as_str()], |row| row.get(0))
                .optional()
                .unwrap();
            assert_eq!(known, None);
            size += 1;
            connection
                .prepare_cached(
                    "INSERT INTO records (seq, record_id, call, bytes) VALUES (?1, ?2, ?3, ?4)",
                )
                .unwrap()
                .execute(params![size, draft.record_id().as_str(), draft.call(), draft.stamp(size)])
                .unwrap();
            seqs.push(size);
        }
        connection.execute_batch("COMMIT").unwrap();
        for ((_, reply), seq) in group.drain(..).zip(seqs) {
            reply.send(seq).unwrap();
        }
    }
}

fn next(requests: &mut mpsc::Receiver<Request>) -> Option<Request> {
    let start = Instant::now();
    while start.elapsed() < LOOK {
        match requests.try_recv() {
            Ok(request) => return Some(request),
            Err(mpsc::error::TryRecvError::Disconnected) => return None,
            Err(mpsc::error::TryRecvError::Empty) => std::thread::yield_now(),
        }
    }
    requests.blocking_recv()
}
