//! Answering at the points of a run.

use std::future::Future;

use async_trait::async_trait;
use countersign_core::hook::{HookInput, HookResponse};

/// The code behind a hook. Whoever invokes it holds the clock, the rights and the journal: an
/// executor only answers.
#[async_trait]
pub trait HookExecutor: Send + Sync {
    /// Answers one invocation. Dropping the future calls it off, which happens when its time
    /// is over; what it started must end then. A panic is contained and counts as an error.
    ///
    /// # Errors
    /// When there is no answer. The hook's failure policy decides what follows.
    async fn invoke(&self, input: HookInput) -> Result<HookResponse, HookError>;

    /// Whether an invocation can be seen outside this process. Such a one is in the journal
    /// before it happens, which costs an append.
    fn reaches_outside(&self) -> bool {
        true
    }
}

/// Why a hook gave no answer: one line for the record, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HookError(pub String);

/// A hook that is a Rust closure. It runs on the runtime's own threads: one that computes or
/// waits for long without giving way delays everything else on its thread, and its deadline
/// passes unseen until it does.
pub struct HookFn<F>(F);

impl<F> HookFn<F> {
    /// Wraps `async |input| …`.
    pub fn new<A>(answer: F) -> Self
    where
        F: Fn(HookInput) -> A + Send + Sync,
        A: Future<Output = Result<HookResponse, HookError>> + Send,
    {
        Self(answer)
    }
}

#[async_trait]
impl<F, A> HookExecutor for HookFn<F>
where
    F: Fn(HookInput) -> A + Send + Sync,
    A: Future<Output = Result<HookResponse, HookError>> + Send,
{
    async fn invoke(&self, input: HookInput) -> Result<HookResponse, HookError> {
        (self.0)(input).await
    }

    fn reaches_outside(&self) -> bool {
        false
    }
}
