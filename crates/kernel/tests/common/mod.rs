//! A whole kernel around a journal that can be held back, made to fail and cut.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::approval::{ApprovalRecord, ApprovalRequest};
use countersign_core::digest::Digest;
use countersign_core::hold::{
    Approver, Decision, DecisionKind, GrantTerms, HeldAction, HoldStatus, Surface,
};
use countersign_core::hook::{
    HookInput, HookMutationRight, HookMutationRights, HookPoint, HookRecordPayload, HookResponse,
    HookSource, HookSpec,
};
use countersign_core::id::{AgentId, HookExecutorRef, HookId, RefId, SessionId};
use countersign_core::journal::{JournalDraft, JournalPayload, JournalRecord};
use countersign_core::refs::{PolicyKind, PolicyRef};
use countersign_core::tool::ToolCallRecord;
use countersign_escalation::{Limits, ResolveError, Resolved};
use countersign_kernel::{Found, Governed, Hook, Kernel, Parts, Policy, Run};
use countersign_manifest::{FileDiagnostic, ManifestSet, Severity};
use countersign_ports::clock::Clock as _;
use countersign_ports::executor::{Execution, ExecutionStatus, ToolExecutor, ToolRun};
use countersign_ports::hook::{HookError, HookExecutor, HookFn};
use countersign_ports::journal::{
    AppendError, Batch, Committed, Content, Entry, Journal, ReadError,
};
use countersign_ports::memory::{ManualClock, MemoryJournal, SeededEntropy};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};

pub const TOOLS: &[(&str, &str)] = &[
    (
        "look.clad.toml",
        r#"
[tool]
name = "look"
version = "1.0.0"
description = "Looks."
binary = "head"
[args.file]
type = "path"
required = true
[args.lines]
type = "integer"
min = 1
max = 9
[command]
exec = ["head", "--lines={lines}", "{file}"]
[output]
format = "text"
"#,
    ),
    (
        "write.clad.toml",
        r#"
[tool]
name = "write"
version = "1.0.0"
description = "Writes."
binary = "touch"
human_approval = true
[args.file]
type = "path"
required = true
[command]
exec = ["touch", "{file}"]
[output]
format = "text"
"#,
    ),
    (
        "wipe.clad.toml",
        r#"
[tool]
name = "wipe"
version = "1.0.0"
description = "Wipes."
binary = "shred"
risk_tier = "critical"
[args.file]
type = "path"
required = true
[command]
exec = ["shred", "{file}"]
[output]
format = "text"
"#,
    ),
];

/// A journal that can be told to fail, or to hold every append back.
pub struct Gate {
    pub inner: MemoryJournal,
    /// Every append fails.
    pub fails: AtomicBool,
    /// Appends of a record whose id has this in it fail.
    pub refuses: Mutex<Option<String>>,
    /// Appends of a record whose id has this in it wait until it is another.
    pub parks: watch::Sender<Option<String>>,
    pub permits: Semaphore,
    /// The record ids of every append that was made.
    pub batches: Mutex<Vec<Vec<String>>>,
}

impl Gate {
    /// From now on appends whose records have this in an id fail; none with `None`.
    pub fn refuse(&self, part: Option<&str>) {
        *self.refuses.lock().unwrap() = part.map(str::to_owned);
    }

    pub async fn records(&self) -> Vec<JournalRecord> {
        let entries = self.inner.read(1, 10_000).await.unwrap();
        entries.iter().map(|e| serde_json::from_slice(&e.bytes).unwrap()).collect()
    }

    /// What hooks have on record, in order, with the hook's id.
    pub async fn hooks(&self) -> Vec<(String, HookRecordPayload)> {
        let hooks = self.records().await.into_iter().filter_map(|record| match record.payload {
            JournalPayload::Hook(hook) => Some((hook.hook_id.to_string(), hook.payload)),
            _ => None,
        });
        hooks.collect()
    }

    /// The batch that a record with this in its id was in.
    pub fn batch_of(&self, part: &str) -> Option<Vec<String>> {
        let batches = self.batches.lock().unwrap();
        batches.iter().find(|batch| batch.iter().any(|id| id.contains(part))).cloned()
    }
}

#[async_trait]
impl Journal for Gate {
    async fn append(&self, batch: Batch) -> Result<Committed, AppendError> {
        self.permits.acquire().await.unwrap().forget();
        let ids: Vec<_> = batch.drafts.iter().map(|d| d.record_id().to_string()).collect();
        let among = |part: &String| ids.iter().any(|id| id.contains(part));
        let mut parks = self.parks.subscribe();
        parks.wait_for(|part| !part.as_ref().is_some_and(among)).await.unwrap();
        let refused = self.refuses.lock().unwrap().clone();
        let refused = refused.is_some_and(|part| ids.iter().any(|id| id.contains(&part)));
        if refused || self.fails.load(Ordering::SeqCst) {
            return Err(AppendError::NoRoom("disk full".into()));
        }
        let committed = self.inner.append(batch).await;
        if committed.is_ok() {
            self.batches.lock().unwrap().push(ids);
        }
        committed
    }
    async fn read(&self, from: u64, limit: usize) -> Result<Vec<Entry>, ReadError> {
        self.inner.read(from, limit).await
    }
    async fn read_call(&self, call: &str) -> Result<Vec<Entry>, ReadError> {
        self.inner.read_call(call).await
    }
    async fn content(&self, seq: u64, digest: Digest) -> Result<Option<Vec<u8>>, ReadError> {
        self.inner.content(seq, digest).await
    }
    fn head(&self) -> watch::Receiver<u64> {
        self.inner.head()
    }
}

pub fn journal() -> Arc<Gate> {
    Arc::new(Gate {
        inner: MemoryJournal::default(),
        fails: false.into(),
        refuses: Mutex::default(),
        parks: watch::Sender::new(None),
        permits: Semaphore::new(Semaphore::MAX_PERMITS),
        batches: Mutex::default(),
    })
}

/// Counts what it is asked to run, and can hang or panic.
#[derive(Default)]
pub struct Hands {
    pub ran: Mutex<Vec<Vec<String>>>,
    pub panics: AtomicBool,
    pub hangs: AtomicBool,
    pub dropped: Arc<AtomicUsize>,
}

pub struct CountDrop(pub Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl ToolExecutor for Hands {
    async fn run(&self, run: ToolRun) -> Execution {
        let countersign_core::plan::Plan::Command(plan) = &run.plan else { panic!("{run:?}") };
        self.ran.lock().unwrap().push(plan.argv.clone());
        let _guard = CountDrop(self.dropped.clone());
        assert!(!self.panics.load(Ordering::SeqCst), "told to");
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Execution {
            status: ExecutionStatus::Exited(0),
            stdout: b"done\n".to_vec(),
            stdout_sha256: *Digest::of("done\n").as_bytes(),
            stdout_len: 5,
            stderr: Vec::new(),
            duration: Duration::from_millis(3),
        }
    }
}

/// What a world is started with, beside its journal and clock.
pub struct Setup {
    pub seed: u64,
    pub policy: Policy,
    pub tools: Vec<(String, String)>,
    pub hooks: Vec<Hook>,
    pub session: Option<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        let tools = TOOLS.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let (policy, hooks, session) = (Policy::default(), Vec::new(), None);
        Self { seed: 1, policy, tools: tools.collect(), hooks, session }
    }
}

pub fn seed(seed: u64) -> Setup {
    Setup { seed, ..Setup::default() }
}

pub fn hooked(hooks: Vec<Hook>) -> Setup {
    Setup { hooks, ..Setup::default() }
}

impl Setup {
    /// The kernel alone, without a run.
    pub async fn kernel(
        self,
        journal: &Arc<Gate>,
        clock: &Arc<ManualClock>,
    ) -> (Kernel, Found, Arc<Hands>) {
        let (manifests, problems) = ManifestSet::load(self.tools);
        let error = |problem: &&FileDiagnostic| problem.diagnostic.severity == Severity::Error;
        assert!(problems.iter().find(error).is_none(), "{problems:?}");
        let hands = Arc::new(Hands::default());
        let (kernel, found) = Kernel::start(Parts {
            journal: journal.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(self.seed)),
            executor: hands.clone(),
            manifests,
            policy: self.policy,
            limits: Limits::default(),
            hooks: self.hooks,
            notifiers: Vec::new(),
            version: "test".into(),
        })
        .await
        .unwrap();
        (kernel, found, hands)
    }
}

pub struct World {
    pub kernel: Kernel,
    pub found: Found,
    pub run: Arc<Run>,
    pub journal: Arc<Gate>,
    pub hands: Arc<Hands>,
    pub clock: Arc<ManualClock>,
}

pub async fn start(journal: Arc<Gate>, clock: Arc<ManualClock>, setup: Setup) -> World {
    let session = setup.session;
    let (kernel, found, hands) = setup.kernel(&journal, &clock).await;
    let run = new_run(&kernel, "agent.a", session).await;
    World { kernel, found, run, journal, hands, clock }
}

pub async fn new_run(kernel: &Kernel, agent: &str, session: Option<&str>) -> Arc<Run> {
    let session = session.map(|session| SessionId::new(session).unwrap());
    Arc::new(kernel.run_start(AgentId::new(agent).unwrap(), session, "test").await.unwrap())
}

pub async fn world_with(setup: Setup) -> World {
    start(journal(), Arc::new(ManualClock::at(1_000_000)), setup).await
}

pub async fn world() -> World {
    world_with(Setup::default()).await
}

pub fn args(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

pub fn approver(who: &str) -> Approver {
    Approver { surface: Surface::Cli, id: who.into(), display: who.into() }
}

impl World {
    pub async fn call(&self, tool: &str, arguments: Value) -> Governed {
        self.call_in(&self.run, tool, arguments).await
    }

    /// A call of another run.
    pub async fn call_in(&self, run: &Run, tool: &str, arguments: Value) -> Governed {
        self.kernel.govern(run, tool, &args(arguments)).await
    }

    pub fn spawn(&self, tool: &str, arguments: Value) -> tokio::task::JoinHandle<Governed> {
        self.spawn_in(&self.run, tool, arguments)
    }

    pub fn spawn_in(
        &self,
        run: &Arc<Run>,
        tool: &str,
        arguments: Value,
    ) -> tokio::task::JoinHandle<Governed> {
        let (kernel, run, tool) = (self.kernel.clone(), run.clone(), tool.to_owned());
        tokio::spawn(async move { kernel.govern(&run, &tool, &args(arguments)).await })
    }

    pub async fn held(&self) -> HeldAction {
        let mut changed = self.kernel.queue().changed();
        loop {
            if let Some(hold) = self.kernel.queue().pending().into_iter().next() {
                return hold;
            }
            changed.changed().await.unwrap();
        }
    }

    pub async fn decide(&self, kind: DecisionKind, who: &str) -> Result<HoldStatus, ResolveError> {
        self.answer(kind, who, None).await.map(|resolved| resolved.outcome.status)
    }

    /// Approves what is held, with later calls.
    pub async fn grant(&self, terms: GrantTerms) -> Result<Resolved, ResolveError> {
        self.answer(DecisionKind::Approve, "ada", Some(terms)).await
    }

    async fn answer(
        &self,
        decision: DecisionKind,
        who: &str,
        grant: Option<GrantTerms>,
    ) -> Result<Resolved, ResolveError> {
        let hold = self.held().await;
        let decision = Decision { decision, reason: Some("because".into()), grant };
        self.kernel.decide(&hold.id, decision, approver(who)).await
    }

    pub fn ran(&self) -> usize {
        self.hands.ran.lock().unwrap().len()
    }

    /// The last command line that ran.
    pub fn last_ran(&self) -> String {
        self.hands.ran.lock().unwrap().last().unwrap().join(" ")
    }

    pub async fn records(&self) -> Vec<JournalRecord> {
        self.journal.records().await
    }

    /// The kinds of the records, but for those of runs.
    pub async fn story(&self) -> Vec<String> {
        let kinds = self.records().await.into_iter().map(|r| r.event_index.event_kind);
        kinds.filter(|k| !k.starts_with("run_")).collect()
    }

    pub async fn approvals(&self) -> Vec<ApprovalRecord> {
        let payloads = self.records().await.into_iter().map(|record| record.payload);
        let approvals = payloads.filter_map(|payload| match payload {
            JournalPayload::Approval(approval) => Some(approval),
            _ => None,
        });
        approvals.collect()
    }

    pub async fn requests(&self) -> Vec<ApprovalRequest> {
        let approvals = self.approvals().await.into_iter();
        let requests = approvals.filter_map(|approval| match approval {
            ApprovalRecord::Requested { request } => Some(*request),
            _ => None,
        });
        requests.collect()
    }

    pub async fn tool_records(&self) -> Vec<ToolCallRecord> {
        let payloads = self.records().await.into_iter().map(|record| record.payload);
        let tools = payloads.filter_map(|payload| match payload {
            JournalPayload::Tool(tool) => Some(*tool),
            _ => None,
        });
        tools.collect()
    }

    /// Stops the world as SIGKILL would: nothing is said to the journal any more.
    pub async fn crash(self) -> (Arc<Gate>, Arc<ManualClock>) {
        self.journal.permits.forget_permits(usize::MAX);
        self.kernel.queue().close();
        let after = cut(&self.journal, usize::MAX).await;
        (after, Arc::new(ManualClock::at(self.clock.now_millis())))
    }
}

/// A new journal with the first records of another one, and their content.
pub async fn cut(journal: &Gate, records: usize) -> Arc<Gate> {
    let after = self::journal();
    for record in journal.records().await.into_iter().take(records) {
        let draft = JournalDraft::new(record.clone()).encode().unwrap();
        let mut contents = Vec::new();
        for content in &record.content_refs {
            let digest = Digest::parse(content.as_str()).unwrap();
            let bytes = journal.inner.content(record.journal_seq, digest).await.unwrap();
            contents.extend(bytes.map(Content::new));
        }
        after.inner.append(Batch { drafts: vec![draft], contents }).await.unwrap();
    }
    after
}

/// A hook's specification that the run waits for.
pub fn blocking(id: &str, point: HookPoint, rights: &[HookMutationRight]) -> HookSpec {
    HookSpec::blocking(
        HookId::new(id).unwrap(),
        point,
        HookSource::TestOnlyFake,
        HookExecutorRef::new(format!("executor.{id}")).unwrap(),
        hook_policy(),
        HookMutationRights::with(rights.iter().copied()),
    )
}

/// A hook's specification that nobody waits for.
pub fn observing(id: &str, point: HookPoint) -> HookSpec {
    HookSpec::observing(
        HookId::new(id).unwrap(),
        point,
        HookSource::TestOnlyFake,
        HookExecutorRef::new(format!("executor.{id}")).unwrap(),
        hook_policy(),
    )
}

pub fn hook_policy() -> PolicyRef {
    PolicyRef { kind: PolicyKind::Host, id: RefId::new("policy.hook").unwrap(), version: None }
}

/// A hook that is a closure.
pub fn hook<F, A>(spec: HookSpec, answer: F) -> Hook
where
    F: Fn(HookInput) -> A + Send + Sync + 'static,
    A: Future<Output = Result<HookResponse, HookError>> + Send + 'static,
{
    Hook { spec, executor: Arc::new(HookFn::new(answer)) }
}

/// A hook that always answers this.
pub fn answers(spec: HookSpec, response: HookResponse) -> Hook {
    hook(spec, move |_| {
        let response = response.clone();
        async move { Ok(response) }
    })
}

/// A hook that fails by itself.
pub fn broken(spec: HookSpec) -> Hook {
    hook(spec, |_| async { Err(HookError("out of order".into())) })
}

/// The same hook, with an effect that others can see.
pub fn outside(hook: Hook) -> Hook {
    struct Outside(Arc<dyn HookExecutor>);
    #[async_trait]
    impl HookExecutor for Outside {
        async fn invoke(&self, input: HookInput) -> Result<HookResponse, HookError> {
            self.0.invoke(input).await
        }
    }
    Hook { spec: hook.spec, executor: Arc::new(Outside(hook.executor)) }
}

/// How long anything may take before the test fails. Nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the state is reached, with nothing but other tasks between two looks.
pub async fn until(mut reached: impl AsyncFnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < end {
        if reached().await {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("not reached");
}

/// Lets every other task go as far as it can.
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}
