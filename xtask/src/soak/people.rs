//! Agents that call, hang up and call again; approvers that decide at random.

use super::http::{Reply, ask};
use super::story::{Ending, ToldDecision, ToldResult};
use super::world::{FREE, HELD, Somebody, arguments};
use countersign_core::digest::Digest;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an agent sends a call again before it says that nobody answers.
const AGENT_PATIENCE: Duration = Duration::from_secs(180);

const CALL: &str = "POST /api/v1/calls";

/// What everybody shares.
#[derive(Default)]
pub(crate) struct Stage {
    /// Where the gateway is, while it is.
    pub(crate) address: Mutex<Option<SocketAddr>>,
    /// No new calls from now on.
    pub(crate) ending: AtomicBool,
    /// Approvers go home.
    pub(crate) over: AtomicBool,
    pub(crate) log: Mutex<Log>,
    pub(crate) sent: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) hung_up: AtomicU64,
    pub(crate) decided: AtomicU64,
    pub(crate) too_late: AtomicU64,
}

/// What clients sent and were told.
#[derive(Default)]
pub(crate) struct Log {
    /// What calls are about, by the digest of their arguments.
    pub(crate) sent: BTreeMap<String, (&'static str, String)>,
    pub(crate) holds: BTreeSet<String>,
    pub(crate) decisions: Vec<ToldDecision>,
    pub(crate) results: Vec<ToldResult>,
    /// What should never be said or left unsaid.
    pub(crate) wrong: Vec<(&'static str, String)>,
}

impl Stage {
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_address(&self, address: Option<SocketAddr>) {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    pub(crate) fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks the gateway, wherever it is now.
    fn ask(&self, who: &Somebody, head: &str, body: &str, patience: Duration) -> Reply {
        let Some(address) = self.address() else { return Reply::Lost };
        if head.starts_with(CALL) {
            self.count(&self.sent);
        }
        ask(address, &who.token, head, body, patience)
    }
}

/// SplitMix64: the same choices for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, who: u64) -> Self {
        Self(seed ^ who.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// One agent, until the stage is ending.
pub(crate) fn agent(stage: &Stage, who: &Somebody, number: u64, mut dice: Dice) {
    // So that they do not all come at once.
    std::thread::sleep(dice.millis(0, 1000));
    let mut call = 0;
    while !stage.ending.load(Ordering::Relaxed) {
        call += 1;
        let tool = match dice.below(100) {
            0..30 => FREE,
            30..90 => HELD.first().copied().unwrap_or(FREE),
            _ => HELD.last().copied().unwrap_or(FREE),
        };
        // Mostly another call each time, sometimes one that was made before.
        let name = match dice.percent(5) {
            true => format!("a{number}-again"),
            false => format!("a{number}-{call}"),
        };
        let name = format!("{name}-{}", tool.replace('_', "-"));
        if dice.percent(2) {
            refused(stage, who, &mut dice);
        }
        insist(stage, who, tool, &name, &mut dice);
        std::thread::sleep(dice.millis(0, 100));
    }
}

/// Sends a call until there is an answer, or the agent has had enough of it.
pub(crate) fn insist(
    stage: &Stage,
    who: &Somebody,
    tool: &'static str,
    name: &str,
    dice: &mut Dice,
) {
    let arguments = arguments(name);
    let body = format!("{{\"tool\":\"{tool}\",\"arguments\":{arguments}}}");
    let key = Digest::of(&arguments).to_string();
    stage.log().sent.insert(key, (tool, name.to_owned()));
    let started = Instant::now();
    while started.elapsed() < AGENT_PATIENCE {
        let hasty = !stage.ending.load(Ordering::Relaxed) && dice.percent(15);
        let patience = match hasty {
            true => dice.millis(5, 1000),
            false => AGENT_PATIENCE,
        };
        match stage.ask(who, CALL, &body, patience) {
            Reply::Answered(200, answer) if result(stage, who, &answer) => {
                return stage.count(&stage.answered);
            }
            Reply::HungUp => {
                stage.count(&stage.hung_up);
                if hasty && dice.percent(20) {
                    return;
                }
            }
            Reply::Answered(200 | 429 | 503, _) | Reply::Lost => {
                std::thread::sleep(dice.millis(50, 200));
            }
            Reply::Answered(status, answer) => {
                let what = format!("{} got {status} for {name}: {answer}", who.id);
                return stage.log().wrong.push(("answer", what));
            }
        }
    }
    stage.log().wrong.push(("answered", format!("{} has no answer for {name}", who.id)));
}

/// Notes a result. False when the gateway says that the call has not ended, or cannot say how.
fn result(stage: &Stage, who: &Somebody, answer: &Value) -> bool {
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let how = match text("/envelope/status") {
        "success" => Ending::Completed,
        "denied" => match text("/envelope/results/denied/code") {
            "gateway_stopping" | "internal" | "not_recorded" => return false,
            _ => Ending::Refused,
        },
        _ => return false,
    };
    let (call, agent) = (text("/call_id").to_owned(), who.id.clone());
    stage.log().results.push(ToldResult { call, agent, how });
    true
}

/// An agent that decides, about whatever is held, which nobody may let it.
fn refused(stage: &Stage, who: &Somebody, dice: &mut Dice) {
    let hold = {
        let log = stage.log();
        let nth = dice.below(log.holds.len() as u64);
        log.holds.iter().nth(usize::try_from(nth).unwrap_or(0)).cloned()
    };
    let Some(hold) = hold else { return };
    let head = format!("POST /api/v1/approvals/{hold}/approve");
    match stage.ask(who, &head, "{}", Duration::from_secs(30)) {
        Reply::Answered(403, _) | Reply::HungUp | Reply::Lost => {}
        Reply::Answered(status, answer) => {
            let what = format!("the agent {} decided about {hold}: {status} {answer}", who.id);
            stage.log().wrong.push(("decided_by_approver", what));
        }
    }
}

/// One approver, until the stage is over.
pub(crate) fn approver(stage: &Stage, who: &Somebody, mut dice: Dice) {
    while !stage.over.load(Ordering::Relaxed) {
        std::thread::sleep(dice.millis(20, 300));
        let listed = stage.ask(who, "GET /api/v1/approvals", "", Duration::from_secs(30));
        let Reply::Answered(200, Value::Array(holds)) = listed else { continue };
        let ids: Vec<String> =
            holds.iter().filter_map(|hold| Some(hold.get("id")?.as_str()?.to_owned())).collect();
        stage.log().holds.extend(ids.iter().cloned());
        for _ in 0..ids.len().min(12) {
            let nth = usize::try_from(dice.below(ids.len() as u64)).unwrap_or(0);
            let Some(id) = ids.get(nth) else { continue };
            // Some are left to their deadline.
            if id.ends_with(['0', '7']) && !stage.ending.load(Ordering::Relaxed) {
                continue;
            }
            decide(stage, who, id, &mut dice);
        }
    }
}

fn decide(stage: &Stage, who: &Somebody, id: &str, dice: &mut Dice) {
    let approved = dice.percent(75);
    let word = if approved { "approve" } else { "deny" };
    let head = format!("POST /api/v1/approvals/{id}/{word}");
    let patience = match dice.percent(5) {
        true => dice.millis(1, 50),
        false => Duration::from_secs(60),
    };
    match stage.ask(who, &head, "{\"reason\":\"soaked\"}", patience) {
        Reply::Answered(200, _) => {
            stage.count(&stage.decided);
            let (request, by) = (id.to_owned(), who.id.clone());
            stage.log().decisions.push(ToldDecision { request, by, approved });
        }
        // Another was first, the deadline was, or whoever asked hung up.
        Reply::Answered(404 | 409 | 410, _) => stage.count(&stage.too_late),
        Reply::Answered(503, _) | Reply::HungUp | Reply::Lost => {}
        Reply::Answered(status, answer) => {
            let what = format!("{} got {status} for {id}: {answer}", who.id);
            stage.log().wrong.push(("answer", what));
        }
    }
}
