//! Whatever is read comes back, and nothing that is read breaks anything.
//!
//! A run is short; `PROPTEST_CASES` or `cargo xtask fuzz` makes it long.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::LazyLock;

use countersign_core::journal::{JournalPayload, JournalRecord};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value};

use crate::common::random::{Choices, Contract};
use crate::common::{Again, DOCUMENTS, cases, with_type};

static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::read);

/// Every case's document, with its type.
static SEEDS: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let all = cases().into_iter();
    all.map(|(_, case)| (case.document.clone(), case.input().into_bytes())).collect()
});

/// Reads it as this type. What is accepted must be written so that it reads back equal, which
/// [`Again`] asserts.
fn read(document: &str, bytes: &[u8]) -> Option<String> {
    with_type(document, Again(bytes)).ok()
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..600)
}

/// One change of bytes that knows nothing of JSON.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Copy(Index, Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let token = prop::sample::select(vec![
        &b"null"[..],
        b"\"type\":",
        b"\"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\\u00",
        b"1e400",
        b"-1",
        b" ",
        b"\n",
        b"\xff",
        b"\xc2",
        b"\0",
        b"18446744073709551616",
    ]);
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, bit)| Change::Flip(at, 1 << (bit % 8))),
        any::<Index>().prop_map(Change::Cut),
        (any::<Index>(), 1..40usize).prop_map(|(at, len)| Change::Remove(at, len)),
        (any::<Index>(), token).prop_map(|(at, token)| Change::Insert(at, token.to_vec())),
        (any::<Index>(), any::<Index>(), 1..80usize)
            .prop_map(|(from, to, len)| Change::Copy(from, to, len)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match change {
        Change::Flip(at, bit) => bytes[at.index(len)] ^= bit,
        Change::Cut(at) => bytes.truncate(at.index(len)),
        Change::Remove(at, count) => {
            let at = at.index(len);
            bytes.drain(at..(at + count).min(len));
        }
        Change::Insert(at, token) => {
            let at = at.index(len);
            bytes.splice(at..at, token.iter().copied());
        }
        Change::Copy(from, to, count) => {
            let from = from.index(len);
            let part = bytes[from..(from + count).min(len)].to_vec();
            let to = to.index(len);
            bytes.splice(to..to, part);
        }
    }
}

/// Reorders, repeats and drops keys, all through a document. The text is built by hand: a
/// [`Value`] cannot hold a key twice.
fn shuffled(value: &Value, choices: &mut Choices<'_>, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<_> = fields.iter().collect();
            let turn = choices.below(keys.len().max(1));
            keys.rotate_left(turn);
            if choices.below(2) == 1 {
                keys.reverse();
            }
            match choices.below(12) {
                0 if !keys.is_empty() => keys.push(keys[choices.below(keys.len())]),
                1 => drop(keys.pop()),
                _ => {}
            }
            text.push('{');
            for (index, (key, value)) in keys.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                shuffled(value, choices, text);
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                shuffled(value, choices, text);
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

fn spaced(json: &str, choices: &mut Choices<'_>) -> String {
    let (mut text, mut quoted, mut escaped) = (String::new(), false, false);
    for c in json.chars() {
        let space = !quoted && matches!(c, '{' | '}' | '[' | ']' | ',' | ':' | '"');
        if space {
            text.push_str(["", " ", "\n\t", "\r\n"][choices.below(4)]);
        }
        (quoted, escaped) = match c {
            '"' if !escaped => (!quoted, false),
            '\\' if quoted => (true, !escaped),
            _ => (quoted, false),
        };
        text.push(c);
    }
    text
}

proptest! {
    #[test]
    fn every_value_of_every_type_comes_back(bytes in choices(), which in any::<Index>()) {
        let (document, of) = DOCUMENTS[which.index(DOCUMENTS.len())];
        let written = CONTRACT.document(of, &mut Choices(&bytes));
        let again = with_type(document, Again(written.as_bytes()));
        prop_assert_eq!(again, Ok(written));
    }

    #[test]
    fn order_of_keys_and_white_space_do_not_matter(
        bytes in choices(), order in choices(), which in any::<Index>()
    ) {
        let (document, of) = DOCUMENTS[which.index(DOCUMENTS.len())];
        let written = CONTRACT.document(of, &mut Choices(&bytes));
        fn turned(value: &Value) -> Value {
            match value {
                Value::Object(fields) => {
                    let turned = fields.iter().rev().map(|(key, value)| (key.clone(), turned(value)));
                    Value::Object(turned.collect::<Map<_, _>>())
                }
                Value::Array(list) => list.iter().map(turned).collect(),
                other => other.clone(),
            }
        }
        let value: Value = serde_json::from_str(&written).unwrap();
        let laid_out = spaced(&turned(&value).to_string(), &mut Choices(&order));
        let again = read(document, laid_out.as_bytes());
        // Free JSON keeps its own order; the rest has that of the contract.
        let again: Value = serde_json::from_str(&again.unwrap()).unwrap();
        prop_assert_eq!(again, value);
    }

    #[test]
    fn bytes_of_any_kind_break_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for (document, _) in DOCUMENTS {
            read(document, &bytes);
        }
    }

    #[test]
    fn json_of_any_kind_breaks_nothing(bytes in choices()) {
        let mut text = String::new();
        Choices(&bytes).tokens(5, &mut text);
        for (document, _) in DOCUMENTS {
            read(document, text.as_bytes());
        }
    }

    #[test]
    fn a_damaged_document_is_refused_or_reads_back_equal(
        seed in any::<Index>(), changes in prop::collection::vec(change(), 1..4)
    ) {
        let (document, bytes) = &SEEDS[seed.index(SEEDS.len())];
        let mut bytes = bytes.clone();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        read(document, &bytes);
    }

    #[test]
    fn keys_in_any_order_and_number_are_refused_or_read_back_equal(
        seed in any::<Index>(), order in choices()
    ) {
        let (document, bytes) = &SEEDS[seed.index(SEEDS.len())];
        if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
            let mut text = String::new();
            shuffled(&value, &mut Choices(&order), &mut text);
            read(document, text.as_bytes());
        }
    }

    #[test]
    fn an_unknown_payload_keeps_its_tokens(bytes in choices(), place in 0..3usize, space in choices()) {
        let mut choices = Choices(&bytes);
        let mut members: Vec<String> = (0..2).map(|index| {
            let mut member = format!("\"\\u006b{index}\":");
            choices.tokens(4, &mut member);
            member
        }).collect();
        members.insert(place, r#""type":"of\u0020nobody""#.to_owned());
        let payload = format!("{{{}}}", members.join(","));
        let read: JournalPayload = serde_json::from_str(&spaced(&payload, &mut Choices(&space))).unwrap();
        prop_assert!(matches!(read, JournalPayload::Other(_)));
        prop_assert_eq!(serde_json::to_string(&read).unwrap(), payload);
    }

    #[test]
    fn a_stamp_changes_the_place_and_nothing_else(bytes in choices(), seq in any::<u64>()) {
        use countersign_core::journal::JournalDraft;
        let text = CONTRACT.document("JournalRecord", &mut Choices(&bytes));
        let record: JournalRecord = serde_json::from_str(&text).unwrap();
        let draft = JournalDraft::new(record.clone());
        let encoded = draft.encode().unwrap();
        let stamped: JournalRecord = serde_json::from_slice(&encoded.stamp(seq)).unwrap();
        prop_assert_eq!(stamped, JournalRecord { journal_seq: seq, ..record });
        prop_assert!(encoded.same_content(&encoded.stamp(!seq)));
    }
}
