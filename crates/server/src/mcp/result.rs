//! What became of a call, as an MCP result: for programs the envelope, for models a text.

use countersign_core::hold::HeldAction;
use countersign_kernel::Governed;
use countersign_manifest::{Envelope, EnvelopeStatus};
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde_json::{Map, Value, json};

use crate::pending::envelope;

/// Bytes of one answer. Official clients refuse server-sent events above 1 MiB.
const ANSWER_MAX: usize = 1_000_000;
/// Bytes of the envelope in it.
const ENVELOPE_MAX: usize = 600_000;
/// Bytes of a command or of standard error in an envelope that is too large.
const PART_MAX: usize = 64 << 10;
/// Bytes of the command in a note that it is another than the one that was sent.
const NOTE_MAX: usize = 2 << 10;
/// Bytes of standard error in the text: its end, where the reason usually is.
const STDERR_TAIL: usize = 4 << 10;

/// `upstream` is whether the tool's results are the answers of an upstream server.
pub(crate) fn answer(mut governed: Governed, upstream: bool) -> Result<CallToolResult, ErrorData> {
    let (call_id, receipt) = (governed.call_id.take(), governed.receipt.take());
    let mut meta = Map::new();
    if let Some(receipt) = receipt {
        meta.insert("countersign/receipt".to_owned(), json!(receipt));
    }
    if let Some(call) = call_id {
        meta.insert("countersign/call".to_owned(), json!(call));
    }
    if let Some(edit) = &governed.edited {
        meta.insert("countersign/edited".to_owned(), json!(edit));
    }
    if let Some(answer) = upstream.then(|| super::upstream::answer(&governed, &meta, ANSWER_MAX))
        && let Some(answer) = answer
    {
        return answer;
    }
    let Governed { mut envelope, denial, edited, .. } = governed;
    if denial.as_ref().is_some_and(|denial| denial.code == "unknown_tool") {
        let text = format!("unknown tool: {}", envelope.tool);
        return Err(ErrorData::invalid_params(text, Some(Value::Object(meta))));
    }
    shrink(&mut envelope);
    let text = match (denial, edited) {
        (Some(denial), _) => denial.message,
        (None, None) => text(&envelope),
        (None, Some(edit)) => format!(
            "note: {} changed the arguments before approving; what was made is: {}\n\n{}",
            edit.by.display,
            prefix(&envelope.command, NOTE_MAX),
            text(&envelope)
        ),
    };
    let is_error = envelope.status != EnvelopeStatus::Success;
    let structured = json!(envelope);
    let left = ANSWER_MAX.saturating_sub(size(&structured)).saturating_sub(size(&meta));
    let shown = prefix(&text, left.saturating_sub(1024));
    let mut result = CallToolResult::default();
    result.content = vec![ContentBlock::text(shown)];
    if shown.len() < text.len() {
        let note = "[the text is cut here; structuredContent has more]";
        result.content.push(ContentBlock::text(note));
    }
    result.structured_content = Some(structured);
    result.is_error = Some(is_error);
    let mut object = MetaObject::new();
    object.0 = meta;
    result.meta = Some(object);
    Ok(result)
}

/// The answer to a call that a person has not decided about: no error, for nothing is wrong.
pub(crate) fn pending(tool: &str, hold: &HeldAction) -> CallToolResult {
    let short: String = hold.id.as_str().chars().take(8).collect();
    let text = format!(
        "pending approval: hold {short} waits for a person, until {}. Nothing has happened yet. \
         Send exactly the same call again to wait on, or to get its outcome; it runs once.",
        hold.expires_at
    );
    let envelope = envelope(tool, hold);
    let mut result = CallToolResult::default();
    result.content = vec![ContentBlock::text(text)];
    result.structured_content = Some(json!(envelope));
    result.is_error = Some(false);
    let mut meta = MetaObject::new();
    meta.0.insert("countersign/hold".to_owned(), json!(hold.id));
    result.meta = Some(meta);
    result
}

fn text(envelope: &Envelope) -> String {
    let mut parts = Vec::new();
    let mut results = envelope.results.clone();
    if envelope.status != EnvelopeStatus::Success {
        let error = results.as_object_mut().and_then(|fields| fields.remove("error"));
        parts.push(match (error, envelope.exit_code) {
            (Some(Value::String(error)), _) => format!("failed: {error}"),
            (Some(error), _) => format!("failed: {error}"),
            (None, Some(code)) => format!("failed: exit code {code}"),
            (None, None) => "failed".to_owned(),
        });
        if let Some(stderr) = &envelope.stderr {
            parts.push(format!("standard error:\n{}", tail(stderr.trim_end(), STDERR_TAIL)));
        }
    }
    let output = output(&results);
    match (output.is_empty(), parts.is_empty()) {
        (false, true) => parts.push(output),
        (false, false) => parts.push(format!("output:\n{output}")),
        (true, true) => parts.push("done, without output".to_owned()),
        (true, false) => {}
    }
    if envelope.output_truncated == Some(true) {
        parts.push("[the output was longer; the rest of it is not shown]".to_owned());
    }
    parts.join("\n")
}

fn output(results: &Value) -> String {
    let Some(fields) = results.as_object() else { return results.to_string() };
    let only = if fields.len() == 1 { fields.iter().next() } else { None };
    match only {
        None if fields.is_empty() => String::new(),
        Some((name, Value::String(text))) if name == "text" => text.clone(),
        Some((name, Value::String(bytes))) if name == "base64" => {
            let bytes = bytes.len() / 4 * 3;
            format!("about {bytes} bytes that are not text; structuredContent has them as base64")
        }
        _ => serde_json::to_string_pretty(results).unwrap_or_else(|_| results.to_string()),
    }
}

/// Cuts what makes an envelope too large for one answer. Its digest still is that of all the
/// output.
fn shrink(envelope: &mut Envelope) {
    if size(envelope) <= ENVELOPE_MAX {
        return;
    }
    let results = std::mem::replace(&mut envelope.results, json!({}));
    envelope.command = prefix(&envelope.command, PART_MAX).to_owned();
    if let Some(stderr) = &mut envelope.stderr {
        *stderr = prefix(stderr, PART_MAX).to_owned();
    }
    let mut kept = Map::new();
    if let Some(Value::String(error)) = results.get("error") {
        kept.insert("error".to_owned(), json!(prefix(error, PART_MAX)));
    }
    let text = match results.get("text") {
        Some(Value::String(text)) => text.clone(),
        _ => results.to_string(),
    };
    let left = ENVELOPE_MAX.saturating_sub(size(envelope)).saturating_sub(size(&kept));
    let shown = prefix(&text, left.saturating_sub(64));
    if shown.len() < text.len() {
        envelope.output_truncated = Some(true);
    }
    kept.insert("text".to_owned(), json!(shown));
    envelope.results = Value::Object(kept);
}

pub(crate) fn size(value: &impl serde::Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |bytes| bytes.len())
}

/// The longest beginning that takes at most so many bytes inside a JSON string.
fn prefix(text: &str, max: usize) -> &str {
    let mut used = 0_usize;
    for (at, c) in text.char_indices() {
        used += match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            _ => c.len_utf8(),
        };
        if used > max {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

/// The end of a text, from a whole character on.
fn tail(text: &str, max: usize) -> String {
    let mut from = text.len().saturating_sub(max);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let cut = if from == 0 { "" } else { "…" };
    format!("{cut}{}", text.get(from..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(results: Value) -> Envelope {
        Envelope {
            status: EnvelopeStatus::Success,
            scan_id: "call.1".to_owned(),
            tool: "t".to_owned(),
            command: "t".to_owned(),
            duration_ms: 1,
            timestamp: "2026-01-01T00:00:00Z".to_owned(),
            output_hash: "sha256:00".to_owned(),
            exit_code: Some(0),
            stderr: None,
            results,
            output_file: None,
            output_truncated: None,
        }
    }

    fn governed(envelope: Envelope) -> Governed {
        Governed { call_id: None, envelope, denial: None, receipt: None, edited: None }
    }

    #[test]
    fn no_answer_is_larger_than_clients_take() {
        let rows = json!({"rows": vec![json!({"a long name for a column": "\"\n"}); 50_000]});
        for results in [
            json!({"text": "\u{1}".repeat(256 << 10)}),
            json!({"text": "\"\n".repeat(128 << 10)}),
            json!({"text": "日本".repeat(256 << 10)}),
            json!({"base64": "A".repeat(350 << 10)}),
            json!({"error": "\0".repeat(1 << 20), "text": "\0".repeat(1 << 20)}),
            rows,
        ] {
            let mut big = envelope(results);
            big.command = "\u{1}".repeat(300_000);
            big.stderr = Some("\u{2}".repeat(64 << 10));
            for status in [EnvelopeStatus::Success, EnvelopeStatus::Error] {
                big.status = status;
                let answer = answer(governed(big.clone()), false).unwrap();
                let bytes = serde_json::to_vec(&answer).unwrap().len();
                assert!(bytes <= ANSWER_MAX, "{bytes} bytes");
            }
        }
    }

    #[test]
    fn an_envelope_that_fits_is_left_alone() {
        let before = envelope(json!({"text": "x".repeat(256 << 10)}));
        let mut after = before.clone();
        shrink(&mut after);
        assert_eq!(before, after);
    }

    #[test]
    fn the_text_says_what_a_model_needs() {
        let check = |envelope: &Envelope, expected: &str| assert_eq!(text(envelope), expected);
        check(&envelope(json!({"text": "hello\n"})), "hello\n");
        check(&envelope(json!({})), "done, without output");
        check(&envelope(json!({"text": ""})), "done, without output");
        check(&envelope(json!({"n": 1})), "{\n  \"n\": 1\n}");
        let mut failed = envelope(json!({"text": "half"}));
        failed.status = EnvelopeStatus::Error;
        failed.exit_code = Some(2);
        failed.stderr = Some("no such file\n".to_owned());
        check(&failed, "failed: exit code 2\nstandard error:\nno such file\noutput:\nhalf");
        failed.results = json!({"error": "ended by signal 9"});
        failed.stderr = None;
        check(&failed, "failed: ended by signal 9");
    }

    #[test]
    fn cuts_stay_on_characters() {
        assert_eq!(prefix("aé", 2), "a");
        assert_eq!(prefix("a\n", 2), "a");
        assert_eq!(prefix("a\n", 3), "a\n");
        assert_eq!(tail("é", 1), "…");
        assert_eq!(tail("ab", 2), "ab");
    }
}
