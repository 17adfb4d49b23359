//! What an argument of each type may be, and the text it becomes.

pub(crate) mod address;
pub(crate) mod duration;
pub(crate) mod host;
pub(crate) mod msf;
pub(crate) mod number;
pub(crate) mod path;
pub(crate) mod summary;
pub(crate) mod text;
pub(crate) mod url;

use std::sync::OnceLock;

use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind, Look};
use serde_json::{Map, Value, json};

use crate::diagnostic::excerpt;
use crate::scope::Scope;
use address::HostRule;
use host::Target;
use text::TextRule;

const DASH_AT: &[&str] = &["allow_leading_dash", "allow_at"];
const TEXT: &[&str] = &["allow_leading_dash", "allow_whitespace", "allow_at"];

/// Every type, with the constraints each takes beside `pattern` and `sanitize`, which fit all.
pub(crate) const TYPES: &[(&str, &[&str])] = &[
    ("string", TEXT),
    ("literal_text", &[]),
    ("integer", &["min", "max", "clamp", "allow_leading_dash"]),
    ("number", &["min", "max", "min_float", "max_float", "clamp", "allow_leading_dash"]),
    ("port", &[]),
    ("boolean", &[]),
    ("enum", &["allowed"]),
    ("scope_target", &["scope_check", "block_internal", "allow_internal", "allow_any"]),
    ("url", &["schemes", "scope_check", "block_internal", "allow_internal"]),
    ("path", TEXT),
    ("credential_file", TEXT),
    ("ip_address", &["scope_check", "block_internal", "allow_internal"]),
    ("cidr", &["scope_check", "block_internal", "allow_any"]),
    ("duration", &[]),
    ("regex_match", TEXT),
    ("msf_options", &[]),
    ("agent_summary", DASH_AT),
];

/// Bytes of a text value, unless it is a `literal_text`.
pub(crate) const MAX_TEXT: usize = 4096;
/// Bytes of a `literal_text`.
pub(crate) const MAX_LITERAL: usize = 32_768;

/// Bytes of a compiled pattern, as they are estimated.
const MAX_PATTERN: usize = 10 << 20;
/// Bytes of one state of it.
const STATE: usize = 32;

/// Why a value is refused.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    /// About the value, which some messages name and the others leave out.
    pub(crate) fn sentence(&self) -> String {
        let names = |c: char| c == '`' || c == '-' || c.is_ascii_digit();
        if self.message.starts_with(names) {
            self.message.clone()
        } else {
            format!("it {}", self.message)
        }
    }
}

pub(crate) fn refuse<T>(code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

/// One type with its constraints; resolving compiles nothing.
#[derive(Clone, Debug)]
pub(crate) struct ArgType {
    /// The built-in type.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// All of them have to match.
    pub(crate) patterns: Vec<Pattern>,
    /// The value is held against the scope.
    pub(crate) scoped: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// `string` and `regex_match`.
    Text(TextRule),
    Literal,
    Integer(number::IntegerRule),
    Number(number::NumberRule),
    Port,
    Boolean,
    Enum(Vec<String>),
    Target(HostRule),
    Url(url::UrlRule),
    Path(TextRule),
    Credential(TextRule),
    Ip(HostRule),
    Cidr(HostRule),
    Duration,
    Options,
    Summary(TextRule),
}

/// A regular expression that has to match the whole value.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) source: String,
    /// Every match begins and ends with the value, by what the source says.
    pub(crate) anchored: bool,
    /// What has to match: the source, and nothing around it.
    whole_source: String,
    /// Compiled when it is first needed: most tools of a folder are never called.
    whole: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub(crate) fn compile(source: &str) -> Result<Self, String> {
        // INVARIANT: the source alone parses, so its groups balance and it cannot close ours.
        let parse =
            |text: &str| regex_syntax::Parser::new().parse(text).map_err(|error| error.to_string());
        let alone = parse(source)?;
        let anchored = alone.properties().look_set_prefix().contains(Look::Start)
            && alone.properties().look_set_suffix().contains(Look::End);
        let mut whole_source = format!(r"\A(?:{source})\z");
        // With `(?x)`, a comment at the end lasts as long as its line.
        let whole = parse(&whole_source).or_else(|_| {
            whole_source = format!("\\A(?:{source}\n)\\z");
            parse(&whole_source)
        })?;
        let size = size(&whole);
        if size > MAX_PATTERN {
            return Err(format!("it needs about {size} bytes; at most {MAX_PATTERN}"));
        }
        let source = source.to_owned();
        Ok(Self { source, anchored, whole_source, whole: OnceLock::new() })
    }

    fn matches(&self, text: &str) -> bool {
        // One that is larger than was thought matches nothing.
        let compile = || {
            let mut builder = regex::RegexBuilder::new(&self.whole_source);
            builder.size_limit(4 * MAX_PATTERN).build().ok()
        };
        let regex = self.whole.get_or_init(compile);
        regex.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

/// About how many bytes the compiled expression has. To compile thousands would take long, and
/// most are never used.
fn size(hir: &Hir) -> usize {
    let sum = |parts: &[Hir]| parts.iter().fold(STATE, |all, part| all.saturating_add(size(part)));
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => STATE,
        HirKind::Literal(literal) => literal.0.len().saturating_mul(STATE),
        HirKind::Class(Class::Bytes(class)) => (1 + class.ranges().len()).saturating_mul(STATE),
        HirKind::Class(Class::Unicode(class)) => {
            (1 + class.ranges().len()).saturating_mul(2 * STATE)
        }
        HirKind::Repetition(repeated) => {
            let times = repeated.max.unwrap_or(repeated.min).max(1) as usize;
            size(&repeated.sub).saturating_add(STATE).saturating_mul(times)
        }
        HirKind::Capture(capture) => size(&capture.sub).saturating_add(2 * STATE),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => sum(parts),
    }
}

impl ArgType {
    /// The text that stands for the value in a plan.
    pub(crate) fn resolve(&self, value: &Value) -> Result<String, Refusal> {
        let given;
        let text = match (&self.kind, value) {
            (Kind::Integer(_) | Kind::Duration, Value::Number(number)) => {
                if !number.is_i64() {
                    return refuse(self.number_code(), "must be a whole number of 64 bits");
                }
                given = number.to_string();
                given.as_str()
            }
            (Kind::Port, Value::Number(number)) if !number.is_i64() => {
                return refuse("not_a_port", "must be a whole number from 1 to 65535");
            }
            (Kind::Number(_) | Kind::Port, Value::Number(number)) => {
                given = number.to_string();
                given.as_str()
            }
            (Kind::Boolean, Value::Bool(flag)) => {
                given = flag.to_string();
                given.as_str()
            }
            (kind, Value::String(text)) => {
                let max = if matches!(kind, Kind::Literal) { MAX_LITERAL } else { MAX_TEXT };
                if text.len() > max {
                    let length = text.len();
                    return refuse("too_long", format!("has {length} bytes; at most {max}"));
                }
                if text.contains('\0') {
                    return refuse("nul", "holds a NUL character");
                }
                text
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
        let resolved = self.resolve_text(text)?;
        for pattern in &self.patterns {
            if !pattern.matches(text) {
                let (text, pattern) = (excerpt(text), excerpt(&pattern.source));
                return refuse("pattern_mismatch", format!("`{text}` does not match `{pattern}`"));
            }
        }
        Ok(resolved.unwrap_or_else(|| text.to_owned()))
    }

    /// The text in its final form, where that is another one.
    fn resolve_text(&self, text: &str) -> Result<Option<String>, Refusal> {
        match &self.kind {
            Kind::Literal => {}
            Kind::Text(rule) => rule.check(text)?,
            Kind::Path(rule) | Kind::Credential(rule) => path::check(rule, text)?,
            Kind::Summary(rule) => summary::check(*rule, text)?,
            Kind::Options => msf::check(text)?,
            Kind::Target(rule) => {
                text::visible(text, false)?;
                host::target(text, *rule)?;
            }
            Kind::Url(rule) => {
                rule.check(text)?;
            }
            Kind::Ip(rule) => {
                text::visible(text, false)?;
                address::check_ip(text, *rule)?;
            }
            Kind::Cidr(rule) => {
                text::visible(text, false)?;
                address::check_cidr(text, *rule)?;
            }
            Kind::Duration => return duration::parse(text).map(Some),
            Kind::Integer(rule) => return rule.parse(text).map(Some),
            Kind::Number(rule) => return rule.parse(text).map(Some),
            Kind::Port => return number::parse_port(text).map(Some),
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
        Ok(None)
    }

    /// Holds a value that was resolved against every scope there is; none refuses it.
    pub(crate) fn in_scope<'a>(
        &self,
        text: &str,
        scopes: impl Iterator<Item = &'a Scope>,
    ) -> Result<(), Refusal> {
        if !self.scoped {
            return Ok(());
        }
        let target = match &self.kind {
            Kind::Target(rule) => host::target(text, *rule)?,
            Kind::Url(rule) => rule.check(text)?,
            Kind::Ip(_) => match address::parse(text) {
                Some(ip) => Target::Net(ip.into()),
                None => return refuse("not_an_ip", "is not an IP address"),
            },
            Kind::Cidr(rule) => Target::Net(address::parse_cidr(text, rule.any)?),
            _ => return Ok(()),
        };
        let mut scopes = scopes.peekable();
        if scopes.peek().is_none() {
            return refuse("no_scope", "has to be within a scope, and there is none");
        }
        scopes.try_for_each(|scope| scope.check(&target))
    }

    /// The value as JSON for a tool that takes JSON: numbers and booleans as such.
    pub(crate) fn json(&self, text: &str) -> Result<Value, Refusal> {
        match self.kind {
            Kind::Boolean => Ok((text == "true").into()),
            _ if self.is_bare() => match number::exact(text) {
                Some(number) => Ok(number),
                None => refuse("loses_digits", "has more digits than a JSON number keeps"),
            },
            _ => Ok(text.into()),
        }
    }

    /// Whether it stands without quotes in JSON.
    pub(crate) fn is_bare(&self) -> bool {
        matches!(
            self.kind,
            Kind::Integer(_) | Kind::Port | Kind::Boolean | Kind::Number(_) | Kind::Duration
        )
    }

    fn number_code(&self) -> &'static str {
        if matches!(self.kind, Kind::Duration) { "not_a_duration" } else { "not_an_integer" }
    }

    fn wanted(&self) -> &'static str {
        match self.kind {
            Kind::Integer(_) | Kind::Port => "a whole number",
            Kind::Number(_) => "a number",
            Kind::Boolean => "a boolean",
            Kind::Duration => "a string or a whole number of seconds",
            _ => "a string",
        }
    }

    /// Whether a value could be read as an option by the program that gets it.
    pub(crate) fn may_lead_with_dash(&self) -> bool {
        match &self.kind {
            Kind::Literal => true,
            Kind::Text(rule) | Kind::Path(rule) | Kind::Credential(rule) | Kind::Summary(rule) => {
                rule.leading_dash
            }
            Kind::Integer(rule) => rule.negative(),
            Kind::Number(rule) => rule.negative(),
            _ => false,
        }
    }

    pub(crate) fn may_be_empty(&self) -> bool {
        match &self.kind {
            Kind::Literal => true,
            Kind::Enum(allowed) => allowed.iter().any(String::is_empty),
            _ => false,
        }
    }

    /// Whether the manifest lists every value, so that the agent only chooses among them.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.kind, Kind::Enum(_) | Kind::Boolean)
    }

    /// JSON Schema of the value, without a description.
    pub(crate) fn schema(&self) -> Map<String, Value> {
        let schema = match &self.kind {
            Kind::Url(_) => {
                json!({"type": "string", "format": "uri", "minLength": 1, "maxLength": MAX_TEXT})
            }
            Kind::Literal => json!({"type": "string", "maxLength": MAX_LITERAL}),
            Kind::Integer(rule) => rule.schema(),
            Kind::Number(rule) => rule.schema(),
            Kind::Port => json!({"type": "integer", "minimum": 1, "maximum": 65535}),
            Kind::Boolean => json!({"type": "boolean"}),
            Kind::Enum(allowed) => json!({"type": "string", "enum": allowed}),
            Kind::Duration => json!({"type": ["string", "integer"]}),
            _ => json!({"type": "string", "minLength": 1, "maxLength": MAX_TEXT}),
        };
        let Value::Object(mut schema) = schema else {
            return Map::new();
        };
        // Only what this crate and JSON Schema read alike: the rest would mislead.
        if let [pattern] = self.patterns.as_slice()
            && !self.is_bare()
            && !matches!(self.kind, Kind::Enum(_))
            && !["(?", "[[", "&&", "--", "~~"].iter().any(|s| pattern.source.contains(s))
            && !pattern.source.split('\\').skip(1).any(|s| s.starts_with(char::is_alphanumeric))
        {
            let source = &pattern.source;
            let whole = if pattern.anchored { source.clone() } else { format!("^(?:{source})$") };
            schema.insert("pattern".to_owned(), whole.into());
        }
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_PATTERN, Pattern};

    #[test]
    fn what_is_thought_small_enough_compiles_and_the_rest_is_refused_at_once() {
        let twice = "(a|b)?".repeat(2000);
        for source in [
            r"^\p{L}{1,50}$",
            r"\w{1,150}",
            r"(?i)[a-z]{1,1000}",
            r"a{1000}",
            r".{0,4096}",
            r"[^x]{1,4096}",
            r"(\p{Han}|\p{L}|x){1,90}",
            r"\d{1,1000}",
            twice.as_str(),
            r"((a{10}){10}){10}",
            r"(?i)ßſk{500}",
        ] {
            let pattern = Pattern::compile(source).unwrap_or_else(|why| panic!("{source}: {why}"));
            pattern.matches("x");
            assert!(pattern.whole.get().is_some_and(Option::is_some), "{source}");
        }
        for source in [r"\p{L}{1,1000}", "((a{1000}){1000}){1000}", r"(\w{100}){100}"] {
            let why = Pattern::compile(source).unwrap_err();
            assert!(why.contains(&MAX_PATTERN.to_string()), "{source}: {why}");
        }
        for (source, anchored, matches) in [
            ("^a$", true, true),
            ("(?i)^A$", true, true),
            ("(^a$)", true, true),
            (r"\Aa\z", true, true),
            ("^(a|b)$", true, true),
            ("^a$|^b$", true, true),
            ("^a|b$", false, true),
            (r"^a\$", false, false),
            ("(?m)^a$", false, true),
            ("^?a$", false, true),
            ("(?x) ^ a $ # or b", true, true),
            ("(?x)a # it is a)", false, true),
            ("a#", false, false),
        ] {
            let pattern = Pattern::compile(source).unwrap_or_else(|why| panic!("{source}: {why}"));
            assert_eq!((pattern.anchored, pattern.matches("a")), (anchored, matches), "{source}");
            assert!(!pattern.matches("a\n") && !pattern.matches("a)"), "{source}");
        }
        // Nothing is compiled before it is needed.
        let pattern = Pattern::compile(r"^\p{L}{1,50}$").unwrap();
        assert!(pattern.whole.get().is_none());
        assert!(pattern.matches("ä") && !pattern.matches("1") && !pattern.matches(""));
    }
}
