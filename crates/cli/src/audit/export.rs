//! `countersign audit export`: the log for others.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use countersign_audit::checkpoint::Signed;
use countersign_audit::key::PublicKey;
use countersign_audit::tiles::{Tiler, TooLong};
use countersign_audit::verify::{BundleError, BundleWriter};
use countersign_store_sqlite::{LogReader, ProofError};

use super::ocsf;
use crate::args::{AuditExport, Global};
use crate::output::{Failure, say};

/// Why an export did not come to its end.
enum Stop {
    Read(ProofError),
    Write(String),
}

impl From<ProofError> for Stop {
    fn from(error: ProofError) -> Self {
        Self::Read(error)
    }
}

impl From<BundleError> for Stop {
    fn from(error: BundleError) -> Self {
        Self::Write(Failure::of(&error).message)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error.to_string())
    }
}

impl From<TooLong> for Stop {
    fn from(error: TooLong) -> Self {
        Self::Write(error.to_string())
    }
}

pub(super) fn run(global: &Global, args: &AuditExport) -> Result<ExitCode, Failure> {
    let reader = super::open(global, &args.log)?;
    let done = if let Some(path) = &args.bundle {
        let key = super::public_key(global, None).ok();
        bundle(&reader, path, args.from, key).map(|n| format!("{n} records, {}", path.display()))
    } else if let Some(dir) = &args.tiles {
        if args.from > 1 {
            return Err(Failure::new("tiles begin with the first record; leave out --from"));
        }
        tiles(&reader, dir).map(|n| format!("{n} records, {}", dir.display()))
    } else if let Some(path) = &args.ocsf {
        let written = events(&reader, path, args);
        if path == Path::new("-") && written.is_ok() {
            return Ok(ExitCode::SUCCESS);
        }
        written.map(|n| format!("{n} events, {}", path.display()))
    } else {
        return Err(Failure::new("nothing to write").hint("give --bundle, --tiles or --ocsf"));
    };
    match done {
        Ok(line) => {
            if !global.json {
                say(&format!("Written: {line}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(Stop::Read(error)) => Err(Failure::of(&error)),
        Err(Stop::Write(error)) => Err(Failure::new(error)),
    }
}

/// Writes under another name and renames, so that nobody takes half a file for a whole one.
fn whole<T>(
    path: &Path,
    write: impl FnOnce(BufWriter<File>) -> Result<(BufWriter<File>, T), Stop>,
) -> Result<T, Stop> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    let named = |error: std::io::Error| Stop::Write(format!("{}: {error}", path.display()));
    let file = BufWriter::with_capacity(1 << 20, File::create(new).map_err(named)?);
    let (file, done) = write(file)?;
    let file = file.into_inner().map_err(|error| named(error.into_error()))?;
    file.sync_all().map_err(named)?;
    std::fs::rename(new, path).map_err(named)?;
    Ok(done)
}

/// The keys that the newest checkpoint could be signed with, as far as they are known here.
fn origin(reader: &LogReader, key: Option<PublicKey>) -> Result<Vec<PublicKey>, Stop> {
    let note = reader.checkpoint().map_err(ProofError::Read)?.ok_or(ProofError::Empty)?;
    let signed = Signed::parse(&note).map_err(|error| Stop::Write(error.to_string()))?;
    match key.filter(|key| key.name() == signed.checkpoint.origin) {
        Some(key) => Ok(vec![key]),
        None => Err(Stop::Write("the log's public key is not beside it".to_owned())),
    }
}

fn bundle(reader: &LogReader, path: &Path, from: u64, key: Option<PublicKey>) -> Result<u64, Stop> {
    let keys = origin(reader, key)?;
    let before = from.saturating_sub(1);
    let peaks = reader.peaks(before)?;
    whole(path, |file| {
        let mut bundle = BundleWriter::new(file, &keys, (before, &peaks))?;
        let last = reader.walk::<Stop>(from.max(1), |_, bytes, note| {
            bundle.record(bytes)?;
            match note {
                Some(note) => Ok(bundle.checkpoint(note)?),
                None => Ok(()),
            }
        })?;
        Ok((bundle.finish()?, last - before))
    })
}

fn tiles(reader: &LogReader, dir: &Path) -> Result<u64, Stop> {
    let mut made = BTreeSet::new();
    let mut write = |path: &str, bytes: &[u8]| -> Result<(), Stop> {
        let at = dir.join(path);
        let named = |error: std::io::Error| Stop::Write(format!("{}: {error}", at.display()));
        if let Some(parent) = at.parent()
            && made.insert(parent.to_owned())
        {
            std::fs::create_dir_all(parent).map_err(named)?;
        }
        std::fs::write(&at, bytes).map_err(named)
    };
    let mut tiler = Tiler::default();
    let mut newest = None;
    let records = reader.walk::<Stop>(1, |_, bytes, note| {
        if let Some(note) = note {
            newest = Some(note.to_owned());
        }
        tiler.record(bytes, &mut write)
    })?;
    tiler.finish(&mut write)?;
    let newest = newest.ok_or(ProofError::Empty)?;
    // Last, so that no client is sent to a tile that is not there yet.
    write("checkpoint", newest.as_bytes())?;
    Ok(records)
}

fn events(reader: &LogReader, path: &Path, args: &AuditExport) -> Result<u64, Stop> {
    let mut written = 0;
    let mut pass = |out: &mut dyn Write| -> Result<(), Stop> {
        reader.walk::<Stop>(args.from.max(1), |_, bytes, _| {
            let Some(event) = ocsf::event(bytes, args.cloudevents).map_err(Stop::Write)? else {
                return Ok(());
            };
            written += 1;
            Ok(writeln!(out, "{event}")?)
        })?;
        Ok(out.flush()?)
    };
    if path == Path::new("-") {
        match pass(&mut BufWriter::new(std::io::stdout().lock())) {
            // Whoever reads has seen enough.
            Err(Stop::Write(error)) if error.contains("Broken pipe") => {}
            other => other?,
        }
    } else {
        whole(path, |mut file| pass(&mut file).map(|()| (file, ())))?;
    }
    Ok(written)
}
