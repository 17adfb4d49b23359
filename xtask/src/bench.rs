//! Runs the measurements of `crates/bench`, built as a release is.

use crate::{Outcome, process};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to measure, and its options: `call --seconds 3`; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    // It measures the gateway itself.
    if options.arguments.first().is_some_and(|what| what == "manifest") {
        let build = ["build", "--release", "--quiet", "--locked", "--package", "countersign"];
        process::run(process::cargo().args(build))?;
    }
    process::run(
        process::cargo()
            .args([
                "run",
                "--release",
                "--quiet",
                "--locked",
                "--package",
                "countersign-bench",
                "--",
            ])
            .args(&options.arguments),
    )
}
