//! The client's side of a connection: what an upstream server may ask and tell.

#![expect(deprecated, reason = "upstream servers still sample and log")]

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_ports::mcp::{McpCaller, McpError, McpFeature};
use rmcp::model::{
    ClientCapabilities, ClientConfig, CreateMessageRequestParams, CreateMessageResult,
    ElicitRequestParams, ElicitResult, ErrorCode, ErrorData, Implementation,
    LoggingMessageNotificationParam, ProgressNotificationParam, ProgressToken, ProtocolVersion,
    RequestId, ResourceUpdatedNotificationParam,
};
use rmcp::service::{InboundStreamOrigin, NotificationContext, RequestContext};
use rmcp::{ClientHandler, RoleClient};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};

use super::numbers;
use crate::Redactor;

/// A request that is under way, and who made it.
pub(super) struct UnderWay {
    pub(super) id: RequestId,
    pub(super) progress: ProgressToken,
    pub(super) caller: Arc<dyn McpCaller>,
}

/// What the two sides of a connection share.
pub(super) struct Shared {
    pub(super) upstream: String,
    pub(super) version: String,
    pub(super) features: BTreeSet<McpFeature>,
    /// In front of all that the server says.
    pub(super) redactor: Redactor,
    /// Whose connection it is; `None` if it is everybody's.
    pub(super) owner: Option<Arc<dyn McpCaller>>,
    /// INVARIANT: locked while a request is sent, so that nothing about it comes too early.
    pub(super) under_way: Mutex<Vec<UnderWay>>,
    /// Counts how often the server said that its tools have changed.
    pub(super) tools_changed: watch::Sender<u64>,
}

impl Shared {
    fn may(&self, feature: McpFeature) -> bool {
        self.features.contains(&feature)
    }

    /// Who is meant by something that came: whoever made the request it belongs to, else whoever
    /// made the latest one, else the owner of the connection.
    async fn meant(&self, origin: Option<&InboundStreamOrigin>) -> Option<Arc<dyn McpCaller>> {
        let owner = self.owner.as_ref()?;
        let under_way = self.under_way.lock().await;
        let found = match origin {
            Some(InboundStreamOrigin::OutboundRequest(id)) => {
                under_way.iter().find(|request| request.id == *id)
            }
            _ => None,
        };
        let found = found.or_else(|| under_way.last());
        Some(Arc::clone(found.map_or(owner, |request| &request.caller)))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        (feature, capability): (McpFeature, &str),
        method: &str,
        params: impl Serialize,
        ctx: &RequestContext<RoleClient>,
    ) -> Result<T, ErrorData> {
        let meant = self.meant(ctx.extensions.get::<InboundStreamOrigin>()).await;
        let caller = meant
            .filter(|caller| self.may(feature) && caller.capabilities().get(capability).is_some());
        let Some(caller) = caller else { return Err(fault(McpError::no_method(method))) };
        let internal =
            |error: serde_json::Error| ErrorData::internal_error(error.to_string(), None);
        let params = numbers::of_request(serde_json::to_value(params).map_err(internal)?);
        let params = self.redactor.value(params);
        let answer = tokio::select! {
            answer = caller.request(&self.upstream, method, params) => answer.map_err(fault)?,
            () = ctx.ct.cancelled() => {
                return Err(ErrorData::internal_error("the request was called off", None));
            }
        };
        serde_json::from_value(answer).map_err(internal)
    }

    async fn tell(&self, feature: McpFeature, method: &str, params: impl Serialize) {
        if !self.may(feature) {
            return;
        }
        let Ok(params) = serde_json::to_value(params) else { return };
        let params = self.redactor.value(params);
        if let Some(caller) = self.meant(None).await {
            caller.notify(&self.upstream, method, params).await;
        }
    }
}

pub(super) fn fault(error: McpError) -> ErrorData {
    ErrorData::new(ErrorCode(error.code), error.message, error.data)
}

/// The handler of one connection.
pub(super) struct Side(pub(super) Arc<Shared>);

impl ClientHandler for Side {
    fn get_info(&self) -> ClientConfig {
        // Only what the agent's client can do and the operator lets through. On the connection that
        // is nobody's, all of it: some servers list their tools by that.
        let everything = || json!({ "sampling": {}, "elicitation": {} });
        let all = self.0.owner.as_ref().map_or_else(everything, |owner| owner.capabilities());
        let parts = [(McpFeature::Sampling, "sampling"), (McpFeature::Elicitation, "elicitation")];
        let parts = parts.into_iter().filter(|(feature, _)| self.0.may(*feature));
        let parts = parts.filter_map(|(_, name)| Some((name.to_owned(), all.get(name)?.clone())));
        let capabilities = serde_json::from_value(Value::Object(parts.collect()));
        let capabilities: ClientCapabilities = capabilities.unwrap_or_default();
        ClientConfig::new(capabilities, Implementation::new("countersign", &self.0.version))
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        ctx: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let feature = (McpFeature::Sampling, "sampling");
        self.0.ask(feature, "sampling/createMessage", params, &ctx).await
    }

    async fn create_elicitation(
        &self,
        params: ElicitRequestParams,
        ctx: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let feature = (McpFeature::Elicitation, "elicitation");
        self.0.ask(feature, "elicitation/create", params, &ctx).await
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _ctx: NotificationContext<RoleClient>,
    ) {
        let under_way = self.0.under_way.lock().await;
        let found = under_way.iter().find(|request| request.progress == params.progress_token);
        let Some(caller) = found.map(|request| Arc::clone(&request.caller)) else { return };
        drop(under_way);
        if let Ok(params) = serde_json::to_value(params) {
            let params = self.0.redactor.value(params);
            caller.notify(&self.0.upstream, "notifications/progress", params).await;
        }
    }

    async fn on_logging_message(
        &self,
        params: LoggingMessageNotificationParam,
        _ctx: NotificationContext<RoleClient>,
    ) {
        self.0.tell(McpFeature::Logging, "notifications/message", params).await;
    }

    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _ctx: NotificationContext<RoleClient>,
    ) {
        self.0.tell(McpFeature::Resources, "notifications/resources/updated", params).await;
    }

    async fn on_resource_list_changed(&self, _ctx: NotificationContext<RoleClient>) {
        let method = "notifications/resources/list_changed";
        self.0.tell(McpFeature::Resources, method, json!({})).await;
    }

    async fn on_prompt_list_changed(&self, _ctx: NotificationContext<RoleClient>) {
        let method = "notifications/prompts/list_changed";
        self.0.tell(McpFeature::Prompts, method, json!({})).await;
    }

    async fn on_tool_list_changed(&self, _ctx: NotificationContext<RoleClient>) {
        self.0.tools_changed.send_modify(|count| *count += 1);
    }
}
