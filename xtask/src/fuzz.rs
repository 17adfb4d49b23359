//! Runs the property tests of the contract with many cases, built as a release is.

use crate::{Outcome, process, terminal};
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Cases of each property
    #[arg(long, default_value_t = 100_000)]
    cases: u32,
    /// Only properties with this in their name
    name: Option<String>,
}

const TEST: [&str; 4] = ["--package", "countersign-core", "--test", "properties"];

pub(crate) fn run(options: &Options) -> Outcome {
    let test = || {
        let mut command = process::cargo();
        command.args(["test", "--release", "--quiet", "--locked"]).args(TEST);
        command.arg("--").args(&options.name);
        command
    };
    let listed = test().arg("--list").output()?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    let properties = listed.lines().filter(|line| line.ends_with(": test")).count();
    if properties == 0 {
        return Err("no property has that in its name, or the tests do not compile".into());
    }
    let started = Instant::now();
    process::run(test().env("PROPTEST_CASES", options.cases.to_string()))?;
    let count = u64::from(options.cases) * u64::try_from(properties)?;
    println!(
        "fuzz: {count} cases of {properties} properties passed in {}",
        terminal::elapsed(started.elapsed()).trim()
    );
    Ok(())
}
