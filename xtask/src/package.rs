//! Checks that every publishable crate can be packaged for the crate registry.

use crate::{Outcome, process, terminal, workspace};
use cargo_metadata::Package;

pub(crate) fn run() -> Outcome {
    let metadata = workspace::metadata()?;
    let mut packages: Vec<&Package> = metadata
        .workspace_packages()
        .into_iter()
        .filter(|package| workspace::is_publishable(package))
        .collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let problems: Vec<String> = packages.iter().flat_map(|package| describe(package)).collect();
    terminal::problems("package", &problems)?;

    // Given all at once, cargo takes the crates that depend on each other from the workspace.
    // The tests have built the code already, so it is not built again from the archives.
    let mut command = process::cargo();
    command.args(["package", "--locked", "--no-verify", "--allow-dirty"]);
    for package in &packages {
        command.args(["--package", package.name.as_str()]);
    }
    process::run(&mut command)?;
    println!("package: {} packaged", terminal::count(packages.len(), "crate"));
    Ok(())
}

/// What the registry would refuse, or what its page would lack.
fn describe(package: &Package) -> Vec<String> {
    let mut problems = Vec::new();
    let mut require = |fine: bool, problem: &str| {
        if !fine {
            problems.push(format!("{}: {problem}; see its Cargo.toml", package.name));
        }
    };
    let given = |field: &Option<String>| field.as_ref().is_some_and(|text| !text.is_empty());
    require(given(&package.description), "needs a description");
    require(given(&package.license), "needs a license");
    require(package.rust_version.is_some(), "needs a rust-version");
    require((1..=5).contains(&package.keywords.len()), "needs one to five keywords");
    require(package.keywords.iter().all(|word| word.len() <= 20), "has a keyword over 20 letters");
    require((1..=5).contains(&package.categories.len()), "needs one to five categories");
    problems
}
