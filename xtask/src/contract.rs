//! Holds what others rely on: published fixtures stay as they are, every form on the wire has
//! a fixture, and a change of the public API is a change of a text that a person reads.

mod api;
mod coverage;
mod observe;
mod published;
mod types;

use crate::{Outcome, ci, terminal, workspace};

pub(crate) fn run(check: bool) -> Outcome {
    let root = workspace::root();
    let published = published::check(&root, ci::is_build_server())?;
    println!("contract: {}", published.summary);
    let mut problems = published.problems;

    let crates = api::describe()?;
    let listed = api::keep(&root, &crates, check)?;
    println!("contract: {}", listed.summary);
    problems.extend(listed.problems);

    let covered = coverage::check(&root, &crates)?;
    println!("contract: {}", covered.summary);
    problems.extend(covered.problems);

    if problems.is_empty() {
        return Ok(());
    }
    println!();
    terminal::problems("contract", &problems)
}

/// What one part has found.
struct Report {
    /// One line, whether or not there are problems.
    summary: String,
    problems: Vec<String>,
}
