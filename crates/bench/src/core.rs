//! What the forms of core cost. The records: reading and writing those of the fixtures through
//! their types, beside the same bytes through an untyped tree, and beside what the processor can
//! do with the bytes at all: hash them, which every record needs, and copy them.

use std::hint::black_box;
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::journal::JournalRecord;
use countersign_core::json;
use serde::de::IgnoredAny;
use serde_json::Value;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Rounds, turn by turn; the medians are shown
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only reading and writing, without anything beside it: for a profiler
    #[arg(long)]
    alone: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

const RECORDS: [&str; 3] = [
    include_str!("../../../fixtures/records/v1/journal-tool-intent.json"),
    include_str!("../../../fixtures/records/v1/journal-approval-dispatch-intent.json"),
    include_str!("../../../fixtures/records/v1/journal-hook-accepted.json"),
];

/// What is done with each record.
type Each<'a> = Box<dyn FnMut(&[u8]) + 'a>;

#[derive(serde::Serialize)]
struct Row {
    what: &'static str,
    mb_per_second: f64,
    records_per_second: f64,
}

/// Records of one second of one core: what the thread itself ran is counted, not what others
/// took from it.
fn speed(time: Duration, mut each: impl FnMut(&[u8])) -> f64 {
    let records: Vec<&[u8]> = RECORDS.iter().map(|record| record.trim_end().as_bytes()).collect();
    let (start, mut rounds) = (cpu_time(), 0u32);
    while cpu_time() - start < time {
        for _ in 0..64 {
            records.iter().for_each(|record| each(black_box(record)));
        }
        rounds += 64;
    }
    f64::from(rounds) * records.len() as f64 / (cpu_time() - start).as_secs_f64()
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn read(bytes: &[u8]) -> JournalRecord {
    json::read(bytes).unwrap()
}

pub(crate) fn run(options: &Options) {
    let time = Duration::from_secs_f64(options.seconds);
    let mut out = Vec::with_capacity(1 << 16);
    let mut copy = Vec::with_capacity(1 << 16);
    let known: Vec<JournalRecord> = RECORDS.iter().map(|record| read(record.as_bytes())).collect();
    let mut next = 0;
    let mut both = |bytes: &[u8]| {
        out.clear();
        json::write(&read(bytes), &mut out).unwrap();
        assert_eq!(black_box(&out).len(), bytes.len());
    };
    if options.alone {
        println!("{:.0} records/s", speed(time.mul_f64(10.0), both));
        return;
    }
    let mut written = Vec::with_capacity(1 << 16);
    let mut tree = Vec::with_capacity(1 << 16);
    let mut plain = Vec::with_capacity(1 << 16);
    let mut measurements: Vec<(&str, Each<'_>)> = vec![
        ("records, read and written", Box::new(&mut both)),
        ("records, read", Box::new(|bytes| drop(black_box(read(bytes))))),
        (
            "records, written",
            Box::new(|_| {
                written.clear();
                json::write(&known[next % known.len()], &mut written).unwrap();
                next += 1;
                black_box(&written);
            }),
        ),
        (
            "records, by serde_json alone",
            Box::new(|bytes| {
                plain.clear();
                let record: JournalRecord = serde_json::from_slice(bytes).unwrap();
                serde_json::to_writer(&mut plain, &record).unwrap();
                assert_eq!(black_box(&plain).len(), bytes.len());
            }),
        ),
        (
            "untyped tree, read and written",
            Box::new(|bytes| {
                tree.clear();
                let value: Value = serde_json::from_slice(bytes).unwrap();
                serde_json::to_writer(&mut tree, &value).unwrap();
                assert_eq!(black_box(&tree).len(), bytes.len());
            }),
        ),
        (
            "JSON, only found to be some",
            Box::new(|bytes| {
                black_box(serde_json::from_slice::<IgnoredAny>(bytes).unwrap());
            }),
        ),
        (
            "SHA-256",
            Box::new(|bytes| {
                black_box(Digest::of(bytes));
            }),
        ),
        (
            "copy",
            Box::new(|bytes| {
                copy.clear();
                copy.extend_from_slice(bytes);
                black_box(&copy);
            }),
        ),
    ];
    let mut speeds = vec![Vec::new(); measurements.len()];
    for _ in 0..options.rounds.max(1) {
        for ((_, each), found) in measurements.iter_mut().zip(&mut speeds) {
            found.push(speed(time, each));
        }
    }
    let len: usize = RECORDS.iter().map(|record| record.trim_end().len()).sum();
    let mean = len as f64 / RECORDS.len() as f64;
    let rows = measurements.iter().zip(speeds).map(|((what, _), mut found)| {
        found.sort_by(f64::total_cmp);
        let records_per_second = found[found.len() / 2];
        Row { what, mb_per_second: records_per_second * mean / 1e6, records_per_second }
    });
    let rows: Vec<Row> = rows.collect();
    let hooks = crate::hooks::measure(time.mul_f64(4.0));
    if options.json {
        let all = serde_json::json!({ "records": rows, "hooks": hooks });
        println!("{all}");
        return;
    }
    println!("one core, records of {mean:.0} bytes on average\n");
    println!("{:32}{:>10}{:>14}", "", "MB/s", "records/s");
    for Row { what, mb_per_second, records_per_second } in rows {
        println!("{what:32}{mb_per_second:>10.0}{records_per_second:>14.0}");
    }
    println!("\nan observing in-process hook costs the call that passes it\n");
    for (what, ns) in [
        ("not waited for", hooks.non_blocking_ns),
        ("waited for", hooks.blocking_ns),
        ("  of which a bare task, awaited", hooks.task_ns),
        ("waited for, recording included", hooks.recorded_ns),
    ] {
        println!("{what:32}{:>10.2} µs", ns / 1000.0);
    }
}
