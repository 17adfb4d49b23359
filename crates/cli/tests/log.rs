//! The log as a gateway has written it, taken out and verified elsewhere.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::Path;

use serde_json::{Value, json};

use crate::common::{World, finish};

/// A gateway has allowed, asked, been approved and been denied; then it was stopped.
fn lived() -> World {
    let world = World::new();
    let gateway = world.start();
    world.json(&["call", "git_log", "--args", r#"{"limit": 5}"#]);
    for (path, answer) in [("made", "approve"), ("not_made", "deny")] {
        let call = world.spawn_call("create_directory", &json!({ "path": path }));
        let id = world.held("create_directory")["id"].as_str().unwrap().to_owned();
        world.text(&["approvals", answer, &id]);
        finish(call);
    }
    gateway.stop();
    world
}

fn code(world: &World, args: &[&str]) -> Option<i32> {
    world.run(args).status.code()
}

fn key(world: &World) -> String {
    std::fs::read_to_string(world.state().join("log.pub")).unwrap().trim().to_owned()
}

fn sent(world: &World, arguments: &[&str]) -> Value {
    world.json(&[&["audit"], arguments].concat())
}

#[test]
fn what_a_gateway_wrote_is_whole_and_kept_the_rules_wherever_it_is_verified() {
    let world = lived();
    let key = key(&world);
    let report = sent(&world, &["verify"]);
    for part in ["ok", "integrity_ok", "meaning_ok"] {
        assert_eq!(report[part], true, "{report}");
    }
    world.text(&["audit", "export", "--bundle", "log.bundle"]);
    let bundle = sent(&world, &["verify", "log.bundle", "--key", &key]);
    for part in ["ok", "integrity_ok", "meaning_ok", "records", "checkpoints", "root"] {
        assert_eq!(bundle[part], report[part], "{part}: {bundle}");
    }
    for threads in ["1", "3"] {
        let again = sent(&world, &["verify", "log.bundle", "--threads", threads]);
        assert_eq!(again, bundle);
    }
    let half = sent(&world, &["verify", "log.bundle", "--integrity-only"]);
    assert_eq!((&half["ok"], &half["meaning_ok"]), (&true.into(), &Value::Null));
    // A bundle of the end stands on the tree over what is left out.
    world.text(&["audit", "export", "--bundle", "end.bundle", "--from", "6"]);
    let end = sent(&world, &["verify", "end.bundle"]);
    assert_eq!((&end["ok"], &end["root"]), (&true.into(), &report["root"]), "{end}");
    assert_eq!(end["meaning_ok"], Value::Null);
    // One byte.
    let path = world.dir.path().join("log.bundle");
    let bytes = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, bytes.replacen("git_log", "git_lag", 1)).unwrap();
    let broken = sent(&world, &["verify", "log.bundle"]);
    assert_eq!(broken["findings"][0]["rule"], "root_mismatch");
    assert_eq!(code(&world, &["audit", "verify", "log.bundle"]), Some(1));
    for bad in ["nowhere", "root/notes.md"] {
        assert_eq!(code(&world, &["audit", "verify", bad]), Some(2), "{bad}");
    }
    assert_eq!(code(&world, &["audit", "verify", "log.bundle", "--key", "a+b"]), Some(2));
}

#[test]
fn a_receipt_stands_alone_and_proofs_tell_of_growth() {
    let world = lived();
    let key = key(&world);
    let verify = |name: &str| code(&world, &["audit", "verify", name, "--key", &key]);
    let head = sent(&world, &["verify"])["records"].as_u64().unwrap();
    for seq in 1..=head {
        let out = format!("{seq}.json");
        world.text(&["audit", "receipt", &seq.to_string(), "--out", &out]);
        assert_eq!(verify(&out), Some(0), "{seq}");
        let proof = sent(&world, &["prove", "--record", &seq.to_string()]);
        assert_eq!(proof["seq"], seq);
    }
    let text = std::fs::read_to_string(world.dir.path().join("3.json")).unwrap();
    for (name, changed, expected) in [
        ("place.json", text.replace("\"seq\": 3", "\"seq\": 4"), 1),
        ("record.json", text.replacen("started", "stopped", 1).replacen("tool", "tuul", 1), 1),
        ("field.json", text.replacen('{', "{\"note\": 1,", 1), 2),
        ("twice.json", text.replacen('{', "{\"seq\": 3,", 1), 2),
        ("half.json", text[..text.len() / 2].to_owned(), 2),
    ] {
        assert_ne!(text, changed, "{name}");
        std::fs::write(world.dir.path().join(name), changed).unwrap();
        assert_eq!(verify(name), Some(expected), "{name}");
    }
    let call = world.json(&["journal", "show", "1"])["journal_seq"].clone();
    assert_eq!(call, 1);
    let growth = sent(&world, &["prove", "--from", "2", "--to", "5"]);
    let hash = |name: &str| {
        use base64::Engine as _;
        let bytes = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        <[u8; 32]>::try_from(bytes(growth[name].as_str().unwrap())).unwrap()
    };
    use base64::Engine as _;
    let path: Vec<[u8; 32]> = growth["consistency_proof"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hash| {
            base64::engine::general_purpose::STANDARD
                .decode(hash.as_str().unwrap())
                .unwrap()
                .try_into()
                .unwrap()
        })
        .collect();
    let (old, new) = (hash("from_root"), hash("to_root"));
    assert!(countersign_audit::tree::verify_consistency((2, &old), (5, &new), &path));
    for bad in [
        &["prove", "--from", "9", "--to", "3"][..],
        &["prove", "--record", "99999"],
        &["receipt", "no.call"],
    ] {
        assert_eq!(code(&world, &[&["audit"], bad].concat()), Some(2), "{bad:?}");
    }
}

#[test]
fn a_checkpoint_kept_elsewhere_shows_a_log_that_was_cut_or_is_another() {
    let world = lived();
    let note = sent(&world, &["checkpoint"])["checkpoint"].as_str().unwrap().to_owned();
    std::fs::write(world.dir.path().join("kept.txt"), &note).unwrap();
    assert_eq!(code(&world, &["audit", "checkpoint", "kept.txt"]), Some(0));
    assert_eq!(code(&world, &["audit", "verify", "--checkpoint", "kept.txt"]), Some(0));
    world.text(&["audit", "export", "--bundle", "before.bundle"]);
    let gateway = world.start();
    world.json(&["call", "git_log"]);
    gateway.stop();
    assert_eq!(code(&world, &["audit", "verify", "--checkpoint", "kept.txt"]), Some(0));
    let later = sent(&world, &["checkpoint"])["checkpoint"].as_str().unwrap().to_owned();
    std::fs::write(world.dir.path().join("later.txt"), later).unwrap();
    let arguments = ["verify", "before.bundle", "--checkpoint", "later.txt"];
    let cut = sent(&world, &arguments);
    assert_eq!(cut["findings"][0]["rule"], "forked", "{cut}");
    std::fs::write(world.dir.path().join("bad.txt"), note.replace('\n', "\n\n")).unwrap();
    assert_eq!(code(&world, &["audit", "checkpoint", "bad.txt"]), Some(2));
    let witness = "w.example+00000000+BAECAwQ=";
    assert_eq!(code(&world, &["audit", "checkpoint", "--witness", witness]), Some(2));
}

#[test]
fn a_log_changes_keys_and_whoever_pinned_the_old_one_can_follow() {
    let world = lived();
    let old = key(&world);
    let new = world.text(&["audit", "key", "rotate"]).trim().to_owned();
    assert_ne!(old, new);
    assert_eq!(key(&world), new);
    for pinned in [&old, &new] {
        let report = sent(&world, &["verify", "--key", pinned]);
        assert_eq!(report["ok"], true, "{report}");
    }
    assert_eq!(sent(&world, &["verify", "--key", &old])["key_now"], json!(new));
    // Both sign, until the old one is retired.
    let gateway = world.start();
    world.json(&["call", "git_log"]);
    gateway.stop();
    let signed = |key: &str| code(&world, &["audit", "checkpoint", "--key", key]);
    assert_eq!((signed(&old), signed(&new)), (Some(0), Some(0)));
    assert_eq!(code(&world, &["audit", "key", "rotate"]), Some(2));
    world.text(&["audit", "key", "retire"]);
    assert_eq!(code(&world, &["audit", "key", "retire"]), Some(2));
    let gateway = world.start();
    world.json(&["call", "git_log"]);
    gateway.stop();
    assert_eq!((signed(&old), signed(&new)), (Some(1), Some(0)));
    world.text(&["audit", "export", "--bundle", "log.bundle"]);
    for pinned in [&old, &new] {
        for file in [&[][..], &["log.bundle"]] {
            let arguments = [&["verify", "--key", pinned], file].concat();
            let report = sent(&world, &arguments);
            assert_eq!(report["ok"], true, "{report}");
        }
    }
}

#[test]
fn tiles_and_events_are_written_for_others() {
    let world = lived();
    let records = sent(&world, &["verify"])["records"].as_u64().unwrap();
    world.text(&["audit", "export", "--tiles", "site"]);
    let site = world.dir.path().join("site");
    let read = |path: &str| std::fs::read(site.join(path)).unwrap();
    assert_eq!(read(&format!("tile/0/000.p/{records}")).len() as u64, 32 * records);
    assert!(Path::exists(&site.join(format!("tile/entries/000.p/{records}"))));
    let note = String::from_utf8(read("checkpoint")).unwrap();
    assert_eq!(note.lines().nth(1).unwrap(), records.to_string());
    world.text(&["audit", "export", "--ocsf", "events.ndjson"]);
    let events = std::fs::read_to_string(world.dir.path().join("events.ndjson")).unwrap();
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["class_uid"] == 6003));
    let decided = events.iter().find(|event| event["api"]["operation"] == "approval.decide");
    assert_eq!(decided.unwrap()["actor"]["user"]["uid"], "operator");
    let enveloped = world.text(&["audit", "export", "--ocsf", "-", "--cloudevents"]);
    let first: Value = serde_json::from_str(enveloped.lines().next().unwrap()).unwrap();
    assert_eq!((&first["specversion"], enveloped.lines().count()), (&json!("1.0"), events.len()));
    assert_eq!(code(&world, &["audit", "export"]), Some(2));
}
