//! JSON Schema of the manifest format, for editors. It says which keys there are and what they
//! hold; what only a check can tell is left to the check.

use serde_json::{Map, Value, json};

use crate::constraints::CONSTRAINTS;
use crate::types::TYPES;

const NAME: &str = "^[a-z][a-z0-9_]{0,63}$";

/// JSON Schema 2020-12 of a `.clad.toml` file.
#[must_use]
pub fn editor_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tool manifest (.clad.toml)",
        "type": "object",
        "required": ["tool"],
        "additionalProperties": false,
        "properties": {
            "tool": tool(),
            "args": args(),
            "command": command(),
            "http": http(),
            "mcp": table(&["server", "tool"], json!({
                "server": text("The name of a configured upstream server"),
                "tool": text("The upstream's own name of the tool"),
                "field_map": strings_by_name("Argument to field; others keep their name"),
            })),
            "session": session(),
            "browser": browser(),
            "scope": scope(),
            "filesystem": table(&[], json!({
                "read": list("Files and folders to read"),
                "write": list("Files and folders to change"),
                "create": list("Files to make"),
            })),
            "output": output(),
        },
    })
}

fn table(required: &[&str], properties: Value) -> Value {
    json!({
        "type": "object",
        "required": required,
        "additionalProperties": false,
        "properties": properties,
    })
}

fn text(description: &str) -> Value {
    json!({"type": "string", "minLength": 1, "description": description})
}

fn list(description: &str) -> Value {
    json!({"type": "array", "items": {"type": "string"}, "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn positive(description: &str) -> Value {
    json!({"type": "integer", "minimum": 1, "description": description})
}

fn strings_by_name(description: &str) -> Value {
    json!({
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": description,
    })
}

/// A key of the older format: `check` warns of it.
fn outdated(description: &str) -> Value {
    json!({"deprecated": true, "description": description})
}

fn child_detection() -> Value {
    outdated("No effect: all processes of a call are found")
}

fn tier() -> Value {
    json!({"enum": ["info", "low", "medium", "high", "critical"], "default": "low"})
}

fn tool() -> Value {
    table(
        &["name", "version", "description"],
        json!({
            "name": {"type": "string", "pattern": NAME, "description": "What the agent calls"},
            "version": text("A semantic version"),
            "description": text("For agents and people"),
            "binary": {"type": "string", "description": "The program that [command] starts"},
            "mode": {"enum": ["oneshot", "session", "browser"], "default": "oneshot"},
            "dispatch": {"enum": ["exec", "callback"], "default": "exec"},
            "timeout_seconds": {"type": "integer", "minimum": 1, "default": 30},
            "risk_tier": tier(),
            "human_approval": flag("Every call waits for a person"),
            "network_egress": flag("The tool talks to the network"),
            "allow_interpreter": flag("The program may be a shell or another interpreter"),
            "limits": table(&[], json!({
                "nproc": positive("Processes"),
                "nofile": positive("Open files"),
                "fsize_bytes": positive("Bytes of any file written"),
                "address_space_bytes": positive("Bytes of memory"),
                "cpu_seconds": positive("Seconds of processor time"),
            })),
            "cedar": table(&["resource", "action"], json!({
                "resource": text("Such as Files::Repository"),
                "action": text("Such as read"),
            })),
            "evidence": table(&["output_dir"], json!({
                "output_dir": text("Where output is kept"),
                "capture": flag("Whether output is written there"),
                "hash": {"const": "sha256"},
            })),
            "child_detection": child_detection(),
        }),
    )
}

/// The keys of an argument, without `type`.
fn constraints() -> Map<String, Value> {
    let Value::Object(found) = json!({
        "position": {"type": "integer", "minimum": 0},
        "required": flag("A call without it is refused"),
        "description": {"type": "string"},
        "default": {"type": ["string", "number", "boolean"]},
        "allowed": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "pattern": text("Matches the whole value"),
        "sanitize": {"type": "array", "items": {"const": "injection"}},
        "min": {"type": "number"},
        "max": {"type": "number"},
        "min_float": {"type": "number"},
        "max_float": {"type": "number"},
        "clamp": flag("Values out of range become the nearest in it"),
        "schemes": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "scope_check": flag("The value has to be within the scope"),
        "block_internal": flag("No internal address or name"),
        "allow_leading_dash": flag("May begin with - or +"),
        "allow_whitespace": flag("Spaces inside, with `exec`"),
        "allow_at": flag("May begin with @"),
        "allow_internal": flag("localhost, *.local and *.internal are fine"),
        "allow_any": flag("/0 is a range like others"),
        "feeds_decision": flag("Something privileged is decided by it"),
    }) else {
        return Map::new();
    };
    found
}

fn args() -> Value {
    let mut properties = constraints();
    let known: Vec<&str> = TYPES.iter().map(|(word, _)| *word).collect();
    properties.insert(
        "type".to_owned(),
        json!({"anyOf": [{"enum": known}, {"type": "string", "pattern": NAME}]}),
    );
    let mut arg = table(&["type"], Value::Object(properties));
    if let Value::Object(arg) = &mut arg {
        arg.insert("allOf".to_owned(), TYPES.iter().map(|(word, keys)| rule(word, keys)).collect());
    }
    json!({
        "type": "object",
        "propertyNames": {"pattern": NAME},
        "additionalProperties": arg,
    })
}

/// What a built-in type needs, and which constraints mean nothing for it.
fn rule(word: &str, keys: &[&str]) -> Value {
    let foreign = CONSTRAINTS.iter().filter(|key| !keys.contains(key));
    let foreign: Map<String, Value> =
        foreign.map(|key| ((*key).to_owned(), Value::Bool(false))).collect();
    let needed: &[&str] = match word {
        "enum" => &["allowed"],
        "regex_match" => &["pattern"],
        _ => &[],
    };
    json!({
        "if": {"required": ["type"], "properties": {"type": {"const": word}}},
        "then": {"required": needed, "properties": foreign},
    })
}

fn command() -> Value {
    table(
        &[],
        json!({
            "exec": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "template": text("Words, as in a shell; no shell is involved"),
            "executor": text("A program that gets the arguments as TOOLCLAD_ARG_NAME"),
            "end_of_options": {"type": "string", "default": "--"},
            "defaults": {"type": "object"},
            "mappings": {
                "type": "object",
                "additionalProperties": strings_by_name("Value to command text"),
            },
            "child_detection": child_detection(),
            "conditionals": {
                "type": "object",
                "additionalProperties": table(&["when", "template"], json!({
                    "when": text("Such as: port != '' and mode == full"),
                    "template": text("Words for {_NAME}"),
                })),
            },
        }),
    )
}

fn http() -> Value {
    table(
        &["method", "url"],
        json!({
            "method": {"enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]},
            "url": text("Scheme and host are fixed text"),
            "headers": strings_by_name("Values may hold {_secret:name}"),
            "body_template": text("JSON with {name} inside strings"),
            "success_status": status(),
            "error_status": status(),
            "capability": text("A name for what the request may do"),
        }),
    )
}

fn status() -> Value {
    json!({"type": "array", "items": {"type": "integer", "minimum": 100, "maximum": 599}})
}

fn sub_commands(required: &[&str]) -> Value {
    json!({
        "type": "object",
        "propertyNames": {"pattern": NAME},
        "additionalProperties": table(required, json!({
            "pattern": text("Matches the whole command"),
            "description": text("For agents and people"),
            "risk_tier": tier(),
            "human_approval": flag("Waits for a person"),
            "extract_target": flag("The target in it is held against the scope"),
            "finalize": flag("Ends the session and publishes its files"),
            "args": args(),
            "child_detection": child_detection(),
        })),
    })
}

fn session() -> Value {
    table(
        &["startup_command", "ready_pattern"],
        json!({
            "startup_command": text("Words, as in a shell; no shell is involved"),
            "ready_pattern": text("Found in what the program writes when it waits for input"),
            "startup_timeout_seconds": {"type": "integer", "minimum": 1, "default": 30},
            "idle_timeout_seconds": {"type": "integer", "minimum": 1, "default": 300},
            "session_timeout_seconds": {"type": "integer", "minimum": 1, "default": 1800},
            "max_interactions": {"type": "integer", "minimum": 1, "default": 100},
            "interaction": table(&[], json!({
                "input_sanitize": {"type": "array", "items": {"const": "injection"}},
                "output_max_bytes": {"type": "integer", "minimum": 1, "maximum": 1u64 << 30},
                "output_wait_ms": positive("Milliseconds"),
                "child_detection": child_detection(),
            })),
            "child_detection": child_detection(),
            "commands": sub_commands(&["pattern", "description"]),
            "sentinel_command": text("One line that makes the program show that it is done"),
        }),
    )
}

fn browser() -> Value {
    table(
        &[],
        json!({
            "engine": {"const": "cdp"},
            "headless": flag("Without a window"),
            "connect": {"enum": ["launch", "live"], "default": "launch"},
            "extract_mode": {"enum": ["accessibility_tree", "html", "text"]},
            "startup_timeout_seconds": {"type": "integer", "minimum": 1, "default": 30},
            "session_timeout_seconds": {"type": "integer", "minimum": 1, "default": 1800},
            "idle_timeout_seconds": {"type": "integer", "minimum": 1, "default": 300},
            "max_interactions": {"type": "integer", "minimum": 1, "default": 100},
            "scope": table(&[], json!({
                "allowed_domains": list("Hosts, or `*.` and a host"),
                "blocked_domains": list("Hosts, or `*.` and a host"),
                "allow_external": flag("Hosts that are not allowed are not blocked either"),
            })),
            "network": table(&[], json!({
                "allowed_methods": list("HTTP methods"),
                "private_origins": list("Such as http://127.0.0.1:8080"),
            })),
            "commands": sub_commands(&["description"]),
            "state": table(&[], json!({"fields": list("What policy may ask for")})),
            "defaults": outdated("No effect: write its `extract_mode` into [browser]"),
            "child_detection": child_detection(),
        }),
    )
}

fn scope() -> Value {
    table(
        &[],
        json!({
            "targets": list("Addresses and ranges"),
            "allowed_targets": list("The same"),
            "domains": list("Hosts, or `*.` and a host for all below it"),
            "allowed_domains": list("The same"),
            "exclude": list("Never, whatever else is allowed"),
            "blocked_targets": list("The same"),
            "blocked_domains": list("The same"),
        }),
    )
}

fn output() -> Value {
    table(
        &[],
        json!({
            "format": {"enum": ["text", "json", "jsonl", "csv", "xml"], "default": "text"},
            "parser": text("`builtin:` and a format, or an allow-listed program"),
            "envelope": flag("Results come in an envelope"),
            "max_bytes": {"type": "integer", "minimum": 1, "maximum": 1u64 << 30},
            "schema": {"type": "object", "description": "JSON Schema 2020-12 of the results"},
        }),
    )
}
