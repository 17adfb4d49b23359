//! Stories at the very edge of a rule, and with records that are seldom written: each as the rule
//! still allows it, and one step beyond.

use super::edits::{self, EDITED};
use super::quorum::story_case;
use super::story::*;
use crate::Outcome;
use serde_json::{Value, json};

/// Milliseconds by which a record may be behind the step it tells.
const SLACK: u64 = 2_000;

/// The session's grant of `story`, which expires at 60 s, is used at this time.
fn used_at(at: u64) -> Vec<Value> {
    let mut told = story();
    told.truncate(FIRST_USE + 2);
    change(&mut told, FIRST_USE, "/timestamp_millis", json!(at));
    change(&mut told, FIRST_USE + 1, "/timestamp_millis", json!(at));
    told
}

/// What was approved is taken back, and used so many milliseconds later.
fn taken_back(before_ms: u64) -> Vec<Value> {
    let mut told = story();
    told.truncate(RESULT + 1);
    let back = json!({ "request_id": "approval.1", "reason_code": "approval.revoked" });
    told.insert(CLOSED + 1, approval("approval.1", "denied", 2_600, "denied", back));
    for at in [INTENT + 1, RESULT + 1] {
        change(&mut told, at, "/timestamp_millis", json!(2_600 + before_ms));
    }
    told
}

/// An effect outside of a tool call.
fn outside(kind: &str, part: &str) -> Value {
    let effect = match kind {
        "effect_intent" => {
            with(announced("dream", entity("run", "run.1")), "/kind", json!("other"))
        }
        _ => json!({
            "effect_id": "effect.dream", "terminal_status": "completed",
            "redacted_summary": "completed",
        }),
    };
    let id = format!("journal.record.effect.dream.{part}");
    record(&id, 7_000, kind, &[], with(effect, "/type", json!(kind)))
}

/// Another party than the agent asks.
fn of_owner(mut told: Vec<Value>) -> Vec<Value> {
    let source = party("external_runtime", "owner");
    change(&mut told, REQUESTED, "/payload/record/request/source", source);
    told
}

/// A call that `owner` asked for in the agent's name, decided by this person.
fn asked_by_owner(name: &str) -> Vec<Value> {
    let mut told = of_owner(story());
    told.truncate(RESULT + 1);
    change(&mut told, APPROVED, "/payload/record/decision/actor_ref", party("user", name));
    told
}

/// A call that `owner` asked for in the agent's name, edited by this person.
fn edited_by(name: &str) -> Vec<Value> {
    let mut told = of_owner(edits::told());
    let by = json!({ "surface": "rest", "id": name, "display": name });
    edits::both(&mut told, "by", &by);
    told
}

/// The first approval, given at this time.
fn decided_at(at: u64) -> Vec<Value> {
    let mut told = story();
    told.truncate(RESULT + 1);
    change(&mut told, APPROVED, "/payload/record/decision/decided_at_millis", json!(at));
    told
}

/// One call, whose outcome nobody knows.
fn unknown() -> Vec<Value> {
    vec![intent("call.1", 1_000, None), result("call.1", 2_000, "unknown")]
}

/// One call of a tool, with these policies.
fn under(policy: &str) -> Vec<Value> {
    let policies = json!([{ "kind": "approval", "id": policy }]);
    let begun = with(intent("call.1", 1_000, None), "/payload/policy_refs", policies);
    vec![begun, result("call.1", 2_000, "completed")]
}

type Told = (&'static str, &'static str, Option<(&'static str, u64)>, Vec<Value>);

fn told() -> Vec<Told> {
    let begun = || outside("effect_intent", "intent");
    let ended = || outside("effect_result", "result");
    let reconciled = || {
        let mut told = unknown();
        let by = entity("host", "reconciliation.1");
        change(&mut told, 1, "/payload/effect_result/reconciliation_ref", by);
        told
    };
    let untyped = {
        let mut told = story();
        if let Some(Value::Object(payload)) =
            told.get_mut(APPROVED).and_then(|record| record.pointer_mut("/payload"))
        {
            payload.remove("record_type");
        }
        told
    };
    vec![
        (
            "a grant in its last moment",
            "Clocks are read before a record is on its way.",
            None,
            used_at(60_000 + SLACK - 1),
        ),
        (
            "a grant behind its last moment",
            "It has expired.",
            Some(("grant_exceeded", FIRST_USE as u64 + 1)),
            used_at(60_000 + SLACK),
        ),
        (
            "an approval used in the moment it was taken back",
            "The effect may have been under way.",
            None,
            taken_back(SLACK),
        ),
        (
            "an approval used after it was taken back",
            "It was not given any more.",
            Some(("approval_revoked", INTENT as u64 + 2)),
            taken_back(SLACK + 1),
        ),
        (
            "an effect outside of a call",
            "So that the others are told from it.",
            None,
            vec![begun(), ended()],
        ),
        (
            "an effect outside of a call that was not announced",
            "It is on record only afterwards.",
            Some(("effect_without_intent", 1)),
            vec![ended()],
        ),
        (
            "an effect outside of a call announced twice",
            "One effect has one beginning.",
            Some(("effect_repeated", 2)),
            vec![begun(), with(begun(), "/record_id", json!("again")), ended()],
        ),
        (
            "an effect outside of a call that ended twice",
            "One effect has one end.",
            Some(("result_repeated", 3)),
            vec![begun(), ended(), with(ended(), "/record_id", json!("again"))],
        ),
        (
            "a call of which a policy says that it needs approval, without a request",
            "The policy is on record, the question is not.",
            Some(("intent_without_decision", 1)),
            under("policy.approval"),
        ),
        ("a call under another policy", "It asks nobody.", None, under("policy.other")),
        (
            "an unknown outcome that nobody lists",
            "Somebody has to clear it up.",
            Some(("outcome_not_listed", 2)),
            unknown(),
        ),
        ("an unknown outcome that is being cleared up", "It says where.", None, reconciled()),
        (
            "a decision in the very moment of the question",
            "It is not before it.",
            None,
            decided_at(2_000),
        ),
        (
            "a decision by whoever asked for the agent",
            "Whoever asks does not decide.",
            Some(("decision_own_request", APPROVED as u64 + 1)),
            asked_by_owner("owner"),
        ),
        (
            "a decision by the agent for whom somebody asked",
            "It is the agent's call.",
            Some(("decision_own_request", APPROVED as u64 + 1)),
            asked_by_owner("agent"),
        ),
        ("a decision by somebody else", "Neither asked nor called.", None, asked_by_owner("ada")),
        (
            "an edit by whoever asked for the agent",
            "Whoever asks changes nothing of what is approved.",
            Some(("decision_own_request", EDITED as u64 + 2)),
            edited_by("owner"),
        ),
        ("an edit by somebody else", "It is none of their calls.", None, edited_by("ada")),
        (
            "a record of an approval that does not say which step it is",
            "Nobody can tell what it means.",
            Some(("record_unreadable", APPROVED as u64 + 1)),
            untyped,
        ),
    ]
}

/// Bundles of stories at the edge of a rule.
pub(crate) fn bounds() -> Outcome<Vec<u8>> {
    let mut out = Vec::new();
    for (name, why, broken, told) in told() {
        story_case(&mut out, (name, why), &told, broken)?;
    }
    Ok(out)
}
