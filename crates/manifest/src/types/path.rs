//! A path that names something beneath the tool's root.

use super::text::TextRule;
use super::{Refusal, refuse};

/// Characters that some systems and people take for a dot, a slash or a backslash.
const LOOK_ALIKES: &str = "\u{ff0e}\u{2024}\u{2025}\u{fe52}\u{ff0f}\u{2215}\u{2044}\u{29f8}\u{ff3c}\u{29f5}\u{fe68}\u{2216}";

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
    if text.split('%').skip(1).any(hides_a_part)
        || text.split('%').collect::<Vec<_>>().windows(2).any(encoded_twice)
    {
        return refuse("path_escape", "hides a dot, slash or backslash as a percent escape");
    }
    if text.contains(|c| LOOK_ALIKES.contains(c)) {
        return refuse("path_escape", "holds a character that looks like a dot or a slash");
    }
    Ok(())
}

/// Whether what follows a `%` is, however often encoded, a dot, a slash, a backslash, a NUL, or
/// one of them in the overlong form of UTF-8.
fn hides_a_part(after: &str) -> bool {
    let mut rest = after;
    while let Some(more) = rest.strip_prefix("25") {
        rest = more;
    }
    let code = rest.get(..2).unwrap_or_default().to_ascii_lowercase();
    let long = rest.get(..1).is_some_and(|u| u.eq_ignore_ascii_case("u"))
        && rest.get(1..5).is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
    long || matches!(code.as_str(), "2e" | "2f" | "5c" | "00" | "c0" | "c1")
}

/// `%e0%80` begins an overlong form of three bytes.
fn encoded_twice(pair: &[&str]) -> bool {
    matches!(pair, [a, b] if a.eq_ignore_ascii_case("e0")
        && b.get(..2).is_some_and(|b| b == "80" || b.eq_ignore_ascii_case("9f")))
}
