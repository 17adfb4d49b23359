//! Which calls need a person.

use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_manifest::{Manifest, RiskTier};
use serde::Serialize;

/// The operator's rules. Their digest is part of every fingerprint, so an approval given
/// under other rules releases nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Calls of this risk tier and above are held. `None` leaves it to the manifests alone.
    pub hold_from: Option<RiskTier>,
    /// How long a held call waits before it is denied.
    pub approval_timeout: Duration,
    /// How long an approval nobody was connected to use stays good for the same call.
    pub approval_valid_for: Duration,
    /// What else decides about the effect of a plan, such as the tool root. Part of the digest.
    pub context: Vec<(String, String)>,
}

impl Default for Policy {
    /// Hold from `high` on, five minutes to decide, ten minutes to use.
    fn default() -> Self {
        Self {
            hold_from: Some(RiskTier::High),
            approval_timeout: Duration::from_secs(300),
            approval_valid_for: Duration::from_secs(600),
            context: Vec::new(),
        }
    }
}

/// Why a call is held, in words for the approver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A stable id for the record.
    pub id: &'static str,
    /// One line.
    pub text: String,
}

impl Policy {
    /// The rule that asks for a person, if one does.
    #[must_use]
    pub fn rule(&self, manifest: &Manifest) -> Option<Rule> {
        if manifest.human_approval() {
            let text = "the manifest asks for a person (human_approval)".to_owned();
            return Some(Rule { id: "policy.approval.manifest", text });
        }
        let tier = manifest.risk_tier();
        let from = self.hold_from.filter(|from| tier >= *from)?;
        let (tier, from) = (tier.as_str(), from.as_str());
        let text = format!("risk tier `{tier}`: the policy holds calls from `{from}` on");
        Some(Rule { id: "policy.approval.risk_tier", text })
    }

    /// `sha256:` and hex over the rules as canonical JSON.
    #[must_use]
    pub fn digest(&self) -> Digest {
        #[derive(Serialize)]
        struct Form<'a> {
            hold_from: Option<&'static str>,
            approval_timeout_ms: u64,
            approval_valid_for_ms: u64,
            context: &'a [(String, String)],
        }
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Digest::of(crate::render::canonical(&Form {
            hold_from: self.hold_from.map(RiskTier::as_str),
            approval_timeout_ms: millis(self.approval_timeout),
            approval_valid_for_ms: millis(self.approval_valid_for),
            context: &self.context,
        }))
    }
}
