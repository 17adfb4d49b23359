//! An upstream server that is reached by streamable HTTP.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use tokio_rustls::TlsConnector;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::wire::{MESSAGE_MAX, Way, Wire};
use crate::connect::{Target, tls};
use crate::quote::quote;

/// Where an upstream server is, and what each request carries.
#[derive(Clone)]
pub struct HttpUpstream {
    url: Url,
    target: Target,
    headers: HashMap<HeaderName, HeaderValue>,
    tls: TlsConnector,
}

impl fmt::Debug for HttpUpstream {
    /// Leaves out what may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.headers.keys().collect::<Vec<_>>();
        f.debug_struct("HttpUpstream")
            .field("origin", &self.url.origin().ascii_serialization())
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// Why a server cannot be an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUpstreamError {
    /// `url`, `headers` or `roots_pem`.
    pub field: &'static str,
    /// What it breaks, as the end of a sentence about it.
    pub rule: String,
}

impl fmt::Display for HttpUpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.rule)
    }
}

impl std::error::Error for HttpUpstreamError {}

impl HttpUpstream {
    /// `url` is `https://…` or `http://…`; the operator names it, and any address is fine. Values
    /// of header fields may be secrets: with any, `http://…` is for this machine only. Who the
    /// server is, the authorities in `roots_pem` alone vouch for, or those that Mozilla trusts.
    ///
    /// # Errors
    /// What is wrong with the URL, a header field or the authorities. Repeats no value of a field.
    pub fn new(
        url: &str,
        headers: Vec<(String, Zeroizing<String>)>,
        roots_pem: Option<&[u8]>,
    ) -> Result<Self, HttpUpstreamError> {
        let bad = |rule: String| HttpUpstreamError { field: "url", rule };
        let url = Url::parse(url).map_err(|error| bad(format!("cannot be read: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("holds a user or password".to_owned()));
        }
        let target = Target::of(&url);
        let target = target.ok_or_else(|| bad("is not https:// or http://".to_owned()))?;
        url.as_str().parse::<Uri>().map_err(|error| bad(format!("cannot be sent: {error}")))?;
        if target.encrypted() {
            target.check_name().map_err(bad)?;
        } else if !headers.is_empty() && !is_here(&url) {
            let rule = "would send a secret without encryption to another machine";
            return Err(bad(rule.to_owned()));
        }
        let headers = headers.into_iter().map(|(name, value)| field(&name, &value));
        let headers = headers.collect::<Result<_, _>>();
        let headers = headers.map_err(|rule| HttpUpstreamError { field: "headers", rule })?;
        let tls = tls(roots_pem);
        let tls = tls.map_err(|rule| HttpUpstreamError { field: "roots_pem", rule })?;
        Ok(Self { url, target, headers, tls })
    }

    /// The whole address.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Whether it is `https://…`.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.target.encrypted()
    }

    /// There are no redirects, no proxies, and nothing is read from the environment. A request
    /// is sent once, also when the server has forgotten the session.
    pub(super) fn transport(
        &self,
        connect_timeout: Duration,
    ) -> StreamableHttpClientTransport<Wire> {
        let wire = Wire::new(Way {
            target: self.target.clone(),
            tls: self.tls.clone(),
            // What a name stands for may change.
            only_here: !self.target.encrypted() && !self.headers.is_empty(),
            within: connect_timeout,
        });
        let mut config = StreamableHttpClientTransportConfig::with_uri(self.url.as_str())
            .custom_headers(self.headers.clone())
            .reinit_on_expired_session(false);
        config.max_sse_event_size = MESSAGE_MAX;
        config.max_concurrent_requests = 64;
        StreamableHttpClientTransport::with_client(wire, config)
    }
}

/// Fields that the client writes by itself.
const OWN: [&str; 12] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "transfer-encoding",
    "upgrade",
];

fn field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let key = HeaderName::from_bytes(name.as_bytes());
    let key = key.map_err(|_| format!("name `{}`, which cannot be sent", quote(name)))?;
    if OWN.contains(&key.as_str()) {
        return Err(format!("name `{key}`, which the gateway writes by itself"));
    }
    let value = HeaderValue::from_str(value);
    let mut value = value.map_err(|_| format!("give `{key}` a value that cannot be sent"))?;
    value.set_sensitive(true);
    Ok((key, value))
}

/// Whether the host is this machine, as far as its name tells.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
