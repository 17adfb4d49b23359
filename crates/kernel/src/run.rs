//! Runs: one MCP session, or one command-line call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::id::{AgentId, IdError, RefId, RunId};
use countersign_core::refs::{SourceKind, SourceRef};
use countersign_ports::entropy::EntropyError;
use countersign_ports::journal::AppendError;

/// A run whose start is durable. Clones are handles to one run.
#[derive(Clone, Debug)]
pub struct Run {
    id: RunId,
    agent_id: AgentId,
    source: SourceRef,
    turns: Arc<AtomicU64>,
}

/// Why a run did not start, or its end is not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There was no randomness for its id.
    #[error("no id for the run")]
    Entropy(#[from] EntropyError),
    /// A part of its records is no valid id.
    #[error("no id for the run")]
    Id(#[from] IdError),
    /// Its record does not fit the journal's form.
    #[error("the record of the run cannot be written: {0}")]
    Record(String),
    /// Its record is not durable.
    #[error("the run is not recorded")]
    Append(#[from] AppendError),
}

impl Run {
    pub(crate) fn new(id: RunId, agent_id: AgentId) -> Result<Self, IdError> {
        let agent = RefId::new(agent_id.as_str())?;
        let source = SourceRef::new(SourceKind::ExternalRuntime, agent);
        Ok(Self { id, agent_id, source, turns: Arc::default() })
    }

    /// The run's id, as it stands in its records.
    #[must_use]
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// Whose run it is. Nobody else's call can be part of it.
    #[must_use]
    pub fn agent_id(&self) -> &AgentId {
        &self.agent_id
    }

    pub(crate) fn source(&self) -> &SourceRef {
        &self.source
    }

    /// The next call's position, from 1.
    pub(crate) fn next_turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed) + 1
    }
}
