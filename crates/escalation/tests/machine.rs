//! The whole state × event table, and the rules it must follow whatever the order of events.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use countersign_core::hold::{Approver, Decision, DecisionKind, HoldStatus, Surface};
use countersign_escalation::machine::{Effect, Event, Outcome, State, step};
use proptest::prelude::*;

fn decide(decision: DecisionKind) -> Event {
    let approver = Approver { surface: Surface::Cli, id: "ada".into(), display: "Ada".into() };
    Event::Decide(Decision { decision, reason: None, grant: None }, approver)
}

fn outcome() -> Outcome {
    let code = "approval.approved";
    Outcome { status: HoldStatus::Approved, code, decision: None, at_millis: 5 }
}

#[test]
fn the_whole_table() {
    let states = [
        ("pending", State::Pending { expires_at: 10 }),
        ("recording", State::Recording(outcome())),
        ("final", State::Final(outcome())),
    ];
    let events = [
        ("approve", decide(DecisionKind::Approve)),
        ("deny", decide(DecisionKind::Deny)),
        ("deadline", Event::Deadline),
        ("abandon", Event::Abandon),
        ("recorded", Event::Recorded),
        ("record_failed", Event::RecordFailed),
    ];
    let mut table = String::new();
    for (state_name, state) in &states {
        for (event_name, event) in &events {
            for (when, now) in [("before", 9), ("after", 10)] {
                let result = match step(state, now, event.clone()) {
                    Err(illegal) => format!("error: {illegal}"),
                    Ok((to, effect)) => {
                        let to = match to {
                            State::Pending { .. } => "pending".into(),
                            State::Recording(o) => format!("recording {}", o.code),
                            State::Final(o) => format!("final {}", o.code),
                        };
                        let effect = match effect {
                            None => "",
                            Some(Effect::Record(_)) => " + record",
                            Some(Effect::Release(_)) => " + release",
                        };
                        format!("{to}{effect}")
                    }
                };
                table += &format!("{state_name:9} {event_name:13} {when:6} → {result}\n");
            }
        }
    }
    assert_eq!(table, include_str!("machine.txt"), "the table is now:\n{table}");
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(decide(DecisionKind::Approve)),
        Just(decide(DecisionKind::Deny)),
        Just(Event::Deadline),
        Just(Event::Abandon),
        Just(Event::Recorded),
        Just(Event::RecordFailed),
    ]
}

proptest! {
    #[test]
    fn one_release_after_its_record_and_approval_only_by_a_person_in_time(
        events in prop::collection::vec((0u64..20, any_event()), 0..40)
    ) {
        let mut state = State::Pending { expires_at: 10 };
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
                                prop_assert!(o.decision.is_some() && now < 10);
                            }
                            recorded = Some(o);
                        }
                        Some(Effect::Release(o)) => {
                            let failed = event == Event::RecordFailed;
                            prop_assert_eq!(o.status == HoldStatus::Denied && failed, failed);
                            if !failed {
                                prop_assert_eq!(Some(&o), recorded.as_ref());
                            }
                            released.push(o);
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
