//! The `[args.NAME]` tables.

use std::collections::{HashMap, HashSet};

use toml::de::DeValue;

use crate::diagnostic::{Report, excerpt};
use crate::fields::{At, Fields, Node, json};
use crate::manifest::{Arg, DefaultValue};
use crate::parse::name_fits;
use crate::types::host::HostRule;
use crate::types::number::{IntegerRule, NumberRule};
use crate::types::text::TextRule;
use crate::types::url::UrlRule;
use crate::types::{ArgType, Kind, Pattern, SUPPORTED, UNSUPPORTED};

/// Every constraint of the format, for any type.
const CONSTRAINTS: &[&str] = &[
    "allowed",
    "min",
    "max",
    "min_float",
    "max_float",
    "clamp",
    "schemes",
    "scope_check",
    "block_internal",
    "allow_leading_dash",
    "allow_whitespace",
    "allow_at",
    "allow_internal",
    "allow_any",
];

/// What `[args]` holds.
#[derive(Default)]
pub(crate) struct Args {
    /// By position, then in the order of the text.
    pub(crate) good: Vec<At<Arg>>,
    /// Arguments that are not among them because of an error that is reported.
    pub(crate) bad: HashSet<String>,
}

pub(crate) fn read(mut table: Fields<'_>, spaces_fit: bool, report: &mut Report) -> Args {
    let mut found = Vec::new();
    let mut bad = HashSet::new();
    let mut positions = HashMap::new();
    for (name, node) in table.rest() {
        name_fits(&name, "an argument name", report);
        let path = format!("[args.{}]", excerpt(name.value));
        let Some(fields) = Fields::of(&path, node, report) else {
            bad.insert(name.value.to_owned());
            continue;
        };
        let (arg, position) = one(&name, fields, spaces_fit, report);
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
            let order = position.map_or(i64::MAX, |p| p.value);
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
    spaces_fit: bool,
    report: &mut Report,
) -> (Option<Arg>, Option<At<i64>>) {
    let type_name = table.required("type", report);
    let position = table.integer("position", report);
    let required = table.boolean("required", report);
    let description = table.string("description", report);
    let default = table.node("default");
    let ty = arg_type(type_name, &mut table, spaces_fit, report);
    table.finish(report);

    let required = required.is_some_and(|r| r.value);
    if let Some((span, _)) = default.as_ref().filter(|_| required) {
        report
            .warn("required_with_default", span, "a required argument never takes its default")
            .fix("leave out `required` or `default`");
    }
    let Some(ty) = ty else {
        return (None, position);
    };
    let default = default.and_then(|(_, node)| check_default(&ty, node, report));
    let arg = Arg {
        name: name.value.to_owned(),
        ty,
        required,
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
            let message = format!("the default is no {}: it {}", ty.name, refusal.message);
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
    spaces_fit: bool,
    report: &mut Report,
) -> Option<ArgType> {
    let pattern = pattern(table, report);
    sanitize(table, report);
    if let Some(flag) = table.boolean("feeds_decision", report)
        && flag.value
    {
        report.error("unsupported_key", &flag.span, "`feeds_decision` is not supported yet");
    }
    let known = name.as_ref().and_then(|n| SUPPORTED.iter().find(|(word, _)| *word == n.value));
    let Some((name, (word, constraints))) = name.as_ref().zip(known) else {
        return other(name, table, report);
    };

    for key in CONSTRAINTS.iter().filter(|key| !constraints.contains(key)) {
        if let Some((span, _)) = table.node(key) {
            let mut takers =
                SUPPORTED.iter().filter(|(_, c)| c.contains(key)).map(|(t, _)| *t).peekable();
            let diagnostic = report.error(
                "constraint_not_applicable",
                &span,
                format!("`{key}` means nothing for type {word}"),
            );
            match (*key, *word) {
                ("min", "number") => diagnostic.fix("write `min_float`"),
                ("max", "number") => diagnostic.fix("write `max_float`"),
                ("min_float", "integer") => diagnostic.fix("write `min`"),
                ("max_float", "integer") => diagnostic.fix("write `max`"),
                ("allowed", _) => diagnostic.fix("write `type = \"enum\"`"),
                _ if takers.peek().is_some() => {
                    let takers = takers.collect::<Vec<_>>().join(", ");
                    diagnostic.fix(format!("it belongs to {takers}"));
                }
                _ => {}
            }
        }
    }
    let mut flag = |key, report: &mut Report| {
        constraints.contains(&key).then(|| table.boolean(key, report)).flatten()
    };
    let leading_dash = flag("allow_leading_dash", report).is_some_and(|b| b.value);
    let whitespace = flag("allow_whitespace", report).filter(|b| b.value);
    let at = flag("allow_at", report).is_some_and(|b| b.value);
    if let Some(whitespace) = whitespace.as_ref().filter(|_| !spaces_fit) {
        report
            .error("whitespace_in_template", &whitespace.span, "spaces need an `exec` array")
            .fix("write the command as `exec`");
    }
    let text = TextRule { leading_dash, whitespace: whitespace.is_some(), at };

    let kind = match *word {
        "literal_text" => Kind::Literal,
        "integer" => {
            let (min, max) = (table.integer("min", report), table.integer("max", report));
            if let (Some(min), Some(max)) = (&min, &max)
                && min.value > max.value
            {
                report.error("min_above_max", &min.span, "`min` is above `max`");
            }
            Kind::Integer(IntegerRule {
                min: min.map(|n| n.value),
                max: max.map(|n| n.value),
                clamp: table.boolean("clamp", report).is_some_and(|b| b.value),
                leading_dash,
            })
        }
        "number" => {
            let (min, max) = (table.float("min_float", report), table.float("max_float", report));
            if let (Some(min), Some(max)) = (&min, &max)
                && min.value > max.value
            {
                report.error("min_above_max", &min.span, "`min_float` is above `max_float`");
            }
            Kind::Number(NumberRule {
                min: min.map(|n| n.value),
                max: max.map(|n| n.value),
                clamp: table.boolean("clamp", report).is_some_and(|b| b.value),
                leading_dash,
            })
        }
        "port" => Kind::Port,
        "boolean" => Kind::Boolean,
        "enum" => Kind::Enum(allowed(table, report)),
        "path" => Kind::Path(text),
        "url" => Kind::Url(url_rule(table, report)),
        "regex_match" => {
            if pattern.is_none() && !table.knew("pattern") {
                let message = "a regex_match needs `pattern`";
                report.error("missing_key", &name.span, message);
            }
            Kind::Text(text)
        }
        _ => Kind::Text(text),
    };
    Some(ArgType { name: word, kind, pattern })
}

/// A type this version does not have. Its keys are looked at all the same.
fn other(name: Option<At<&str>>, table: &mut Fields<'_>, report: &mut Report) -> Option<ArgType> {
    for key in CONSTRAINTS {
        table.node(key);
    }
    let name = name?;
    let shown = excerpt(name.value);
    if UNSUPPORTED.contains(&name.value) {
        let message = format!("type `{shown}` is not supported yet");
        report.error("unsupported_type", &name.span, message);
    } else {
        let known = SUPPORTED.iter().map(|(word, _)| *word).chain(UNSUPPORTED.iter().copied());
        report
            .error("unknown_type", &name.span, format!("there is no type `{shown}`"))
            .nearest(name.value, known);
    }
    None
}

fn pattern(table: &mut Fields<'_>, report: &mut Report) -> Option<Pattern> {
    let source = table.string("pattern", report)?;
    if !source.value.starts_with('^') || !source.value.ends_with('$') {
        report
            .warn("unanchored_pattern", &source.span, "a pattern has to match the whole value")
            .fix("begin it with `^` and end it with `$`");
    }
    match Pattern::compile(source.value) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let message = format!("`pattern` does not compile: {}", excerpt(reason));
            report.error("bad_pattern", &source.span, message);
            None
        }
    }
}

fn sanitize(table: &mut Fields<'_>, report: &mut Report) {
    let Some(list) = table.strings("sanitize", report) else {
        return;
    };
    if list.value.is_empty() {
        report
            .warn("sanitize_off", &list.span, "the checks of a type cannot be switched off")
            .fix("leave out `sanitize`");
    }
    for word in list.value.iter().filter(|w| w.value != "injection") {
        let message = format!("there is no sanitizer `{}`", excerpt(word.value));
        report.error("unknown_sanitizer", &word.span, message).fix("write `injection`");
    }
}

fn allowed(table: &mut Fields<'_>, report: &mut Report) -> Vec<String> {
    let Some(list) = table.strings("allowed", report) else {
        if !table.knew("allowed") {
            report.error("missing_key", table.span(), "an enum needs `allowed`");
        }
        return Vec::new();
    };
    if list.value.is_empty() {
        report.error("empty_value", &list.span, "`allowed` must not be empty");
    }
    let mut words = Vec::new();
    for word in list.value {
        if word.value.len() > crate::types::MAX_TEXT
            || word.value.chars().any(countersign_core::text::hides)
        {
            report.error("bad_allowed", &word.span, "holds an invisible character or is too long");
        } else if words.iter().any(|w| w == word.value) {
            let message = format!("`{}` is allowed twice", excerpt(word.value));
            report.warn("duplicate_allowed", &word.span, message);
        } else {
            words.push(word.value.to_owned());
        }
    }
    words
}

fn url_rule(table: &mut Fields<'_>, report: &mut Report) -> UrlRule {
    let mut schemes = vec!["http".to_owned(), "https".to_owned()];
    if let Some(list) = table.strings("schemes", report) {
        if list.value.is_empty() {
            report.error("empty_value", &list.span, "`schemes` must not be empty");
        }
        for scheme in &list.value {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
            let local = ["file", "javascript", "data", "blob", "about", "vbscript"];
            if !scheme.value.starts_with(|c: char| c.is_ascii_lowercase())
                || !scheme.value.bytes().all(plain)
                || local.contains(&scheme.value)
            {
                let message = format!("`{}` is no scheme that names a host", excerpt(scheme.value));
                report.error("bad_scheme", &scheme.span, message);
            }
        }
        schemes = list.value.into_iter().map(|s| s.value.to_owned()).collect();
    }
    if let Some(scope) = table.boolean("scope_check", report)
        && scope.value
    {
        report.error("unsupported_key", &scope.span, "`scope_check` is not supported yet");
    }
    let block = table.boolean("block_internal", report).filter(|b| b.value);
    let allow = table.boolean("allow_internal", report).filter(|b| b.value);
    if let (Some(_), Some(allow)) = (&block, &allow) {
        let message = "`allow_internal` and `block_internal` contradict each other";
        report.error("conflicting_keys", &allow.span, message);
    }
    let host = HostRule { block_internal: block.is_some(), allow_internal: allow.is_some() };
    UrlRule { schemes, host }
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
