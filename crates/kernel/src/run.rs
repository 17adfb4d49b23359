//! Runs: one MCP session, or one command-line call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_audit::receipt::Receipt;
use countersign_core::id::{AgentId, IdError, RecordId, RefId, RunId, SessionId};
use countersign_core::journal::JournalPayload;
use countersign_core::refs::{CorrelationEntry, EntityRef, SourceKind, SourceRef};
use countersign_ports::entropy::EntropyError;
use countersign_ports::journal::{AppendError, Batch, Content};

use crate::govern::{Kernel, receipt};
use crate::hooks::{Brake, HookStop};
use crate::records::Base;

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

/// A record of a kind that the kernel does not know, about a run of the host's own.
#[derive(Clone, Debug)]
pub struct Addition {
    /// Unique in the journal for ever.
    pub record_id: RecordId,
    /// The kind of event; its family is `extension`.
    pub event: &'static str,
    /// Who caused it.
    pub source: SourceRef,
    /// What it is about.
    pub subject: EntityRef,
    /// Keys under which it is found again.
    pub correlation_keys: Vec<CorrelationEntry>,
    /// What it says.
    pub payload: JournalPayload,
}

/// Something about a run outside a call.
#[derive(Debug)]
pub struct Note<'a> {
    /// A word for what it is.
    pub status: &'a str,
    /// For a person.
    pub reason: &'a str,
    /// By which the record is found, beside its run.
    pub key: Option<(&'static str, String)>,
    /// What the record refers to by digest.
    pub contents: Vec<Content>,
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

impl Kernel {
    /// Records what the kernel does not know, within a run, and proves that it is recorded. What
    /// was begun is to be followed up: dropping the future leaves open whether it is.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn run_addition(
        &self,
        run: &Run,
        addition: Addition,
    ) -> Result<Option<Receipt>, RunError> {
        let base = self.run_base(run);
        let draft = base.addition(addition).map_err(|e| RunError::Record(e.to_string()))?;
        let batch = Batch { drafts: vec![draft.clone()], contents: Vec::new() };
        Ok(receipt(&draft, self.journal().append(batch).await?))
    }

    pub(crate) fn run_base<'a>(&'a self, run: &'a Run) -> Base<'a> {
        Base {
            run_id: run.id(),
            agent_id: run.agent_id(),
            package: self.package(),
            now: self.now(),
        }
    }
}
