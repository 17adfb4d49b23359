//! `countersign manifest`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use countersign_manifest::{
    FileDiagnostic, Manifest, ManifestSet, Severity, line_column, render_command,
};
use serde_json::{Map, Value, json};

use crate::args::{Global, Manifest as Command};
use crate::output::{Failure, Paint, say, say_json};

pub(crate) fn run(global: &Global, command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Check { paths } => check(paths, global.json),
        Command::Plan { file, args } => plan(file, args, global.json),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    String::from_utf8(bytes)
        .map_err(|error| Failure::new(format!("{}: not UTF-8: {error}", path.display())))
}

fn check(paths: &[PathBuf], as_json: bool) -> Result<ExitCode, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let failure = |error| Failure::new(format!("{}: {error}", path.display()));
            for entry in std::fs::read_dir(path).map_err(failure)? {
                let path = entry.map_err(failure)?.path();
                if path.to_string_lossy().ends_with(".clad.toml") {
                    files.push(path);
                }
            }
        } else {
            files.push(path.clone());
        }
    }
    if files.is_empty() {
        return Err(Failure::new("there is no `*.clad.toml` to check"));
    }
    let texts = files
        .iter()
        .map(|path| Ok((path.display().to_string(), read(path)?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    let count = texts.len();
    let (set, found) = ManifestSet::load(texts);
    let errors = found.iter().filter(|d| d.diagnostic.severity == Severity::Error).count();
    if as_json {
        say_json(&json!({
            "ok": errors == 0,
            "files": count,
            "tools": set.iter().map(Manifest::name).collect::<Vec<_>>(),
            "diagnostics": found,
        }));
    } else {
        found.iter().for_each(tell);
        let (tools, warnings) = (set.iter().len(), found.len() - errors);
        say(&format!("{count} files, {tools} tools, {errors} errors, {warnings} warnings"));
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn tell(found: &FileDiagnostic) {
    let paint = Paint::stdout();
    let text = found.to_string();
    say(&match found.diagnostic.severity {
        Severity::Error => paint.bad(&text),
        Severity::Warning => paint.warn(&text),
    });
}

fn plan(file: &Path, args: &str, as_json: bool) -> Result<ExitCode, Failure> {
    let text = read(file)?;
    let args: Map<String, Value> = serde_json::from_str(args)
        .map_err(|error| Failure::new(format!("--args is no JSON object: {error}")))?;
    let (manifest, diagnostics) = Manifest::parse(&file.display().to_string(), &text);
    let Some(manifest) = manifest else {
        let found: Vec<_> = diagnostics
            .into_iter()
            .map(|diagnostic| {
                let (line, column) = line_column(&text, diagnostic.span.start);
                FileDiagnostic { file: file.display().to_string(), line, column, diagnostic }
            })
            .collect();
        if as_json {
            say_json(&json!({ "decision": "reject", "diagnostics": found }));
        } else {
            found.iter().for_each(tell);
        }
        return Ok(ExitCode::from(1));
    };
    match manifest.plan(&args) {
        Ok(planned) => {
            if as_json {
                say_json(&json!({ "decision": "accept", "plan": planned.plan }));
            } else {
                say(&render_command(&planned.plan));
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            if as_json {
                say_json(&json!({ "decision": "reject", "diagnostics": problems }));
            } else {
                let paint = Paint::stdout();
                problems.iter().for_each(|problem| say(&paint.bad(&problem.to_string())));
            }
            Ok(ExitCode::from(1))
        }
    }
}
