//! The log as a gateway serves it over HTTP, read by clients that are not ours.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use ct_merkle::{InclusionProof, RootHash};
use serde_json::json;
use sha2::Sha256;
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::{Tile, TileHashReader, TileReader};

use crate::common::{Gateway, World, principal};

const AUDITOR: Option<&str> = Some("auditor-token");
const AGENT: Option<&str> = Some("agent-token");
const OTHER: Option<&str> = Some("other-token");

fn world(more: &str) -> World {
    let world = World::new();
    let roles = [
        ("agent", "agent"),
        ("other", "agent"),
        ("approver", "approver"),
        ("auditor", "auditor"),
        ("admin", "admin"),
    ];
    let principals: String = roles.iter().map(|(id, role)| principal(id, role)).collect();
    world.configure(&format!("{more}{principals}"));
    world
}

fn key(world: &World) -> String {
    std::fs::read_to_string(world.state().join("log.pub")).unwrap().trim().to_owned()
}

/// A call that is refused and recorded; nothing is started for it.
fn call(gateway: &Gateway, token: Option<&str>, tool: &str) -> String {
    let answer = gateway.send("POST /api/v1/calls", token, Some(&json!({ "tool": tool })));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["call_id"].as_str().unwrap().to_owned()
}

fn foreign_checkpoint(note: &str, key: &str) -> Option<tlog_tiles::Checkpoint> {
    let verifier = StandardVerifier::new(key).unwrap();
    let verifiers = VerifierList::new(vec![Box::new(verifier)]);
    Note::from_bytes(note.as_bytes()).ok()?.verify(&verifiers).ok()?;
    let (body, _) = note.split_once("\n\n")?;
    tlog_tiles::Checkpoint::from_bytes(format!("{body}\n").as_bytes()).ok()
}

/// Fetches tiles for the foreign client, as that spells their paths.
struct Remote<'a>(&'a Gateway);

impl TileReader for Remote<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &Tile| {
            // The client has the height of tiles in its paths; the protocol fixes it.
            let path = tile.path().replacen("tile/8/", "tile/", 1);
            let answer = self.0.send(&format!("GET /{path}"), AUDITOR, None);
            assert_eq!(answer.status, 200, "{path}");
            answer.body
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

fn records(entries: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut records) = (entries, Vec::new());
    while let Some((length, more)) = rest.split_at_checked(2) {
        let (record, more) = more.split_at(usize::from(u16::from_be_bytes([length[0], length[1]])));
        records.push(record);
        rest = more;
    }
    records
}

#[test]
fn foreign_clients_check_the_log_over_http_while_it_grows() {
    let world = world("");
    let gateway = world.start();
    let get = |path: &str| gateway.send(&format!("GET {path}"), AUDITOR, None);
    let early = get("/checkpoint");
    assert_eq!(early.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(early.header("cache-control"), Some("no-cache"));
    let early = foreign_checkpoint(early.text(), &key(&world)).unwrap();
    for _ in 0..90 {
        call(&gateway, AGENT, "no_such_tool");
    }
    let last = call(&gateway, AGENT, "no_such_tool");
    let note = get("/checkpoint");
    let late = foreign_checkpoint(note.text(), &key(&world)).unwrap();
    let (size, root) = (late.size(), *late.hash());
    assert!(size > 256 && size > early.size(), "{size}");
    assert!(
        foreign_checkpoint(&note.text().replacen(&size.to_string(), "9", 1), &key(&world))
            .is_none()
    );

    // Their client trusts the checkpoint alone and holds every tile against it.
    let remote = Remote(&gateway);
    let reader = TileHashReader::new(size, root, &remote);
    let grown = tlog_tiles::prove_tree(size, early.size(), &reader).unwrap();
    tlog_tiles::check_tree(&grown, size, root, early.size(), *early.hash()).unwrap();
    let full = get("/tile/entries/000");
    let part = get(&format!("/tile/entries/001.p/{}", size - 256));
    for answer in [&full, &part] {
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("cache-control"), Some("private, max-age=31536000, immutable"));
    }
    let all = [records(&full.body), records(&part.body)].concat();
    assert_eq!(all.len() as u64, size);
    for index in [0, 255, 256, size - 1] {
        let record = all[usize::try_from(index).unwrap()];
        let leaf = tlog_tiles::record_hash(record);
        let proof = tlog_tiles::prove_record(size, index, &reader).unwrap();
        tlog_tiles::check_record(&proof, size, root, index, leaf).unwrap();
        let path: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
        let proof = InclusionProof::<Sha256>::from_bytes(path);
        let head = RootHash::<Sha256>::new(root.0.into(), size);
        assert!(head.verify_inclusion(&record.to_vec(), index, &proof).is_ok(), "{index}");
    }

    // A receipt over HTTP, held against a checkpoint that was fetched after it.
    let receipt = get(&format!("/api/v1/receipts/{last}"));
    assert_eq!(receipt.status, 200, "{}", receipt.text());
    std::fs::write(world.dir.path().join("receipt.json"), &receipt.body).unwrap();
    assert_eq!(world.json(&["audit", "verify", "receipt.json"])["ok"], true);
    let seq = usize::try_from(receipt.json()["seq"].as_u64().unwrap()).unwrap();
    assert_eq!(receipt.json()["record"].as_str().unwrap().as_bytes(), all[seq - 1]);

    for path in [
        "/tile/0/001",
        "/tile/0/001.p/255",
        "/tile/0/000.p/0",
        "/tile/0/000.p/256",
        "/tile/0/0",
        "/tile/9/000",
        "/tile/entries/002",
        "/tile/entries/../checkpoint",
        "/tile/8/0/000",
        "/api/v1/receipts/no.call",
    ] {
        assert_eq!(get(path).status, 404, "{path}");
    }
}

#[test]
fn records_are_for_readers_and_an_agent_gets_the_receipts_of_its_own_calls_alone() {
    let world = world("");
    let gateway = world.start();
    let call = call(&gateway, AGENT, "no_such_tool");
    let receipt = format!("/api/v1/receipts/{call}");
    let status = |path: &str, token| gateway.send(&format!("GET {path}"), token, None).status;
    for (path, nobody, agent, other, readers) in [
        ("/checkpoint", 401, 200, 200, 200),
        ("/tile/0/000.p/1", 401, 200, 200, 200),
        ("/tile/entries/000.p/1", 401, 403, 403, 200),
        ("/tile/nonsense", 401, 403, 403, 404),
        (receipt.as_str(), 401, 200, 404, 200),
        ("/api/v1/receipts/no.call", 401, 404, 404, 404),
    ] {
        let found = (status(path, None), status(path, AGENT), status(path, OTHER));
        assert_eq!(found, (nobody, agent, other), "{path}");
        for reader in ["approver-token", "auditor-token", "admin-token"] {
            assert_eq!(status(path, Some(reader)), readers, "{path} {reader}");
        }
    }
    let body = json!({ "tool": "git_log", "arguments": { "limit": 1 } });
    let answer = gateway.send("POST /api/v1/calls", AGENT, Some(&body)).json();
    let path = format!("GET /api/v1/receipts/{}", answer["call_id"].as_str().unwrap());
    let own = gateway.send(&path, AGENT, None).json();
    assert_eq!(own["record"], answer["receipt"]["record"], "the proof of the result");
    gateway.stop();
    // Refusals are on record.
    let story = world.text(&["journal", "tail", "-n", "1000"]);
    assert!(story.contains("reading the log by agent"), "{story}");
}

#[test]
fn an_open_log_gives_everybody_hashes_and_nobody_records() {
    let world = world("[server]\npublic_log = true\n");
    let gateway = world.start();
    let get = |path: &str| gateway.send(&format!("GET {path}"), None, None);
    let tile = get("/tile/0/000.p/1");
    assert_eq!((get("/checkpoint").status, tile.status, tile.body.len()), (200, 200, 32));
    assert_eq!(tile.header("cache-control"), Some("public, max-age=31536000, immutable"));
    for path in ["/tile/entries/000.p/1", "/api/v1/receipts/x"] {
        assert_eq!(get(path).status, 401, "{path}");
    }
    let entries = gateway.send("GET /tile/entries/000.p/1", AUDITOR, None);
    assert_eq!(entries.header("cache-control"), Some("private, max-age=31536000, immutable"));
}

#[test]
fn a_receipt_never_gives_an_agent_what_a_hook_keeps_from_it() {
    let world = world(
        "[[hooks]]\nid = \"keeps\"\npoint = \"after_tool_call\"\ncommand = [\"python3\", \"hook.py\"]\n\
         timeout_ms = 30000\nprivacy = \"content_capture_allowed\"\nmode = \"blocking\"\n\
         rights = [\"rewrite_tool_result\"]\non_failure = \"deny\"\n",
    );
    let program = "import json, sys\nif \"hello\" in sys.stdin.read():\n    sys.exit(3)\n\
                   print(json.dumps({\"type\": \"rewrite_tool_result\", \"payload\": {\
                   \"redacted_summary\": \"less\", \"replacement\": {\"text\": \"less\"}}}))\n";
    std::fs::write(world.dir.path().join("hook.py"), program).unwrap();
    std::fs::write(world.root().join("other.md"), "other\n").unwrap();
    let gateway = world.start();
    for (file, kept, status) in
        [("notes.md", "hello\n", "error"), ("other.md", "other\n", "success")]
    {
        let body = json!({ "tool": "read_file", "arguments": { "path": file } });
        let answer = gateway.send("POST /api/v1/calls", AGENT, Some(&body)).json();
        assert_eq!(answer["envelope"]["status"], status, "{answer}");
        let call = answer["call_id"].as_str().unwrap();
        let digest = countersign_core::digest::Digest::of(kept).to_string();
        let receipt = format!("GET /api/v1/receipts/{call}");
        let agents = gateway.send(&receipt, AGENT, None);
        assert_eq!(agents.status, 200, "{}", agents.text());
        assert!(!agents.text().contains(&digest), "{}", agents.text());
        assert!(agents.text().contains("tool_intent_recorded"), "{}", agents.text());
        std::fs::write(world.dir.path().join("receipt.json"), &agents.body).unwrap();
        assert_eq!(world.json(&["audit", "verify", "receipt.json"])["ok"], true);
        let readers = gateway.send(&receipt, AUDITOR, None).json();
        assert!(readers["seq"].as_u64() > agents.json()["seq"].as_u64(), "{readers}");
    }
}
