//! Arguments in, one plan out.

use std::fmt;

use countersign_core::plan::{CommandPlan, Plan};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::command::{Item, Part, Token};
use crate::diagnostic::excerpt;
use crate::manifest::Manifest;
use crate::types::{Kind, Refusal};

/// Problems reported of one call; a call with more is refused all the same.
const MAX_PROBLEMS: usize = 32;

/// A call that passed every check, and what it will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The effect.
    pub plan: Plan,
    /// Every argument that has a value, defaults included, in the order of
    /// [`Manifest::args`], as the text that stands in the plan.
    pub args: Vec<(String, String)>,
}

/// One argument that is refused, and the first reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ArgProblem {
    /// Stable; the crate documentation lists them.
    pub code: &'static str,
    /// Its name; shortened and escaped if the manifest does not declare it.
    pub arg: String,
    /// Why, with at most a short, escaped piece of the value.
    pub message: String,
}

impl fmt::Display for ArgProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.arg, self.message, self.code)
    }
}

impl Manifest {
    /// Decides what a call with these arguments would do. Equal arguments give equal plans.
    ///
    /// # Errors
    /// One problem for each argument that is unknown, missing or refused by its type, at most
    /// 32 of them.
    pub fn plan(&self, args: &Map<String, Value>) -> Result<Planned, Vec<ArgProblem>> {
        let mut problems = Vec::new();
        let mut values: Vec<Option<String>> = Vec::with_capacity(self.args.len());
        for arg in &self.args {
            let result = match (args.get(&arg.name), &arg.default) {
                (Some(value), _) => arg.ty.resolve(value).map(Some),
                (None, _) if arg.required => {
                    Err(Refusal { code: "missing_argument", message: "is required".to_owned() })
                }
                (None, Some(default)) => Ok(Some(default.text.clone())),
                (None, None) => Ok(None),
            };
            values.push(result.unwrap_or_else(|Refusal { code, message }| {
                problems.push(ArgProblem { code, arg: arg.name.clone(), message });
                None
            }));
        }
        for name in args.keys().filter(|name| !self.index.contains_key(*name)) {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            let message = format!("{} has no such argument", self.name);
            problems.push(ArgProblem { code: "unknown_argument", arg: excerpt(name), message });
        }
        if !problems.is_empty() {
            problems.truncate(MAX_PROBLEMS);
            return Err(problems);
        }
        let plan = Plan::Command(self.build(&values));
        let named = |(arg, value): (&crate::Arg, Option<String>)| Some((arg.name.clone(), value?));
        let args = self.args.iter().zip(values).filter_map(named).collect();
        Ok(Planned { plan, args })
    }

    fn build(&self, values: &[Option<String>]) -> CommandPlan {
        let mut out = Builder {
            manifest: self,
            values,
            ended: self.command.end_of_options.is_empty(),
            plan: CommandPlan { argv: Vec::with_capacity(16), paths: Vec::new() },
        };
        for item in &self.command.items {
            match item {
                Item::Token(token) => out.push(token),
                Item::Mapping(i) => {
                    let Some(mapping) = self.command.mappings.get(*i) else {
                        continue;
                    };
                    let value = values.get(mapping.arg).and_then(Option::as_ref);
                    let tokens = mapping.values.iter().find(|(key, _)| Some(key) == value);
                    tokens.iter().flat_map(|(_, tokens)| tokens).for_each(|t| out.push(t));
                }
                Item::Conditional(i) => {
                    let found = self.command.conditionals.get(*i);
                    if let Some(conditional) = found.filter(|c| c.when.holds(values)) {
                        conditional.tokens.iter().for_each(|t| out.push(t));
                    }
                }
            }
        }
        out.plan
    }
}

struct Builder<'a> {
    manifest: &'a Manifest,
    values: &'a [Option<String>],
    /// Whether nothing that follows can be read as an option, or nobody asked for that.
    ended: bool,
    plan: CommandPlan,
}

impl Builder<'_> {
    fn push(&mut self, token: &Token) {
        let value = |i: &usize| self.values.get(*i).and_then(Option::as_deref);
        if token.needs.iter().any(|i| value(i).is_none()) {
            return;
        }
        let mut text = String::new();
        for part in &token.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Arg(i) => {
                    let value = value(i).unwrap_or_default();
                    text.push_str(value);
                    let is_path = |arg: &crate::Arg| matches!(arg.ty.kind, Kind::Path(_));
                    if self.manifest.args.get(*i).is_some_and(is_path)
                        && !self.plan.paths.iter().any(|p| p == value)
                    {
                        self.plan.paths.push(value.to_owned());
                    }
                }
            }
        }
        if token.operand && !self.ended {
            self.plan.argv.push(self.manifest.command.end_of_options.clone());
        }
        self.ended |= token.operand || token.terminator;
        self.plan.argv.push(text);
    }
}

/// The plan as a person reads it: one line, quoted only where needed, every invisible
/// character escaped. It is never executed, and not every shell reads it back.
#[must_use]
pub fn render_command(plan: &Plan) -> String {
    let Plan::Command(command) = plan;
    let word = |element: &String| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&b);
        if !element.is_empty() && element.bytes().all(plain) {
            return element.clone();
        }
        let quoted = element.replace('\'', r"'\''");
        let lines = quoted.chars().any(countersign_core::text::hides);
        if lines {
            let shown = countersign_core::text::visible(element).replace('\'', r"\'");
            format!("$'{shown}'")
        } else {
            format!("'{quoted}'")
        }
    };
    command.argv.iter().map(word).collect::<Vec<_>>().join(" ")
}
