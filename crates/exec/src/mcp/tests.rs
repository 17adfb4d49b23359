//! Calls of a real server over streamable HTTP, encrypted and not.

#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::convert::Infallible;
use std::net::SocketAddr;

use ::http::header::{AUTHORIZATION, LOCATION};
use ::http::{Request, Response, StatusCode};
use countersign_core::plan::{McpPlan, Plan, RunLimits};
use countersign_ports::executor::ExecutionStatus;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{RoleServer, ServerHandler};
use serde_json::{Map, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::wire::Way;
use super::*;
use crate::Secrets;
use crate::authority::Authority;
use crate::connect::{Target, tls};

/// Far longer than anything here takes, on any machine.
const LONG: Duration = Duration::from_secs(60);
const TOKEN: &str = "Bearer only-for-the-server";

/// What a server does instead of letting MCP answer.
#[derive(Clone)]
enum Instead {
    Nothing,
    Redirect(String),
    /// Ends the connection when it has read the call of a tool.
    Hangup,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    /// What each request carried as authorization.
    requests: Vec<Option<String>>,
    calls: usize,
}

/// A server of rmcp behind what notes requests.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Clone)]
struct Echo(Arc<Mutex<Seen>>);

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({"type": "object"}).as_object().unwrap().clone();
        let says = format!("Says it, and knows {TOKEN}.");
        Ok(ListToolsResult::with_all_items(vec![Tool::new("echo", says, schema)]))
    }

    async fn call_tool(
        &self,
        params: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.0.lock().unwrap().calls += 1;
        let said = json!(params.arguments).to_string();
        Ok(CallToolResult::success(vec![ContentBlock::text(said)]).into())
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    mcp: StreamableHttpService<Echo, LocalSessionManager>,
    seen: Arc<Mutex<Seen>>,
    instead: Instead,
    request: Request<Incoming>,
) -> Result<Response<Body>, &'static str> {
    let authorization = request.headers().get(AUTHORIZATION);
    let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
    seen.lock().unwrap().requests.push(authorization);
    if let Instead::Redirect(to) = instead {
        let mut response = Response::new(Full::default().boxed());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert(LOCATION, to.parse().unwrap());
        return Ok(response);
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| "unread")?.to_bytes();
    if matches!(instead, Instead::Hangup) && body.windows(10).any(|part| part == b"tools/call") {
        seen.lock().unwrap().calls += 1;
        return Err("no answer");
    }
    Ok(mcp.handle(Request::from_parts(head, Full::<Bytes>::from(body))).await)
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>, instead: Instead) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let server = Self { address, seen: Arc::clone(&seen) };
        let echo = Echo(Arc::clone(&seen));
        let mcp = StreamableHttpService::new(
            move || Ok(echo.clone()),
            Arc::<LocalSessionManager>::default(),
            StreamableHttpServerConfig::default(),
        );
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.lock().unwrap().connections += 1;
                let (tls, mcp, seen, instead) =
                    (tls.clone(), mcp.clone(), Arc::clone(&seen), instead.clone());
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        answer(mcp.clone(), Arc::clone(&seen), instead.clone(), request)
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            drop(http.serve_connection(TokioIo::new(stream), service).await);
                        }
                    }
                });
            }
        });
        server
    }

    fn at(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}/mcp", self.address.port())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Connections, and requests.
    fn counts(&self) -> (usize, usize) {
        let seen = self.seen();
        (seen.connections, seen.requests.len())
    }
}

fn upstream(url: &str, roots_pem: Option<&[u8]>) -> HttpUpstream {
    let token = ("authorization".to_owned(), Zeroizing::new(TOKEN.to_owned()));
    HttpUpstream::new(url, vec![token], roots_pem).unwrap()
}

/// Lists the tools, takes them as they are, and calls one.
async fn call(http: HttpUpstream) -> Result<Value, ExecutionStatus> {
    let secrets = [("token".to_owned(), TOKEN.to_owned().into())];
    let secrets = Secrets::new(secrets.into()).unwrap();
    let config = UpstreamConfig {
        name: "up".to_owned(),
        prefix: String::new(),
        transport: UpstreamTransport::Http(http),
        connect_timeout: LONG,
        request_timeout: LONG,
        features: BTreeSet::new(),
        redactor: secrets.redactor().clone(),
        version: "0".to_owned(),
    };
    let (upstreams, mut listings) = Upstreams::new(vec![config]);
    if let Err(why) = upstreams.connect("up").await {
        return Err(ExecutionStatus::NotStarted(why));
    }
    let listed = listings.recv().await.unwrap().tools;
    assert_eq!(listed[0]["description"], "Says it, and knows {_secret:token}.");
    for (tool, digest) in digests(&listed) {
        upstreams.accept("up", &tool, Some(digest));
    }
    let mut arguments = Map::new();
    arguments.insert("n".to_owned(), json!(1));
    let plan = McpPlan { server: "up".to_owned(), tool: "echo".to_owned(), arguments };
    let limits = RunLimits { timeout: LONG, output_max_bytes: 1000, ..RunLimits::default() };
    let done = upstreams.run(ToolRun::new(Plan::Mcp(plan), limits)).await;
    match done.status {
        ExecutionStatus::Answered { ok: true, .. } => {
            Ok(serde_json::from_slice(&done.stdout).unwrap())
        }
        status => Err(status),
    }
}

#[track_caller]
fn not_started(done: Result<Value, ExecutionStatus>, reason: &str) {
    let Err(ExecutionStatus::NotStarted(why)) = done else { panic!("{done:?}") };
    assert!(why.contains(reason), "{why}");
}

#[tokio::test]
async fn an_encrypted_server_is_called_only_if_a_trusted_authority_vouches_for_its_name() {
    let authority = Authority::new();
    let roots = Some(&authority.pem[..]);
    let server = Server::start(Some(authority.vouches("localhost")), Instead::Nothing).await;
    let url = server.at("https", "localhost");
    let said = call(upstream(&url, roots)).await.unwrap();
    assert_eq!(said["content"][0]["text"], r#"{"n":1}"#);
    {
        let seen = server.seen();
        assert!(seen.requests.iter().all(|token| token.as_deref() == Some(TOKEN)));
        // They are used again, rather than made for each request.
        assert!(seen.connections < seen.requests.len(), "{}", seen.connections);
        assert_eq!(seen.calls, 1);
    }
    let strange = Server::start(Some(authority.vouches("localhost")), Instead::Nothing).await;
    let url = strange.at("https", "localhost");
    not_started(call(upstream(&url, None)).await, "UnknownIssuer");
    let other = Authority::new();
    not_started(call(upstream(&url, Some(&other.pem))).await, "no trusted connection");
    let by_address = strange.at("https", "127.0.0.1");
    not_started(call(upstream(&by_address, roots)).await, "certificate not valid for name");
    assert_eq!(strange.counts(), (3, 0));

    let old = Server::start(Some(authority.vouched("localhost")), Instead::Nothing).await;
    not_started(call(upstream(&old.at("https", "localhost"), roots)).await, "expired");
    let plain = Server::start(None, Instead::Nothing).await;
    let done = call(upstream(&plain.at("https", "localhost"), roots)).await;
    not_started(done, "no trusted connection");
    for server in [old, plain] {
        assert_eq!(server.counts(), (1, 0));
    }
}

#[tokio::test]
async fn a_redirect_is_refused_and_takes_nothing_along() {
    let authority = Authority::new();
    let elsewhere = Server::start(None, Instead::Nothing).await;
    let to = elsewhere.at("http", "localhost");
    let acceptor = authority.vouches("localhost");
    let server = Server::start(Some(acceptor), Instead::Redirect(to.clone())).await;
    let url = server.at("https", "localhost");
    not_started(call(upstream(&url, Some(&authority.pem))).await, "HTTP 307");
    let plain = Server::start(None, Instead::Redirect(to)).await;
    not_started(call(upstream(&plain.at("http", "localhost"), None)).await, "HTTP 307");
    assert_eq!(elsewhere.seen().connections, 0);
}

#[tokio::test]
async fn a_secret_leaves_this_machine_encrypted_or_not_at_all() {
    let here = Server::start(None, Instead::Nothing).await;
    for host in ["localhost", "127.0.0.1"] {
        call(upstream(&here.at("http", host), None)).await.unwrap();
    }
    let token = || vec![("x-key".to_owned(), Zeroizing::new("12345678".to_owned()))];
    for url in ["http://a.example/", "http://192.0.2.1/", "http://localhost.example/"] {
        let error = HttpUpstream::new(url, token(), None).unwrap_err();
        assert!(error.rule.contains("without encryption"), "{error}");
        assert!(HttpUpstream::new(url, Vec::new(), None).is_ok());
    }
    assert!(HttpUpstream::new("https://a.example/", token(), None).is_ok());
    // Not even when the name has come to stand for another machine.
    let target = Target::of(&"http://192.0.2.1/".parse().unwrap()).unwrap();
    let way = Way { target, tls: tls(None).unwrap(), only_here: true, within: LONG };
    let why = way.connect().await.err().unwrap();
    assert!(why.unsent && why.reason.contains("only encrypted"), "{why}");
}

#[tokio::test]
async fn a_call_without_an_answer_is_unknown_and_not_sent_again() {
    let authority = Authority::new();
    let acceptor = authority.vouches("localhost");
    let server = Server::start(Some(acceptor), Instead::Hangup).await;
    let done = call(upstream(&server.at("https", "localhost"), Some(&authority.pem))).await;
    let Err(ExecutionStatus::Unknown(why)) = done else { panic!("{done:?}") };
    assert!(why.contains("may or may not have made the call"), "{why}");
    assert_eq!(server.seen().calls, 1);
}
