//! `countersign journal`: the story, for people.

use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Local};
use countersign_core::journal::{JournalRecord, TOOL_CALL_KEY};
use countersign_core::story::{call_status, tell};
use countersign_store_sqlite::{LogReader, Stored};
use serde_json::{Value, value::RawValue};

use crate::args::{Global, Journal};
use crate::config;
use crate::output::{Failure, Paint, say};

pub(crate) fn run(global: &Global, command: &Journal) -> Result<ExitCode, Failure> {
    let loaded = config::load(global)?;
    let database = loaded.database();
    let reader = LogReader::open(&database).map_err(|error| {
        Failure::of(&error).hint("`countersign serve` makes one; --state names another folder")
    })?;
    match command {
        Journal::Tail { lines, follow, call } => {
            tail(&reader, *lines, *follow, call.as_deref(), global.json)
        }
        Journal::Show { what } => show(&reader, what, global.json),
    }
}

fn records(
    reader: &LogReader,
    from: u64,
    limit: usize,
    call: Option<&str>,
) -> Result<Vec<Stored>, Failure> {
    reader.records(from, limit, call).map_err(|error| Failure::of(&error))
}

fn tail(
    reader: &LogReader,
    lines: usize,
    follow: bool,
    call: Option<&str>,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let head = reader.head().map_err(|error| Failure::of(&error))?;
    let wanted = u64::try_from(lines).unwrap_or(u64::MAX);
    let mut next = match call {
        None => (head + 1).saturating_sub(wanted).max(1),
        Some(_) => 1,
    };
    let mut found = records(reader, next, usize::MAX >> 1, call)?;
    if call.is_some() && found.len() > lines {
        found.drain(..found.len() - lines);
    }
    if found.is_empty() && !follow && lines > 0 {
        say(match call {
            Some(_) => "Nothing is recorded of this call.",
            None => "Nothing is recorded yet.",
        });
    }
    loop {
        for record in &found {
            next = record.seq + 1;
            line(record, as_json);
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_millis(200));
        found = records(reader, next, 1000, call)?;
    }
}

fn line(stored: &Stored, as_json: bool) {
    if as_json {
        say(&String::from_utf8_lossy(&stored.bytes));
        return;
    }
    let paint = Paint::stdout();
    let Ok(record) = serde_json::from_slice::<JournalRecord>(&stored.bytes) else {
        let text = format!("{:>6}  {} cannot be read as a record", stored.seq, stored.record_id);
        say(&paint.bad(&text));
        return;
    };
    let told = tell(&record);
    let title = match told.title {
        "Approved" | "Done" => paint.good(told.title),
        "Denied"
        | "Refused"
        | "Failed"
        | "Timed out"
        | "Access refused"
        | "Outcome unknown"
        | "Outcome unknown, needs a person" => paint.bad(told.title),
        "Approval requested" | "Put to the approvers" => paint.warn(told.title),
        other => paint.bold(other),
    };
    let about = match record.correlation(TOOL_CALL_KEY) {
        Some(call) => short("call.", call),
        None => short("run.", record.run_id.as_str()),
    };
    let mut text = format!(
        "{:>6}  {}  {}  {title}",
        stored.seq,
        paint.dim(&clock(record.timestamp_millis)),
        paint.dim(&format!("{about:13}")),
    );
    if let Some(actor) = &told.actor {
        text.push_str(&format!(" by {actor}"));
    }
    if !told.detail.is_empty() {
        text.push_str(&format!("  {}", told.detail));
    }
    say(&text);
}

fn short(prefix: &str, id: &str) -> String {
    let rest = id.strip_prefix(prefix).unwrap_or(id);
    let kind = prefix.trim_end_matches('.');
    // The beginning of an id is the time; the end tells one from another.
    let tail = rest.len().saturating_sub(8);
    format!("{kind} {}", rest.get(tail..).unwrap_or(rest))
}

fn clock(millis: u64) -> String {
    i64::try_from(millis)
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .map(|time| time.with_timezone(&Local).format("%m-%d %H:%M:%S%.3f").to_string())
        .unwrap_or_else(|| millis.to_string())
}

fn show(reader: &LogReader, what: &str, as_json: bool) -> Result<ExitCode, Failure> {
    if let Ok(seq) = what.parse::<u64>() {
        let found = records(reader, seq, 1, None)?;
        let Some(stored) = found.first().filter(|stored| stored.seq == seq) else {
            return Err(Failure::new(format!("there is no record {seq}")));
        };
        let pretty = serde_json::from_slice::<Value>(&stored.bytes)
            .and_then(|value| serde_json::to_string_pretty(&value));
        let text = String::from_utf8_lossy(&stored.bytes);
        say(&if as_json { text.into_owned() } else { pretty.unwrap_or(text.into_owned()) });
        return Ok(ExitCode::SUCCESS);
    }
    let found = records(reader, 1, usize::MAX >> 1, Some(what))?;
    if found.is_empty() {
        return Err(Failure::new(format!("there is no call `{what}`"))
            .hint("a call's id begins with `call.`; `countersign journal tail --json` has them"));
    }
    if as_json {
        let raw: Vec<&RawValue> =
            found.iter().filter_map(|stored| serde_json::from_slice(&stored.bytes).ok()).collect();
        crate::output::say_json(&raw);
        return Ok(ExitCode::SUCCESS);
    }
    let parsed: Vec<JournalRecord> =
        found.iter().filter_map(|stored| serde_json::from_slice(&stored.bytes).ok()).collect();
    let status = call_status(&parsed).map_or("nothing known", |status| status.as_str());
    say(&format!("{}  {status}", Paint::stdout().bold(what)));
    found.iter().for_each(|stored| line(stored, false));
    Ok(ExitCode::SUCCESS)
}
