//! Which calls need a person.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::hold::{Factor, HoldPolicy};
use countersign_core::id::AgentId;
use countersign_manifest::{Manifest, RiskTier};
use serde::Serialize;

use crate::rules::{Matching, RuleAction, RuleForm, Rules, Specificity};

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
    /// Whose approval a call takes; before `hold_from`, the most specific first.
    pub rules: Rules,
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
            rules: Rules::default(),
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
    pub id: Cow<'static, str>,
    /// One line.
    pub text: String,
}

/// A call that rules are held against.
#[derive(Clone, Copy, Debug)]
pub struct PolicyCall<'a> {
    /// The tool.
    pub manifest: &'a Manifest,
    /// Who calls.
    pub agent: &'a AgentId,
    /// As they stand in the plan, defaults included.
    pub arguments: &'a [(String, String)],
}

/// What has to happen before a call may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Why.
    pub rule: Rule,
    /// Whose approvals it takes; `None` when that of any approver is enough.
    pub policy: Option<Arc<HoldPolicy>>,
    /// How long the call waits before it is denied.
    pub timeout: Duration,
    /// Whether an approval may cover later calls, within the bounds of the policy.
    pub session_grants: bool,
}

/// How a call is judged, for whoever asks beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What would be demanded; `None` when the call would run.
    pub demand: Option<Demand>,
    /// The rules that match the call, the most specific first.
    pub matching: Vec<MatchingRule>,
}

/// A rule that matches a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchingRule {
    /// Its name.
    pub name: String,
    /// What it is ranked by.
    pub specificity: Specificity,
    /// Whether it holds the call; otherwise it would let it run.
    pub holds: bool,
    /// Whether it is the one that counts.
    pub counts: bool,
}

impl Policy {
    /// What a call takes, if it takes anything. `asked` is what a hook asks a person for: its
    /// words come first then, and whose approval it takes is the rules' to say all the same.
    ///
    /// A manifest's `human_approval`, like a hook that asks, can never be lifted by a rule: one
    /// that would let the call run is passed over.
    #[must_use]
    pub fn demand(&self, call: &PolicyCall<'_>, asked: Option<Rule>) -> Option<Demand> {
        let PolicyCall { manifest, agent, arguments } = *call;
        let needed = asked.is_some() || manifest.human_approval();
        let mut matching = self.rules.matching(manifest, agent, arguments);
        let demand = match matching.find(|rule| counts(*rule, needed)) {
            Some(rule) => self.by_rule(rule, agent),
            None => self.by_default(manifest),
        };
        match (asked, demand) {
            (Some(rule), Some(demand)) => Some(Demand { rule, ..demand }),
            (Some(rule), None) => Some(self.of_anybody(rule)),
            (None, demand) => demand,
        }
    }

    /// How a call would be judged, and which rules match it.
    #[must_use]
    pub fn explain(&self, call: &PolicyCall<'_>) -> Explanation {
        let PolicyCall { manifest, agent, arguments } = *call;
        let mut counted = false;
        let matching = self.rules.matching(manifest, agent, arguments).map(|matching| {
            let rule = matching.rule();
            let first = !counted && counts(matching, manifest.human_approval());
            counted |= first;
            MatchingRule {
                name: rule.name.clone(),
                specificity: rule.specificity(),
                holds: rule.action != RuleAction::Run,
                counts: first,
            }
        });
        Explanation { matching: matching.collect(), demand: self.demand(call, None) }
    }

    /// Whether calls of this tool may take a person, by anybody and with some arguments.
    #[must_use]
    pub fn may_hold(&self, manifest: &Manifest) -> bool {
        self.by_default(manifest).is_some()
            || self.rules.iter().any(|r| r.action != RuleAction::Run && r.may_match(manifest))
    }

    fn by_rule(&self, matching: Matching<'_>, agent: &AgentId) -> Option<Demand> {
        let (terms, policy) = matching.terms(agent)?;
        let rule = matching.rule();
        let mut text = match &rule.reason {
            Some(reason) => format!("{reason} (rule `{}`)", rule.name),
            None => format!("rule `{}` holds it", rule.name),
        };
        if let Some(policy) = &policy {
            text.push_str(&format!("; it takes {}", in_words(policy.factors())));
        }
        Some(Demand {
            rule: Rule { id: format!("policy.approval.rule.{}", rule.name).into(), text },
            policy,
            timeout: terms.timeout.unwrap_or(self.approval_timeout),
            session_grants: terms.session_grants,
        })
    }

    /// What is demanded where no rule says anything.
    fn by_default(&self, manifest: &Manifest) -> Option<Demand> {
        if manifest.human_approval() {
            let text = "the manifest asks for a person (human_approval)".to_owned();
            return Some(self.of_anybody(Rule { id: "policy.approval.manifest".into(), text }));
        }
        let tier = manifest.risk_tier();
        let from = self.hold_from.filter(|from| tier >= *from)?;
        let (tier, from) = (tier.as_str(), from.as_str());
        let text = format!("risk tier `{tier}`: the policy holds calls from `{from}` on");
        Some(self.of_anybody(Rule { id: "policy.approval.risk_tier".into(), text }))
    }

    fn of_anybody(&self, rule: Rule) -> Demand {
        Demand { rule, policy: None, timeout: self.approval_timeout, session_grants: true }
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
            #[serde(skip_serializing_if = "Vec::is_empty")]
            rules: Vec<RuleForm<'a>>,
        }
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Digest::of(crate::render::canonical(&Form {
            hold_from: self.hold_from.map(RiskTier::as_str),
            approval_timeout_ms: millis(self.approval_timeout),
            approval_valid_for_ms: millis(self.approval_valid_for),
            grant_max_uses: self.grants.map(|limits| limits.max_uses),
            grant_valid_for_ms: self.grants.map(|limits| millis(limits.valid_for)),
            context: &self.context,
            rules: self.rules.forms(),
        }))
    }
}

/// Whether a rule that matches says what becomes of the call. One that would let run what needs
/// a person in any case says nothing.
fn counts(matching: Matching<'_>, needed: bool) -> bool {
    !needed || matching.rule().action != RuleAction::Run
}

/// Such as "2 of `ops` and 1 of `security`".
fn in_words(factors: &[Factor]) -> String {
    let words = factors.iter().map(|factor| format!("{} of `{}`", factor.count(), factor.group()));
    words.collect::<Vec<_>>().join(" and ")
}
