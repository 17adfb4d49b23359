//! What an argument of each type may be, and the text it becomes.

pub(crate) mod host;
pub(crate) mod number;
pub(crate) mod path;
pub(crate) mod text;
pub(crate) mod url;

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::diagnostic::excerpt;
use text::TextRule;

/// The types that can be declared, with the constraints each takes beside `pattern` and
/// `sanitize`, which fit all.
pub(crate) const SUPPORTED: &[(&str, &[&str])] = &[
    ("string", &["allow_leading_dash", "allow_whitespace", "allow_at"]),
    ("literal_text", &[]),
    ("integer", &["min", "max", "clamp", "allow_leading_dash"]),
    ("number", &["min_float", "max_float", "clamp", "allow_leading_dash"]),
    ("port", &[]),
    ("boolean", &[]),
    ("enum", &["allowed"]),
    ("path", &["allow_leading_dash", "allow_whitespace", "allow_at"]),
    ("url", &["schemes", "scope_check", "block_internal", "allow_internal"]),
    ("regex_match", &["allow_leading_dash", "allow_whitespace", "allow_at"]),
];

/// Types of the format that this version does not have.
pub(crate) const UNSUPPORTED: &[&str] = &[
    "scope_target",
    "credential_file",
    "ip_address",
    "cidr",
    "duration",
    "msf_options",
    "agent_summary",
];

/// Bytes of a text value, unless it is a `literal_text`.
pub(crate) const MAX_TEXT: usize = 4096;
/// Bytes of a `literal_text`.
pub(crate) const MAX_LITERAL: usize = 32_768;

/// Why a value is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

pub(crate) fn refuse<T>(code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

/// One type with its constraints; resolving compiles nothing.
#[derive(Debug)]
pub(crate) struct ArgType {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) pattern: Option<Pattern>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// `string` and `regex_match`.
    Text(TextRule),
    Literal,
    Integer(number::IntegerRule),
    Number(number::NumberRule),
    Port,
    Boolean,
    Enum(Vec<String>),
    Path(TextRule),
    Url(url::UrlRule),
}

/// A regular expression that has to match the whole value.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) source: String,
    whole: Regex,
}

impl Pattern {
    pub(crate) fn compile(source: &str) -> Result<Self, regex::Error> {
        // INVARIANT: the source alone compiles, so its groups balance and it cannot close ours.
        Regex::new(source)?;
        let whole = Regex::new(&format!(r"\A(?:{source})\z"))?;
        Ok(Self { source: source.to_owned(), whole })
    }
}

impl ArgType {
    /// The text that stands for the value in a plan.
    pub(crate) fn resolve(&self, value: &Value) -> Result<String, Refusal> {
        let text = match (&self.kind, value) {
            (Kind::Integer(rule), Value::Number(number)) => match number.as_i64() {
                Some(n) => rule.check(n)?,
                None => return refuse("not_an_integer", "must be a whole number of 64 bits"),
            },
            (Kind::Port, Value::Number(number)) => match number.as_i64() {
                Some(n) => number::port(n)?,
                None => return refuse("not_a_port", "must be a whole number from 1 to 65535"),
            },
            (Kind::Number(rule), Value::Number(number)) => rule.parse(&number.to_string())?,
            (Kind::Boolean, Value::Bool(flag)) => flag.to_string(),
            (kind, Value::String(text)) => {
                let max = if matches!(kind, Kind::Literal) { MAX_LITERAL } else { MAX_TEXT };
                if text.len() > max {
                    let length = text.len();
                    return refuse("too_long", format!("has {length} bytes; at most {max}"));
                }
                if text.contains('\0') {
                    return refuse("nul", "holds a NUL character");
                }
                self.resolve_text(text)?
            }
            (_, other) => {
                let found = match other {
                    Value::Null => "null",
                    Value::Bool(_) => "a boolean",
                    Value::Number(_) => "a number",
                    Value::String(_) => "a string",
                    Value::Array(_) => "a list",
                    Value::Object(_) => "an object",
                };
                return refuse("wrong_type", format!("must be {}, not {found}", self.wanted()));
            }
        };
        if let Some(pattern) = &self.pattern
            && !pattern.whole.is_match(&text)
        {
            let (text, pattern) = (excerpt(&text), excerpt(&pattern.source));
            return refuse("pattern_mismatch", format!("`{text}` does not match `{pattern}`"));
        }
        Ok(text)
    }

    fn resolve_text(&self, text: &str) -> Result<String, Refusal> {
        match &self.kind {
            Kind::Literal => {}
            Kind::Text(rule) => rule.check(text)?,
            Kind::Path(rule) => path::check(rule, text)?,
            Kind::Url(rule) => rule.check(text)?,
            Kind::Integer(rule) => return rule.parse(text),
            Kind::Number(rule) => return rule.parse(text),
            Kind::Port => return number::parse_port(text),
            Kind::Boolean if text == "true" || text == "false" => {}
            Kind::Boolean => return refuse("not_a_boolean", "must be true or false"),
            Kind::Enum(allowed) if allowed.iter().any(|a| a == text) => {}
            Kind::Enum(allowed) => {
                let shown: Vec<_> = allowed.iter().take(12).map(|a| excerpt(a)).collect();
                let more = if allowed.len() > shown.len() { ", …" } else { "" };
                let shown = shown.join(", ");
                return refuse(
                    "not_allowed",
                    format!("`{}` is not one of: {shown}{more}", excerpt(text)),
                );
            }
        }
        Ok(text.to_owned())
    }

    fn wanted(&self) -> &'static str {
        match self.kind {
            Kind::Integer(_) | Kind::Port => "a whole number",
            Kind::Number(_) => "a number",
            Kind::Boolean => "a boolean",
            _ => "a string",
        }
    }

    /// Whether a value could be read as an option by the program that gets it.
    pub(crate) fn may_lead_with_dash(&self) -> bool {
        match &self.kind {
            Kind::Literal => true,
            Kind::Text(rule) | Kind::Path(rule) => rule.leading_dash,
            Kind::Integer(rule) => rule.negative(),
            Kind::Number(rule) => rule.negative(),
            Kind::Port | Kind::Boolean | Kind::Enum(_) | Kind::Url(_) => false,
        }
    }

    /// Whether the manifest lists every value, so that the agent only chooses among them.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.kind, Kind::Enum(_) | Kind::Boolean)
    }

    /// JSON Schema of the value, without a description.
    pub(crate) fn schema(&self) -> Map<String, Value> {
        let schema = match &self.kind {
            Kind::Text(_) | Kind::Path(_) => {
                json!({"type": "string", "minLength": 1, "maxLength": MAX_TEXT})
            }
            Kind::Url(_) => {
                json!({"type": "string", "format": "uri", "minLength": 1, "maxLength": MAX_TEXT})
            }
            Kind::Literal => json!({"type": "string", "maxLength": MAX_LITERAL}),
            Kind::Integer(rule) => rule.schema(),
            Kind::Number(rule) => rule.schema(),
            Kind::Port => json!({"type": "integer", "minimum": 1, "maximum": 65535}),
            Kind::Boolean => json!({"type": "boolean"}),
            Kind::Enum(allowed) => json!({"type": "string", "enum": allowed}),
        };
        let Value::Object(mut schema) = schema else {
            return Map::new();
        };
        // Only what this crate and JSON Schema read alike: the rest would mislead.
        if let Some(pattern) = &self.pattern
            && matches!(self.kind, Kind::Text(_) | Kind::Path(_) | Kind::Url(_) | Kind::Literal)
            && !["(?", "[[", "&&", "--", "~~"].iter().any(|s| pattern.source.contains(s))
            && !pattern.source.split('\\').skip(1).any(|s| s.starts_with(char::is_alphanumeric))
        {
            let source = &pattern.source;
            let anchored =
                source.starts_with('^') && source.ends_with('$') && !source.contains('|');
            let whole = if anchored { source.clone() } else { format!("^(?:{source})$") };
            schema.insert("pattern".to_owned(), whole.into());
        }
        schema
    }
}
