//! What one reader may take for something, and another for something else or for nothing.

use super::damages::line;
use super::receipts::receipt;
use super::splices::signed;
use super::story::{
    APPROVED, CLOSED, DISPATCHED, INTENT, REQUESTED, approved, bundle, change, closed, record,
    stored, story, with,
};
use super::{case, key};
use crate::Outcome;
use crate::audit::chain;
use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::critic::{
    Assessment, CriticSigner, Identity, Timestamp, Verdict, symbi, text_hash,
};
use countersign_audit::key::{Handover, Signer};
use countersign_audit::tree::Frontier;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const UNREADABLE: (&str, &str) = ("broken", "record_unreadable");
const UNUSABLE: (&str, &str) = ("unusable", "");
const WHOLE: (&str, &str) = ("whole", "");

type Change = (&'static str, &'static str, (&'static str, &'static str), fn(&str) -> String);

/// Changes to the lines that are no records. No checkpoint covers them.
fn framing() -> Vec<Change> {
    const DAMAGED: (&str, &str) = ("broken", "bundle_damaged");
    vec![
        ("a header with a field that is not known", "It may mean something.", UNUSABLE, |t| {
            t.replacen("\"first\":1", "\"first\":1,\"later\":1", 1)
        }),
        ("a header with more beside it", "It may mean something.", UNUSABLE, |t| {
            line(t, 0, |l| vec![l.replacen("}}", "},\"later\":1}", 1)])
        }),
        ("a header without keys", "It has to name them.", UNUSABLE, |t| {
            line(t, 0, |l| vec![l.replacen("\"keys\"", "\"keyz\"", 1)])
        }),
        ("a header with keys that are no texts", "It has to name them.", UNUSABLE, |t| {
            line(t, 0, |l| vec![l.replacen("\"keys\":[", "\"keys\":[1,", 1)])
        }),
        ("a version that is a fraction", "A number has one spelling.", UNUSABLE, |t| {
            t.replacen("\"version\":1", "\"version\":1.0", 1)
        }),
        ("peaks that are null", "There are some, or none are told.", UNUSABLE, |t| {
            t.replacen("\"first\":1", "\"first\":1,\"peaks\":null", 1)
        }),
        ("a log that begins before its beginning", "Places begin with 1.", UNUSABLE, |t| {
            t.replacen("\"first\":1", "\"first\":0", 1)
        }),
        ("an end that counts in fractions", "A number has one spelling.", DAMAGED, |t| {
            t.replacen("\"records\":18", "\"records\":18.0", 1)
        }),
        ("an end that says more", "It may mean something.", DAMAGED, |t| {
            t.replacen("\"records\":18", "\"records\":18,\"later\":1", 1)
        }),
        ("more beside a checkpoint", "It may mean something.", DAMAGED, |t| {
            line(t, 5, |l| vec![l.replacen("\"}", "\",\"later\":1}", 1)])
        }),
        ("a header and nothing else", "The last line is missing.", DAMAGED, |t| {
            t.lines().next().unwrap_or_default().to_owned()
        }),
        ("a line longer than any may be", "Who reads it has to hold it.", DAMAGED, |t| {
            line(t, 2, |l| vec![l.to_owned() + &" ".repeat(256 * 1024)])
        }),
    ]
}

type Lie = (&'static str, &'static str, (&'static str, &'static str), fn(&mut Vec<Value>));

/// What the key's holder has signed.
fn lies() -> Vec<Lie> {
    vec![
        ("an approver of a kind that is not known", "Who it is decides.", UNREADABLE, |s| {
            change(s, APPROVED, "/payload/record/decision/actor_ref/privacy", json!("none"))
        }),
        ("a request that lacks a field", "It is no request.", UNREADABLE, |s| {
            change(s, REQUESTED, "/payload/record/request/turn_id", Value::Null)
        }),
        ("an announcement of a kind that is not known", "It may be anything.", UNREADABLE, |s| {
            change(s, DISPATCHED, "/payload/record/effect_intent/kind", json!("other"))
        }),
        ("a fingerprint that is no digest", "It has one spelling.", UNREADABLE, |s| {
            change(s, INTENT, "/payload/fingerprint", json!("sha256:00"))
        }),
        ("a policy that asks for nobody", "It would release everything.", UNREADABLE, |s| {
            let policy = json!({ "factors": [] });
            change(s, REQUESTED, "/payload/record/request/hold_policy", policy);
        }),
        ("a use of a grant that is a fraction", "Uses are counted.", UNREADABLE, |s| {
            change(s, INTENT, "/payload/grant_use", json!(1.0))
        }),
        (
            "a payload of a type that is not known",
            "What it calls by the names of others is its own.",
            WHOLE,
            |s| {
                let payload = json!({
                    "type": "later", "payload": "a text", "effect_id": 7, "fingerprint": "none",
                    "record_type": ["x"], "policy_refs": {}, "unsafe_pending": null,
                });
                s.push(record("journal.record.later", 7_000, "later", &[], payload));
            },
        ),
        (
            "a request that ended unanswered, and then an answer",
            "Whoever is late decides nothing more.",
            ("broken", "decision_repeated"),
            |s| {
                s.truncate(APPROVED);
                s.push(closed("approval.1", 2_400, "timed_out", "timed_out"));
                s.push(approved("approval.1", "call.1", 2_500, "grace", None));
            },
        ),
        (
            "a request that was used and ended, and is put to somebody again",
            "What is over stays over.",
            ("broken", "decision_repeated"),
            |s| {
                s.truncate(INTENT + 1);
                s.push(closed("approval.1", 2_700, "approved", "completed"));
            },
        ),
        (
            "an approval of which no end is told, used",
            "The end tells nothing that was not decided.",
            WHOLE,
            |s| drop(s.remove(CLOSED)),
        ),
    ]
}

/// Logs that go over to this key in their second record, and back in their fourth.
fn back_again() -> Outcome<String> {
    let (own, other) = (key(31)?, key(33)?);
    let there = Handover { old: key(31)?, new: key(33)? };
    let back = Handover { old: key(33)?, new: key(31)? };
    let mut told = story();
    told.truncate(4);
    for (at, id, new) in [(1, "there", other.public()), (3, "back", own.public())] {
        let payload = json!({ "type": "log_key_rotation", "new_key": new.to_string() });
        let id = format!("journal.record.rotation.{id}");
        told.insert(at, record(&id, 1_500, "log_key_rotation", &[], payload));
    }
    signed(&told, own.public(), |size| -> &dyn Signer {
        match size {
            2 => &there,
            3 => &other,
            4 => &back,
            _ => &own,
        }
    })
}

/// Bundles that two readers may read otherwise.
pub(crate) fn readings() -> Outcome<Vec<u8>> {
    let (own, mut out) = (key(31)?, Vec::new());
    let mut put = |name: &str, why: &str, input: &str, (verdict, rule): (&str, &str)| {
        let rule = Some(rule).filter(|rule| !rule.is_empty());
        let expect = json!({ "verdict": verdict, "rule": rule, "seq": null });
        let key = own.public().to_string();
        case(
            &mut out,
            &json!({ "case": name, "why": why, "input": input, "key": key, "expect": expect }),
        )
    };
    let whole = bundle(&stored(&story()), &key(31)?)?;
    for (name, why, expect, change) in framing() {
        put(name, why, &change(&whole), expect)?;
    }
    for (name, why, expect, lie) in lies() {
        let mut told = story();
        lie(&mut told);
        put(name, why, &bundle(&stored(&told), &key(31)?)?, expect)?;
    }
    let mut told = story();
    let payload = json!({ "type": "log_key_rotation", "new_key": "countersign.example+0+" });
    told.push(record("journal.record.rotation", 7_000, "log_key_rotation", &[], payload));
    let none = bundle(&stored(&told), &key(31)?)?;
    put("a next key that is none", "Nobody can go over to it.", &none, ("broken", INVALID))?;
    put("a key that comes back", "Each change was signed by both.", &back_again()?, WHOLE)?;
    let short = bundle(stored(&story()).get(..2).unwrap_or_default(), &own)?;
    let (empty, nothing) = (bundle(&[], &own)?, Frontier::default().root());
    for (name, why, input, root, (verdict, rule)) in [
        ("no records, and a checkpoint of none", "It is so.", &empty, nothing, ("whole", None)),
        ("records, and a checkpoint of none", "So it began.", &short, nothing, ("whole", None)),
        (
            "records, and another checkpoint of none",
            "There is one such tree.",
            &short,
            [0; 32],
            ("broken", Some("forked")),
        ),
    ] {
        case(
            &mut out,
            &json!({
                "case": name, "why": why, "input": input, "key": own.public().to_string(),
                "checkpoint": Checkpoint::sign(0, root, &own)?,
                "expect": { "verdict": verdict, "rule": rule, "seq": null },
            }),
        )?;
    }
    Ok(out)
}

const INVALID: &str = "checkpoint_invalid";

/// Receipts that two readers may read otherwise.
pub(crate) fn receipt_readings() -> Outcome<Vec<u8>> {
    let (own, mut out) = (key(31)?, Vec::new());
    let whole = serde_json::to_string(&receipt(&own)?.0)?;
    for (name, why, from, to) in [
        ("a place below 0", "Places begin with 1.", "\"seq\":7", "\"seq\":-7"),
        ("a place that is a fraction", "A number has one spelling.", "\"seq\":7", "\"seq\":7.0"),
        ("a place beyond all", "No log is so long.", "\"seq\":7", "\"seq\":18446744073709551616"),
        ("a version beyond all", "There is none.", "_version\":1", "_version\":4294967297"),
        ("half a character", "It is none.", "\"record\":\"", "\"record\":\"\\ud800"),
    ] {
        let input = whole.replacen(from, to, 1);
        let expect = json!({ "verdict": "unusable", "rule": null });
        let key = own.public().to_string();
        case(
            &mut out,
            &json!({ "case": name, "why": why, "input": input, "key": key, "expect": expect }),
        )?;
    }
    Ok(out)
}

type Word = (&'static str, &'static str, &'static str, Value);

/// What is put into a chain so that it cannot be used.
fn words() -> Vec<Word> {
    vec![
        ("a kind that is a number", "Some readers count.", "/entries/1/kind", json!(0)),
        (
            "a critic of a kind that is a number",
            "Some count.",
            "/entries/1/critic_identity/type",
            json!(0),
        ),
        ("another format in an entry", "It is of this one.", "/entries/1/format", json!("symbi-1")),
        ("a place below 0", "Places begin with 0.", "/entries/1/index", json!(-1)),
        ("an id that is null", "It is a text, or not there.", "/chain_id", Value::Null),
        ("an id that is a number", "It is a text.", "/chain_id", json!(7)),
        ("an anchor below 0", "There are no fewer than none.", "/anchor/len", json!(-1)),
        ("an anchor that is null", "It is there, or not.", "/anchor", Value::Null),
    ]
}

/// A chain of the peer's format with one entry of this time.
fn at(time: &str) -> Outcome<String> {
    let mut entries = Vec::new();
    let assessment = Assessment {
        entry_id: "00000000-0000-4000-8000-000000000000".to_owned(),
        director_output_hash: text_hash(b"draft\n"),
        critic_assessment_hash: text_hash(b"assessment\n"),
        verdict: Verdict::Approved,
        dimension_scores: BTreeMap::new(),
        score: 1.0,
        critic_identity: Identity::Llm { model_id: "model-1".to_owned() },
        timestamp: Timestamp::parse(time)?,
        iteration: 0,
    };
    symbi::append(&mut entries, assessment, &CriticSigner::from_seed(&[21; 32]))?;
    Ok(serde_json::to_string(&entries)?)
}

/// Chains that two readers may read otherwise.
pub(crate) fn critic_readings() -> Outcome<Vec<u8>> {
    let mut out = Vec::new();
    let key = CriticSigner::from_seed(&[21; 32]).public().to_string();
    let mut put = |name: &str, why: &str, input: &str, verdict: &str| {
        let expect = json!({ "verdict": verdict, "rule": null, "index": null });
        case(
            &mut out,
            &json!({ "case": name, "why": why, "input": input, "key": key, "expect": expect }),
        )
    };
    let mut own = chain()?;
    own.close(&CriticSigner::from_seed(&[22; 32]))?;
    let own = serde_json::to_value(&own)?;
    put("nothing", "So that the others are told from it.", &own.to_string(), "whole")?;
    for (name, why, path, value) in words() {
        put(name, why, &with(own.clone(), path, value).to_string(), "unusable")?;
    }
    let numbered: Value = serde_json::from_str(&at("2026-11-20T23:24:01Z")?)?;
    let numbered = with(numbered, "/0/critic_identity/type", json!(0));
    put(
        "symbi-1: a critic of a kind that is a number",
        "Some count.",
        &numbered.to_string(),
        "unusable",
    )?;
    for (name, why, from, to) in [
        ("half a character", "It is none.", "\"entry_id\":\"", "\"entry_id\":\"\\ud800"),
        ("a number out of range", "Nobody can hold it.", "\"score\":1.0", "\"score\":1e999"),
        (
            "a round that is a fraction",
            "Rounds are counted.",
            "\"iteration\":0",
            "\"iteration\":0.0",
        ),
    ] {
        put(name, why, &at("2026-11-20T23:24:01Z")?.replacen(from, to, 1), "unusable")?;
    }
    let deep = |lists: usize| {
        format!("{{\"entries\":[],\"later\":{}{}}}", "[".repeat(lists), "]".repeat(lists))
    };
    put("nested 127 deep", "So deep is read.", &deep(126), "whole")?;
    put("nested 128 deep", "Deeper is not.", &deep(127), "unusable")?;
    for (name, time) in [
        ("a leap second", "2016-12-31T23:59:60Z"),
        ("a leap second elsewhere", "2017-01-01T00:59:60.5+01:00"),
        ("the first year", "0000-01-01T00:00:00Z"),
        ("before the first year", "0000-01-01T00:00:00+01:00"),
        ("behind the last year", "9999-12-31T23:59:59-00:01"),
        ("a true minus sign", "2026-11-20T23:24:01\u{2212}01:30"),
        ("a small t and z", "2026-11-20t23:24:01z"),
        ("a space", "2026-11-20 23:24:01+00:00"),
        ("ten digits of a second", "2026-11-20T23:24:01.0123456789Z"),
    ] {
        put(name, "A time as the peer's library reads it.", &at(time)?, "whole")?;
    }
    for (name, time) in [
        ("a day from the end", "2026-11-20T24:00:00Z"),
        ("an offset of a day", "2026-11-20T23:24:01+24:00"),
        ("an offset of sixty minutes", "2026-11-20T23:24:01+01:60"),
        ("digits of another script", "\u{0662}026-11-20T23:24:01Z"),
        ("a comma", "2026-11-20T23:24:01,5Z"),
        ("no colon in the offset", "2026-11-20T23:24:01+0100"),
        ("a fraction without digits", "2026-11-20T23:24:01.Z"),
    ] {
        let other = at("2026-11-20T23:24:01Z")?.replacen("2026-11-20T23:24:01Z", time, 1);
        put(name, "A time that the peer's library does not read.", &other, "unusable")?;
    }
    Ok(out)
}
