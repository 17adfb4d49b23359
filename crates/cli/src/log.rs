//! The log, on standard error.

use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;

use countersign_exec::Redactor;
use tracing_subscriber::EnvFilter;

static REDACTOR: OnceLock<Redactor> = OnceLock::new();

/// Writes what `COUNTERSIGN_LOG` lets through.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("COUNTERSIGN_LOG");
    // What ends a connection to an upstream server is told by whoever needed it.
    let quiet = "warn,rmcp=error,rmcp::transport::worker=off";
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(quiet));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Log)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// From now on without these secrets, whoever logs them: libraries show whole messages.
pub(crate) fn redact(redactor: &Redactor) {
    let _ = REDACTOR.set(redactor.clone());
}

/// Takes each entry as one piece.
struct Log;

impl Write for Log {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        match REDACTOR.get() {
            Some(redactor) => io::stderr().write_all(&redactor.bytes(entry))?,
            None => io::stderr().write_all(entry)?,
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
