//! The whole state × event table, and the rules it must follow whatever the order of events.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use countersign_core::digest::Digest;
use countersign_core::hold::{
    Approver, Decision, DecisionKind, Factor, HoldKind, HoldPolicy, HoldStatus, Surface,
};
use countersign_escalation::machine::{Effect, Event, Illegal, Outcome, State, step};
use countersign_escalation::{Edit, Held, HoldRequest, Voter};
use proptest::prelude::*;

const EXPIRES_AT: u64 = 10;
const ESCALATES_AFTER: u64 = 5;

fn person(name: &str) -> Approver {
    Approver { surface: Surface::Cli, id: name.into(), display: name.into() }
}

fn vote(decision: DecisionKind, who: &str, groups: &[&str]) -> Event {
    let groups = groups.iter().map(ToString::to_string).collect();
    let voter = Voter::of(person(who), groups);
    Event::Vote { voter, decision: Decision { decision, reason: None, grant: None }, seen: None }
}

fn edit(to: &str) -> Event {
    let edit = Edit {
        fingerprint: Digest::of(to),
        rendering_digest: None,
        summary: to.into(),
        context_snapshot: serde_json::Value::Null.into(),
    };
    Event::Edit(person("grace"), Box::new(edit))
}

fn claim(who: &str) -> Event {
    Event::Claim { by: person(who), for_millis: 3 }
}

fn held(policy: Option<HoldPolicy>) -> Held {
    let request = HoldRequest {
        id: "id.1".parse().unwrap(),
        kind: HoldKind::ToolCall,
        summary: "git commit".into(),
        reason: "manifest".into(),
        context_snapshot: serde_json::Value::Null.into(),
        created_at_millis: 0,
        fingerprint: Some(Digest::of("asked")),
        rendering_digest: None,
    };
    Held::new("agent.a".parse().unwrap(), request, EXPIRES_AT, policy.map(Arc::new))
}

fn two_of_ops() -> HoldPolicy {
    let factor = |group, count| vec![Factor::new(group, count).unwrap()];
    let policy = HoldPolicy::new(factor("ops", 2)).unwrap();
    policy.escalating(ESCALATES_AFTER, factor("leads", 1)).unwrap()
}

fn after(state: State, events: &[Event]) -> State {
    events.iter().fold(state, |state, event| step(&state, 1, event.clone()).unwrap().0)
}

fn states() -> Vec<(&'static str, State)> {
    use DecisionKind::{Approve, Deny};
    let pending = || State::Pending(held(None));
    let quorum = || State::Pending(held(Some(two_of_ops())));
    let ended = |status| {
        let outcome = Outcome { status, code: status.as_str(), decision: None, at_millis: 5 };
        State::Final(held(None), Arc::new(outcome))
    };
    let approve = |who| vote(Approve, who, &["ops"]);
    vec![
        ("pending", pending()),
        ("pending, claimed", after(pending(), &[claim("ada")])),
        ("pending, of 2", quorum()),
        ("pending, 1 of 2", after(quorum(), &[approve("ada")])),
        ("pending, a lead", after(quorum(), &[vote(Approve, "ada", &["ops", "leads"])])),
        ("pending, edited", after(quorum(), &[approve("ada"), edit("other")])),
        ("recording", after(pending(), &[vote(Approve, "ada", &[])])),
        ("recording no", after(quorum(), &[vote(Deny, "ada", &[])])),
        ("approved", ended(HoldStatus::Approved)),
        ("denied", ended(HoldStatus::Denied)),
        ("expired", ended(HoldStatus::Expired)),
        ("cancelled", ended(HoldStatus::Cancelled)),
        ("recovery", ended(HoldStatus::RecoveryRequired)),
    ]
}

fn events() -> Vec<(&'static str, Event)> {
    use DecisionKind::{Approve, Deny};
    vec![
        ("approve, ada of ops", vote(Approve, "ada", &["ops"])),
        ("approve, bob of ops", vote(Approve, "bob", &["ops"])),
        ("approve, eve of leads", vote(Approve, "eve", &["leads"])),
        ("approve, of no group", vote(Approve, "dan", &[])),
        ("approve, the agent", vote(Approve, "agent.a", &["ops", "leads"])),
        ("deny, of no group", vote(Deny, "dan", &[])),
        ("deny, the agent", vote(Deny, "agent.a", &[])),
        ("edit", edit("new")),
        ("edit to the same", edit("asked")),
        ("claim, ada", claim("ada")),
        ("claim, bob", claim("bob")),
        ("unclaim, ada", Event::Unclaim(person("ada"))),
        ("tick", Event::Tick),
        ("abandon", Event::Abandon),
        ("lapse", Event::Lapse),
        ("recorded", Event::Recorded),
        ("record_failed", Event::RecordFailed),
    ]
}

fn show(before: &State, now: u64, event: Event) -> String {
    let (state, effect) = match step(before, now, event) {
        Err(illegal) => return format!("error: {illegal}"),
        Ok(after) => after,
    };
    let held = state.held();
    let mut text = match &state {
        State::Pending(_) => "pending".to_owned(),
        State::Recording(_, outcome) => format!("recording {}", outcome.code),
        State::Final(_, outcome) => format!("final {}", outcome.code),
    };
    if matches!(state, State::Pending(_)) && !held.approvals().is_empty() {
        text += &format!(", {} counted", held.approvals().len());
    }
    match effect {
        None => {}
        Some(Effect::Record(_)) => text += " + record",
        Some(Effect::Release(_)) => text += " + release",
        Some(Effect::Tell(change)) => {
            let change = format!("{change:?}");
            text += &format!(" + tell {}", change.split('(').next().unwrap().to_lowercase());
        }
    }
    text
}

#[test]
fn the_whole_table() {
    let mut table = String::new();
    let times = [("at once", 3), ("later", 7), ("too late", EXPIRES_AT)];
    for (state_name, state) in states() {
        for (event_name, event) in events() {
            let results = times.map(|(when, now)| (when, show(&state, now, event.clone())));
            let pair = format!("{state_name:16} {event_name:22}");
            let mut first = true;
            for (at, (when, result)) in results.iter().enumerate() {
                if at > 0 && results[at - 1].1 == *result {
                    continue;
                }
                let always = results.iter().all(|(_, other)| other == result);
                let when = if always { "" } else { *when };
                let pair = if first { pair.as_str() } else { "" };
                table += &format!("{pair:39} {when:9}→ {result}\n");
                first = false;
            }
        }
        table.push('\n');
    }
    let table = table.trim_end().to_owned() + "\n";
    if table != include_str!("machine.txt") {
        std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/machine.txt"), &table).unwrap();
    }
    assert_eq!(table, include_str!("machine.txt"), "the table is now:\n{table}");
}

#[test]
fn every_illegal_pair_names_state_and_event() {
    let mut pairs = 0;
    for (_, state) in states() {
        for (_, event) in events() {
            let (state_name, event_name) = (state.name(), event.name());
            if let Err(Illegal::Pair { state, event }) = step(&state, 3, event) {
                assert_eq!((state, event), (state_name, event_name));
                let text = Illegal::Pair { state, event }.to_string();
                assert!(text.contains(state_name) && text.contains(event_name), "{text}");
                pairs += 1;
            }
        }
    }
    assert!(pairs > 90, "{pairs}");
}

fn any_event() -> impl Strategy<Value = Event> {
    let names = prop::sample::select(vec!["ada", "bob", "eve", "agent.a"]);
    let groups = prop::sample::select(vec![&[][..], &["ops"], &["leads"], &["ops", "leads"]]);
    let ballot = (prop::sample::select(DecisionKind::ALL), names, groups);
    prop_oneof![
        6 => ballot.prop_map(|(decision, who, groups)| vote(decision, who, groups)),
        2 => prop::sample::select(events()).prop_map(|(_, event)| event),
        1 => prop::sample::select(vec!["x", "y", "asked"]).prop_map(edit),
        1 => Just(Event::Tick),
    ]
}

proptest! {
    #[test]
    fn one_release_after_its_record_and_approval_only_by_enough_people_in_time(
        quorum in any::<bool>(),
        events in prop::collection::vec((0u64..3, any_event()), 0..40)
    ) {
        let mut state = State::Pending(held(quorum.then(two_of_ops)));
        let (mut now, mut recorded, mut released) = (0, None, Vec::new());
        for (wait, event) in events {
            now += wait;
            let before = state.clone();
            match step(&state, now, event.clone()) {
                Err(_) => prop_assert_eq!(&state, &before),
                Ok((to, effect)) => {
                    match effect {
                        Some(Effect::Record(o)) => {
                            prop_assert!(recorded.is_none());
                            if o.status == HoldStatus::Approved {
                                let by = &o.decision.as_ref().unwrap().1.id;
                                prop_assert!(now < EXPIRES_AT && by != "agent.a");
                                if quorum {
                                    enough(to.held(), now)?;
                                }
                            }
                            recorded = Some(o);
                        }
                        Some(Effect::Release(o)) => {
                            let failed = event == Event::RecordFailed;
                            prop_assert_eq!(o.status == HoldStatus::Denied && failed, failed);
                            if !failed {
                                prop_assert_eq!(Some(&o), recorded.as_ref());
                            }
                            prop_assert_eq!(to.held().status(), o.status);
                            released.push(o);
                        }
                        Some(Effect::Tell(_)) => {
                            prop_assert!(matches!(to, State::Pending(_)) && recorded.is_none());
                        }
                        None => {}
                    }
                    state = to;
                }
            }
        }
        prop_assert!(released.len() <= 1);
    }
}

/// Two of ops, or one of the leads when it is time; about the call as it is; all different.
fn enough(held: &Held, now: u64) -> Result<(), TestCaseError> {
    let votes: Vec<_> = held
        .votes()
        .iter()
        .filter(|v| v.decision == DecisionKind::Approve && v.fingerprint == held.fingerprint())
        .collect();
    let mut people: Vec<_> = votes.iter().map(|v| v.approver.id.as_str()).collect();
    people.sort_unstable();
    people.dedup();
    prop_assert_eq!(people.len(), votes.len());
    prop_assert!(!people.contains(&"agent.a"));
    let of = |group: &str| votes.iter().filter(|v| v.groups.iter().any(|g| g == group)).count();
    prop_assert!(of("ops") >= 2 || (now >= ESCALATES_AFTER && of("leads") >= 1));
    Ok(())
}
