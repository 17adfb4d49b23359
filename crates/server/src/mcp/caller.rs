//! An agent's client, as upstream servers may reach it. What passes is recorded before it does.

#![expect(deprecated, reason = "upstream servers still ask for samples")]

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use countersign_kernel::{Kernel, Note, Run};
use countersign_ports::journal::Content;
use countersign_ports::mcp::{McpCaller, McpError};
use rmcp::model::{
    CreateMessageRequest, CustomNotification, ElicitRequest, GetExtensions as _,
    ProgressNotificationParam, ProgressToken, RequestId, ServerNotification, ServerRequest,
};
use rmcp::service::{OriginatingRequestId, PeerRequestOptions, ServiceError};
use rmcp::{Peer, RoleServer};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The client of one session; of one request, where that is known.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) kernel: Kernel,
    pub(super) run: Arc<Run>,
    pub(super) peer: Peer<RoleServer>,
    pub(super) request: Option<RequestId>,
    pub(super) progress: Option<ProgressToken>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("run", self.run.id()).finish_non_exhaustive()
    }
}

impl Client {
    /// Records that something passes; it does not where this fails.
    pub(super) async fn passes(
        &self,
        back: bool,
        upstream: &str,
        reason: &str,
        content: &Value,
    ) -> Result<(), McpError> {
        let note = Note {
            status: if back { "passed_back" } else { "passed" },
            reason,
            key: Some(("upstream", upstream.to_owned())),
            contents: vec![Content::new(content.to_string().into_bytes())],
        };
        self.kernel.run_note_with(&self.run, note).await.map_err(|error| {
            tracing::error!(%error, "a passage is not recorded");
            McpError::internal("the journal does not record it, so it does not pass")
        })
    }
}

fn read<T: DeserializeOwned>(params: Value) -> Result<T, McpError> {
    serde_json::from_value(params).map_err(|error| McpError {
        code: -32602,
        message: format!("the parameters do not fit: {error}"),
        data: None,
    })
}

#[async_trait]
impl McpCaller for Client {
    fn session(&self) -> &str {
        self.run.id().as_str()
    }

    fn capabilities(&self) -> Value {
        let info = self.peer.peer_info();
        info.and_then(|info| serde_json::to_value(&info.capabilities).ok()).unwrap_or_default()
    }

    async fn request(
        &self,
        upstream: &str,
        method: &str,
        params: Value,
    ) -> Result<Value, McpError> {
        let words = format!("{method} of upstream `{upstream}`, to the client");
        self.passes(false, upstream, &words, &params).await?;
        let mut request = match method {
            "sampling/createMessage" => {
                ServerRequest::CreateMessageRequest(CreateMessageRequest::new(read(params)?))
            }
            "elicitation/create" => ServerRequest::ElicitRequest(ElicitRequest::new(read(params)?)),
            _ => return Err(McpError::no_method(method)),
        };
        if let Some(id) = &self.request {
            request.extensions_mut().insert(OriginatingRequestId(id.clone()));
        }
        let sent = self.peer.send_cancellable_request(request, PeerRequestOptions::no_options());
        let answer = async { sent.await?.await_response().await }.await;
        let answer = match answer {
            Ok(answer) => {
                serde_json::to_value(answer).map_err(|error| McpError::internal(error.to_string()))
            }
            Err(ServiceError::McpError(error)) => Err(McpError {
                code: error.code.0,
                message: error.message.into_owned(),
                data: error.data,
            }),
            Err(error) => Err(McpError::internal(format!("the client: {error}"))),
        };
        let words = format!("the client answers {method} of upstream `{upstream}`");
        let content =
            answer.as_ref().map_or_else(|error| Value::from(error.to_string()), Value::clone);
        self.passes(true, upstream, &words, &content).await?;
        answer
    }

    async fn notify(&self, _upstream: &str, method: &str, params: Value) {
        let told = match method {
            "notifications/progress" => {
                let Some(token) = &self.progress else { return };
                let Ok(mut params) = read::<ProgressNotificationParam>(params) else { return };
                params.progress_token = token.clone();
                self.peer.notify_progress(params).await
            }
            _ => {
                let notification = CustomNotification::new(method, Some(params));
                self.peer
                    .send_notification(ServerNotification::CustomNotification(notification))
                    .await
            }
        };
        if let Err(error) = told {
            tracing::debug!(%error, method, "the client is not told");
        }
    }
}
