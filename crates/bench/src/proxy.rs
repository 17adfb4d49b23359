//! What the gateway adds to a call of an MCP server: the same tool of the same program, called by
//! the same client, directly and through the gateway, turn by turn. Two durable, signed records are
//! written for each call that goes through it; beside them, two bare writes with fdatasync.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, JsonObject,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{Peer, RoleClient, RoleServer, ServerHandler, ServiceExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use axum::serve::{Listener as _, ListenerExt as _};

use crate::disk::Bare;
use crate::{Figures, figures};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The gateway's binary, built as a release is [default: `countersign` beside this one]
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// Calls of each kind
    #[arg(long, default_value_t = 3000)]
    calls: usize,
    /// Calls of each kind that are made before anything is measured
    #[arg(long, default_value_t = 500)]
    warm_up: usize,
    /// Where the journal is; must be on the disk that is to be measured
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
}

/// How a server is reached. The gateway reaches the server as the client reaches the gateway.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    Stdio,
    Http,
}

impl Transport {
    const fn name(self) -> &'static str {
        match self {
            Self::Stdio => "stdio",
            Self::Http => "http",
        }
    }
}

/// The server: one tool that says what it was told.
#[derive(Clone)]
struct Echo;

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({
            "type": "object",
            "properties": {"text": {"type": "string"}, "number": {"type": "integer"}},
            "required": ["text"],
        });
        let Value::Object(schema) = schema else { unreachable!() };
        let tools = vec![Tool::new("echo", "Says what it was told.", schema)];
        Ok(ListToolsResult { tools, ..ListToolsResult::default() })
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let text = request.arguments.and_then(|arguments| arguments.get("text").cloned());
        let text = text.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Serves until its input ends. By HTTP, the first line of output says where.
pub(crate) fn upstream(transport: Transport) {
    runtime().block_on(async {
        if transport == Transport::Stdio {
            let running = Echo.serve(rmcp::transport::io::stdio()).await.unwrap();
            running.waiting().await.unwrap();
            return;
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        println!("http://{}/mcp", listener.local_addr().unwrap());
        let service = StreamableHttpService::new(
            || Ok(Echo),
            std::sync::Arc::new(LocalSessionManager::default()),
            StreamableHttpServerConfig::default(),
        );
        let router = axum::Router::new().route_service("/mcp", service);
        let serve = axum::serve(listener, router).into_future();
        let mut input = tokio::io::stdin();
        let mut nowhere = tokio::io::sink();
        let over = tokio::io::copy(&mut input, &mut nowhere);
        tokio::select! {
            served = serve => served.unwrap(),
            _ = over => {}
        }
    });
}

/// A server that runs, with a client that is connected to it.
struct Side {
    client: RunningService<RoleClient, ()>,
    tool: &'static str,
    child: Child,
}

impl Side {
    async fn start(mut command: Command, transport: Transport, tool: &'static str) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let client = match transport {
            Transport::Stdio => ().serve((output, child.stdin.take().unwrap())).await.unwrap(),
            Transport::Http => {
                let mut line = String::new();
                BufReader::new(output).read_line(&mut line).await.unwrap();
                let (url, token) = match serde_json::from_str::<Value>(&line) {
                    Ok(banner) => (text(&banner["mcp"]), Some(text(&banner["agent_token"]))),
                    Err(_) => (line.trim().to_owned(), None),
                };
                let mut config = StreamableHttpClientTransportConfig::with_uri(url);
                if let Some(token) = token {
                    config = config.auth_header(token);
                }
                let http = reqwest::Client::builder().no_proxy().build().unwrap();
                ().serve(StreamableHttpClientTransport::with_client(http, config)).await.unwrap()
            }
        };
        Self { client, tool, child }
    }

    async fn call(&self, n: usize) -> Duration {
        let peer: &Peer<RoleClient> = self.client.peer();
        let said = format!("call {n} of a measurement");
        let arguments = JsonObject::from_iter([
            ("text".to_owned(), said.clone().into()),
            ("number".to_owned(), n.into()),
        ]);
        let request = CallToolRequestParams::new(self.tool).with_arguments(arguments);
        let begin = Instant::now();
        let result = peer.call_tool(request).await.unwrap();
        let took = begin.elapsed();
        let result = serde_json::to_value(result).unwrap();
        assert_eq!(
            (&result["isError"], &result["content"][0]["text"]),
            (&json!(false), &json!(said))
        );
        took
    }

    async fn stop(mut self) {
        self.client.cancel().await.unwrap();
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().await.unwrap();
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn upstream_command(transport: Transport) -> Vec<String> {
    let program = std::env::current_exe().unwrap().into_os_string().into_string().unwrap();
    vec![program, "upstream".to_owned(), transport.name().to_owned()]
}

async fn direct(transport: Transport) -> Side {
    let argv = upstream_command(transport);
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]);
    Side::start(command, transport, "echo").await
}

/// The gateway with nothing but the server behind it, in a folder of its own.
async fn behind(gateway: &Path, dir: &Path, transport: Transport, upstream: Value) -> Side {
    for folder in ["root", "tools"] {
        std::fs::create_dir(dir.join(folder)).unwrap();
    }
    let key = if transport == Transport::Stdio { "command" } else { "url" };
    let config = format!("[[upstream]]\nname = \"up\"\n{key} = {upstream}\nrisk = \"low\"\n");
    let file = dir.join("countersign.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(gateway);
    command.current_dir(dir).arg("serve").arg("--config").arg(file).stderr(Stdio::null());
    command.args(["--bind", "127.0.0.1:0", "--state", "state", "--tools", "tools"]);
    command.args(["--root", "root", "--json"]);
    if transport == Transport::Stdio {
        command.arg("--stdio");
    }
    Side::start(command, transport, "up_echo").await
}

pub(crate) struct Row {
    transport: Transport,
    direct: Figures,
    behind: Figures,
    bare: Figures,
}

impl Row {
    fn added(&self) -> f64 {
        self.behind.p50_us - self.direct.p50_us
    }

    /// The least that can be added: the way to the server once more, and the two commits.
    fn least(&self) -> f64 {
        self.direct.p50_us + self.bare.p50_us
    }
}

async fn measure(options: &Options, gateway: &Path, transport: Transport) -> Row {
    let dir = tempfile::tempdir_in(&options.dir).unwrap();
    let directly = direct(transport).await;
    // What the gateway reaches is a process of its own, started the same way.
    let mut second = None;
    let upstream = match transport {
        Transport::Stdio => json!(upstream_command(transport)),
        Transport::Http => {
            let argv = upstream_command(transport);
            let mut command = Command::new(&argv[0]);
            command.args(&argv[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.kill_on_drop(true).spawn().unwrap();
            let mut line = String::new();
            let output = child.stdout.take().unwrap();
            BufReader::new(output).read_line(&mut line).await.unwrap();
            second = Some(child);
            json!(line.trim())
        }
    };
    let behind = behind(gateway, dir.path(), transport, upstream).await;
    for n in 0..options.warm_up {
        directly.call(n).await;
        behind.call(n).await;
    }
    let mut bare = Bare::new(dir.path());
    let record = vec![0x5a; 4096];
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let start = Instant::now();
    for n in options.warm_up..options.warm_up + options.calls {
        times[0].push(directly.call(n).await);
        times[1].push(behind.call(n).await);
        let begin = Instant::now();
        bare.commit(&record);
        bare.commit(&record);
        times[2].push(begin.elapsed());
    }
    let elapsed = start.elapsed();
    directly.stop().await;
    behind.stop().await;
    drop(second);
    let [direct, behind, bare] = times.map(|times| figures(times, elapsed));
    Row { transport, direct, behind, bare }
}

/// Measures by both transports.
pub(crate) fn run(options: &Options) -> Vec<Row> {
    let beside = std::env::current_exe().unwrap().with_file_name("countersign");
    let gateway = options.gateway.clone().unwrap_or(beside);
    let gateway = gateway.canonicalize().unwrap_or_else(|error| {
        panic!("{}: {error}; build it: cargo build --release -p countersign", gateway.display())
    });
    std::fs::create_dir_all(&options.dir).unwrap();
    [Transport::Stdio, Transport::Http]
        .map(|transport| runtime().block_on(measure(options, &gateway, transport)))
        .into()
}

pub(crate) fn to_json(rows: &[Row]) -> Value {
    let rows = rows.iter().map(|row| {
        json!({
            "transport": row.transport.name(),
            "direct": row.direct,
            "behind_the_gateway": row.behind,
            "added_p50_us": row.added(),
            "least_added_p50_us": row.least(),
            "two_bare_fdatasyncs": row.bare,
        })
    });
    rows.collect()
}

pub(crate) fn print(options: &Options, rows: &[Row]) {
    println!("\n{} calls of an MCP server's tool, turn by turn, p50 and p99 in us", options.calls);
    println!("The least that can be added is the way to the server once more, and two fdatasyncs.");
    println!(
        "               directly   behind the gateway   added p50   the least   two bare fdatasyncs"
    );
    for row in rows {
        println!(
            "{:8} {:6.0} {:7.0}     {:7.0} {:8.0}     {:7.0}     {:7.0}       {:7.0} {:8.0}",
            row.transport.name(),
            row.direct.p50_us,
            row.direct.p99_us,
            row.behind.p50_us,
            row.behind.p99_us,
            row.added(),
            row.least(),
            row.bare.p50_us,
            row.bare.p99_us,
        );
    }
}
