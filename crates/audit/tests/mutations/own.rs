//! The same for `countersign-1`, which leaves nothing open but what an anchor is for.

use countersign_audit::critic::CriticRule as Rule;
use countersign_audit::critic::successor::Chain;
use serde_json::Value;

use super::Expect::{Found, Open, Same, Unusable};
use super::change::{
    self, Entry, NO_TIMES, judged, raw, same_number, signer, text, text_changes, times,
};
use super::{Check, Expect};

const LEN: u64 = 5;
/// Where the change of keys stands.
const ROTATED: usize = 2;

/// Five entries, a change of keys in the middle.
fn chain(id: &str, name: &str) -> Chain {
    let mut chain = Chain::new(id).unwrap();
    chain.append(judged(name, 0), &signer(1)).unwrap();
    chain.append(judged(name, 1), &signer(1)).unwrap();
    chain.rotate(&signer(1), &signer(2), judged(name, 2).timestamp).unwrap();
    chain.append(judged(name, 3), &signer(2)).unwrap();
    chain.append(judged(name, 4), &signer(2)).unwrap();
    chain.close(&signer(2)).unwrap();
    chain
}

/// A file with these entries and with or without this anchor.
fn file(entries: &[Entry], anchor: Option<&str>) -> String {
    let entries: Vec<_> = entries.iter().map(Entry::text).collect();
    let anchor = anchor.map_or(String::new(), |anchor| format!(",\"anchor\":{anchor}"));
    let entries = entries.join(",");
    format!("{{\"format\":\"countersign-1\",\"chain_id\":\"a/1\",\"entries\":[{entries}]{anchor}}}")
}

fn parts(chain: &Chain) -> (Vec<Entry>, String) {
    let anchor = serde_json::to_string(&chain.anchor).unwrap();
    (change::entries(&serde_json::to_string(chain).unwrap()), anchor)
}

/// The rule that a changed text is found by; it stands before the others at its entry.
fn rule(field: &str) -> Rule {
    match field {
        "chain_id" => Rule::ChainId,
        "index" => Rule::Index,
        "key_id" => Rule::KeyId,
        "previous_hash" => Rule::PreviousHash,
        "signature" => Rule::Signature,
        "new_key_signature" => Rule::Rotation,
        _ => Rule::ChainHash,
    }
}

#[test]
fn every_changed_field_of_our_own_chain_is_found_where_it_is() {
    let (entries, anchor) = parts(&chain("a/1", "one"));
    let mut check = Check::new(signer(1).public());
    check.text("nothing", &file(&entries, Some(&anchor)), Same);
    for i in 0..entries.len() {
        let entry = &entries[i];
        let index = i as u64;
        let mut put = |field: &str, what: &str, value: String, expect: Expect| {
            let mut changed = entries.clone();
            changed[i].set(field, value);
            check.text(&format!("{field} of {i}, {what}"), &file(&changed, Some(&anchor)), expect);
        };
        for field in entry.names() {
            for value in ["null", "[]", "", "tru"] {
                put(field, value, value.into(), Unusable);
            }
            let kind = if field == "score" { Found(index, Rule::ChainHash) } else { Unusable };
            put(field, "another kind", "7.5".into(), kind);
            if raw(entry, field).starts_with('"')
                && !["format", "kind", "verdict", "timestamp"].contains(&field)
            {
                for (what, value) in text_changes(&entry.text_of(field)) {
                    put(field, &what, text(&value), Found(index, rule(field)));
                }
                let escaped = format!(
                    "\"\\u00{:02x}{}",
                    raw(entry, field).as_bytes()[1],
                    &raw(entry, field)[2..]
                );
                put(field, "an escape", escaped, Same);
            }
            if field.ends_with("signature") {
                let malleable = change::malleable(&entry.text_of(field));
                put(field, "malleable", text(&malleable), Found(index, rule(field)));
            }
        }
        put("format", "of the peer", text("symbi-1"), Unusable);
        put("format", "later", text("countersign-2"), Unusable);
        for kind in ["assessment", "key_rotation"] {
            let same = entry.text_of("kind") == kind;
            put("kind", kind, text(kind), if same { Same } else { Unusable });
        }
        let here = index.to_string();
        for (value, expect) in [
            ((index + 1).to_string(), Found(index, Rule::Index)),
            (u64::MAX.to_string(), Found(index, Rule::Index)),
            (format!("-{here}"), Unusable),
            (format!("0{here}"), Unusable),
            (format!("{here}.0"), Unusable),
            (format!("{here}e0"), Unusable),
        ] {
            put("index", &value, value.clone(), expect);
        }
        // The spelling of a time is covered as well.
        for (value, _) in times(&entry.text_of("timestamp")) {
            put("timestamp", &value, text(&value), Found(index, Rule::ChainHash));
        }
        for value in NO_TIMES {
            put("timestamp", value, text(value), Unusable);
        }
        put("later", "a field more", "[]".into(), Found(index, Rule::ChainHash));
        for field in entry.names() {
            let mut changed = entries.clone();
            changed[i] = entry.only(|name| name != field);
            let all = file(&changed, Some(&anchor));
            check.text(&format!("{field} of {i} dropped"), &all, Unusable);
            changed[i] = entry.clone();
            changed[i].push(field, raw(entry, field));
            let all = file(&changed, Some(&anchor));
            check.text(&format!("{field} of {i} twice"), &all, Unusable);
        }
        let mut changed = entries.clone();
        changed[i] = entry.reversed();
        check.text("the order of fields", &file(&changed, Some(&anchor)), Same);
        if i != ROTATED {
            judgement(&mut check, &entries, &anchor, i);
        }
    }
    assert!(check.count > 800 && check.open == 0, "{} {}", check.count, check.open);
}

/// The fields of an entry that judges.
fn judgement(check: &mut Check, entries: &[Entry], anchor: &str, i: usize) {
    let found = Found(i as u64, Rule::ChainHash);
    let mut put = |field: &str, value: &str, expect: Expect| {
        let mut changed = entries.to_vec();
        changed[i].set(field, value.to_owned());
        check.text(&format!("{field} of {i}, {value}"), &file(&changed, Some(anchor)), expect);
    };
    for verdict in ["\"rejected\"", "\"needs_revision\""] {
        put("verdict", verdict, found);
    }
    for verdict in ["\"Approved\"", "\"APPROVED\"", "\"\""] {
        put("verdict", verdict, Unusable);
    }
    let score: f64 = raw(&entries[i], "score").parse().unwrap();
    for value in same_number(score) {
        put("score", &value, Same);
    }
    for value in [score.next_up(), score.next_down(), -score, 1.0, 0.0, 1.5, f64::MAX] {
        put("score", &format!("{value:?}"), found);
    }
    for value in ["1e999", "NaN", ".5", "\"0.7\""] {
        put("score", value, Unusable);
    }
    for value in ["7", "18446744073709551615"] {
        put("iteration", value, found);
    }
    for value in ["-1", "1.0", "1e0", "01", "18446744073709551616"] {
        put("iteration", value, Unusable);
    }
    for value in [
        "{\"type\":\"llm\",\"model_id\":\"n\"}",
        "{\"type\":\"human\",\"user_id\":\"u\",\"name\":\"n\"}",
    ] {
        put("critic_identity", value, found);
    }
    put("critic_identity", "{\"model_id\":\"m\",\"type\":\"llm\"}", Same);
    put("critic_identity", "{\"type\":\"llm\",\"model_id\":\"m\",\"more\":1}", found);
    put("critic_identity", "{\"type\":\"robot\"}", Unusable);
    for value in ["{\"tone\":1,\"accuracy\":0.10}", "{\"accuracy\":1e-1, \"tone\" : 1.0}"] {
        put("dimension_scores", value, Same);
    }
    for value in [
        "{}",
        "{\"accuracy\":0.1}",
        "{\"accuracy\":0.2,\"tone\":1.0}",
        "{\"accuracy\":0.1,\"Tone\":1.0}",
        "{\"accuracy\":0.1,\"tone\":1.5}",
    ] {
        put("dimension_scores", value, found);
    }
    for value in ["{\"tone\":1,\"tone\":1}", "{\"tone\":null}", "{\"tone\":1e999}"] {
        put("dimension_scores", value, Unusable);
    }
}

#[test]
fn every_changed_order_of_our_own_chain_is_found_and_an_anchor_shows_the_end() {
    let (entries, anchor) = parts(&chain("a/1", "one"));
    let mut check = Check::new(signer(1).public());
    let len = entries.len();
    let end = Open("the end:");
    for i in 0..len {
        let found = |at: usize| Found(at as u64, Rule::Index);
        let mut dropped = entries.clone();
        dropped.remove(i);
        check.text("dropped", &file(&dropped, None), if i + 1 == len { end } else { found(i) });
        for at in 0..=len {
            let mut again = entries.clone();
            again.insert(at, entries[i].clone());
            let at = if at == i { i + 1 } else { at };
            check.text("repeated", &file(&again, Some(&anchor)), found(at));
        }
        for j in i + 1..len {
            let mut swapped = entries.clone();
            swapped.swap(i, j);
            check.text("swapped", &file(&swapped, Some(&anchor)), found(i));
            let mut cut = entries.clone();
            cut.drain(i..j);
            check.text("cut out", &file(&cut, Some(&anchor)), found(i));
        }
        check.text("the tail cut off", &file(&entries[..i], None), end);
        // Before the change of keys, the key that signed the anchor is nobody's.
        let rule = if i > ROTATED { Rule::Truncated } else { Rule::AnchorSignature };
        check.text("anchored", &file(&entries[..i], Some(&anchor)), Found(LEN, rule));
    }
    for (at, with) in [(1, chain("a/1", "two")), (2, chain("b/2", "one"))] {
        let (others, other_anchor) = parts(&with);
        let rule = if at == 1 { Rule::PreviousHash } else { Rule::ChainId };
        for place in 1..len {
            let spliced = [&entries[..place], &others[place..]].concat();
            let found = Found(place as u64, rule);
            check.text("spliced", &file(&spliced, Some(&anchor)), found);
            check.text("spliced", &file(&spliced, Some(&other_anchor)), found);
        }
        let (alone, anchored) = match at {
            1 => (Open("the chain itself"), Found(LEN, Rule::Substituted)),
            _ => (Found(0, Rule::ChainId), Found(0, Rule::ChainId)),
        };
        check.text("another chain", &file(&others, None), alone);
        check.text("another chain, anchored", &file(&others, Some(&anchor)), anchored);
    }
    assert!(check.count > 80, "{}", check.count);
}

#[test]
fn every_changed_field_of_an_anchor_is_found() {
    let (entries, anchor) = parts(&chain("a/1", "one"));
    let mut check = Check::new(signer(1).public());
    let good: Value = serde_json::from_str(&anchor).unwrap();
    for (field, old) in good.as_object().unwrap() {
        let mut put = |what: &str, value: Value, expect: Expect| {
            let mut changed = good.clone();
            changed[field] = value;
            let all = file(&entries, Some(&changed.to_string()));
            check.text(&format!("{field}: {what}"), &all, expect);
        };
        if let Some(old) = old.as_str() {
            for (what, value) in text_changes(old) {
                put(&what, value.into(), Found(LEN, Rule::AnchorSignature));
            }
        }
        put("null", Value::Null, Unusable);
        put("another kind", 7.5.into(), Unusable);
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove(field);
        check.text(field, &file(&entries, Some(&without.to_string())), Unusable);
        let twice = anchor.replacen('{', &format!("{{\"{field}\":{old},"), 1);
        check.text(field, &file(&entries, Some(&twice)), Unusable);
    }
    for len in 0..9 {
        let mut changed = good.clone();
        changed["len"] = len.into();
        // The first finding is at the length it claims.
        let expect = if len == LEN { Same } else { Found(len, Rule::AnchorSignature) };
        check.text("len", &file(&entries, Some(&changed.to_string())), expect);
    }
    check.text("more", &file(&entries, Some(&anchor.replacen('{', "{\"more\":1,", 1))), Unusable);
    assert!(check.count > 90, "{}", check.count);
}
