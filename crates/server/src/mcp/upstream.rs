//! Tools of upstream servers: how they are listed, and their results as they came.

use std::sync::Arc;

use countersign_kernel::{Governed, Kernel};
use countersign_manifest::{BackendKind, Envelope, EnvelopeStatus, Manifest};
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ErrorCode, JsonObject, Tool};
use serde_json::{Map, Value, json};

/// The tool as its upstream server describes it, with what holds here. `None` for one whose
/// description cannot be put in MCP's form.
pub(super) fn tool(kernel: &Kernel, manifest: &Manifest, text: String) -> Option<Tool> {
    let mut definition = manifest.upstream_definition()?.clone();
    if !text.is_empty() {
        definition.insert("description".to_owned(), text.into());
    }
    if may_wait(kernel, manifest)
        && let Some(schema) = definition.remove("outputSchema")
        && let Some(schema) = or_envelope(schema)
    {
        definition.insert("outputSchema".to_owned(), schema);
    }
    serde_json::from_value(Value::Object(definition)).ok()
}

/// Whether what a call is answered with may be that it waits.
fn may_wait(kernel: &Kernel, manifest: &Manifest) -> bool {
    kernel.policy().may_hold(manifest)
        || kernel.hooks().specs().any(|spec| spec.mutation_rights.first_change().is_some())
}

/// A schema of what the upstream answers, or of what the gateway says of a call that waits.
/// `None` where the two cannot stand in one document.
fn or_envelope(schema: Value) -> Option<Value> {
    if schema.to_string().contains("\"$ref\"") {
        return None;
    }
    Some(json!({ "type": "object", "anyOf": [schema, Envelope::output_schema()] }))
}

/// How the answers of an upstream server are passed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passing {
    /// Bytes of an answer.
    pub(super) max: usize,
    /// The listed output schema is the server's alone: what the gateway says itself has no
    /// structured content, for that would be held against it.
    pub(super) bare: bool,
}

/// `None` if a call of this tool has no answer of an upstream server for its result.
pub(super) fn passing(kernel: &Kernel, tool: &str, max: usize) -> Option<Passing> {
    let manifests = kernel.manifests();
    let tool = manifests.get(tool).filter(|tool| tool.backend() == BackendKind::Mcp)?;
    let described =
        tool.upstream_definition().is_some_and(|tool| tool.contains_key("outputSchema"));
    Some(Passing { max, bare: described && !may_wait(kernel, tool) })
}

/// The upstream's answer, unchanged but for what is added to `_meta`. `None` if there is none.
pub(super) fn answer(
    governed: &Governed,
    meta: &Map<String, Value>,
) -> Option<Result<CallToolResult, ErrorData>> {
    let Governed { envelope, denial: None, .. } = governed else { return None };
    if !matches!(envelope.status, EnvelopeStatus::Success | EnvelopeStatus::Error) {
        return None;
    }
    let results = envelope.results.as_object()?;
    if let Some(Value::Object(error)) = results.get("error") {
        let code = i32::try_from(error.get("code")?.as_i64()?).ok()?;
        let message = error.get("message")?.as_str()?.to_owned();
        return Some(Err(ErrorData::new(ErrorCode(code), message, error.get("data").cloned())));
    }
    if !results.contains_key("content") && !results.contains_key("structuredContent") {
        return None;
    }
    let mut given = results.clone();
    // The gateway's own word for a result that is an error.
    given.remove("error");
    let mut result: CallToolResult = serde_json::from_value(Value::Object(given)).ok()?;
    result.result_type = None;
    let mut all = result.meta.take().unwrap_or_default();
    all.0.extend(meta.clone());
    let about = Envelope { results: json!({}), ..envelope.clone() };
    all.0.insert("countersign/envelope".to_owned(), json!(about));
    result.meta = Some(all);
    Some(Ok(result))
}

/// The schema of the results of tools that a manifest describes; upstream servers answer as they
/// like.
pub(super) fn output_schema(
    manifest: &Manifest,
    envelope: &Arc<JsonObject>,
) -> Option<Arc<JsonObject>> {
    (manifest.backend() != BackendKind::Mcp).then(|| Arc::clone(envelope))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn governed(status: EnvelopeStatus, results: Value) -> Governed {
        let envelope = Envelope {
            status,
            scan_id: "call.1".to_owned(),
            tool: "t".to_owned(),
            command: "up t {}".to_owned(),
            duration_ms: 1,
            timestamp: "2026-01-01T00:00:00Z".to_owned(),
            output_hash: "sha256:00".to_owned(),
            exit_code: None,
            stderr: None,
            results,
            output_file: None,
            output_truncated: None,
        };
        Governed { call_id: None, envelope, denial: None, receipt: None, edited: None }
    }

    #[test]
    fn an_answer_comes_back_as_it_was_with_more_in_its_meta() {
        let content = json!([
            {"type": "text", "text": "a", "annotations": {"priority": 0.5}},
            {"type": "image", "data": "AAAA", "mimeType": "image/png"},
            {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"},
            {"type": "resource", "resource": {"uri": "x:1", "text": "r", "mimeType": "a/b"}},
            {"type": "resource_link", "uri": "x:2", "name": "l"},
        ]);
        let given = json!({
            "content": content,
            "structuredContent": {"n": 1},
            "isError": true,
            "_meta": {"theirs": 1},
            "error": "answered with an error",
        });
        let meta = Map::from_iter([("countersign/call".to_owned(), json!("call.1"))]);
        let result = answer(&governed(EnvelopeStatus::Error, given), &meta);
        let result = json!(result.unwrap().unwrap());
        assert_eq!(result["content"], content);
        assert_eq!(result["structuredContent"], json!({"n": 1}));
        assert_eq!(result["isError"], true);
        assert_eq!(result["_meta"]["theirs"], 1);
        assert_eq!(result["_meta"]["countersign/call"], "call.1");
        assert_eq!(result["_meta"]["countersign/envelope"]["status"], "error");
        assert!(result.get("error").is_none());
    }

    #[test]
    fn an_error_of_the_protocol_stays_one() {
        let given = json!({"error": {"code": -32602, "message": "no", "data": {"a": 1}}});
        let error = answer(&governed(EnvelopeStatus::Error, given), &Map::new());
        let error = error.unwrap().unwrap_err();
        assert_eq!(json!(error), json!({"code": -32602, "message": "no", "data": {"a": 1}}));
    }

    #[test]
    fn what_is_no_answer_of_an_upstream_is_the_gateways_to_say() {
        let content = json!({"content": []});
        let none = |governed: &Governed| assert!(answer(governed, &Map::new()).is_none());
        none(&governed(EnvelopeStatus::Error, json!({"error": "not started: gone"})));
        none(&governed(EnvelopeStatus::Timeout, content.clone()));
        none(&governed(EnvelopeStatus::Denied, content));
    }
}
