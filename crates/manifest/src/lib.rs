//! Decides what a tool accepts and what a call of it would do. Knows nothing of files,
//! processes, sockets or clocks: text comes in, plans go out.
//!
//! The text is a `.clad.toml` manifest in the format of ToolClad, read more strictly. Tools that
//! run a command, send an HTTP request, call an upstream MCP server or hand their arguments back
//! have a plan; sessions and browsers are checked and have none yet.
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
//!     schema = { type = "object" }
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
//!   (`-n {count}`).
//! * `{_ARG_flags}` stands for the words `[command.mappings.ARG]` has for the argument's
//!   value, `{_NAME}` for those of `[command.conditionals.NAME]` when it holds. For an argument
//!   `scan_type`, `{_scan_flags}` is the same, unless there is a mapping of `scan`.
//! * `end_of_options` goes before the first element that is nothing but values the agent
//!   wrote, unless that follows an option, which may take it, or `--` was there before. Values of
//!   `enum` and `boolean` are the manifest's, not the agent's. What the agent writes and a program
//!   could read as an option gets nowhere without a warning: `flag_value` behind an option,
//!   `unprotected_dash` elsewhere.
//! * `when` compares text: `and` binds before `or`, an absent argument is `''`. A word without
//!   quotes is text too, but not `and`, `or`, `not` or the name of an argument.
//!
//! # Codes
//!
//! Every diagnostic and refusal has a stable code; [`CODES`] lists them.

mod address;
mod arguments;
mod body;
mod codes;
mod command;
mod condition;
mod constraints;
mod diagnostic;
mod editor;
mod envelope;
mod explain;
mod fields;
mod format;
mod http;
mod import;
mod manifest;
mod output;
mod parse;
mod parse_args;
mod parse_command;
mod parse_http;
mod parse_output;
mod parse_session;
mod parse_tool;
mod plan;
mod program;
mod project;
mod read;
mod sarif;
mod scope;
mod session;
mod set;
mod template;
mod types;
mod upstream;
mod when;

pub use address::{internal_address, metadata_address};
pub use arguments::parse_arguments;
pub use codes::{CODES, Code, CodeKind};
pub use condition::{Condition, ConditionError};
pub use diagnostic::{Diagnostic, Severity, line_column};
pub use editor::editor_schema;
pub use envelope::{Envelope, EnvelopeStatus};
pub use explain::Explanation;
pub use format::format;
pub use import::{Imported, import_help, import_mcp, import_openapi};
pub use manifest::{Arg, BackendKind, Cedar, Evidence, Manifest, RiskTier};
pub use output::{Output, OutputFormat};
pub use parse::MAX_FILE;
pub use parse_http::secret_text;
pub use plan::{ArgProblem, Planned, render_command};
pub use project::Project;
pub use sarif::sarif;
pub use scope::Scope;
pub use set::{FileDiagnostic, ManifestSet};
pub use upstream::{UpstreamRules, UpstreamToolError, definition_digest, definition_text};
