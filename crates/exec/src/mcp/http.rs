//! An upstream server that is reached by streamable HTTP.

use std::collections::HashMap;
use std::fmt;

use http::{HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use url::{Host, Url};
use zeroize::Zeroizing;

/// Bytes of one event or answer.
const MESSAGE_MAX: usize = 16 << 20;

/// Where an upstream server is, and what each request carries.
#[derive(Clone)]
pub struct HttpUpstream {
    url: Url,
    headers: Vec<(String, Zeroizing<String>)>,
}

impl fmt::Debug for HttpUpstream {
    /// Leaves out what may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>();
        f.debug_struct("HttpUpstream")
            .field("origin", &self.url.origin().ascii_serialization())
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

impl HttpUpstream {
    /// `url` is `http://…`; the operator names it, and any address is fine. Values of header fields
    /// may be secrets.
    ///
    /// # Errors
    /// What the URL breaks, as the end of a sentence about it.
    pub fn new(url: &str, headers: Vec<(String, Zeroizing<String>)>) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| format!("cannot be read: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user or password".to_owned());
        }
        if url.scheme() == "https" {
            let why = "is https://, which the gateway does not speak to upstreams yet; put a proxy \
                       for it on this machine";
            return Err(why.to_owned());
        }
        if url.scheme() != "http" || url.host().is_none() {
            return Err("is not http://".to_owned());
        }
        Ok(Self { url, headers })
    }

    /// The whole address.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Whether nobody can read along: it stays on this machine.
    #[must_use]
    pub fn is_private(&self) -> bool {
        match self.url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        }
    }

    /// There are no redirects, no proxies, and nothing is read from the environment. A request
    /// is sent once, also when the server has forgotten the session.
    pub(super) fn transport(
        &self,
    ) -> Result<StreamableHttpClientTransport<reqwest::Client>, String> {
        let client = reqwest::Client::builder().no_proxy().redirect(Policy::none());
        let client = client.build().map_err(|error| format!("no HTTP client: {error}"))?;
        let mut headers = HashMap::new();
        for (name, value) in &self.headers {
            let bad = |_| format!("the header `{name}` cannot be sent");
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(()))?;
            let mut value = HeaderValue::from_str(value).map_err(|_| bad(()))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        let mut config = StreamableHttpClientTransportConfig::with_uri(self.url.as_str())
            .custom_headers(headers)
            .reinit_on_expired_session(false);
        config.max_sse_event_size = MESSAGE_MAX;
        config.max_concurrent_requests = 64;
        Ok(StreamableHttpClientTransport::with_client(client, config))
    }
}
