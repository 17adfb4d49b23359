//! What a start finds in the journal: one pure fold over the records, then what follows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use countersign_core::approval::{
    ApprovalDecision, ApprovalEdit, ApprovalEvent, ApprovalGrant, ApprovalRecord, ApprovalRequest,
    ApprovalTerminalStatus,
};
use countersign_core::digest::Digest;
use countersign_core::effect::{EffectResult, EffectTerminalStatus};
use countersign_core::hold::{HoldKind, HoldRecord};
use countersign_core::hook::{HookRecord, HookRecordPayload, HookSpecError};
use countersign_core::id::{
    AgentId, ApprovalRequestId, EffectId, HookId, IdempotencyKey, RecordId, ToolCallId,
};
use countersign_core::journal::{JournalPayload, JournalRecord, RecordBase, UnsafePendingEffect};
use countersign_core::refs::EntityKind;
use countersign_core::tool::ToolCallRecord;
use countersign_escalation::{Carried, Claimed, HoldRequest};
use countersign_ports::journal::{AppendError, Batch, Journal, ReadError};
use serde_json::{Value, json};

use crate::approval::{Earlier, EarlierState, context, coverable};
use crate::broker::{Answer, Gate, GrantStatus};
use crate::edit::{EditedCall, Edits, HeldCall};
use crate::govern::{Kernel, is_outcome};
use crate::hooks::Invocation;
use crate::points::{HOOK_RULE, PlannedCall};
use crate::policy::{PolicyCall, Rule};
use crate::records::{Base, BuildError, CallFacts, KEYED_REQUEST, OwnKey, encode, own_key};
use crate::render::fingerprint;
use crate::run::Run;

/// Records read at once.
pub(crate) const PAGE: usize = 1024;

/// What was unfinished when the journal was left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Records read.
    pub records: u64,
    /// Holds that wait on.
    pub reopened: usize,
    /// Holds whose time ran out meanwhile; recorded as `recovery_required`.
    pub lapsed: usize,
    /// Grants that cover further calls.
    pub grants: usize,
    /// Approvals that were given and not used.
    pub unused_approvals: usize,
    /// Where the newest record of each kind stands whose payload the kernel does not know, by the
    /// payload's `type`.
    pub additions: BTreeMap<String, u64>,
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
    /// A hook contradicts itself, or another.
    #[error("the hooks cannot be taken in")]
    Hook(#[from] HookSpecError),
    /// Which hooks there are cannot be recorded.
    #[error("the hooks cannot be recorded: {0}")]
    Hooks(String),
    /// What was found unfinished cannot be recorded.
    #[error("what was found unfinished cannot be recorded")]
    Append(#[from] AppendError),
    /// The same, because a record of it cannot be written.
    #[error("what was found unfinished cannot be recorded: {0}")]
    Write(String),
}

#[derive(Debug)]
struct KeyedCall {
    agent_id: AgentId,
    key: IdempotencyKey,
    request: Digest,
    call: ToolCallId,
}

/// An approval that was given and not used.
#[derive(Debug)]
struct Approved {
    request: Arc<ApprovalRequest>,
    at: u64,
    /// What was approved in the place of what was asked, and by which record.
    edit: Option<(u64, ApprovalEdit)>,
}

/// What the records so far leave open.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    records: u64,
    asked: BTreeMap<ApprovalRequestId, (Arc<ApprovalRequest>, u64)>,
    /// The keys of the calls that were asked about.
    keys: HashMap<ApprovalRequestId, OwnKey>,
    /// What has happened to the holds of those.
    carried: HashMap<ApprovalRequestId, Carried>,
    approved: HashMap<ApprovalRequestId, Approved>,
    /// What approvers changed of the calls of those that are asked, and by which records.
    edits: HashMap<ApprovalRequestId, Vec<(u64, ApprovalEdit)>>,
    /// What was decided, for approvals and grants that may still release something.
    decided: HashMap<ApprovalRequestId, (Arc<ApprovalRequest>, ApprovalDecision)>,
    grants: BTreeMap<ApprovalRequestId, GrantStatus>,
    under_way: BTreeMap<EffectId, (JournalRecord, ToolCallId)>,
    listed: HashSet<EffectId>,
    hooks: BTreeSet<(HookId, String)>,
    /// Hooks that were invoked and have no end, by the invocation.
    invoked: BTreeMap<String, JournalRecord>,
    /// Calls under an idempotency key that ended, or may have run.
    keyed: Vec<KeyedCall>,
    last_invocation: u64,
    additions: BTreeMap<String, u64>,
}

impl Fold {
    /// Folds a journal from its first record to its last.
    pub(crate) async fn read(journal: &dyn Journal) -> Result<Self, StartError> {
        let mut fold = Self::default();
        let mut next = 1;
        loop {
            let entries = journal.read(next, PAGE).await?;
            let Some(last) = entries.last() else { return Ok(fold) };
            next = last.seq + 1;
            for entry in entries {
                let record = countersign_core::json::read(&entry.bytes)
                    .map_err(|source| StartError::Record { seq: entry.seq, source })?;
                fold.take(record);
            }
        }
    }

    /// The number of the next hook invocation: above all that are recorded.
    pub(crate) fn next_invocation(&self) -> u64 {
        self.last_invocation.saturating_add(1)
    }

    fn take(&mut self, record: JournalRecord) {
        self.records += 1;
        match &record.payload {
            JournalPayload::Approval(approval) => self.take_approval(approval, &record),
            JournalPayload::Hold(step) => self.take_step(step, record.journal_seq),
            JournalPayload::Tool(tool) => {
                // The intent that refers to an approval uses it up, or uses its grant once.
                let used = record.related_refs.iter();
                for used in used.filter(|r| r.kind == EntityKind::ApprovalRequest) {
                    let Ok(id) = ApprovalRequestId::new(used.id.as_str()) else { continue };
                    match tool.grant_use {
                        None => {
                            self.approved.remove(&id);
                            self.keys.remove(&id);
                        }
                        Some(number) => {
                            if let Some(status) = self.grants.get_mut(&id) {
                                status.uses = status.uses.max(number);
                            }
                        }
                    }
                }
                self.take_key(tool, &record);
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
            JournalPayload::Hook(hook) => {
                if let HookRecordPayload::Registered { spec_hash, .. } = &hook.payload {
                    self.hooks.insert((hook.hook_id.clone(), spec_hash.clone()));
                }
                let Some(id) = hook.payload.invocation_id().map(str::to_owned) else { return };
                let number = Invocation::number(&id).unwrap_or(0);
                self.last_invocation = self.last_invocation.max(number);
                match &hook.payload {
                    HookRecordPayload::InvocationStarted { .. } => {
                        self.invoked.insert(id, record);
                    }
                    _ => drop(self.invoked.remove(&id)),
                }
            }
            JournalPayload::Recovery(marker) => {
                self.listed.extend(marker.unsafe_pending.iter().map(|e| e.effect_id.clone()));
            }
            JournalPayload::Other(addition) => {
                self.additions.insert(addition.kind().to_owned(), record.journal_seq);
            }
            _ => {}
        }
    }

    fn take_key(&mut self, tool: &ToolCallRecord, record: &JournalRecord) {
        let refused = |result: &EffectResult| {
            result.error_ref.as_deref().is_some_and(|code| {
                result.terminal_status == EffectTerminalStatus::DeniedBeforeExecution
                    && !is_outcome(code)
            })
        };
        let made = tool.effect_intent.is_some()
            || tool.effect_result.as_ref().is_some_and(|result| !refused(result));
        let request = record.correlation_keys.iter().find(|entry| entry.key == KEYED_REQUEST);
        let key = tool.idempotency_key.clone();
        if let (true, Some(key), Some(request)) = (made, key, request)
            && let Ok(request) = Digest::parse(&request.value)
        {
            let (agent_id, call) = (record.agent_id.clone(), tool.tool_call_id.clone());
            self.keyed.push(KeyedCall { agent_id, key, request, call });
        }
    }

    fn take_approval(&mut self, approval: &ApprovalRecord, record: &JournalRecord) {
        match approval {
            ApprovalRecord::Requested { request } => {
                let id = request.approval_request_id.clone();
                if let Some(key) = own_key(record) {
                    self.keys.insert(id.clone(), key);
                }
                self.asked.insert(id, (Arc::new((**request).clone()), record.journal_seq));
            }
            ApprovalRecord::Responded { request_id, decision, edit, .. } => {
                self.carried.remove(request_id);
                let edits = self.edits.remove(request_id).unwrap_or_default();
                let Some((request, _)) = self.asked.remove(request_id) else { return };
                let (decided_at, grant) = match decision {
                    ApprovalDecision::Approved { decided_at_millis, .. } => {
                        (*decided_at_millis, None)
                    }
                    ApprovalDecision::ApprovedForSession {
                        decided_at_millis,
                        grant,
                        actor_ref,
                        ..
                    } => {
                        let grant = grant.as_ref().map(|grant| GrantStatus {
                            request_id: request_id.clone(),
                            grant: (**grant).clone(),
                            granted_by: actor_ref.clone(),
                            uses: 0,
                            request: Arc::clone(&request),
                            revoked: false,
                            in_use: Gate::default(),
                        });
                        (*decided_at_millis, grant)
                    }
                    ApprovalDecision::Denied { .. } => return,
                };
                if let Some(grant) = grant {
                    self.grants.insert(request_id.clone(), grant);
                }
                let decided = (Arc::clone(&request), decision.clone());
                self.decided.insert(request_id.clone(), decided);
                let at = decided_at.unwrap_or(record.timestamp_millis);
                let edit = match edit.as_deref() {
                    None => None,
                    Some(edit) => match edits.into_iter().rfind(|(_, made)| made == edit) {
                        Some(made) => Some(made),
                        // Without the arguments nobody can tell what was approved.
                        None => return,
                    },
                };
                self.approved.insert(request_id.clone(), Approved { request, at, edit });
            }
            // Also of what was approved before: it is taken back.
            ApprovalRecord::Denied { request_id, .. } => self.forget(request_id),
            ApprovalRecord::DispatchResult { request_id, lifecycle_status, .. } => {
                let released =
                    lifecycle_status.terminal().is_some_and(ApprovalTerminalStatus::releases_tool);
                if !released {
                    self.forget(request_id);
                }
            }
            ApprovalRecord::DispatchIntent { .. } => {}
        }
    }

    /// What comes after the end of a hold changes nothing.
    fn take_step(&mut self, step: &HoldRecord, seq: u64) {
        let id = step.request_id();
        if !self.asked.contains_key(id) {
            return;
        }
        let carried = self.carried.entry(id.clone()).or_default();
        match step {
            HoldRecord::Voted { vote, .. } => carried.votes.push((**vote).clone()),
            HoldRecord::Claimed { by, at_millis, until_millis, .. } => {
                let (by, at_millis, until_millis) = (by.clone(), *at_millis, *until_millis);
                carried.claim = Some(Claimed { by, at_millis, until_millis });
            }
            HoldRecord::Released { by, .. } => {
                carried.claim.take_if(|claim| claim.by.id == by.id);
            }
            HoldRecord::Escalated { steps, .. } => carried.escalated = *steps,
            HoldRecord::Edited { edit, .. } => {
                // As in the queue: also answers about this very call were before the edit.
                carried.votes.retain(|vote| vote.fingerprint != Some(edit.fingerprint));
                self.edits.entry(id.clone()).or_default().push((seq, (**edit).clone()));
            }
        }
    }

    /// Has the hooks see again what may still release a call; what they stop is forgotten.
    async fn recheck(&mut self, kernel: &Kernel, now: u64, valid_for: u64) {
        let decided = std::mem::take(&mut self.decided);
        for (id, (request, decision)) in decided {
            let approved = self.approved.get(&id);
            let usable = approved.is_some_and(|given| now < given.at.saturating_add(valid_for));
            let covering = self.grants.get(&id).is_some_and(|status| {
                status.uses < status.grant.max_uses && now < status.grant.expires_at_millis
            });
            if !usable && !covering {
                continue;
            }
            let edits = match approved.and_then(|given| given.edit.clone()) {
                None => Some(Arc::default()),
                Some(edit) => stored(kernel, edit).await.map(Edits::decided_as),
            };
            let stands = match edits {
                None => false,
                Some(edits) => kernel.broker().recheck(&request, decision, edits).await,
            };
            if !stands {
                self.forget(&id);
            }
        }
    }

    fn forget(&mut self, id: &ApprovalRequestId) {
        self.asked.remove(id);
        self.carried.remove(id);
        self.keys.remove(id);
        self.approved.remove(id);
        self.grants.remove(id);
        self.decided.remove(id);
        self.edits.remove(id);
    }
}

pub(crate) async fn recover(kernel: &Kernel, mut fold: Fold) -> Result<Found, StartError> {
    let additions = std::mem::take(&mut fold.additions);
    let mut found = Found { records: fold.records, additions, ..Found::default() };
    for KeyedCall { agent_id, key, request, call } in std::mem::take(&mut fold.keyed) {
        kernel.calls().recorded(agent_id, key, request, call);
    }
    let now = kernel.now();
    let valid_for = millis(kernel.policy().approval_valid_for);
    kernel.register_hooks(&fold.hooks).await?;
    let cut = std::mem::take(&mut fold.invoked);
    cut_off(kernel, cut, now).await?;
    fold.recheck(kernel, now, valid_for).await;
    for status in fold.grants.into_values() {
        if status.uses < status.grant.max_uses && now < status.grant.expires_at_millis {
            found.grants += 1;
            kernel.broker().restore_grant(status);
        }
    }
    for Approved { request, at, edit } in fold.approved.into_values() {
        let until = at.saturating_add(valid_for);
        if now >= until {
            continue;
        }
        let edits = match edit {
            None => Arc::default(),
            Some(edit) => match stored(kernel, edit).await {
                Some(edited) => Edits::decided_as(edited),
                None => continue,
            },
        };
        let key = fold.keys.get(&request.approval_request_id).cloned();
        if remember(kernel, &request, key, EarlierState::Approved { until }, edits) {
            found.unused_approvals += 1;
        }
    }
    // Oldest first, so that the queue is as it was.
    let mut asked: Vec<_> = fold.asked.into_values().collect();
    asked.sort_by_key(|(_, seq)| *seq);
    for (request, seq) in asked {
        if now < request.expires_at_millis() {
            let id = &request.approval_request_id;
            let (carried, key) = (fold.carried.remove(id), fold.keys.remove(id));
            let edit = fold.edits.remove(id).and_then(|mut edits| edits.pop());
            reopen(kernel, &request, seq, key, carried.unwrap_or_default(), edit).await?;
            found.reopened += 1;
        } else {
            lapse(kernel, &request).await?;
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

/// What an edit was about, from the journal.
async fn stored(kernel: &Kernel, (seq, edit): (u64, ApprovalEdit)) -> Option<EditedCall> {
    let digest = Digest::parse(edit.args_ref.as_str()).ok()?;
    let args = kernel.journal().content(seq, digest).await.ok()??;
    EditedCall::stored(edit, args)
}

fn remember(
    kernel: &Kernel,
    request: &Arc<ApprovalRequest>,
    key: Option<OwnKey>,
    state: EarlierState,
    edits: Arc<Edits>,
) -> bool {
    let Some(fingerprint) = request.fingerprint else { return false };
    if let Some(key) = key.clone() {
        let id = request.approval_request_id.clone();
        kernel.calls().asked(request.agent_id.clone(), key, id);
    }
    let earlier = Earlier { request: Arc::clone(request), key, state, edits };
    let mut all = kernel.earlier().lock().unwrap_or_else(PoisonError::into_inner);
    all.entry((request.agent_id.clone(), fingerprint)).or_default().push_back(earlier);
    true
}

async fn reopen(
    kernel: &Kernel,
    request: &Arc<ApprovalRequest>,
    seq: u64,
    key: Option<OwnKey>,
    mut carried: Carried,
    edit: Option<(u64, ApprovalEdit)>,
) -> Result<(), StartError> {
    let timeout = Duration::from_millis(request.timeout_ms);
    let rule = request.policy_refs.first().and_then(|policy| policy.version.clone());
    let presentation = request.presentation.as_deref();
    let shown = shown(kernel, request, seq).await.unwrap_or_else(|| Shown {
        summary: format!("{}: {}", request.canonical_tool_name, request.redacted_args_summary),
        context: json!({
            "tool": request.canonical_tool_name,
            "call_id": request.tool_call_id,
            "run_id": request.run_id,
            "presentation": presentation,
            "note": "the manifest or the policy has changed since this was asked; approving it \
                     releases nothing, the call has to be made again",
        }),
        digest: None,
        coverable: None,
        call: None,
    });
    kernel.broker().resume(Arc::clone(request), shown.coverable);
    let edits = kernel.broker().edits(&request.approval_request_id).unwrap_or_default();
    if let Some(call) = shown.call {
        if let Some(edit) = edit
            && let Some(edited) = stored(kernel, edit).await
            && let Some((edited, edit)) = call.plan_again(kernel, edited)
        {
            edits.stage(edited);
            carried.edit = Some(edit);
        }
        let _ = edits.call.set(call);
    }
    let place = kernel.queue().readmit(request.agent_id.clone(), timeout).carrying(carried);
    // As it was asked, whatever the rules are now.
    let place = match &request.hold_policy {
        Some(policy) => place.under(Arc::new((**policy).clone())),
        None => place,
    };
    kernel.broker().dispatched(&request.approval_request_id).await;
    remember(kernel, request, key, EarlierState::Waiting, edits);
    let reason = match presentation {
        Some(presentation) => presentation.reason.clone(),
        None => rule.unwrap_or_else(|| "the policy asks for a person".to_owned()),
    };
    place.reopen(HoldRequest {
        id: request.approval_request_id.clone(),
        kind: HoldKind::ToolCall,
        summary: presentation.map_or(shown.summary, |presentation| presentation.summary.clone()),
        reason,
        context_snapshot: shown.context.into(),
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
    coverable: Option<ApprovalGrant>,
    call: Option<HeldCall>,
}

/// The call as it was shown before, planned again from its stored arguments; `None` unless it
/// is the same call to the last byte.
async fn shown(kernel: &Kernel, request: &ApprovalRequest, seq: u64) -> Option<Shown> {
    let manifests = kernel.manifests();
    let manifest = manifests.get(&request.canonical_tool_name)?;
    let digest = Digest::parse(request.requested_args_ref.as_str()).ok()?;
    let args = kernel.journal().content(seq, digest).await.ok()??;
    let args = serde_json::from_slice(&args).ok()?;
    let planned = manifest.plan(&args).ok()?;
    let agent = &request.agent_id;
    let now = fingerprint(agent, manifest, &planned.plan, kernel.policy_digest());
    if request.fingerprint != Some(now) {
        return None;
    }
    let run = Run::new(request.run_id.clone(), agent.clone(), request.session_id.clone());
    let tool = request.canonical_tool_name.clone();
    let facts = CallFacts::new(&run, request.tool_call_id.clone(), 0, tool).ok()?;
    let facts =
        CallFacts { turn_id: request.turn_id.clone(), source: request.source.clone(), ..facts };
    let call = PlannedCall::new(kernel, manifest, facts, args, planned).ok()?;
    let PlannedCall { facts, planned, rendering, arguments, .. } = call;
    let (policy, digest) = (kernel.policy(), kernel.policy_digest());
    let at = request.created_at_millis;
    let judged = PolicyCall { manifest, agent, arguments: &planned.args };
    let asked = request.policy_refs.first().filter(|asked| asked.id.as_str() == HOOK_RULE);
    let asked = asked.map(|asked| Rule {
        id: HOOK_RULE.into(),
        text: asked.version.clone().unwrap_or_default(),
    });
    let demand = policy.demand(&judged, asked.clone());
    let coverable = coverable(policy, digest, &facts, manifest, &planned.args, at)
        .filter(|_| demand.is_some_and(|demand| demand.session_grants));
    let presentation = request.presentation.as_deref();
    Some(Shown {
        summary: rendering.command.clone(),
        context: context(manifest, &rendering, &facts, presentation, coverable.as_ref()),
        digest: Some(rendering.shown_digest(presentation)),
        coverable,
        call: Some(HeldCall {
            manifest: Arc::clone(manifest),
            facts,
            arguments,
            rendering,
            presentation: presentation.cloned(),
            asks: asked,
            policy: request.hold_policy.as_deref().cloned().map(Arc::new),
            asked_at: at,
        }),
    })
}

/// Records that a request's time ran out while nobody could answer it.
async fn lapse(kernel: &Kernel, request: &Arc<ApprovalRequest>) -> Result<(), StartError> {
    kernel.broker().resume(Arc::clone(request), None);
    let lapsed = Answer::Unanswered(ApprovalEvent::FoundLapsed, "approval.lapsed".to_owned());
    let settled = kernel.broker().settle(&request.approval_request_id, lapsed).await;
    settled.map(drop).map_err(|error| StartError::Write(error.to_string()))
}

/// Records of hooks that were under way that nobody waits for their answers any more.
async fn cut_off(
    kernel: &Kernel,
    invoked: BTreeMap<String, JournalRecord>,
    now: u64,
) -> Result<(), StartError> {
    if invoked.is_empty() {
        return Ok(());
    }
    let drafts = invoked.into_iter().filter_map(|(id, started)| {
        let JournalPayload::Hook(hook) = &started.payload else { return None };
        let base = RecordBase {
            session_id: started.session_id.clone(),
            turn_id: started.turn_id.clone(),
            attempt_id: started.attempt_id.clone(),
            destination: started.destination.clone(),
            correlation_keys: started.correlation_keys.clone(),
            tags: started.tags.clone(),
            timestamp_millis: now,
            ..RecordBase::new(
                started.run_id.clone(),
                started.agent_id.clone(),
                started.source.clone(),
                kernel.package().clone(),
            )
        };
        let ended = HookRecord {
            payload: HookRecordPayload::Cancelled { invocation_id: id.clone() },
            ..hook.clone()
        };
        let id = RecordId::new(format!("journal.hook.{}.{id}.cut_off", hook.hook_id));
        Some(
            id.map_err(BuildError::from)
                .and_then(|id| encode(base.hook(id, "hook_cancelled", ended))),
        )
    });
    let drafts = drafts.collect::<Result<_, _>>();
    let drafts = drafts.map_err(|error| StartError::Write(error.to_string()))?;
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
