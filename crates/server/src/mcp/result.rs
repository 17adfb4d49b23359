//! What became of a call, as an MCP result: for programs the envelope, for models a text.

use countersign_core::hold::HeldAction;
use countersign_kernel::Governed;
use countersign_manifest::{Envelope, EnvelopeStatus};
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde_json::{Map, Value, json};

use super::upstream::Passing;
use crate::pending::envelope;

/// Bytes of one answer of the gateway's own making. The official Python client refuses
/// server-sent events above 1 MiB unless it is told otherwise.
const ANSWER_MAX: usize = 1_000_000;
/// Bytes of an answer of an upstream server on standard output. The official TypeScript client
/// reads lines of up to 10 MiB there.
pub(super) const STDIO_MAX: usize = 10_000_000;
/// Bytes of the envelope in it.
const ENVELOPE_MAX: usize = 600_000;
/// Bytes of a command or of standard error in an envelope that is too large.
const PART_MAX: usize = 64 << 10;
/// Bytes of the command in a note that it is another than the one that was sent.
const NOTE_MAX: usize = 2 << 10;
/// Bytes of standard error in the text: its end, where the reason usually is.
const STDERR_TAIL: usize = 4 << 10;

/// `passing` is how the tool's results are passed on if they are the answers of an upstream
/// server. One that is too large is an error that says where it is kept.
pub(super) fn answer(
    mut governed: Governed,
    passing: Option<Passing>,
) -> Result<CallToolResult, ErrorData> {
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
    let mut too_large = None;
    if let Some(Passing { max, .. }) = passing
        && let Some(answer) = super::upstream::answer(&governed, &meta)
    {
        match answer.as_ref().map_or(0, size) {
            bytes if bytes > max => too_large = Some(left_out(&governed.envelope, bytes, max)),
            _ => return answer,
        }
    }
    let Governed { mut envelope, denial, edited, .. } = governed;
    if let Some(text) = &too_large {
        envelope.results = json!({ "error": text });
        envelope.output_truncated = Some(true);
    }
    if denial.as_ref().is_some_and(|denial| denial.code == "unknown_tool") {
        let text = format!("unknown tool: {}", envelope.tool);
        return Err(ErrorData::invalid_params(text, Some(Value::Object(meta))));
    }
    shrink(&mut envelope);
    let denied = denial.is_some();
    let is_error = too_large.is_some() || envelope.status != EnvelopeStatus::Success;
    let text = match (denial, too_large) {
        (Some(denial), _) => denial.message,
        (None, Some(text)) => text,
        (None, None) => text(&envelope),
    };
    let text = match edited.filter(|_| !denied) {
        None => text,
        Some(edit) => format!(
            "note: {} changed the arguments before approving; what was made is: {}\n\n{}",
            edit.by.display,
            prefix(&envelope.command, NOTE_MAX),
            text
        ),
    };
    let structured = json!(envelope);
    let left = ANSWER_MAX.saturating_sub(size(&structured)).saturating_sub(size(&meta));
    let shown = prefix(&text, left.saturating_sub(1024));
    let mut result = CallToolResult::default();
    result.content = vec![ContentBlock::text(shown)];
    let bare = passing.is_some_and(|passing| passing.bare);
    if shown.len() < text.len() {
        let more = if bare { "the envelope in _meta" } else { "structuredContent" };
        result.content.push(ContentBlock::text(format!("[the text is cut here; {more} has more]")));
    }
    match bare {
        true => drop(meta.insert("countersign/envelope".to_owned(), structured)),
        false => result.structured_content = Some(structured),
    }
    result.is_error = Some(is_error);
    let mut object = MetaObject::new();
    object.0 = meta;
    result.meta = Some(object);
    Ok(result)
}

/// What stands for an answer that cannot be passed on whole: half of one could be taken for all.
fn left_out(envelope: &Envelope, bytes: usize, max: usize) -> String {
    format!(
        "the call was made and answered, but the answer is not passed on: it has {bytes} bytes, \
         and at most {max} go over this connection. Nothing of it is left out in the journal: it \
         is the output {} of call {}. Ask for less at once, or have the operator raise \
         `server.answer_max_bytes`, which is for HTTP.",
        envelope.output_hash, envelope.scan_id
    )
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
                let answer = answer(governed(big.clone()), None).unwrap();
                let bytes = serde_json::to_vec(&answer).unwrap().len();
                assert!(bytes <= ANSWER_MAX, "{bytes} bytes");
            }
        }
    }

    #[test]
    fn an_answer_of_an_upstream_is_passed_on_whole_or_is_an_error_that_says_where_it_is() {
        let image =
            json!({"type": "image", "data": "A".repeat(1_600_000), "mimeType": "image/png"});
        let given = envelope(json!({"content": [image.clone()]}));
        let passing = |max, bare| Some(Passing { max, bare });
        let whole = answer(governed(given.clone()), passing(STDIO_MAX, true)).unwrap();
        assert_eq!(json!(whole)["content"], json!([image]));
        assert_ne!(whole.is_error, Some(true));
        for bare in [true, false] {
            let cut = answer(governed(given.clone()), passing(ANSWER_MAX, bare)).unwrap();
            assert_eq!(cut.is_error, Some(true));
            let cut = json!(cut);
            let text = cut["content"][0]["text"].as_str().unwrap();
            for part in ["has 1600", "1000000", "sha256:00", "call.1", "server.answer_max_bytes"] {
                assert!(text.contains(part), "{part}: {text}");
            }
            let envelope = match bare {
                true => &cut["_meta"]["countersign/envelope"],
                false => &cut["structuredContent"],
            };
            assert_eq!(envelope["results"]["error"], text);
            assert_eq!(envelope["output_truncated"], true);
            assert_eq!(cut.get("structuredContent").is_none(), bare);
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
