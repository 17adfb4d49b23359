//! What `[[approvals.rules]]` and `[[delegations]]` accept and refuse, and how they say so.

use super::*;
use crate::args::Global;
use crate::{config, explain};

const PEOPLE: &str = r#"
[[principals]]
id = "ada"
roles = ["approver"]
groups = ["ops"]
[[principals]]
id = "bob"
roles = ["admin"]
groups = ["ops", "leads"]
[[principals]]
id = "watcher"
roles = ["auditor"]
groups = ["legal"]
[[principals]]
id = "builder"
roles = ["agent"]
owner = "ada"
"#;

/// Loads a configuration of this and the people, and holds it against the example tools.
fn load(text: &str) -> Result<Deciding, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tools");
    let text = format!("{text}\n{PEOPLE}\n[tools]\ndir = {tools:?}\n");
    std::fs::write(&file, text).unwrap();
    let state = Some(dir.path().join("state"));
    let loaded = config::load(&Global { config: Some(file.clone()), state, json: false });
    loaded.and_then(|loaded| explain::deciding(&loaded)).map_err(|failure| Failure {
        message: failure.message.replace(&format!("{}:", file.display()), ""),
        ..failure
    })
}

fn rule(keys: &str) -> String {
    format!("[[approvals.rules]]\nname = \"r\"\n{keys}\n")
}

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    let delegation = |keys: &str| format!("[[delegations]]\n{keys}\n");
    let until = "until = 2030-01-01T00:00:00Z";
    for (text, expected, hint) in [
        (rule("tol = \"git_log\""), "3:1: unknown field `tol`", "did you mean `tool`?"),
        (rule("risk = \"hihg\""), "3:8: unknown variant `hihg`", "did you mean `high`?"),
        (rule("factors = [{ group = \"ops\" }]"), "3:12: missing field `count`", ""),
        (
            rule("factors = [{ group = \"ops\", count = 0 }]"),
            "3:12: the factor of group `ops` asks for no approval",
            "",
        ),
        (rule("factors = []"), "3:11: factors that nobody has to meet are none", ""),
        (rule("tool = []"), "3:8: an empty list matches nothing", ""),
        (rule("reason = \"\""), "3:10: a reason is one line", ""),
        (rule("when = \"to = 5\""), "3:8: `to` needs `==` or `!=`", ""),
        (
            rule("hold = false\nfactors = [{ group = \"ops\", count = 1 }]"),
            "4:11: `factors` means nothing where `hold` is false",
            "",
        ),
        (rule("tool = \"git_lgo\""), "3:8: there is no tool `git_lgo`", "did you mean `git_log`?"),
        (
            rule("agent = \"buidler\""),
            "3:9: there is no agent `buidler`",
            "did you mean `builder`?",
        ),
        (
            rule("factors = [{ group = \"osp\", count = 1 }]"),
            "3:11: nobody who may decide is in `osp`: an empty group can never satisfy a factor",
            "did you mean `ops`?",
        ),
        (
            rule("factors = [{ group = \"legal\", count = 1 }]"),
            "3:11: nobody who may decide is in `legal`",
            "",
        ),
        (
            rule("factors = [{ group = \"ops\", count = 3 }]"),
            "3:11: 3 of `ops` are asked for, and it has 2",
            "",
        ),
        (
            rule("exclude_owner = true\nfactors = [{ group = \"ops\", count = 2 }]"),
            "4:11: 2 of `ops` are asked for, and it has 1, with the owner of `builder` excluded",
            "",
        ),
        (rule("timeout_seconds = 0"), "3:19: a call waits from 1 s to 366 days", ""),
        (
            rule(
                "factors = [{ group = \"ops\", count = 2 }]\nescalate = [\n  { after_seconds = 5, \
                 factors = [{ group = \"leads\", count = 1 }] },\n  { after_seconds = 900, \
                 factors = [{ group = \"leads\", count = 1 }] },\n]",
            ),
            "6:3: the call's time is over before this",
            "",
        ),
        (
            rule("tool = \"git_commit\"\nhold = false"),
            "4:8: the manifest of `git_commit` asks for a person, and no rule lifts that",
            "",
        ),
        (
            rule("tool = \"git_commit\"\nwhen = \"all == yes\""),
            "4:8: `all` of `git_commit` is never `yes`: must be true or false",
            "",
        ),
        (
            format!("{}{}", rule(""), rule("").replace("\"r\"", "\"s\"")),
            "5:8: never applies: `r` matches first, whatever it does",
            "",
        ),
        (
            delegation(&format!("from = \"ada\"\nto = \"bbo\"\n{until}")),
            "3:6: `bbo` is no principal who may decide",
            "did you mean `bob`?",
        ),
        (
            delegation(&format!("from = \"watcher\"\nto = \"bob\"\n{until}")),
            "2:8: `watcher` is no principal who may decide",
            "",
        ),
        (
            delegation(&format!("from = \"ada\"\nto = \"ada\"\n{until}")),
            "3:6: `ada` cannot delegate to themselves",
            "",
        ),
        (
            delegation("from = \"ada\"\nto = \"bob\"\nuntil = 2030-01-01"),
            "4:9: `2030-01-01` is no time with its offset",
            "",
        ),
        (
            delegation(&format!(
                "from = \"ada\"\nto = \"bob\"\nstart = \"2031-01-01T00:00:00Z\"\n{until}"
            )),
            "5:9: a delegation ends after it begins",
            "",
        ),
        (
            format!("{PEOPLE}groups = [\"approvers\"]\n")
                .replace("builder", "dan")
                .replace("ada", "eve")
                .replace("bob", "fay")
                .replace("watcher", "gil"),
            "`dan` cannot be put into the group `approvers`",
            "",
        ),
    ] {
        let failure = load(&text).expect_err(expected);
        assert!(failure.message.starts_with(expected), "{expected}\n{}", failure.message);
        if !hint.is_empty() {
            assert_eq!(failure.hint.as_deref(), Some(hint), "{expected}");
        }
    }
}

#[test]
fn what_is_good_is_taken() {
    let text = rule(
        "tool = [\"git_commit\", \"move_file\"]\nagent = \"builder\"\nrisk = \"medium\"\n\
         factors = [{ group = \"ops\", count = 2 }]\ntimeout_seconds = 60\nescalate = \
         [{ after_seconds = 30, factors = [{ group = \"approvers\", count = 1 }] }]",
    ) + "[[delegations]]\nfrom = \"ada\"\nto = \"bob\"\nuntil = \"2030-01-01T00:00:00+01:00\"\n";
    let Deciding { rules, delegations } = load(&text).unwrap();
    let rule = rules.iter().next().unwrap();
    let RuleAction::Hold(terms) = &rule.action else { panic!() };
    assert_eq!((rule.tools.len(), terms.factors.len(), terms.escalate.len()), (2, 1, 1));
    // 1893456000 s is the beginning of 2030 in UTC, an hour after it in +01:00.
    let end = 1_893_452_400_000;
    assert!(delegations[0].covers("bob", end - 1) && !delegations[0].covers("bob", end));
    assert!(load("").unwrap().rules.is_empty());
}
