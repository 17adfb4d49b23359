//! One layout for manifests. Comments, the order of everything and every value stay.

use toml_edit::{Array, Decor, DocumentMut, InlineTable, Item, RawString, Table, Value};

/// Characters of a line, beyond which a list gets a line for each element.
const WIDTH: usize = 100;

/// Lays out the text of a manifest. Doing it twice changes nothing more.
///
/// # Errors
/// Says why the text is no TOML.
pub fn format(text: &str) -> Result<String, String> {
    let text = text.replace("\r\n", "\n");
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    table(document.as_table_mut(), true);
    let trailing = comment(document.trailing().as_str().unwrap_or_default());
    document.set_trailing(trailing);
    let formatted = document.to_string();
    let trimmed = formatted.trim_matches('\n');
    Ok(if trimmed.is_empty() { String::new() } else { format!("{trimmed}\n") })
}

fn table(table: &mut Table, root: bool) {
    if !root {
        let before = comment(prefix(table.decor()));
        let before = if before.starts_with('\n') { before } else { format!("\n{before}") };
        let after = end(suffix(table.decor()));
        table.decor_mut().set_prefix(before);
        table.decor_mut().set_suffix(after);
    }
    let dotted = table.is_dotted();
    for (mut key, item) in table.iter_mut() {
        match item {
            Item::Table(inner) if inner.is_dotted() => self::table(inner, true),
            Item::Table(inner) => self::table(inner, false),
            Item::ArrayOfTables(tables) => {
                tables.iter_mut().for_each(|inner| self::table(inner, false));
            }
            Item::Value(value) => {
                let width = WIDTH.saturating_sub(key.get().len() + 3);
                if !dotted {
                    let before = comment(prefix(key.leaf_decor()));
                    key.leaf_decor_mut().set_prefix(before);
                    key.leaf_decor_mut().set_suffix(" ");
                }
                let after = end(suffix(value.decor()));
                self::value(value, width);
                value.decor_mut().set_prefix(" ");
                value.decor_mut().set_suffix(after);
            }
            Item::None => {}
        }
    }
}

fn value(value: &mut Value, width: usize) {
    match value {
        Value::Array(array) => self::array(array, width),
        Value::InlineTable(table) => inline(table),
        _ => {}
    }
}

fn inline(table: &mut InlineTable) {
    let last = table.len().saturating_sub(1);
    for (i, (mut key, value)) in table.iter_mut().enumerate() {
        self::value(value, WIDTH);
        let decor = key.leaf_decor_mut();
        if !has_comment(decor) && !has_comment(value.decor()) {
            decor.set_prefix(" ");
            decor.set_suffix(" ");
            value.decor_mut().set_prefix(" ");
            value.decor_mut().set_suffix(if i == last { " " } else { "" });
        }
    }
}

/// On one line where that fits and no comment keeps it from that.
fn array(array: &mut Array, width: usize) {
    let commented = array.iter().any(|value| has_comment(value.decor()))
        || array.trailing().as_str().is_some_and(|text| text.contains('#'));
    array.iter_mut().for_each(|item| value(item, WIDTH));
    if commented {
        return;
    }
    // As its author has it: several elements on a line can belong together.
    let lines = array.iter().any(|value| prefix(value.decor()).contains('\n'));
    let mut length = 2;
    for item in array.iter_mut() {
        let text = item.clone().decorated("", "").to_string();
        length += text.chars().count() + 2;
    }
    if length <= width {
        let mut first = true;
        for item in array.iter_mut() {
            item.decor_mut().set_prefix(if first { "" } else { " " });
            item.decor_mut().set_suffix("");
            first = false;
        }
        array.set_trailing("");
        array.set_trailing_comma(false);
    } else {
        for item in array.iter_mut() {
            let starts = prefix(item.decor()).contains('\n') || !lines;
            item.decor_mut().set_prefix(if starts { "\n  " } else { " " });
            item.decor_mut().set_suffix("");
        }
        array.set_trailing("\n");
        array.set_trailing_comma(true);
    }
}

fn has_comment(decor: &Decor) -> bool {
    prefix(decor).contains('#') || suffix(decor).contains('#')
}

fn prefix(decor: &Decor) -> &str {
    decor.prefix().and_then(RawString::as_str).unwrap_or_default()
}

fn suffix(decor: &Decor) -> &str {
    decor.suffix().and_then(RawString::as_str).unwrap_or_default()
}

/// What stands before something: comments at the margin, at most one empty line between them.
fn comment(text: &str) -> String {
    let mut out = String::new();
    let mut empty = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        if content.is_empty() {
            if line.ends_with('\n') {
                empty += 1;
            }
            continue;
        }
        if empty > 0 {
            out.push('\n');
        }
        empty = 0;
        out.push_str(content);
        if line.ends_with('\n') {
            out.push('\n');
        }
    }
    if empty > 0 {
        out.push('\n');
    }
    out
}

/// What stands after something on its line: nothing, or a comment, which its author may have
/// aligned with others.
fn end(text: &str) -> String {
    let text = text.trim_end();
    let comment = text.trim_start();
    let space = text.len() - comment.len();
    if comment.is_empty() {
        String::new()
    } else {
        format!("{}{comment}", " ".repeat(space.max(1)))
    }
}
