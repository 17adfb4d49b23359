//! Stories in which a rule was broken, signed by the key's holder as if nothing were.

use super::story::*;
use serde_json::{Value, json};

pub(super) type Lie = (&'static str, &'static str, &'static str, u64, fn(&mut Vec<Value>));

/// Stories in which a rule was broken, signed as if nothing were: the rule, and where.
pub(super) fn lies() -> Vec<Lie> {
    vec![
        (
            "a decision after the deadline",
            "Silence had already meant no.",
            "decision_late",
            5,
            |s| change(s, APPROVED, "/payload/record/decision/decided_at_millis", json!(3_000)),
        ),
        (
            "a decision before the question",
            "Nobody can answer what was not asked.",
            "decision_late",
            5,
            |s| change(s, APPROVED, "/payload/record/decision/decided_at_millis", json!(1_999)),
        ),
        (
            "a decision by the requester",
            "Whoever asks does not decide.",
            "decision_own_request",
            5,
            |s| {
                change(
                    s,
                    APPROVED,
                    "/payload/record/decision/actor_ref",
                    party("external_runtime", "agent"),
                )
            },
        ),
        (
            "a decision by the requester under another kind",
            "The name decides, not the label.",
            "decision_own_request",
            5,
            |s| change(s, APPROVED, "/payload/record/decision/actor_ref", party("user", "agent")),
        ),
        ("a decision by a tool", "A tool is nobody who decides.", "decision_not_allowed", 5, |s| {
            change(s, APPROVED, "/payload/record/decision/actor_ref", party("tool", "tool.other"))
        }),
        (
            "an answer that was not offered",
            "The request names the answers that count.",
            "decision_not_allowed",
            5,
            |s| {
                change(s, REQUESTED, "/payload/record/request/allowed_decisions", json!(["Denied"]))
            },
        ),
        (
            "a decision by one person twice",
            "Two votes of one person are one.",
            "decision_repeated",
            6,
            |s| {
                let again = approved("approval.1", "call.1", 2_400, "grace", None);
                s.insert(CLOSED, with(again, "/record_id", json!("again")));
            },
        ),
        ("a decision by two people", "A request is decided once.", "decision_repeated", 6, |s| {
            let again = approved("approval.1", "call.1", 2_400, "ada", None);
            s.insert(CLOSED, with(again, "/record_id", json!("again")));
        }),
        (
            "a decision for another fingerprint",
            "It is about another call than was asked.",
            "fingerprint_mismatch",
            5,
            |s| {
                change(s, APPROVED, "/payload/record/decision/fingerprint", json!(digest("call.9")))
            },
        ),
        (
            "a decision about another rendering",
            "What was shown is not what was asked.",
            "rendering_mismatch",
            5,
            |s| {
                change(
                    s,
                    APPROVED,
                    "/payload/record/decision/rendering_digest",
                    json!(digest("other")),
                )
            },
        ),
        (
            "a decision about a question nobody saw",
            "It was put to nobody.",
            "decision_not_asked",
            4,
            |s| {
                s.remove(DISPATCHED);
                change(s, APPROVED - 1, "/timestamp_millis", json!(2_500));
            },
        ),
        (
            "a decision that nobody asked for",
            "The request is missing.",
            "request_missing",
            3,
            |s| {
                s.remove(REQUESTED);
            },
        ),
        ("a request twice", "An id asks once.", "request_repeated", 4, |s| {
            let again =
                with(requested("approval.1", "call.1", 2_000), "/record_id", json!("again"));
            s.insert(DISPATCHED, again);
        }),
        (
            "an effect of another fingerprint",
            "Another call ran than was approved.",
            "fingerprint_mismatch",
            7,
            |s| change(s, INTENT, "/payload/fingerprint", json!(digest("call.9"))),
        ),
        (
            "an effect without its approval named",
            "The call had asked, and ran without.",
            "intent_without_decision",
            7,
            |s| change(s, INTENT, "/related_refs", json!([])),
        ),
        (
            "an effect with an approval that never was",
            "The approval it names is made up.",
            "intent_without_decision",
            7,
            |s| {
                change(
                    s,
                    INTENT,
                    "/related_refs",
                    json!([entity("approval_request", "approval.9")]),
                )
            },
        ),
        (
            "an effect before its decision",
            "The intent stands before the answer.",
            "intent_without_decision",
            5,
            |s| {
                let intent = s.remove(INTENT);
                s.insert(APPROVED, intent);
            },
        ),
        ("an effect after a denial", "The answer was no.", "intent_without_decision", 7, |s| {
            let denied = json!({
                "decision": "denied", "reason_code": "approval.denied",
                "actor_ref": party("user", "grace"), "decided_at_millis": 2_500,
                "fingerprint": digest("call.1"), "rendering_digest": digest("shown"),
            });
            change(s, APPROVED, "/payload/record/decision", denied);
            change(s, CLOSED, "/payload/record/lifecycle_status", json!("denied"));
        }),
        (
            "an effect between a denial and its closing",
            "The answer was no.",
            "intent_without_decision",
            6,
            |s| {
                let denied = json!({
                    "decision": "denied", "reason_code": "approval.denied",
                    "actor_ref": party("user", "grace"), "decided_at_millis": 2_500,
                    "fingerprint": digest("call.1"), "rendering_digest": digest("shown"),
                });
                change(s, APPROVED, "/payload/record/decision", denied);
                change(s, CLOSED, "/payload/record/lifecycle_status", json!("denied"));
                s.swap(CLOSED, INTENT);
            },
        ),
        (
            "an outcome against the decision",
            "The answer was yes, and it is told as a no.",
            "outcome_mismatch",
            6,
            |s| change(s, CLOSED, "/payload/record/lifecycle_status", json!("denied")),
        ),
        ("an approval used twice", "One approval, one effect.", "approval_reused", 9, |s| {
            let again = with(
                intent("call.9", 2_800, Some("approval.1")),
                "/payload/fingerprint",
                json!(digest("call.1")),
            );
            s.insert(RESULT + 1, again);
            s.insert(RESULT + 2, result("call.9", 2_900, "completed"));
        }),
        (
            "an approval of another call",
            "It was asked for another one.",
            "approval_of_other_call",
            7,
            |s| {
                let other = with(
                    intent("call.9", 2_600, Some("approval.1")),
                    "/payload/fingerprint",
                    json!(digest("call.1")),
                );
                if let Some(intent) = s.get_mut(INTENT) {
                    *intent = other;
                }
                if let Some(end) = s.get_mut(RESULT) {
                    *end = result("call.9", 2_700, "completed");
                }
            },
        ),
        (
            "an approval that was taken back",
            "It did not count any more.",
            "approval_revoked",
            8,
            |s| {
                let back =
                    json!({ "request_id": "approval.1", "reason_code": "approval.grant_revoked" });
                s.insert(INTENT, approval("approval.1", "revoked", 2_550, "denied", back));
                change(s, INTENT + 1, "/timestamp_millis", json!(9_000));
            },
        ),
        ("a grant used too often", "It covered one later call.", "grant_exceeded", 15, |s| {
            change(s, FIRST_USE, "/payload/grant_use", json!(2))
        }),
        (
            "a use of a grant counted twice",
            "The same use released two calls.",
            "approval_reused",
            17,
            |s| {
                let again = with(
                    intent("call.9", 4_200, Some("approval.2")),
                    "/payload/grant_use",
                    json!(1),
                );
                s.insert(FIRST_USE + 2, again);
                s.insert(FIRST_USE + 3, result("call.9", 4_300, "completed"));
            },
        ),
        ("a grant after its time", "It had expired.", "grant_exceeded", 15, |s| {
            change(s, FIRST_USE, "/timestamp_millis", json!(70_000))
        }),
        ("a grant for another tool", "It named the tool.", "grant_exceeded", 15, |s| {
            change(s, FIRST_USE, "/payload/canonical_tool_name", json!("wipe"))
        }),
        (
            "a grant under another manifest",
            "The tool is not what it was.",
            "grant_exceeded",
            15,
            |s| {
                change(s, FIRST_USE, "/payload/sidecar_refs/0/content_hash", json!(digest("other")))
            },
        ),
        ("a grant used by another agent", "It named the agent.", "grant_exceeded", 15, |s| {
            change(s, FIRST_USE, "/agent_id", json!("other"))
        }),
        (
            "an approval for once used as a grant",
            "It covered nothing later.",
            "approval_reused",
            15,
            |s| change(s, GRANTED, "/payload/record/decision/grant", Value::Null),
        ),
        ("an effect without an intent", "Nobody announced it.", "effect_without_intent", 7, |s| {
            s.remove(INTENT);
        }),
        (
            "a result before its intent",
            "The announcement came after.",
            "effect_without_intent",
            7,
            |s| s.swap(INTENT, RESULT),
        ),
        ("two effects for a call", "A call has at most one.", "effect_repeated", 9, |s| {
            let again = with(
                intent("call.1", 2_800, None),
                "/payload/effect_intent/effect_id",
                json!("effect.again"),
            );
            s.insert(RESULT + 1, with(again, "/record_id", json!("again")));
        }),
        (
            "an effect announced twice",
            "The same effect, of another call.",
            "effect_repeated",
            9,
            |s| {
                let again = with(
                    intent("call.9", 2_800, None),
                    "/payload/effect_intent/effect_id",
                    json!("effect.call.1"),
                );
                s.insert(RESULT + 1, again);
            },
        ),
        ("a result told twice", "An effect ends once.", "result_repeated", 9, |s| {
            s.insert(
                RESULT + 1,
                with(result("call.1", 2_800, "failed"), "/record_id", json!("again")),
            )
        }),
        (
            "a call refused that was under way",
            "It was announced, and told as if it had not begun.",
            "denied_after_intent",
            8,
            |s| {
                if let Some(end) = s.get_mut(RESULT) {
                    *end = result("call.1", 2_700, "denied_before_execution");
                }
            },
        ),
        (
            "an unknown outcome that no record lists",
            "A restart found it, and said nothing.",
            "outcome_not_listed",
            17,
            |s| change(s, LISTED, "/payload/unsafe_pending/0/effect_id", json!("effect.other")),
        ),
        (
            "a hook that nobody registered",
            "Its digest is nowhere.",
            "hook_not_registered",
            2,
            |s| change(s, INVOKED, "/payload/hook_id", json!("hook.2")),
        ),
        (
            "a record that says another place",
            "Its number is not its place.",
            "record_missing",
            3,
            |s| {
                let swapped = s.remove(REQUESTED);
                s.insert(
                    REQUESTED,
                    with(swapped, "/payload/record/request/turn_id", json!("misfiled")),
                );
            },
        ),
        (
            "a record that is none",
            "Nothing can be said of what it means.",
            "record_unreadable",
            7,
            |s| change(s, INTENT, "/payload", json!({ "type": "tool" })),
        ),
    ]
}
