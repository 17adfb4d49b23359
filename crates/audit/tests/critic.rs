//! Critic chains: the peer's own, ours, and damage to both.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use countersign_audit::critic::successor::{self, Chain, Tail, key_id};
use countersign_audit::critic::{
    Assessment, CriticKey, CriticReport, CriticRule, CriticSigner, Document, Format, Identity,
    MAX_FINDINGS, Pins, Timestamp, Unusable, Verdict, symbi, text_hash,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const PEER: &str = include_str!("../../../fixtures/audit/critic/v1/symbi-runtime-1.7.0.json");

fn peer() -> (Vec<Value>, CriticKey) {
    let file: Value = serde_json::from_str(PEER).unwrap();
    let key = CriticKey::parse(file["public_key"].as_str().unwrap()).unwrap();
    (file["entries"].as_array().unwrap().clone(), key)
}

fn signer(seed: u8) -> CriticSigner {
    CriticSigner::from_seed(&[seed; 32])
}

fn judged(score: f64, iteration: u64) -> Assessment {
    Assessment {
        entry_id: format!("entry-{iteration}"),
        director_output_hash: text_hash(b"out"),
        critic_assessment_hash: text_hash(b"fine"),
        verdict: Verdict::Approved,
        dimension_scores: BTreeMap::from([("accuracy".to_owned(), 0.1)]),
        score,
        critic_identity: Identity::Human { user_id: "u1".into(), name: "Ada".into() },
        timestamp: Timestamp::from_unix(1_790_000_000, 1_000_000).unwrap(),
        iteration,
    }
}

fn verify(text: &str, key: &CriticKey, pins: &Pins) -> Result<CriticReport, Unusable> {
    Document::parse(text.as_bytes(), None)?.verify(key, pins)
}

fn first(report: &CriticReport) -> Option<(u64, CriticRule)> {
    report.first.as_ref().map(|first| (first.index, first.rule))
}

#[test]
fn the_chain_of_the_peer_verifies_as_array_and_as_object() {
    let (entries, key) = peer();
    for text in [PEER.to_owned(), Value::Array(entries).to_string()] {
        let report = verify(&text, &key, &Pins::default()).unwrap();
        assert!(report.ok, "{report:?}");
        assert_eq!((report.entries, report.format), (7, Format::Symbi1));
        for open in ["critic_identity", "dimension_scores", "the end", "the chain itself"] {
            assert!(report.not_covered.iter().any(|line| line.starts_with(open)), "{open}");
        }
    }
    assert_eq!(
        text_hash(b"out"),
        "762069bc07a6e1b5df123a5ae7bd91c10daa04694fbaa17fba0cd6a8dcce8f22"
    );
}

#[test]
fn a_document_lends_the_hashes_of_its_judgements() {
    let document = |text: &str| Document::parse(text.as_bytes(), None).unwrap();
    let (entries, _) = peer();
    let peers = document(PEER);
    assert_eq!((peers.len(), peers.is_empty(), peers.format()), (7, false, Format::Symbi1));
    for (index, entry) in entries.iter().enumerate() {
        let hash = |field: &str| entry[field].as_str().unwrap();
        let hashes = (hash("director_output_hash"), hash("critic_assessment_hash"));
        assert_eq!(peers.hashes(index), Some(hashes));
    }
    assert_eq!(peers.hashes(7), None);
    let chain = own();
    let ours = document(&text(&chain));
    assert_eq!((ours.len(), ours.is_empty()), (chain.entries().len(), false));
    assert_eq!(ours.format(), Format::Countersign1);
    let hashes = (text_hash(b"out"), text_hash(b"fine"));
    assert_eq!(ours.hashes(0), Some((hashes.0.as_str(), hashes.1.as_str())));
    // A change of keys judges nothing.
    let changes = (0..ours.len()).filter(|index| ours.hashes(*index).is_none()).count();
    assert_eq!(changes, 1);
    let none = document("[]");
    assert_eq!((none.len(), none.is_empty(), none.hashes(0)), (0, true, None));
}

#[test]
fn breaks_beyond_those_that_are_kept_are_counted() {
    let (entries, key) = peer();
    for more in [MAX_FINDINGS - 1, MAX_FINDINGS, MAX_FINDINGS + 20] {
        let many = vec![entries[3].clone(); more];
        let report = verify(&Value::Array(many).to_string(), &key, &Pins::default()).unwrap();
        assert_eq!(report.finding_count, more as u64);
        assert_eq!(report.findings.len(), more.min(MAX_FINDINGS));
        assert_eq!(json!(report.findings[0].rule), report.findings[0].rule.as_str());
    }
}

#[test]
fn an_empty_chain_passes_any_key_and_the_report_says_so() {
    for text in ["[]", "{\"entries\":[]}"] {
        let report = verify(text, &signer(1).public(), &Pins::default()).unwrap();
        assert!(report.ok);
        assert_eq!(report.not_covered[0], "anything: an empty chain passes any key");
    }
}

/// What a change of the peer's chain is found as: `None` when it stays whole.
type Found = Option<(u64, CriticRule)>;

#[test]
fn damage_to_the_chain_of_the_peer_is_found_where_it_is() {
    use CriticRule as Rule;
    let (entries, key) = peer();
    let check = |why: &str, change: &dyn Fn(&mut Vec<Value>), expected: Found| {
        let mut changed = entries.clone();
        change(&mut changed);
        let report = verify(&Value::Array(changed).to_string(), &key, &Pins::default()).unwrap();
        assert_eq!(first(&report), expected, "{why}: {report:?}");
        assert_eq!(report.ok, expected.is_none());
    };
    let text = |field: &str, value: Value| {
        let field = field.to_owned();
        move |entries: &mut Vec<Value>| entries[2][&field] = value.clone()
    };
    for (field, value) in [
        ("entry_id", json!("90782a05-a0bb-472b-9fc4-54d336704298")),
        ("director_output_hash", json!(text_hash(b"other"))),
        ("critic_assessment_hash", json!(text_hash(b"other"))),
        ("verdict", json!("approved")),
        ("score", json!(0.3)),
        ("timestamp", json!("2026-11-20T23:24:01.728787531Z")),
        ("iteration", json!(3)),
        ("chain_hash", json!("0".repeat(64))),
        ("chain_hash", json!(entries[2]["chain_hash"].as_str().unwrap().to_uppercase())),
    ] {
        check(field, &text(field, value), Some((2, Rule::ChainHash)));
    }
    let signature = entries[2]["signature"].as_str().unwrap().to_owned();
    for value in [
        signature.to_uppercase(),
        signature[..126].to_owned(),
        format!("{signature}00"),
        String::new(),
        entries[3]["signature"].as_str().unwrap().to_owned(),
        "zz".repeat(64),
    ] {
        check("signature", &text("signature", json!(value)), Some((2, Rule::Signature)));
    }
    // What the format leaves open stays unnoticed; the report says so.
    for (field, value) in [
        ("critic_identity", json!({"type": "human", "user_id": "u", "name": "n"})),
        ("dimension_scores", json!({"accuracy": 1e300})),
        ("something_else", json!([1, 2, 3])),
        ("timestamp", json!("2026-11-20T23:24:01.728787530+00:00")),
        ("timestamp", json!("2026-11-21T01:24:01.72878753+02:00")),
    ] {
        check(field, &text(field, value), None);
    }
    check("cut tail", &|all| all.truncate(3), None);
    check("cut head", &|all| drop(all.remove(0)), Some((0, Rule::ChainHash)));
    check("dropped", &|all| drop(all.remove(3)), Some((3, Rule::ChainHash)));
    check("swapped", &|all| all.swap(3, 4), Some((3, Rule::ChainHash)));
    check("repeated", &|all| all.insert(3, all[2].clone()), Some((3, Rule::ChainHash)));
    let mut swapped = entries.clone();
    swapped.swap(3, 4);
    let report = verify(&Value::Array(swapped).to_string(), &key, &Pins::default()).unwrap();
    let detail = report.findings[0].detail.as_deref().unwrap();
    assert!(detail.contains("follows entry 4"), "{detail}");
}

#[test]
fn a_change_that_moves_the_border_of_two_fields_is_found() {
    // The hashed text is the same: only the border between two fields has moved.
    let (mut entries, key) = peer();
    let critic = entries[0]["critic_assessment_hash"].as_str().unwrap().to_owned();
    let director = entries[0]["director_output_hash"].as_str().unwrap().to_owned();
    let id = entries[0]["entry_id"].as_str().unwrap().to_owned();
    entries[0]["entry_id"] = json!(&id[..8]);
    entries[0]["director_output_hash"] = json!(format!("{}|{director}", &id[9..]));
    let report = verify(&Value::Array(entries.clone()).to_string(), &key, &Pins::default());
    assert_eq!(first(&report.unwrap()), Some((0, CriticRule::AmbiguousFields)));
    entries[0]["entry_id"] = json!(id);
    entries[0]["director_output_hash"] = json!("");
    entries[0]["critic_assessment_hash"] = json!(format!("{director}|{critic}"));
    let report = verify(&Value::Array(entries).to_string(), &key, &Pins::default());
    assert_eq!(first(&report.unwrap()), Some((0, CriticRule::AmbiguousFields)));
    // In the id alone it is no ambiguity.
    let mut chain = Vec::new();
    let assessment = Assessment { entry_id: "a|b".into(), ..judged(0.5, 0) };
    symbi::append(&mut chain, assessment, &signer(1)).unwrap();
    assert!(symbi::verify(&chain, &signer(1).public()).ok);
    let assessment = Assessment { director_output_hash: "a|b".into(), ..judged(0.5, 0) };
    assert!(symbi::append(&mut chain, assessment, &signer(1)).is_err());
}

#[test]
fn what_is_no_chain_is_told_from_what_is_broken() {
    let (entries, key) = peer();
    let one = entries[0].to_string();
    let without = |field: &str| {
        let mut entry = entries[0].clone();
        entry.as_object_mut().unwrap().remove(field);
        format!("[{one},{entry}]")
    };
    let with = |field: &str, value: &str| {
        let mut entry = entries[0].clone();
        entry[field] = json!("@");
        format!("[{one},{}]", entry.to_string().replace("\"@\"", value))
    };
    let mut cases = vec![
        String::new(),
        "{".into(),
        "[]x".into(),
        "null".into(),
        "\"[]\"".into(),
        "{}".into(),
        "{\"entries\":{}}".into(),
        "{\"entries\":[],\"entries\":[]}".into(),
        "[[]]".into(),
        "[null]".into(),
        format!("[{}]", one.replacen('{', "{\"verdict\":\"rejected\",", 1)),
        PEER[..PEER.len() / 2].to_owned(),
        format!("[{}", "[".repeat(100_000)),
    ];
    for field in entries[0].as_object().unwrap().keys() {
        cases.push(without(field));
    }
    for (field, value) in [
        ("verdict", "\"maybe\""),
        ("verdict", "\"Approved\""),
        ("score", "null"),
        ("score", "\"0.9\""),
        ("score", "NaN"),
        ("score", "1e999"),
        ("iteration", "-1"),
        ("iteration", "1.5"),
        ("iteration", "18446744073709551616"),
        ("timestamp", "\"yesterday\""),
        ("timestamp", "1790000000"),
        ("entry_id", "7"),
        ("critic_identity", "{\"type\":\"robot\"}"),
        ("critic_identity", "{\"type\":\"llm\"}"),
        ("critic_identity", "null"),
        ("dimension_scores", "{\"a\":1,\"a\":2}"),
        ("dimension_scores", "{\"a\":null}"),
    ] {
        cases.push(with(field, value));
    }
    for text in cases {
        assert!(verify(&text, &key, &Pins::default()).is_err(), "{:.200}", text);
    }
    let Err(Unusable::Entry { index: 1, problem, .. }) =
        verify(&without("score"), &key, &Pins::default())
    else {
        panic!("the entry is named");
    };
    assert!(problem.contains("score"), "{problem}");
}

#[test]
fn keys_that_prove_nothing_are_refused() {
    let good = signer(1).public().to_string();
    assert_eq!(CriticKey::parse(&good.to_uppercase()).unwrap(), signer(1).public());
    assert_eq!(CriticKey::parse(&format!(" {good}\n")).unwrap(), signer(1).public());
    for bad in [
        "",
        "ff",
        &good[2..],
        &format!("0x{good}"),
        // The neutral element, a point of order four, one of order eight, and the neutral
        // element in an encoding that is not its own.
        &format!("01{}", "00".repeat(31)),
        &"00".repeat(32),
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        &format!("ee{}7f", "ff".repeat(30)),
    ] {
        assert!(CriticKey::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_signature_has_one_form() {
    let mut chain = Vec::new();
    symbi::append(&mut chain, judged(1.0, 0), &signer(1)).unwrap();
    // The same signature with the group order added to its scalar: malleable verifiers accept it.
    let mut bytes = hex::decode(&chain[0].signature).unwrap();
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut carry = 0u16;
    for (byte, add) in bytes[32..].iter_mut().zip(order.unwrap()) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    chain[0].signature = hex::encode(bytes);
    let report = symbi::verify(&chain, &signer(1).public());
    assert_eq!(first(&report), Some((0, CriticRule::Signature)));
    // The key's holder can make signatures with a commitment of small order, which verifiers that
    // are not strict accept; this is one.
    assert_eq!(
        chain[0].chain_hash,
        "854ef5f471166c09e677ed47910fff342e18fb78c9eb95e420762a04c8c7ca43"
    );
    chain[0].signature = format!(
        "01{}518d13a923870e7450ceef311fbbf0f588ecd4fc70facbf2ef9f16e4f1ada30e",
        "00".repeat(31)
    );
    let report = symbi::verify(&chain, &signer(1).public());
    assert_eq!(first(&report), Some((0, CriticRule::Signature)));
}

proptest! {
    #[test]
    fn every_finite_score_survives_json(scores in proptest::collection::vec(any::<f64>(), 1..4)) {
        let mut chain = Vec::new();
        for (i, score) in scores.iter().enumerate() {
            let appended = symbi::append(&mut chain, judged(*score, i as u64), &signer(3));
            prop_assert_eq!(appended.is_ok(), score.is_finite());
        }
        let text = serde_json::to_string(&chain).unwrap();
        let report = verify(&text, &signer(3).public(), &Pins::default()).unwrap();
        prop_assert!(report.ok, "{:?}", report);
        let again: Vec<symbi::Entry> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(again, chain);
    }

    #[test]
    fn what_is_no_chain_never_panics(text in "\\PC{0,40}", at in 0..PEER.len(), byte in any::<u8>()) {
        let (_, key) = peer();
        let _ = verify(&text, &key, &Pins::default()).is_ok();
        let mut bytes = PEER.as_bytes().to_vec();
        bytes[at] = byte;
        if let Ok(document) = Document::parse(&bytes, None) {
            let _ = document.verify(&key, &Pins::default());
        }
    }
}

/// Four entries, a change of keys in the middle.
fn own() -> Chain {
    let mut chain = Chain::new("review/7").unwrap();
    chain.append(judged(0.9, 0), &signer(1)).unwrap();
    chain.append(judged(0.0, 1), &signer(1)).unwrap();
    chain.rotate(&signer(1), &signer(2), judged(0.0, 0).timestamp).unwrap();
    chain.append(judged(1.0, 2), &signer(2)).unwrap();
    chain.close(&signer(2)).unwrap();
    chain
}

fn text(chain: &Chain) -> String {
    serde_json::to_string(chain).unwrap()
}

#[test]
fn the_successor_verifies_across_a_change_of_keys() {
    let chain = own();
    let pins = Pins { chain_id: Some("review/7".into()), anchor: chain.anchor.clone() };
    let report = verify(&text(&chain), &signer(1).public(), &pins).unwrap();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.entries, report.format), (4, Format::Countersign1));
    assert!(report.not_covered.is_empty(), "{:?}", report.not_covered);
    let entries = Value::Array(chain.entries().to_vec()).to_string();
    let report = verify(&entries, &signer(1).public(), &Pins::default()).unwrap();
    assert!(report.ok && report.not_covered.len() == 2, "{report:?}");
    let report = verify(&entries, &signer(2).public(), &Pins::default()).unwrap();
    assert_eq!(first(&report), Some((0, CriticRule::KeyId)));
}

#[test]
fn the_successor_refuses_scores_and_strangers_when_recording() {
    let mut chain = own();
    let before = chain.clone();
    for score in [f64::NAN, f64::INFINITY, -0.1, 1.000_000_1, -1e-300] {
        assert!(chain.append(judged(score, 3), &signer(2)).is_err(), "{score}");
    }
    let dimension = BTreeMap::from([("tone".to_owned(), 1.5)]);
    let assessment = Assessment { dimension_scores: dimension, ..judged(0.5, 3) };
    assert!(chain.append(assessment, &signer(2)).is_err());
    assert!(chain.append(judged(0.5, 1 << 54), &signer(2)).is_err());
    assert!(matches!(
        chain.append(judged(0.5, 3), &signer(1)),
        Err(successor::RecordError::OtherKey { .. })
    ));
    assert!(chain.close(&signer(1)).is_err());
    assert_eq!(chain, before);
    assert!(Chain::new("").is_err());
}

#[test]
fn a_tail_goes_on_where_the_chain_ends() {
    let tail = Tail::new("review/7").unwrap();
    assert_eq!((tail.chain_id(), tail.len(), tail.is_empty()), ("review/7", 0, true));
    assert_eq!(tail.key_in_force(), None);
    let chain = own();
    let (first, second) = (key_id(&signer(1).public()), key_id(&signer(2).public()));
    for (at, in_force) in [(0, &first), (1, &first), (2, &second), (3, &second)] {
        let tail = Tail::after(&chain.entries()[at]).unwrap();
        let expected = ("review/7", at as u64 + 1, false);
        assert_eq!((tail.chain_id(), tail.len(), tail.is_empty()), expected);
        assert_eq!(tail.key_in_force(), Some(in_force.as_str()), "{at}");
    }
}

#[test]
fn a_number_that_canonical_json_holds_is_taken_and_the_next_is_not() {
    const MOST: u64 = 1 << 53;
    let mut chain = Chain::new("review/7").unwrap();
    chain.append(judged(0.5, MOST), &signer(1)).unwrap();
    assert!(chain.append(judged(0.5, MOST + 1), &signer(1)).is_err());
    let file: Value = serde_json::from_str(&text(&chain)).unwrap();
    let rules = |unknown: Value| {
        let mut changed = file.clone();
        changed["entries"][0]["unknown"] = unknown;
        let report = verify(&changed.to_string(), &signer(1).public(), &Pins::default()).unwrap();
        report.findings.iter().map(|finding| finding.rule).collect::<Vec<_>>()
    };
    let most = MOST as i64;
    for held in [json!(MOST), json!(-most), json!([MOST, {"a": -most}]), json!(1e300)] {
        assert_eq!(rules(held), [CriticRule::ChainHash]);
    }
    for lost in
        [json!(MOST + 1), json!(-most - 1), json!([0, [MOST + 1]]), json!({"a": [-most - 1]})]
    {
        assert_eq!(rules(lost.clone()), [CriticRule::ChainHash, CriticRule::Number], "{lost}");
    }
}

#[test]
fn every_field_of_the_successor_is_covered() {
    let chain = own();
    let key = signer(1).public();
    let file: Value = serde_json::from_str(&text(&chain)).unwrap();
    let check = |why: &str, change: &dyn Fn(&mut Value), rules: &[CriticRule]| {
        let mut changed = file.clone();
        change(&mut changed);
        let report = verify(&changed.to_string(), &key, &Pins::default()).unwrap();
        let found: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
        assert_eq!(found, rules, "{why}: {report:?}");
    };
    use CriticRule as Rule;
    check("nothing", &|_| (), &[]);
    for (field, value, rules) in [
        ("entry_id", json!("other"), &[Rule::ChainHash][..]),
        ("director_output_hash", json!("0"), &[Rule::ChainHash]),
        ("critic_assessment_hash", json!("0"), &[Rule::ChainHash]),
        ("verdict", json!("rejected"), &[Rule::ChainHash]),
        ("dimension_scores", json!({}), &[Rule::ChainHash]),
        ("score", json!(0.5), &[Rule::ChainHash]),
        ("score", json!(1.5), &[Rule::ChainHash, Rule::Score]),
        ("critic_identity", json!({"type": "llm", "model_id": "m"}), &[Rule::ChainHash]),
        ("timestamp", json!("2026-11-20T23:24:01Z"), &[Rule::ChainHash]),
        ("iteration", json!(7), &[Rule::ChainHash]),
        ("unknown", json!(1), &[Rule::ChainHash]),
        ("unknown", json!(1u64 << 60), &[Rule::ChainHash, Rule::Number]),
        ("new_key_signature", json!("00"), &[Rule::ChainHash]),
        ("chain_id", json!("review/8"), &[Rule::ChainId, Rule::ChainHash]),
        ("key_id", json!(key_id(&signer(2).public())), &[Rule::KeyId, Rule::ChainHash]),
        ("index", json!(2), &[Rule::Index, Rule::ChainHash]),
        ("previous_hash", json!("0".repeat(64)), &[Rule::PreviousHash, Rule::ChainHash]),
        (
            "chain_hash",
            json!("0".repeat(64)),
            &[Rule::ChainHash, Rule::Signature, Rule::PreviousHash],
        ),
        ("signature", json!("0".repeat(128)), &[Rule::Signature]),
    ] {
        check(field, &|file| file["entries"][1][field] = value.clone(), rules);
    }
    for (field, value, rules) in [
        ("new_key_signature", json!("0".repeat(128)), &[Rule::Rotation][..]),
        (
            "new_key",
            json!("00"),
            &[Rule::ChainHash, Rule::Rotation, Rule::KeyId, Rule::Signature, Rule::AnchorSignature],
        ),
    ] {
        check(field, &|file| file["entries"][2][field] = value.clone(), rules);
    }
    let at = |name: &'static str, value: Value| {
        move |file: &mut Value| file["anchor"][name] = value.clone()
    };
    check("len", &at("len", json!(3)), &[Rule::AnchorSignature]);
    check("head", &at("head", json!("00")), &[Rule::AnchorSignature]);
    check("chain", &at("chain_id", json!("x")), &[Rule::AnchorSignature]);
    check("key", &at("key_id", json!("x")), &[Rule::AnchorSignature]);
}

#[test]
fn truncation_extension_and_substitution_are_told_apart() {
    let whole = own();
    let anchor = whole.anchor.clone();
    let pinned = Pins { chain_id: None, anchor };
    let check = |chain: &Chain, expected| {
        let entries = Value::Array(chain.entries().to_vec()).to_string();
        let report = verify(&entries, &signer(1).public(), &pinned).unwrap();
        assert_eq!(first(&report), expected, "{report:?}");
    };
    check(&whole, None);
    let mut longer = whole.clone();
    longer.append(judged(0.1, 9), &signer(2)).unwrap();
    check(&longer, Some((4, CriticRule::Extended)));
    // The same beginning, another end.
    let mut other = Chain::new("review/7").unwrap();
    other.append(judged(0.9, 0), &signer(1)).unwrap();
    other.append(judged(0.1, 1), &signer(1)).unwrap();
    other.rotate(&signer(1), &signer(2), judged(0.0, 0).timestamp).unwrap();
    other.append(judged(1.0, 2), &signer(2)).unwrap();
    check(&other, Some((4, CriticRule::Substituted)));
    let mut named = Chain::new("review/8").unwrap();
    named.append(judged(0.9, 0), &signer(1)).unwrap();
    let pins = Pins { chain_id: Some("review/7".into()), anchor: None };
    let report = verify(&text(&named), &signer(1).public(), &pins).unwrap();
    assert_eq!(first(&report), Some((0, CriticRule::ChainId)));
    // Either pin says which chain is meant.
    for pins in [Pins { chain_id: Some("review/7".into()), anchor: None }, pinned.clone()] {
        let report = verify(&text(&whole), &signer(1).public(), &pins).unwrap();
        let open = report.not_covered.iter().any(|line| line.starts_with("the chain itself"));
        assert!(report.ok && !open, "{report:?}");
    }
    // Cut, with the anchor kept elsewhere.
    let mut file: Value = serde_json::from_str(&text(&whole)).unwrap();
    file["entries"].as_array_mut().unwrap().pop();
    let report = verify(&file.to_string(), &signer(1).public(), &Pins::default()).unwrap();
    assert_eq!(first(&report), Some((4, CriticRule::Truncated)));
    // An empty chain is no longer anybody's when it is anchored.
    let mut empty = Chain::new("review/9").unwrap();
    empty.close(&signer(1)).unwrap();
    assert!(verify(&text(&empty), &signer(1).public(), &Pins::default()).unwrap().ok);
    let report = verify(&text(&empty), &signer(2).public(), &Pins::default()).unwrap();
    assert_eq!(first(&report), Some((0, CriticRule::AnchorSignature)));
}

#[test]
fn a_pin_on_a_format_without_it_is_refused() {
    let (_, key) = peer();
    let pins = Pins { chain_id: Some("x".into()), anchor: None };
    assert_eq!(verify(PEER, &key, &pins), Err(Unusable::Pin));
}

#[test]
fn the_published_chain_verifies() {
    let read = |name: &str| {
        let path = format!("{}/../../fixtures/audit/critic/v1/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let key = CriticKey::parse(&read("critic.pub")).unwrap();
    let anchor = Document::parse_anchor(read("countersign-1.anchor.json").as_bytes()).unwrap();
    let pins = Pins { chain_id: Some("example/review".into()), anchor: Some(anchor) };
    let report = verify(&read("countersign-1.json"), &key, &pins).unwrap();
    assert!(report.ok && report.not_covered.is_empty(), "{report:?}");
}
