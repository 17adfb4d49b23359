//! The `[output]` table.

use serde_json::{Map, Value};
use toml::de::DeValue;

use crate::diagnostic::{Report, excerpt};
use crate::fields::{Fields, Node, in_order, json};
use crate::output::{Output, OutputFormat};
use crate::parse::word;
use crate::project::Project;

const GIB: u64 = 1 << 30;
const FORMATS: [&str; 5] = ["text", "json", "jsonl", "csv", "xml"];

pub(crate) fn read(mut table: Fields<'_>, project: &Project, report: &mut Report) -> Output {
    let mut output = Output::default();
    let format = word(&mut table, "format", &FORMATS, "unknown_format", report);
    if let Some(format) = format.as_ref().and_then(|f| OutputFormat::of(f.value)) {
        output.format = format;
    }
    if let Some(parser) = table.string("parser", report) {
        match parser.value.strip_prefix("builtin:") {
            Some(builtin) => match OutputFormat::of(builtin) {
                Some(found) => {
                    if format.is_some_and(|format| format.value != builtin) {
                        report.warn(
                            "parser_differs",
                            &parser.span,
                            format!("output is read as {builtin}, whatever `format` says"),
                        );
                    }
                    output.format = found;
                }
                None => {
                    let known: Vec<_> = FORMATS.iter().map(|f| format!("builtin:{f}")).collect();
                    report
                        .error("unknown_parser", &parser.span, "there is no such built-in parser")
                        .nearest(parser.value, known.iter().map(String::as_str));
                }
            },
            None if project.parsers.contains(parser.value) => {
                output.parser = Some(parser.value.to_owned());
            }
            None => {
                let shown = excerpt(parser.value);
                let message = format!("`{shown}` is no built-in parser and on no allow list");
                report
                    .error("parser_not_allowed", &parser.span, message)
                    .fix("write `builtin:text`, or `builtin:` and another format");
            }
        }
    }
    if let Some(envelope) = table.boolean("envelope", report) {
        output.envelope = envelope.value;
    }
    if let Some(max) = table.bounded("max_bytes", 1..=GIB, report) {
        output.max_bytes = max.value;
    }
    let span = table.span().clone();
    match table.node("schema") {
        Some((_, node)) => output.schema = schema(node, report),
        None => {
            report
                .warn("no_schema", &span, "[output] says nothing about the results")
                .fix("add [output.schema] with `type = \"object\"`");
        }
    }
    table.finish(report);
    output
}

fn schema(node: Node<'_>, report: &mut Report) -> Option<Value> {
    if node.get_ref().as_table().is_none() {
        let found = crate::fields::kind(node.get_ref());
        let message = format!("[output.schema] must be a table, not {found}");
        report.error("wrong_type", &node.span(), message);
        return None;
    }
    let schema = tree(node, report)?;
    match crate::output::compiles(&schema) {
        Ok(()) => Some(schema),
        Err(reason) => {
            let message = format!("the schema is no JSON Schema: {}", excerpt(&reason));
            report.error("bad_schema", &node.span(), message);
            None
        }
    }
}

/// The TOML as JSON, which has no dates and no infinity.
fn tree(node: Node<'_>, report: &mut Report) -> Option<Value> {
    match node.get_ref() {
        DeValue::Table(table) => {
            let mut object = Map::new();
            for (key, node) in in_order(table) {
                object.insert(key.value.to_owned(), tree(node, report)?);
            }
            Some(object.into())
        }
        DeValue::Array(array) => {
            array.iter().map(|item| tree(item, report)).collect::<Option<Vec<_>>>().map(Value::from)
        }
        other => {
            let value = json(other);
            if value.is_none() {
                let found = crate::fields::kind(other);
                report.error("wrong_type", &node.span(), format!("JSON cannot hold {found}"));
            }
            value
        }
    }
}
