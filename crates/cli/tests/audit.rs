//! `countersign audit` as it is used: files, keys, exit codes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const KEY: &str = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/audit").join(name)
}

fn countersign(dir: &Path, arguments: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .arg("audit")
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments may not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_chain_is_whole_broken_or_unusable_by_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let peer = std::fs::read_to_string(fixture("critic/v1/symbi-runtime-1.7.0.json")).unwrap();
    std::fs::write(dir.path().join("critic.pub"), format!("{KEY}\n")).unwrap();
    let broken = peer.replace("\"rejected\"", "\"approved\"");
    let other = format!("{}0", &KEY[..63]);
    for (why, input, key, format, code) in [
        ("whole", peer.as_str(), KEY, None, 0),
        ("whole, key from a file", &peer, "@critic.pub", None, 0),
        ("whole, format named", &peer, KEY, Some("symbi-1"), 0),
        ("empty", "[]", KEY, None, 0),
        ("a changed verdict", &broken, KEY, None, 1),
        ("not of that format", &peer, KEY, Some("countersign-1"), 2),
        ("cut in half", &peer[..2000], KEY, None, 2),
        ("no chain", "{}", KEY, None, 2),
        ("no key", &peer, "abc", None, 2),
        ("no usable key", &peer, &other, None, 2),
        ("no key file", &peer, "@nowhere", None, 2),
    ] {
        let mut arguments = vec!["critic", "verify", "-", "--key", key, "--json"];
        arguments.extend(format.iter().flat_map(|format| ["--format", format]));
        let output = countersign(dir.path(), &arguments, input);
        assert_eq!(output.status.code(), Some(code), "{why}: {output:?}");
        arguments.retain(|argument| *argument != "--json");
        let output = countersign(dir.path(), &arguments, input);
        assert_eq!(output.status.code(), Some(code), "{why}: {output:?}");
    }
    let output =
        countersign(dir.path(), &["critic", "verify", "-", "--key", KEY, "--json"], &broken);
    let report = json(&output);
    assert_eq!(report["ok"], false);
    assert_eq!(report["index"], 1);
    assert_eq!(report["rule"], "chain_hash");
    assert_eq!(report["found"], "8194e1d03368738471131f5997b5072cd53fb34b91d5f4325fd0efa04e958520");
    assert_eq!(report["expected"].as_str().unwrap().len(), 64);
    let output = countersign(dir.path(), &["critic", "verify", "-", "--key", KEY], &broken);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["broken at entry 1", "chain_hash", "expected", "found", "dimension_scores"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let without = peer.replacen("\"score\"", "\"points\"", 1);
    let output =
        countersign(dir.path(), &["critic", "verify", "-", "--key", KEY, "--json"], &without);
    assert_eq!((output.status.code(), &json(&output)["index"]), (Some(2), &Value::from(0)));
}

#[test]
fn a_chain_of_our_own_is_held_against_its_anchor_and_id() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| fixture("critic/v1").join(name).display().to_string();
    let (chain, anchor) = (path("countersign-1.json"), path("countersign-1.anchor.json"));
    let key = format!("@{}", path("critic.pub"));
    let run = |more: &[&str]| {
        let arguments = [&["critic", "verify", &chain, "--key", &key, "--json"], more].concat();
        countersign(dir.path(), &arguments, "")
    };
    let output = run(&["--anchor", &anchor, "--chain-id", "example/review"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(json(&output)["format"], "countersign-1");
    let output = run(&["--chain-id", "example/other"]);
    assert_eq!((output.status.code(), &json(&output)["rule"]), (Some(1), &"chain_id".into()));
    // The peer's chain has neither.
    let peer = path("symbi-runtime-1.7.0.json");
    let output =
        countersign(dir.path(), &["critic", "verify", &peer, "--key", KEY, "--chain-id", "x"], "");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn texts_are_matched_to_their_entry() {
    let dir = tempfile::tempdir().unwrap();
    let peer = fixture("critic/v1/symbi-runtime-1.7.0.json").display().to_string();
    std::fs::write(dir.path().join("right"), "out").unwrap();
    std::fs::write(dir.path().join("newline"), "out\n").unwrap();
    let run =
        |more: &[&str]| countersign(dir.path(), &[&["critic", "match", &peer], more].concat(), "");
    assert_eq!(run(&["--index", "3", "--director", "right"]).status.code(), Some(0));
    assert_eq!(run(&["--index", "3", "--director", "right", "--key", KEY]).status.code(), Some(0));
    let output = run(&["--index", "3", "--director", "newline"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("without the newline"));
    let output = run(&["--index", "3", "--director", "right", "--critic", "right", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["director"]["matches"], true);
    assert_eq!(json(&output)["critic"]["matches"], false);
    let other = "0".repeat(63) + "1";
    for bad in [
        &["--index", "7", "--director", "right"][..],
        &["--index", "0"],
        &["--index", "0", "--director", "nowhere"],
        &["--index", "0", "--director", "right", "--key", &other],
    ] {
        assert_eq!(run(bad).status.code(), Some(2), "{bad:?}");
    }
}
