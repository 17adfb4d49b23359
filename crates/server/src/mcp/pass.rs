//! What passes between a client and the upstream servers beside the calls of tools, where the
//! operator lets it: prompts, resources, completions and the level of logging. Each request and
//! each answer is recorded before it goes on.

use std::sync::Arc;

use countersign_ports::mcp::{McpCaller, McpError, McpFeature, McpPass, McpUpstreams};
use rmcp::ErrorData;
use rmcp::model::{ErrorCode, ServerCapabilities};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::caller::Client;

/// Pages of a list that is put together.
const PAGES_MAX: usize = 100;
/// MCP's code for a resource that is not there.
const NO_RESOURCE: ErrorCode = ErrorCode(-32002);

/// The upstream servers, as one server to a client.
#[derive(Clone)]
pub(crate) struct Passage {
    upstreams: Arc<dyn McpUpstreams>,
    passes: Arc<Vec<McpPass>>,
}

impl Passage {
    /// `None` if nothing may pass.
    pub(crate) fn new(upstreams: Arc<dyn McpUpstreams>) -> Option<Self> {
        let passes = Arc::new(upstreams.passes());
        (!passes.is_empty()).then_some(Self { upstreams, passes })
    }

    /// Whether any upstream's may pass.
    pub(super) fn has(&self, feature: McpFeature) -> bool {
        self.of(feature).next().is_some()
    }

    /// Says in the handshake what a client can ask for.
    pub(super) fn announce(&self, capabilities: &mut ServerCapabilities) {
        let on = |feature, value: Value| self.has(feature).then_some(value);
        let changes = || json!({ "listChanged": true });
        let parts = [
            ("prompts", on(McpFeature::Prompts, changes())),
            (
                "resources",
                on(McpFeature::Resources, json!({ "listChanged": true, "subscribe": true })),
            ),
            ("completions", on(McpFeature::Completions, json!({}))),
            ("logging", on(McpFeature::Logging, json!({}))),
        ];
        let Ok(Value::Object(mut all)) = serde_json::to_value(&*capabilities) else { return };
        let parts = parts.into_iter().filter_map(|(name, part)| Some((name.to_owned(), part?)));
        all.extend(parts);
        if let Ok(all) = serde_json::from_value(Value::Object(all)) {
            *capabilities = all;
        }
    }

    /// Ends what is kept for a session.
    pub(super) fn left(&self, session: &str) {
        self.upstreams.left(session);
    }

    fn of(&self, feature: McpFeature) -> impl Iterator<Item = &McpPass> {
        self.passes.iter().filter(move |pass| pass.features.contains(&feature))
    }

    /// Sends a request on, and its answer back.
    async fn send(
        &self,
        client: &Client,
        upstream: &str,
        method: &str,
        params: Value,
    ) -> Result<Value, ErrorData> {
        let words = format!("{method} to upstream `{upstream}`");
        client.passes(false, upstream, &words, &params).await.map_err(fault)?;
        let caller: Arc<dyn McpCaller> = Arc::new(client.clone());
        let answer = self.upstreams.request(&caller, upstream, method, params).await;
        let words = format!("the answer of upstream `{upstream}` to {method}");
        let content = match &answer {
            Ok(answer) => answer.clone(),
            Err(error) => json!({ "error": error.to_string() }),
        };
        client.passes(true, upstream, &words, &content).await.map_err(fault)?;
        answer.map_err(fault)
    }

    /// A list, of one upstream as it gives it, of several put together.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        client: &Client,
        feature: McpFeature,
        (method, key): (&str, &str),
        page: Option<impl Serialize>,
    ) -> Result<T, ErrorData> {
        let passes: Vec<_> = self.of(feature).collect();
        let page = page.and_then(|page| serde_json::to_value(page).ok());
        if let [only] = passes.as_slice() {
            let params = page.unwrap_or_else(|| json!({}));
            let mut answer = self.send(client, &only.upstream, method, params).await?;
            named(&mut answer, key, &only.prefix);
            return read(answer);
        }
        let mut all = Vec::new();
        for pass in passes {
            let mut params = json!({});
            for _ in 0..PAGES_MAX {
                let mut answer = self.send(client, &pass.upstream, method, params).await?;
                named(&mut answer, key, &pass.prefix);
                let next = answer.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
                let items = answer.get_mut(key).and_then(Value::as_array_mut);
                all.append(items.unwrap_or(&mut Vec::new()));
                match next {
                    Some(next) => params = json!({ "cursor": next }),
                    None => break,
                }
            }
        }
        read(Value::Object(Map::from_iter([(key.to_owned(), Value::Array(all))])))
    }

    /// A request about one prompt, to the upstream that its prefix belongs to.
    pub(super) async fn about_prompt<T: DeserializeOwned>(
        &self,
        client: &Client,
        method: &str,
        at: &str,
        params: impl Serialize,
    ) -> Result<T, ErrorData> {
        let feature = match method {
            "completion/complete" => McpFeature::Completions,
            _ => McpFeature::Prompts,
        };
        let mut params = serde_json::to_value(params).map_err(internal)?;
        let name = params.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let fitting = self.of(feature).filter(|pass| name.starts_with(&pass.prefix));
        // The longest: one prefix may begin with another.
        let Some(pass) = fitting.max_by_key(|pass| pass.prefix.len()) else {
            return Err(ErrorData::invalid_params("there is no such prompt", None));
        };
        if let Some(place) = params.pointer_mut(at) {
            *place = name.strip_prefix(&pass.prefix).unwrap_or(&name).into();
        }
        read(self.send(client, &pass.upstream, method, params).await?)
    }

    /// A request about one resource, to the upstream that lists it.
    pub(super) async fn about_resource<T: DeserializeOwned>(
        &self,
        client: &Client,
        feature: McpFeature,
        method: &str,
        uri: &str,
        params: impl Serialize,
    ) -> Result<T, ErrorData> {
        let upstream = self.owner(client, feature, uri).await?;
        let params = serde_json::to_value(params).map_err(internal)?;
        read(self.send(client, &upstream, method, params).await?)
    }

    async fn owner(
        &self,
        client: &Client,
        feature: McpFeature,
        uri: &str,
    ) -> Result<String, ErrorData> {
        let passes: Vec<_> = self.of(feature).collect();
        if let [only] = passes.as_slice() {
            return Ok(only.upstream.clone());
        }
        let mut best: Option<(usize, String)> = None;
        for pass in passes {
            for (method, list, key) in [
                ("resources/list", "resources", "uri"),
                ("resources/templates/list", "resourceTemplates", "uriTemplate"),
            ] {
                let Ok(answer) = self.send(client, &pass.upstream, method, json!({})).await else {
                    continue;
                };
                for item in answer.get(list).and_then(Value::as_array).into_iter().flatten() {
                    let given = item.get(key).and_then(Value::as_str).unwrap_or_default();
                    let fixed = given.split('{').next().unwrap_or_default();
                    let fits = given == uri || (key == "uriTemplate" && uri.starts_with(fixed));
                    let known = best.as_ref().map_or(0, |(length, _)| *length);
                    if fits && !fixed.is_empty() && fixed.len() > known {
                        best = Some((fixed.len(), pass.upstream.clone()));
                    }
                }
            }
        }
        let none = || ErrorData::new(NO_RESOURCE, "no upstream lists this resource", None);
        best.map(|(_, upstream)| upstream).ok_or_else(none)
    }

    /// A request to all upstreams.
    pub(super) async fn to_all(
        &self,
        client: &Client,
        feature: McpFeature,
        method: &str,
        params: impl Serialize,
    ) -> Result<(), ErrorData> {
        let params = serde_json::to_value(params).map_err(internal)?;
        for pass in self.of(feature) {
            self.send(client, &pass.upstream, method, params.clone()).await?;
        }
        Ok(())
    }
}

/// Puts the prefix before the names of prompts.
fn named(answer: &mut Value, key: &str, prefix: &str) {
    if key != "prompts" || prefix.is_empty() {
        return;
    }
    for item in answer.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(name) = item.get_mut("name")
            && let Some(text) = name.as_str()
        {
            *name = format!("{prefix}{text}").into();
        }
    }
}

fn read<T: DeserializeOwned>(answer: Value) -> Result<T, ErrorData> {
    serde_json::from_value(answer).map_err(|error| {
        ErrorData::internal_error(format!("the upstream's answer cannot be read: {error}"), None)
    })
}

fn internal(error: serde_json::Error) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

fn fault(error: McpError) -> ErrorData {
    ErrorData::new(ErrorCode(error.code), error.message, error.data)
}
