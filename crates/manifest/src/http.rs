//! A request with holes, and a request.

use countersign_core::plan::{HttpHeader, HttpPlan, Piece, Secret, SecretEscape};
use serde_json::Value;

use crate::manifest::Arg;
use crate::types::Refusal;

#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) method: &'static str,
    /// Scheme, host and port, canonical, without a slash at the end.
    pub(crate) origin: String,
    /// From the first slash on, without the query.
    pub(crate) path: Vec<Part>,
    pub(crate) query: Vec<Pair>,
    pub(crate) headers: Vec<(String, Vec<Part>)>,
    pub(crate) body: Option<Body>,
    pub(crate) success_status: Vec<u16>,
    pub(crate) error_status: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Arg(usize),
    Secret(String),
}

/// `key=value`, or a key alone. Left out unless everything in it has a value.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) key: Vec<Part>,
    pub(crate) value: Option<Vec<Part>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Json(Node),
    Form(Vec<Pair>),
    Text(Vec<Part>),
}

/// A JSON document with holes.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Fixed(Value),
    /// A string.
    Text(Vec<Part>),
    /// A hole without quotes around it: the value in its own JSON type.
    Bare(usize),
    Array(Vec<Node>),
    Object(Vec<(Vec<Part>, Node)>),
}

/// The values of a call, by argument.
pub(crate) struct Values<'a> {
    pub(crate) args: &'a [Arg],
    pub(crate) values: &'a [Option<String>],
}

impl Values<'_> {
    fn text(&self, i: usize) -> Option<&str> {
        self.values.get(i).and_then(Option::as_deref)
    }

    /// Whether everything in the parts has a value.
    fn has(&self, parts: &[Part]) -> bool {
        parts.iter().all(|part| match part {
            Part::Arg(i) => self.text(*i).is_some(),
            _ => true,
        })
    }
}

impl Http {
    pub(crate) fn secrets(&self) -> Vec<&str> {
        let mut found = Vec::new();
        for (_, value) in &self.headers {
            secrets(value, &mut found);
        }
        match &self.body {
            Some(Body::Json(node)) => node.secrets(&mut found),
            Some(Body::Form(pairs)) => {
                for pair in pairs {
                    secrets(&pair.key, &mut found);
                    secrets(pair.value.as_deref().unwrap_or_default(), &mut found);
                }
            }
            Some(Body::Text(parts)) => secrets(parts, &mut found),
            None => {}
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The arguments that the URL holds.
    fn url_args(&self) -> impl Iterator<Item = usize> {
        let query = self.query.iter().flat_map(|p| p.key.iter().chain(p.value.iter().flatten()));
        self.path.iter().chain(query).filter_map(|part| match part {
            Part::Arg(i) => Some(*i),
            _ => None,
        })
    }

    /// The request, or which argument keeps it from being one.
    pub(crate) fn plan(&self, values: &Values<'_>) -> Result<HttpPlan, (usize, Refusal)> {
        let mut url = self.origin.clone();
        for segment in segments(&self.path) {
            let mut text = String::new();
            for part in &segment {
                match part {
                    Part::Text(literal) => text.push_str(literal),
                    Part::Arg(i) => match values.text(*i) {
                        Some(value) => encode(value, &mut text),
                        None => {
                            let message = "is a part of the URL's path".to_owned();
                            return Err((*i, Refusal { code: "missing_argument", message }));
                        }
                    },
                    Part::Secret(_) => {}
                }
            }
            let dots = text.to_ascii_lowercase().replace("%2e", ".");
            let climbs = matches!(dots.as_str(), "." | "..");
            if let Some(Part::Arg(i)) = segment.iter().find(|p| matches!(p, Part::Arg(_)))
                && climbs
            {
                let message = "would move within the URL's path".to_owned();
                return Err((*i, Refusal { code: "path_escape", message }));
            }
            url.push('/');
            url.push_str(&text);
        }
        let query = encode_pairs(&self.query, values);
        if !query.is_empty() {
            url.push('?');
            url.extend(query.iter().filter_map(|piece| match piece {
                Piece::Text(text) => Some(text.as_str()),
                Piece::Secret(_) => None,
            }));
        }
        // What is shown to whoever approves is what is sent, and goes where it says.
        if !url::Url::parse(&url).is_ok_and(|parsed| parsed.as_str() == url) {
            let message = "gives the URL another spelling than the canonical one".to_owned();
            let culprit = self.url_args().find(|i| values.text(*i).is_some());
            let refusal = Refusal { code: "url_not_canonical", message };
            return Err((culprit.unwrap_or(usize::MAX), refusal));
        }
        let headers = self.headers.iter().filter(|(_, value)| values.has(value));
        let headers = headers
            .map(|(name, value)| HttpHeader {
                name: name.clone(),
                value: fill(value, values, SecretEscape::None, |text| text.to_owned()),
            })
            .collect();
        let body = self.body.as_ref().map(|body| match body {
            Body::Json(node) => {
                let mut out = Vec::new();
                if !node.write(values, &mut out) {
                    push(&mut out, "null");
                }
                out
            }
            Body::Form(pairs) => encode_pairs(pairs, values),
            Body::Text(parts) => {
                let there = |part: &&Part| match part {
                    Part::Arg(i) => values.text(*i).is_some(),
                    _ => true,
                };
                let parts: Vec<Part> = parts.iter().filter(there).cloned().collect();
                fill(&parts, values, SecretEscape::None, |text| text.to_owned())
            }
        });
        Ok(HttpPlan {
            method: self.method.to_owned(),
            url,
            headers,
            body,
            success_status: self.success_status.clone(),
            error_status: self.error_status.clone(),
        })
    }
}

fn secrets<'a>(parts: &'a [Part], found: &mut Vec<&'a str>) {
    found.extend(parts.iter().filter_map(|part| match part {
        Part::Secret(name) => Some(name.as_str()),
        _ => None,
    }));
}

/// The path cut at the slashes of the manifest; a value never makes another one.
fn segments(path: &[Part]) -> Vec<Vec<Part>> {
    let mut found: Vec<Vec<Part>> = Vec::new();
    for part in path {
        let Part::Text(text) = part else {
            if let Some(last) = found.last_mut() {
                last.push(part.clone());
            }
            continue;
        };
        for (i, piece) in text.split('/').enumerate() {
            if i > 0 {
                found.push(Vec::new());
            }
            if let Some(last) = found.last_mut()
                && !piece.is_empty()
            {
                last.push(Part::Text(piece.to_owned()));
            }
        }
    }
    found
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn encode(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

fn encode_pairs(pairs: &[Pair], values: &Values<'_>) -> Vec<Piece> {
    let encoded = |value: &str| {
        let mut out = String::new();
        encode(value, &mut out);
        out
    };
    let mut out = Vec::new();
    let there =
        |pair: &&Pair| values.has(&pair.key) && pair.value.as_ref().is_none_or(|v| values.has(v));
    for pair in pairs.iter().filter(there) {
        if !out.is_empty() {
            push(&mut out, "&");
        }
        for piece in fill(&pair.key, values, SecretEscape::Form, encoded) {
            join(&mut out, piece);
        }
        if let Some(value) = &pair.value {
            push(&mut out, "=");
            for piece in fill(value, values, SecretEscape::Form, encoded) {
                join(&mut out, piece);
            }
        }
    }
    out
}

/// The parts with their values; literal text of the manifest stays as it is.
fn fill(
    parts: &[Part],
    values: &Values<'_>,
    escape: SecretEscape,
    value: impl Fn(&str) -> String,
) -> Vec<Piece> {
    let mut out = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => push(&mut out, text),
            Part::Arg(i) => push(&mut out, &value(values.text(*i).unwrap_or_default())),
            Part::Secret(name) => {
                out.push(Piece::Secret(Secret { secret: name.clone(), escape }));
            }
        }
    }
    out
}

fn join(out: &mut Vec<Piece>, piece: Piece) {
    match piece {
        Piece::Text(text) => push(out, &text),
        secret @ Piece::Secret(_) => out.push(secret),
    }
}

fn push(out: &mut Vec<Piece>, text: &str) {
    match out.last_mut() {
        Some(Piece::Text(last)) => last.push_str(text),
        _ if text.is_empty() => {}
        _ => out.push(Piece::Text(text.to_owned())),
    }
}

/// The inside of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}

impl Node {
    fn secrets<'a>(&'a self, found: &mut Vec<&'a str>) {
        match self {
            Self::Fixed(_) | Self::Bare(_) => {}
            Self::Text(parts) => secrets(parts, found),
            Self::Array(items) => items.iter().for_each(|item| item.secrets(found)),
            Self::Object(members) => {
                for (key, node) in members {
                    secrets(key, found);
                    node.secrets(found);
                }
            }
        }
    }

    /// Writes the document. False if there is none, because a value in it is absent.
    fn write(&self, values: &Values<'_>, out: &mut Vec<Piece>) -> bool {
        match self {
            Self::Fixed(value) => push(out, &value.to_string()),
            Self::Text(parts) => {
                if !values.has(parts) {
                    return false;
                }
                string(parts, values, out);
            }
            Self::Bare(i) => {
                let (Some(arg), Some(text)) = (values.args.get(*i), values.text(*i)) else {
                    return false;
                };
                // Numbers and booleans are JSON as they stand, with every digit.
                match arg.ty.is_bare() {
                    true => push(out, text),
                    false => push(out, &Value::from(text).to_string()),
                }
            }
            Self::Array(items) => {
                push(out, "[");
                let mut first = true;
                for item in items {
                    separated(out, &mut first, |out| item.write(values, out));
                }
                push(out, "]");
            }
            Self::Object(members) => {
                push(out, "{");
                let mut first = true;
                for (key, node) in members {
                    separated(out, &mut first, |out| {
                        if !values.has(key) {
                            return false;
                        }
                        string(key, values, out);
                        push(out, ":");
                        node.write(values, out)
                    });
                }
                push(out, "}");
            }
        }
        true
    }
}

fn string(parts: &[Part], values: &Values<'_>, out: &mut Vec<Piece>) {
    push(out, "\"");
    for part in parts {
        match part {
            Part::Text(text) => push(out, &escaped(text)),
            Part::Arg(i) => push(out, &escaped(values.text(*i).unwrap_or_default())),
            Part::Secret(name) => {
                let escape = SecretEscape::Json;
                out.push(Piece::Secret(Secret { secret: name.clone(), escape }));
            }
        }
    }
    push(out, "\"");
}

/// Writes a member with a comma before it, or nothing of it.
fn separated(out: &mut Vec<Piece>, first: &mut bool, write: impl FnOnce(&mut Vec<Piece>) -> bool) {
    let mut piece = Vec::new();
    if write(&mut piece) {
        if !*first {
            push(out, ",");
        }
        *first = false;
        piece.into_iter().for_each(|piece| join(out, piece));
    }
}
