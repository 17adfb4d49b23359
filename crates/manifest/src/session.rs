//! Sessions and browsers: what they are once they are checked. Running them comes later.

use serde_json::Value;

use crate::command::Command;
use crate::manifest::{Arg, RiskTier, schema_of};
use crate::types::Pattern;

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) startup: Command,
    pub(crate) commands: Vec<SubCommand>,
}

#[derive(Clone, Debug)]
pub(crate) struct Browser {
    pub(crate) commands: Vec<SubCommand>,
}

/// One thing a session or browser can be told, a tool of its own for the agent.
#[derive(Clone, Debug)]
pub(crate) struct SubCommand {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) risk_tier: RiskTier,
    pub(crate) human_approval: bool,
    /// What the whole text of the command has to match.
    pub(crate) pattern: Option<Pattern>,
    pub(crate) args: Vec<Arg>,
}

impl SubCommand {
    /// Its arguments; without any, a session's command is sent as text.
    pub(crate) fn input_schema(&self) -> Value {
        let mut schema = schema_of(&self.args);
        if self.args.is_empty()
            && self.pattern.is_some()
            && let Value::Object(schema) = &mut schema
        {
            let max = crate::types::MAX_TEXT;
            let text = serde_json::json!({"type": "string", "minLength": 1, "maxLength": max});
            schema.insert("properties".to_owned(), serde_json::json!({"command": text}));
            schema.insert("required".to_owned(), serde_json::json!(["command"]));
        }
        schema
    }
}
