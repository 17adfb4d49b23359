//! A tool of an upstream MCP server as it describes itself, made strict.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::plan::{McpPlan, Plan, RunLimits};
use countersign_core::text::reveal;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value, json};

use crate::diagnostic::excerpt;
use crate::manifest::{Backend, Manifest, RiskTier};
use crate::output::{Output, OutputFormat};
use crate::plan::{ArgProblem, MAX_PROBLEMS, Planned};
use crate::types::Refusal;

/// Characters of a text for which the upstream names no bound.
const TEXT_MAX: u64 = 1 << 20;
/// Elements of a list for which the upstream names no bound.
const ITEMS_MAX: u64 = 10_000;
/// Members of an object for which the upstream names no bound.
const MEMBERS_MAX: u64 = 1_000;
/// Bytes of all arguments of a call together, as JSON.
const ARGUMENTS_MAX: usize = 2 << 20;
/// Bytes of one definition, as JSON.
const DEFINITION_MAX: usize = 256 << 10;
/// How deep a definition may be nested.
const DEPTH_MAX: usize = 64;
/// Characters of a name on the wire.
const NAME_MAX: usize = 64;

/// What the operator says about a tool of an upstream server.
#[derive(Clone, Debug)]
pub struct UpstreamRules {
    /// The upstream's name in the configuration.
    pub server: String,
    /// What stands before the upstream's own name of a tool; may be empty.
    pub prefix: String,
    /// How much harm a call can do.
    pub risk_tier: RiskTier,
    /// Wall time of a call.
    pub timeout: Duration,
    /// Bytes of an answer.
    pub output_max_bytes: u64,
    /// A digest of what else decides where a call goes, such as the command line or the URL.
    pub context: Digest,
}

/// A definition, and what is made of it.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    server: String,
    tool: String,
    /// As agents see it.
    listed: Map<String, Value>,
    input: Value,
    /// The properties of the schema, in its order.
    properties: Vec<String>,
    validator: jsonschema::Validator,
}

/// Why a tool of an upstream server is not served. Its text names the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamToolError(String);

impl fmt::Display for UpstreamToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UpstreamToolError {}

/// The digest by which a definition is pinned: over its JSON with sorted keys, so that the order
/// of keys does not matter and everything else does.
#[must_use]
pub fn definition_digest(definition: &Value) -> Digest {
    Digest::of(definition_text(definition))
}

/// What [`definition_digest`] is the digest of.
#[must_use]
pub fn definition_text(definition: &Value) -> String {
    sorted(definition).to_string()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.iter().collect();
            let members = members.into_iter().map(|(name, value)| (name.clone(), sorted(value)));
            Value::Object(members.collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

impl Manifest {
    /// Makes a tool of an element of an answer to `tools/list`.
    ///
    /// Its schema is tightened: objects take no properties beyond those they declare unless they
    /// say otherwise, and texts, lists and objects without a bound of their own get one. Its
    /// annotations decide nothing here.
    ///
    /// # Errors
    /// When the definition has no usable name, is too large, or its schema describes no object,
    /// does not compile, or refers to somewhere else.
    pub fn of_upstream(
        definition: &Value,
        rules: &UpstreamRules,
    ) -> Result<Self, UpstreamToolError> {
        let failed = |why: &str| UpstreamToolError(why.to_owned());
        let Value::Object(definition) = definition else {
            return Err(failed("its definition is no object"));
        };
        if definition_size(definition) > DEFINITION_MAX {
            return Err(UpstreamToolError(format!(
                "its definition is larger than {DEFINITION_MAX} bytes"
            )));
        }
        let tool = definition.get("name").and_then(Value::as_str).unwrap_or_default();
        let name = format!("{}{tool}", rules.prefix);
        if tool.is_empty() || !wire_name(&name) {
            return Err(UpstreamToolError(format!(
                "the name `{}` is outside `[A-Za-z0-9][A-Za-z0-9_.-]*` or longer than {NAME_MAX}",
                excerpt(&name)
            )));
        }
        let mut input = definition.get("inputSchema").cloned().unwrap_or_else(|| json!({}));
        let Value::Object(root) = &mut input else {
            return Err(failed("its schema is no object"));
        };
        match root.get("type") {
            None => drop(root.insert("type".to_owned(), "object".into())),
            Some(Value::String(word)) if word == "object" => {}
            Some(_) => return Err(failed("its schema does not describe an object")),
        }
        tighten(&mut input, Place::Whole, 0)?;
        let validator = jsonschema::options()
            .with_pattern_options(jsonschema::PatternOptions::regex())
            .build(&input)
            .map_err(|error| UpstreamToolError(format!("its schema does not compile: {error}")))?;
        let properties = input.get("properties").and_then(Value::as_object);
        let properties = properties.into_iter().flatten().map(|(name, _)| name.clone()).collect();
        let text = |key| definition.get(key).and_then(Value::as_str);
        let description = reveal(text("description").unwrap_or_default()).into_owned();
        let mut listed = definition.clone();
        listed.insert("name".to_owned(), name.as_str().into());
        listed.insert("inputSchema".to_owned(), input.clone());
        if text("description").is_some() {
            listed.insert("description".to_owned(), description.as_str().into());
        }
        // What may become of a call is the gateway's to say.
        listed.remove("execution");
        let digest = json!({
            "definition": definition,
            "server": rules.server,
            "prefix": rules.prefix,
            "risk_tier": rules.risk_tier.as_str(),
            "context": rules.context,
        });
        Ok(Self {
            name,
            version: "1.0.0".to_owned(),
            description,
            risk_tier: rules.risk_tier,
            human_approval: false,
            network_egress: false,
            cedar: None,
            evidence: None,
            filesystem: None,
            limits: RunLimits {
                timeout: rules.timeout,
                output_max_bytes: rules.output_max_bytes,
                ..RunLimits::default()
            },
            digest: definition_digest(&digest).to_string(),
            args: Vec::new(),
            index: HashMap::new(),
            backend: Backend::Upstream(Box::new(Upstream {
                server: rules.server.clone(),
                tool: tool.to_owned(),
                listed,
                input,
                properties,
                validator,
            })),
            scopes: Vec::new(),
            output: Output { format: OutputFormat::Json, ..Output::default() },
            own: false,
        })
    }

    /// The manifest for as long as the tool of an upstream server that its `[mcp]` calls has the
    /// definition of this digest. Its own digest is another for each definition: what was approved
    /// under one is not approved under the next.
    #[must_use]
    pub fn with_definition(&self, definition: &Digest) -> Self {
        let digest = Digest::of(format!("{}\n{definition}\n", self.digest)).to_string();
        Self { digest, ..self.clone() }
    }

    /// The definition of the tool as its upstream server gave it, with the name and the schema
    /// that hold here. `None` for a tool that a manifest describes.
    #[must_use]
    pub fn upstream_definition(&self) -> Option<&Map<String, Value>> {
        match &self.backend {
            Backend::Upstream(upstream) => Some(&upstream.listed),
            _ => None,
        }
    }

    /// The upstream server a call goes to and its own name of the tool, if it goes to one.
    #[must_use]
    pub fn mcp_target(&self) -> Option<(&str, &str)> {
        match &self.backend {
            Backend::Mcp(mcp) => Some((&mcp.server, &mcp.tool)),
            Backend::Upstream(upstream) => Some((&upstream.server, &upstream.tool)),
            _ => None,
        }
    }
}

impl Upstream {
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn input_schema(&self) -> &Value {
        &self.input
    }

    pub(crate) fn plan(&self, arguments: &Map<String, Value>) -> Result<Planned, Vec<ArgProblem>> {
        let instance = Value::Object(arguments.clone());
        let bytes = instance.to_string().len();
        if bytes > ARGUMENTS_MAX {
            let message = format!("the arguments have {bytes} bytes; at most {ARGUMENTS_MAX}");
            return Err(vec![ArgProblem::new("", Refusal { code: "too_long", message })]);
        }
        let nul = arguments.iter().filter(|(name, value)| name.contains('\0') || has_nul(value));
        let mut problems: Vec<_> = nul
            .map(|(name, _)| {
                let message = "holds a NUL character".to_owned();
                ArgProblem::new(&excerpt(name), Refusal { code: "nul", message })
            })
            .take(MAX_PROBLEMS)
            .collect();
        if problems.is_empty() {
            let errors = self.validator.iter_errors(&instance);
            problems = errors
                .flat_map(|error| problems_of(&error, &instance))
                .take(MAX_PROBLEMS)
                .collect();
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let declared = self.properties.iter().filter(|name| arguments.contains_key(*name));
        let others = arguments.keys().filter(|name| !self.properties.contains(name));
        let shown = |name: &String| {
            let text = match arguments.get(name)? {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Some((name.clone(), text))
        };
        let args = declared.chain(others).filter_map(shown).collect();
        let plan = Plan::Mcp(McpPlan {
            server: self.server.clone(),
            tool: self.tool.clone(),
            arguments: arguments.clone(),
        });
        Ok(Planned { plan, args })
    }
}

fn definition_size(definition: &Map<String, Value>) -> usize {
    serde_json::to_vec(definition).map_or(usize::MAX, |bytes| bytes.len())
}

/// Whether a tool may have this name on the wire.
fn wire_name(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => {
            members.iter().any(|(name, value)| name.contains('\0') || has_nul(value))
        }
        _ => false,
    }
}

/// The problems that one error of the schema stands for, with the argument each is about.
fn problems_of(error: &jsonschema::ValidationError<'_>, instance: &Value) -> Vec<ArgProblem> {
    let path = error.instance_path().to_string();
    let argument = |nested: &str| {
        let whole = if nested.is_empty() { path.clone() } else { format!("{path}/{nested}") };
        excerpt(whole.trim_start_matches('/'))
    };
    let of = |nested: &str, code, message: String| {
        ArgProblem::new(&argument(nested), Refusal { code, message })
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let message = "there is no such argument".to_owned();
            unexpected.iter().map(|name| of(name, "unknown_argument", message.clone())).collect()
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![of(name, "missing_argument", "is required".to_owned())]
        }
        // An object that declares no properties at all.
        ValidationErrorKind::FalseSchema
            if error.schema_path().to_string().ends_with("/additionalProperties") =>
        {
            let message = "there is no such argument".to_owned();
            match instance.pointer(&path) {
                Some(Value::Object(all)) => {
                    all.keys().map(|name| of(name, "unknown_argument", message.clone())).collect()
                }
                _ => vec![of("", "unknown_argument", message)],
            }
        }
        _ => vec![of("", "schema_mismatch", excerpt(&error.masked().to_string()))],
    }
}

/// What a subschema is to the value it is held against.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// All there is to say about the value.
    Whole,
    /// One of several that speak of the same value: what it does not declare another may.
    Part,
}

/// Closes the objects of a schema and bounds its texts, lists and objects.
fn tighten(schema: &mut Value, place: Place, depth: usize) -> Result<(), UpstreamToolError> {
    if depth > DEPTH_MAX {
        return Err(UpstreamToolError(format!(
            "its schema is nested more than {DEPTH_MAX} levels deep"
        )));
    }
    let Value::Object(fields) = schema else { return Ok(()) };
    for (key, below) in fields.iter_mut() {
        let place = match key.as_str() {
            "allOf" | "anyOf" | "oneOf" | "if" | "then" | "else" | "not" | "dependentSchemas"
            | "dependencies" => Place::Part,
            _ => Place::Whole,
        };
        match (key.as_str(), below) {
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas"
                | "dependencies",
                Value::Object(named),
            ) => {
                for below in named.values_mut() {
                    tighten(below, place, depth + 1)?;
                }
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(list)) => {
                for below in list {
                    tighten(below, place, depth + 1)?;
                }
            }
            (
                "items"
                | "additionalItems"
                | "unevaluatedItems"
                | "contains"
                | "additionalProperties"
                | "unevaluatedProperties"
                | "if"
                | "then"
                | "else",
                below,
            ) => tighten(below, place, depth + 1)?,
            _ => {}
        }
    }
    let has = |key: &str| fields.contains_key(key);
    let is = |word: &str| match fields.get("type") {
        Some(Value::String(only)) => only == word,
        Some(Value::Array(words)) => words.iter().any(|one| one == word),
        _ => false,
    };
    let closed = has("additionalProperties") || has("unevaluatedProperties");
    let composed = ["allOf", "anyOf", "oneOf", "if", "$ref", "dependentSchemas", "$dynamicRef"];
    let composed = composed.into_iter().any(has);
    let object = is("object") || has("properties");
    let fixed = has("enum") || has("const");
    let mut add = Vec::new();
    if object && place == Place::Whole && !closed {
        let key = if composed { "unevaluatedProperties" } else { "additionalProperties" };
        add.push((key, Value::Bool(false)));
    }
    if object && place == Place::Whole && closed && !has("maxProperties") {
        add.push(("maxProperties", MEMBERS_MAX.into()));
    }
    if is("string") && !fixed && !has("maxLength") {
        add.push(("maxLength", TEXT_MAX.into()));
    }
    if is("array") && !fixed && !has("maxItems") {
        add.push(("maxItems", ITEMS_MAX.into()));
    }
    fields.extend(add.into_iter().map(|(key, value)| (key.to_owned(), value)));
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rules() -> UpstreamRules {
        UpstreamRules {
            server: "up".to_owned(),
            prefix: "up_".to_owned(),
            risk_tier: RiskTier::High,
            timeout: Duration::from_secs(1),
            output_max_bytes: 1000,
            context: Digest::of("there"),
        }
    }

    fn tool(schema: Value) -> Result<Manifest, UpstreamToolError> {
        Manifest::of_upstream(&json!({"name": "t", "inputSchema": schema}), &rules())
    }

    fn check(schema: Value, arguments: Value, expected: &[(&str, &str)]) {
        let tool = tool(schema).unwrap();
        let planned = tool.plan(arguments.as_object().unwrap());
        let found = planned.err().unwrap_or_default();
        let found: Vec<_> = found.iter().map(|p| (p.code, p.arg.as_str())).collect();
        assert_eq!(found, expected, "{arguments}");
    }

    #[test]
    fn arguments_are_held_against_the_tightened_schema() {
        let schema = json!({
            "type": "object",
            "properties": {
                "n": {"type": "integer", "maximum": 9},
                "s": {"type": "string"},
                "o": {"type": "object", "properties": {"x": {"type": "string"}}},
                "free": {"type": "object", "additionalProperties": {"type": "number"}},
                "many": {"type": "array", "items": {"type": "object", "properties": {}}},
            },
            "required": ["n"],
        });
        for (arguments, expected) in [
            (json!({"n": 1}), &[][..]),
            (json!({"n": 1, "s": "$(x)\n", "o": {"x": "y"}, "free": {"any": 1}}), &[]),
            (json!({}), &[("missing_argument", "n")]),
            (json!({"n": 10}), &[("schema_mismatch", "n")]),
            (json!({"n": "1"}), &[("schema_mismatch", "n")]),
            (json!({"n": 1, "z": 1}), &[("unknown_argument", "z")]),
            (json!({"n": 1, "o": {"z": 1}}), &[("unknown_argument", "o/z")]),
            (json!({"n": 1, "many": [{"z": 1}]}), &[("unknown_argument", "many/0/z")]),
            (json!({"n": 1, "free": {"any": "1"}}), &[("schema_mismatch", "free/any")]),
            (json!({"n": 1, "s": "a\u{0}b"}), &[("nul", "s")]),
            (json!({"n": 1, "s": "a".repeat(1 + (1 << 20))}), &[("schema_mismatch", "s")]),
            (json!({"n": 1, "s": "a".repeat(3 << 20)}), &[("too_long", "")]),
        ] {
            check(schema.clone(), arguments, expected);
        }
        let none = json!({"type": "object"});
        let unknown = [("unknown_argument", "z"), ("unknown_argument", "y")];
        check(none, json!({"z": 1, "y": ""}), &unknown);
    }

    #[test]
    fn what_several_schemas_say_together_is_closed_together() {
        let schema = json!({
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "string"}}},
                {"$ref": "#/$defs/b"},
            ],
            "$defs": {"b": {"properties": {"b": {"type": "string"}},
                            "additionalProperties": true}},
        });
        check(schema.clone(), json!({"a": "1", "b": "2"}), &[]);
        let schema = json!({
            "anyOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}}],
        });
        check(schema.clone(), json!({"a": "1"}), &[]);
        check(schema, json!({"a": "1", "z": 1}), &[("unknown_argument", "z")]);
    }

    #[test]
    fn what_cannot_be_checked_is_not_served() {
        let deep = (0..200)
            .fold(json!({"type": "string"}), |below, _| json!({"type": "array", "items": below}));
        for schema in [
            json!({"type": "string"}),
            json!([]),
            json!({"$ref": "http://127.0.0.1:1/schema"}),
            json!({"properties": {"a": {"pattern": "("}}}),
            json!({"properties": {"a": {"pattern": "(?=x)"}}}),
            json!({"type": "object", "properties": {"a": deep}}),
            json!({"type": "object", "description": "x".repeat(300 << 10)}),
        ] {
            assert!(tool(schema.clone()).is_err(), "{schema}");
        }
        for name in ["", "a b", "a/b", "ü", "a\u{202e}", &"x".repeat(62)] {
            assert!(Manifest::of_upstream(&json!({"name": name}), &rules()).is_err(), "{name}");
        }
    }

    #[test]
    fn whatever_changes_in_a_definition_changes_its_digest_but_the_order_of_keys() {
        let digest = |value: Value| definition_digest(&value);
        let one = digest(json!({"name": "t", "description": "d"}));
        assert_eq!(one, digest(json!({"description": "d", "name": "t"})));
        assert_ne!(one, digest(json!({"description": "d ", "name": "t"})));
        let of = |rules: &UpstreamRules| {
            Manifest::of_upstream(&json!({"name": "t"}), rules).unwrap().digest().to_owned()
        };
        let elsewhere = UpstreamRules { context: Digest::of("elsewhere"), ..rules() };
        assert_ne!(of(&rules()), of(&elsewhere));
        assert_ne!(of(&rules()), of(&UpstreamRules { risk_tier: RiskTier::Low, ..rules() }));
    }

    #[test]
    fn annotations_decide_nothing_and_words_hide_nothing() {
        let definition = json!({
            "name": "t",
            "description": "a\u{200b}b",
            "annotations": {"readOnlyHint": true},
            "execution": {"taskSupport": "required"},
        });
        let tool = Manifest::of_upstream(&definition, &rules()).unwrap();
        assert_eq!(tool.risk_tier(), RiskTier::High);
        let listed = tool.upstream_definition().unwrap();
        assert_eq!(listed["name"], "up_t");
        assert_eq!(listed["annotations"], definition["annotations"]);
        assert!(!listed.contains_key("execution"));
        assert!(!tool.description().contains('\u{200b}'), "{}", tool.description());
        assert_eq!(listed["description"], tool.description());
    }
}
