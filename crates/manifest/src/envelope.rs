//! What every call returns, however it ended.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How a call ended, for the agent that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnvelopeStatus {
    /// The tool ran and says it succeeded.
    Success,
    /// It failed, could not start, or wrote what cannot be read.
    Error,
    /// Its deadline came first.
    Timeout,
    /// It was refused; nothing happened.
    Denied,
    /// A person has not decided yet; nothing happened. Sent again, the call waits on, or gets
    /// its outcome.
    Pending,
}

/// The result of a call on the wire, in this order. Stated by the tool format ToolClad, with
/// four fixed words for `status`; `pending` is Countersign's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Decides `isError` on MCP: everything but `Success` and `Pending` is one.
    pub status: EnvelopeStatus,
    /// One per attempt.
    pub scan_id: String,
    /// The manifest's name.
    pub tool: String,
    /// As [`crate::render_command`] writes it, secrets as names; empty if there is no plan.
    pub command: String,
    /// From start to end of the run; 0 if it did not start.
    pub duration_ms: u64,
    /// RFC 3339, UTC.
    pub timestamp: String,
    /// `sha256:` and hex, over all bytes the tool wrote, kept or not.
    pub output_hash: String,
    /// Absent if the tool did not exit by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What it wrote there, possibly cut; absent if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// As [`crate::Output::parse`] gives it; an empty object if there is no output.
    pub results: Value,
    /// Where all of the output is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_file: Option<String>,
    /// Whether `results` lacks some of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_truncated: Option<bool>,
}

impl Envelope {
    /// JSON Schema of every envelope, for `outputSchema` on MCP.
    #[must_use]
    pub fn output_schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "status": {"type": "string", "enum": ["success", "error", "timeout", "denied", "pending"]},
                "scan_id": {"type": "string"},
                "tool": {"type": "string"},
                "command": {"type": "string"},
                "duration_ms": {"type": "integer", "minimum": 0},
                "timestamp": {"type": "string", "format": "date-time"},
                "output_hash": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
                "exit_code": {"type": "integer"},
                "stderr": {"type": "string"},
                "results": {"type": "object"},
                "output_file": {"type": "string"},
                "output_truncated": {"type": "boolean"},
            },
            "required": [
                "status", "scan_id", "tool", "command", "duration_ms", "timestamp",
                "output_hash", "results",
            ],
            "additionalProperties": false,
        })
    }
}
