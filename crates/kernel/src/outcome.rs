//! What became of a call, from its records: for an agent that sends it again under its
//! idempotency key after a restart, or only asks for it.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use countersign_audit::receipt::Receipt;
use countersign_core::approval::ApprovalRecord;
use countersign_core::digest::Digest;
use countersign_core::hook::{
    HookExecutionMode, HookFailurePolicy, HookPoint, HookRecordPayload, HookResponseClass,
    HookResponseDecision, HookSpec,
};
use countersign_core::id::{ApprovalRequestId, HookId, IdempotencyKey, ToolCallId};
use countersign_core::journal::{JournalPayload, JournalRecord};
use countersign_core::tool::{ToolCallRecord, ToolCallStatus};
use countersign_manifest::{Envelope, EnvelopeStatus};
use countersign_ports::journal::Entry;
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
    /// Of what it was sent with, as [`request_digest`](crate::request_digest) gives it.
    pub request: Digest,
    /// Whether it has been made: its outcome waits for nobody.
    pub made: bool,
    /// When the call was first recorded, in milliseconds since the Unix epoch.
    pub made_at_millis: u64,
    /// The call: its outcome comes from the journal, or from whoever decides about it.
    pub call: Call,
}

impl Kernel {
    /// The outcome on record. What ran is never run again, whatever is known of its end; and what
    /// hooks kept from the agent, or have not seen, is not given to it now.
    pub(crate) async fn recorded_outcome(&self, tool: &str, call: &ToolCallId) -> Governed {
        if self.hooks().has(HookPoint::AfterToolCall) {
            // What they said about it may be on its way into the journal.
            self.hooks().flush().await;
        }
        let records = match self.call_records(call).await {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%call, error, "the records of a call cannot be read");
                let why = "what became of the call cannot be read from the journal".to_owned();
                return self.denied(tool, String::new(), *Denial::new("not_readable", why));
            }
        };
        let (mut announced, mut ended, mut rewritten) = (None, None, None);
        for (at, read) in records.iter().enumerate() {
            let JournalPayload::Tool(step) = &read.record.payload else { continue };
            match step.status {
                ToolCallStatus::IntentRecorded => announced = Some(read),
                ToolCallStatus::ResultRewritten => rewritten = Some((read, &**step)),
                _ if step.effect_result.is_some() => ended = Some((at, read, &**step)),
                _ => {}
            }
        }
        let edited = records.iter().find_map(|read| match &read.record.payload {
            JournalPayload::Approval(ApprovalRecord::Responded { edit, .. }) => edit.as_deref(),
            _ => None,
        });
        let edited = edited.cloned().map(Arc::new);
        let Some((at, read, step)) = ended else {
            let why = "the call may have run: its outcome is not known, and it is not run again";
            return self.known(tool, call, *Denial::new("outcome_unknown", why.to_owned()));
        };
        let (code, summary) = match &step.effect_result {
            Some(result) => (result.error_ref.as_deref(), result.redacted_summary.as_str()),
            None => (None, ""),
        };
        if step.status == ToolCallStatus::DeniedBeforeExecution {
            let denial = *Denial::new(code.unwrap_or("denied"), summary.to_owned());
            let receipt = self.proof(read).await;
            return Governed { receipt, ..self.known(tool, call, denial) };
        }
        let kept_back = self.kept_back(records.get(at + 1..).unwrap_or_default());
        // The proof of the result holds the digest of the tool's output, as in the first answer.
        let proven = match (&kept_back, &rewritten) {
            (None, None) => Some(read),
            _ => announced,
        };
        let receipt = match proven {
            Some(read) => self.proof(read).await,
            None => None,
        };
        let status = match step.status {
            _ if kept_back.is_some() => EnvelopeStatus::Error,
            ToolCallStatus::Completed => EnvelopeStatus::Success,
            ToolCallStatus::TimedOut => EnvelopeStatus::Timeout,
            _ => EnvelopeStatus::Error,
        };
        let (results, output_hash) = match kept_back {
            Some(hook) => {
                let message = format!(
                    "hook `{hook}` kept it back, or had not let it through when the gateway \
                     stopped"
                );
                (withheld("hook.withheld", &message), Digest::of([]).to_string())
            }
            None => {
                let (read, step) = rewritten.unwrap_or((read, step));
                self.results(&read.record, step).await
            }
        };
        let denied = self.denied(tool, step.redacted_args_summary.clone(), no_denial());
        Governed {
            call_id: Some(call.clone()),
            envelope: Envelope { status, results, output_hash, ..denied.envelope },
            denial: None,
            receipt,
            edited,
        }
        .named(call)
    }

    /// The hook that keeps a result from the agent, by what is on record behind the result.
    fn kept_back(&self, behind: &[Read]) -> Option<HookId> {
        let point = HookPoint::AfterToolCall;
        let open = HookFailurePolicy::FailOpenObserveOnly;
        let here = || self.hooks().specs().filter(|spec| spec.point == point);
        let mut through = HashSet::new();
        for read in behind {
            let JournalPayload::Hook(hook) = &read.record.payload else { continue };
            if hook.point != point {
                continue;
            }
            let spec = here().find(|spec| spec.hook_id == hook.hook_id);
            // What nobody waits for keeps nothing back.
            if spec.is_some_and(|spec| !waited_for(spec)) {
                continue;
            }
            let lets_through = match &hook.payload {
                HookRecordPayload::Completed { .. } => true,
                HookRecordPayload::ResponseDecision {
                    decision: HookResponseDecision::AcceptedJournaledBeforeApply,
                    response_class,
                    ..
                } => *response_class == HookResponseClass::RewriteToolResult,
                HookRecordPayload::TimedOut { failure_policy, .. }
                | HookRecordPayload::Failed { failure_policy, .. } => {
                    failure_policy == open.record_word()
                }
                HookRecordPayload::ResponseDecision { .. }
                | HookRecordPayload::Cancelled { .. } => {
                    spec.is_some_and(|spec| spec.failure == open)
                }
                HookRecordPayload::Registered { .. }
                | HookRecordPayload::InvocationStarted { .. } => continue,
            };
            if !lets_through {
                return Some(hook.hook_id.clone());
            }
            through.insert(&hook.hook_id);
        }
        // Nor does it go past one that has not seen it.
        let mut unseen = here().filter(|spec| waited_for(spec) && spec.failure != open);
        let unseen = unseen.find(|spec| !through.contains(&spec.hook_id));
        unseen.map(|spec| spec.hook_id.clone())
    }

    /// The proof that a record is in the log, if the journal signs.
    async fn proof(&self, read: &Read) -> Option<Receipt> {
        let coverage = match self.journal().coverage(read.seq).await {
            Ok(coverage) => coverage?,
            Err(error) => {
                tracing::warn!(seq = read.seq, %error, "a recorded outcome has no receipt");
                return None;
            }
        };
        let record = String::from_utf8(read.bytes.clone()).ok()?;
        let checkpoint = coverage.checkpoint.to_string();
        Some(Receipt::new(read.seq, record, &coverage.proof, checkpoint))
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
            Whereabouts::Ended(governed) => governed.call_id.clone(),
            Whereabouts::Recorded(call) => Some(call.clone()),
            Whereabouts::Asked(id) => self.earlier_call(id),
        };
        let Some(call) = call else { return Ok(None) };
        let records = self.call_records(&call).await?;
        let Some(first) = records.first() else { return Ok(None) };
        let made_at_millis = first.record.timestamp_millis;
        let kernel = self.clone();
        // INVARIANT: what was made is told and never made again, though its key may be forgotten
        // by now.
        let made = !matches!(whereabouts, Whereabouts::Asked(_));
        let (tool, call) = match whereabouts {
            Whereabouts::Ended(governed) => {
                let tool = governed.envelope.tool.clone();
                let told = async move { (*governed).clone() };
                (tool, Call::start(true, None, |_| tokio::spawn(told)))
            }
            Whereabouts::Recorded(_) => {
                let mut tools = records.iter().filter_map(|read| match &read.record.payload {
                    JournalPayload::Tool(step) => Some(step.canonical_tool_name.clone()),
                    _ => None,
                });
                let Some(tool) = tools.next() else { return Ok(None) };
                let name = tool.clone();
                let told = async move { kernel.recorded_outcome(&name, &call).await };
                (tool, Call::start(true, None, |_| tokio::spawn(told)))
            }
            Whereabouts::Asked(id) => {
                let Some((tool, arguments)) = self.asked_with(&records, &id).await? else {
                    return Ok(None);
                };
                let (run, name, own) = (run.clone(), tool.clone(), (key.clone(), request));
                let call = Call::start(true, None, |ends| {
                    tokio::spawn(async move {
                        kernel.make_keyed(&run, &name, &arguments, &ends, own).await
                    })
                });
                (tool, call)
            }
        };
        Ok(Some(TakenUp { tool, request, made, made_at_millis, call }))
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
        records: &[Read],
        id: &ApprovalRequestId,
    ) -> Result<Option<(String, Map<String, Value>)>, String> {
        let mut asked = records.iter().filter_map(|read| match &read.record.payload {
            JournalPayload::Approval(approval) => match approval {
                ApprovalRecord::Requested { request } if request.approval_request_id == *id => {
                    Some((read.seq, request))
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

    async fn call_records(&self, call: &ToolCallId) -> Result<Vec<Read>, String> {
        let entries = self.journal().read_call(call.as_str()).await;
        let entries = entries.map_err(|error| error.to_string())?;
        let read = |Entry { seq, bytes }| {
            let record = countersign_core::json::read(&bytes);
            record.map(|record| Read { seq, bytes, record }).map_err(|e| e.to_string())
        };
        entries.into_iter().map(read).collect()
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

/// A record as it stands in the journal, and what it says.
struct Read {
    seq: u64,
    bytes: Vec<u8>,
    record: JournalRecord,
}

/// Whether a call goes on only when the hook has answered.
fn waited_for(spec: &HookSpec) -> bool {
    !matches!(spec.execution, HookExecutionMode::NonBlocking { .. })
}

/// What an agent gets in place of a result that it may not have.
pub(crate) fn withheld(code: &str, message: &str) -> Value {
    json!({
        "error": "the call has run, and its result is withheld",
        "withheld": { "code": code, "message": message },
    })
}

fn no_denial() -> Denial {
    *Denial::new("", String::new())
}
