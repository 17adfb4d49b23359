//! A hook coordinator over a text that hooks may replace, and hooks that do what they must not.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use countersign_core::hook::{
    HookExecutionMode, HookNote, HookOverflowPolicy, HookPoint, HookQueueConfig, HookReason,
    HookRecordPayload as Payload, HookResponse, HookResponseClass, HookResponseDecision as Verdict,
    HookSpec, HookTimeoutPolicy, HookView, ToolRequestPatch, ToolResultPatch,
};
use countersign_core::id::{AgentId, AttemptId, RefId, RunId, RuntimePackageFingerprint, TurnId};
use countersign_core::journal::{RecordBase, TOOL_CALL_KEY};
use countersign_core::refs::{CorrelationEntry, SourceKind, SourceRef};
use countersign_kernel::{
    Accepted, Brake, Hook, HookCoordinator, HookDomain, HookMoment, HookStop,
};
use countersign_ports::hook::HookError;
use countersign_ports::journal::Content;
use countersign_ports::memory::ManualClock;
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use crate::common::{CountDrop, Gate, answers, broken, hook, journal, until};

/// A text that hooks may replace.
#[derive(Default)]
pub struct Board {
    pub text: Arc<Mutex<String>>,
    pub staged: Option<String>,
    pub refuses: Option<&'static str>,
}

impl Board {
    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }
}

impl HookDomain for Board {
    fn view(&self, content: bool) -> HookView {
        let mut view = HookView::new(self.text());
        view.content = content.then(|| json!({ "text": self.text() }));
        view
    }

    fn accept(&mut self, hook: &HookSpec, response: &HookResponse) -> Result<Accepted, String> {
        if let Some(why) = self.refuses {
            return Err(why.to_owned());
        }
        let HookResponse::ModifyToolRequest(patch) = response else {
            return Ok(Accepted::default());
        };
        let text = patch.merge_patch.as_ref().unwrap().as_str().unwrap().to_owned();
        let id = format!("board.{}", hook.hook_id);
        let drafts = vec![countersign_testkit::draft::draft(&id, &text, None).encode().unwrap()];
        self.staged = Some(text.clone());
        Ok(Accepted { drafts, contents: vec![Content::new(text.into_bytes())] })
    }

    fn apply(&mut self, _: HookResponse) {
        if let Some(text) = self.staged.take() {
            *self.text.lock().unwrap() = text;
        }
    }
}

pub struct Rig {
    pub journal: Arc<Gate>,
    pub hooks: HookCoordinator,
    pub brake: Brake,
    pub caller: Option<watch::Receiver<()>>,
}

pub fn rig(hooks: Vec<Hook>) -> Rig {
    let (journal, clock) = (journal(), Arc::new(ManualClock::at(1_000)));
    let hooks = HookCoordinator::new(hooks, journal.clone(), clock, 1).unwrap();
    Rig { journal, hooks, brake: Brake::default(), caller: None }
}

pub fn base() -> RecordBase {
    let tool_call = CorrelationEntry { key: TOOL_CALL_KEY.into(), value: "call.1".into() };
    RecordBase {
        turn_id: Some(TurnId::new("turn.1").unwrap()),
        attempt_id: Some(AttemptId::new("attempt.1").unwrap()),
        correlation_keys: vec![tool_call],
        ..RecordBase::new(
            RunId::new("run.1").unwrap(),
            AgentId::new("agent.a").unwrap(),
            SourceRef::new(SourceKind::ExternalRuntime, RefId::new("agent.a").unwrap()),
            RuntimePackageFingerprint::new("fp"),
        )
    }
}

impl Rig {
    pub fn moment(&self, point: HookPoint) -> Arc<HookMoment> {
        let (brake, caller) = (self.brake.clone(), self.caller.clone());
        Arc::new(HookMoment { point, base: base(), policy_refs: Vec::new(), brake, caller })
    }

    pub async fn run(&self, point: HookPoint, domain: &mut dyn HookDomain) -> Result<(), HookStop> {
        self.hooks.run(&self.moment(point), domain).await
    }

    /// Runs a point over nothing in particular.
    pub async fn pass(&self, point: HookPoint) -> Result<(), HookStop> {
        self.run(point, &mut Board::default()).await
    }

    pub async fn recorded(&self) -> Vec<Payload> {
        assert!(self.hooks.flush().await);
        self.journal.hooks().await.into_iter().map(|(_, payload)| payload).collect()
    }
}

pub const AFTER: HookPoint = HookPoint::AfterToolCall;
pub const BEFORE: HookPoint = HookPoint::BeforeToolCall;

pub fn modify(text: impl Into<String>) -> HookResponse {
    HookResponse::ModifyToolRequest(ToolRequestPatch {
        redacted_summary: "changed".into(),
        merge_patch: Some(text.into().into()),
    })
}

pub fn deny() -> HookResponse {
    let (code, redacted_summary) = ("no.thanks".to_owned(), "not today".to_owned());
    HookResponse::Deny(HookReason { code, redacted_summary })
}

pub fn note() -> HookNote {
    HookNote { redacted_summary: "please".into() }
}

pub fn rewrite() -> HookResponse {
    let (redacted_summary, replacement) = ("less".to_owned(), Some(json!({})));
    HookResponse::RewriteToolResult(ToolResultPatch { redacted_summary, replacement })
}

pub fn within(timeout_ms: u64, spec: HookSpec) -> HookSpec {
    HookSpec { timeout: HookTimeoutPolicy { timeout_ms }, ..spec }
}

/// A hook that waits for a permit, and counts how often it began and was dropped.
#[derive(Clone)]
pub struct Slow {
    pub permits: Arc<Semaphore>,
    pub begun: Arc<AtomicUsize>,
    pub dropped: Arc<AtomicUsize>,
}

impl Slow {
    pub fn new() -> Self {
        let (begun, dropped) = Default::default();
        Self { permits: Arc::new(Semaphore::new(0)), begun, dropped }
    }

    pub fn hook(&self, spec: HookSpec, response: HookResponse) -> Hook {
        let slow = self.clone();
        hook(spec, move |_| {
            let (slow, response) = (slow.clone(), response.clone());
            async move {
                slow.begun.fetch_add(1, Ordering::SeqCst);
                let _guard = CountDrop(slow.dropped.clone());
                slow.permits.acquire().await.unwrap().forget();
                Ok(response)
            }
        })
    }

    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    pub async fn dropped(&self) {
        until(async || self.dropped.load(Ordering::SeqCst) == self.begun()).await;
    }
}

pub fn queued(
    capacity: usize,
    reserve: usize,
    overflow: HookOverflowPolicy,
    spec: HookSpec,
) -> HookSpec {
    let count = |n| NonZeroUsize::new(n).unwrap();
    let queue = HookQueueConfig { capacity: count(capacity), terminal_reserve: count(reserve) };
    HookSpec { execution: HookExecutionMode::NonBlocking { queue, overflow }, ..spec }
}

/// What a hook does wrong, what is recorded of it, and what the step is told.
pub type Wrong = (&'static str, fn(HookSpec) -> Hook, fn(&str) -> Vec<Payload>, &'static str);

pub const WRONG: &[Wrong] = &[
    (
        "panics",
        |spec| hook(spec, |_| async { panic!("told to") }),
        |policy| vec![failed(policy, "the hook panicked")],
        "hook.failed",
    ),
    ("breaks", broken, |policy| vec![failed(policy, "out of order")], "hook.failed"),
    (
        "is late",
        |spec| hook(spec, |_| std::future::pending::<Result<HookResponse, HookError>>()),
        |policy| {
            let failure_policy = policy.to_owned();
            vec![Payload::TimedOut { invocation_id: first(), elapsed_ms: 250, failure_policy }]
        },
        "hook.timed_out",
    ),
    (
        "answers what the point does not allow",
        |spec| answers(spec, deny()),
        |_| rejected(Verdict::RejectedPointMatrix, HookResponseClass::Deny),
        "hook.rejected",
    ),
    (
        "answers what it has no right to",
        |spec| answers(spec, HookResponse::RequestRetry(note())),
        |_| rejected(Verdict::RejectedMutationRight, HookResponseClass::RequestRetry),
        "hook.rejected",
    ),
    (
        "answers what the domain refuses",
        |spec| answers(spec, rewrite()),
        |_| rejected(Verdict::RejectedPolicy, HookResponseClass::RewriteToolResult),
        "hook.rejected",
    ),
];

pub fn first() -> String {
    "hook.invocation.1".to_owned()
}

pub fn failed(policy: &str, why: &str) -> Payload {
    let (failure_policy, redacted_summary) = (policy.to_owned(), why.to_owned());
    Payload::Failed { invocation_id: first(), failure_policy, redacted_summary }
}

pub fn rejected(decision: Verdict, response_class: HookResponseClass) -> Vec<Payload> {
    vec![
        Payload::Completed { invocation_id: first(), elapsed_ms: 0 },
        Payload::ResponseDecision {
            invocation_id: first(),
            decision,
            response_class,
            mutation_right_decision: "checked_against_point_and_spec_rights".into(),
            target_domain_refs: Vec::new(),
        },
    ]
}
