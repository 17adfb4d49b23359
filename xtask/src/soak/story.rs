//! What the journal must show when all is over, whatever happened on the way. Knows records and
//! what clients were told; nothing of processes, time or HTTP.

use countersign_core::approval::{ApprovalDecision, ApprovalRecord, ApprovalTerminalStatus};
use countersign_core::digest::Digest;
use countersign_core::effect::EffectTerminalStatus;
use countersign_core::journal::{JournalPayload, JournalRecord};
use countersign_core::refs::EntityKind;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What one record says, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Requested {
        request: String,
        call: String,
        agent: String,
        arguments: String,
        fingerprint: Option<Digest>,
        expires_at: u64,
    },
    Decided {
        request: String,
        by: Option<String>,
        approved: bool,
        at: u64,
        fingerprint: Option<Digest>,
    },
    /// An approval is taken back, or nobody answered.
    Denied {
        request: String,
    },
    /// Asking has ended.
    Closed {
        request: String,
        released: bool,
    },
    Intent {
        call: String,
        agent: String,
        tool: String,
        arguments: String,
        fingerprint: Option<Digest>,
        approval: Option<String>,
        grant: bool,
    },
    Ended {
        call: String,
        how: Ending,
    },
    Unknown {
        call: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Refused,
    Completed,
    /// It ran, or may have: failed, timed out, called off, or nobody knows.
    Otherwise,
}

/// Who may do what.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) approvers: BTreeSet<String>,
    /// The tools whose calls need a person.
    pub(crate) held_tools: BTreeSet<String>,
}

/// What clients learned, and what the tools left behind.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Holds that an approver saw.
    pub(crate) holds: BTreeSet<String>,
    pub(crate) decisions: Vec<ToldDecision>,
    pub(crate) results: Vec<ToldResult>,
    /// How often a tool ran with these arguments.
    pub(crate) traces: BTreeMap<String, u64>,
}

/// A decision that an approver was told counts.
#[derive(Debug)]
pub(crate) struct ToldDecision {
    pub(crate) request: String,
    pub(crate) by: String,
    pub(crate) approved: bool,
}

/// How a call ended, as its agent was told.
#[derive(Debug)]
pub(crate) struct ToldResult {
    pub(crate) call: String,
    pub(crate) agent: String,
    pub(crate) how: Ending,
}

/// A rule that was broken, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) rule: &'static str,
    pub(crate) what: String,
}

/// A call that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) call: String,
    pub(crate) agent: String,
    pub(crate) arguments: String,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Verdict {
    pub(crate) calls: usize,
    pub(crate) completed: usize,
    pub(crate) refused: usize,
    pub(crate) otherwise: usize,
    pub(crate) unknown: usize,
    pub(crate) holds: usize,
    pub(crate) decisions: usize,
    pub(crate) approvals_used: usize,
    pub(crate) findings: Vec<Finding>,
    #[serde(skip)]
    pub(crate) open: Vec<Open>,
}

/// `None` for what says nothing about a call.
pub(crate) fn read(record: &JournalRecord) -> Option<Step> {
    Some(match &record.payload {
        JournalPayload::Approval(ApprovalRecord::Requested { request }) => Step::Requested {
            request: request.approval_request_id.to_string(),
            call: request.tool_call_id.to_string(),
            agent: request.agent_id.to_string(),
            arguments: request.requested_args_ref.to_string(),
            fingerprint: request.fingerprint,
            expires_at: request.expires_at_millis(),
        },
        JournalPayload::Approval(ApprovalRecord::Responded { request_id, decision, .. }) => {
            let (ApprovalDecision::Approved { decided_at_millis, fingerprint, .. }
            | ApprovalDecision::ApprovedForSession { decided_at_millis, fingerprint, .. }
            | ApprovalDecision::Denied { decided_at_millis, fingerprint, .. }) = decision;
            Step::Decided {
                request: request_id.to_string(),
                by: decision.actor_ref().map(|actor| actor.id.to_string()),
                approved: !matches!(decision, ApprovalDecision::Denied { .. }),
                at: decided_at_millis.unwrap_or(record.timestamp_millis),
                fingerprint: *fingerprint,
            }
        }
        JournalPayload::Approval(ApprovalRecord::Denied { request_id, .. }) => {
            Step::Denied { request: request_id.to_string() }
        }
        JournalPayload::Approval(ApprovalRecord::DispatchResult {
            request_id,
            lifecycle_status,
            ..
        }) => Step::Closed {
            request: request_id.to_string(),
            released: lifecycle_status
                .terminal()
                .is_some_and(ApprovalTerminalStatus::releases_tool),
        },
        JournalPayload::Tool(tool) => {
            let call = tool.tool_call_id.to_string();
            match (&tool.effect_intent, &tool.effect_result) {
                (_, Some(result)) => Step::Ended {
                    call,
                    how: match result.terminal_status {
                        EffectTerminalStatus::Completed => Ending::Completed,
                        EffectTerminalStatus::DeniedBeforeExecution => Ending::Refused,
                        _ => Ending::Otherwise,
                    },
                },
                (Some(_), None) => Step::Intent {
                    call,
                    agent: record.agent_id.to_string(),
                    tool: tool.canonical_tool_name.clone(),
                    arguments: tool.requested_args_refs.first()?.to_string(),
                    fingerprint: tool.fingerprint,
                    approval: record
                        .related_refs
                        .iter()
                        .find(|reference| reference.kind == EntityKind::ApprovalRequest)
                        .map(|reference| reference.id.to_string()),
                    grant: tool.grant_use.is_some(),
                },
                (None, None) => return None,
            }
        }
        JournalPayload::Recovery(_) => Step::Unknown {
            call: record.correlation(countersign_core::journal::TOOL_CALL_KEY)?.to_owned(),
        },
        _ => return None,
    })
}

/// A question and what became of it.
struct Asked {
    call: String,
    agent: String,
    fingerprint: Option<Digest>,
    expires_at: u64,
    decided: Option<(bool, Option<String>)>,
    denied: bool,
    closed: Option<bool>,
    used: u32,
}

#[derive(Default)]
struct Call {
    agent: String,
    arguments: String,
    intents: u32,
    ends: Vec<Ending>,
    unknown: u32,
    asked: bool,
    /// An approval of it was closed without releasing it.
    refused: bool,
}

#[derive(Default)]
struct Judge {
    asked: BTreeMap<String, Asked>,
    calls: BTreeMap<String, Call>,
    intents: BTreeMap<String, u64>,
    completed: BTreeMap<String, u64>,
    verdict: Verdict,
}

/// Holds a journal, in its order, against what must be true of it.
pub(crate) fn judge<'a>(
    steps: impl IntoIterator<Item = &'a (u64, Step)>,
    rules: &Rules,
    told: &Told,
) -> Verdict {
    let mut judge = Judge::default();
    for (seq, step) in steps {
        judge.take(*seq, step, rules);
    }
    judge.ends();
    judge.told(told);
    judge.traces(told);
    judge.verdict
}

impl Judge {
    fn find(&mut self, rule: &'static str, what: String) {
        self.verdict.findings.push(Finding { rule, what });
    }

    fn take(&mut self, seq: u64, step: &Step, rules: &Rules) {
        match step {
            Step::Requested { request, call, agent, arguments, fingerprint, expires_at } => {
                self.verdict.holds += 1;
                let entry = self.calls.entry(call.clone()).or_default();
                (entry.agent, entry.arguments) = (agent.clone(), arguments.clone());
                entry.asked = true;
                let asked = Asked {
                    call: call.clone(),
                    agent: agent.clone(),
                    fingerprint: *fingerprint,
                    expires_at: *expires_at,
                    decided: None,
                    denied: false,
                    closed: None,
                    used: 0,
                };
                if self.asked.insert(request.clone(), asked).is_some() {
                    self.find("asked_once", format!("{seq}: {request} is asked a second time"));
                }
            }
            Step::Decided { .. } => self.decided(seq, step, rules),
            Step::Denied { request } => match self.asked.get_mut(request) {
                Some(asked) => asked.denied = true,
                None => self.find("asked_first", format!("{seq}: {request} was never asked")),
            },
            Step::Closed { request, released } => self.closed(seq, request, *released),
            Step::Intent { .. } => self.intent(seq, step, rules),
            Step::Ended { call, how } => {
                let entry = self.calls.entry(call.clone()).or_default();
                entry.ends.push(*how);
                let unannounced = *how != Ending::Refused && entry.intents == 0;
                let refused = *how == Ending::Refused && entry.intents > 0;
                if *how == Ending::Completed {
                    *self.completed.entry(entry.arguments.clone()).or_default() += 1;
                }
                if unannounced {
                    self.find("intent_first", format!("{seq}: {call} ran unannounced"));
                }
                if refused {
                    let what = format!("{seq}: {call} is refused after its intent");
                    self.find("ended_once", what);
                }
            }
            Step::Unknown { call } => {
                let entry = self.calls.entry(call.clone()).or_default();
                entry.unknown += 1;
                if entry.intents == 0 {
                    self.find("intent_first", format!("{seq}: {call} is listed unannounced"));
                }
            }
        }
    }

    fn decided(&mut self, seq: u64, step: &Step, rules: &Rules) {
        let Step::Decided { request, by, approved, at, fingerprint } = step else { return };
        self.verdict.decisions += 1;
        let Some(asked) = self.asked.get_mut(request) else {
            let what = format!("{seq}: {request} is decided and was never asked");
            return self.find("asked_first", what);
        };
        let mut found = Vec::new();
        if asked.decided.is_some() || asked.denied || asked.closed.is_some() {
            found.push(("decided_once", "is decided after its end".to_owned()));
        }
        let who = by.clone().unwrap_or_else(|| "nobody".to_owned());
        if !rules.approvers.contains(&who) {
            found.push(("decided_by_approver", format!("is decided by {who}")));
        }
        if *by.as_ref().unwrap_or(&String::new()) == asked.agent {
            found.push(("decided_by_another", format!("is decided by {who}, who asked")));
        }
        if *at >= asked.expires_at {
            let late = at - asked.expires_at;
            found.push(("decided_in_time", format!("is decided {late} ms after its deadline")));
        }
        if fingerprint.is_some() && *fingerprint != asked.fingerprint {
            found.push(("same_call", "is decided for another call".to_owned()));
        }
        asked.decided = Some((*approved, by.clone()));
        for (rule, what) in found {
            self.find(rule, format!("{seq}: {request} {what}"));
        }
    }

    fn closed(&mut self, seq: u64, request: &str, released: bool) {
        let Some(asked) = self.asked.get_mut(request) else {
            return self.find("asked_first", format!("{seq}: {request} was never asked"));
        };
        let approved = matches!(asked.decided, Some((true, _))) && !asked.denied;
        let again = asked.closed.replace(released).is_some();
        let call = asked.call.clone();
        if again {
            self.find("closed_once", format!("{seq}: {request} is closed a second time"));
        }
        if released && !approved {
            self.find("approved_first", format!("{seq}: {request} is released unapproved"));
        }
        if !released {
            self.calls.entry(call).or_default().refused = true;
        }
    }

    fn intent(&mut self, seq: u64, step: &Step, rules: &Rules) {
        let Step::Intent { call, agent, tool, arguments, fingerprint, approval, grant } = step
        else {
            return;
        };
        *self.intents.entry(arguments.clone()).or_default() += 1;
        let entry = self.calls.entry(call.clone()).or_default();
        (entry.agent, entry.arguments) = (agent.clone(), arguments.clone());
        entry.intents += 1;
        let mut found = Vec::new();
        if entry.intents > 1 {
            found.push(("effect_once", "is announced a second time".to_owned()));
        }
        if !entry.ends.is_empty() || entry.unknown > 0 || entry.refused {
            found.push(("ended_once", "is announced after its end".to_owned()));
        }
        match approval.as_ref().map(|id| (id, self.asked.get_mut(id))) {
            None if rules.held_tools.contains(tool) => {
                found.push(("approved_first", format!("runs {tool} without an approval")));
            }
            None => {}
            Some((id, None)) => found.push(("asked_first", format!("was never asked: {id}"))),
            Some((id, Some(asked))) => {
                self.verdict.approvals_used += 1;
                asked.used += 1;
                if !matches!(asked.decided, Some((true, _))) || asked.denied {
                    found.push(("approved_first", format!("runs, and {id} is not approved")));
                }
                if asked.closed != Some(true) {
                    found.push(("released_first", format!("runs, and {id} is not released")));
                }
                if asked.used > 1 && !grant {
                    found.push(("approval_used_once", format!("uses {id} once more")));
                }
                if asked.fingerprint != *fingerprint || asked.agent != *agent {
                    found.push(("same_call", format!("is not the call of {id}")));
                }
            }
        }
        for (rule, what) in found {
            self.find(rule, format!("{seq}: {call} {what}"));
        }
    }

    fn ends(&mut self) {
        let calls = std::mem::take(&mut self.calls);
        for (id, call) in &calls {
            let ended = call.ends.len() + call.unknown as usize;
            // A hold that ended when nobody waited for it has no other record of its end.
            let ended = ended.max(usize::from(call.refused));
            match ended {
                1 => {}
                0 => {
                    let (agent, arguments) = (call.agent.clone(), call.arguments.clone());
                    self.verdict.open.push(Open { call: id.clone(), agent, arguments });
                    let state = if call.asked { "was asked about" } else { "was announced" };
                    self.find("ended_once", format!("{id} {state} and has not ended"));
                }
                n => self.find("ended_once", format!("{id} has ended {n} times")),
            }
            match call.ends.first() {
                _ if call.unknown > 0 => self.verdict.unknown += 1,
                Some(Ending::Completed) => self.verdict.completed += 1,
                Some(Ending::Otherwise) => self.verdict.otherwise += 1,
                Some(Ending::Refused) => self.verdict.refused += 1,
                None if call.refused => self.verdict.refused += 1,
                None => {}
            }
        }
        self.verdict.calls = calls.len();
        self.calls = calls;
    }

    fn told(&mut self, told: &Told) {
        for id in &told.holds {
            if !self.asked.contains_key(id) {
                self.find("told_hold", format!("an approver saw {id}, which was never asked"));
            }
        }
        for ToldDecision { request, by, approved } in &told.decisions {
            let recorded = self.asked.get(request).and_then(|asked| asked.decided.clone());
            if recorded != Some((*approved, Some(by.clone()))) {
                let word = if *approved { "approved" } else { "denied" };
                let what = format!("{by} was told that {request} is {word}, which is not recorded");
                self.find("told_decision", what);
            }
        }
        for ToldResult { call, agent, how } in &told.results {
            let recorded = self.calls.get(call).is_some_and(|known| {
                let denied = *how == Ending::Refused && known.refused;
                (denied || known.ends.first() == Some(how))
                    // Refused arguments name no agent in the steps read here.
                    && (known.agent.is_empty() || known.agent == *agent)
            });
            if !recorded {
                let what = format!("{agent} was told of {call}: {how:?}, which is not recorded");
                self.find("told_result", what);
            }
        }
    }

    fn traces(&mut self, told: &Told) {
        let names: BTreeSet<_> = told.traces.keys().chain(self.completed.keys()).cloned().collect();
        for name in names {
            let count = |map: &BTreeMap<String, u64>| map.get(&name).copied().unwrap_or(0);
            let (ran, intents) = (count(&told.traces), count(&self.intents));
            let completed = count(&self.completed);
            if ran > intents {
                let what = format!("{name}: ran {ran} times with {intents} intents");
                self.find("effect_once", what);
            }
            if completed > ran {
                let what = format!("{name}: {completed} times done, and ran {ran} times");
                self.find("effect_happened", what);
            }
        }
    }
}

#[cfg(test)]
mod tests;
