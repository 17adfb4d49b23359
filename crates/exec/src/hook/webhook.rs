//! A hook that is an HTTP endpoint.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use countersign_core::hook::{HookInput, HookResponse};
use countersign_ports::clock::Clock;
use countersign_ports::hook::{HookError, HookExecutor};

use super::{answer, question};
use crate::webhook::{Webhook, WebhookConfig, WebhookConfigError};

/// A hook that gets the input as a signed POST and answers in the response.
///
/// - Each request is signed after Standard Webhooks 1.0.0, scheme `v1`. The `webhook-id` is the
///   run's id, `_` and the invocation's id, percent-encoded beyond letters, digits, `-` and `_`.
/// - It succeeds with 2xx and one JSON document of at most 1 MiB as `application/json`, or with
///   an empty body.
/// - One connection serves one request, which is sent once. Names are looked up each time, and
///   the addresses found are judged before any is connected to: what a name means may change.
/// - There are no redirects, proxies, cookies or compressed bodies, and the environment is not
///   read.
///
/// Needs a Tokio runtime with I/O and time.
pub struct WebhookHook(Webhook);

impl fmt::Debug for WebhookHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebhookHook").field(&self.0).finish()
    }
}

impl WebhookHook {
    /// Connects to nothing. `clock` gives the time in the signature; receivers usually refuse
    /// one that is five minutes off.
    ///
    /// # Errors
    /// When the configuration breaks a rule; an address in the URL is judged already here.
    pub fn new(config: WebhookConfig, clock: Arc<dyn Clock>) -> Result<Self, WebhookConfigError> {
        Webhook::new(config, clock).map(Self)
    }
}

#[async_trait]
impl HookExecutor for WebhookHook {
    async fn invoke(&self, input: HookInput) -> Result<HookResponse, HookError> {
        let Some(id) = &input.invocation_id else {
            return Err(HookError("the input has no invocation id to send".to_owned()));
        };
        // Two gateways may number their invocations alike; runs have names of their own.
        let id = format!("{}_{id}", input.run_id);
        answer(&self.0.ask(&id, question(&input)?).await.map_err(HookError)?)
    }
}
