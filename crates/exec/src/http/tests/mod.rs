//! Requests to real servers on this machine, most of them hostile.

#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod hostile;
mod redirects;
mod tls;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::plan::{HttpPlan, Plan, RunLimits};
use countersign_ports::executor::{Execution, ExecutionStatus, ToolExecutor as _, ToolRun};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{HttpConfig, HttpExecutor};
use crate::Secrets;
use crate::connect::Resolve;

/// Far longer than anything here takes, on any machine.
const LONG: Duration = Duration::from_secs(60);
const SECRET: &str = "s3cr\"t with space";

/// How a server goes on after it has read a request.
#[derive(Clone)]
enum Reply {
    /// Sends this, and closes.
    Close(Vec<u8>),
    /// Sends this, and neither goes on nor closes.
    Stall(Vec<u8>),
    /// Sends the first, and the second again and again for as long as anybody reads.
    Endless(Vec<u8>, Vec<u8>),
    /// The same, with a pause of a few milliseconds each time.
    Drip(Vec<u8>, Vec<u8>),
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        Self::Close(text.into())
    }
}

fn ok(body: &str) -> Reply {
    status(200, body)
}

fn status(code: u16, body: &str) -> Reply {
    Reply::Close(
        format!("HTTP/1.1 {code} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into(),
    )
}

fn found(code: u16, location: &str) -> Reply {
    Reply::Close(
        format!("HTTP/1.1 {code} X\r\nlocation: {location}\r\ncontent-length: 2\r\n\r\n:)").into(),
    )
}

#[derive(Default)]
struct Seen {
    connections: Mutex<usize>,
    /// Those whose connection the other side has closed, or that we have.
    ended: Mutex<usize>,
    requests: Mutex<Vec<String>>,
}

struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
}

impl Server {
    /// The replies go to one request each, and the last of them to all that come then.
    async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::accepting(replies, |stream| async move { Some(stream) }).await
    }

    async fn accepting<S, F>(
        replies: impl IntoIterator<Item = Reply>,
        accept: impl Fn(tokio::net::TcpStream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Option<S>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, replies) = (Arc::new(Seen::default()), replies.into_iter().collect::<Vec<_>>());
        let server = Self { address, seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                *seen.connections.lock().unwrap() += 1;
                let reply = replies[number.min(replies.len() - 1)].clone();
                number += 1;
                let (seen, stream) = (Arc::clone(&seen), accept(stream));
                tokio::spawn(async move {
                    if let Some(stream) = stream.await {
                        answer(stream, reply, &seen).await;
                    }
                    *seen.ended.lock().unwrap() += 1;
                });
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn at(&self, scheme: &str, host: &str, path: &str) -> String {
        format!("{scheme}://{host}:{}{path}", self.address.port())
    }

    fn connections(&self) -> usize {
        *self.seen.connections.lock().unwrap()
    }

    /// Returns when all of them are closed.
    async fn all_ended(&self) {
        let start = std::time::Instant::now();
        while *self.seen.ended.lock().unwrap() < self.connections() {
            assert!(start.elapsed() < LONG, "a connection is still there");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, reply: Reply, seen: &Seen) {
    let mut request = Vec::new();
    while !whole(&request) {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    seen.requests.lock().unwrap().push(String::from_utf8(request).unwrap());
    match reply {
        Reply::Close(bytes) => {
            stream.write_all(&bytes).await.ok();
            stream.shutdown().await.ok();
        }
        Reply::Stall(bytes) => {
            stream.write_all(&bytes).await.ok();
            stream.read_buf(&mut Vec::new()).await.ok();
        }
        Reply::Endless(first, again) => {
            let mut sent = stream.write_all(&first).await;
            while sent.is_ok() {
                sent = stream.write_all(&again).await;
            }
        }
        Reply::Drip(first, again) => {
            let mut sent = stream.write_all(&first).await;
            while sent.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                sent = stream.write_all(&again).await;
            }
        }
    }
}

/// Whether the request has all of its body.
fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|length| body.len() >= length.parse().unwrap())
}

/// Knows these names; each lookup takes the next answer, and the last of them for ever.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<HashMap<String, Vec<Vec<IpAddr>>>>>, Arc<Mutex<Vec<String>>>);

impl Names {
    fn new(names: &[(&str, &[&[&str]])]) -> Self {
        let names = names.iter().map(|(name, answers)| {
            let answers = answers.iter().map(|answer| {
                answer.iter().map(|address| address.parse().unwrap()).collect::<Vec<IpAddr>>()
            });
            ((*name).to_owned(), answers.collect())
        });
        Self(Arc::new(Mutex::new(names.collect())), Arc::default())
    }

    fn lookups(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.1.lock().unwrap().push(name.to_owned());
        let mut names = self.0.lock().unwrap();
        let answers = names.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        let answer =
            if answers.len() > 1 { answers.remove(0) } else { answers.first().unwrap().clone() };
        Ok(answer.into_iter().map(|address| (address, port).into()).collect())
    }
}

fn config(allow: &[&str]) -> HttpConfig {
    let secrets = [
        ("key".to_owned(), SECRET.to_owned().into()),
        ("split".to_owned(), "12345678\r\nx-admin: 1".to_owned().into()),
    ];
    HttpConfig {
        allow: allow.iter().map(|network| network.parse().unwrap()).collect(),
        roots_pem: None,
        secrets: Secrets::new(secrets.into()).unwrap(),
    }
}

/// May reach 127.0.0.1, and nothing else that is not public.
fn executor(names: Names) -> HttpExecutor {
    HttpExecutor::resolving(config(&["127.0.0.1/32"]), Box::new(names)).unwrap()
}

fn plan(value: Value) -> HttpPlan {
    serde_json::from_value(value).unwrap()
}

fn get(url: &str) -> HttpPlan {
    plan(json!({"method": "GET", "url": url}))
}

async fn run_within(executor: &HttpExecutor, plan: HttpPlan, limits: RunLimits) -> Execution {
    let run = ToolRun::new(Plan::Http(plan), limits);
    let done = tokio::time::timeout(LONG, executor.run(run)).await.expect("it ends");
    let kept = done.stdout.len() as u64;
    assert_eq!(done.stdout_sha256, <[u8; 32]>::from(Sha256::digest(&done.stdout)));
    assert_eq!(done.stdout_len, kept + u64::from(done.truncated()));
    done
}

async fn run(executor: &HttpExecutor, plan: HttpPlan) -> Execution {
    let limits = RunLimits { timeout: LONG, output_max_bytes: 1000, ..RunLimits::default() };
    run_within(executor, plan, limits).await
}

async fn simple(plan: HttpPlan) -> Execution {
    run(&executor(Names::default()), plan).await
}

#[track_caller]
fn not_started(execution: &Execution, reason: &str) {
    let ExecutionStatus::NotStarted(why) = &execution.status else { panic!("{execution:?}") };
    assert!(why.contains(reason), "{why}");
}

#[track_caller]
fn unknown(execution: &Execution, reason: &str) {
    let ExecutionStatus::Unknown(why) = &execution.status else { panic!("{execution:?}") };
    assert!(why.starts_with("the request may have arrived: ") && why.contains(reason), "{why}");
}

#[track_caller]
fn answered(execution: &Execution, expected: bool, says: &str) {
    let ExecutionStatus::Answered { ok, note } = &execution.status else { panic!("{execution:?}") };
    assert_eq!(*ok, expected, "{note}");
    assert!(note.contains(says), "{note}");
}

fn text(execution: &Execution) -> &str {
    std::str::from_utf8(&execution.stdout).unwrap()
}

#[tokio::test]
async fn the_request_is_the_plan_with_its_secrets_and_nothing_else_of_the_gateway() {
    let server = Server::start([ok("{}")]).await;
    let secret = |escape: &str| json!({"secret": "key", "escape": escape});
    let done = simple(plan(json!({
        "method": "PUT",
        "url": server.url("/a%20b?c=d&e=%26"),
        "headers": [
            {"name": "X-Key", "value": ["Bearer ", secret("none")]},
            {"name": "Content-Type", "value": ["application/json"]},
            {"name": "accept-encoding", "value": ["gzip"]},
        ],
        "body": ["{\"k\":\"", secret("json"), "\",\"f\":\"", secret("form"), "\"}"],
    })))
    .await;
    answered(&done, true, "HTTP 200 OK");
    assert_eq!(text(&done), "{}");
    assert_eq!(done.stderr, b"HTTP 200 OK\ncontent-length: 2\n");
    let body = r#"{"k":"s3cr\"t with space","f":"s3cr%22t%20with%20space"}"#;
    assert_eq!(
        server.requests(),
        [format!(
            "PUT /a%20b?c=d&e=%26 HTTP/1.1\r\nhost: {}\r\naccept-encoding: identity\r\n\
             user-agent: countersign/{}\r\naccept: */*\r\nx-key: Bearer {SECRET}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            server.address,
            env!("CARGO_PKG_VERSION"),
            body.len()
        )]
    );
}

#[tokio::test]
async fn the_manifest_says_which_status_is_a_success_and_whose_body_is_shown() {
    for (code, success, error, is_ok, body) in [
        (200, json!([]), json!([]), true, "b"),
        (201, json!([]), json!([]), true, "b"),
        (299, json!([]), json!([]), true, "b"),
        (202, json!([]), json!([202]), false, "b"),
        (404, json!([]), json!([]), false, "b"),
        (500, json!([]), json!([404]), false, ""),
        (404, json!([]), json!([404]), false, "b"),
        (404, json!([200, 404]), json!([]), true, "b"),
        (201, json!([200]), json!([]), false, "b"),
        (201, json!([200]), json!([409]), false, ""),
        (302, json!([302]), json!([]), true, "b"),
        (599, json!([]), json!([]), false, "b"),
    ] {
        let server = Server::start([status(code, "b")]).await;
        let url = server.url("/");
        let done = simple(plan(json!({
            "method": "GET", "url": url, "success_status": success, "error_status": error,
        })))
        .await;
        answered(&done, is_ok, &format!("HTTP {code}"));
        assert_eq!(text(&done), body, "{code}");
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_sent_safely_is_not_sent_and_not_repeated() {
    let server = Server::start([ok("")]).await;
    let names = Names::new(&[("public.test", &[&["1.1.1.1"]])]);
    let public = server.at("http", "public.test", "/");
    for (url, name, reason) in [
        (server.url("/"), "missing", "there is no secret `missing`"),
        (server.url("/"), "split", "the header `x-key`, with its secret put in, holds a control"),
        (public, "key", "without encryption"),
    ] {
        let headers = json!([{"name": "x-key", "value": [{"secret": name, "escape": "none"}]}]);
        let plan = plan(json!({"method": "GET", "url": url, "headers": headers}));
        let done = run(&executor(names.clone()), plan).await;
        not_started(&done, reason);
        assert!(!format!("{done:?}").contains("12345678"), "{done:?}");
        assert!(!format!("{done:?}").contains("s3cr"), "{done:?}");
    }
    assert_eq!(server.connections(), 0);
    let debug = format!("{:?} {:?}", config(&[]), executor(names));
    assert!(!debug.contains("s3cr") && debug.contains("key"), "{debug}");
}

#[tokio::test]
async fn what_is_no_http_plan_is_not_run() {
    let plan = serde_json::from_value(json!({"argv": ["true"]})).unwrap();
    let run = ToolRun::new(plan, RunLimits::default());
    not_started(&executor(Names::default()).run(run).await, "HTTP requests only");
    let roots_pem = Some(b"nothing".to_vec());
    let none = HttpExecutor::new(HttpConfig { roots_pem, ..HttpConfig::default() });
    assert_eq!(none.unwrap_err().to_string(), "the certificate authorities: holds no certificate");
}
