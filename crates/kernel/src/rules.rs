//! The operator's rules: whose approval a call takes, most specific rule first. What is checked
//! here needs no check when a call comes.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::hold::{
    Approver, DecisionKind, EscalationStep, Factor, HoldPolicy, Surface, Vote,
};
use countersign_core::id::AgentId;
use countersign_manifest::{Condition, Manifest, ManifestSet, RiskTier};
use serde::Serialize;

/// The group of everybody who may decide, by their role. No principal can be put into it.
pub const APPROVERS: &str = "approvers";

/// The longest time a rule may give.
const MAX_TIMEOUT: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Most steps of escalation.
const MAX_STEPS: usize = 8;

/// Those whom rules speak of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People {
    /// Who may decide, with their groups.
    pub approvers: BTreeMap<String, BTreeSet<String>>,
    /// Who may call, with their owners.
    pub agents: BTreeMap<AgentId, Option<String>>,
}

/// A rule as it is written. What is `None` or empty matches every call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRule {
    /// Once among the rules; stands in the records of every call it holds.
    pub name: String,
    /// One line for the approver: why such calls are held.
    pub reason: Option<String>,
    /// Calls of these tools.
    pub tools: Vec<String>,
    /// Calls by these agents.
    pub agents: Vec<AgentId>,
    /// Calls of tools of this tier and above.
    pub risk: Option<RiskTier>,
    /// Calls with such arguments. Needs `tools`.
    pub when: Option<Condition>,
    /// What follows.
    pub action: RuleAction,
}

/// What follows from a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// The call runs without a person, unless its manifest or a hook asks for one: then the rule
    /// is passed over.
    Run,
    /// The call waits.
    Hold(RuleTerms),
}

/// How a call waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTerms {
    /// Whose approvals it takes. Without any, that of one person of [`APPROVERS`].
    pub factors: Vec<Factor>,
    /// Who answers for the agent cannot answer for its call.
    pub exclude_owner: bool,
    /// How long; the policy's own time when absent.
    pub timeout: Option<Duration>,
    /// Whose approvals are enough later on.
    pub escalate: Vec<EscalationStep>,
    /// Whether an approval may cover later calls.
    pub session_grants: bool,
}

/// What about a rule is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulePart {
    /// Its name.
    Name,
    /// The tool at this place of the list.
    Tool(usize),
    /// The agent at this place of the list.
    Agent(usize),
    /// The tier.
    Risk,
    /// The condition.
    When,
    /// That it holds, or does not.
    Hold,
    /// The factors.
    Factors,
    /// The exclusion of the owner.
    ExcludeOwner,
    /// The time.
    Timeout,
    /// The step of escalation at this place of the list.
    Escalate(usize),
}

/// Why rules are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct RuleError {
    /// The place of the rule, from 0.
    pub rule: usize,
    /// Where in it.
    pub part: RulePart,
    /// What is wrong.
    pub why: String,
}

/// How specific a rule is: one that names arguments comes before one that names agents, then
/// one that names tools, then the one of the higher tier. Lists count like a single name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    /// It names arguments.
    pub when: bool,
    /// It names agents.
    pub agent: bool,
    /// It names tools.
    pub tool: bool,
    /// It names a tier: 1 for `info` to 5 for `critical`, 0 for none.
    pub risk: u8,
}

/// Rules that are good for the tools and the people there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Checked>,
    /// The places of the rules, the most specific first, then as they are written.
    order: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Checked {
    rule: ApprovalRule,
    policy: Option<Arc<HoldPolicy>>,
    /// Where the owner is excluded, by agent.
    by_agent: BTreeMap<AgentId, Arc<HoldPolicy>>,
}

/// A rule that matches a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matching<'a> {
    checked: &'a Checked,
}

impl ApprovalRule {
    /// How specific it is.
    #[must_use]
    pub fn specificity(&self) -> Specificity {
        Specificity {
            when: self.when.is_some(),
            agent: !self.agents.is_empty(),
            tool: !self.tools.is_empty(),
            risk: self.risk.map_or(0, |tier| tier as u8 + 1),
        }
    }

    /// Whether some call of this tool, by somebody and with some arguments, may match it.
    pub(crate) fn may_match(&self, manifest: &Manifest) -> bool {
        (self.tools.is_empty() || self.tools.iter().any(|tool| tool == manifest.name()))
            && self.risk.is_none_or(|tier| manifest.risk_tier() >= tier)
    }

    fn matches(
        &self,
        manifest: &Manifest,
        agent: &AgentId,
        arguments: &[(String, String)],
    ) -> bool {
        self.may_match(manifest)
            && (self.agents.is_empty() || self.agents.contains(agent))
            && self.when.as_ref().is_none_or(|when| when.holds(arguments))
    }

    /// Whether every call that matches the other one matches this as well.
    fn covers(&self, other: &Self) -> bool {
        fn among<T: PartialEq>(all: &[T], some: &[T]) -> bool {
            all.is_empty() || (!some.is_empty() && some.iter().all(|one| all.contains(one)))
        }
        among(&self.tools, &other.tools)
            && among(&self.agents, &other.agents)
            && self.risk <= other.risk
            && (self.when.is_none() || self.when == other.when)
    }
}

impl<'a> Matching<'a> {
    pub(crate) fn rule(self) -> &'a ApprovalRule {
        &self.checked.rule
    }

    /// How the agent's call waits, if it does.
    pub(crate) fn terms(self, agent: &AgentId) -> Option<(&'a RuleTerms, Option<Arc<HoldPolicy>>)> {
        let RuleAction::Hold(terms) = &self.checked.rule.action else { return None };
        let policy = self.checked.by_agent.get(agent).or(self.checked.policy.as_ref());
        Some((terms, policy.cloned()))
    }
}

impl Rules {
    /// Checks rules against the tools and the people there are. `timeout` is how long a call
    /// waits where a rule does not say.
    ///
    /// # Errors
    /// The first thing that is wrong: a tool or an agent that is not there, a condition that
    /// makes no sense for a tool, approvals that nobody could ever give, a rule that an earlier
    /// one leaves nothing to.
    pub fn new(
        rules: Vec<ApprovalRule>,
        timeout: Duration,
        manifests: &ManifestSet,
        people: &People,
    ) -> Result<Self, RuleError> {
        let mut checked: Vec<Checked> = Vec::new();
        for (at, rule) in rules.into_iter().enumerate() {
            let error = |(part, why)| RuleError { rule: at, part, why };
            check_matching(&rule, manifests, people).map_err(error)?;
            if checked.iter().any(|other| other.rule.name == rule.name) {
                let why = format!("two rules have the name `{}`", rule.name);
                return Err(error((RulePart::Name, why)));
            }
            let (policy, by_agent) = policies(&rule, timeout, people).map_err(error)?;
            checked.push(Checked { rule, policy, by_agent });
        }
        let mut order: Vec<usize> = (0..checked.len()).collect();
        let specificity = |at: &usize| checked.get(*at).map(|c| c.rule.specificity());
        order.sort_by(|a, b| match specificity(b).cmp(&specificity(a)) {
            Ordering::Equal => a.cmp(b),
            other => other,
        });
        let ranked: Vec<_> =
            order.iter().filter_map(|at| Some((*at, &checked.get(*at)?.rule))).collect();
        for (place, (at, rule)) in ranked.iter().enumerate() {
            let before = ranked.iter().take(place);
            if let Some((_, first)) = before.into_iter().find(|(_, first)| first.covers(rule)) {
                let why =
                    format!("never applies: `{}` matches first, whatever it does", first.name);
                return Err(RuleError { rule: *at, part: RulePart::Name, why });
            }
        }
        Ok(Self { rules: checked, order })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// As they are written.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ApprovalRule> {
        self.rules.iter().map(|checked| &checked.rule)
    }

    /// Those that match a call, the most specific first.
    pub(crate) fn matching<'a>(
        &'a self,
        manifest: &'a Manifest,
        agent: &'a AgentId,
        arguments: &'a [(String, String)],
    ) -> impl Iterator<Item = Matching<'a>> {
        let ranked = self.order.iter().filter_map(|at| self.rules.get(*at));
        ranked
            .filter(move |checked| checked.rule.matches(manifest, agent, arguments))
            .map(|checked| Matching { checked })
    }

    /// As they stand in the policy's digest.
    pub(crate) fn forms(&self) -> Vec<RuleForm<'_>> {
        self.rules.iter().map(RuleForm::of).collect()
    }
}

/// A rule as it stands in the policy's digest.
#[derive(Serialize)]
pub(crate) struct RuleForm<'a> {
    name: &'a str,
    reason: Option<&'a str>,
    tools: &'a [String],
    agents: &'a [AgentId],
    risk: Option<&'static str>,
    when: Option<String>,
    hold: bool,
    policy: Option<&'a HoldPolicy>,
    by_agent: BTreeMap<&'a AgentId, &'a HoldPolicy>,
    timeout_ms: Option<u64>,
    session_grants: bool,
}

impl<'a> RuleForm<'a> {
    fn of(checked: &'a Checked) -> Self {
        let Checked { rule, policy, by_agent } = checked;
        let terms = match &rule.action {
            RuleAction::Hold(terms) => Some(terms),
            RuleAction::Run => None,
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            name: &rule.name,
            reason: rule.reason.as_deref(),
            tools: &rule.tools,
            agents: &rule.agents,
            risk: rule.risk.map(RiskTier::as_str),
            when: rule.when.as_ref().map(ToString::to_string),
            hold: terms.is_some(),
            policy: policy.as_deref(),
            by_agent: by_agent.iter().map(|(agent, policy)| (agent, &**policy)).collect(),
            timeout_ms: terms.and_then(|terms| terms.timeout).map(millis),
            session_grants: terms.is_some_and(|terms| terms.session_grants),
        }
    }
}

type Wrong = (RulePart, String);

fn check_matching(
    rule: &ApprovalRule,
    manifests: &ManifestSet,
    people: &People,
) -> Result<(), Wrong> {
    let name = rule.name.as_str();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        let why = format!("a rule's name has 1 to 64 of a-z, 0-9, _ and -, unlike {name:?}");
        return Err((RulePart::Name, why));
    }
    for (at, tool) in rule.tools.iter().enumerate() {
        let wrong = |why: String| Err((RulePart::Tool(at), why));
        let Some(manifest) = manifests.get(tool) else {
            return wrong(format!("there is no tool `{tool}`"));
        };
        if rule.tools.iter().take(at).any(|other| other == tool) {
            return wrong(format!("`{tool}` is named twice"));
        }
        if let Some(tier) = rule.risk.filter(|tier| manifest.risk_tier() < *tier) {
            let (own, tier) = (manifest.risk_tier().as_str(), tier.as_str());
            let why = format!("`{tool}` has the tier `{own}`, so a rule from `{tier}` on skips it");
            return Err((RulePart::Risk, why));
        }
        if let Some(when) = &rule.when {
            when.check(manifest).map_err(|error| (RulePart::When, error.to_string()))?;
        }
        if rule.action == RuleAction::Run && manifest.human_approval() {
            let why = format!("the manifest of `{tool}` asks for a person, and no rule lifts that");
            return Err((RulePart::Hold, why));
        }
    }
    if rule.when.is_some() && rule.tools.is_empty() {
        let why = "a condition on arguments needs the tools that have them: set `tool`";
        return Err((RulePart::When, why.to_owned()));
    }
    for (at, agent) in rule.agents.iter().enumerate() {
        if !people.agents.contains_key(agent) {
            return Err((RulePart::Agent(at), format!("there is no agent `{agent}`")));
        }
        if rule.agents.iter().take(at).any(|other| other == agent) {
            return Err((RulePart::Agent(at), format!("`{agent}` is named twice")));
        }
    }
    Ok(())
}

type Policies = (Option<Arc<HoldPolicy>>, BTreeMap<AgentId, Arc<HoldPolicy>>);

/// Whose approvals a rule takes, in general and where somebody is excluded.
fn policies(rule: &ApprovalRule, timeout: Duration, people: &People) -> Result<Policies, Wrong> {
    let RuleAction::Hold(terms) = &rule.action else { return Ok((None, BTreeMap::new())) };
    let timeout = terms.timeout.unwrap_or(timeout);
    if timeout < Duration::from_millis(1) || timeout > MAX_TIMEOUT {
        return Err((RulePart::Timeout, "a call waits from 1 s to 366 days".to_owned()));
    }
    check_steps(terms, timeout)?;
    if terms.factors.is_empty() && !terms.exclude_owner {
        return Ok((None, BTreeMap::new()));
    }
    let invalid =
        |error: countersign_core::hold::HoldPolicyError| (RulePart::Factors, error.to_string());
    let factors = match terms.factors.as_slice() {
        [] => vec![Factor::new(APPROVERS, 1).map_err(invalid)?],
        factors => factors.to_vec(),
    };
    let mut policy = HoldPolicy::new(factors).map_err(invalid)?;
    for (at, step) in terms.escalate.iter().enumerate() {
        policy = policy
            .escalating(step.after_ms, step.factors.clone())
            .map_err(|error| (RulePart::Escalate(at), error.to_string()))?;
    }
    let mut by_agent = BTreeMap::new();
    if terms.exclude_owner {
        let among = |agent: &AgentId| rule.agents.is_empty() || rule.agents.contains(agent);
        for (agent, owner) in people.agents.iter().filter(|(agent, _)| among(agent)) {
            let Some(owner) = owner else {
                let why = format!("`{agent}` has no owner, so this would exclude nobody");
                return Err((RulePart::ExcludeOwner, why));
            };
            let narrower = policy.clone().excluding(vec![owner.clone()]).map_err(invalid)?;
            can_be_met(&narrower, people).map_err(|(part, why)| {
                (part, format!("{why}, with the owner of `{agent}` excluded"))
            })?;
            by_agent.insert(agent.clone(), Arc::new(narrower));
        }
    }
    can_be_met(&policy, people)?;
    Ok((Some(Arc::new(policy)), by_agent))
}

fn check_steps(terms: &RuleTerms, timeout: Duration) -> Result<(), Wrong> {
    if terms.escalate.len() > MAX_STEPS {
        let why = format!("a rule has at most {MAX_STEPS} steps of escalation");
        return Err((RulePart::Escalate(MAX_STEPS), why));
    }
    for (at, step) in terms.escalate.iter().enumerate() {
        let wrong = |why: &str| Err((RulePart::Escalate(at), why.to_owned()));
        if terms.factors.is_empty() {
            return wrong(
                "with anybody's approval enough, there is nobody to escalate to: set `factors`",
            );
        }
        if Duration::from_millis(step.after_ms) >= timeout {
            return wrong("the call's time is over before this");
        }
    }
    Ok(())
}

/// Whether there are enough people for every list of factors, each for one of them.
fn can_be_met(policy: &HoldPolicy, people: &People) -> Result<(), Wrong> {
    let able = people.approvers.iter().filter(|(id, _)| !policy.excluded().contains(id));
    let votes: Vec<Vote> = able.map(|(id, groups)| everybody_says_yes(id, groups)).collect();
    let all: Vec<&Vote> = votes.iter().collect();
    for (route, factors) in policy.routes(u32::MAX).enumerate() {
        let part = match route.checked_sub(1) {
            None => RulePart::Factors,
            Some(step) => RulePart::Escalate(step),
        };
        for factor in factors {
            let group = factor.group();
            let members = all.iter().filter(|vote| vote.groups.iter().any(|g| g == group)).count();
            if members == 0 {
                let why = format!(
                    "nobody who may decide is in `{group}`: an empty group can never satisfy a \
                     factor"
                );
                return Err((part, why));
            }
            if usize::try_from(factor.count()).unwrap_or(usize::MAX) > members {
                let count = factor.count();
                let why = format!("{count} of `{group}` are asked for, and it has {members}");
                return Err((part, why));
            }
        }
        let alone = HoldPolicy::new(factors.to_vec());
        if !alone.is_ok_and(|policy| policy.met(0, &all)) {
            let why = "there are not enough different people: each counts for one factor";
            return Err((part, why.to_owned()));
        }
    }
    Ok(())
}

fn everybody_says_yes(id: &str, groups: &BTreeSet<String>) -> Vote {
    let groups = groups.iter().cloned().chain([APPROVERS.to_owned()]).collect();
    Vote {
        decision: DecisionKind::Approve,
        reason: None,
        approver: Approver { surface: Surface::Cli, id: id.to_owned(), display: String::new() },
        on_behalf_of: None,
        groups,
        fingerprint: None,
        at: String::new(),
    }
}
