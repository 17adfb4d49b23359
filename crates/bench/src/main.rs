//! Measures, and puts the physical limit beside each figure in the same run: the machine is
//! noisy, ratios hold. Run it with `cargo xtask bench`, which builds it optimised.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod audit;
mod call;
mod core;
mod disk;
mod exec;
mod holds;
mod hooks;
mod manifest;
mod proxy;
mod recording;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Verifying a log, and receipts, beside hashes alone and a signature for each record
    Audit(audit::Options),
    /// Governed calls, beside group commits of the same bytes with bare fdatasync
    Call(Options),
    /// Reading and writing records, beside an untyped tree, a hash and a copy of the same bytes
    Core(core::Options),
    /// Held calls: round trips, filling and draining, memory, listing, with and without a journal
    Holds(holds::Options),
    /// Starting a process with all guarantees, beside starting it bare
    Exec {
        /// How many of each
        #[arg(long, default_value_t = 500)]
        runs: usize,
    },
    /// Loading manifests, planning calls, and calls of a server behind the gateway, each beside the
    /// same without it
    Manifest(manifest::Options),
    /// The server behind the gateway that `manifest` measures
    #[command(hide = true)]
    Upstream { transport: proxy::Transport },
}

#[derive(clap::Args)]
struct Options {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds; the first is discarded, the medians of the others are shown
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Where to write; must be on the disk that is to be measured
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// How many callers at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    callers: Vec<usize>,
    /// Only governed calls, without anything beside them: for a profiler
    #[arg(long)]
    alone: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// What one measurement saw.
#[derive(Clone, Debug, serde::Serialize)]
struct Figures {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

fn figures(mut latencies: Vec<Duration>, elapsed: Duration) -> Figures {
    latencies.sort_unstable();
    let at = |q: f64| {
        let index = ((latencies.len() as f64 * q) as usize).min(latencies.len().saturating_sub(1));
        latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    };
    Figures {
        per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
        p50_us: at(0.50),
        p99_us: at(0.99),
    }
}

/// The round with the median throughput, the first round left out.
fn median(mut rounds: Vec<Figures>) -> Figures {
    if rounds.len() > 1 {
        rounds.remove(0);
    }
    rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    rounds.swap_remove(rounds.len() / 2)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|arg| arg == countersign_exec::supervise::ARG) {
        return countersign_exec::supervise::main(arguments);
    }
    match Cli::parse().what {
        What::Audit(options) => audit::run(&options),
        What::Call(options) => call::run(&options),
        What::Core(options) => core::run(&options),
        What::Holds(options) => holds::run(&options),
        What::Exec { runs } => exec::run(runs),
        What::Manifest(options) => manifest::run(&options),
        What::Upstream { transport } => proxy::upstream(transport),
    }
    ExitCode::SUCCESS
}
