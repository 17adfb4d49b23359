//! Whose approval a call takes: which rule counts, and which rules are no rules.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_core::hold::{EscalationStep, Factor};
use countersign_core::id::AgentId;
use countersign_kernel::{
    ApprovalRule, People, Policy, PolicyCall, Rule, RuleAction, RuleError, RulePart, RuleTerms,
    Rules,
};
use countersign_manifest::{FileDiagnostic, ManifestSet, RiskTier, Severity};
use proptest::prelude::*;

const TIMEOUT: Duration = Duration::from_secs(300);

/// A tool of this tier with one argument.
fn tool(name: &str, tier: &str, more: &str) -> (String, String) {
    let text = format!(
        "[tool]\nname = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"Does.\"\n\
         binary = \"true\"\nrisk_tier = \"{tier}\"\n{more}\n[args.to]\ntype = \"enum\"\n\
         allowed = [\"main\", \"side\"]\nrequired = true\n[command]\nexec = [\"true\", \
         \"{{to}}\"]\n[output]\nformat = \"text\"\n"
    );
    (format!("{name}.clad.toml"), text)
}

fn tools() -> ManifestSet {
    let (set, problems) = ManifestSet::load([
        tool("look", "info", ""),
        tool("push", "high", ""),
        tool("wipe", "critical", ""),
        tool("sign", "low", "human_approval = true"),
    ]);
    let is_error = |p: &FileDiagnostic| p.diagnostic.severity == Severity::Error;
    assert!(!problems.iter().any(is_error), "{problems:?}");
    set
}

fn agent(name: &str) -> AgentId {
    AgentId::new(name).unwrap()
}

/// ada and bob in ops, carol in security, eve in none; two agents of ada's, one of nobody's.
fn people() -> People {
    let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let approvers: [(&str, BTreeSet<String>); 4] = [
        ("ada", groups(&["ops"])),
        ("bob", groups(&["ops"])),
        ("carol", groups(&["security"])),
        ("eve", groups(&[])),
    ];
    let agents = [("a", Some("ada")), ("b", Some("ada")), ("stray", None)];
    People {
        approvers: approvers.into_iter().map(|(id, groups)| (id.to_owned(), groups)).collect(),
        agents: agents.map(|(id, owner)| (agent(id), owner.map(str::to_owned))).into(),
    }
}

fn terms() -> RuleTerms {
    RuleTerms {
        factors: Vec::new(),
        exclude_owner: false,
        timeout: None,
        escalate: Vec::new(),
        session_grants: true,
    }
}

fn factors(of: &[(&str, u32)]) -> Vec<Factor> {
    of.iter().map(|(group, count)| Factor::new(*group, *count).unwrap()).collect()
}

/// A rule that holds every call.
fn rule(name: &str) -> ApprovalRule {
    ApprovalRule {
        name: name.into(),
        reason: None,
        tools: Vec::new(),
        agents: Vec::new(),
        risk: None,
        when: None,
        action: RuleAction::Hold(terms()),
    }
}

fn of_tool(name: &str, tool: &str) -> ApprovalRule {
    ApprovalRule { tools: vec![tool.into()], ..rule(name) }
}

fn holding(name: &str, terms: RuleTerms) -> ApprovalRule {
    ApprovalRule { action: RuleAction::Hold(terms), ..rule(name) }
}

fn run(rule: ApprovalRule) -> ApprovalRule {
    ApprovalRule { action: RuleAction::Run, ..rule }
}

fn when(name: &str, tool: &str, condition: &str) -> ApprovalRule {
    ApprovalRule { when: Some(condition.parse().unwrap()), ..of_tool(name, tool) }
}

fn checked(rules: Vec<ApprovalRule>) -> Result<Rules, RuleError> {
    Rules::new(rules, TIMEOUT, &tools(), &people())
}

/// The rule by which the call would be held, shortened; empty when it would run.
fn judged(rules: &[ApprovalRule], tool: &str, by: &str, to: &str, asked: Option<Rule>) -> String {
    let policy = Policy { rules: checked(rules.to_vec()).unwrap(), ..Policy::default() };
    let (tools, by) = (tools(), agent(by));
    let arguments = [("to".to_owned(), to.to_owned())];
    let call = PolicyCall { manifest: tools.get(tool).unwrap(), agent: &by, arguments: &arguments };
    let demand = policy.demand(&call, asked.clone());
    if asked.is_none() {
        let explained = policy.explain(&call);
        assert_eq!(explained.demand, demand, "explained otherwise than done");
        let counting: Vec<_> = explained.matching.iter().filter(|rule| rule.counts).collect();
        if let [one] = counting[..] {
            assert_eq!(one.holds, demand.is_some());
        }
    }
    demand.map_or(String::new(), |demand| demand.rule.id.replace("policy.approval.", ""))
}

#[test]
fn the_most_specific_rule_counts() {
    let agents = |name: &str| ApprovalRule { agents: vec![agent("a")], ..rule(name) };
    let risk = |name: &str, tier| ApprovalRule { risk: Some(tier), ..rule(name) };
    let both = ApprovalRule { agents: vec![agent("a")], ..of_tool("both", "push") };
    let high = risk("high", RiskTier::High);
    // From the least specific to the most; each is put before and behind the ones below it.
    let ladder = [
        rule("any"),
        risk("info", RiskTier::Info),
        high.clone(),
        of_tool("tool", "push"),
        ApprovalRule { risk: Some(RiskTier::High), ..of_tool("tool-risk", "push") },
        agents("agent"),
        ApprovalRule { agents: vec![agent("a")], ..risk("agent-risk", RiskTier::High) },
        both,
        when("when", "push", "to == main"),
        ApprovalRule { agents: vec![agent("a")], ..when("when-agent", "push", "to == main") },
    ];
    for top in 1..=ladder.len() {
        let mut rules = ladder[..top].to_vec();
        let expected = format!("rule.{}", ladder[top - 1].name);
        assert_eq!(judged(&rules, "push", "a", "main", None), expected);
        rules.reverse();
        assert_eq!(judged(&rules, "push", "a", "main", None), expected, "reversed");
    }
    // Whoever is not meant is judged by the rest.
    for (tool, by, to, expected) in [
        ("push", "a", "side", "rule.both"),
        ("push", "b", "main", "rule.when"),
        ("push", "b", "side", "rule.tool-risk"),
        ("wipe", "b", "main", "rule.high"),
        ("wipe", "a", "main", "rule.agent-risk"),
        ("look", "a", "main", "rule.agent"),
        ("look", "b", "main", "rule.info"),
    ] {
        assert_eq!(judged(&ladder, tool, by, to, None), expected, "{tool} by {by} to {to}");
    }
    assert!(agents("agent").specificity() > of_tool("tool", "push").specificity());
    assert!(risk("critical", RiskTier::Critical).specificity() > high.specificity());
}

#[test]
fn of_equally_specific_rules_the_first_counts() {
    let (main, side) = (when("main", "push", "to == main"), when("other", "push", "to != side"));
    let main_first = [main.clone(), side.clone()];
    assert_eq!(judged(&main_first, "push", "a", "main", None), "rule.main");
    assert_eq!(judged(&[side, main], "push", "a", "main", None), "rule.other");
}

#[test]
fn no_rule_lifts_what_a_manifest_or_a_hook_asks() {
    let lets_run = [run(rule("run")), of_tool("two", "sign")];
    for (rules, tool, expected) in [
        (&lets_run[..1], "push", ""),
        (&lets_run[..1], "wipe", ""),
        (&lets_run[..1], "sign", "manifest"),
        (&lets_run[..], "sign", "rule.two"),
        (&[][..], "push", "risk_tier"),
        (&[][..], "look", ""),
    ] {
        assert_eq!(judged(rules, tool, "a", "main", None), expected, "{tool}");
    }
    // A hook's words, and the approvals of the rule that would have been lifted.
    let asked = Rule { id: "policy.approval.hook".into(), text: "a hook asks".into() };
    let two = RuleTerms { factors: factors(&[("ops", 2)]), ..terms() };
    let rules = checked(vec![run(of_tool("run", "push")), holding("two", two)]).unwrap();
    let policy = Policy { rules, ..Policy::default() };
    let (tools, by) = (tools(), agent("a"));
    let call = PolicyCall { manifest: tools.get("push").unwrap(), agent: &by, arguments: &[] };
    assert_eq!(policy.demand(&call, None), None);
    let demand = policy.demand(&call, Some(asked.clone())).unwrap();
    assert_eq!((demand.rule, demand.policy.unwrap().factors()[0].count()), (asked, 2));
}

#[test]
fn what_a_rule_says_is_what_the_approver_reads_and_what_is_demanded() {
    let terms = RuleTerms {
        factors: factors(&[("ops", 2), ("security", 1)]),
        timeout: Some(Duration::from_secs(9)),
        session_grants: false,
        ..terms()
    };
    let reason = Some("Pushes are seen by two".to_owned());
    let rules = checked(vec![ApprovalRule { reason, ..holding("two", terms) }]).unwrap();
    let policy = Policy { rules, ..Policy::default() };
    let (tools, by) = (tools(), agent("a"));
    let call = PolicyCall { manifest: tools.get("look").unwrap(), agent: &by, arguments: &[] };
    let demand = policy.demand(&call, None).unwrap();
    assert_eq!(
        demand.rule.text,
        "Pushes are seen by two (rule `two`); it takes 2 of `ops` and 1 of `security`"
    );
    assert_eq!((demand.timeout, demand.session_grants), (Duration::from_secs(9), false));
    assert!(policy.may_hold(call.manifest));
}

#[test]
fn the_owner_is_excluded_agent_by_agent() {
    let excluding = RuleTerms { exclude_owner: true, ..terms() };
    let named = ApprovalRule { agents: vec![agent("a")], ..holding("four-eyes", excluding) };
    let rules = checked(vec![named]).unwrap();
    let policy = Policy { rules, ..Policy::default() };
    let tools = tools();
    for (by, excluded) in [("a", Some(vec!["ada".to_owned()])), ("b", None)] {
        let by = agent(by);
        let call = PolicyCall { manifest: tools.get("push").unwrap(), agent: &by, arguments: &[] };
        let policy = policy.demand(&call, None).unwrap().policy;
        assert_eq!(policy.as_ref().map(|policy| policy.excluded().to_vec()), excluded);
        if let Some(policy) = policy {
            assert_eq!(policy.factors()[0].group(), "approvers");
        }
    }
}

#[test]
fn rules_are_part_of_the_policy_and_without_any_it_is_as_it_was() {
    let with = |rules: Vec<ApprovalRule>| {
        Policy { rules: checked(rules).unwrap(), ..Policy::default() }.digest()
    };
    let none = Policy::default().digest();
    let timeout = Some(Duration::from_secs(301));
    let all = [
        none,
        with(vec![of_tool("one", "push")]),
        with(vec![of_tool("other", "push")]),
        with(vec![of_tool("one", "wipe")]),
        with(vec![run(of_tool("one", "push"))]),
        with(vec![when("one", "push", "to == main")]),
        with(vec![when("one", "push", "to == side")]),
        with(vec![holding("one", RuleTerms { timeout, ..terms() })]),
        with(vec![holding("one", RuleTerms { session_grants: false, ..terms() })]),
        with(vec![holding("one", RuleTerms { factors: factors(&[("ops", 1)]), ..terms() })]),
        with(vec![holding("one", RuleTerms { factors: factors(&[("ops", 2)]), ..terms() })]),
        with(vec![of_tool("one", "push"), of_tool("two", "wipe")]),
        with(vec![of_tool("two", "wipe"), of_tool("one", "push")]),
    ];
    let different: BTreeSet<_> = all.iter().map(ToString::to_string).collect();
    assert_eq!(different.len(), all.len());
    assert_eq!(with(Vec::new()), none);
}

#[test]
fn what_could_not_work_is_no_rule() {
    let step = |after_ms, group: &str| EscalationStep { after_ms, factors: factors(&[(group, 1)]) };
    let of = |of: &[(&str, u32)]| RuleTerms { factors: factors(of), ..terms() };
    let holds = |terms: RuleTerms| vec![holding("r", terms)];
    let escalating = |escalate: Vec<EscalationStep>| RuleTerms { escalate, ..of(&[("ops", 1)]) };
    let excluding = |of: RuleTerms, agents: &[&str]| {
        let agents = agents.iter().map(|name| agent(name)).collect();
        vec![ApprovalRule { agents, ..holding("r", RuleTerms { exclude_owner: true, ..of }) }]
    };
    let named = |name: &str| vec![rule(name)];
    let agents = |of: &[&str]| {
        vec![ApprovalRule { agents: of.iter().map(|name| agent(name)).collect(), ..rule("r") }]
    };
    let tools_named = |of: &[&str]| {
        vec![ApprovalRule { tools: of.iter().map(|tool| (*tool).into()).collect(), ..rule("r") }]
    };
    let timeout = |timeout| RuleTerms { timeout: Some(timeout), ..terms() };
    let day = Duration::from_secs(24 * 60 * 60);
    for (rules, part, why) in [
        (named(""), RulePart::Name, "a rule's name has 1 to 64 of a-z, 0-9, _ and -, unlike \"\""),
        (named("Ops"), RulePart::Name, "a rule's name has 1 to 64"),
        (
            vec![of_tool("r", "push"), of_tool("r", "wipe")],
            RulePart::Name,
            "two rules have the name `r`",
        ),
        (tools_named(&["push", "pull"]), RulePart::Tool(1), "there is no tool `pull`"),
        (tools_named(&["push", "push"]), RulePart::Tool(1), "`push` is named twice"),
        (agents(&["a", "c"]), RulePart::Agent(1), "there is no agent `c`"),
        (agents(&["ada"]), RulePart::Agent(0), "there is no agent `ada`"),
        (agents(&["a", "a"]), RulePart::Agent(1), "`a` is named twice"),
        (vec![when("r", "push", "two == main")], RulePart::When, "`push` has no argument `two`"),
        (vec![when("r", "push", "to == 'mian'")], RulePart::When, "`to` of `push` is never `mian`"),
        (
            vec![ApprovalRule { tools: Vec::new(), ..when("r", "push", "to == main") }],
            RulePart::When,
            "a condition on arguments needs the tools that have them",
        ),
        (
            vec![ApprovalRule { risk: Some(RiskTier::Critical), ..of_tool("r", "push") }],
            RulePart::Risk,
            "`push` has the tier `high`, so a rule from `critical` on skips it",
        ),
        (
            vec![run(of_tool("r", "sign"))],
            RulePart::Hold,
            "the manifest of `sign` asks for a person, and no rule lifts that",
        ),
        (
            holds(of(&[("legal", 1)])),
            RulePart::Factors,
            "nobody who may decide is in `legal`: an empty group can never satisfy a factor",
        ),
        (holds(of(&[("ops", 3)])), RulePart::Factors, "3 of `ops` are asked for, and it has 2"),
        (
            holds(of(&[("approvers", 5)])),
            RulePart::Factors,
            "5 of `approvers` are asked for, and it has 4",
        ),
        (
            holds(of(&[("ops", 2), ("approvers", 3)])),
            RulePart::Factors,
            "there are not enough different people: each counts for one factor",
        ),
        (
            excluding(of(&[("ops", 2)]), &["a"]),
            RulePart::Factors,
            "2 of `ops` are asked for, and it has 1, with the owner of `a` excluded",
        ),
        (
            excluding(terms(), &[]),
            RulePart::ExcludeOwner,
            "`stray` has no owner, so this would exclude nobody",
        ),
        (holds(timeout(Duration::ZERO)), RulePart::Timeout, "a call waits from 1 s to 366 days"),
        (holds(timeout(367 * day)), RulePart::Timeout, "a call waits from 1 s to 366 days"),
        (
            holds(RuleTerms { escalate: vec![step(1, "ops")], ..terms() }),
            RulePart::Escalate(0),
            "with anybody's approval enough, there is nobody to escalate to",
        ),
        (
            holds(escalating(vec![step(5, "security"), step(300_000, "security")])),
            RulePart::Escalate(1),
            "the call's time is over before this",
        ),
        (
            holds(escalating(vec![step(5, "security"), step(5, "security")])),
            RulePart::Escalate(1),
            "an escalation after 5 ms does not come after the one before",
        ),
        (
            holds(escalating(vec![step(5, "legal")])),
            RulePart::Escalate(0),
            "nobody who may decide is in `legal`",
        ),
        (
            holds(escalating((1..=9).map(|n| step(n, "security")).collect())),
            RulePart::Escalate(8),
            "a rule has at most 8 steps of escalation",
        ),
        (
            vec![of_tool("r", "push"), run(of_tool("s", "push"))],
            RulePart::Name,
            "never applies: `r` matches first, whatever it does",
        ),
        (
            vec![tools_named(&["push", "wipe"]).remove(0), of_tool("s", "wipe")],
            RulePart::Name,
            "never applies: `r` matches first, whatever it does",
        ),
        (
            vec![when("r", "push", "to == main"), when("s", "push", "to == main")],
            RulePart::Name,
            "never applies: `r` matches first",
        ),
    ] {
        let last = rules.len() - 1;
        let error = checked(rules).expect_err(why);
        assert!(error.why.starts_with(why), "{why}\n{}", error.why);
        assert_eq!((error.rule, error.part), (last, part), "{why}");
    }
    // What is just about possible.
    let fits = RuleTerms { factors: factors(&[("ops", 2), ("approvers", 2)]), ..terms() };
    checked(vec![holding("r", fits)]).unwrap();
    checked(vec![of_tool("r", "push"), tools_named(&["push", "wipe"]).remove(0)].map_names())
        .unwrap();
}

/// Gives each rule a name of its own.
trait MapNames {
    fn map_names(self) -> Self;
}

impl MapNames for Vec<ApprovalRule> {
    fn map_names(self) -> Self {
        let named = self.into_iter().enumerate();
        named.map(|(at, rule)| ApprovalRule { name: format!("r{at}"), ..rule }).collect()
    }
}

fn any_rule() -> impl Strategy<Value = ApprovalRule> {
    let tools = prop::sample::subsequence(vec!["look", "push", "wipe"], 0..=3);
    let agents = prop::sample::subsequence(vec!["a", "b"], 0..=2);
    let risk = prop::option::of(prop::sample::select(vec![
        RiskTier::Info,
        RiskTier::High,
        RiskTier::Critical,
    ]));
    let when = prop::option::of(prop::sample::select(vec!["to == main", "to != main"]));
    (tools, agents, risk, when, any::<bool>()).prop_map(|(tools, agents, risk, when, runs)| {
        let when = when.filter(|_| !tools.is_empty()).map(|text| text.parse().unwrap());
        let rule = ApprovalRule {
            tools: tools.into_iter().map(str::to_owned).collect(),
            agents: agents.into_iter().map(agent).collect(),
            risk,
            when,
            ..rule("r")
        };
        if runs { run(rule) } else { rule }
    })
}

proptest! {
    /// Against a model that knows no order: of the rules that match, one counts that no other
    /// beats, by the four questions in turn, and then by its place.
    #[test]
    fn specificity_is_the_four_questions_in_turn(rules in prop::collection::vec(any_rule(), 0..6)) {
        // As many of them as are good together.
        let rules = rules.map_names().into_iter().fold(Vec::new(), |mut rules, rule| {
            rules.push(rule);
            if checked(rules.clone()).is_err() {
                rules.pop();
            }
            rules
        });
        let policy = Policy { rules: checked(rules.clone()).unwrap(), hold_from: None, ..Policy::default() };
        let tools = tools();
        for (tool, by, to) in [
            ("look", "a", "main"), ("look", "b", "side"), ("push", "a", "side"),
            ("push", "b", "main"), ("wipe", "a", "main"), ("wipe", "b", "side"),
        ] {
            let (manifest, by) = (tools.get(tool).unwrap(), agent(by));
            let arguments = [("to".to_owned(), to.to_owned())];
            let matching = rules.iter().filter(|rule| {
                (rule.tools.is_empty() || rule.tools.iter().any(|name| name == tool))
                    && (rule.agents.is_empty() || rule.agents.contains(&by))
                    && rule.risk.is_none_or(|tier| manifest.risk_tier() >= tier)
                    && rule.when.as_ref().is_none_or(|when| {
                        (when.to_string() == "to == main") == (to == "main")
                    })
            });
            let mut best: Option<&ApprovalRule> = None;
            for rule in matching {
                let rank = |rule: &ApprovalRule| {
                    u32::from(rule.when.is_some()) * 1000
                        + u32::from(!rule.agents.is_empty()) * 100
                        + u32::from(!rule.tools.is_empty()) * 10
                        + match rule.risk {
                            None => 0,
                            Some(RiskTier::Info) => 1,
                            Some(RiskTier::High) => 4,
                            Some(_) => 5,
                        }
                };
                if best.is_none_or(|best| rank(rule) > rank(best)) {
                    best = Some(rule);
                }
            }
            let expected = best.filter(|rule| rule.action != RuleAction::Run)
                .map(|rule| format!("policy.approval.rule.{}", rule.name));
            let call = PolicyCall { manifest, agent: &by, arguments: &arguments };
            let demand = policy.demand(&call, None);
            prop_assert_eq!(demand.map(|demand| demand.rule.id.into_owned()), expected);
        }
    }
}
