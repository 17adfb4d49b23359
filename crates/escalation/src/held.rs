//! One hold as it is kept: immutable, shared, and small, for there may be a million.

use std::fmt;

use countersign_core::digest::Digest;
use countersign_core::hold::{Approver, Claim, HeldAction, HoldKind, HoldPolicy, HoldStatus, Vote};
use countersign_core::id::{AgentId, ApprovalRequestId};
use serde::Serialize;
use serde_json::Value;

use crate::sync::Arc;
use crate::time::rfc3339;

/// Contexts that are deeper than this are kept as they are: read back from text, they would
/// meet the limit of a JSON reader.
const MAX_TEXT_DEPTH: usize = 64;

/// What an approver needs to see, as JSON text: a million trees would not fit, and most are
/// never looked at. Made of a [`Value`], or without one of whatever can be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot(Repr);

#[derive(Clone, Debug, PartialEq)]
enum Repr {
    Text(Box<str>),
    Deep(Box<Value>),
}

impl Snapshot {
    /// Writes it down.
    ///
    /// # Errors
    /// When it cannot be written, or is deeper than a reader would follow.
    pub fn of(context: &impl Serialize) -> Result<Self, serde_json::Error> {
        let text = serde_json::to_string(context)?;
        if may_be_deep(&text) {
            return Ok(Self::from(serde_json::from_str::<Value>(&text)?));
        }
        Ok(Self(Repr::Text(text.into())))
    }

    /// Reads it back.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match &self.0 {
            Repr::Text(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            Repr::Deep(value) => (**value).clone(),
        }
    }
}

impl From<Value> for Snapshot {
    fn from(value: Value) -> Self {
        match serde_json::to_string(&value) {
            Ok(text) if !may_be_deep(&text) || !is_deep(&value, MAX_TEXT_DEPTH) => {
                Self(Repr::Text(text.into()))
            }
            _ => Self(Repr::Deep(Box::new(value))),
        }
    }
}

/// Text with few brackets is not deep; counting them is quick.
fn may_be_deep(json: &str) -> bool {
    let brackets = json.bytes().filter(|byte| matches!(byte, b'[' | b'{'));
    brackets.count() >= MAX_TEXT_DEPTH
}

/// What is to be held.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldRequest {
    /// The approval request that waits; 128 bits nobody can guess.
    pub id: ApprovalRequestId,
    /// What kind of action.
    pub kind: HoldKind,
    /// One line: what would happen.
    pub summary: String,
    /// Which rule asks for a person.
    pub reason: String,
    /// What the approver needs to see.
    pub context_snapshot: Snapshot,
    /// Milliseconds since the Unix epoch; the time allowed counts from here.
    pub created_at_millis: u64,
    /// The exact call an approval would release.
    pub fingerprint: Option<Digest>,
    /// The digest of what the approver is shown.
    pub rendering_digest: Option<Digest>,
}

/// Other arguments for a held call, planned again by whoever offers them.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// The call an approval would release from now on.
    pub fingerprint: Digest,
    /// The digest of what the approver is shown from now on.
    pub rendering_digest: Option<Digest>,
    /// One line: what would happen.
    pub summary: String,
    /// What the approver needs to see.
    pub context_snapshot: Snapshot,
}

/// Who is looking at a hold, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Who.
    pub by: Approver,
    /// Milliseconds since the Unix epoch.
    pub at_millis: u64,
    /// Milliseconds since the Unix epoch; from then on the claim is over.
    pub until_millis: u64,
}

/// What had happened to a hold when the process ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Carried {
    /// The answers on record, the first one first. One whose person has been counted for the
    /// same call is left out.
    pub votes: Vec<Vote>,
    /// The last claim that was not taken back.
    pub claim: Option<Claimed>,
    /// How many steps of escalation had been taken.
    pub escalated: u32,
    /// The last edit on record.
    pub edit: Option<Edit>,
}

/// A hold at one moment. Clones share what was asked; what has happened since is beside it.
#[derive(Clone, PartialEq)]
pub struct Held {
    asked: Arc<Asked>,
    since: Option<Arc<Since>>,
    status: HoldStatus,
}

/// What is held, as it was asked or edited.
#[derive(PartialEq)]
struct Asked {
    id: ApprovalRequestId,
    agent_id: AgentId,
    created_at_millis: u64,
    expires_at_millis: u64,
    text: Text,
    policy: Option<Arc<HoldPolicy>>,
    fingerprint: Option<Digest>,
    rendering_digest: Option<Digest>,
    kind: HoldKind,
}

/// What has happened to a hold: nothing, mostly.
#[derive(Clone, Default, PartialEq)]
struct Since {
    votes: Vec<Vote>,
    claim: Option<Claimed>,
    edited_from: Option<Digest>,
    edited: bool,
    escalated: u32,
}

#[derive(PartialEq)]
struct Text {
    /// The summary, the reason, and the context in JSON, one after the other.
    text: Box<str>,
    summary_end: usize,
    reason_end: usize,
    deep_context: Option<Box<Value>>,
}

fn is_deep(value: &Value, left: usize) -> bool {
    match value {
        _ if left == 0 => true,
        Value::Array(items) => items.iter().any(|item| is_deep(item, left - 1)),
        Value::Object(fields) => fields.values().any(|field| is_deep(field, left - 1)),
        _ => false,
    }
}

impl Text {
    fn new(summary: &str, reason: &str, context: Snapshot) -> Self {
        let (context, deep_context) = match context.0 {
            Repr::Text(text) => (text, None),
            Repr::Deep(value) => (Box::default(), Some(value)),
        };
        let (summary_end, reason_end) = (summary.len(), summary.len() + reason.len());
        let mut text = String::with_capacity(reason_end + context.len());
        [summary, reason, &context].into_iter().for_each(|part| text.push_str(part));
        Self { text: text.into(), summary_end, reason_end, deep_context }
    }

    fn summary(&self) -> &str {
        self.text.get(..self.summary_end).unwrap_or_default()
    }

    fn reason(&self) -> &str {
        self.text.get(self.summary_end..self.reason_end).unwrap_or_default()
    }

    fn context(&self) -> Value {
        if let Some(context) = &self.deep_context {
            return (**context).clone();
        }
        let json = self.text.get(self.reason_end..).unwrap_or_default();
        serde_json::from_str(json).unwrap_or(Value::Null)
    }
}

impl Held {
    /// A pending hold.
    #[must_use]
    pub fn new(
        agent_id: AgentId,
        request: HoldRequest,
        expires_at_millis: u64,
        policy: Option<Arc<HoldPolicy>>,
    ) -> Self {
        let asked = Asked {
            id: request.id,
            agent_id,
            created_at_millis: request.created_at_millis,
            expires_at_millis,
            text: Text::new(&request.summary, &request.reason, request.context_snapshot),
            policy,
            fingerprint: request.fingerprint,
            rendering_digest: request.rendering_digest,
            kind: request.kind,
        };
        Self { asked: Arc::new(asked), since: None, status: HoldStatus::Pending }
    }

    /// The approval request that waits.
    #[must_use]
    pub fn id(&self) -> &ApprovalRequestId {
        &self.asked.id
    }

    /// Who asked.
    #[must_use]
    pub fn agent_id(&self) -> &AgentId {
        &self.asked.agent_id
    }

    /// What kind of action.
    #[must_use]
    pub fn kind(&self) -> HoldKind {
        self.asked.kind
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> HoldStatus {
        self.status
    }

    /// One line: what would happen.
    #[must_use]
    pub fn summary(&self) -> &str {
        self.asked.text.summary()
    }

    /// Which rule asks for a person.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.asked.text.reason()
    }

    /// What the approver needs to see. Read from text at every call.
    #[must_use]
    pub fn context_snapshot(&self) -> Value {
        self.asked.text.context()
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn created_at_millis(&self) -> u64 {
        self.asked.created_at_millis
    }

    /// Milliseconds since the Unix epoch; from then on silence is a denial.
    #[must_use]
    pub fn expires_at_millis(&self) -> u64 {
        self.asked.expires_at_millis
    }

    /// The exact call an approval would release.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Digest> {
        self.asked.fingerprint
    }

    /// The digest of what the approver is shown.
    #[must_use]
    pub fn rendering_digest(&self) -> Option<Digest> {
        self.asked.rendering_digest
    }

    /// Whose approvals it takes; `None` when one approver is enough.
    #[must_use]
    pub fn policy(&self) -> Option<&HoldPolicy> {
        self.asked.policy.as_deref()
    }

    /// The answers so far, where a policy asks for several.
    #[must_use]
    pub fn votes(&self) -> &[Vote] {
        self.since.as_ref().map_or(&[], |since| &since.votes)
    }

    /// The approvals that count: those of the call as it is now.
    #[must_use]
    pub fn approvals(&self) -> Vec<&Vote> {
        self.votes().iter().filter(|vote| vote.approves(self.asked.fingerprint)).collect()
    }

    /// Who is looking at it.
    #[must_use]
    pub fn claim(&self) -> Option<&Claimed> {
        self.since.as_ref()?.claim.as_ref()
    }

    /// The fingerprint of the call as it was asked.
    #[must_use]
    pub fn asked_fingerprint(&self) -> Option<Digest> {
        match &self.since {
            Some(since) if since.edited => since.edited_from,
            _ => self.asked.fingerprint,
        }
    }

    /// How many steps of escalation have been taken.
    #[must_use]
    pub fn escalated(&self) -> u32 {
        self.since.as_ref().map_or(0, |since| since.escalated)
    }

    /// Milliseconds since the Unix epoch when time alone changes something next.
    pub(crate) fn due_millis(&self) -> u64 {
        let claim = self.claim().map(|claim| claim.until_millis);
        [claim, self.escalates_at()]
            .into_iter()
            .flatten()
            .fold(self.asked.expires_at_millis, u64::min)
    }

    /// Milliseconds since the Unix epoch of the next step of escalation.
    pub(crate) fn escalates_at(&self) -> Option<u64> {
        let step = usize::try_from(self.escalated()).ok()?;
        let after = self.policy()?.escalation().get(step)?.after_ms;
        Some(self.asked.created_at_millis.saturating_add(after))
    }

    /// How many steps of escalation are open at the time `now`, taken or about to be.
    pub(crate) fn open_steps(&self, now: u64) -> u32 {
        let since = now.saturating_sub(self.asked.created_at_millis);
        let open = self.policy().map_or(0, |policy| policy.steps_open(since));
        open.max(self.escalated())
    }

    /// As every surface lists it.
    #[must_use]
    pub fn to_action(&self) -> HeldAction {
        HeldAction {
            id: self.asked.id.clone(),
            agent_id: self.asked.agent_id.clone(),
            kind: self.asked.kind,
            summary: self.summary().to_owned(),
            reason: self.reason().to_owned(),
            context_snapshot: self.context_snapshot(),
            created_at: rfc3339(self.asked.created_at_millis),
            expires_at: rfc3339(self.asked.expires_at_millis),
            status: self.status,
            fingerprint: self.asked.fingerprint,
            rendering_digest: self.asked.rendering_digest,
            policy: self.policy().cloned(),
            votes: self.votes().to_vec(),
            claim: self.claim().map(|claim| Claim {
                by: claim.by.clone(),
                at: rfc3339(claim.at_millis),
                until: rfc3339(claim.until_millis),
            }),
            edited_from: self.since.as_ref().and_then(|since| since.edited_from),
            escalated: self.escalated(),
        }
    }

    fn changed(&self, change: impl FnOnce(&mut Since)) -> Self {
        let mut since = self.since.as_deref().cloned().unwrap_or_default();
        change(&mut since);
        Self { since: Some(Arc::new(since)), ..self.clone() }
    }

    pub(crate) fn carrying(self, carried: Carried) -> Self {
        if carried == Carried::default() {
            return self;
        }
        let mut votes: Vec<Vote> = Vec::new();
        for vote in carried.votes {
            let same =
                |other: &Vote| other.fingerprint == vote.fingerprint && other.shares_person(&vote);
            if !votes.iter().any(same) {
                votes.push(vote);
            }
        }
        let held = match carried.edit {
            Some(edit) => self.with_edit(edit),
            None => self,
        };
        held.changed(|since| {
            since.votes = votes;
            since.claim = carried.claim;
            since.escalated = carried.escalated;
        })
    }

    pub(crate) fn with_status(&self, status: HoldStatus) -> Self {
        Self { status, ..self.clone() }
    }

    pub(crate) fn with_vote(&self, vote: Vote) -> Self {
        self.changed(|since| since.votes.push(vote))
    }

    pub(crate) fn with_claim(&self, claim: Option<Claimed>) -> Self {
        self.changed(|since| since.claim = claim)
    }

    pub(crate) fn with_escalation(&self) -> Self {
        self.changed(|since| since.escalated += 1)
    }

    pub(crate) fn with_edit(&self, edit: Edit) -> Self {
        let from = self.asked_fingerprint();
        let asked = Asked {
            id: self.asked.id.clone(),
            agent_id: self.asked.agent_id.clone(),
            created_at_millis: self.asked.created_at_millis,
            expires_at_millis: self.asked.expires_at_millis,
            text: Text::new(&edit.summary, self.reason(), edit.context_snapshot),
            policy: self.asked.policy.clone(),
            fingerprint: Some(edit.fingerprint),
            rendering_digest: edit.rendering_digest,
            kind: self.asked.kind,
        };
        let edited = self.changed(|since| {
            // Also when it is changed back: whoever answered before has not seen what was made
            // of it since, and looks again.
            since.votes.retain(|vote| vote.fingerprint != Some(edit.fingerprint));
            since.edited_from = from;
            since.edited = true;
        });
        Self { asked: Arc::new(asked), ..edited }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.to_action()).finish()
    }
}
