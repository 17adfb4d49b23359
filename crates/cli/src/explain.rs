//! `countersign approvals explain`: what a call would take, from the configuration and the
//! manifests alone.

use std::collections::BTreeMap;
use std::process::ExitCode;

use countersign_core::hold::Factor;
use countersign_core::id::AgentId;
use countersign_core::text::{reveal, visible};
use countersign_kernel::{APPROVERS, Demand, Explanation, MatchingRule, PolicyCall, Specificity};
use countersign_manifest::{ManifestSet, Planned, render_command};
use countersign_server::{Principal, Role};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::approvals::{self, Deciding, DelegationTable};
use crate::args::{Explain, Global};
use crate::config::{self, Loaded, nearest};
use crate::output::{Failure, Paint, say, say_json};
use crate::{serve, state};

/// The rules and delegations of a configuration, held against the tools it names.
pub(crate) fn deciding(loaded: &Loaded) -> Result<Deciding, Failure> {
    let config = &loaded.config;
    if config.approvals.rules.is_empty() && config.delegations.is_empty() {
        return Ok(Deciding::default());
    }
    let (manifests, _) = serve::load_manifests(config)?;
    approvals::build(loaded, &manifests, &state::principals(loaded)?)
}

/// Holds what a configuration says of approvals against its tools and principals.
pub(crate) fn check(loaded: &Loaded) -> Result<(), Failure> {
    deciding(loaded).map(drop)
}

/// What a call would take, as JSON has it.
#[derive(Serialize)]
struct Answer {
    tool: String,
    agent: AgentId,
    /// What would run.
    command: String,
    /// Whether a person is asked.
    held: bool,
    #[serde(flatten)]
    held_by: Option<HeldBy>,
    /// The rules that match, the most specific first.
    matching: Vec<Matched>,
}

#[derive(Serialize)]
struct HeldBy {
    rule: String,
    because: String,
    /// What has to be met, all of it, and who can.
    takes: Vec<Takes>,
    excluded: Vec<String>,
    timeout_seconds: u64,
    escalation: Vec<Step>,
    session_grants: bool,
    delegations: Vec<For>,
}

#[derive(Serialize)]
struct Takes {
    group: String,
    count: u32,
    members: Vec<String>,
}

#[derive(Serialize)]
struct Step {
    after_seconds: f64,
    takes: Vec<Takes>,
}

/// Somebody may answer for somebody who may.
#[derive(Serialize)]
struct For {
    from: String,
    to: String,
    time: String,
}

#[derive(Serialize)]
struct Matched {
    name: String,
    holds: bool,
    counts: bool,
    /// What it is ranked by.
    names: Vec<&'static str>,
}

pub(crate) fn run(global: &Global, args: &Explain) -> Result<ExitCode, Failure> {
    let arguments: Map<String, Value> = serde_json::from_str(&args.args)
        .map_err(|error| Failure::new(format!("--args is no JSON object: {error}")))?;
    let loaded = config::load(global)?;
    let (manifests, problems) = serve::load_manifests(&loaded.config)?;
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    let principals = state::principals(&loaded)?;
    let agent = agent(&principals, args.agent.as_deref())?;
    let deciding = approvals::build(&loaded, &manifests, &principals)?;
    let manifest = manifests.get(&args.tool).ok_or_else(|| unknown(&args.tool, &manifests))?;
    let planned = match manifest.plan(&arguments) {
        Ok(planned) => planned,
        Err(problems) => {
            match global.json {
                true => say_json(&serde_json::json!({ "refused": problems })),
                false => {
                    say("refused before anybody is asked:");
                    problems.iter().for_each(|problem| say(&format!("  {problem}")));
                }
            }
            return Ok(ExitCode::from(1));
        }
    };
    let policy = loaded.policy(deciding.rules, Vec::new());
    let explained =
        policy.explain(&PolicyCall { manifest, agent: &agent, arguments: &planned.args });
    let members = approvals::members(&principals)?;
    let grants = policy.grants_for(manifest).is_some();
    let delegations = &loaded.config.delegations;
    let answer = answer(&args.tool, agent, &planned, explained, (&members, delegations, grants));
    match global.json {
        true => say_json(&answer),
        false => tell(&answer),
    }
    Ok(ExitCode::SUCCESS)
}

fn agent(principals: &[Principal], named: Option<&str>) -> Result<AgentId, Failure> {
    let agents = principals.iter().filter(|principal| principal.roles.contains(&Role::Agent));
    let agents: Vec<&str> = agents.map(|principal| principal.id.as_str()).collect();
    let failure = |text: String, hint: Option<String>| {
        let failure = Failure::new(text);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    };
    let id = match (named, agents.as_slice()) {
        (Some(name), known) if known.contains(&name) => name,
        (Some(name), known) => {
            let hint = nearest(name, known.iter().copied());
            let hint = hint.map(|word| format!("did you mean `{word}`?"));
            return Err(failure(format!("there is no agent `{}`", visible(name)), hint));
        }
        (None, [one]) => one,
        (None, []) => return Err(failure("there is no agent".to_owned(), None)),
        (None, several) => {
            let hint = format!("name one with --agent: {}", several.join(", "));
            return Err(failure("several agents could make this call".to_owned(), Some(hint)));
        }
    };
    AgentId::new(id).map_err(|error| Failure::of(&error))
}

fn unknown(tool: &str, manifests: &ManifestSet) -> Failure {
    let failure = Failure::new(format!("there is no tool `{}`", visible(tool)));
    match nearest(tool, manifests.iter().map(|manifest| manifest.name())) {
        Some(word) => failure.hint(format!("did you mean `{word}`?")),
        None => failure,
    }
}

type Known<'a> = (&'a BTreeMap<String, Vec<String>>, &'a [DelegationTable], bool);

fn answer(
    tool: &str,
    agent: AgentId,
    planned: &Planned,
    explained: Explanation,
    known: Known<'_>,
) -> Answer {
    let matched = |rule: MatchingRule| {
        let MatchingRule { name, specificity, holds, counts } = rule;
        Matched { name, holds, counts, names: named(specificity) }
    };
    Answer {
        tool: tool.to_owned(),
        agent,
        // As approvers are shown it.
        command: reveal(&render_command(&planned.plan)).into_owned(),
        held: explained.demand.is_some(),
        held_by: explained.demand.map(|demand| held_by(demand, known)),
        matching: explained.matching.into_iter().map(matched).collect(),
    }
}

fn held_by(demand: Demand, (members, delegations, grants): Known<'_>) -> HeldBy {
    let Demand { rule, policy, timeout, session_grants } = demand;
    let excluded = policy.as_ref().map(|policy| policy.excluded().to_vec()).unwrap_or_default();
    let who = |group: &str| -> Vec<String> {
        let members = members.get(group).into_iter().flatten();
        members.filter(|member| !excluded.contains(member)).cloned().collect()
    };
    let takes = |factors: &[Factor]| -> Vec<Takes> {
        let takes = factors.iter().map(|factor| Takes {
            group: factor.group().to_owned(),
            count: factor.count(),
            members: who(factor.group()),
        });
        takes.collect()
    };
    let anybody = || vec![Takes { group: APPROVERS.to_owned(), count: 1, members: who(APPROVERS) }];
    let (first, steps) = match &policy {
        None => (anybody(), Vec::new()),
        Some(policy) => {
            let steps = policy.escalation().iter().map(|step| Step {
                after_seconds: std::time::Duration::from_millis(step.after_ms).as_secs_f64(),
                takes: takes(&step.factors),
            });
            (takes(policy.factors()), steps.collect())
        }
    };
    let counted = |name: &str| {
        let steps = steps.iter().flat_map(|step: &Step| &step.takes);
        first.iter().chain(steps).any(|takes| takes.members.iter().any(|member| member == name))
    };
    let delegations = delegations.iter().filter(|table| {
        policy.is_some() && counted(table.from.get_ref()) && !excluded.contains(table.to.get_ref())
    });
    let delegations = delegations.map(|table| For {
        from: table.from.get_ref().clone(),
        to: table.to.get_ref().clone(),
        time: table.time(),
    });
    HeldBy {
        rule: rule.id.into_owned(),
        because: rule.text,
        delegations: delegations.collect(),
        takes: first,
        excluded: excluded.clone(),
        timeout_seconds: timeout.as_secs(),
        escalation: steps,
        session_grants: session_grants && grants,
    }
}

fn tell(answer: &Answer) {
    let paint = Paint::stdout();
    let Answer { tool, agent, command, held_by, matching, .. } = answer;
    let line =
        |name: &str, text: &str| say(&format!("  {} {text}", paint.dim(&format!("{name:9}"))));
    let what = match held_by {
        Some(_) => paint.warn("waits for a person"),
        None => paint.good("runs"),
    };
    say(&format!("{} by {agent} {what}", paint.bold(tool)));
    line("command", command);
    if let Some(held) = held_by {
        line("because", &held.because);
        tell_takes(&held.takes, |text| line("takes", text));
        if !held.excluded.is_empty() {
            line("never", &format!("{}, who owns the agent", held.excluded.join(", ")));
        }
        for For { from, to, time } in &held.delegations {
            line("", &format!("{to} may answer for {from} {time}"));
        }
        line("waits", &format!("{} s, then it is denied", held.timeout_seconds));
        for step in &held.escalation {
            let after = step.after_seconds;
            tell_takes(&step.takes, |text| line("or", &format!("after {after} s, {text}")));
        }
        line(
            "session",
            match held.session_grants {
                true => "an approval may cover later calls",
                false => "each call is approved by itself",
            },
        );
    }
    if matching.is_empty() {
        line("rules", "none matches");
    }
    for (place, rule) in matching.iter().enumerate() {
        let mut text = format!("`{}`, {}", rule.name, in_words(&rule.names));
        text.push_str(match (rule.counts, rule.holds) {
            (true, true) => ": counts, as the most specific",
            (true, false) => ": counts, as the most specific, and lets it run",
            (false, false) if !matching.iter().take(place).any(|rule| rule.counts) => {
                ": would let it run, which cannot lift what the manifest asks"
            }
            (false, _) => "",
        });
        line(if place == 0 { "rules" } else { "" }, &text);
    }
}

fn tell_takes(takes: &[Takes], line: impl Fn(&str)) {
    for Takes { group, count, members } in takes {
        line(&format!("{count} of {group}: {}", members.join(", ")));
    }
}

/// What a rule is ranked by, the first first.
fn named(specificity: Specificity) -> Vec<&'static str> {
    let Specificity { when, agent, tool, risk } = specificity;
    let parts = [(when, "arguments"), (agent, "agents"), (tool, "tools"), (risk > 0, "a tier")];
    parts.into_iter().filter(|(named, _)| *named).map(|(_, what)| what).collect()
}

fn in_words(names: &[&str]) -> String {
    match names {
        [] => "which names nothing".to_owned(),
        names => format!("which names {}", names.join(", ")),
    }
}
