//! What became of a call, from its records: for an agent that sends it again under its
//! idempotency key after a restart.

use countersign_core::digest::Digest;
use countersign_core::id::ToolCallId;
use countersign_core::journal::{JournalPayload, JournalRecord};
use countersign_core::tool::{ToolCallRecord, ToolCallStatus};
use countersign_manifest::{Envelope, EnvelopeStatus};
use serde_json::{Value, json};

use crate::envelope::READ_MAX;
use crate::govern::{Denial, Governed, Kernel};

impl Kernel {
    /// The outcome on record. What ran is never run again, whatever is known of its end.
    pub(crate) async fn recorded_outcome(&self, tool: &str, call: &ToolCallId) -> Governed {
        let records = match self.call_records(call).await {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%call, error, "the records of a call cannot be read");
                let why = "what became of the call cannot be read from the journal".to_owned();
                return self.denied(tool, String::new(), *Denial::new("not_readable", why));
            }
        };
        let steps = records.iter().filter_map(|record| match &record.payload {
            JournalPayload::Tool(step) => Some((record, &**step)),
            _ => None,
        });
        let (mut ended, mut rewritten) = (None, None);
        for (record, step) in steps {
            match step.status {
                ToolCallStatus::ResultRewritten => rewritten = Some((record, step)),
                _ if step.effect_result.is_some() => ended = Some((record, step)),
                _ => {}
            }
        }
        let Some((record, step)) = ended else {
            let why = "the call may have run: its outcome is not known, and it is not run again";
            return self.known(tool, call, *Denial::new("outcome_unknown", why.to_owned()));
        };
        let (code, summary) = match &step.effect_result {
            Some(result) => (result.error_ref.as_deref(), result.redacted_summary.as_str()),
            None => (None, ""),
        };
        if step.status == ToolCallStatus::DeniedBeforeExecution {
            let denial = *Denial::new(code.unwrap_or("denied"), summary.to_owned());
            return self.known(tool, call, denial);
        }
        let (record, step) = rewritten.unwrap_or((record, step));
        let (results, output_hash) = self.results(record, step).await;
        Governed {
            call_id: Some(call.clone()),
            envelope: Envelope {
                status: match step.status {
                    ToolCallStatus::Completed | ToolCallStatus::ResultRewritten => {
                        EnvelopeStatus::Success
                    }
                    ToolCallStatus::TimedOut => EnvelopeStatus::Timeout,
                    _ => EnvelopeStatus::Error,
                },
                results,
                output_hash,
                ..self.denied(tool, step.redacted_args_summary.clone(), no_denial()).envelope
            },
            denial: None,
            receipt: None,
        }
        .named(call)
    }

    async fn call_records(&self, call: &ToolCallId) -> Result<Vec<JournalRecord>, String> {
        let entries = self.journal().read_call(call.as_str()).await;
        let entries = entries.map_err(|error| error.to_string())?;
        let read = |bytes: &[u8]| countersign_core::json::read(bytes).map_err(|e| e.to_string());
        entries.iter().map(|entry| read(&entry.bytes)).collect()
    }

    async fn results(&self, record: &JournalRecord, step: &ToolCallRecord) -> (Value, String) {
        let missing = || (json!({ "text": "" }), Digest::of([]).to_string());
        let Some(reference) = step.result_content_refs.first() else { return missing() };
        let Ok(digest) = Digest::parse(reference.as_str()) else { return missing() };
        let content = self.journal().content(record.journal_seq, digest).await;
        let Ok(Some(bytes)) = content else {
            return (json!({ "error": "the output is not in the journal" }), digest.to_string());
        };
        let manifests = self.manifests();
        let parsed = match (step.status, manifests.get(&step.canonical_tool_name)) {
            (ToolCallStatus::ResultRewritten, _) => {
                serde_json::from_slice(&bytes).map_err(|error| error.to_string())
            }
            (_, Some(manifest)) if bytes.len() <= READ_MAX => manifest.output().parse(&bytes),
            (_, Some(_)) => Err("there is too much to be read".to_owned()),
            (_, None) => Err("there is no such tool any more".to_owned()),
        };
        let text = || json!({ "text": String::from_utf8_lossy(&bytes) });
        (parsed.unwrap_or_else(|_| text()), digest.to_string())
    }

    fn known(&self, tool: &str, call: &ToolCallId, denial: Denial) -> Governed {
        self.denied(tool, String::new(), denial).named(call)
    }
}

fn no_denial() -> Denial {
    *Denial::new("", String::new())
}
