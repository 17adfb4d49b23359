//! A path that names something beneath the tool's root.

use super::text::TextRule;
use super::{Refusal, refuse};

/// Whether the path stays below where it starts, read by anything: also by a program that
/// decodes percent escapes or knows drives and schemes. Symbolic links are looked at when the
/// path is used.
pub(crate) fn check(rule: &TextRule, text: &str) -> Result<(), Refusal> {
    rule.check(text)?;
    if text.starts_with('/') {
        return refuse("absolute_path", "must be relative");
    }
    if text.split('/').any(|part| part == "..") {
        return refuse("path_escape", "must not hold `..`");
    }
    let scheme = text.split_once(':').is_some_and(|(head, _)| {
        head.starts_with(|c: char| c.is_ascii_alphabetic())
            && head.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    if scheme {
        return refuse("path_scheme", "begins like a drive or a URL");
    }
    let encoded = text.as_bytes().windows(3).any(|w| {
        let [b'%', high, low] = w else { return false };
        matches!(
            (high, low.to_ascii_lowercase()),
            (b'2', b'e' | b'f' | b'5') | (b'5', b'c') | (b'0', b'0')
        )
    });
    if encoded {
        return refuse("path_escape", "hides a dot, slash or backslash as a percent escape");
    }
    Ok(())
}
