//! Changed bundles, in a file.

use super::damages::damages;
use super::lies::lies;
use super::story::{LISTED, REQUESTED, bundle, change, stored, story};
use super::{case, key};
use crate::Outcome;
use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::Signer as _;
use countersign_audit::tree::{Frontier, leaf_hash};
use serde_json::{Value, json};

/// Bundles that tell of a broken rule, signed by the key's holder.
pub(crate) fn told() -> Outcome<Vec<u8>> {
    let own = key(31)?;
    let mut out = Vec::new();
    for (name, why, rule, seq, lie) in lies() {
        let mut told = story();
        lie(&mut told);
        // What comes later adds nothing.
        if seq <= 9 {
            told.truncate(10);
        }
        let mut records = stored(&told);
        if name == "a record that says another place"
            && let Some(record) = records.get_mut(REQUESTED)
        {
            *record = record.replacen("\"journal_seq\":3", "\"journal_seq\":4", 1);
        }
        case(
            &mut out,
            &json!({
                "case": name, "why": why, "input": bundle(&records, &own)?,
                "key": own.public().to_string(),
                "expect": { "verdict": "broken", "rule": rule, "seq": seq },
            }),
        )?;
    }
    Ok(out)
}

/// Bundles that somebody without the key has changed, and histories written twice.
pub(crate) fn bundles() -> Outcome<Vec<u8>> {
    let (own, public) = (key(31)?, key(31)?.public().to_string());
    let mut out = Vec::new();
    let whole = bundle(&stored(&story()), &own)?;
    let put = |out: &mut Vec<u8>,
               name: &str,
               why: &str,
               input: &str,
               rule: Option<&str>,
               seq: Option<u64>| {
        let verdict = if rule.is_some() { "broken" } else { "whole" };
        case(
            out,
            &json!({
                "case": name, "why": why, "input": input, "key": public,
                "expect": { "verdict": verdict, "rule": rule, "seq": seq },
            }),
        )
    };
    put(&mut out, "nothing", "So that the others are told from it.", &whole, None, None)?;
    for (name, why, rule, damage) in damages() {
        put(&mut out, name, why, &damage(&whole), Some(rule), None)?;
    }
    // Written by somebody else, with a key of the same name.
    let forged = bundle(&stored(&story()), &key(32)?)?;
    put(
        &mut out,
        "signed by another key",
        "The name is the same, the key is not.",
        &forged,
        Some("checkpoint_invalid"),
        None,
    )?;
    let mut other = story();
    change(&mut other, LISTED, "/timestamp_millis", json!(6_001));
    let fork = bundle(&stored(&other), &own)?;
    let mut pinned = |name: &str, why: &str, input: &str, note: &str, rule: Option<&str>| {
        let verdict = if rule.is_some() { "broken" } else { "whole" };
        case(
            &mut out,
            &json!({
                "case": name, "why": why, "input": input, "key": public, "checkpoint": note,
                "expect": { "verdict": verdict, "rule": rule, "seq": null },
            }),
        )
    };
    let newest = |records: &[Value]| -> Outcome<String> {
        let mut tree = Frontier::default();
        stored(records).iter().for_each(|r| tree.push(leaf_hash(r.as_bytes()), |_, _| ()));
        Ok(Checkpoint::sign(tree.size(), tree.root(), &own)?)
    };
    let note = newest(&story())?;
    pinned("with its own checkpoint", "Kept elsewhere, and the same.", &whole, &note, None)?;
    pinned("a fork", "The key's holder wrote another history.", &fork, &note, Some("forked"))?;
    let short = bundle(&stored(story().get(..12).unwrap_or_default()), &own)?;
    pinned("cut back to an earlier checkpoint", "Whole in itself.", &short, &note, Some("forked"))?;
    let tiny = bundle(&stored(story().get(..2).unwrap_or_default()), &own)?;
    case(
        &mut out,
        &json!({
            "case": "half a line behind the end", "why": "The last line is the last.",
            "input": format!("{tiny}{{\"journal"), "key": public,
            "expect": { "verdict": "broken", "rule": "bundle_damaged", "seq": null },
        }),
    )?;
    for (name, why, input) in [
        (
            "no bundle",
            "The first line is no header.",
            tiny.split_once('\n').map_or("", |(_, rest)| rest),
        ),
        ("an empty file", "There is nothing.", ""),
        (
            "peaks of a log that begins at its beginning",
            "There is nothing before the first record.",
            &tiny.replacen(
                "\"first\":1",
                &format!("\"first\":1,\"peaks\":[\"{}=\"]", "A".repeat(43)),
                1,
            ),
        ),
        (
            "a later version",
            "It may mean something else.",
            &tiny.replacen("\"version\":1", "\"version\":2", 1),
        ),
        ("of another log", "The key is not this log's.", &tiny.replacen("attacks", "others", 1)),
        (
            "peaks that do not fit",
            "The tree before the first record is not told.",
            &tiny.replacen("\"first\":1", "\"first\":3", 1),
        ),
    ] {
        case(
            &mut out,
            &json!({
                "case": name, "why": why, "input": input, "key": public,
                "expect": { "verdict": "unusable", "rule": null, "seq": null },
            }),
        )?;
    }
    Ok(out)
}
