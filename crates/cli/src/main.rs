//! The `countersign` binary: configuration and wiring, and the only reader of the
//! environment, the real clock and real entropy.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod approvals;
mod args;
mod audit;
mod client;
mod config;
mod contract;
mod doctor;
mod edit;
mod endpoint;
mod executors;
mod explain;
mod hooks;
mod journal;
mod log;
mod manifest;
mod notifiers;
mod outbox;
mod output;
mod reload;
mod secrets;
mod serve;
mod state;
mod system;
mod upstreams;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command};
use crate::output::{Failure, fail};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let supervise = arguments.nth(1).is_some_and(|arg| arg == countersign_exec::supervise::ARG);
    if supervise {
        return countersign_exec::supervise::main(arguments);
    }
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => fail(&failure),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Serve(args) => serve::run(&global, args),
        Command::Call(args) => client::call(&global, &args),
        Command::Approvals(command) => client::approvals(&global, &command),
        Command::Grants(command) => client::grants(&global, &command),
        Command::Journal(command) => journal::run(&global, &command),
        Command::Audit(command) => audit::run(&global, &command),
        Command::Manifest(command) => manifest::run(&global, &command),
        Command::Contract(command) => contract::run(&global, &command),
        Command::Doctor => doctor::run(&global),
        Command::CheckConfig => {
            let loaded = config::load(&global)?;
            explain::check(&loaded)?;
            output::say(&match &loaded.path {
                Some(path) => format!("{} is good", path.display()),
                None => "there is no configuration file; the defaults are in force".to_owned(),
            });
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(shell, &mut command, "countersign", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}
