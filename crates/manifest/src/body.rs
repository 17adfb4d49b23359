//! The body of a request: JSON, a form, or text. What it is follows from `Content-Type`.

use serde_json::Value;

use crate::diagnostic::{Report, excerpt};
use crate::fields::At;
use crate::http::{Body, Node, Part};
use crate::parse_http::{Names, pairs, splits_escape};
use crate::template::{self, RawPart};
use crate::types::number::exact;

/// Mark a hole while the document is parsed: inside a string, and outside. Private-use
/// characters, so a template that holds one is refused.
const INSIDE: char = '\u{f8f0}';
const OUTSIDE: char = '\u{f8f1}';
const END: char = '\u{f8f2}';
/// What no template may hold.
pub(crate) const PRIVATE: [char; 3] = [INSIDE, OUTSIDE, END];

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
    let kind = kind.unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind == "application/x-www-form-urlencoded" {
        if splits_escape(&parts) {
            let message = "a value would become a part of a percent escape";
            report.error("bad_body", &text.span, message);
            return None;
        }
        return Some(Body::Form(pairs(&parts)));
    }
    // Plain text has no structure; of any other, nothing here knows how it is escaped.
    if kind != "text/plain"
        && let Some(arg) = names.loose(&parts)
    {
        let message = format!("a value of `{arg}` could say more in this body than a value does");
        report.error("loose_in_body", &text.span, message).fix(
            "declare a `Content-Type` of JSON, `application/x-www-form-urlencoded` or `text/plain`",
        );
        return None;
    }
    Some(Body::Text(parts))
}

/// Braces are JSON's own, or doubled as everywhere else: whichever gives a document.
fn read_json(text: &At<&str>, names: &mut Names<'_>, report: &mut Report) -> Option<Node> {
    if text.value.contains(PRIVATE) {
        report.error("bad_body", &text.span, "the body holds a private-use character");
        return None;
    }
    let doubled = template::holes(text.value).ok().and_then(|raw| Some((document(&raw)?, raw)));
    let plain = || {
        let raw = template::json_body(text.value);
        Some((document(&raw)?, raw))
    };
    let Some(((document, holes), raw)) = doubled.or_else(plain) else {
        report
            .error("bad_body", &text.span, "with values in its holes, the body is not JSON")
            .fix("write JSON with `{name}` inside strings, or alone for a number");
        return None;
    };
    if let Some(number) = inexact(&raw) {
        let message = format!("the number {} would be sent as another one", excerpt(&number));
        report
            .error("bad_body", &text.span, message)
            .fix("write it as a string, or with fewer digits");
        return None;
    }
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

/// A number outside strings that JSON here would write as another one.
fn inexact(raw: &[RawPart]) -> Option<String> {
    let (mut inside, mut escaped) = (false, false);
    let mut numbers = vec![String::new()];
    for part in raw {
        let RawPart::Text(text) = part else {
            numbers.push(String::new());
            continue;
        };
        for c in text.chars() {
            match c {
                _ if escaped => escaped = false,
                '\\' if inside => escaped = true,
                '"' => inside = !inside,
                _ if inside => {}
                '0'..='9' | '-' | '+' | '.' | 'e' | 'E' => {
                    if let Some(last) = numbers.last_mut() {
                        last.push(c);
                    }
                    continue;
                }
                _ => {}
            }
            numbers.push(String::new());
        }
    }
    let number = |text: &String| text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    numbers.into_iter().find(|text| number(text) && exact(text).is_none())
}

/// Whether two keys of one object can be the same, whatever their values are.
fn collide(a: &[Part], b: &[Part]) -> bool {
    let fixed = |part: Option<&Part>| match part {
        Some(Part::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let ends = |key: &[Part]| (fixed(key.first()), fixed(key.last()));
    let whole = |key: &[Part]| key.iter().all(|part| matches!(part, Part::Text(_)));
    let fits = |literal: &[Part], other: &[Part]| {
        let ((text, _), (start, end)) = (ends(literal), ends(other));
        text.len() >= start.len() + end.len() && text.starts_with(&start) && text.ends_with(&end)
    };
    let ((start_a, end_a), (start_b, end_b)) = (ends(a), ends(b));
    match (whole(a), whole(b)) {
        (true, true) => a == b,
        (true, false) => fits(a, b),
        (false, true) => fits(b, a),
        (false, false) => {
            (start_a.starts_with(&start_b) || start_b.starts_with(&start_a))
                && (end_a.ends_with(&end_b) || end_b.ends_with(&end_a))
        }
    }
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
        Value::Object(members) => {
            let mut found: Vec<(Vec<Part>, Node)> = Vec::new();
            for (key, value) in members {
                let key = key
                    .strip_prefix(OUTSIDE)
                    .map_or_else(|| key.clone(), |rest| format!("{INSIDE}{rest}"));
                let key = string(&key, holes, span, names, report)?;
                if found.iter().any(|(known, _)| collide(known, &key)) {
                    let message =
                        "a value in a key of the body can give it the name of another key";
                    report.error("bad_body", span, message).fix("write the keys as fixed text");
                    return None;
                }
                found.push((key, node(value, holes, span, names, report)?));
            }
            Node::Object(found)
        }
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
