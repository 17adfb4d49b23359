//! The formats of output that have a structure.

use csv::ReaderBuilder;
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Map, Value, json};

/// Elements within elements. JSON has a bound of its own, 128.
const DEPTH_MAX: usize = 128;
/// Elements, texts and attributes of one XML document.
const NODES_MAX: u32 = 200_000;
/// Bytes that the rows of a CSV output may come to: each repeats the names.
const ROWS_MAX: usize = 32 << 20;

pub(crate) fn json(bytes: &[u8]) -> Result<Value, String> {
    match serde_json::from_slice(bytes) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(value) => Ok(json!({"value": value})),
        Err(error) => Err(format!("output is not JSON: {error}")),
    }
}

pub(crate) fn jsonl(bytes: &[u8]) -> Result<Value, String> {
    let mut documents = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let document = serde_json::from_slice::<Value>(line).map_err(|error| {
            let (number, column) = (index + 1, error.column());
            let reason = reason(&error);
            format!("output is not JSON lines: line {number}, column {column}: {reason}")
        })?;
        documents.push(document);
    }
    Ok(json!({"value": documents}))
}

/// The error without its place: that of a line is always in line 1.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

pub(crate) fn csv(bytes: &[u8]) -> Result<Value, String> {
    let wrong = |error: csv::Error| format!("output is not CSV: {error}");
    let mut reader = ReaderBuilder::new().from_reader(bytes);
    let names = reader.headers().map_err(wrong)?.clone();
    let mut seen = std::collections::HashSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
        return Err(format!("output is not CSV: two columns are named {twice:?}"));
    }
    let (mut rows, mut size) = (Vec::new(), 0_usize);
    for row in reader.records() {
        let row = row.map_err(wrong)?;
        size += names.as_slice().len() + row.as_slice().len() + row.len() * 64;
        if size > ROWS_MAX {
            return Err(format!("output is too much CSV: its rows exceed {ROWS_MAX} bytes"));
        }
        let cells = names.iter().zip(row.iter());
        let cells = cells.map(|(name, cell)| (name.to_owned(), Value::from(cell)));
        rows.push(Value::Object(cells.collect()));
    }
    Ok(json!({"value": rows}))
}

pub(crate) fn xml(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("output is not XML: {error}"))?;
    let options =
        ParsingOptions { allow_dtd: false, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options)
        .map_err(|error| format!("output is not XML that is read here: {error}"))?;
    element(document.root_element(), 1)
}

fn element(node: Node<'_, '_>, depth: usize) -> Result<Value, String> {
    if depth > DEPTH_MAX {
        return Err(format!("output is too deep: more than {DEPTH_MAX} XML elements"));
    }
    let name = |space: Option<&str>, name: &str| match space {
        Some(space) => format!("{{{space}}}{name}"),
        None => name.to_owned(),
    };
    let tag = node.tag_name();
    let mut object = Map::new();
    object.insert("name".to_owned(), name(tag.namespace(), tag.name()).into());
    if node.attributes().len() > 0 {
        let attributes = node
            .attributes()
            .map(|found| (name(found.namespace(), found.name()), Value::from(found.value())));
        object.insert("attributes".to_owned(), Value::Object(attributes.collect()));
    }
    let mut children = Vec::new();
    for child in node.children() {
        if child.is_element() {
            children.push(element(child, depth + 1)?);
        } else if let Some(text) = child.text().filter(|_| child.is_text())
            && !text.trim().is_empty()
        {
            children.push(text.into());
        }
    }
    if !children.is_empty() {
        object.insert("children".to_owned(), children.into());
    }
    Ok(object.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = fn(&[u8]) -> Result<Value, String>;

    #[track_caller]
    fn check(read: Read, output: &str, expected: Value) {
        assert_eq!(read(output.as_bytes()), Ok(expected), "{output}");
    }

    #[track_caller]
    fn refused(read: Read, output: &[u8], reason: &str) {
        let found = read(output);
        assert!(found.as_ref().is_err_and(|why| why.contains(reason)), "{found:?}");
    }

    #[test]
    fn json_lines_are_a_list_and_an_error_says_which_line() {
        check(jsonl, "", json!({"value": []}));
        check(jsonl, "{\"a\":1}\r\n\n[2]\n\"x\"", json!({"value": [{"a": 1}, [2], "x"]}));
        refused(jsonl, b"{}\n\n{\"a\":}\n", "line 3, column 6: expected value");
        refused(jsonl, b"{} {}", "line 1, column 4: trailing characters");
        refused(jsonl, b"\"\xff\"", "line 1");
        refused(jsonl, &[b'['; 1 << 20], "recursion limit");
    }

    #[test]
    fn csv_is_read_as_it_is_written() {
        check(csv, "", json!({"value": []}));
        check(csv, "a,b\n", json!({"value": []}));
        check(
            csv,
            "a,b\r\n1,\"x, \"\"y\"\"\nz\"\r\n,2",
            json!({"value": [{"a": "1", "b": "x, \"y\"\nz"}, {"a": "", "b": "2"}]}),
        );
        refused(csv, b"a,b\n1\n", "record 1 (line: 2");
        refused(csv, b"a,b\n1,2,3\n", "found record with 3 fields");
        refused(csv, b"a,a\n1,2\n", "two columns are named \"a\"");
        refused(csv, b"a\n\xff\n", "UTF-8");
    }

    #[test]
    fn a_small_table_cannot_become_a_huge_one() {
        let columns: Vec<String> = (0..1000).map(|n| format!("{n:0500}")).collect();
        let mut text = columns.join(",");
        for _ in 0..500 {
            text.push('\n');
            text.push_str(&",".repeat(999));
        }
        assert!(text.len() < 1 << 20);
        refused(csv, text.as_bytes(), "too much CSV");
    }

    #[test]
    fn xml_is_elements_and_texts_in_their_order() {
        check(xml, "<?xml version=\"1.0\"?><!-- c --><a/>", json!({"name": "a"}));
        check(
            xml,
            "<a n='1&amp;2'>\n x <b/><![CDATA[<y>]]>\n  <b>&#x7a;</b>\n</a>",
            json!({"name": "a", "attributes": {"n": "1&2"}, "children": [
                "\n x ", {"name": "b"}, "<y>\n  ", {"name": "b", "children": ["z"]},
            ]}),
        );
        check(
            xml,
            "<p:a xmlns:p='urn:p' p:n='1'/>",
            json!({"name": "{urn:p}a", "attributes": {"{urn:p}n": "1"}}),
        );
    }

    #[test]
    fn xml_that_declares_entities_or_never_ends_is_refused() {
        let laughs = "<!DOCTYPE a [<!ENTITY x \"ha\"><!ENTITY y \"&x;&x;\">]><a>&y;</a>";
        refused(xml, laughs.as_bytes(), "DTD");
        let file = "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>";
        refused(xml, file.as_bytes(), "DTD");
        refused(xml, b"<a>&x;</a>", "unknown entity");
        refused(xml, b"<a>\xff</a>", "utf-8");
        refused(xml, b"<a><b></a>", "tag");
        refused(xml, b"", "root");
        let deep = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
        assert!(xml(deep(128).as_bytes()).is_ok());
        refused(xml, deep(129).as_bytes(), "too deep");
        refused(xml, deep(140_000).as_bytes(), "too deep");
        let many = format!("<a>{}</a>", "<b/>".repeat(200_000));
        refused(xml, many.as_bytes(), "nodes");
    }
}
