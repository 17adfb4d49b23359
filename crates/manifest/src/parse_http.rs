//! The `[http]` and `[mcp]` tables.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use countersign_core::plan::{Piece, Secret, SecretEscape};

use crate::body;
use crate::diagnostic::{Report, excerpt};
use crate::fields::{At, Fields};
use crate::http::{Http, Pair, Part};
use crate::manifest::Mcp;
use crate::parse::word;
use crate::parse_args::Args;
use crate::template::{self, RawPart};
use crate::types::Kind;
use crate::types::address::HostRule;
use crate::types::host;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Headers that whoever sends the request writes by itself.
pub(crate) const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the name of a secret stands behind in a hole.
const SECRET: &str = "_secret:";

fn secret_name(name: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    match !name.is_empty() && name.bytes().all(plain) {
        true => Ok(name.to_owned()),
        false => Err(format!("`{}` is no name of a secret", excerpt(name))),
    }
}

/// A text of the configuration with holes for secrets, written as in a manifest: `{_secret:name}`,
/// and `{{` and `}}` for braces.
///
/// # Errors
/// What is wrong with a hole.
pub fn secret_text(text: &str) -> Result<Vec<Piece>, String> {
    let parts = template::holes(text).map_err(|(_, message)| message)?;
    let piece = |part| match part {
        RawPart::Text(text) => Ok(Piece::Text(text)),
        RawPart::Hole(name) => {
            let secret = name.strip_prefix(SECRET).ok_or_else(|| {
                format!(
                    "`{{{}}}` stands for nothing; a secret is `{{{SECRET}NAME}}`",
                    excerpt(&name)
                )
            })?;
            Ok(Piece::Secret(Secret { secret: secret_name(secret)?, escape: SecretEscape::None }))
        }
    };
    parts.into_iter().map(piece).collect()
}

/// Turns names into argument numbers, and remembers which were used.
pub(crate) struct Names<'a> {
    args: &'a Args,
    index: HashMap<&'a str, usize>,
    used: HashSet<usize>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(args: &'a Args) -> Self {
        let names = args.good.iter().enumerate();
        let index = names.map(|(i, arg)| (arg.value.name.as_str(), i)).collect();
        Self { args, index, used: HashSet::new() }
    }

    /// The part a hole stands for. `json`: a string of a JSON document.
    pub(crate) fn part(
        &mut self,
        name: &str,
        json: bool,
        span: &Range<usize>,
        report: &mut Report,
    ) -> Option<Part> {
        if let Some(secret) = name.strip_prefix(SECRET) {
            let named = secret_name(secret);
            let named = named.map_err(|message| report.error("bad_placeholder", span, message));
            return named.ok().map(Part::Secret);
        }
        let Some(i) = self.index.get(name).copied() else {
            if !self.args.bad.contains(name) {
                let message = format!("`{{{}}}` stands for nothing", excerpt(name));
                report
                    .error("unknown_placeholder", span, message)
                    .nearest(name, self.index.keys().copied());
            }
            return None;
        };
        self.used.insert(i);
        let literal =
            self.args.good.get(i).is_some_and(|arg| matches!(arg.value.ty.kind, Kind::Literal));
        if literal && !json {
            let message = "a literal_text goes into a JSON string, and nowhere else in a request";
            report.error("literal_text_not_alone", span, message);
            return None;
        }
        Some(Part::Arg(i))
    }

    /// An argument in the parts whose values may hold what separates or quotes: `&`, spaces, quotes.
    pub(crate) fn loose(&self, parts: &[Part]) -> Option<&str> {
        let args = parts.iter().filter_map(|part| match part {
            Part::Arg(i) => self.args.good.get(*i),
            _ => None,
        });
        let loose = |kind: &Kind| matches!(kind, Kind::Url(_) | Kind::Summary(_) | Kind::Options);
        let mut found = args.filter(|arg| loose(&arg.value.ty.kind));
        found.next().map(|arg| arg.value.name.as_str())
    }

    /// Text with holes, as in an element of `exec`.
    pub(crate) fn text(
        &mut self,
        text: &str,
        span: &Range<usize>,
        report: &mut Report,
    ) -> Option<Vec<Part>> {
        match template::holes(text) {
            Ok(raw) => raw
                .into_iter()
                .map(|part| match part {
                    RawPart::Text(text) => Some(Part::Text(text)),
                    RawPart::Hole(name) => self.part(&name, false, span, report),
                })
                .collect(),
            Err((code, message)) => {
                report.error(code, span, message);
                None
            }
        }
    }

    fn unused(&self, what: &str, report: &mut Report) {
        for (i, arg) in self.args.good.iter().enumerate() {
            if !self.used.contains(&i) {
                let message = format!("the {what} never uses `{}`", arg.value.name);
                report.warn("unused_argument", &arg.span, message);
            }
        }
    }
}

pub(crate) fn read(mut table: Fields<'_>, args: &Args, report: &mut Report) -> Http {
    let mut names = Names::new(args);
    let has_method = table.has("method");
    let method = word(&mut table, "method", &METHODS, "unknown_method", report);
    if !has_method {
        report.error("missing_key", table.span(), "[http] needs `method`");
    }
    let mut http = Http {
        method: METHODS
            .into_iter()
            .find(|m| method.as_ref().is_some_and(|f| f.value == *m))
            .unwrap_or("GET"),
        origin: String::new(),
        path: Vec::new(),
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        success_status: Vec::new(),
        error_status: Vec::new(),
    };
    if let Some(url) = table.required("url", report) {
        read_url(&url, &mut http, &mut names, report);
    }
    if let Some(mut headers) = table.table("headers", report) {
        for (name, node) in headers.rest() {
            match node.get_ref().as_str() {
                Some(text) => {
                    let value = At { value: text, span: node.span() };
                    http.headers.extend(header(&name, &value, &http, &mut names, report));
                }
                None => {
                    report.error("wrong_type", &node.span(), "a header is a string");
                }
            }
        }
    }
    if let Some(text) = table.string("body_template", report) {
        http.body = body::read(&text, &mut http.headers, &mut names, report);
    }
    http.success_status = status(&mut table, "success_status", report);
    http.error_status = status(&mut table, "error_status", report);
    if let Some(span) = table.span_of("error_status")
        && http.error_status.iter().any(|code| http.success_status.contains(code))
    {
        let message = "a status cannot mean success and an error";
        report.error("status_conflict", &span, message);
    }
    if let Some(capability) = table.string("capability", report)
        && capability.value.trim().is_empty()
    {
        report.error("empty_value", &capability.span, "`capability` must not be empty");
    }
    table.finish(report);
    names.unused("request", report);
    http
}

fn read_url(url: &At<&str>, http: &mut Http, names: &mut Names<'_>, report: &mut Report) {
    let text = url.value;
    let bad = |report: &mut Report, message: &str| {
        report.error("bad_url", &url.span, message);
    };
    if text.contains("{_secret:") {
        report
            .error("secret_in_url", &url.span, "a URL is logged where it goes; a secret is not")
            .fix("put the secret into a header");
        return;
    }
    let scheme = text.split("://").next().unwrap_or_default();
    let rest = text.get(scheme.len() + 3..).unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if scheme.contains(['{', '}']) || authority.contains(['{', '}']) {
        let message = "scheme and host must be fixed text, without placeholders";
        report.error("url_not_fixed", &url.span, message);
        return;
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\' || c == '#') {
        return bad(report, "the URL holds a space, a control character, a backslash or a `#`");
    }
    let Some(parts) =
        names.text(rest.get(authority.len()..).unwrap_or_default(), &url.span, report)
    else {
        return;
    };
    if authority.contains('@') {
        return bad(report, "the URL holds a user or password; use a header");
    }
    if splits_escape(&parts) {
        return bad(report, "a value would become a part of a percent escape");
    }
    // The holes as words that canonical form leaves alone.
    let mut shown = format!("{scheme}://{authority}");
    let mut holes = Vec::new();
    for part in template::holes(rest.get(authority.len()..).unwrap_or_default()).unwrap_or_default()
    {
        match part {
            RawPart::Text(text) => shown.push_str(&text),
            RawPart::Hole(name) => {
                shown.push_str(&format!("hole-{}-", holes.len()));
                holes.push(name);
            }
        }
    }
    let parsed = match url::Url::parse(&shown) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && !authority.is_empty() => {
            parsed
        }
        _ => return bad(report, "the URL is not an absolute URL of http or https"),
    };
    let origin = format!("{scheme}://{authority}");
    let slash = format!("{origin}/{}", shown.get(origin.len()..).unwrap_or_default());
    let added = !matches!(shown.get(origin.len()..), Some(tail) if tail.starts_with('/'));
    if parsed.as_str() != shown && !(added && parsed.as_str() == slash) {
        let mut canonical = parsed.as_str().replace('{', "{{").replace('}', "}}");
        for (i, name) in holes.iter().enumerate() {
            canonical = canonical.replace(&format!("hole-{i}-"), &format!("{{{name}}}"));
        }
        let message = "the URL is not in canonical form";
        report.error("bad_url", &url.span, message).fix(format!("write `{canonical}`"));
        return;
    }
    let rule = HostRule { allow_internal: true, ..HostRule::default() };
    let host = parsed.host_str().unwrap_or_default();
    if host::of_url(host, rule).is_err_and(|refusal| refusal.code == "metadata_host") {
        let message = "the host serves metadata or is link-local; no request is sent to it";
        report.warn("url_to_metadata", &url.span, message);
    }
    http.origin = origin;
    // Cut at the first question mark of the manifest.
    let (mut path, mut query) = (Vec::new(), None::<Vec<Part>>);
    for part in parts {
        match (&mut query, part) {
            (Some(query), part) => query.push(part),
            (None, Part::Text(text)) => match text.split_once('?') {
                Some((before, after)) => {
                    path.push(Part::Text(before.to_owned()));
                    query = Some(vec![Part::Text(after.to_owned())]);
                }
                None => path.push(Part::Text(text)),
            },
            (None, part) => path.push(part),
        }
    }
    for i in path.iter().filter_map(|part| if let Part::Arg(i) = part { Some(*i) } else { None }) {
        if names.args.good.get(i).is_some_and(|arg| arg.value.may_be_absent()) {
            let message = "a call without a value that the URL's path needs is refused";
            report.warn("optional_in_path", &url.span, message).fix("write `required = true`");
        }
    }
    if path.iter().all(|part| matches!(part, Part::Text(text) if text.is_empty())) {
        path = vec![Part::Text("/".to_owned())];
    }
    http.path = path;
    http.query = query.map(|query| pairs(&query)).unwrap_or_default();
}

/// Whether a hole follows the beginning of a percent escape.
pub(crate) fn splits_escape(parts: &[Part]) -> bool {
    parts.windows(2).any(|pair| match pair {
        [Part::Text(text), Part::Arg(_) | Part::Secret(_)] => {
            let end = text.rfind('%').and_then(|at| text.get(at + 1..));
            end.is_some_and(|end| end.len() < 2)
        }
        _ => false,
    })
}

/// `a=1&b={x}`: cut at the manifest's own separators.
pub(crate) fn pairs(parts: &[Part]) -> Vec<Pair> {
    let mut found = vec![Pair { key: Vec::new(), value: None }];
    for part in parts {
        let Part::Text(text) = part else {
            push(&mut found, part.clone());
            continue;
        };
        for (i, piece) in text.split('&').enumerate() {
            if i > 0 {
                found.push(Pair { key: Vec::new(), value: None });
            }
            let open = found.last().is_some_and(|pair| pair.value.is_none());
            match piece.split_once('=').filter(|_| open) {
                Some((key, value)) => {
                    push(&mut found, Part::Text(key.to_owned()));
                    if let Some(last) = found.last_mut() {
                        last.value = Some(Vec::new());
                    }
                    push(&mut found, Part::Text(value.to_owned()));
                }
                None => push(&mut found, Part::Text(piece.to_owned())),
            }
        }
    }
    found.retain(|pair| !pair.key.is_empty() || pair.value.is_some());
    found
}

fn push(pairs: &mut [Pair], part: Part) {
    if matches!(&part, Part::Text(text) if text.is_empty()) {
        return;
    }
    if let Some(last) = pairs.last_mut() {
        last.value.as_mut().unwrap_or(&mut last.key).push(part);
    }
}

fn header(
    name: &At<&str>,
    value: &At<&str>,
    http: &Http,
    names: &mut Names<'_>,
    report: &mut Report,
) -> Option<(String, Vec<Part>)> {
    if value.value.contains(['\r', '\n']) || name.value.contains(['\r', '\n']) {
        let message = "a header must not hold CR or LF";
        report.error("header_newline", &value.span, message);
        return None;
    }
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let shown = excerpt(name.value);
    if name.value.is_empty() || !name.value.bytes().all(token) {
        report.error("bad_header", &name.span, format!("`{shown}` is no name of a header"));
        return None;
    }
    if value.value.chars().any(|c| c.is_control() && c != '\t') {
        report.error("bad_header", &value.span, "a header must not hold a control character");
        return None;
    }
    let lower = name.value.to_ascii_lowercase();
    if FRAMING.contains(&lower.as_str()) {
        let message = format!("`{shown}` is written by whoever sends the request");
        report.error("bad_header", &name.span, message).fix("leave it out");
        return None;
    }
    if http.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name.value)) {
        report.error("bad_header", &name.span, format!("`{shown}` is there twice"));
        return None;
    }
    Some((name.value.to_owned(), names.text(value.value, &value.span, report)?))
}

fn status(table: &mut Fields<'_>, key: &'static str, report: &mut Report) -> Vec<u16> {
    let Some((_, node)) = table.node(key) else {
        return Vec::new();
    };
    let Some(list) = node.get_ref().as_array() else {
        report.error("wrong_type", &node.span(), format!("`{key}` must be a list of numbers"));
        return Vec::new();
    };
    let mut found = Vec::new();
    for item in list {
        let code = crate::fields::integer(item.get_ref()).and_then(|n| u16::try_from(n).ok());
        match code.filter(|code| (100..600).contains(code)) {
            Some(code) => found.push(code),
            None => {
                let message = "a status is a whole number from 100 to 599";
                report.error("out_of_range", &item.span(), message);
            }
        }
    }
    found
}

pub(crate) fn read_mcp(mut table: Fields<'_>, args: &Args, report: &mut Report) -> Option<Mcp> {
    let server = table.required("server", report);
    let tool = table.required("tool", report);
    for text in server.iter().chain(&tool) {
        if text.value.chars().any(|c| countersign_core::text::hides(c) || c.is_whitespace()) {
            report.error("bad_value", &text.span, "holds a space or an invisible character");
        }
    }
    let mut map = HashMap::new();
    if let Some(mut fields) = table.table("field_map", report) {
        for (name, node) in fields.rest() {
            let known = args.good.iter().map(|arg| arg.value.name.as_str());
            if !args.bad.contains(name.value) && !known.clone().any(|known| known == name.value) {
                let message = format!("there is no argument `{}`", excerpt(name.value));
                report
                    .error("field_map_unknown_argument", &name.span, message)
                    .nearest(name.value, known);
                continue;
            }
            match node.get_ref().as_str() {
                Some(field) if !field.trim().is_empty() => {
                    map.insert(name.value, (field, node.span()));
                }
                Some(_) => {
                    report.error("empty_value", &node.span(), "a field must have a name");
                }
                None => {
                    report.error("wrong_type", &node.span(), "a field's name is a string");
                }
            }
        }
    }
    table.finish(report);
    let mut fields: Vec<String> = Vec::new();
    for arg in &args.good {
        let name = arg.value.name.as_str();
        let (field, span) = match map.get(name) {
            Some((field, span)) => (*field, span),
            None => (name, &arg.span),
        };
        if fields.iter().any(|known| known == field) {
            let message = format!("two arguments become `{}`", excerpt(field));
            report.error("field_map_twice", span, message);
        }
        fields.push(field.to_owned());
    }
    Some(Mcp { server: server?.value.to_owned(), tool: tool?.value.to_owned(), fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_the_configuration_has_holes_for_secrets_only() {
        let text = |text: &str| Piece::Text(text.to_owned());
        let secret = |name: &str| {
            Piece::Secret(Secret { secret: name.to_owned(), escape: SecretEscape::None })
        };
        for (given, pieces) in [
            ("", vec![]),
            ("plain", vec![text("plain")]),
            ("{_secret:a.b-1}", vec![secret("a.b-1")]),
            (
                "Bearer {_secret:a}{_secret:b}!",
                vec![text("Bearer "), secret("a"), secret("b"), text("!")],
            ),
            ("{{}}", vec![text("{}")]),
        ] {
            assert_eq!(secret_text(given), Ok(pieces), "{given}");
        }
        for given in ["{a}", "{_secret:}", "{_secret:a b}", "{_secret:a", "{", "}", "{ _secret:a}"]
        {
            assert!(secret_text(given).is_err(), "{given}");
        }
    }
}
