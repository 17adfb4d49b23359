//! `[[approvals.rules]]` and `[[delegations]]` in `countersign.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use countersign_core::hold::{EscalationStep, Factor};
use countersign_core::id::AgentId;
use countersign_escalation::{Delegation, DelegationError};
use countersign_kernel::{
    APPROVERS, ApprovalRule, People, RuleAction, RuleError, RulePart, RuleTerms, Rules,
};
use countersign_manifest::{ManifestSet, RiskTier};
use countersign_server::{Principal, Role};
use serde::Deserialize;
use toml::Spanned;

use crate::config::{Loaded, at, nearest};
use crate::output::Failure;

/// Longest text that is shown to approvers with every call of a rule.
const REASON_MAX: usize = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ApprovalsTable {
    pub(crate) rules: Vec<RuleTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleTable {
    name: Spanned<String>,
    reason: Option<Spanned<String>>,
    tool: Option<Spanned<Names>>,
    agent: Option<Spanned<Names>>,
    risk: Option<Spanned<Tier>>,
    when: Option<Spanned<String>>,
    hold: Option<Spanned<bool>>,
    factors: Option<Spanned<Vec<Spanned<FactorTable>>>>,
    exclude_owner: Option<Spanned<bool>>,
    timeout_seconds: Option<Spanned<u64>>,
    escalate: Option<Spanned<Vec<Spanned<StepTable>>>>,
    session_grants: Option<Spanned<bool>>,
}

/// One name, or a list of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Many(Vec<String>),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tier {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FactorTable {
    group: String,
    count: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepTable {
    after_seconds: u64,
    factors: Vec<FactorTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DelegationTable {
    pub(crate) from: Spanned<String>,
    pub(crate) to: Spanned<String>,
    start: Option<Spanned<Time>>,
    until: Spanned<Time>,
}

/// A moment, as TOML writes it or as a text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Time {
    Toml(toml::value::Datetime),
    Text(String),
}

/// A problem, and where in the file it is.
type Problem = (Range<usize>, String);

impl Names {
    fn all(&self) -> Vec<String> {
        match self {
            Self::One(name) => vec![name.clone()],
            Self::Many(names) => names.clone(),
        }
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Toml(time) => time.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn names(list: &Option<Spanned<Names>>) -> Result<Vec<String>, Problem> {
    let Some(list) = list else { return Ok(Vec::new()) };
    match list.get_ref().all() {
        names if names.is_empty() => Err((
            list.span(),
            "an empty list matches nothing; leave it out to match all".to_owned(),
        )),
        names => Ok(names),
    }
}

fn factor(table: &FactorTable) -> Result<Factor, String> {
    Factor::new(&table.group, table.count).map_err(|error| error.to_string())
}

impl RuleTable {
    /// The rule, as far as the text alone decides.
    fn rule(&self) -> Result<ApprovalRule, Problem> {
        let holds = self.hold.as_ref().is_none_or(|hold| *hold.get_ref());
        let action = match holds {
            true => RuleAction::Hold(self.terms()?),
            false => {
                self.nothing_more()?;
                RuleAction::Run
            }
        };
        if let Some(reason) = &self.reason {
            let text = reason.get_ref();
            if text.trim().is_empty()
                || text.chars().count() > REASON_MAX
                || text.chars().any(char::is_control)
            {
                let why = format!("a reason is one line of 1 to {REASON_MAX} characters");
                return Err((reason.span(), why));
            }
        }
        let agents = names(&self.agent)?.into_iter().map(AgentId::new).collect::<Result<_, _>>();
        let when = match &self.when {
            None => None,
            Some(text) => Some(text.get_ref().parse().map_err(
                |error: countersign_manifest::ConditionError| (text.span(), error.to_string()),
            )?),
        };
        Ok(ApprovalRule {
            name: self.name.get_ref().clone(),
            reason: self.reason.as_ref().map(|reason| reason.get_ref().clone()),
            tools: names(&self.tool)?,
            agents: agents.map_err(|error| (self.span(RulePart::Agent(0)), error.to_string()))?,
            risk: self.risk.as_ref().map(|tier| match tier.get_ref() {
                Tier::Info => RiskTier::Info,
                Tier::Low => RiskTier::Low,
                Tier::Medium => RiskTier::Medium,
                Tier::High => RiskTier::High,
                Tier::Critical => RiskTier::Critical,
            }),
            when,
            action,
        })
    }

    fn terms(&self) -> Result<RuleTerms, Problem> {
        let mut factors = Vec::new();
        if let Some(tables) = &self.factors {
            if tables.get_ref().is_empty() {
                let why = "factors that nobody has to meet are none; leave them out, or name a \
                           group";
                return Err((tables.span(), why.to_owned()));
            }
            for table in tables.get_ref() {
                factors.push(factor(table.get_ref()).map_err(|why| (table.span(), why))?);
            }
        }
        let mut escalate = Vec::new();
        for step in self.escalate.iter().flat_map(Spanned::get_ref) {
            let StepTable { after_seconds, factors } = step.get_ref();
            let factors = factors.iter().map(factor).collect::<Result<_, _>>();
            escalate.push(EscalationStep {
                after_ms: after_seconds.saturating_mul(1000),
                factors: factors.map_err(|why| (step.span(), why))?,
            });
        }
        let flag = |flag: &Option<Spanned<bool>>| flag.as_ref().map(|flag| *flag.get_ref());
        Ok(RuleTerms {
            factors,
            exclude_owner: flag(&self.exclude_owner).unwrap_or(false),
            timeout: self.timeout_seconds.as_ref().map(|time| Duration::from_secs(*time.get_ref())),
            escalate,
            session_grants: flag(&self.session_grants).unwrap_or(true),
        })
    }

    /// Of a rule that lets calls run, nothing else follows.
    fn nothing_more(&self) -> Result<(), Problem> {
        let keys = [
            ("factors", self.factors.as_ref().map(Spanned::span)),
            ("exclude_owner", self.exclude_owner.as_ref().map(Spanned::span)),
            ("timeout_seconds", self.timeout_seconds.as_ref().map(Spanned::span)),
            ("escalate", self.escalate.as_ref().map(Spanned::span)),
            ("session_grants", self.session_grants.as_ref().map(Spanned::span)),
        ];
        match keys.into_iter().find_map(|(key, span)| Some((key, span?))) {
            None => Ok(()),
            Some((key, span)) => {
                Err((span, format!("`{key}` means nothing where `hold` is false")))
            }
        }
    }

    fn span(&self, part: RulePart) -> Range<usize> {
        let found = match part {
            RulePart::Name => None,
            RulePart::Tool(_) => self.tool.as_ref().map(Spanned::span),
            RulePart::Agent(_) => self.agent.as_ref().map(Spanned::span),
            RulePart::Risk => self.risk.as_ref().map(Spanned::span),
            RulePart::When => self.when.as_ref().map(Spanned::span),
            RulePart::Hold => self.hold.as_ref().map(Spanned::span),
            RulePart::Factors => self.factors.as_ref().map(Spanned::span),
            RulePart::ExcludeOwner => self.exclude_owner.as_ref().map(Spanned::span),
            RulePart::Timeout => self.timeout_seconds.as_ref().map(Spanned::span),
            RulePart::Escalate(step) => self
                .escalate
                .as_ref()
                .map(|steps| steps.get_ref().get(step).map_or_else(|| steps.span(), Spanned::span)),
        };
        found.unwrap_or_else(|| self.name.span())
    }
}

impl DelegationTable {
    /// What people are told of its time.
    pub(crate) fn time(&self) -> String {
        match &self.start {
            Some(start) => format!("from {} until {}", start.get_ref(), self.until.get_ref()),
            None => format!("until {}", self.until.get_ref()),
        }
    }

    fn delegation(&self) -> Result<Delegation, Problem> {
        let start = self.start.as_ref().map_or(Ok(0), millis)?;
        let delegation =
            Delegation::new(self.from.get_ref(), self.to.get_ref(), start, millis(&self.until)?);
        delegation.map_err(|error| {
            let span = match error {
                DelegationError::NeverInForce => self.until.span(),
                DelegationError::Nameless | DelegationError::Self_(_) => self.to.span(),
            };
            (span, error.to_string())
        })
    }
}

fn millis(time: &Spanned<Time>) -> Result<u64, Problem> {
    let text = time.get_ref().to_string();
    let parsed = chrono::DateTime::parse_from_rfc3339(&text).ok();
    parsed.and_then(|time| u64::try_from(time.timestamp_millis()).ok()).ok_or_else(|| {
        let why = format!("`{text}` is no time with its offset, such as 2030-01-31T18:00:00Z");
        (time.span(), why)
    })
}

/// Holds the tables against what their text alone decides.
pub(crate) fn check(
    path: &str,
    text: &str,
    rules: &[RuleTable],
    delegations: &[DelegationTable],
) -> Result<(), Failure> {
    let failure = |(span, why): Problem| at(path, text, span.start, &why);
    rules.iter().try_for_each(|rule| rule.rule().map(drop)).map_err(failure)?;
    delegations.iter().try_for_each(|table| table.delegation().map(drop)).map_err(failure)
}

/// Who decides about what.
#[derive(Debug, Default)]
pub(crate) struct Deciding {
    pub(crate) rules: Rules,
    pub(crate) delegations: Vec<Delegation>,
}

/// The rules and delegations of a configuration, held against the tools and the principals.
pub(crate) fn build(
    loaded: &Loaded,
    manifests: &ManifestSet,
    principals: &[Principal],
) -> Result<Deciding, Failure> {
    let path = loaded.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let failure = |(span, why): Problem| at(&path, &loaded.text, span.start, &why);
    let tables = &loaded.config.approvals.rules;
    let people = people(principals)?;
    let rules = tables.iter().map(RuleTable::rule).collect::<Result<Vec<_>, _>>();
    let rules = rules.map_err(failure)?;
    if let Some(table) = tables.iter().find(|table| table.exclude_owner.is_some()) {
        known_owners(&people, principals)
            .map_err(|why| failure((table.span(RulePart::ExcludeOwner), why)))?;
    }
    let timeout = Duration::from_secs(loaded.config.policy.approval_timeout_seconds);
    let rules = Rules::new(rules, timeout, manifests, &people).map_err(|error| {
        let table = tables.get(error.rule);
        let span = table.map_or(0..0, |table| table.span(error.part));
        let failure = failure((span, error.why.clone()));
        match table.and_then(|table| meant(table, &error, manifests, &people)) {
            Some(word) => failure.hint(format!("did you mean `{word}`?")),
            None => failure,
        }
    })?;
    let mut delegations = Vec::new();
    for table in &loaded.config.delegations {
        for name in [&table.from, &table.to] {
            if !people.approvers.contains_key(name.get_ref()) {
                let why = format!("`{}` is no principal who may decide", name.get_ref());
                let failure = failure((name.span(), why));
                let known = people.approvers.keys().map(String::as_str);
                return Err(match nearest(name.get_ref(), known) {
                    Some(word) => failure.hint(format!("did you mean `{word}`?")),
                    None => failure,
                });
            }
        }
        delegations.push(table.delegation().map_err(failure)?);
    }
    Ok(Deciding { rules, delegations })
}

/// Those whom rules speak of.
fn people(principals: &[Principal]) -> Result<People, Failure> {
    let mut people = People::default();
    for principal in principals {
        let has = |role| principal.roles.contains(&role);
        if has(Role::Agent) {
            let id = AgentId::new(&principal.id).map_err(|error| Failure::of(&error))?;
            people.agents.insert(id, principal.owner.clone());
        } else if has(Role::Approver) || has(Role::Admin) {
            people.approvers.insert(principal.id.clone(), principal.groups.clone());
        }
    }
    Ok(people)
}

fn known_owners(people: &People, principals: &[Principal]) -> Result<(), String> {
    for (agent, owner) in &people.agents {
        if let Some(owner) = owner
            && !principals.iter().any(|principal| principal.id == *owner)
        {
            return Err(format!("the owner of `{agent}` is `{owner}`, which is no principal"));
        }
    }
    Ok(())
}

/// The known name nearest to the one that is not.
fn meant(
    table: &RuleTable,
    error: &RuleError,
    manifests: &ManifestSet,
    people: &People,
) -> Option<String> {
    let listed = |list: &Option<Spanned<Names>>, place: usize| {
        list.as_ref().and_then(|list| list.get_ref().all().get(place).cloned())
    };
    match error.part {
        RulePart::Tool(place) => {
            let name = listed(&table.tool, place)?;
            let known = manifests.iter().map(|tool| tool.name());
            nearest(&name, known.filter(|known| *known != name))
        }
        RulePart::Agent(place) => {
            let name = listed(&table.agent, place)?;
            nearest(&name, people.agents.keys().map(AgentId::as_str).filter(|known| *known != name))
        }
        RulePart::Factors | RulePart::Escalate(_) => {
            let groups: BTreeSet<&str> =
                people.approvers.values().flatten().map(String::as_str).collect();
            let named: Vec<&str> = error.why.split('`').skip(1).step_by(2).collect();
            let empty = named.into_iter().find(|name| !groups.contains(name))?;
            nearest(empty, groups.into_iter().chain([APPROVERS]).filter(|known| *known != empty))
        }
        _ => None,
    }
}

/// Who may decide, by group, for whoever asks.
pub(crate) fn members(principals: &[Principal]) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, groups) in people(principals)?.approvers {
        for group in groups.into_iter().chain([APPROVERS.to_owned()]) {
            members.entry(group).or_default().push(id.clone());
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests;
