//! Many agents and approvers on the real program, which is killed again and again; then the
//! journal alone has to show that nothing was lost, doubled or done without a person.

mod http;
mod people;
mod story;
mod world;

use crate::{Outcome, process, terminal, workspace};
use people::{Dice, Stage, agent, approver, insist};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread::Scope;
use std::time::{Duration, Instant};
use story::{Finding, Open, Rules, Step, Told, Verdict, judge, read};
use world::{Gateway, HELD, Somebody, World};

/// How often calls that have not ended are sent again, with a restart in between.
const ROUNDS: usize = 6;
/// Findings that are printed; the rest is counted.
const SHOWN: usize = 20;

#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// How long agents make calls
    #[arg(long, default_value_t = 10.0, value_name = "N")]
    minutes: f64,
    /// Agents that call at the same time
    #[arg(long, default_value_t = 200)]
    agents: usize,
    /// People who decide at the same time
    #[arg(long, default_value_t = 20)]
    approvers: usize,
    /// Repeats the choices of an earlier run, though not its timing
    #[arg(long)]
    seed: Option<u64>,
    /// How long a held call waits for its decision
    #[arg(long, default_value_t = 8, value_name = "SECONDS")]
    deadline: u64,
    /// Soak the program as it is released
    #[arg(long)]
    release: bool,
    /// Soak this program in place of one built here
    #[arg(long, value_name = "FILE", conflicts_with = "release")]
    binary: Option<PathBuf>,
    /// Print the summary as one JSON document
    #[arg(long)]
    json: bool,
}

impl Options {
    /// What `cargo xtask ci` runs.
    pub(crate) fn short() -> Self {
        Self {
            minutes: 0.25,
            agents: 60,
            approvers: 8,
            seed: None,
            deadline: 4,
            release: false,
            binary: None,
            json: false,
        }
    }

    fn command(&self, seed: u64) -> String {
        let Self { minutes, agents, approvers, deadline, .. } = self;
        let release = if self.release { " --release" } else { "" };
        format!(
            "cargo xtask soak --minutes {minutes} --agents {agents} --approvers {approvers} \
             --deadline {deadline}{release} --seed {seed}"
        )
    }
}

/// What happened, and what is wrong with it.
#[derive(Serialize)]
struct Summary {
    command: String,
    seed: u64,
    seconds: u64,
    requests: u64,
    answers: u64,
    hung_up: u64,
    /// Decisions that an approver was told count, and those that came too late.
    decided: u64,
    too_late: u64,
    kills: u64,
    stops: u64,
    sent_again: usize,
    records: usize,
    #[serde(flatten)]
    verdict: Verdict,
    /// Where everything is that the run left behind; only kept when something is wrong.
    kept: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let seed = match options.seed {
        Some(seed) => seed,
        None => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |time| time.as_secs()),
    };
    let binary = match &options.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => build(options.release)?,
    };
    let folder = tempfile::Builder::new().prefix("countersign-soak-").tempdir()?;
    let mut summary = soak(options, seed, folder.path(), &binary)?;
    let bad = !summary.verdict.findings.is_empty();
    if bad {
        summary.kept = Some(folder.keep());
    }
    if options.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        show(&summary);
    }
    match bad {
        false => Ok(()),
        true => {
            let findings = terminal::count(summary.verdict.findings.len(), "finding");
            Err(format!("soak: {findings}; again with `{}`", summary.command).into())
        }
    }
}

fn build(release: bool) -> Outcome<PathBuf> {
    let mut cargo = process::cargo();
    cargo.args(["build", "--quiet", "--locked", "--package", "countersign"]);
    if release {
        cargo.arg("--release");
    }
    process::run(cargo.stdout(std::io::stderr()))?;
    let target = workspace::metadata()?.target_directory;
    let profile = if release { "release" } else { "debug" };
    Ok(target.join(profile).join("countersign").into_std_path_buf())
}

fn soak(options: &Options, seed: u64, folder: &Path, binary: &Path) -> Outcome<Summary> {
    let agents = Somebody::all("agent", options.agents);
    let approvers = Somebody::all("approver", options.approvers);
    let deadline = Duration::from_secs(options.deadline);
    let people = [("agent", agents.as_slice()), ("approver", approvers.as_slice())];
    let world = World::new(folder.to_owned(), binary, deadline, &people)?;
    let rules = Rules {
        approvers: approvers.iter().map(|person| person.id.clone()).collect(),
        held_tools: HELD.iter().map(|&tool| tool.to_owned()).collect(),
    };
    let stage = Stage::default();
    let mut run = Run { options, seed, world: &world, stage: &stage, kills: 0, stops: 0 };
    let started = Instant::now();
    let sent_again = std::thread::scope(|scope| {
        let ended = run.play(scope, &agents, &approvers);
        stage.ending.store(true, Ordering::Relaxed);
        stage.over.store(true, Ordering::Relaxed);
        ended
    })?;
    let steps = steps(&world)?;
    let mut log = std::mem::take(&mut *stage.log());
    let told = Told {
        holds: std::mem::take(&mut log.holds),
        decisions: std::mem::take(&mut log.decisions),
        results: std::mem::take(&mut log.results),
        traces: world.traces()?,
    };
    let mut verdict = judge(&steps.1, &rules, &told);
    let wrong = log.wrong.into_iter().map(|(rule, what)| Finding { rule, what });
    verdict.findings.extend(wrong);
    if let Some(said) = world.verify()? {
        verdict.findings.push(Finding { rule: "audit_verify", what: said });
    }
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Summary {
        command: options.command(seed),
        seed,
        seconds: started.elapsed().as_secs(),
        requests: count(&stage.sent),
        answers: count(&stage.answered),
        hung_up: count(&stage.hung_up),
        decided: count(&stage.decided),
        too_late: count(&stage.too_late),
        kills: run.kills,
        stops: run.stops,
        sent_again,
        records: steps.0,
        verdict,
        kept: None,
    })
}

/// The records of the journal, counted, and what they say with its place.
fn steps(world: &World) -> Outcome<(usize, Vec<(u64, Step)>)> {
    let reader = countersign_store_sqlite::LogReader::open(&world.database())?;
    let (mut next, mut steps) = (1, Vec::new());
    loop {
        let page = reader.records(next, 4096, None)?;
        let Some(last) = page.last() else { break };
        let before = next;
        next = last.seq + 1;
        for (expected, stored) in (before..).zip(&page) {
            if stored.seq != expected {
                return Err(format!("the journal has {} in place of {expected}", stored.seq).into());
            }
            let record = serde_json::from_slice(&stored.bytes)
                .map_err(|error| format!("record {} cannot be read: {error}", stored.seq))?;
            steps.extend(read(&record).map(|step| (stored.seq, step)));
        }
    }
    Ok((usize::try_from(next - 1)?, steps))
}

struct Run<'a> {
    options: &'a Options,
    seed: u64,
    world: &'a World,
    stage: &'a Stage,
    kills: u64,
    stops: u64,
}

impl<'a> Run<'a> {
    /// All of it, until every call has ended or will not. How many calls were sent once more.
    fn play<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        agents: &'scope [Somebody],
        approvers: &'scope [Somebody],
    ) -> Outcome<usize>
    where
        'a: 'scope,
    {
        let (stage, seed) = (self.stage, self.seed);
        let thread = || std::thread::Builder::new().stack_size(512 << 10);
        let mut gateway = self.world.start()?;
        stage.set_address(Some(gateway.address));
        let mut calling = Vec::new();
        for (number, who) in (1..).zip(agents) {
            let dice = Dice::new(seed, number);
            let job = move || agent(stage, who, number, dice);
            calling.push(thread().spawn_scoped(scope, job)?);
        }
        for (number, who) in (1..).zip(approvers) {
            let dice = Dice::new(seed, 1 << 32 | number);
            thread().spawn_scoped(scope, move || approver(stage, who, dice))?;
        }
        let end = Instant::now() + Duration::from_secs_f64(self.options.minutes * 60.0);
        let mut dice = Dice::new(seed, 1 << 33);
        let mut told = Instant::now();
        while Instant::now() < end {
            let next = Instant::now() + dice.millis(1500, 6000);
            while Instant::now() < next.min(end) {
                std::thread::sleep(Duration::from_millis(50));
                if let Some(status) = gateway.ended() {
                    return Err(format!("the gateway ended by itself: {status}").into());
                }
                if told.elapsed() > Duration::from_secs(5) {
                    told = Instant::now();
                    self.progress();
                }
            }
            gateway = self.again(gateway, dice.percent(70))?;
        }
        stage.ending.store(true, Ordering::Relaxed);
        while calling.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                self.progress();
            }
        }
        self.finish(gateway, agents)
    }

    /// Ends the gateway, gently or not, and starts it on what it left.
    fn again(&mut self, gateway: Gateway, kill: bool) -> Outcome<Gateway> {
        if kill {
            self.stage.set_address(None);
            self.kills += 1;
            gateway.kill()?;
        } else {
            self.stops += 1;
            gateway.stop()?;
            self.stage.set_address(None);
        }
        let gateway = self.world.start()?;
        self.stage.set_address(Some(gateway.address));
        Ok(gateway)
    }

    /// Sends again what an agent gave up, until everything has ended.
    fn finish(&mut self, mut gateway: Gateway, agents: &[Somebody]) -> Outcome<usize> {
        let mut sent = 0;
        for _ in 0..ROUNDS {
            // Whatever waits is decided by the approvers, or ends by its deadline.
            std::thread::sleep(Duration::from_secs(1));
            gateway = self.again(gateway, false)?;
            let open = self.open()?;
            if open.is_empty() {
                break;
            }
            sent += open.len();
            let stage = self.stage;
            std::thread::scope(|scope| {
                for (number, open) in (1..).zip(&open) {
                    let known = stage.log().sent.get(&open.arguments).cloned();
                    let who = agents.iter().find(|agent| agent.id == open.agent);
                    let (Some((tool, name)), Some(who)) = (known, who) else { continue };
                    let mut dice = Dice::new(self.seed, 1 << 34 | number);
                    scope.spawn(move || insist(stage, who, tool, &name, &mut dice));
                }
            });
        }
        self.stage.over.store(true, Ordering::Relaxed);
        self.stage.set_address(None);
        gateway.stop()?;
        Ok(sent)
    }

    fn open(&self) -> Outcome<Vec<Open>> {
        Ok(judge(&steps(self.world)?.1, &Rules::default(), &Told::default()).open)
    }

    fn progress(&self) {
        let stage = self.stage;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        eprintln!(
            "soak: {} requests, {} answered, {} hung up; {} holds seen, {} decided, {} too late; \
             {} kills, {} stops",
            count(&stage.sent),
            count(&stage.answered),
            count(&stage.hung_up),
            stage.log().holds.len(),
            count(&stage.decided),
            count(&stage.too_late),
            self.kills,
            self.stops,
        );
    }
}

fn show(summary: &Summary) {
    let Summary { verdict, .. } = summary;
    println!(
        "soak: {} s, {} requests, {} answered, {} hung up, {} kills, {} stops, {} sent again",
        summary.seconds,
        summary.requests,
        summary.answers,
        summary.hung_up,
        summary.kills,
        summary.stops,
        summary.sent_again,
    );
    println!(
        "soak: {} records of {} calls: {} done, {} refused, {} failed or called off, {} unknown; \
         {} holds, {} decisions ({} told, {} too late), {} approvals used",
        summary.records,
        verdict.calls,
        verdict.completed,
        verdict.refused,
        verdict.otherwise,
        verdict.unknown,
        verdict.holds,
        verdict.decisions,
        summary.decided,
        summary.too_late,
        verdict.approvals_used,
    );
    for Finding { rule, what } in verdict.findings.iter().take(SHOWN) {
        println!("{rule}: {what}");
    }
    let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in &verdict.findings {
        *rules.entry(finding.rule).or_default() += 1;
    }
    for (rule, count) in rules {
        println!("soak: {rule}: {}", terminal::count(count, "finding"));
    }
    if let Some(kept) = &summary.kept {
        println!("soak: everything is kept in {}", kept.display());
    }
}
