//! What an agent gets of a call that ended.

use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::plan::{PlanKind, RunLimits};
use countersign_core::text::reveal;
use countersign_escalation::time::rfc3339;
use countersign_manifest::{Envelope, EnvelopeStatus, Manifest};
use countersign_ports::executor::{Execution, ExecutionStatus};
use serde_json::{Value, json};

use crate::govern::{Denial, Governed, Kernel};
use crate::records::CallFacts;
use crate::render::shorten;

/// Bytes of output in an envelope. The whole output stands in the journal's content store.
const ENVELOPE_OUTPUT_MAX: usize = 256 << 10;

impl Kernel {
    pub(crate) fn denied(&self, tool: &str, command: String, denial: Denial) -> Governed {
        let mut denied = json!({ "code": denial.code, "message": denial.message });
        if let Value::Object(fields) = &mut denied {
            if let Some(by) = &denial.by {
                fields.insert("by".to_owned(), json!(by));
            }
            if let Some(reason) = &denial.reason {
                fields.insert("reason".to_owned(), json!(reason));
            }
            if !denial.problems.is_empty() {
                fields.insert("arguments".to_owned(), json!(denial.problems));
            }
        }
        Governed {
            call_id: None,
            envelope: Envelope {
                status: EnvelopeStatus::Denied,
                scan_id: String::new(),
                tool: reveal(tool).into_owned(),
                command,
                duration_ms: 0,
                timestamp: rfc3339(self.now()),
                output_hash: Digest::of([]).to_string(),
                exit_code: None,
                stderr: None,
                results: json!({ "denied": denied }),
                output_file: None,
                output_truncated: None,
            },
            denial: Some(denial),
            receipt: None,
        }
    }

    pub(crate) fn envelope(
        &self,
        facts: &CallFacts,
        manifest: &Manifest,
        command: String,
        execution: &Execution,
        limits: &RunLimits,
    ) -> Envelope {
        let (mut status, exit_code, problem) = match &execution.status {
            ExecutionStatus::Exited(0) => (EnvelopeStatus::Success, Some(0), None),
            ExecutionStatus::Exited(code) => (EnvelopeStatus::Error, Some(*code), None),
            ExecutionStatus::Signalled(signal) => {
                (EnvelopeStatus::Error, None, Some(format!("ended by signal {signal}")))
            }
            ExecutionStatus::Answered { ok: true, .. } => (EnvelopeStatus::Success, None, None),
            ExecutionStatus::Answered { ok: false, note } => {
                (EnvelopeStatus::Error, None, Some(note.clone()))
            }
            ExecutionStatus::TimedOut => {
                let after = limits.timeout.as_secs_f64();
                let end = match facts.kind {
                    PlanKind::Http | PlanKind::Mcp => "the request may have arrived",
                    _ => "everything it started was killed",
                };
                let text = format!("not done within {after} s; {end}");
                (EnvelopeStatus::Timeout, None, Some(text))
            }
            ExecutionStatus::NotStarted(why) => {
                (EnvelopeStatus::Error, None, Some(format!("not started: {why}")))
            }
            ExecutionStatus::Unknown(why) => (EnvelopeStatus::Error, None, Some(why.clone())),
        };
        let answered = matches!(execution.status, ExecutionStatus::Answered { .. });
        let kept = execution.stdout.get(..ENVELOPE_OUTPUT_MAX).unwrap_or(&execution.stdout);
        let cut = kept.len() < execution.stdout.len();
        let parsed = match cut {
            // An answer may have no body, as with HTTP 204.
            false if kept.is_empty() && answered => Ok(json!({})),
            false => manifest.output().parse(kept),
            true => Ok(json!({ "text": String::from_utf8_lossy(kept) })),
        };
        let mut results = match parsed {
            Ok(results) => results,
            Err(error) => {
                if status == EnvelopeStatus::Success {
                    status = EnvelopeStatus::Error;
                }
                json!({ "error": error, "text": String::from_utf8_lossy(kept) })
            }
        };
        if let (Some(problem), Value::Object(fields)) = (problem, &mut results) {
            fields.insert("error".to_owned(), Value::String(problem));
        }
        let truncated = cut || execution.truncated();
        Envelope {
            status,
            scan_id: facts.call_id.to_string(),
            tool: facts.tool.clone(),
            command,
            duration_ms: u64::try_from(execution.duration.as_millis()).unwrap_or(u64::MAX),
            timestamp: rfc3339(self.now()),
            output_hash: Digest::from_bytes(execution.stdout_sha256).to_string(),
            exit_code,
            stderr: match execution.stderr.is_empty() {
                true => None,
                false => Some(String::from_utf8_lossy(&execution.stderr).into_owned()),
            },
            results,
            output_file: None,
            output_truncated: truncated.then_some(true),
        }
    }
}

/// One line about how a run ended.
pub(crate) fn summary(status: &ExecutionStatus, bytes: u64, time: Duration) -> String {
    let end = match status {
        ExecutionStatus::Exited(code) => format!("exit code {code}"),
        ExecutionStatus::Signalled(signal) => format!("ended by signal {signal}"),
        ExecutionStatus::Answered { note, .. } => format!("answered: {note}"),
        ExecutionStatus::TimedOut => "ended at its deadline".to_owned(),
        ExecutionStatus::NotStarted(why) => format!("not started: {why}"),
        ExecutionStatus::Unknown(why) => format!("outcome not known: {why}"),
    };
    shorten(&reveal(&format!("{end}; {bytes} bytes of output in {} ms", time.as_millis())))
}
