//! Finding and reading manifests, and what stands beside them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use countersign_manifest::{Diagnostic, FileDiagnostic, Project, Severity};

use crate::args::Beside;
use crate::output::Failure;

/// Files by name, as [`countersign_manifest::ManifestSet::load`] wants them.
pub(crate) struct Texts {
    pub(crate) texts: Vec<(String, String)>,
    pub(crate) unreadable: Vec<FileDiagnostic>,
}

/// The manifests that are named, and those in the folders that are.
pub(crate) fn list(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = BTreeSet::new();
    for path in paths {
        if path.is_dir() {
            let failure = |error| Failure::new(format!("{}: {error}", path.display()));
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
pub(crate) fn read(path: &Path) -> Result<Result<String, FileDiagnostic>, Failure> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| Failure::new(format!("{name}: {error}")))?;
    Ok(String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default());
        let diagnostic = Diagnostic {
            code: "not_utf8",
            severity: Severity::Error,
            span: good..good,
            message: "the file is not UTF-8 from here on".to_owned(),
            fix: None,
        };
        FileDiagnostic::new(&name, &text, diagnostic)
    }))
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
pub(crate) fn texts(manifests: &[PathBuf], options: &Beside) -> Result<Texts, Failure> {
    let mut found = Texts { texts: Vec::new(), unreadable: Vec::new() };
    let mut take = |path: &Path, name: String| -> Result<(), Failure> {
        match read(path)? {
            Ok(text) => found.texts.push((name, text)),
            Err(diagnostic) => found.unreadable.push(diagnostic),
        }
        Ok(())
    };
    let folders: BTreeSet<&Path> = manifests.iter().map(|file| folder(file)).collect();
    for dir in folders {
        let (types, scope) = beside_in(dir, options);
        let named = |file: &str| dir.join(file).display().to_string();
        if let Some(types) = types {
            take(&types, named("toolclad.toml"))?;
        }
        if let Some(scope) = scope {
            take(&scope, named("scope.toml"))?;
        }
    }
    for path in manifests {
        let name = path.display().to_string();
        let project = matches!(
            path.file_name().and_then(|name| name.to_str()),
            Some("toolclad.toml" | "scope.toml")
        );
        if !(project && found_already(path, options)) {
            take(path, name)?;
        }
    }
    Ok(found)
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
        match read(&path)? {
            Ok(text) => {
                let (next, diagnostics) =
                    if is_types { project.with_types(&text) } else { project.with_scope(&text) };
                project = next;
                found.extend(diagnostics.into_iter().map(|d| FileDiagnostic::new(&name, &text, d)));
            }
            Err(diagnostic) => found.push(diagnostic),
        }
    }
    match read(file)? {
        Ok(text) => Ok((project, Some(text), found)),
        Err(diagnostic) => {
            found.push(diagnostic);
            Ok((project, None, found))
        }
    }
}
