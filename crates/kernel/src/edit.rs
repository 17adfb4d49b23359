//! Other arguments for a held call: planned again, shown again, and bound by their own
//! fingerprint. What is approved then is exactly the changed call.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use countersign_core::approval::{ApprovalEdit, ApprovalGrant};
use countersign_core::digest::Digest;
use countersign_core::hold::{Approver, Decision, HoldPolicy};
use countersign_core::hook::{HookPoint, HookResponse, HookSpec, HookView};
use countersign_core::id::{ApprovalRequestId, ContentRef, HookId};
use countersign_escalation::machine::{Event, Illegal, State, step};
use countersign_escalation::{Edit, Held, Refusal, ResolveError, Voted, Voter};
use countersign_manifest::{ArgProblem, Manifest};
use countersign_ports::journal::Content;
use serde_json::{Map, Value, json};

use crate::approval::{context, coverable};
use crate::govern::{Denial, Kernel};
use crate::hooks::{Accepted, Brake, HookDomain};
use crate::points::{PlannedCall, Presentation, ToolRequest};
use crate::policy::{Demand, PolicyCall, Rule};
use crate::records::CallFacts;
use crate::render::Rendering;

/// A held call as it was asked, for whoever wants to change it.
#[derive(Clone, Debug)]
pub(crate) struct HeldCall {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) facts: CallFacts,
    pub(crate) arguments: Map<String, Value>,
    pub(crate) rendering: Rendering,
    pub(crate) presentation: Option<Presentation>,
    /// What a hook asks a person for, if it was a hook.
    pub(crate) asks: Option<Rule>,
    pub(crate) policy: Option<Arc<HoldPolicy>>,
    pub(crate) asked_at: u64,
}

/// A held call with other arguments.
#[derive(Clone, Debug)]
pub(crate) struct EditedCall {
    pub(crate) edit: ApprovalEdit,
    pub(crate) arguments: Map<String, Value>,
    pub(crate) args: Content,
    pub(crate) coverable: Option<ApprovalGrant>,
}

impl EditedCall {
    /// What an edit on record was about, from its stored arguments.
    pub(crate) fn stored(edit: ApprovalEdit, args: Vec<u8>) -> Option<Self> {
        let arguments = serde_json::from_slice(&args).ok()?;
        let args = Content::new(args);
        let same = edit.args_ref.as_str() == args.digest().to_string();
        same.then_some(Self { edit, arguments, args, coverable: None })
    }
}

/// What becomes of the arguments of one held call.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    /// Absent when the call cannot be planned as it was asked: then it cannot be changed either.
    pub(crate) call: OnceLock<HeldCall>,
    /// Those that may be decided about, the latest last.
    made: Mutex<Vec<Arc<EditedCall>>>,
    /// That which was decided about, unless it was the call as it was asked.
    decided: OnceLock<Arc<EditedCall>>,
    /// Held while an edit is on its way.
    turn: tokio::sync::Mutex<()>,
}

impl Edits {
    /// Those of a call that was decided about as edited.
    pub(crate) fn decided_as(edited: EditedCall) -> Arc<Self> {
        let edits = Self::default();
        edits.decide(Arc::new(edited));
        Arc::new(edits)
    }

    pub(crate) fn find(&self, fingerprint: Digest) -> Option<Arc<EditedCall>> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.iter().find(|edited| edited.edit.fingerprint == fingerprint).cloned()
    }

    /// Puts it beside the one that stands, if it does come to stand; no other can be decided
    /// about any more.
    pub(crate) fn stage(&self, edited: Arc<EditedCall>) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|other| other.edit.fingerprint != edited.edit.fingerprint);
        let old = made.len().saturating_sub(1);
        made.drain(..old);
        made.push(edited);
    }

    fn unstage(&self, fingerprint: Digest) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|other| other.edit.fingerprint != fingerprint);
    }

    pub(crate) fn decide(&self, edited: Arc<EditedCall>) {
        let _ = self.decided.set(edited);
    }

    pub(crate) fn decided(&self) -> Option<&Arc<EditedCall>> {
        self.decided.get()
    }
}

/// A held call as it would be with other arguments. Nothing has changed yet.
#[derive(Clone, Debug, PartialEq)]
pub struct EditPreview {
    /// The hold as it is.
    pub held: Held,
    /// What an approval would release then. The confirmation has to name it.
    pub fingerprint: Digest,
    /// The digest of what the approver is shown of that.
    pub rendering_digest: Digest,
    /// One line: what would happen.
    pub summary: String,
    /// What the approver needs to see, as in a hold.
    pub context: Value,
}

/// Why a held call is not changed. It is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// There is no such hold, it has ended, or this person may not decide about it.
    #[error(transparent)]
    Hold(#[from] ResolveError),
    /// The tool does not accept them.
    #[error("the arguments are refused: {}", list(.0))]
    Arguments(Vec<ArgProblem>),
    /// The tool or the policy is not what it was when the call was asked for.
    #[error(
        "the tool or the policy has changed since this was asked, so it cannot be planned again; \
         deny it, and have the agent send the call anew"
    )]
    Stale,
    /// The changed call takes approvals that the held one does not ask for.
    #[error(
        "with these arguments other approvals are needed ({0}); deny the call, and have the agent \
         send it with them"
    )]
    OtherRule(String),
    /// What was confirmed is not what these arguments give.
    #[error("the confirmation is for another fingerprint; look at the changed call again")]
    OtherFingerprint(Digest),
    /// A hook does not let the changed call through as it is.
    #[error("{message}")]
    Hook {
        /// A stable code, such as `hook.denied`.
        code: String,
        /// Which hook, and why.
        message: String,
    },
}

fn list(problems: &[ArgProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What follows from other arguments for a held call.
struct Planned {
    call: PlannedCall,
    edited: Arc<EditedCall>,
    edit: Edit,
    context: Value,
}

impl HeldCall {
    /// Plans the call with other arguments; everything but the arguments is as it was.
    fn plan(
        &self,
        kernel: &Kernel,
        by: &Approver,
        given: Map<String, Value>,
    ) -> Result<Planned, EditError> {
        let (manifest, asked) = (&self.manifest, &self.facts);
        let planned = manifest.plan(&given).map_err(EditError::Arguments)?;
        let broken = |error: &dyn std::fmt::Display| {
            EditError::Hold(ResolveError::NotAllowed(error.to_string()))
        };
        let call = PlannedCall::new(kernel, manifest, asked.clone(), given, planned)
            .map_err(|error| broken(&error))?;
        let agent = &asked.agent_id;
        let judged = PolicyCall { manifest, agent, arguments: &call.planned.args };
        let demand = kernel.policy().demand(&judged, self.asks.clone());
        self.is_enough(demand.as_ref())?;
        let (policy, digest) = (kernel.policy(), kernel.policy_digest());
        let coverable =
            coverable(policy, digest, asked, manifest, &call.planned.args, self.asked_at)
                .filter(|_| demand.is_some_and(|demand| demand.session_grants));
        let rendering = &call.rendering;
        // What hooks said around the call stays; the call itself is shown as it is. Changed back,
        // it is shown as it was.
        let back = call.facts.fingerprint == asked.fingerprint;
        let presentation = self.presentation.clone().map(|shown| match back {
            true => shown,
            false => Presentation {
                summary: rendering.command.clone(),
                asked_summary: rendering.command.clone(),
                ..shown
            },
        });
        let shown = presentation.as_ref();
        let Some(fingerprint) = call.facts.fingerprint else { return Err(EditError::Stale) };
        let rendering_digest = rendering.shown_digest(shown);
        let mut context = context(manifest, rendering, &call.facts, shown, coverable.as_ref());
        if let Value::Object(fields) = &mut context {
            let asked = json!({
                "by": by,
                "asked_command": self.rendering.command,
                "asked_arguments": self.rendering.arguments,
            });
            fields.insert("edited".to_owned(), asked);
        }
        let edit = Edit {
            fingerprint,
            rendering_digest: Some(rendering_digest),
            summary: rendering.command.clone(),
            context_snapshot: context.clone().into(),
        };
        let recorded = ApprovalEdit {
            by: by.clone(),
            asked_fingerprint: asked.fingerprint,
            asked_rendering_digest: Some(self.rendering.shown_digest(self.presentation.as_ref())),
            fingerprint,
            rendering_digest,
            args_ref: ContentRef::new(call.args.digest().to_string())
                .map_err(|error| broken(&error))?,
            redacted_args_summary: call.facts.args_summary.clone(),
        };
        let edited = Arc::new(EditedCall {
            edit: recorded,
            arguments: call.arguments.clone(),
            args: call.args.clone(),
            coverable,
        });
        Ok(Planned { call, edited, edit, context })
    }

    /// The approvals that the hold asks for have to be enough for the changed call as well.
    fn is_enough(&self, demand: Option<&Demand>) -> Result<(), EditError> {
        match demand {
            Some(demand) if demand.policy.is_some() && demand.policy != self.policy => {
                Err(EditError::OtherRule(demand.rule.text.clone()))
            }
            _ => Ok(()),
        }
    }

    /// An edit from before a restart, for the queue; `None` unless it is the same to the last
    /// byte.
    pub(crate) fn plan_again(
        &self,
        kernel: &Kernel,
        stored: EditedCall,
    ) -> Option<(Arc<EditedCall>, Edit)> {
        let planned = self.plan(kernel, &stored.edit.by, stored.arguments).ok()?;
        (planned.edited.edit == stored.edit).then_some((planned.edited, planned.edit))
    }
}

/// Shows the changed call to the hooks that see calls before they happen. They may stop it.
struct Checked<'a> {
    request: ToolRequest<'a>,
    changed_by: Option<HookId>,
}

impl HookDomain for Checked<'_> {
    fn view(&self, content: bool) -> HookView {
        self.request.view(content)
    }

    fn accept(&mut self, hook: &HookSpec, response: &HookResponse) -> Result<Accepted, String> {
        match response {
            HookResponse::ModifyToolRequest(patch) => {
                let patched = patch.merge_patch.as_ref().map(|patch| self.request.patched(patch));
                let given = self.request.call.facts.fingerprint;
                if let Some(Ok(patched)) = patched
                    && patched.facts.fingerprint == given
                {
                    return Ok(Accepted::default());
                }
                self.changed_by = Some(hook.hook_id.clone());
                Err("arguments that an approver gives are taken as they are, or not".to_owned())
            }
            _ => Ok(Accepted::default()),
        }
    }

    // A person is asked already; for a hook's sake it may have to be somebody else.
    fn apply(&mut self, response: HookResponse) {
        self.request.apply(response);
    }
}

/// Whether the approval would count, once the call is changed: if not, it is not changed either.
fn counts(
    held: Held,
    now: u64,
    (voter, decision): (Voter, &Decision),
    edit: &Edit,
) -> Result<(), EditError> {
    let by = voter.approver.clone();
    let (seen, decision) = (Some(edit.fingerprint), decision.clone());
    let made = step(&State::Pending(held), now, Event::Edit(by, Box::new(edit.clone())));
    match made.and_then(|(made, _)| step(&made, now, Event::Vote { voter, decision, seen })) {
        Err(Illegal::Refused(refusal)) => Err(ResolveError::from(refusal).into()),
        // Of a deadline that has come, the queue knows how it ended.
        Err(Illegal::Pair { .. }) | Ok(_) => Ok(()),
    }
}

impl Kernel {
    /// How a held call would be with other arguments, for this approver. Records nothing and
    /// changes nothing; hooks are not asked yet.
    ///
    /// # Errors
    /// When it could not be changed so, by them.
    pub fn edit_preview(
        &self,
        id: &ApprovalRequestId,
        by: &Voter,
        arguments: &Map<String, Value>,
    ) -> Result<EditPreview, EditError> {
        let edits = self.editable(id)?;
        let (held, planned) = self.edited(id, &edits, by, arguments)?;
        Ok(EditPreview {
            held,
            fingerprint: planned.edited.edit.fingerprint,
            rendering_digest: planned.edited.edit.rendering_digest,
            summary: planned.edit.summary,
            context: planned.context,
        })
    }

    /// The arguments of a held call as they were given, by the agent or by whoever edited them
    /// last, and what the tool accepts. `None` when they cannot be changed.
    #[must_use]
    pub fn edit_arguments(
        &self,
        id: &ApprovalRequestId,
    ) -> Option<(Map<String, Value>, Arc<Manifest>)> {
        let edits = self.broker().edits(id)?;
        let call = edits.call.get()?;
        let (held, _) = self.queue().find_held(id)?;
        let edited = held.fingerprint().and_then(|fingerprint| edits.find(fingerprint));
        let arguments = match (held.fingerprint() == call.facts.fingerprint, edited) {
            (false, Some(edited)) => edited.arguments.clone(),
            _ => call.arguments.clone(),
        };
        Some((arguments, Arc::clone(&call.manifest)))
    }

    /// Changes the arguments of a held call to those of a preview, which `confirmed` names, and
    /// approves it so. Answers about the call as it was do not count any more. Where the policy
    /// asks for more approvals, they are about the changed call. Returns once that is durable.
    /// What has been handed to the journal is followed up, also when the future is dropped.
    ///
    /// # Errors
    /// When the call is not changed, or was changed and the approval does not count: the hold
    /// says which.
    pub async fn edit(
        &self,
        id: &ApprovalRequestId,
        by: Voter,
        decision: Decision,
        arguments: Map<String, Value>,
        confirmed: Digest,
    ) -> Result<Voted, EditError> {
        let (kernel, id) = (self.clone(), id.clone());
        let edit = async move { kernel.edit_now(&id, by, decision, arguments, confirmed).await };
        tokio::spawn(edit).await.unwrap_or_else(|error| {
            Err(EditError::Hold(ResolveError::NotCounted(error.to_string())))
        })
    }

    async fn edit_now(
        &self,
        id: &ApprovalRequestId,
        by: Voter,
        decision: Decision,
        arguments: Map<String, Value>,
        confirmed: Digest,
    ) -> Result<Voted, EditError> {
        let edits = self.editable(id)?;
        let turn = edits.turn.lock().await;
        let (held, planned) = self.edited(id, &edits, &by, &arguments)?;
        let fingerprint = planned.edited.edit.fingerprint;
        if fingerprint != confirmed {
            return Err(EditError::OtherFingerprint(fingerprint));
        }
        let voter = self.fitting(id, by.clone())?;
        counts(held, self.now(), (voter, &decision), &planned.edit)?;
        self.edit_hooks(&edits, planned.call).await?;
        edits.stage(planned.edited);
        let edited = match self.votable(id, &decision, &by.approver, Some(fingerprint)) {
            Ok(()) => self.queue().edit(id, by.approver.clone(), planned.edit).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = edited {
            edits.unstage(fingerprint);
            return Err(error.into());
        }
        drop(turn);
        Ok(self.vote(id, by, decision, Some(fingerprint)).await?)
    }

    /// A hold that goes on.
    fn waiting(&self, id: &ApprovalRequestId) -> Result<Held, EditError> {
        match self.queue().find_held(id).ok_or(ResolveError::NotFound)? {
            (held, None) => Ok(held),
            (held, Some(outcome)) => Err(ResolveError::ended(held, outcome).into()),
        }
    }

    fn editable(&self, id: &ApprovalRequestId) -> Result<Arc<Edits>, EditError> {
        self.waiting(id)?;
        self.broker().edits(id).ok_or(EditError::Stale)
    }

    fn edited(
        &self,
        id: &ApprovalRequestId,
        edits: &Edits,
        by: &Voter,
        arguments: &Map<String, Value>,
    ) -> Result<(Held, Planned), EditError> {
        let held = self.waiting(id)?;
        let call = edits.call.get().ok_or(EditError::Stale)?;
        if by.on_behalf_of.is_some() {
            let why = "whoever changes arguments answers for themselves";
            return Err(ResolveError::NotAllowed(why.to_owned()).into());
        }
        held.admits(by).map_err(ResolveError::from)?;
        if !self.is_current(&call.manifest) {
            return Err(EditError::Stale);
        }
        let planned = call.plan(self, &by.approver, arguments.clone())?;
        if held.fingerprint() == Some(planned.edit.fingerprint) {
            return Err(ResolveError::Refused(Refusal::SameCall).into());
        }
        Ok((held, planned))
    }

    /// The changed call passes the hooks that its arguments would have passed. What they say
    /// about an approver's idea stops that, and never the agent's run.
    async fn edit_hooks(&self, edits: &Edits, mut call: PlannedCall) -> Result<(), EditError> {
        let point = HookPoint::BeforeToolCall;
        if !self.hooks().has(point) {
            return Ok(());
        }
        let stopped = |denial: Box<Denial>| EditError::Hook {
            code: denial.code.clone(),
            message: denial.message,
        };
        call.facts.brake = Brake::default();
        let moment = self.passage(point, &call.facts, None).map_err(stopped)?;
        let manifest = Arc::clone(&call.manifest);
        let request = ToolRequest::new(self, &manifest, call);
        let mut checked = Checked { request, changed_by: None };
        let ran = self.hooks().run(&moment, &mut checked).await;
        if let Some(hook) = checked.changed_by {
            let code = "hook.changes".to_owned();
            let message =
                format!("hook `{hook}` would change these arguments again; give them as it would");
            return Err(EditError::Hook { code, message });
        }
        ran.map_err(|stop| stopped(Denial::by_hook(stop)))?;
        let ToolRequest { call, asks: Some(asks), .. } = checked.request else { return Ok(()) };
        // Where a hook asks for a person, no rule that lets the call run counts.
        let asked = edits.call.get().ok_or(EditError::Stale)?;
        let (manifest, agent) = (&asked.manifest, &asked.facts.agent_id);
        let judged = PolicyCall { manifest, agent, arguments: &call.planned.args };
        asked.is_enough(self.policy().demand(&judged, Some(asks)).as_ref())
    }

    /// The call that was approved in the place of the one that was asked, planned again.
    pub(crate) fn approved_call(
        &self,
        mut call: PlannedCall,
        edited: &EditedCall,
    ) -> Result<PlannedCall, Box<(PlannedCall, Box<Denial>)>> {
        let planned = call.manifest.plan(&edited.arguments).ok().and_then(|planned| {
            let (manifest, facts) = (Arc::clone(&call.manifest), call.facts.clone());
            PlannedCall::new(self, &manifest, facts, edited.arguments.clone(), planned).ok()
        });
        match planned.filter(|now| now.facts.fingerprint == Some(edited.edit.fingerprint)) {
            Some(mut now) => {
                now.facts.asked_args_summary = Some(call.facts.args_summary);
                now.facts.edit = Some(Arc::new(edited.edit.clone()));
                Ok(now)
            }
            None => {
                call.facts.edit = Some(Arc::new(edited.edit.clone()));
                let message = "approved as edited, but the edited call cannot be planned as it \
                               was shown; send the call again, for a new approval";
                Err(Box::new((call, Denial::new("approval.stale", message.to_owned()))))
            }
        }
    }
}
