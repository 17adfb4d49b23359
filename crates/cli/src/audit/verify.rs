//! `countersign audit verify`: databases, bundles and receipts.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::PublicKey;
use countersign_audit::receipt::Receipt;
use countersign_audit::verify::{BundleError, Options, Report, Verifier, verify_bundle};
use countersign_store_sqlite::LogReader;
use serde_json::json;

use crate::args::{AuditVerify, Global};
use crate::output::{Failure, Paint, say, say_json};

/// What a file is, told by its first bytes.
pub(super) enum Kind {
    Database,
    Bundle,
    Receipt,
}

pub(super) fn kind(path: &Path) -> Result<Kind, Failure> {
    let mut start = [0; 16];
    let mut file =
        File::open(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let mut read = 0;
    while let Some(room) = start.get_mut(read..).filter(|room| !room.is_empty()) {
        match file.read(room) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) => return Err(Failure::new(format!("{}: {error}", path.display()))),
        }
    }
    Ok(match start.get(..read).unwrap_or_default() {
        start if start.starts_with(b"SQLite format 3") => Kind::Database,
        start if start.starts_with(b"{\"bundle_") => Kind::Bundle,
        _ => Kind::Receipt,
    })
}

pub(super) fn run(global: &Global, args: &AuditVerify) -> Result<ExitCode, Failure> {
    let key = super::public_key(global, args.key.as_deref())?;
    let mut checkpoints = Vec::new();
    for path in &args.checkpoint {
        let note = String::from_utf8(super::read(path)?)
            .map_err(|_| Failure::new(format!("{}: not a text", path.display())))?;
        let checkpoint = Checkpoint::open(&note, &key)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        checkpoints.push(checkpoint);
    }
    let (path, what) = match &args.file {
        Some(path) => (path.clone(), kind(path)?),
        None => (super::database(global, &args.log)?, Kind::Database),
    };
    let report = match what {
        Kind::Receipt => return receipt(global, &path, &key),
        Kind::Bundle => {
            let options =
                Options { threads: args.threads, meaning: !args.integrity_only, checkpoints };
            bundle(global, &path, &key, &options)?
        }
        Kind::Database => live(global, &path, &key, args.integrity_only, checkpoints)?,
    };
    if global.json {
        say_json(&report);
    } else {
        tell(&path, &report, args.key.is_some());
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// A line on a terminal that says how far a long work has come.
struct Bar {
    shown: bool,
    unit: &'static str,
    last: Mutex<Instant>,
}

impl Bar {
    fn new(global: &Global, unit: &'static str) -> Self {
        let shown = std::io::stderr().is_terminal() && !global.json;
        Self { shown, unit, last: Mutex::new(Instant::now()) }
    }

    fn show(&self, done: u64, total: u64) {
        let Some(mut last) = self.last.try_lock().ok().filter(|_| self.shown) else { return };
        if last.elapsed() < Duration::from_millis(100) {
            return;
        }
        *last = Instant::now();
        let percent = done.min(total) * 100 / total.max(1);
        let filled = "#".repeat(usize::try_from(percent / 4).unwrap_or_default());
        eprint!("\r[{filled:<25}] {percent:>3} % of {total} {}", self.unit);
        let _ = std::io::stderr().flush();
    }

    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

fn live(
    global: &Global,
    path: &Path,
    key: &PublicKey,
    integrity_only: bool,
    checkpoints: Vec<Checkpoint>,
) -> Result<Report, Failure> {
    let mut reader = LogReader::open(path).map_err(|error| Failure::of(&error))?;
    let mut verifier = Verifier::new(key);
    if !integrity_only {
        verifier = verifier.with_meaning();
    }
    verifier = checkpoints.into_iter().fold(verifier, Verifier::with_checkpoint);
    let bar = Bar::new(global, "records");
    let report = reader.verify_by(verifier, |done, total| bar.show(done, total));
    bar.clear();
    report.map_err(|error| Failure::of(&error))
}

fn bundle(
    global: &Global,
    path: &Path,
    key: &PublicKey,
    options: &Options,
) -> Result<Report, Failure> {
    let cannot = |error: BundleError| {
        let failure = Failure::of(&error);
        Failure::new(format!("{}: {}", path.display(), failure.message))
    };
    let file = File::open(path).map_err(|error| cannot(error.into()))?;
    let total = file.metadata().map(|data| data.len()).unwrap_or_default();
    let bar = Bar::new(global, "bytes");
    let report = verify_bundle(file, key, options, |done| bar.show(done, total));
    bar.clear();
    report.map_err(cannot)
}

fn receipt(global: &Global, path: &Path, key: &PublicKey) -> Result<ExitCode, Failure> {
    let receipt = Receipt::parse(&super::read(path)?).map_err(|error| {
        Failure::new(format!(
            "{}: neither a database, a bundle nor a receipt: {error}",
            path.display()
        ))
    })?;
    let refused = receipt.verify_record(key).err();
    let refused = refused.map(|error| (error.rule(), Failure::of(&error).message));
    if global.json {
        let (rule, detail) = refused.clone().unzip();
        say_json(&json!({
            "ok": refused.is_none(), "seq": receipt.seq, "key": key.to_string(),
            "rule": rule, "detail": detail,
        }));
    } else {
        let paint = Paint::stdout();
        match &refused {
            None => {
                say(&paint.good(&format!("Record {} is in the log.", receipt.seq)));
                say(&format!("  key  {key}"));
                say(&paint.dim("  A receipt says nothing of the records around it."));
            }
            Some((rule, detail)) => {
                say(&paint.bad("The receipt proves nothing."));
                say(&format!("{} {detail}", paint.bad(rule)));
            }
        }
    }
    Ok(if refused.is_none() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn tell(path: &Path, report: &Report, pinned: bool) {
    let paint = Paint::stdout();
    let Report { records, checkpoints, covered, key, .. } = report;
    if report.integrity_ok {
        say(&paint.good("The log is whole."));
    } else {
        let n = report.finding_count;
        let noun = if n == 1 { "finding" } else { "findings" };
        say(&paint.bad(&format!("The log is damaged: {n} {noun}.")));
    }
    match report.meaning_ok {
        Some(true) => say(&paint.good("The rules were kept.")),
        Some(false) => say(&paint.bad("The rules were not kept.")),
        None => say(&paint.warn("Whether the rules were kept was not judged.")),
    }
    say(&format!("  log          {}", path.display()));
    say(&format!("  key          {key}"));
    if let Some(now) = &report.key_now {
        say(&format!("  key now      {now}"));
    }
    say(&format!("  records      {records}, {covered} under a valid checkpoint"));
    say(&format!("  checkpoints  {checkpoints}"));
    if !report.open_effects.is_empty() {
        let at: Vec<_> = report.open_effects.iter().map(ToString::to_string).collect();
        say(&format!("  not ended    effects announced at {}", at.join(", ")));
    }
    if !pinned {
        say(&paint.dim(
            "  The key was read from beside the database; give --key with a copy you keep \
             elsewhere.",
        ));
    }
    for finding in &report.findings {
        let place = match (&finding.record_id, finding.seq) {
            (Some(id), seq) => format!("record {seq} ({id})"),
            (None, 0) => "database".to_owned(),
            (None, seq) => format!("at {seq}"),
        };
        let mut line = format!("{} {place}: {}", paint.bad(&finding.rule.as_str()), finding.detail);
        if !finding.related.is_empty() {
            let related: Vec<_> = finding.related.iter().map(ToString::to_string).collect();
            line.push_str(&format!(" (see {})", related.join(", ")));
        }
        say(&line);
    }
    let more = report.finding_count - report.findings.len() as u64;
    if more > 0 {
        say(&format!("… and {more} more"));
    }
    say(&paint.dim("  Not covered:"));
    report.not_covered.iter().for_each(|open| say(&paint.dim(&format!("  - {open}"))));
}
