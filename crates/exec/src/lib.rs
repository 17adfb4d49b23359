//! Decides how a planned process is started, bounded and ended, where an HTTP request may go and
//! what comes back ([`HttpExecutor`]), how a [`hook`] is asked, and how people are told that a call
//! waits ([`notify`]). Knows nothing of manifests, approvals or
//! journals, and reads no environment: every value of it arrives as an argument.
//!
//! Each run has a *supervisor*: a second process of the embedding binary that starts the tool
//! and adopts whatever the tool leaves behind. It ends everything below it when the tool's main
//! process ends, or when its socket to the executor closes: at the deadline, when the future is
//! dropped, and when the gateway itself is killed.
//!
//! What a tool gets: no shell; the environment it is given and no more; no input; no terminal;
//! no descriptor but its two output pipes; no new privileges; the limits of the plan. A program
//! that is a hook gets the same, and its input as a file in memory that nobody can change.
//!
//! A tool whose plan has a [`Filesystem`](countersign_core::plan::Filesystem) is confined to it
//! by Landlock before it starts, together with everything that it starts. Where the kernel cannot
//! do that ([`confinement`] tells), it does not run.
//!
//! What this is not: a sandbox. The tool runs as the gateway's user. It can signal every process
//! of that user, its supervisor among them. A stopped supervisor changes nothing; when a tool
//! kills its supervisor, its session dies too, but a process that it first moved to another
//! session survives. So does work handed to a daemon that was there before (`at`, D-Bus,
//! a container engine). Run the gateway under its own user, in a container, if that matters.
//!
//! Linux 5.3 or newer, with `/proc`.

#[cfg(test)]
mod authority;
mod check;
mod confine;
mod connect;
mod dispatch;
mod evidence;
mod executor;
pub mod hook;
mod http;
pub mod mcp;
pub mod notify;
mod quote;
mod redact;
mod secret;
pub mod supervise;
mod tree;
mod webhook;

pub use confine::confinement;
pub use dispatch::Dispatch;
pub use evidence::Evidence;
pub use executor::{ProcessConfig, ProcessExecutor, SupervisorCommand};
pub use http::{HttpConfig, HttpConfigError, HttpExecutor};
pub use redact::Redactor;
pub use secret::{SecretError, Secrets};
