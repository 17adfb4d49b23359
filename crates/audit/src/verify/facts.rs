//! What the rules need to know of a record, read from its bytes without the rest.

use std::borrow::Cow;

use countersign_core::approval::{
    ApprovalDecision, ApprovalEdit, ApprovalGrant, ApprovalLifecycleStatus, ApprovalRecord,
};
use countersign_core::digest::Digest;
use countersign_core::hold::HoldRecord;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::strict::Object;

/// The `type` of the record by which a log changes keys.
pub const KEY_ROTATION: &str = "log_key_rotation";

/// A record, as far as the rules look at it.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) seq: u64,
    pub(super) record_id: String,
    pub(super) agent: String,
    pub(super) at: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Tool(Box<Tool>),
    Approval(Box<ApprovalRecord>),
    /// An approver changed the arguments of the call of this request.
    Edited(String, Box<ApprovalEdit>),
    /// An effect outside a tool call is announced.
    Intent(String),
    /// It has ended.
    Result(String),
    Hook {
        id: String,
        registered: bool,
    },
    /// Effects whose outcome nobody knows.
    Listed(Vec<String>),
    /// The log goes over to this key.
    NewKey(String),
    Other,
}

#[derive(Debug)]
pub(super) struct Tool {
    pub(super) call: String,
    pub(super) name: String,
    /// The effect announced.
    pub(super) intent: Option<String>,
    /// The effect that ended, and how.
    pub(super) result: Option<(String, String)>,
    /// Whether the outcome is being cleared up elsewhere.
    pub(super) reconciled: bool,
    pub(super) fingerprint: Option<Digest>,
    pub(super) grant_use: Option<u64>,
    pub(super) approval: Option<String>,
    pub(super) needs_approval: bool,
    pub(super) manifest: Option<String>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "P: Deserialize<'de>"))]
struct Line<'a, P> {
    journal_seq: u64,
    #[serde(borrow)]
    record_id: Cow<'a, str>,
    #[serde(borrow)]
    agent_id: Cow<'a, str>,
    timestamp_millis: u64,
    #[serde(default, borrow)]
    related_refs: Vec<Object<Reference<'a>>>,
    payload: Object<P>,
}

/// A payload that the rules may not know.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

/// The types of payloads that the rules look into. Others may have fields of these names that are
/// something else.
const LOOKED_INTO: &[&str] = &[
    "approval",
    "effect_intent",
    "effect_result",
    "hold",
    "hook",
    KEY_ROTATION,
    "recovery",
    "tool",
];

#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

/// The fields of all payloads side by side: a choice by `type` would read everything twice.
#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    // Tool.
    #[serde(default, borrow)]
    tool_call_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    canonical_tool_name: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    effect_intent: Option<Object<Effect<'a>>>,
    #[serde(default, borrow)]
    effect_result: Option<Object<Effect<'a>>>,
    #[serde(default)]
    fingerprint: Option<Digest>,
    #[serde(default)]
    grant_use: Option<u64>,
    #[serde(default, borrow)]
    policy_refs: Vec<Object<Named<'a>>>,
    #[serde(default, borrow)]
    sidecar_refs: Vec<Object<Sidecar<'a>>>,
    // Approval.
    #[serde(default, borrow)]
    record_type: Option<Cow<'a, str>>,
    // Effects of their own.
    #[serde(default, borrow)]
    effect_id: Option<Cow<'a, str>>,
    // Hook.
    #[serde(default, borrow)]
    hook_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    payload: Option<Object<HookPart<'a>>>,
    // Recovery.
    #[serde(default, borrow)]
    unsafe_pending: Vec<Object<Effect<'a>>>,
    // A change of keys.
    #[serde(default, borrow)]
    new_key: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Effect<'a> {
    #[serde(borrow)]
    effect_id: Cow<'a, str>,
    #[serde(default, borrow)]
    terminal_status: Option<Cow<'a, str>>,
    #[serde(default)]
    reconciliation_ref: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Sidecar<'a> {
    #[serde(default, borrow)]
    content_hash: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct HookPart<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct ApprovalLine<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl Facts {
    /// Reads a record.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let text = std::str::from_utf8(bytes).map_err(serde::de::Error::custom)?;
        match serde_json::from_str::<Object<Line<'_, Payload<'_>>>>(text) {
            Ok(Object(line)) => What::of(&line, text).map(|what| Self::of(line, what)),
            Err(error) => match serde_json::from_str::<Object<Line<'_, Kind<'_>>>>(text) {
                Ok(Object(line)) if !LOOKED_INTO.contains(&&*line.payload.0.kind) => {
                    Ok(Self::of(line, What::Other))
                }
                _ => Err(error),
            },
        }
    }

    fn of<P>(line: Line<'_, P>, what: What) -> Self {
        Self {
            seq: line.journal_seq,
            record_id: line.record_id.into_owned(),
            agent: line.agent_id.into_owned(),
            at: line.timestamp_millis,
            what,
        }
    }
}

fn missing(field: &'static str) -> serde_json::Error {
    serde::de::Error::missing_field(field)
}

fn owned(text: &Option<Cow<'_, str>>, field: &'static str) -> Result<String, serde_json::Error> {
    text.as_deref().map(str::to_owned).ok_or_else(|| missing(field))
}

impl What {
    fn of(line: &Line<'_, Payload<'_>>, text: &str) -> Result<Self, serde_json::Error> {
        let payload = &line.payload.0;
        Ok(match payload.kind.as_ref() {
            "tool" => Self::Tool(Box::new(Tool::of(line)?)),
            "approval" if payload.record_type.is_some() => {
                let line: ApprovalLine<'_> = serde_json::from_str(text)?;
                Self::Approval(Box::new(serde_json::from_str(line.payload.get())?))
            }
            "approval" => return Err(missing("record_type")),
            "hold" if payload.record_type.as_deref() == Some("edited") => {
                let line: ApprovalLine<'_> = serde_json::from_str(text)?;
                match serde_json::from_str(line.payload.get())? {
                    HoldRecord::Edited { request_id, edit } => {
                        Self::Edited(request_id.to_string(), edit)
                    }
                    _ => Self::Other,
                }
            }
            "effect_intent" => Self::Intent(owned(&payload.effect_id, "effect_id")?),
            "effect_result" => Self::Result(owned(&payload.effect_id, "effect_id")?),
            "hook" => Self::Hook {
                id: owned(&payload.hook_id, "hook_id")?,
                registered: payload
                    .payload
                    .as_ref()
                    .is_some_and(|part| part.0.kind == "registered"),
            },
            "recovery" => Self::Listed(
                payload
                    .unsafe_pending
                    .iter()
                    .map(|effect| effect.0.effect_id.to_string())
                    .collect(),
            ),
            KEY_ROTATION => Self::NewKey(owned(&payload.new_key, "new_key")?),
            _ => Self::Other,
        })
    }
}

impl Tool {
    fn of(line: &Line<'_, Payload<'_>>) -> Result<Self, serde_json::Error> {
        let payload = &line.payload.0;
        let approval =
            line.related_refs.iter().find(|related| related.0.kind == "approval_request");
        let end = payload.effect_result.as_ref().map(|end| &end.0);
        Ok(Self {
            call: owned(&payload.tool_call_id, "tool_call_id")?,
            name: owned(&payload.canonical_tool_name, "canonical_tool_name")?,
            intent: match end {
                None => payload.effect_intent.as_ref().map(|effect| effect.0.effect_id.to_string()),
                Some(_) => None,
            },
            result: end.map(|end| {
                let status = end.terminal_status.as_deref().unwrap_or_default();
                (end.effect_id.to_string(), status.to_owned())
            }),
            reconciled: end.is_some_and(|end| end.reconciliation_ref.is_some()),
            fingerprint: payload.fingerprint,
            grant_use: payload.grant_use,
            approval: approval.map(|related| related.0.id.to_string()),
            needs_approval: payload
                .policy_refs
                .iter()
                .any(|policy| policy.0.id == "policy.approval"),
            manifest: payload
                .sidecar_refs
                .iter()
                .find_map(|sidecar| sidecar.0.content_hash.as_deref().map(str::to_owned)),
        })
    }
}

/// What a decision says, whichever it is.
pub(super) struct Decided<'a> {
    pub(super) releases: bool,
    pub(super) at: Option<u64>,
    pub(super) fingerprint: Option<Digest>,
    pub(super) rendering: Option<Digest>,
    pub(super) grant: Option<&'a ApprovalGrant>,
}

impl<'a> Decided<'a> {
    pub(super) fn of(decision: &'a ApprovalDecision) -> Self {
        match decision {
            ApprovalDecision::Approved {
                decided_at_millis, fingerprint, rendering_digest, ..
            } => Self {
                releases: true,
                at: *decided_at_millis,
                fingerprint: *fingerprint,
                rendering: *rendering_digest,
                grant: None,
            },
            ApprovalDecision::ApprovedForSession {
                decided_at_millis,
                fingerprint,
                rendering_digest,
                grant,
                ..
            } => Self {
                releases: true,
                at: *decided_at_millis,
                fingerprint: *fingerprint,
                rendering: *rendering_digest,
                grant: grant.as_deref(),
            },
            ApprovalDecision::Denied {
                decided_at_millis, fingerprint, rendering_digest, ..
            } => Self {
                releases: false,
                at: *decided_at_millis,
                fingerprint: *fingerprint,
                rendering: *rendering_digest,
                grant: None,
            },
        }
    }
}

/// Whether asking ended in a release.
pub(super) fn released(status: ApprovalLifecycleStatus) -> bool {
    status.terminal().is_some_and(|status| status.releases_tool())
}
