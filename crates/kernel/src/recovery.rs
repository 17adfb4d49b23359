//! What a start finds in the journal: one pure fold over the records, then what follows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use countersign_core::approval::{
    ApprovalDecision, ApprovalLifecycleStatus, ApprovalRecord, ApprovalRequest,
};
use countersign_core::digest::Digest;
use countersign_core::hold::{HoldKind, HoldStatus};
use countersign_core::id::{ApprovalRequestId, EffectId, ToolCallId};
use countersign_core::journal::{JournalPayload, JournalRecord, UnsafePendingEffect};
use countersign_core::refs::EntityKind;
use countersign_escalation::{HoldRequest, Outcome};
use countersign_ports::journal::{AppendError, Batch, ReadError};
use serde_json::{Value, json};

use crate::approval::{Earlier, EarlierState, context};
use crate::govern::Kernel;
use crate::records::{Base, CallFacts, approval_closing};
use crate::render::{Rendering, fingerprint};
use crate::run::Run;

/// Records read at once.
const PAGE: usize = 1024;

/// What was unfinished when the journal was left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Records read.
    pub records: u64,
    /// Holds that wait on.
    pub reopened: usize,
    /// Holds whose time ran out meanwhile; recorded as `recovery_required`.
    pub lapsed: usize,
    /// Approvals that were given and not used.
    pub unused_approvals: usize,
    /// Calls whose effect may have happened. They are never run again by themselves; a person
    /// has to find out.
    pub unknown_effects: Vec<ToolCallId>,
}

/// Why a kernel does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal cannot be read.
    #[error("the journal cannot be taken up")]
    Read(#[from] ReadError),
    /// A record is not of the known form.
    #[error("record {seq} of the journal cannot be understood")]
    Record {
        /// Its place.
        seq: u64,
        /// Why.
        source: serde_json::Error,
    },
    /// What was found unfinished cannot be recorded.
    #[error("what was found unfinished cannot be recorded")]
    Append(#[from] AppendError),
    /// The same, because a record of it cannot be written.
    #[error("what was found unfinished cannot be recorded: {0}")]
    Write(String),
}

/// What the records so far leave open.
#[derive(Debug, Default)]
struct Fold {
    records: u64,
    asked: BTreeMap<ApprovalRequestId, (Arc<ApprovalRequest>, u64)>,
    approved: HashMap<ApprovalRequestId, (Arc<ApprovalRequest>, u64)>,
    under_way: BTreeMap<EffectId, (JournalRecord, ToolCallId)>,
    listed: HashSet<EffectId>,
}

impl Fold {
    fn take(&mut self, record: JournalRecord) {
        self.records += 1;
        match &record.payload {
            JournalPayload::Approval(ApprovalRecord::Requested { request }) => {
                let id = request.approval_request_id.clone();
                self.asked.insert(id, (Arc::new((**request).clone()), record.journal_seq));
            }
            JournalPayload::Approval(ApprovalRecord::Responded { request_id, decision }) => {
                if let Some((request, _)) = self.asked.remove(request_id)
                    && let ApprovalDecision::Approved { decided_at_millis, .. } = decision
                {
                    let at = decided_at_millis.unwrap_or(record.timestamp_millis);
                    self.approved.insert(request_id.clone(), (request, at));
                }
            }
            JournalPayload::Approval(ApprovalRecord::Denied { request_id, .. }) => {
                self.asked.remove(request_id);
            }
            JournalPayload::Approval(ApprovalRecord::DispatchResult {
                request_id,
                lifecycle_status,
                ..
            }) if *lifecycle_status != ApprovalLifecycleStatus::Approved => {
                self.asked.remove(request_id);
                self.approved.remove(request_id);
            }
            JournalPayload::Tool(tool) => {
                // The intent that refers to an approval uses it up.
                let used = record.related_refs.iter();
                for used in used.filter(|r| r.kind == EntityKind::ApprovalRequest) {
                    if let Ok(id) = ApprovalRequestId::new(used.id.as_str()) {
                        self.approved.remove(&id);
                    }
                }
                match (&tool.effect_intent, &tool.effect_result) {
                    (_, Some(result)) => {
                        self.under_way.remove(&result.effect_id);
                    }
                    (Some(intent), None) => {
                        let (effect, call) = (intent.effect_id.clone(), tool.tool_call_id.clone());
                        self.under_way.insert(effect, (record, call));
                    }
                    (None, None) => {}
                }
            }
            JournalPayload::Recovery(marker) => {
                self.listed.extend(marker.unsafe_pending.iter().map(|e| e.effect_id.clone()));
            }
            _ => {}
        }
    }
}

pub(crate) async fn recover(kernel: &Kernel) -> Result<Found, StartError> {
    let mut fold = Fold::default();
    let mut next = 1;
    loop {
        let entries = kernel.journal().read(next, PAGE).await?;
        let Some(last) = entries.last() else { break };
        next = last.seq + 1;
        for entry in entries {
            let record = serde_json::from_slice(&entry.bytes)
                .map_err(|source| StartError::Record { seq: entry.seq, source })?;
            fold.take(record);
        }
    }
    let mut found = Found { records: fold.records, ..Found::default() };
    let now = kernel.now();
    let valid_for = millis(kernel.policy().approval_valid_for);
    for (request, at) in fold.approved.into_values() {
        let until = at.saturating_add(valid_for);
        if now < until && remember(kernel, &request, EarlierState::Approved { until }) {
            found.unused_approvals += 1;
        }
    }
    // Oldest first, so that the queue is as it was.
    let mut asked: Vec<_> = fold.asked.into_values().collect();
    asked.sort_by_key(|(_, seq)| *seq);
    for (request, seq) in asked {
        if now < request.created_at_millis.saturating_add(request.timeout_ms) {
            reopen(kernel, &request, seq).await?;
            found.reopened += 1;
        } else {
            lapse(kernel, &request, now).await?;
            found.lapsed += 1;
        }
    }
    for (effect_id, (intent, call)) in fold.under_way {
        found.unknown_effects.push(call.clone());
        if !fold.listed.contains(&effect_id) {
            list_unknown(kernel, effect_id, &intent, call, now).await?;
        }
    }
    Ok(found)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn remember(kernel: &Kernel, request: &Arc<ApprovalRequest>, state: EarlierState) -> bool {
    let Some(fingerprint) = request.fingerprint else { return false };
    let earlier = Earlier { request: Arc::clone(request), state };
    let mut all = kernel.earlier().lock().unwrap_or_else(PoisonError::into_inner);
    all.entry((request.agent_id.clone(), fingerprint)).or_default().push_back(earlier);
    true
}

async fn reopen(
    kernel: &Kernel,
    request: &Arc<ApprovalRequest>,
    seq: u64,
) -> Result<(), StartError> {
    let timeout = Duration::from_millis(request.timeout_ms);
    let place = kernel.queue().readmit(request.agent_id.clone(), timeout);
    let rule = request.policy_refs.first().and_then(|policy| policy.version.clone());
    let shown = shown(kernel, request, seq).await.unwrap_or_else(|| Shown {
        summary: format!("{}: {}", request.canonical_tool_name, request.redacted_args_summary),
        context: json!({
            "tool": request.canonical_tool_name,
            "call_id": request.tool_call_id,
            "run_id": request.run_id,
            "note": "the manifest or the policy has changed since this was asked; approving it \
                     releases nothing, the call has to be made again",
        }),
        digest: None,
    });
    kernel.recorder().expect(Arc::clone(request));
    remember(kernel, request, EarlierState::Waiting);
    place.reopen(HoldRequest {
        id: request.approval_request_id.clone(),
        kind: HoldKind::ToolCall,
        summary: shown.summary,
        reason: rule.unwrap_or_else(|| "the policy asks for a person".to_owned()),
        context_snapshot: shown.context,
        created_at_millis: request.created_at_millis,
        fingerprint: request.fingerprint,
        rendering_digest: shown.digest,
    });
    Ok(())
}

struct Shown {
    summary: String,
    context: Value,
    digest: Option<Digest>,
}

/// The call as it was shown before, planned again from its stored arguments; `None` unless it
/// is the same call to the last byte.
async fn shown(kernel: &Kernel, request: &ApprovalRequest, seq: u64) -> Option<Shown> {
    let manifest = kernel.manifests().get(&request.canonical_tool_name)?;
    let digest = Digest::parse(request.requested_args_ref.as_str()).ok()?;
    let args = kernel.journal().content(seq, digest).await.ok()??;
    let args = serde_json::from_slice(&args).ok()?;
    let planned = manifest.plan(&args).ok()?;
    let agent = &request.agent_id;
    let now = fingerprint(agent, manifest, &planned.plan, kernel.policy_digest());
    if request.fingerprint != Some(now) {
        return None;
    }
    let rendering = Rendering::new(manifest, &planned);
    let run = Run::new(request.run_id.clone(), agent.clone()).ok()?;
    let tool = request.canonical_tool_name.clone();
    let facts = CallFacts::new(&run, request.tool_call_id.clone(), 0, tool).ok()?;
    Some(Shown {
        summary: rendering.command.clone(),
        context: context(manifest, &rendering, &facts),
        digest: Some(rendering.digest()),
    })
}

async fn lapse(
    kernel: &Kernel,
    request: &Arc<ApprovalRequest>,
    now: u64,
) -> Result<(), StartError> {
    let outcome = Outcome {
        status: HoldStatus::RecoveryRequired,
        code: "approval.lapsed",
        decision: None,
        at_millis: now,
    };
    let drafts = approval_closing(request, &outcome, kernel.package(), now)
        .map_err(|error| StartError::Write(error.to_string()))?;
    kernel.journal().append(Batch { drafts, contents: Vec::new() }).await?;
    Ok(())
}

async fn list_unknown(
    kernel: &Kernel,
    effect_id: EffectId,
    intent: &JournalRecord,
    call: ToolCallId,
    now: u64,
) -> Result<(), StartError> {
    let base =
        Base { run_id: &intent.run_id, agent_id: &intent.agent_id, package: kernel.package(), now };
    let effect = UnsafePendingEffect {
        effect_id,
        intent_record_id: intent.record_id.clone(),
        idempotency_key: None,
        dedupe_key: None,
        unsafe_pending_reason: "an intent without a result".to_owned(),
    };
    let draft =
        base.recovery(&call, effect).map_err(|error| StartError::Write(error.to_string()))?;
    kernel.journal().append(Batch { drafts: vec![draft], contents: Vec::new() }).await?;
    Ok(())
}
