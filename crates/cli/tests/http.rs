//! HTTP tools and secrets, with the real binary and real servers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::{World, finish, repository, wait_for};

const TOKEN: &str = "t0p\"Secret/value+1";
const KEY: &str = "another-secret-0123456789";

/// Answers every request with what `says` makes of it; the text is the whole request.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `None` keeps the connection open and says nothing.
    fn start(says: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, says) = (Arc::clone(&requests), Arc::new(says));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, seen, says) = (stream.unwrap(), seen.clone(), says.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let (mut request, mut length) = (String::new(), 0);
                    loop {
                        let start = request.len();
                        if reader.read_line(&mut request).unwrap_or(0) == 0 {
                            return;
                        }
                        let line = &request[start..];
                        if let Some(value) = line.strip_prefix("content-length: ") {
                            length = value.trim().parse().unwrap();
                        }
                        if line == "\r\n" {
                            break;
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    request.push_str(std::str::from_utf8(&body).unwrap());
                    seen.lock().unwrap().push(request.clone());
                    match says(&request) {
                        Some(answer) => drop(stream.write_all(answer.as_bytes())),
                        None => drop(reader.read_to_end(&mut Vec::new())),
                    }
                });
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer(status: &str, body: &str) -> Option<String> {
    let length = body.len();
    Some(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}"))
}

const ALLOW: &str = "[http]\nallow = [\"127.0.0.1/32\"]\n";
const SECRETS: &str =
    "[secrets]\ntoken = { file = \"token.secret\" }\nkey = { env = \"TEST_API_KEY\" }\n";

fn manifest(server: &Server, more: &str) -> String {
    format!(
        "[tool]\nname = \"create_issue\"\nversion = \"1.0.0\"\ndescription = \"Creates one.\"\n\
         {more}\n[args.title]\ntype = \"string\"\nrequired = true\n[http]\nmethod = \"POST\"\nurl = \"http://{}/issues?by={{title}}\"\n\
         body_template = '{{\"title\": \"{{title}}\", \"token\": \"{{_secret:token}}\"}}'\n\
         [http.headers]\nAuthorization = \"Bearer {{_secret:token}}\"\n\
         X-Key = \"{{_secret:key}}\"\n[output]\nformat = \"json\"\n",
        server.address
    )
}

fn world(server: &Server, more: &str) -> World {
    let mut world = World::with_tools(&[("create_issue.clad.toml", &manifest(server, more))]);
    world.configure(&format!("{ALLOW}{SECRETS}"));
    world.env.push(("TEST_API_KEY", KEY.to_owned()));
    secret_file(&world, "token.secret", TOKEN, 0o600);
    world
}

fn secret_file(world: &World, name: &str, value: &str, mode: u32) {
    let path = world.dir.path().join(name);
    std::fs::write(&path, format!("{value}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Every form in which a program could show these.
fn forms() -> Vec<String> {
    let mut forms = Vec::new();
    for value in [TOKEN, KEY] {
        let quoted = json!(value).to_string();
        forms.extend([value.to_owned(), quoted[1..quoted.len() - 1].to_owned()]);
        forms.push(STANDARD.encode(value)[..16].to_owned());
        forms.push(value.replace('"', "%22").replace('/', "%2F").replace('+', "%2B"));
    }
    forms
}

#[track_caller]
fn no_secret_in(what: &str, bytes: &[u8]) {
    for form in forms() {
        let found = bytes.windows(form.len()).any(|part| part == form.as_bytes());
        assert!(!found, "{what} has {form}");
    }
}

fn files(folder: &std::path::Path, all: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else {
            all.push(path);
        }
    }
}

/// Gives back all it was sent, in every encoding.
fn echo(request: &str) -> Option<String> {
    let token = request.split("Bearer ").nth(1).unwrap().lines().next().unwrap();
    let body = json!({
        "request": request,
        "token": token,
        "base64": STANDARD.encode(format!("user:{token}")),
        "form": token.replace('"', "%22").replace('/', "%2F").replace('+', "%2B"),
    });
    Some(format!(
        "HTTP/1.1 201 {token}\r\nlink: <http://x/?{token}>\r\nx-echo: {token}\r\n\
         connection: close\r\n\r\n{body}"
    ))
}

#[test]
fn a_secret_reaches_the_server_it_is_for_and_nothing_else() {
    let (server, proxy) = (Server::start(echo), Server::start(|_| answer("200 OK", "{}")));
    let mut world = world(&server, "human_approval = true");
    world.env.push(("COUNTERSIGN_LOG", "trace".to_owned()));
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        world.env.push((name, format!("http://{}", proxy.address)));
    }
    let gateway = world.start();
    world.env.retain(|(name, _)| !name.to_lowercase().contains("proxy"));

    let call = world.spawn_call("create_issue", &json!({"title": "a/b"}));
    let hold = world.held("create_issue");
    no_secret_in("the hold", hold.to_string().as_bytes());
    let shown = hold.to_string();
    assert!(shown.contains("{_secret:token}"), "what is sent is shown by name: {shown}");
    let id = hold["id"].as_str().unwrap();
    world.text(&["approvals", "approve", id]);
    let envelope = finish(call)["envelope"].clone();

    assert_eq!(envelope["status"], "success", "{envelope}");
    assert!(envelope["results"]["request"].as_str().unwrap().contains("{_secret:token}"));
    assert!(envelope["stderr"].as_str().unwrap().starts_with("HTTP 201 Created\n"));
    no_secret_in("the envelope", envelope.to_string().as_bytes());

    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].starts_with("POST /issues?by=a%2Fb HTTP/1.1\r\n"));
    assert!(requests[0].contains(&format!("\r\nauthorization: Bearer {TOKEN}\r\n")));
    assert!(requests[0].contains(&format!("\r\nx-key: {KEY}\r\n")));
    let body = json!({"title": "a/b", "token": TOKEN}).to_string();
    assert!(requests[0].ends_with(&format!("\r\n\r\n{body}")), "{}", requests[0]);
    assert!(proxy.requests().is_empty(), "a proxy of the environment was used");

    for args in [
        &["journal", "tail", "-n", "1000", "--json"][..],
        &["journal", "tail", "-n", "1000"],
        &["approvals", "list", "--json"],
        &["doctor"],
        &["check-config"],
    ] {
        let output = world.run(args);
        no_secret_in(&args.join(" "), &[output.stdout, output.stderr].concat());
    }
    let (whole, report) = world.verify();
    assert!(whole, "{report}");
    let (_, stderr) = gateway.stop();
    no_secret_in("the log", stderr.as_bytes());
    let mut all = Vec::new();
    files(&world.state(), &mut all);
    files(&world.root(), &mut all);
    assert!(all.len() > 5, "{all:?}");
    for path in all {
        no_secret_in(&path.display().to_string(), &std::fs::read(&path).unwrap());
    }
}

#[test]
fn over_mcp_the_answer_is_structured_content_without_the_secret() {
    let server = Server::start(echo);
    let world = world(&server, "");
    let args: Vec<_> = world.serve_args().into_iter().chain(["--stdio".to_owned()]).collect();
    let args: Vec<_> = args.iter().map(String::as_str).filter(|arg| *arg != "--json").collect();
    let mut child = world
        .command(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut lines = BufReader::new(output).lines();
    let mut send = |message: Value| writeln!(input, "{message}").unwrap();
    send(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }}));
    send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    send(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
        "name": "create_issue", "arguments": {"title": "x"},
    }}));
    let answer = loop {
        let line = lines.next().unwrap().unwrap();
        no_secret_in("a message", line.as_bytes());
        let message: Value = serde_json::from_str(&line).unwrap();
        if message["id"] == 2 {
            break message["result"].clone();
        }
    };
    assert_eq!(answer["isError"], json!(false), "{answer}");
    assert_eq!(answer["structuredContent"]["results"]["token"], "{_secret:token}");
    assert_eq!(server.requests().len(), 1);
    drop(input);
    child.wait().unwrap();
}

#[test]
fn what_a_server_says_is_an_error_by_its_status_and_nothing_is_sent_twice() {
    let says = |request: &str| match request {
        _ if request.contains("by=none") => answer("204 No Content", ""),
        _ if request.contains("by=missing") => answer("404 Not Found", "{\"m\":1}"),
        _ => Some(String::new()),
    };
    let server = Server::start(says);
    let world = world(&server, "");
    let gateway = world.start();
    let call = |title: &str| {
        let args = json!({ "title": title }).to_string();
        world.json(&["call", "create_issue", "--args", &args])["envelope"].clone()
    };
    let none = call("none");
    assert_eq!((&none["status"], &none["results"]), (&json!("success"), &json!({})));
    let missing = call("missing");
    assert_eq!(missing["status"], "error");
    assert_eq!(missing["results"], json!({"m": 1, "error": "HTTP 404 Not Found"}));
    let dropped = call("dropped");
    assert_eq!(dropped["status"], "error");
    let error = dropped["results"]["error"].as_str().unwrap();
    assert!(error.starts_with("the request may have arrived: "), "{error}");
    assert_eq!(server.requests().len(), 3);
    gateway.stop();
}

#[test]
fn a_killed_gateway_lists_the_request_it_had_sent_and_does_not_send_it_again() {
    let server = Server::start(|_| None);
    let world = world(&server, "");
    let gateway = world.start();
    let call = world.spawn_call("create_issue", &json!({"title": "x"}));
    wait_for("the request", || (!server.requests().is_empty()).then_some(()));
    gateway.kill();
    drop(call.wait_with_output());
    let gateway = world.start();
    assert_eq!(gateway.banner["unknown_effects"].as_array().unwrap().len(), 1);
    gateway.stop();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_secret_that_is_not_safe_where_it_is_stops_the_start_and_is_not_repeated() {
    let server = Server::start(|_| answer("200 OK", "{}"));
    let world = world(&server, "");
    secret_file(&world, "open.secret", TOKEN, 0o644);
    secret_file(&world, "group.secret", TOKEN, 0o640);
    secret_file(&world, "short.secret", "t0p", 0o600);
    secret_file(&world, "root/token.secret", TOKEN, 0o600);
    let path = world.dir.path();
    std::os::unix::fs::symlink(path.join("root/token.secret"), path.join("link.secret")).unwrap();
    for (place, reason) in [
        (
            "{ file = \"open.secret\" }",
            "open.secret has mode 644, so others can read it: chmod 600",
        ),
        ("{ file = \"group.secret\" }", "has mode 640"),
        ("{ file = \"short.secret\" }", "less than 8 bytes"),
        ("{ file = \"root/token.secret\" }", "lies in the folder tools work in"),
        ("{ file = \"link.secret\" }", "lies in the folder tools work in"),
        ("{ file = \"gone.secret\" }", "No such file"),
        ("{ file = \"root\" }", "lies in the folder tools work in"),
        ("{ file = \"tools\" }", "is no file"),
        ("{ env = \"NOT_THERE\" }", "the environment has no `NOT_THERE`"),
        ("{ env = \"LANG\" }", "`tools.env` gives `LANG` to every tool"),
        ("\"t0p\\\"Secret/value+1\"", "does not stand in the configuration"),
    ] {
        world.configure(&format!("[secrets]\ntoken = {place}\n"));
        let args = world.serve_args();
        let output = world.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{place}");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(text.contains(reason) && text.contains("countersign.toml:2:9"), "{text}");
        no_secret_in(place, text.as_bytes());
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_tool_without_its_secret_or_its_network_is_not_served_or_not_run() {
    let server = Server::start(|_| answer("200 OK", "{}"));
    let world = world(&server, "");
    world.configure("[secrets]\nkey = { env = \"TEST_API_KEY\" }\n");
    let gateway = world.start();
    let refused = world.json(&["call", "create_issue", "--args", "{\"title\":\"x\"}"]);
    assert_eq!(refused["envelope"]["results"]["denied"]["code"], "unknown_tool", "{refused}");
    let (_, stderr) = gateway.stop();
    assert!(
        stderr.contains("create_issue: its manifest is right, but it sends the secret `token`"),
        "{stderr}"
    );
    world.configure(SECRETS);
    let gateway = world.start();
    let refused = world.json(&["call", "create_issue", "--args", "{\"title\":\"x\"}"]);
    let error = refused["envelope"]["results"]["error"].as_str().unwrap();
    assert!(error.contains("127.0.0.1, which is loopback and not in `allow`"), "{error}");
    gateway.stop();
    assert!(server.requests().is_empty());
}

#[test]
fn imported_operations_run() {
    let server = Server::start(|request| {
        let line = request.lines().next().unwrap().to_owned();
        let body = request.split("\r\n\r\n").nth(1).unwrap();
        answer("200 OK", &json!({ "line": line, "body": body }).to_string())
    });
    let document = json!({
        "openapi": "3.0.0",
        "servers": [{"url": format!("http://{}/v1", server.address)}],
        "paths": {
            "/pets/{id}": {"get": {
                "operationId": "getPet",
                "summary": "One pet.",
                "parameters": [
                    {"name": "id", "in": "path", "required": true, "schema": {"type": "integer"}},
                    {"name": "with", "in": "query", "schema": {"type": "string"}},
                ],
            }},
            "/pets": {"post": {
                "operationId": "addPet",
                "requestBody": {"content": {"application/json": {"schema": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                    "required": ["name"],
                }}}},
            }},
        },
    });
    let mut world = World::new();
    let path = world.dir.path().join("openapi.json");
    std::fs::write(&path, document.to_string()).unwrap();
    world.tools = world.dir.path().join("imported");
    let (from, to) = (path.to_str().unwrap(), world.tools.to_str().unwrap().to_owned());
    world.text(&["manifest", "import", "openapi", from, "--out", &to]);
    world.configure(ALLOW);
    let gateway = world.start();
    assert_eq!(
        (&gateway.banner["tools"], &gateway.banner["manifest_problems"]),
        (&json!(2), &json!(0))
    );
    let got = world.json(&["call", "get_pet", "--args", "{\"id\":7,\"with\":\"a&b\"}"]);
    let denied = got["envelope"]["status"] == "denied";
    assert!(denied, "`&` is none of a string's characters: {got}");
    let got = world.json(&["call", "get_pet", "--args", "{\"id\":7,\"with\":\"a/b\"}"]);
    assert_eq!(got["envelope"]["results"]["line"], "GET /v1/pets/7?with=a%2Fb HTTP/1.1", "{got}");
    // What changes something waits for a person.
    let call = world.spawn_call("add_pet", &json!({"name": "Rex"}));
    let hold = world.held("add_pet");
    world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);
    let got = finish(call);
    assert_eq!(got["envelope"]["results"]["line"], "POST /v1/pets HTTP/1.1", "{got}");
    assert_eq!(got["envelope"]["results"]["body"], "{\"name\":\"Rex\"}");
    gateway.stop();
}

#[test]
fn the_examples_run_but_for_the_address() {
    let folder = repository().join("examples/http");
    let server = Server::start(|request| match request.starts_with("POST ") {
        true => answer("201 Created", "{\"number\":7}"),
        false => answer("200 OK", "[{\"number\":6}]"),
    });
    let mut world = World::new();
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    world.tools = world.dir.path().join("tools");
    std::fs::create_dir(&world.tools).unwrap();
    for name in ["list_issues.clad.toml", "create_issue.clad.toml"] {
        let text = read(&format!("tools/{name}"));
        assert!(text.contains("https://tracker.example.org/"));
        let here = format!("http://{}/", server.address);
        let text = text.replace("https://tracker.example.org/", &here);
        std::fs::write(world.tools.join(name), text).unwrap();
    }
    world.configure(&format!("{}\n{ALLOW}", read("countersign.toml")));
    secret_file(&world, "tracker.token", TOKEN, 0o600);
    let gateway = world.start();
    assert_eq!(gateway.banner["manifest_problems"], json!(0));
    let listed = world.json(&["call", "list_issues"])["envelope"].clone();
    assert_eq!(listed["results"], json!({"value": [{"number": 6}]}), "{listed}");
    let call = world.spawn_call("create_issue", &json!({"title": "It \"broke\""}));
    let hold = world.held("create_issue");
    world.text(&["approvals", "approve", hold["id"].as_str().unwrap()]);
    assert_eq!(finish(call)["envelope"]["results"], json!({"number": 7}));
    let requests = server.requests();
    assert!(requests[0].starts_with("GET /api/issues?state=open&page=1 HTTP/1.1\r\n"));
    assert!(
        requests[1].ends_with("{\"title\":\"It \\\"broke\\\"\",\"text\":\"\"}"),
        "{requests:?}"
    );
    assert!(requests.iter().all(|r| r.contains(&format!("authorization: Bearer {TOKEN}\r\n"))));
    gateway.stop();
}
