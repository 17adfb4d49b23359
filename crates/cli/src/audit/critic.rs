//! `countersign audit critic`: chains of verdicts, from files, with a public key.

use std::path::Path;
use std::process::ExitCode;

use countersign_audit::critic::{
    CriticKey, CriticReport, Document, Format, Pins, Unusable, text_hash,
};
use serde_json::{Map, json};

use super::read;
use crate::args::{Critic, CriticFormat, CriticMatch, CriticVerify, Global};
use crate::output::{Failure, Paint, say, say_json};

pub(super) fn run(global: &Global, command: &Critic) -> Result<ExitCode, Failure> {
    match command {
        Critic::Verify(args) => verify(global, args),
        Critic::Match(args) => match_texts(global, args),
    }
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
    Document::parse(&read(path)?, format).map_err(|error| unusable(global, path, &error))
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
