//! `countersign manifest`.

pub(crate) mod files;
mod import;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use countersign_manifest::{
    ArgProblem, FileDiagnostic, Manifest, Planned, Severity, editor_schema, format, render_command,
    sarif,
};
use serde_json::{Value, json};

use crate::args::{Beside, Global, Manifest as Command};
use crate::output::{Failure, Paint, counted, say, say_json};
use files::Files;

pub(crate) fn run(global: &Global, command: &Command) -> Result<ExitCode, Failure> {
    let as_json = global.json;
    match command {
        Command::Check { paths, beside, sarif } => check(paths, beside, *sarif, as_json),
        Command::Plan { file, args, beside } => plan(file, args, beside, as_json),
        Command::Schema => {
            say_pretty(&editor_schema(), as_json);
            Ok(ExitCode::SUCCESS)
        }
        Command::Mcp { file, beside } => match load(file, beside)? {
            Ok(Loaded { manifest, .. }) => {
                let tools = manifest.mcp_tools();
                match tools.as_slice() {
                    [tool] => say_pretty(tool, as_json),
                    tools => say_pretty(&json!(tools), as_json),
                }
                Ok(ExitCode::SUCCESS)
            }
            Err(found) => Ok(refuse_manifest(&found, as_json)),
        },
        Command::Explain { file, arg, value, beside } => explain(file, arg, value, beside, as_json),
        Command::Import(from) => import::run(from, as_json),
        Command::Fmt { paths, check } => fmt(paths, *check, as_json),
    }
}

fn say_pretty(value: &Value, compact: bool) {
    if compact {
        say_json(value);
    } else {
        say(&format!("{value:#}"));
    }
}

fn check(
    paths: &[PathBuf],
    beside: &Beside,
    as_sarif: bool,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let (files, missing) = Files::named(paths);
    if files.manifests.is_empty() && missing.is_empty() {
        return Err(Failure::new("there is no `*.clad.toml` to check"));
    }
    let incomplete = !missing.is_empty();
    let (set, mut found) = files.load(beside);
    found.extend(missing);
    found.sort_by(|a, b| a.file.cmp(&b.file));
    let errors = found.iter().filter(|d| d.diagnostic.severity == Severity::Error).count();
    if as_sarif {
        say_json(&sarif(&found, env!("CARGO_PKG_VERSION")));
    } else if as_json {
        say_json(&json!({
            "ok": errors == 0,
            "files": files.manifests.len(),
            "tools": set.iter().map(|tool| tool.name()).collect::<Vec<_>>(),
            "diagnostics": found,
        }));
    } else {
        found.iter().for_each(tell);
        let (files, tools) = (files.manifests.len(), set.iter().len());
        let warnings = found.len() - errors;
        let parts = [(files, "file"), (tools, "tool"), (errors, "error"), (warnings, "warning")];
        say(&parts.map(|(n, what)| counted(n, what)).join(", "));
    }
    Ok(match errors {
        _ if incomplete => ExitCode::from(2),
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(1),
    })
}

fn tell(found: &FileDiagnostic) {
    let paint = Paint::stdout();
    let text = found.to_string();
    say(&match found.diagnostic.severity {
        Severity::Error => paint.bad(&text),
        Severity::Warning => paint.warn(&text),
    });
}

/// One manifest, with the errors in what stands beside it.
struct Loaded {
    manifest: Arc<Manifest>,
    beside: Vec<FileDiagnostic>,
}

/// The manifest, or the errors for which there is none.
fn load(file: &Path, options: &Beside) -> Result<Result<Loaded, Vec<FileDiagnostic>>, Failure> {
    let (files, missing) = Files::named(&[file.to_owned()]);
    let failure = |found: &FileDiagnostic| {
        Failure::new(format!("{}: {}", found.file, found.diagnostic.message))
    };
    if let Some(missing) = missing.first() {
        return Err(failure(missing));
    }
    if file.is_dir() {
        return Err(Failure::new(format!("{} is a folder; name one manifest", file.display())));
    }
    let (set, mut beside) = files.load(options);
    beside.retain(|d| d.diagnostic.severity == Severity::Error);
    let here = |d: &&FileDiagnostic| files.manifests.iter().any(|f| *f == Path::new(&d.file));
    if let Some(found) = beside.iter().filter(here).find(|d| d.diagnostic.code == "unreadable") {
        return Err(failure(found));
    }
    let Some(manifest) = set.iter().next().cloned() else {
        if beside.is_empty() {
            let message = "a file of types or a scope is no manifest".to_owned();
            beside.push(files::finding(file, "", "not_a_manifest", 0, message));
        }
        return Ok(Err(beside));
    };
    Ok(Ok(Loaded { manifest, beside }))
}

fn refuse_manifest(found: &[FileDiagnostic], as_json: bool) -> ExitCode {
    refuse(&[], found, as_json)
}

/// Says no, with everything that is wrong with the call and with the files.
fn refuse(problems: &[ArgProblem], found: &[FileDiagnostic], as_json: bool) -> ExitCode {
    if as_json {
        let call = problems.iter().map(|problem| {
            // None is named if all of them are meant.
            let arg = Some(&problem.arg).filter(|arg| !arg.is_empty());
            json!({ "code": problem.code, "arg": arg, "message": problem.message })
        });
        let files = found.iter().map(|d| {
            json!({
                "code": d.diagnostic.code,
                "arg": null,
                "message": d.diagnostic.message,
                "file": d.file,
                "line": d.line,
                "column": d.column,
                "span": d.diagnostic.span,
                "fix": d.diagnostic.fix,
            })
        });
        let diagnostics: Vec<Value> = call.chain(files).collect();
        say_json(&json!({ "decision": "reject", "diagnostics": diagnostics }));
    } else {
        let paint = Paint::stdout();
        problems.iter().for_each(|problem| say(&paint.bad(&problem.to_string())));
        found.iter().for_each(tell);
    }
    ExitCode::from(1)
}

fn plan(file: &Path, args: &str, beside: &Beside, as_json: bool) -> Result<ExitCode, Failure> {
    let Loaded { manifest, beside } = match load(file, beside)? {
        Ok(loaded) => loaded,
        Err(found) => return Ok(refuse_manifest(&found, as_json)),
    };
    match manifest.parse_arguments(args).and_then(|args| manifest.plan(&args)) {
        Ok(Planned { plan, .. }) => {
            if as_json {
                say_json(&json!({ "decision": "accept", "plan": plan }));
            } else {
                say(&render_command(&plan));
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => Ok(refuse(&problems, &beside, as_json)),
    }
}

fn explain(
    file: &Path,
    arg: &str,
    value: &str,
    beside: &Beside,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let Loaded { manifest, beside } = match load(file, beside)? {
        Ok(loaded) => loaded,
        Err(found) => return Ok(refuse_manifest(&found, as_json)),
    };
    let Some(found) = manifest.explain(arg, &Value::from(value)) else {
        let names: Vec<_> = manifest.args().map(|arg| arg.name()).collect();
        let hint = match names.as_slice() {
            [] => "it has none".to_owned(),
            names => format!("it has: {}", names.join(", ")),
        };
        let arg = countersign_core::text::visible(arg);
        return Err(Failure::new(format!("{} has no argument `{arg}`", manifest.name())).hint(hint));
    };
    if as_json {
        say_json(&found);
    } else {
        let paint = Paint::stdout();
        say(&format!("{}, of the type {}:", paint.bold(&found.arg), found.type_name));
        found.rules.iter().for_each(|rule| say(&format!("  {rule}")));
        match (&found.value, &found.problem) {
            (Some(text), _) => {
                let text = countersign_core::text::visible(text);
                say(&paint.good(&format!("accepted, as: {text}")));
            }
            (None, Some(problem)) => {
                say(&paint.bad(&format!("refused: {problem}")));
                beside.iter().for_each(tell);
            }
            (None, None) => {}
        }
    }
    Ok(if found.problem.is_none() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn fmt(paths: &[PathBuf], check: bool, as_json: bool) -> Result<ExitCode, Failure> {
    let (files, mut found) = Files::named(paths);
    let mut incomplete = !found.is_empty();
    let mut changed = Vec::new();
    for path in &files.manifests {
        let text = match files::read(path) {
            Ok(text) => text,
            Err(problem) => {
                found.push(*problem);
                continue;
            }
        };
        match format(&text) {
            Ok(formatted) if formatted == text => {}
            Ok(formatted) => match if check { Ok(()) } else { files::replace(path, &formatted) } {
                Ok(()) => changed.push(path.display().to_string()),
                Err(error) => {
                    found.push(files::unwritable(path, &error));
                    incomplete = true;
                }
            },
            Err(error) => found.push(files::no_toml(path, &text, &error)),
        }
    }
    let good = found.is_empty() && (!check || changed.is_empty());
    if as_json {
        say_json(&json!({ "ok": good, "changed": changed, "diagnostics": found }));
    } else {
        let word = if check { "would change" } else { "laid out" };
        found.iter().for_each(tell);
        changed.iter().for_each(|name| say(&format!("{name}: {word}")));
    }
    Ok(match good {
        _ if incomplete => ExitCode::from(2),
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    })
}
