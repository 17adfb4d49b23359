//! Every form on the wire is in a fixture. The forms come from the types, by rustdoc; what the
//! fixtures hold comes from serde, by reading them and watching how they are written again.

use super::api::Library;
use super::observe::{Observations, Seen};
use super::types::{self, Variants, WireType};
use super::{Report, published};
use crate::{Outcome, fixtures, terminal};
use countersign_audit::receipt::Receipt;
use countersign_core::approval::{
    ApprovalDecision, ApprovalGrant, ApprovalOutcome, ApprovalRecord, ApprovalRequest,
};
use countersign_core::effect::{EffectIntent, EffectResult};
use countersign_core::error::AgentError;
use countersign_core::hold::{Approver, Decision, HeldAction};
use countersign_core::hook::{HookInput, HookRecord, HookResponse, HookSpec};
use countersign_core::id::JournalCursor;
use countersign_core::journal::JournalRecord;
use countersign_core::plan::Plan;
use countersign_core::story::{call_status, tell};
use countersign_core::tool::ToolCallRecord;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::path::Path;

/// Libraries of which every wire type must be in a fixture.
const LIBRARIES: &[&str] = &["countersign-core"];

/// Reads one JSON document of a fixture and shows it to serde.
type Reader = fn(&str, &mut Observations) -> serde_json::Result<()>;

/// Types a fixture can be named after, in its file or in the folder above its version:
/// `hook/v1/hook-specs.json` and `hook_spec/v1/blocking.json` are both read as `HookSpec`.
fn types_by_name() -> Vec<(&'static str, Reader)> {
    macro_rules! types {
        ($($name:ident),* $(,)?) => { vec![$((stringify!($name), read::<$name>)),*] };
    }
    let mut types: Vec<(&'static str, Reader)> = types![
        AgentError,
        ApprovalDecision,
        ApprovalGrant,
        ApprovalOutcome,
        ApprovalRecord,
        ApprovalRequest,
        Approver,
        Decision,
        EffectIntent,
        EffectResult,
        HeldAction,
        HookInput,
        HookRecord,
        HookResponse,
        HookSpec,
        Plan,
        Receipt,
        ToolCallRecord,
    ];
    types.push(("JournalRecord", record));
    types
}

/// Fixtures with other names, by the start of their path below `fixtures/`.
const BY_PATH: &[(&str, Reader)] = &[
    ("records/v1/journal-", record),
    // Words, tables and hashes, apart from any record.
    ("records/v1/words.json", nothing),
    ("words/", nothing),
    ("ids/v1/journal-cursor.json", read::<JournalCursor>),
    ("types/", nothing),
    // Logs and chains, read by the verifier's own tests.
    ("audit/attacks/", nothing),
    ("audit/critic/", nothing),
    ("manifest/", nothing),
    ("hooks/v1/matrix.json", nothing),
    ("hooks/v1/spec-hashes.json", nothing),
    // Of another schema, read by the test of the export.
    ("ocsf/", nothing),
];

/// How the fixture at this path below `fixtures/` is read.
fn reader(path: &str) -> Option<Reader> {
    if let Some((_, reader)) = BY_PATH.iter().find(|(start, _)| path.starts_with(start)) {
        return Some(*reader);
    }
    if path.ends_with(".ndjson") {
        return Some(case);
    }
    let (folders, file) = path.rsplit_once('/')?;
    let (family, _) = folders.split_once('/')?;
    let stem = file.split('.').next().unwrap_or(file);
    named(stem).or_else(|| named(family))
}

/// The reader of a type, however its name is spelled.
fn named(text: &str) -> Option<Reader> {
    let letters = |text: &str| {
        let text: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
        text.to_lowercase()
    };
    let text = letters(text);
    let singular = text.strip_suffix('s').unwrap_or(&text);
    let mut types = types_by_name().into_iter();
    types
        .find(|(name, _)| [text.as_str(), singular].contains(&letters(name).as_str()))
        .map(|(_, reader)| reader)
}

fn read<T: DeserializeOwned + Serialize>(
    document: &str,
    seen: &mut Observations,
) -> serde_json::Result<()> {
    seen.observe(&serde_json::from_str::<T>(document)?).map(drop)
}

/// Reads a journal record, and what people are told of it.
fn record(document: &str, seen: &mut Observations) -> serde_json::Result<()> {
    let record: JournalRecord = serde_json::from_str(document)?;
    seen.observe(&record)?;
    seen.observe(&tell(&record))?;
    seen.observe(&call_status([&record])).map(drop)
}

/// A fixture that says by itself what it is, and whether it is to be read.
#[derive(serde::Deserialize)]
struct Case<'a> {
    #[serde(rename = "type")]
    of: &'a str,
    #[serde(borrow)]
    input: &'a RawValue,
    expect: serde_json::Value,
}

/// Reads a case that is to be accepted; one that is to be refused is for the tests.
fn case(document: &str, seen: &mut Observations) -> serde_json::Result<()> {
    let case: Case<'_> = serde_json::from_str(document)?;
    if case.expect.get("error").is_some() {
        return Ok(());
    }
    // A text holds a document that is not written as the contract writes it.
    let text: Cow<'_, str> = match case.input.get() {
        quoted if quoted.starts_with('"') => serde_json::from_str(quoted).map(Cow::Owned)?,
        document => Cow::Borrowed(document),
    };
    match named(case.of) {
        Some(reader) => reader(&text, seen),
        None => Err(serde::de::Error::custom(format!("`{}` is no type of the contract", case.of))),
    }
}

fn nothing(_: &str, _: &mut Observations) -> serde_json::Result<()> {
    Ok(())
}

pub(super) fn check(root: &Path, libraries: &[Library]) -> Outcome<Report> {
    let mut types = Vec::new();
    for name in LIBRARIES {
        let library = libraries.iter().find(|library| library.name == *name);
        let found = library
            .map(|library| types::of(&library.described, &library.names))
            .unwrap_or_default();
        if found.is_empty() {
            return Err(format!("contract: rustdoc shows no wire types of {name}").into());
        }
        types.extend(found);
    }
    let mut seen = Observations::default();
    let mut problems = Vec::new();
    let mut documents = 0;
    let mut files = fixtures::Files::new();
    fixtures::read_below(&root.join("fixtures"), "", &mut files)?;
    for (path, bytes) in &files {
        let is_json = [".json", ".jsonl", ".ndjson"].iter().any(|end| path.ends_with(end));
        if !is_json || !published::is_versioned(path) {
            continue;
        }
        let Some(reader) = reader(path) else {
            problems.push(format!(
                "fixtures/{path}: nothing says which type this is; name its file or its folder \
                 after the type, or add it to BY_PATH in xtask/src/contract/coverage.rs"
            ));
            continue;
        };
        match read_file(bytes, reader, &mut seen) {
            Ok(number) => documents += number,
            Err(error) => problems.push(format!("fixtures/{path}: {error}")),
        }
    }
    let missing = missing(&types, &seen);
    let forms = count(&types);
    let documents = terminal::count(documents, "document");
    let summary = if missing.is_empty() {
        format!("{forms}, each in one of {documents}")
    } else {
        format!("{forms}, {} of them in none of {documents}", missing.len())
    };
    problems.extend(missing);
    Ok(Report { summary, problems })
}

/// Reads every document of a file, and gives their number.
fn read_file(bytes: &[u8], reader: Reader, seen: &mut Observations) -> Result<usize, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    let (mut number, mut start) = (0, 0);
    while let Some(value) = values.next() {
        number += 1;
        let end = values.byte_offset();
        let document = text.get(start..end).unwrap_or_default();
        value
            .and_then(|_| reader(document, seen))
            .map_err(|error| format!("document {number} is not read: {error}"))?;
        start = end;
    }
    Ok(number)
}

/// `61 record types and 240 variants of 31 enums`
fn count(types: &[WireType]) -> String {
    let enums: Vec<&Variants> = types.iter().filter_map(|of| of.variants.as_ref()).collect();
    format!(
        "{} and {} of {}",
        terminal::count(types.len() - enums.len(), "record type"),
        terminal::count(enums.iter().map(|of| of.list.len()).sum(), "variant"),
        terminal::count(enums.len(), "enum"),
    )
}

/// One line for each form that was not seen.
fn missing(types: &[WireType], seen: &Observations) -> Vec<String> {
    let mut lines = Vec::new();
    for of in types {
        let unique = types.iter().filter(|other| other.name() == of.name()).count() == 1;
        let judge = Judge { of, unique, all: types };
        let shown = of.public.strip_prefix("countersign_").unwrap_or(&of.public);
        match &of.variants {
            None if seen.0.iter().any(|seen| judge.is_record(seen)) => {}
            None => lines.push(format!("{shown} appears in no fixture")),
            Some(variants) => {
                let found: Vec<usize> =
                    seen.0.iter().filter_map(|seen| judge.variant(variants, seen)).collect();
                for variant in variants.list.iter().filter(|each| !found.contains(&each.index)) {
                    lines.push(format!("{shown}::{} appears in no fixture", variant.name));
                }
            }
        }
    }
    lines
}

/// Decides whether what serde was told is about one type.
struct Judge<'a> {
    of: &'a WireType,
    /// No other wire type has this name, so that the name alone says which type is meant.
    unique: bool,
    all: &'a [WireType],
}

impl Judge<'_> {
    /// A path as Rust gives it. It names the module where the type is written, which may be
    /// private and another than the one it is known under.
    fn is_within(&self, path: &str) -> bool {
        path == self.of.path
            || (self.unique
                && path.split("::").next() == Some(self.of.library())
                && path.rsplit("::").next() == Some(self.of.name()))
    }

    /// What serde was told, which is a name without a path.
    fn is_named(&self, within: &str, name: &str) -> bool {
        name == self.of.name() && (self.unique || self.is_within(within))
    }

    fn is_record(&self, seen: &Seen) -> bool {
        match seen {
            Seen::Type { within } => self.is_within(within),
            Seen::Object { within, name, .. } => self.is_named(within, name),
            _ => false,
        }
    }

    /// The place in the enum of the variant that was written.
    fn variant(&self, variants: &Variants, seen: &Seen) -> Option<usize> {
        let by_word = |word: &str| variants.list.iter().find(|each| each.says(word));
        let only = |fits: &dyn Fn(&str) -> bool| {
            let mut fitting =
                variants.list.iter().filter(|each| each.payload.as_deref().is_some_and(fits));
            fitting.next().filter(|_| fitting.next().is_none())
        };
        // A variant that gives its place to what it holds. What has no name of its own on the
        // wire, such as an object that is kept whole, is held in a type without one.
        let by_payload = |name: &str| {
            let is_known = |name: &str| self.all.iter().any(|of| of.name() == name);
            only(&|payload| payload == name)
                .or_else(|| if is_known(name) { None } else { only(&|name| !is_known(name)) })
        };
        // Without an attribute that names the tag, the type writes itself by hand, and begins
        // with its tag if it has one.
        let by_tag = |words: &[(String, String)]| match &variants.tag {
            Some(tag) => words.iter().find(|(key, _)| key == tag).and_then(|(_, w)| by_word(w)),
            None if variants.untagged => None,
            None => words.first().and_then(|(_, word)| by_word(word)),
        };
        let found = match seen {
            Seen::Variant { within, name, index, word } if self.is_named(within, name) => {
                let place = usize::try_from(*index).ok()?;
                by_word(word).or_else(|| variants.list.iter().find(|each| each.index == place))
            }
            Seen::Object { within, name, words }
                if self.is_within(within) || self.is_named(within, name) =>
            {
                by_tag(words).or_else(|| by_payload(name))
            }
            Seen::Map { within, words } if self.is_within(within) => {
                by_tag(words).or_else(|| by_payload(""))
            }
            // A text that is none of the words is what an untagged enum holds in a `String`.
            Seen::Text { within, text } if self.is_within(within) => {
                by_word(text).or_else(|| only(&|payload| variants.untagged && payload == "String"))
            }
            _ => None,
        };
        found.map(|variant| variant.index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::Variant;
    use super::*;
    use serde::{Deserialize, Serializer};
    use serde_json::value::RawValue;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        FirstOne,
        Second,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(tag = "mode", rename_all = "snake_case")]
    enum Mode {
        NonBlocking { word: String },
        Blocking,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Effect {
        Run(Command),
    }

    #[derive(Serialize, Deserialize)]
    struct Command {
        word: Option<Word>,
    }

    /// Its words have nothing to do with the names of its variants.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Renamed {
        Left,
        Right,
    }

    impl Serialize for Renamed {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::Left => to.serialize_unit_variant("Renamed", 0, "port"),
                Self::Right => to.serialize_unit_variant("Renamed", 1, "starboard"),
            }
        }
    }

    /// Known by its word, or kept whole: as the payload of a journal record.
    enum Payload {
        Plan(Command),
        Other(Box<RawValue>),
    }

    impl Serialize for Payload {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::Plan(command) => command.serialize(to),
                Self::Other(json) => json.serialize(to),
            }
        }
    }

    fn wire(name: &str, variants: Option<(Option<&str>, bool, &[Variant])>) -> WireType {
        let variants = variants.map(|(tag, untagged, list)| Variants {
            tag: tag.map(str::to_owned),
            untagged,
            list: list.to_vec(),
        });
        let path = format!("{}::{name}", module_path!());
        WireType { public: path.clone(), path, variants }
    }

    fn variant(index: usize, name: &str, payload: Option<&str>) -> Variant {
        Variant::new(name, index, payload)
    }

    fn types() -> Vec<WireType> {
        let unit = |names: [&str; 2]| [variant(0, names[0], None), variant(1, names[1], None)];
        vec![
            wire("Command", None),
            wire("Mode", Some((Some("mode"), false, &unit(["NonBlocking", "Blocking"])))),
            wire("Effect", Some((None, true, &[variant(0, "Run", Some("Command"))]))),
            wire(
                "Payload",
                Some((
                    None,
                    false,
                    &[variant(0, "Plan", Some("Command")), variant(1, "Other", Some("RawValue"))],
                )),
            ),
            wire("Renamed", Some((None, false, &unit(["Left", "Right"])))),
            wire("Word", Some((None, false, &unit(["FirstOne", "Second"])))),
        ]
    }

    const ALL: [&str; 10] = [
        "Command",
        "Mode::NonBlocking",
        "Mode::Blocking",
        "Effect::Run",
        "Payload::Plan",
        "Payload::Other",
        "Renamed::Left",
        "Renamed::Right",
        "Word::FirstOne",
        "Word::Second",
    ];

    /// All forms are missing but those in `covered`.
    #[track_caller]
    fn check<T: Serialize>(value: &T, covered: &[&str]) {
        let mut seen = Observations::default();
        seen.observe(value).unwrap();
        let expected: Vec<String> = ALL
            .iter()
            .filter(|name| !covered.contains(name))
            .map(|name| format!("{}::{name} appears in no fixture", module_path!()))
            .collect();
        assert_eq!(missing(&types(), &seen), expected);
    }

    #[test]
    fn what_was_not_written_is_missing() {
        check(&(), &[]);
        check(&Word::FirstOne, &["Word::FirstOne"]);
        check(&[Word::FirstOne, Word::Second], &["Word::FirstOne", "Word::Second"]);
        check(&Mode::Blocking, &["Mode::Blocking"]);
        // A word that stands anywhere but in the tag says nothing.
        let word = || "blocking".to_owned();
        check(&Mode::NonBlocking { word: word() }, &["Mode::NonBlocking"]);
        check(&Renamed::Right, &["Renamed::Right"]);
        check(&Command { word: None }, &["Command"]);
        check(
            &Effect::Run(Command { word: Some(Word::Second) }),
            &["Command", "Effect::Run", "Word::Second"],
        );
        check(&Payload::Plan(Command { word: None }), &["Command", "Payload::Plan"]);
        let whole = RawValue::from_string("{\"type\":\"command\"}".to_owned()).unwrap();
        check(&Payload::Other(whole), &["Payload::Other"]);
    }

    #[test]
    fn a_line_names_the_form_as_people_do() {
        let path = "countersign_core::hook::point::HookPoint".to_owned();
        let public = "countersign_core::hook::HookPoint".to_owned();
        let list = vec![variant(0, "OnModelDelta", None)];
        let of = WireType {
            path,
            public,
            variants: Some(Variants { tag: None, untagged: false, list }),
        };
        assert_eq!(
            missing(&[of], &Observations::default()),
            ["core::hook::HookPoint::OnModelDelta appears in no fixture"]
        );
    }

    #[test]
    fn types_of_one_name_are_told_apart_by_their_paths() {
        let here = wire("Command", None);
        let mut there = wire("Command", None);
        there.path = "elsewhere::Command".to_owned();
        there.public = there.path.clone();
        let mut seen = Observations::default();
        seen.observe(&Command { word: None }).unwrap();
        assert_eq!(missing(&[here, there], &seen), ["elsewhere::Command appears in no fixture"]);
    }

    #[test]
    fn a_fixture_is_named_after_its_type() {
        let hook_spec = "{\"hook_id\":7}";
        for (path, expected) in [
            (
                "hook/v1/hook-specs.json",
                Some("invalid type: integer `7`, expected the text of a Ho"),
            ),
            (
                "hook_spec/v1/blocking.json",
                Some("invalid type: integer `7`, expected the text of "),
            ),
            ("hook_specs/v1/decision.json", Some("missing field `decision`")),
            ("records/v1/journal-a.json", Some("missing field `journal_schema_version`")),
            ("other/v1/other.json", None),
        ] {
            let found = reader(path)
                .map(|read| read(hook_spec, &mut Observations::default()).unwrap_err().to_string());
            match (found, expected) {
                (Some(found), Some(start)) => assert!(found.starts_with(start), "{path}: {found}"),
                (found, expected) => assert_eq!(found.as_deref(), expected, "{path}"),
            }
        }
    }

    #[test]
    fn files_hold_one_document_or_many() {
        for (text, expected) in [
            ("{\"word\":\"second\"}\n{\"word\":null}\n", Ok(2)),
            ("{\n  \"word\": \"first_one\"\n}\n", Ok(1)),
            ("", Ok(0)),
            ("{\"word\":null}\n{\"word\":\"third\"}\n", Err("document 2 is not read: ")),
            ("{\"word\":null}\n{\"word\"", Err("document 2 is not read: ")),
        ] {
            let found = read_file(text.as_bytes(), read::<Command>, &mut Observations::default());
            match expected {
                Ok(number) => assert_eq!(found, Ok(number), "{text}"),
                Err(start) => assert!(found.unwrap_err().starts_with(start), "{text}"),
            }
        }
    }
}
