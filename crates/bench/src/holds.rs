//! Held calls: what a round trip costs with many others pending, how fast a full queue fills
//! and drains, how much memory a pending hold takes, and what listing does to all that; with
//! a recorder in memory, and with the SQLite journal beside bare group commits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use countersign_audit::key::LogKey;
use countersign_core::digest::Digest;
use countersign_core::hold::{Approver, Decision, DecisionKind, HoldKind, HoldStatus, Surface};
use countersign_core::id::{AgentId, ApprovalRequestId};
use countersign_escalation::{
    EscalationQueue, Held, HoldRequest, Limits, Outcome, RecordError, Recorder, Waiting,
};
use countersign_ports::clock::Clock;
use countersign_ports::journal::{Batch, Journal};
use countersign_store_sqlite::SqliteJournal;
use countersign_testkit::draft::draft;
use serde_json::json;

use crate::{Figures, disk, figures, median};

const TIMEOUT: Duration = Duration::from_secs(3600);

/// Bytes of a record of an outcome, beside what every record has.
const RECORD: usize = 600;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds of each measurement of round trips
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Rounds; the first is discarded, the medians of the others are shown
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// How many others are pending
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 10_000, 100_000, 1_000_000])]
    pending: Vec<usize>,
    /// How many are filled in and drained, listed from, and measured for memory
    #[arg(long, default_value_t = 100_000)]
    full: usize,
    /// Where to write; must be on the disk that is to be measured
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// A look at everything within seconds: the figures say little
    #[arg(long)]
    short: bool,
    /// Only filling and draining, by so many tasks, without anything beside it: for a profiler
    #[arg(long, value_name = "TASKS")]
    alone: Option<usize>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

struct Now;

impl Clock for Now {
    fn now_millis(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
    }
}

/// Counts what it is given.
#[derive(Default)]
struct InMemory(AtomicU64);

#[async_trait]
impl Recorder for InMemory {
    async fn record(&self, _: &Held, _: &Outcome) -> Result<(), RecordError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// One record for each outcome, as the gateway writes at least.
struct InJournal(SqliteJournal, AtomicU64);

#[async_trait]
impl Recorder for InJournal {
    async fn record(&self, _: &Held, _: &Outcome) -> Result<(), RecordError> {
        let n = self.1.fetch_add(1, Ordering::Relaxed);
        let draft = draft(&format!("journal.record.{n}"), &"x".repeat(RECORD), None);
        let batch = Batch { drafts: vec![draft.encode().unwrap()], contents: Vec::new() };
        self.0.append(batch).await.map(drop).map_err(|error| RecordError::Failed(error.to_string()))
    }
}

fn in_journal(dir: &Path) -> Arc<dyn Recorder> {
    let key = Arc::new(LogKey::from_seed("bench", &[7; 32]).unwrap());
    let journal = SqliteJournal::open(&dir.join("journal.db"), key, None).unwrap();
    Arc::new(InJournal(journal, AtomicU64::new(0)))
}

fn queue(recorder: Arc<dyn Recorder>) -> EscalationQueue {
    let limits = Limits { total: usize::MAX, per_agent: usize::MAX, ..Limits::default() };
    EscalationQueue::new(Arc::new(Now), recorder, limits)
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A hold as the kernel makes it for a call with three arguments. The id is as good as random.
fn request(now: u64) -> HoldRequest {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let random = |salt: u64| {
        let mut z = (n ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
    };
    let id = format!("{:016x}{:016x}", random(1), random(2));
    let command = format!("git commit -m 'Fix the parser, part {n}' -- docs/notes.md");
    HoldRequest {
        kind: HoldKind::ToolCall,
        summary: command.clone(),
        reason: "tool `git_commit` has risk tier `high`, which asks for a person".into(),
        context_snapshot: json!({
            "tool": "git_commit",
            "tool_description": "Records changes to the repository with a message.",
            "risk": "high",
            "command": command,
            "arguments": [
                {"name": "message", "value": format!("Fix the parser, part {n}")},
                {"name": "path", "value": "docs/notes.md"},
                {"name": "sign", "value": "true"},
            ],
            "call_id": format!("{:012x}{:020x}", now, random(3)),
            "run_id": format!("{:012x}{:020x}", now, 7),
        })
        .into(),
        created_at_millis: now,
        fingerprint: Some(Digest::of(&id)),
        rendering_digest: Some(Digest::of(n.to_be_bytes())),
        id: ApprovalRequestId::new(id).unwrap(),
    }
}

fn requests(count: usize) -> Vec<HoldRequest> {
    (0..count).map(|_| request(Now.now_millis())).collect()
}

fn agent() -> AgentId {
    AgentId::new("agent.bench").unwrap()
}

fn hold(queue: &EscalationQueue, agent: &AgentId, request: HoldRequest) -> Waiting {
    queue.admit(agent.clone(), TIMEOUT).unwrap().hold(request)
}

fn fill(queue: &EscalationQueue, count: usize) -> Vec<Waiting> {
    let agent = agent();
    (0..count).map(|_| hold(queue, &agent, request(Now.now_millis()))).collect()
}

async fn approve(queue: &EscalationQueue, id: &ApprovalRequestId) {
    let decision = Decision { decision: DecisionKind::Approve, reason: None, grant: None };
    let approver = Approver { surface: Surface::Rest, id: "ada".into(), display: "Ada".into() };
    queue.resolve(id, decision, approver).await.unwrap();
}

async fn round_trip(queue: &EscalationQueue, agent: &AgentId, request: HoldRequest) {
    let waiting = hold(queue, agent, request);
    approve(queue, waiting.id()).await;
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Approved);
}

/// Round trips, one after the other; making the requests is not counted.
async fn round_trips(queue: &EscalationQueue, time: Duration) -> Figures {
    let (mut latencies, begin, agent) = (Vec::new(), Instant::now(), agent());
    while begin.elapsed() < time {
        for request in requests(256) {
            let start = Instant::now();
            round_trip(queue, &agent, request).await;
            latencies.push(start.elapsed());
        }
    }
    let busy = latencies.iter().sum();
    figures(latencies, busy)
}

/// Round trips of several callers at once, making the requests included.
async fn callers(queue: &EscalationQueue, callers: usize, time: Duration) -> Figures {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let (mut latencies, agent) = (Vec::new(), agent());
                while begin.elapsed() < time {
                    let start = Instant::now();
                    round_trip(&queue, &agent, request(Now.now_millis())).await;
                    latencies.push(start.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    figures(latencies, begin.elapsed())
}

/// Fills a queue with so many holds, by so many tasks, and drains it; holds per second. Making
/// the requests is not counted.
async fn fill_and_drain(recorder: Arc<dyn Recorder>, count: usize, tasks: usize) -> f64 {
    let queue = queue(recorder);
    let full = Arc::new(tokio::sync::Barrier::new(tasks));
    let share = count / tasks;
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let (queue, full) = (queue.clone(), Arc::clone(&full));
            tokio::spawn(async move {
                let agent = agent();
                let (mut waiting, mut busy) = (Vec::with_capacity(share), Duration::ZERO);
                while waiting.len() < share {
                    let some = requests(256.min(share - waiting.len()));
                    let start = Instant::now();
                    waiting.extend(some.into_iter().map(|request| hold(&queue, &agent, request)));
                    busy += start.elapsed();
                }
                full.wait().await;
                let start = Instant::now();
                for waiting in waiting {
                    approve(&queue, waiting.id()).await;
                    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Approved);
                }
                busy + start.elapsed()
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for task in tasks {
        longest = longest.max(task.await.unwrap());
    }
    assert!(queue.is_empty());
    count as f64 / longest.as_secs_f64()
}

/// From the decision to the moment a task that waits goes on.
async fn releases(queue: &EscalationQueue, time: Duration) -> Figures {
    let (mut latencies, begin, agent) = (Vec::new(), Instant::now(), agent());
    while begin.elapsed() < time {
        let waiting = hold(queue, &agent, request(Now.now_millis()));
        let id = waiting.id().clone();
        let task = tokio::spawn(async move {
            waiting.outcome().await.unwrap();
            Instant::now()
        });
        // The task waits by now.
        tokio::time::sleep(Duration::from_micros(200)).await;
        let start = Instant::now();
        approve(queue, &id).await;
        latencies.push(task.await.unwrap().saturating_duration_since(start));
    }
    figures(latencies, begin.elapsed())
}

fn pages(queue: &EscalationQueue, count: usize) -> Figures {
    let (mut latencies, mut cursor) = (Vec::new(), None);
    for _ in 0..count {
        let start = Instant::now();
        let page = queue.page(cursor.as_ref(), 100);
        latencies.push(start.elapsed());
        cursor = page.next;
    }
    let busy = latencies.iter().sum();
    figures(latencies, busy)
}

async fn round_trips_while_listing(queue: &EscalationQueue, time: Duration) -> Figures {
    let lister = {
        let queue = queue.clone();
        tokio::spawn(async move {
            let mut cursor = None;
            loop {
                cursor = queue.page(cursor.as_ref(), 100).next;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    };
    let found = round_trips(queue, time).await;
    lister.abort();
    found
}

/// Bytes of memory the process has.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Bytes of memory for each of so many pending holds and those who wait for them: what the
/// process grows by.
fn memory(count: usize) -> f64 {
    runtime().block_on(async {
        let queue = queue(Arc::new(InMemory::default()));
        let warm = fill(&queue, 1000);
        let before = resident();
        let all = fill(&queue, count);
        let grown = resident().saturating_sub(before);
        drop((warm, all));
        grown as f64 / count as f64
    })
}

fn middle(mut found: Vec<f64>) -> f64 {
    if found.len() > 1 {
        found.remove(0);
    }
    found.sort_by(f64::total_cmp);
    found.swap_remove(found.len() / 2)
}

/// What the machine takes for one write to a random place of so many bytes, in nanoseconds: what a
/// round trip pays for each place it touches that no cache holds.
fn random_write(bytes: usize) -> f64 {
    const WRITES: u64 = 1 << 20;
    let mut memory = vec![1u64; (bytes / 8).max(1)];
    let mut at = 0x9e37_79b9_7f4a_7c15u64;
    let start = Instant::now();
    for _ in 0..WRITES {
        at ^= at << 13;
        at ^= at >> 7;
        at ^= at << 17;
        let slot = (at % memory.len() as u64) as usize;
        memory[slot] = memory[slot].wrapping_add(at);
        // The next place depends on what was there, as in a table or a list.
        at ^= memory[slot] & 1;
    }
    std::hint::black_box(&memory);
    start.elapsed().as_secs_f64() * 1e9 / WRITES as f64
}

#[derive(serde::Serialize)]
struct InMemoryFigures {
    bytes_per_hold: f64,
    round_trips: Vec<(usize, Figures)>,
    random_write_ns: Vec<f64>,
    fill_and_drain_per_second: Vec<(usize, f64)>,
    page_of_100: Figures,
    while_listing: Figures,
    release: Figures,
}

#[derive(serde::Serialize)]
struct JournalFigures {
    round_trips: Vec<(usize, usize, Figures)>,
    bare_commits: Vec<(usize, Figures)>,
    record_bytes: usize,
    fill_and_drain_per_second: f64,
    while_listing: Figures,
    release: Figures,
}

impl Options {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(if self.short { 0.02 } else { self.seconds })
    }

    fn rounds(&self) -> usize {
        if self.short { 1 } else { self.rounds.max(1) }
    }

    fn full(&self) -> usize {
        if self.short { 2_000 } else { self.full }
    }

    fn pending(&self) -> Vec<usize> {
        if self.short { vec![1, 1_000] } else { self.pending.clone() }
    }

    fn rounds_of<T>(&self, mut measure: impl FnMut() -> T) -> Vec<T> {
        (0..self.rounds()).map(|_| measure()).collect()
    }

    fn in_memory(&self) -> InMemoryFigures {
        // First, while the process has no memory to spare.
        let bytes_per_hold = memory(self.full());
        let runtime = runtime();
        let memory = || -> Arc<dyn Recorder> { Arc::new(InMemory::default()) };
        let (time, full) = (self.time(), self.full());
        let round_trips = self
            .pending()
            .into_iter()
            .map(|others| {
                let found = runtime.block_on(async {
                    let queue = queue(memory());
                    let others = fill(&queue, others);
                    let mut found = Vec::new();
                    for _ in 0..self.rounds() {
                        found.push(round_trips(&queue, time).await);
                    }
                    queue.close();
                    drop(others);
                    found
                });
                (others, median(found))
            })
            .collect();
        let bytes = |others: usize| (others as f64 * bytes_per_hold) as usize;
        let random_write_ns = self
            .pending()
            .into_iter()
            .map(|others| middle(self.rounds_of(|| random_write(bytes(others)))))
            .collect();
        let fill_and_drain_per_second = [1, 2]
            .into_iter()
            .map(|tasks| {
                let each = || runtime.block_on(fill_and_drain(memory(), full, tasks));
                (tasks, middle(self.rounds_of(each)))
            })
            .collect();
        let queue = runtime.block_on(async { queue(memory()) });
        let others = runtime.block_on(async { fill(&queue, full) });
        let page_of_100 = median(self.rounds_of(|| pages(&queue, 2_000)));
        let listing = || runtime.block_on(round_trips_while_listing(&queue, time));
        let while_listing = median(self.rounds_of(listing));
        let release = median(self.rounds_of(|| runtime.block_on(releases(&queue, time))));
        queue.close();
        drop(others);
        InMemoryFigures {
            bytes_per_hold,
            round_trips,
            random_write_ns,
            fill_and_drain_per_second,
            page_of_100,
            while_listing,
            release,
        }
    }

    fn with_journal(&self) -> JournalFigures {
        let (time, runtime) = (self.time(), runtime());
        let record = draft("journal.record.1", &"x".repeat(RECORD), None).encode().unwrap();
        let record_bytes = record.stamp(1).len();
        let mut round_trips = Vec::new();
        let others: &[usize] = if self.short { &[1] } else { &[1, 100_000] };
        for (others, count) in others.iter().flat_map(|n| [(*n, 1), (*n, 64)]) {
            let each = || {
                let dir = tempfile::tempdir_in(&self.dir).unwrap();
                runtime.block_on(async {
                    let queue = queue(in_journal(dir.path()));
                    let others = fill(&queue, others);
                    let found = callers(&queue, count, time).await;
                    queue.close();
                    drop(others);
                    found
                })
            };
            round_trips.push((others, count, median(self.rounds_of(each))));
        }
        let bare_commits = [1, 64]
            .map(|count| {
                let each = || disk::group_commits(&self.dir, count, record_bytes, time);
                (count, median(self.rounds_of(each)))
            })
            .to_vec();
        let dir = tempfile::tempdir_in(&self.dir).unwrap();
        let recorder = in_journal(dir.path());
        let queue = runtime.block_on(async { queue(recorder.clone()) });
        let others = runtime.block_on(async { fill(&queue, self.full()) });
        let listing = || runtime.block_on(round_trips_while_listing(&queue, time));
        let while_listing = median(self.rounds_of(listing));
        let release = median(self.rounds_of(|| runtime.block_on(releases(&queue, time))));
        queue.close();
        drop(others);
        // Each of 64 tasks waits for its own outcome before it decides the next.
        let count = self.full() / 10;
        let drained = || runtime.block_on(fill_and_drain(recorder.clone(), count, 64));
        let fill_and_drain_per_second = middle(self.rounds_of(drained));
        JournalFigures {
            round_trips,
            bare_commits,
            record_bytes,
            fill_and_drain_per_second,
            while_listing,
            release,
        }
    }
}

pub(crate) fn run(options: &Options) {
    std::fs::create_dir_all(&options.dir).unwrap();
    if let Some(tasks) = options.alone {
        for _ in 0..options.rounds() {
            let each = fill_and_drain(Arc::new(InMemory::default()), options.full(), tasks);
            println!("{:.0} holds/s", runtime().block_on(each));
        }
        return;
    }
    let memory = options.in_memory();
    let journal = options.with_journal();
    if options.json {
        println!("{}", json!({ "in_memory": memory, "sqlite": journal }));
        return;
    }
    show(options, &memory, &journal);
}

fn show(options: &Options, memory: &InMemoryFigures, journal: &JournalFigures) {
    let full = options.full();
    println!("With a recorder in memory: a round trip is hold, decide and learn of it.");
    println!("Beside it: one dependent write to a random place of as much memory.\n");
    println!("others pending   round trips/s     p50 µs     p99 µs   random write ns");
    for ((others, figures), write) in memory.round_trips.iter().zip(&memory.random_write_ns) {
        let Figures { per_second, p50_us, p99_us } = figures;
        println!("{others:14}   {per_second:13.0} {p50_us:10.2} {p99_us:10.2} {write:17.1}");
    }
    if let [(_, first), .., (_, last)] = memory.round_trips.as_slice() {
        println!("from first to last: {:.2} times as long", first.per_second / last.per_second);
    }
    println!();
    for (tasks, per_second) in &memory.fill_and_drain_per_second {
        println!("filled with {full} and drained, by {tasks}: {per_second:.0} holds/s");
    }
    println!(
        "memory of a pending hold, by what the process grows: {:.0} bytes",
        memory.bytes_per_hold
    );
    let page = &memory.page_of_100;
    println!("a page of 100 among {full}: p50 {:.1} µs, p99 {:.1} µs", page.p50_us, page.p99_us);
    let listing = |figures: &Figures| {
        println!(
            "round trips among {full} while a page is listed every 50 ms: p50 {:.1} µs, p99 {:.1} µs",
            figures.p50_us, figures.p99_us
        );
    };
    let release = |figures: &Figures| {
        println!(
            "from decision to release, among {full}: p50 {:.1} µs, p99 {:.1} µs",
            figures.p50_us, figures.p99_us
        );
    };
    listing(&memory.while_listing);
    release(&memory.release);
    let bytes = journal.record_bytes;
    println!("\nWith the SQLite journal, one record of {bytes} bytes for each outcome.");
    println!("Bare: group commits of the same bytes, one write and one fdatasync each.\n");
    println!(
        "others pending   callers   round trips/s     p50 µs     p99 µs   bare commits/s   of the limit"
    );
    for (others, callers, figures) in &journal.round_trips {
        let bare = journal.bare_commits.iter().find(|(count, _)| count == callers);
        let bare = bare.map_or(0.0, |(_, bare)| bare.per_second);
        let Figures { per_second, p50_us, p99_us } = figures;
        println!(
            "{others:14} {callers:9}   {per_second:13.0} {p50_us:10.0} {p99_us:10.0} {bare:16.0} {:13.0}%",
            100.0 * per_second / bare
        );
    }
    println!(
        "\nfilled with {} and drained, by 64: {:.0} holds/s",
        full / 10,
        journal.fill_and_drain_per_second
    );
    listing(&journal.while_listing);
    release(&journal.release);
}
