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

/// A template: white space separates tokens, quotes keep it inside one.
pub(crate) fn split(text: &str) -> Result<Vec<RawToken>, TemplateError> {
    read(text, true)
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
            '\\' if split => {
                let message = "a backslash means nothing here; use `exec`".to_owned();
                return Err(("template_backslash", message));
            }
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
            ("a \\b", Err("template_backslash")),
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
