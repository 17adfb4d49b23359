//! Other arguments for a held call, with a real gateway: shown first, then exactly that runs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use serde_json::{Value, json};

use crate::common::{World, finish};

#[test]
fn what_was_shown_after_the_edit_runs_and_nothing_else() {
    let world = World::new();
    let gateway = world.start();
    let call = world.spawn_call("create_directory", &json!({"path": "asked"}));
    let hold = world.held("create_directory");
    let id = hold["id"].as_str().unwrap();
    let edit = |args: Value, more: &[&str]| {
        let args = args.to_string();
        let output = world.run(&[&["approvals", "edit", id, "--args", &args], more].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout) + &text(output.stderr))
    };
    let edited = json!({"path": "edited"});

    // A look at it changes nothing.
    let (code, text) = edit(edited.clone(), &[]);
    assert_eq!(code, Some(1), "{text}");
    for part in ["- path = asked", "+ path = edited", "Nothing has changed"] {
        assert!(text.contains(part), "{part} is missing from\n{text}");
    }
    let short = text.trim_end().rsplit(' ').next().unwrap();
    let still = world.held("create_directory");
    assert_eq!(
        (&still["status"], &still["fingerprint"]),
        (&json!("pending"), &hold["fingerprint"])
    );

    for (args, more, code, part) in [
        (json!({"path": "../out"}), &[][..], 2, "path"),
        (json!({"path": "edited", "more": 1}), &[], 2, "more"),
        (json!({"path": "asked"}), &[], 2, "same"),
        (json!({"path": "edited"}), &["--yes"], 2, "fingerprint"),
        (json!({"path": "other"}), &["--yes", "--fingerprint", short], 2, "fingerprint"),
    ] {
        let (found, text) = edit(args.clone(), more);
        assert_eq!(found, Some(code), "{args} {more:?}: {text}");
        assert!(text.contains(part), "{args} {more:?}: {text}");
    }

    let (code, text) = edit(edited, &["--yes", "--fingerprint", short, "--reason", "over there"]);
    assert!(code == Some(0) && text.contains("approved as edited"), "{code:?} {text}");
    let answer = finish(call);
    assert_eq!(answer["envelope"]["status"], "success", "{answer}");
    assert!(answer.to_string().contains("edited"), "the agent is told: {answer}");
    assert!(world.root().join("edited").is_dir() && !world.root().join("asked").exists());
    drop(gateway);

    let (whole, report) = world.verify();
    assert!(whole, "{report}");
    let story = world.text(&["journal", "tail"]);
    assert!(story.to_lowercase().contains("edited"), "{story}");
}
