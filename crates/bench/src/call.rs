//! Governed calls without the tool's own time: planned, fingerprinted, announced, "run" by an
//! executor that does nothing, recorded, and answered with a receipt. Two durable, signed,
//! acknowledged appends each, with arguments that differ from call to call.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use countersign_audit::key::LogKey;
use countersign_core::id::AgentId;
use countersign_escalation::Limits;
use countersign_kernel::{Kernel, Parts, Policy};
use countersign_manifest::{EnvelopeStatus, ManifestSet};
use countersign_ports::clock::Clock;
use countersign_ports::entropy::{Entropy, EntropyError};
use countersign_ports::executor::ExecutionStatus;
use countersign_ports::journal::{Batch, Journal};
use countersign_ports::memory::FnExecutor;
use countersign_store_sqlite::SqliteJournal;
use countersign_testkit::draft::draft;
use serde_json::{Map, Value, json};

use crate::{Figures, Options, disk, figures, median};

const TOOL: &str = r#"
[tool]
name = "measure"
version = "1.0.0"
description = "Does nothing, governed."
binary = "true"
[args.name]
type = "string"
required = true
[args.number]
type = "integer"
[args.path]
type = "path"
[args.kind]
type = "enum"
allowed = ["one", "two"]
[args.flag]
type = "boolean"
[command]
exec = ["true", "--name={name}", "--number={number}", "--kind={kind}", "--flag={flag}", "{path}"]
[output]
format = "text"
[output.schema]
type = "object"
"#;

struct Now;

impl Clock for Now {
    fn now_millis(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        since.as_millis() as u64
    }
}

struct Os;

impl Entropy for Os {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(buffer).map_err(|error| EntropyError(error.to_string()))
    }
}

fn key() -> Arc<LogKey> {
    Arc::new(LogKey::from_seed("bench", &[7; 32]).unwrap())
}

pub(crate) fn run(options: &Options) {
    std::fs::create_dir_all(&options.dir).unwrap();
    let time = Duration::from_secs_f64(options.seconds);
    if options.alone {
        for callers in &options.callers {
            println!("{callers} callers: {:?}", calls(&options.dir, *callers, time));
        }
        return;
    }
    let (record_bytes, call_bytes) = sizes(&options.dir);
    let mut rows = Vec::new();
    for callers in options.callers.iter().copied() {
        let (mut governed, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            governed.push(calls(&options.dir, callers, time));
            bare.push(disk::group_commits(&options.dir, callers, call_bytes / 2, time));
        }
        rows.push((callers, median(governed), median(bare)));
    }
    let (mut append, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        append.push(appends(&options.dir, 1, time));
        bare.push(disk::group_commits(&options.dir, 1, record_bytes, time));
    }
    let (append, bare) = (median(append), median(bare));
    let many = median((0..options.rounds).map(|_| appends(&options.dir, 64, time)).collect());
    if options.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(callers, governed, bare)| {
                json!({ "callers": callers, "governed": governed, "bare_commits": bare })
            })
            .collect();
        println!(
            "{}",
            json!({ "record_bytes": record_bytes, "bytes_per_call": call_bytes, "calls": rows,
                    "append": append, "bare_fdatasync": bare,
                    "append_ratio": append.p50_us / bare.p50_us, "append_64": many })
        );
        return;
    }
    println!("A governed call is two appends, {call_bytes} bytes of records and content in all.");
    println!("Bare: group commits of the same bytes, one write and one fdatasync each; two of");
    println!("them are the least a call can cost.\n");
    println!(
        "callers   governed calls/s     p50 µs     p99 µs   bare commits/s     p50 µs   of the limit"
    );
    for (callers, governed, bare) in rows {
        println!(
            "{callers:7}   {:16.0} {:10.0} {:10.0} {:16.0} {:10.0} {:13.0}%",
            governed.per_second,
            governed.p50_us,
            governed.p99_us,
            bare.per_second,
            bare.p50_us,
            100.0 * governed.per_second / (bare.per_second / 2.0)
        );
    }
    println!(
        "\nOne caller's append of {record_bytes} bytes: {:.0} µs (p99 {:.0}), one bare fdatasync of them: \
         {:.0} µs; ratio {:.2}",
        append.p50_us,
        append.p99_us,
        bare.p50_us,
        append.p50_us / bare.p50_us
    );
    println!("64 callers' appends: {:.0} per second, p50 {:.0} µs", many.per_second, many.p50_us);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn kernel(dir: &Path) -> (Kernel, Arc<SqliteJournal>) {
    let (manifests, problems) = ManifestSet::load([("measure".to_owned(), TOOL.to_owned())]);
    assert!(problems.is_empty(), "{problems:?}");
    let journal = Arc::new(SqliteJournal::open(&dir.join("journal.db"), key(), None).unwrap());
    let executor = FnExecutor(|_: &_| (ExecutionStatus::Exited(0), b"ok\n".to_vec()));
    let (kernel, _) = Kernel::start(Parts {
        journal: journal.clone(),
        clock: Arc::new(Now),
        entropy: Arc::new(Os),
        executor: Arc::new(executor),
        manifests,
        policy: Policy::default(),
        limits: Limits::default(),
        hooks: Vec::new(),
        notifiers: Vec::new(),
        version: "bench".into(),
    })
    .await
    .unwrap();
    (kernel, journal)
}

fn arguments(n: u64) -> Map<String, Value> {
    let value = json!({ "name": format!("caller-{n}"), "number": n, "path": "docs/notes.md",
                        "kind": "two", "flag": true });
    value.as_object().unwrap().clone()
}

fn calls(dir: &Path, callers: usize, time: Duration) -> Figures {
    let dir = tempfile::tempdir_in(dir).unwrap();
    runtime().block_on(async {
        let (kernel, _) = kernel(dir.path()).await;
        let next = Arc::new(AtomicU64::new(0));
        // The write-ahead log has grown to its size before anything is measured.
        let run = kernel.run_start(AgentId::new("bench").unwrap(), None, "warm up").await.unwrap();
        for _ in 0..300 {
            kernel.govern(&run, "measure", &arguments(next.fetch_add(1, Ordering::Relaxed))).await;
        }
        let start = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (kernel, next) = (kernel.clone(), next.clone());
                tokio::spawn(async move {
                    let agent = AgentId::new("bench").unwrap();
                    let run = kernel.run_start(agent, None, "measurement").await.unwrap();
                    let mut latencies = Vec::new();
                    while start.elapsed() < time {
                        let args = arguments(next.fetch_add(1, Ordering::Relaxed));
                        let begin = Instant::now();
                        let governed = kernel.govern(&run, "measure", &args).await;
                        latencies.push(begin.elapsed());
                        assert_eq!(governed.envelope.status, EnvelopeStatus::Success);
                        assert!(governed.receipt.is_some());
                    }
                    latencies
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await.unwrap());
        }
        figures(latencies, start.elapsed())
    })
}

fn appends(dir: &Path, callers: usize, time: Duration) -> Figures {
    let dir = tempfile::tempdir_in(dir).unwrap();
    runtime().block_on(async {
        let journal =
            Arc::new(SqliteJournal::open(&dir.path().join("journal.db"), key(), None).unwrap());
        let next = Arc::new(AtomicU64::new(0));
        let one = |journal: Arc<SqliteJournal>, n: u64| async move {
            let draft = draft(&format!("journal.record.{n}"), &"x".repeat(600), None);
            let batch = Batch { drafts: vec![draft.encode().unwrap()], contents: Vec::new() };
            let begin = Instant::now();
            journal.append(batch).await.unwrap();
            begin.elapsed()
        };
        for _ in 0..1000 {
            one(journal.clone(), next.fetch_add(1, Ordering::Relaxed)).await;
        }
        let start = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (journal, next) = (journal.clone(), next.clone());
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    while start.elapsed() < time {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        latencies.push(one(journal.clone(), n).await);
                    }
                    latencies
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await.unwrap());
        }
        figures(latencies, start.elapsed())
    })
}

/// Bytes of one bare record as `appends` writes it, and of all records and content of one
/// governed call, as they are stored.
fn sizes(dir: &Path) -> (usize, usize) {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let record = draft("journal.record.1", &"x".repeat(600), None).encode().unwrap().stamp(1).len();
    let call = runtime().block_on(async {
        let (kernel, journal) = kernel(dir.path()).await;
        let run = kernel.run_start(AgentId::new("bench").unwrap(), None, "size").await.unwrap();
        kernel.govern(&run, "measure", &arguments(1)).await;
        let records = journal.read(2, 2).await.unwrap();
        let content = serde_json::to_vec(&arguments(1)).unwrap().len() + 3;
        records.iter().map(|entry| entry.bytes.len()).sum::<usize>() + content
    });
    (record, call)
}
