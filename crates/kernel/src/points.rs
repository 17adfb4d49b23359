//! What hooks act on at the points the kernel passes.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_core::digest::Digest;
use countersign_core::hook::{HookPoint, HookResponse, HookSpec, HookView};
use countersign_core::id::{AgentId, ContentRef, HookId, RunId};
use countersign_core::refs::{EntityKind, EntityRef, SourceKind, SourceRef};
use countersign_core::text::visible;
use countersign_manifest::{Envelope, EnvelopeStatus, Manifest, Planned};
use countersign_ports::journal::Content;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::govern::{Denial, Kernel};
use crate::hooks::{Accepted, HookDomain, HookMoment, HookStop, Observed};
use crate::outcome::withheld;
use crate::policy::Rule;
use crate::records::{Base, BuildError, CallFacts, ToolStep};
use crate::recovery::StartError;
use crate::render::{Rendering, fingerprint, shorten};
use crate::run::Run;

pub(crate) use countersign_core::approval::ApprovalPresentation as Presentation;

/// Most characters a hook may put before an approver in one text.
const TEXT_MAX: usize = 2000;

/// The rule by which a hook has a person asked.
pub(crate) const HOOK_RULE: &str = "policy.approval.hook";

/// A call that is planned and has not happened.
pub(crate) struct ToolRequest<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) manifest: &'a Arc<Manifest>,
    pub(crate) call: PlannedCall,
    staged: Option<PlannedCall>,
    /// A hook wants a person to decide.
    pub(crate) asks: Option<Rule>,
}

/// Everything that follows from a call's arguments.
#[derive(Clone)]
pub(crate) struct PlannedCall {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) facts: CallFacts,
    pub(crate) arguments: Map<String, Value>,
    pub(crate) planned: Planned,
    pub(crate) rendering: Rendering,
    pub(crate) args: Content,
}

impl PlannedCall {
    /// Completes the facts of a call.
    pub(crate) fn new(
        kernel: &Kernel,
        manifest: &Arc<Manifest>,
        mut facts: CallFacts,
        arguments: Map<String, Value>,
        planned: Planned,
    ) -> Result<Self, BuildError> {
        let rendering = Rendering::new(manifest, &planned);
        // As given: the canonical form would turn an integer above 2^53 into another one.
        let args = exact(&arguments)?;
        let policy = kernel.policy_digest();
        facts.fingerprint = Some(fingerprint(&facts.agent_id, manifest, &planned.plan, policy));
        facts.plan(manifest, planned.plan.kind(), &args.digest(), &rendering)?;
        let manifest = Arc::clone(manifest);
        Ok(Self { manifest, facts, arguments, planned, rendering, args })
    }
}

impl<'a> ToolRequest<'a> {
    pub(crate) fn new(kernel: &'a Kernel, manifest: &'a Arc<Manifest>, call: PlannedCall) -> Self {
        Self { kernel, manifest, call, staged: None, asks: None }
    }

    pub(crate) fn patched(&self, patch: &Value) -> Result<PlannedCall, String> {
        let mut arguments = Value::Object(self.call.arguments.clone());
        json_patch::merge(&mut arguments, patch);
        let Value::Object(arguments) = arguments else {
            return Err("the patch leaves no object".to_owned());
        };
        let planned = self.manifest.plan(&arguments).map_err(|problems| {
            let list: Vec<_> = problems.iter().map(ToString::to_string).collect();
            format!("the changed arguments are refused: {}", list.join("; "))
        })?;
        let facts = self.call.facts.clone();
        PlannedCall::new(self.kernel, self.manifest, facts, arguments, planned)
            .map_err(|error| error.to_string())
    }
}

impl HookDomain for ToolRequest<'_> {
    fn view(&self, content: bool) -> HookView {
        let PlannedCall { facts, arguments, rendering, args, .. } = &self.call;
        let mut view = HookView::new(format!("{}: {}", facts.tool, facts.args_summary));
        view.subject_refs = vec![facts.subject()];
        view.content_refs = ContentRef::new(args.digest().to_string()).into_iter().collect();
        view.content = content.then(|| {
            json!({
                "tool": facts.tool,
                "arguments": arguments,
                "command": rendering.command,
                "risk": self.manifest.risk_tier().as_str(),
                "fingerprint": facts.fingerprint,
            })
        });
        view
    }

    fn accept(&mut self, hook: &HookSpec, response: &HookResponse) -> Result<Accepted, String> {
        self.staged = None;
        let HookResponse::ModifyToolRequest(patch) = response else {
            return Ok(Accepted::default());
        };
        let Some(merge_patch) = &patch.merge_patch else {
            return Err("it has no `merge_patch`, so nothing would change".to_owned());
        };
        let patched = self.patched(merge_patch)?;
        let before = &self.call.facts.args_summary;
        let step = ToolStep::Modified { hook: &hook.hook_id, before };
        let draft = patched
            .facts
            .tool_record(step, self.kernel.package(), self.kernel.now())
            .map_err(|error| error.to_string())?;
        let accepted = Accepted { drafts: vec![draft], contents: vec![patched.args.clone()] };
        self.staged = Some(patched);
        Ok(accepted)
    }

    fn apply(&mut self, response: HookResponse) {
        if let Some(staged) = self.staged.take() {
            self.call = staged;
        }
        if let HookResponse::RequestApproval(note) = response {
            let text = format!("a hook asks for a person: {}", text(&note.redacted_summary));
            self.asks = Some(Rule { id: HOOK_RULE.into(), text });
        }
    }
}

/// A question that is about to be put to a person.
struct ApprovalView<'a> {
    facts: &'a CallFacts,
    rendering: &'a Rendering,
    shown: Presentation,
    staged: Option<Presentation>,
}

impl ApprovalView<'_> {
    fn patched(&self, hook: &HookId, patch: &Value) -> Result<Presentation, String> {
        let Value::Object(fields) = patch else { return Err("the patch is no object".to_owned()) };
        let mut shown = self.shown.clone();
        for (name, value) in fields {
            let given = match value {
                Value::String(given) => Some(shown_text(name, given)?),
                Value::Null => None,
                _ => return Err(format!("`{name}` is no text")),
            };
            match (name.as_str(), given) {
                ("note", note) => shown.note = note,
                ("summary", Some(summary)) if !summary.is_empty() => shown.summary = summary,
                ("reason", Some(reason)) if !reason.is_empty() => shown.reason = reason,
                ("summary" | "reason", _) => return Err(format!("`{name}` cannot be empty")),
                // The call itself is shown as it is.
                _ => return Err(format!("`{name}` is not shown around a call")),
            }
        }
        shown.changed_by.push(hook.clone());
        Ok(shown)
    }
}

impl HookDomain for ApprovalView<'_> {
    fn view(&self, content: bool) -> HookView {
        let facts = self.facts;
        let mut view = HookView::new(format!("{}: {}", facts.tool, facts.args_summary));
        view.subject_refs = vec![facts.subject()];
        view.content_refs = facts.args_ref.iter().cloned().collect();
        view.content = content.then(|| {
            json!({
                "tool": facts.tool,
                "summary": self.shown.summary,
                "reason": self.shown.reason,
                "note": self.shown.note,
                "command": self.rendering.command,
                "arguments": self.rendering.arguments,
                "fingerprint": facts.fingerprint,
            })
        });
        view
    }

    fn accept(&mut self, hook: &HookSpec, response: &HookResponse) -> Result<Accepted, String> {
        self.staged = None;
        if let HookResponse::ModifyApprovalRequest(patch) = response {
            let Some(patch) = &patch.merge_patch else {
                return Err("it has no `merge_patch`, so nothing would change".to_owned());
            };
            self.staged = Some(self.patched(&hook.hook_id, patch)?);
        }
        Ok(Accepted::default())
    }

    fn apply(&mut self, _: HookResponse) {
        if let Some(staged) = self.staged.take() {
            self.shown = staged;
        }
    }
}

/// A call that has ended.
struct ToolResult<'a> {
    kernel: &'a Kernel,
    facts: &'a CallFacts,
    envelope: &'a mut Envelope,
    summary: String,
    contents: Vec<ContentRef>,
    rewritten: bool,
    staged: Option<Digest>,
}

impl HookDomain for ToolResult<'_> {
    fn view(&self, content: bool) -> HookView {
        let mut view = HookView::new(format!("{}: {}", self.facts.tool, self.summary));
        view.subject_refs = vec![self.facts.subject()];
        view.content_refs.clone_from(&self.contents);
        view.content = content.then(|| {
            json!({
                "tool": self.facts.tool,
                "status": self.envelope.status,
                "exit_code": self.envelope.exit_code,
                "results": self.envelope.results,
                "stderr": self.envelope.stderr,
            })
        });
        view
    }

    fn accept(&mut self, hook: &HookSpec, response: &HookResponse) -> Result<Accepted, String> {
        self.staged = None;
        let patch = match response {
            HookResponse::RewriteToolResult(patch) => patch,
            HookResponse::RequestRetry(_) => {
                return Err("an effect is not run again by itself; the agent may".to_owned());
            }
            _ => return Ok(Accepted::default()),
        };
        let Some(replacement) = &patch.replacement else {
            return Err("it has no `replacement`, so nothing would change".to_owned());
        };
        if !replacement.is_object() {
            return Err("the results of an envelope are an object".to_owned());
        }
        let content = exact(replacement).map_err(|error| error.to_string())?;
        let contents: Vec<_> = ContentRef::new(content.digest().to_string()).into_iter().collect();
        let after = text(&patch.redacted_summary);
        let step = ToolStep::Rewritten {
            hook: &hook.hook_id,
            before: &self.summary,
            after: &after,
            contents: &contents,
        };
        let draft = self
            .facts
            .tool_record(step, self.kernel.package(), self.kernel.now())
            .map_err(|error| error.to_string())?;
        self.staged = Some(content.digest());
        Ok(Accepted { drafts: vec![draft], contents: vec![content] })
    }

    fn apply(&mut self, response: HookResponse) {
        if let HookResponse::RewriteToolResult(patch) = response
            && let Some(replacement) = patch.replacement
            && let Some(digest) = self.staged.take()
        {
            self.summary = text(&patch.redacted_summary);
            self.contents = ContentRef::new(digest.to_string()).into_iter().collect();
            // The digest of what the tool wrote would tell a short secret to whoever tries.
            self.envelope.output_hash = digest.to_string();
            self.envelope.results = replacement;
            self.rewritten = true;
            self.envelope.output_truncated = None;
            self.envelope.stderr = None;
        }
    }
}

/// What is stored of a value: compact JSON, every number as it was given.
fn exact(value: &impl serde::Serialize) -> Result<Content, BuildError> {
    Ok(Content::new(serde_json::to_vec(value)?))
}

/// A text around a call, as it is shown.
fn shown_text(name: &str, given: &str) -> Result<String, String> {
    // Before escapes are shown: blanks say nothing.
    let shown = visible(if given.trim().is_empty() { "" } else { given });
    match shown.chars().count() > TEXT_MAX {
        true => Err(format!("`{name}` has more than {TEXT_MAX} characters as it is shown")),
        false => Ok(shown.into_owned()),
    }
}

/// A hook's words, fit for a line.
fn text(words: &str) -> String {
    shorten(&visible(words))
}

impl Kernel {
    /// A passage of a point by a call.
    pub(crate) fn passage(
        &self,
        point: HookPoint,
        facts: &CallFacts,
        caller: Option<&watch::Receiver<()>>,
    ) -> Result<Arc<HookMoment>, Box<Denial>> {
        let base = facts
            .record_base(self.package(), self.now())
            .map_err(|error| Denial::new("not_recorded", error.to_string()))?;
        Ok(Arc::new(HookMoment {
            point,
            base,
            policy_refs: Vec::new(),
            brake: facts.brake.clone(),
            caller: caller.cloned(),
        }))
    }

    /// Runs the hooks before a call; they may have changed it when this returns.
    pub(crate) async fn before_tool(
        &self,
        request: &mut ToolRequest<'_>,
        caller: &watch::Receiver<()>,
    ) -> Result<(), Box<Denial>> {
        let point = HookPoint::BeforeToolCall;
        if !self.hooks().has(point) {
            return Ok(());
        }
        let moment = self.passage(point, &request.call.facts, Some(caller))?;
        self.hooks().run(&moment, request).await.map_err(Denial::by_hook)
    }

    /// Runs the hooks before a question is put; `Some` when they changed how.
    pub(crate) async fn before_approval(
        &self,
        facts: &CallFacts,
        rendering: &Rendering,
        rule: &Rule,
    ) -> Result<Option<Presentation>, Box<Denial>> {
        let point = HookPoint::BeforeApprovalRequest;
        if !self.hooks().has(point) {
            return Ok(None);
        }
        let shown = Presentation {
            summary: rendering.command.clone(),
            reason: rule.text.clone(),
            note: None,
            asked_summary: rendering.command.clone(),
            asked_reason: rule.text.clone(),
            changed_by: Vec::new(),
        };
        let mut view = ApprovalView { facts, rendering, shown, staged: None };
        // Whoever asked may leave and come back: the question is put in any case.
        let moment = self.passage(point, facts, None)?;
        self.hooks().run(&moment, &mut view).await.map_err(Denial::by_hook)?;
        Ok((!view.shown.changed_by.is_empty()).then_some(view.shown))
    }

    /// Runs the hooks after a call whose end is durable. A hook that stops here cannot undo
    /// it: the agent does not get the result. `true` when the envelope is still that of the
    /// tool, so that what proves the tool's output may go with it.
    pub(crate) async fn after_tool(
        &self,
        facts: &CallFacts,
        envelope: &mut Envelope,
        summary: &str,
        contents: &[ContentRef],
    ) -> bool {
        let point = HookPoint::AfterToolCall;
        if !self.hooks().has(point) {
            return true;
        }
        let mut whole = true;
        let stopped = match self.passage(point, facts, None) {
            Ok(moment) => {
                let mut result = ToolResult {
                    kernel: self,
                    facts,
                    envelope,
                    summary: summary.to_owned(),
                    contents: contents.to_vec(),
                    rewritten: false,
                    staged: None,
                };
                let ran = self.hooks().run(&moment, &mut result).await.map_err(Denial::by_hook);
                whole = !result.rewritten;
                ran
            }
            Err(denial) => Err(denial),
        };
        if let Err(denial) = stopped {
            envelope.status = EnvelopeStatus::Error;
            envelope.results = withheld(&denial.code, &denial.message);
            envelope.output_hash = Digest::of([]).to_string();
            envelope.stderr = None;
            envelope.output_truncated = None;
            whole = false;
        }
        whole
    }

    /// Records which hooks there are, once for each specification.
    pub(crate) async fn register_hooks(
        &self,
        known: &BTreeSet<(HookId, String)>,
    ) -> Result<(), StartError> {
        let failed = |error: &dyn std::fmt::Display| StartError::Hooks(error.to_string());
        let agent_id = AgentId::new("countersign").map_err(|error| failed(&error))?;
        let run_id = RunId::new("run.countersign").map_err(|error| failed(&error))?;
        let base =
            Base { run_id: &run_id, agent_id: &agent_id, package: self.package(), now: self.now() };
        let source = SourceRef::new(SourceKind::Host, (&agent_id).into());
        let base = base.record_base(source);
        self.hooks().register(&base, known).await.map_err(|stop| failed(&stop.message))
    }

    /// Runs the hooks of a point of the run itself.
    pub(crate) async fn run_point(
        &self,
        run: &Run,
        point: HookPoint,
        summary: &str,
    ) -> Result<(), HookStop> {
        if run.is_own() || !self.hooks().has(point) {
            return Ok(());
        }
        let (run_id, agent_id) = (run.id(), run.agent_id());
        let base = Base { run_id, agent_id, package: self.package(), now: self.now() };
        let mut base = base.record_base(run.source().clone());
        base.session_id = run.session_id().cloned();
        let mut view = HookView::new(text(summary));
        view.subject_refs = vec![EntityRef::new(EntityKind::Run, run_id.into())];
        view.content = Some(json!({ "agent": agent_id, "reason": summary }));
        let brake = run.brake().clone();
        let moment = HookMoment { point, base, policy_refs: Vec::new(), brake, caller: None };
        self.hooks().run(&Arc::new(moment), &mut Observed(view)).await
    }
}
