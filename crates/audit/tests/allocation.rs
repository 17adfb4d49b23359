//! Readers of notes, keys, receipts, bundles and chains never panic, and never hold more memory
//! than a small multiple of what they were given, whatever that is. Every fixture is a seed.
//!
//! One test, because the memory of the process is counted. `cargo xtask fuzz` tries many more
//! cases.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::Read as _;
use std::num::NonZero;
use std::path::Path;

use countersign_audit::checkpoint::{Checkpoint, Signed};
use countersign_audit::critic::{CriticKey, Document, Pins};
use countersign_audit::key::{LogKey, PublicKey, WitnessKey};
use countersign_audit::receipt::Receipt;
use countersign_audit::tiles;
use countersign_audit::verify::{Options, verify_bundle};
use peak_alloc::PeakAlloc;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes that may be held for each byte given, and besides: blocks of a bundle, a report's
/// findings, what tests themselves need.
const EACH: usize = 128;
const BESIDES: usize = 8 << 20;

/// What reads the seed.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Note,
    Receipt,
    Bundle,
    Chain,
}

#[derive(Clone, Debug)]
struct Seed {
    kind: Kind,
    text: Vec<u8>,
    key: String,
}

fn seeds() -> Vec<Seed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/audit");
    let read = |path: &str| std::fs::read(root.join(path)).unwrap();
    let key = String::from_utf8(read("v1/log.pub")).unwrap();
    let critic = String::from_utf8(read("critic/v1/critic.pub")).unwrap();
    let chain = read("critic/v1/symbi-runtime-1.7.0.json");
    let peer: Value = serde_json::from_slice(&chain).unwrap();
    let peer = peer["public_key"].as_str().unwrap().to_owned();
    let mut seeds = vec![
        Seed { kind: Kind::Note, text: read("v1/checkpoint.txt"), key: key.clone() },
        Seed { kind: Kind::Receipt, text: read("v1/receipt.json"), key },
        Seed { kind: Kind::Chain, text: read("critic/v1/countersign-1.json"), key: critic },
        Seed { kind: Kind::Chain, text: chain, key: peer },
    ];
    for (kind, file) in [
        (Kind::Bundle, "v1/bundles"),
        (Kind::Bundle, "v1/rules"),
        (Kind::Bundle, "v2/bundles"),
        (Kind::Bundle, "v2/rules"),
        (Kind::Bundle, "v5/rules"),
        (Kind::Receipt, "v1/receipts"),
        (Kind::Receipt, "v2/receipts"),
        (Kind::Chain, "v1/critics"),
    ] {
        for line in String::from_utf8(read(&format!("attacks/{file}.ndjson"))).unwrap().lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| case[field].as_str().unwrap().to_owned();
            seeds.push(Seed { kind, text: text("input").into_bytes(), key: text("key") });
        }
    }
    seeds
}

/// What is done to a document.
#[derive(Clone, Debug)]
enum Edit {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    /// A piece of another seed.
    Splice(Index, Index, Index, usize),
    /// A number becomes this.
    Number(Index, &'static str),
    /// A text becomes this long.
    Long(Index, u8, usize),
    /// So many of this, opened and never closed.
    Deep(Index, &'static str, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    const NUMBERS: [&str; 9] = [
        "0",
        "-1",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775807",
        "4294967295",
        "1e308",
        "1e999999999",
        "0.1e-400",
    ];
    let at = any::<Index>;
    let size = || 0..20u32;
    prop_oneof![
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        1 => at().prop_map(Edit::Cut),
        2 => (at(), 1..400usize).prop_map(|(at, n)| Edit::Remove(at, n)),
        3 => (at(), at(), at(), 1..4000usize).prop_map(|(a, b, c, n)| Edit::Splice(a, b, c, n)),
        3 => (at(), select(&NUMBERS[..])).prop_map(|(at, to)| Edit::Number(at, to)),
        1 => (at(), any::<u8>(), size()).prop_map(|(at, byte, n)| Edit::Long(at, byte, 1 << n)),
        1 => (at(), select(&["[", "{\"a\":", "\"", "\\u0000", "\n\n"][..]), size())
            .prop_map(|(at, what, n)| Edit::Deep(at, what, (1 << n) / what.len())),
    ]
}

fn changed(seeds: &[Seed], text: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut text = text.to_vec();
    for edit in edits {
        let len = text.len();
        let at = |at: &Index| if len == 0 { 0 } else { at.index(len) };
        match edit {
            Edit::Flip(place, bit) => {
                if let Some(byte) = text.get_mut(at(place)) {
                    *byte ^= 1 << bit;
                }
            }
            Edit::Cut(place) => text.truncate(at(place)),
            Edit::Remove(place, n) => {
                text.drain(at(place)..(at(place) + n).min(len));
            }
            Edit::Splice(place, seed, from, n) => {
                let other = &seeds[seed.index(seeds.len())].text;
                let from = if other.is_empty() { 0 } else { from.index(other.len()) };
                let piece = other[from..(from + n).min(other.len())].to_vec();
                text.splice(at(place)..at(place), piece);
            }
            Edit::Number(place, to) => {
                let digit = |byte: &u8| byte.is_ascii_digit();
                let begin = text[at(place)..].iter().position(digit).map(|n| at(place) + n);
                if let Some(begin) = begin {
                    let digits = text[begin..].iter().take_while(|byte| digit(byte)).count();
                    text.splice(begin..begin + digits, to.bytes());
                }
            }
            Edit::Long(place, byte, n) => {
                text.splice(at(place)..at(place), std::iter::repeat_n(*byte, *n));
            }
            Edit::Deep(place, what, n) => {
                text.splice(at(place)..at(place), what.bytes().cycle().take(what.len() * n));
            }
        }
    }
    text
}

/// Has everything read it that could be given it.
fn read(kind: Kind, text: &[u8], key: &str) {
    if let Ok(text) = std::str::from_utf8(text) {
        let _ = PublicKey::parse(text);
        let _ = LogKey::parse(text);
        let _ = WitnessKey::parse(text);
        let _ = CriticKey::parse(text);
        let _ = tiles::parse(text);
        let _ = Signed::parse(text);
    }
    match kind {
        Kind::Note => {
            let key = PublicKey::parse(key).unwrap();
            if let Ok(text) = std::str::from_utf8(text) {
                let _ = Checkpoint::open(text, &key);
            }
        }
        Kind::Receipt => {
            let key = PublicKey::parse(key).unwrap();
            if let Ok(receipt) = Receipt::parse(text) {
                let _ = receipt.verify_record(&key);
            }
        }
        Kind::Bundle => {
            let key = PublicKey::parse(key).unwrap();
            for (threads, meaning) in [(1, false), (2, true)] {
                let threads = NonZero::new(threads);
                let options = Options { threads, meaning, ..Options::default() };
                if let Ok(report) = verify_bundle(text, &key, &options, |_| ()) {
                    assert!(serde_json::to_vec(&report).unwrap().len() < 1 << 20);
                }
            }
        }
        Kind::Chain => {
            if let (Ok(key), Ok(document)) = (CriticKey::parse(key), Document::parse(text, None)) {
                let _ = document.verify(&key, &Pins::default());
            }
        }
    }
}

#[test]
fn no_reader_panics_or_holds_more_than_a_multiple_of_what_it_is_given() {
    let seeds = seeds();
    let bounded = |kind: Kind, text: &[u8], key: &str| {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        read(kind, text, key);
        let held = MEMORY.peak_usage().saturating_sub(before);
        let most = BESIDES + EACH * text.len();
        prop_assert!(held <= most, "{held} bytes for {} of {kind:?}", text.len());
        Ok(())
    };
    // Every seed as it is, and in some of them what makes sizes: these are not left to chance.
    for (n, seed) in seeds.iter().enumerate() {
        bounded(seed.kind, &seed.text, &seed.key).unwrap();
        if n > 4 && n % 20 != 0 {
            continue;
        }
        for at in [0, 1, seed.text.len() / 2, seed.text.len()] {
            for more in ["[".repeat(1 << 18), "{\"a\":".repeat(1 << 16), "1,".repeat(1 << 17)] {
                let at = at.min(seed.text.len());
                let text = [&seed.text[..at], more.as_bytes(), &seed.text[at..]].concat();
                bounded(seed.kind, &text, &seed.key).unwrap();
            }
        }
    }
    // A line that does not end is not kept.
    let seed = seeds.iter().find(|seed| matches!(seed.kind, Kind::Bundle)).unwrap();
    let key = PublicKey::parse(&seed.key).unwrap();
    let header = seed.text.split_inclusive(|byte| *byte == b'\n').next().unwrap();
    for (begin, whole) in [(header, true), (&b"{"[..], false)] {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let endless = begin.chain(std::io::repeat(b'x').take(32 << 20));
        let options = Options { threads: NonZero::new(2), meaning: true, ..Options::default() };
        let report = verify_bundle(endless, &key, &options, |_| ());
        assert_eq!(report.is_ok_and(|report| !report.ok && report.findings.len() <= 100), whole);
        let held = MEMORY.peak_usage().saturating_sub(before);
        assert!(held < BESIDES, "{held} bytes for a line without an end");
    }
    // What is known of a line takes more room than an empty one.
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let blank = header.chain(std::io::repeat(b'\n').take(8 << 20));
    let options = Options { threads: NonZero::new(2), meaning: true, ..Options::default() };
    assert!(verify_bundle(blank, &key, &options, |_| ()).is_ok_and(|report| !report.ok));
    let held = MEMORY.peak_usage().saturating_sub(before);
    assert!(held < 2 * BESIDES, "{held} bytes for lines without anything");
    let config = Config { source_file: Some(file!()), ..Config::default() };
    let case = (any::<Index>(), vec(edit(), 1..5));
    TestRunner::new(config)
        .run(&case, |(seed, edits)| {
            let seed = &seeds[seed.index(seeds.len())];
            bounded(seed.kind, &changed(&seeds, &seed.text, &edits), &seed.key)
        })
        .unwrap();
}
