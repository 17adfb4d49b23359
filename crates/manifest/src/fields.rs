//! Reads one TOML table key by key and reports what is left over.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Report, excerpt};
use crate::types::number::Bound;

/// A value with its place in the text.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

const STRINGS: &str = "a list of strings";

pub(crate) type Node<'a> = &'a Spanned<DeValue<'a>>;

/// One table; every key asked for counts as known, every key not asked for is an error in
/// [`Fields::finish`].
pub(crate) struct Fields<'a> {
    /// As a person writes it: `[tool.limits]`.
    path: String,
    span: Range<usize>,
    left: Vec<(At<&'a str>, Node<'a>)>,
    asked: Vec<&'static str>,
    places: Vec<(&'static str, Range<usize>)>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(path: impl Into<String>, span: Range<usize>, table: &'a DeTable<'a>) -> Self {
        Self {
            path: path.into(),
            span,
            left: in_order(table),
            asked: Vec::new(),
            places: Vec::new(),
        }
    }

    /// The table under `node`, or an error.
    pub(crate) fn of(path: &str, node: Node<'a>, report: &mut Report) -> Option<Self> {
        match node.get_ref() {
            DeValue::Table(table) => Some(Self::new(path, node.span(), table)),
            other => {
                report.error(
                    "wrong_type",
                    &node.span(),
                    format!("{path} must be a table, not {}", kind(other)),
                );
                None
            }
        }
    }

    pub(crate) fn span(&self) -> &Range<usize> {
        &self.span
    }

    /// Whether the key is there and nobody has taken it yet.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.left.iter().any(|(name, _)| name.value == key)
    }

    /// Where a key that was taken stands.
    pub(crate) fn span_of(&self, key: &str) -> Option<Range<usize>> {
        self.places.iter().find(|(name, _)| *name == key).map(|(_, span)| span.clone())
    }

    /// Whether the key was there, be its value usable or not.
    pub(crate) fn knew(&self, key: &str) -> bool {
        self.places.iter().any(|(name, _)| *name == key)
    }

    /// Takes a key out, whatever it holds.
    pub(crate) fn node(&mut self, key: &'static str) -> Option<(Range<usize>, Node<'a>)> {
        self.asked.push(key);
        let at = self.left.iter().position(|(name, _)| name.value == key)?;
        let (name, node) = self.left.remove(at);
        self.places.push((key, name.span.clone()));
        Some((name.span, node))
    }

    pub(crate) fn table(&mut self, key: &'static str, report: &mut Report) -> Option<Fields<'a>> {
        let path = self.child(key);
        let (_, node) = self.node(key)?;
        Fields::of(&path, node, report)
    }

    pub(crate) fn string(&mut self, key: &'static str, report: &mut Report) -> Option<At<&'a str>> {
        let (_, node) = self.node(key)?;
        let value = node.get_ref().as_str();
        self.typed(key, node, value, "a string", report)
    }

    /// A required string that is not empty.
    pub(crate) fn required(
        &mut self,
        key: &'static str,
        report: &mut Report,
    ) -> Option<At<&'a str>> {
        if !self.has(key) {
            self.asked.push(key);
            report.error("missing_key", &self.span, format!("{} needs `{key}`", self.path));
            return None;
        }
        let value = self.string(key, report)?;
        if value.value.trim().is_empty() {
            report.error("empty_value", &value.span, format!("`{key}` must not be empty"));
            return None;
        }
        Some(value)
    }

    pub(crate) fn boolean(&mut self, key: &'static str, report: &mut Report) -> Option<At<bool>> {
        let (_, node) = self.node(key)?;
        let value = node.get_ref().as_bool();
        self.typed(key, node, value, "true or false", report)
    }

    pub(crate) fn integer(&mut self, key: &'static str, report: &mut Report) -> Option<At<i64>> {
        let (_, node) = self.node(key)?;
        let value = integer(node.get_ref());
        self.typed(key, node, value, "a whole number", report)
    }

    /// A finite number.
    pub(crate) fn bound(&mut self, key: &'static str, report: &mut Report) -> Option<At<Bound>> {
        let (_, node) = self.node(key)?;
        let value = match node.get_ref() {
            DeValue::Float(_) => float(node.get_ref()).filter(|f| f.is_finite()).map(Bound::Float),
            other => integer(other).map(Bound::Whole),
        };
        self.typed(key, node, value, "a finite number", report)
    }

    /// A whole number in the given range.
    pub(crate) fn bounded(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        report: &mut Report,
    ) -> Option<At<u64>> {
        let found = self.integer(key, report)?;
        match u64::try_from(found.value).ok().filter(|n| range.contains(n)) {
            Some(value) => Some(At { value, span: found.span }),
            None => {
                let (low, high) = (range.start(), range.end());
                let bounds = if *high == u64::MAX {
                    format!("at least {low}")
                } else {
                    format!("between {low} and {high}")
                };
                report.error("out_of_range", &found.span, format!("`{key}` must be {bounds}"));
                None
            }
        }
    }

    pub(crate) fn strings(
        &mut self,
        key: &'static str,
        report: &mut Report,
    ) -> Option<At<Vec<At<&'a str>>>> {
        let (_, node) = self.node(key)?;
        let value = node.get_ref().as_array().and_then(|array| {
            array
                .iter()
                .map(|item| item.get_ref().as_str().map(|value| At { value, span: item.span() }))
                .collect()
        });
        self.typed(key, node, value, STRINGS, report)
    }

    /// Every remaining entry, in the order of the text: for tables whose keys are names.
    pub(crate) fn rest(&mut self) -> Vec<(At<&'a str>, Node<'a>)> {
        std::mem::take(&mut self.left)
    }

    /// A key of the older format that has no effect here; `instead` says what to write.
    pub(crate) fn outdated(
        &mut self,
        key: &'static str,
        instead: &'static str,
        report: &mut Report,
    ) {
        let asked = self.asked.len();
        if let Some((span, _)) = self.node(key) {
            let message = format!("`{key}` in {} has no effect", self.path);
            report.warn("outdated_key", &span, message).fix(instead);
        }
        // Nobody is told to write it.
        self.asked.truncate(asked);
    }

    /// Reports every key that nobody asked for.
    pub(crate) fn finish(self, report: &mut Report) {
        for (key, _) in self.left {
            let (code, place) = if self.path.is_empty() {
                ("unknown_table", "a manifest".to_owned())
            } else {
                ("unknown_key", self.path.clone())
            };
            let name = excerpt(key.value);
            report
                .error(code, &key.span, format!("{place} has no `{name}`"))
                .nearest(key.value, self.asked.iter().copied());
        }
    }

    fn child(&self, key: &str) -> String {
        match self.path.strip_suffix(']') {
            Some(parent) => format!("{parent}.{key}]"),
            None if self.path.is_empty() => format!("[{key}]"),
            None => format!("{}.{key}", self.path),
        }
    }

    fn typed<T>(
        &self,
        key: &str,
        node: Node<'a>,
        value: Option<T>,
        expected: &str,
        report: &mut Report,
    ) -> Option<At<T>> {
        let span = node.span();
        if value.is_none() {
            let path = &self.path;
            let message = match node.get_ref() {
                DeValue::Array(items) if expected == STRINGS => {
                    let other = items.iter().find(|item| item.get_ref().as_str().is_none());
                    let other = other.map_or("nothing", |item| kind(item.get_ref()));
                    format!("`{key}` in {path} must be {expected}; {other} is in it")
                }
                found => format!("`{key}` in {path} must be {expected}, not {}", kind(found)),
            };
            report.error("wrong_type", &span, message);
        }
        value.map(|value| At { value, span })
    }
}

/// The entries as the text has them: the parser keeps them sorted by key.
pub(crate) fn in_order<'a>(table: &'a DeTable<'a>) -> Vec<(At<&'a str>, Node<'a>)> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, node)| (At { value: key.get_ref().as_ref(), span: key.span() }, node))
        .collect();
    entries.sort_by_key(|(key, _)| key.span.start);
    entries
}

pub(crate) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn float(value: &DeValue<'_>) -> Option<f64> {
    value.as_float()?.as_str().parse().ok()
}

/// The JSON form of a value that an argument may have.
pub(crate) fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Integer(_) => integer(value)?.into(),
        DeValue::Float(_) => serde_json::Number::from_f64(float(value)?)?.into(),
        _ => return None,
    })
}

pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) if integer(value).is_none() => "a whole number of more than 64 bits",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) if !float(value).is_some_and(f64::is_finite) => "`inf` or `nan`",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
