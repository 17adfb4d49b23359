//! The answer to `tools/list`.

use serde_json::Value;

use super::{Imported, MAX_ARGS, arg, collected, described, line, loads, name, others, quoted};

/// Makes a manifest of each tool in an answer to `tools/list`, or in its `result`, or in a bare
/// list. `server` is what the upstream is called in the configuration. A tool that no manifest can
/// name is left out, by a comment in the first one.
///
/// # Errors
/// Says why, when there is no list of tools in it, none that a manifest can name, or `server` is no
/// name.
pub fn import_mcp(json: &str, server: &str) -> Result<Vec<Imported>, String> {
    let document: Value = serde_json::from_str(json).map_err(|e| format!("no JSON: {e}"))?;
    let list = [document.pointer("/result/tools"), document.get("tools"), Some(&document)];
    let tools = list.into_iter().flatten().find_map(Value::as_array);
    let tools = tools.ok_or("there is no list of tools in it")?;
    if !plain(server) {
        return Err(
            "the name of the server is empty, or holds a space or something invisible".into()
        );
    }
    let mut taken = Vec::new();
    let mut found = Vec::new();
    for tool in tools {
        let Some(upstream) = tool.get("name").and_then(Value::as_str) else {
            found.push(Err("a tool without a name".to_owned()));
            continue;
        };
        if !plain(upstream) {
            let shown = line(upstream);
            found.push(Err(format!(
                "the tool `{shown}`: its name is empty, or holds a space or something invisible"
            )));
            continue;
        }
        let tool_name = name(upstream, &taken, "tool");
        let made = loads(&tool_name, manifest(&tool_name, upstream, server, tool), upstream);
        if made.is_ok() {
            taken.push(tool_name);
        }
        found.push(made);
    }
    collected(found)
}

/// Whether a name can stand in `[mcp]` as it is.
fn plain(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| countersign_core::text::hides(c) || c.is_whitespace())
}

fn manifest(tool_name: &str, upstream: &str, server: &str, tool: &Value) -> String {
    let description = described(tool.get("description").and_then(Value::as_str), upstream);
    let mut out = String::from(
        "# Imported: read every line. The descriptions are the upstream's words, and `risk_tier`\n\
         # is a guess on the safe side.\n\n",
    );
    out.push_str(&format!(
        "[tool]\nname = {}\nversion = \"0.1.0\"\ndescription = {}\nrisk_tier = \"medium\"\n\
         human_approval = true\n",
        quoted(tool_name),
        quoted(&description),
    ));
    out.push_str(&others(tool, &["name", "title", "description", "inputSchema"]));
    let schema = tool.get("inputSchema");
    let known = ["$schema", "type", "title", "properties", "required"];
    out.push_str(&schema.map(|schema| others(schema, &known)).unwrap_or_default());
    let required: Vec<&str> = schema
        .and_then(|schema| schema.get("required"))
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let mut taken = Vec::new();
    let mut fields = String::new();
    for (field, schema) in properties.into_iter().flatten() {
        if taken.len() == MAX_ARGS {
            out.push_str(&format!("# Left out, one of too many: {}\n", line(field)));
            continue;
        }
        if field.trim().is_empty() {
            out.push_str("# Left out: a field without a name\n");
            continue;
        }
        let arg_name = name(field, &taken, "arg");
        let required = required.contains(&field.as_str());
        out.push_str(&arg(&arg_name, schema, required, "literal_text"));
        if arg_name != *field {
            fields.push_str(&format!("{arg_name} = {}\n", quoted(field)));
        }
        taken.push(arg_name);
    }
    out.push_str(&format!("\n[mcp]\nserver = {}\ntool = {}\n", quoted(server), quoted(upstream)));
    if !fields.is_empty() {
        out.push_str(&format!("\n[mcp.field_map]\n{fields}"));
    }
    out.push_str("\n[output]\nformat = \"json\"\n\n[output.schema]\ntype = \"object\"\n");
    out
}
