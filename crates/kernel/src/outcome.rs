//! What became of a call, from its records: for an agent that sends it again under its
//! idempotency key after a restart, or only asks for it.

use std::sync::{Arc, PoisonError};

use countersign_core::approval::ApprovalRecord;
use countersign_core::digest::Digest;
use countersign_core::id::{ApprovalRequestId, IdempotencyKey, ToolCallId};
use countersign_core::journal::{JournalPayload, JournalRecord};
use countersign_core::tool::{ToolCallRecord, ToolCallStatus};
use countersign_manifest::{Envelope, EnvelopeStatus};
use serde_json::{Map, Value, json};

use crate::approval::EarlierState;
use crate::call::{Call, Whereabouts};
use crate::envelope::READ_MAX;
use crate::govern::{Denial, Governed, Kernel};
use crate::render::fingerprint;
use crate::run::Run;

/// A call from before that is waited for again.
pub struct TakenUp {
    /// The tool.
    pub tool: String,
    /// When the call was first recorded, in milliseconds since the Unix epoch.
    pub made_at_millis: u64,
    /// The call: its outcome comes from the journal, or from whoever decides about it.
    pub call: Call,
}

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
        let edited = records.iter().find_map(|record| match &record.payload {
            JournalPayload::Approval(ApprovalRecord::Responded { edit, .. }) => edit.as_deref(),
            _ => None,
        });
        let edited = edited.cloned().map(Arc::new);
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
            edited,
        }
        .named(call)
    }

    /// Takes up a call that this run's agent made under a key and that nobody waits for: one
    /// that was held when the gateway last stopped waits on under its own ids, as if the agent
    /// had sent it again; of one that was made, the outcome is found. `None` when there is no
    /// such call, or it was called off, or the tool has changed since a person was asked, or
    /// somebody is making it. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub async fn take_up(
        &self,
        run: &Run,
        key: &IdempotencyKey,
    ) -> Result<Option<TakenUp>, String> {
        let found = self.calls().whereabouts(run.agent_id(), key);
        let Some((request, whereabouts)) = found else { return Ok(None) };
        let call = match &whereabouts {
            Whereabouts::Recorded(call) => call.clone(),
            Whereabouts::Asked(id) => match self.earlier_call(id) {
                Some(call) => call,
                None => return Ok(None),
            },
        };
        let records = self.call_records(&call).await?;
        let Some(first) = records.first() else { return Ok(None) };
        let made_at_millis = first.timestamp_millis;
        let (tool, arguments) = match whereabouts {
            Whereabouts::Recorded(_) => {
                let mut tools = records.iter().filter_map(|record| match &record.payload {
                    JournalPayload::Tool(step) => Some(step.canonical_tool_name.clone()),
                    _ => None,
                });
                let Some(tool) = tools.next() else { return Ok(None) };
                (tool, Map::new())
            }
            Whereabouts::Asked(id) => match self.asked_with(&records, &id).await? {
                Some(asked) => asked,
                None => return Ok(None),
            },
        };
        let (kernel, run, name) = (self.clone(), run.clone(), tool.clone());
        let own = (key.clone(), request);
        let call = Call::start(true, None, |ends| {
            tokio::spawn(
                async move { kernel.make_keyed(&run, &name, &arguments, &ends, own).await },
            )
        });
        Ok(Some(TakenUp { tool, made_at_millis, call }))
    }

    /// The call of an approval request from before that still stands.
    fn earlier_call(&self, id: &ApprovalRequestId) -> Option<ToolCallId> {
        let all = self.earlier().lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = all.values().flatten().find(|e| e.request.approval_request_id == *id)?;
        match earlier.state {
            EarlierState::Approved { until } if until <= self.now() => None,
            _ => Some(earlier.request.tool_call_id.clone()),
        }
    }

    /// The tool and the arguments that a person was asked about.
    async fn asked_with(
        &self,
        records: &[JournalRecord],
        id: &ApprovalRequestId,
    ) -> Result<Option<(String, Map<String, Value>)>, String> {
        let mut asked = records.iter().filter_map(|record| match &record.payload {
            JournalPayload::Approval(approval) => match approval {
                ApprovalRecord::Requested { request } if request.approval_request_id == *id => {
                    Some((record.journal_seq, request))
                }
                _ => None,
            },
            _ => None,
        });
        let Some((seq, request)) = asked.next() else { return Ok(None) };
        let digest = Digest::parse(request.requested_args_ref.as_str());
        let digest = digest.map_err(|error| error.to_string())?;
        let content = self.journal().content(seq, digest).await;
        let content = content.map_err(|error| error.to_string())?;
        let content = content.ok_or("the arguments are not in the journal")?;
        let arguments = serde_json::from_slice(&content).map_err(|error| error.to_string())?;
        let tool = request.canonical_tool_name.clone();
        let manifests = self.manifests();
        let same = manifests.get(&tool).is_some_and(|manifest| {
            manifest.plan(&arguments).is_ok_and(|planned| {
                let policy = self.policy_digest();
                let now = fingerprint(&request.agent_id, manifest, &planned.plan, policy);
                request.fingerprint == Some(now)
            })
        });
        Ok(same.then_some((tool, arguments)))
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
