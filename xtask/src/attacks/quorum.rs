//! Approvals that take several people, signed by the key's holder whether they were given or not.

use super::story::{APPROVED, REQUESTED, bundle, change, digest, stored, story};
use super::{case, key};
use crate::Outcome;
use countersign_audit::key::Signer as _;
use serde_json::{Value, json};

/// An approval of the call at hand.
pub(super) fn vote(by: &str, groups: &[&str]) -> Value {
    json!({
        "decision": "approve", "reason": null, "groups": groups, "fingerprint": digest("call.1"),
        "approver": { "surface": "rest", "id": by, "display": by }, "at": "1970-01-01T00:00:02Z",
    })
}

pub(super) fn and(mut vote: Value, field: &str, value: Value) -> Value {
    if let Some(vote) = vote.as_object_mut() {
        vote.insert(field.to_owned(), value);
    }
    vote
}

type Answers = (&'static str, &'static str, bool, Value, Vec<Value>);

fn answers() -> Vec<Answers> {
    let two = json!({ "factors": [{ "group": "ops", "count": 2 }], "exclude": ["owner"] });
    let each = json!({ "factors": [
        { "group": "ops", "count": 1 }, { "group": "security", "count": 1 },
    ] });
    // 2,500 is half a second after the question.
    let later = |after_ms: u64| {
        json!({
            "factors": [{ "group": "ops", "count": 2 }],
            "escalate": [{ "after_ms": after_ms, "factors": [{ "group": "boss", "count": 1 }] }],
        })
    };
    let (ada, grace) = (vote("ada", &["ops"]), vote("grace", &["ops"]));
    let with = |second: Value| vec![ada.clone(), second];
    vec![
        (
            "two of two",
            "So that the others are told from it.",
            true,
            two.clone(),
            with(grace.clone()),
        ),
        ("nobody of two", "The decision names nobody.", false, two.clone(), Vec::new()),
        ("one of two", "One is missing.", false, two.clone(), vec![grace.clone()]),
        (
            "one person twice",
            "Two votes of one person are one.",
            false,
            two.clone(),
            with(ada.clone()),
        ),
        (
            "one person for herself and for another",
            "Whoever answers for somebody and for herself is one.",
            false,
            two.clone(),
            with(and(vote("grace", &["ops"]), "on_behalf_of", json!("ada"))),
        ),
        (
            "a vote about another call",
            "It is about something else.",
            false,
            two.clone(),
            with(and(grace.clone(), "fingerprint", json!(digest("call.9")))),
        ),
        (
            "a vote about no call",
            "It says not what it is about.",
            false,
            two.clone(),
            with(and(grace.clone(), "fingerprint", Value::Null)),
        ),
        (
            "a denial counted",
            "A no is no yes.",
            false,
            two.clone(),
            with(and(grace.clone(), "decision", json!("deny"))),
        ),
        (
            "a vote of another group",
            "The request asks for others.",
            false,
            two.clone(),
            with(vote("grace", &["sales"])),
        ),
        (
            "a vote of the requester",
            "Whoever asks does not decide.",
            false,
            two.clone(),
            with(vote("agent", &["ops"])),
        ),
        (
            "a vote for the requester",
            "Nor does anybody in the requester's name.",
            false,
            two.clone(),
            with(and(grace.clone(), "on_behalf_of", json!("agent"))),
        ),
        (
            "a vote of the excluded",
            "The request names who cannot answer.",
            false,
            two.clone(),
            with(vote("owner", &["ops"])),
        ),
        (
            "a vote for the excluded",
            "Nor can anybody in their name.",
            false,
            two,
            with(and(grace.clone(), "on_behalf_of", json!("owner"))),
        ),
        (
            "one person in two seats",
            "She is in both groups, and is one.",
            false,
            each.clone(),
            vec![vote("grace", &["ops", "security"])],
        ),
        (
            "two people, and the first could sit in both seats",
            "Whoever can sit elsewhere makes room.",
            true,
            each,
            vec![vote("ada", &["ops", "security"]), vote("grace", &["ops"])],
        ),
        (
            "others before their time",
            "Until then it takes two of the first.",
            false,
            later(501),
            vec![vote("grace", &["boss"])],
        ),
        (
            "others in their time",
            "From then on one of them is enough.",
            true,
            later(500),
            vec![vote("grace", &["boss"])],
        ),
    ]
}

/// A bundle of a story, and the rule that it breaks, with the place, if it does.
pub(super) fn story_case(
    out: &mut Vec<u8>,
    (name, why): (&str, &str),
    told: &[Value],
    broken: Option<(&str, u64)>,
) -> Outcome {
    let own = key(31)?;
    let verdict = if broken.is_some() { "broken" } else { "whole" };
    let (rule, seq) = broken.unzip();
    case(
        out,
        &json!({
            "case": name, "why": why, "input": bundle(&stored(told), &own)?,
            "key": own.public().to_string(),
            "expect": { "verdict": verdict, "rule": rule, "seq": seq },
        }),
    )
}

/// Bundles of approvals that take several people.
pub(crate) fn quorums() -> Outcome<Vec<u8>> {
    let mut out = Vec::new();
    for (name, why, met, policy, votes) in answers() {
        let mut told = story();
        change(&mut told, REQUESTED, "/payload/record/request/hold_policy", policy);
        if !votes.is_empty() {
            change(&mut told, APPROVED, "/payload/record/votes", json!(votes));
        }
        told.truncate(8);
        let broken = (!met).then_some(("quorum_not_met", 5));
        story_case(&mut out, (name, why), &told, broken)?;
    }
    Ok(out)
}
