//! Entries as they are spelled, and ways to change them.

use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset, SecondsFormat};
use countersign_audit::critic::{
    Assessment, CriticSigner, Identity, Timestamp, Verdict, text_hash,
};
use serde::Deserialize;
use serde_json::value::RawValue;

/// An entry, field by field, each value as it is spelled.
#[derive(Clone)]
pub struct Entry(Vec<(String, String)>);

#[derive(Deserialize)]
struct File {
    entries: Vec<BTreeMap<String, Box<RawValue>>>,
}

/// The entries of a chain, which is an array or an object with `entries`.
pub fn entries(text: &str) -> Vec<Entry> {
    let file = match text.starts_with('[') {
        true => serde_json::from_str(&format!("{{\"entries\":{text}}}")),
        false => serde_json::from_str::<File>(text),
    };
    let fields = |entry: BTreeMap<String, Box<RawValue>>| {
        entry.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect()
    };
    file.unwrap().entries.into_iter().map(fields).map(Entry).collect()
}

impl Entry {
    pub fn text(&self) -> String {
        let fields: Vec<_> =
            self.0.iter().map(|(name, value)| format!("{}:{value}", text(name))).collect();
        format!("{{{}}}", fields.join(","))
    }

    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub fn set(&mut self, field: &str, value: String) {
        match self.0.iter_mut().find(|(name, _)| name == field) {
            Some((_, old)) => *old = value,
            None => self.push(field, value),
        }
    }

    pub fn push(&mut self, field: &str, value: String) {
        self.0.push((field.to_owned(), value));
    }

    pub fn text_of(&self, field: &str) -> String {
        serde_json::from_str(&raw(self, field)).unwrap()
    }

    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| keep(name)).cloned().collect())
    }

    pub fn renamed(&self, field: &str, to: &str) -> Self {
        let name = |name: &str| if name == field { to.to_owned() } else { name.to_owned() };
        Self(self.0.iter().map(|(old, value)| (name(old), value.clone())).collect())
    }

    pub fn reversed(&self) -> Self {
        Self(self.0.iter().rev().cloned().collect())
    }
}

/// A value as it is spelled.
pub fn raw(entry: &Entry, field: &str) -> String {
    entry.0.iter().find(|(name, _)| name == field).unwrap().1.clone()
}

/// A text in JSON.
pub fn text(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// Other texts, by what was done. None has the separator of `symbi-1` in it.
pub fn text_changes(value: &str) -> Vec<(String, String)> {
    let mut changes = Vec::new();
    for at in at_places(value.len()) {
        let mut bytes = value.as_bytes().to_vec();
        bytes[at] ^= 1;
        changes.push((format!("byte {at} flipped"), String::from_utf8(bytes).unwrap()));
    }
    let mut swapped = value.as_bytes().to_vec();
    if let Some(at) = swapped.windows(2).position(|pair| pair[0] != pair[1]) {
        swapped.swap(at, at + 1);
        changes.push(("two bytes swapped".into(), String::from_utf8(swapped).unwrap()));
    }
    for (what, changed) in [
        ("upper case", value.to_uppercase()),
        ("a letter in upper case", value.replacen(['a', 'b', 'c', 'd', 'e', 'f'], "A", 1)),
        ("a byte short at the end", value[..value.len() - 1].to_owned()),
        ("a byte short at the beginning", value[1..].to_owned()),
        ("half", value[..value.len() / 2].to_owned()),
        ("nothing", String::new()),
        ("twice", value.repeat(2)),
        ("a zero more", format!("{value}0")),
        ("a byte more", format!("{value}00")),
        ("zeros", "0".repeat(value.len())),
        ("backwards", value.chars().rev().collect()),
        ("a space before", format!(" {value}")),
        ("a space behind", format!("{value} ")),
        ("a line feed behind", format!("{value}\n")),
        ("a zero character behind", format!("{value}\0")),
        ("a prefix", format!("0x{value}")),
        ("no hexadecimal", format!("g{}", &value[1..])),
        ("wide digits", value.replacen(|c: char| c.is_ascii_digit(), "\u{ff11}", 1)),
    ] {
        if changed != value {
            changes.push((what.to_owned(), changed));
        }
    }
    changes
}

/// Four places and the last.
fn at_places(len: usize) -> Vec<usize> {
    let mut all: Vec<_> = (0..len).step_by((len / 4).max(1)).chain([len - 1]).collect();
    all.dedup();
    all
}

/// The same number, spelled otherwise.
pub fn same_number(number: f64) -> Vec<String> {
    let decimal = format!("{number}");
    let point = if decimal.contains('.') { "" } else { ".0" };
    let exponent = format!("{number:e}");
    let mut all = vec![
        decimal.clone(),
        format!("{decimal}{point}000"),
        exponent.clone(),
        exponent.to_uppercase(),
        exponent
            .replace('e', "0e")
            .replace("0e", if exponent.contains('.') { "00e" } else { ".0e" }),
        format!("{decimal}e0"),
        format!("{decimal}e-0"),
        format!("{decimal}E+00"),
        // Digits behind those that tell the number from its neighbours.
        format!("{decimal}{point}0000000000000000000000000000000000000001"),
    ];
    if number == 0.0 {
        all.truncate(8);
        all.push(format!("{decimal}.0e999999"));
    }
    all
}

/// Times beside this one, and whether each is the same instant in a spelling that the peer reads.
pub fn times(time: &str) -> Vec<(String, bool)> {
    let moment = DateTime::parse_from_rfc3339(time).unwrap();
    let spelled = |shift: i32, nanos: i64| {
        let moment = moment + chrono::TimeDelta::nanoseconds(nanos);
        let there = moment.with_timezone(&FixedOffset::east_opt(shift * 60).unwrap());
        there.to_rfc3339_opts(SecondsFormat::Nanos, false)
    };
    let plain = time.trim_end_matches('Z');
    let mut all = vec![
        (format!("{plain}+00:00"), true),
        (format!("{plain}-00:00"), true),
        (format!("{plain}z"), true),
        (time.replace('T', "t"), true),
        (spelled(120, 0), true),
        (spelled(-570, 0), true),
        (spelled(0, 1), false),
        (spelled(0, -1), false),
        (spelled(0, 1_000_000_000), false),
        (spelled(120, 1), false),
        (format!("{plain}+01:00"), false),
        // A tenth digit is no digit of a nanosecond.
        (format!("{plain}0Z"), false),
        (format!("{plain}1Z"), false),
        (format!("{}Z", &plain[..19]), false),
        (format!("{}Z", &plain[..23]), false),
    ];
    // The last digit, where it is a zero, says nothing.
    all.push((format!("{}Z", &plain[..plain.len() - 1]), plain.ends_with('0')));
    all
}

/// What is no RFC 3339 time.
pub const NO_TIMES: &[&str] = &[
    "",
    "now",
    "1790000000",
    "2026-11-20",
    "23:24:01Z",
    "2026-11-20T23:24:01",
    "2026-11-20T23:24:01.Z",
    "2026-11-20T23:24Z",
    "2026-11-20T24:00:00Z",
    "2026-13-20T23:24:01Z",
    "2026-02-30T23:24:01Z",
    "26-11-20T23:24:01Z",
    "2026-11-20T23:24:01.5Z ",
    " 2026-11-20T23:24:01.5Z",
    "2026-11-20T23:24:01.5 Z",
    "2026-11-20T23:24:01.5+0",
    "2026-11-20T23:24:01,5Z",
];

/// The signature with the group order added to its scalar, which lax verifiers accept.
pub fn malleable(signature: &str) -> String {
    let mut bytes = hex::decode(signature).unwrap();
    let order = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    let mut carry = 0u16;
    for (byte, add) in bytes[32..].iter_mut().zip(hex::decode(order).unwrap()) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    hex::encode(bytes)
}

pub fn signer(seed: u8) -> CriticSigner {
    CriticSigner::from_seed(&[seed; 32])
}

/// A judgement, told apart by a name and a number.
pub fn judged(name: &str, iteration: u64) -> Assessment {
    Assessment {
        entry_id: format!("{name}-{iteration}-abcdef"),
        director_output_hash: text_hash(name.as_bytes()),
        critic_assessment_hash: text_hash(b"fine"),
        verdict: Verdict::Approved,
        dimension_scores: BTreeMap::from([("accuracy".to_owned(), 0.1), ("tone".to_owned(), 1.0)]),
        score: 0.7,
        critic_identity: Identity::Llm { model_id: "m".into() },
        timestamp: Timestamp::from_unix(1_790_000_000 + iteration as i64, 728_449_913).unwrap(),
        iteration,
    }
}
