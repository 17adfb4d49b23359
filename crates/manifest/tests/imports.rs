//! What is imported loads without errors; what cannot be written is named.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

use countersign_manifest::{Imported, Manifest, import_help, import_mcp, import_openapi};
use serde_json::{Map, Value, json};

fn loaded(one: &Imported) -> Manifest {
    let (manifest, found) = Manifest::parse(&one.file, &one.text);
    manifest.unwrap_or_else(|| panic!("{}\n{found:#?}", one.text))
}

/// A document with one path.
fn openapi(server: &str, path: &str, item: Value) -> Result<Vec<Imported>, String> {
    let mut paths = Map::new();
    paths.insert(path.to_owned(), item);
    let document = json!({"openapi": "3.1.0", "servers": [{"url": server}], "paths": paths});
    import_openapi(&document.to_string())
}

fn parameter(name: &str, place: &str, schema: Value) -> Value {
    json!({"name": name, "in": place, "schema": schema})
}

fn get(parameters: &[Value]) -> Value {
    json!({"get": {"operationId": "g", "parameters": parameters}})
}

fn one(found: Result<Vec<Imported>, String>) -> Imported {
    let mut found = found.unwrap();
    assert_eq!(found.len(), 1);
    found.pop().unwrap()
}

const A: &str = "https://a.example";

#[test]
fn a_parameter_of_an_operation_comes_instead_of_that_of_its_path() {
    let text = json!({"type": "string"});
    let mut item = get(&[
        parameter("id", "path", json!({"type": "integer"})),
        parameter("x-a", "header", text.clone()),
        parameter("z", "query", text.clone()),
    ]);
    item["parameters"] = json!([
        parameter("id", "path", text.clone()),
        parameter("X-A", "header", text.clone()),
        parameter("z", "query", text),
    ]);
    let one = one(openapi(A, "/a/{id}", item));
    let manifest = loaded(&one);
    let names: Vec<_> = manifest.args().map(|a| (a.name(), a.type_name())).collect();
    assert_eq!(names, [("id", "integer"), ("x_a", "string"), ("z", "string")]);
}

#[test]
fn a_parameter_of_any_schema_is_an_argument() {
    for schema in [
        json!({"type": "array"}),
        json!({"type": ["array", "null"]}),
        json!({"type": ["object", "null"]}),
        json!({"type": "null"}),
        json!({"type": ["null"]}),
        json!({"type": "file"}),
        json!({"type": "object"}),
        json!({"anyOf": [{"type": "string"}]}),
        json!({"type": "string", "enum": ["a b", "", "c\nd", "e\u{200b}"]}),
        json!({"type": "string", "enum": ["\n"]}),
        json!({"type": "integer", "minimum": 5, "maximum": 1}),
        json!({"type": "number", "minimum": 1e300, "maximum": 5}),
        json!(true),
        json!(null),
    ] {
        for place in ["query", "header", "path"] {
            let one = one(openapi(A, "/a/{x}", get(&[parameter("x", place, schema.clone())]))
                .or_else(|error| match place {
                    // Its path lacks the parameter.
                    "path" => Err(error),
                    _ => openapi(A, "/a", get(&[parameter("x", place, schema.clone())])),
                }));
            assert_eq!(loaded(&one).args().len(), 1, "{place} {schema}\n{}", one.text);
        }
        let body = json!({"post": {"requestBody": {"content": {"application/json": {"schema": {
            "type": "object", "properties": {"k\"\n{x}": schema, "y": schema},
        }}}}}});
        assert_eq!(loaded(&one(openapi(A, "/a", body))).args().len(), 2, "{schema}");
    }
}

#[test]
fn a_header_that_the_sender_writes_is_left_out_by_name() {
    for header in [
        "te",
        "Expect",
        "upgrade",
        "keep-alive",
        "transfer-encoding",
        "Trailer",
        "connection",
        "proxy-authorization",
        "proxy-connection",
        "Host",
        "content-length",
        "Content-Type",
        "Authorization",
        "a b",
    ] {
        let one = one(openapi(A, "/a", get(&[parameter(header, "header", json!({}))])));
        assert_eq!(loaded(&one).args().len(), 0);
        assert!(one.text.contains(&format!("# Left out: {header} in header")), "{}", one.text);
    }
    let one = one(openapi(A, "/a", get(&[parameter("X-A", "header", json!({}))])));
    assert_eq!(loaded(&one).args().len(), 1);
}

#[test]
fn a_path_is_written_canonically_or_left_out_by_name() {
    let parameters = ["id", "a", "b"].map(|name| parameter(name, "path", json!({})));
    for (path, url) in [
        ("/", "/"),
        ("/a", "/a"),
        ("//", "//"),
        ("/é", "/%C3%A9"),
        ("/a\"b|c^", "/a%22b%7Cc%5E"),
        ("/a%2fb", "/a%2fb"),
        ("/{id}/{id}", "/{id}/{id}"),
        ("/{id}:cancel", "/{id}:cancel"),
        ("/{a}{b}", "/{a}{b}"),
    ] {
        let one = one(openapi(A, path, get(&parameters)));
        loaded(&one);
        assert!(one.text.contains(&format!("url = \"{A}{url}\"")), "{path}\n{}", one.text);
    }
    for path in [
        "",
        "a",
        "/a/../b",
        "/a/./b",
        "/%2e%2E/a",
        "/a b",
        "/a?b=c",
        "/a#b",
        "/{missing}",
        "{id}",
        "/a\\b",
        ":8080/x",
        ".evil.example/x",
        "@evil.example/",
        "/{",
        "/a/%2{id}",
    ] {
        let error = openapi(A, path, get(&parameters)).unwrap_err();
        let named = path.replace('\\', "\\\\");
        assert!(
            error.contains(&format!("GET {named}")) || error.contains("GET:"),
            "{path}: {error}"
        );
        // Beside another it is a comment.
        let mut paths = json!({"/good": get(&[])});
        paths[path] = get(&parameters);
        let document = json!({"servers": [{"url": A}], "paths": paths});
        let one = one(import_openapi(&document.to_string()));
        loaded(&one);
        assert!(one.text.starts_with("# Left out: GET"), "{}", one.text);
    }
}

#[test]
fn a_server_is_an_address_and_nothing_more() {
    for server in [
        A,
        "https://a.example/",
        "https://a.example/v1/",
        "HTTPS://A.example:443/V1",
        "https://a.example/a b",
        "http://127.0.0.1:8080",
    ] {
        loaded(&one(openapi(server, "/a", get(&[]))));
    }
    for server in [
        "",
        "/v1",
        "a.example",
        "ftp://a.example/",
        "https://{host}/",
        "https://a.example/?x=1",
        "https://a.example/#f",
        "https://:p@a.example/",
        "https://u@a.example/",
    ] {
        assert!(openapi(server, "/a", get(&[])).is_err(), "{server}");
    }
}

#[test]
fn a_body_keeps_its_fields_but_those_it_cannot_have() {
    let body = json!({"post": {"requestBody": {"content": {"application/json": {"schema": {
        "properties": {"\u{f8f0}a": {}, "b": {}},
    }}}}}});
    let one = one(openapi(A, "/a", body));
    assert_eq!(loaded(&one).args().len(), 1);
    assert!(one.text.contains("# Left out:"), "{}", one.text);
}

#[test]
fn help_becomes_a_manifest_or_the_program_is_refused_by_name() {
    let help = "Usage: x [options]\n  -a, --all   do all\n  --sort   sort\n  --sort-type   by\n  \
                --x   a\n  --x-flags   b\n  --name=NAME   n\n  --a=\"{x}\"   z\n  --1   q\n";
    for program in ["mytool", "./tool", "/opt/{x}/tool", "/opt/my dir/tool", "/opt/d'x/tool"] {
        let one = import_help(help, program).unwrap();
        let manifest = loaded(&one);
        assert_eq!(manifest.program(), program);
        let args = json!({"sort": true, "x": true, "x_flags": false});
        let plan = manifest.plan(args.as_object().unwrap()).unwrap().plan;
        let argv = json!(plan)["argv"].clone();
        assert_eq!(argv, json!([program, "--sort", "--x"]), "{}", one.text);
    }
    for program in ["python3", "/bin/sh", "env", "", "a b", "-x", "/opt/\0/tool"] {
        let error = import_help(help, program).unwrap_err();
        assert!(!error.is_empty(), "{program}");
    }
    assert!(import_help(help, "python3").unwrap_err().contains("python3"));
}

fn tools(list: Value) -> Result<Vec<Imported>, String> {
    import_mcp(&json!({"tools": list}).to_string(), "up")
}

fn tool(properties: Value) -> Value {
    json!([{"name": "t", "inputSchema": {"type": "object", "properties": properties}}])
}

#[test]
fn a_value_of_an_enum_that_cannot_be_written_is_left_out() {
    let long = "x".repeat(5000);
    let odd = json!(["a", "", "b\nc", "d\u{200b}", long]);
    let imported = one(tools(tool(json!({"a": {"enum": odd}}))));
    let schema = loaded(&imported).input_schema();
    assert_eq!(schema["properties"]["a"]["enum"], json!(["a", ""]));
    assert_eq!(imported.text.matches("# Left out").count(), 3, "{}", imported.text);
    let none = one(tools(tool(json!({"a": {"type": "string", "enum": ["\n"]}}))));
    assert_eq!(loaded(&none).args().next().unwrap().type_name(), "string");
}

#[test]
fn a_tool_that_cannot_be_named_is_left_out_by_name() {
    for name in ["", " ", "a b", "\u{200b}", "a\n"] {
        assert!(tools(json!([{"name": name}])).is_err(), "{name:?}");
        let imported = one(tools(json!([{"name": name}, {"name": "good"}])));
        loaded(&imported);
        assert!(imported.text.starts_with("# Left out: the tool `"), "{}", imported.text);
    }
    for server in ["", " ", "a b", "\u{200b}"] {
        assert!(import_mcp("[{\"name\": \"t\"}]", server).is_err(), "{server:?}");
    }
    let odd = ["A-B", "日本", &"x".repeat(200), &"x".repeat(201), "../../etc", "9a", "a"];
    let list: Vec<Value> = odd.iter().map(|name| json!({"name": name})).collect();
    let imported = tools(json!(list)).unwrap();
    assert_eq!(imported.len(), odd.len());
    imported.iter().for_each(|one| drop(loaded(one)));
}

#[test]
fn fields_of_any_name_keep_it() {
    let properties = json!({"": {}, " ": {}, "foo-bar": {}, "foo_bar": {}, "FooBar": {}, "日": {},
        "a\nb": {}, "type": {}, "_x": {}, "9": {}});
    let imported = one(tools(tool(properties)));
    let manifest = loaded(&imported);
    assert_eq!(manifest.args().len(), 8);
    let args: Map<String, Value> =
        manifest.args().map(|arg| (arg.name().to_owned(), json!("v"))).collect();
    let plan = json!(manifest.plan(&args).unwrap().plan);
    let sent: Vec<&str> =
        plan["arguments"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(sent, ["foo-bar", "foo_bar", "FooBar", "日", "a\nb", "type", "_x", "9"]);
}

#[test]
fn what_a_schema_says_beyond_a_manifest_stands_in_comments() {
    let imported = one(tools(json!([{
        "name": "t", "annotations": {"readOnlyHint": true},
        "inputSchema": {"type": "object", "additionalProperties": false, "properties": {
            "p": {"type": "string", "pattern": "^\\d$", "default": "a", "maxLength": 5, "x\n[y]": "\n[tool]"},
            "n": {"type": "integer", "minimum": 0.5, "maximum": 9},
            "u": {"type": "string", "format": "uri"},
            "d": {"type": "string", "format": "date"},
            "e": {"enum": ["a", 1]},
            "l": {"type": "array", "items": {"type": "string"}},
        }},
    }])));
    assert_eq!(loaded(&imported).args().len(), 6);
    let comments: Vec<&str> = imported.text.lines().filter(|l| l.starts_with("# Left")).collect();
    assert_eq!(
        comments,
        [
            "# Left out: annotations: {\"readOnlyHint\":true}",
            "# Left out: additionalProperties: false",
            "# Left out: pattern: '^\\d$'",
            "# Left out: default: \"a\"",
            "# Left out: maxLength: 5",
            "# Left out: x [y]: \"\\\\n[tool]\"",
            "# Left out: minimum: 0.5",
            "# Left out: format: \"date\"",
            "# Left out, as it is no text: 1",
            "# Left out: items: {\"type\":\"string\"}",
        ]
    );
    assert!(imported.text.contains("# The schema wants: array."), "{}", imported.text);
}

#[test]
fn what_a_request_has_beyond_a_manifest_stands_in_comments() {
    let list = json!({"type": "array", "items": {"type": "string"}});
    let mut query = parameter("q", "query", list.clone());
    query["explode"] = json!(false);
    let imported = one(openapi(A, "/a", get(&[query])));
    assert_eq!(loaded(&imported).args().next().unwrap().type_name(), "string");
    for comment in
        ["# The schema wants: array.", "# Left out: items: ", "# Left out: explode: false"]
    {
        assert!(imported.text.contains(comment), "{comment}\n{}", imported.text);
    }
    let body = |content: Value| json!({"post": {"requestBody": {"content": content}}});
    let fields = json!({"schema": {"properties": {"l": list.clone()}, "allOf": []}});
    for (content, arguments, comments) in [
        (
            json!({"application/octet-stream": {"schema": {"type": "string"}}}),
            0,
            vec!["# Left out: the body as application/octet-stream\n"],
        ),
        (
            json!({"application/json": {"schema": list}}),
            0,
            vec!["# Left out: the body as application/json, of type array\n"],
        ),
        (
            json!({"application/json": fields, "text/csv": {}}),
            1,
            vec![
                "# Left out: the body as text/csv\n",
                "# Left out: allOf: []\n",
                "# The schema wants: array.",
            ],
        ),
    ] {
        let imported = one(openapi(A, "/a", body(content)));
        assert_eq!(loaded(&imported).args().len(), arguments, "{}", imported.text);
        for comment in comments {
            assert!(imported.text.contains(comment), "{comment}\n{}", imported.text);
        }
    }
    let mut item = get(&[]);
    item["servers"] = json!([{"url": "https://b.example"}]);
    assert!(one(openapi(A, "/a", item)).text.contains("# Left out: other servers"));
}

#[test]
fn what_help_names_and_a_manifest_lacks_stands_in_comments() {
    for (help, words) in [
        ("Usage: grep [OPTION]... PATTERNS [FILE]...\nSearch\n", "PATTERNS [FILE]..."),
        (
            "usage: x -m grep [-h] [--indent N | --tab]\n            [infile] [outfile]\n\nText",
            "x [infile] [outfile]",
        ),
        ("Usage: grep [options] <COMMAND>\n\nSearch", "<COMMAND>"),
    ] {
        let imported = import_help(help, "grep").unwrap();
        loaded(&imported);
        let comment = format!("# Left out: what is no option: {words}\n");
        assert!(imported.text.contains(&comment), "{comment}{}", imported.text);
    }
    let imported =
        import_help("usage: grep [-x]\n  -x   short\n  -l N, --lines N   lines\n", "grep");
    let imported = imported.unwrap();
    assert_eq!(loaded(&imported).args().len(), 1);
    assert!(imported.text.contains("# Left out: -x\n"), "{}", imported.text);
    assert!(!imported.text.contains("no option"), "{}", imported.text);
}
