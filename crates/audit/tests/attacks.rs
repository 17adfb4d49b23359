//! Every damaged log, chain and receipt of `fixtures/audit/attacks` is found by the rule that
//! should find it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashSet;
use std::num::NonZero;

use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::critic::{CriticKey, Document, Pins};
use countersign_audit::key::PublicKey;
use countersign_audit::receipt::Receipt;
use countersign_audit::verify::{Options, Rule, verify_bundle};
use countersign_core::digest::Digest;
use serde_json::{Value, json};

/// The cases of a file; each has its own name.
fn cases(name: &str, at_least: usize) -> Vec<Value> {
    let path = format!("{}/../../fixtures/audit/attacks/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let cases: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: HashSet<_> = cases.iter().map(|case| case["case"].as_str().unwrap()).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() >= at_least, "{}", cases.len());
    assert!(cases.iter().all(|case| case["why"].as_str().unwrap().ends_with('.')));
    cases
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap()
}

#[test]
fn every_damaged_bundle_is_found_by_its_rule_on_any_number_of_threads() {
    let files = [
        cases("v1/bundles.ndjson", 30),
        cases("v1/rules.ndjson", 35),
        cases("v2/bundles.ndjson", 17),
        cases("v2/rules.ndjson", 17),
        cases("v3/rules.ndjson", 15),
        cases("v5/rules.ndjson", 19),
        cases("v5/bundles.ndjson", 20),
        cases("v6/bundles.ndjson", 8),
    ];
    for case in files.concat() {
        let key = PublicKey::parse(text(&case, "key")).unwrap();
        for threads in [1, 2, 3] {
            let mut options =
                Options { threads: NonZero::new(threads), meaning: true, ..Options::default() };
            if let Some(note) = case["checkpoint"].as_str() {
                options.checkpoints.push(Checkpoint::open(note, &key).unwrap());
            }
            let report = verify_bundle(text(&case, "input").as_bytes(), &key, &options, |_| ());
            let expect = &case["expect"];
            match report {
                Err(_) => assert_eq!(expect["verdict"], "unusable", "{}", case["case"]),
                Ok(report) => {
                    let verdict = if report.ok { "whole" } else { "broken" };
                    assert_eq!(expect["verdict"], verdict, "{}: {report:?}", case["case"]);
                    let first = report.findings.first();
                    let rule = first.map_or(Value::Null, |f| json!(f.rule));
                    assert_eq!(expect["rule"], rule, "{}: {report:?}", case["case"]);
                    if let Some(seq) = expect["seq"].as_u64() {
                        assert_eq!(first.unwrap().seq, seq, "{}: {report:?}", case["case"]);
                    }
                    let about_bytes = report.findings.iter().all(|f| !f.rule.is_meaning());
                    assert_eq!(report.meaning_ok, Some(about_bytes));
                    // What is wrong with the bytes is seen without understanding them.
                    if report.findings.iter().any(|f| f.rule == Rule::RootMismatch) {
                        options.meaning = false;
                        let input = text(&case, "input").as_bytes();
                        let report = verify_bundle(input, &key, &options, |_| ()).unwrap();
                        assert!(!report.ok && !report.integrity_ok && report.meaning_ok.is_none());
                    }
                }
            }
        }
    }
}

#[test]
fn findings_say_who_and_what() {
    let cases = cases("v1/rules.ndjson", 35);
    let (called, other) = (Digest::of("call.1").to_string(), Digest::of("call.9").to_string());
    for (name, said) in [
        ("a decision by one person twice", &["approval.1", "by the same person"][..]),
        ("a decision by two people", &["approval.1", "by somebody"]),
        ("a decision for another fingerprint", &[&called, &other]),
    ] {
        let case = cases.iter().find(|case| case["case"] == name).unwrap();
        let key = PublicKey::parse(text(case, "key")).unwrap();
        let options = Options { meaning: true, ..Options::default() };
        let input = text(case, "input").as_bytes();
        let report = verify_bundle(input, &key, &options, |_| ()).unwrap();
        for part in said {
            assert!(report.findings[0].detail.contains(part), "{name}: {report:?}");
        }
    }
}

#[test]
fn every_damaged_receipt_is_found_by_its_rule() {
    let files = [
        cases("v1/receipts.ndjson", 20),
        cases("v2/receipts.ndjson", 14),
        cases("v4/receipts.ndjson", 19),
        cases("v5/receipts.ndjson", 5),
        cases("v6/receipts.ndjson", 1),
    ];
    for case in files.concat() {
        let key = PublicKey::parse(text(&case, "key")).unwrap();
        let (verdict, rule) = match Receipt::parse(text(&case, "input").as_bytes()) {
            Err(_) => ("unusable", Value::Null),
            Ok(receipt) => match receipt.verify_record(&key) {
                Ok(_) => ("whole", Value::Null),
                Err(error) => ("broken", error.rule().into()),
            },
        };
        assert_eq!(case["expect"], json!({ "verdict": verdict, "rule": rule }), "{}", case["case"]);
    }
}

#[test]
fn every_damaged_chain_is_found_by_its_rule() {
    let files = [
        cases("v1/critics.ndjson", 50),
        cases("v5/critics.ndjson", 25),
        cases("v6/critics.ndjson", 2),
    ];
    for case in files.concat() {
        let report = CriticKey::parse(text(&case, "key")).ok().and_then(|key| {
            let document = Document::parse(text(&case, "input").as_bytes(), None).ok()?;
            document.verify(&key, &Pins::default()).ok()
        });
        if let Some(first) = report.as_ref().and_then(|report| report.first.as_ref()) {
            assert_eq!(json!(first.rule), first.rule.as_str());
        }
        let found = match report {
            None => json!({ "verdict": "unusable", "rule": null, "index": null }),
            Some(report) => json!({
                "verdict": if report.ok { "whole" } else { "broken" },
                "rule": report.first.as_ref().map(|first| first.rule),
                "index": report.first.as_ref().map(|first| first.index),
            }),
        };
        assert_eq!(case["expect"], found, "{}", case["case"]);
    }
}
