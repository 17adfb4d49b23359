//! Runs the checks and generators of this workspace. Knows its files, crates and tools;
//! nothing of what the product does.

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a private command-line tool: printing is its work"
)]

mod attacks;
mod audit;
mod bench;
mod cases;
mod ci;
mod conformance;
mod contract;
mod diff;
mod e2e;
mod fixtures;
mod fuzz;
mod layers;
mod markdown;
mod package;
mod process;
mod soak;
mod terminal;
mod tidy;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// What a command gives back: nothing, or an error that says what to do.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every check, in order, and stop at the first that fails
    Ci(ci::Options),
    /// Check who depends on whom, and write fixtures/arrows.txt
    Layers {
        /// Compare fixtures/arrows.txt instead of writing it
        #[arg(long)]
        check: bool,
    },
    /// Check the text of all files: whitespace, leftovers, links, sizes
    Tidy,
    /// Write the generated files below fixtures/
    Fixtures {
        /// Compare the files instead of writing them
        #[arg(long)]
        check: bool,
    },
    /// Check published fixtures and that every wire form has one; write fixtures/api/
    Contract {
        /// Compare fixtures/api/ instead of writing it
        #[arg(long)]
        check: bool,
    },
    /// Check that every publishable crate can be packaged
    Package,
    /// Measure, optimised, with the physical limit beside each figure
    Bench(bench::Options),
    /// Try the properties of the contract, manifests and signed logs with many cases, optimised
    Fuzz(fuzz::Options),
    /// Run the official MCP conformance suite against a server, directly and behind the gateway
    Conformance,
    /// Prepare Python, Node and Chromium below target/e2e, and run the end-to-end tests
    E2e(e2e::Options),
    /// Let many agents and approvers at the real program, kill it again and again, and hold the
    /// journal against what must be true of it
    Soak(soak::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Ci(options) => match ci::run(&options) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Command::Layers { check } => layers::run(check),
        Command::Tidy => tidy::run(),
        Command::Fixtures { check } => fixtures::run(check),
        Command::Contract { check } => contract::run(check),
        Command::Package => package::run(),
        Command::Bench(options) => bench::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Conformance => conformance::run(),
        Command::E2e(options) => e2e::run(&options),
        Command::Soak(options) => soak::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::error(&*error);
            ExitCode::FAILURE
        }
    }
}
