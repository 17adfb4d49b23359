//! Finding and reading manifests, and what stands beside them.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use countersign_manifest::{Diagnostic, FileDiagnostic, Project, Severity};

use crate::args::Beside;
use crate::output::Failure;

/// Bytes of a file that are looked at; a manifest has far less.
const MAX_READ: u64 = 16 << 20;

/// Files by name, as [`countersign_manifest::ManifestSet::load`] wants them.
pub(crate) struct Texts {
    pub(crate) texts: Vec<(String, String)>,
    pub(crate) unreadable: Vec<FileDiagnostic>,
}

/// The manifests that are named, and those in the folders that are.
pub(crate) fn list(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = BTreeSet::new();
    for path in paths {
        let failure = |error| Failure::new(format!("{}: {error}", path.display()));
        if std::fs::metadata(path).map_err(failure)?.is_dir() {
            for entry in std::fs::read_dir(path).map_err(failure)? {
                let path = entry.map_err(failure)?.path();
                if path.to_string_lossy().ends_with(".clad.toml") {
                    files.insert(path);
                }
            }
        } else {
            files.insert(path.clone());
        }
    }
    Ok(files.into_iter().collect())
}

/// The text of a file, or that it is none.
///
/// # Errors
/// The file cannot be read.
fn text(path: &Path) -> std::io::Result<Result<String, Box<FileDiagnostic>>> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_READ + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_READ {
        let message = format!("the file has more than {MAX_READ} bytes");
        return Ok(Err(finding(&name, "", "too_large", 0, message)));
    }
    Ok(String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default());
        let message = "the file is not UTF-8 from here on".to_owned();
        finding(&name, &text, "not_utf8", good, message)
    }))
}

fn finding(
    file: &str,
    text: &str,
    code: &'static str,
    at: usize,
    message: String,
) -> Box<FileDiagnostic> {
    let severity = Severity::Error;
    let diagnostic = Diagnostic { code, severity, span: at..at, message, fix: None };
    Box::new(FileDiagnostic::new(file, text, diagnostic))
}

/// The text of the one file that is asked for.
fn needed(path: &Path) -> Result<Result<String, Box<FileDiagnostic>>, Failure> {
    text(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// The text of one file among others: that it cannot be read hides none of them.
pub(crate) fn read(path: &Path) -> Result<String, Box<FileDiagnostic>> {
    text(path).unwrap_or_else(|error| {
        let message = format!("the file cannot be read: {error}");
        Err(finding(&path.display().to_string(), "", "unreadable", 0, message))
    })
}

/// What a folder has beside its manifests: types, then scope.
fn beside_in(folder: &Path, options: &Beside) -> (Option<PathBuf>, Option<PathBuf>) {
    let there = |path: PathBuf| path.is_file().then_some(path);
    let types = options.types.clone().or_else(|| there(folder.join("toolclad.toml")));
    let scope = options.scope.clone().or_else(|| {
        there(folder.join("scope.toml")).or_else(|| there(folder.join("scope/scope.toml")))
    });
    (types, scope)
}

fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// All manifests with what stands beside each. What an option names counts as standing beside
/// every one.
pub(crate) fn texts(manifests: &[PathBuf], options: &Beside) -> Texts {
    let mut found = Texts { texts: Vec::new(), unreadable: Vec::new() };
    let mut take = |path: &Path, name: String| match read(path) {
        Ok(text) => found.texts.push((name, text)),
        Err(diagnostic) => found.unreadable.push(*diagnostic),
    };
    let folders: BTreeSet<&Path> = manifests.iter().map(|file| folder(file)).collect();
    for dir in folders {
        let (types, scope) = beside_in(dir, options);
        let named = |file: &str| dir.join(file).display().to_string();
        if let Some(types) = types {
            take(&types, named("toolclad.toml"));
        }
        if let Some(scope) = scope {
            take(&scope, named("scope.toml"));
        }
    }
    for path in manifests {
        let name = path.display().to_string();
        let project = matches!(
            path.file_name().and_then(|name| name.to_str()),
            Some("toolclad.toml" | "scope.toml")
        );
        if !(project && found_already(path, options)) {
            take(path, name);
        }
    }
    found
}

/// Whether the file is read as standing beside the manifests of its own folder.
fn found_already(path: &Path, options: &Beside) -> bool {
    let (types, scope) = beside_in(folder(path), options);
    types.as_deref() == Some(path) || scope.as_deref() == Some(path)
}

/// The project, the text of one manifest if it is one, and what is wrong beside it.
pub(crate) fn one(
    file: &Path,
    options: &Beside,
) -> Result<(Project, Option<String>, Vec<FileDiagnostic>), Failure> {
    let mut found = Vec::new();
    let mut project = Project::default().with_parsers(options.allow_parser.iter().cloned());
    let (types, scope) = beside_in(folder(file), options);
    for (path, is_types) in
        types.map(|path| (path, true)).into_iter().chain(scope.map(|path| (path, false)))
    {
        let name = path.display().to_string();
        match needed(&path)? {
            Ok(text) => {
                let (next, diagnostics) =
                    if is_types { project.with_types(&text) } else { project.with_scope(&text) };
                project = next;
                found.extend(diagnostics.into_iter().map(|d| FileDiagnostic::new(&name, &text, d)));
            }
            Err(diagnostic) => found.push(*diagnostic),
        }
    }
    match needed(file)? {
        Ok(text) => Ok((project, Some(text), found)),
        Err(diagnostic) => {
            found.push(*diagnostic);
            Ok((project, None, found))
        }
    }
}
