//! One connection to an upstream server.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_ports::mcp::{McpCaller, McpError};
use rmcp::model::{
    ClientRequest, CustomRequest, ErrorData, ListToolsRequest, PaginatedRequestParams, ServerResult,
};
use rmcp::service::{
    ClientInitializeError, PeerRequestOptions, RequestHandle, RunningService, ServiceError,
};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::StreamableHttpError;
use rmcp::{Peer, RoleClient, ServiceExt as _};
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::timeout;

use super::client::{Shared, Side, UnderWay};
use super::numbers;
use super::process::{self, Process};
use super::{Listing, UpstreamConfig, UpstreamTransport, digests};
use crate::Redactor;
use crate::connect::Failed;

/// Bytes of one message of a program.
const MESSAGE_MAX: usize = 16 << 20;
/// Pages of a list of tools, and tools.
const PAGES_MAX: usize = 100;
const TOOLS_MAX: usize = 2_000;

pub(super) struct Connection {
    shared: Arc<Shared>,
    peer: Peer<RoleClient>,
    tools: Arc<RwLock<BTreeMap<String, Digest>>>,
    /// What an answer showed that the transport does not know.
    dead: watch::Sender<bool>,
    _service: RunningService<RoleClient, Side>,
    _process: Option<Process>,
}

/// How a request ended without an answer.
pub(super) enum Lost {
    /// It was not sent.
    NotSent(String),
    /// It may have been.
    Unknown(String),
}

impl Connection {
    /// Starts or reaches the server, and publishes what it says its tools are.
    pub(super) async fn new(
        config: &UpstreamConfig,
        owner: Option<Arc<dyn McpCaller>>,
        listings: mpsc::UnboundedSender<Listing>,
    ) -> Result<Self, String> {
        let (changed, mut tools_changed) = watch::channel(0);
        let shared = Arc::new(Shared {
            upstream: config.name.clone(),
            version: config.version.clone(),
            features: config.features.clone(),
            redactor: config.redactor.clone(),
            owner,
            under_way: Mutex::default(),
            tools_changed: changed,
        });
        let side = Side(Arc::clone(&shared));
        let (service, process) = match &config.transport {
            UpstreamTransport::Process { argv, process } => {
                let (process, output, input) = process::start(config, argv, process).await?;
                let transport =
                    AsyncRwTransport::new(output, input).with_max_line_length(MESSAGE_MAX);
                (side.serve(transport).await, Some(process))
            }
            UpstreamTransport::Http(http) => {
                let transport = http.transport(config.connect_timeout);
                (side.serve(transport).await, None)
            }
        };
        let ready = async {
            let service = service.map_err(|error| chain(&error))?;
            let tools = list(service.peer(), &shared.redactor).await?;
            Ok((service, tools))
        };
        let (service, tools) = match ready.await {
            Ok(ready) => ready,
            Err(why) => {
                // Its own words say more, if there are any.
                let said = match process {
                    Some(process) => process.end().await,
                    None => String::new(),
                };
                return Err(match said.as_str() {
                    "" => why,
                    said => format!("{why}; its standard error ends with: {said}"),
                });
            }
        };
        let peer = service.peer().clone();
        let known = Arc::new(RwLock::new(digests(&tools)));
        let upstream = config.name.clone();
        // What a server lists to one client is that client's; what it lists to all is published.
        let published = shared.owner.is_none();
        let publish = move |tools| {
            if published {
                let _ = listings.send(Listing { upstream: upstream.clone(), tools });
            }
        };
        publish(tools);
        // Ends with the connection: the sender is in `shared`, which the service has.
        let (again, of, name) = (Arc::clone(&known), peer.clone(), config.name.clone());
        let redactor = config.redactor.clone();
        tokio::spawn(async move {
            while tools_changed.changed().await.is_ok() {
                match list(&of, &redactor).await {
                    Ok(tools) => {
                        let digests = digests(&tools);
                        *again.write().unwrap_or_else(PoisonError::into_inner) = digests;
                        publish(tools);
                    }
                    Err(why) => {
                        let why = redactor.text(why);
                        tracing::warn!(upstream = name, "its tools cannot be listed again: {why}");
                        // What is not known to be accepted is not called.
                        again.write().unwrap_or_else(PoisonError::into_inner).clear();
                    }
                }
            }
        });
        let (dead, _service, _process) = (watch::Sender::new(false), service, process);
        Ok(Self { shared, peer, tools: known, dead, _service, _process })
    }

    pub(super) fn is_dead(&self) -> bool {
        *self.dead.borrow() || self.peer.is_transport_closed()
    }

    /// Has the server list its tools again; the listing is on its way then.
    pub(super) fn list_again(&self) {
        self.shared.tools_changed.send_modify(|count| *count += 1);
    }

    /// The definition of a tool that this very connection has.
    pub(super) fn definition(&self, tool: &str) -> Option<Digest> {
        self.tools.read().unwrap_or_else(PoisonError::into_inner).get(tool).copied()
    }

    /// Sends a request. What comes about it until [`Connection::forget`] reaches the caller.
    pub(super) async fn send(
        &self,
        request: ClientRequest,
        caller: Option<&Arc<dyn McpCaller>>,
    ) -> Result<RequestHandle<RoleClient>, Lost> {
        let mut under_way = self.shared.under_way.lock().await;
        let options = PeerRequestOptions::no_options();
        let sent = self.peer.send_cancellable_request(request, options).await;
        let handle = sent.map_err(|error| Lost::NotSent(chain(&error)))?;
        if let Some(caller) = caller {
            let (id, progress) = (handle.id.clone(), handle.progress_token.clone());
            under_way.push(UnderWay { id, progress, caller: Arc::clone(caller) });
        }
        Ok(handle)
    }

    /// Nothing more is expected about a request.
    pub(super) async fn forget(&self, id: &rmcp::model::RequestId) {
        self.shared.under_way.lock().await.retain(|request| request.id != *id);
    }

    /// What it means that a request has no answer.
    pub(super) fn lost(&self, error: ServiceError) -> Result<ErrorData, Lost> {
        let why = chain(&error);
        match &error {
            ServiceError::McpError(error) => return Ok(error.clone()),
            ServiceError::TransportSend(send) => {
                self.dead.send_replace(true);
                if not_taken(&*send.error) {
                    return Err(Lost::NotSent(why));
                }
            }
            _ => {}
        }
        Err(Lost::Unknown(why))
    }

    /// A request that is no call of a tool.
    pub(super) async fn request(
        &self,
        caller: &Arc<dyn McpCaller>,
        method: &str,
        params: Value,
        within: Duration,
    ) -> Result<Value, McpError> {
        let redactor = &self.shared.redactor;
        let internal = |why: String| McpError::internal(redactor.text(why));
        let lost = |lost: Lost| match lost {
            Lost::NotSent(why) | Lost::Unknown(why) => internal(why),
        };
        let request = CustomRequest::new(method, Some(bare(params)));
        let sent = self.send(ClientRequest::CustomRequest(request), Some(caller)).await;
        let mut handle = sent.map_err(lost)?;
        let answer = timeout(within, &mut handle.rx).await;
        self.forget(&handle.id.clone()).await;
        match answer {
            Ok(Ok(Ok(result))) => {
                value(&result).map(|value| redactor.value(value)).map_err(internal)
            }
            Ok(Ok(Err(error))) => Err(match self.lost(error) {
                Ok(ErrorData { code, message, data }) => McpError {
                    code: code.0,
                    message: redactor.text(message.into_owned()),
                    data: data.map(|data| redactor.value(data)),
                },
                Err(why) => lost(why),
            }),
            Ok(Err(_)) => Err(internal("the connection ended before the answer".to_owned())),
            Err(_) => {
                handle.cancel(Some("it takes too long".to_owned())).await.ok();
                Err(internal(format!("no answer within {} s", within.as_secs_f64())))
            }
        }
    }
}

/// A result as it was on the wire.
pub(super) fn value(result: &ServerResult) -> Result<Value, String> {
    serde_json::to_value(result)
        .map(numbers::of_annotations)
        .map_err(|error| format!("the answer cannot be read: {error}"))
}

/// Parameters without what belongs to the one request they came with.
fn bare(params: Value) -> Value {
    match params {
        Value::Object(mut fields) => {
            fields.remove("_meta");
            Value::Object(fields)
        }
        _ => Value::Object(Map::new()),
    }
}

/// What the server says its tools are, without secrets.
async fn list(peer: &Peer<RoleClient>, redactor: &Redactor) -> Result<Vec<Value>, String> {
    let mut tools = Vec::new();
    let mut cursor = None;
    // A server without tools need not know the method.
    if peer.peer_info().is_some_and(|info| info.capabilities.tools.is_none()) {
        return Ok(tools);
    }
    for _ in 0..PAGES_MAX {
        let params = PaginatedRequestParams::default().with_cursor(cursor);
        let request = ListToolsRequest { params: Some(params), ..Default::default() };
        let answer = peer.send_request(ClientRequest::ListToolsRequest(request)).await;
        let answer = answer.map_err(|error| format!("its tools: {}", chain(&error)))?;
        let answer = redactor.value(value(&answer)?);
        let page = answer.get("tools").and_then(Value::as_array).cloned().unwrap_or_default();
        tools.extend(page);
        if tools.len() > TOOLS_MAX {
            return Err(format!("it lists more than {TOOLS_MAX} tools"));
        }
        match answer.get("nextCursor").and_then(Value::as_str) {
            Some(next) if !next.is_empty() => cursor = Some(next.to_owned()),
            _ => return Ok(tools),
        }
    }
    Err(format!("its list of tools has more than {PAGES_MAX} pages"))
}

/// Whether the server has certainly not taken the request: there was no connection to it, or it
/// does not know the session.
fn not_taken(error: &(dyn std::error::Error + 'static)) -> bool {
    match error.downcast_ref::<StreamableHttpError<Failed>>() {
        Some(StreamableHttpError::SessionExpired) => true,
        Some(StreamableHttpError::Client(failed)) => failed.unsent,
        _ => false,
    }
}

/// An error and its sources, in one line, for people: without the names of types around them.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<ClientInitializeError>() {
        Some(ClientInitializeError::TransportError { error, .. }) => return chain(&*error.error),
        Some(ClientInitializeError::ConnectionClosed(_)) => {
            return "it ended the connection before it had answered the handshake".to_owned();
        }
        Some(ClientInitializeError::JsonRpcError(error)) => {
            return format!("it refused the handshake: {} ({})", error.message, error.code.0);
        }
        Some(
            ClientInitializeError::ExpectedInitResponse(_)
            | ClientInitializeError::ExpectedInitResult(_),
        ) => return "what it sent is no answer to the handshake".to_owned(),
        _ => {}
    }
    match error.downcast_ref::<ServiceError>() {
        Some(ServiceError::TransportSend(error)) => return chain(&*error.error),
        Some(ServiceError::TransportClosed) => return "the connection has ended".to_owned(),
        _ => {}
    }
    match error.downcast_ref::<StreamableHttpError<Failed>>() {
        Some(StreamableHttpError::Client(failed)) => return failed.reason.clone(),
        Some(StreamableHttpError::UnexpectedServerResponse(said)) => {
            return said.clone().into_owned();
        }
        _ => {}
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// What stands in the output of a call for an answer that is an error of the protocol.
pub(super) fn error_value(error: &ErrorData) -> Value {
    json!({ "error": error })
}
