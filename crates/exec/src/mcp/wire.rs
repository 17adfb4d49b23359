//! Requests of streamable HTTP, over connections of [`crate::connect`].

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::common::http_header::{
    EVENT_STREAM_MIME_TYPE, HEADER_LAST_EVENT_ID, HEADER_SESSION_ID, JSON_MIME_TYPE,
};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::{Sse, SseStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::connect::{Failed, HEAD_MAX, HEADERS_MAX, Stream, SystemResolver, Target, chain};
use crate::quote::quote;

/// Bytes of one event or answer.
pub(super) const MESSAGE_MAX: usize = 16 << 20;
/// Bytes that are read of an answer with the status of an error.
const ERROR_MAX: usize = 64 << 10;
/// Connections that wait for a request, and for how long.
const IDLE: (usize, Duration) = (8, Duration::from_secs(60));

type Error = StreamableHttpError<Failed>;
type Headers = HashMap<HeaderName, HeaderValue>;

/// The way to one server. Clones share their connections.
///
/// A request is sent once, unless the connection it was meant for has ended before anything of it
/// was written. A redirect is an answer like another, and nothing follows it.
#[derive(Clone)]
pub(super) struct Wire(Client<Connector, Full<Bytes>>);

/// Where a connection goes, and what it must be.
pub(super) struct Way {
    pub(super) target: Target,
    pub(super) tls: TlsConnector,
    /// Not to another machine, whatever the name stands for.
    pub(super) only_here: bool,
    /// How long connecting may take, with the handshake of TLS.
    pub(super) within: Duration,
}

#[derive(Clone)]
struct Connector(Arc<Way>);

impl Way {
    pub(super) async fn connect(&self) -> Result<TokioIo<Box<dyn Stream>>, Failed> {
        let permitted = |address: IpAddr| match self.only_here && !address.is_loopback() {
            true => Err(format!("is at {address}, and a secret goes there only encrypted")),
            false => Ok(()),
        };
        let connect = self.target.connect(&SystemResolver, &permitted, &self.tls, self.within);
        let connected = timeout(self.within, connect).await.unwrap_or_else(|_| {
            let (origin, within) = (self.target.origin(), self.within.as_secs_f64());
            Err(format!("no connection to {origin} within {within} s"))
        });
        connected.map(TokioIo::new).map_err(|reason| Failed { reason, unsent: true })
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    /// All requests are for the same server.
    fn call(&mut self, _: Uri) -> Self::Future {
        let way = Arc::clone(&self.0);
        Box::pin(async move { way.connect().await })
    }
}

impl Connection for Box<dyn Stream> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Wire {
    /// Connects to nothing yet.
    pub(super) fn new(way: Way) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_max_idle_per_host(IDLE.0);
        builder.pool_idle_timeout(IDLE.1);
        builder.http1_max_headers(HEADERS_MAX).http1_max_buf_size(HEAD_MAX);
        Self(builder.build(Connector(Arc::new(way))))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        self.0.request(request).await.map_err(|error| {
            let unsent = error.is_connect();
            // Why there is no connection, without what stood around it on the way.
            let failed = error.source().and_then(|source| source.downcast_ref::<Failed>());
            let reason = failed.map_or_else(|| chain(&error), |failed| failed.reason.clone());
            StreamableHttpError::Client(Failed { reason, unsent })
        })
    }
}

impl StreamableHttpClient for Wire {
    type Error = Failed;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Error> {
        let body = serde_json::to_vec(&message)?;
        let answered = matches!(message, ClientJsonRpcMessage::Request(_));
        let in_session = session_id.is_some();
        let mut request = request(Method::POST, &uri, session_id, auth_header, headers, body)?;
        let json = HeaderValue::from_static(JSON_MIME_TYPE);
        request.headers_mut().insert(CONTENT_TYPE, json);
        let response = self.send(request).await?;
        let status = response.status();
        match status {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT => {
                return Ok(StreamableHttpPostResponse::Accepted);
            }
            StatusCode::NOT_FOUND if in_session => return Err(StreamableHttpError::SessionExpired),
            _ => {}
        }
        let session = response.headers().get(HEADER_SESSION_ID);
        let session = session.and_then(|id| id.to_str().ok()).map(str::to_owned);
        let kind = kind(response.headers());
        if status.is_success() && kind == Kind::Events {
            return Ok(StreamableHttpPostResponse::Sse(events(response.into_body()), session));
        }
        if !status.is_success() {
            let body = bounded(response, ERROR_MAX).await?;
            // Whoever is not let in gets to hear that, whatever else the server has to say.
            let shut = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            return match serde_json::from_slice(&body) {
                Ok(error @ ServerJsonRpcMessage::Error(_)) if kind == Kind::Json && !shut => {
                    Ok(StreamableHttpPostResponse::Json(error, session))
                }
                _ => {
                    let said = quote(&String::from_utf8_lossy(&body));
                    let why = format!("HTTP {status}: {said}");
                    Err(StreamableHttpError::UnexpectedServerResponse(why.into()))
                }
            };
        }
        let named = response.headers().get(CONTENT_TYPE).cloned();
        let body = bounded(response, MESSAGE_MAX).await?;
        match kind {
            Kind::Json => match serde_json::from_slice(&body) {
                Ok(message) => Ok(StreamableHttpPostResponse::Json(message, session)),
                Err(_) if !answered => Ok(StreamableHttpPostResponse::Accepted),
                Err(error) => {
                    let why = format!("its answer is no message of MCP: {error}");
                    Err(StreamableHttpError::UnexpectedServerResponse(why.into()))
                }
            },
            _ if !answered && body.is_empty() => Ok(StreamableHttpPostResponse::Accepted),
            _ => Err(content_type(named.as_ref())),
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<(), Error> {
        let session = Some(session_id);
        let request = request(Method::DELETE, &uri, session, auth_header, headers, Vec::new())?;
        match self.send(request).await?.status() {
            StatusCode::METHOD_NOT_ALLOWED => Ok(()),
            status if status.is_success() => Ok(()),
            status => {
                let why = format!("HTTP {status}");
                Err(StreamableHttpError::UnexpectedServerResponse(why.into()))
            }
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Error> {
        let mut request = request(Method::GET, &uri, session_id, auth_header, headers, Vec::new())?;
        if let Some(id) = last_event_id {
            request.headers_mut().insert(HEADER_LAST_EVENT_ID, header(&id)?);
        }
        let response = self.send(request).await?;
        let status = response.status();
        // Asking again changes nothing.
        let no = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        if no.contains(&status) {
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        if !status.is_success() {
            let why = format!("HTTP {status}");
            return Err(StreamableHttpError::UnexpectedServerResponse(why.into()));
        }
        match kind(response.headers()) {
            Kind::Events => Ok(events(response.into_body())),
            _ => Err(content_type(response.headers().get(CONTENT_TYPE))),
        }
    }
}

fn request(
    method: Method,
    uri: &str,
    session_id: Option<Arc<str>>,
    auth_header: Option<String>,
    headers: Headers,
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>, Error> {
    let uri: Uri = uri.parse().map_err(|_| unsent("the url cannot be sent"))?;
    let mut request = Request::new(Full::from(body));
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    let all = request.headers_mut();
    all.extend(headers);
    if let Some(token) = auth_header {
        let mut value = header(&format!("Bearer {token}"))?;
        value.set_sensitive(true);
        all.insert(AUTHORIZATION, value);
    }
    if let Some(id) = session_id {
        all.insert(HEADER_SESSION_ID, header(&id)?);
    }
    let accept = format!("{EVENT_STREAM_MIME_TYPE}, {JSON_MIME_TYPE}");
    all.insert(ACCEPT, header(&accept)?);
    Ok(request)
}

fn header(value: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(value).map_err(|_| unsent("a header field cannot be sent"))
}

fn unsent(why: &str) -> Error {
    StreamableHttpError::Client(Failed { reason: why.to_owned(), unsent: true })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Events,
    Other,
}

fn kind(headers: &HeaderMap) -> Kind {
    let named = headers.get(CONTENT_TYPE).and_then(|named| named.to_str().ok()).unwrap_or_default();
    let named = named.split(';').next().unwrap_or_default().trim();
    match named {
        _ if named.eq_ignore_ascii_case(JSON_MIME_TYPE) => Kind::Json,
        _ if named.eq_ignore_ascii_case(EVENT_STREAM_MIME_TYPE) => Kind::Events,
        _ => Kind::Other,
    }
}

fn content_type(named: Option<&HeaderValue>) -> Error {
    let named = named.map(|named| quote(&String::from_utf8_lossy(named.as_bytes())));
    StreamableHttpError::UnexpectedContentType(named)
}

async fn bounded(response: Response<Incoming>, max: usize) -> Result<Bytes, Error> {
    let body = Limited::new(response.into_body(), max).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| {
        let reason = format!("its answer cannot be read: {}", chain(&*error));
        StreamableHttpError::Client(Failed { reason, unsent: false })
    })
}

/// Events as they come, none larger than [`MESSAGE_MAX`].
fn events(body: Incoming) -> BoxStream<'static, Result<Sse, SseError>> {
    let mut held = Held::default();
    let bytes = body.into_data_stream().map(move |bytes| {
        let bytes = bytes.map_err(io::Error::other)?;
        match held.take(&bytes, MESSAGE_MAX) {
            true => Ok(bytes),
            false => Err(io::Error::other(format!("an event of more than {MESSAGE_MAX} bytes"))),
        }
    });
    SseStream::from_bytes_stream(bytes).boxed()
}

/// What a reader of events has to keep: all since the last empty line.
#[derive(Default)]
struct Held {
    bytes: usize,
    line: usize,
    /// The line is a carriage return alone, so far.
    empty: bool,
}

impl Held {
    /// Whether no more than that is kept.
    fn take(&mut self, bytes: &[u8], max: usize) -> bool {
        for byte in bytes {
            if *byte == b'\n' {
                if self.line == 0 || self.empty {
                    self.bytes = 0;
                }
                (self.line, self.empty) = (0, false);
            } else {
                self.empty = self.line == 0 && *byte == b'\r';
                self.line = self.line.saturating_add(1);
                self.bytes = self.bytes.saturating_add(1);
            }
            if self.bytes > max {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reader_of_events_has_to_keep_is_bounded() {
        for (chunks, fits) in [
            (&["data: 12\n\n", "data: 12\n\n"][..], true),
            (&["data: 12\r\n\r\n", "data: 12\r\n", "\r\n"], true),
            (&["data: 1234567"], false),
            (&["data: 1\n", "data: 2\n"], false),
            (&["data: 1\r\n", "data: 2\r\n"], false),
            (&["\r\r\n", "\r\r\n", "\r\r\n", "\r\r\n", "\r\r\n", "\r\r\n"], false),
            (&["\n\n\n\n\n\n\n\n\n\n\n\n\n\n"], true),
        ] {
            let mut held = Held::default();
            assert_eq!(
                chunks.iter().all(|chunk| held.take(chunk.as_bytes(), 10)),
                fits,
                "{chunks:?}"
            );
        }
    }
}
