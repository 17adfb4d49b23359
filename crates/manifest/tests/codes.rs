//! The list of codes, the sources and the page for authors say the same.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use countersign_manifest::{CODES, CodeKind};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("codes.rs") {
            found.push(path);
        }
    }
}

/// The sources of this crate, and what the command line says of files.
fn text() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("../cli/src/manifest"), &mut files);
    files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn every_code_is_used_and_every_used_code_is_listed() {
    let text = text();
    let listed: BTreeSet<&str> = CODES.iter().map(|code| code.code).collect();
    assert_eq!(listed.len(), CODES.len(), "a code is listed twice");
    for code in &listed {
        assert!(text.contains(&format!("\"{code}\"")), "{code} is listed, not used");
    }
    for call in ["refuse(", ".error(", ".warn(", "Err((", "code: ", "refused("] {
        for after in text.split(call).skip(1) {
            let Some(rest) = after.trim_start().strip_prefix('"') else { continue };
            let code = rest.split('"').next().unwrap();
            let plain = code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'8');
            assert!(!plain || listed.contains(code), "{code} is used, not listed");
        }
    }
}

#[test]
fn the_page_for_authors_has_every_code_with_its_meaning_and_no_other() {
    let page = include_str!("../../../docs/manifest.md");
    let rows: BTreeSet<(&str, &str)> = page
        .split_once("## Codes")
        .unwrap()
        .1
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "))
        .collect();
    let listed: BTreeSet<(&str, &str)> = CODES.iter().map(|c| (c.code, c.meaning)).collect();
    assert_eq!(rows, listed);
}

#[test]
fn the_list_is_sorted_within_each_kind() {
    for kind in [CodeKind::Error, CodeKind::Warning, CodeKind::Argument] {
        let codes: Vec<&str> =
            CODES.iter().filter(|code| code.kind == kind).map(|code| code.code).collect();
        assert!(codes.is_sorted(), "{codes:?}");
    }
}
