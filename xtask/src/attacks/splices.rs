//! Bundles put together from pieces that are each right, signatures that only look right, and
//! changes of keys that were not agreed on.

use super::damages::line;
use super::receipts::{malleable, small_order};
use super::story::{bundle, change, record, stored, story};
use super::{ORIGIN, case, key};
use crate::Outcome;
use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::{Handover, LogKey, PublicKey, Signer};
use countersign_audit::tree::{Frontier, leaf_hash};
use countersign_audit::verify::BundleWriter;
use serde_json::{Value, json};

/// The note in a line of a bundle, changed.
fn note(text: &str, at: usize, change: impl Fn(&str) -> Outcome<String>) -> Outcome<String> {
    const BEGIN: &str = "{\"bundle_checkpoint\":";
    let found = text.lines().nth(at).and_then(|l| l.strip_prefix(BEGIN)?.strip_suffix('}'));
    let old: String = serde_json::from_str(found.ok_or("no checkpoint")?)?;
    let new = serde_json::to_string(&change(&old)?)?;
    Ok(line(text, at, |_| vec![format!("{BEGIN}{new}}}")]))
}

/// A log of five records that names `named` as the next key in its third and is signed by `first`
/// up to there and by `then` behind it.
fn rotated(
    first: &dyn Signer,
    at_change: &dyn Signer,
    then: &dyn Signer,
    named: &PublicKey,
) -> Outcome<String> {
    let mut told = story();
    let payload = json!({ "type": "log_key_rotation", "new_key": named.to_string() });
    told.truncate(4);
    told.insert(2, record("journal.record.rotation", 1_500, "log_key_rotation", &[], payload));
    signed(&told, first.public(), |size| match size {
        1 | 2 => first,
        3 => at_change,
        _ => then,
    })
}

/// A bundle with a checkpoint behind each record, by whom this says.
pub(super) fn signed<'k>(
    told: &[Value],
    first: &PublicKey,
    by: impl Fn(u64) -> &'k dyn Signer,
) -> Outcome<String> {
    let mut bundle = BundleWriter::new(Vec::new(), std::slice::from_ref(first), (0, &[]))?;
    let mut tree = Frontier::default();
    for (size, record) in (1u64..).zip(stored(told)) {
        bundle.record(record.as_bytes())?;
        tree.push(leaf_hash(record.as_bytes()), |_, _| ());
        bundle.checkpoint(&Checkpoint::sign(size, tree.root(), by(size))?)?;
    }
    Ok(String::from_utf8(bundle.finish()?)?)
}

type Splice = (&'static str, &'static str, String, Option<&'static str>);

fn keys() -> Outcome<Vec<Splice>> {
    let (old, new, other) = (key(31)?, key(33)?, key(34)?);
    let both = Handover { old: key(31)?, new: key(33)? };
    let elsewhere = LogKey::from_seed("countersign.example/elsewhere", &[33; 32])?;
    let named = new.public();
    let invalid = Some("checkpoint_invalid");
    Ok(vec![
        (
            "a change of keys",
            "So that the others are told from it: both keys signed the record that names the next.",
            rotated(&old, &both, &new, named)?,
            None,
        ),
        (
            "a next key that did not sign",
            "Nobody has shown that it is held.",
            rotated(&old, &old, &new, named)?,
            invalid,
        ),
        (
            "a next key that the old one did not sign for",
            "Whoever holds the next key cannot name it.",
            rotated(&old, &new, &new, named)?,
            invalid,
        ),
        (
            "another key than was named",
            "The record names another.",
            rotated(&old, &Handover { old: key(31)?, new: key(34)? }, &other, named)?,
            invalid,
        ),
        (
            "the old key after the change",
            "It was given up.",
            rotated(&old, &both, &old, named)?,
            invalid,
        ),
        (
            "a next key of another log",
            "It signs something else.",
            rotated(&old, &both, &new, elsewhere.public())?,
            invalid,
        ),
    ])
}

fn pieces() -> Outcome<Vec<Splice>> {
    let own = key(31)?;
    let records = stored(&story());
    let whole = bundle(&records, &own)?;
    let mut other = story();
    change(&mut other, 1, "/timestamp_millis", json!(1_101));
    let fork = bundle(&stored(&other), &own)?;
    let foreign = fork.lines().nth(2).unwrap_or_default().to_owned();
    // Both histories are signed by the key's holder.
    let (begin, end): (Vec<_>, Vec<_>) =
        (whole.lines().take(6).collect(), fork.lines().skip(6).collect());
    let spliced = [begin, end].concat().join("\n") + "\n";
    let mut fewer = story();
    fewer.remove(1);
    let fewer = stored(&fewer);
    let renumbered = {
        let mut left = fewer.iter();
        let lines = whole.lines().enumerate().filter(|(at, _)| *at != 2).map(|(_, l)| {
            if l.starts_with("{\"bundle_") {
                l.replace("\"records\":18", "\"records\":17")
            } else {
                left.next().cloned().unwrap_or_default()
            }
        });
        lines.map(|l| l + "\n").collect::<String>()
    };
    let repeated = whole.lines().nth(5).unwrap_or_default().to_owned();
    let invalid = Some("checkpoint_invalid");
    Ok(vec![
        (
            "a record of another history",
            "It has the right number and was signed, elsewhere.",
            line(&whole, 2, |_| vec![foreign.clone()]),
            Some("root_mismatch"),
        ),
        (
            "the beginning of one history and the end of another",
            "Both were signed by the key's holder.",
            spliced,
            Some("root_mismatch"),
        ),
        (
            "a record dropped, the rest numbered anew and the end corrected",
            "The numbers fit, the signed sizes do not.",
            renumbered,
            Some("record_missing"),
        ),
        (
            "a checkpoint repeated behind later records",
            "It covers fewer.",
            line(&whole, 10, |_| vec![repeated.clone()]),
            Some("record_missing"),
        ),
        (
            "a record with an escape in the place of a letter",
            "The same JSON, other bytes.",
            line(&whole, 1, |l| vec![l.replacen("\"agent\"", "\"\\u0061gent\"", 1)]),
            Some("root_mismatch"),
        ),
        (
            "a malleable signature",
            "The group order was added to its scalar.",
            note(&whole, 5, malleable)?,
            invalid,
        ),
        (
            "a signature of small order",
            "It would fit many texts.",
            note(&whole, 5, small_order)?,
            invalid,
        ),
        (
            "a signature of another checkpoint",
            "It is of another text.",
            {
                let other: String = whole.lines().nth(10).unwrap_or_default().to_owned();
                let sign = other.rsplit_once("\\n\\n").map_or("", |(_, lines)| lines).to_owned();
                line(&whole, 5, |l| {
                    let text = l.rsplit_once("\\n\\n").map_or("", |(text, _)| text);
                    vec![format!("{text}\\n\\n{sign}")]
                })
            },
            invalid,
        ),
        (
            "a signature under another key's id",
            "The id names another key.",
            note(&whole, 5, |note| {
                let other = Checkpoint::sign(4, [0; 32], &key(32)?)?;
                let id = |note: &str| {
                    note.trim_end().rsplit_once(' ').map(|(_, s)| s.get(..5).map(str::to_owned))
                };
                let (Some(Some(own)), Some(Some(other))) = (id(note), id(&other)) else {
                    return Err("no signature".into());
                };
                Ok(note.replacen(&format!(" {own}"), &format!(" {other}"), 1))
            })?,
            invalid,
        ),
        (
            "a signature in another spelling",
            "Base64 has one.",
            note(&whole, 5, |note| Ok(note.trim_end().trim_end_matches('=').to_owned() + "\n"))?,
            invalid,
        ),
        (
            "a signer of another name",
            "The name is not this log's.",
            note(&whole, 5, |note| {
                Ok(note.replacen(
                    &format!("\u{2014} {ORIGIN}"),
                    "\u{2014} countersign.example/x",
                    1,
                ))
            })?,
            invalid,
        ),
    ])
}

/// Bundles put together from pieces.
pub(crate) fn splices() -> Outcome<Vec<u8>> {
    let public = key(31)?.public().to_string();
    let mut out = Vec::new();
    for (name, why, input, rule) in [keys()?, pieces()?].concat() {
        let verdict = if rule.is_some() { "broken" } else { "whole" };
        case(
            &mut out,
            &json!({
                "case": name, "why": why, "input": input, "key": public,
                "expect": { "verdict": verdict, "rule": rule, "seq": null },
            }),
        )?;
    }
    Ok(out)
}
