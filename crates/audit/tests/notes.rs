//! Our notes against an implementation that is not ours, and against damage.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use countersign_audit::checkpoint::{Checkpoint, CheckpointError};
use countersign_audit::key::{LogKey, PublicKey, Signer};
use countersign_audit::receipt::{Receipt, ReceiptError};
use countersign_audit::tree::{Frontier, leaf_hash};
use countersign_audit::verify::{Rule, StoredRecord, Verifier};
use signed_note::{Note, StandardVerifier, VerifierList};

fn key() -> LogKey {
    LogKey::from_seed("log.example/test", &[7; 32]).unwrap()
}

fn foreign_accepts(note: &str, key: &PublicKey) -> bool {
    let verifier = StandardVerifier::new(&key.to_string()).unwrap();
    let verifiers = VerifierList::new(vec![Box::new(verifier)]);
    Note::from_bytes(note.as_bytes()).is_ok_and(|note| note.verify(&verifiers).is_ok())
}

#[test]
fn a_foreign_implementation_accepts_our_note_and_refuses_every_changed_byte() {
    let key = key();
    let note = Checkpoint::sign(3, leaf_hash(b"x"), &key).unwrap();
    assert!(foreign_accepts(&note, key.public()));
    assert_eq!(Checkpoint::open(&note, key.public()).unwrap().size, 3);
    for at in 0..note.len() {
        let mut bytes = note.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(changed) = String::from_utf8(bytes) else {
            continue;
        };
        assert!(!foreign_accepts(&changed, key.public()), "byte {at}");
        assert!(Checkpoint::open(&changed, key.public()).is_err(), "byte {at}");
    }
}

#[test]
fn keys_round_trip_and_refuse_damage() {
    let key = key();
    let text = key.to_text();
    assert_eq!(LogKey::parse(&text).unwrap().public(), key.public());
    let public = key.public().to_string();
    assert_eq!(&PublicKey::parse(&public).unwrap(), key.public());
    for bad in ["", "a+b", "name with space+00000000+AQ==", &public.replace("log", "lag")] {
        assert!(PublicKey::parse(bad).is_err(), "{bad}");
        assert!(LogKey::parse(bad).is_err(), "{bad}");
    }
    assert!(!format!("{key:?}").contains(text.rsplit('+').next().unwrap().trim()));
}

#[test]
fn a_note_of_another_log_or_key_is_refused_by_name() {
    let note = Checkpoint::sign(1, [0; 32], &key()).unwrap();
    let other = LogKey::from_seed("log.example/test", &[8; 32]).unwrap();
    assert_eq!(
        Checkpoint::open(&note, other.public()),
        Err(CheckpointError::Unsigned("log.example/test".into()))
    );
    let renamed = LogKey::from_seed("log.example/other", &[7; 32]).unwrap();
    assert!(matches!(
        Checkpoint::open(&note, renamed.public()),
        Err(CheckpointError::Origin { .. })
    ));
}

#[test]
fn a_receipt_proves_its_record_and_no_other() {
    let key = key();
    let mut tree = Frontier::default();
    let first = leaf_hash(b"{\"first\":1}");
    tree.push(first, |_, _| ());
    tree.push(leaf_hash(b"{\"second\":2}"), |_, _| ());
    let note = Checkpoint::sign(2, tree.root(), &key).unwrap();
    let receipt = Receipt::new(2, "{\"second\":2}".into(), &[first], note);
    assert_eq!(receipt.verify(key.public()).unwrap().size, 2);
    for (bad, why) in [
        (Receipt { seq: 1, ..receipt.clone() }, "another place"),
        (Receipt { seq: 0, ..receipt.clone() }, "no place"),
        (Receipt { record: "{\"second\":3}".into(), ..receipt.clone() }, "another record"),
        (Receipt { inclusion_proof: vec![], ..receipt.clone() }, "no path"),
        (Receipt { receipt_version: 2, ..receipt.clone() }, "a later version"),
        (Receipt { inclusion_proof: vec!["AA==".into()], ..receipt.clone() }, "a short hash"),
    ] {
        assert!(bad.verify(key.public()).is_err(), "{why}");
    }
    assert!(matches!(
        Receipt { seq: 3, ..receipt }.verify(key.public()),
        Err(ReceiptError::NotIncluded { seq: 3, size: 2 })
    ));
}

#[test]
fn the_verifier_names_the_record_that_changed() {
    let key = key();
    let bodies: Vec<Vec<u8>> = (0..5u8).map(|i| vec![b'{', b'0' + i, b'}']).collect();
    let leaves: Vec<_> = bodies.iter().map(|b| leaf_hash(b)).collect();
    let mut tree = Frontier::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf, |_, _| ()));
    let note = Checkpoint::sign(5, tree.root(), &key).unwrap();
    let run = |bodies: &[Vec<u8>], with_leaves: bool, skip: usize| {
        let mut verifier = Verifier::new(key.public());
        for (i, bytes) in bodies.iter().enumerate().filter(|(i, _)| *i != skip) {
            let leaf = with_leaves.then(|| leaves[i]);
            let seq = i as u64 + 1;
            verifier.record(StoredRecord { seq, record_id: &format!("r{seq}"), bytes, leaf });
        }
        verifier.checkpoint(5, &note);
        verifier.finish()
    };
    assert!(run(&bodies, true, 99).ok);
    let mut changed = bodies.clone();
    changed[2][1] = b'9';
    let report = run(&changed, true, 99);
    assert!(!report.ok);
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].rule, Rule::RecordChanged);
    assert_eq!(report.findings[0].record_id.as_deref(), Some("r3"));
    assert_eq!(run(&changed, false, 99).findings[0].rule, Rule::RootMismatch);
    assert_eq!(run(&bodies, true, 1).findings[0].rule, Rule::RecordMissing);
    let mut verifier = Verifier::new(key.public());
    verifier.record(StoredRecord { seq: 1, record_id: "r1", bytes: b"{}", leaf: None });
    assert_eq!(verifier.finish().findings[0].rule, Rule::NotCovered);
}

#[test]
fn the_published_fixtures_verify() {
    let read = |name: &str| {
        let path = format!("{}/../../fixtures/audit/v1/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let key = PublicKey::parse(&read("log.pub")).unwrap();
    let note = read("checkpoint.txt");
    assert!(foreign_accepts(&note, &key));
    assert_eq!(Checkpoint::open(&note, &key).unwrap().size, 7);
    let receipt: Receipt = serde_json::from_str(&read("receipt.json")).unwrap();
    assert_eq!(receipt.verify(&key).unwrap().size, 7);
}
