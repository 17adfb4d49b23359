//! An MCP client that does what a test tells it, and no more.

use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::Gateway;

/// An MCP client that knows enough to call tools: one session, one run.
pub struct Session {
    url: String,
    token: String,
    id: Option<String>,
}

impl Session {
    pub fn open(gateway: &Gateway, name: &str) -> Result<Self, Value> {
        Self::open_as(gateway, gateway.token(), name)
    }

    pub fn open_as(gateway: &Gateway, token: &str, name: &str) -> Result<Self, Value> {
        let (url, token) = (gateway.mcp().to_owned(), token.to_owned());
        let mut session = Self { url, token, id: None };
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": { "name": name, "version": "1" },
        });
        let (id, answer) = session.send(&json!({
            "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params,
        }));
        if !answer["error"].is_null() {
            return Err(answer["error"].clone());
        }
        session.id = Some(id.unwrap());
        session.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        Ok(session)
    }

    pub fn send(&self, message: &Value) -> (Option<String>, Value) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut request = reqwest::Client::new()
                .post(&self.url)
                .bearer_auth(&self.token)
                .header("accept", "application/json, text/event-stream")
                .json(message);
            if let Some(id) = &self.id {
                request = request.header("mcp-session-id", id);
            }
            let response = request.send().await.unwrap();
            let id = response.headers().get("mcp-session-id").cloned();
            let text = response.text().await.unwrap();
            // A JSON document, or events of which the last has it.
            let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
            let data = data.map(str::trim).rfind(|data| !data.is_empty()).unwrap_or(&text);
            let id = id.map(|id| id.to_str().unwrap().to_owned());
            (id, serde_json::from_str(data).unwrap_or(Value::Null))
        })
    }

    pub fn call(&self, tool: &str, args: &Value) -> Value {
        let params = json!({ "name": tool, "arguments": args });
        let (_, answer) = self.send(&json!({
            "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params,
        }));
        answer["result"]["structuredContent"].clone()
    }

    pub fn spawn(&self, tool: &'static str, args: Value) -> JoinHandle<Value> {
        let (url, token, id) = (self.url.clone(), self.token.clone(), self.id.clone());
        std::thread::spawn(move || Self { url, token, id }.call(tool, &args))
    }
}
