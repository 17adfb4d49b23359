//! What the manifests of one folder share: custom types, a scope, and which parsers may run.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use countersign_core::digest::Digest;

use crate::constraints::Typed;
use crate::diagnostic::{Diagnostic, Report, excerpt};
use crate::fields::{At, Fields};
use crate::parse::name_fits;
use crate::parse_args::unknown_type;
use crate::scope::Scope;
use crate::types::TYPES;

/// What manifests are read with, beside their own text. The default has no custom type, no
/// scope and no executable parser.
#[derive(Clone, Debug, Default)]
pub struct Project {
    pub(crate) types: Types,
    pub(crate) scope: Option<Arc<Scope>>,
    pub(crate) parsers: BTreeSet<String>,
    /// Of the texts it was made of; empty if there are none.
    pub(crate) digest: String,
}

impl Project {
    /// Reads `toolclad.toml`: `[types.NAME]` tables and, if it has one, the `[scope]`. Types
    /// without errors can be used even where others have some.
    #[must_use]
    pub fn with_types(mut self, text: &str) -> (Self, Vec<Diagnostic>) {
        let ((types, scope), found) = Types::parse(text);
        self.types = types;
        if let Some(scope) = scope {
            self.scope = Some(Arc::new(scope));
        }
        self.digest = Digest::of(format!("{}types\n{text}", self.digest)).to_string();
        (self, found)
    }

    /// Reads a scope file. One with an error leaves the project without a scope, so that
    /// everything that needs one is refused.
    #[must_use]
    pub fn with_scope(mut self, text: &str) -> (Self, Vec<Diagnostic>) {
        let (scope, found) = Scope::parse(text);
        self.scope = scope.map(Arc::new);
        self.digest = Digest::of(format!("{}scope\n{text}", self.digest)).to_string();
        (self, found)
    }

    /// Allows executable parsers, by the exact text a manifest names them with.
    #[must_use]
    pub fn with_parsers(mut self, parsers: impl IntoIterator<Item = String>) -> Self {
        self.parsers.extend(parsers);
        self
    }
}

/// The custom types that have no error.
#[derive(Clone, Debug, Default)]
pub(crate) struct Types {
    good: BTreeMap<String, Typed>,
    broken: HashSet<String>,
}

impl Types {
    pub(crate) fn find(&self, name: &str) -> Option<&Typed> {
        self.good.get(name)
    }

    pub(crate) fn is_broken(&self, name: &str) -> bool {
        self.broken.contains(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.good.keys().map(String::as_str)
    }

    fn parse(text: &str) -> ((Self, Option<Scope>), Vec<Diagnostic>) {
        let mut scope = None;
        let mut types = Self::default();
        let (_, found) = crate::parse::document(text, |mut root, report| {
            let table = root.table("types", report);
            scope = root.table("scope", report).map(|table| crate::scope::read(table, report));
            root.finish(report);
            if let Some(table) = table {
                types = Self::read(table, report);
            }
            Some(())
        });
        let failed = found.iter().any(|d| d.severity == crate::Severity::Error);
        ((types, scope.filter(|_| !failed)), found)
    }

    fn read(mut table: Fields<'_>, report: &mut Report) -> Self {
        let mut left: Vec<(At<&str>, At<&str>, Fields<'_>)> = Vec::new();
        let mut types = Self::default();
        for (name, node) in table.rest() {
            let mut good = name_fits(&name, "a type name", report);
            if TYPES.iter().any(|(word, _)| *word == name.value) {
                let message = format!("`{}` is a built-in type", name.value);
                report.error("type_shadows", &name.span, message).fix("give it another name");
                good = false;
            }
            let path = format!("[types.{}]", excerpt(name.value));
            let read = Fields::of(&path, node, report).and_then(|mut fields| {
                let base = fields.required("base", report)?;
                Some((base, fields))
            });
            match read {
                Some((base, fields)) if good => left.push((name, base, fields)),
                _ => {
                    types.broken.insert(name.value.to_owned());
                }
            }
        }
        // Each round settles the types whose base is settled. What is left is a cycle, or hangs
        // on one.
        loop {
            let waiting: HashSet<&str> = left.iter().map(|(name, ..)| name.value).collect();
            let (ready, rest): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|(_, base, _)| !waiting.contains(base.value));
            left = rest;
            if ready.is_empty() {
                break;
            }
            for (name, base, fields) in ready {
                types.settle(&name, &base, fields, report);
            }
        }
        for (name, base, _) in left {
            let (shown, base_name) = (excerpt(name.value), excerpt(base.value));
            let message = format!("`{shown}` is based on `{base_name}`, which leads back to it");
            report.error("type_cycle", &base.span, message).fix("base it on a built-in type");
            types.broken.insert(name.value.to_owned());
        }
        types
    }

    fn settle(
        &mut self,
        name: &At<&str>,
        base: &At<&str>,
        mut fields: Fields<'_>,
        report: &mut Report,
    ) {
        let before = report.errors();
        fields.string("description", report);
        let known = Typed::builtin(base.value).or_else(|| self.find(base.value).cloned());
        match known {
            None => {
                Typed::ignore(&mut fields);
                unknown_type(base, self, report);
            }
            Some(typed) => {
                let mut typed = typed.read(&mut fields, true, report);
                typed.complete(&fields, report);
                typed.custom = Some(name.value.to_owned());
                self.good.insert(name.value.to_owned(), typed);
            }
        }
        fields.finish(report);
        if report.errors() > before {
            self.good.remove(name.value);
            self.broken.insert(name.value.to_owned());
        }
    }
}
