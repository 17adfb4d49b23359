//! Many manifests, by tool name.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use countersign_core::digest::Digest;
use serde::Serialize;

use crate::diagnostic::{Diagnostic, Severity, line_column};
use crate::manifest::Manifest;

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

impl fmt::Display for FileDiagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.diagnostic)
    }
}

/// The tools that are served. A tool that two files define is not among them.
#[derive(Debug, Default)]
pub struct ManifestSet {
    tools: BTreeMap<String, Manifest>,
}

impl ManifestSet {
    /// Reads every file, in the order of their names, and reports the problems of all. A file
    /// with an error is left out and hides nothing else.
    pub fn load(files: impl IntoIterator<Item = (String, String)>) -> (Self, Vec<FileDiagnostic>) {
        let mut files: Vec<_> = files.into_iter().collect();
        files.sort();
        let mut found = Vec::new();
        let mut tools: BTreeMap<String, Vec<(&str, Manifest)>> = BTreeMap::new();
        for (file, text) in &files {
            let (manifest, diagnostics) = Manifest::parse(file, text);
            for diagnostic in diagnostics {
                let (line, column) = line_column(text, diagnostic.span.start);
                found.push(FileDiagnostic { file: file.clone(), line, column, diagnostic });
            }
            if let Some(manifest) = manifest {
                tools.entry(manifest.name.clone()).or_default().push((file, manifest));
            }
        }
        let mut served = BTreeMap::new();
        for (name, mut owners) in tools {
            if owners.len() > 1 {
                let names: Vec<_> = owners.iter().map(|(file, _)| *file).collect();
                let names = names.join(" and ");
                found.extend(owners.iter().map(|(file, _)| duplicate(file, &name, &names)));
            } else if let Some((_, manifest)) = owners.pop() {
                served.insert(name, manifest);
            }
        }
        // Stable: the findings of one file keep their order.
        let order: HashMap<&str, usize> =
            files.iter().enumerate().map(|(i, (file, _))| (file.as_str(), i)).collect();
        found.sort_by_key(|d| order.get(d.file.as_str()).copied());
        (Self { tools: served }, found)
    }

    /// The manifest of a tool by its exact name.
    #[must_use]
    pub fn get(&self, tool: &str) -> Option<&Manifest> {
        self.tools.get(tool)
    }

    /// All tools, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Manifest> {
        self.tools.values()
    }

    /// `sha256:` and the hex digest over one line `NAME DIGEST\n` for each tool, by name.
    #[must_use]
    pub fn digest(&self) -> String {
        let lines: String = self.iter().map(|m| format!("{} {}\n", m.name(), m.digest())).collect();
        Digest::of(lines).to_string()
    }
}

fn duplicate(file: &str, tool: &str, files: &str) -> FileDiagnostic {
    FileDiagnostic {
        file: file.to_owned(),
        line: 1,
        column: 1,
        diagnostic: Diagnostic {
            code: "duplicate_tool",
            severity: Severity::Error,
            span: 0..0,
            message: format!("`{tool}` is defined by {files}; none of them is served"),
            fix: None,
        },
    }
}
