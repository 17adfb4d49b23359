//! `countersign audit`: offline, with the public key and nothing else.

mod critic;
mod export;
mod keys;
mod ocsf;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_audit::checkpoint::{CheckpointError, Signed};
use countersign_audit::key::{PublicKey, WitnessKey};
use countersign_audit::receipt::Receipt;
use countersign_store_sqlite::LogReader;
use serde_json::json;

use crate::args::{Audit, AuditProve, Global, Log};
use crate::config;
use crate::output::{Failure, Paint, say, say_json};

pub(crate) fn run(global: &Global, command: &Audit) -> Result<ExitCode, Failure> {
    match command {
        Audit::Verify(args) => verify::run(global, args),
        Audit::Prove(args) => prove(global, args),
        Audit::Receipt { what, out, log } => receipt(global, what, out.as_deref(), log),
        Audit::Checkpoint { file, key, witness, log } => {
            checkpoint(global, file.as_deref(), key.as_deref(), witness, log)
        }
        Audit::Export(args) => export::run(global, args),
        Audit::Key(command) => keys::run(global, command),
        Audit::Critic(command) => critic::run(global, command),
    }
}

fn database(global: &Global, log: &Log) -> Result<PathBuf, Failure> {
    match &log.db {
        Some(path) => Ok(path.clone()),
        None => Ok(config::load(global)?.database()),
    }
}

fn open(global: &Global, log: &Log) -> Result<LogReader, Failure> {
    LogReader::open(&database(global, log)?).map_err(|error| {
        Failure::of(&error).hint("`countersign serve` makes one; --db names another file")
    })
}

/// The file, or standard input for `-`.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(path).map(|read| bytes = read)
    };
    read.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    Ok(bytes)
}

/// A key given as text or as a file with it; without either, the file in the state folder.
fn public_key(global: &Global, given: Option<&str>) -> Result<PublicKey, Failure> {
    let parse = |text: &str, from: &str| {
        PublicKey::parse(text).map_err(|error| Failure::new(format!("{from}: {error}")))
    };
    match given {
        Some(text) if text.contains('+') && !Path::new(text).exists() => parse(text, "--key"),
        given => {
            let path = match given {
                Some(path) => PathBuf::from(path),
                None => config::load(global)?.public_key(),
            };
            let text = std::fs::read_to_string(&path).map_err(|error| {
                Failure::new(format!("{}: {error}", path.display()))
                    .hint("give the log's public key, or a file with it, with --key")
            })?;
            parse(&text, &path.display().to_string())
        }
    }
}

/// The receipt for a record by its number, or for a call's last record.
fn made(reader: &LogReader, what: &str) -> Result<Receipt, Failure> {
    let seq = match what.parse() {
        Ok(seq) => seq,
        Err(_) => reader.call_end(what).map_err(|error| Failure::of(&error))?,
    };
    reader.receipt(seq).map_err(|error| Failure::of(&error))
}

fn receipt(
    global: &Global,
    what: &str,
    out: Option<&Path>,
    log: &Log,
) -> Result<ExitCode, Failure> {
    let receipt = made(&open(global, log)?, what)?;
    let text =
        serde_json::to_string_pretty(&receipt).map_err(|error| Failure::new(error.to_string()))?;
    match out {
        None => say(&text),
        Some(path) => std::fs::write(path, text + "\n")
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn prove(global: &Global, args: &AuditProve) -> Result<ExitCode, Failure> {
    let reader = open(global, &args.log)?;
    let hash = |hash: &[u8; 32]| STANDARD.encode(hash);
    if let Some(from) = args.from {
        let proof = reader.consistency(from, args.to).map_err(|error| Failure::of(&error))?;
        say_json(&json!({
            "from": proof.old,
            "from_root": hash(&proof.old_root),
            "to": proof.new,
            "to_root": hash(&proof.new_root),
            "consistency_proof": proof.path.iter().map(hash).collect::<Vec<_>>(),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let receipt = made(&reader, args.record.as_deref().unwrap_or_default())?;
    let leaf = countersign_audit::tree::leaf_hash(receipt.record.as_bytes());
    say_json(&json!({
        "seq": receipt.seq,
        "leaf_hash": hash(&leaf),
        "inclusion_proof": receipt.inclusion_proof,
        "checkpoint": receipt.checkpoint,
    }));
    Ok(ExitCode::SUCCESS)
}

fn checkpoint(
    global: &Global,
    file: Option<&Path>,
    key: Option<&str>,
    witnesses: &[String],
    log: &Log,
) -> Result<ExitCode, Failure> {
    let note = match file {
        Some(path) => String::from_utf8(read(path)?)
            .map_err(|_| Failure::new(format!("{}: not a text", path.display())))?,
        None => open(global, log)?
            .checkpoint()
            .map_err(|error| Failure::of(&error))?
            .ok_or_else(|| Failure::new("the log is empty: nothing has been signed yet"))?,
    };
    let key = public_key(global, key)?;
    let witnesses = witnesses
        .iter()
        .map(|given| {
            let text = if Path::new(given).exists() {
                std::fs::read_to_string(given)
                    .map_err(|error| Failure::new(format!("{given}: {error}")))?
            } else {
                given.clone()
            };
            WitnessKey::parse(&text)
                .map_err(|error| Failure::new(format!("--witness {given}: {error}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let signed = Signed::parse(&note).map_err(|error| Failure::of(&error))?;
    let by_log = signed.verify(&key);
    let seen: Vec<(&WitnessKey, Result<u64, CheckpointError>)> =
        witnesses.iter().map(|witness| (witness, signed.cosigned(witness))).collect();
    let ok = by_log.is_ok() && seen.iter().all(|(_, seen)| seen.is_ok());
    if global.json {
        say_json(&json!({
            "ok": ok,
            "origin": signed.checkpoint.origin,
            "size": signed.checkpoint.size,
            "root": STANDARD.encode(signed.checkpoint.root),
            "signature": by_log.as_ref().err().map(ToString::to_string),
            "witnesses": seen
                .iter()
                .map(|(witness, seen)| json!({
                    "name": witness.name(),
                    "seen_at": seen.as_ref().ok(),
                    "error": seen.as_ref().err().map(ToString::to_string),
                }))
                .collect::<Vec<_>>(),
            "checkpoint": note,
        }));
    } else {
        let paint = Paint::stdout();
        say(note.trim_end());
        say("");
        match &by_log {
            Ok(()) => say(&paint.good(&format!("signed by {key}"))),
            Err(error) => say(&paint.bad(&error.to_string())),
        }
        for (witness, seen) in &seen {
            match seen {
                Ok(time) => say(&paint.good(&format!("seen by {} at {time}", witness.name()))),
                Err(error) => say(&paint.bad(&error.to_string())),
            }
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
