//! What a manifest is once it is checked.

use std::collections::HashMap;

use countersign_core::plan::RunLimits;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::command::{Command, Item};
use crate::output::Output;
use crate::types::ArgType;

/// How much harm a tool can do, by its author's judgement. Ordered: `Info` is the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RiskTier {
    /// Tells what everybody may know.
    Info,
    /// Reads; what a manifest gets that does not say.
    #[default]
    Low,
    /// Changes something that can be changed back.
    Medium,
    /// Changes something that is hard to change back.
    High,
    /// Can do lasting harm beyond its own files.
    Critical,
}

impl RiskTier {
    pub(crate) const ALL: [(&'static str, Self); 5] = [
        ("info", Self::Info),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("critical", Self::Critical),
    ];

    /// The word a manifest uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, tier)| *tier == self).map_or("low", |(word, _)| word)
    }
}

/// One declared argument.
#[derive(Debug)]
pub struct Arg {
    pub(crate) name: String,
    pub(crate) ty: ArgType,
    pub(crate) required: bool,
    pub(crate) description: Option<String>,
    pub(crate) default: Option<DefaultValue>,
}

/// A default as written, and the text it resolves to.
#[derive(Debug)]
pub(crate) struct DefaultValue {
    pub(crate) value: Value,
    pub(crate) text: String,
}

impl Arg {
    /// The key an agent sends it under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The word of the manifest format, such as `literal_text`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.ty.name
    }

    /// Whether a call without it is refused. A default does not change that.
    #[must_use]
    pub fn required(&self) -> bool {
        self.required
    }

    /// The author's words, for agents and people.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// What a call without it gets, as written in the manifest: `command.defaults` before the
    /// argument's own.
    #[must_use]
    pub fn default(&self) -> Option<&Value> {
        self.default.as_ref().map(|d| &d.value)
    }

    /// Whether a plan can lack it.
    pub(crate) fn may_be_absent(&self) -> bool {
        !self.required && self.default.is_none()
    }

    fn schema(&self) -> Value {
        let mut schema = self.ty.schema();
        if let Some(description) = &self.description {
            schema.insert("description".to_owned(), description.as_str().into());
        }
        if let Some(default) = self.default().filter(|_| !self.required) {
            schema.insert("default".to_owned(), default.clone());
        }
        Value::Object(schema)
    }
}

/// One tool. It exists only if its text has no error, so nothing in it needs checking again.
#[derive(Debug)]
pub struct Manifest {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) description: String,
    pub(crate) risk_tier: RiskTier,
    pub(crate) human_approval: bool,
    pub(crate) cedar: Option<Cedar>,
    pub(crate) limits: RunLimits,
    pub(crate) digest: String,
    pub(crate) args: Vec<Arg>,
    pub(crate) index: HashMap<String, usize>,
    pub(crate) command: Command,
    pub(crate) output: Output,
}

/// How a policy engine names a call of the tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cedar {
    /// Such as `Files::Repository`.
    pub resource: String,
    /// Such as `read`.
    pub action: String,
}

impl Manifest {
    /// The tool's name: `[a-z][a-z0-9_]{0,63}`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program it starts: a name to be found on the path, or a path.
    #[must_use]
    pub fn program(&self) -> &str {
        match self.command.items.first() {
            Some(Item::Token(token)) => token.fixed().unwrap_or_default(),
            _ => "",
        }
    }

    /// The version as written; only a warning asks that it be a semantic version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The author's words, shown to agents.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The declared tier.
    #[must_use]
    pub fn risk_tier(&self) -> RiskTier {
        self.risk_tier
    }

    /// Whether every call waits for a person, whatever policy says.
    #[must_use]
    pub fn human_approval(&self) -> bool {
        self.human_approval
    }

    /// The names under which policy knows the tool, when declared.
    #[must_use]
    pub fn cedar(&self) -> Option<&Cedar> {
        self.cedar.as_ref()
    }

    /// What to enforce while a plan of this tool runs.
    #[must_use]
    pub fn limits(&self) -> RunLimits {
        self.limits.clone()
    }

    /// `sha256:` and the hex digest of the manifest's text, comments included.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The declared arguments: by `position`, then as the text has them.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &Arg> {
        self.args.iter()
    }

    /// How to read what the tool writes.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// JSON Schema of a call's arguments. It promises less than [`Manifest::plan`] checks:
    /// what it refuses is refused, what it accepts may still be.
    #[must_use]
    pub fn input_schema(&self) -> Value {
        let properties: Map<String, Value> =
            self.args.iter().map(|arg| (arg.name.clone(), arg.schema())).collect();
        let required: Vec<&str> =
            self.args.iter().filter(|a| a.required).map(|a| a.name.as_str()).collect();
        json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }
}
