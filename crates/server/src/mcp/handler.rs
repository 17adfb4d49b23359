//! What the agent can ask for: the tools there are, a call of one of them, and what passes to
//! upstream servers.

#![expect(deprecated, reason = "clients still subscribe and set levels")]

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::http::request::Parts;
use countersign_core::hold::HoldStatus;
use countersign_core::id::{ApprovalRequestId, IdempotencyKey, SessionId};
use countersign_core::text::visible;
use countersign_kernel::{CallOptions, Kernel, Run};
use countersign_manifest::{Envelope, Manifest, ManifestSet};
use countersign_ports::mcp::McpFeature;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams,
    ClientJsonRpcMessage, ClientRequest, CompleteRequestParams, CompleteResult, CustomNotification,
    CustomRequest, CustomResult, ErrorCode, Extensions, GetPromptRequestParams, GetPromptResponse,
    GetPromptResult, GetTaskParams, Implementation, InitializeRequestParams, InitializeResult,
    JsonObject, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
    ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ProgressToken,
    ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    Reference, RequestMetaObject, ServerCapabilities, ServerConfig, ServerNotification,
    ServerResult, SetLevelRequestParams, SubscribeRequestParams, Tool, UnsubscribeRequestParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, Peer, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Passage;
use super::caller::Client;
use super::result::{STDIO_MAX, answer, pending};
use super::run::AgentRun;
use super::tasks::{NewTask, Seen, Task, TaskAsked, Tasks};
use super::upstream;
use crate::auth::{Principal, Role};
use crate::critics;
use crate::gateway::Gateway;
use crate::pending::still_pending;

/// Pending calls of one session.
const CALLS_MAX: usize = 1024;
/// When a waiting call first says so, and how often from then on.
const FIRST_PROGRESS: Duration = Duration::from_secs(1);
const PROGRESS: Duration = Duration::from_secs(10);

/// From JSON-RPC's range for errors of the server.
pub(crate) const UNAVAILABLE: ErrorCode = ErrorCode(-32000);
/// No answer is sent to a cancelled request; this is for what ends it otherwise.
const CALLED_OFF: ErrorCode = ErrorCode(-32800);

const INSTRUCTIONS: &str = "Every call is recorded before it runs. Some calls wait for a \
    person's approval, which may take minutes. A result that says `pending approval` is no \
    failure: nothing has happened yet. Send exactly the same call again to wait on, or to get \
    its outcome; it runs once. A denied call did not run; its result says who denied it and why.";

/// In a request's `_meta`: sent again under the same key, a call is not made again.
const KEY: &str = "countersign/idempotency-key";

/// What all handlers share.
pub(crate) struct Shared {
    pub(crate) gateway: Arc<Gateway>,
    tasks: Tasks,
    tools: Mutex<Listing>,
}

/// The tools as they are listed, and what that was made of.
type Listing = (Arc<ManifestSet>, Arc<Vec<Tool>>);

impl Shared {
    pub(crate) fn new(gateway: Arc<Gateway>) -> Self {
        let tools = Mutex::new(listing(&gateway.kernel, gateway.kernel.manifests()));
        Self { gateway, tasks: Tasks::default(), tools }
    }

    fn tools(&self) -> Arc<Vec<Tool>> {
        let manifests = self.gateway.kernel.manifests();
        let mut tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&tools.0, &manifests) {
            *tools = listing(&self.gateway.kernel, manifests);
        }
        Arc::clone(&tools.1)
    }
}

fn listing(kernel: &Kernel, manifests: Arc<ManifestSet>) -> Listing {
    let output = object(Envelope::output_schema());
    let listed = manifests.iter().filter(|manifest| !manifest.is_own());
    let tools = listed.filter_map(|manifest| tool(kernel, manifest, &output)).collect();
    (manifests, Arc::new(tools))
}

/// Tells the client of a session when there are other tools, until the session ends.
async fn tell_of_changes(shared: Arc<Shared>, session: Arc<AgentRun>, peer: Peer<RoleServer>) {
    let mut changes = shared.gateway.kernel.manifests_changes();
    loop {
        tokio::select! {
            () = session.over() => return,
            changed = changes.changed() => {
                if changed.is_err() || peer.notify_tool_list_changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

fn tool(kernel: &Kernel, manifest: &Manifest, output: &Arc<JsonObject>) -> Option<Tool> {
    let mut text = manifest.description().trim_end().to_owned();
    if kernel.policy().may_hold(manifest) {
        let end = if text.is_empty() || text.ends_with(['.', '!', '?']) { " " } else { ". " };
        text = format!("{text}{end}Needs a person's approval.").trim_start().to_owned();
    }
    if manifest.upstream_definition().is_some() {
        return upstream::tool(kernel, manifest, text);
    }
    let tool = Tool::new(manifest.name().to_owned(), text, object(manifest.input_schema()));
    Some(match upstream::output_schema(manifest, output) {
        Some(output) => tool.with_raw_output_schema(output),
        None => tool,
    })
}

fn object(schema: Value) -> Arc<JsonObject> {
    match schema {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
}

/// One client. rmcp makes one for each session, and for each request outside a session.
pub(crate) struct Handler {
    shared: Arc<Shared>,
    stdio: bool,
    /// Set by the handshake; from the beginning on standard input and output.
    session: OnceLock<Arc<AgentRun>>,
}

impl Handler {
    pub(crate) fn http(shared: Arc<Shared>) -> Self {
        Self { shared, stdio: false, session: OnceLock::new() }
    }

    pub(crate) fn stdio(shared: Arc<Shared>, run: Arc<AgentRun>) -> Self {
        Self { shared, stdio: true, session: OnceLock::from(run) }
    }

    /// The session's run, if it is the asking principal's. The HTTP side has checked that
    /// before; this is the second lock on the same door.
    fn session(
        &self,
        ctx: &RequestContext<RoleServer>,
    ) -> Result<(&Arc<AgentRun>, &Arc<Run>), ErrorData> {
        let session = self.session.get();
        let (session, run) = session
            .and_then(|session| Some((session, session.run()?)))
            .ok_or_else(|| ErrorData::invalid_request("initialize a session first", None))?;
        let parts = ctx.extensions.get::<Parts>();
        let asking = parts.and_then(|parts| parts.extensions.get::<Arc<Principal>>());
        if self.stdio || asking.is_some_and(|asking| asking.id == session.principal.id) {
            Ok((session, run))
        } else {
            Err(ErrorData::invalid_request("this is somebody else's session", None))
        }
    }

    /// Bytes of an answer of an upstream server that this client gets.
    fn answer_max(&self) -> usize {
        if self.stdio { STDIO_MAX } else { self.shared.gateway.answer_max }
    }

    /// The client that a request comes from.
    fn client(&self, run: &Arc<Run>, ctx: &RequestContext<RoleServer>) -> Client {
        Client {
            kernel: self.shared.gateway.kernel.clone(),
            run: Arc::clone(run),
            peer: ctx.peer.clone(),
            request: Some(ctx.id.clone()),
            progress: ctx.meta.get_progress_token(),
        }
    }

    /// What lets a request of this kind pass, and the client it comes from.
    fn passage(
        &self,
        feature: McpFeature,
        ctx: &RequestContext<RoleServer>,
    ) -> Result<(&Passage, Client), ErrorData> {
        let (session, run) = self.session(ctx)?;
        let gateway = &self.shared.gateway;
        if gateway.stopping.is_cancelled() || session.ended.is_cancelled() {
            return Err(stopping());
        }
        // A critic has nothing to ask of upstream servers.
        let agent = session.principal.has_any(&[Role::Agent]);
        let passage = gateway.passage.as_ref().filter(|passage| agent && passage.has(feature));
        let none = || {
            let what = format!("{feature:?}").to_lowercase();
            let text = format!("no upstream server's {what} are passed on: `pass` does not say so");
            ErrorData::new(ErrorCode::METHOD_NOT_FOUND, text, None)
        };
        Ok((passage.ok_or_else(none)?, self.client(run, ctx)))
    }
}

pub(crate) fn stopping() -> ErrorData {
    ErrorData::new(UNAVAILABLE, "the gateway is stopping; try again", None)
}

/// The header by which a client names its own session, which may have many runs: grants reach
/// as far as it does.
const SESSION_HEADER: &str = "countersign-session";

fn own_session(parts: Option<&Parts>) -> Result<Option<SessionId>, ErrorData> {
    let Some(value) = parts.and_then(|parts| parts.headers.get(SESSION_HEADER)) else {
        return Ok(None);
    };
    let id = value.to_str().ok().map(SessionId::new);
    match id {
        Some(Ok(id)) => Ok(Some(id)),
        Some(Err(error)) => {
            Err(ErrorData::invalid_request(format!("{SESSION_HEADER}: {error}"), None))
        }
        None => Err(ErrorData::invalid_request(format!("{SESSION_HEADER} is not ASCII"), None)),
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let version = self.shared.gateway.version.clone();
        let mut capabilities =
            ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build();
        if let Some(passage) = &self.shared.gateway.passage {
            passage.announce(&mut capabilities);
        }
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("countersign", version))
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
            .with_instructions(INSTRUCTIONS)
    }

    /// Only versions with a handshake: without one there is no session, and so no run.
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(ProtocolVersion::known_up_to(&ProtocolVersion::V_2025_11_25))
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        ctx: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        if self.shared.gateway.stopping.is_cancelled() {
            return Err(stopping());
        }
        let session = match (self.session.get(), ctx.extensions.get::<Arc<AgentRun>>()) {
            (Some(session), _) if self.stdio => session,
            (None, Some(session)) => self.session.get_or_init(|| Arc::clone(session)),
            (None, None) => {
                let text = "too many sessions with pending calls; end one of them first";
                return Err(ErrorData::new(UNAVAILABLE, text, None));
            }
            (Some(_), _) => {
                return Err(ErrorData::invalid_request("the session is initialized already", None));
            }
        };
        let client = &request.client_info;
        let over = if self.stdio { "standard input and output" } else { "HTTP" };
        let how = format!("MCP over {over}, from {} {}", client.name, client.version);
        if session.run().is_none() {
            let own = own_session(ctx.extensions.get::<Parts>())?;
            session
                .start(own, how)
                .await
                .map_err(|error| ErrorData::internal_error(error, None))?;
            let (shared, session) = (Arc::clone(&self.shared), Arc::clone(session));
            tokio::spawn(tell_of_changes(shared, session, ctx.peer.clone()));
        }
        ctx.peer.set_peer_info(request.clone());
        self.negotiate_initialize(&request)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        if name == critics::TOOL {
            return Some(judging());
        }
        self.shared.tools().iter().find(|tool| tool.name == name).cloned()
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        ctx: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let (session, _) = self.session(&ctx)?;
        let mut tools = Vec::new();
        if session.principal.has_any(&[Role::Agent]) {
            tools.extend_from_slice(&self.shared.tools());
        }
        if session.principal.has_any(&[Role::Critic]) {
            tools.push(judging());
        }
        Ok(ListToolsResult::with_all_items(tools))
    }

    /// What is read here and not by the library; a request whose parameters do not fit its
    /// method arrives here, too.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        ctx: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let method = request.method.as_str();
        // What a client wanted that is newer has become this version.
        let since = ProtocolVersion::V_2025_11_25;
        let version = ctx.protocol_version();
        // Only agents call tools.
        let session = self.session(&ctx);
        let agent = session.is_ok_and(|(session, _)| session.principal.has_any(&[Role::Agent]));
        let tasks = agent && !self.stdio && version.is_some_and(|v| v.as_str() >= since.as_str());
        let kernel = &self.shared.gateway.kernel;
        let answer = match method {
            "tools/call" => {
                let call = params::<CallToolRequestParams>(&request)?;
                match task_asked(&ctx.extensions).filter(|_| tasks) {
                    Some(asked) => self.start_task(call, asked, &ctx).await?,
                    // Who does not know tasks may not ask for one, and gets none.
                    None => match self.call_tool(call, ctx).await? {
                        CallToolResponse::Complete(result) => written_here(result)?,
                        _ => return Err(ErrorData::internal_error("no result of a call", None)),
                    },
                }
            }
            "tools/list" => {
                let page = params::<Option<PaginatedRequestParams>>(&request)?;
                let mut list = written_here(self.list_tools(page, ctx).await?)?;
                let tools = list.get_mut("tools").and_then(Value::as_array_mut);
                for tool in tools.into_iter().flatten().filter_map(Value::as_object_mut) {
                    if tasks {
                        tool.insert("execution".to_owned(), json!({ "taskSupport": "optional" }));
                    }
                }
                list
            }
            "tasks/get" if tasks => {
                let asked = params::<GetTaskParams>(&request)?;
                self.task(&asked.task_id, &ctx).await?.to_json(kernel)
            }
            "tasks/cancel" if tasks => {
                let asked = params::<CancelTaskParams>(&request)?;
                let task = self.task(&asked.task_id, &ctx).await?;
                task.cancel().await?;
                task.to_json(kernel)
            }
            "tasks/result" if tasks => {
                let asked = params::<GetTaskParams>(&request)?;
                written_here(self.task_result(&asked.task_id, &ctx).await?)?
            }
            "tasks/list" if tasks => {
                let (_, run) = self.session(&ctx)?;
                self.shared.tasks.list(&self.shared.gateway, run)
            }
            "initialize" | "ping" => {
                let text = format!("the parameters do not fit {method}");
                return Err(ErrorData::invalid_params(text, None));
            }
            _ => {
                let method: String = visible(method).chars().take(64).collect();
                let text = format!("there is no method {method}");
                return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, text, None));
            }
        };
        Ok(CustomResult::new(answer))
    }

    async fn list_prompts(
        &self,
        page: Option<PaginatedRequestParams>,
        ctx: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let feature = McpFeature::Prompts;
        let (passage, client) = self.passage(feature, &ctx)?;
        passage.list(&client, feature, ("prompts/list", "prompts"), page).await
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        ctx: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let (passage, client) = self.passage(McpFeature::Prompts, &ctx)?;
        let got = passage.about_prompt::<GetPromptResult>(&client, "prompts/get", "/name", request);
        Ok(got.await?.into())
    }

    async fn list_resources(
        &self,
        page: Option<PaginatedRequestParams>,
        ctx: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let feature = McpFeature::Resources;
        let (passage, client) = self.passage(feature, &ctx)?;
        passage.list(&client, feature, ("resources/list", "resources"), page).await
    }

    async fn list_resource_templates(
        &self,
        page: Option<PaginatedRequestParams>,
        ctx: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let feature = McpFeature::Resources;
        let (passage, client) = self.passage(feature, &ctx)?;
        let list = ("resources/templates/list", "resourceTemplates");
        passage.list(&client, feature, list, page).await
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        ctx: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let feature = McpFeature::Resources;
        let (passage, client) = self.passage(feature, &ctx)?;
        let uri = request.uri.clone();
        let read = passage.about_resource(&client, feature, "resources/read", &uri, request);
        let read: ReadResourceResult = read.await?;
        Ok(read.into())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        ctx: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let feature = McpFeature::Resources;
        let (passage, client) = self.passage(feature, &ctx)?;
        let uri = request.uri.clone();
        let about = passage.about_resource(&client, feature, "resources/subscribe", &uri, request);
        about.await.map(|_: Value| ())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        ctx: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let feature = McpFeature::Resources;
        let (passage, client) = self.passage(feature, &ctx)?;
        let (uri, method) = (request.uri.clone(), "resources/unsubscribe");
        let about = passage.about_resource(&client, feature, method, &uri, request);
        about.await.map(|_: Value| ())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        ctx: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let feature = McpFeature::Completions;
        let (passage, client) = self.passage(feature, &ctx)?;
        let method = "completion/complete";
        match &request.r#ref {
            Reference::Resource(resource) => {
                let uri = resource.uri.clone();
                passage.about_resource(&client, feature, method, &uri, request).await
            }
            _ => passage.about_prompt(&client, method, "/ref/name", request).await,
        }
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        ctx: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let feature = McpFeature::Logging;
        let (passage, client) = self.passage(feature, &ctx)?;
        passage.to_all(&client, feature, "logging/setLevel", request).await
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        ctx: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let (session, run) = self.session(&ctx)?;
        let gateway = &self.shared.gateway;
        // INVARIANT: counted first, so that a shutdown that no longer sees `stopping` checked
        // here waits for the call.
        let _pending = (gateway.calls.token(), session.pending());
        if gateway.stopping.is_cancelled() || session.ended.is_cancelled() {
            return Err(stopping());
        }
        if session.calls.len() > CALLS_MAX {
            let text = format!("{CALLS_MAX} calls of this session are pending already");
            return Err(ErrorData::new(UNAVAILABLE, text, None));
        }
        if session.principal.has_any(&[Role::Critic]) && request.name == critics::TOOL {
            return verdict(gateway, &session.principal, request.arguments).await.map(Into::into);
        }
        if !session.principal.has_any(&[Role::Agent]) {
            let name: String = visible(&request.name).chars().take(64).collect();
            gateway.refused(&format!("calling {name} by {}", session.principal.id)).await;
            let text =
                format!("a critic records verdicts, with {}, and calls no tools", critics::TOOL);
            return Err(ErrorData::invalid_params(text, None));
        }
        let idempotency_key = idempotency_key(&ctx.meta)?;
        let options = CallOptions {
            kept: true,
            idempotency_key,
            mcp: Some(Arc::new(self.client(run, &ctx))),
        };
        let arguments = request.arguments.unwrap_or_default();
        let made = gateway.kernel.call(run, &request.name, &arguments, options);
        let hold = made.hold();
        let call = Call {
            gateway: Arc::clone(gateway),
            ended: session.ended.clone(),
            off: CancellationToken::new(),
            tool: request.name.clone().into_owned(),
            passing: upstream::passing(&gateway.kernel, &request.name, self.answer_max()),
            made,
        };
        // Whatever becomes of this future, the call does not outlive it unless that is wanted.
        let off = call.off.clone().drop_guard();
        let call = gateway.calls.spawn(call.answer());
        let progress = Progress {
            kernel: &gateway.kernel,
            hold,
            token: ctx.meta.get_progress_token(),
            peer: &ctx.peer,
        };
        // A connection that breaks does not end up here: the call goes on, and its result
        // waits in the session's events.
        tokio::select! {
            biased;
            made = call => match made {
                Ok(made) => made.map(Into::into),
                Err(error) => Err(ErrorData::internal_error(format!("the call: {error}"), None)),
            },
            () = ctx.ct.cancelled() => {
                if session.input_ended.is_cancelled() {
                    // Nobody called it off. A held call stays held: the gateway stops, and
                    // finds it in the journal when it is started again.
                    drop(off.disarm());
                }
                Err(ErrorData::new(CALLED_OFF, "the call was called off", None))
            }
            never = progress.report() => match never {},
        }
    }
}

/// What a critic can call.
fn judging() -> Tool {
    let text = "Records a signed verdict on what somebody else has put out. The texts are hashed \
                and not kept.";
    Tool::new(critics::TOOL, text, object(critics::schema()))
}

async fn verdict(
    gateway: &Arc<Gateway>,
    critic: &Principal,
    arguments: Option<JsonObject>,
) -> Result<CallToolResult, ErrorData> {
    let judging = serde_json::from_value(Value::Object(arguments.unwrap_or_default()));
    let judging = judging.map_err(|error| ErrorData::invalid_params(error.to_string(), None))?;
    Ok(match critics::record(gateway, critic, judging).await {
        Ok(judged) => CallToolResult::structured(json!(judged)),
        Err(problem) => CallToolResult::structured_error(
            json!({ "error": problem.error, "code": problem.code }),
        ),
    })
}

/// Puts what the library has no field for into the answer to `initialize`.
pub(crate) fn with_tasks(result: ServerResult) -> ServerResult {
    let ServerResult::InitializeResult(answer) = &result else { return result };
    if answer.protocol_version != ProtocolVersion::V_2025_11_25 {
        return result;
    }
    let Ok(mut value) = serde_json::to_value(answer) else { return result };
    let Some(Value::Object(capabilities)) = value.get_mut("capabilities") else { return result };
    let tasks = json!({ "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } });
    capabilities.insert("tasks".to_owned(), tasks);
    ServerResult::CustomResult(CustomResult::new(value))
}

/// What the library knows in another form than this protocol version, as a request that the
/// handler reads by itself: tasks, and tools that can be called as one.
pub(crate) fn as_read_here(message: ClientJsonRpcMessage) -> ClientJsonRpcMessage {
    let ClientJsonRpcMessage::Request(mut message) = message else { return message };
    let custom = |method: &str, params: Result<Value, serde_json::Error>, extensions| {
        let request = CustomRequest::new(method, params.ok());
        ClientRequest::CustomRequest(CustomRequest { extensions, ..request })
    };
    message.request = match message.request {
        ClientRequest::CallToolRequest(call) if task_asked(&call.extensions).is_some() => {
            custom("tools/call", serde_json::to_value(&call.params), call.extensions)
        }
        ClientRequest::ListToolsRequest(list) => {
            custom("tools/list", serde_json::to_value(&list.params), list.extensions)
        }
        ClientRequest::GetTaskRequest(get) => {
            custom("tasks/get", serde_json::to_value(&get.params), get.extensions)
        }
        ClientRequest::CancelTaskRequest(cancel) => {
            custom("tasks/cancel", serde_json::to_value(&cancel.params), cancel.extensions)
        }
        other => other,
    };
    ClientJsonRpcMessage::Request(message)
}

fn task_asked(extensions: &Extensions) -> Option<TaskAsked> {
    extensions.get::<Parts>().and_then(|parts| parts.extensions.get::<TaskAsked>()).copied()
}

/// A result in the form that this protocol version has.
fn written_here(result: impl serde::Serialize) -> Result<Value, ErrorData> {
    let value = serde_json::to_value(result);
    let mut value = value.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
    if let Value::Object(fields) = &mut value {
        fields.remove("resultType");
    }
    Ok(value)
}

/// The parameters, if they fit the method.
fn params<T: serde::de::DeserializeOwned>(request: &CustomRequest) -> Result<T, ErrorData> {
    let params = request.params.clone().unwrap_or(Value::Null);
    serde_json::from_value(params).map_err(|_| {
        let text = format!("the parameters do not fit {}", request.method);
        ErrorData::invalid_params(text, None)
    })
}

impl Handler {
    async fn start_task(
        &self,
        request: CallToolRequestParams,
        asked: TaskAsked,
        ctx: &RequestContext<RoleServer>,
    ) -> Result<Value, ErrorData> {
        let (session, run) = self.session(ctx)?;
        let gateway = &self.shared.gateway;
        // INVARIANT: counted first, as in `call_tool`.
        let _pending = gateway.calls.token();
        if gateway.stopping.is_cancelled() || session.ended.is_cancelled() {
            return Err(stopping());
        }
        let key = idempotency_key(&ctx.meta)?;
        let arguments = request.arguments.unwrap_or_default();
        let new = NewTask { run, tool: &request.name, arguments, key, asked };
        let (task, new) = self.shared.tasks.start(gateway, new)?;
        let seen = task.seen();
        let told = json!({ "task": task.to_json(&gateway.kernel) });
        // However often it is sent again under its key, its changes are told once.
        if new {
            let about = (Arc::clone(gateway), Arc::clone(session), task, ctx.peer.clone());
            tokio::spawn(tell_of_task(about, seen));
        }
        Ok(told)
    }

    async fn task(
        &self,
        id: &str,
        ctx: &RequestContext<RoleServer>,
    ) -> Result<Arc<Task>, ErrorData> {
        let (_, run) = self.session(ctx)?;
        self.shared.tasks.find(&self.shared.gateway, run, id).await
    }

    /// Waits for a task as a call waits for its outcome. Nobody's leaving ends the task.
    async fn task_result(
        &self,
        id: &str,
        ctx: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let (session, _) = self.session(ctx)?;
        let gateway = &self.shared.gateway;
        let _pending = (gateway.calls.token(), session.pending());
        if session.calls.len() > CALLS_MAX {
            let text = format!("{CALLS_MAX} calls of this session are pending already");
            return Err(ErrorData::new(UNAVAILABLE, text, None));
        }
        let task = self.task(id, ctx).await?;
        let progress = Progress {
            kernel: &gateway.kernel,
            hold: task.hold(),
            token: ctx.meta.get_progress_token(),
            peer: &ctx.peer,
        };
        let over = |why: &'static str| Err(ErrorData::new(CALLED_OFF, why, None));
        tokio::select! {
            biased;
            result = task.result() => result,
            () = ctx.ct.cancelled() => over("the client waits no more; its task goes on"),
            () = session.ended.cancelled() => over("the session ended; its task goes on"),
            never = progress.report() => match never {},
        }
    }
}

/// Tells the client of a session what becomes of its task, as long as the session lasts.
async fn tell_of_task(
    (gateway, session, task, peer): (Arc<Gateway>, Arc<AgentRun>, Arc<Task>, Peer<RoleServer>),
    mut seen: Seen,
) {
    loop {
        tokio::select! {
            () = session.over() => return,
            more = task.changed(&mut seen) => if !more { return },
        }
        let status = task.to_json(&gateway.kernel);
        let note = CustomNotification::new("notifications/tasks/status", Some(status));
        let note = ServerNotification::CustomNotification(note);
        if peer.send_notification(note).await.is_err() {
            return;
        }
    }
}

fn idempotency_key(meta: &RequestMetaObject) -> Result<Option<IdempotencyKey>, ErrorData> {
    let Some(value) = meta.get(KEY) else { return Ok(None) };
    let key = value.as_str().map(IdempotencyKey::new);
    match key {
        Some(Ok(key)) => Ok(Some(key)),
        Some(Err(error)) => Err(ErrorData::invalid_params(format!("_meta {KEY}: {error}"), None)),
        None => Err(ErrorData::invalid_params(format!("_meta {KEY} is no text"), None)),
    }
}

/// One call, on its way.
struct Call {
    gateway: Arc<Gateway>,
    ended: CancellationToken,
    off: CancellationToken,
    tool: String,
    passing: Option<upstream::Passing>,
    made: countersign_kernel::Call,
}

impl Call {
    /// Its answer. A hold outlives it, unless the client calls it off or ends the session.
    async fn answer(mut self) -> Result<CallToolResult, ErrorData> {
        let (kernel, wait) = (&self.gateway.kernel, self.gateway.pending_after);
        let still_pending = still_pending(kernel, self.made.hold(), wait);
        let why = tokio::select! {
            biased;
            governed = self.made.outcome() => {
                let broke = |error| ErrorData::internal_error(format!("the call: {error}"), None);
                return answer(governed.map_err(broke)?, self.passing);
            }
            hold = still_pending => return Ok(pending(&self.tool, &hold)),
            () = self.off.cancelled() => {
                self.made.call_off();
                "the call was called off"
            }
            // Ended by the client, which may have cancelled the call just before: that comes
            // another way, and must not lose the race.
            () = self.ended.cancelled() => {
                self.made.call_off();
                "the call was called off: its session ended"
            }
            () = self.gateway.give_up.cancelled() => {
                // What still runs is killed, which is recorded; holds stay as they are, for the
                // queue is closed.
                self.made.call_off();
                let _ = self.made.outcome().await;
                "the call was called off: the gateway is stopping"
            }
        };
        Err(ErrorData::new(CALLED_OFF, why, None))
    }
}

/// Tells a client that asked for it that its call still waits, and for what.
struct Progress<'a> {
    kernel: &'a Kernel,
    hold: watch::Receiver<Option<ApprovalRequestId>>,
    token: Option<ProgressToken>,
    peer: &'a Peer<RoleServer>,
}

impl Progress<'_> {
    async fn report(&self) -> Infallible {
        let Some(token) = &self.token else { return std::future::pending().await };
        let began = Instant::now();
        sleep(FIRST_PROGRESS).await;
        loop {
            let seconds = began.elapsed().as_secs_f64();
            let note =
                ProgressNotificationParam::new(token.clone(), seconds).with_message(self.message());
            // Nobody may be connected; the call does not depend on it.
            let _ = self.peer.notify_progress(note).await;
            sleep(PROGRESS).await;
        }
    }

    fn message(&self) -> String {
        let hold = self.hold.borrow().clone();
        let found = hold.and_then(|id| self.kernel.queue().find(&id));
        match found {
            Some((held, _)) if held.status == HoldStatus::Pending => {
                let id: String = held.id.as_str().chars().take(8).collect();
                format!("waiting for approval of hold {id}, until {}", held.expires_at)
            }
            Some(_) => "decided; running".to_owned(),
            None => "running".to_owned(),
        }
    }
}
