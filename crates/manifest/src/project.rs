//! What the manifests of one folder share: custom types, a scope, and which parsers may run.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use countersign_core::digest::Digest;

use crate::constraints::Typed;
use crate::diagnostic::{Diagnostic, Report, Severity, excerpt};
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
        let (types, scope, mut found) = Types::parse(text);
        self.types = types;
        if let Some(FoundScope { at, scope }) = scope {
            self.set_scope(at, scope, &mut found);
        }
        self.digest = Digest::of(format!("{}types\n{text}", self.digest)).to_string();
        (self, found)
    }

    /// Reads a scope file. With an error in it, or if there was a scope already (also one in
    /// `toolclad.toml`), every value that has to be within the scope is refused, whatever a
    /// manifest's own `[scope]` says.
    #[must_use]
    pub fn with_scope(mut self, text: &str) -> (Self, Vec<Diagnostic>) {
        let (scope, mut found) = Scope::parse(text);
        self.set_scope(0..0, scope, &mut found);
        self.digest = Digest::of(format!("{}scope\n{text}", self.digest)).to_string();
        (self, found)
    }

    /// Says that there is a file which might hold a scope, and which cannot be read: every value
    /// that has to be within the scope is refused. `why` is told to whoever calls a tool.
    #[must_use]
    pub fn with_unreadable_scope(mut self, why: &str) -> Self {
        self.scope = Some(Arc::new(Scope::broken(why.to_owned())));
        self.digest = Digest::of(format!("{}unreadable\n{why}", self.digest)).to_string();
        self
    }

    /// `None` is a scope with an error, which is among those found.
    fn set_scope(&mut self, at: Range<usize>, scope: Option<Scope>, found: &mut Vec<Diagnostic>) {
        let scope = match (&self.scope, scope) {
            (Some(_), _) => {
                let message = "the folder has a scope already, in another file".to_owned();
                let fix =
                    Some("keep one: scope.toml, scope/scope.toml or toolclad.toml".to_owned());
                let (code, severity) = ("several_scopes", Severity::Error);
                found.push(Diagnostic { code, severity, span: at, message, fix });
                Err("there is more than one for the folder".to_owned())
            }
            (None, Some(scope)) => Ok(scope),
            (None, None) => Err(found
                .iter()
                .find(|d| d.severity == Severity::Error)
                .map_or_else(String::new, |d| d.message.clone())),
        };
        self.scope = Some(Arc::new(scope.unwrap_or_else(Scope::broken)));
    }

    /// Allows executable parsers, by the exact text a manifest names them with.
    #[must_use]
    pub fn with_parsers(mut self, parsers: impl IntoIterator<Item = String>) -> Self {
        self.parsers.extend(parsers);
        self
    }
}

/// A scope that is there, with or without an error.
struct FoundScope {
    at: Range<usize>,
    scope: Option<Scope>,
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

    /// Also gives the `[scope]`, if the text has one or might have.
    fn parse(text: &str) -> (Self, Option<FoundScope>, Vec<Diagnostic>) {
        let mut scope = None;
        // Whether nothing else than [scope] can be one.
        let mut clear = false;
        let mut types = Self::default();
        let (_, found) = crate::parse::document(text, |mut root, report| {
            let table = root.table("types", report);
            let found = root.table("scope", report).map(|table| crate::scope::read(table, report));
            scope = root.span_of("scope").map(|at| FoundScope { at, scope: found });
            let before = report.errors();
            root.finish(report);
            clear = report.errors() == before;
            if let Some(table) = table {
                types = Self::read(table, report);
            }
            Some(())
        });
        let failed = found.iter().any(|d| d.severity == Severity::Error);
        let scope = match scope {
            Some(found) => Some(FoundScope { scope: found.scope.filter(|_| !failed), ..found }),
            // `[scop]` may be meant for one, and so may a text that is no TOML.
            None if !clear => Some(FoundScope { at: 0..0, scope: None }),
            None => None,
        };
        (types, scope, found)
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
