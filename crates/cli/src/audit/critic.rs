//! `countersign audit critic`: chains of verdicts, from files, with a public key.

use std::borrow::Cow;
use std::path::Path;
use std::process::ExitCode;

use countersign_audit::critic::successor::Tail;
use countersign_audit::critic::{
    CriticKey, CriticReport, Document, Format, Pins, Unusable, text_hash,
};
use countersign_server::CRITIC_VERDICT;
use countersign_store_sqlite::{LogReader, ProofError};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, json};

use super::read;
use super::verify::{Kind, kind};
use crate::args::{Critic, CriticExport, CriticFormat, CriticMatch, CriticVerify, Global};
use crate::config;
use crate::output::{Failure, Paint, say, say_json};
use crate::state;
use crate::system::OsEntropy;

pub(super) fn run(global: &Global, command: &Critic) -> Result<ExitCode, Failure> {
    match command {
        Critic::Verify(args) => verify(global, args),
        Critic::Match(args) => match_texts(global, args),
        Critic::Export(args) => export(global, args),
        Critic::Rotate => rotate(global),
    }
}

/// A record, as far as it matters here.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    entry: Option<&'a RawValue>,
}

/// The chain whose entries stand in the records of a log, each as it is spelled there.
#[derive(Default)]
struct Gathered {
    entries: Vec<String>,
}

impl Gathered {
    fn take(&mut self, seq: u64, record: &[u8]) -> Result<(), Failure> {
        let none = |error: serde_json::Error| {
            Failure::new(format!("record {seq} cannot be read: {error}"))
                .hint("`countersign audit verify` says more")
        };
        let line: Line<'_> = serde_json::from_slice(record).map_err(none)?;
        let payload: Payload<'_> = serde_json::from_str(line.payload.get()).map_err(none)?;
        if payload.kind == CRITIC_VERDICT {
            let missing = || Failure::new(format!("record {seq} has no verdict in it"));
            self.entries.push(payload.entry.ok_or_else(missing)?.get().to_owned());
        }
        Ok(())
    }

    fn from_database(path: &Path) -> Result<Self, Failure> {
        enum Stop {
            Read(ProofError),
            Record(Failure),
        }
        impl From<ProofError> for Stop {
            fn from(error: ProofError) -> Self {
                Self::Read(error)
            }
        }
        let reader = LogReader::open(path).map_err(|error| Failure::of(&error))?;
        let mut gathered = Self::default();
        let walked =
            reader.walk::<Stop>(1, |seq, bytes, _| gathered.take(seq, bytes).map_err(Stop::Record));
        match walked {
            Ok(_) => Ok(gathered),
            Err(Stop::Read(error)) => Err(Failure::of(&error)),
            Err(Stop::Record(failure)) => Err(failure),
        }
    }

    fn from_bundle(bytes: &[u8]) -> Result<Self, Failure> {
        let mut gathered = Self::default();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let records = lines.filter(|line| !line.starts_with(BUNDLE));
        for (seq, record) in (1..).zip(records) {
            gathered.take(seq, record)?;
        }
        Ok(gathered)
    }

    fn text(&self) -> String {
        let format = Format::Countersign1.as_str();
        format!("{{\"format\":\"{format}\",\"entries\":[{}]}}", self.entries.join(",\n"))
    }
}

const BUNDLE: &[u8] = b"{\"bundle_";

/// The chain in a file of whichever kind, as JSON.
fn chain(path: &Path) -> Result<Vec<u8>, Failure> {
    // A pipe can be read once.
    let file = path != Path::new("-") && std::fs::metadata(path).is_ok_and(|data| data.is_file());
    if file && matches!(kind(path)?, Kind::Database) {
        return Ok(Gathered::from_database(path)?.text().into_bytes());
    }
    let bytes = read(path)?;
    match bytes.starts_with(BUNDLE) {
        true => Ok(Gathered::from_bundle(&bytes)?.text().into_bytes()),
        false => Ok(bytes),
    }
}

fn export(global: &Global, args: &CriticExport) -> Result<ExitCode, Failure> {
    let path = match &args.file {
        Some(path) => path.clone(),
        None => super::database(global, &args.log)?,
    };
    let gathered = match kind(&path)? {
        Kind::Database => Gathered::from_database(&path)?,
        Kind::Bundle => Gathered::from_bundle(&read(&path)?)?,
        Kind::Receipt => {
            let text = format!("{}: neither a database nor a bundle", path.display());
            return Err(Failure::new(text));
        }
    };
    let write = |path: &Path, text: &str| {
        std::fs::write(path, format!("{text}\n"))
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
    };
    if let Some(at) = &args.anchor {
        let empty = || Failure::new("there are no verdicts, and so nothing to anchor");
        let last = gathered.entries.last().ok_or_else(empty)?;
        let last = serde_json::from_str(last).map_err(|error| Failure::of(&error))?;
        let key = state::read_critic_key(&config::load(global)?.state.join(state::CRITIC_KEY))?;
        let anchor = Tail::after(&last).and_then(|tail| tail.anchor(&key));
        let anchor = anchor.map_err(|error| Failure::of(&error))?;
        let text = serde_json::to_string(&anchor).map_err(|error| Failure::of(&error))?;
        write(at, &text)?;
    }
    match &args.out {
        None => say(&gathered.text()),
        Some(path) => write(path, &gathered.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn rotate(global: &Global) -> Result<ExitCode, Failure> {
    let loaded = config::load(global)?;
    let next = loaded.state.join(state::NEXT_CRITIC_KEY);
    if !loaded.state.join(state::CRITIC_KEY).exists() {
        return Err(Failure::new("there is no critic.key yet: `countersign serve` makes one"));
    }
    if !next.exists() {
        state::write_critic_key(&next, &OsEntropy)?;
    }
    let public = state::read_critic_key(&next)?.public().to_string();
    if global.json {
        say_json(&json!({ "next_key": public }));
    } else {
        say(&public);
        let note = "The gateway hands over to this key at its next start. critic.pub stays: it is \
                    the key of the first entry.";
        say(&Paint::stdout().dim(note));
    }
    Ok(ExitCode::SUCCESS)
}

fn key(given: &str) -> Result<CriticKey, Failure> {
    let text = match given.strip_prefix('@') {
        None => given.to_owned(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("{path}: {error}")))?,
    };
    CriticKey::parse(&text).map_err(|error| Failure::new(format!("--key: {error}")))
}

/// Says that a file is no chain; machines get it on standard output as well.
fn unusable(global: &Global, path: &Path, error: &Unusable) -> Failure {
    if global.json {
        let index = match error {
            Unusable::Entry { index, .. } => Some(index),
            _ => None,
        };
        say_json(&json!({ "ok": false, "unusable": error.to_string(), "index": index }));
    }
    Failure::new(format!("{}: {error}", path.display()))
}

fn document(
    global: &Global,
    path: &Path,
    format: Option<CriticFormat>,
) -> Result<Document, Failure> {
    let format = format.map(|format| match format {
        CriticFormat::Symbi1 => Format::Symbi1,
        CriticFormat::Countersign1 => Format::Countersign1,
    });
    Document::parse(&chain(path)?, format).map_err(|error| unusable(global, path, &error))
}

fn verify(global: &Global, args: &CriticVerify) -> Result<ExitCode, Failure> {
    let key = key(&args.key)?;
    let anchor = match &args.anchor {
        None => None,
        Some(path) => Some(
            Document::parse_anchor(&read(path)?).map_err(|error| unusable(global, path, &error))?,
        ),
    };
    let pins = Pins { chain_id: args.chain_id.clone(), anchor };
    let document = document(global, &args.file, args.format)?;
    let report =
        document.verify(&key, &pins).map_err(|error| unusable(global, &args.file, &error))?;
    if global.json {
        say_json(&report);
    } else {
        tell(&report);
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn tell(report: &CriticReport) {
    let paint = Paint::stdout();
    let CriticReport { entries, key, format, .. } = report;
    match &report.first {
        None => say(&paint.good("The chain is whole.")),
        Some(first) => {
            let text = format!("The chain is broken at entry {}.", first.index);
            say(&paint.bad(&text));
        }
    }
    say(&format!("  format   {}", format.as_str()));
    say(&format!("  key      {key}"));
    say(&format!("  entries  {entries}"));
    for finding in &report.findings {
        let head = format!("{} at entry {}", finding.rule.as_str(), finding.index);
        say(&paint.bad(&head));
        say(&format!("  expected  {}", finding.expected));
        say(&format!("  found     {}", finding.found));
        if let Some(detail) = &finding.detail {
            say(&format!("  {detail}"));
        }
    }
    let more = report.finding_count - report.findings.len() as u64;
    if more > 0 {
        say(&format!("… and {more} more"));
    }
    if !report.not_covered.is_empty() {
        say(&paint.dim("  Could have been changed unnoticed:"));
        report.not_covered.iter().for_each(|open| say(&paint.dim(&format!("  - {open}"))));
    }
}

fn match_texts(global: &Global, args: &CriticMatch) -> Result<ExitCode, Failure> {
    let document = document(global, &args.file, args.format)?;
    let Some((director, critic)) = document.hashes(args.index) else {
        let has = document.len();
        return Err(Failure::new(format!("there is no verdict {} among {has}", args.index)));
    };
    let mut report = Map::new();
    report.insert("index".to_owned(), args.index.into());
    let mut ok = true;
    let mut lines = Vec::new();
    if let Some(given) = &args.key {
        let verified = document.verify(&key(given)?, &Pins::default());
        let verified = verified.map_err(|error| unusable(global, &args.file, &error))?;
        ok &= verified.ok;
        report.insert("chain_whole".to_owned(), verified.ok.into());
        lines.push(("chain", verified.ok, "held against the key".to_owned()));
    }
    for (name, path, expected) in
        [("director", &args.director, director), ("critic", &args.critic, critic)]
    {
        let Some(path) = path else { continue };
        let bytes = read(path)?;
        let found = text_hash(&bytes);
        let same = found == expected;
        ok &= same;
        let told = json!({ "matches": same, "expected": expected, "found": found });
        report.insert(name.to_owned(), told);
        let mut line = format!("expected {expected}, found {found}");
        let without = bytes.strip_suffix(b"\n").map(text_hash);
        if !same && without.as_deref() == Some(expected) {
            line.push_str("; without the newline at its end it would match");
        }
        lines.push((name, same, line));
    }
    report.insert("ok".to_owned(), ok.into());
    if global.json {
        say_json(&report);
    } else {
        let paint = Paint::stdout();
        for (name, good, line) in lines {
            let word = if good { paint.good("fits") } else { paint.bad("does not fit") };
            say(&format!("{name}  {word}  {line}"));
        }
        if args.key.is_none() {
            say(&paint.dim("  The chain itself was not verified; give --key for that."));
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
