//! What is wrong with manifests, and what is said about it.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

mod common;

use common::{OUTPUT, TOOL, codes, text};
use countersign_manifest::{Manifest, ManifestSet, Severity, line_column};

const EXEC: &str = "[command]\nexec = [\"tool\"]\n";

/// `[args.x]` with these lines, used by the command.
fn arg(lines: &str) -> String {
    text(&format!("[args.x]\n{lines}\n[command]\nexec = [\"tool\", \"{{x}}\"]\n"))
}

fn command(lines: &str) -> String {
    text(&format!("[command]\n{lines}\n"))
}

fn tool(lines: &str) -> String {
    format!("{TOOL}{lines}\n{OUTPUT}{EXEC}")
}

fn output(lines: &str) -> String {
    format!("{TOOL}{EXEC}[output]\nschema = {{}}\n{lines}\n")
}

#[test]
fn every_rule_has_its_code() {
    let enum_x = "[args.x]\ntype = \"enum\"\nallowed = [\"a\", \"b\"]\n";
    let mapped = |lines: &str| {
        text(&format!(
            "{enum_x}[command]\nexec = [\"tool\", \"{{_x_flags}}\"]\n[command.mappings.x]\n{lines}\n"
        ))
    };
    let when = |when: &str| {
        text(&format!(
            "{enum_x}[command]\nexec = [\"tool\", \"{{_c}}\"]\n\
             [command.conditionals.c]\nwhen = \"{when}\"\ntemplate = \"--c {{x}}\"\n"
        ))
    };
    let cases: Vec<(String, &[&str])> = vec![
        // The file.
        (tool(""), &[]),
        (String::new(), &["missing_table", "missing_table", "no_backend"]),
        ("a = ".to_owned(), &["syntax"]),
        ("[tool]\nname = \"a\"\nname = \"b\"".to_owned(), &["syntax"]),
        ("#".repeat((1 << 20) + 1), &["too_large"]),
        (format!("{TOOL}{EXEC}"), &["missing_table"]),
        (format!("{TOOL}{OUTPUT}"), &["no_backend"]),
        (tool("[outputs]"), &["unknown_table"]),
        (format!("tool = 3\n{OUTPUT}{EXEC}"), &["wrong_type"]),
        // [tool]
        (format!("[tool]\n{OUTPUT}{EXEC}"), &["missing_key"; 4]),
        (tool("").replace("\"t\"", "\"T\""), &["bad_name"]),
        (tool("").replace("\"t\"", "\"_t\""), &["bad_name"]),
        (tool("").replace("\"t\"", &format!("\"{}\"", "t".repeat(65))), &["bad_name"]),
        (tool("").replace("\"A tool\"", "\" \""), &["empty_value"]),
        (tool("").replace("\"A tool\"", "7"), &["wrong_type"]),
        (tool("").replace("1.0.0", "1.0"), &["version_not_semver"]),
        (tool("").replace("1.0.0", "01.0.0"), &["version_not_semver"]),
        (tool("").replace("1.0.0", "1.0.0-rc.1+b"), &[]),
        (tool("nmae = 1"), &["unknown_key"]),
        (tool("mode = \"oneshot\"\ndispatch = \"exec\""), &[]),
        (tool("mode = \"daemon\""), &["unknown_mode"]),
        (tool("dispatch = \"fork\""), &["unknown_dispatch"]),
        (tool("timeout_seconds = 0"), &["out_of_range"]),
        (tool("timeout_seconds = -1"), &["out_of_range"]),
        (tool("timeout_seconds = 1.5"), &["wrong_type"]),
        (tool("timeout_seconds = 86400"), &[]),
        (tool("timeout_seconds = 86401"), &["long_timeout"]),
        (tool("risk_tier = \"Low\""), &["unknown_risk_tier"]),
        (tool("risk_tier = \"critical\""), &[]),
        (tool("human_approval = \"yes\""), &["wrong_type"]),
        (tool("[tool.cedar]\nresource = \"A\""), &["missing_key"]),
        (tool("[tool.cedar]\nresource = \"A\"\naction = \"b\""), &[]),
        (tool("[tool.limits]\nnproc = 0"), &["out_of_range"]),
        (tool("[tool.limits]\nnproc = 1\ncores = 2"), &["unknown_key"]),
        // [args]
        (tool("[args]"), &[]),
        (tool("[args]\nx = 1"), &["wrong_type"]),
        (arg("type = \"string\""), &[]),
        (arg("required = true"), &["missing_key"]),
        (arg("type = \"text\""), &["unknown_type"]),
        (arg("type = \"strng\""), &["unknown_type"]),
        (arg("type = \"string\"\nrequird = true"), &["unknown_key"]),
        (arg("type = \"string\"\nallowed = [\"a\"]"), &["constraint_not_applicable"]),
        (arg("type = \"string\"\nschemes = [\"http\"]"), &["constraint_not_applicable"]),
        (arg("type = \"integer\"\nscope_check = true"), &["constraint_not_applicable"]),
        (arg("type = \"integer\"\nmin_float = 1.0"), &["constraint_not_applicable"]),
        (arg("type = \"number\"\nmin = 1"), &[]),
        (arg("type = \"port\"\nmin = 1"), &["constraint_not_applicable"]),
        (arg("type = \"literal_text\"\nallow_whitespace = true"), &["constraint_not_applicable"]),
        (arg("type = \"url\"\nallow_any = true"), &["constraint_not_applicable"]),
        (arg("type = \"url\"\nscope_check = false"), &[]),
        (arg("type = \"url\"\nschemes = []"), &["empty_value"]),
        (arg("type = \"url\"\nschemes = [\"file\"]"), &["bad_scheme"]),
        (arg("type = \"url\"\nschemes = [\"HTTP\"]"), &["bad_scheme"]),
        (
            arg("type = \"url\"
allow_internal = true
block_internal = true"),
            &["conflicting_keys"],
        ),
        (arg("type = \"enum\""), &["missing_key"]),
        (arg("type = \"enum\"\nallowed = []"), &["empty_value"]),
        (arg("type = \"enum\"\nallowed = [1]"), &["wrong_type"]),
        (arg("type = \"enum\"\nallowed = [\"a\", \"a\"]"), &["duplicate_allowed"]),
        (arg("type = \"enum\"\nallowed = [\"a\\u202eb\"]"), &["bad_allowed"]),
        (arg("type = \"integer\"\nmin = 2\nmax = 1"), &["min_above_max"]),
        (arg("type = \"number\"\nmin_float = 2\nmax_float = 1.5"), &["min_above_max"]),
        (arg("type = \"number\"\nmin_float = nan"), &["wrong_type"]),
        (arg("type = \"regex_match\""), &["missing_key"]),
        (arg("type = \"regex_match\"\npattern = \"^a$\""), &[]),
        (arg("type = \"string\"\npattern = \"[\""), &["bad_pattern"]),
        (arg("type = \"string\"\npattern = \"^a)|(?:b$\""), &["bad_pattern"]),
        (arg("type = \"string\"\npattern = \"a\""), &["unanchored_pattern"]),
        (arg("type = \"string\"\nsanitize = []"), &["sanitize_off"]),
        (arg("type = \"string\"\nsanitize = [\"injection\"]"), &[]),
        (arg("type = \"string\"\nsanitize = [\"none\"]"), &["unknown_sanitizer"]),
        (arg("type = \"string\"\ndefault = \"\""), &["invalid_default"]),
        (arg("type = \"string\"\ndefault = \"a;b\""), &["invalid_default"]),
        (arg("type = \"port\"\ndefault = 0"), &["invalid_default"]),
        (arg("type = \"integer\"\nmax = 3\ndefault = 4"), &["invalid_default"]),
        (arg("type = \"integer\"\ndefault = 1979-05-27"), &["invalid_default"]),
        (arg("type = \"number\"\ndefault = inf"), &["invalid_default"]),
        (arg("type = \"string\"\nrequired = true\ndefault = \"a\""), &["required_with_default"]),
        (tool("[args._x]\ntype = \"string\""), &["unused_argument", "bad_name"]),
        (tool("[args.x]\ntype = \"string\""), &["unused_argument"]),
        (
            text(
                "[args.a]\ntype = \"port\"\nposition = 1\n[args.b]\ntype = \"port\"\nposition = 1\n\
                 [command]\nexec = [\"tool\", \"{a}\", \"{b}\"]",
            ),
            &["duplicate_position"],
        ),
        // [command]
        (command(""), &["no_backend"]),
        (command("exec = []"), &["empty_value"]),
        (command("exec = \"tool\""), &["wrong_type"]),
        (command("exec = [\"tool\", 1]"), &["wrong_type"]),
        (command("template = \" \""), &["empty_value"]),
        (command("exec = [\"tool\"]\ntemplate = \"tool\""), &["several_backends"]),
        (command("exce = [\"tool\"]"), &["no_backend", "unknown_key"]),
        (command("exec = [\"tool\", \"{y}\"]"), &["unknown_placeholder"]),
        (command("exec = [\"tool\", \"{\"]"), &["bad_placeholder"]),
        (command("exec = [\"tool\", \"a\\u0000\"]"), &["nul"]),
        (command("template = \"tool 'a\""), &["unbalanced_quotes"]),
        (command("exec = [\"{p}\"]\ndefaults = { p = \"tool\" }"), &[]),
        (command("exec = [\"\"]"), &["program_not_fixed"]),
        (command("exec = [\"other\"]"), &["program_not_binary"]),
        (command("exec = [\"/usr/bin/tool\"]"), &[]),
        (command("exec = [\"bin/tool\"]"), &["relative_program"]),
        (command("exec = [\"tool\"]\nend_of_options = \"x\""), &["bad_end_of_options"]),
        (
            arg("type = \"string\"").replace("[\"tool\", \"{x}\"]", "[\"{x}\"]"),
            &["program_not_fixed"],
        ),
        (
            arg("type = \"string\"").replace("\"{x}\"", "\"say '{x}'\""),
            &["unused_argument", "placeholder_in_quotes"],
        ),
        (
            arg("type = \"string\"\nallow_whitespace = true")
                .replace("exec = [\"tool\", \"{x}\"]", "template = \"tool {x}\""),
            &["whitespace_needs_exec"],
        ),
        (
            arg("type = \"literal_text\"\nrequired = true").replace("{x}", "--{x}"),
            &["literal_text_not_alone"],
        ),
        (
            arg("type = \"literal_text\"\nrequired = true").replace("{x}", "-c echo={x}"),
            &["literal_text_not_alone"],
        ),
        (arg("type = \"literal_text\"\nrequired = true").replace("{x}", "--text={x}"), &[]),
        (
            arg("type = \"literal_text\"\nrequired = true") + "end_of_options = \"\"",
            &["unprotected_dash"],
        ),
        (
            arg("type = \"literal_text\"\nrequired = true").replace("\"{x}\"", "\"--\", \"{x}\"")
                + "end_of_options = \"\"",
            &[],
        ),
        (
            arg("type = \"string\"\nallow_leading_dash = true").replace("{x}", "{x}.txt"),
            &["unprotected_dash"],
        ),
        (
            arg("type = \"literal_text\"\nrequired = true").replace("\"{x}\"", "\"-m\", \"{x}\""),
            &["flag_value"],
        ),
        (arg("type = \"path\"").replace("\"{x}\"", "\"--dry-run\", \"{x}\""), &[]),
        (arg("type = \"path\"").replace("\"{x}\"", "\"--dry-run\", \"--\", \"{x}\""), &[]),
        (arg("type = \"path\"").replace("\"{x}\"", "\"{x}\", \"-l\""), &["option_after_operand"]),
        // Interpreters.
        (tool("").replace("\"tool\"", "\"bash\""), &["interpreter"]),
        (tool("").replace("\"tool\"", "\"/usr/bin/python3.12\""), &["interpreter"]),
        (tool("").replace("\"tool\"", "\"env\""), &["interpreter"]),
        (tool("allow_interpreter = true").replace("\"tool\"", "\"bash\""), &[]),
        // Mappings and conditionals.
        (mapped("a = \"-a\"\nb = \"-b 'c d'\""), &[]),
        (mapped("a = \"-a\""), &["mapping_incomplete"]),
        (mapped("a = \"-a\"\nb = \"\"\nc = \"\""), &["mapping_unknown_value"]),
        (mapped("a = \"-a\"\nb = 1"), &["wrong_type"]),
        (mapped("a = \"-a\"\nb = \"'\""), &["unbalanced_quotes"]),
        (
            mapped("a = \"\"\nb = \"\"").replace("{_x_flags}", "-{_x_flags}"),
            &["unused_argument", "splice_not_alone", "unused_mapping"],
        ),
        (mapped("a = \"\"\nb = \"\"").replace("{_x_flags}", "{x}"), &["unused_mapping"]),
        (
            mapped("a = \"\"\nb = \"\"").replace("mappings.x", "mappings.y"),
            &["unused_argument", "unknown_placeholder", "mapping_unknown_argument"],
        ),
        (arg("type = \"string\"") + "[command.mappings.x]\na = \"-a\"", &["mapping_type"]),
        (when("x == a"), &[]),
        (when("x == a and (x != b or x == '')"), &[]),
        (when("x"), &["bad_when"]),
        (when("x == a; rm"), &["bad_when"]),
        (when("y == a"), &["when_unknown_argument"]),
        (when("x == a").replace("{_c}", "{x}"), &["unused_conditional"]),
        (when("x == a").replace("template = ", "tmpl = "), &["missing_key", "unknown_key"]),
        // [output]
        (output(""), &[]),
        (
            output("format = \"json\"\nparser = \"builtin:json\"\nmax_bytes = 1\nenvelope = true"),
            &[],
        ),
        (output("format = \"yaml\""), &["unknown_format"]),
        (output("parser = \"builtin:yaml\""), &["unknown_parser"]),
        (output("parser = \"scripts/p.py\""), &["parser_not_allowed"]),
        (output("format = \"text\"\nparser = \"builtin:json\""), &["parser_differs"]),
        (output("max_bytes = 0"), &["out_of_range"]),
        (output("max_bytes = 1073741825"), &["out_of_range"]),
    ];
    for (text, expected) in cases {
        let mut found = codes(&text);
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        let shown: String = text.chars().take(600).collect();
        assert_eq!(found, expected, "{shown}");
    }
}

#[test]
fn all_problems_are_reported_in_order() {
    let text = "[tool]\nname = \"T\"\nversion = \"1.0.0\"\nrisk_teir = \"low\"\n\
                description = \"d\"\nbinary = \"tool\"\n[args.x]\ntype = \"strin\"\n\
                [command]\nexec = [\"tool\", \"{y}\"]\n[output]\nschema = {}\n";
    let (manifest, found) = Manifest::parse("t.clad.toml", text);
    assert!(manifest.is_none());
    let shown: Vec<_> = found
        .iter()
        .map(|d| {
            let (line, column) = line_column(text, d.span.start);
            (d.code, line, column, d.fix.as_deref().unwrap_or_default())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("bad_name", 2, 8, ""),
            ("unknown_key", 4, 1, "write `risk_tier`"),
            ("unknown_type", 8, 8, "write `string`"),
            ("unknown_placeholder", 10, 17, ""),
        ]
    );
    assert!(found.iter().all(|d| d.severity == Severity::Error));
}

#[test]
fn columns_count_characters() {
    for (offset, expected) in [(0, (1, 1)), (3, (1, 3)), (4, (2, 1)), (99, (2, 3))] {
        assert_eq!(line_column("éa\nbc", offset), expected, "{offset}");
    }
    // Inside é.
    assert_eq!(line_column("éa", 1), (1, 1));
}

#[test]
fn a_word_that_no_name_is_as_long_as_is_compared_with_none() {
    let text = |key: &str| {
        format!("[tool]\nname = \"t\"\nversion = \"1.0.0\"\ndescription = \"d\"\n{key} = \"low\"\n")
    };
    for (key, expected) in [
        ("risk_teir".to_owned(), Some("write `risk_tier`")),
        (format!("risk_tier{}", "r".repeat(56)), None),
    ] {
        let (_, found) = Manifest::parse("t.clad.toml", &text(&key));
        let unknown = found.iter().find(|d| d.code == "unknown_key").unwrap();
        assert_eq!(unknown.fix.as_deref(), expected);
    }
}

#[test]
fn messages_read_as_sentences_and_point_at_what_they_mean() {
    let command =
        "[command]\nexec = [\"tool\"]\n[http]\nmethod = \"GET\"\nurl = \"https://a.example/\"";
    for (text, code, at, message) in [
        (
            arg("type = \"port\"\ndefault = 0"),
            "invalid_default",
            "0",
            "the default is no port: 0 is not between 1 and 65535",
        ),
        (
            arg("type = \"integer\"\ndefault = -1"),
            "invalid_default",
            "-1",
            "the default is no integer: -1 is negative",
        ),
        (
            arg("type = \"string\"\ndefault = \"a;b\""),
            "invalid_default",
            "\"a;b\"",
            "the default is no string: it ",
        ),
        (
            format!("{TOOL}{OUTPUT}{EXEC}")
                .replace("schema = {}", "schema = { const = 2020-01-01 }"),
            "wrong_type",
            "2020-01-01",
            "JSON cannot hold a date",
        ),
        (text(command), "several_backends", "http", "a manifest has one backend"),
    ] {
        let (manifest, found) = Manifest::parse("t.clad.toml", &text);
        assert!(manifest.is_none(), "{text}");
        let found = found.iter().find(|d| d.code == code).unwrap_or_else(|| panic!("{found:?}"));
        assert_eq!(&text[found.span.clone()], at, "{found:?}");
        assert!(found.message.starts_with(message), "{found:?}");
    }
}

#[test]
fn every_one_of_very_many_findings_has_its_place() {
    let args: String = (0..2000).map(|i| format!("[args.a{i}]\ntype = \"string\" # ü\n")).collect();
    let inline: String = (0..500).map(|i| format!("b{i} = {{ type = \"ü\" }}, ")).collect();
    let text = text(&format!("{args}[args.z]\nx = {{ {inline} }}\n{EXEC}"));
    let (set, found) = ManifestSet::load([("t.clad.toml".to_owned(), text.clone())]);
    assert!(set.iter().len() == 0 && found.len() > 1000, "{}", found.len());
    for found in found {
        let place = line_column(&text, found.diagnostic.span.start);
        assert_eq!((found.line, found.column), place, "{found:?}");
    }
}

#[test]
fn a_wrong_type_is_named_by_what_is_wrong() {
    for (text, message) in [
        (
            tool("timeout_seconds = 12345678901234567890"),
            "`timeout_seconds` in [tool] must be a whole number, not a whole number of more than 64 bits",
        ),
        (
            arg("type = \"enum\"\nallowed = [\"a\", 1]"),
            "`allowed` in [args.x] must be a list of strings; a whole number is in it",
        ),
        (
            arg("type = \"number\"\nmax = inf"),
            "`max` in [args.x] must be a finite number, not `inf` or `nan`",
        ),
    ] {
        let (_, found) = Manifest::parse("t.clad.toml", &text);
        assert!(found.iter().any(|d| d.message == message), "{message}\n{found:#?}");
    }
}
