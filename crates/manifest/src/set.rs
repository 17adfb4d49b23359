//! Many manifests, by tool name.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use countersign_core::digest::Digest;
use serde::Serialize;

use crate::diagnostic::{Diagnostic, Places, Severity, line_column};
use crate::manifest::Manifest;
use crate::project::Project;

/// A finding and where a person looks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileDiagnostic {
    /// As given to [`ManifestSet::load`].
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What was found.
    #[serde(flatten)]
    pub diagnostic: Diagnostic,
}

impl FileDiagnostic {
    /// Finds the line and column of a finding in the text it was made in.
    #[must_use]
    pub fn new(file: &str, text: &str, diagnostic: Diagnostic) -> Self {
        let (line, column) = line_column(text, diagnostic.span.start);
        Self { file: file.to_owned(), line, column, diagnostic }
    }
}

impl fmt::Display for FileDiagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.diagnostic)
    }
}

/// The tools that are served. A tool that two files define is not among them.
#[derive(Clone, Debug, Default)]
pub struct ManifestSet {
    tools: BTreeMap<String, Arc<Manifest>>,
}

impl ManifestSet {
    /// Reads every file, in the order of their names, and reports the problems of all. A file
    /// with an error is left out and hides nothing else.
    ///
    /// A `toolclad.toml` and a `scope.toml`, or `scope/scope.toml`, are for the manifests of the
    /// folder they are in. A broken scope, or a second one, has every value refused that has to be
    /// within the scope.
    pub fn load(files: impl IntoIterator<Item = (String, String)>) -> (Self, Vec<FileDiagnostic>) {
        let files = files.into_iter().map(|(file, text)| (file, Ok(text)));
        Self::load_with(files, std::iter::empty())
    }

    /// [`ManifestSet::load`], with files that are there and have no text, for the reason that is
    /// given and comes back among the findings; and with executable parsers that manifests may
    /// name.
    pub fn load_with(
        files: impl IntoIterator<Item = (String, Result<String, FileDiagnostic>)>,
        parsers: impl IntoIterator<Item = String>,
    ) -> (Self, Vec<FileDiagnostic>) {
        let mut files: Vec<_> = files.into_iter().collect();
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        let parsers: Vec<String> = parsers.into_iter().collect();
        let mut found = Vec::new();
        let mut projects: HashMap<&str, Project> = HashMap::new();
        for (file, text) in &files {
            let Some((folders, kind)) = project_file(file) else { continue };
            let mut told = Vec::new();
            for folder in folders {
                let project = projects.remove(folder).unwrap_or_default();
                let project = match text {
                    Err(why) => project.with_unreadable_scope(&why.diagnostic.message),
                    Ok(text) => {
                        let (project, diagnostics) = match kind {
                            ProjectFile::Types => project.with_types(text),
                            ProjectFile::Scope => project.with_scope(text),
                        };
                        let new = diagnostics.into_iter().filter(|d| !told.contains(d));
                        told.extend(new.collect::<Vec<_>>());
                        project
                    }
                };
                projects.insert(folder, project);
            }
            found.extend(placed(file, text.as_deref().unwrap_or_default(), told));
        }
        found.extend(files.iter().filter_map(|(_, text)| text.as_ref().err().cloned()));
        for project in projects.values_mut() {
            *project = std::mem::take(project).with_parsers(parsers.iter().cloned());
        }
        let alone = Project::default().with_parsers(parsers.iter().cloned());
        let mut tools: BTreeMap<String, Vec<(&str, Manifest)>> = BTreeMap::new();
        for (file, text) in &files {
            let (None, Ok(text)) = (project_file(file), text) else { continue };
            let project = projects.get(split(file).0).unwrap_or(&alone);
            let (manifest, diagnostics) = Manifest::parse_in(project, file, text);
            found.extend(placed(file, text, diagnostics));
            if let Some(manifest) = manifest {
                tools.entry(manifest.name.clone()).or_default().push((file, manifest));
            }
        }
        let texts: HashMap<&str, &str> = files
            .iter()
            .filter_map(|(file, text)| Some((file.as_str(), text.as_deref().ok()?)))
            .collect();
        let mut served = BTreeMap::new();
        for (name, mut owners) in tools {
            if owners.len() > 1 {
                let names: Vec<_> = owners.iter().map(|(file, _)| *file).collect();
                let names = names.join(" and ");
                found.extend(owners.iter().map(|(file, _)| {
                    let text = texts.get(file).copied().unwrap_or_default();
                    duplicate(file, text, &name, &names)
                }));
            } else if let Some((_, manifest)) = owners.pop() {
                served.insert(name, Arc::new(manifest));
            }
        }
        // Stable: the findings of one file keep their order.
        let order: HashMap<&str, usize> =
            files.iter().enumerate().map(|(i, (file, _))| (file.as_str(), i)).collect();
        found.sort_by_key(|d| order.get(d.file.as_str()).copied());
        (Self { tools: served }, found)
    }

    /// Keeps only the tools for which this holds.
    pub fn retain(&mut self, keep: impl Fn(&Manifest) -> bool) {
        self.tools.retain(|_, manifest| keep(manifest));
    }

    /// Adds a tool, unless there is one of that name: then the set is as it was, and the tool is
    /// handed back.
    ///
    /// # Errors
    /// The tool that was not added.
    pub fn add(&mut self, manifest: impl Into<Arc<Manifest>>) -> Result<(), Arc<Manifest>> {
        let manifest = manifest.into();
        if self.tools.contains_key(&manifest.name) {
            return Err(manifest);
        }
        self.tools.insert(manifest.name.clone(), manifest);
        Ok(())
    }

    /// The manifest of a tool by its exact name.
    #[must_use]
    pub fn get(&self, tool: &str) -> Option<&Arc<Manifest>> {
        self.tools.get(tool)
    }

    /// All tools, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Manifest>> {
        self.tools.values()
    }

    /// `sha256:` and the hex digest over one line `NAME DIGEST\n` for each tool, by name.
    #[must_use]
    pub fn digest(&self) -> String {
        let lines: String = self.iter().map(|m| format!("{} {}\n", m.name(), m.digest())).collect();
        Digest::of(lines).to_string()
    }
}

enum ProjectFile {
    Types,
    Scope,
}

/// The folders that a project file is for. A scope in a folder `scope` is for that folder and
/// for the one around it.
fn project_file(file: &str) -> Option<(Vec<&str>, ProjectFile)> {
    let (folder, name) = split(file);
    match name {
        "toolclad.toml" => Some((vec![folder], ProjectFile::Types)),
        "scope.toml" => {
            let (above, own) = split(folder);
            let folders = if own == "scope" { vec![folder, above] } else { vec![folder] };
            Some((folders, ProjectFile::Scope))
        }
        _ => None,
    }
}

/// The folder, and the name in it.
fn split(file: &str) -> (&str, &str) {
    file.rsplit_once('/').unwrap_or(("", file))
}

fn placed(file: &str, text: &str, found: Vec<Diagnostic>) -> impl Iterator<Item = FileDiagnostic> {
    let mut places = Places::of(text);
    found.into_iter().map(move |diagnostic| {
        let (line, column) = places.find(diagnostic.span.start);
        FileDiagnostic { file: file.to_owned(), line, column, diagnostic }
    })
}

fn duplicate(file: &str, text: &str, tool: &str, files: &str) -> FileDiagnostic {
    let diagnostic = Diagnostic {
        code: "duplicate_tool",
        severity: Severity::Error,
        span: crate::parse::name_span(text),
        message: format!("`{tool}` is defined by {files}; none of them is served"),
        fix: None,
    };
    FileDiagnostic::new(file, text, diagnostic)
}
