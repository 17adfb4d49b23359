//! `countersign manifest`.

mod files;
mod import;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use countersign_manifest::{
    ArgProblem, ArgumentsError, FileDiagnostic, Manifest, ManifestSet, Planned, Severity,
    editor_schema, format, parse_arguments, render_command, sarif,
};
use serde_json::{Value, json};

use crate::args::{Beside, Global, Manifest as Command};
use crate::output::{Failure, Paint, say, say_json};
use files::{Texts, list, one, texts};

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
            Ok(manifest) => {
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
    let manifests = list(paths)?;
    if manifests.is_empty() {
        return Err(Failure::new("there is no `*.clad.toml` to check"));
    }
    let Texts { texts, unreadable } = texts(&manifests, beside);
    let (set, mut found) = ManifestSet::load_with(texts, beside.allow_parser.iter().cloned());
    found.extend(unreadable);
    found.sort_by(|a, b| a.file.cmp(&b.file));
    let errors = found.iter().filter(|d| d.diagnostic.severity == Severity::Error).count();
    if as_sarif {
        say_json(&sarif(&found, env!("CARGO_PKG_VERSION")));
    } else if as_json {
        say_json(&json!({
            "ok": errors == 0,
            "files": manifests.len(),
            "tools": set.iter().map(|tool| tool.name()).collect::<Vec<_>>(),
            "diagnostics": found,
        }));
    } else {
        found.iter().for_each(tell);
        let (files, tools, warnings) = (manifests.len(), set.iter().len(), found.len() - errors);
        say(&format!("{files} files, {tools} tools, {errors} errors, {warnings} warnings"));
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

/// One manifest with what stands beside it, or what is wrong with it.
fn load(file: &Path, beside: &Beside) -> Result<Result<Manifest, Vec<FileDiagnostic>>, Failure> {
    let name = file.display().to_string();
    let (project, text, mut found) = one(file, beside)?;
    let Some(text) = text else {
        return Ok(Err(found));
    };
    let (manifest, diagnostics) = Manifest::parse_in(&project, &name, &text);
    found.extend(diagnostics.into_iter().map(|d| FileDiagnostic::new(&name, &text, d)));
    found.retain(|d| d.diagnostic.severity == Severity::Error);
    Ok(manifest.ok_or(found))
}

fn refuse_manifest(found: &[FileDiagnostic], as_json: bool) -> ExitCode {
    if as_json {
        let diagnostics: Vec<Value> = found
            .iter()
            .map(|d| {
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
            })
            .collect();
        say_json(&json!({ "decision": "reject", "diagnostics": diagnostics }));
    } else {
        found.iter().for_each(tell);
    }
    ExitCode::from(1)
}

fn refuse_call(problems: &[ArgProblem], as_json: bool) -> ExitCode {
    if as_json {
        say_json(&json!({ "decision": "reject", "diagnostics": problems }));
    } else {
        let paint = Paint::stdout();
        problems.iter().for_each(|problem| say(&paint.bad(&problem.to_string())));
    }
    ExitCode::from(1)
}

fn plan(file: &Path, args: &str, beside: &Beside, as_json: bool) -> Result<ExitCode, Failure> {
    let args = match parse_arguments(args) {
        Ok(args) => Ok(args),
        Err(ArgumentsError::Refused(problems)) => Err(problems),
        Err(ArgumentsError::Syntax(error)) => {
            return Err(Failure::new(format!("--args is no JSON object: {error}"))
                .hint("write such as --args '{\"name\": \"value\"}'"));
        }
    };
    let manifest = match load(file, beside)? {
        Ok(manifest) => manifest,
        Err(found) => return Ok(refuse_manifest(&found, as_json)),
    };
    match args.and_then(|args| manifest.plan(&args)) {
        Ok(Planned { plan, .. }) => {
            if as_json {
                say_json(&json!({ "decision": "accept", "plan": plan }));
            } else {
                say(&render_command(&plan));
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => Ok(refuse_call(&problems, as_json)),
    }
}

fn explain(
    file: &Path,
    arg: &str,
    value: &str,
    beside: &Beside,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let manifest = match load(file, beside)? {
        Ok(manifest) => manifest,
        Err(found) => return Ok(refuse_manifest(&found, as_json)),
    };
    let Some(found) = manifest.explain(arg, &Value::from(value)) else {
        let names: Vec<_> = manifest.args().map(|arg| arg.name()).collect();
        return Err(Failure::new(format!("{} has no argument `{arg}`", manifest.name()))
            .hint(format!("it has: {}", names.join(", "))));
    };
    if as_json {
        say_json(&found);
    } else {
        let paint = Paint::stdout();
        say(&format!("{} is a {}:", paint.bold(&found.arg), found.type_name));
        found.rules.iter().for_each(|rule| say(&format!("  {rule}")));
        match (&found.value, &found.problem) {
            (Some(text), _) => {
                let text = countersign_core::text::visible(text);
                say(&paint.good(&format!("accepted, as: {text}")));
            }
            (None, Some(problem)) => {
                let (code, message) = (problem.code, &problem.message);
                say(&paint.bad(&format!("refused: it {message} ({code})")));
            }
            (None, None) => {}
        }
    }
    Ok(if found.problem.is_none() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn fmt(paths: &[PathBuf], check: bool, as_json: bool) -> Result<ExitCode, Failure> {
    let (mut changed, mut broken) = (Vec::new(), false);
    for path in list(paths)? {
        let name = path.display().to_string();
        let text = match files::read(&path) {
            Ok(text) => text,
            Err(found) => {
                tell(&found);
                broken = true;
                continue;
            }
        };
        match format(&text) {
            Ok(formatted) if formatted == text => {}
            Ok(formatted) => {
                if !check {
                    std::fs::write(&path, formatted)
                        .map_err(|error| Failure::new(format!("{name}: {error}")))?;
                }
                changed.push(name);
            }
            Err(error) => {
                let paint = Paint::stdout();
                say(&paint.bad(&format!("{name}: {}", error.trim_end())));
                broken = true;
            }
        }
    }
    if as_json {
        say_json(&json!({ "ok": !broken && (!check || changed.is_empty()), "changed": changed }));
    } else {
        let word = if check { "would change" } else { "laid out" };
        changed.iter().for_each(|name| say(&format!("{name}: {word}")));
    }
    let good = !broken && (!check || changed.is_empty());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
