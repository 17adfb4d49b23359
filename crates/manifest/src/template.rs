//! Command text, cut into tokens before any value exists. A value fills a hole inside one
//! token; nothing is ever cut again.

use crate::diagnostic::excerpt;

/// One argv element to be, with its holes still named.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RawToken(pub(crate) Vec<RawPart>);

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RawPart {
    Text(String),
    Hole(String),
}

/// A code and a message.
pub(crate) type TemplateError = (&'static str, String);

/// An element of `exec`: one token whatever it holds.
pub(crate) fn element(text: &str) -> Result<RawToken, TemplateError> {
    let mut tokens = read(text, false)?;
    Ok(tokens.pop().unwrap_or_default())
}

/// A template: white space separates tokens; quotes and a backslash keep it inside one, as in a
/// POSIX shell.
pub(crate) fn split(text: &str) -> Result<Vec<RawToken>, TemplateError> {
    read(text, true)
}

/// Text that is no command: quotes are characters like others.
pub(crate) fn holes(text: &str) -> Result<Vec<RawPart>, TemplateError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, after) = rest.split_at(at);
        push_text(&mut parts, before);
        if let Some(tail) = after.strip_prefix("{{") {
            push_text(&mut parts, "{");
            rest = tail;
        } else if let Some(tail) = after.strip_prefix("}}") {
            push_text(&mut parts, "}");
            rest = tail;
        } else {
            let hole = after.strip_prefix('{').and_then(|t| t.split_once('}'));
            let Some((name, tail)) = hole.filter(|(name, _)| is_hole(name)) else {
                let message = format!("`{}` holds no placeholder", excerpt(after));
                return Err(("bad_placeholder", message));
            };
            parts.push(RawPart::Hole(name.to_owned()));
            rest = tail;
        }
    }
    push_text(&mut parts, rest);
    Ok(parts)
}

/// JSON whose own braces are not doubled: only a name between braces is a hole.
pub(crate) fn json_body(text: &str) -> Vec<RawPart> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, after) = rest.split_at(at);
        push_text(&mut parts, before);
        let hole = after.strip_prefix('{').and_then(|t| t.split_once('}'));
        match hole.filter(|(name, _)| is_hole(name)) {
            Some((name, tail)) => {
                parts.push(RawPart::Hole(name.to_owned()));
                rest = tail;
            }
            None => {
                push_text(&mut parts, "{");
                rest = after.get(1..).unwrap_or_default();
            }
        }
    }
    push_text(&mut parts, rest);
    parts
}

fn is_hole(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-.".contains(&b))
}

fn push_text(parts: &mut Vec<RawPart>, text: &str) {
    match parts.last_mut() {
        Some(RawPart::Text(last)) => last.push_str(text),
        _ if text.is_empty() => {}
        _ => parts.push(RawPart::Text(text.to_owned())),
    }
}

fn read(text: &str, split: bool) -> Result<Vec<RawToken>, TemplateError> {
    let mut tokens = Vec::new();
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut quote: Option<char> = None;
    let mut started = !split;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\0' => return Err(("nul", "holds a NUL character".to_owned())),
            '{' | '}' if chars.peek() == Some(&c) => {
                chars.next();
                literal.push(c);
            }
            '{' => {
                let mut name = String::new();
                let closed = loop {
                    match chars.next() {
                        Some('}') => break true,
                        Some(c) => name.push(c),
                        None => break false,
                    }
                };
                let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-.".contains(&b));
                if !closed || !plain || name.is_empty() {
                    let message = format!("`{{{}` is no placeholder", excerpt(&name));
                    return Err(("bad_placeholder", message));
                }
                if quote.is_some() {
                    let message = format!("`{{{name}}}` stands inside quotes");
                    return Err(("placeholder_in_quotes", message));
                }
                if !literal.is_empty() {
                    parts.push(RawPart::Text(std::mem::take(&mut literal)));
                }
                parts.push(RawPart::Hole(name));
            }
            '}' => return Err(("bad_placeholder", "`}` closes nothing".to_owned())),
            '\\' if split && quote != Some('\'') => match chars.next() {
                None => {
                    let message = "ends with a backslash that escapes nothing".to_owned();
                    return Err(("unbalanced_quotes", message));
                }
                Some(c @ ('{' | '}')) => {
                    let message = format!("`\\{c}` is no brace; write `{c}{c}`");
                    return Err(("bad_placeholder", message));
                }
                Some(c) => {
                    // Between double quotes it escapes these alone.
                    if quote.is_some() && !matches!(c, '"' | '\\' | '$' | '`') {
                        literal.push('\\');
                    }
                    literal.push(c);
                }
            },
            '\'' | '"' => {
                let opens = quote.is_none();
                let closes = quote == Some(c);
                if opens {
                    quote = Some(c);
                } else if closes {
                    quote = None;
                }
                if !split || !(opens || closes) {
                    literal.push(c);
                }
            }
            c if split && quote.is_none() && c.is_whitespace() => {
                if !literal.is_empty() {
                    parts.push(RawPart::Text(std::mem::take(&mut literal)));
                }
                if started {
                    tokens.push(RawToken(std::mem::take(&mut parts)));
                }
                started = false;
                continue;
            }
            c => literal.push(c),
        }
        started = true;
    }
    if split && quote.is_some() {
        return Err(("unbalanced_quotes", "a quote is never closed".to_owned()));
    }
    if !literal.is_empty() {
        parts.push(RawPart::Text(literal));
    }
    if started {
        tokens.push(RawToken(parts));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(tokens: &[RawToken]) -> Vec<String> {
        let part = |p: &RawPart| match p {
            RawPart::Text(text) => text.clone(),
            RawPart::Hole(name) => format!("<{name}>"),
        };
        tokens.iter().map(|t| t.0.iter().map(part).collect()).collect()
    }

    #[test]
    fn templates_split_like_words() {
        for (text, expected) in [
            ("a b  c", Ok(vec!["a", "b", "c"])),
            ("  a\tb\n", Ok(vec!["a", "b"])),
            ("a 'b c' \"d e\"", Ok(vec!["a", "b c", "d e"])),
            ("a '' b", Ok(vec!["a", "", "b"])),
            ("a 'it\"s'", Ok(vec!["a", "it\"s"])),
            ("a --x={y} {z}", Ok(vec!["a", "--x=<y>", "<z>"])),
            ("{{a}} {{{b}}}", Ok(vec!["{a}", "{<b>}"])),
            ("", Ok(vec![])),
            ("a 'b", Err("unbalanced_quotes")),
            ("a '{b}'", Err("placeholder_in_quotes")),
            ("a \"x {b}\"", Err("placeholder_in_quotes")),
            ("a {b", Err("bad_placeholder")),
            ("a {}", Err("bad_placeholder")),
            ("a }", Err("bad_placeholder")),
            ("a {b c}", Err("bad_placeholder")),
            ("a \\b c\\ d", Ok(vec!["a", "b", "c d"])),
            ("'\\d' \"\\d\\\"\"", Ok(vec!["\\d", "\\d\""])),
            ("a \\", Err("unbalanced_quotes")),
            ("a \\{b}", Err("bad_placeholder")),
            ("a \0", Err("nul")),
        ] {
            let found = split(text);
            let found = found.as_ref().map(|t| show(t)).map_err(|e| e.0);
            let expected = expected.map(|t| t.into_iter().map(String::from).collect());
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn an_element_stays_one() {
        for (text, expected) in [
            ("a b", Ok("a b")),
            ("", Ok("")),
            ("don't", Ok("don't")),
            ("--x={y}", Ok("--x=<y>")),
            ("'{y}'", Err("placeholder_in_quotes")),
            ("say \"{y}\"", Err("placeholder_in_quotes")),
        ] {
            let found = element(text).map(|t| show(&[t]).join("|")).map_err(|e| e.0);
            assert_eq!(found.as_deref(), expected.as_deref(), "{text:?}");
        }
    }
}
