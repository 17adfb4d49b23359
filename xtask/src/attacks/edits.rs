//! Edited calls, signed by the key's holder whether an approver saw the edit or not.

use super::quorum::{and, story_case, vote};
use super::story::{APPROVED, REQUESTED, approved, change, digest, record, story};
use crate::Outcome;
use serde_json::{Value, json};

/// Where things stand in the story with an edit, from 0.
pub(super) const EDITED: usize = APPROVED;
const DECIDED: usize = APPROVED + 1;
const BEGUN: usize = APPROVED + 3;

/// What an approver made of the call at hand.
fn edit() -> Value {
    json!({
        "by": { "surface": "web", "id": "grace", "display": "Grace" },
        "asked_fingerprint": digest("call.1"),
        "asked_rendering_digest": digest("shown"),
        "fingerprint": digest("edited"),
        "rendering_digest": digest("shown, edited"),
        "args_ref": digest("other arguments"),
        "redacted_args_summary": "make less",
    })
}

fn edited(id: &str, edit: Value) -> Value {
    let content = json!({ "request_id": id, "edit": edit });
    let payload = json!({ "type": "hold", "record_type": "edited", "record": content });
    let id = format!("journal.record.approval.{id}.edit");
    record(&id, 2_400, "approval", &[], payload)
}

/// An edit, the decision that names it, and the effect of the edited call.
pub(super) fn told() -> Vec<Value> {
    let mut told = story();
    told.truncate(8);
    let decision = "/payload/record/decision";
    change(&mut told, APPROVED, "/payload/record/edit", edit());
    change(&mut told, APPROVED, &format!("{decision}/fingerprint"), json!(digest("edited")));
    let shown = json!(digest("shown, edited"));
    change(&mut told, APPROVED, &format!("{decision}/rendering_digest"), shown);
    told.insert(EDITED, edited("approval.1", edit()));
    change(&mut told, BEGUN, "/payload/fingerprint", json!(digest("edited")));
    told
}

/// The same change in the edit and in the decision that names it.
pub(super) fn both(told: &mut [Value], field: &str, value: &Value) {
    change(told, EDITED, &format!("/payload/record/edit/{field}"), value.clone());
    change(told, DECIDED, &format!("/payload/record/edit/{field}"), value.clone());
}

type Edit = (&'static str, &'static str, Option<(&'static str, u64)>, fn(&mut Vec<Value>));

fn edits() -> Vec<Edit> {
    let fingerprint = Some(("fingerprint_mismatch", 6));
    vec![
        ("an edit that was shown", "So that the others are told from it.", None, |_| ()),
        (
            "a decision whose edit is not on record",
            "Nobody can tell what the approver was shown.",
            Some(("fingerprint_mismatch", 5)),
            |told| drop(told.remove(EDITED)),
        ),
        (
            "an edit that is on record only behind the decision",
            "What counts was on record before.",
            Some(("fingerprint_mismatch", 5)),
            |told| told.swap(EDITED, DECIDED),
        ),
        (
            "an edit that is on record for another request",
            "It changes nothing of this one.",
            fingerprint,
            |told| change(told, EDITED, "/payload/record/request_id", json!("approval.2")),
        ),
        (
            "an edit that refers to another call",
            "It says what it was made of, and that is not what was asked.",
            fingerprint,
            |told| both(told, "asked_fingerprint", &json!(digest("call.9"))),
        ),
        (
            "an edit that refers to no call",
            "It says not what it was made of.",
            fingerprint,
            |told| both(told, "asked_fingerprint", &Value::Null),
        ),
        (
            "an edit of what was shown otherwise",
            "The approver who was asked saw something else.",
            Some(("rendering_mismatch", 6)),
            |told| both(told, "asked_rendering_digest", &json!(digest("other"))),
        ),
        (
            "a decision with another edit than the one on record",
            "The arguments are others.",
            fingerprint,
            |told| {
                change(told, DECIDED, "/payload/record/edit/args_ref", json!(digest("others")));
            },
        ),
        (
            "a decision about the call as it was asked that names an edit",
            "It is about one of the two.",
            fingerprint,
            |told| {
                let path = "/payload/record/decision/fingerprint";
                change(told, DECIDED, path, json!(digest("call.1")));
            },
        ),
        (
            "a decision about what was shown before the edit",
            "The approver has not seen what is approved.",
            Some(("rendering_mismatch", 6)),
            |told| {
                let path = "/payload/record/decision/rendering_digest";
                change(told, DECIDED, path, json!(digest("shown")));
            },
        ),
        (
            "the effect of the call as it was asked, approved as edited",
            "What was approved is the edited call.",
            Some(("fingerprint_mismatch", 8)),
            |told| change(told, BEGUN, "/payload/fingerprint", json!(digest("call.1"))),
        ),
        (
            "the effect of an edited call, approved as it was asked",
            "The edit is on record, and nobody has approved it.",
            Some(("fingerprint_mismatch", 8)),
            |told| {
                if let Some(decision) = told.get_mut(DECIDED) {
                    *decision = approved("approval.1", "call.1", 2_500, "grace", None);
                }
            },
        ),
        (
            "an edit by the requester",
            "Whoever asks changes nothing of what is approved.",
            Some(("decision_own_request", 6)),
            |told| {
                let agent = json!({ "surface": "rest", "id": "agent", "display": "agent" });
                both(told, "by", &agent);
            },
        ),
        (
            "an edited call on answers about the call as it was asked",
            "Two answered, about something else.",
            Some(("quorum_not_met", 6)),
            |told| quorum(told, &["call.1", "edited"]),
        ),
        ("an edited call on answers about it", "Two have seen it as it is.", None, |told| {
            quorum(told, &["edited", "edited"])
        }),
    ]
}

/// It takes two, who answered about these calls.
fn quorum(told: &mut [Value], about: &[&str]) {
    let two = json!({ "factors": [{ "group": "ops", "count": 2 }] });
    change(told, REQUESTED, "/payload/record/request/hold_policy", two);
    let votes: Vec<_> = ["ada", "grace"]
        .iter()
        .zip(about)
        .map(|(by, about)| and(vote(by, &["ops"]), "fingerprint", json!(digest(about))))
        .collect();
    change(told, DECIDED, "/payload/record/votes", json!(votes));
}

/// Bundles of approvals of calls that an approver edited.
pub(crate) fn edited_calls() -> Outcome<Vec<u8>> {
    let mut out = Vec::new();
    for (name, why, broken, lie) in edits() {
        let mut told = told();
        lie(&mut told);
        story_case(&mut out, (name, why), &told, broken)?;
    }
    Ok(out)
}
