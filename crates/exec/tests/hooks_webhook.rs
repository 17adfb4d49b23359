//! Hooks that are HTTP endpoints, with real servers on this machine.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_core::hook::{HookInput, HookResponse};
use countersign_exec::hook::{WebhookConfig, WebhookHook};
use countersign_ports::clock::Clock;
use countersign_ports::hook::{HookError, HookExecutor};
use countersign_ports::memory::ManualClock;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, http};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

/// Far longer than anything here takes, on any machine.
const LONG: Duration = Duration::from_secs(60);
const KEY: &str = "bm90IGEgc2VjcmV0LCBvbmx5IGEgdGVzdCBrZXk=";
const DENY: &str = r#"{"type":"deny","payload":{"code":"no","redacted_summary":"x"}}"#;
const LOOPBACK: &[&str] = &["127.0.0.0/8", "::1/128"];

fn input(id: &str) -> HookInput {
    serde_json::from_value(json!({
        "hook_id": "hook.test",
        "point": "before_tool_call",
        "run_id": "run.1",
        "agent_id": "agent.1",
        "source": {
            "kind": "hook", "id": "hook.test", "trust": "host_provided",
            "privacy": "content_refs_only",
        },
        "package_fingerprint": "fp",
        "view": { "privacy": "content_refs_only", "redacted_summary": "é" },
        "cancellation": { "cancelled": false },
        "invocation_id": id,
    }))
    .unwrap()
}

fn config(url: &str, allow: &[&str]) -> WebhookConfig {
    WebhookConfig {
        url: url.to_owned(),
        secret: Zeroizing::new(format!("whsec_{KEY}")),
        allow: allow.iter().map(|network| network.parse().unwrap()).collect(),
        connect_timeout: LONG,
        roots_pem: None,
    }
}

/// [`DENY`], in this many bytes.
fn padded(bytes: usize) -> String {
    DENY.to_owned() + &" ".repeat(bytes - DENY.len())
}

fn hook(config: WebhookConfig) -> WebhookHook {
    WebhookHook::new(config, Arc::new(ManualClock::at(1_700_000_000_999))).unwrap()
}

async fn ask(url: &str, allow: &[&str]) -> Result<HookResponse, HookError> {
    hook(config(url, allow)).invoke(input("1")).await
}

async fn bounded_wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

struct Now;

impl Clock for Now {
    fn now_millis(&self) -> u64 {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        since.as_millis().try_into().unwrap()
    }
}

/// What a server answers to everybody.
#[derive(Clone, Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// The body never ends.
    stalls: bool,
}

impl Reply {
    fn new(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = match kind {
            "" => Vec::new(),
            kind => vec![("content-type", kind.to_owned())],
        };
        Self { status, headers, body: body.into(), stalls: false }
    }

    fn json(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, "application/json", body)
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match std::mem::take(&mut self.body) {
            body if !body.is_empty() => Poll::Ready(Some(Ok(Frame::data(body.into())))),
            _ if self.stalls => Poll::Pending,
            _ => Poll::Ready(None),
        }
    }
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    ended: AtomicUsize,
    requests: Mutex<Vec<(http::request::Parts, Bytes)>>,
}

struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
}

impl Server {
    async fn start(reply: Reply) -> Self {
        Self::start_with(reply, None).await
    }

    async fn start_with(reply: Reply, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let server = Self { address, seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let (seen, reply, tls) = (Arc::clone(&seen), reply.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, reply, &seen).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, reply, &seen).await;
                            }
                        }
                    }
                    seen.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    fn url(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}/hook?a=b", self.address.port())
    }

    async fn ask(&self) -> Result<HookResponse, HookError> {
        ask(&self.url("http", "127.0.0.1"), LOOPBACK).await
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, reply: Reply, seen: &Arc<Seen>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (seen, reply) = (Arc::clone(seen), reply.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            seen.requests.lock().unwrap().push((parts, body));
            let mut response = Response::builder().status(reply.status);
            for (name, value) in &reply.headers {
                response = response.header(*name, value);
            }
            Ok::<_, hyper::Error>(response.body(reply).unwrap())
        }
    });
    let stream = TokioIo::new(stream);
    hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await.ok();
}

/// Answers everybody with these bytes, whatever was asked, and closes.
async fn raw(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"}") && stream.read_buf(&mut request).await.unwrap() > 0 {}
            stream.write_all(bytes).await.ok();
        }
    });
    address
}

#[tokio::test]
async fn the_reference_implementation_accepts_the_signature() {
    let server = Server::start(Reply::new(204, "", "")).await;
    let hook = |key: &str, clock: Arc<dyn Clock>| {
        let secret = Zeroizing::new(format!("whsec_{key}"));
        let url = server.url("http", "127.0.0.1");
        WebhookHook::new(WebhookConfig { secret, ..config(&url, LOOPBACK) }, clock).unwrap()
    };
    // The bounds of the length; the longest exceeds no block of the hash.
    for length in [24, 32, 64] {
        let key = STANDARD.encode(vec![7; length]);
        let receiver = standardwebhooks::Webhook::new(&format!("whsec_{key}")).unwrap();
        let other = standardwebhooks::Webhook::new(&format!("whsec_{KEY}")).unwrap();
        let id = format!("hook.invocation.{length}");
        let hook = hook(&key, Arc::new(Now));
        assert_eq!(hook.invoke(input(&id)).await, Ok(HookResponse::ObserveOnly));
        let (parts, body) = server.seen.requests.lock().unwrap().pop().unwrap();
        receiver.verify(&body, &parts.headers).unwrap();
        assert!(other.verify(&body, &parts.headers).is_err());
        assert!(receiver.verify(&body[1..], &parts.headers).is_err());
        let sent = format!("{}_{id}", input(&id).run_id).replace('.', "%2E");
        assert_eq!(parts.headers["webhook-id"], sent);
        assert_eq!(body, serde_json::to_vec(&input(&id)).unwrap());
    }
    // The time is the clock's, in whole seconds.
    let hook = hook(KEY, Arc::new(ManualClock::at(1_700_000_000_999)));
    hook.invoke(input("1")).await.unwrap();
    let (parts, body) = server.seen.requests.lock().unwrap().pop().unwrap();
    let receiver = standardwebhooks::Webhook::new(&format!("whsec_{KEY}")).unwrap();
    assert_eq!(parts.headers["webhook-timestamp"], "1700000000");
    let id = parts.headers["webhook-id"].to_str().unwrap();
    let signature = receiver.sign(id, 1_700_000_000, &body).unwrap();
    assert_eq!(parts.headers["webhook-signature"], signature);
}

#[tokio::test]
async fn the_request_is_a_post_with_nothing_more_than_needed() {
    let server = Server::start(Reply::new(204, "", "")).await;
    server.ask().await.unwrap();
    let (parts, _) = server.seen.requests.lock().unwrap().pop().unwrap();
    assert_eq!((parts.method.as_str(), parts.uri.to_string().as_str()), ("POST", "/hook?a=b"));
    let mut names: Vec<_> = parts.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = [
        "accept",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    ];
    assert_eq!(names, expected);
    assert_eq!(parts.headers["host"], server.address.to_string());
    assert_eq!(parts.headers["content-type"], "application/json");
    let HookError(text) = ask("http://127.0.0.1:1", LOOPBACK).await.unwrap_err();
    assert_eq!(
        text,
        "no connection to http://127.0.0.1:1: 127.0.0.1: Connection refused (os error 111)"
    );
    let anonymous = HookInput { invocation_id: None, ..input("1") };
    let hook = hook(config(&server.url("http", "127.0.0.1"), LOOPBACK));
    let HookError(text) = hook.invoke(anonymous).await.unwrap_err();
    assert_eq!(text, "the input has no invocation id to send");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_document_or_nothing_is_an_answer() {
    let deny: HookResponse = serde_json::from_str(DENY).unwrap();
    for (reply, response) in [
        (Reply::json(DENY), deny.clone()),
        (Reply::json(padded(1 << 20)), deny.clone()),
        (Reply::new(201, "Application/JSON; charset=utf-8", DENY), deny.clone()),
        (Reply::json(r#"{"type":"observe_only"}"#), HookResponse::ObserveOnly),
        (Reply::json(""), HookResponse::ObserveOnly),
        (Reply::json(" \r\n"), HookResponse::ObserveOnly),
        (Reply::new(200, "", ""), HookResponse::ObserveOnly),
        (Reply::new(202, "text/plain", ""), HookResponse::ObserveOnly),
        (Reply::new(204, "", ""), HookResponse::ObserveOnly),
    ] {
        let server = Server::start(reply).await;
        assert_eq!(server.ask().await, Ok(response));
    }
}

#[tokio::test]
async fn everything_else_is_an_error_that_says_what_it_was() {
    let not_json = "the answer is not one hook response: ";
    for (reply, error) in [
        (Reply::json("no"), not_json),
        (Reply::json(format!("{DENY}{DENY}")), not_json),
        (Reply::json(r#"{"type":"allow"}"#), not_json),
        (Reply::json("\u{feff}{}"), not_json),
        (Reply::json(padded((1 << 20) + 1)), "answered 200 OK, and the body exceeds 1048576 bytes"),
        (Reply::new(200, "", DENY), "answered 200 OK with \"\", not application/json"),
        (
            Reply::new(200, "text/html", DENY),
            "answered 200 OK with \"text/html\", not application/json",
        ),
        (
            Reply::new(200, "application/jsonp", DENY),
            "answered 200 OK with \"application/jsonp\", not application/json",
        ),
        (Reply::new(400, "", ""), "answered 400 Bad Request"),
        (Reply::new(401, "application/json", DENY), &format!("answered 401 Unauthorized: {DENY}")),
        (
            Reply::new(500, "text/plain", "\n\u{1b}[2Jout\u{202e} of order\nat line 5"),
            "answered 500 Internal Server Error: \\u{1b}[2Jout\\u{202e} of order",
        ),
        (
            Reply { stalls: true, ..Reply::new(503, "", "later") },
            "answered 503 Service Unavailable: later",
        ),
        (
            Reply::new(500, "", "e".repeat(100_000)),
            &format!("answered 500 Internal Server Error: {}", "e".repeat(200)),
        ),
    ] {
        let server = Server::start(reply).await;
        let HookError(text) = server.ask().await.unwrap_err();
        if error == not_json {
            assert!(text.starts_with(error), "{text}");
        } else {
            assert_eq!(text, error);
        }
    }
}

#[tokio::test]
async fn a_server_that_speaks_badly_is_an_error() {
    for (bytes, error) in [
        (&b""[..], "no response: connection closed before message completed"),
        (b"\0\0\0\0\0\0\0\0\0\0", "no response: invalid HTTP"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "answered 101 Switching Protocols"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{",
            "answered 200 OK, and the body broke off",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
            "no response: invalid content-length",
        ),
    ] {
        let address = raw(bytes).await;
        let HookError(text) = ask(&format!("http://{address}"), LOOPBACK).await.unwrap_err();
        assert!(text.starts_with(error), "{text}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_error_and_its_target_is_never_contacted() {
    let target = Server::start(Reply::json(DENY)).await;
    for status in [300, 301, 302, 303, 304, 307, 308] {
        let mut reply = Reply::new(status, "", "");
        reply.headers.push(("location", target.url("http", "127.0.0.1")));
        let HookError(text) = Server::start(reply).await.ask().await.unwrap_err();
        let status = http::StatusCode::from_u16(status).unwrap();
        assert_eq!(text, format!("answered {status}; redirects are not followed"));
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_host_is_reached_only_where_it_is_declared() {
    let server = Server::start(Reply::json(DENY)).await;
    let mut reached = 0;
    for (scheme, host, allow, error) in [
        ("http", "127.0.0.1", &["127.0.0.1/32"][..], None),
        ("http", "localhost", LOOPBACK, None),
        ("http", "[::ffff:127.0.0.1]", &["127.0.0.0/8"], None),
        // By whatever name.
        ("https", "localhost", &[], Some("is loopback and not in `allow`")),
        ("http", "localhost", &["10.0.0.0/8"], Some("is loopback and not in `allow`")),
        ("https", "localhost", &["10.0.0.0/8", "fd00::/8"], Some("is loopback")),
    ] {
        let answer = ask(&server.url(scheme, host), allow).await;
        match error {
            None => {
                assert!(answer.is_ok(), "{scheme} {host}: {answer:?}");
                reached += 1;
            }
            Some(error) => {
                let HookError(text) = answer.unwrap_err();
                assert!(text.contains(error), "{scheme} {host}: {text}");
            }
        }
        assert_eq!(server.connections(), reached, "{scheme} {host}");
    }
}

#[test]
fn a_configuration_that_breaks_a_rule_names_it() {
    let url = |url: &str, allow: &[&str]| config(url, allow);
    let secret = |secret: &str| WebhookConfig {
        secret: Zeroizing::new(secret.to_owned()),
        ..config("https://example.com", &[])
    };
    let roots = |pem: &[u8]| WebhookConfig {
        roots_pem: Some(pem.to_vec()),
        ..config("https://example.com", &[])
    };
    let bytes = |length| format!("whsec_{}", STANDARD.encode(vec![7; length]));
    let broken_pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (config, error) in [
        (url("https://example.com/hook", &[]), ""),
        (url("https://1.1.1.1", &[]), ""),
        (url("https://[2606:4700::1111]", &[]), ""),
        (url("http://10.1.2.3", &["10.0.0.0/8"]), ""),
        (url("http://hooks.internal", &["10.0.0.0/8"]), ""),
        (url("http://1.1.1.1", &["1.1.1.1/32"]), ""),
        (url("", &[]), "url is not valid: "),
        (url("example.com", &[]), "url is not valid: "),
        (url("ftp://example.com", &[]), "url must begin with https://"),
        (url("file:///etc/passwd", &[]), "url must begin with https://"),
        (url("https://user@example.com", &[]), "url must not hold a user"),
        (url("https://:pass@example.com", &[]), "url must not hold a user"),
        (url("https://example.com/#a", &[]), "url must not have a fragment"),
        (url("http://example.com", &[]), "url must begin with https:// or be in `allow`"),
        (url("http://1.1.1.1", &["10.0.0.0/8"]), "url leads to 1.1.1.1, which is not in `allow`"),
        (url("https://127.0.0.1", &[]), "url leads to 127.0.0.1, which is loopback"),
        (url("https://127.0.0.1", &["10.0.0.0/8"]), "url leads to 127.0.0.1, which is loopback"),
        // Other ways to write the same.
        (url("https://127.1", &[]), "url leads to 127.0.0.1, which is loopback"),
        (url("https://0x7f000001", &[]), "url leads to 127.0.0.1, which is loopback"),
        (url("https://2130706433", &[]), "url leads to 127.0.0.1, which is loopback"),
        (url("https://0177.0.0.1", &[]), "url leads to 127.0.0.1, which is loopback"),
        (url("https://127.0.0.1.", &[]), "url leads to 127.0.0.1, which is loopback"),
        (url("https://①②⑦.0.0.1", &[]), "url leads to 127.0.0.1, which is loopback"),
        (url("https://%31%32%37.0.0.1", &[]), "url leads to 127.0.0.1, which is loopback"),
        (url("https://0", &[]), "url leads to 0.0.0.0, which is unspecified"),
        (url("https://10.0.0.1", &[]), "url leads to 10.0.0.1, which is private"),
        (
            url("https://169.254.169.254", &["0.0.0.0/0"]),
            "url leads to 169.254.169.254, where machi",
        ),
        (
            url("https://100.100.100.200", &["0.0.0.0/0"]),
            "url leads to 100.100.100.200, where machi",
        ),
        (url("https://100.64.0.1", &[]), "url leads to 100.64.0.1, which is shared by a carrier"),
        (url("https://[::]", &[]), "url leads to ::, which is unspecified"),
        (url("https://[::1]", &["127.0.0.0/8"]), "url leads to ::1, which is loopback"),
        (url("https://[fe80::1]", &["::/0"]), "url leads to fe80::1, where machines are told secr"),
        (url("https://[fd00::1]", &[]), "url leads to fd00::1, which is private"),
        (
            url("https://[::ffff:127.0.0.1]", &[]),
            "url leads to ::ffff:127.0.0.1, which is loopback",
        ),
        (
            url("https://[::ffff:a9fe:a9fe]", &["::/0"]),
            "url leads to ::ffff:169.254.169.254, where machines",
        ),
        (url("https://[64:ff9b::a00:1]", &[]), "url leads to 64:ff9b::a00:1, which is private"),
        (url("https://[2002:7f00:1::]", &[]), "url leads to 2002:7f00:1::, which is loopback"),
        (secret(&bytes(24)), ""),
        (secret(&bytes(64)), ""),
        (secret(&bytes(23)), "secret must have 24 to 64 bytes"),
        (secret(&bytes(65)), "secret must have 24 to 64 bytes"),
        (secret("whsec_"), "secret must have 24 to 64 bytes"),
        (secret(KEY), "secret must begin with whsec_"),
        (secret(&format!("WHSEC_{KEY}")), "secret must begin with whsec_"),
        (secret(&format!(" whsec_{KEY}")), "secret must begin with whsec_"),
        (secret(&format!("whsec_{KEY}\n")), "secret must be base64 after whsec_"),
        (secret(&format!("whsec_{}", &KEY[1..])), "secret must be base64 after whsec_"),
        (secret(""), "secret must begin with whsec_"),
        (roots(b""), "roots_pem holds no certificate"),
        (roots(b"-----BEGIN CERTIFICATE-----\n"), "roots_pem is no PEM"),
        (roots(broken_pem), "roots_pem holds no authority"),
    ] {
        let said = format!("{config:?}");
        let made = WebhookHook::new(config, Arc::new(ManualClock::at(0)));
        let text = made.map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(text.is_empty(), error.is_empty(), "{said}: {text}, not {error}");
        assert!(text.starts_with(error), "{said}: {text}, not {error}");
    }
}

#[tokio::test]
async fn no_secret_is_shown() {
    const PATH: &str = "T0P";
    let secrets = [PATH, KEY, &KEY[..20], "0pen"];
    let mut shown = Vec::new();
    let server = Server::start(Reply::new(500, "", "")).await;
    let with_path = format!("{}/{PATH}?key={PATH}", server.url("http", "127.0.0.1"));
    for (url, secret) in [
        (with_path.as_str(), format!("whsec_{KEY}")),
        (&with_path, KEY.to_owned()),
        (&with_path, format!("whsec_{KEY}?")),
        (&with_path, format!("whsec_{}", &KEY[..20])),
        (&with_path, format!("whsec_{}", KEY.repeat(9))),
        (&format!("http://{PATH} {PATH}"), format!("whsec_{KEY}")),
        (&format!("https://user:0pen@example.com/{PATH}"), format!("whsec_{KEY}")),
        (&format!("http://127.0.0.1:1/{PATH}"), format!("whsec_{KEY}")),
        (&format!("https://localhost:1/{PATH}"), format!("whsec_{KEY}")),
        (&format!("https://127.0.0.1:{}/{PATH}", server.address.port()), format!("whsec_{KEY}")),
    ] {
        let config = WebhookConfig { secret: Zeroizing::new(secret), ..config(url, LOOPBACK) };
        shown.push(format!("{config:?}"));
        match WebhookHook::new(config, Arc::new(ManualClock::at(0))) {
            Err(error) => shown.push(format!("{error} {error:?}")),
            Ok(hook) => {
                shown.push(format!("{hook:?}"));
                shown.push(hook.invoke(input("1")).await.unwrap_err().0);
            }
        }
    }
    for text in shown {
        assert!(!secrets.iter().any(|secret| text.contains(secret)), "{text}");
    }
}

#[tokio::test]
async fn dropping_the_future_closes_the_connection() {
    // Before the head of the response, and within its body.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook_silent = hook(config(&format!("http://{}", silent.local_addr().unwrap()), LOOPBACK));
    let task = tokio::spawn(async move { hook_silent.invoke(input("1")).await });
    let (mut stream, _) = silent.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        stream.read_buf(&mut request).await.unwrap();
    }
    task.abort();
    assert_eq!(stream.read_buf(&mut request).await.unwrap(), 0);

    let server = Server::start(Reply { stalls: true, ..Reply::json("{") }).await;
    let hook = hook(config(&server.url("http", "127.0.0.1"), LOOPBACK));
    let task = tokio::spawn(async move { hook.invoke(input("1")).await });
    bounded_wait("request", || !server.seen.requests.lock().unwrap().is_empty()).await;
    assert_eq!(server.seen.ended.load(Ordering::SeqCst), 0);
    task.abort();
    bounded_wait("end", || server.seen.ended.load(Ordering::SeqCst) == 1).await;
}

/// An authority, and a server with a certificate of it for one name.
async fn vouched(name: &str, expired: bool) -> (String, Server) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        leaf.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    (pem, Server::start_with(Reply::json(DENY), Some(acceptor)).await)
}

#[tokio::test]
async fn a_certificate_counts_when_a_trusted_authority_gave_it_to_the_host_in_time() {
    let (pem, server) = vouched("localhost", false).await;
    let (pem_ip, server_ip) = vouched("127.0.0.1", false).await;
    let (pem_other, server_other) = vouched("example.com", false).await;
    let (pem_expired, server_expired) = vouched("localhost", true).await;
    for (server, host, roots, error) in [
        (&server, "localhost", Some(&pem), ""),
        (&server, "localhost", Some(&format!("{pem_other}{pem}")), ""),
        (&server_ip, "127.0.0.1", Some(&pem_ip), ""),
        (&server, "localhost", None, "UnknownIssuer"),
        (&server, "localhost", Some(&pem_other), "invalid peer certificate"),
        (&server, "127.0.0.1", Some(&pem), "certificate not valid for name \"127.0.0.1\""),
        (&server_other, "localhost", Some(&pem_other), "not valid for name \"localhost\""),
        (&server_expired, "localhost", Some(&pem_expired), "certificate expired"),
    ] {
        let roots_pem = roots.map(|pem| pem.clone().into_bytes());
        let config = WebhookConfig { roots_pem, ..config(&server.url("https", host), LOOPBACK) };
        let answer = hook(config).invoke(input("1")).await;
        if error.is_empty() {
            assert_eq!(answer, Ok(serde_json::from_str(DENY).unwrap()), "{host}");
        } else {
            let HookError(text) = answer.unwrap_err();
            assert!(text.starts_with("no trusted connection to https://"), "{text}");
            assert!(text.contains(error), "{text}");
        }
    }
    for server in [&server_other, &server_expired] {
        assert!(server.seen.requests.lock().unwrap().is_empty());
    }
    // One that does not speak TLS at all.
    let plain = Server::start(Reply::json(DENY)).await;
    let HookError(text) = ask(&plain.url("https", "127.0.0.1"), LOOPBACK).await.unwrap_err();
    assert!(text.starts_with("no trusted connection to https://127.0.0.1"), "{text}");
}

#[tokio::test]
async fn a_handshake_that_never_comes_ends_with_the_time_to_connect() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let connect_timeout = Duration::from_millis(100);
    let hook = hook(WebhookConfig { connect_timeout, ..config(&url, LOOPBACK) });
    let HookError(text) = hook.invoke(input("1")).await.unwrap_err();
    assert_eq!(text, format!("no connection to {url} in 100ms"));
    // No time is too long.
    let server = Server::start(Reply::json(DENY)).await;
    let connect_timeout = Duration::MAX;
    let config = config(&server.url("http", "127.0.0.1"), LOOPBACK);
    let patient = WebhookHook::new(WebhookConfig { connect_timeout, ..config }, Arc::new(Now));
    assert!(patient.unwrap().invoke(input("1")).await.is_ok());
}
