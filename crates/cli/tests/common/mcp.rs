//! An MCP client that does what a test tells it, and no more.

use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::{Gateway, PATIENCE};

/// An MCP client that knows enough to call tools: one session, one run.
#[derive(Clone)]
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
        Self::open_in(gateway, token, name, "2025-06-18").map(|(session, _)| session)
    }

    /// A session of this protocol version, and what the gateway says of itself.
    pub fn open_in(
        gateway: &Gateway,
        token: &str,
        name: &str,
        version: &str,
    ) -> Result<(Self, Value), Value> {
        let (url, token) = (gateway.mcp().to_owned(), token.to_owned());
        let mut session = Self { url, token, id: None };
        let params = json!({
            "protocolVersion": version,
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
        Ok((session, answer["result"].clone()))
    }

    fn request(&self, method: reqwest::Method) -> reqwest::RequestBuilder {
        let mut request = reqwest::Client::new()
            .request(method, &self.url)
            .bearer_auth(&self.token)
            .header("accept", "application/json, text/event-stream");
        if let Some(id) = &self.id {
            request = request.header("mcp-session-id", id);
        }
        request
    }

    /// The session that it belongs to, and the answer; `null` when there is none.
    pub fn send(&self, message: &Value) -> (Option<String>, Value) {
        let (id, messages) = self.post(message);
        let answers =
            |message: &Value| message.get("id").is_some() && message.get("method").is_none();
        (id, messages.into_iter().find(answers).unwrap_or(Value::Null))
    }

    /// The session that it belongs to, and all that comes back about it.
    pub fn post(&self, message: &Value) -> (Option<String>, Vec<Value>) {
        self.post_and(message, |_| {})
    }

    /// The same, with each event shown as it comes.
    pub fn post_and(
        &self,
        message: &Value,
        mut each: impl FnMut(&Value),
    ) -> (Option<String>, Vec<Value>) {
        block_on(async {
            let request = self.request(reqwest::Method::POST).json(message);
            let mut response = request.send().await.unwrap();
            let id = response.headers().get("mcp-session-id").cloned();
            let (mut text, mut messages) = (Vec::new(), Vec::new());
            while let Some(chunk) = response.chunk().await.unwrap() {
                text.extend_from_slice(&chunk);
                events(&mut text, |message| {
                    each(&message);
                    messages.push(message);
                });
            }
            // No events, but a JSON document.
            messages.extend(serde_json::from_slice::<Value>(&text).ok());
            (id.map(|id| id.to_str().unwrap().to_owned()), messages)
        })
    }

    /// The answer to one request.
    pub fn ask(&self, method: &str, params: &Value) -> Value {
        let message = json!({ "jsonrpc": "2.0", "id": 2, "method": method, "params": params });
        let (_, answer) = self.send(&message);
        assert!(!answer.is_null(), "{method}: no answer");
        answer
    }

    /// What the session says unasked from now on. Read until nobody takes it.
    pub fn notes(&self) -> Receiver<Value> {
        let (session, (sender, notes)) = (self.clone(), channel());
        let (open, opened) = channel();
        std::thread::spawn(move || {
            block_on(async {
                let request = session.request(reqwest::Method::GET);
                let mut response = request.send().await.unwrap();
                open.send(response.status().as_u16()).unwrap();
                let mut text = Vec::new();
                while let Ok(Some(chunk)) = response.chunk().await {
                    text.extend_from_slice(&chunk);
                    let mut taken = true;
                    events(&mut text, |message| taken &= sender.send(message).is_ok());
                    if !taken {
                        return;
                    }
                }
            });
        });
        assert_eq!(opened.recv_timeout(PATIENCE), Ok(200));
        notes
    }

    pub fn end(&self) {
        let status = block_on(async {
            self.request(reqwest::Method::DELETE).send().await.unwrap().status()
        });
        assert!(status.is_success(), "{status}");
    }

    pub fn call(&self, tool: &str, args: &Value) -> Value {
        let answer = self.ask("tools/call", &json!({ "name": tool, "arguments": args }));
        answer["result"]["structuredContent"].clone()
    }

    pub fn spawn(&self, tool: &'static str, args: Value) -> JoinHandle<Value> {
        let session = self.clone();
        std::thread::spawn(move || session.call(tool, &args))
    }
}

/// Takes the whole lines out of the text, and the messages out of those.
fn events(text: &mut Vec<u8>, mut each: impl FnMut(Value)) {
    while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
        let line: Vec<_> = text.drain(..=end).collect();
        let line = String::from_utf8(line).unwrap();
        let data = line.strip_prefix("data:").unwrap_or_default();
        serde_json::from_str(data.trim()).into_iter().for_each(&mut each);
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
