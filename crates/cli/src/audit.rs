//! `countersign audit`: offline, with the public key and nothing else.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use countersign_audit::key::PublicKey;
use countersign_audit::verify::Report;
use countersign_store_sqlite::LogReader;

use crate::args::{Audit, Global};
use crate::config;
use crate::output::{Failure, Paint, say, say_json};

pub(crate) fn run(global: &Global, command: &Audit) -> Result<ExitCode, Failure> {
    let Audit::Verify { db, key } = command;
    let loaded = config::load(global)?;
    let database = db.clone().unwrap_or_else(|| loaded.database());
    let pinned = key.is_some();
    let key = public_key(key.as_deref(), &loaded.public_key())?;
    let mut reader = LogReader::open(&database).map_err(|error| Failure::of(&error))?;
    let bar = std::io::stderr().is_terminal() && !global.json;
    let report = reader
        .verify(&key, |done, total| {
            if bar && total > 20_000 {
                let percent = done * 100 / total.max(1);
                eprint!("\r{percent:>3} % of {total} records");
                let _ = std::io::stderr().flush();
                if done == total {
                    eprintln!();
                }
            }
        })
        .map_err(|error| Failure::of(&error))?;
    if global.json {
        say_json(&report);
    } else {
        tell(&database, &report, pinned);
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn public_key(given: Option<&str>, default: &Path) -> Result<PublicKey, Failure> {
    let parse = |text: &str, from: &str| {
        PublicKey::parse(text).map_err(|error| Failure::new(format!("{from}: {error}")))
    };
    match given {
        Some(text) if text.contains('+') && !Path::new(text).exists() => parse(text, "--key"),
        given => {
            let path = given.map_or(default, Path::new);
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::new(format!("{}: {error}", path.display()))
                    .hint("give the log's public key, or a file with it, with --key")
            })?;
            parse(&text, &path.display().to_string())
        }
    }
}

fn tell(database: &Path, report: &Report, pinned: bool) {
    let paint = Paint::stdout();
    let Report { records, checkpoints, covered, key, .. } = report;
    if report.ok {
        say(&paint.good("The log is whole."));
    } else {
        let n = report.finding_count;
        let noun = if n == 1 { "finding" } else { "findings" };
        say(&paint.bad(&format!("The log is damaged: {n} {noun}.")));
    }
    say(&format!("  database     {}", database.display()));
    say(&format!("  key          {key}"));
    say(&format!("  records      {records}, {covered} under a valid checkpoint"));
    say(&format!("  checkpoints  {checkpoints}"));
    if !pinned {
        say(&paint.dim(
            "  The key was read from beside the database; give --key with a copy you keep \
             elsewhere.",
        ));
    }
    for finding in &report.findings {
        let rule = serde_json::to_value(finding.rule).unwrap_or_default();
        let place = match (&finding.record_id, finding.seq) {
            (Some(id), seq) => format!("record {seq} ({id})"),
            (None, 0) => "database".to_owned(),
            (None, seq) => format!("at {seq}"),
        };
        let rule = rule.as_str().unwrap_or_default().to_owned();
        say(&format!("{} {place}: {}", paint.bad(&rule), finding.detail));
    }
    let more = report.finding_count - report.findings.len() as u64;
    if more > 0 {
        say(&format!("… and {more} more"));
    }
    say(&paint.dim(
        "  Checked: that nothing under the newest checkpoint was changed. A log cut back to an\n  \
         earlier checkpoint looks whole: compare with one you keep elsewhere. Not checked yet:\n  \
         that the rules were kept.",
    ));
}
