//! The rules every value derived from text keeps.

use countersign_core::text::hides;

use super::{MAX_TEXT, Refusal, refuse};

/// Which of the general refusals a declaration lifts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TextRule {
    pub(crate) leading_dash: bool,
    pub(crate) whitespace: bool,
    pub(crate) at: bool,
}

impl TextRule {
    pub(crate) fn check(&self, text: &str) -> Result<(), Refusal> {
        visible(text, self.whitespace)?;
        self.lead(text)?;
        match text.chars().find(|c| ";|&$`(){}[]<>!'\"\\".contains(*c)) {
            Some(c @ ('\'' | '"' | '\\')) => {
                refuse("quote_character", format!("holds a quote or backslash: {c}"))
            }
            Some(c) => refuse("shell_character", format!("holds `{c}`, which shells act on")),
            None => Ok(()),
        }
    }

    /// What the text begins with.
    pub(crate) fn lead(&self, text: &str) -> Result<(), Refusal> {
        match text.chars().next() {
            Some(c @ ('-' | '+')) if !self.leading_dash => {
                refuse("leading_dash", format!("begins with `{c}`, like an option"))
            }
            Some('@') if !self.at => {
                refuse("leading_at", "begins with `@`, which many programs read a file for")
            }
            _ => Ok(()),
        }
    }
}

/// Length, and nothing that a person who looks at the value could miss.
pub(crate) fn visible(text: &str, spaces: bool) -> Result<(), Refusal> {
    if text.is_empty() {
        return refuse("empty", "must not be empty");
    }
    if text.len() > MAX_TEXT {
        return refuse("too_long", format!("has {} bytes; at most {MAX_TEXT}", text.len()));
    }
    for c in text.chars() {
        let code = u32::from(c);
        if c == '\0' {
            return refuse("nul", "holds a NUL character");
        } else if c.is_whitespace() && !(spaces && c == ' ') {
            return refuse("whitespace", format!("holds white space, U+{code:04X}"));
        } else if c.is_control() {
            return refuse("control_character", format!("holds a control character, U+{code:04X}"));
        } else if hides(c) {
            return refuse("hidden_character", format!("holds an invisible one, U+{code:04X}"));
        }
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return refuse("whitespace", "begins or ends with a space");
    }
    Ok(())
}
