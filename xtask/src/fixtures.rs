//! Writes the generated files below `fixtures/`, or compares them byte for byte.

use crate::{Outcome, attacks, audit, cases, diff, layers, terminal, workspace};
use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::{LogKey, Signer as _};
use countersign_audit::receipt::Receipt;
use countersign_audit::tree::{Frontier, inclusion_proof, leaf_hash};
use std::collections::BTreeMap;
use std::path::Path;

/// Makes the bytes of one file. Gives the same bytes every time: seeds, keys and times are
/// fixed.
type Generator = fn() -> Outcome<Vec<u8>>;

/// Every generated file, by its path below `fixtures/`.
///
/// To add one, write a function that gives its bytes, add a line here, and run
/// `cargo xtask fixtures`.
fn generators() -> Vec<(&'static str, Generator)> {
    vec![
        ("arrows.txt", layers::arrows),
        ("audit/attacks/v1/bundles.ndjson", attacks::bundles),
        ("audit/attacks/v1/critics.ndjson", attacks::critics),
        ("audit/attacks/v1/receipts.ndjson", attacks::receipts),
        ("audit/attacks/v1/rules.ndjson", attacks::told),
        ("audit/attacks/v2/bundles.ndjson", attacks::splices),
        ("audit/attacks/v2/receipts.ndjson", attacks::checkpoints),
        ("audit/attacks/v2/rules.ndjson", attacks::quorums),
        ("audit/attacks/v3/rules.ndjson", attacks::edited_calls),
        ("audit/attacks/v4/receipts.ndjson", attacks::records),
        ("audit/attacks/v5/bundles.ndjson", attacks::readings),
        ("audit/attacks/v5/critics.ndjson", attacks::critic_readings),
        ("audit/attacks/v5/receipts.ndjson", attacks::receipt_readings),
        ("audit/attacks/v5/rules.ndjson", attacks::bounds),
        ("audit/attacks/v6/bundles.ndjson", attacks::listed_records),
        ("audit/attacks/v6/critics.ndjson", attacks::listed_entries),
        ("audit/attacks/v6/receipts.ndjson", attacks::listed_receipts),
        ("audit/critic/v1/countersign-1.anchor.json", audit::critic_anchor),
        ("audit/critic/v1/countersign-1.json", audit::critic_chain),
        ("audit/critic/v1/critic.pub", audit::critic_key),
        ("audit/v1/checkpoint.txt", audit_checkpoint),
        ("audit/v1/log.pub", audit_key),
        ("audit/v1/receipt.json", audit_receipt),
        ("approvals/v1/cases.ndjson", || cases::family("approvals")),
        ("effects/v1/cases.ndjson", || cases::family("effects")),
        ("errors/v1/cases.ndjson", || cases::family("errors")),
        ("holds/v1/cases.ndjson", || cases::family("holds")),
        ("hooks/v1/cases.ndjson", || cases::family("hooks")),
        ("journal/v1/cases.ndjson", || cases::family("journal")),
    ]
}

/// The log of the audit fixtures: seven records, signed with a key everybody knows.
fn audit_log() -> Outcome<(LogKey, Vec<String>, Frontier)> {
    let key = LogKey::from_seed("countersign.example/fixture", &[7; 32])?;
    let records: Vec<_> = (1..=7).map(|seq| format!("{{\"journal_seq\":{seq}}}")).collect();
    let mut tree = Frontier::default();
    records.iter().for_each(|record| tree.push(leaf_hash(record.as_bytes()), |_, _| ()));
    Ok((key, records, tree))
}

fn audit_key() -> Outcome<Vec<u8>> {
    Ok(format!("{}\n", audit_log()?.0.public()).into_bytes())
}

fn audit_checkpoint() -> Outcome<Vec<u8>> {
    let (key, _, tree) = audit_log()?;
    Ok(Checkpoint::sign(tree.size(), tree.root(), &key)?.into_bytes())
}

fn audit_receipt() -> Outcome<Vec<u8>> {
    let (key, records, tree) = audit_log()?;
    let mut nodes = BTreeMap::new();
    let mut again = Frontier::default();
    for record in &records {
        again.push(leaf_hash(record.as_bytes()), |place, hash| {
            nodes.insert(place, hash);
        });
    }
    let index = 4;
    let node = |place| nodes.get(&place).copied().ok_or("a node is missing");
    let proof = inclusion_proof(index, tree.size(), node)?.ok_or("no such leaf")?;
    let record = records.get(4).cloned().ok_or("no such record")?;
    let note = Checkpoint::sign(tree.size(), tree.root(), &key)?;
    let receipt = Receipt::new(index + 1, record, &proof, note);
    receipt.verify(key.public())?;
    let mut bytes = serde_json::to_vec_pretty(&receipt)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Files below `fixtures/` that are kept by hand: a path, or a folder when it ends in `/`.
const STATIC: &[&str] = &[
    "README.md",
    // A chain that symbi-runtime 1.7.0 wrote, and its key; read by crates/audit/tests/critic.rs.
    "audit/critic/v1/symbi-runtime-1.7.0.json",
    // What OCSF 1.5.0 requires of an event, read by crates/cli/tests/ocsf.rs.
    "ocsf/v1/api-activity-1.5.0.json",
    // What another program wrote, read by crates/core/tests/peer_json.rs.
    "records/v1/",
    // The tables of the contract, from which its cases are made; read by xtask/src/cases.rs and
    // by crates/core/tests.
    "types/v1/types.json",
    "words/v1/words.json",
    "hooks/v1/matrix.json",
    "ids/v1/journal-cursor.json",
    // What agent-sdk-core 0.1.0-alpha.4 wrote, and cases of nobody's making; read by
    // crates/core/tests/cases.rs and crates/core/tests/hooks.rs.
    "hooks/v1/spec-hashes.json",
    "approvals/v1/peer.ndjson",
    "effects/v1/peer.ndjson",
    "errors/v1/peer.ndjson",
    "hooks/v1/peer.ndjson",
    "journal/v1/peer.ndjson",
    "approvals/v1/edges.ndjson",
    // Forms that came later: calls that take several people.
    "approvals/v2/quorum.ndjson",
    "holds/v2/quorum.ndjson",
    "journal/v2/holds.ndjson",
    // And calls whose arguments an approver edited.
    "approvals/v3/edits.ndjson",
    "journal/v3/edits.ndjson",
    "holds/v1/edges.ndjson",
    "holds/v2/edges.ndjson",
    "hooks/v1/edges.ndjson",
    "journal/v1/edges.ndjson",
    // Forms of a plan that came later; read by crates/core/tests/cases.rs.
    "effects/v2/edges.ndjson",
    // Manifests and values with their verdicts, and vectors that other implementations of the
    // format share; read by crates/manifest/tests/corpus.rs.
    "manifest/",
];

/// Folders below `fixtures/` whose files another command writes, compares and clears of strays.
const OTHERS: &[&str] = &[
    // `cargo xtask contract`
    "api/",
];

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn run(check: bool) -> Outcome {
    let folder = workspace::root().join("fixtures");
    let mut wanted = Files::new();
    for (path, generate) in generators() {
        let bytes = generate().map_err(|error| format!("cannot make fixtures/{path}: {error}"))?;
        if wanted.insert(path.to_owned(), bytes).is_some() {
            return Err(format!("fixtures/{path} has two generators; remove one").into());
        }
    }
    let mut on_disk = Files::new();
    if folder.is_dir() {
        read_below(&folder, "", &mut on_disk)?;
    }

    let mut problems = strays(&on_disk, &wanted, &[STATIC, OTHERS].concat());
    if check {
        let differing = differences(&on_disk, &wanted);
        if !differing.is_empty() {
            println!("fixtures differ: - is on disk, + is what the code makes now\n");
        }
        problems.extend(differing);
        terminal::problems("fixtures", &problems).map_err(|error| {
            format!("{error}; if a change is wanted, run `cargo xtask fixtures` and commit it")
        })?;
        println!("fixtures: {} up to date", terminal::count(wanted.len(), "file"));
        return Ok(());
    }
    let mut written = 0;
    for (path, bytes) in &wanted {
        if on_disk.get(path) == Some(bytes) {
            continue;
        }
        let at = folder.join(path);
        at.parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&at, bytes))
            .map_err(|error| format!("cannot write fixtures/{path}: {error}"))?;
        println!("wrote fixtures/{path}");
        written += 1;
    }
    println!("fixtures: {written} written, {} unchanged", wanted.len() - written);
    terminal::problems("fixtures", &problems)
}

pub(crate) fn read_below(folder: &Path, prefix: &str, files: &mut Files) -> Outcome {
    let unreadable =
        |path: &str, error: std::io::Error| format!("cannot read fixtures/{path}: {error}");
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(prefix, error))? {
        let entry = entry.map_err(|error| unreadable(prefix, error))?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            read_below(&entry.path(), &format!("{path}/"), files)?;
        } else {
            let bytes = std::fs::read(entry.path()).map_err(|error| unreadable(&path, error))?;
            files.insert(path, bytes);
        }
    }
    Ok(())
}

/// Files that nothing owns.
fn strays(on_disk: &Files, wanted: &Files, kept: &[&str]) -> Vec<String> {
    let is_kept = |path: &str| {
        kept.iter().any(|keep| path == *keep || (keep.ends_with('/') && path.starts_with(keep)))
    };
    on_disk
        .keys()
        .filter(|path| !wanted.contains_key(*path) && !is_kept(path))
        .map(|path| {
            format!(
                "fixtures/{path}: no generator makes this file; remove it, or add it to `generators` \
                 or `STATIC` in xtask/src/fixtures.rs"
            )
        })
        .collect()
}

fn differences(on_disk: &Files, wanted: &Files) -> Vec<String> {
    wanted
        .iter()
        .filter_map(|(path, bytes)| match on_disk.get(path) {
            None => Some(format!("fixtures/{path}: does not exist")),
            Some(old) if old == bytes => None,
            Some(old) => {
                Some(format!("fixtures/{path}: differs\n{}", diff::bytes(old, bytes).trim_end()))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn equal_files_are_silent() {
        let both = files(&[("a.json", "{}\n")]);
        assert!(differences(&both, &both).is_empty());
    }

    #[test]
    fn missing_and_changed_files_are_named() {
        let on_disk = files(&[("a", "1\n2\n")]);
        let wanted = files(&[("a", "1\n3\n"), ("b/c", "")]);
        let found = differences(&on_disk, &wanted);
        assert_eq!(found.len(), 2);
        assert_eq!(
            found.first().unwrap(),
            "fixtures/a: differs\n        1   1\n        2 - 2\n        2 + 3"
        );
        assert_eq!(found.last().unwrap(), "fixtures/b/c: does not exist");
    }

    #[test]
    fn files_that_nothing_owns_are_strays() {
        let on_disk = files(&[("a", ""), ("hand/b", ""), ("README.md", ""), ("old/c", "")]);
        let found = strays(&on_disk, &files(&[("a", "")]), &["README.md", "hand/"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found.first().unwrap().starts_with("fixtures/old/c:"));
    }

    #[test]
    fn generated_paths_stay_below_fixtures() {
        for (path, _) in generators() {
            let fine = path.split('/').all(|part| !part.is_empty() && part != ".." && part != ".");
            assert!(fine && !path.contains('\\'), "{path}");
        }
    }
}
