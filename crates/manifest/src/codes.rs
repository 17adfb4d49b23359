//! Every code there is.

/// What a code is said of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeKind {
    /// A manifest, type or scope file that is refused.
    Error,
    /// A manifest that loads all the same.
    Warning,
    /// An argument of a call. Where a default is refused for it, the code is `invalid_default`.
    Argument,
}

/// A stable name for one kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Never changes its meaning.
    pub code: &'static str,
    /// What it is said of.
    pub kind: CodeKind,
    /// What it means, a lower-case fragment.
    pub meaning: &'static str,
}

const fn error(code: &'static str, meaning: &'static str) -> Code {
    Code { code, kind: CodeKind::Error, meaning }
}

const fn warning(code: &'static str, meaning: &'static str) -> Code {
    Code { code, kind: CodeKind::Warning, meaning }
}

const fn argument(code: &'static str, meaning: &'static str) -> Code {
    Code { code, kind: CodeKind::Argument, meaning }
}

/// Sorted within each kind.
#[rustfmt::skip]
pub const CODES: &[Code] = &[
    error("ambiguous_placeholder", "a placeholder names two mappings, or a mapping and a conditional"),
    error("bad_allowed", "an allowed value is too long or holds an invisible character"),
    error("bad_body", "with values in its holes, the body of a request is not the JSON or form that is written"),
    error("bad_end_of_options", "`end_of_options` is neither an option nor empty"),
    error("bad_header", "no name of a header, a name twice, one that the sender writes, or a control character"),
    error("bad_name", "a name is outside `[a-z][a-z0-9_]{0,63}`"),
    error("bad_pattern", "a regular expression does not compile"),
    error("bad_placeholder", "braces do not hold a name; `{{` is a brace"),
    error("bad_schema", "the output schema is no JSON Schema 2020-12 that stands alone"),
    error("bad_scheme", "a scheme is not lower case, or names no host"),
    error("bad_scope_rule", "a rule is no address, range without host bits, host name or `*.` and a host name"),
    error("bad_url", "a URL is not an absolute, canonical one of http or https"),
    error("bad_value", "a name holds a space or an invisible character, or a path holds `..`"),
    error("bad_when", "a condition does not parse"),
    error("constraint_not_applicable", "a constraint on a type it means nothing for"),
    error("duplicate_tool", "two files define one tool; neither is served"),
    error("empty_value", "a text or list that must not be empty is"),
    error("field_map_twice", "two arguments become one field of the upstream tool"),
    error("field_map_unknown_argument", "`field_map` names no argument"),
    error("header_newline", "CR or LF in a header"),
    error("interpreter", "the program runs what it is given, without `allow_interpreter`"),
    error("invalid_default", "a default is refused by its own type"),
    error("literal_text_not_alone", "a `literal_text` shares its element with more than `--option=`, or is not inside a JSON string"),
    error("loose_in_body", "a url, agent_summary or msf_options in a body that is neither JSON, nor a form, nor plain text"),
    error("loosens_type", "a use is looser than the type it uses"),
    error("mapping_incomplete", "a mapping misses a value of its argument"),
    error("mapping_type", "a mapping for an argument that is no enum or boolean"),
    error("mapping_unknown_argument", "a mapping for no argument"),
    error("mapping_unknown_value", "a mapping for a value its argument never has"),
    error("min_above_max", "a range that holds nothing"),
    error("missing_key", "a table lacks a key"),
    error("missing_table", "`[tool]`, `[output]` or `[scope]` is missing"),
    error("mode_differs", "`mode` has no use for the table that is there"),
    error("no_backend", "nothing says what to run"),
    error("not_a_manifest", "`toolclad.toml` where a manifest is expected"),
    error("not_utf8", "the file is not UTF-8"),
    error("out_of_range", "a number is too small or too large"),
    error("parser_not_allowed", "an executable parser that is on no allow list"),
    error("placeholder_in_quotes", "a placeholder inside quotes"),
    error("program_not_binary", "the command starts another program than `binary`"),
    error("program_not_fixed", "the program depends on an argument, or is empty"),
    error("secret_in_url", "a secret in a URL"),
    error("several_backends", "more than one thing to run"),
    error("splice_not_alone", "a mapping or conditional inside an element, or inside another"),
    error("status_conflict", "a status means success and an error"),
    error("syntax", "the text is no TOML; then this is the only finding"),
    error("too_large", "a file of more than 1 MiB"),
    error("type_cycle", "a custom type is based on itself, by way of others or not"),
    error("type_shadows", "a custom type has the name of a built-in one"),
    error("unbalanced_quotes", "a quote is never closed, or a backslash escapes nothing"),
    error("unknown_connect", "no such way to connect to a browser"),
    error("unknown_dispatch", "no such dispatch"),
    error("unknown_engine", "no such browser engine"),
    error("unknown_extract_mode", "no such way to read a page"),
    error("unknown_format", "no such output format"),
    error("unknown_hash", "no such hash"),
    error("unknown_key", "no such key in this table"),
    error("unknown_method", "no such HTTP method"),
    error("unknown_mode", "no such mode"),
    error("unknown_parser", "no such built-in parser"),
    error("unknown_placeholder", "a placeholder that stands for nothing"),
    error("unknown_risk_tier", "no such risk tier"),
    error("unknown_sanitizer", "no such sanitizer"),
    error("unknown_table", "no such table"),
    error("unknown_type", "no such argument type"),
    error("unreadable", "the file cannot be read"),
    error("unsupported_placeholder", "a value that only an executor could fill in, or a secret outside an HTTP request"),
    error("url_not_fixed", "scheme or host of a URL come from an argument"),
    error("when_unknown_argument", "a condition names no argument"),
    error("wrong_type", "a value of another TOML type"),

    warning("conflicting_keys", "`block_internal` stands against `allow_internal`, and wins"),
    warning("duplicate_allowed", "a value is allowed twice"),
    warning("duplicate_position", "two arguments have one position"),
    warning("flag_value", "whether an option takes the value after it is a guess"),
    warning("free_text_decides", "`feeds_decision` on free text"),
    warning("long_timeout", "more than a day"),
    warning("no_effect", "a table or `mode` that means nothing for what runs a call"),
    warning("no_schema", "`[output]` without a schema"),
    warning("option_after_operand", "an option where options have ended"),
    warning("optional_in_path", "a value that the URL's path needs may be absent"),
    warning("outdated_key", "a key of the older format that has no effect"),
    warning("parser_differs", "`parser` reads another format than `format`"),
    warning("relative_program", "a program beneath the tool's root"),
    warning("required_with_default", "`required` beside a default, which a call without it takes"),
    warning("sanitize_off", "`sanitize = []`: the checks of a type cannot be switched off"),
    warning("unanchored_pattern", "a pattern without `^` and `$`: it has to match the whole value all the same"),
    warning("unprotected_dash", "a value that may begin with `-` stands where options are read"),
    warning("unused_argument", "the tool does not depend on an argument"),
    warning("unused_conditional", "the command does not use a conditional"),
    warning("unused_mapping", "the command does not use a mapping"),
    warning("url_to_metadata", "a URL whose host is link-local or serves metadata; no request goes there"),
    warning("version_not_semver", "not three numbers"),
    warning("whitespace_needs_exec", "`allow_whitespace` without `exec`; spaces are refused all the same"),

    argument("above_max", "more than `max`, or than ten years"),
    argument("absolute_path", "a path that begins with `/`"),
    argument("below_min", "less than `min`"),
    argument("control_character", "a C0, C1 or DEL character"),
    argument("duplicate_argument", "an argument is given twice"),
    argument("empty", "no text"),
    argument("everything", "a range of all addresses, without `allow_any`"),
    argument("hidden_character", "a character nobody sees, or one that reorders others"),
    argument("host_bits", "a range with bits after its prefix"),
    argument("injection_marker", "reads like an instruction to a model"),
    argument("internal_host", "an internal name or, with `block_internal`, address"),
    argument("leading_at", "begins with `@`"),
    argument("leading_dash", "begins with `-` or `+`"),
    argument("loses_digits", "a number with more digits than JSON keeps"),
    argument("metadata_host", "a link-local or cloud metadata address or name, also inside another"),
    argument("missing_argument", "required and absent"),
    argument("negative", "below zero where that is not declared, or minus zero"),
    argument("no_scope", "has to be within a scope, and there is none"),
    argument("not_a_boolean", "neither true nor false"),
    argument("not_a_cidr", "no address range in canonical form"),
    argument("not_a_duration", "neither seconds nor such as `1h30m`, or nothing"),
    argument("not_a_number", "not a plain decimal number"),
    argument("not_a_port", "not 1 to 65535 in plain digits"),
    argument("not_a_target", "no canonical address, range or host name"),
    argument("not_a_url", "not an absolute URL"),
    argument("not_allowed", "not a value of the enum"),
    argument("not_an_integer", "not a plain whole number of 64 bits"),
    argument("not_an_ip", "no IP address in canonical form"),
    argument("not_an_option", "not `KEY VALUE`, several separated by `;`"),
    argument("not_finite", "too large for a number"),
    argument("not_runnable", "the tool is a session or browser, which cannot be run yet"),
    argument("nul", "holds a NUL character; in command text an error of the manifest"),
    argument("out_of_scope", "not within one rule of the scope, or excluded by one"),
    argument("path_escape", "`..`, or a part of a path that is hidden or looks like a dot or slash"),
    argument("path_scheme", "begins like a drive or a URL"),
    argument("pattern_mismatch", "the pattern does not match the whole value"),
    argument("quote_character", "a quote or backslash"),
    argument("rounds_to_zero", "too small for a number"),
    argument("schema_mismatch", "does not fit the schema of the upstream tool"),
    argument("shell_character", "one that shells act on"),
    argument("too_long", "more than 4096 bytes, 32768 for `literal_text`, 2 MiB for all of an upstream tool"),
    argument("unknown_argument", "no such argument"),
    argument("unreadable_value", "half a surrogate pair, or nesting without end"),
    argument("url_host", "no plain host name or canonical address"),
    argument("url_not_canonical", "another spelling of the same URL exists that programs agree on"),
    argument("url_scheme", "not one of the schemes"),
    argument("url_userinfo", "a user or password in a URL"),
    argument("whitespace", "white space of any script"),
];
