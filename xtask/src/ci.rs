//! Every check, in order. What passes here passes everywhere: the same command runs on a
//! developer's machine and on the build server.

use crate::{
    Outcome, contract, e2e, fixtures, layers, package, process, soak, terminal, tidy, workspace,
};
use clap::ValueEnum;
use std::time::{Duration, Instant};
use terminal::Colour;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave out a step; refused when the variable CI is set
    #[arg(long, value_enum, value_name = "STEP", conflicts_with = "only")]
    skip: Vec<Step>,
    /// Run only this step; refused when the variable CI is set
    #[arg(long, value_enum, value_name = "STEP")]
    only: Vec<Step>,
}

/// In the order in which they run: the quick ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Formatting
    Fmt,
    /// Who depends on whom
    Layers,
    /// Text of all files
    Tidy,
    /// Generated files
    Fixtures,
    /// Published fixtures, forms on the wire and public API
    Contract,
    /// Lints
    Clippy,
    /// Unit and integration tests
    Test,
    /// Examples in the documentation
    Doctest,
    /// Documentation
    Doc,
    /// Packages for the crate registry
    Package,
    /// The built program against real clients
    E2e,
    /// The built program, killed again and again under load
    Soak,
}

enum Result {
    Passed(Duration),
    Failed(Duration),
    Skipped,
    NotRun,
}

/// Whether every step that ran has passed. An error when the options are refused.
pub(crate) fn run(options: &Options) -> Outcome<bool> {
    let chosen = !options.skip.is_empty() || !options.only.is_empty();
    if chosen && is_build_server() {
        return Err("--skip and --only are for local use: CI is set, so every step runs".into());
    }
    let steps = Step::value_variants();
    let started = Instant::now();
    let mut results: Vec<(Step, Result)> = Vec::new();
    let mut failed = false;
    for (index, step) in steps.iter().enumerate() {
        let result = if !options.wants(*step) {
            Result::Skipped
        } else if failed {
            Result::NotRun
        } else {
            let title = format!("== {}/{} {}", index + 1, steps.len(), step.name());
            println!("{}", terminal::paint(Colour::Bold, &title));
            let before = Instant::now();
            let outcome = step.run();
            let took = before.elapsed();
            if let Err(error) = &outcome {
                terminal::error(&**error);
            }
            failed = outcome.is_err();
            let result = if failed { Result::Failed(took) } else { Result::Passed(took) };
            println!("== {} {}\n", step.name(), result.show());
            result
        };
        results.push((*step, result));
    }

    println!("{}", terminal::paint(Colour::Bold, "== summary"));
    for (step, result) in &results {
        println!("{:<10} {}", step.name(), result.show());
    }
    println!("{:<10} {:<8} {:>8}", "total", "", terminal::elapsed(started.elapsed()));
    println!("{}", tally(results.iter().map(|(_, result)| result)));
    Ok(!failed)
}

impl Options {
    fn wants(&self, step: Step) -> bool {
        (self.only.is_empty() || self.only.contains(&step)) && !self.skip.contains(&step)
    }
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn run(self) -> Outcome {
        let cargo = |arguments: &[&str]| process::run(process::cargo().args(arguments));
        match self {
            Self::Fmt => cargo(&["fmt", "--all", "--check"])
                .map_err(|error| format!("{error}; run `cargo fmt --all`").into()),
            Self::Layers => layers::run(true),
            Self::Tidy => tidy::run(),
            Self::Fixtures => fixtures::run(true),
            Self::Contract => contract::run(true),
            Self::Clippy => clippy(),
            // Benches are left out, and so is what `test = false` reserves for its own step.
            Self::Test => cargo(&[
                "test",
                "--workspace",
                "--lib",
                "--bins",
                "--tests",
                "--examples",
                "--locked",
                "--no-fail-fast",
            ]),
            Self::Doctest => cargo(&["test", "--workspace", "--doc", "--locked"]),
            Self::Doc => process::run(
                process::cargo()
                    .args(["doc", "--workspace", "--no-deps", "--locked"])
                    .env("RUSTDOCFLAGS", "-D warnings"),
            ),
            Self::Package => package::run(),
            Self::E2e => e2e::run(&e2e::Options::default()),
            Self::Soak => soak::run(&soak::Options::short()),
        }
    }
}

/// Whether the variable CI is set.
pub(crate) fn is_build_server() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}

fn clippy() -> Outcome {
    const DENY: [&str; 3] = ["--", "-D", "warnings"];
    process::run(
        process::cargo().args(["clippy", "--workspace", "--all-targets", "--locked"]).args(DENY),
    )?;
    // `--all-targets` passes over tests with `test = false`; they are named one by one.
    for package in workspace::metadata()?.workspace_packages() {
        for target in package.targets.iter().filter(|target| target.is_test() && !target.test) {
            process::run(
                process::cargo()
                    .args(["clippy", "--locked", "--package", package.name.as_str()])
                    .args(["--test", &target.name])
                    .args(DENY),
            )?;
        }
    }
    Ok(())
}

impl Result {
    /// Aligned: a word, then the time.
    fn show(&self) -> String {
        let (colour, word, time) = match self {
            Self::Passed(time) => (Some(Colour::Green), "passed", Some(time)),
            Self::Failed(time) => (Some(Colour::Red), "failed", Some(time)),
            Self::Skipped => (None, "skipped", None),
            Self::NotRun => (None, "not run", None),
        };
        let word = format!("{word:<8}");
        let word = colour.map_or(word.clone(), |colour| terminal::paint(colour, &word));
        let time = time.map(|time| format!(" {:>8}", terminal::elapsed(*time)));
        format!("{word}{}", time.unwrap_or_default()).trim_end().to_owned()
    }
}

/// `steps: 10 passed, 0 failed`, and what did not run when there is such.
fn tally<'a>(results: impl Iterator<Item = &'a Result>) -> String {
    let (mut passed, mut failed, mut skipped, mut not_run) = (0, 0, 0, 0);
    for result in results {
        match result {
            Result::Passed(_) => passed += 1,
            Result::Failed(_) => failed += 1,
            Result::Skipped => skipped += 1,
            Result::NotRun => not_run += 1,
        }
    }
    let mut text = format!("steps: {passed} passed, {failed} failed");
    for (number, word) in [(skipped, "skipped"), (not_run, "not run")] {
        if number > 0 {
            text.push_str(&format!(", {number} {word}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_steps() {
        let time = Duration::ZERO;
        let passed = [Result::Passed(time), Result::Passed(time)];
        assert_eq!(tally(passed.iter()), "steps: 2 passed, 0 failed");
        let mixed = [Result::Passed(time), Result::Skipped, Result::Failed(time), Result::NotRun];
        assert_eq!(tally(mixed.iter()), "steps: 1 passed, 1 failed, 1 skipped, 1 not run");
    }

    #[test]
    fn steps_are_chosen_by_name() {
        let options =
            |skip: &[Step], only: &[Step]| Options { skip: skip.to_vec(), only: only.to_vec() };
        assert!(options(&[], &[]).wants(Step::Tidy));
        assert!(!options(&[Step::Tidy], &[]).wants(Step::Tidy));
        assert!(!options(&[], &[Step::Fmt]).wants(Step::Tidy));
        assert!(options(&[], &[Step::Tidy]).wants(Step::Tidy));
        assert_eq!(Step::E2e.name(), "e2e");
    }
}
