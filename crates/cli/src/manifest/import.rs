//! `countersign manifest import`.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use countersign_manifest::{Imported, import_help, import_mcp, import_openapi};
use serde_json::json;

use crate::args::{Import, ImportFrom};
use crate::output::{Failure, say, say_json};

/// Bytes of what is imported.
const MAX_INPUT: u64 = 32 << 20;

pub(crate) fn run(import: &Import, as_json: bool) -> Result<ExitCode, Failure> {
    let (from, found) = match import {
        Import::Mcp { server, from } => (from, import_mcp(&input(from)?, server)),
        Import::Openapi { from } => (from, import_openapi(&input(from)?)),
        Import::Help { binary, from } => {
            (from, import_help(&input(from)?, binary).map(|one| vec![one]))
        }
    };
    let found = found.map_err(|error| Failure::new(format!("cannot import: {error}")))?;
    if found.is_empty() {
        return Err(Failure::new("there is nothing to import"));
    }
    match &from.out {
        Some(dir) => write(dir, &found, as_json)?,
        None => found.iter().for_each(|one| say(one.text.trim_end())),
    }
    Ok(ExitCode::SUCCESS)
}

fn input(from: &ImportFrom) -> Result<String, Failure> {
    let name = from.input.display();
    let failure = |error: std::io::Error| Failure::new(format!("{name}: {error}"));
    let mut text = String::new();
    let source: Box<dyn std::io::Read> = if from.input.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(&from.input).map_err(failure)?)
    };
    source.take(MAX_INPUT + 1).read_to_string(&mut text).map_err(failure)?;
    if text.len() as u64 > MAX_INPUT {
        return Err(Failure::new(format!("{name}: more than {MAX_INPUT} bytes")));
    }
    Ok(text)
}

/// Never over a file that is there.
fn write(dir: &std::path::Path, found: &[Imported], as_json: bool) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)
        .map_err(|error| Failure::new(format!("{}: {error}", dir.display())))?;
    let mut written: Vec<String> = Vec::new();
    for one in found {
        let path = dir.join(&one.file);
        let name = path.display().to_string();
        std::fs::File::create_new(&path)
            .and_then(|mut file| file.write_all(one.text.as_bytes()))
            .map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                let earlier = match written.as_slice() {
                    [] => String::new(),
                    names => format!("; written before it: {}", names.join(", ")),
                };
                Failure::new(format!("{name} is there, and nothing is written over{earlier}"))
                    .hint("move it away, or name another folder with --out")
            }
            _ => Failure::new(format!("{name}: {error}")),
        })?;
        written.push(name);
    }
    if as_json {
        say_json(&json!({ "written": written }));
    } else {
        written.iter().for_each(|name| say(&format!("{name}: written")));
    }
    Ok(())
}
