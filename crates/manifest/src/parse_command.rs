//! The `[command]` table: names become argument numbers, text becomes tokens.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::command::{Command, Conditional, Item, Mapping, Part, Token};
use crate::diagnostic::{Report, excerpt};
use crate::fields::{At, Fields};
use crate::manifest::{Arg, Backend};
use crate::parse::name_fits;
use crate::parse_args::{Args, check_default, fixed_text};
use crate::program;
pub(crate) use crate::program::Program;
use crate::template::{self, RawPart, RawToken, TemplateError};
use crate::types::Kind;
use crate::when::{Var, When, WhenError, ambiguous};

/// Values that only an executor could fill in.
const LATER_HOLES: &[&str] = &["_scan_id", "_output_file", "_evidence_dir"];

#[derive(Clone, Copy)]
enum Splice {
    Mapping(usize),
    Conditional(usize),
}

/// What the names in the command text stand for.
struct Names {
    args: HashMap<String, usize>,
    /// `[command.defaults]` that belong to no argument.
    fixed: HashMap<String, String>,
    splices: HashMap<String, Vec<Splice>>,
    /// Other names of mappings, for what nothing else is called.
    aliases: HashMap<String, Vec<Splice>>,
    /// Names that a reported error keeps from meaning anything.
    broken: HashSet<String>,
}

struct Reader<'r> {
    names: Names,
    args: &'r mut [At<Arg>],
    /// Arguments that can reach the plan.
    used: HashSet<usize>,
    command: Command,
    report: &'r mut Report,
}

pub(crate) fn read(
    mut table: Fields<'_>,
    args: &mut Args,
    program: Program<'_>,
    report: &mut Report,
) -> Backend {
    let exec = table.strings("exec", report);
    let template = table.string("template", report);
    let executor = table.string("executor", report);
    let end = table.string("end_of_options", report);
    let defaults = table.table("defaults", report);
    let mappings = table.table("mappings", report);
    let conditionals = table.table("conditionals", report);
    match ["exec", "template", "executor"].iter().filter(|key| table.knew(key)).count() {
        0 => {
            let message = "[command] needs `exec`, `template` or `executor`";
            report.error("no_backend", table.span(), message);
        }
        1 => {}
        _ => {
            let message = "[command] has one of `exec`, `template`, `executor`, not several";
            report.error("several_backends", table.span(), message);
        }
    }
    table.outdated("child_detection", "leave it out: all processes of a call are found", report);
    table.finish(report);

    let mut reader = Reader::new(args, report);
    if let Some(end) = end {
        reader.end_of_options(&end);
    }
    if let Some(table) = defaults {
        reader.defaults(table);
    }
    let mappings = mappings.map_or_else(Vec::new, |table| reader.mappings(table));
    let conditionals = conditionals.map_or_else(Vec::new, |table| reader.conditionals(table));
    let uses = Uses { mappings: &mappings, conditionals: &conditionals };
    match (exec, template, executor) {
        (Some(exec), _, _) => reader.exec(exec, program, uses),
        (None, Some(text), _) => reader.template(&text, program, uses),
        (None, None, Some(executor)) => {
            reader.unused(uses, true);
            return Backend::Executor(program::executor(&executor, program, reader.report));
        }
        (None, None, None) => {}
    }
    Backend::Command(reader.command)
}

/// The command of a session: a template without mappings and conditionals.
pub(crate) fn startup(
    text: &At<&str>,
    args: &mut Args,
    program: Program<'_>,
    report: &mut Report,
) -> Command {
    let mut reader = Reader::new(args, report);
    reader.template(text, program, Uses { mappings: &[], conditionals: &[] });
    reader.command
}

/// Where the mappings and conditionals stand that should be used.
#[derive(Clone, Copy)]
struct Uses<'a> {
    mappings: &'a [Range<usize>],
    conditionals: &'a [Range<usize>],
}

impl<'r> Reader<'r> {
    fn new(args: &'r mut Args, report: &'r mut Report) -> Self {
        let index = args.good.iter().enumerate().map(|(i, a)| (a.value.name.clone(), i)).collect();
        let names = Names {
            args: index,
            fixed: HashMap::new(),
            splices: HashMap::new(),
            aliases: HashMap::new(),
            broken: args.bad.clone(),
        };
        let command = Command { end_of_options: "--".to_owned(), ..Command::default() };
        Self { names, args: &mut args.good, used: HashSet::new(), command, report }
    }

    fn exec(&mut self, exec: At<Vec<At<&str>>>, program: Program<'_>, uses: Uses<'_>) {
        if exec.value.is_empty() {
            self.report.error("empty_value", &exec.span, "`exec` must not be empty");
        }
        let read = |e: At<&str>| {
            let token = self.text(template::element(e.value), &e.span)?;
            Some((token, e.span))
        };
        let raw = exec.value.into_iter().filter_map(read).collect();
        self.build(raw, program, uses);
    }

    fn template(&mut self, text: &At<&str>, program: Program<'_>, uses: Uses<'_>) {
        if text.value.trim().is_empty() {
            self.report.error("empty_value", &text.span, "the command must not be empty");
        }
        let tokens = self.text(template::split(text.value), &text.span).unwrap_or_default();
        let raw = tokens.into_iter().map(|token| (token, text.span.clone())).collect();
        self.build(raw, program, uses);
    }

    fn build(&mut self, raw: Vec<(RawToken, Range<usize>)>, program: Program<'_>, uses: Uses<'_>) {
        if raw.is_empty() {
            return;
        }
        let spans = self.items(raw);
        if let (Some(item), Some(span)) = (self.command.items.first(), spans.first()) {
            let fixed = match item {
                Item::Token(token) => token.fixed().filter(|text| !text.is_empty()),
                _ => None,
            };
            program::check(fixed, span, program, self.report);
        }
        self.order(&spans);
        self.unused(uses, false);
    }
}

impl Reader<'_> {
    fn end_of_options(&mut self, end: &At<&str>) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if end.value.is_empty() || end.value.starts_with('-') && end.value.bytes().all(plain) {
            end.value.clone_into(&mut self.command.end_of_options);
        } else {
            let message = "`end_of_options` must be an option, such as `--`, or empty";
            self.report.error("bad_end_of_options", &end.span, message);
        }
    }

    fn defaults(&mut self, mut table: Fields<'_>) {
        for (name, node) in table.rest() {
            if !name_fits(&name, "a name", self.report) || self.names.broken.contains(name.value) {
                continue;
            }
            let arg = self.names.args.get(name.value).and_then(|i| self.args.get_mut(*i));
            if let Some(arg) = arg {
                if arg.value.required {
                    let message = "with a default, a call without it is not refused";
                    self.report.warn("required_with_default", &name.span, message);
                }
                if let Some(default) = check_default(&arg.value.ty, node, self.report) {
                    arg.value.default = Some(default);
                }
            } else if let Some(text) = fixed_text(node, self.report) {
                self.names.fixed.insert(name.value.to_owned(), text);
            } else {
                self.names.broken.insert(name.value.to_owned());
            }
        }
    }

    /// Gives the place of each mapping.
    fn mappings(&mut self, mut table: Fields<'_>) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        for (name, node) in table.rest() {
            let shown = excerpt(name.value);
            let own = format!("_{}_flags", name.value);
            let short = name.value.strip_suffix("_type").map(|short| format!("_{short}_flags"));
            let aliases = [format!("_{}", name.value)].into_iter().chain(short);
            let found = self.names.args.get(name.value).copied();
            let Some((arg, Some(words))) = found.map(|i| (i, self.words(i))) else {
                if found.is_some() {
                    let message = format!("`{shown}` is neither an enum nor a boolean");
                    self.report.error("mapping_type", &name.span, message);
                } else if !self.names.broken.contains(name.value) {
                    let message = format!("there is no argument `{shown}` to map");
                    self.report
                        .error("mapping_unknown_argument", &name.span, message)
                        .nearest(name.value, self.names.args.keys().map(String::as_str));
                }
                self.names.broken.extend(aliases.chain([own]));
                continue;
            };
            let path = format!("[command.mappings.{shown}]");
            let mut mapping = Mapping { arg, values: Vec::new() };
            let mut given = HashSet::new();
            if let Some(mut entries) = Fields::of(&path, node, self.report) {
                for (key, node) in entries.rest() {
                    given.insert(key.value);
                    if !words.iter().any(|w| w == key.value) {
                        let message = format!("`{shown}` is never `{}`", excerpt(key.value));
                        self.report
                            .error("mapping_unknown_value", &key.span, message)
                            .nearest(key.value, words.iter().map(String::as_str));
                    } else if let Some(text) = node.get_ref().as_str() {
                        let tokens = self.fragment(text, &node.span());
                        mapping.values.push((key.value.to_owned(), tokens));
                    } else {
                        let message = "a mapping gives command text, a string";
                        self.report.error("wrong_type", &node.span(), message);
                    }
                }
                for word in words.iter().filter(|w| !given.contains(w.as_str())) {
                    let message = format!("{path} has nothing for `{}`", excerpt(word));
                    self.report.error("mapping_incomplete", &name.span, message);
                }
            }
            let splice = Splice::Mapping(self.command.mappings.len());
            self.names.splices.entry(own).or_default().push(splice);
            for alias in aliases {
                self.names.aliases.entry(alias).or_default().push(splice);
            }
            self.command.mappings.push(mapping);
            spans.push(name.span);
        }
        spans
    }

    /// Every value of an argument that has only a few.
    fn words(&self, arg: usize) -> Option<Vec<String>> {
        match &self.args.get(arg)?.value.ty.kind {
            Kind::Enum(allowed) => Some(allowed.clone()),
            Kind::Boolean => Some(vec!["true".to_owned(), "false".to_owned()]),
            _ => None,
        }
    }

    /// Gives the place of each conditional.
    fn conditionals(&mut self, mut table: Fields<'_>) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        for (name, node) in table.rest() {
            name_fits(&name, "a name", self.report);
            let hole = format!("_{}", name.value);
            let path = format!("[command.conditionals.{}]", excerpt(name.value));
            let read = Fields::of(&path, node, self.report).and_then(|mut fields| {
                let when = fields.required("when", self.report);
                let template = fields.required("template", self.report);
                fields.finish(self.report);
                let when = when.and_then(|when| self.when(&when));
                let tokens = template.map(|t| self.fragment(t.value, &t.span));
                Some(Conditional { when: when?, tokens: tokens? })
            });
            if let Some(conditional) = read {
                let splice = Splice::Conditional(self.command.conditionals.len());
                self.names.splices.entry(hole).or_default().push(splice);
                self.command.conditionals.push(conditional);
                spans.push(name.span);
            } else {
                self.names.broken.insert(hole);
            }
        }
        spans
    }

    fn when(&mut self, text: &At<&str>) -> Option<When> {
        let names = &self.names;
        let find = |name: &str| match names.args.get(name) {
            Some(i) => Some(Var::Arg(*i)),
            None => names.fixed.get(name).cloned().map(Var::Fixed),
        };
        let parsed = When::parse(text.value, &find).and_then(|when| {
            match when.bare_name(&|word| find(word).is_some()) {
                Some(word) => Err(WhenError::Syntax(ambiguous(word))),
                None => Ok(when),
            }
        });
        match parsed {
            Ok(when) => {
                when.args(&mut |i| {
                    self.used.insert(i);
                });
                Some(when)
            }
            Err(WhenError::Syntax(message)) => {
                self.report.error("bad_when", &text.span, format!("`when`: {message}"));
                None
            }
            Err(WhenError::Unknown(name)) => {
                if !self.names.broken.contains(&name) {
                    let message = format!("`when` names `{name}`, which is no argument");
                    self.report
                        .error("when_unknown_argument", &text.span, message)
                        .nearest(&name, self.names.args.keys().map(String::as_str));
                }
                None
            }
        }
    }

    fn text<T>(&mut self, read: Result<T, TemplateError>, span: &Range<usize>) -> Option<T> {
        read.map_err(|(code, message)| {
            self.report.error(code, span, message);
        })
        .ok()
    }

    /// The tokens of a mapping's value or a conditional: no program, no splice inside.
    fn fragment(&mut self, text: &str, span: &Range<usize>) -> Vec<Token> {
        let raw = self.text(template::split(text), span).unwrap_or_default();
        let mut tokens: Vec<_> = raw.into_iter().map(|raw| self.token(raw, span)).collect();
        let follows = self.link(&mut tokens.iter_mut().map(Some).collect::<Vec<_>>());
        let mut ended = false;
        for (token, follows) in tokens.iter().zip(follows) {
            ended |= token.terminator;
            self.dash(token, follows, ended, span);
        }
        tokens
    }

    /// The items of the command itself, with the place of each.
    fn items(&mut self, raw: Vec<(RawToken, Range<usize>)>) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        let mut items = Vec::new();
        for (raw, span) in raw {
            items.push(match self.splice(&raw, &span) {
                Some(Splice::Mapping(i)) => {
                    self.used.extend(self.command.mappings.get(i).map(|m| m.arg));
                    Item::Mapping(i)
                }
                Some(Splice::Conditional(i)) => Item::Conditional(i),
                None => Item::Token(self.token(raw, &span)),
            });
            spans.push(span);
        }
        let mut tokens: Vec<_> = items
            .iter_mut()
            .enumerate()
            .map(|(i, item)| match item {
                Item::Token(token) if i > 0 => Some(token),
                _ => None,
            })
            .collect();
        let follows = self.link(&mut tokens);
        let mut ended = false;
        for ((item, span), follows) in items.iter().zip(&spans).zip(follows) {
            let Item::Token(token) = item else { continue };
            ended |= token.terminator;
            self.dash(token, follows, ended, span);
        }
        self.command.items = items;
        spans
    }

    fn splice(&mut self, raw: &RawToken, span: &Range<usize>) -> Option<Splice> {
        let [RawPart::Hole(name)] = raw.0.as_slice() else {
            return None;
        };
        let found = self.names.splices.get(name).or_else(|| self.names.aliases.get(name))?;
        if found.len() > 1 {
            let message =
                format!("`{{{name}}}` names two mappings, or a mapping and a conditional");
            self.report
                .error("ambiguous_placeholder", span, message)
                .fix("write `{_ARG_flags}` with the whole name, or rename the conditional");
        }
        found.first().copied()
    }

    fn token(&mut self, raw: RawToken, span: &Range<usize>) -> Token {
        let mut token = Token::default();
        for part in raw.0 {
            let text = match part {
                RawPart::Text(text) => Some(text),
                RawPart::Hole(name) => match self.names.args.get(&name) {
                    Some(i) => {
                        self.used.insert(*i);
                        token.parts.push(Part::Arg(*i));
                        None
                    }
                    None => {
                        let fixed = self.names.fixed.get(&name).cloned();
                        if fixed.is_none() && !self.names.broken.contains(&name) {
                            self.unknown_hole(&name, span);
                        }
                        fixed
                    }
                },
            };
            match (token.parts.last_mut(), text) {
                (_, None) => {}
                (Some(Part::Text(last)), Some(text)) => last.push_str(&text),
                (_, Some(text)) => token.parts.push(Part::Text(text)),
            }
        }
        token.needs = token.args().collect();
        token.terminator = token
            .fixed()
            .is_some_and(|t| t == "--" || (!t.is_empty() && t == self.command.end_of_options));
        let literal =
            |i: &usize| self.args.get(*i).is_some_and(|a| matches!(a.value.ty.kind, Kind::Literal));
        if token.needs.iter().any(literal) && !stands_alone(&token) {
            self.report
                .error("literal_text_not_alone", span, "a literal_text is an element of its own")
                .fix("write `{name}` or `--option={name}`");
        }
        token
    }

    fn unknown_hole(&mut self, name: &str, span: &Range<usize>) {
        if name.starts_with("_secret:") || LATER_HOLES.contains(&name) {
            let message = format!("`{{{name}}}` is not supported yet");
            self.report.error("unsupported_placeholder", span, message);
        } else if self.names.splices.contains_key(name) || self.names.aliases.contains_key(name) {
            let message = format!("`{{{name}}}` gives whole tokens and must stand alone");
            self.report.error("splice_not_alone", span, message);
        } else {
            let names = &self.names;
            let known = names.args.keys().chain(names.fixed.keys()).chain(names.splices.keys());
            self.report
                .error("unknown_placeholder", span, format!("`{{{name}}}` stands for nothing"))
                .nearest(name, known.map(String::as_str));
        }
    }

    /// Ties each flag to the value after it, and finds the operands. Says which tokens are
    /// the value of a flag.
    fn link(&self, tokens: &mut [Option<&mut Token>]) -> Vec<bool> {
        let mut follows = vec![false];
        let mut needs = Vec::new();
        for pair in tokens.windows(2) {
            let tied = match pair {
                [Some(flag), Some(value)] if flag.is_flag() => {
                    !value.needs.is_empty() && !value.leads_with_dash()
                }
                _ => false,
            };
            let value = pair.last().and_then(Option::as_ref).filter(|_| tied);
            needs.push(value.map(|v| v.needs.clone()));
            follows.push(tied);
        }
        for (token, needs) in tokens.iter_mut().zip(needs) {
            if let (Some(token), Some(needs)) = (token, needs) {
                token.needs = needs;
            }
        }
        let open = |i: usize| self.args.get(i).is_some_and(|a| !a.value.ty.is_closed());
        for (token, follows) in tokens.iter_mut().zip(&follows) {
            if let Some(token) = token {
                let whole = token.parts.iter().all(|p| matches!(p, Part::Arg(_)));
                token.operand =
                    whole && !follows && !token.parts.is_empty() && token.args().all(open);
            }
        }
        follows
    }

    /// Warns of a value that may begin with a dash and stands where it may be read as an option.
    fn dash(&mut self, token: &Token, follows: bool, ended: bool, span: &Range<usize>) {
        let leading =
            token.leading_args(|i| self.args.get(i).is_some_and(|a| a.value.ty.may_be_empty()));
        let mut leading = leading.filter_map(|i| self.args.get(i));
        let Some(arg) = leading.find(|arg| arg.value.ty.may_lead_with_dash()) else { return };
        let name = &arg.value.name;
        let inserted = token.operand && !self.command.end_of_options.is_empty();
        let (code, message, fix) = match (follows, ended || inserted) {
            (_, true) => return,
            // A program that takes no value here reads options.
            (true, false) => (
                "flag_value",
                format!(
                    "`{name}` may begin with `-`: safe only if the option before takes a value"
                ),
                "write `--option={name}`, or put `--` between them",
            ),
            (false, false) => (
                "unprotected_dash",
                format!("`{name}` may begin with `-` and be read as an option"),
                "put `--` before it, or write `--option={name}`",
            ),
        };
        self.report.warn(code, span, message).fix(fix);
    }

    /// Options after the place where `--` goes are options no more.
    fn order(&mut self, spans: &[Range<usize>]) {
        let end = &self.command.end_of_options;
        let mut operand = end.is_empty();
        if operand {
            return;
        }
        for (item, span) in self.command.items.iter().zip(spans) {
            let tokens: Vec<&Token> = match item {
                Item::Token(token) => vec![token],
                Item::Mapping(i) => {
                    let mapping = self.command.mappings.get(*i);
                    mapping.iter().flat_map(|m| m.values.iter().flat_map(|(_, t)| t)).collect()
                }
                Item::Conditional(i) => {
                    self.command.conditionals.get(*i).iter().flat_map(|c| &c.tokens).collect()
                }
            };
            if tokens.iter().any(|t| t.terminator) {
                return;
            }
            if operand && tokens.iter().any(|t| t.leads_with_dash()) {
                let message = format!("an option after the first operand, which `{end}` precedes");
                self.report
                    .warn("option_after_operand", span, message)
                    .fix("move it before, or write `end_of_options = \"\"`");
            }
            operand |= tokens.iter().any(|t| t.operand);
        }
    }

    /// `all_args`: the program gets every argument, whatever the command says.
    fn unused(&mut self, uses: Uses<'_>, all_args: bool) {
        let items = &self.command.items;
        for (i, span) in uses.mappings.iter().enumerate() {
            if !items.iter().any(|item| matches!(item, Item::Mapping(m) if *m == i)) {
                self.report.warn("unused_mapping", span, "the command never uses this mapping");
            }
        }
        for (i, span) in uses.conditionals.iter().enumerate() {
            if !items.iter().any(|item| matches!(item, Item::Conditional(c) if *c == i)) {
                let message = "the command never uses this conditional";
                self.report.warn("unused_conditional", span, message);
            }
        }
        for (i, arg) in self.args.iter().enumerate() {
            if !all_args && !self.used.contains(&i) {
                let message = format!("the command never uses `{}`", arg.value.name);
                self.report.warn("unused_argument", &arg.span, message);
            }
        }
    }
}

/// `{x}` or `--option={x}`.
fn stands_alone(token: &Token) -> bool {
    match token.parts.as_slice() {
        [Part::Arg(_)] => true,
        [Part::Text(text), Part::Arg(_)] => {
            let name = text.strip_suffix('=').and_then(|t| t.strip_prefix('-')).unwrap_or_default();
            let name = name.strip_prefix('-').unwrap_or(name);
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(plain)
        }
        _ => false,
    }
}
