//! One call, from request to result.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use countersign_audit::receipt::Receipt;
use countersign_core::approval::{ApprovalEdit, GrantCall};
use countersign_core::digest::Digest;
use countersign_core::effect::EffectTerminalStatus;
use countersign_core::hold::Approver;
use countersign_core::hook::HookPoint;
use countersign_core::id::{
    AgentId, ContentRef, HookId, RunId, RuntimePackageFingerprint, SessionId, ToolCallId,
};
use countersign_core::journal::EncodedDraft;
use countersign_core::text::visible;
use countersign_escalation::{EscalationQueue, Limits};
use countersign_manifest::{ArgProblem, Envelope, EnvelopeStatus, Manifest, ManifestSet, Planned};
use countersign_ports::clock::Clock;
use countersign_ports::entropy::{Entropy, ordered_id};
use countersign_ports::executor::{ExecutionStatus, ToolExecutor, ToolRun};
use countersign_ports::journal::{AppendError, Batch, Committed, Content, Journal};
use countersign_ports::notifier::Notifier;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::approval::{
    BrokerRecorder, EarlierApprovals, Need, argument_digests, call_id, called_off,
};
use crate::broker::{ApprovalBroker, GrantUse};
use crate::call::{
    Call, CallOptions, Calls, End, Ends, Found as KeyFound, Off, Presence, Shared, request_digest,
};
use crate::envelope::{nothing, summary};
use crate::hooks::{Hook, HookCoordinator, HookStop, StopScope};
use crate::notices;
use crate::points::{PlannedCall, ToolRequest};
use crate::policy::{Demand, Policy, PolicyCall};
use crate::records::{CallFacts, OwnKey, ToolStep};
use crate::recovery::{Fold, Found, StartError, recover};
use crate::render::{canonical, shorten};
use crate::run::{Note, Run, RunError};

/// How the ids of runs begin. No client's own session may begin so: a grant that was given
/// within a run would cover calls of whoever takes the run's name.
const RUN_PREFIX: &str = "run.";

/// What a kernel is made of.
pub struct Parts {
    /// Where everything is recorded.
    pub journal: Arc<dyn Journal>,
    /// The time in records and deadlines.
    pub clock: Arc<dyn Clock>,
    /// What ids are made of.
    pub entropy: Arc<dyn Entropy>,
    /// What runs plans.
    pub executor: Arc<dyn ToolExecutor>,
    /// The tools there are.
    pub manifests: ManifestSet,
    /// Which calls need a person.
    pub policy: Policy,
    /// How many calls may wait for one.
    pub limits: Limits,
    /// What looks at, changes and stops calls and runs.
    pub hooks: Vec<Hook>,
    /// Who is told of holds, and how long each try may take. What reaches nobody is on record.
    pub notifiers: Vec<(Arc<dyn Notifier>, Duration)>,
    /// The program and version, for the records.
    pub version: String,
}

struct Inner {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    executor: Arc<dyn ToolExecutor>,
    manifests: watch::Sender<Arc<ManifestSet>>,
    policy: Policy,
    policy_digest: Digest,
    package: RuntimePackageFingerprint,
    queue: EscalationQueue,
    broker: ApprovalBroker,
    hooks: HookCoordinator,
    earlier: Mutex<EarlierApprovals>,
    calls: Arc<Calls>,
}

/// Governs calls. Clones are handles to one kernel.
#[derive(Clone)]
pub struct Kernel(Arc<Inner>);

/// A kernel, as long as others have it.
pub(crate) struct KernelRef(Weak<Inner>);

impl KernelRef {
    pub(crate) fn kernel(&self) -> Option<Kernel> {
        self.0.upgrade().map(Kernel)
    }
}

/// Why a call did not run, in words for the agent and its operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// A stable code, such as `bad_arguments` or `approval.denied`.
    pub code: String,
    /// Who or what denied, and why.
    pub message: String,
    /// The person, if it was one.
    pub by: Option<Approver>,
    /// What the person wrote.
    pub reason: Option<String>,
    /// The hook, if it was one.
    pub hook: Option<HookId>,
    /// Every bad argument.
    pub problems: Vec<ArgProblem>,
}

impl Denial {
    pub(crate) fn new(code: &str, message: String) -> Box<Self> {
        let code = code.to_owned();
        let (by, reason, hook, problems) = (None, None, None, Vec::new());
        Box::new(Self { code, message, by, reason, hook, problems })
    }

    pub(crate) fn by_hook(stop: HookStop) -> Box<Self> {
        let HookStop { hook_id, code, message, reason, .. } = stop;
        let code = if code == "hook.called_off" { "called_off" } else { code };
        let reason = reason.map(|given| format!("{}: {}", given.code, given.redacted_summary));
        Box::new(Self {
            reason: reason.map(|reason| shorten(&visible(&reason))),
            hook: Some(hook_id),
            ..*Self::new(code, format!("denied by {message}"))
        })
    }
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Governed {
    /// The call, as it stands in the journal. Absent when there was no randomness for an id.
    pub call_id: Option<ToolCallId>,
    /// What the agent gets.
    pub envelope: Envelope,
    /// Why it did not run, if it did not.
    pub denial: Option<Denial>,
    /// The proof of the call's result, or of its refusal; of its intent when a hook keeps the
    /// result from the agent. Absent when it could not be recorded, or the journal does not sign.
    pub receipt: Option<Receipt>,
    /// What an approver changed before it was approved: then another call was made than the one
    /// that was sent.
    pub edited: Option<Arc<ApprovalEdit>>,
}

impl Kernel {
    /// Takes up the journal where it was left: holds with time left are opened again, the
    /// others are closed, and effects of unknown outcome are listed and never run again.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub async fn start(parts: Parts) -> Result<(Self, Found), StartError> {
        let fold = Fold::read(&*parts.journal).await?;
        let policy_digest = parts.policy.digest();
        let package = Digest::of(canonical(&json!({
            "version": parts.version,
            "manifests": parts.manifests.digest(),
            "policy": policy_digest,
        })))
        .to_string();
        let package = RuntimePackageFingerprint::new(package);
        let (journal, clock) = (&parts.journal, &parts.clock);
        let hooks = HookCoordinator::new(
            parts.hooks,
            Arc::clone(journal),
            Arc::clone(clock),
            fold.next_invocation(),
        )?;
        let broker = ApprovalBroker::new(
            Arc::clone(journal),
            Arc::clone(clock),
            hooks.clone(),
            package.clone(),
        );
        let recorder = Arc::new(BrokerRecorder(broker.clone()));
        let (notifiers, lost) = notices::notifiers(parts.notifiers);
        let (clock, limits) = (Arc::clone(clock), parts.limits);
        let queue = EscalationQueue::with_notifiers(clock, recorder, limits, notifiers);
        let kernel = Self(Arc::new(Inner {
            journal: parts.journal,
            clock: parts.clock,
            entropy: parts.entropy,
            executor: parts.executor,
            manifests: watch::Sender::new(Arc::new(parts.manifests)),
            policy: parts.policy,
            policy_digest,
            package,
            queue,
            broker,
            hooks,
            earlier: Mutex::default(),
            calls: Arc::default(),
        }));
        notices::record_lost(KernelRef(Arc::downgrade(&kernel.0)), lost);
        let found = recover(&kernel, fold).await?;
        Ok((kernel, found))
    }

    /// The held calls.
    #[must_use]
    pub fn queue(&self) -> &EscalationQueue {
        &self.0.queue
    }

    /// The tools there are now.
    #[must_use]
    pub fn manifests(&self) -> Arc<ManifestSet> {
        Arc::clone(&self.0.manifests.borrow())
    }

    /// Tells of every change of the tools, and holds those there are.
    #[must_use]
    pub fn manifests_changes(&self) -> watch::Receiver<Arc<ManifestSet>> {
        self.0.manifests.subscribe()
    }

    /// Puts other tools in the place of those there are, from one moment to the next. Calls that
    /// run keep theirs. A held call whose tool is not the same any more is refused when it is
    /// approved.
    pub fn manifests_replace(&self, manifests: ManifestSet) {
        self.0.manifests.send_replace(Arc::new(manifests));
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &dyn Journal {
        &*self.0.journal
    }

    /// The rules in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.0.policy
    }

    pub(crate) fn policy_digest(&self) -> &Digest {
        &self.0.policy_digest
    }

    pub(crate) fn entropy(&self) -> &dyn Entropy {
        &*self.0.entropy
    }

    pub(crate) fn package(&self) -> &RuntimePackageFingerprint {
        &self.0.package
    }

    /// What asks for approval and keeps grants.
    #[must_use]
    pub fn broker(&self) -> &ApprovalBroker {
        &self.0.broker
    }

    /// The hooks.
    #[must_use]
    pub fn hooks(&self) -> &HookCoordinator {
        &self.0.hooks
    }

    pub(crate) fn earlier(&self) -> &Mutex<EarlierApprovals> {
        &self.0.earlier
    }

    pub(crate) fn calls(&self) -> &Arc<Calls> {
        &self.0.calls
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.clock.now_millis()
    }

    /// Starts a run: returns once its start is recorded. `session` is the client's own, which
    /// may have many runs; grants reach as far as it does, or else as the run.
    ///
    /// # Errors
    /// When a hook does not let it begin, or it cannot be recorded; there is no run then.
    pub async fn run_start(
        &self,
        agent_id: AgentId,
        session: Option<SessionId>,
        how: &str,
    ) -> Result<Run, RunError> {
        if session.as_ref().is_some_and(|session| session.as_str().starts_with(RUN_PREFIX)) {
            return Err(RunError::Session);
        }
        let run = Run::new(self.run_id()?, agent_id, session);
        if let Err(stop) = self.run_point(&run, HookPoint::RunStarting, how).await {
            let why = &stop.message;
            self.run_record(&run, "refused", "run_refused", "refused", why).await?;
            return Err(RunError::Stopped(Box::new(stop)));
        }
        self.run_record(&run, "started", "run_started", "started", how).await?;
        Ok(run)
    }

    /// Starts a run of the host's own, for what belongs to no agent. It passes no hooks.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn run_start_own(&self, agent_id: AgentId, how: &str) -> Result<Run, RunError> {
        let run = Run::own(self.run_id()?, agent_id);
        self.run_record(&run, "started", "run_started", "started", how).await?;
        Ok(run)
    }

    fn run_id(&self) -> Result<RunId, RunError> {
        Ok(RunId::new(format!("{RUN_PREFIX}{}", ordered_id(self.entropy(), self.now())?))?)
    }

    /// Ends a run: what hooks do about that, and the record of it. Once for each run.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn run_end(&self, run: &Run, reason: &str) -> Result<(), RunError> {
        let before = self.run_point(run, HookPoint::BeforeRunComplete, reason).await;
        let stops = [before.as_ref().err(), run.stopped()].into_iter().flatten();
        let stop = stops.max_by_key(|stop| stop.scope);
        let status = match stop.map(|stop| stop.scope) {
            None => "ended",
            Some(StopScope::FailRun) => "failed",
            Some(StopScope::InterruptRun) => "interrupted",
            Some(StopScope::Step) => "repair_needed",
        };
        let reason = match stop {
            None => reason.to_owned(),
            Some(stop) => format!("{reason}; {}", stop.message),
        };
        self.run_record(run, "ended", "run_ended", status, &reason).await?;
        if let Err(stop) = self.run_point(run, HookPoint::AfterRunTerminal, &reason).await {
            tracing::warn!(run = %run.id(), "after the end of a run: {}", stop.message);
        }
        Ok(())
    }

    /// [`Kernel::run_note`] with what it refers to.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn run_note_with(&self, run: &Run, note: Note<'_>) -> Result<(), RunError> {
        let suffix = format!("{}.{}", note.status, ordered_id(self.entropy(), self.now())?);
        self.run_append(run, &suffix, "run_noted", note).await
    }

    async fn run_record(
        &self,
        run: &Run,
        suffix: &str,
        event: &'static str,
        status: &str,
        reason: &str,
    ) -> Result<(), RunError> {
        let note = Note { status, reason, key: None, contents: Vec::new() };
        self.run_append(run, suffix, event, note).await
    }

    async fn run_append(
        &self,
        run: &Run,
        suffix: &str,
        event: &'static str,
        note: Note<'_>,
    ) -> Result<(), RunError> {
        let base = self.run_base(run);
        let reason = shorten(&visible(note.reason));
        let note = Note { reason: &reason, ..note };
        let draft =
            base.run(suffix, event, &note).map_err(|error| RunError::Record(error.to_string()))?;
        self.journal().append(Batch { drafts: vec![draft], contents: note.contents }).await?;
        Ok(())
    }

    /// Governs one call to its end. Dropping the future calls it off: a hold is cancelled, a
    /// running tool is killed, and both are recorded. What has been handed to the journal is
    /// always followed up, whenever the future is dropped.
    pub async fn govern(&self, run: &Run, tool: &str, arguments: &Map<String, Value>) -> Governed {
        let mut call = self.call(run, tool, arguments, CallOptions::default());
        call.outcome().await.unwrap_or_else(|error| self.broke(tool, &error))
    }

    /// Starts governing one call. Must be called inside a tokio runtime.
    ///
    /// A call that a person has to approve is joined by equal ones: the same plan of the same
    /// agent under the same rules, asked about for the same reason. It runs once, and all of
    /// them get its outcome.
    #[must_use]
    pub fn call(
        &self,
        run: &Run,
        tool: &str,
        arguments: &Map<String, Value>,
        options: CallOptions,
    ) -> Call {
        let (kernel, run, tool) = (self.clone(), run.clone(), tool.to_owned());
        let arguments = arguments.clone();
        let CallOptions { kept, idempotency_key, mcp } = options;
        // INVARIANT: the call runs in a task of its own, whoever goes away.
        Call::start(kept, mcp, |ends| {
            tokio::spawn(async move {
                match idempotency_key {
                    None => kernel.make(&run, &tool, &arguments, &ends, None).await,
                    Some(key) => {
                        let own = (key, request_digest(&tool, &arguments));
                        kernel.make_keyed(&run, &tool, &arguments, &ends, own).await
                    }
                }
            })
        })
    }

    /// What an agent gets when the program failed.
    fn broke(&self, tool: &str, error: &dyn std::fmt::Display) -> Governed {
        tracing::error!(%error, "governing a call failed");
        let denial = Denial::new("internal", "the call\u{2019}s end is not known".to_owned());
        let mut governed = self.denied(tool, String::new(), *denial);
        governed.envelope.status = EnvelopeStatus::Error;
        governed
    }

    /// Makes a call, or finds what became of it.
    pub(crate) async fn make_keyed(
        &self,
        run: &Run,
        tool: &str,
        arguments: &Map<String, Value>,
        ends: &Ends,
        (key, request): OwnKey,
    ) -> Governed {
        loop {
            match self.calls().keyed(run.agent_id(), &key, request) {
                KeyFound::Turn(turn) => {
                    let own = Some((key, request));
                    let governed = self.make(run, tool, arguments, ends, own).await;
                    if governed.is_outcome() || governed.may_have_run() {
                        turn.end(&governed);
                    }
                    return governed;
                }
                KeyFound::Making(mut making) => tokio::select! {
                    _ = making.changed() => {}
                    _ = ends.caller.gone() => {
                        return self.denied(tool, String::new(), *called_off());
                    }
                },
                KeyFound::Ended(governed) => return (*governed).clone(),
                KeyFound::Recorded(call) => return self.recorded_outcome(tool, &call).await,
                KeyFound::Conflict => {
                    let message = "another call was made under this idempotency key".to_owned();
                    let denial = Denial::new("idempotency_key_reused", message);
                    return match self.facts(run, tool, None) {
                        Ok(facts) => self.refuse(&facts, String::new(), denial).await,
                        Err(_) => self.denied(tool, String::new(), *denial),
                    };
                }
            }
        }
    }

    fn facts(&self, run: &Run, tool: &str, key: Option<OwnKey>) -> Result<CallFacts, Box<Denial>> {
        let call = call_id(self)?;
        let name = shorten(&visible(tool)).chars().take(64).collect::<String>();
        let name = if name.is_empty() { "?".to_owned() } else { name };
        let facts = CallFacts::new(run, call, run.next_turn(), name)
            .map_err(|error| Denial::new("not_recorded", error.to_string()))?;
        Ok(CallFacts { key, ..facts })
    }

    async fn make(
        &self,
        run: &Run,
        tool: &str,
        arguments: &Map<String, Value>,
        ends: &Ends,
        key: Option<OwnKey>,
    ) -> Governed {
        let facts = match self.facts(run, tool, key) {
            Ok(facts) => CallFacts { caller: ends.mcp.clone(), ..facts },
            Err(denial) => return self.denied(tool, String::new(), *denial),
        };
        if let Some(stop) = run.stopped() {
            return self.refuse(&facts, String::new(), run_stopped(stop)).await;
        }
        let manifests = self.manifests();
        let mine = |manifest: &&Arc<Manifest>| run.is_own() || !manifest.is_own();
        let Some(manifest) = manifests.get(tool).filter(mine) else {
            let denial = Denial::new("unknown_tool", format!("there is no tool `{}`", facts.tool));
            return self.refuse(&facts, String::new(), denial).await;
        };
        let planned = match manifest.plan(arguments) {
            Ok(planned) => planned,
            Err(problems) => {
                return self.refuse(&facts, String::new(), bad_arguments(problems)).await;
            }
        };
        let call = facts.clone();
        let call = match PlannedCall::new(self, manifest, call, arguments.clone(), planned) {
            Ok(call) => call,
            Err(error) => {
                let denial = Denial::new("not_recorded", error.to_string());
                return self.refuse(&facts, String::new(), denial).await;
            }
        };
        let mut request = ToolRequest::new(self, manifest, call);
        let hooked = self.before_tool(&mut request, &ends.there).await;
        let ToolRequest { mut call, asks, .. } = request;
        if let Err(denial) = hooked {
            return self.refuse(&call.facts, call.rendering.command, denial).await;
        }
        let mut granted = None;
        // A grant answers the policy's question, not that of a hook.
        let judged = PolicyCall { manifest, agent: run.agent_id(), arguments: &call.planned.args };
        if let Some(demand) = self.policy().demand(&judged, asks.clone()) {
            if asks.is_none() {
                granted = self.granted(&mut call.facts, manifest, &call.planned.args);
            }
            if granted.is_none() {
                return self.share(call, demand, ends).await;
            }
        }
        self.announce(manifest, call, granted, Off::Caller(&ends.caller)).await
    }

    /// Waits for a call that needs a person, together with whoever makes the same one.
    async fn share(&self, call: PlannedCall, demand: Demand, ends: &Ends) -> Governed {
        let (tool, command) = (call.facts.tool.clone(), call.rendering.command.clone());
        let Some(fingerprint) = call.facts.fingerprint else {
            let denial = Denial::new("internal", "the call has no fingerprint".to_owned());
            return self.refuse(&call.facts, command, denial).await;
        };
        let agent_id = &call.facts.agent_id;
        let own_key = call.facts.key.as_ref();
        let now = self.now();
        let (mut listener, new) =
            self.calls().join(agent_id, fingerprint, &demand.rule, own_key, now);
        if new {
            let (kernel, shared) = (self.clone(), Arc::clone(&listener.shared));
            let counted = self.calls().count();
            tokio::spawn(async move {
                let _counted = counted;
                kernel.hold_and_run(call, demand, shared).await;
            });
        }
        let mut hold = listener.shared.hold.subscribe();
        hold.mark_changed();
        let end = loop {
            tokio::select! {
                biased;
                end = listener.end() => break end,
                Ok(()) = hold.changed() => {
                    ends.hold.send_replace(hold.borrow_and_update().clone());
                }
                how = ends.caller.gone() => {
                    // What runs is part of the run until it has ended, whoever has left.
                    let follow = match how {
                        Presence::CalledOff => listener.call_off(),
                        Presence::Here | Presence::Left => listener.leave(),
                    };
                    if follow {
                        break listener.end().await;
                    }
                    return self.denied(&tool, command, *called_off());
                }
            }
        };
        match end {
            End::Governed(governed) => {
                if governed.is_outcome() && listener.is_listening() {
                    let (calls, shared) = (self.calls(), &listener.shared);
                    ends.told.tell(calls, shared, self.kept_until(), &ends.caller);
                }
                (*governed).clone()
            }
            // Only what nobody listens to is kept for later.
            End::Parked => self.denied(&tool, command, *called_off()),
        }
    }

    /// Has a person decide, and makes the call if somebody still waits for it.
    async fn hold_and_run(&self, call: PlannedCall, demand: Demand, shared: Arc<Shared>) {
        let (tool, call_id) = (call.facts.tool.clone(), call.facts.call_id.clone());
        let (kernel, of_task) = (self.clone(), Arc::clone(&shared));
        // A task of its own, so that those who wait learn of a panic.
        let done = tokio::spawn(async move { kernel.held(call, demand, &of_task).await }).await;
        let governed = match done {
            Ok(Some(governed)) => governed,
            Ok(None) => return,
            // It may have run.
            Err(error) => self.broke(&tool, &error).named(&call_id),
        };
        self.calls().end(&shared, governed, self.kept_until());
    }

    /// Until when an outcome is kept that nobody has heard now.
    fn kept_until(&self) -> u64 {
        let valid = self.policy().approval_valid_for;
        let valid = u64::try_from(valid.as_millis()).unwrap_or(u64::MAX);
        self.now().saturating_add(valid)
    }

    /// `None` when the approval is kept for later.
    async fn held(
        &self,
        mut call: PlannedCall,
        demand: Demand,
        shared: &Arc<Shared>,
    ) -> Option<Governed> {
        let manifest = &Arc::clone(&call.manifest);
        let need = Need {
            manifest,
            rendering: &call.rendering,
            demand: &demand,
            args: &call.args,
            given: &call.arguments,
            arguments: &call.planned.args,
        };
        match self.countersign(&mut call.facts, need, shared).await {
            Err(denial) => Some(self.refuse(&call.facts, call.rendering.command, denial).await),
            // What was approved is a call of the tool as it was then.
            Ok(_) if !self.is_current(manifest) => {
                let message = format!(
                    "approved, but `{}` has changed since it was asked for; send the call again, \
                     for a new approval",
                    manifest.name()
                );
                let denial = Denial::new("approval.stale", message);
                Some(self.refuse(&call.facts, call.rendering.command, denial).await)
            }
            Ok(approval) => {
                if let Some(edited) = approval.edits.decided() {
                    call = match self.approved_call(call, edited) {
                        Ok(call) => call,
                        Err(refused) => {
                            let (call, denial) = *refused;
                            let command = call.rendering.command;
                            return Some(self.refuse(&call.facts, command, denial).await);
                        }
                    };
                }
                let heard = self.calls().heard_or_parked(shared, || self.park(approval));
                if !heard {
                    return None;
                }
                Some(self.announce(manifest, call, None, Off::Shared(shared)).await)
            }
        }
    }

    /// Records that the call is about to run, and runs it.
    async fn announce(
        &self,
        manifest: &Manifest,
        call: PlannedCall,
        granted: Option<GrantUse>,
        off: Off<'_>,
    ) -> Governed {
        let PlannedCall { mut facts, planned, rendering, args, .. } = call;
        let stopped = match facts.brake.engaged() {
            _ if off.is_off() => Some(called_off()),
            Some(stop) => Some(run_stopped(stop)),
            None => None,
        };
        let announced = match stopped {
            Some(denial) => Err(denial),
            None => self
                .append(&facts, ToolStep::Intent, vec![args])
                .await
                .map_err(|error| Denial::new("not_recorded", format!("journal: {error}"))),
        };
        match announced {
            Ok(announced) => {
                drop(granted);
                let command = rendering.command;
                self.effect((facts, announced), manifest, planned, command, off).await
            }
            Err(denial) => {
                if let Some(taken) = granted {
                    self.broker().grant_return(taken);
                    (facts.approval, facts.grant_use) = (None, None);
                }
                match denial.code.as_str() {
                    "not_recorded" => {
                        self.denied(&facts.tool, rendering.command, *denial).of(&facts)
                    }
                    _ => self.refuse(&facts, rendering.command, denial).await,
                }
            }
        }
    }

    /// The grant that releases the call, if there is one. The call's intent records its use.
    fn granted(
        &self,
        facts: &mut CallFacts,
        manifest: &Manifest,
        arguments: &[(String, String)],
    ) -> Option<GrantUse> {
        let taken = self.broker().grant_take(&GrantCall {
            agent_id: &facts.agent_id,
            session: &facts.session,
            canonical_tool_name: &facts.tool,
            manifest_digest: manifest.digest(),
            policy_digest: self.policy_digest(),
            arguments: &argument_digests(arguments),
            now_millis: self.now(),
        })?;
        facts.approval = Some(taken.request_id.clone());
        facts.grant_use = Some(taken.number);
        Some(taken)
    }

    /// Runs the plan, whose intent is durable, and records how it ended.
    async fn effect(
        &self,
        (facts, announced): (CallFacts, Option<Receipt>),
        manifest: &Manifest,
        planned: Planned,
        command: String,
        off: Off<'_>,
    ) -> Governed {
        let mut limits = manifest.limits();
        let placed = self.evidence_file(&facts, manifest).map(|file| limits.evidence = file);
        let (limits_of_run, caller) = (limits.clone(), facts.caller.clone());
        let run = ToolRun { plan: planned.plan, limits: limits_of_run, caller };
        let executor = Arc::clone(&self.0.executor);
        // A task of its own, so that a panicking executor is an outcome and not a crash.
        let mut running = tokio::spawn(async move {
            match placed {
                Ok(()) => executor.run(run).await,
                Err(why) => nothing(ExecutionStatus::NotStarted(why)),
            }
        });
        let (execution, called_off) = tokio::select! {
            done = &mut running => (done.ok(), false),
            () = off.called_off() => {
                running.abort();
                (running.await.ok(), true)
            }
        };
        let execution = execution.unwrap_or_else(|| {
            let why = if called_off {
                "the caller went away, and what the call had started was told to end"
            } else {
                "the executor failed"
            };
            nothing(ExecutionStatus::Unknown(why.to_owned()))
        });
        let terminal = match &execution.status {
            ExecutionStatus::Exited(0) | ExecutionStatus::Answered { ok: true, .. } => {
                EffectTerminalStatus::Completed
            }
            ExecutionStatus::Exited(_)
            | ExecutionStatus::Answered { .. }
            | ExecutionStatus::Signalled(_)
            | ExecutionStatus::NotStarted(_) => EffectTerminalStatus::Failed,
            ExecutionStatus::TimedOut => EffectTerminalStatus::TimedOut,
            ExecutionStatus::Unknown(_) if called_off => EffectTerminalStatus::Cancelled,
            ExecutionStatus::Unknown(_) => EffectTerminalStatus::Unknown,
        };
        let mut envelope = self.envelope(&facts, manifest, command, &execution, &limits);
        let mut summary = summary(&execution.status, execution.stdout_len, execution.duration);
        if let Some(file) = &envelope.output_file {
            summary.push_str(&format!(", kept as {file}"));
        }
        let output = Content::new(execution.stdout);
        let reference = ContentRef::new(output.digest().to_string());
        let contents: Vec<_> = reference.ok().into_iter().collect();
        let step = ToolStep::End {
            terminal,
            error: None,
            summary: &summary,
            contents: &contents,
            hook: None,
        };
        let receipt = match self.append(&facts, step, vec![output]).await {
            // The proof of the result holds the digest of the tool's output. Who does not get
            // the output gets the proof of the intent.
            Ok(receipt) => {
                match self.after_tool(&facts, &mut envelope, &summary, &contents).await {
                    true => receipt,
                    false => announced,
                }
            }
            Err(error) => {
                tracing::error!(call = %facts.call_id, %error, "a result is not recorded");
                // The effect stays without a result, and is listed as unknown at the next
                // start. The agent must not take it for a recorded success.
                envelope.status = EnvelopeStatus::Error;
                envelope.results = json!({
                    "error": format!("the call ran ({summary}), but its result could not be \
                                      recorded: {error}"),
                    "unrecorded": envelope.results,
                });
                None
            }
        };
        let edited = facts.edit.clone();
        Governed { call_id: Some(facts.call_id), envelope, denial: None, receipt, edited }
    }

    /// Records the refusal, if that is possible, and refuses in any case.
    async fn refuse(&self, facts: &CallFacts, command: String, denial: Box<Denial>) -> Governed {
        let summary = shorten(&denial.message);
        let step = ToolStep::End {
            terminal: EffectTerminalStatus::DeniedBeforeExecution,
            error: Some(&denial.code),
            summary: &summary,
            contents: &[],
            hook: denial.hook.as_ref(),
        };
        let stopping = denial.code == "gateway_stopping";
        // A call that is still held has not ended.
        let receipt = if stopping { Ok(None) } else { self.append(facts, step, Vec::new()).await };
        let mut governed = self.denied(&facts.tool, command, *denial).of(facts);
        match receipt {
            Ok(receipt) => governed.receipt = receipt,
            Err(error) => {
                tracing::error!(call = %facts.call_id, %error, "a refusal is not recorded");
            }
        }
        governed
    }

    async fn append(
        &self,
        facts: &CallFacts,
        step: ToolStep<'_>,
        contents: Vec<Content>,
    ) -> Result<Option<Receipt>, AppendError> {
        let draft = facts
            .tool_record(step, self.package(), self.now())
            .map_err(|error| AppendError::NoRoom(error.to_string()))?;
        let committed =
            self.journal().append(Batch { drafts: vec![draft.clone()], contents }).await?;
        Ok(receipt(&draft, committed))
    }
}

/// Whether such a refusal is the call's outcome, and not a reason to send it again.
pub(crate) fn is_outcome(code: &str) -> bool {
    let passing =
        ["approval.not_recorded", "approval.cancelled", "approval.gone", "approval.stale"];
    (code.starts_with("approval.") || code.starts_with("hook.")) && !passing.contains(&code)
        || code == "bad_arguments"
}

impl Governed {
    /// Whether this is what the call came to, and not a failure after which it can be sent again.
    pub(crate) fn is_outcome(&self) -> bool {
        self.denial.as_ref().is_none_or(|denial| is_outcome(&denial.code))
    }

    /// Whether the program failed, so that nobody can say.
    pub(crate) fn may_have_run(&self) -> bool {
        self.denial.as_ref().is_some_and(|denial| denial.code == "internal")
    }

    fn of(self, facts: &CallFacts) -> Self {
        Self { edited: facts.edit.clone(), ..self.named(&facts.call_id) }
    }

    pub(crate) fn named(mut self, call: &ToolCallId) -> Self {
        self.call_id = Some(call.clone());
        self.envelope.scan_id = call.to_string();
        self
    }
}

fn run_stopped(stop: &HookStop) -> Box<Denial> {
    let message = format!("the run takes no further call, start a new one: {}", stop.message);
    Box::new(Denial { hook: Some(stop.hook_id.clone()), ..*Denial::new("run_stopped", message) })
}

fn bad_arguments(problems: Vec<ArgProblem>) -> Box<Denial> {
    let list: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let message = format!("refused before anything happened: {}", list.join("; "));
    let mut denial = Denial::new("bad_arguments", message);
    denial.problems = problems;
    denial
}

pub(crate) fn receipt(draft: &EncodedDraft, committed: Committed) -> Option<Receipt> {
    let coverage = committed.coverage?;
    let seq = *committed.seqs.last()?;
    let record = String::from_utf8(draft.stamp(seq)).ok()?;
    Some(Receipt::new(seq, record, &coverage.proof, coverage.checkpoint.to_string()))
}
