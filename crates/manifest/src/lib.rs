//! Decides what a tool accepts and what a call of it would do. Knows nothing of files,
//! processes, sockets or clocks: text comes in, plans go out.

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
