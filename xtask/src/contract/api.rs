//! The public API of each publishable library as text, one item a line.
//!
//! It comes from rustdoc's JSON. That format belongs to one toolchain; rust-toolchain.toml,
//! `public-api` and `rustdoc-types` are raised together.

use super::Report;
use crate::{Outcome, diff, process, terminal, workspace};
use rustdoc_types::{FORMAT_VERSION, Id, ItemEnum};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

const FOLDER: &str = "fixtures/api";

/// One library, as rustdoc describes it.
pub(super) struct Library {
    /// As in its Cargo.toml.
    pub(super) name: String,
    pub(super) described: rustdoc_types::Crate,
    /// The structs and enums by the shortest name they have outside.
    pub(super) names: HashMap<Id, String>,
    /// Its API, one item a line.
    text: String,
}

/// Lets rustdoc describe every publishable library, in a folder of its own below the target
/// folder: what is built for it is not what other commands build.
pub(super) fn describe() -> Outcome<Vec<Library>> {
    let metadata = workspace::metadata()?;
    let mut libraries: BTreeMap<String, String> = BTreeMap::new();
    for package in metadata.workspace_packages() {
        if let Some(library) = package.targets.iter().find(|target| target.is_lib())
            && workspace::is_publishable(package)
        {
            libraries.insert(package.name.to_string(), library.name.replace('-', "_"));
        }
    }
    let target = metadata.target_directory.join("contract");
    let mut command = process::cargo();
    command.args(["doc", "--quiet", "--locked", "--no-deps", "--lib"]);
    for name in libraries.keys() {
        command.args(["--package", name]);
    }
    // The JSON is not stable yet, so rustdoc asks for the variable. It reaches this call alone.
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTDOCFLAGS", "-Zunstable-options --output-format json")
        .env("CARGO_TARGET_DIR", &target);
    process::run(&mut command)?;
    libraries
        .into_iter()
        .map(|(name, library)| {
            let path = target.join("doc").join(format!("{library}.json"));
            read(name.clone(), path.as_std_path())
                .map_err(|error| format!("{name}: cannot read rustdoc's JSON: {error}").into())
        })
        .collect()
}

fn read(name: String, path: &Path) -> Outcome<Library> {
    #[derive(Deserialize)]
    struct Head {
        format_version: u32,
    }
    let bytes = std::fs::read(path)?;
    let Head { format_version } = serde_json::from_slice(&bytes)?;
    if format_version != FORMAT_VERSION {
        return Err(format!(
            "it has format {format_version}, this program reads {FORMAT_VERSION}; raise \
             `public-api` and `rustdoc-types` in Cargo.toml together with rust-toolchain.toml"
        )
        .into());
    }
    let described: rustdoc_types::Crate = serde_json::from_slice(&bytes)?;
    let api = public_api::Builder::from_rustdoc_json(path)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    let mut text = String::new();
    let mut known = BTreeSet::new();
    let mut names: HashMap<Id, String> = HashMap::new();
    for item in api.items() {
        let line = format!("{item}\n");
        if let Some(name) = type_name(&line) {
            let shortest = names.entry(item.id()).or_insert_with(|| name.to_owned());
            if name.len() < shortest.len() {
                *shortest = name.to_owned();
            }
        }
        // What a trait's methods look like is said by the trait.
        let of_a_trait =
            item.parent_id().and_then(|parent| described.index.get(&parent)).is_some_and(
                |parent| matches!(&parent.inner, ItemEnum::Impl(block) if block.trait_.is_some()),
            );
        let is_function = described
            .index
            .get(&item.id())
            .is_some_and(|item| matches!(item.inner, ItemEnum::Function(_)));
        // The implementation of a trait of this crate is listed with the type and the trait.
        if !(of_a_trait && is_function) && known.insert(line.clone()) {
            text.push_str(&line);
        }
    }
    Ok(Library { name, described, names, text })
}

/// `core::hook::HookPoint`, when the line is of that struct or enum.
fn type_name(line: &str) -> Option<&str> {
    let rest = line.split_once("pub struct ").or_else(|| line.split_once("pub enum "))?.1;
    rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next()
}

/// Writes the texts, or with `check` compares them.
pub(super) fn keep(root: &Path, libraries: &[Library], check: bool) -> Outcome<Report> {
    let wanted: BTreeMap<String, &str> = libraries
        .iter()
        .map(|library| (format!("{FOLDER}/{}.txt", library.name), library.text.as_str()))
        .collect();
    keep_files(root, &wanted, check)
}

fn keep_files(root: &Path, wanted: &BTreeMap<String, &str>, check: bool) -> Outcome<Report> {
    let mut problems = Vec::new();
    let mut written = 0;
    for (path, text) in wanted {
        let at = root.join(path);
        let on_disk = std::fs::read_to_string(&at).ok();
        match on_disk.as_deref() {
            Some(old) if old == *text => {}
            None if check => problems
                .push(format!("{path}: does not exist; run `cargo xtask contract` and commit it")),
            Some(old) if check => problems.push(format!(
                "{path}: the public API differs; if the change is wanted, run `cargo xtask \
                 contract` and commit it (- is on disk, + is in the code)\n{}",
                diff::lines(old, text).trim_end()
            )),
            _ => {
                at.parent()
                    .map_or(Ok(()), std::fs::create_dir_all)
                    .and_then(|()| std::fs::write(&at, text))
                    .map_err(|error| format!("cannot write {path}: {error}"))?;
                println!("wrote {path}");
                written += 1;
            }
        }
    }
    problems.extend(
        listed(&root.join(FOLDER))?
            .into_iter()
            .map(|name| format!("{FOLDER}/{name}"))
            .filter(|path| !wanted.contains_key(path))
            .map(|path| format!("{path}: no publishable library has this name; remove it")),
    );
    let apis = terminal::count(wanted.len(), "library API");
    let summary = match (problems.len(), written) {
        (0, 0) => format!("{apis}, as in {FOLDER}"),
        (0, _) => format!("{apis}, {written} written to {FOLDER}"),
        _ => format!("{apis}, {} with {FOLDER}", terminal::count(problems.len(), "difference")),
    };
    Ok(Report { summary, problems })
}

/// The names in a folder; none when there is no such folder.
fn listed(folder: &Path) -> Outcome<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            names.insert(entry?.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_in_the_listing() {
        for (line, expected) in [
            ("pub struct core::id::RunId(_)\n", Some("core::id::RunId")),
            ("#[non_exhaustive] pub enum core::hook::Point\n", Some("core::hook::Point")),
            ("pub struct core::List<T> where T: Copy\n", Some("core::List")),
            ("pub core::hook::Point::Start\n", None),
            ("pub fn core::structure(pub_struct: u8)\n", None),
        ] {
            assert_eq!(type_name(line), expected, "{line}");
        }
    }

    #[test]
    fn a_changed_api_is_a_readable_difference() {
        let root = tempfile::tempdir().unwrap();
        let path = format!("{FOLDER}/core.txt");
        let run = |text: &str, check: bool| {
            keep_files(root.path(), &BTreeMap::from([(path.clone(), text)]), check).unwrap()
        };
        let missing = run("pub mod core\n", true);
        assert_eq!(missing.problems.len(), 1, "{:?}", missing.problems);
        assert!(missing.problems[0].contains("does not exist"), "{:?}", missing.problems);

        assert!(run("pub mod core\n", false).summary.contains("1 library API, 1 written"));
        let same = run("pub mod core\n", true);
        assert_eq!(
            (same.summary.as_str(), same.problems.len()),
            ("1 library API, as in fixtures/api", 0)
        );

        let changed = run("pub mod core\npub struct core::New\n", true);
        assert_eq!(changed.problems.len(), 1);
        assert!(
            changed.problems[0]
                .ends_with("        1   pub mod core\n        2 + pub struct core::New"),
            "{:?}",
            changed.problems
        );

        std::fs::write(root.path().join(FOLDER).join("gone.txt"), "").unwrap();
        let stray = run("pub mod core\n", false);
        assert!(stray.problems[0].starts_with("fixtures/api/gone.txt: no publishable"));
    }
}
