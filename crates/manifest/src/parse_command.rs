//! The `[command]` table: names become argument numbers, text becomes tokens.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::command::{Command, Conditional, Item, Part, Token};
use crate::diagnostic::{Report, excerpt};
use crate::fields::{At, Fields, Node};
use crate::manifest::Arg;
use crate::parse::name_fits;
use crate::parse_args::{check_default, fixed_text};
use crate::template::{self, RawPart, RawToken, TemplateError};
use crate::types::Kind;
use crate::when::{Var, When, WhenError};

/// Programs that run text or start whatever they are told to.
const INTERPRETERS: &[&str] = &[
    "sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "busybox", "toybox",
    "python", "pypy", "perl", "ruby", "irb", "node", "nodejs", "deno", "bun", "php", "lua", "luajit",
    "awk", "gawk", "mawk", "nawk", "tclsh", "wish", "expect", "rscript", "julia", "guile", "racket",
    "groovy", "scala", "jshell", "ghci", "gdb", "osascript", "pwsh", "powershell", "cmd", "wscript",
    "cscript", "env", "xargs", "sudo", "doas", "su", "runuser", "setpriv", "chroot", "unshare",
    "nsenter", "ssh", "nohup", "setsid", "timeout", "nice", "ionice", "stdbuf", "time", "watch",
    "script", "parallel", "systemd-run", "at", "batch", "vim", "vi", "ex", "ed", "emacs",
];

/// Values that only an executor could fill in.
const LATER_HOLES: &[&str] = &["_scan_id", "_output_file", "_evidence_dir"];

#[derive(Clone, Copy)]
enum Splice {
    Mapping(usize),
    Conditional(usize),
}

/// What the names in the command text stand for.
#[derive(Default)]
struct Names {
    args: HashMap<String, usize>,
    /// `[command.defaults]` that belong to no argument.
    fixed: HashMap<String, String>,
    splices: HashMap<String, Vec<Splice>>,
    /// Names that a reported error keeps from meaning anything.
    broken: HashSet<String>,
}

struct Mapping {
    arg: usize,
    values: Vec<(String, Vec<Token>)>,
    span: Range<usize>,
    used: bool,
}

struct Reader<'r> {
    names: Names,
    args: &'r mut [At<Arg>],
    used: HashSet<usize>,
    end: String,
    report: &'r mut Report,
}

pub(crate) fn read(
    mut table: Fields<'_>,
    args: &mut [At<Arg>],
    declared: &[String],
    binary: Option<&At<&str>>,
    allow_interpreter: bool,
    report: &mut Report,
) -> Command {
    let exec = table.strings("exec", report);
    let template = table.string("template", report);
    table.unsupported(&["executor"], report);
    let end = table.string("end_of_options", report);
    let defaults = table.table("defaults", report);
    let mappings = table.table("mappings", report);
    let conditionals = table.table("conditionals", report);
    match ["exec", "template", "executor"].iter().filter(|key| table.knew(key)).count() {
        0 => {
            let message = "[command] needs `exec` or `template`";
            report.error("no_backend", table.span(), message);
        }
        1 => {}
        _ => {
            let message = "[command] has one of `exec`, `template`, `executor`, not several";
            report.error("several_backends", table.span(), message);
        }
    }
    table.finish(report);
    let end = match end {
        None => "--".to_owned(),
        Some(end) if end.value.is_empty() || is_option(end.value) => end.value.to_owned(),
        Some(end) => {
            let message = "`end_of_options` must be an option, such as `--`, or empty";
            report.error("bad_end_of_options", &end.span, message);
            "--".to_owned()
        }
    };

    let index = args.iter().enumerate().map(|(i, a)| (a.value.name.clone(), i));
    let names = Names { args: index.collect(), ..Names::default() };
    let mut reader = Reader { names, args, used: HashSet::new(), end, report };
    // An argument that has an error of its own is not unknown as well.
    let known: HashSet<_> = reader.names.args.keys().cloned().collect();
    reader.names.broken = declared.iter().filter(|d| !known.contains(*d)).cloned().collect();
    if let Some(defaults) = defaults {
        reader.defaults(defaults);
    }
    let mut mapped = mappings.map_or_else(Vec::new, |table| reader.mappings(table));
    let (conditions, spans) = conditionals.map_or_else(Default::default, |t| reader.conditionals(t));

    let (raw, span) = match (exec, template) {
        (Some(exec), _) => {
            if exec.value.is_empty() {
                reader.report.error("empty_value", &exec.span, "`exec` must not be empty");
                return Command::default();
            }
            let elements = exec.value.iter().filter_map(|e| {
                reader.text(template::element(e.value), &e.span).map(|token| (token, e.span.clone()))
            });
            (elements.collect::<Vec<_>>(), exec.span)
        }
        (None, Some(text)) => {
            let tokens = reader.text(template::split(text.value), &text.span).unwrap_or_default();
            if text.value.trim().is_empty() {
                reader.report.error("empty_value", &text.span, "`template` must not be empty");
            }
            (tokens.into_iter().map(|t| (t, text.span.clone())).collect(), text.span)
        }
        (None, None) => return Command::default(),
    };
    let mut used_conditionals = HashSet::new();
    let mut items = Vec::new();
    let mut spans_of_items = Vec::new();
    for (raw, span) in raw {
        match reader.splice(&raw, &span) {
            Some(Splice::Mapping(i)) => {
                if let Some(mapping) = mapped.get_mut(i) {
                    mapping.used = true;
                }
                items.push(Draft::Splice(Splice::Mapping(i)));
            }
            Some(Splice::Conditional(i)) => {
                used_conditionals.insert(i);
                items.push(Draft::Splice(Splice::Conditional(i)));
            }
            None => items.push(Draft::Token(reader.token(raw, &span))),
        }
        spans_of_items.push(span);
    }
    reader.program(items.first(), &span, binary, allow_interpreter);
    reader.flags(&mut items, &spans_of_items, true);
    reader.order(&items, &spans_of_items, &mapped, &conditions);

    for mapping in mapped.iter().filter(|m| !m.used) {
        reader.report.warn("unused_mapping", &mapping.span, "the command never uses this mapping");
    }
    for (i, span) in spans.iter().enumerate().filter(|(i, _)| !used_conditionals.contains(i)) {
        let _ = i;
        reader.report.warn("unused_conditional", span, "the command never uses this conditional");
    }
    for (i, arg) in reader.args.iter().enumerate() {
        if !reader.used.contains(&i) {
            let message = format!("the command never uses `{}`", arg.value.name);
            reader.report.warn("unused_argument", &arg.span, message);
        }
    }
    let end_of_options = reader.end;
    let mut tables: Vec<_> = mapped.into_iter().map(|m| Some((m.arg, m.values))).collect();
    let items = items.into_iter().filter_map(|draft| match draft {
        Draft::Token(token) => Some(Item::Token(token)),
        Draft::Splice(Splice::Conditional(i)) => Some(Item::Conditional(i)),
        Draft::Splice(Splice::Mapping(i)) => {
            let (arg, values) = tables.get_mut(i)?.take()?;
            Some(Item::Mapping { arg, values })
        }
    });
    Command { items: items.collect(), conditionals: conditions, end_of_options }
}

enum Draft {
    Token(Token),
    Splice(Splice),
}
