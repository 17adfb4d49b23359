//! What a gateway recorded, verdicts of critics among it, before two verifiers that share no code:
//! whole as it stands, and found broken by both, in the same way, however it was changed.

use std::collections::BTreeSet;
use std::ops::Range;

use countersign_audit::key::{LogKey, PublicKey, Signer as _};
use serde_json::{Value, json};

use super::{CLIENTS, Client, python_verifier};
use crate::common::{Gateway, World, finish, principal, wait_for};

/// A gateway that has stopped: its log, its chain of verdicts, and the keys of both.
struct Kept {
    world: World,
    bundle: String,
    /// With the anchor beside the entries.
    chain: String,
    log_key: String,
    critic_key: String,
}

fn post(gateway: &Gateway, who: &str, path: &str, body: &Value) -> Value {
    let request = format!("POST /api/v1/{path}");
    let answer = gateway.send(&request, Some(&format!("{who}-token")), Some(body));
    assert!(answer.status < 300, "{who} {path}: {}", answer.text());
    answer.json()
}

fn verdict(about: &str, verdict: &str, score: f64) -> Value {
    json!({
        "director_output": format!("the output of {about}"),
        "critic_assessment": format!("of {about} a critic thinks \"this\" \u{1f914}"),
        "verdict": verdict, "score": score, "iteration": 2,
        "dimension_scores": { "clarity": 1, "Ünïcode \"quoted\"": 1e-9 },
    })
}

fn hold(gateway: &Gateway) -> String {
    wait_for("a hold", || {
        let holds = gateway.send("GET /api/v1/approvals", Some("approver-token"), None).json();
        Some(holds.as_array()?.first()?["id"].as_str()?.to_owned())
    })
}

/// Calls allowed, approved, edited and denied, and verdicts about them, over restarts and changes
/// of both keys.
fn lived() -> Kept {
    let world = World::new();
    world.configure(&["agent", "approver", "critic"].map(|role| principal(role, role)).concat());
    let gateway = world.start();
    let call = json!({ "tool": "git_log", "arguments": { "limit": 5 } });
    let allowed = post(&gateway, "agent", "calls", &call);
    let mut first = verdict("a call", "approved", 0.300_000_000_000_000_04);
    first["call_id"] = allowed["call_id"].clone();
    assert_eq!(post(&gateway, "critic", "verdicts", &first)["entry"]["index"], 0);
    let log_key = std::fs::read_to_string(world.state().join("log.pub")).unwrap();
    let critic_key = std::fs::read_to_string(world.state().join("critic.pub")).unwrap();
    for (client, what) in CLIENTS.into_iter().zip(["approve", "deny"]) {
        let args = json!({ "path": what }).to_string();
        let held =
            client.over_http_as(&gateway, "agent-token", &["call", "create_directory", &args]);
        let path = format!("approvals/{}/{what}", hold(&gateway));
        post(&gateway, "approver", &path, &json!({ "reason": "seen" }));
        assert_eq!(finish(held)["isError"] == true, what == "deny");
        // Over MCP, by a client nobody here wrote.
        let verdict = verdict(what, "needs_revision", 0.6).to_string();
        let args = ["call", "countersign_record_verdict", &verdict];
        let judged = finish(client.over_http_as(&gateway, "critic-token", &args));
        assert_ne!(judged["isError"], true, "{judged}");
    }
    let args = json!({ "path": "asked" }).to_string();
    let held =
        Client::Python.over_http_as(&gateway, "agent-token", &["call", "create_directory", &args]);
    let path = format!("approvals/{}", hold(&gateway));
    let mut edit = json!({ "arguments": { "path": "edited" } });
    edit["fingerprint"] =
        post(&gateway, "approver", &format!("{path}/edit"), &edit)["fingerprint"].clone();
    post(&gateway, "approver", &format!("{path}/approve"), &edit);
    assert_ne!(finish(held)["isError"], true);
    gateway.kill();

    let gateway = world.start();
    let entry = post(&gateway, "critic", "verdicts", &verdict("a restart", "rejected", 0.0));
    assert_eq!(entry["entry"]["index"], 3);
    gateway.stop();
    world.text(&["audit", "critic", "rotate"]);
    world.text(&["audit", "key", "rotate"]);
    let gateway = world.start();
    let entry = post(&gateway, "critic", "verdicts", &verdict("other keys", "approved", 1.0));
    assert_eq!(entry["entry"]["index"], 5);
    gateway.stop();

    world.text(&["audit", "export", "--bundle", "log.bundle"]);
    world.text(&["audit", "critic", "export", "--out", "chain.json", "--anchor", "anchor.json"]);
    let read = |name: &str| std::fs::read_to_string(world.dir.path().join(name)).unwrap();
    let (bundle, chain, anchor) = (read("log.bundle"), read("chain.json"), read("anchor.json"));
    let chain = chain.trim_end().strip_suffix('}').unwrap();
    let chain = format!("{chain},\"anchor\":{}}}", anchor.trim_end());
    Kept { world, bundle, chain, log_key, critic_key }
}

/// The two things that are verified, and how each verifier is told to.
#[derive(Clone, Copy, Debug)]
enum What {
    Log,
    Chain,
}

const WORDS: [&str; 3] = ["whole", "broken", "unusable"];

impl Kept {
    fn key(&self, what: What) -> &str {
        match what {
            What::Log => &self.log_key,
            What::Chain => &self.critic_key,
        }
    }

    /// What `countersign audit` says: a word and, of what is broken, the first rule.
    fn ours(&self, what: What, text: &[u8], key: &str) -> (&'static str, Option<String>) {
        std::fs::write(self.world.dir.path().join("changed"), text).unwrap();
        let command: &[_] = match what {
            What::Log => &["audit", "verify", "changed", "--json", "--key"],
            What::Chain => &["audit", "critic", "verify", "changed", "--json", "--key"],
        };
        let output = self.world.run(&[command, &[key.trim()]].concat());
        let said = String::from_utf8(output.stdout).unwrap();
        let code = usize::try_from(output.status.code().unwrap()).unwrap();
        let report: Value = serde_json::from_str(&said).unwrap_or_default();
        let rule = (code == 1).then(|| report["findings"][0]["rule"].as_str().unwrap().to_owned());
        (WORDS[code], rule)
    }

    /// What the other verifier says of what [`ours`](Self::ours) has just seen.
    fn theirs(&self, what: What, key: &str) -> (&'static str, Option<String>) {
        let file = self.world.dir.path().join("changed");
        let command = match what {
            What::Log => "log",
            What::Chain => "critic",
        };
        let arguments = [command, file.to_str().unwrap(), "--key", key.trim()];
        let (code, said) = python_verifier(&arguments);
        let code = usize::try_from(code.unwrap()).unwrap();
        let rule = (code == 1).then(|| match said.trim().strip_prefix("broken: ") {
            Some(rule) => rule.to_owned(),
            None => panic!("{said}"),
        });
        (WORDS[code], rule)
    }

    /// What both say, which has to be the same.
    fn both(&self, name: &str, what: What, text: &[u8], key: &str) -> &'static str {
        let (ours, theirs) = (self.ours(what, text, key), self.theirs(what, key));
        assert_eq!(ours, theirs, "{what:?}: {name}");
        ours.0
    }
}

/// A change to the lines of a bundle; another gateway's are there to take from.
type Damage = (&'static str, fn(&mut Vec<String>, &[String]));

/// Where the `n`th line with this in it is, from 0.
fn nth(lines: &[String], text: &str, n: usize) -> usize {
    let mut found = (0..lines.len()).filter(|at| lines[*at].contains(text));
    found.nth(n).unwrap_or_else(|| panic!("no line {n} with {text}"))
}

/// Changes what stands in the first line that has it.
fn swap_text(lines: &mut [String], from: &str, to: &str) {
    let at = nth(lines, from, 0);
    lines[at] = lines[at].replacen(from, to, 1);
}

const VERDICT: &str = "\"critic_verdict\"";
const NOTE: &str = "{\"bundle_checkpoint\"";

#[rustfmt::skip]
const DAMAGES: &[Damage] = &[
    ("the first record dropped", |l, _| drop(l.remove(1))),
    ("a record dropped", |l, _| drop(l.remove(9))),
    ("the last record dropped", |l, _| { let at = l.len() - 3; l.remove(at); }),
    ("a verdict dropped", |l, _| { let at = nth(l, VERDICT, 1); l.remove(at); }),
    ("a verdict and the count of records", |l, _| {
        let at = nth(l, VERDICT, 1);
        l.remove(at);
        let end: Value = serde_json::from_str(l.last().unwrap()).unwrap();
        let records = end["bundle_end"]["records"].as_u64().unwrap();
        swap_text(l, &format!("\"records\":{records}"), &format!("\"records\":{}", records - 1));
    }),
    ("a record repeated", |l, _| l.insert(9, l[9].clone())),
    ("a verdict repeated", |l, _| { let at = nth(l, VERDICT, 0); l.insert(at, l[at].clone()); }),
    ("two records swapped", |l, _| l.swap(1, 2)),
    ("two verdicts swapped", |l, _| { let (a, b) = (nth(l, VERDICT, 0), nth(l, VERDICT, 1)); l.swap(a, b); }),
    ("a record moved to the end", |l, _| { let at = l.len() - 3; let moved = l.remove(3); l.insert(at, moved); }),
    ("a record put in", |l, _| l.insert(5, "{\"journal_seq\":5}".to_owned())),
    ("an empty line put in", |l, _| l.insert(5, String::new())),
    ("a verdict of another gateway in the place of one", |l, o| {
        let (at, other) = (nth(l, VERDICT, 0), nth(o, VERDICT, 0));
        l[at].clone_from(&o[other]);
    }),
    ("a record of another gateway put in", |l, o| l.insert(7, o[7].clone())),
    ("the records of another gateway", |l, o| {
        let header = l.remove(0);
        *l = o.to_vec();
        l[0] = header;
    }),
    ("the tail of another gateway", |l, o| { l.truncate(20); l.extend_from_slice(&o[20..]); }),
    ("a checkpoint of another gateway", |l, o| {
        let (at, other) = (nth(l, NOTE, 0), nth(o, NOTE, 0));
        l[at].clone_from(&o[other]);
    }),
    ("a checkpoint dropped", |l, _| { let at = nth(l, NOTE, 1); l.remove(at); }),
    ("all checkpoints dropped", |l, _| l.retain(|line| !line.starts_with(NOTE))),
    ("a checkpoint repeated", |l, _| { let at = nth(l, NOTE, 1); l.insert(at, l[at].clone()); }),
    ("a checkpoint and the record behind it swapped", |l, _| { let at = nth(l, NOTE, 0); l.swap(at, at + 1); }),
    ("two checkpoints swapped", |l, _| { let (a, b) = (nth(l, NOTE, 0), nth(l, NOTE, 1)); l.swap(a, b); }),
    ("the first checkpoint in the place of the last", |l, _| {
        let (at, first) = (l.len() - 2, nth(l, NOTE, 0));
        l[at] = l[first].clone();
    }),
    ("the size of a checkpoint", |l, _| {
        let at = nth(l, NOTE, 1);
        let size = l[at].split("\\n").nth(1).unwrap().to_owned();
        l[at] = l[at].replacen(&format!("\\n{size}\\n"), &format!("\\n{size}0\\n"), 1);
    }),
    ("a zero before the size of a checkpoint", |l, _| {
        let at = nth(l, NOTE, 1);
        l[at] = l[at].replacen("\\n", "\\n0", 1);
    }),
    ("a carriage return in a checkpoint", |l, _| {
        let at = nth(l, NOTE, 1);
        l[at] = l[at].replacen("\\n", "\\r\\n", 1);
    }),
    ("a checkpoint without its signature", |l, _| {
        let at = nth(l, NOTE, 1);
        let text = l[at].split("\u{2014}").next().unwrap().to_owned();
        l[at] = format!("{text}\"}}");
    }),
    ("a checkpoint signed twice", |l, _| {
        let at = nth(l, NOTE, 1);
        let (text, line) = l[at].split_once("\u{2014}").unwrap();
        let line = line.trim_end_matches("\"}");
        l[at] = format!("{text}\u{2014}{line}\u{2014}{line}\"}}");
    }),
    ("a checkpoint that is a list", |l, _| {
        let at = nth(l, NOTE, 1);
        l[at] = l[at].replacen(":", ":[", 1).replacen("\"}", "\"]}", 1);
    }),
    ("another field beside a checkpoint", |l, _| {
        let at = nth(l, NOTE, 1);
        l[at] = format!("{},\"x\":1}}", l[at].strip_suffix('}').unwrap());
    }),
    ("the end dropped", |l, _| drop(l.pop())),
    ("the end twice", |l, _| l.push(l.last().unwrap().clone())),
    ("the end before the last checkpoint", |l, _| { let at = l.len() - 1; l.swap(at, at - 1); }),
    ("an end that counts more records", |l, _| { let at = l.len() - 1; l[at] = l[at].replacen("\"records\":", "\"records\":1", 1); }),
    ("an end that counts more checkpoints", |l, _| { let at = l.len() - 1; l[at] = l[at].replacen("\"checkpoints\":", "\"checkpoints\":1", 1); }),
    ("an end that counts in fractions", |l, _| { let at = l.len() - 1; l[at] = l[at].replacen(",\"checkpoints\"", ".0,\"checkpoints\"", 1); }),
    ("an end that says more", |l, _| { let at = l.len() - 1; l[at] = l[at].replacen("{\"records\"", "{\"x\":1,\"records\"", 1); }),
    ("all behind a checkpoint cut off", |l, _| { let at = nth(l, NOTE, 2); l.truncate(at + 1); }),
    ("all but the header cut off", |l, _| l.truncate(1)),
    ("a line of a kind that is not known", |l, _| l.insert(4, "{\"bundle_other\":1}".to_owned())),
    ("a second header", |l, _| l.insert(4, l[0].clone())),
    ("no header", |l, _| drop(l.remove(0))),
    ("a header of a later version", |l, _| l[0] = l[0].replacen("\"version\":1", "\"version\":2", 1)),
    ("a header of a version that is a fraction", |l, _| l[0] = l[0].replacen("\"version\":1", "\"version\":1.0", 1)),
    ("a header of another log", |l, _| l[0] = l[0].replacen("\"origin\":\"", "\"origin\":\"x", 1)),
    ("a header that begins later", |l, _| l[0] = l[0].replacen("\"first\":1", "\"first\":2", 1)),
    ("a header that begins before the beginning", |l, _| l[0] = l[0].replacen("\"first\":1", "\"first\":0", 1)),
    ("a header with peaks of nothing", |l, _| {
        let peaks = format!("\"first\":1,\"peaks\":[\"{}=\"]", "A".repeat(43));
        l[0] = l[0].replacen("\"first\":1", &peaks, 1);
    }),
    ("a header without keys", |l, _| l[0] = l[0].replacen("\"keys\"", "\"x\"", 1)),
    ("a header with a field that is not known", |l, _| l[0] = l[0].replacen("\"first\":1", "\"first\":1,\"x\":1", 1)),
    ("a header with more beside it", |l, _| l[0] = format!("{},\"x\":1}}", l[0].strip_suffix('}').unwrap())),
    ("the mark that some put before UTF-8", |l, _| l[0] = format!("\u{feff}{}", l[0])),
    ("carriage returns at the ends of the lines", |l, _| l.iter_mut().for_each(|line| line.push('\r'))),
    ("a space at the end of a record", |l, _| l[9].push(' ')),
    ("a record spelled otherwise", |l, _| {
        let record: Value = serde_json::from_str(&l[9]).unwrap();
        l[9] = serde_json::to_string(&record).unwrap() + " ";
    }),
    ("a key twice in a record", |l, _| l[9] = l[9].replacen('{', "{\"x\":1,\"x\":2,", 1)),
    ("a record that is no object", |l, _| l[9] = format!("[{}]", l[9])),
    ("half a record", |l, _| { let half = l[9].len() / 2; l[9].truncate(half); }),
    ("the score of a verdict", |l, _| swap_text(l, "0.30000000000000004", "0.9")),
    ("a no of a critic that became a yes", |l, _| swap_text(l, "\"verdict\":\"rejected\"", "\"verdict\":\"approved\"")),
    ("a verdict about no call", |l, _| {
        let at = nth(l, VERDICT, 0);
        l[at] = l[at].replacen("\"tool_call_id\"", "\"x\"", 1);
    }),
    ("a no of a person that became a yes", |l, _| swap_text(l, "\"decision\":\"denied\"", "\"decision\":\"approved\"")),
    ("somebody else who decided", |l, _| swap_text(l, "\"actor_ref\":{\"kind\":\"user\",\"id\":\"approver\"", "\"actor_ref\":{\"kind\":\"user\",\"id\":\"agent\"")),
    ("an effect that names no approval", |l, _| {
        let at = nth(l, "\"intent_recorded\"", 1);
        l[at] = l[at].replace("approval_request", "approval_requesx");
    }),
];

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A change to a chain; another gateway's is there to take from.
type Twist = (&'static str, fn(&mut Value, &Value));

fn entries(chain: &mut Value) -> &mut Vec<Value> {
    chain["entries"].as_array_mut().unwrap()
}

#[rustfmt::skip]
const TWISTS: &[Twist] = &[
    ("the first entry dropped", |c, _| drop(entries(c).remove(0))),
    ("an entry dropped", |c, _| drop(entries(c).remove(2))),
    ("the last entry dropped", |c, _| drop(entries(c).pop())),
    ("all entries dropped", |c, _| entries(c).clear()),
    ("the change of keys dropped", |c, _| drop(entries(c).remove(4))),
    ("an entry repeated", |c, _| { let again = entries(c)[2].clone(); entries(c).insert(2, again); }),
    ("the last entry repeated", |c, _| { let again = entries(c)[5].clone(); entries(c).push(again); }),
    ("two entries swapped", |c, _| entries(c).swap(1, 2)),
    ("the order turned round", |c, _| entries(c).reverse()),
    ("an entry of another gateway in the place of one", |c, o| c["entries"][1] = o["entries"][1].clone()),
    ("the tail of another gateway", |c, o| for at in 3..6 { c["entries"][at] = o["entries"][at].clone(); }),
    ("the entries of another gateway", |c, o| c["entries"] = o["entries"].clone()),
    ("the anchor of another gateway", |c, o| c["anchor"] = o["anchor"].clone()),
    ("the chain of another gateway", |c, o| *c = o.clone()),
    ("the id of the chain", |c, _| c["chain_id"] = json!("another/critics")),
    ("an id that is null", |c, _| c["chain_id"] = Value::Null),
    ("an id that is a number", |c, _| c["chain_id"] = json!(1)),
    ("an anchor that is null", |c, _| c["anchor"] = Value::Null),
    ("an anchor with another field", |c, _| c["anchor"]["x"] = json!(1)),
    ("an anchor of fewer entries", |c, _| c["anchor"]["len"] = json!(5)),
    ("an anchor of more entries", |c, _| c["anchor"]["len"] = json!(7)),
    ("an anchor of less than no entries", |c, _| c["anchor"]["len"] = json!(-1)),
    ("an anchor of an earlier entry", |c, _| { let head = c["entries"][4]["chain_hash"].clone(); c["anchor"]["head"] = head; }),
    ("another format", |c, _| c["entries"][1]["format"] = json!("symbi-1")),
    ("another kind", |c, _| c["entries"][1]["kind"] = json!("opinion")),
    ("a kind that is a number", |c, _| c["entries"][1]["kind"] = json!(0)),
    ("a critic of a kind that is a number", |c, _| c["entries"][1]["critic_identity"]["type"] = json!(1)),
    ("a field more", |c, _| c["entries"][1]["x"] = json!("more")),
    ("a field less", |c, _| drop(c["entries"][1].as_object_mut().unwrap().remove("iteration"))),
    ("a score above 1", |c, _| c["entries"][1]["score"] = json!(1.5)),
    ("a score that is a text", |c, _| c["entries"][1]["score"] = json!("0.6")),
    ("a score that is null", |c, _| c["entries"][1]["score"] = Value::Null),
    ("a score of a dimension", |c, _| c["entries"][1]["dimension_scores"]["clarity"] = json!(0.5)),
    ("another critic", |c, _| c["entries"][1]["critic_identity"]["user_id"] = json!("grace")),
    ("a round beyond 2^53", |c, _| c["entries"][1]["iteration"] = json!(9_007_199_254_740_993_u64)),
    ("a round below 0", |c, _| c["entries"][1]["iteration"] = json!(-2)),
    ("a place below 0", |c, _| c["entries"][1]["index"] = json!(-1)),
    ("a place that is a fraction", |c, _| c["entries"][1]["index"] = json!(1.0)),
    ("a time an hour on", |c, _| c["entries"][1]["timestamp"] = json!("2026-11-20T23:24:01Z")),
    ("a leap second", |c, _| c["entries"][1]["timestamp"] = json!("2016-12-31T23:59:60Z")),
    ("a time that is none", |c, _| c["entries"][1]["timestamp"] = json!("2026-02-30T00:00:00Z")),
    ("a signature in upper case", |c, _| {
        let upper = c["entries"][1]["signature"].as_str().unwrap().to_uppercase();
        c["entries"][1]["signature"] = upper.into();
    }),
    ("the signature of another entry", |c, _| { let other = c["entries"][2]["signature"].clone(); c["entries"][1]["signature"] = other; }),
    ("the new key's signature of the old key", |c, _| { let old = c["entries"][4]["signature"].clone(); c["entries"][4]["new_key_signature"] = old; }),
    ("a new key that is none", |c, _| c["entries"][4]["new_key"] = json!("00".repeat(32))),
    ("the old key again in the place of the new", |c, _| { let id = c["entries"][0]["key_id"].clone(); c["entries"][5]["key_id"] = id; }),
    ("entries that are an object", |c, _| c["entries"] = json!({})),
    ("an entry that is a list", |c, _| c["entries"][1] = json!([])),
];

/// Where the values stand in a line of JSON, each with the way to it.
fn values(line: &str) -> Vec<(String, Range<usize>)> {
    let (bytes, mut found) = (line.as_bytes(), Vec::new());
    let (mut way, mut key, mut at) = (Vec::new(), String::new(), 0);
    while at < bytes.len() {
        let mut end = at + 1;
        match bytes[at] {
            b'"' => {
                while bytes[end] != b'"' {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                if bytes.get(end + 1) == Some(&b':') {
                    key = line[at + 1..end].to_owned();
                } else {
                    found.push((format!("{}/{key}", way.join("/")), at + 1..end));
                }
                end += 1;
            }
            b'{' => way.push(key.clone()),
            b'}' => drop(way.pop()),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                end += bytes[end..].iter().take_while(|b| !b",]}".contains(b)).count();
                found.push((format!("{}/{key}", way.join("/")), at..end));
            }
            _ => {}
        }
        at = end;
    }
    found
}

/// The line with one character of a value changed for another of its kind.
fn flipped(line: &str, value: &Range<usize>, part: usize) -> Option<String> {
    let bytes = line.as_bytes();
    let begin = value.start + value.len() * part / 4;
    let plain = |at: &usize| bytes[*at].is_ascii_alphanumeric() && bytes[*at - 1] != b'\\';
    let at = (begin..value.end).find(plain)?;
    let other = match bytes[at] {
        b'9' => b'0',
        b'z' => b'a',
        b'Z' => b'A',
        byte => byte + 1,
    };
    let mut changed = bytes.to_vec();
    changed[at] = other;
    String::from_utf8(changed).ok()
}

/// Holds the Python verifier against what `countersign audit` says of each.
fn agree(kept: &Kept, what: What, texts: &[(String, String)]) {
    let key = kept.key(what);
    let mut cases = String::new();
    for (name, text) in texts {
        let (verdict, rule) = kept.ours(what, text.as_bytes(), key);
        // Beside the entries, the format says how to read an empty chain, and nothing else.
        assert_eq!(verdict == "whole", name == "/format", "{name}");
        let expect = json!({ "verdict": verdict, "rule": rule });
        let case = json!({ "case": name, "input": text, "key": key.trim(), "expect": expect });
        cases += &format!("{case}\n");
    }
    let name = match what {
        What::Log => "bundles.ndjson",
        What::Chain => "critics.ndjson",
    };
    let file = kept.world.dir.path().join(name);
    std::fs::write(&file, cases).unwrap();
    let (code, said) = python_verifier(&["cases", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn two_verifiers_agree_on_a_gateways_log_with_verdicts_and_on_every_change_to_it() {
    let (kept, other) = (lived(), lived());
    let lines: Vec<_> = kept.bundle.lines().map(str::to_owned).collect();
    let others: Vec<_> = other.bundle.lines().map(str::to_owned).collect();
    let key = kept.key(What::Log);
    let both = |name, text: &[u8], key| kept.both(name, What::Log, text, key);
    assert_eq!(both("nothing", kept.bundle.as_bytes(), key), "whole");
    for (name, damage) in DAMAGES {
        let mut changed = lines.clone();
        damage(&mut changed, &others);
        assert_ne!(changed, lines, "{name} changes nothing");
        assert_ne!(both(name, joined(&changed).as_bytes(), key), "whole");
    }
    let whole = kept.bundle.as_bytes();
    for (name, text) in [
        ("an empty file", &[][..]),
        ("the last line break cut off", &whole[..whole.len() - 1]),
        ("half of the end cut off", &whole[..whole.len() - 20]),
        ("half cut off", &whole[..whole.len() / 2]),
        ("a byte that is no UTF-8", &[&whole[..5_000], b"\xff", &whole[5_001..]].concat()),
        ("the chain", kept.chain.as_bytes()),
    ] {
        assert_ne!(both(name, text, key), "whole");
    }
    let pinned = PublicKey::parse(key).unwrap();
    let forged = LogKey::from_seed(pinned.name(), &[7; 32]).unwrap().public().to_string();
    let renamed = LogKey::from_seed("another.example", &[7; 32]).unwrap().public().to_string();
    for (name, key, says) in [
        ("the key of another gateway", other.key(What::Log), None),
        ("another key of this name", &forged, Some("broken")),
        ("a key of another name", &renamed, Some("unusable")),
        ("half a key", &key[..key.len() / 2], Some("unusable")),
        ("no key", "", Some("unusable")),
        ("a critic's key", kept.key(What::Chain), Some("unusable")),
    ] {
        let said = both(name, whole, key);
        assert_ne!(said, "whole", "{name}");
        assert!(says.is_none_or(|says| says == said), "{name}: {said}");
    }
    let new = std::fs::read_to_string(kept.world.state().join("log.pub")).unwrap();
    assert_ne!(new, key);
    assert_eq!(both("the key after the change", whole, &new), "whole");

    // A character in each field, of the first record that has it.
    let (mut seen, mut texts) = (BTreeSet::new(), Vec::new());
    for (at, line) in lines.iter().enumerate() {
        let record: Value = serde_json::from_str(line).unwrap();
        let payload = &record["payload"];
        let kind = ["type", "record_type", "status"].map(|name| payload[name].to_string()).concat();
        for (way, value) in values(line) {
            let kind = if way.starts_with("/payload") { &*kind } else { "" };
            if !seen.insert(format!("{kind} {way}")) || way.starts_with("/bundle_header/keys") {
                continue;
            }
            let parts = if line.starts_with("{\"bundle_") { 0..4 } else { 2..3 };
            for changed in parts.filter_map(|part| flipped(line, &value, part)) {
                let mut all = lines.clone();
                all[at] = changed;
                texts.push((format!("line {at}, {kind} {way}"), joined(&all)));
            }
        }
    }
    assert!(texts.len() > 200, "{}", texts.len());
    agree(&kept, What::Log, &texts);
}

#[test]
fn two_verifiers_agree_on_a_gateways_chain_of_verdicts_and_on_every_change_to_it() {
    let (kept, other) = (lived(), lived());
    let key = kept.key(What::Chain);
    let both = |name, text: &str, key| kept.both(name, What::Chain, text.as_bytes(), key);
    assert_eq!(both("nothing", &kept.chain, key), "whole");
    let chain: Value = serde_json::from_str(&kept.chain).unwrap();
    let others: Value = serde_json::from_str(&other.chain).unwrap();
    assert_eq!(both("spelled otherwise", &chain.to_string(), key), "whole");
    for (name, twist) in TWISTS {
        let mut changed = chain.clone();
        twist(&mut changed, &others);
        assert_ne!(changed, chain, "{name} changes nothing");
        assert_ne!(both(name, &changed.to_string(), key), "whole");
    }
    for (name, text) in [
        ("an empty file", String::new()),
        ("half cut off", kept.chain[..kept.chain.len() / 2].to_owned()),
        ("something behind it", format!("{}x", kept.chain)),
        ("a key twice", kept.chain.replacen('{', "{\"format\":\"symbi-1\",", 1)),
        ("a number that is none", kept.chain.replacen("0.6", "NaN", 1)),
        ("a number out of range", kept.chain.replacen("0.6", "1e999", 1)),
        ("half a character", kept.chain.replacen("\"critic\"", "\"\\ud800\"", 1)),
    ] {
        assert_eq!(both(name, &text, key), "unusable");
    }
    for (name, key, says) in [
        ("the key of another gateway", other.key(What::Chain), "broken"),
        ("a log's key", kept.key(What::Log), "unusable"),
        ("a key of small order", &"00".repeat(32), "unusable"),
        ("half a key", &key[..32], "unusable"),
    ] {
        assert_eq!(both(name, &kept.chain, key), says);
    }
    let mut texts = Vec::new();
    for (way, value) in values(&kept.chain) {
        let changed = (0..4).filter_map(|part| flipped(&kept.chain, &value, part));
        texts.extend(changed.map(|text| (way.clone(), text)));
    }
    assert!(texts.len() > 200, "{}", texts.len());
    agree(&kept, What::Chain, &texts);
}
