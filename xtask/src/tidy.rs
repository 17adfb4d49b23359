//! Checks the text of all files and lists every problem at once.

use crate::{Outcome, markdown, terminal, workspace};
use serde::Deserialize;
use std::collections::BTreeMap;

const EXCEPTIONS: &str = "xtask/tidy.toml";
const ARCHITECTURE: &str = "docs/architecture.md";
const RUST_LINES: usize = 900;
const FILE_BYTES: usize = 1 << 20;

// Written in two halves, so that this file passes its own check.

/// Leftovers, found as whole words.
const WORDS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
/// Leftovers, found anywhere.
const UNFINISHED: &[&str] =
    &[concat!("to", "do!("), concat!("unimple", "mented!("), concat!("#[ig", "nore")];
/// Starts of paths that exist on one machine only.
const MACHINE_PATHS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];
/// Written by tools, with hashes in which any word can turn up.
const LOCK_FILES: &[&str] = &["Cargo.lock", "package-lock.json"];

pub(crate) fn run() -> Outcome {
    let root = workspace::root();
    let text = std::fs::read_to_string(root.join(EXCEPTIONS))
        .map_err(|error| format!("cannot read {EXCEPTIONS}: {error}"))?;
    let exceptions: Exceptions =
        toml::from_str(&text).map_err(|error| format!("{EXCEPTIONS} is not readable:\n{error}"))?;
    let mut tree = Tree::new();
    for path in workspace::files()? {
        let bytes = std::fs::read(root.join(&path))
            .map_err(|error| format!("cannot read {path}: {error}"))?;
        tree.insert(path, bytes);
    }
    let problems = check_tree(&tree, &exceptions);
    let shown: Vec<String> = problems.iter().map(Problem::to_string).collect();
    terminal::problems("tidy", &shown)?;
    println!("tidy: {} checked", terminal::count(tree.len(), "file"));
    Ok(())
}

/// All files by path, with `/` between folders.
type Tree = BTreeMap<String, Vec<u8>>;

/// Each entry is a file, or a folder when it ends in `/`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Exceptions {
    absolute_paths: Vec<String>,
    exact_bytes: Vec<String>,
    large_images: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    path: String,
    /// Counted from 1.
    line: usize,
    message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

#[derive(Default)]
struct Report(Vec<Problem>);

impl Report {
    fn add(&mut self, path: &str, line: usize, message: impl Into<String>) {
        self.0.push(Problem { path: path.to_owned(), line, message: message.into() });
    }
}

fn check_tree(tree: &Tree, exceptions: &Exceptions) -> Vec<Problem> {
    let mut report = Report::default();
    for (path, bytes) in tree {
        check_size(path, bytes, exceptions, &mut report);
        let must_be_text = [".rs", ".toml", ".md"].iter().any(|end| path.ends_with(end));
        match std::str::from_utf8(bytes) {
            Err(_) if must_be_text => report.add(path, 1, "is not UTF-8"),
            Ok(text) if must_be_text || !bytes.contains(&0) => {
                check_lines(path, text, exceptions, &mut report);
                if path.ends_with(".rs") {
                    check_rust(path, text, &mut report);
                }
                if path.ends_with(".md") {
                    check_links(path, text, tree, &mut report);
                }
            }
            // A picture, an archive: nothing to read.
            _ => {}
        }
    }
    check_architecture(tree, &mut report);
    check_example_tools(tree, &mut report);
    report.0.sort();
    report.0.dedup();
    report.0
}

fn is_listed(list: &[String], path: &str) -> bool {
    list.iter().any(|entry| path == entry || (entry.ends_with('/') && path.starts_with(entry)))
}

fn check_size(path: &str, bytes: &[u8], exceptions: &Exceptions, report: &mut Report) {
    if bytes.len() <= FILE_BYTES {
        return;
    }
    let image = [".png", ".jpg", ".gif", ".svg", ".webp"].iter().any(|end| path.ends_with(end));
    if path.starts_with("docs/") && image && is_listed(&exceptions.large_images, path) {
        return;
    }
    let size = bytes.len() / 1024;
    report.add(path, 1, format!("is {size} KiB; the limit is {} KiB", FILE_BYTES / 1024));
}

fn check_lines(path: &str, text: &str, exceptions: &Exceptions, report: &mut Report) {
    let exact = is_listed(&exceptions.exact_bytes, path);
    let paths_allowed = is_listed(&exceptions.absolute_paths, path);
    let no_tabs = [".rs", ".toml", ".md"].iter().any(|end| path.ends_with(end));
    let generated = LOCK_FILES.iter().any(|name| path.rsplit('/').next() == Some(name));
    let mut lines = 0;
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        lines = number;
        if !exact {
            if line.ends_with('\r') {
                report.add(path, number, "ends in a carriage return; use Unix line ends");
            } else if line.trim_end() != line {
                report.add(path, number, "trailing whitespace");
            }
            if no_tabs && line.contains('\t') {
                report.add(path, number, "contains a tab; use spaces");
            }
        }
        if generated {
            continue;
        }
        for word in WORDS.iter().filter(|word| contains_word(line, word)) {
            report.add(path, number, format!("contains {word}; finish it or write it elsewhere"));
        }
        for mark in UNFINISHED.iter().filter(|mark| line.contains(**mark)) {
            report.add(path, number, format!("contains `{mark}`; finish it or remove it"));
        }
        if !paths_allowed {
            for start in MACHINE_PATHS.iter().filter(|start| contains_path(line, start)) {
                report.add(
                    path,
                    number,
                    format!(
                        "names a path below {start} of one machine; use a relative path, or list \
                         the file under absolute-paths in {EXCEPTIONS}"
                    ),
                );
            }
        }
    }
    if !exact && !text.is_empty() && !text.ends_with('\n') {
        report.add(path, lines, "does not end in a newline");
    }
    if !exact && text.ends_with("\n\n") {
        report.add(path, lines.saturating_sub(1), "ends in an empty line");
    }
}

fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Whether the line has an absolute path that begins with `start`; a relative path or an
/// address in which it comes later is none.
fn contains_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line.get(..at).unwrap_or_default();
        before.ends_with("file://")
            || !before.ends_with(|letter: char| {
                letter.is_alphanumeric()
                    || matches!(letter, '_' | '-' | '.' | '~' | '/' | '}' | ')')
            })
    })
}

fn check_rust(path: &str, text: &str, report: &mut Report) {
    let lines = text.lines().count();
    if lines > RUST_LINES {
        report.add(
            path,
            RUST_LINES + 1,
            format!("has {lines} lines; split it, the limit is {RUST_LINES}"),
        );
    }
    let parts: Vec<&str> = path.split('/').collect();
    if matches!(parts.as_slice(), ["crates", _, "src", "lib.rs"]) && !text.starts_with("//!") {
        report.add(
            path,
            1,
            "does not begin with `//!`; say what the crate decides and what it does not know",
        );
    }
}

fn check_links(path: &str, text: &str, tree: &Tree, report: &mut Report) {
    for (line, link) in markdown::links(text) {
        let has_scheme = link.split_once(':').is_some_and(|(scheme, _)| {
            scheme.len() > 1 && scheme.chars().all(|letter| letter.is_ascii_alphanumeric())
        });
        if has_scheme || link.starts_with("//") {
            continue;
        }
        let (file, anchor) = link
            .split_once('#')
            .map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
        let file = file.split('?').next().unwrap_or_default();
        let target = if file.is_empty() { Some(path.to_owned()) } else { resolve(path, file) };
        let Some(target) = target else {
            report.add(path, line, format!("link to {link}: leaves the repository"));
            continue;
        };
        let folder = format!("{target}/");
        let is_folder = target.is_empty() || tree.keys().any(|path| path.starts_with(&folder));
        let Some(found) = tree.get(&target) else {
            if !is_folder {
                report.add(path, line, format!("link to {link}: {target} does not exist"));
            } else if anchor.is_some() {
                report.add(path, line, format!("link to {link}: a folder has no anchors"));
            }
            continue;
        };
        if let Some(anchor) = anchor
            && target.ends_with(".md")
            && !markdown::anchors(&String::from_utf8_lossy(found)).contains(anchor)
        {
            report.add(path, line, format!("link to {link}: {target} has no heading #{anchor}"));
        }
    }
}

/// The path a link names, from the root; `None` when it climbs out of the repository.
fn resolve(from: &str, link: &str) -> Option<String> {
    let link = link.replace("%20", " ");
    let mut parts: Vec<&str> = Vec::new();
    if !link.starts_with('/') {
        parts.extend(from.split('/'));
        parts.pop();
    }
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn check_architecture(tree: &Tree, report: &mut Report) {
    let folders: Vec<&str> = tree
        .keys()
        .filter_map(|path| path.strip_suffix("/Cargo.toml"))
        .filter(|folder| folder.strip_prefix("crates/").is_some_and(|name| !name.contains('/')))
        .collect();
    if folders.is_empty() {
        return;
    }
    let Some(text) = tree.get(ARCHITECTURE) else {
        report.add(ARCHITECTURE, 1, "does not exist; it must name every folder below crates/");
        return;
    };
    let text = String::from_utf8_lossy(text);
    for folder in folders {
        let named = text.match_indices(folder).any(|(at, _)| {
            let after = text.get(at + folder.len()..).and_then(|rest| rest.chars().next());
            !after.is_some_and(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_'))
        });
        if !named {
            report.add(ARCHITECTURE, 1, format!("does not mention {folder}"));
        }
    }
}

fn check_example_tools(tree: &Tree, report: &mut Report) {
    let path = "examples/tools/README.md";
    let Some(readme) = tree.get(path) else { return };
    let readme = String::from_utf8_lossy(readme);
    for name in tree.keys().filter_map(|path| path.strip_prefix("examples/tools/")) {
        let Some(stem) = name.strip_suffix(".clad.toml") else {
            continue;
        };
        if !readme.contains(name) && !readme.contains(&format!("`{stem}`")) {
            report.add(path, 1, format!("does not name {name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: [&str; 4] = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/Us", "ers/"),
    ];

    /// Checks a tree of `(path, text)`; `expected` are the starts of the problems.
    fn check(files: &[(&str, &str)], expected: &[&str]) {
        check_with(&Exceptions::default(), files, expected);
    }

    fn check_with(exceptions: &Exceptions, files: &[(&str, &str)], expected: &[&str]) {
        let tree: Tree = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
            .collect();
        let problems: Vec<String> =
            check_tree(&tree, exceptions).iter().map(Problem::to_string).collect();
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(expected) {
            assert!(problem.starts_with(start), "{problem:?} should begin with {start:?}");
        }
    }

    #[test]
    fn clean_text_passes() {
        check(&[("a.rs", "fn a() {}\n"), ("empty", ""), ("b.md", "# B\n\nText.\n")], &[]);
    }

    #[test]
    fn whitespace_is_checked() {
        check(&[("a.rs", "a \nb\n")], &["a.rs:1: trailing whitespace"]);
        check(&[("a", "a\nb\t\n")], &["a:2: trailing whitespace"]);
        check(&[("a", "a\r\n")], &["a:1: ends in a carriage return"]);
        check(&[("a", "a\nb")], &["a:2: does not end in a newline"]);
        check(&[("a", "a\n\n")], &["a:2: ends in an empty line"]);
        check(&[("a.toml", "\ta = 1\n")], &["a.toml:1: contains a tab"]);
        check(&[("Makefile", "a:\n\tb\n")], &[]);
        check(&[("picture", "\0 \n \0")], &[]);
    }

    #[test]
    fn exact_bytes_are_left_alone() {
        let exceptions =
            Exceptions { exact_bytes: vec!["fixtures/".to_owned()], ..Exceptions::default() };
        check_with(&exceptions, &[("fixtures/a", "a "), ("b", "b")], &["b:1: does not end"]);
    }

    #[test]
    fn leftovers_are_found() {
        for word in WORDS {
            check(&[("a.rs", &format!("// {word}: x\n"))], &["a.rs:1: contains"]);
            check(&[("a.rs", &format!("// a{word}b {word}_A\n"))], &[]);
            check(&[("x/Cargo.lock", &format!("{word}\n"))], &[]);
        }
        for mark in UNFINISHED {
            check(&[("a.rs", &format!("x\n    {mark}\n"))], &["a.rs:2: contains"]);
        }
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for start in FOUR {
            let names = format!("names a path below {start}");
            for line in [format!("{start}me"), format!("\"{start}me\""), format!("file://{start}")]
            {
                check(&[("a", &format!("{line}\n"))], &[&format!("a:1: {names}")]);
            }
            for line in [
                format!("crates{start}x"),
                format!("https://a.example{start}"),
                format!("{{dir}}{start}"),
            ] {
                check(&[("a", &format!("{line}\n"))], &[]);
            }
            let exceptions =
                Exceptions { absolute_paths: vec!["a".to_owned()], ..Exceptions::default() };
            check_with(&exceptions, &[("a", &format!("{start}me\n"))], &[]);
        }
    }

    #[test]
    fn a_library_says_what_it_is() {
        let page = ("docs/architecture.md", "`crates/a`, `crates/a-b`\n");
        let cargo = ("crates/a/Cargo.toml", "");
        check(&[page, cargo, ("crates/a/src/lib.rs", "//! A.\n")], &[]);
        check(
            &[page, cargo, ("crates/a/src/lib.rs", "mod a;\n")],
            &["crates/a/src/lib.rs:1: does not begin with `//!`"],
        );
    }

    #[test]
    fn long_rust_files_are_split() {
        check(&[("a.rs", &"a\n".repeat(900))], &[]);
        check(&[("a.rs", &"a\n".repeat(901))], &["a.rs:901: has 901 lines"]);
        check(&[("a.md", &"a\n".repeat(901))], &[]);
    }

    #[test]
    fn large_files_need_a_reason() {
        let large = "a\n".repeat(FILE_BYTES);
        let exceptions = Exceptions {
            large_images: vec!["docs/a.png".to_owned(), "b.png".to_owned()],
            ..Exceptions::default()
        };
        check_with(
            &exceptions,
            &[("docs/a.png", &large), ("b.png", &large)],
            &["b.png:1: is 2048 KiB"],
        );
    }

    #[test]
    fn links_lead_somewhere() {
        let guide = ("docs/guide.md", "# Guide\n\n## First steps\n");
        for good in [
            "docs/guide.md",
            "docs/guide.md#first-steps",
            "./docs/guide.md",
            "/docs/guide.md",
            "docs",
            "docs/",
            "#title",
            "https://a.example/b",
            "mailto:a@b.example",
        ] {
            check(&[guide, ("README.md", &format!("# Title\n\n[a]({good})\n"))], &[]);
        }
        for (bad, problem) in [
            ("docs/gone.md", "docs/gone.md does not exist"),
            ("docs/guide.md#last", "docs/guide.md has no heading #last"),
            ("#guide", "README.md has no heading #guide"),
            ("../x.md", "leaves the repository"),
            ("docs#first-steps", "a folder has no anchors"),
        ] {
            let expected = format!("README.md:3: link to {bad}: {problem}");
            check(&[guide, ("README.md", &format!("# Title\n\n[a]({bad})\n"))], &[&expected]);
        }
        check(&[guide, ("docs/b.md", "[a](guide.md) [b](../docs/guide.md)\n")], &[]);
    }

    #[test]
    fn the_architecture_page_names_every_crate() {
        let cargo = ("crates/store/Cargo.toml", "");
        check(&[cargo], &["docs/architecture.md:1: does not exist"]);
        check(
            &[cargo, ("docs/architecture.md", "`crates/store-sqlite`\n")],
            &["docs/architecture.md:1: does not mention crates/store"],
        );
        check(&[cargo, ("docs/architecture.md", "`crates/store`\n")], &[]);
    }

    #[test]
    fn the_readme_of_the_examples_names_each_tool() {
        let tools = [("examples/tools/whois.clad.toml", ""), ("examples/tools/dig.clad.toml", "")];
        check(&tools, &[]);
        let mut with_readme = tools.to_vec();
        with_readme.push(("examples/tools/README.md", "`whois`, not dig\n"));
        check(&with_readme, &["examples/tools/README.md:1: does not name dig.clad.toml"]);
    }
}
