//! Receipts for records that the key's holder has signed and that are none, or could be two.

use super::story::{stored, story};
use super::{case, key};
use crate::Outcome;
use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::{LogKey, Signer as _};
use countersign_audit::receipt::Receipt;
use countersign_audit::tree::{Frontier, leaf_hash};
use serde_json::json;

/// The receipt for the only record of a log.
fn alone(record: String, own: &LogKey) -> Outcome<Receipt> {
    let mut tree = Frontier::default();
    tree.push(leaf_hash(record.as_bytes()), |_, _| ());
    Ok(Receipt::new(1, record, &[], Checkpoint::sign(1, tree.root(), own)?))
}

type Change = (&'static str, &'static str, Option<&'static str>, &'static str, &'static str);

/// What stands there once, and what is put in its place.
fn changes() -> Vec<Change> {
    const UNREADABLE: Option<&str> = Some("record_unreadable");
    const SEQ: &str = "\"journal_seq\":1,";
    const TYPE: &str = "\"type\":\"hook\"";
    vec![
        ("a record alone", "So that the others are told from it.", None, "", ""),
        (
            "white space around a record",
            "It is the same JSON.",
            None,
            "{\"journal_schema",
            " {\"journal_schema",
        ),
        (
            "a field more",
            "Whoever does not know it passes over it.",
            None,
            SEQ,
            "\"journal_seq\":1,\"later\":{\"journal_seq\":2,\"payload\":null},",
        ),
        ("another place", "It says so itself.", Some("record_misfiled"), SEQ, "\"journal_seq\":2,"),
        ("no place", "It could be any.", UNREADABLE, SEQ, ""),
        (
            "its place twice",
            "Readers take one or the other.",
            UNREADABLE,
            SEQ,
            "\"journal_seq\":2,\"journal_seq\":1,",
        ),
        (
            "its place twice, spelled otherwise",
            "Unescaped, both are one key.",
            UNREADABLE,
            SEQ,
            "\"journal_seq\":1,\"\\u006aournal_seq\":2,",
        ),
        (
            "a place that is a text",
            "A place is a number.",
            UNREADABLE,
            SEQ,
            "\"journal_seq\":\"1\",",
        ),
        (
            "a place that is nothing",
            "A place is a number.",
            UNREADABLE,
            SEQ,
            "\"journal_seq\":null,",
        ),
        ("a place below 0", "Places begin with 1.", UNREADABLE, SEQ, "\"journal_seq\":-1,"),
        (
            "a place with a fraction",
            "A place is a whole number.",
            UNREADABLE,
            SEQ,
            "\"journal_seq\":1.0,",
        ),
        (
            "a payload without a type",
            "Nothing says what it is.",
            UNREADABLE,
            TYPE,
            "\"kind\":\"hook\"",
        ),
        (
            "a type twice",
            "Readers take one or the other.",
            UNREADABLE,
            TYPE,
            "\"type\":\"tool\",\"type\":\"hook\"",
        ),
        (
            "a key twice, deep inside",
            "Readers take one or the other.",
            UNREADABLE,
            "\"executor_ref\":",
            "\"executor_ref\":\"executor.2\",\"executor_ref\":",
        ),
        (
            "a key twice where nobody looks",
            "A later reader may look there.",
            UNREADABLE,
            SEQ,
            "\"journal_seq\":1,\"later\":[{\"a\":{\"b\":1,\"b\":2}}],",
        ),
        (
            "a time that is a text",
            "A time is a number.",
            UNREADABLE,
            "_millis\":1000",
            "_millis\":\"1000\"",
        ),
        (
            "a second record behind it",
            "Which of them is meant is open.",
            UNREADABLE,
            "}}}",
            "}}}{}",
        ),
        ("half a record", "It ends too early.", UNREADABLE, "}}}", "}}"),
        ("no number", "JSON has no word for it.", UNREADABLE, "_millis\":1000", "_millis\":NaN"),
    ]
}

/// Receipts, whole but for the record.
pub(crate) fn records() -> Outcome<Vec<u8>> {
    let own = key(31)?;
    let record = stored(&story()).into_iter().next().ok_or("no record")?;
    let mut out = Vec::new();
    for (name, why, rule, from, to) in changes() {
        let changed = record.replacen(from, to, 1);
        if (changed == record) != (from == to) {
            return Err(format!("{name}: nothing is changed").into());
        }
        let verdict = if rule.is_some() { "broken" } else { "whole" };
        case(
            &mut out,
            &json!({
                "case": format!("record: {name}"), "why": why,
                "input": serde_json::to_string(&alone(changed, &own)?)?,
                "key": own.public().to_string(),
                "expect": { "verdict": verdict, "rule": rule },
            }),
        )?;
    }
    Ok(out)
}
