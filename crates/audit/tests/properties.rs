//! Readers of notes, keys, receipts, bundles and chains, given what nobody wrote: they refuse it,
//! and nothing but the very thing that was signed is taken for it. `cargo xtask fuzz` tries many
//! more cases.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::num::NonZero;

use countersign_audit::checkpoint::{Checkpoint, Signed};
use countersign_audit::critic::{CriticKey, Document, Pins};
use countersign_audit::key::{LogKey, PublicKey, Signer as _, WitnessKey};
use countersign_audit::receipt::Receipt;
use countersign_audit::tree::{Frontier, leaf_hash};
use countersign_audit::verify::{BundleWriter, Options, verify_bundle};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// What is done to bytes.
#[derive(Clone, Debug)]
enum Edit {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    Swap(Index, Index),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<Index>;
    let digits = proptest::sample::select(&b"0123456789\"\\\n{}[],:=+ A"[..]);
    let edit = prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (at(), digits).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (at(), vec(any::<u8>(), 1..4)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (at(), 1..80usize).prop_map(|(at, len)| Edit::Remove(at, len)),
        (at(), 1..80usize).prop_map(|(at, len)| Edit::Repeat(at, len)),
        (at(), at()).prop_map(|(a, b)| Edit::Swap(a, b)),
    ];
    vec(edit, 1..4)
}

fn edited(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for edit in edits {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        match edit {
            Edit::Set(at, byte) => bytes[at.index(len)] = *byte,
            Edit::Insert(at, more) => {
                let at = at.index(len);
                bytes.splice(at..at, more.iter().copied());
            }
            Edit::Remove(at, n) => {
                let at = at.index(len);
                bytes.drain(at..(at + n).min(len));
            }
            Edit::Repeat(at, n) => {
                let at = at.index(len);
                let again = bytes[at..(at + n).min(len)].to_vec();
                bytes.splice(at..at, again);
            }
            Edit::Swap(a, b) => bytes.swap(a.index(len), b.index(len)),
        }
    }
    bytes
}

fn key() -> LogKey {
    LogKey::from_seed("log.example/test", &[7; 32]).unwrap()
}

const RECORD: &str = include_str!("../../../fixtures/records/v1/journal-tool-intent.json");

/// Three records: an announcement, its end told nowhere, and nothing else.
fn bundle() -> Vec<u8> {
    let key = key();
    let mut bundle = BundleWriter::new(Vec::new(), &[key.public().clone()], (0, &[])).unwrap();
    let record = RECORD.trim_end();
    bundle.record(record.as_bytes()).unwrap();
    let mut tree = Frontier::default();
    tree.push(leaf_hash(record.as_bytes()), |_, _| ());
    bundle.checkpoint(&Checkpoint::sign(1, tree.root(), &key).unwrap()).unwrap();
    bundle.finish().unwrap()
}

fn receipt() -> Receipt {
    let record = RECORD.trim_end();
    let note = Checkpoint::sign(1, leaf_hash(record.as_bytes()), &key()).unwrap();
    Receipt::new(1, record.to_owned(), &[], note)
}

const CHAIN: &str = include_str!("../../../fixtures/audit/critic/v1/countersign-1.json");
const CHAIN_KEY: &str = include_str!("../../../fixtures/audit/critic/v1/critic.pub");

fn threads(n: usize) -> Options {
    Options { threads: NonZero::new(n), meaning: true, ..Options::default() }
}

proptest! {
    #[test]
    fn no_other_note_is_taken_for_the_one_that_was_signed(edits in edits(), any in any::<String>()) {
        let note = Checkpoint::sign(3, [9; 32], &key()).unwrap();
        prop_assert!(Signed::parse(&any).is_err() || any.contains("\n\n"));
        if let Ok(changed) = String::from_utf8(edited(note.as_bytes(), &edits))
            && changed != note
            && let Ok(opened) = Checkpoint::open(&changed, key().public())
        {
            // Only a line by somebody else may have been added.
            prop_assert_eq!(opened.size, 3);
            prop_assert_eq!(opened.root, [9; 32]);
        }
    }

    #[test]
    fn no_other_key_is_taken_for_the_one_that_was_written(edits in edits()) {
        let key = key();
        let text = key.public().to_string();
        let private = key.to_text();
        if let Ok(changed) = String::from_utf8(edited(text.as_bytes(), &edits)) {
            prop_assert!(WitnessKey::parse(&changed).is_err());
            if let Ok(parsed) = PublicKey::parse(&changed) {
                prop_assert_eq!(parsed.to_string(), changed.trim_end());
            }
        }
        if let Ok(changed) = String::from_utf8(edited(private.as_bytes(), &edits))
            && let Ok(parsed) = LogKey::parse(&changed)
        {
            let written = parsed.to_text();
            prop_assert_eq!(written.trim_end(), changed.trim_end());
        }
    }

    #[test]
    fn no_other_receipt_is_taken_for_the_one_that_was_made(edits in edits()) {
        let made = receipt();
        prop_assert!(made.verify_record(key().public()).is_ok());
        let text = serde_json::to_vec(&made).unwrap();
        if let Ok(read) = Receipt::parse(&edited(&text, &edits))
            && read.verify_record(key().public()).is_ok()
        {
            prop_assert_eq!(read.record, made.record);
            prop_assert_eq!(read.seq, made.seq);
        }
    }

    #[test]
    fn no_other_bundle_is_taken_for_the_one_that_was_written(edits in edits(), n in 1..4usize) {
        let written = bundle();
        let body = |bytes: &[u8]| {
            let at = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            let (_, lines) = bytes.split_at(at);
            lines.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec()
        };
        let changed = edited(&written, &edits);
        let report = verify_bundle(changed.as_slice(), key().public(), &threads(n), |_| ());
        if let Ok(report) = report {
            let again = verify_bundle(changed.as_slice(), key().public(), &threads(1), |_| ());
            prop_assert_eq!(&report, &again.unwrap());
            if report.ok {
                // The record is the one that was signed.
                prop_assert_eq!(body(&changed), body(&written));
            }
        }
    }

    #[test]
    fn no_other_chain_is_taken_for_the_one_that_was_recorded(edits in edits()) {
        let key = CriticKey::parse(CHAIN_KEY).unwrap();
        let changed = edited(CHAIN.as_bytes(), &edits);
        if let Ok(document) = Document::parse(&changed, None)
            && document.verify(&key, &Pins::default()).is_ok_and(|report| report.ok)
            && let Document::Countersign1(chain, _) = document
        {
            let Ok(Document::Countersign1(whole, _)) = Document::parse(CHAIN.as_bytes(), None) else {
                panic!("the fixture is a chain");
            };
            let canonical = |chain: &countersign_audit::critic::successor::Chain| {
                let entries = serde_json::Value::Array(chain.entries().to_vec());
                serde_json_canonicalizer::to_string(&entries).unwrap()
            };
            // An anchor that was damaged beyond being one leaves a shorter chain whole.
            let (changed, whole) = (canonical(&chain), canonical(&whole));
            let begins = whole.starts_with(changed.trim_end_matches(']'));
            prop_assert!(changed == whole || (chain.anchor.is_none() && begins));
        }
    }
}
