//! Checks who depends on whom against `xtask/layers.toml`, and keeps `fixtures/arrows.txt`,
//! so that a new arrow is one added line in review.

use crate::{Outcome, diff, terminal, workspace};
use cargo_metadata::{DependencyKind, Metadata};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = "xtask/layers.toml";
const ARROWS: &str = "fixtures/arrows.txt";

pub(crate) fn run(check: bool) -> Outcome {
    let root = workspace::root();
    let text = std::fs::read_to_string(root.join(TABLE))
        .map_err(|error| format!("cannot read {TABLE}: {error}"))?;
    let table = parse_table(&text)?;
    let crates = crates(&workspace::metadata()?);
    terminal::problems("layers", &check_crates(&crates, &table)).map_err(|error| {
        format!("{error}; do without the dependency, or argue for a change of {TABLE}")
    })?;

    let wanted = arrows_text(&crates);
    let arrows = terminal::count(wanted.lines().count(), "arrow");
    let on_disk = std::fs::read_to_string(root.join(ARROWS)).ok();
    if on_disk.as_deref() == Some(wanted.as_str()) {
        println!("layers: {}, {arrows}, as in {ARROWS}", terminal::count(crates.len(), "crate"));
        return Ok(());
    }
    if check {
        match on_disk {
            None => println!("{ARROWS} does not exist"),
            Some(text) => print!("{ARROWS} differs:\n{}", diff::lines(&text, &wanted)),
        }
        return Err("layers: run `cargo xtask layers` and commit the changed lines".into());
    }
    std::fs::create_dir_all(root.join("fixtures"))
        .and_then(|()| std::fs::write(root.join(ARROWS), &wanted))
        .map_err(|error| format!("cannot write {ARROWS}: {error}"))?;
    println!("layers: wrote {ARROWS}, {arrows}");
    Ok(())
}

/// The content of `fixtures/arrows.txt`, for the list of generated files.
pub(crate) fn arrows() -> Outcome<Vec<u8>> {
    Ok(arrows_text(&crates(&workspace::metadata()?)).into_bytes())
}

/// One crate of the workspace with its normal dependencies.
struct Crate {
    name: String,
    inside: BTreeSet<String>,
    third_party: BTreeSet<String>,
    /// Dependencies from a git repository or a folder outside the workspace.
    elsewhere: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Row {
    floor: Option<u8>,
    #[serde(default)]
    free: bool,
    uses: Option<BTreeSet<String>>,
    third_party: Option<BTreeSet<String>>,
}

fn parse_table(text: &str) -> Outcome<BTreeMap<String, Row>> {
    let table: BTreeMap<String, Row> =
        toml::from_str(text).map_err(|error| format!("{TABLE} is not readable:\n{error}"))?;
    for (name, row) in &table {
        let fault = match row {
            Row { free: true, floor: None, uses: None, third_party: None } => None,
            Row { free: true, .. } => Some("is free, so it can have no other field"),
            Row { floor: None, .. } => Some("needs `floor` or `free = true`"),
            Row { third_party: None, .. } => Some("needs `third-party`, if only `[]`"),
            Row { .. } => None,
        };
        if let Some(fault) = fault {
            return Err(format!("{TABLE}: [{name}] {fault}").into());
        }
        for used in row.uses.iter().flatten() {
            if !table.contains_key(used) {
                return Err(format!("{TABLE}: [{name}] uses {used}, which has no entry").into());
            }
        }
    }
    Ok(table)
}

fn crates(metadata: &Metadata) -> Vec<Crate> {
    let packages = metadata.workspace_packages();
    let members: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut crates: Vec<Crate> = packages
        .iter()
        .map(|package| {
            let mut found = Crate {
                name: package.name.to_string(),
                inside: BTreeSet::new(),
                third_party: BTreeSet::new(),
                elsewhere: BTreeSet::new(),
            };
            for dependency in &package.dependencies {
                if dependency.kind != DependencyKind::Normal {
                    continue;
                }
                let name = dependency.name.clone();
                if dependency.path.is_some() {
                    if members.contains(name.as_str()) {
                        found.inside.insert(name);
                    } else {
                        found.elsewhere.insert(name);
                    }
                } else {
                    let from_git = dependency
                        .source
                        .as_ref()
                        .is_some_and(|source| source.to_string().starts_with("git+"));
                    if from_git {
                        found.elsewhere.insert(name.clone());
                    }
                    found.third_party.insert(name);
                }
            }
            found
        })
        .collect();
    crates.sort_by(|a, b| a.name.cmp(&b.name));
    crates
}

fn check_crates(crates: &[Crate], table: &BTreeMap<String, Row>) -> Vec<String> {
    let mut problems = Vec::new();
    for Crate { name, inside, third_party, elsewhere } in crates {
        for dependency in elsewhere {
            problems.push(format!(
                "{name} -> {dependency}: comes from git or from a folder outside the workspace; \
                 use a release from the crate registry"
            ));
        }
        let Some(row) = table.get(name) else {
            problems.push(format!("{name}: has no entry; add [{name}] with its floor"));
            continue;
        };
        let Some(floor) = row.floor else { continue };
        for dependency in inside {
            let arrow = format!("{name} -> {dependency}");
            // A dependency without an entry is reported once, as a crate.
            let Some(target) = table.get(dependency) else {
                continue;
            };
            match target.floor {
                None => problems.push(format!(
                    "{arrow}: {dependency} is for tests and tools; only a dev-dependency on it \
                     is allowed"
                )),
                Some(below) if below >= floor => problems.push(format!(
                    "{arrow}: goes from floor {floor} to floor {below}; move what is shared to a \
                     floor below {floor}"
                )),
                Some(_) if row.uses.as_ref().is_some_and(|uses| !uses.contains(dependency)) => {
                    problems.push(format!("{arrow}: not in `uses` of [{name}]"));
                }
                Some(_) => {}
            }
        }
        let allowed = row.third_party.clone().unwrap_or_default();
        for dependency in third_party.difference(&allowed) {
            problems.push(format!("{name} -> {dependency}: not in `third-party` of [{name}]"));
        }
    }
    problems
}

fn arrows_text(crates: &[Crate]) -> String {
    let lines: BTreeSet<String> = crates
        .iter()
        .flat_map(|each| {
            let targets = each.inside.iter().chain(&each.third_party).chain(&each.elsewhere);
            targets.map(|target| format!("{} -> {target}\n", each.name))
        })
        .collect();
    lines.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"
        [core]
        floor = 0
        third-party = ["serde"]
        [ports]
        floor = 1
        third-party = []
        [kernel]
        floor = 3
        third-party = []
        [store]
        floor = 4
        uses = ["core"]
        third-party = []
        [testkit]
        free = true
    "#;

    fn from(name: &str, inside: &[&str], third_party: &[&str]) -> Crate {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Crate {
            name: name.to_owned(),
            inside: set(inside),
            third_party: set(third_party),
            elsewhere: BTreeSet::new(),
        }
    }

    /// Holds one crate against the rules; `expected` are the starts of the problems.
    fn check(tested: Crate, expected: &[&str]) {
        let name = tested.name.clone();
        let problems = check_crates(&[tested], &parse_table(RULES).unwrap());
        assert_eq!(problems.len(), expected.len(), "{name}: {problems:?}");
        for (problem, start) in problems.iter().zip(expected) {
            assert!(problem.starts_with(start), "{problem:?} should begin with {start:?}");
        }
    }

    #[test]
    fn arrows_point_down() {
        check(from("core", &[], &["serde"]), &[]);
        check(from("kernel", &["core", "ports"], &[]), &[]);
        check(from("ports", &["kernel"], &[]), &["ports -> kernel: goes from floor 1 to floor 3"]);
        check(from("ports", &["ports"], &[]), &["ports -> ports: goes from floor 1 to floor 1"]);
    }

    #[test]
    fn uses_narrows_the_lower_floors() {
        check(from("store", &["core"], &[]), &[]);
        check(from("store", &["core", "kernel"], &[]), &["store -> kernel: not in `uses`"]);
    }

    #[test]
    fn third_party_crates_are_listed() {
        check(from("core", &[], &["serde", "uuid"]), &["core -> uuid: not in `third-party`"]);
        check(from("ports", &[], &["serde"]), &["ports -> serde: not in `third-party`"]);
    }

    #[test]
    fn free_crates_use_anything_and_nobody_uses_them() {
        check(from("testkit", &["kernel", "store"], &["uuid"]), &[]);
        check(from("kernel", &["testkit"], &[]), &["kernel -> testkit: testkit is for tests"]);
    }

    #[test]
    fn unknown_crates_are_errors() {
        check(from("new", &["core"], &[]), &["new: has no entry"]);
    }

    #[test]
    fn only_releases_are_used() {
        let mut tested = from("core", &[], &[]);
        tested.elsewhere.insert("fork".to_owned());
        check(tested, &["core -> fork: comes from git"]);
    }

    #[test]
    fn a_faulty_table_is_refused() {
        for (text, fault) in [
            ("[a]\n", "needs `floor`"),
            ("[a]\nfloor = 0\n", "needs `third-party`"),
            ("[a]\nfree = true\nfloor = 0\n", "can have no other field"),
            ("[a]\nfloor = 0\nthird-party = []\nuses = [\"b\"]\n", "no entry"),
            ("[a]\nflor = 0\n", "unknown field"),
        ] {
            let error = parse_table(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(fault), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn arrows_are_sorted_lines() {
        let crates = [from("b", &["a"], &["serde"]), from("a", &[], &["zeroize"])];
        assert_eq!(arrows_text(&crates), "a -> zeroize\nb -> a\nb -> serde\n");
    }

    #[test]
    fn the_table_of_this_workspace_is_readable() {
        let text = std::fs::read_to_string(workspace::root().join(TABLE)).unwrap();
        parse_table(&text).unwrap();
    }
}
