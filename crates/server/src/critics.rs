//! Critics' verdicts: a chain `countersign-1` whose entries are records of the journal.
//!
//! The texts that were judged and said are hashed here and go no further.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Json, Router};
use countersign_audit::critic::successor::{RecordError, Tail, key_id};
use countersign_audit::critic::{
    Assessment, CriticSigner, Identity, Timestamp, Verdict, text_hash,
};
use countersign_audit::receipt::Receipt;
use countersign_core::id::{RecordId, RefId, RunId, ToolCallId};
use countersign_core::journal::{JournalPayload, JournalRecord};
use countersign_core::refs::{CorrelationEntry, EntityKind, EntityRef, SourceKind, SourceRef};
use countersign_kernel::{Addition, Kernel, Run};
use countersign_ports::entropy::ordered_id;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::api::{Answer, object, require};
use crate::auth::{Caller, Principal, Role};
use crate::gateway::Gateway;
use crate::problem::Problem;

/// The `type` of the payload of such a record.
pub const CRITIC_VERDICT: &str = "critic_verdict";

/// The tool by which a critic records a verdict over MCP.
pub(crate) const TOOL: &str = "countersign_record_verdict";

/// The correlation key of a verdict about a call.
const JUDGED: &str = "judged_tool_call";

/// Most dimensions of one verdict, and the bytes of a name.
const DIMENSIONS_MAX: usize = 64;
const NAME_MAX: usize = 128;

/// The chain of verdicts, and the key that signs it.
pub struct Critics {
    tail: Tail,
    signer: CriticSigner,
    next: Option<CriticSigner>,
}

/// Why the chain of verdicts cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CriticsError {
    /// The newest verdict in the journal is none.
    #[error("the newest verdict in the journal cannot be understood: {0}")]
    Entry(String),
    /// The key is not the one in force.
    #[error("the chain of verdicts is signed by the key {expected}, and not by {found}")]
    OtherKey {
        /// The id of the key in force.
        expected: String,
        /// The id of the key there is.
        found: String,
    },
    /// The change of keys is not recorded.
    #[error("the change of the critics' key is not recorded: {0}")]
    NotRecorded(String),
}

impl Critics {
    /// A chain to go on behind `last`, the payload of the newest [`CRITIC_VERDICT`] record. With
    /// `next`, its first entry hands over to that key.
    ///
    /// # Errors
    /// When `last` has no entry, or neither key is the one in force.
    pub fn resume(
        chain_id: &str,
        last: Option<&Value>,
        signer: CriticSigner,
        next: Option<CriticSigner>,
    ) -> Result<Self, CriticsError> {
        let refused = |error: RecordError| CriticsError::Entry(error.to_string());
        let tail = match last {
            None => Tail::new(chain_id).map_err(refused)?,
            Some(payload) => {
                Tail::after(payload.get("entry").unwrap_or(&Value::Null)).map_err(refused)?
            }
        };
        let in_force = |signer: &CriticSigner| {
            tail.key_in_force().is_none_or(|key| *key == key_id(&signer.public()))
        };
        match next {
            // It was recorded, and then something came between.
            Some(next) if !tail.is_empty() && in_force(&next) => {
                Ok(Self { tail, signer: next, next: None })
            }
            next if in_force(&signer) => Ok(Self { tail, signer, next }),
            _ => {
                let expected = tail.key_in_force().unwrap_or_default().to_owned();
                Err(CriticsError::OtherKey { expected, found: key_id(&signer.public()) })
            }
        }
    }

    /// Records the change of keys, if there is one.
    pub(crate) async fn begin(
        mut self,
        kernel: &Kernel,
        run: &Run,
        now: u64,
    ) -> Result<Chain, CriticsError> {
        if let Some(next) = self.next.take() {
            let failed = |error: String| CriticsError::NotRecorded(error);
            let time = timestamp(now).ok_or_else(|| failed("the time is none".to_owned()))?;
            let entry = self.tail.rotate(&self.signer, &next, time);
            let entry = entry.map_err(|error| failed(error.to_string()))?;
            let source = source("countersign", None).map_err(failed)?;
            let told = addition(&entry, source, run.id(), None).map_err(failed)?;
            let recorded = kernel.run_addition(run, told).await;
            recorded.map_err(|error| failed(Problem::internal(&error).error))?;
            self.tail = Tail::after(&entry).map_err(|error| failed(error.to_string()))?;
            self.signer = next;
        }
        Ok(Chain(Arc::new(Mutex::new((self.tail, self.signer)))))
    }
}

/// The chain as it goes on. One entry at a time: each holds the hash of the one before.
pub(crate) struct Chain(Arc<Mutex<(Tail, CriticSigner)>>);

pub(crate) fn routes() -> Router<Arc<Gateway>> {
    Router::new().route("/verdicts", post(post_verdict))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Judging {
    director_output: Option<String>,
    director_output_hash: Option<String>,
    critic_assessment: Option<String>,
    critic_assessment_hash: Option<String>,
    verdict: Verdict,
    score: f64,
    #[serde(default)]
    dimension_scores: BTreeMap<String, f64>,
    #[serde(default)]
    iteration: u64,
    /// The model that judged, by the critic's own word. Absent: the principal itself did.
    model_id: Option<String>,
    /// The call whose output was judged.
    call_id: Option<ToolCallId>,
}

/// A verdict that is on record.
#[derive(Serialize)]
pub(crate) struct Judged {
    entry: Value,
    receipt: Option<Receipt>,
}

/// What the tool takes, for MCP clients.
pub(crate) fn schema() -> Value {
    let hash =
        |what: &str| json!({ "type": "string", "pattern": "^[0-9a-f]{64}$", "description": what });
    let score = json!({ "type": "number", "minimum": 0, "maximum": 1 });
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["verdict", "score"],
        "properties": {
            "director_output": { "type": "string", "description": "What was judged. Only its hash is recorded; give this or director_output_hash." },
            "director_output_hash": hash("SHA-256 of what was judged, 64 lower-case hex digits."),
            "critic_assessment": { "type": "string", "description": "What the critic says of it. Only its hash is recorded; give this or critic_assessment_hash." },
            "critic_assessment_hash": hash("SHA-256 of what the critic says, 64 lower-case hex digits."),
            "verdict": { "enum": ["approved", "rejected", "needs_revision"] },
            "score": score,
            "dimension_scores": { "type": "object", "additionalProperties": score },
            "iteration": { "type": "integer", "minimum": 0, "description": "Which round of revision this is." },
            "model_id": { "type": "string", "description": "The model that judged." },
            "call_id": { "type": "string", "description": "The call whose output was judged." },
        },
    })
}

async fn post_verdict(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<Judged> {
    require(&gateway, &caller, &[Role::Critic], "recording a verdict").await?;
    record(&gateway, &caller.principal, object(&body)?).await.map(Json)
}

fn bad(error: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", error)
}

/// The hash of a text that was given, or the hash that was.
fn hashed(name: &str, text: Option<String>, hash: Option<String>) -> Result<String, Problem> {
    match (text, hash) {
        (Some(text), None) => Ok(text_hash(text.as_bytes())),
        (None, Some(hash)) => {
            let good = hash.len() == 64
                && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            good.then_some(hash)
                .ok_or_else(|| bad(format!("`{name}_hash` has 64 lower-case hexadecimal digits")))
        }
        _ => Err(bad(format!("give `{name}` or `{name}_hash`, and not both"))),
    }
}

fn timestamp(now: u64) -> Option<Timestamp> {
    let (seconds, millis) = (i64::try_from(now / 1000).ok()?, u32::try_from(now % 1000).ok()?);
    Timestamp::from_unix(seconds, millis * 1_000_000)
}

fn source(id: &str, display: Option<&str>) -> Result<SourceRef, String> {
    let kind = if display.is_some() { SourceKind::User } else { SourceKind::Host };
    let mut source = SourceRef::new(kind, RefId::new(id).map_err(|error| error.to_string())?);
    source.redacted_summary = display.map(str::to_owned);
    Ok(source)
}

fn addition(
    entry: &Value,
    source: SourceRef,
    run: &RunId,
    call: Option<&ToolCallId>,
) -> Result<Addition, String> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    // The hash covers all that is in it.
    let id = format!("journal.record.critic.{}", text("chain_hash"));
    let mut payload = Map::new();
    payload.insert("type".to_owned(), CRITIC_VERDICT.into());
    if let Some(call) = call {
        payload.insert("tool_call_id".to_owned(), call.to_string().into());
    }
    payload.insert("entry".to_owned(), entry.clone());
    let payload = serde_json::to_string(&payload).map_err(|error| failed(&error))?;
    let payload: JournalPayload = serde_json::from_str(&payload).map_err(|error| failed(&error))?;
    let judged =
        |call: &ToolCallId| CorrelationEntry { key: JUDGED.to_owned(), value: call.to_string() };
    Ok(Addition {
        record_id: RecordId::new(id).map_err(|error| failed(&error))?,
        event: match text("kind") {
            "key_rotation" => "critic_key_rotated",
            _ => "critic_verdict_recorded",
        },
        source,
        subject: match call {
            Some(call) => EntityRef::new(EntityKind::ToolCall, RefId::from(call)),
            None => EntityRef::new(EntityKind::Run, RefId::from(run)),
        },
        correlation_keys: call.map(judged).into_iter().collect(),
        payload,
    })
}

/// Signs a verdict, has it recorded, and says so.
pub(crate) async fn record(
    gateway: &Arc<Gateway>,
    critic: &Principal,
    judging: Judging,
) -> Result<Judged, Problem> {
    let Some(chain) = &gateway.critics else {
        let error = "this gateway keeps no chain of verdicts";
        return Err(Problem::new(StatusCode::NOT_FOUND, "no_critics", error));
    };
    if gateway.stopping.is_cancelled() {
        let error = "the gateway is stopping; try again";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", error));
    }
    if let Some(call) = &judging.call_id {
        not_own(gateway, critic, call).await?;
    }
    let names = judging.dimension_scores.keys();
    if names.len() > DIMENSIONS_MAX || names.clone().any(|name| name.len() > NAME_MAX) {
        let error = format!("at most {DIMENSIONS_MAX} dimensions, with names of {NAME_MAX} bytes");
        return Err(bad(error));
    }
    if judging.model_id.as_ref().is_some_and(|name| name.is_empty() || name.len() > NAME_MAX) {
        return Err(bad(format!("`model_id` has 1 to {NAME_MAX} bytes")));
    }
    let now = gateway.auth.now();
    let id = ordered_id(&*gateway.entropy, now).map_err(|error| Problem::internal(&error))?;
    let assessment = Assessment {
        entry_id: format!("verdict.{id}"),
        director_output_hash: hashed(
            "director_output",
            judging.director_output,
            judging.director_output_hash,
        )?,
        critic_assessment_hash: hashed(
            "critic_assessment",
            judging.critic_assessment,
            judging.critic_assessment_hash,
        )?,
        verdict: judging.verdict,
        dimension_scores: judging.dimension_scores,
        score: judging.score,
        critic_identity: match judging.model_id {
            Some(model_id) => Identity::Llm { model_id },
            None => Identity::Human { user_id: critic.id.clone(), name: critic.display.clone() },
        },
        timestamp: timestamp(now).ok_or_else(|| bad("the gateway's clock shows no time"))?,
        iteration: judging.iteration,
    };
    let source = source(&critic.id, Some(&critic.display)).map_err(bad)?;
    let (chain, gateway) = (Arc::clone(&chain.0), Arc::clone(gateway));
    let calls = gateway.calls.clone();
    // INVARIANT: a task of its own. A client that hangs up must not leave a record in the journal
    // of which the chain knows nothing: the next entry would take its place.
    let recorded = calls.spawn(async move {
        let mut chain = chain.lock_owned().await;
        let (tail, signer) = &*chain;
        let entry = tail.assess(assessment, signer).map_err(|error| match &error {
            RecordError::Score { .. } | RecordError::Iteration(_) => {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_allowed", error.to_string())
            }
            _ => Problem::internal(&error),
        })?;
        let run = &gateway.own_run;
        let told = addition(&entry, source, run.id(), judging.call_id.as_ref()).map_err(bad)?;
        let next = Tail::after(&entry).map_err(|error| Problem::internal(&error))?;
        let receipt = gateway.kernel.run_addition(run, told).await.map_err(|error| Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "not_recorded",
            ..Problem::internal(&error)
        })?;
        chain.0 = next;
        Ok(Judged { entry, receipt })
    });
    recorded.await.map_err(|error| Problem::internal(&error))?
}

/// Nobody judges what they did themselves.
async fn not_own(
    gateway: &Arc<Gateway>,
    critic: &Principal,
    call: &ToolCallId,
) -> Result<(), Problem> {
    let read = gateway.kernel.journal().read_call(call.as_str()).await;
    let entries = read.map_err(|error| Problem::internal(&error))?;
    let Some(first) = entries.first() else {
        let error = "there is no call with this id";
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", error));
    };
    let record: JournalRecord =
        countersign_core::json::read(&first.bytes).map_err(|error| Problem::internal(&error))?;
    if record.agent_id.as_str() == critic.id {
        gateway.refused(&format!("judging its own call by {}", critic.id)).await;
        let error = "nobody judges their own call";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", error));
    }
    Ok(())
}
