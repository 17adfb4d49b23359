//! One invocation, measured and bounded here and not by the hook.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::hook::{HookInput, HookResponse};
use countersign_core::text::visible;
use countersign_ports::hook::HookExecutor;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::render::shorten;

/// How an invocation ended.
#[derive(Debug)]
pub(super) enum Answer {
    Response(HookResponse),
    Late,
    Broke(String),
    /// Never invoked: too many wait.
    Full,
    CalledOff,
}

/// Ends the task when nobody waits for it any more.
struct Running(JoinHandle<Result<HookResponse, countersign_ports::hook::HookError>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Invokes the hook in a task of its own, so that a panic is an answer, and so that one that
/// never gives way holds up nobody but itself.
pub(super) async fn invoke(
    executor: Arc<dyn HookExecutor>,
    input: HookInput,
    timeout: Duration,
    caller: Option<watch::Receiver<()>>,
) -> (Answer, Duration) {
    let started = Instant::now();
    let mut running = Running(tokio::spawn(async move { executor.invoke(input).await }));
    let gone = async {
        match caller {
            Some(mut caller) => while caller.changed().await.is_ok() {},
            None => std::future::pending().await,
        }
    };
    let answer = tokio::select! {
        biased;
        done = &mut running.0 => match done {
            Ok(Ok(response)) => Answer::Response(response),
            Ok(Err(error)) => Answer::Broke(shorten(&visible(&error.to_string()))),
            Err(error) if error.is_panic() => Answer::Broke("the hook panicked".to_owned()),
            Err(_) => Answer::Broke("the hook was aborted".to_owned()),
        },
        () = tokio::time::sleep(timeout) => Answer::Late,
        () = gone => Answer::CalledOff,
    };
    let elapsed = started.elapsed();
    match answer {
        // It came, but after its time: the timer had no thread to fire on.
        Answer::Response(_) | Answer::Broke(_) if elapsed > timeout => (Answer::Late, elapsed),
        answer => (answer, elapsed),
    }
}
