//! What holds for every text and every value. `cargo xtask fuzz` runs these with many cases.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

mod common;

use countersign_core::plan::{Piece, Plan};
use countersign_manifest::{
    Manifest, Severity, format, import_help, import_mcp, import_openapi, parse_arguments,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const HOSTILE: &str = "[ -~\\n\\t'\"\\\\;{}$`|&<>\\u{0}\\u{202e}\\u{200b}é日./:%-]{0,24}";
const PIECE: &str = "[\\[\\]{}'\"=.a-z_\\\\\\n\\t0-9é#,-]{0,12}";

const TYPES: [&str; 17] = [
    "type = \"string\"\nallow_leading_dash = true\nallow_whitespace = true\nallow_at = true",
    "type = \"literal_text\"",
    "type = \"integer\"\nallow_leading_dash = true",
    "type = \"number\"\nallow_leading_dash = true",
    "type = \"port\"",
    "type = \"boolean\"",
    "type = \"enum\"\nallowed = [\"a b\", \"-x\"]",
    "type = \"scope_target\"\nallow_any = true\nallow_internal = true",
    "type = \"url\"\nallow_internal = true",
    "type = \"path\"\nallow_whitespace = true",
    "type = \"credential_file\"",
    "type = \"ip_address\"",
    "type = \"cidr\"\nallow_any = true",
    "type = \"duration\"",
    "type = \"regex_match\"\npattern = \".*\"",
    "type = \"msf_options\"",
    "type = \"agent_summary\"",
];

/// Valid texts of every backend to begin from.
fn corpus() -> Vec<String> {
    let file = include_str!("../../../fixtures/manifest/accept/manifests.ndjson");
    let text = |line: &str| {
        let case: Value = serde_json::from_str(line).unwrap();
        case["text"].as_str().unwrap().to_owned()
    };
    file.lines().map(text).collect()
}

fn edited(at: usize, len: usize, file: usize, piece: &str) -> String {
    let texts = corpus();
    let mut text = texts[file % texts.len()].replace("\n[", "   # note\n\n\n  # head\n[");
    let floor = |text: &str, mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (floor(&text, at), floor(&text, at + len));
    text.replace_range(start..end, piece);
    text
}

fn call(values: &[(&str, &str)]) -> Map<String, Value> {
    values.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
}

proptest! {
    /// Whatever the type, an accepted value neither adds nor removes nor moves an element, and
    /// equal calls have equal plans.
    #[test]
    fn a_value_of_any_type_stays_in_its_element(ty in 0usize..17, value in HOSTILE) {
        let manifest = common::manifest(&format!(
            "[args.a]\ntype = \"string\"\n[args.x]\n{}\n[args.z]\ntype = \"string\"\n[command]\n\
             exec = [\"tool\", \"--a={{a}}\", \"{{x}}\", \"mid\", \"{{z}}\"]\nend_of_options = \"\"",
            TYPES[ty],
        ));
        let args = call(&[("a", "1"), ("x", &value), ("z", "2")]);
        if let Ok(planned) = manifest.plan(&args) {
            let argv = common::argv(&planned);
            prop_assert_eq!(argv.len(), 5);
            let others = [&argv[0], &argv[1], &argv[3], &argv[4]];
            prop_assert_eq!(others, ["tool", "--a=1", "mid", "2"]);
            prop_assert!(!argv[2].contains('\0'));
            prop_assert_eq!(manifest.plan(&args), Ok(planned));
        }
    }

    /// A value cannot change where a request goes, nor add a segment, a pair, a header or a
    /// member.
    #[test]
    fn a_value_stays_in_its_place_of_a_request(value in HOSTILE, summary in HOSTILE) {
        let text = "[tool]\nname = \"t\"\nversion = \"1.0.0\"\ndescription = \"d\"\n\
            [args.p]\ntype = \"string\"\nrequired = true\nallow_leading_dash = true\n\
            [args.s]\ntype = \"agent_summary\"\n[args.l]\ntype = \"literal_text\"\n[http]\n\
            method = \"POST\"\nurl = \"https://a.example/v1/{p}/end?q={s}&r={p}\"\n\
            body_template = '{\"l\": \"{l}\", \"s\": [\"{s}\"]}'\n\
            headers = { A = \"{s}\", B = \"{_secret:k}\" }\n[output]\nschema = {}\n";
        let (manifest, found) = Manifest::parse("t.clad.toml", text);
        let manifest = manifest.unwrap_or_else(|| panic!("{found:?}"));
        let calls = [
            call(&[("p", &value), ("s", "a"), ("l", "a")]),
            call(&[("p", "a"), ("s", &summary), ("l", "a")]),
            call(&[("p", "a"), ("s", "a"), ("l", &value)]),
        ];
        for args in calls {
            let Ok(planned) = manifest.plan(&args) else { continue };
            let Plan::Http(plan) = planned.plan else { panic!() };
            let url = url::Url::parse(&plan.url).unwrap();
            prop_assert_eq!(url.as_str(), &plan.url);
            prop_assert_eq!(url.host_str(), Some("a.example"));
            let segments: Vec<_> = url.path_segments().unwrap().collect();
            prop_assert_eq!((segments.len(), segments[0], segments[2]), (3, "v1", "end"));
            prop_assert_eq!(url.query_pairs().count(), 2);
            prop_assert_eq!(plan.headers.len(), 3);
            for header in &plan.headers {
                for piece in &header.value {
                    if let Piece::Text(text) = piece {
                        prop_assert!(!text.contains(['\r', '\n']));
                    }
                }
            }
            let Some([Piece::Text(body)]) = plan.body.as_deref() else { panic!() };
            let body: Value = serde_json::from_str(body).unwrap();
            prop_assert_eq!(&body["l"], &args["l"]);
            prop_assert_eq!(&body, &json!({"l": args["l"], "s": [args["s"]]}));
        }
    }

    /// The URL of a plan is canonical, and its path has the segments of the template, each of
    /// which is none that moves.
    #[test]
    fn the_url_of_a_plan_is_canonical(
        pieces in prop::collection::vec(
            prop::sample::select(vec!["/", "/", "a", ".", "%2e", "%2E", "%", "{x}", "{x}"]), 1..7,
        ),
        query in "(\\?[&=a{x}%é\"]{0,6})?", value in "[.%2eE]{1,2}|[a.%2eE/é?#]{1,6}",
    ) {
        let template = format!("/{}{query}", pieces.concat());
        let text = format!(
            "[tool]\nname = \"t\"\nversion = \"1.0.0\"\ndescription = \"d\"\n[args.x]\n\
             type = \"string\"\nrequired = true\n[http]\nmethod = \"GET\"\n\
             url = \"https://a.example{template}\"\n[output]\nschema = {{}}\n"
        );
        let Some(manifest) = Manifest::parse("t.clad.toml", &text).0 else { return Ok(()) };
        let Ok(planned) = manifest.plan(&call(&[("x", &value)])) else { return Ok(()) };
        let Plan::Http(plan) = planned.plan else { panic!() };
        let url = url::Url::parse(&plan.url).unwrap();
        prop_assert_eq!(url.as_str(), &plan.url);
        let path = template.split('?').next().unwrap();
        let segments: Vec<&str> = url.path().split('/').collect();
        prop_assert_eq!(segments.len(), path.split('/').count());
        for (segment, template) in segments.iter().zip(path.split('/')) {
            let dots = segment.to_ascii_lowercase().replace("%2e", ".");
            prop_assert!(dots != "." && dots != "..");
            let holds = template.contains("{x}");
            prop_assert!(holds || segment == &template);
        }
    }

    /// Any text is a manifest or has an error, whatever stands in it.
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,300}") {
        let (manifest, found) = Manifest::parse("t.clad.toml", &text);
        prop_assert!(manifest.is_some() || found.iter().any(|d| d.severity == Severity::Error));
        let _ = parse_arguments(&text);
        let _ = format(&text);
        let _ = import_mcp(&text, "s");
        let _ = import_openapi(&text);
        let _ = import_help(&text, "tool");
    }

    /// Valid manifests with one piece replaced reach deeper than noise does. Laying one out
    /// changes neither what it says nor what is found in it.
    #[test]
    fn an_edit_is_read_or_refused_and_layout_keeps_its_meaning(
        file in 0usize..100, at in 0usize..1200, len in 0usize..30, piece in PIECE,
    ) {
        let text = edited(at, len, file, &piece);
        let codes = common::codes(&text);
        let Ok(before) = text.parse::<toml::Table>() else { return Ok(()) };
        let laid_out = format(&text).unwrap();
        let after: toml::Table = laid_out.parse().unwrap_or_else(|e| panic!("{e}\n{laid_out}"));
        prop_assert_eq!(before, after, "{}\n---\n{}", text, laid_out);
        let again = format(&laid_out).unwrap();
        prop_assert!(again == laid_out, "{text}\n--- once\n{laid_out}\n--- twice\n{again}");
        prop_assert_eq!(common::codes(&laid_out), codes);
        let comments = |text: &str| text.matches('#').count();
        prop_assert_eq!(comments(&text), comments(&laid_out));
    }

    /// Whatever a server says of its tools, the manifest made of it loads.
    #[test]
    fn an_imported_tool_loads(
        name in "\\PC{1,12}", field in "\\PC{1,12}", text in "\\PC{0,40}", kind in "[a-z]{0,8}",
        required in any::<bool>(),
    ) {
        let property = json!({"type": kind, "description": text, "enum": [field, text]});
        let list = json!({"tools": [{"name": name, "description": text, "inputSchema": {
            "type": "object",
            "properties": {
                field.clone(): property, "n": {"type": "integer", "minimum": 3, "maximum": 2},
                "list": {"type": "array"}, "x": {"type": "number", "minimum": -0.5},
            },
            "required": if required { vec![field] } else { vec![] },
        }}]});
        let plain = name.bytes().all(|b| b.is_ascii_graphic());
        match import_mcp(&list.to_string(), "up") {
            Ok(all) => for one in all {
                let (manifest, found) = Manifest::parse(&one.file, &one.text);
                prop_assert!(manifest.is_some(), "{}\n{:?}", one.text, found);
                prop_assert!(!one.file.contains(['/', '\\']));
            },
            Err(error) => prop_assert!(!plain, "{error}"),
        }
    }

    /// Whatever a document says of its operations, the manifests made of it load. An operation with
    /// nothing odd in its path is among them.
    #[test]
    fn an_imported_operation_loads(
        name in "\\PC{0,8}", field in "\\PC{0,8}", text in "\\PC{0,20}",
        kind in "array|null|file|string|integer|[a-z]{0,8}", place in "path|query|header|cookie",
        path in "/[a-zé.\"{} %?#\\\\]{0,8}",
    ) {
        let parameter = json!({"name": field, "in": place, "schema": {
            "type": [kind, "null"], "enum": [text, field], "description": text,
        }});
        let schema = json!({"properties": {field.clone(): {"type": kind}, "x": {"enum": [text]}}});
        let operation = json!({"operationId": name, "summary": text, "parameters": [parameter],
            "requestBody": {"content": {"application/json": {"schema": schema}}}});
        let document = json!({"servers": [{"url": "https://a.example/v1"}], "paths": {
            path: {"post": operation, "parameters": [parameter]}, "/plain": {"put": operation},
        }});
        let all = import_openapi(&document.to_string()).unwrap();
        prop_assert!(all.iter().any(|one| one.text.contains("/plain")));
        for one in all {
            let (manifest, found) = Manifest::parse(&one.file, &one.text);
            prop_assert!(manifest.is_some(), "{}\n{:?}", one.text, found);
        }
    }

    /// Whatever a program prints, the manifest made of it loads.
    #[test]
    fn imported_help_loads(
        help in "([ ]{0,2}(--[a-z-]{1,6}(=[A-Z{}]{1,3})?|\\PC{0,6})[ ]{1,2}\\PC{0,8}\n){0,6}",
        folder in "(/[a-z{}'\" é]{1,6}/)?",
    ) {
        let one = import_help(&help, &format!("{folder}tool")).unwrap();
        let (manifest, found) = Manifest::parse(&one.file, &one.text);
        prop_assert!(manifest.is_some(), "{}\n{:?}", one.text, found);
    }
}
