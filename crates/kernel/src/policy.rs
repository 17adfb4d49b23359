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
    /// How far an approval for the session may reach. `None` allows none.
    pub grants: Option<GrantLimits>,
    /// What else decides about the effect of a plan, such as the tool root. Part of the digest.
    pub context: Vec<(String, String)>,
}

impl Default for Policy {
    /// Hold from `high` on, five minutes to decide, ten minutes to use, grants of at most 100
    /// calls and an hour.
    fn default() -> Self {
        Self {
            hold_from: Some(RiskTier::High),
            approval_timeout: Duration::from_secs(300),
            approval_valid_for: Duration::from_secs(600),
            grants: Some(GrantLimits::default()),
            context: Vec::new(),
        }
    }
}

/// Bounds of an approval for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantLimits {
    /// Most later calls one grant may cover.
    pub max_uses: u64,
    /// Longest time one grant may be good for, from the request on.
    pub valid_for: Duration,
}

impl Default for GrantLimits {
    /// 100 calls, one hour.
    fn default() -> Self {
        Self { max_uses: 100, valid_for: Duration::from_secs(60 * 60) }
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

    /// How far an approval for the session may reach for this tool. What is critical is
    /// approved one call at a time.
    #[must_use]
    pub fn grants_for(&self, manifest: &Manifest) -> Option<GrantLimits> {
        self.grants.filter(|_| manifest.risk_tier() < RiskTier::Critical)
    }

    /// `sha256:` and hex over the rules as canonical JSON.
    #[must_use]
    pub fn digest(&self) -> Digest {
        #[derive(Serialize)]
        struct Form<'a> {
            hold_from: Option<&'static str>,
            approval_timeout_ms: u64,
            approval_valid_for_ms: u64,
            grant_max_uses: Option<u64>,
            grant_valid_for_ms: Option<u64>,
            context: &'a [(String, String)],
        }
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Digest::of(crate::render::canonical(&Form {
            hold_from: self.hold_from.map(RiskTier::as_str),
            approval_timeout_ms: millis(self.approval_timeout),
            approval_valid_for_ms: millis(self.approval_valid_for),
            grant_max_uses: self.grants.map(|limits| limits.max_uses),
            grant_valid_for_ms: self.grants.map(|limits| millis(limits.valid_for)),
            context: &self.context,
        }))
    }
}
