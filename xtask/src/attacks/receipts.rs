//! Changed receipts, in a file.

use super::story::{stored, story};
use super::{case, key};
use crate::Outcome;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::{LogKey, Signer as _};
use countersign_audit::receipt::Receipt;
use countersign_audit::tree::{Frontier, Hash, Place, inclusion_proof, leaf_hash};
use serde_json::json;
use std::collections::HashMap;

/// The receipt for the seventh record of the story.
pub(super) fn receipt(own: &LogKey) -> Outcome<(Receipt, Vec<String>)> {
    let records = stored(&story());
    let mut nodes: HashMap<Place, Hash> = HashMap::new();
    let mut tree = Frontier::default();
    for record in &records {
        tree.push(leaf_hash(record.as_bytes()), |place, hash| {
            nodes.insert(place, hash);
        });
    }
    let node = |place| nodes.get(&place).copied().ok_or("a node is missing");
    let path = inclusion_proof(6, tree.size(), node)?.ok_or("no such leaf")?;
    let note = Checkpoint::sign(tree.size(), tree.root(), own)?;
    let record = records.get(6).cloned().ok_or("no such record")?;
    Ok((Receipt::new(7, record, &path, note), records))
}

/// The signature of a note with the group order added to its scalar.
pub(super) fn malleable(note: &str) -> Outcome<String> {
    let (text, signature) = note.trim_end().rsplit_once(' ').ok_or("no signature")?;
    let bytes = STANDARD.decode(signature)?;
    let (begin, scalar) = bytes.split_at_checked(36).ok_or("a short signature")?;
    Ok(format!("{text} {}\n", STANDARD.encode([begin, &plus_order(scalar)].concat())))
}

/// The note with a signature whose commitment is of small order.
pub(super) fn small_order(note: &str) -> Outcome<String> {
    let (text, signature) = note.trim_end().rsplit_once(' ').ok_or("no signature")?;
    let mut bytes = STANDARD.decode(signature)?;
    bytes.truncate(4);
    bytes.push(1);
    bytes.resize(68, 0);
    Ok(format!("{text} {}\n", STANDARD.encode(bytes)))
}

pub(super) fn plus_order(scalar: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0u16;
    let sum = scalar.iter().zip(ORDER).map(|(byte, add)| {
        carry += u16::from(*byte) + u16::from(add);
        let low = carry.to_le_bytes()[0];
        carry >>= 8;
        low
    });
    sum.collect()
}

/// Changed receipts.
pub(crate) fn receipts() -> Outcome<Vec<u8>> {
    let own = key(31)?;
    let (good, records) = receipt(&own)?;
    let mut out = Vec::new();
    let other = records.get(7).cloned().ok_or("no such record")?;
    let mut moved = good.inclusion_proof.clone();
    moved.swap(0, 1);
    let mut flipped = good.inclusion_proof.clone();
    if let Some(first) = flipped.first_mut() {
        *first = STANDARD.encode([0; 32]);
    }
    let misfiled = {
        let wrong = good.record.replacen("\"journal_seq\":7", "\"journal_seq\":8", 1);
        let mut tree = Frontier::default();
        tree.push(leaf_hash(wrong.as_bytes()), |_, _| ());
        Receipt::new(1, wrong, &[], Checkpoint::sign(1, tree.root(), &own)?)
    };
    let small = small_order(&good.checkpoint)?;
    let of = |checkpoint: String| Receipt { checkpoint, ..good.clone() };
    let text = serde_json::to_string(&good)?;
    let cases: Vec<(&str, &str, String, &str, Option<&str>)> = vec![
        ("nothing", "So that the others are told from it.", text.clone(), "whole", None),
        (
            "another record",
            "Its hash leads elsewhere.",
            serde_json::to_string(&Receipt { record: other, ..good.clone() })?,
            "broken",
            Some("not_included"),
        ),
        (
            "a byte of the record",
            "Its hash leads elsewhere.",
            text.replacen("intent_recorded", "intent_recordes", 1),
            "broken",
            Some("not_included"),
        ),
        (
            "another place",
            "The path is of another leaf.",
            serde_json::to_string(&Receipt { seq: 8, ..good.clone() })?,
            "broken",
            Some("not_included"),
        ),
        (
            "no place",
            "Places begin with 1.",
            serde_json::to_string(&Receipt { seq: 0, ..good.clone() })?,
            "broken",
            Some("not_included"),
        ),
        (
            "a place behind the end",
            "The checkpoint covers fewer.",
            serde_json::to_string(&Receipt { seq: 1000, ..good.clone() })?,
            "broken",
            Some("not_included"),
        ),
        (
            "a path in another order",
            "It leads elsewhere.",
            serde_json::to_string(&Receipt { inclusion_proof: moved, ..good.clone() })?,
            "broken",
            Some("not_included"),
        ),
        (
            "another path",
            "It leads elsewhere.",
            serde_json::to_string(&Receipt { inclusion_proof: flipped, ..good.clone() })?,
            "broken",
            Some("not_included"),
        ),
        (
            "no path",
            "It leads nowhere.",
            serde_json::to_string(&Receipt { inclusion_proof: Vec::new(), ..good.clone() })?,
            "broken",
            Some("not_included"),
        ),
        (
            "a longer path",
            "It leads too far.",
            serde_json::to_string(&Receipt {
                inclusion_proof: [good.inclusion_proof.clone(), good.inclusion_proof.clone()]
                    .concat(),
                ..good.clone()
            })?,
            "broken",
            Some("not_included"),
        ),
        (
            "a short hash",
            "It is not 32 bytes.",
            serde_json::to_string(&Receipt {
                inclusion_proof: vec!["AAAA".to_owned()],
                ..good.clone()
            })?,
            "broken",
            Some("not_included"),
        ),
        (
            "a hash in another encoding",
            "Base64 has one spelling.",
            text.replacen("=\"", "\"", 1),
            "broken",
            Some("not_included"),
        ),
        (
            "a malleable signature",
            "The group order was added to its scalar.",
            serde_json::to_string(&of(malleable(&good.checkpoint)?))?,
            "broken",
            Some("checkpoint_invalid"),
        ),
        (
            "a signature of small order",
            "It would fit many texts.",
            serde_json::to_string(&of(small))?,
            "broken",
            Some("checkpoint_invalid"),
        ),
        (
            "a checkpoint by another key",
            "Of the same name.",
            serde_json::to_string(&of(Checkpoint::sign(18, [7; 32], &key(32)?)?))?,
            "broken",
            Some("checkpoint_invalid"),
        ),
        (
            "a checkpoint of another tree",
            "It is signed, and of something else.",
            serde_json::to_string(&of(Checkpoint::sign(18, [7; 32], &own)?))?,
            "broken",
            Some("not_included"),
        ),
        (
            "a checkpoint with a carriage return",
            "A note has one form.",
            serde_json::to_string(&of(good.checkpoint.replace('\n', "\r\n")))?,
            "broken",
            Some("checkpoint_invalid"),
        ),
        (
            "a later version",
            "It may mean something else.",
            serde_json::to_string(&Receipt { receipt_version: 2, ..good.clone() })?,
            "broken",
            Some("version"),
        ),
        (
            "a record that says another place",
            "The holder of the key signed it so.",
            serde_json::to_string(&misfiled)?,
            "broken",
            Some("record_misfiled"),
        ),
        (
            "a field twice",
            "Two readers could see two receipts.",
            text.replacen('{', "{\"seq\":7,", 1),
            "unusable",
            None,
        ),
        (
            "a field that is not known",
            "Nothing covers it.",
            text.replacen('{', "{\"note\":\"x\",", 1),
            "unusable",
            None,
        ),
        (
            "half",
            "It ends in the middle.",
            text.get(..text.len() / 2).unwrap_or_default().to_owned(),
            "unusable",
            None,
        ),
    ];
    for (name, why, input, verdict, rule) in cases {
        case(
            &mut out,
            &json!({
                "case": name, "why": why, "input": input, "key": own.public().to_string(),
                "expect": { "verdict": verdict, "rule": rule },
            }),
        )?;
    }
    Ok(out)
}

/// Receipts with one part of their checkpoint flipped, each part in turn.
pub(crate) fn checkpoints() -> Outcome<Vec<u8>> {
    let own = key(31)?;
    let (good, _) = receipt(&own)?;
    let other = Checkpoint::sign(18, [7; 32], &key(32)?)?;
    let part = |note: &str, line: usize| note.lines().nth(line).map(str::to_owned);
    let (root, foreign) = (part(&good.checkpoint, 2), part(&other, 2));
    let (Some(root), Some(foreign)) = (root, foreign) else { return Err("no root".into()) };
    let sign = |note: &str| note.trim_end().rsplit_once(' ').map(|(_, s)| s.to_owned());
    let (Some(own_sign), Some(other_sign)) = (sign(&good.checkpoint), sign(&other)) else {
        return Err("no signature".into());
    };
    let replaced = |from: &str, to: &str| good.checkpoint.replacen(from, to, 1);
    let twice = {
        let last = part(&good.checkpoint, 4).unwrap_or_default();
        format!("{}{last}\n", good.checkpoint)
    };
    let flipped = |at: usize| -> Outcome<String> {
        let mut bytes = STANDARD.decode(&own_sign)?;
        bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
        Ok(replaced(&own_sign, &STANDARD.encode(bytes)))
    };
    let mut out = Vec::new();
    for (name, why, note) in [
        ("the origin", "It is of another log.", replaced("attacks", "attackz")),
        ("the size", "It covers another number.", replaced("\n18\n", "\n19\n")),
        ("a size with a sign", "A number has one spelling.", replaced("\n18\n", "\n+18\n")),
        ("the root", "It is another tree's.", replaced(&root, &foreign)),
        ("the signer's name", "Somebody else signed.", replaced("\u{2014} c", "\u{2014} d")),
        ("the key's id", "The id names another key.", flipped(0)?),
        ("the signature's commitment", "One bit.", flipped(4)?),
        ("the signature's scalar", "One bit.", flipped(40)?),
        ("the signature of another key", "Of the same name.", replaced(&own_sign, &other_sign)),
        ("a signature twice", "Which counts is nobody's to choose.", twice),
        ("no blank line", "A note has one form.", replaced("\n\n", "\n")),
        ("a line more", "Nothing says what it means.", replaced("\n\n", "\nmore\n\n")),
        ("no newline at the end", "A note has one form.", good.checkpoint.trim_end().to_owned()),
        ("nothing", "There is no note.", String::new()),
    ] {
        let changed = Receipt { checkpoint: note, ..good.clone() };
        case(
            &mut out,
            &json!({
                "case": format!("checkpoint: {name}"), "why": why,
                "input": serde_json::to_string(&changed)?, "key": own.public().to_string(),
                "expect": { "verdict": "broken", "rule": "checkpoint_invalid" },
            }),
        )?;
    }
    Ok(out)
}
