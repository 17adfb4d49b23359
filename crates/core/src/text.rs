//! Making text safe to look at.

use std::borrow::Cow;

/// The text as every surface shows it: a character that could hide, reorder or forge what a
/// person reads becomes a visible `\u{…}` escape. `\n` and `\t` become `\n` and `\t`.
///
/// Covered: C0, DEL and C1 controls, bidirectional controls, zero-width and invisible
/// formatting characters, line and paragraph separators, variation selectors, tag
/// characters, private use and non-characters. A backslash is doubled, so that nothing can
/// pose as an escape and two different texts never look the same.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'\\') {
        return Cow::Borrowed(text);
    }
    if !text.chars().any(|c| c == '\\' || hides(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if hides(c) => {
                out.push_str("\\u{");
                out.push_str(&format!("{:x}", u32::from(c)));
                out.push('}');
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The text with everything that hides shown, and backslashes left alone: for text that has
/// been escaped before, by [`visible`] or by quoting. Applied again it changes nothing.
#[must_use]
pub fn reveal(text: &str) -> Cow<'_, str> {
    if !text.chars().any(hides) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hides(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Whether a person looking at the character could miss it or be misled about its place.
#[must_use]
pub fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}' | '\u{891}' | '\u{8e2}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}'
            | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1345f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
        || (c != ' ' && c.is_whitespace())
        || (u32::from(c) & 0xfffe) == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_hides_is_shown() {
        for (text, shown) in [
            ("plain é 日本", "plain é 日本"),
            ("a\u{202e}gpj.exe", "a\\u{202e}gpj.exe"),
            ("zero\u{200b}width", "zero\\u{200b}width"),
            ("two\nlines\t", "two\\nlines\\t"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\\u{202e}", "\\\\u{202e}"),
            ("tag\u{e0041}", "tag\\u{e0041}"),
            ("shorthand\u{1bca0}", "shorthand\\u{1bca0}"),
            ("wide\u{a0}space", "wide\\u{a0}space"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    proptest! {
        #[test]
        fn nothing_hidden_survives_and_no_two_texts_look_alike(a in any::<String>(), b in any::<String>()) {
            prop_assert!(!visible(&a).chars().any(hides));
            let seen = visible(&a).into_owned();
            prop_assert_eq!(reveal(&seen), seen.as_str());
            prop_assert!(!reveal(&a).chars().any(hides));
            prop_assert_eq!(a == b, visible(&a) == visible(&b));
        }
    }
}
