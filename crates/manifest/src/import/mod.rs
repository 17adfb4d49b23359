//! Manifests to begin with, from what a tool says about itself. What comes in is untrusted: every
//! text is quoted, every name made one, and what has no counterpart is left as a comment.

mod help;
mod mcp;
mod openapi;

pub use help::import_help;
pub use mcp::import_mcp;
pub use openapi::import_openapi;

use countersign_core::text::{self, visible};
use serde_json::Value;

use crate::body::PRIVATE;
use crate::types::MAX_TEXT;
use crate::{Manifest, Severity};

/// A manifest to edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Such as `read_file.clad.toml`; no folder in it.
    pub file: String,
    /// It loads without errors.
    pub text: String,
}

/// What became of one thing that was to be imported: a manifest, or its name and why not.
type Made = Result<Imported, String>;

/// Everything that loads. What was left out stands at the top of the first manifest, or in the error
/// if there is none.
fn collected(made: Vec<Made>) -> Result<Vec<Imported>, String> {
    let (mut found, mut lacking) = (Vec::new(), Vec::new());
    for one in made {
        match one {
            Ok(imported) => found.push(imported),
            Err(why) => lacking.push(why),
        }
    }
    if lacking.is_empty() {
        return Ok(found);
    }
    let Some(first) = found.first_mut() else {
        let more = if lacking.len() > 10 { " and more" } else { "" };
        lacking.truncate(10);
        return Err(format!("nothing in it can be written: {}{more}", lacking.join("; ")));
    };
    let lines: String = lacking.iter().map(|why| format!("# Left out: {why}\n")).collect();
    first.text.insert_str(0, &format!("{lines}\n"));
    Ok(found)
}

/// A manifest that loads, or why it does not. `what` is the name of what it was made of.
fn loads(tool: &str, text: String, what: &str) -> Made {
    let file = format!("{tool}.clad.toml");
    let (manifest, found) = Manifest::parse(&file, &text);
    if manifest.is_some() {
        return Ok(Imported { file, text });
    }
    let error = found.iter().find(|found| found.severity == Severity::Error);
    let why = error.map_or("it would not load", |error| error.message.as_str());
    Err(format!("{}: {}", line(what), line(why)))
}

/// Most arguments that are taken over; a tool with more is one to write by hand.
const MAX_ARGS: usize = 64;

/// A name of the format out of any text: `getUser-v2` becomes `get_user_v2`.
fn name(text: &str, taken: &[String], otherwise: &str) -> String {
    let mut out = String::new();
    let mut lower = false;
    for c in text.chars() {
        if c.is_ascii_uppercase() && lower {
            out.push('_');
        }
        lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('_') {
            out.push('_');
        }
    }
    let out: String = out.trim_matches('_').chars().take(50).collect();
    let base = match out.bytes().next() {
        None => otherwise.to_owned(),
        Some(b) if b.is_ascii_digit() => format!("{otherwise}_{out}"),
        Some(_) => out,
    };
    let mut name = base.clone();
    let mut number = 2;
    while taken.contains(&name) {
        name = format!("{base}_{number}");
        number += 1;
    }
    name
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string().trim().to_owned()
}

/// One line a person can look at, of at most 300 characters.
fn line(text: &str) -> String {
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = visible(&text).into_owned();
    let mut out: String = text.chars().take(300).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

fn described(text: Option<&str>, otherwise: &str) -> String {
    let text = text.map(line).unwrap_or_default();
    if text.is_empty() { otherwise.to_owned() } else { text }
}

/// The type that a JSON Schema gives, or nothing.
fn kind_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("")
        }
        _ => "",
    }
}

/// A comment for each member of an object but those that are `known`.
fn others(object: &Value, known: &[&str]) -> String {
    let members = object.as_object().into_iter().flatten();
    members
        .filter(|(key, _)| !known.contains(&key.as_str()))
        .map(|(key, value)| {
            // As it is to be typed, where nothing in it is hidden.
            let hides = |text: &str| text.len() > 300 || text.chars().any(text::hides);
            let value = match value.as_str().filter(|text| !hides(text)) {
                Some(text) => quoted(text),
                None => line(&value.to_string()),
            };
            format!("# Left out: {}: {value}\n", line(key))
        })
        .collect()
}

/// The `[args.NAME]` table of a JSON Schema property. `otherwise` is the type for what is neither text,
/// number nor boolean.
fn arg(name: &str, schema: &Value, required: bool, otherwise: &str) -> String {
    let mut out = format!("\n[args.{name}]\n");
    let mut known = vec!["type", "enum", "description", "title"];
    let kind = kind_of(schema);
    let words: Option<Vec<&str>> = schema
        .get("enum")
        .and_then(Value::as_array)
        .map(|words| words.iter().filter_map(Value::as_str).collect());
    let writable =
        |word: &&str| word.len() <= MAX_TEXT && !word.chars().any(countersign_core::text::hides);
    let numbers = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    for word in numbers.filter(|word| !word.is_string()) {
        out.push_str(&format!("# Left out, as it is no text: {}\n", line(&word.to_string())));
    }
    for word in words.iter().flatten().filter(|word| !writable(word)) {
        out.push_str(&format!("# Left out, as it cannot be written: {}\n", line(word)));
    }
    let words = words.map(|words| {
        let mut known: Vec<String> = words.into_iter().filter(writable).map(quoted).collect();
        known.dedup();
        known
    });
    let whole = |key: &str| schema.get(key).and_then(Value::as_i64);
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    match (kind, words) {
        (_, Some(words)) if !words.is_empty() => {
            out.push_str(&format!("type = \"enum\"\nallowed = [{}]\n", words.join(", ")));
        }
        ("integer", _) => {
            out.push_str("type = \"integer\"\n");
            let crossed =
                matches!((whole("minimum"), whole("maximum")), (Some(a), Some(b)) if a > b);
            for (key, bound) in [("min", whole("minimum")), ("max", whole("maximum"))] {
                if let Some(bound) = bound.filter(|_| !crossed) {
                    known.push(if key == "min" { "minimum" } else { "maximum" });
                    out.push_str(&format!("{key} = {bound}\n"));
                }
            }
        }
        ("number", _) => {
            out.push_str("type = \"number\"\n");
            let (low, high) = (number("minimum"), number("maximum"));
            let crossed = matches!((low, high), (Some(a), Some(b)) if a > b);
            for (key, bound) in [("min_float", low), ("max_float", high)] {
                if let Some(bound) = bound.filter(|_| !crossed) {
                    known.push(if key == "min_float" { "minimum" } else { "maximum" });
                    out.push_str(&format!("{key} = {bound:?}\n"));
                }
            }
        }
        ("boolean", _) => out.push_str("type = \"boolean\"\n"),
        ("string" | "", _) => {
            let format = schema.get("format").and_then(Value::as_str);
            out.push_str(match format {
                Some("uri" | "url") => "type = \"url\"\n",
                Some("ipv4" | "ipv6") => "type = \"ip_address\"\n",
                _ => {
                    "type = \"string\"            # `literal_text` for text with spaces, quotes, lines\n"
                }
            });
            if matches!(format, Some("uri" | "url" | "ipv4" | "ipv6")) {
                known.push("format");
            }
        }
        _ => {
            out.push_str(&format!(
                "# The schema wants: {}. Values here are text, numbers and booleans: it is sent as text.\n",
                line(kind)
            ));
            out.push_str(&format!("type = \"{otherwise}\"\n"));
        }
    }
    out.push_str(&others(schema, &known));
    if required {
        out.push_str("required = true\n");
    }
    if let Some(text) = schema.get("description").and_then(Value::as_str) {
        out.push_str(&format!("description = {}\n", quoted(&line(text))));
    }
    out
}
