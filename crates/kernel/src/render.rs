//! The one rendering of a call that every surface shows, and the fingerprint that binds an
//! approval to it.

use countersign_core::approval::ApprovalPresentation;
use countersign_core::digest::Digest;
use countersign_core::id::AgentId;
use countersign_core::plan::Plan;
use countersign_core::text::{reveal, visible};
use countersign_manifest::{Manifest, Planned, render_command};
use serde::{Deserialize, Serialize};

/// Most characters of a summary that stands in a record; the approver is shown everything.
const SUMMARY_MAX: usize = 512;

/// What a person decides about. Nothing in it hides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendering {
    /// The tool.
    pub tool: String,
    /// What will run.
    pub command: String,
    /// The arguments with a value, defaults included, in the manifest's order.
    pub arguments: Vec<Argument>,
}

/// One argument as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argument {
    /// Its name in the manifest.
    pub name: String,
    /// Its value as it stands in the plan.
    pub value: String,
}

impl Rendering {
    /// Renders a planned call.
    #[must_use]
    pub fn new(manifest: &Manifest, planned: &Planned) -> Self {
        let arguments = planned.args.iter().map(|(name, value)| Argument {
            name: name.clone(),
            value: visible(value).into_owned(),
        });
        Self {
            tool: manifest.name().to_owned(),
            // The quoting has escaped what it had to; a second escape would mislead.
            command: reveal(&render_command(&planned.plan)).into_owned(),
            arguments: arguments.collect(),
        }
    }

    /// The digest that is recorded with the decision.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(canonical(self))
    }

    /// The digest of what the approver is shown, where hooks have changed how.
    pub(crate) fn shown_digest(&self, presentation: Option<&ApprovalPresentation>) -> Digest {
        match presentation {
            None => self.digest(),
            Some(presentation) => Digest::of(canonical(&(self, presentation))),
        }
    }

    /// The arguments in one line, cut to a length a record can bear.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.arguments.is_empty() {
            return "no arguments".to_owned();
        }
        let mut line = String::new();
        for Argument { name, value } in &self.arguments {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(name);
            line.push('=');
            line.push_str(value);
        }
        shorten(&line)
    }
}

/// The text, or its beginning and how much is left out.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SUMMARY_MAX) {
        None => text.to_owned(),
        Some((at, _)) => {
            let head = text.get(..at).unwrap_or_default();
            format!("{head}… ({} bytes more)", text.len() - at)
        }
    }
}

/// RFC 8785 canonical JSON. The types given to it have no value that JSON cannot express.
pub(crate) fn canonical(value: &impl Serialize) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).unwrap_or_default()
}

/// The digest that binds an approval to exactly this call: SHA-256 over the canonical JSON of
/// `{agent, tool, manifest_digest, plan, policy_digest}`.
#[must_use]
pub fn fingerprint(agent: &AgentId, manifest: &Manifest, plan: &Plan, policy: &Digest) -> Digest {
    #[derive(Serialize)]
    struct Call<'a> {
        agent: &'a AgentId,
        tool: &'a str,
        manifest_digest: &'a str,
        plan: &'a Plan,
        policy_digest: &'a Digest,
    }
    Digest::of(canonical(&Call {
        agent,
        tool: manifest.name(),
        manifest_digest: manifest.digest(),
        plan,
        policy_digest: policy,
    }))
}
