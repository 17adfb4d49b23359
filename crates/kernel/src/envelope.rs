//! What an agent gets of a call that ended.

use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::plan::{PlanKind, RunLimits};
use countersign_core::text::reveal;
use countersign_escalation::time::rfc3339;
use countersign_manifest::{BackendKind, Envelope, EnvelopeStatus, Manifest, OutputFormat};
use countersign_ports::entropy::random_id;
use countersign_ports::executor::{Execution, ExecutionStatus};
use serde_json::{Value, json};

use crate::govern::{Denial, Governed, Kernel};
use crate::records::CallFacts;
use crate::render::shorten;

/// Bytes of output that are read by a format other than text. Read, they may take fifty times as
/// many.
pub(crate) const READ_MAX: usize = 1 << 20;

/// Bytes of output in an envelope, but for the answer of an upstream MCP server, which is passed
/// on as it is or not at all. The whole output stands in the journal's content store.
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
            edited: None,
        }
    }

    /// Where the output of the call is kept, if its manifest wants that.
    pub(crate) fn evidence_file(
        &self,
        facts: &CallFacts,
        manifest: &Manifest,
    ) -> Result<Option<String>, String> {
        let Some(evidence) = manifest.evidence().filter(|evidence| evidence.capture) else {
            return Ok(None);
        };
        let call = facts.call_id.as_str();
        let folder = evidence.folder(call, facts.session.as_str())?;
        let random = random_id(self.entropy()).map_err(|error| error.to_string())?;
        let slash = if folder.is_empty() { "" } else { "/" };
        Ok(Some(format!("{folder}{slash}{call}-{random}.out")))
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
        let (mut results, cut) = match results(manifest, execution) {
            Ok(found) => found,
            // Whatever went wrong before is the better reason.
            Err((_, found)) if status != EnvelopeStatus::Success => found,
            Err((error, (mut found, cut))) => {
                status = EnvelopeStatus::Error;
                if let Value::Object(fields) = &mut found {
                    fields.insert("error".to_owned(), error.into());
                }
                (found, cut)
            }
        };
        if let (Some(problem), Value::Object(fields)) = (problem, &mut results) {
            // An upstream server's own error says more.
            if !(manifest.backend() == BackendKind::Mcp && fields.contains_key("error")) {
                fields.insert("error".to_owned(), Value::String(problem));
            }
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
            output_file: evidence(limits, &execution.status),
            output_truncated: truncated.then_some(true),
        }
    }
}

/// A run without output.
pub(crate) fn nothing(status: ExecutionStatus) -> Execution {
    Execution {
        status,
        stdout: Vec::new(),
        stdout_sha256: *Digest::of([]).as_bytes(),
        stdout_len: 0,
        stderr: Vec::new(),
        duration: Duration::ZERO,
    }
}

/// The results of a run, and whether they lack some of its output. An error has the reason, and
/// the output as text.
type Read = (Value, bool);

fn results(manifest: &Manifest, execution: &Execution) -> Result<Read, (String, Read)> {
    let output = manifest.output();
    let stdout = &execution.stdout;
    let head = stdout.get(..ENVELOPE_OUTPUT_MAX).unwrap_or(stdout);
    let long = head.len() < stdout.len() || execution.truncated();
    let text = || (json!({ "text": String::from_utf8_lossy(head) }), long);
    if manifest.backend() == BackendKind::Mcp && !execution.truncated() {
        let found = match stdout.is_empty() {
            true => Ok(json!({})),
            false => output.parse(stdout),
        };
        return found.map(|found| (found, false)).map_err(|error| (error, text()));
    }
    // An answer may have no body, as with HTTP 204.
    if stdout.is_empty() && matches!(execution.status, ExecutionStatus::Answered { .. }) {
        return Ok((json!({}), false));
    }
    if output.format() == OutputFormat::Text {
        return match long {
            // What is cut may be cut inside a character.
            true => Ok(text()),
            false => output.parse(head).map(|found| (found, false)),
        }
        .and_then(|found| output.check(&found.0).map(|()| found))
        .map_err(|error| (error, text()));
    }
    let format = output.format().as_str();
    if execution.truncated() || stdout.len() > READ_MAX {
        let length = execution.stdout_len;
        let max = output.max_bytes().min(READ_MAX as u64);
        let error =
            format!("output of {length} bytes is too long to be read as {format}, {max} at most");
        return Err((error, text()));
    }
    let read = output.parse(stdout).and_then(|found| output.check(&found).map(|()| found));
    match read {
        // They are right, and too long to be shown as they are.
        Ok(found) if long || size(&found) > ENVELOPE_OUTPUT_MAX => Ok((text().0, true)),
        Ok(found) => Ok((found, false)),
        Err(error) => Err((error, text())),
    }
}

fn size(value: &Value) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}

/// Where a run's output was kept, for those who can look into the state folder.
pub(crate) fn evidence(limits: &RunLimits, status: &ExecutionStatus) -> Option<String> {
    match status {
        ExecutionStatus::NotStarted(_) | ExecutionStatus::Unknown(_) => None,
        _ => limits.evidence.as_ref().map(|file| format!("evidence/{file}")),
    }
}

/// One line about how a run ended.
pub(crate) fn summary(status: &ExecutionStatus, bytes: u64, time: Duration) -> String {
    let end = match status {
        ExecutionStatus::Exited(code) => format!("exit code {code}"),
        ExecutionStatus::Signalled(signal) => format!("ended by signal {signal}"),
        ExecutionStatus::Answered { note, .. } if note.starts_with("answered") => note.clone(),
        ExecutionStatus::Answered { note, .. } => format!("answered: {note}"),
        ExecutionStatus::TimedOut => "ended at its deadline".to_owned(),
        ExecutionStatus::NotStarted(why) => format!("not started: {why}"),
        ExecutionStatus::Unknown(why) => format!("outcome not known: {why}"),
    };
    shorten(&reveal(&format!("{end}; {bytes} bytes of output in {} ms", time.as_millis())))
}
