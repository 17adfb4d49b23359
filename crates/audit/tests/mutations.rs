//! Every field of every entry of both critic chains changed in every way that comes to mind, and
//! what follows from the formats: the entry and rule it is found by, or the line of the report
//! that says that it would not be found.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

#[path = "mutations/change.rs"]
mod change;
#[path = "mutations/own.rs"]
mod own;

use countersign_audit::critic::{CriticKey, CriticRule, Document, Pins, symbi};
use serde_json::json;

use self::change::{Entry, judged, raw, same_number, signer, text, text_changes};

const PEER: &str = include_str!("../../../fixtures/audit/critic/v1/symbi-runtime-1.7.0.json");

/// What follows from a change.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// Nothing is changed: the same values, spelled otherwise.
    Same,
    /// It is not found, and the report has a line that begins so.
    Open(&'static str),
    /// It is found first at this entry, by this rule.
    Found(u64, CriticRule),
    /// It is no chain any more.
    Unusable,
}

use Expect::{Found, Open, Same, Unusable};

/// Holds changed chains against their key, one after the other.
struct Check {
    key: CriticKey,
    count: usize,
    open: usize,
}

impl Check {
    fn new(key: CriticKey) -> Self {
        Self { key, count: 0, open: 0 }
    }

    fn text(&mut self, what: &str, text: &str, expect: Expect) {
        self.count += 1;
        let report = Document::parse(text.as_bytes(), None)
            .and_then(|document| document.verify(&self.key, &Pins::default()));
        let told = format!("{what}: {expect:?}: {report:?}\n{text:.3000}");
        let (report, expected) = match (report, expect) {
            (Err(_), Unusable) => return,
            (Ok(report), Same) => (report, None),
            (Ok(report), Open(line)) => {
                self.open += 1;
                assert!(report.not_covered.iter().any(|open| open.starts_with(line)), "{told}");
                (report, None)
            }
            (Ok(report), Found(index, rule)) => (report, Some((index, rule))),
            _ => panic!("{told}"),
        };
        let first = report.first.as_ref().map(|first| (first.index, first.rule));
        assert_eq!(first, expected, "{told}");
        assert_eq!(report.ok, expected.is_none(), "{told}");
    }

    fn entries(&mut self, what: &str, entries: &[Entry], expect: Expect) {
        let all: Vec<_> = entries.iter().map(Entry::text).collect();
        self.text(what, &format!("[{}]", all.join(",")), expect);
    }
}

fn peer() -> (Vec<Entry>, CriticKey) {
    let file: serde_json::Value = serde_json::from_str(PEER).unwrap();
    let key = CriticKey::parse(file["public_key"].as_str().unwrap()).unwrap();
    (change::entries(PEER), key)
}

const HASH: CriticRule = CriticRule::ChainHash;
const SIGNATURE: CriticRule = CriticRule::Signature;

#[test]
fn every_changed_field_of_the_peers_chain_is_found_or_named_as_open() {
    let (entries, key) = peer();
    let mut check = Check::new(key);
    check.entries("nothing", &entries, Same);
    let all = entries;
    for i in 0..all.len() {
        // As far as the next one, which holds its hash: what is behind costs time alone.
        let entries = all[..all.len().min(i + 2)].to_vec();
        let entry = &entries[i];
        let index = i as u64;
        let other = &all[(i + 1) % all.len()];
        let mut put = |field: &str, what: &str, value: String, expect: Expect| {
            let mut changed = entries.clone();
            changed[i].set(field, value);
            check.entries(&format!("{field} of {i}, {what}"), &changed, expect);
        };
        for field in entry.names() {
            put(
                field,
                "another kind",
                "7.5".into(),
                match field {
                    "score" => Found(index, HASH),
                    _ => Unusable,
                },
            );
            put(field, "null", "null".into(), Unusable);
            put(field, "a list", "[]".into(), Unusable);
            put(field, "nothing", String::new(), Unusable);
        }
        for field in ["entry_id", "director_output_hash", "critic_assessment_hash", "chain_hash"] {
            for (what, value) in text_changes(&entry.text_of(field)) {
                put(field, &what, text(&value), Found(index, HASH));
            }
            if entry.text_of(field) != other.text_of(field) {
                put(field, "of another entry", raw(other, field), Found(index, HASH));
            }
            let escaped = format!(
                "\"\\u00{:02x}{}",
                raw(entry, field).as_bytes()[1],
                &raw(entry, field)[2..]
            );
            put(field, "an escape", escaped, Same);
            let rule = match field {
                "entry_id" | "chain_hash" => HASH,
                _ => CriticRule::AmbiguousFields,
            };
            let split = format!("{}|", entry.text_of(field));
            put(field, "a separator", text(&split), Found(index, rule));
        }
        for (what, value) in text_changes(&entry.text_of("signature")) {
            put("signature", &what, text(&value), Found(index, SIGNATURE));
        }
        let signature = entry.text_of("signature");
        for (what, value) in [
            ("of another entry", other.text_of("signature")),
            ("malleable", change::malleable(&signature)),
            ("of small order", format!("01{}", "00".repeat(63))),
            ("of the neutral element", format!("01{}{}", "00".repeat(31), &signature[64..])),
            ("halves swapped", format!("{}{}", &signature[64..], &signature[..64])),
            ("the hash", entry.text_of("chain_hash").repeat(2)),
            ("base64", "PLemufMEWL3SYlVV/T6nJpasDs8ti9ITGdqgFAScaRLWEXFyUjFBSFJjeBQIgUPwOq6+BpRI8aBhHVkckx+oBQ==".into()),
        ] {
            put("signature", what, text(&value), Found(index, SIGNATURE));
        }
        for verdict in ["approved", "rejected", "needs_revision"] {
            let same = entry.text_of("verdict") == verdict;
            put("verdict", verdict, text(verdict), if same { Same } else { Found(index, HASH) });
        }
        for verdict in ["Approved", "APPROVED", " approved", "approve", ""] {
            put("verdict", verdict, text(verdict), Unusable);
        }
        let iteration = raw(entry, "iteration");
        for (value, expect) in [
            (format!("{}", i + 1), Found(index, HASH)),
            (format!("1{iteration}"), Found(index, HASH)),
            (u64::MAX.to_string(), Found(index, HASH)),
            (format!("-{iteration}"), Unusable),
            (format!("0{iteration}"), Unusable),
            (format!("{iteration}.0"), Unusable),
            (format!("{iteration}e0"), Unusable),
            ("18446744073709551616".into(), Unusable),
            (format!(" \t{iteration}\n"), Same),
        ] {
            put("iteration", &value, value.clone(), expect);
        }
        let score: f64 = raw(entry, "score").parse().unwrap();
        for value in same_number(score) {
            put("score", &value, value.clone(), Same);
        }
        for value in [score.next_up(), score.next_down(), -score, score + 1.0, f64::MAX] {
            // Adding one to the largest changes nothing.
            let same = value.to_bits() == score.to_bits();
            let value = format!("{value:?}");
            put("score", &value, value.clone(), if same { Same } else { Found(index, HASH) });
        }
        for value in
            ["1e999", "-1e999", "NaN", "Infinity", ".5", "1.", "+1", "0x1", "\"0.9\"", "00.9"]
        {
            put("score", value, value.into(), Unusable);
        }
        let time = entry.text_of("timestamp");
        for (value, same) in change::times(&time) {
            put("timestamp", &value, text(&value), if same { Same } else { Found(index, HASH) });
        }
        for value in change::NO_TIMES {
            put("timestamp", value, text(value), Unusable);
        }
        let identity = Open("critic_identity: neither hashed nor signed");
        for value in [
            json!({ "type": "llm", "model_id": "another" }),
            json!({ "type": "llm", "model_id": "" }),
            json!({ "type": "human", "user_id": "u", "name": "n" }),
            json!({ "type": "llm", "model_id": "m", "more": [1] }),
        ] {
            put("critic_identity", "another", value.to_string(), identity);
        }
        for value in
            [json!({ "type": "robot" }), json!({ "type": "llm" }), json!({ "model_id": "m" })]
        {
            put("critic_identity", "none", value.to_string(), Unusable);
        }
        let scores = Open("dimension_scores: neither hashed nor signed");
        for value in
            ["{}", "{\"accuracy\":0.8}", "{\"accuracy\":0.7,\"tone\":1e300}", "{\"Accuracy\":0.7}"]
        {
            put("dimension_scores", value, value.into(), scores);
        }
        for value in
            ["{\"a\":1,\"a\":1}", "{\"a\":null}", "{\"a\":\"1\"}", "{\"a\":1e999}", "{1:1}"]
        {
            put("dimension_scores", value, value.into(), Unusable);
        }
        put("later", "a field more", "[{\"a\":1}]".into(), Open("fields the format does not have"));
        for field in entry.names() {
            let without = |name: &str| name != field;
            let mut changed = entries.clone();
            changed[i] = entry.only(without);
            check.entries(&format!("{field} of {i} dropped"), &changed, Unusable);
            changed[i] = entry.clone();
            changed[i].push(field, raw(entry, field));
            check.entries(&format!("{field} of {i} twice"), &changed, Unusable);
            changed[i] = entry.renamed(field, &field.to_uppercase());
            check.entries(&format!("{field} of {i} renamed"), &changed, Unusable);
        }
        let mut changed = entries.clone();
        changed[i] = entry.reversed();
        check.entries("the order of fields", &changed, Same);
    }
    assert!(check.count > 1_000 && check.open == 9 * all.len(), "{} {}", check.count, check.open);
}

#[test]
fn every_changed_order_of_the_peers_chain_is_found_or_named_as_open() {
    let (entries, key) = peer();
    let mut check = Check::new(key);
    let (len, end) = (entries.len(), Open("the end: entries cut off the tail"));
    for i in 0..len {
        let found = |at: usize| Found(at as u64, HASH);
        let mut dropped = entries.clone();
        dropped.remove(i);
        check.entries("dropped", &dropped, if i + 1 == len { end } else { found(i) });
        for at in 0..=len {
            let mut again = entries.clone();
            again.insert(at, entries[i].clone());
            // Put before itself or behind, the second of the two does not follow.
            check.entries("repeated", &again, found(if at == i { i + 1 } else { at }));
        }
        for j in i + 1..len {
            let mut swapped = entries.clone();
            swapped.swap(i, j);
            check.entries("swapped", &swapped, found(i));
            if i > 0 || j < len {
                let mut cut = entries.clone();
                cut.drain(i..j);
                check.entries("cut out", &cut, found(i));
            }
        }
        check.entries("the tail cut off", &entries[..i], end);
        let mut turned = entries.clone();
        turned.rotate_left(i);
        check.entries("turned", &turned, if i == 0 { Same } else { found(0) });
    }
    check.entries("all cut off", &[], Open("anything: an empty chain passes any key"));
    let mut back = entries.clone();
    back.reverse();
    check.entries("backwards", &back, Found(0, HASH));
    // Pieces of a file.
    for at in (1..PEER.trim_end().len()).step_by(37) {
        check.text("a file cut off", &PEER[..at], Unusable);
    }
    assert!(check.count > 200, "{}", check.count);

    // Two chains under one key, and one under another.
    let chain = |seed: u8, name: &str| {
        let mut chain = Vec::new();
        for i in 0..4 {
            symbi::append(&mut chain, judged(name, i), &signer(seed)).unwrap();
        }
        change::entries(&serde_json::to_string(&chain).unwrap())
    };
    let (one, two, foreign) = (chain(1, "one"), chain(1, "two"), chain(2, "one"));
    let mut check = Check::new(signer(1).public());
    for at in 0..=4 {
        let spliced = |end: &[Entry]| [&one[..at], &end[at..]].concat();
        let at = at as u64;
        let swapped = Open("the chain itself: another chain under the same key");
        let expect = |rule| if at == 4 { Same } else { Found(at, rule) };
        check.entries("spliced", &spliced(&two), if at == 0 { swapped } else { expect(HASH) });
        // The same fields have the same hashes, whoever signs them.
        check.entries("another key", &spliced(&foreign), expect(SIGNATURE));
    }
}

#[test]
fn flipped_bytes_of_the_peers_file_are_never_taken_for_another_judgement() {
    let (entries, key) = peer();
    let all: Vec<_> = entries.iter().map(Entry::text).collect();
    let text = format!("[{}]", all.join(","));
    let whole = |text: &[u8]| {
        let document = Document::parse(text, None).ok()?;
        let report = document.verify(&key, &Pins::default()).ok()?;
        report.ok.then_some(document)
    };
    let Some(Document::Symbi1(good)) = whole(text.as_bytes()) else { panic!("the chain is whole") };
    // Without what the format leaves open, and with times as instants.
    let covered = |entries: &[symbi::Entry]| -> Vec<_> {
        entries
            .iter()
            .map(|e| {
                let time = chrono::DateTime::parse_from_rfc3339(e.timestamp.as_str()).unwrap();
                (
                    (
                        e.entry_id.clone(),
                        e.director_output_hash.clone(),
                        e.critic_assessment_hash.clone(),
                    ),
                    (e.verdict, e.score.to_bits(), time.timestamp_nanos_opt(), e.iteration),
                    (e.chain_hash.clone(), e.signature.clone()),
                )
            })
            .collect()
    };
    let good = covered(&good);
    let (mut bytes, mut taken) = (text.clone().into_bytes(), 0);
    for at in (0..bytes.len()).step_by(7) {
        for bit in [1, 32] {
            bytes[at] ^= bit;
            if let Some(Document::Symbi1(read)) = whole(&bytes) {
                taken += 1;
                assert_eq!(covered(&read), good, "{}", String::from_utf8_lossy(&bytes));
            }
            bytes[at] ^= bit;
        }
    }
    // Identities, scores of dimensions and the case of `T`, `Z` and `e`.
    assert!((1..200).contains(&taken), "{taken}");
}
