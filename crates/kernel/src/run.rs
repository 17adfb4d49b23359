//! Runs: one MCP session, or one command-line call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::id::{AgentId, IdError, RefId, RunId, SessionId};
use countersign_core::refs::{SourceKind, SourceRef};
use countersign_ports::entropy::EntropyError;
use countersign_ports::journal::AppendError;

use crate::hooks::{Brake, HookStop};

/// A run whose start is durable. Clones are handles to one run.
#[derive(Clone, Debug)]
pub struct Run {
    id: RunId,
    agent_id: AgentId,
    session_id: Option<SessionId>,
    own: bool,
    source: SourceRef,
    brake: Brake,
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
    /// The client's own session has the name of a run.
    #[error("a session of your own cannot begin with `run.`")]
    Session,
    /// A hook does not let it begin.
    #[error("the run may not begin: {}", .0.message)]
    Stopped(Box<HookStop>),
    /// Its record is not durable.
    #[error("the run is not recorded")]
    Append(#[from] AppendError),
}

impl Run {
    pub(crate) fn new(id: RunId, agent_id: AgentId, session_id: Option<SessionId>) -> Self {
        let source = SourceRef::new(SourceKind::ExternalRuntime, RefId::from(&agent_id));
        let (brake, turns) = (Brake::default(), Arc::default());
        Self { id, agent_id, session_id, own: false, source, brake, turns }
    }

    /// A run of the host's own.
    pub(crate) fn own(id: RunId, agent_id: AgentId) -> Self {
        Self { own: true, ..Self::new(id, agent_id, None) }
    }

    pub(crate) fn is_own(&self) -> bool {
        self.own
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

    /// The client's own session, where it named one.
    #[must_use]
    pub fn session_id(&self) -> Option<&SessionId> {
        self.session_id.as_ref()
    }

    /// What grants are scoped to: the client's own session, or else the run.
    pub(crate) fn session(&self) -> RefId {
        self.session_id.as_ref().map_or_else(|| RefId::from(&self.id), RefId::from)
    }

    /// What stopped the run, if a hook did: it takes no further call.
    #[must_use]
    pub fn stopped(&self) -> Option<&HookStop> {
        self.brake.engaged()
    }

    pub(crate) fn brake(&self) -> &Brake {
        &self.brake
    }

    pub(crate) fn source(&self) -> &SourceRef {
        &self.source
    }

    /// The next call's position, from 1.
    pub(crate) fn next_turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed) + 1
    }
}
