//! The `[args.NAME]` tables.

use std::collections::{HashMap, HashSet};

use toml::de::DeValue;

use crate::constraints::Typed;
use crate::diagnostic::{Report, excerpt};
use crate::fields::{At, Fields, Node, json};
use crate::manifest::{Arg, DefaultValue};
use crate::parse::name_fits;
use crate::project::Types;
use crate::types::{ArgType, Kind, TYPES};

/// What `[args]` holds.
#[derive(Default)]
pub(crate) struct Args {
    /// By position, then in the order of the text.
    pub(crate) good: Vec<At<Arg>>,
    /// Arguments that are not among them because of an error that is reported.
    pub(crate) bad: HashSet<String>,
}

/// What the tables are read with.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) types: &'a Types,
    /// Whether a value with spaces can be used at all.
    pub(crate) spaces_fit: bool,
    /// How the tables are called: `args`, or `session.commands.C.args`.
    pub(crate) path: &'a str,
}

pub(crate) fn read(mut table: Fields<'_>, setting: Setting<'_>, report: &mut Report) -> Args {
    let mut found = Vec::new();
    let mut bad = HashSet::new();
    let mut positions = HashMap::new();
    for (name, node) in table.rest() {
        name_fits(&name, "an argument name", report);
        let path = format!("[{}.{}]", setting.path, excerpt(name.value));
        let Some(fields) = Fields::of(&path, node, report) else {
            bad.insert(name.value.to_owned());
            continue;
        };
        let (arg, position) = one(&name, fields, setting, report);
        if let Some(position) = &position
            && let Some(other) = positions.insert(position.value, name.value)
        {
            report.warn(
                "duplicate_position",
                &position.span,
                format!(
                    "`{}` and `{}` have the same position",
                    excerpt(other),
                    excerpt(name.value)
                ),
            );
        }
        if let Some(arg) = arg {
            let order = position.map_or(u64::MAX, |p| p.value);
            found.push((order, At { value: arg, span: name.span }));
        } else {
            bad.insert(name.value.to_owned());
        }
    }
    found.sort_by_key(|(position, _)| *position);
    Args { good: found.into_iter().map(|(_, arg)| arg).collect(), bad }
}

fn one<'a>(
    name: &At<&'a str>,
    mut table: Fields<'a>,
    setting: Setting<'_>,
    report: &mut Report,
) -> (Option<Arg>, Option<At<u64>>) {
    let type_name = table.required("type", report);
    let position = table.bounded("position", 0..=u64::from(u32::MAX), report);
    let required = table.boolean("required", report);
    let description = table.string("description", report);
    let default = table.node("default");
    let feeds = table.boolean("feeds_decision", report);
    let ty = arg_type(type_name, &mut table, setting, report);
    table.finish(report);

    let required = required.is_some_and(|r| r.value);
    if let Some((span, _)) = default.as_ref().filter(|_| required) {
        report
            .warn("required_with_default", span, "with a default, a call without it is not refused")
            .fix("leave out `required` or `default`");
    }
    let Some(ty) = ty else {
        return (None, position);
    };
    let feeds = feeds.filter(|flag| flag.value);
    if let Some(feeds) = &feeds
        && matches!(ty.kind, Kind::Text(_) | Kind::Literal | Kind::Summary(_))
    {
        report
            .warn("free_text_decides", &feeds.span, "a decision should not be made from free text")
            .fix("write `type = \"enum\"`");
    }
    let default = default.and_then(|(_, node)| check_default(&ty, node, report));
    let arg = Arg {
        name: name.value.to_owned(),
        ty,
        required,
        feeds_decision: feeds.is_some(),
        description: description.map(|d| d.value.to_owned()),
        default,
    };
    (Some(arg), position)
}

/// A default is a value like any other.
pub(crate) fn check_default(
    ty: &ArgType,
    node: Node<'_>,
    report: &mut Report,
) -> Option<DefaultValue> {
    let Some(value) = json(node.get_ref()) else {
        let found = crate::fields::kind(node.get_ref());
        report.error("invalid_default", &node.span(), format!("a default cannot be {found}"));
        return None;
    };
    match ty.resolve(&value) {
        Ok(text) => Some(DefaultValue { value, text }),
        Err(refusal) => {
            let message = format!("the default is no {}: {}", ty.name, refusal.sentence());
            let diagnostic = report.error("invalid_default", &node.span(), message);
            if refusal.code == "empty" {
                diagnostic.fix("leave out `default`: an absent value leaves its token out");
            }
            None
        }
    }
}

fn arg_type(
    name: Option<At<&str>>,
    table: &mut Fields<'_>,
    setting: Setting<'_>,
    report: &mut Report,
) -> Option<ArgType> {
    let known = name.as_ref().and_then(|name| {
        Typed::builtin(name.value).or_else(|| setting.types.find(name.value).cloned())
    });
    let Some(typed) = known else {
        Typed::ignore(table);
        unknown_type(name.as_ref()?, setting.types, report);
        return None;
    };
    let typed = typed.read(table, setting.spaces_fit, report);
    typed.complete(table, report);
    Some(typed.finish(setting.spaces_fit))
}

pub(crate) fn unknown_type(name: &At<&str>, types: &Types, report: &mut Report) {
    let shown = excerpt(name.value);
    if types.is_broken(name.value) {
        let message = format!("the type `{shown}` has errors in toolclad.toml");
        report.error("unknown_type", &name.span, message);
        return;
    }
    let known = TYPES.iter().map(|(word, _)| *word).chain(types.names());
    report
        .error("unknown_type", &name.span, format!("there is no type `{shown}`"))
        .nearest(name.value, known);
}

/// The fixed text of a `[command.defaults]` value that no argument declares.
pub(crate) fn fixed_text(node: Node<'_>, report: &mut Report) -> Option<String> {
    match node.get_ref() {
        DeValue::String(text) if text.contains('\0') => {
            report.error("nul", &node.span(), "holds a NUL character");
            None
        }
        DeValue::String(text) => Some(text.as_ref().to_owned()),
        other => match json(other) {
            Some(value) => Some(value.to_string()),
            None => {
                let found = crate::fields::kind(other);
                report.error("wrong_type", &node.span(), format!("a default cannot be {found}"));
                None
            }
        },
    }
}
