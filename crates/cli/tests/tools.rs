//! What tools may ask for, with a real gateway.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod common;

use std::os::unix::fs::PermissionsExt as _;

use common::World;
use serde_json::{Value, json};

/// A tool that runs this script.
fn tool(name: &str, script: &str, more: &str) -> (String, String) {
    let text = format!(
        "[tool]\nname = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"D.\"\nbinary = \"sh\"\n\
         allow_interpreter = true\nrisk_tier = \"info\"\n{more}\n[command]\n\
         exec = [\"sh\", \"-c\", '''{script}''']\n"
    );
    (format!("{name}.clad.toml"), text)
}

fn output(format: &str, schema: &str) -> String {
    format!("\n[output]\nformat = \"{format}\"\n\n[output.schema]\ntype = \"object\"\n{schema}\n")
}

fn world(tools: &[(String, String)]) -> World {
    let tools: Vec<_> = tools.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    World::with_tools(&tools)
}

fn call(world: &World, tool: &str) -> Value {
    world.json(&["call", tool])["envelope"].clone()
}

#[test]
fn output_is_read_as_its_format_and_held_against_its_schema() {
    let numbers = "[output.schema.properties.value.items]\nrequired = [\"n\"]";
    let with = |name: &str, script: &str, format: &str, schema: &str| {
        let (file, text) = tool(name, script, "");
        (file, text + &output(format, schema))
    };
    let world = world(&[
        with("csv", r#"printf 'n,t\n1,"a, b"\n'"#, "csv", numbers),
        with("lines", r#"printf '{{"n":1}}\n{{"n":2}}\n'"#, "jsonl", numbers),
        with("unfit", r#"printf '{{"n":1}}\n{{"m":2}}\n'"#, "jsonl", numbers),
        with("broken", "echo '{{'; echo why >&2", "json", ""),
        with("failed", "echo '{{'; exit 3", "json", ""),
        with("tree", "printf '<a b=\"1\">x</a>'", "xml", ""),
        with("entity", r#"printf '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'"#, "xml", ""),
        with("long", r#"head -c 2000000 /dev/zero | tr '\0' 1"#, "json", ""),
    ]);
    let gateway = world.start();
    assert_eq!(gateway.banner["manifest_problems"], 0);
    for (tool, status, results) in [
        ("csv", "success", json!({"value": [{"n": "1", "t": "a, b"}]})),
        ("lines", "success", json!({"value": [{"n": 1}, {"n": 2}]})),
        ("tree", "success", json!({"name": "a", "attributes": {"b": "1"}, "children": ["x"]})),
    ] {
        let envelope = call(&world, tool);
        assert_eq!((&envelope["status"], &envelope["results"]), (&json!(status), &results));
    }
    for (tool, error) in [
        ("unfit", "the results do not fit the schema at `/value/1`"),
        ("broken", "output is not JSON: EOF while parsing an object at line 2 column 0"),
        ("entity", "DTD"),
        ("long", "output of 2000000 bytes is too long to be read as json"),
    ] {
        let envelope = call(&world, tool);
        assert_eq!(envelope["status"], "error", "{envelope}");
        let said = envelope["results"]["error"].as_str().unwrap();
        assert!(said.contains(error), "{said}");
        // Complete all the same: what it wrote, its hash and how it ended.
        assert!(envelope["results"]["text"].is_string() && envelope["exit_code"] == 0);
        assert!(envelope["output_hash"].as_str().unwrap().starts_with("sha256:"));
    }
    assert_eq!(call(&world, "broken")["stderr"], "why\n");
    let failed = call(&world, "failed");
    assert_eq!((&failed["status"], &failed["exit_code"]), (&json!("error"), &json!(3)));
    assert_eq!(failed["results"], json!({"text": "{\n"}));
}

#[test]
fn an_executor_tool_is_served() {
    let text = "[tool]\nname = \"own\"\nversion = \"1.0.0\"\ndescription = \"D.\"\n\
         binary = \"own\"\nrisk_tier = \"info\"\n\n[args.word]\ntype = \"literal_text\"\n\n\
         [command]\nexecutor = \"own\"\n";
    let world = world(&[("own.clad.toml".to_owned(), text.to_owned() + &output("text", ""))]);
    let bin = world.dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let file = bin.join("own");
    std::fs::write(&file, "#!/bin/sh\nprintf '%s|%s' \"$#\" \"$TOOLCLAD_ARG_WORD\"\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    world.configure(&format!("[tools]\npath = [\"{}\", \"/usr/bin\", \"/bin\"]\n", bin.display()));
    let _gateway = world.start();
    let word = "$(id)`id`'\";\nx";
    let answer = world.json(&["call", "own", "--args", &json!({"word": word}).to_string()]);
    let envelope = &answer["envelope"];
    assert_eq!(envelope["results"]["text"], format!("0|{word}"), "{answer}");
    assert!(envelope["command"].as_str().unwrap().contains("TOOLCLAD_ARG_WORD="));
}

#[test]
fn evidence_is_a_file_of_its_own_in_the_state_folder_and_its_hash_is_recorded() {
    let evidence = "[tool.evidence]\noutput_dir = \"{evidence_dir}/{scan_id}\"\n";
    let outside = evidence.replace("{evidence_dir}", "/tmp");
    let mut kept = tool("kept", "echo kept", evidence);
    kept.1 += &output("text", "");
    let mut out = tool("outside", "echo out", &outside);
    out.1 += &output("text", "");
    let world = world(&[kept, out]);
    let gateway = world.start();
    // One that leads elsewhere is not served.
    assert_eq!(gateway.banner["manifest_problems"], 1);
    assert_eq!(call(&world, "outside")["results"]["denied"]["code"], "unknown_tool");
    let envelope = call(&world, "kept");
    let path = envelope["output_file"].as_str().unwrap();
    let call_id = envelope["scan_id"].as_str().unwrap();
    assert!(path.starts_with(&format!("evidence/{call_id}/{call_id}-")), "{path}");
    let file = world.state().join(path);
    assert_eq!(std::fs::read(&file).unwrap(), b"kept\n");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_ne!(call(&world, "kept")["output_file"], envelope["output_file"]);
    let hash = envelope["output_hash"].as_str().unwrap();
    let journal = world.text(&["journal", "tail", "-n", "1000", "--json"]);
    let recorded = journal.lines().any(|line| line.contains(hash) && line.contains(path));
    assert!(recorded, "{journal}");
}

#[test]
fn a_tool_with_a_filesystem_table_is_confined_to_it_or_does_not_run() {
    let (file, text) = tool("reads", "cat notes.md; cat README.md", "");
    let confined = "\n[filesystem]\nread = [\"notes.md\"]\n";
    let world = world(&[(file, text + &output("text", "") + confined)]);
    world.configure("[tools]\ndir = \"tools\"\nroot = \"root\"\n");
    std::fs::write(world.root().join("README.md"), "not yours\n").unwrap();
    let _gateway = world.start();
    let envelope = call(&world, "reads");
    let doctor = world.run(&["doctor"]);
    let doctor = String::from_utf8(doctor.stdout).unwrap();
    let line = doctor.lines().find(|line| line.contains("confinement")).unwrap();
    if line.starts_with("ok") {
        assert_eq!(envelope["results"]["text"], "hello\n", "{envelope}");
        assert_eq!(envelope["exit_code"], 1);
        assert!(envelope["stderr"].as_str().unwrap().contains("Permission denied"));
        assert!(line.contains("2 tools are confined"), "{line}");
    } else {
        let error = envelope["results"]["error"].as_str().unwrap();
        assert!(error.contains("not started: this kernel cannot confine"), "{error}");
        assert!(line.contains("do not run: file_checksum, reads"), "{line}");
    }
}
