//! Changed chains of critics' verdicts, in a file.

use super::case;
use super::receipts::plus_order;
use super::story::with;
use crate::Outcome;
use crate::audit::chain;
use countersign_audit::critic::CriticSigner;
use serde_json::{Value, json};

type Twist = (&'static str, &'static str, Option<(&'static str, u64)>, fn(&mut Value));

/// The entries of a chain; both chains have them.
fn entries(file: &mut Value) -> &mut Vec<Value> {
    if !file.get("entries").is_some_and(Value::is_array) {
        *file = json!({ "entries": [] });
    }
    match file.get_mut("entries") {
        Some(Value::Array(entries)) => entries,
        _ => unreachable!("it was made an array"),
    }
}

fn set(file: &mut Value, at: usize, field: &str, value: Value) {
    if let Some(entry) = entries(file).get_mut(at) {
        *entry = with(entry.take(), &format!("/{field}"), value);
    }
}

fn get(file: &mut Value, at: usize, field: &str) -> String {
    let value =
        entries(file).get(at).and_then(|entry| entry.get(field)?.as_str().map(str::to_owned));
    value.unwrap_or_default()
}

/// What is done to the chain of the peer, and what is found.
fn peer_twists() -> Vec<Twist> {
    vec![
        ("nothing", "So that the others are told from it.", None, |_| ()),
        (
            "critic_identity",
            "The format covers it with nothing, and the report says so.",
            None,
            |f| set(f, 2, "critic_identity", json!({"type": "llm", "model_id": "other"})),
        ),
        (
            "dimension_scores",
            "The format covers them with nothing, and the report says so.",
            None,
            |f| set(f, 2, "dimension_scores", json!({})),
        ),
        ("the tail cut off", "The format does not miss it, and the report says so.", None, |f| {
            entries(f).truncate(3)
        }),
        ("all cut off", "An empty chain passes any key, and the report says so.", None, |f| {
            entries(f).clear()
        }),
        ("entry_id", "Flipped.", Some(("chain_hash", 2)), |f| {
            set(f, 2, "entry_id", json!("90782a05-a0bb-472b-9fc4-54d336704298"))
        }),
        ("director_output_hash", "Flipped.", Some(("chain_hash", 2)), |f| {
            set(
                f,
                2,
                "director_output_hash",
                json!("862069bc07a6e1b5df123a5ae7bd91c10daa04694fbaa17fba0cd6a8dcce8f22"),
            )
        }),
        ("critic_assessment_hash", "Flipped.", Some(("chain_hash", 2)), |f| {
            set(
                f,
                2,
                "critic_assessment_hash",
                json!("e1e75aca758154ee2147853c02ec6716f4a7ea0418c685978f5d4b8c7b0be25a"),
            )
        }),
        ("verdict", "A no became a yes.", Some(("chain_hash", 1)), |f| {
            set(f, 1, "verdict", json!("approved"))
        }),
        ("score", "The last digit.", Some(("chain_hash", 2)), |f| set(f, 2, "score", json!(0.3))),
        ("the sign of zero", "It is hashed with its sign.", Some(("chain_hash", 5)), |f| {
            set(f, 5, "score", json!(0.0))
        }),
        ("timestamp", "A nanosecond later.", Some(("chain_hash", 2)), |f| {
            set(f, 2, "timestamp", json!("2026-11-20T23:24:01.728787531Z"))
        }),
        ("iteration", "Another round.", Some(("chain_hash", 2)), |f| {
            set(f, 2, "iteration", json!(7))
        }),
        ("chain_hash", "Flipped.", Some(("chain_hash", 2)), |f| {
            set(
                f,
                2,
                "chain_hash",
                json!("efc32eb540ec9b416cfa7355a648f1e04f2b18512eb8ffb7860e8d60ddd4bd40"),
            )
        }),
        ("signature", "Of another entry.", Some(("signature", 2)), |f| {
            let other = get(f, 3, "signature");
            set(f, 2, "signature", json!(other))
        }),
        ("a signature in upper case", "It has one spelling.", Some(("signature", 2)), |f| {
            let s = get(f, 2, "signature").to_uppercase();
            set(f, 2, "signature", json!(s))
        }),
        ("a short signature", "Half a byte is missing.", Some(("signature", 2)), |f| {
            let mut s = get(f, 2, "signature");
            s.pop();
            set(f, 2, "signature", json!(s))
        }),
        (
            "a malleable signature",
            "The group order was added to its scalar.",
            Some(("signature", 2)),
            |f| {
                let bytes = hex::decode(get(f, 2, "signature")).unwrap_or_default();
                let (begin, scalar) = bytes.split_at_checked(32).unwrap_or_default();
                set(f, 2, "signature", json!(hex::encode([begin, &plus_order(scalar)].concat())));
            },
        ),
        ("a signature of small order", "It would fit many texts.", Some(("signature", 2)), |f| {
            set(f, 2, "signature", json!(format!("01{}", "00".repeat(63))))
        }),
        ("two entries swapped", "Each hash holds the one before.", Some(("chain_hash", 3)), |f| {
            entries(f).swap(3, 4)
        }),
        ("an entry dropped", "Each hash holds the one before.", Some(("chain_hash", 3)), |f| {
            drop(entries(f).remove(3))
        }),
        ("the head cut off", "The first holds a fixed hash.", Some(("chain_hash", 0)), |f| {
            drop(entries(f).remove(0))
        }),
        ("an entry repeated", "Each hash holds the one before.", Some(("chain_hash", 3)), |f| {
            let again = entries(f).get(2).cloned();
            entries(f).splice(3..3, again);
        }),
        (
            "two pieces spliced",
            "The second does not follow the first.",
            Some(("chain_hash", 2)),
            |f| {
                entries(f).drain(2..5);
            },
        ),
        (
            "a border of two fields moved",
            "The hashed text is the same.",
            Some(("ambiguous_fields", 0)),
            |f| {
                let (id, director) = (get(f, 0, "entry_id"), get(f, 0, "director_output_hash"));
                let critic = get(f, 0, "critic_assessment_hash");
                set(f, 0, "director_output_hash", json!(""));
                set(f, 0, "critic_assessment_hash", json!(format!("{director}|{critic}")));
                set(f, 0, "entry_id", json!(id.trim_end_matches('|')));
            },
        ),
    ]
}

/// What is done to a chain of our own, and what is found.
fn own_twists() -> Vec<Twist> {
    vec![
        ("nothing", "So that the others are told from it.", None, |_| ()),
        ("critic_identity", "It is covered.", Some(("chain_hash", 1)), |f| {
            set(f, 1, "critic_identity", json!({"type": "llm", "model_id": "other"}))
        }),
        ("dimension_scores", "They are covered.", Some(("chain_hash", 1)), |f| {
            set(f, 1, "dimension_scores", json!({}))
        }),
        ("a new field", "It is covered.", Some(("chain_hash", 1)), |f| {
            set(f, 1, "note", json!("x"))
        }),
        ("a score out of range", "Scores are from 0 to 1.", Some(("chain_hash", 1)), |f| {
            set(f, 1, "score", json!(1.5))
        }),
        ("the chain's id", "The entry is of another chain.", Some(("chain_id", 1)), |f| {
            set(f, 1, "chain_id", json!("example/other"))
        }),
        ("the key's id", "Another key is named.", Some(("key_id", 1)), |f| {
            set(f, 1, "key_id", json!("00"))
        }),
        ("the index", "It stands elsewhere.", Some(("index", 1)), |f| set(f, 1, "index", json!(2))),
        ("the hash before", "It follows something else.", Some(("previous_hash", 1)), |f| {
            set(f, 1, "previous_hash", json!("00"))
        }),
        (
            "the new key's signature",
            "A key must show that it is held.",
            Some(("rotation", 2)),
            |f| set(f, 2, "new_key_signature", json!("00".repeat(64))),
        ),
        ("the change of keys dropped", "The next key is nobody's.", Some(("index", 2)), |f| {
            drop(entries(f).remove(2))
        }),
        ("the tail cut off", "The anchor misses it.", Some(("truncated", 4)), |f| {
            drop(entries(f).pop())
        }),
        ("an entry swapped", "It stands elsewhere.", Some(("index", 0)), |f| entries(f).swap(0, 1)),
        ("the anchor's length", "It is signed.", Some(("anchor_signature", 3)), |f| {
            let anchor = f.get_mut("anchor").map(Value::take).unwrap_or_default();
            *f = with(f.take(), "/anchor", with(anchor, "/len", json!(3)));
        }),
    ]
}

/// Changed chains of critics' verdicts.
pub(crate) fn critics() -> Outcome<Vec<u8>> {
    let peer = crate::workspace::root().join("fixtures/audit/critic/v1/symbi-runtime-1.7.0.json");
    let peer: Value = serde_json::from_slice(&std::fs::read(peer)?)?;
    let peer_key = peer.get("public_key").and_then(Value::as_str).unwrap_or_default().to_owned();
    let own = serde_json::to_value(chain()?)?;
    let own_key = CriticSigner::from_seed(&[21; 32]).public().to_string();
    let mut out = Vec::new();
    let chains = [
        ("symbi-1", &peer, &peer_key, peer_twists()),
        ("countersign-1", &own, &own_key, own_twists()),
    ];
    for (format, file, key, twists) in chains {
        for (name, why, found, twist) in twists {
            let mut changed = file.clone();
            twist(&mut changed);
            let verdict = if found.is_some() { "broken" } else { "whole" };
            case(
                &mut out,
                &json!({
                    "case": format!("{format}: {name}"), "why": why, "input": changed.to_string(), "key": key,
                    "expect": { "verdict": verdict, "rule": found.map(|f| f.0), "index": found.map(|f| f.1) },
                }),
            )?;
        }
        let rule = if format == "symbi-1" { "signature" } else { "key_id" };
        case(
            &mut out,
            &json!({
                "case": format!("{format}: a chain under another's key"),
                "why": "Somebody else signed it.",
                "input": file.to_string(),
                "key": CriticSigner::from_seed(&[23; 32]).public().to_string(),
                "expect": { "verdict": "broken", "rule": rule, "index": 0 },
            }),
        )?;
        let text = file.to_string();
        for (name, why, input, key) in [
            (
                "half",
                "It ends in the middle.",
                text.get(..text.len() / 2).unwrap_or_default().to_owned(),
                key.clone(),
            ),
            (
                "a key twice",
                "Two readers could see two chains.",
                text.replacen('{', "{\"entries\":[],", 1),
                key.clone(),
            ),
            (
                "a verdict that is none",
                "There are three words.",
                text.replacen("\"approved\"", "\"maybe\"", 1),
                key.clone(),
            ),
            (
                "a field missing",
                "Nothing can be said without it.",
                text.replacen("\"iteration\"", "\"round\"", 1),
                key.clone(),
            ),
            (
                "a key of small order",
                "Signatures by it prove nothing.",
                text.clone(),
                format!("01{}", "00".repeat(31)),
            ),
            ("a key that is none", "It is too short.", text.clone(), "00ff".to_owned()),
        ] {
            case(
                &mut out,
                &json!({
                    "case": format!("{format}: {name}"), "why": why, "input": input, "key": key,
                    "expect": { "verdict": "unusable", "rule": null, "index": null },
                }),
            )?;
        }
    }
    Ok(out)
}
