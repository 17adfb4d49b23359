//! Reading what a tool wrote.

use base64::Engine as _;
use serde_json::{Value, json};

/// How output is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// Any bytes; text is expected.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

impl OutputFormat {
    /// The word a manifest uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The `[output]` table.
#[derive(Clone, Debug)]
pub struct Output {
    pub(crate) format: OutputFormat,
    pub(crate) max_bytes: u64,
}

impl Output {
    /// How [`Output::parse`] reads, which is what `parser` says if the manifest has one.
    #[must_use]
    pub fn format(&self) -> OutputFormat {
        self.format
    }

    /// Bytes of standard output to keep: from 1 to 2^30.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// The `results` of an envelope, always an object: `{"text": …}` for text,
    /// `{"base64": …}` for text that is not UTF-8, and for JSON the document itself, under
    /// `value` unless it is an object.
    ///
    /// # Errors
    /// Says why, when the output of a `json` tool is not one JSON document.
    pub fn parse(&self, bytes: &[u8]) -> Result<Value, String> {
        match self.format {
            OutputFormat::Text => Ok(match std::str::from_utf8(bytes) {
                Ok(text) => json!({"text": text}),
                Err(_) => {
                    json!({"base64": base64::engine::general_purpose::STANDARD.encode(bytes)})
                }
            }),
            OutputFormat::Json => match serde_json::from_slice(bytes) {
                Ok(object @ Value::Object(_)) => Ok(object),
                Ok(value) => Ok(json!({"value": value})),
                Err(error) => Err(format!("output is not JSON: {error}")),
            },
        }
    }
}
