//! Rules for approvals, with a real gateway and without one.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use crate::common::{Gateway, World, finish, repository, wait_for};

const EXAMPLE: &str = "examples/approvals/countersign.toml";

/// A command on the example, from the repository's root.
fn example(world: &World, args: &[&str]) -> (Option<i32>, String, String) {
    let output = world
        .command(&[&["--config", EXAMPLE], args].concat())
        .current_dir(repository())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The head of an answer over REST, in lower case, and its JSON.
fn get(gateway: &Gateway, path: &str, token: &str) -> (String, Value) {
    let host = gateway.mcp().trim_start_matches("http://").trim_end_matches("/mcp");
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}")))
}

#[test]
fn the_example_is_good_and_explains_itself() {
    let world = World::new();
    let (code, out, err) = example(&world, &["check-config"]);
    assert_eq!((code, out.as_str()), (Some(0), format!("{EXAMPLE} is good\n").as_str()), "{err}");
    let explain = |tool: &str, args: Value| {
        let (code, out, err) =
            example(&world, &["approvals", "explain", tool, "--args", &args.to_string(), "--json"]);
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let moved = explain("move_file", json!({"from": "a", "to": "b"}));
    assert_eq!(moved["rule"], "policy.approval.rule.dangerous");
    assert_eq!(
        moved["takes"],
        json!([{"group": "ops", "count": 2, "members": ["ada", "bob"]}]),
        "carol owns the agent"
    );
    assert_eq!((&moved["timeout_seconds"], &moved["excluded"]), (&json!(900), &json!(["carol"])));
    assert_eq!(moved["escalation"][0]["after_seconds"], 300.0);
    let trashed = explain("move_file", json!({"from": "a", "to": "trash"}));
    assert_eq!(trashed["rule"], "policy.approval.rule.tidying");
    let matching = trashed["matching"].as_array().unwrap().iter();
    let matching: Vec<_> = matching.map(|rule| (&rule["name"], &rule["counts"])).collect();
    assert_eq!(matching, [(&json!("tidying"), &json!(true)), (&json!("dangerous"), &json!(false))]);
    let plain = explain("git_commit", json!({"message": "x"}));
    assert_eq!(plain["rule"], "policy.approval.manifest");
    assert_eq!(plain["takes"][0]["members"], json!(["ada", "bob", "carol", "dan"]));
    assert_eq!(explain("list_files", json!({}))["held"], false);

    let (code, out, _) =
        example(&world, &["approvals", "explain", "move_file", "--args", r#"{"from": "a"}"#]);
    assert_eq!(code, Some(1));
    assert!(out.contains("to: is required"), "{out}");
    let (code, _, err) = example(&world, &["approvals", "explain", "mov_file"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("did you mean `move_file`?"), "{err}");
    let commit = json!({"message": "x", "all": true}).to_string();
    let (code, out, _) =
        example(&world, &["approvals", "explain", "git_commit", "--args", &commit]);
    assert_eq!(code, Some(0));
    for part in [
        "git_commit by builder waits for a person",
        "Look at what else is in the folder (rule `commit-all`); it takes 1 of `ops`",
        "1 of ops: ada, bob, carol",
        "carol may answer for bob from 2030-01-01T00:00:00Z until 2030-01-15T18:00:00Z",
        "600 s, then it is denied",
        "`commit-all`, which names arguments, tools: counts, as the most specific",
    ] {
        assert!(out.contains(part), "{part} is missing from\n{out}");
    }
    assert!(!world.state().exists(), "explaining makes nothing");
}

#[test]
fn two_people_approve_over_the_command_line_and_a_restart() {
    let world = World::new();
    let tools = world.tools.display().to_string();
    let principal = |id: &str, role: &str, more: &str| {
        let digest = countersign_core::digest::Digest::of(format!("{id}-token"));
        format!(
            "[[principals]]\nid = \"{id}\"\nroles = [\"{role}\"]\n{more}\ntoken_sha256 = [\"{digest}\"]\n"
        )
    };
    let ops = "groups = [\"ops\"]";
    world.configure(&[
        format!("[tools]\ndir = {tools:?}\n"),
        "[[approvals.rules]]\nname = \"two\"\ntool = \"create_directory\"\nexclude_owner = true\n\
         factors = [{ group = \"ops\", count = 2 }]\n".to_owned(),
        "[[delegations]]\nfrom = \"dan\"\nto = \"bob\"\nuntil = 2999-01-01T00:00:00Z\n".to_owned(),
        principal("ada", "approver", ops),
        principal("bob", "approver", ops),
        principal("dan", "approver", ops),
        principal("owner", "approver", ops),
        principal("eve", "approver", ""),
        principal("agent", "agent", "owner = \"owner\""),
    ].concat());
    let gateway = world.start();
    let ask = |who: &str, args: &[&str]| {
        let token = format!("{who}-token");
        let output = world.run(&[&["approvals"], args, &["--token", &token]].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout) + &text(output.stderr))
    };
    let list = |who: &str| {
        let (_, text) = ask(who, &["list", "--json"]);
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let call = |args: Value| {
        let mut command = world.command(&[
            "call",
            "create_directory",
            "--json",
            "--args",
            &args.to_string(),
            "--token",
            "agent-token",
        ]);
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let first = call(json!({"path": "made"}));
    let id = wait_for("a hold", || list("ada").pointer("/0/id")?.as_str().map(str::to_owned));
    assert_eq!(list("eve"), json!([]), "it takes no approval of hers");
    // In pages, and a denial by somebody whose approval nobody asks for.
    let other = call(json!({"path": "other"}));
    wait_for("a second hold", || (list("ada").as_array()?.len() == 2).then_some(()));
    let (head, page) = get(&gateway, "/api/v1/approvals?limit=1", "bob-token");
    assert_eq!(page.as_array().unwrap().len(), 1);
    let next = head.split_once("link: <").unwrap().1.split_once(">; rel=\"next\"").unwrap().0;
    let (head, page) = get(&gateway, next, "bob-token");
    let second = page[0]["id"].as_str().unwrap();
    assert!(second != id && !head.contains("link: "), "{head}");
    let (code, text) = ask("eve", &["deny", second, "--reason", "no"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(finish(other)["envelope"]["results"]["denied"]["message"], "denied by eve: no");
    let (code, text) = ask("ada", &["claim", &id]);
    assert!(code == Some(0) && text.contains("ada is looking at it, "), "{text}");
    let (code, text) = ask("bob", &["claim", &id]);
    assert!(code == Some(1) && text.contains("`ada` is looking at it already (409)"), "{text}");
    let (code, text) = ask("ada", &["approve", &id, "--reason", "fine"]);
    assert_eq!(code, Some(0), "{text}");
    for part in
        ["counted, not enough yet: mkdir", "takes 2 of ops", "never owner", "approved by ada: fine"]
    {
        assert!(text.contains(part), "{part} is missing from\n{text}");
    }
    for (who, more, expected) in [
        ("ada", &[][..], (Some(1), "`ada` has approved this call already (409)")),
        ("owner", &[], (Some(2), "the policy keeps `owner` from deciding about this call (403)")),
        ("eve", &[], (Some(2), "the policy asks for no approval of eve's groups now (403)")),
        (
            "ada",
            &["--on-behalf-of", "dan"],
            (Some(2), "no delegation lets `ada` answer for `dan` (403)"),
        ),
    ] {
        let (code, text) = ask(who, &[&["approve", &id], more].concat());
        assert_eq!(code, expected.0, "{who}: {text}");
        assert!(text.contains(expected.1), "{who}: {text}");
    }
    gateway.stop();
    first.wait_with_output().unwrap();
    let gateway = world.start();
    let second = call(json!({"path": "made"}));
    let (code, text) = ask("bob", &["approve", &id, "--on-behalf-of", "dan"]);
    assert!(code == Some(0) && text.starts_with("approved mkdir"), "{text}");
    assert_eq!(finish(second)["envelope"]["status"], "success");
    let story = world.text(&["journal", "tail"]);
    assert!(story.contains("Approved, more are needed by ada  “fine”"), "{story}");
    drop(gateway);
    let (whole, report) = world.verify();
    assert!(whole, "{report}");
}
