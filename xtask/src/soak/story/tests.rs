use super::*;

fn digest(text: &str) -> Option<Digest> {
    Some(Digest::of(text))
}

fn requested(id: &str) -> Step {
    Step::Requested {
        request: format!("hold.{id}"),
        call: format!("call.{id}"),
        agent: "bot".to_owned(),
        arguments: id.to_owned(),
        fingerprint: digest(id),
        expires_at: 1000,
    }
}

fn decided(id: &str, by: &str, approved: bool) -> Step {
    let (request, by, fingerprint) = (format!("hold.{id}"), Some(by.to_owned()), digest(id));
    Step::Decided { request, by, approved, at: 500, fingerprint }
}

fn closed(id: &str, released: bool) -> Step {
    Step::Closed { request: format!("hold.{id}"), released }
}

fn intent(id: &str, approval: Option<&str>) -> Step {
    Step::Intent {
        call: format!("call.{id}"),
        agent: "bot".to_owned(),
        tool: if approval.is_some() { "held" } else { "free" }.to_owned(),
        arguments: id.to_owned(),
        fingerprint: digest(id),
        approval: approval.map(|id| format!("hold.{id}")),
        grant: false,
    }
}

fn ended(id: &str, how: Ending) -> Step {
    Step::Ended { call: format!("call.{id}"), how }
}

fn unknown(id: &str) -> Step {
    Step::Unknown { call: format!("call.{id}") }
}

/// A held call that is approved and runs.
fn good() -> Vec<Step> {
    vec![
        requested("a"),
        decided("a", "ada", true),
        closed("a", true),
        intent("a", Some("a")),
        ended("a", Ending::Completed),
    ]
}

fn told() -> Told {
    Told {
        holds: BTreeSet::from(["hold.a".to_owned()]),
        decisions: vec![ToldDecision {
            request: "hold.a".to_owned(),
            by: "ada".to_owned(),
            approved: true,
        }],
        results: vec![ToldResult {
            call: "call.a".to_owned(),
            agent: "bot".to_owned(),
            how: Ending::Completed,
        }],
        traces: BTreeMap::from([("a".to_owned(), 1)]),
    }
}

fn found(steps: Vec<Step>, told: &Told) -> Vec<&'static str> {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let rules = Rules { approvers: names(&["ada", "grace", "bot"]), held_tools: names(&["held"]) };
    let steps: Vec<_> = (1..).zip(steps).collect();
    let verdict = judge(&steps, &rules, told);
    let mut rules: Vec<_> = verdict.findings.iter().map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}

/// The good story with some steps in place of those from `at` on.
fn good_until(at: usize, others: Vec<Step>) -> Vec<Step> {
    good().into_iter().take(at).chain(others).collect()
}

#[test]
fn a_good_journal_has_no_findings() {
    let nobody = Told::default();
    let ran = |id: &str| Told { traces: BTreeMap::from([(id.to_owned(), 1)]), ..Told::default() };
    assert_eq!(found(good(), &told()), [""; 0]);
    for (steps, told) in [
        (vec![], &nobody),
        (vec![intent("b", None), ended("b", Ending::Completed)], &ran("b")),
        (vec![intent("b", None), unknown("b")], &nobody),
        (vec![intent("b", None), unknown("b")], &ran("b")),
        (vec![intent("b", None), ended("b", Ending::Otherwise)], &nobody),
        (vec![ended("b", Ending::Refused)], &nobody),
        (vec![requested("b"), decided("b", "ada", false), closed("b", false)], &nobody),
        (
            vec![
                requested("b"),
                decided("b", "ada", false),
                closed("b", false),
                ended("b", Ending::Refused),
            ],
            &nobody,
        ),
        (
            vec![requested("b"), Step::Denied { request: "hold.b".into() }, closed("b", false)],
            &nobody,
        ),
    ] {
        assert_eq!(found(steps.clone(), told), [""; 0], "{steps:?}");
    }
}

#[test]
fn each_broken_rule_of_a_journal_is_named() {
    let late = match decided("a", "ada", true) {
        Step::Decided { request, by, approved, fingerprint, .. } => {
            Step::Decided { request, by, approved, at: 1000, fingerprint }
        }
        other => other,
    };
    let other_call = match decided("a", "ada", true) {
        Step::Decided { request, by, approved, at, .. } => {
            Step::Decided { request, by, approved, at, fingerprint: digest("b") }
        }
        other => other,
    };
    let nobody = match decided("a", "ada", true) {
        Step::Decided { request, approved, at, fingerprint, .. } => {
            Step::Decided { request, by: None, approved, at, fingerprint }
        }
        other => other,
    };
    let rest = |at: usize, first: Step| {
        let after = good().into_iter().skip(at + 1);
        good_until(at, [first].into_iter().chain(after).collect())
    };
    let mut other_fingerprint = good();
    if let Some(Step::Intent { fingerprint, .. }) = other_fingerprint.get_mut(3) {
        *fingerprint = digest("b");
    }
    for (why, steps, rule) in [
        ("a hold is forgotten", vec![requested("a")], "ended_once"),
        ("an approval is not used", good_until(3, vec![]), "ended_once"),
        ("an effect has no end", vec![intent("a", None)], "ended_once"),
        ("two results", [good(), vec![ended("a", Ending::Completed)]].concat(), "ended_once"),
        ("a result, and unknown", [good(), vec![unknown("a")]].concat(), "ended_once"),
        (
            "refused, and run",
            vec![ended("a", Ending::Refused), intent("a", None), ended("a", Ending::Completed)],
            "ended_once",
        ),
        ("run, and refused", vec![intent("a", None), ended("a", Ending::Refused)], "ended_once"),
        ("a result without an intent", vec![ended("a", Ending::Completed)], "intent_first"),
        ("unknown without an intent", vec![unknown("a")], "intent_first"),
        ("an effect is announced twice", rest(4, intent("a", Some("a"))), "effect_once"),
        (
            "released before it is recorded",
            {
                let mut steps = good();
                steps.swap(1, 3);
                steps
            },
            "approved_first",
        ),
        ("not released", rest(2, intent("a", Some("a"))), "released_first"),
        ("denied, and run", rest(1, decided("a", "ada", false)), "approved_first"),
        (
            "a held tool runs unasked",
            vec![
                match intent("a", None) {
                    Step::Intent {
                        call, agent, arguments, fingerprint, approval, grant, ..
                    } => {
                        let tool = "held".to_owned();
                        Step::Intent { call, agent, tool, arguments, fingerprint, approval, grant }
                    }
                    other => other,
                },
                ended("a", Ending::Completed),
            ],
            "approved_first",
        ),
        (
            "an approval is used for two calls",
            [good(), vec![intent("b", Some("a")), ended("b", Ending::Completed)]].concat(),
            "approval_used_once",
        ),
        ("another call runs", other_fingerprint, "same_call"),
        ("another call is decided", rest(1, other_call), "same_call"),
        ("somebody unknown decides", rest(1, decided("a", "eve", true)), "decided_by_approver"),
        ("nobody decides", rest(1, nobody), "decided_by_approver"),
        ("who asked decides", rest(1, decided("a", "bot", true)), "decided_by_another"),
        ("the deadline was first", rest(1, late), "decided_in_time"),
        (
            "a second decision",
            [good(), vec![decided("a", "grace", false)]].concat(),
            "decided_once",
        ),
        (
            "closed twice",
            good_until(3, vec![closed("a", true), intent("a", Some("a"))]),
            "closed_once",
        ),
        ("closed unasked", vec![closed("a", false)], "asked_first"),
        ("decided unasked", vec![decided("a", "ada", true)], "asked_first"),
        ("denied unasked", vec![Step::Denied { request: "hold.a".into() }], "asked_first"),
        ("run by an unasked approval", vec![intent("a", Some("a"))], "asked_first"),
        ("asked twice", good_until(1, vec![requested("a"), closed("a", false)]), "asked_once"),
    ] {
        let found = found(steps, &Told::default());
        assert!(found.contains(&rule), "{why}: {rule} is not among {found:?}");
    }
}

#[test]
fn what_clients_were_told_must_be_in_the_journal() {
    let with = |change: fn(&mut Told)| {
        let mut told = told();
        change(&mut told);
        told
    };
    for (why, told, rule) in [
        (
            "a hold that was never recorded",
            with(|told| told.holds = BTreeSet::from(["hold.b".to_owned()])),
            "told_hold",
        ),
        (
            "a decision that is lost",
            with(|told| told.decisions[0].request = "hold.b".to_owned()),
            "told_decision",
        ),
        ("the other decision", with(|told| told.decisions[0].approved = false), "told_decision"),
        (
            "another's decision",
            with(|told| told.decisions[0].by = "grace".to_owned()),
            "told_decision",
        ),
        (
            "a result that is lost",
            with(|told| told.results[0].call = "call.b".to_owned()),
            "told_result",
        ),
        ("another result", with(|told| told.results[0].how = Ending::Refused), "told_result"),
        (
            "another agent's result",
            with(|told| told.results[0].agent = "bob".to_owned()),
            "told_result",
        ),
        (
            "it ran twice",
            with(|told| told.traces = BTreeMap::from([("a".to_owned(), 2)])),
            "effect_once",
        ),
        (
            "it ran unannounced",
            with(|told| told.traces.extend([("b".to_owned(), 1)])),
            "effect_once",
        ),
        ("it did not run", with(|told| told.traces.clear()), "effect_happened"),
    ] {
        assert_eq!(found(good(), &told), [rule], "{why}");
    }
}

#[test]
fn what_has_not_ended_is_listed_to_be_sent_again() {
    let steps: Vec<_> = (1..).zip(good_until(3, vec![])).collect();
    let verdict = judge(&steps, &Rules::default(), &Told::default());
    let (call, agent) = ("call.a".to_owned(), "bot".to_owned());
    assert_eq!(verdict.open, [Open { call, agent, arguments: "a".to_owned() }]);
}

#[test]
fn records_are_read_as_the_gateway_writes_them() {
    let read = |text| read(&serde_json::from_str(text).unwrap());
    let intent = include_str!("../../../../fixtures/records/v1/journal-tool-intent.json");
    assert!(matches!(read(intent), Some(Step::Intent { .. })));
    let asking =
        include_str!("../../../../fixtures/records/v1/journal-approval-dispatch-intent.json");
    assert_eq!(read(asking), None);
}
