//! Arguments in, one plan out.

use std::fmt;

use countersign_core::plan::{CallbackPlan, CommandPlan, ExecutorPlan, McpPlan, Piece, Plan};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::command::{Command, Item, Part, Token};
use crate::diagnostic::excerpt;
use crate::http::Values;
use crate::manifest::{Arg, Backend, Manifest};
use crate::types::{Kind, Refusal};

/// Problems reported of one call; a call with more is refused all the same.
pub(crate) const MAX_PROBLEMS: usize = 32;

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
    /// Its name; shortened and escaped if the manifest does not declare it. Empty if it is about
    /// all of the arguments.
    pub arg: String,
    /// Why, with at most a short, escaped piece of the value.
    pub message: String,
}

impl ArgProblem {
    pub(crate) fn new(arg: &str, Refusal { code, message }: Refusal) -> Self {
        Self { code, arg: arg.to_owned(), message }
    }
}

impl fmt::Display for ArgProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.arg.is_empty() { "" } else { ": " };
        write!(f, "{}{between}{} ({})", self.arg, self.message, self.code)
    }
}

impl Manifest {
    /// Decides what a call with these arguments would do. Equal arguments give equal plans.
    ///
    /// # Errors
    /// One problem for each argument that is unknown, missing or refused by its type or the
    /// scope, at most 32 of them. A session or browser has no plan yet.
    pub fn plan(&self, args: &Map<String, Value>) -> Result<Planned, Vec<ArgProblem>> {
        if let Backend::Upstream(upstream) = &self.backend {
            return upstream.plan(args);
        }
        if matches!(self.backend, Backend::Session(_) | Backend::Browser(_)) {
            let message = "sessions and browsers are checked, but cannot be run yet".to_owned();
            return Err(vec![ArgProblem { code: "not_runnable", arg: String::new(), message }]);
        }
        let mut problems = Vec::new();
        let mut values: Vec<Option<String>> = Vec::with_capacity(self.args.len());
        for arg in &self.args {
            let result = match (args.get(&arg.name), &arg.default) {
                (Some(value), _) => arg.ty.resolve(value).map(Some),
                (None, Some(default)) => Ok(Some(default.text.clone())),
                (None, None) if arg.required => {
                    Err(Refusal { code: "missing_argument", message: "is required".to_owned() })
                }
                (None, None) => Ok(None),
            };
            let result = result.and_then(|value| match &value {
                Some(text) => {
                    let scopes = self.scopes.iter().map(AsRef::as_ref);
                    arg.ty.in_scope(text, scopes).map(|()| value)
                }
                None => Ok(value),
            });
            values.push(result.unwrap_or_else(|refusal| {
                problems.push(ArgProblem::new(&arg.name, refusal));
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
        let plan = self.effect(&values).map_err(|problem| vec![problem])?;
        let named = |(arg, value): (&Arg, Option<String>)| Some((arg.name.clone(), value?));
        let args = self.args.iter().zip(values).filter_map(named).collect();
        Ok(Planned { plan, args })
    }

    fn effect(&self, values: &[Option<String>]) -> Result<Plan, ArgProblem> {
        let present = || {
            let named = self.args.iter().zip(values);
            named.filter_map(|(arg, value)| Some((arg, value.as_deref()?)))
        };
        let arguments = |fields: &mut dyn Iterator<Item = &str>| {
            let named = self.args.iter().zip(values).zip(fields);
            let there = named.filter_map(|((arg, value), field)| {
                let value = arg.ty.json(value.as_deref()?);
                let value = value.map_err(|refusal| ArgProblem::new(&arg.name, refusal));
                Some(value.map(|value| (field.to_owned(), value)))
            });
            there.collect::<Result<Map<String, Value>, ArgProblem>>()
        };
        Ok(match &self.backend {
            Backend::Command(command) => Plan::Command(self.build(command, values)),
            Backend::Executor(executor) => {
                let mut plan = ExecutorPlan {
                    executor: executor.clone(),
                    env: Default::default(),
                    paths: Vec::new(),
                    credentials: Vec::new(),
                };
                for (arg, value) in present() {
                    let name = format!("TOOLCLAD_ARG_{}", arg.name.to_ascii_uppercase());
                    plan.env.insert(name, value.to_owned());
                    note_path(arg, value, &mut plan.paths, &mut plan.credentials);
                }
                Plan::Executor(plan)
            }
            Backend::Http(http) => {
                let plan = http.plan(&Values { args: &self.args, values });
                Plan::Http(plan.map_err(|(i, refusal)| {
                    let name = self.args.get(i).map_or("", |arg| arg.name.as_str());
                    ArgProblem::new(name, refusal)
                })?)
            }
            Backend::Mcp(mcp) => Plan::Mcp(McpPlan {
                server: mcp.server.clone(),
                tool: mcp.tool.clone(),
                arguments: arguments(&mut mcp.fields.iter().map(String::as_str))?,
            }),
            Backend::Callback
            | Backend::Session(_)
            | Backend::Browser(_)
            | Backend::Upstream(_) => Plan::Callback(CallbackPlan {
                callback: self.name.clone(),
                arguments: arguments(&mut self.args.iter().map(|arg| arg.name.as_str()))?,
            }),
        })
    }

    fn build(&self, command: &Command, values: &[Option<String>]) -> CommandPlan {
        let mut out = Builder {
            args: &self.args,
            end_of_options: &command.end_of_options,
            values,
            ended: command.end_of_options.is_empty(),
            plan: CommandPlan {
                argv: Vec::with_capacity(command.items.len() + 1),
                ..CommandPlan::default()
            },
        };
        for item in &command.items {
            match item {
                Item::Token(token) => out.push(token),
                Item::Mapping(i) => {
                    let Some(mapping) = command.mappings.get(*i) else {
                        continue;
                    };
                    let value = values.get(mapping.arg).and_then(Option::as_ref);
                    let tokens = mapping.values.iter().find(|(key, _)| Some(key) == value);
                    tokens.iter().flat_map(|(_, tokens)| tokens).for_each(|t| out.push(t));
                }
                Item::Conditional(i) => {
                    let found = command.conditionals.get(*i);
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
    args: &'a [Arg],
    end_of_options: &'a str,
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
                    if let Some(arg) = self.args.get(*i) {
                        let CommandPlan { paths, credentials, .. } = &mut self.plan;
                        note_path(arg, value, paths, credentials);
                    }
                }
            }
        }
        if token.operand && !self.ended {
            self.plan.argv.push(self.end_of_options.to_owned());
        }
        self.ended |= token.operand || token.terminator;
        self.plan.argv.push(text);
    }
}

/// Remembers a value that must be looked at in the file system before it is used.
fn note_path(arg: &Arg, value: &str, paths: &mut Vec<String>, credentials: &mut Vec<String>) {
    let note = |list: &mut Vec<String>| {
        if !list.iter().any(|known| known == value) {
            list.push(value.to_owned());
        }
    };
    match arg.ty.kind {
        Kind::Path(_) => note(paths),
        Kind::Credential(_) => {
            note(paths);
            note(credentials);
        }
        _ => {}
    }
}

/// The plan as a person reads it: one line, quoted only where needed, every invisible
/// character escaped, secrets as `{_secret:name}`. It is never executed, and not every shell
/// reads it back.
#[must_use]
pub fn render_command(plan: &Plan) -> String {
    let words: Vec<String> = match plan {
        Plan::Command(command) => command.argv.clone(),
        Plan::Executor(executor) => {
            let env = executor.env.iter().map(|(name, value)| format!("{name}={value}"));
            env.chain([executor.executor.clone()]).collect()
        }
        Plan::Http(http) => {
            let mut words = vec![http.method.clone(), http.url.clone()];
            let headers = http.headers.iter();
            words.extend(headers.map(|h| format!("{}: {}", h.name, pieces(&h.value))));
            words.extend(http.body.iter().map(|body| pieces(body)));
            words
        }
        Plan::Mcp(mcp) => {
            let arguments = Value::Object(mcp.arguments.clone()).to_string();
            vec![mcp.server.clone(), mcp.tool.clone(), arguments]
        }
        Plan::Callback(callback) => {
            let arguments = Value::Object(callback.arguments.clone()).to_string();
            vec![callback.callback.clone(), arguments]
        }
    };
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn pieces(pieces: &[Piece]) -> String {
    let text = pieces.iter().map(|piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Secret(secret) => format!("{{_secret:{}}}", secret.secret),
    });
    text.collect()
}

fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    if word.chars().any(countersign_core::text::hides) {
        let shown = countersign_core::text::visible(word).replace('\'', r"\'");
        return format!("$'{shown}'");
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
