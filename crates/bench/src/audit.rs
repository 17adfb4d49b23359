//! Verifying a log: its bytes, and what they say; making and checking receipts; recording. Beside
//! it, the hashes alone, what a signature for each record would cost, and group commit of the same
//! rows without a tree and signatures.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::{LogKey, Signer as _};
use countersign_audit::receipt::Receipt;
use countersign_audit::tree::{Frontier, leaf_hash};
use countersign_audit::verify::{BundleWriter, Options as Verify, verify_bundle};
use countersign_ports::journal::{Batch, Journal as _};
use countersign_store_sqlite::{LogReader, SqliteJournal};
use countersign_testkit::draft::draft;
use rustix::time::{ClockId, clock_gettime};

use crate::recording;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Records of the log
    #[arg(long, default_value_t = 1 << 20)]
    records: u64,
    /// Records under each checkpoint: those of one group commit
    #[arg(long, default_value_t = 1024)]
    group: u64,
    /// Rounds, arm by arm in turn; the first is discarded, the medians of the others are shown
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Where to write the log
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Records that say next to nothing, as short as can be, in the place of those of calls
    #[arg(long)]
    short: bool,
    /// Only verify this bundle once, with so many threads, and say how much memory it took
    #[arg(long, value_name = "FILE", hide = true)]
    alone: Option<PathBuf>,
    /// With --alone
    #[arg(long, default_value_t = 1, hide = true)]
    threads: usize,
    /// With --alone
    #[arg(long, hide = true)]
    meaning: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Row {
    what: &'static str,
    wall_s: f64,
    processor_s: f64,
    peak_mb: Option<f64>,
}

pub(crate) fn key() -> LogKey {
    LogKey::from_seed("log.example/bench", &[9; 32]).unwrap()
}

/// The announcement and the end of calls, as a gateway writes them.
fn record(seq: u64, short: bool) -> String {
    if short {
        return format!(
            "{{\"journal_schema_version\":1,\"journal_seq\":{seq},\"record_id\":\"r{seq}\",\
             \"agent_id\":\"agent.1\",\"timestamp_millis\":{seq},\"related_refs\":[],\"payload\":\
             {{\"type\":\"run_lifecycle\",\"status\":\"started\",\"reason\":\"{:0>64x}\"}}}}",
            seq * 0x9e37_79b9
        );
    }
    const INTENT: &str = include_str!("../../../fixtures/records/v1/journal-tool-intent.json");
    let call = seq.div_ceil(2);
    let text = INTENT
        .trim_end()
        .replacen("\"journal_seq\":1", &format!("\"journal_seq\":{seq}"), 1)
        .replacen("journal.record.tool.tool.intent", &format!("journal.record.{seq}"), 1)
        .replace("tc.1", &format!("call.{call:020}"));
    if seq % 2 == 1 {
        return text;
    }
    let (begin, rest) = text.split_once("\"effect_intent\":").unwrap();
    let end = rest.split_once("\"redacted_summary\":").unwrap().1.split_once('}').unwrap().1;
    format!(
        "{begin}\"effect_result\":{{\"effect_id\":\"effect.call.{call:020}\",\"terminal_status\":\
         \"completed\",\"redacted_summary\":\"done\"}}{end}"
    )
    .replacen("\"intent_recorded\"", "\"completed\"", 1)
}

fn write(path: &Path, options: &Options) {
    let key = key();
    let to = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut bundle = BundleWriter::new(to, &[key.public().clone()], (0, &[])).unwrap();
    let mut tree = Frontier::default();
    for seq in 1..=options.records {
        let record = record(seq, options.short);
        bundle.record(record.as_bytes()).unwrap();
        tree.push(leaf_hash(record.as_bytes()), |_, _| ());
        if seq % options.group == 0 || seq == options.records {
            bundle.checkpoint(&Checkpoint::sign(seq, tree.root(), &key).unwrap()).unwrap();
        }
    }
    bundle.finish().unwrap();
}

pub(crate) fn processor() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

fn verify(path: &Path, threads: usize, meaning: bool) {
    let options = Verify { threads: NonZero::new(threads), meaning, ..Verify::default() };
    let file = File::open(path).unwrap();
    let report = verify_bundle(file, key().public(), &options, |_| ()).unwrap();
    assert!(report.ok, "{report:?}");
}

/// Bytes this process has held at most, in MB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The peak of a process that does nothing else.
fn peak_of(path: &Path, threads: usize, meaning: bool) -> f64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("audit").arg("--alone").arg(path).args(["--threads", &threads.to_string()]);
    if meaning {
        command.arg("--meaning");
    }
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn hashes(path: &Path) {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).unwrap());
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line).unwrap() > 0 {
        black_box(leaf_hash(&line));
        line.clear();
    }
}

type Arm<'a> = (&'static str, Box<dyn Fn() + 'a>, Option<f64>);

pub(crate) fn run(options: &Options) {
    if let Some(path) = &options.alone {
        verify(path, options.threads, options.meaning);
        println!("{:.1}", peak());
        return;
    }
    std::fs::create_dir_all(&options.dir).unwrap();
    let path = options.dir.join(if options.short { "audit-short.bundle" } else { "audit.bundle" });
    write(&path, options);
    // Warm: every byte has been read.
    std::io::copy(&mut File::open(&path).unwrap(), &mut std::io::sink()).unwrap();
    let bytes = std::fs::metadata(&path).unwrap().len();
    let arms: Vec<Arm<'_>> = vec![
        ("read", Box::new(|| read(&path)), None),
        ("hashes alone, 1 thread", Box::new(|| hashes(&path)), None),
        (
            "integrity, 1 thread",
            Box::new(|| verify(&path, 1, false)),
            Some(peak_of(&path, 1, false)),
        ),
        (
            "integrity, 2 threads",
            Box::new(|| verify(&path, 2, false)),
            Some(peak_of(&path, 2, false)),
        ),
        (
            "integrity and meaning, 1 thread",
            Box::new(|| verify(&path, 1, true)),
            Some(peak_of(&path, 1, true)),
        ),
        (
            "integrity and meaning, 2 threads",
            Box::new(|| verify(&path, 2, true)),
            Some(peak_of(&path, 2, true)),
        ),
    ];
    let mut times: Vec<Vec<(Duration, Duration)>> = vec![Vec::new(); arms.len()];
    for _ in 0..options.rounds {
        for (times, (_, arm, _)) in times.iter_mut().zip(&arms) {
            let (wall, cpu) = (Instant::now(), processor());
            arm();
            times.push((wall.elapsed(), processor() - cpu));
        }
    }
    let mut rows: Vec<Row> = times
        .into_iter()
        .zip(&arms)
        .map(|(mut times, (what, _, peak_mb))| {
            if times.len() > 1 {
                times.remove(0);
            }
            times.sort();
            let (wall, cpu) = times[times.len() / 2];
            let (wall_s, processor_s) = (wall.as_secs_f64(), cpu.as_secs_f64());
            Row { what, wall_s, processor_s, peak_mb: *peak_mb }
        })
        .collect();
    rows.push(signatures(options.records));
    let (made, checked) = receipts(&options.dir);
    let recorded = recording::run(&options.dir, options.rounds);
    if options.json {
        let report = serde_json::json!({
            "records": options.records, "bytes": bytes, "rows": rows,
            "receipt_made_us": made, "receipt_checked_us": checked, "recording": recorded,
        });
        println!("{report}");
        return;
    }
    let each = bytes / options.records;
    println!(
        "{} records, {each} bytes each, {} under a checkpoint",
        options.records, options.group
    );
    println!("{:<36} {:>8} {:>11} {:>9}", "", "wall", "processor", "peak");
    for Row { what, wall_s, processor_s, peak_mb } in &rows {
        let peak = peak_mb.map_or(String::new(), |mb| format!("{mb:>6.1} MB"));
        println!("{what:<36} {wall_s:>6.3} s {processor_s:>9.3} s {peak:>9}");
    }
    println!(
        "receipt: made in {:.1} µs, checked in {:.1} µs (processor: {:.1}, {:.1})",
        made.wall_us, checked.wall_us, made.processor_us, checked.processor_us
    );
    println!("{recorded}");
}

fn read(path: &Path) {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer).unwrap() > 0 {}
}

/// One strict signature and one hash for each record, as a chain of signed entries needs them;
/// measured on a part and multiplied.
fn signatures(records: u64) -> Row {
    const PART: u64 = 4096;
    let key = key();
    let signed: Vec<_> = (0..PART)
        .map(|n| {
            let text = record(n + 1, true);
            let signature = key.sign(text.as_bytes()).unwrap();
            (text, signature)
        })
        .collect();
    let (wall, cpu) = (Instant::now(), processor());
    for (text, signature) in &signed {
        black_box(leaf_hash(text.as_bytes()));
        assert!(key.public().verify(text.as_bytes(), signature));
    }
    let times = records as f64 / PART as f64;
    Row {
        what: "a signature and a hash for each",
        wall_s: wall.elapsed().as_secs_f64() * times,
        processor_s: (processor() - cpu).as_secs_f64() * times,
        peak_mb: None,
    }
}

/// One of many.
#[derive(serde::Serialize)]
struct Each {
    wall_us: f64,
    processor_us: f64,
}

fn each(times: usize, work: impl FnOnce()) -> Each {
    let (wall, cpu) = (Instant::now(), processor());
    work();
    let (wall, cpu) = (wall.elapsed(), processor() - cpu);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / times as f64;
    Each { wall_us: each(wall), processor_us: each(cpu) }
}

/// What it takes to make a receipt from a database, and to check it: reading its text, its path,
/// its signature, and what the record says of its place.
fn receipts(dir: &Path) -> (Each, Each) {
    const RECORDS: u64 = 1 << 16;
    let dir = tempfile::tempdir_in(dir).unwrap();
    let path = dir.path().join("journal.db");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let journal = SqliteJournal::open(&path, Arc::new(key()), None).unwrap();
    for group in 0..RECORDS / 1024 {
        let drafts = (0..1024)
            .map(|n| draft(&format!("record.{group}.{n}"), "bench", None).encode().unwrap());
        let batch = Batch { drafts: drafts.collect(), contents: Vec::new() };
        runtime.block_on(journal.append(batch)).unwrap();
    }
    drop(journal);
    let reader = LogReader::open(&path).unwrap();
    let seqs: Vec<_> = (0..2000u64).map(|n| n * 7919 % RECORDS + 1).collect();
    let mut texts = Vec::with_capacity(seqs.len());
    let making = each(seqs.len(), || {
        for seq in &seqs {
            texts.push(serde_json::to_vec(&reader.receipt(*seq).unwrap()).unwrap());
        }
    });
    let key = key();
    let checking = each(seqs.len(), || {
        for text in &texts {
            Receipt::parse(text).unwrap().verify_record(key.public()).unwrap();
        }
    });
    (making, checking)
}
