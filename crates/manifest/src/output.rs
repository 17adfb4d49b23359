//! Reading what a tool wrote.

use base64::Engine as _;
use countersign_core::plan::RunLimits;
use serde_json::{Value, json};

use crate::read;

/// How output is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// Any bytes; text is expected.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// One JSON document on each line.
    Jsonl,
    /// Comma-separated values with a line of names.
    Csv,
    /// One XML document.
    Xml,
}

impl OutputFormat {
    const ALL: [Self; 5] = [Self::Text, Self::Json, Self::Jsonl, Self::Csv, Self::Xml];

    /// The word a manifest uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Xml => "xml",
        }
    }

    pub(crate) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == word)
    }
}

/// The `[output]` table.
#[derive(Clone, Debug)]
pub struct Output {
    pub(crate) format: OutputFormat,
    pub(crate) parser: Option<String>,
    pub(crate) envelope: bool,
    pub(crate) max_bytes: u64,
    pub(crate) schema: Option<Value>,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            format: OutputFormat::Text,
            parser: None,
            envelope: true,
            max_bytes: RunLimits::default().output_max_bytes,
            schema: None,
        }
    }
}

impl Output {
    /// How [`Output::parse`] reads, which is what `parser` says if the manifest has one.
    #[must_use]
    pub fn format(&self) -> OutputFormat {
        self.format
    }

    /// The executable that reads the output instead, if one is declared; it is on the project's
    /// allow list.
    #[must_use]
    pub fn parser(&self) -> Option<&str> {
        self.parser.as_deref()
    }

    /// Whether the author wants an envelope around the results.
    #[must_use]
    pub fn envelope(&self) -> bool {
        self.envelope
    }

    /// Bytes of standard output to keep: from 1 to 2^30.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// The JSON Schema 2020-12 of the results, which compiles.
    #[must_use]
    pub fn schema(&self) -> Option<&Value> {
        self.schema.as_ref()
    }

    /// Holds results against the schema; without one everything fits. Compiles the schema, which
    /// takes tens of microseconds.
    ///
    /// # Errors
    /// Says where and why the results do not fit.
    pub fn check(&self, results: &Value) -> Result<(), String> {
        let Some(schema) = &self.schema else {
            return Ok(());
        };
        compile(schema)?.validate(results).map_err(|error| {
            let place = error.instance_path().to_string();
            let reason = error.masked();
            format!("the results do not fit the schema at `{place}`: {reason}")
        })
    }

    /// The `results` of an envelope, always an object:
    ///
    /// - text: `{"text": …}`, or `{"base64": …}` if it is not UTF-8;
    /// - JSON: the document, under `value` unless it is an object;
    /// - JSON lines: the documents as a list under `value`; blank lines are left out;
    /// - CSV: under `value`, an object of texts for each line after the first, which has the
    ///   names;
    /// - XML: the outermost element as `{"name": …, "attributes": {…}, "children": […]}`, whose
    ///   children are elements and texts. Comments and white space between elements are left out.
    ///
    /// Takes memory in proportion to `bytes`, some fifty times as much at worst; CSV has a bound
    /// of its own.
    ///
    /// # Errors
    /// Says what is wrong and where, when the output is not of its format.
    pub fn parse(&self, bytes: &[u8]) -> Result<Value, String> {
        match self.format {
            OutputFormat::Text => Ok(match std::str::from_utf8(bytes) {
                Ok(text) => json!({"text": text}),
                Err(_) => {
                    json!({"base64": base64::engine::general_purpose::STANDARD.encode(bytes)})
                }
            }),
            OutputFormat::Json => read::json(bytes),
            OutputFormat::Jsonl => read::jsonl(bytes),
            OutputFormat::Csv => read::csv(bytes),
            OutputFormat::Xml => read::xml(bytes),
        }
    }
}

/// Compiles a schema as JSON Schema 2020-12. Nothing is fetched: a reference to elsewhere does
/// not compile. Patterns take linear time.
pub(crate) fn compile(schema: &Value) -> Result<jsonschema::Validator, String> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(schema)
        .map_err(|error| error.to_string())
}

/// Whether [`compile`] would succeed. Holding a schema against the schema of schemas costs a
/// fraction of compiling it, and decides it where nothing has to be found or compiled.
pub(crate) fn compiles(schema: &Value) -> Result<(), String> {
    jsonschema::draft202012::meta::validate(schema).map_err(|error| error.to_string())?;
    if needs_compiling(schema) { compile(schema).map(drop) } else { Ok(()) }
}

/// References, anchors, dialects and patterns are what a well-formed schema can fail by.
fn needs_compiling(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => members.iter().any(|(key, value)| {
            key.starts_with('$') || key.starts_with("pattern") || needs_compiling(value)
        }),
        Value::Array(items) => items.iter().any(needs_compiling),
        _ => false,
    }
}
