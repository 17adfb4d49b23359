//! Decides what a tool accepts and what a call of it would do. Knows nothing of files,
//! processes, sockets or clocks: text comes in, plans go out.
//!
//! The text is a `.clad.toml` manifest in the format of ToolClad, read more strictly. This
//! version knows tools that run one command once (`mode = "oneshot"`, `[command]`); what else
//! the format has is refused by a code that begins with `unsupported_`.
//!
//! ```
//! use countersign_manifest::{Manifest, render_command};
//!
//! let text = r#"
//!     [tool]
//!     name = "show"
//!     version = "1.0.0"
//!     description = "Show the beginning of a file"
//!     binary = "head"
//!     [args.path]
//!     type = "path"
//!     required = true
//!     [command]
//!     exec = ["head", "{path}"]
//!     [output]
//!     format = "text"
//! "#;
//! let (manifest, findings) = Manifest::parse("show.clad.toml", text);
//! assert!(findings.is_empty());
//! let manifest = manifest.unwrap();
//! let call = |json| manifest.plan(&serde_json::from_str(json).unwrap());
//! let planned = call(r#"{"path": "notes.txt"}"#).unwrap();
//! assert_eq!(render_command(&planned.plan), "head -- notes.txt");
//! assert_eq!(call(r#"{"path": "/etc/passwd"}"#).unwrap_err()[0].code, "absolute_path");
//! ```
//!
//! # How a command is built
//!
//! * An element of `exec`, or a word of `template`, becomes one element of argv. A value fills
//!   the hole inside it and is never cut. `{{` and `}}` are braces.
//! * An argument gets the value of the call, else its `[command.defaults]`, else its
//!   `default`. A name in `[command.defaults]` that no argument has is fixed text.
//! * An element whose value is absent is left out, and with it an option directly before it
//!   (`-n {count}`). Where that is a guess that matters, `flag_value` warns.
//! * `{_ARG_flags}` stands for the words `[command.mappings.ARG]` has for the argument's
//!   value, `{_NAME}` for those of `[command.conditionals.NAME]` when it holds. For an argument
//!   `scan_type`, `{_scan_flags}` is the same.
//! * `end_of_options` goes before the first element that is nothing but values the agent
//!   wrote, unless that follows an option, or `--` was there before. Values of `enum` and
//!   `boolean` are the manifest's, not the agent's.
//! * `when` compares text: `and` binds before `or`, an absent argument is `''`.
//!
//! # Codes of a manifest
//!
//! All are errors but those marked (w), which are warnings.
//!
//! | code | meaning |
//! |---|---|
//! | `ambiguous_placeholder` | a placeholder names a mapping and a conditional |
//! | `bad_allowed` | an allowed value is too long or holds an invisible character |
//! | `bad_end_of_options` | `end_of_options` is neither an option nor empty |
//! | `bad_name` | a name is outside `[a-z][a-z0-9_]{0,63}` |
//! | `bad_pattern` | a regular expression does not compile |
//! | `bad_placeholder` | braces do not hold a name; `{{` is a brace |
//! | `bad_scheme` | a scheme is not lower case, or names no host |
//! | `bad_when` | a condition does not parse |
//! | `conflicting_keys` | two keys contradict each other |
//! | `constraint_not_applicable` | a constraint on a type it means nothing for |
//! | `duplicate_allowed` | (w) a value is allowed twice |
//! | `duplicate_position` | (w) two arguments have one position |
//! | `duplicate_tool` | two files define one tool; neither is served |
//! | `empty_value` | a text or list that must not be empty is |
//! | `flag_value` | (w) whether an option takes the value after it is a guess |
//! | `interpreter` | the program runs what it is given, without `allow_interpreter` |
//! | `invalid_default` | a default is refused by its own type |
//! | `literal_text_not_alone` | a `literal_text` shares its element with more than `--option=` |
//! | `long_timeout` | (w) more than a day |
//! | `mapping_incomplete` | a mapping misses a value of its argument |
//! | `mapping_type` | a mapping for an argument that is no enum or boolean |
//! | `mapping_unknown_argument` | a mapping for no argument |
//! | `mapping_unknown_value` | a mapping for a value its argument never has |
//! | `min_above_max` | a range that holds nothing |
//! | `missing_key` | a table lacks a key |
//! | `missing_table` | `[tool]` or `[output]` is missing |
//! | `no_backend` | nothing says what to run |
//! | `nul` | a NUL character in command text |
//! | `option_after_operand` | (w) an option where options have ended |
//! | `out_of_range` | a number is too small or too large |
//! | `parser_differs` | (w) `parser` reads another format than `format` |
//! | `parser_not_allowed` | an executable parser |
//! | `placeholder_in_quotes` | a placeholder inside quotes |
//! | `program_not_binary` | the command starts another program than `binary` |
//! | `program_not_fixed` | the program depends on an argument, or is empty |
//! | `relative_program` | (w) a program beneath the tool's root |
//! | `required_with_default` | (w) a default that is never taken |
//! | `sanitize_off` | (w) `sanitize = []` |
//! | `several_backends` | more than one thing to run |
//! | `splice_not_alone` | a mapping or conditional inside an element, or inside another |
//! | `syntax` | the text is no TOML; then this is the only finding |
//! | `template_backslash` | a backslash in a template |
//! | `too_large` | a manifest of more than 1 MiB |
//! | `unanchored_pattern` | (w) a pattern without `^` and `$`: it has to match the whole value all the same |
//! | `unbalanced_quotes` | a quote is never closed |
//! | `unknown_dispatch` | no such dispatch |
//! | `unknown_format` | no such output format |
//! | `unknown_key` | no such key in this table |
//! | `unknown_mode` | no such mode |
//! | `unknown_parser` | no such built-in parser |
//! | `unknown_placeholder` | a placeholder that stands for nothing |
//! | `unknown_risk_tier` | no such risk tier |
//! | `unknown_sanitizer` | no such sanitizer |
//! | `unknown_table` | no such table |
//! | `unknown_type` | no such argument type |
//! | `unprotected_dash` | a value that may begin with `-` stands where options are read |
//! | `unsupported_dispatch` | not in this version |
//! | `unsupported_file` | `toolclad.toml`: not in this version |
//! | `unsupported_format` | not in this version |
//! | `unsupported_key` | not in this version |
//! | `unsupported_mode` | not in this version |
//! | `unsupported_parser` | not in this version |
//! | `unsupported_placeholder` | not in this version |
//! | `unsupported_table` | not in this version |
//! | `unsupported_type` | not in this version |
//! | `unsupported_value` | not in this version |
//! | `unused_argument` | (w) the command does not depend on an argument |
//! | `unused_conditional` | (w) the command does not use a conditional |
//! | `unused_mapping` | (w) the command does not use a mapping |
//! | `version_not_semver` | (w) not three numbers |
//! | `when_unknown_argument` | a condition names no argument |
//! | `whitespace_in_template` | `allow_whitespace` without `exec` |
//! | `wrong_type` | a value of another TOML type |
//!
//! # Codes of a call
//!
//! A default that is refused for one of these is an `invalid_default`.
//!
//! | code | meaning |
//! |---|---|
//! | `above_max` | more than `max` |
//! | `absolute_path` | a path that begins with `/` |
//! | `below_min` | less than `min` |
//! | `control_character` | a C0, C1 or DEL character |
//! | `empty` | no text |
//! | `hidden_character` | a character nobody sees, or one that reorders others |
//! | `internal_host` | an internal name or, with `block_internal`, address |
//! | `leading_at` | begins with `@` |
//! | `leading_dash` | begins with `-` or `+` |
//! | `metadata_host` | a link-local or cloud metadata address or name, also inside another |
//! | `missing_argument` | required and absent |
//! | `negative` | below zero where that is not declared, or minus zero |
//! | `not_a_boolean` | neither true nor false |
//! | `not_a_number` | not a plain decimal number |
//! | `not_a_port` | not 1 to 65535 in plain digits |
//! | `not_a_url` | not an absolute URL |
//! | `not_allowed` | not a value of the enum |
//! | `not_an_integer` | not a plain whole number of 64 bits |
//! | `not_finite` | too large for a number |
//! | `nul` | holds a NUL character |
//! | `path_escape` | `..`, or a percent escape that hides a part of a path |
//! | `path_scheme` | begins like a drive or a URL |
//! | `pattern_mismatch` | the pattern does not match the whole value |
//! | `quote_character` | a quote or backslash |
//! | `rounds_to_zero` | too small for a number |
//! | `shell_character` | one that shells act on |
//! | `too_long` | more than 4096 bytes, or 32768 for `literal_text` |
//! | `unknown_argument` | no such argument |
//! | `url_host` | no plain host name or canonical address |
//! | `url_not_canonical` | another spelling of the same URL exists that programs agree on |
//! | `url_scheme` | not one of the schemes |
//! | `url_userinfo` | a user or password in a URL |
//! | `whitespace` | white space of any script |
//! | `wrong_type` | a JSON value of another type |

mod command;
mod diagnostic;
mod envelope;
mod fields;
mod manifest;
mod output;
mod parse;
mod parse_args;
mod parse_command;
mod plan;
mod set;
mod template;
mod types;
mod when;

pub use diagnostic::{Diagnostic, Severity, line_column};
pub use envelope::{Envelope, EnvelopeStatus};
pub use manifest::{Arg, Cedar, Manifest, RiskTier};
pub use output::{Output, OutputFormat};
pub use plan::{ArgProblem, Planned, render_command};
pub use set::{FileDiagnostic, ManifestSet};
