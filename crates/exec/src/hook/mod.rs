//! Hooks: checks outside the gateway that get one JSON document and answer with one.
//!
//! Both executors promise the same. Nothing is tried twice. Without an answer there is an
//! error, and its text is safe to show and to record: what came from the other side is made
//! visible and cut. An empty answer, or one of white space, is `observe_only`. Deadlines are the caller's: dropping
//! the future ends the invocation and whatever it started.

mod address;
mod process;
mod webhook;

pub use process::ProcessHook;
pub use webhook::{WebhookConfig, WebhookConfigError, WebhookHook};

use countersign_core::hook::{HookInput, HookResponse};
use countersign_core::text::visible;
use countersign_ports::hook::HookError;

use crate::supervise::INPUT_MAX;

/// Bytes of an answer.
const ANSWER_MAX: usize = 1 << 20;
/// Characters of text from the other side that an error repeats.
const QUOTE_MAX: usize = 200;

fn question(input: &HookInput) -> Result<Vec<u8>, HookError> {
    match serde_json::to_vec(input) {
        // A newline may follow.
        Ok(bytes) if bytes.len() < INPUT_MAX => Ok(bytes),
        Ok(_) => Err(HookError(format!("the input exceeds {INPUT_MAX} bytes"))),
        Err(error) => Err(HookError(format!("the input is no JSON: {error}"))),
    }
}

fn answer(bytes: &[u8]) -> Result<HookResponse, HookError> {
    if bytes.trim_ascii().is_empty() {
        return Ok(HookResponse::ObserveOnly);
    }
    // Its errors quote words of the document.
    serde_json::from_slice(bytes).map_err(|error| {
        HookError(format!("the answer is not one hook response: {}", quote(&error.to_string())))
    })
}

/// The first line with something on it, safe to look at and short.
fn quote(text: &str) -> String {
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
