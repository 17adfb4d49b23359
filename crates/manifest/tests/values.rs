//! Which values each type takes.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

mod common;

use common::{object, one};
use countersign_manifest::{Manifest, parse_arguments};
use serde_json::{Map, Value, json};

fn code(manifest: &Manifest, value: &Value) -> Result<String, &'static str> {
    let args = Map::from_iter([("x".to_owned(), value.clone())]);
    match manifest.plan(&args) {
        Ok(planned) => Ok(planned.args[0].1.clone()),
        Err(problems) => {
            assert_eq!(problems.len(), 1);
            assert_eq!(problems[0].arg, "x");
            assert!(problems[0].message.len() < 400, "{}", problems[0].message);
            Err(problems[0].code)
        }
    }
}

/// Each value is taken unchanged, or refused for the reason given.
fn check(arg: &str, accepted: &[&str], refused: &[(&str, &'static str)]) {
    let manifest = one(arg);
    for value in accepted {
        assert_eq!(code(&manifest, &json!(value)).as_deref(), Ok(*value), "{arg}: {value:?}");
    }
    for (value, reason) in refused {
        assert_eq!(code(&manifest, &json!(value)), Err(*reason), "{arg}: {value:?}");
    }
}

const TEXT_REFUSED: &[(&str, &str)] = &[
    ("", "empty"),
    ("a\0b", "nul"),
    ("a b", "whitespace"),
    ("a\tb", "whitespace"),
    ("a\n", "whitespace"),
    ("a\u{a0}b", "whitespace"),
    ("a\u{3000}b", "whitespace"),
    ("a\u{2028}b", "whitespace"),
    ("a\u{1}b", "control_character"),
    ("a\u{7f}", "control_character"),
    ("a\u{9b}b", "control_character"),
    ("a\u{202e}b", "hidden_character"),
    ("a\u{2066}b", "hidden_character"),
    ("a\u{200b}b", "hidden_character"),
    ("\u{feff}a", "hidden_character"),
    ("a\u{e0041}", "hidden_character"),
    ("a;b", "shell_character"),
    ("$(x)", "shell_character"),
    ("a|b", "shell_character"),
    ("a&b", "shell_character"),
    ("`id`", "shell_character"),
    ("{a}", "shell_character"),
    ("[a]", "shell_character"),
    ("a<b", "shell_character"),
    ("a>b", "shell_character"),
    ("a!", "shell_character"),
    ("it's", "quote_character"),
    ("\"a\"", "quote_character"),
    ("a\\b", "quote_character"),
    ("--output=/etc/x", "leading_dash"),
    ("-x", "leading_dash"),
    ("+x", "leading_dash"),
    ("@/etc/passwd", "leading_at"),
    ("X:y'-d@/etc/passwd", "quote_character"),
];

#[test]
fn string() {
    check(
        "type = \"string\"",
        &["a", "main", "a-b", "a+b@c", "/x/y", "a=b", "é日本", "..", "*", "~", "a,b:c%20#d"],
        TEXT_REFUSED,
    );
    let long = "a".repeat(4097);
    check("type = \"string\"", &[&long[1..]], &[(&long, "too_long")]);
    check(
        "type = \"string\"\nallow_leading_dash = true",
        &["-a", "--b=c", "+1"],
        &[("@a", "leading_at"), ("-a;b", "shell_character")],
    );
    check("type = \"string\"\nallow_at = true", &["@a"], &[("-a", "leading_dash")]);
    check(
        "type = \"string\"\nallow_whitespace = true",
        &["a b", "a  b"],
        &[
            (" a", "whitespace"),
            ("a ", "whitespace"),
            (" ", "whitespace"),
            ("a\tb", "whitespace"),
            ("a\nb", "whitespace"),
            ("a\u{2003}b", "whitespace"),
        ],
    );
}

#[test]
fn patterns_match_the_whole_value() {
    for (pattern, accepted, refused) in [
        ("^[a-z]+$", "abc", "abc1"),
        ("b", "b", "abc"),
        ("a|b", "b", "ab"),
        ("a|ab", "ab", "abab"),
        ("^a$|b", "b", "ab"),
        ("(?i)ab", "AB", "xab"),
        ("(?m)^a$", "a", "ab"),
        ("(?x) a b # c", "ab", "abc"),
    ] {
        let arg = format!("type = \"string\"\npattern = '{pattern}'");
        check(&arg, &[accepted], &[(refused, "pattern_mismatch")]);
    }
    check(
        "type = \"regex_match\"\npattern = '^[a-z]+/[a-z]+$'",
        &["a/b"],
        &[("a/b/c", "pattern_mismatch"), ("a/b\n", "whitespace")],
    );
    check("type = \"port\"\npattern = '^80.*$'", &["80", "8080"], &[("443", "pattern_mismatch")]);
    check("type = \"path\"\npattern = '^src/.*$'", &["src/a"], &[("src2/a", "pattern_mismatch")]);
}

#[test]
fn literal_text() {
    let file: Value = serde_json::from_str(include_str!("fixtures/literal_text.json")).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let repeat = usize::try_from(case["repeat"].as_u64().unwrap()).unwrap();
        let value = case["value"].as_str().unwrap().repeat(repeat);
        let pattern = case["pattern"].as_str().map(|p| format!("pattern = '{p}'"));
        let text = common::text(&format!(
            "[args.x]\nrequired = true\ntype = \"literal_text\"\n{}\n\
             [command]\nexec = [\"tool\", \"{{x}}\"]",
            pattern.unwrap_or_default(),
        ));
        let (manifest, _) = Manifest::parse("t.clad.toml", &text);
        let planned = manifest.and_then(|m| m.plan(&object(&json!({"x": value}).to_string())).ok());
        assert_eq!(planned.is_some(), case["accept"], "{}: {}", case["name"], case["why"]);
        if let Some(planned) = planned {
            assert_eq!(common::argv(&planned), ["tool", "--", &value]);
        }
    }
}

#[test]
fn integer() {
    let refused = [
        ("+5", "not_an_integer"),
        ("0007", "not_an_integer"),
        ("1_000", "not_an_integer"),
        ("0x10", "not_an_integer"),
        ("5.0", "not_an_integer"),
        ("５", "not_an_integer"),
        ("-0", "not_an_integer"),
        ("", "not_an_integer"),
        ("-", "not_an_integer"),
        (" 5", "not_an_integer"),
        ("5\n", "not_an_integer"),
        ("9223372036854775808", "not_an_integer"),
        ("1e3", "not_an_integer"),
        ("-5", "negative"),
    ];
    check("type = \"integer\"", &["0", "5", "9223372036854775807"], &refused);
    check(
        "type = \"integer\"\nmin = -9\nmax = 9",
        &["-9", "-1", "0", "9"],
        &[
            ("-10", "below_min"),
            ("10", "above_max"),
            ("-0", "not_an_integer"),
            ("--1", "not_an_integer"),
        ],
    );
    check("type = \"integer\"\nallow_leading_dash = true", &["-5", "-9223372036854775808"], &[]);
    let clamped = one("type = \"integer\"\nmin = 1\nmax = 10\nclamp = true");
    for (value, expected) in [
        (json!(0), Ok("1")),
        (json!(11), Ok("10")),
        (json!("99"), Ok("10")),
        (json!(5), Ok("5")),
        (json!(-1), Err("negative")),
        (json!(5.0), Err("not_an_integer")),
        (json!(-0.0), Err("not_an_integer")),
        (json!(u64::MAX), Err("not_an_integer")),
        (json!(true), Err("wrong_type")),
        (json!(null), Err("wrong_type")),
        (json!([1]), Err("wrong_type")),
        (json!({}), Err("wrong_type")),
    ] {
        assert_eq!(code(&clamped, &value).as_deref().map_err(|e| *e), expected, "{value}");
    }
}

#[test]
fn what_json_cannot_hold_is_refused_by_the_name_of_its_argument() {
    let deep = format!(r#"{{"x": {}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    for (text, code) in [
        (r#"{"x": "\ud800"}"#, "unreadable_value"),
        (r#"{"x": "a\udc00b"}"#, "unreadable_value"),
        (deep.as_str(), "unreadable_value"),
        (r#"{"x": 1e999}"#, "not_finite"),
        (r#"{"x": 1, "x": 1}"#, "duplicate_argument"),
        (r#"{"x": 18446744073709551616}"#, "loses_digits"),
        (r#"{"x": -9223372036854775809}"#, "loses_digits"),
        (r#"{"x": 0.10000000000000000555}"#, "loses_digits"),
        (r#"{"x": 123456789012345678.5}"#, "loses_digits"),
    ] {
        let Err(problems) = parse_arguments(text) else {
            panic!("{code}: taken");
        };
        let found: Vec<_> = problems.iter().map(|p| (p.code, p.arg.as_str())).collect();
        assert_eq!(found, [(code, "x")]);
    }
    // A `number` has it as text, with every digit.
    for (ty, wanted) in [
        ("number", Ok("18446744073709551616.25".to_owned())),
        ("integer", Err("loses_digits")),
        ("string", Err("loses_digits")),
    ] {
        let manifest = one(&format!("type = \"{ty}\""));
        let found = match manifest.parse_arguments("{\"x\": 18446744073709551616.25}") {
            Ok(args) => code(&manifest, &args["x"]),
            Err(problems) => Err(problems[0].code),
        };
        assert_eq!(found, wanted, "{ty}");
    }
    for number in ["0", "-1", "18446744073709551615", "0.1", "1e300", "2.50", "5e-324", "0e9999"] {
        let found = parse_arguments(&format!("{{\"x\": {number}}}"));
        let same = |x: &Value| x.to_string().parse::<f64>() == number.parse();
        assert!(found.is_ok_and(|args| same(&args["x"])), "{number}");
    }
    for (text, code) in [
        ("[]", "not_an_object"),
        ("null", "not_an_object"),
        ("7", "not_an_object"),
        ("\"x\"", "not_an_object"),
        ("", "bad_json"),
        ("{", "bad_json"),
        ("{} {}", "bad_json"),
        ("nonsense", "bad_json"),
        (r#"{"x": NaN}"#, "bad_json"),
        (r#"{"x": "a}"#, "bad_json"),
        (r#"{"x": }"#, "bad_json"),
    ] {
        let problems = parse_arguments(text).unwrap_err();
        let found: Vec<_> = problems.iter().map(|p| (p.code, p.arg.as_str())).collect();
        assert_eq!(found, [(code, "")], "{text}");
    }
}

#[test]
fn number() {
    check(
        "type = \"number\"",
        &["0", "0.0", "1.5", "1e3", "1E-7", "2.50", "1e+2"],
        &[
            ("NaN", "not_a_number"),
            ("inf", "not_a_number"),
            ("-inf", "not_a_number"),
            ("0x1p3", "not_a_number"),
            (".5", "not_a_number"),
            ("5.", "not_a_number"),
            ("01.5", "not_a_number"),
            ("+1", "not_a_number"),
            ("1_0", "not_a_number"),
            ("1e", "not_a_number"),
            ("", "not_a_number"),
            ("1,5", "not_a_number"),
            ("1e400", "not_finite"),
            ("1e-400", "rounds_to_zero"),
            ("-1", "negative"),
            ("-0", "negative"),
            ("-0.0", "negative"),
        ],
    );
    check(
        "type = \"number\"\nmin_float = -1.5\nmax_float = 2",
        &["-1.5", "2", "2.0"],
        &[("-1.6", "below_min"), ("2.1", "above_max"), ("-0", "negative")],
    );
    let clamped = one("type = \"number\"\nmax_float = 1.0\nclamp = true");
    assert_eq!(code(&clamped, &json!(7)).as_deref(), Ok("1"));
    assert_eq!(code(&clamped, &json!(0.25)).as_deref(), Ok("0.25"));
}

#[test]
fn port_boolean_enum() {
    check(
        "type = \"port\"",
        &["1", "80", "65535"],
        &[
            ("0", "not_a_port"),
            ("65536", "not_a_port"),
            ("+80", "not_a_port"),
            ("00080", "not_a_port"),
            ("-1", "not_a_port"),
            ("80 ", "not_a_port"),
            ("http", "not_a_port"),
        ],
    );
    assert_eq!(code(&one("type = \"port\""), &json!(8080)).as_deref(), Ok("8080"));
    assert_eq!(code(&one("type = \"port\""), &json!(0)), Err("not_a_port"));
    check(
        "type = \"boolean\"",
        &["true", "false"],
        &[("TRUE", "not_a_boolean"), ("1", "not_a_boolean"), ("", "not_a_boolean")],
    );
    assert_eq!(code(&one("type = \"boolean\""), &json!(true)).as_deref(), Ok("true"));
    assert_eq!(code(&one("type = \"boolean\""), &json!(1)), Err("wrong_type"));
    check(
        "type = \"enum\"\nallowed = [\"a\", \"b c\", \"-d\"]",
        &["a", "b c", "-d"],
        &[("A", "not_allowed"), (" a", "not_allowed"), ("a\0", "nul"), ("", "not_allowed")],
    );
    assert_eq!(code(&one("type = \"string\""), &json!(5)), Err("wrong_type"));
}

#[test]
fn path() {
    check(
        "type = \"path\"",
        &[".", "a", "a/b.txt", "./a", "a/", ".hidden", "a..b", "...", "a%20b", "a/b:c", "a//b"],
        &[
            ("..", "path_escape"),
            ("foo/..", "path_escape"),
            ("../x", "path_escape"),
            ("a/../b", "path_escape"),
            ("/etc/passwd", "absolute_path"),
            ("//x", "absolute_path"),
            ("file:///x", "path_scheme"),
            ("http:x", "path_scheme"),
            ("C:x", "path_scheme"),
            ("c:/x", "path_scheme"),
            ("a\\b", "quote_character"),
            ("%2e%2e/x", "path_escape"),
            ("a%2Fb", "path_escape"),
            ("a%5cb", "path_escape"),
            ("a%252fb", "path_escape"),
            ("a%00b", "path_escape"),
            ("-rf", "leading_dash"),
            ("@x", "leading_at"),
            ("a b", "whitespace"),
            ("a\nb", "whitespace"),
            ("", "empty"),
            ("a;b", "shell_character"),
            ("a\u{202e}txt.exe", "hidden_character"),
        ],
    );
    check("type = \"path\"\nallow_whitespace = true", &["my file.txt"], &[(" x", "whitespace")]);
}

#[test]
fn url() {
    let always = [
        ("", "empty"),
        ("example.com", "not_a_url"),
        ("/a", "not_a_url"),
        ("//example.com", "not_a_url"),
        ("http://", "not_a_url"),
        ("http:example.com/", "url_not_canonical"),
        ("http:///example.com", "url_not_canonical"),
        ("HTTPS://a.com", "url_not_canonical"),
        ("https://A.com/", "url_not_canonical"),
        ("https://a.com/a/../b", "url_not_canonical"),
        ("https://a.com/%2e%2e/b", "url_not_canonical"),
        ("https://a.com:443/", "url_not_canonical"),
        ("https://a.com:0443/", "url_not_canonical"),
        ("https://é.com/", "url_not_canonical"),
        ("https://a.com/é", "url_not_canonical"),
        ("https://user@a.com/", "url_userinfo"),
        ("https://user:pw@a.com/", "url_userinfo"),
        ("https://@a.com/", "url_userinfo"),
        ("file:///etc/passwd", "url_scheme"),
        ("javascript:alert", "url_scheme"),
        ("ftp://a.com/", "url_scheme"),
        ("https://a.com/;b", "shell_character"),
        ("https://a.com/{b}", "shell_character"),
        ("https://a.com/'b'", "shell_character"),
        ("https://a.com/$b", "shell_character"),
        ("https://a.com/[b]", "shell_character"),
        ("https://a.com\\@b.com/", "shell_character"),
        ("https://a.com/ b", "whitespace"),
        ("https://a.com/\n", "whitespace"),
        ("https://a.com/\u{200b}", "hidden_character"),
        ("https://xn--e1afmkfd.com/", "url_host"),
        ("https://a_b.com/", "url_host"),
        ("https://a.com./", "url_host"),
        ("https://-a.com/", "url_host"),
        ("https://*.com/", "url_host"),
        ("http://2130706433/", "url_not_canonical"),
        ("http://0x7f000001/", "url_not_canonical"),
        ("http://127.1/", "url_not_canonical"),
        ("http://010.0.0.1/", "url_not_canonical"),
        ("http://[::ffff:7f00:1]/", "url_host"),
        ("http://[0:0::1]/", "url_not_canonical"),
        ("http://[fe80::1]/", "metadata_host"),
        ("http://169.254.169.254/latest", "metadata_host"),
        ("http://169.254.1.1/", "metadata_host"),
        ("http://[fd00:ec2::254]/", "metadata_host"),
        ("http://[64:ff9b::a9fe:a9fe]/", "metadata_host"),
        ("http://[2002:a9fe:a9fe::]/", "metadata_host"),
        ("http://100.100.100.200/", "metadata_host"),
        ("http://metadata.google.internal/", "metadata_host"),
        ("http://metadata/", "metadata_host"),
        ("http://169.254.169.254.nip.io/", "metadata_host"),
        ("http://x-169-254-169-254.nip.io/", "metadata_host"),
        ("http://a9fea9fe.nip.io/", "metadata_host"),
    ];
    let internal = [
        ("http://localhost/", "internal_host"),
        ("http://a.localhost:8080/", "internal_host"),
        ("http://printer.local/", "internal_host"),
        ("http://db.internal/", "internal_host"),
    ];
    let public = [
        "https://example.com",
        "https://example.com/",
        "https://example.com?q=1",
        "https://example.com:8443/a/b?c=d&e=f#g",
        "https://a.b-c.example.com/%20?x=%26",
        "http://93.184.216.34/",
        "http://[2606:2800:220:1::1]/",
        "https://8-8-8-8.nip.io/",
        "https://localhost.example.com/",
    ];
    let addresses =
        ["http://127.0.0.1:8080/", "http://10.0.0.1/", "http://[::1]/", "http://10-0-0-1.nip.io/"];
    let all: Vec<_> = always.iter().chain(&internal).copied().collect();
    check("type = \"url\"", &public, &all);
    check("type = \"url\"", &addresses, &[]);

    let names: Vec<_> = internal.iter().map(|(name, _)| *name).collect();
    check("type = \"url\"\nallow_internal = true", &names, &always);

    let blocked: Vec<_> = addresses
        .iter()
        .copied()
        .chain([
            "http://192.168.1.1/",
            "http://172.16.0.1/",
            "http://100.64.0.1/",
            "http://0.0.0.0/",
            "http://[fc00::1]/",
            "http://[fec0::1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[64:ff9b:1::1]/",
            "http://[2002:7f00:1::]/",
            "http://[2001:0:a00:1::1]/",
            "http://[2001:0:5db8:d822:0:0:80ff:fffe]/",
            "http://7f000001.nip.io/",
            "http://app.127.0.0.1.sslip.io/",
            "http://0--1.sslip.io/",
        ])
        .filter(|u| url_is_canonical(u))
        .map(|u| (u, "internal_host"))
        .collect();
    assert!(blocked.len() > 15);
    check("type = \"url\"\nblock_internal = true", &public, &blocked);
    check("type = \"url\"\nblock_internal = true", &[], &internal);

    check(
        "type = \"url\"\nschemes = [\"ssh\", \"https\"]",
        &["ssh://a.com/x", "https://a.com/"],
        &[
            ("http://a.com/", "url_scheme"),
            ("ssh:a", "url_not_canonical"),
            ("ssh:///a", "url_host"),
            ("ssh://169.254.169.254/x", "metadata_host"),
            ("ssh://127.1/x", "url_host"),
            ("ssh://0x7f.1/x", "url_host"),
            ("ssh://LOCALHOST/x", "internal_host"),
            ("ssh://a%2eb/x", "url_host"),
            ("ssh://g@a.com/x", "url_userinfo"),
        ],
    );
}

fn url_is_canonical(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|u| u.as_str() == text)
}

#[test]
fn problems_never_echo_much() {
    let manifest = one("type = \"enum\"\nallowed = [\"a\"]");
    let value = format!("\u{202e}\n{}", "z".repeat(4000));
    let problems = manifest.plan(&object(&json!({"x": value}).to_string())).unwrap_err();
    assert!(problems[0].message.len() < 200);
    assert!(!problems[0].message.contains(['\u{202e}', '\n']));

    let unknown: Map<String, Value> =
        (0..10_000).map(|i| (format!("{i}\n{}", "k".repeat(5000)), json!(1))).collect();
    let problems = manifest.plan(&unknown).unwrap_err();
    assert_eq!(problems.len(), 32);
    assert!(problems.iter().all(|p| p.arg.len() < 200 && !p.arg.contains('\n')));

    let huge = object(&json!({"x": "a".repeat(8 << 20)}).to_string());
    let start = std::time::Instant::now();
    assert_eq!(manifest.plan(&huge).unwrap_err()[0].code, "too_long");
    assert!(start.elapsed().as_millis() < 20, "the value was read through");
}
