//! Whether the records tell a story in which the rules were kept.
//!
//! Looks at the records alone, in their order. What has ended is remembered by a few bytes, so
//! that memory grows with the number of calls, not with what they said.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher as _;

use countersign_core::approval::{
    ApprovalDecision, ApprovalEdit, ApprovalGrant, ApprovalRecord, ApprovalRequest,
};
use countersign_core::digest::Digest;
use countersign_core::hold::Vote;
use countersign_core::refs::SourceKind;

use super::facts::{Decided, Facts, Tool, What, released};
use super::{Finding, Rule};

/// Milliseconds by which a record may be behind the step it tells: clocks are read before a
/// record is on its way.
const SLACK_MS: u64 = 2_000;

/// An approval request that may still release something.
#[derive(Debug)]
struct Asked {
    seq: u64,
    request: ApprovalRequest,
    dispatched: bool,
    decided: Option<Decision>,
    /// When what was approved was taken back, and by which record.
    revoked: Option<(u64, u64)>,
    used_by: Option<u64>,
    grant_uses: BTreeMap<u64, u64>,
    closed: bool,
    /// What approvers made of the call before it was decided about.
    edits: Vec<ApprovalEdit>,
}

#[derive(Debug)]
struct Decision {
    seq: u64,
    actor: Option<String>,
    releases: bool,
    /// The call that was decided about.
    fingerprint: Option<Digest>,
    grant: Option<ApprovalGrant>,
}

/// What is known of an effect: where it was announced, where it ended.
#[derive(Clone, Copy, Debug)]
struct Effect {
    intent: u64,
    result: u64,
}

/// Keys by which things are remembered that need no name any more. The hash is keyed with a
/// number nobody knows beforehand, so that nobody can make two of them meet.
type Key = u64;

/// Reads records from the first to the last.
#[derive(Debug, Default)]
pub(super) struct Meaning {
    hasher: RandomState,
    asked: HashMap<String, Asked>,
    /// Requests that have ended without releasing anything, or were used up: by which record.
    ended: HashMap<Key, (u64, bool)>,
    /// Calls that have an approval request.
    asking: HashMap<Key, u64>,
    /// Calls with an effect: where it was announced.
    calls: HashMap<Key, u64>,
    effects: HashMap<Key, Effect>,
    /// Announced and not ended: where, which effect. Asking for approval is not among them: what
    /// still waits goes on waiting after a restart.
    open: BTreeMap<u64, (Key, String)>,
    /// Ended with an outcome nobody knows.
    unknown: BTreeMap<u64, (Key, String)>,
    listed: HashSet<Key>,
    /// The last record that lists what a restart found.
    restarted: u64,
    hooks: HashSet<Key>,
}

/// Where the finding goes.
pub(super) type Sink<'a> = &'a mut dyn FnMut(Finding);

impl Meaning {
    fn key(&self, text: &str) -> Key {
        self.hasher.hash_one(text)
    }

    /// Takes the next record.
    pub(super) fn take(&mut self, facts: &Facts, sink: Sink<'_>) {
        let mut found = |rule, related: &[u64], detail: String| {
            sink(Finding {
                rule,
                seq: facts.seq,
                record_id: Some(facts.record_id.clone()),
                related: related.to_vec(),
                detail,
            });
        };
        match &facts.what {
            What::Tool(tool) => self.tool(facts, tool, &mut found),
            What::Approval(record) => self.approval(facts, record, &mut found),
            What::Edited(id, edit) => {
                // What comes after the decision changes nothing.
                if let Some(asked) = self.asked.get_mut(id)
                    && asked.decided.is_none()
                {
                    asked.edits.push((**edit).clone());
                }
            }
            What::Intent(effect) => {
                if self.announce(facts.seq, effect, &mut found) {
                    self.open.insert(facts.seq, (self.key(effect), effect.clone()));
                }
            }
            What::Result(effect) => self.end(facts.seq, effect, &mut found),
            What::Hook { id, registered: true } => {
                let key = self.key(id);
                self.hooks.insert(key);
            }
            What::Hook { id, registered: false } => {
                if !self.hooks.contains(&self.key(id)) {
                    let detail = format!("hook `{id}` ran and was never registered");
                    found(Rule::HookNotRegistered, &[], detail);
                }
            }
            What::Listed(effects) => {
                for effect in effects {
                    let key = self.key(effect);
                    self.listed.insert(key);
                }
                self.restarted = facts.seq;
            }
            What::NewKey(_) | What::Other => {}
        }
    }

    /// Takes in an announcement; `false` when it is not the first of its effect.
    fn announce(&mut self, seq: u64, effect: &str, found: Found<'_>) -> bool {
        let key = self.key(effect);
        match self.effects.entry(key) {
            Entry::Occupied(earlier) => {
                let earlier = earlier.get();
                let detail = format!("effect `{effect}` is announced a second time");
                found(Rule::EffectRepeated, &[earlier.intent], detail);
                false
            }
            Entry::Vacant(new) => {
                new.insert(Effect { intent: seq, result: 0 });
                true
            }
        }
    }

    fn end(&mut self, seq: u64, effect: &str, found: Found<'_>) {
        let key = self.key(effect);
        match self.effects.get_mut(&key) {
            None => {
                let detail = format!("effect `{effect}` ended and was never announced");
                found(Rule::EffectWithoutIntent, &[], detail);
                self.effects.insert(key, Effect { intent: seq, result: seq });
            }
            Some(known) if known.result != 0 => {
                let detail = format!("effect `{effect}` ended a second time");
                found(Rule::ResultRepeated, &[known.intent, known.result], detail);
            }
            Some(known) => {
                known.result = seq;
                self.open.remove(&known.intent);
            }
        }
    }

    fn tool(&mut self, facts: &Facts, tool: &Tool, found: Found<'_>) {
        if let Some(effect) = &tool.intent {
            let call = self.key(&tool.call);
            match self.calls.get(&call) {
                Some(earlier) => {
                    let detail = format!("call `{}` has a second effect", tool.call);
                    found(Rule::EffectRepeated, &[*earlier], detail);
                }
                None => {
                    self.calls.insert(call, facts.seq);
                    if self.announce(facts.seq, effect, found) {
                        self.open.insert(facts.seq, (self.key(effect), effect.clone()));
                    }
                }
            }
            self.release(facts, tool, found);
        }
        let Some((effect, status)) = &tool.result else { return };
        let key = self.key(effect);
        if status == "denied_before_execution" {
            if let Some(known) = self.effects.get(&key) {
                let detail = format!("effect `{effect}` was announced, and then refused before");
                found(Rule::DeniedAfterIntent, &[known.intent], detail);
                self.open.remove(&known.intent);
            }
            return;
        }
        self.end(facts.seq, effect, found);
        if status == "unknown" && !tool.reconciled {
            self.unknown.insert(facts.seq, (key, effect.clone()));
        }
    }

    /// Whether the effect that a record announces was allowed to begin.
    fn release(&mut self, facts: &Facts, tool: &Tool, found: Found<'_>) {
        let Some(id) = &tool.approval else {
            let asked = self.asking.get(&self.key(&tool.call)).copied();
            if asked.is_some() || tool.needs_approval {
                let detail = format!("call `{}` needed approval and names none", tool.call);
                found(Rule::IntentWithoutDecision, asked.as_slice(), detail);
            }
            return;
        };
        let Some(asked) = self.asked.get_mut(id) else {
            let ended = self.ended.get(&self.hasher.hash_one(id.as_str())).copied();
            let (rule, detail) = match ended {
                Some((_, true)) => {
                    (Rule::ApprovalReused, format!("approval `{id}` was used before"))
                }
                Some((_, false)) => {
                    (Rule::IntentWithoutDecision, format!("approval `{id}` was not given"))
                }
                None => {
                    (Rule::IntentWithoutDecision, format!("approval `{id}` was never asked for"))
                }
            };
            let related: Vec<_> = ended.map(|(seq, _)| seq).into_iter().collect();
            found(rule, &related, detail);
            return;
        };
        let Some(decision) = asked.decided.as_ref().filter(|decision| decision.releases) else {
            let detail = format!("approval `{id}` was not given before the effect");
            found(Rule::IntentWithoutDecision, &[asked.seq], detail);
            return;
        };
        if let Some((seq, at)) = asked.revoked
            && facts.at > at.saturating_add(SLACK_MS)
        {
            let detail = format!("approval `{id}` was taken back before the effect");
            found(Rule::ApprovalRevoked, &[asked.seq, seq], detail);
        }
        match tool.grant_use {
            None => {
                if let Some(earlier) = asked.used_by {
                    let detail = format!("approval `{id}` was used before");
                    found(Rule::ApprovalReused, &[asked.seq, earlier], detail);
                }
                asked.used_by = Some(facts.seq);
                if asked.request.tool_call_id.as_str() != tool.call {
                    let of = &asked.request.tool_call_id;
                    let detail = format!("approval `{id}` is of call `{of}`, not `{}`", tool.call);
                    found(Rule::ApprovalOfOtherCall, &[asked.seq], detail);
                }
                if decision.fingerprint != tool.fingerprint {
                    let detail = format!(
                        "the effect's fingerprint is {}, approved was {}",
                        told(tool.fingerprint),
                        told(decision.fingerprint)
                    );
                    found(Rule::FingerprintMismatch, &[asked.seq, decision.seq], detail);
                }
            }
            Some(number) => {
                let Some(grant) = &decision.grant else {
                    let detail = format!("approval `{id}` covers no later calls");
                    found(Rule::GrantExceeded, &[asked.seq, decision.seq], detail);
                    return;
                };
                for (fits, what) in [
                    (number >= 1 && number <= grant.max_uses, "it is used too often"),
                    (facts.at < grant.expires_at_millis.saturating_add(SLACK_MS), "it had expired"),
                    (grant.agent_id.as_str() == facts.agent, "it is of another agent"),
                    (grant.canonical_tool_name == tool.name, "it is for another tool"),
                    (
                        tool.manifest.as_deref() == Some(&*grant.manifest_digest),
                        "the tool's manifest is another",
                    ),
                ] {
                    if !fits {
                        let detail = format!("grant `{id}`, use {number}: {what}");
                        found(Rule::GrantExceeded, &[asked.seq, decision.seq], detail);
                    }
                }
                if let Some(earlier) = asked.grant_uses.insert(number, facts.seq) {
                    let detail = format!("use {number} of grant `{id}` was taken before");
                    found(Rule::ApprovalReused, &[asked.seq, earlier], detail);
                }
            }
        }
        self.retire(id);
    }

    /// Forgets a request that can release nothing more, but for that it existed.
    fn retire(&mut self, id: &str) {
        let Some(asked) = self.asked.get(id) else { return };
        let granted = asked.decided.as_ref().is_some_and(|decision| decision.grant.is_some());
        let released = asked.decided.as_ref().is_some_and(|decision| decision.releases);
        let over = asked.closed && !granted && (asked.used_by.is_some() || !released);
        if over && let Some(asked) = self.asked.remove(id) {
            let last = asked.used_by.unwrap_or(asked.seq);
            let key = self.key(id);
            self.ended.insert(key, (last, asked.used_by.is_some()));
        }
    }

    fn approval(&mut self, facts: &Facts, record: &ApprovalRecord, found: Found<'_>) {
        let id = record.request_id().as_str();
        if let ApprovalRecord::Requested { request } = record {
            if self.asked.contains_key(id) || self.ended.contains_key(&self.key(id)) {
                let detail = format!("approval `{id}` is asked for a second time");
                found(Rule::RequestRepeated, &[], detail);
                return;
            }
            let call = self.key(request.tool_call_id.as_str());
            self.asking.insert(call, facts.seq);
            let asked = Asked {
                seq: facts.seq,
                request: (**request).clone(),
                dispatched: false,
                decided: None,
                revoked: None,
                used_by: None,
                grant_uses: BTreeMap::new(),
                closed: false,
                edits: Vec::new(),
            };
            self.asked.insert(id.to_owned(), asked);
            return;
        }
        let Some(asked) = self.asked.get_mut(id) else {
            let ended = self.ended.get(&self.hasher.hash_one(id)).copied();
            // Taking back what was used is of no consequence, and no harm.
            if !matches!((record, ended), (ApprovalRecord::Denied { .. }, Some(_))) {
                let (rule, what) = match ended {
                    Some(_) => (Rule::DecisionRepeated, "had ended"),
                    None => (Rule::RequestMissing, "was never asked for"),
                };
                let related: Vec<_> = ended.map(|(seq, _)| seq).into_iter().collect();
                found(rule, &related, format!("approval `{id}` {what}"));
            }
            return;
        };
        match record {
            ApprovalRecord::Requested { .. } => {}
            ApprovalRecord::DispatchIntent { effect_intent, .. } => {
                asked.dispatched = true;
                self.announce(facts.seq, effect_intent.effect_id.as_str(), found);
            }
            ApprovalRecord::Responded { decision, votes, edit, .. } => {
                decide(asked, facts, (decision, votes, edit.as_deref()), found);
            }
            ApprovalRecord::Denied { .. } => {
                if asked.decided.as_ref().is_some_and(|decision| decision.releases) {
                    asked.revoked.get_or_insert((facts.seq, facts.at));
                } else {
                    asked.decided.get_or_insert(Decision {
                        seq: facts.seq,
                        actor: None,
                        releases: false,
                        fingerprint: None,
                        grant: None,
                    });
                }
            }
            ApprovalRecord::DispatchResult { lifecycle_status, effect_result, .. } => {
                asked.closed = true;
                let given = asked.decided.as_ref().is_some_and(|decision| decision.releases);
                if released(*lifecycle_status) != given {
                    let detail = format!(
                        "approval `{id}` ended as {lifecycle_status}, against \
                                          what was decided"
                    );
                    found(Rule::OutcomeMismatch, &[asked.seq], detail);
                }
                self.end(facts.seq, effect_result.effect_id.as_str(), found);
                self.retire(id);
            }
        }
    }

    /// Says what is left open behind the last record. Returns where effects were announced whose
    /// end is not recorded.
    pub(super) fn finish(&self, sink: Sink<'_>) -> Vec<u64> {
        let missed = self.open.iter().filter(|(seq, _)| **seq < self.restarted);
        for (seq, (key, effect)) in missed.chain(&self.unknown) {
            if !self.listed.contains(key) {
                sink(Finding {
                    rule: Rule::OutcomeNotListed,
                    seq: *seq,
                    record_id: None,
                    related: Vec::new(),
                    detail: format!(
                        "nobody knows how effect `{effect}` ended, and no record \
                                     lists it"
                    ),
                });
            }
        }
        self.open.keys().copied().collect()
    }
}

type Found<'a> = &'a mut dyn FnMut(Rule, &[u64], String);

fn told(digest: Option<Digest>) -> String {
    digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string())
}

/// Whether this kind of party can decide at all.
fn decides(kind: SourceKind) -> bool {
    matches!(kind, SourceKind::User | SourceKind::Host | SourceKind::RemoteChannel)
}

/// Whether an edit that a decision names is of the call that was asked, by somebody else than
/// whoever asked, and on record before.
fn edited(asked: &Asked, edit: &ApprovalEdit, found: Found<'_>) {
    let (request, seq) = (&asked.request, asked.seq);
    let id = &request.approval_request_id;
    let by = edit.by.id.as_str();
    if by == request.source.id.as_str() || by == request.agent_id.as_str() {
        found(Rule::DecisionOwnRequest, &[seq], format!("`{by}` edits a call of its own"));
    }
    if !asked.edits.contains(edit) {
        let detail =
            format!("approval `{id}` is of an edited call, and no edit of it is on record");
        found(Rule::FingerprintMismatch, &[seq], detail);
    }
    for (edited, asked, rule) in [
        (edit.asked_fingerprint, request.fingerprint, Rule::FingerprintMismatch),
        (edit.asked_rendering_digest, request.rendering_digest, Rule::RenderingMismatch),
    ] {
        if edited != asked {
            let detail = format!("edited was {}, asked was {}", told(edited), told(asked));
            found(rule, &[seq], detail);
        }
    }
}

fn decide(
    asked: &mut Asked,
    facts: &Facts,
    (decision, votes, edit): (&ApprovalDecision, &[Vote], Option<&ApprovalEdit>),
    found: Found<'_>,
) {
    let (request, seq) = (&asked.request, asked.seq);
    let id = &request.approval_request_id;
    let said = Decided::of(decision);
    let actor = decision.actor_ref();
    if let Some(earlier) = &asked.decided {
        let same = actor.is_some_and(|actor| earlier.actor.as_deref() == Some(actor.id.as_str()));
        let by = if same { "by the same person" } else { "by somebody" };
        let detail = format!("approval `{id}` is decided again, {by}");
        found(Rule::DecisionRepeated, &[seq, earlier.seq], detail);
        return;
    }
    if !asked.dispatched {
        let detail = format!("approval `{id}` is decided and was put to nobody");
        found(Rule::DecisionNotAsked, &[seq], detail);
    }
    if let Some(actor) = actor {
        let own = actor.id == request.source.id || actor.id.as_str() == request.agent_id.as_str();
        if own {
            let detail = format!("`{}` decides about a call of its own", actor.id);
            found(Rule::DecisionOwnRequest, &[seq], detail);
        } else if !decides(actor.kind) {
            let detail = format!("`{}` is a {}, which decides nothing", actor.id, actor.kind);
            found(Rule::DecisionNotAllowed, &[seq], detail);
        }
    }
    if !request.allowed_decisions.contains(&decision.kind()) {
        let detail = format!("{} is no answer that approval `{id}` offers", decision.kind());
        found(Rule::DecisionNotAllowed, &[seq], detail);
    }
    let at = said.at.unwrap_or(facts.at);
    let until = request.expires_at_millis();
    if said.releases && at >= until {
        let detail = format!("approval `{id}` was given at {at}, its time was over at {until}");
        found(Rule::DecisionLate, &[seq], detail);
    }
    if said.at.is_some_and(|at| at < request.created_at_millis) {
        let detail = format!("approval `{id}` was decided at {at}, before it was asked for");
        found(Rule::DecisionLate, &[seq], detail);
    }
    // What was put before the person: the call as it was asked, or as an approver edited it.
    let shown = match edit {
        None => (request.fingerprint, request.rendering_digest),
        Some(edit) => (Some(edit.fingerprint), Some(edit.rendering_digest)),
    };
    if let Some(edit) = edit {
        edited(asked, edit, found);
    }
    if said.releases && !request.met_by(votes, shown.0, at) {
        let detail = format!(
            "approval `{id}` was given on {} answers, which are not those it takes",
            votes.len()
        );
        found(Rule::QuorumNotMet, &[seq], detail);
    }
    for (decided, shown, rule) in [
        (said.fingerprint, shown.0, Rule::FingerprintMismatch),
        (said.rendering, shown.1, Rule::RenderingMismatch),
    ] {
        if decided != shown {
            let detail = format!("decided about {}, asked was {}", told(decided), told(shown));
            found(rule, &[seq], detail);
        }
    }
    asked.decided = Some(Decision {
        seq: facts.seq,
        actor: actor.map(|actor| actor.id.to_string()),
        releases: said.releases,
        fingerprint: shown.0,
        grant: said.grant.cloned(),
    });
}
