//! The arguments of a call as text: JSON read without losing what makes a value hostile.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::Manifest;
use crate::diagnostic::excerpt;
use crate::plan::ArgProblem;
use crate::types::Kind;
use crate::types::number::exact;

/// Reads a JSON object.
///
/// # Errors
/// It is none (`bad_json`, `not_an_object`; then no argument is named), or JSON itself would hide
/// what is wrong with these: an argument that is there twice, a number that becomes infinite, zero
/// or another one, half a surrogate pair, lists without end.
pub fn parse_arguments(text: &str) -> Result<Map<String, Value>, Vec<ArgProblem>> {
    read(text, |_| false)
}

impl Manifest {
    /// Reads the arguments of a call of this tool: [`parse_arguments`], but that a `number` keeps
    /// every digit it is written with, as text.
    ///
    /// # Errors
    /// As [`parse_arguments`].
    pub fn parse_arguments(&self, text: &str) -> Result<Map<String, Value>, Vec<ArgProblem>> {
        read(text, |name| {
            let arg = self.index.get(name).and_then(|i| self.args.get(*i));
            arg.is_some_and(|arg| matches!(arg.ty.kind, Kind::Number(_)))
        })
    }
}

fn read(
    text: &str,
    keeps_digits: impl Fn(&str) -> bool,
) -> Result<Map<String, Value>, Vec<ArgProblem>> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = reader
        .deserialize_map(Members)
        .and_then(|members| reader.end().map(|()| members))
        .map_err(|error| {
            let (code, what) = match error.is_data() {
                true => ("not_an_object", "no JSON object"),
                false => ("bad_json", "no JSON"),
            };
            let message = format!("the arguments are {what}: {error}");
            vec![ArgProblem { code, arg: String::new(), message }]
        })?;
    let mut found = Map::new();
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for (name, raw) in members {
        let refused = |code, message: &str| ArgProblem {
            code,
            arg: excerpt(&name),
            message: message.to_owned(),
        };
        if !names.insert(name.clone()) {
            problems.push(refused("duplicate_argument", "is given twice"));
            continue;
        }
        let raw = raw.get();
        let number = raw.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        if number && raw.parse().is_ok_and(f64::is_infinite) {
            problems.push(refused("not_finite", "is too large for a number"));
            continue;
        }
        let mantissa = raw.split(['e', 'E']).next().unwrap_or_default();
        let nonzero = mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b));
        if number && nonzero && raw.parse() == Ok(0.0) {
            problems.push(refused("rounds_to_zero", "is too close to zero"));
            continue;
        }
        if number {
            let kept = || keeps_digits(&name).then(|| Value::from(raw));
            match exact(raw).or_else(kept) {
                Some(value) => {
                    found.insert(name, value);
                }
                None => {
                    let message = "has more digits than a JSON number keeps; write it as a string";
                    problems.push(refused("loses_digits", message));
                }
            }
            continue;
        }
        match serde_json::from_str(raw) {
            Ok(value) => {
                found.insert(name, value);
            }
            // JSON by its grammar, and no value: half a surrogate pair, or lists in lists in lists.
            Err(error) => problems.push(refused("unreadable_value", &why(&error))),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// The reader's reason, without the place: that is counted from where the value begins.
fn why(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    format!("cannot be read as a value: {reason}")
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, Box<RawValue>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(member) = map.next_entry()? {
            found.push(member);
        }
        Ok(found)
    }
}
