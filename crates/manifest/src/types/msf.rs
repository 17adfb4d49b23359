//! Options of a framework console: `set KEY VALUE`, several separated by `;`.

use super::text::TextRule;
use super::{MAX_TEXT, Refusal, refuse};
use crate::diagnostic::excerpt;

pub(crate) fn check(text: &str) -> Result<(), Refusal> {
    if text.is_empty() {
        return refuse("empty", "must not be empty");
    }
    if text.len() > MAX_TEXT {
        return refuse("too_long", format!("has {} bytes; at most {MAX_TEXT}", text.len()));
    }
    for (i, pair) in text.split(';').enumerate() {
        // One space may follow the separator; nothing else is passed over.
        let pair = if i > 0 { pair.strip_prefix(' ').unwrap_or(pair) } else { pair };
        let body = pair.strip_prefix("set ").unwrap_or(pair);
        let Some((key, value)) = body.split_once(' ') else {
            return refuse("not_an_option", format!("`{}` is not `KEY VALUE`", excerpt(pair)));
        };
        let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if !key.starts_with(|c: char| c.is_ascii_uppercase()) || !key.bytes().all(plain) {
            return refuse("not_an_option", format!("`{}` is not a key", excerpt(key)));
        }
        TextRule::default().check(value)?;
    }
    Ok(())
}
