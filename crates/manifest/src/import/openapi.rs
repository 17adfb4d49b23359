//! OpenAPI 3 in JSON.

use serde_json::Value;

use super::{
    Imported, MAX_ARGS, Made, arg, collected, described, kind_of, line, loads, name, others, quoted,
};
use crate::parse_http::FRAMING;

const METHODS: [&str; 7] = ["get", "head", "post", "put", "patch", "delete", "options"];

/// Makes a manifest of each operation of an OpenAPI 3 document. References inside the document
/// are followed once. An operation that no manifest can say is left out, by a comment in the first
/// one.
///
/// # Errors
/// Says why, when the document is not JSON, has no paths, names no server with a fixed http or
/// https address, or has no operation that a manifest can say.
pub fn import_openapi(json: &str) -> Result<Vec<Imported>, String> {
    let document: Value = serde_json::from_str(json)
        .map_err(|e| format!("no JSON: {e}; a YAML document has to be converted first"))?;
    let paths = document.get("paths").and_then(Value::as_object).ok_or("it has no `paths`")?;
    let server = document.pointer("/servers/0/url").and_then(Value::as_str).unwrap_or_default();
    let server = url::Url::parse(server)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && !url.authority().contains('@'))
        .filter(|_| !server.contains(['{', '}', '?', '#']))
        .ok_or("its first server has no fixed address of http or https, and nothing more")?;
    let mut taken = Vec::new();
    let mut found = Vec::new();
    for (path, item) in paths {
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let id = operation.get("operationId").and_then(Value::as_str);
            let tool = name(id.unwrap_or(&format!("{method} {path}")), &taken, "call");
            let what = format!("{} {path}", method.to_uppercase());
            let made: Made =
                match manifest(&document, &server, path, item, method, operation, &tool) {
                    Ok(text) => loads(&tool, text, &what),
                    Err(why) => Err(format!("{}: {why}", line(&what))),
                };
            if made.is_ok() {
                taken.push(tool);
            }
            found.push(made);
        }
    }
    collected(found)
}

/// The parameters of an operation; its own come instead of those of its path.
fn parameters<'a>(
    document: &'a Value,
    item: &'a Value,
    operation: &'a Value,
) -> Vec<(&'a str, &'a str, &'a Value)> {
    let mut found: Vec<(&str, &str, &Value)> = Vec::new();
    let lists = [item.get("parameters"), operation.get("parameters")];
    for parameter in lists.into_iter().flatten().filter_map(Value::as_array).flatten() {
        let parameter = follow(document, parameter);
        let text = |key: &str| parameter.get(key).and_then(Value::as_str);
        let (Some(field), Some(place)) = (text("name"), text("in")) else { continue };
        let same = |(known, other, _): &&mut (&str, &str, &Value)| {
            *other == place
                && (*known == field || (place == "header" && known.eq_ignore_ascii_case(field)))
        };
        match found.iter_mut().find(same) {
            Some(known) => *known = (field, place, parameter),
            None => found.push((field, place, parameter)),
        }
    }
    found
}

/// Says why, for a path that no fixed text can stand for.
fn manifest(
    document: &Value,
    server: &url::Url,
    path: &str,
    item: &Value,
    method: &str,
    operation: &Value,
    tool: &str,
) -> Result<String, &'static str> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    let description = described(text("summary").or_else(|| text("description")), tool);
    let reads = matches!(method, "get" | "head" | "options");
    let (tier, approval) = if reads { ("low", "false") } else { ("medium", "true") };
    let mut out = format!(
        "# Imported: read every line. If the server asks for a key, add it as a header:\n\
         # headers = {{ Authorization = \"Bearer {{_secret:NAME}}\" }}\n\n\
         [tool]\nname = {}\nversion = \"0.1.0\"\ndescription = {}\nrisk_tier = \"{tier}\"\n\
         human_approval = {approval}\nnetwork_egress = true\n",
        quoted(tool),
        quoted(&description),
    );
    let mut taken: Vec<String> = Vec::new();
    let mut route = path.to_owned();
    let mut query: Vec<String> = Vec::new();
    let mut headers: Vec<String> = Vec::new();
    for (field, place, parameter) in parameters(document, item, operation) {
        if taken.len() == MAX_ARGS {
            out.push_str(&format!("# Left out, one of too many: {}\n", line(field)));
            continue;
        }
        let key = format!("{{{field}}}");
        let arg_name = name(field, &taken, "arg");
        match place {
            "path" if route.contains(&key) && !field.is_empty() => {
                route = route.replace(&key, &format!("\u{1}{arg_name}\u{2}"));
            }
            "query" => query.push(format!("{}={{{arg_name}}}", encoded(field))),
            "header" if token(field) => {
                headers.push(format!("{} = \"{{{arg_name}}}\"", quoted(field)));
            }
            _ => {
                out.push_str(&format!("# Left out: {} in {}\n", line(field), line(place)));
                continue;
            }
        }
        let empty = Value::Null;
        let schema = follow(document, parameter.get("schema").unwrap_or(&empty));
        let required = place == "path" || parameter.get("required") == Some(&Value::Bool(true));
        out.push_str(&arg(&arg_name, schema, required, "string"));
        let known = ["name", "in", "required", "schema", "description", "example", "examples"];
        out.push_str(&others(parameter, &known));
        taken.push(arg_name);
    }
    let content = operation.get("requestBody").map(|body| follow(document, body));
    let content = content.and_then(|body| body.get("content")).and_then(Value::as_object);
    let json = content.and_then(|content| content.get("application/json"));
    let body = json.and_then(|json| json.get("schema")).map(|schema| follow(document, schema));
    let fields = body.and_then(|body| body.get("properties")).is_some_and(Value::is_object);
    for media in content.into_iter().flatten().map(|(media, _)| media) {
        if media == "application/json" && fields {
            continue;
        }
        let kind = body.map(kind_of).filter(|kind| media == "application/json" && !kind.is_empty());
        let kind = kind.map(|kind| format!(", of type {}", line(kind))).unwrap_or_default();
        out.push_str(&format!("# Left out: the body as {}{kind}\n", line(media)));
    }
    if let Some(body) = body.filter(|_| fields) {
        let known = ["type", "title", "description", "properties", "required", "example"];
        out.push_str(&others(body, &known));
    }
    for _ in [item, operation].into_iter().filter(|place| place.get("servers").is_some()) {
        out.push_str("# Left out: other servers than those of the document\n");
    }
    let mut members = Vec::new();
    let properties = body.and_then(|body| body.get("properties")).and_then(Value::as_object);
    for (field, schema) in properties.into_iter().flatten() {
        if taken.len() == MAX_ARGS || field.contains(super::PRIVATE) {
            out.push_str(&format!("# Left out: {} in the body\n", line(field)));
            continue;
        }
        let required = body.and_then(|body| body.get("required")).and_then(Value::as_array);
        let required = required.is_some_and(|names| names.iter().any(|n| n == field.as_str()));
        let arg_name = name(field, &taken, "arg");
        out.push_str(&arg(&arg_name, follow(document, schema), required, "literal_text"));
        let key = Value::from(field.as_str()).to_string().replace('{', "{{").replace('}', "}}");
        members.push(format!("{key}: {{{arg_name}}}"));
        taken.push(arg_name);
    }
    if !route.starts_with('/') {
        return Err("the path does not begin with a slash");
    }
    if route.contains(['#', '?', '\\']) || route.chars().any(char::is_whitespace) {
        return Err("the path holds a `#`, a question mark, a backslash or a space");
    }
    let mut fixed = String::new();
    for c in route.chars() {
        match c {
            '\u{1}' => fixed.push('{'),
            '\u{2}' => fixed.push('}'),
            '{' | '}' => return Err("a part of the path is no parameter"),
            c if c.is_ascii() && !"\"<>^`|".contains(c) => fixed.push(c),
            c => fixed.extend(url::form_urlencoded::byte_serialize(c.to_string().as_bytes())),
        }
    }
    let route = fixed;
    let base = server.as_str().trim_end_matches('/');
    let mut url = format!("{base}{route}");
    if !query.is_empty() {
        url.push_str(&format!("?{}", query.join("&")));
    }
    out.push_str(&format!(
        "\n[http]\nmethod = \"{}\"\nurl = {}\n",
        method.to_uppercase(),
        quoted(&url)
    ));
    if !members.is_empty() {
        // Braces of the document are doubled, so that only names are holes.
        let body = format!("{{{{{}}}}}", members.join(", "));
        out.push_str(&format!("body_template = {}\n", quoted(&body)));
    }
    if !headers.is_empty() {
        out.push_str(&format!("\n[http.headers]\n{}\n", headers.join("\n")));
    }
    out.push_str("\n[output]\nformat = \"json\"\n\n[output.schema]\ntype = \"object\"\n");
    Ok(out)
}

fn follow<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let reference = value.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
    reference.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn token(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !FRAMING.contains(&lower.as_str())
        && !["content-type", "authorization"].contains(&lower.as_str())
}
