//! What the other side said, fit for an error.

use countersign_core::text::visible;

/// Characters of text from the other side that an error repeats.
const QUOTE_MAX: usize = 200;

/// The first line with something on it, safe to look at and short.
pub(crate) fn quote(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    visible(line).chars().take(QUOTE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_one_short_visible_line() {
        for (text, quoted) in [
            ("", ""),
            ("\n \n one\ntwo", " one"),
            ("\u{1b}[2Jred\u{202e}", "\\u{1b}[2Jred\\u{202e}"),
            ("a\rb", "a\\rb"),
        ] {
            assert_eq!(quote(text), quoted);
        }
        assert_eq!(quote(&"é".repeat(1000)), "é".repeat(QUOTE_MAX));
        assert_eq!(quote(&"\u{1b}".repeat(1000)).len(), QUOTE_MAX);
    }
}
