//! The body of a request: JSON, a form, or text. What it is follows from `Content-Type`.

use serde_json::Value;

use crate::diagnostic::Report;
use crate::fields::At;
use crate::http::{Body, Node, Part};
use crate::parse_http::{Names, pairs};
use crate::template::{self, RawPart};

/// Mark a hole while the document is parsed: inside a string, and outside. Private-use
/// characters, so a template that holds one is refused.
const INSIDE: char = '\u{f8f0}';
const OUTSIDE: char = '\u{f8f1}';
const END: char = '\u{f8f2}';

pub(crate) fn read(
    text: &At<&str>,
    headers: &mut Vec<(String, Vec<Part>)>,
    names: &mut Names<'_>,
    report: &mut Report,
) -> Option<Body> {
    let kind = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let kind = kind.map(|(_, value)| match value.as_slice() {
        [Part::Text(text), ..] => text.to_ascii_lowercase(),
        _ => String::new(),
    });
    let json = match &kind {
        Some(kind) => kind.contains("json"),
        None => text.value.trim_start().starts_with(['{', '[']),
    };
    if json {
        let body = read_json(text, names, report)?;
        if kind.is_none() {
            let json = vec![Part::Text("application/json".to_owned())];
            headers.push(("Content-Type".to_owned(), json));
        }
        return Some(Body::Json(body));
    }
    let parts = names.text(text.value, &text.span, report)?;
    if kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
        return Some(Body::Form(pairs(&parts)));
    }
    Some(Body::Text(parts))
}

/// Braces are JSON's own, or doubled as everywhere else: whichever gives a document.
fn read_json(text: &At<&str>, names: &mut Names<'_>, report: &mut Report) -> Option<Node> {
    if text.value.contains([INSIDE, OUTSIDE, END]) {
        report.error("bad_body", &text.span, "the body holds a private-use character");
        return None;
    }
    let doubled = template::holes(text.value).ok().and_then(|raw| document(&raw));
    let plain = || document(&template::json_body(text.value));
    let Some((document, holes)) = doubled.or_else(plain) else {
        report
            .error("bad_body", &text.span, "with values in its holes, the body is not JSON")
            .fix("write JSON with `{name}` inside strings, or alone for a number");
        return None;
    };
    node(document, &holes, &text.span, names, report)
}

/// The JSON document with marks in the place of holes, and the holes by number.
fn document(raw: &[RawPart]) -> Option<(Value, Vec<String>)> {
    let (mut json, mut holes, mut inside, mut escaped) = (String::new(), Vec::new(), false, false);
    for part in raw {
        match part {
            RawPart::Text(text) => {
                for c in text.chars() {
                    match c {
                        _ if escaped => escaped = false,
                        '\\' if inside => escaped = true,
                        '"' => inside = !inside,
                        _ => {}
                    }
                    json.push(c);
                }
            }
            RawPart::Hole(name) => {
                let number = holes.len();
                if inside {
                    json.push_str(&format!("{INSIDE}{number}{END}"));
                } else {
                    json.push_str(&format!("\"{OUTSIDE}{number}{END}\""));
                }
                holes.push(name.clone());
            }
        }
    }
    Some((serde_json::from_str(&json).ok()?, holes))
}

fn node(
    value: Value,
    holes: &[String],
    span: &std::ops::Range<usize>,
    names: &mut Names<'_>,
    report: &mut Report,
) -> Option<Node> {
    Some(match value {
        Value::String(text) => {
            let bare = text.strip_prefix(OUTSIDE).and_then(|t| t.strip_suffix(END));
            if let Some(number) = bare {
                let hole = number.parse().ok().and_then(|i: usize| holes.get(i))?;
                return match names.part(hole, true, span, report)? {
                    Part::Arg(i) => Some(Node::Bare(i)),
                    part => Some(Node::Text(vec![part])),
                };
            }
            Node::Text(string(&text, holes, span, names, report)?)
        }
        Value::Array(items) => Node::Array(
            items
                .into_iter()
                .map(|item| node(item, holes, span, names, report))
                .collect::<Option<_>>()?,
        ),
        Value::Object(members) => Node::Object(
            members
                .into_iter()
                .map(|(key, value)| {
                    let key = key
                        .strip_prefix(OUTSIDE)
                        .map_or_else(|| key.clone(), |rest| format!("{INSIDE}{rest}"));
                    let key = string(&key, holes, span, names, report)?;
                    Some((key, node(value, holes, span, names, report)?))
                })
                .collect::<Option<_>>()?,
        ),
        fixed => Node::Fixed(fixed),
    })
}

fn string(
    text: &str,
    holes: &[String],
    span: &std::ops::Range<usize>,
    names: &mut Names<'_>,
    report: &mut Report,
) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    for (i, piece) in text.split(INSIDE).enumerate() {
        let literal = match piece.split_once(END) {
            Some((number, rest)) if i > 0 => {
                let hole = number.parse().ok().and_then(|i: usize| holes.get(i))?;
                parts.push(names.part(hole, true, span, report)?);
                rest
            }
            _ => piece,
        };
        if !literal.is_empty() {
            parts.push(Part::Text(literal.to_owned()));
        }
    }
    Some(parts)
}
