//! Hooks: checks outside the gateway that get one JSON document and answer with one.
//!
//! Both executors promise the same. Nothing is tried twice. Without an answer there is an
//! error, and its text is safe to show and to record: what came from the other side is made
//! visible and cut. An empty answer, or one of white space, is `observe_only`. Deadlines are the caller's: dropping
//! the future ends the invocation and whatever it started.

mod process;
mod webhook;

pub use crate::webhook::{WebhookConfig, WebhookConfigError};
pub use process::ProcessHook;
pub use webhook::WebhookHook;

use countersign_core::hook::{HookInput, HookResponse};
use countersign_ports::hook::HookError;

use crate::quote::quote;
use crate::supervise::INPUT_MAX;

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
