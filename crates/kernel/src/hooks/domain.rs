//! What hooks act on, as the coordinator sees it.

use countersign_core::hook::{HookPrivacyPolicy, HookResponse, HookSpec, HookView};
use countersign_core::journal::EncodedDraft;
use countersign_ports::journal::Content;

/// What a point guards: a call that is planned, a question that is about to be put, a result.
pub trait HookDomain: Send + Sync {
    /// What a hook may see of it now, `content` included only if asked for: it may be large
    /// or hold secrets.
    fn view(&self, content: bool) -> HookView;

    /// Whether the answer, which the point's matrix and the hook's rights allow, can be
    /// applied here. Whatever can fail must fail now: nothing is changed yet, and what was
    /// prepared is kept for [`apply`](Self::apply).
    ///
    /// # Errors
    /// Why not, for the record; the hook's failure policy decides what follows.
    fn accept(&mut self, hook: &HookSpec, response: &HookResponse) -> Result<Accepted, String>;

    /// Applies the answer that was accepted last. Its records are durable. Answers that stop
    /// the step are not applied but returned to whoever runs the point.
    fn apply(&mut self, response: HookResponse);
}

/// The domain's own records of a change. They are in the same batch as the hook's.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    /// Records, before those of the hook.
    pub drafts: Vec<EncodedDraft>,
    /// Content the first of them speaks about.
    pub contents: Vec<Content>,
}

/// A domain in which nothing can be changed: whatever a hook wants is refused.
#[derive(Clone, Debug)]
pub struct Observed(pub HookView);

impl HookDomain for Observed {
    fn view(&self, content: bool) -> HookView {
        let mut view = self.0.clone();
        view.content = view.content.filter(|_| content);
        view
    }

    fn accept(&mut self, _: &HookSpec, response: &HookResponse) -> Result<Accepted, String> {
        match response {
            HookResponse::Deny(_)
            | HookResponse::StopRun(_)
            | HookResponse::StopCompletionWithRepairNeeded(_) => Ok(Accepted::default()),
            other => Err(format!("`{}` cannot be applied here", other.class())),
        }
    }

    fn apply(&mut self, _: HookResponse) {}
}

/// The view, cut down to what the hook may see.
pub(super) fn cut(spec: &HookSpec, domain: &dyn HookDomain) -> HookView {
    match spec.privacy {
        HookPrivacyPolicy::ContentCaptureAllowed => domain.view(true),
        HookPrivacyPolicy::EnvelopeAndRedactedSummary => domain.view(false),
        HookPrivacyPolicy::ContentRefsOnly => {
            HookView { redacted_summary: spec.point.to_string(), ..domain.view(false) }
        }
    }
}
