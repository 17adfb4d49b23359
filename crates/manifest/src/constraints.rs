//! The constraints of a type: those it was defined with, and those where it is used, which may
//! only tighten them.

use crate::diagnostic::{Report, excerpt};
use crate::fields::{At, Fields};
use crate::types::address::HostRule;
use crate::types::number::{Bound, IntegerRule, NumberRule};
use crate::types::text::TextRule;
use crate::types::url::UrlRule;
use crate::types::{ArgType, Kind, Pattern, TYPES};

/// Every constraint of the format, for any type.
pub(crate) const CONSTRAINTS: &[&str] = &[
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

/// The schemes of a `url` that names none.
const DEFAULT_SCHEMES: [&str; 2] = ["http", "https"];

/// A built-in type and everything said about it so far.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    /// One of [`TYPES`].
    pub(crate) word: &'static str,
    /// The name of the custom type this is, if it is one.
    pub(crate) custom: Option<String>,
    allowed: Option<Vec<String>>,
    patterns: Vec<Pattern>,
    integer: (Option<i64>, Option<i64>),
    number: (Option<Bound>, Option<Bound>),
    schemes: Option<Vec<String>>,
    clamp: bool,
    scope_check: bool,
    block_internal: bool,
    leading_dash: bool,
    whitespace: bool,
    at: bool,
    allow_internal: bool,
    any: bool,
}

impl Typed {
    /// A built-in type, as it is.
    pub(crate) fn builtin(name: &str) -> Option<Self> {
        let (word, _) = TYPES.iter().find(|(word, _)| *word == name)?;
        Some(Self {
            word,
            custom: None,
            allowed: None,
            patterns: Vec::new(),
            integer: (None, None),
            number: (None, None),
            schemes: None,
            clamp: false,
            scope_check: false,
            block_internal: false,
            leading_dash: false,
            whitespace: false,
            at: false,
            allow_internal: false,
            any: false,
        })
    }

    fn takes(&self, key: &str) -> bool {
        TYPES.iter().any(|(word, keys)| *word == self.word && keys.contains(&key))
    }

    /// Takes the constraints out of a table and adds them. `spaces_fit` is false where a value
    /// with spaces could never be used.
    pub(crate) fn read(
        mut self,
        table: &mut Fields<'_>,
        spaces_fit: bool,
        report: &mut Report,
    ) -> Self {
        self.patterns.extend(pattern(table, report));
        sanitize(table, report);
        for key in CONSTRAINTS.iter().filter(|key| !self.takes(key)) {
            self.refuse_key(key, table, report);
        }
        self.read_allowed(table, report);
        self.read_bounds(table, report);
        self.read_schemes(table, report);
        let mut flag = |key, tightens: Option<bool>, now: bool, report: &mut Report| {
            if !self_takes(self.word, key) {
                return now;
            }
            let Some(given) = table.boolean(key, report) else {
                return now;
            };
            let looser = tightens.is_none_or(|t| given.value != t) && given.value != now;
            if self.custom.is_some() && looser {
                loosens(key, self.custom.as_deref(), &given.span, report);
                return now;
            }
            if key == "allow_whitespace" && given.value && !spaces_fit {
                report
                    .warn("whitespace_needs_exec", &given.span, "spaces are taken with `exec` only")
                    .fix("write the command as `exec`");
            }
            given.value
        };
        let (yes, no) = (Some(true), Some(false));
        let clamp = flag("clamp", no, self.clamp, report);
        let scope_check = flag("scope_check", yes, self.scope_check, report);
        let block_internal = flag("block_internal", yes, self.block_internal, report);
        let leading_dash = flag("allow_leading_dash", no, self.leading_dash, report);
        let whitespace = flag("allow_whitespace", no, self.whitespace, report);
        let at = flag("allow_at", no, self.at, report);
        let allow_internal = flag("allow_internal", no, self.allow_internal, report);
        let any = flag("allow_any", no, self.any, report);
        if block_internal && allow_internal {
            report.warn(
                "conflicting_keys",
                table.span(),
                "`block_internal` stands against `allow_internal`, and wins",
            );
        }
        Self {
            clamp,
            scope_check,
            block_internal,
            leading_dash,
            whitespace,
            at,
            allow_internal,
            any,
            ..self
        }
    }

    /// Reports a constraint that means nothing for the type.
    fn refuse_key(&self, key: &'static str, table: &mut Fields<'_>, report: &mut Report) {
        let Some((span, _)) = table.node(key) else {
            return;
        };
        let word = self.word;
        let diagnostic = report.error(
            "constraint_not_applicable",
            &span,
            format!("`{key}` means nothing for type {word}"),
        );
        let mut takers = TYPES.iter().filter(|(_, keys)| keys.contains(&key)).map(|(t, _)| *t);
        match (key, word) {
            ("min_float", "integer") => diagnostic.fix("write `min`"),
            ("max_float", "integer") => diagnostic.fix("write `max`"),
            ("allowed", _) => diagnostic.fix("write `type = \"enum\"`"),
            _ => {
                let takers: Vec<_> = takers.by_ref().collect();
                diagnostic.fix(format!("it belongs to {}", takers.join(", ")));
            }
        }
    }

    fn read_allowed(&mut self, table: &mut Fields<'_>, report: &mut Report) {
        if !self.takes("allowed") {
            return;
        }
        let Some(words) = allowed(table, report) else {
            return;
        };
        if let Some(known) = &self.allowed {
            for word in words.iter().filter(|word| !known.contains(&word.value)) {
                loosens("allowed", self.custom.as_deref(), &word.span, report);
            }
        }
        self.allowed = Some(words.into_iter().map(|word| word.value).collect());
    }

    fn read_bounds(&mut self, table: &mut Fields<'_>, report: &mut Report) {
        let custom = self.custom.clone();
        let custom = custom.as_deref();
        // Without `min` and `allow_leading_dash` the type takes nothing below zero.
        let opens = |key: &str, negative, span: &std::ops::Range<usize>, report: &mut Report| {
            if custom.is_some() && negative && !self.leading_dash {
                loosens(key, custom, span, report);
            }
        };
        if self.word == "integer" {
            let (min, max) = (table.integer("min", report), table.integer("max", report));
            if let (Some(min), None) = (&min, self.integer.0) {
                opens("min", min.value < 0, &min.span, report);
            }
            bound("min", &mut self.integer.0, min, |new, old| new < old, custom, report);
            let span = bound("max", &mut self.integer.1, max, |new, old| new > old, custom, report);
            let crossed = matches!(self.integer, (Some(min), Some(max)) if min > max);
            cross(crossed, span, table, report);
        } else if self.word == "number" {
            let mut span = None;
            let unbounded = self.number.0.is_none();
            for key in ["min", "min_float"] {
                let given = table.bound(key, report);
                if let Some(min) = given.as_ref().filter(|_| unbounded) {
                    opens(key, min.value.negative(), &min.span, report);
                }
                span = bound(key, &mut self.number.0, given, |n, o| n < o, custom, report).or(span);
            }
            for key in ["max", "max_float"] {
                let given = table.bound(key, report);
                span = bound(key, &mut self.number.1, given, |n, o| n > o, custom, report).or(span);
            }
            let crossed = matches!(self.number, (Some(min), Some(max)) if min > max);
            cross(crossed, span, table, report);
        }
    }

    fn read_schemes(&mut self, table: &mut Fields<'_>, report: &mut Report) {
        if !self.takes("schemes") {
            return;
        }
        let Some(list) = table.strings("schemes", report) else {
            return;
        };
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
            let known = match &self.schemes {
                Some(known) => known.iter().any(|k| k == scheme.value),
                None => DEFAULT_SCHEMES.contains(&scheme.value),
            };
            if self.custom.is_some() && !known {
                loosens("schemes", self.custom.as_deref(), &scheme.span, report);
            }
        }
        self.schemes = Some(list.value.into_iter().map(|s| s.value.to_owned()).collect());
    }

    /// What a type has to be told before it can be used. `span` is where it is named.
    pub(crate) fn complete(&self, table: &Fields<'_>, report: &mut Report) {
        if self.word == "regex_match" && self.patterns.is_empty() && !table.knew("pattern") {
            report.error("missing_key", table.span(), "a regex_match needs `pattern`");
        }
        if self.word == "enum" && self.allowed.is_none() && !table.knew("allowed") {
            report.error("missing_key", table.span(), "an enum needs `allowed`");
        }
    }

    pub(crate) fn finish(self, spaces_fit: bool) -> ArgType {
        let text = TextRule {
            leading_dash: self.leading_dash,
            whitespace: self.whitespace && spaces_fit,
            at: self.at,
        };
        let host = HostRule {
            block_internal: self.block_internal,
            allow_internal: self.allow_internal,
            any: self.any,
        };
        let kind = match self.word {
            "literal_text" => Kind::Literal,
            "integer" => Kind::Integer(IntegerRule {
                min: self.integer.0,
                max: self.integer.1,
                clamp: self.clamp,
                leading_dash: self.leading_dash,
            }),
            "number" => Kind::Number(NumberRule {
                min: self.number.0,
                max: self.number.1,
                clamp: self.clamp,
                leading_dash: self.leading_dash,
            }),
            "port" => Kind::Port,
            "boolean" => Kind::Boolean,
            "enum" => Kind::Enum(self.allowed.unwrap_or_default()),
            "scope_target" => Kind::Target(host),
            "url" => {
                let default = || DEFAULT_SCHEMES.map(str::to_owned).to_vec();
                Kind::Url(UrlRule { schemes: self.schemes.unwrap_or_else(default), host })
            }
            "path" => Kind::Path(text),
            "credential_file" => Kind::Credential(text),
            "ip_address" => Kind::Ip(host),
            "cidr" => Kind::Cidr(host),
            "duration" => Kind::Duration,
            "msf_options" => Kind::Options,
            "agent_summary" => Kind::Summary(text),
            _ => Kind::Text(text),
        };
        ArgType { name: self.word, kind, patterns: self.patterns, scoped: self.scope_check }
    }
}

fn self_takes(word: &str, key: &str) -> bool {
    TYPES.iter().any(|(known, keys)| *known == word && keys.contains(&key))
}

fn loosens(key: &str, custom: Option<&str>, span: &std::ops::Range<usize>, report: &mut Report) {
    let custom = custom.unwrap_or("its type");
    let message = format!("`{key}` is looser here than in `{custom}`");
    report.error("loosens_type", span, message).fix("a use may only tighten its type");
}

/// Takes a new bound unless it is looser than the old one. Gives the place of a new one.
fn bound<T: Copy + PartialOrd>(
    key: &str,
    now: &mut Option<T>,
    given: Option<At<T>>,
    looser: impl Fn(T, T) -> bool,
    custom: Option<&str>,
    report: &mut Report,
) -> Option<std::ops::Range<usize>> {
    let given = given?;
    match *now {
        // Without a custom type this is `min` beside `min_float`: the tighter one holds.
        Some(old) if looser(given.value, old) => {
            if custom.is_some() {
                loosens(key, custom, &given.span, report);
            }
        }
        _ => *now = Some(given.value),
    }
    Some(given.span)
}

fn cross(
    crossed: bool,
    span: Option<std::ops::Range<usize>>,
    table: &Fields<'_>,
    report: &mut Report,
) {
    if crossed {
        let span = span.unwrap_or_else(|| table.span().clone());
        report.error("min_above_max", &span, "the least is above the most");
    }
}

fn pattern(table: &mut Fields<'_>, report: &mut Report) -> Option<Pattern> {
    let source = table.string("pattern", report)?;
    compile(&source, true, report)
}

/// Compiles a pattern; says so if it looks as if it were searched for.
pub(crate) fn compile(source: &At<&str>, whole: bool, report: &mut Report) -> Option<Pattern> {
    match Pattern::compile(source.value) {
        Ok(pattern) => {
            if whole && !pattern.anchored {
                let message = "a pattern has to match the whole value";
                report
                    .warn("unanchored_pattern", &source.span, message)
                    .fix("begin it with `^` and end it with `$`, all of it: `^(a|b)$`");
            }
            Some(pattern)
        }
        Err(error) => {
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let message = format!("the pattern does not compile: {}", excerpt(reason));
            report.error("bad_pattern", &source.span, message);
            None
        }
    }
}

fn sanitize(table: &mut Fields<'_>, report: &mut Report) {
    if let Some(list) = table.strings("sanitize", report) {
        sanitizers(&list, "sanitize", report);
    }
}

pub(crate) fn sanitizers(list: &At<Vec<At<&str>>>, key: &str, report: &mut Report) {
    if list.value.is_empty() {
        report
            .warn("sanitize_off", &list.span, "the checks of a type cannot be switched off")
            .fix(format!("leave out `{key}`"));
    }
    for word in list.value.iter().filter(|w| w.value != "injection") {
        let message = format!("there is no sanitizer `{}`", excerpt(word.value));
        report.error("unknown_sanitizer", &word.span, message).fix("write `injection`");
    }
}

fn allowed(table: &mut Fields<'_>, report: &mut Report) -> Option<Vec<At<String>>> {
    let list = table.strings("allowed", report)?;
    if list.value.is_empty() {
        report.error("empty_value", &list.span, "`allowed` must not be empty");
    }
    let mut words: Vec<At<String>> = Vec::new();
    for word in list.value {
        if word.value.len() > crate::types::MAX_TEXT
            || word.value.chars().any(countersign_core::text::hides)
        {
            report.error("bad_allowed", &word.span, "holds an invisible character or is too long");
        } else if words.iter().any(|w| w.value == word.value) {
            let message = format!("`{}` is allowed twice", excerpt(word.value));
            report.warn("duplicate_allowed", &word.span, message);
        } else {
            words.push(At { value: word.value.to_owned(), span: word.span });
        }
    }
    Some(words)
}

impl Typed {
    /// Takes the constraints of an unknown type, so that they are not called unknown too.
    pub(crate) fn ignore(table: &mut Fields<'_>) {
        for key in CONSTRAINTS.iter().chain(&["pattern", "sanitize"]) {
            table.node(key);
        }
    }
}
