//! Runs the property tests of the contract, of manifests, and of what reads signed logs, with many
//! cases, built as a release is.

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

/// Tests that try as many cases as they are told to.
const TESTS: [(&str, &str); 4] = [
    ("countersign-core", "properties"),
    ("countersign-manifest", "properties"),
    ("countersign-audit", "properties"),
    ("countersign-audit", "allocation"),
];

pub(crate) fn run(options: &Options) -> Outcome {
    let test = |(package, test): (&str, &str)| {
        let mut command = process::cargo();
        command.args(["test", "--release", "--quiet", "--locked", "--package", package]);
        command.args(["--test", test, "--"]).args(&options.name);
        command
    };
    let mut properties = 0;
    for each in TESTS {
        let listed = test(each).arg("--list").output()?;
        let listed = String::from_utf8_lossy(&listed.stdout);
        properties += listed.lines().filter(|line| line.ends_with(": test")).count();
    }
    if properties == 0 {
        return Err("no property has that in its name, or the tests do not compile".into());
    }
    let started = Instant::now();
    for each in TESTS {
        process::run(test(each).env("PROPTEST_CASES", options.cases.to_string()))?;
    }
    let count = u64::from(options.cases) * u64::try_from(properties)?;
    println!(
        "fuzz: {count} cases of {properties} properties passed in {}",
        terminal::elapsed(started.elapsed()).trim()
    );
    Ok(())
}
