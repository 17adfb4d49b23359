//! A client of one HTTP endpoint that recognises the gateway by its signature.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_ports::clock::Clock;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use ipnet::IpNet;
use sha2::Sha256;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;
use zeroize::Zeroizing;

use crate::connect::{
    self, Failed, SystemResolver, Target, chain, exchange, origin, request_target, tls,
};
use crate::quote::quote;

/// Bytes of an answer.
pub(crate) const ANSWER_MAX: usize = 1 << 20;
/// How long an error waits for the text that came with it.
const REASON_GRACE: Duration = Duration::from_millis(500);
/// Bytes read of such a text.
const REASON_MAX: usize = 4 << 10;

/// Where a webhook is and how it recognises the gateway.
#[derive(Clone)]
pub struct WebhookConfig {
    /// `https://…`, or `http://…` if `allow` covers the host. A path or a query may be a
    /// secret: no error and no `Debug` shows more than scheme, host and port.
    pub url: String,
    /// `whsec_` and 24 to 64 bytes in base64, as Standard Webhooks 1.0.0 writes it.
    pub secret: Zeroizing<String>,
    /// The internal networks in which the host may be. Whatever is not of the public internet
    /// is refused otherwise: loopback and private addresses, and the IPv6 addresses that stand
    /// for them. Link-local addresses and metadata services are refused whatever stands here.
    pub allow: Vec<IpNet>,
    /// For finding the host, connecting to it and agreeing on keys, together.
    pub connect_timeout: Duration,
    /// PEM with the only certificate authorities that may vouch for the host. `None` means
    /// those that Mozilla trusted when this was built; the system's own are not read.
    pub roots_pem: Option<Vec<u8>>,
}

impl fmt::Debug for WebhookConfig {
    /// Leaves out the secret, and all of the URL that may be one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(&self.url).map(|url| origin(&url));
        f.debug_struct("WebhookConfig")
            .field("url", &url.as_deref().unwrap_or("not a URL"))
            .field("allow", &self.allow)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// Why there is no webhook of a configuration. Its text names the field and the broken rule, and
/// repeats no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfigError {
    /// The field of [`WebhookConfig`].
    pub field: &'static str,
    /// What it breaks.
    pub rule: String,
}

impl fmt::Display for WebhookConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.rule)
    }
}

impl Error for WebhookConfigError {}

/// Sends signed POSTs.
///
/// - Each request is signed after Standard Webhooks 1.0.0, scheme `v1`. The `webhook-id` is the
///   given id, percent-encoded beyond letters, digits, `-` and `_`.
/// - One connection serves one request, which is sent once. Names are looked up each time, and
///   the addresses found are judged before any is connected to: what a name means may change.
/// - There are no redirects, proxies, cookies or compressed bodies, and the environment is not
///   read.
///
/// Needs a Tokio runtime with I/O and time.
pub(crate) struct Webhook {
    url: Url,
    target: Uri,
    authority: HeaderValue,
    to: Target,
    tls: TlsConnector,
    /// Keyed with the secret, and wiped when dropped.
    mac: Hmac<Sha256>,
    allow: Vec<IpNet>,
    connect_timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("url", &origin(&self.url))
            .field("allow", &self.allow)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

impl Webhook {
    /// Connects to nothing. `clock` gives the time in the signature; receivers usually refuse
    /// one that is five minutes off.
    ///
    /// # Errors
    /// When the configuration breaks a rule; an address in the URL is judged already here.
    pub(crate) fn new(
        config: WebhookConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WebhookConfigError> {
        let bad_url = |rule: String| WebhookConfigError { field: "url", rule };
        let url =
            Url::parse(&config.url).map_err(|error| bad_url(format!("is not valid: {error}")))?;
        let encrypted = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(bad_url("must begin with https://".to_owned())),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad_url("must not hold a user or a password".to_owned()));
        }
        if url.fragment().is_some() {
            return Err(bad_url("must not have a fragment, which is never sent".to_owned()));
        }
        let to = Target::of(&url).ok_or_else(|| bad_url("must name a host".to_owned()))?;
        match to.address() {
            Some(address) => permitted(address, encrypted, &config.allow).map_err(bad_url)?,
            None if encrypted || !config.allow.is_empty() => {}
            None => return Err(bad_url("must begin with https:// or be in `allow`".to_owned())),
        }
        let (target, authority) =
            request_target(&url).ok_or_else(|| bad_url("holds what cannot be sent".to_owned()))?;
        if encrypted {
            to.check_name().map_err(bad_url)?;
        }
        let tls = tls(config.roots_pem.as_deref())
            .map_err(|rule| WebhookConfigError { field: "roots_pem", rule })?;
        Ok(Self {
            target,
            authority,
            to,
            tls,
            mac: keyed(&config.secret)?,
            allow: config.allow,
            connect_timeout: config.connect_timeout,
            clock,
            url,
        })
    }

    /// Sends the body under this id and returns that of the response: 2xx with JSON of at most
    /// 1 MiB, or nothing.
    pub(crate) async fn ask(&self, id: &str, body: Vec<u8>) -> Result<Vec<u8>, String> {
        self.send(id, body, read).await
    }

    /// Sends the body under this id. 2xx says that it arrived; whatever comes with that is not
    /// read.
    pub(crate) async fn tell(&self, id: &str, body: Vec<u8>) -> Result<(), String> {
        self.send(id, body, async |response| refused(response).await.map(drop)).await
    }

    async fn send<T>(
        &self,
        id: &str,
        body: Vec<u8>,
        read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, String>,
    ) -> Result<T, String> {
        let request = self.request(id, body)?;
        let permitted = |address| permitted(address, self.to.encrypted(), &self.allow);
        let within = self.connect_timeout;
        let connect = self.to.connect(&SystemResolver, &permitted, &self.tls, within);
        let stream = timeout(within, connect)
            .await
            .map_err(|_| format!("no connection to {} in {within:?}", self.to.origin()))??;
        exchange(stream, request, async |response: Result<_, Failed>| {
            read(response.map_err(|failed| failed.reason)?).await
        })
        .await
    }

    fn request(&self, id: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, String> {
        let id = encoded(id);
        let timestamp = (self.clock.now_millis() / 1000).to_string();
        let mut mac = self.mac.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body] {
            mac.update(part);
        }
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        Request::post(self.target.clone())
            .header(HOST, self.authority.clone())
            .header(USER_AGENT, concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body.into())
            .map_err(|error| format!("no request: {error}"))
    }
}

/// An error says what the address is, and which rule that breaks.
fn permitted(address: IpAddr, encrypted: bool, allow: &[IpNet]) -> Result<(), String> {
    match connect::permitted(address, allow, "`allow`")? || encrypted {
        true => Ok(()),
        false => {
            Err(format!("leads to {address}, which is not in `allow` and thus needs https://"))
        }
    }
}

fn keyed(secret: &str) -> Result<Hmac<Sha256>, WebhookConfigError> {
    let bad = |rule: &str| WebhookConfigError { field: "secret", rule: rule.to_owned() };
    let key = secret.strip_prefix("whsec_").ok_or_else(|| bad("must begin with whsec_"))?;
    let key = STANDARD.decode(key).map(Zeroizing::new);
    let key = key.map_err(|_| bad("must be base64 after whsec_"))?;
    if !(24..=64).contains(&key.len()) {
        return Err(bad("must have 24 to 64 bytes"));
    }
    Hmac::new_from_slice(&key).map_err(|_| bad("is no key"))
}

/// Injective, and without the full stop that separates the parts of what is signed.
fn encoded(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").ok();
        }
    }
    out
}

/// The answer again, unless it is no success.
async fn refused(response: Response<Incoming>) -> Result<Response<Incoming>, String> {
    let status = response.status();
    if status.is_redirection() {
        return Err(format!("answered {status}; redirects are not followed"));
    }
    if status.is_success() {
        return Ok(response);
    }
    let (mut body, mut bytes) = (response.into_body(), Vec::new());
    timeout(REASON_GRACE, collect(&mut body, REASON_MAX, &mut bytes)).await.ok();
    let said = quote(&String::from_utf8_lossy(&bytes));
    let colon = if said.is_empty() { "" } else { ": " };
    Err(format!("answered {status}{colon}{said}"))
}

async fn read(response: Response<Incoming>) -> Result<Vec<u8>, String> {
    let (head, mut body) = refused(response).await?.into_parts();
    let (status, mut bytes) = (head.status, Vec::new());
    collect(&mut body, ANSWER_MAX, &mut bytes)
        .await
        .map_err(|reason| format!("answered {status}, and {reason}"))?;
    if bytes.is_empty() || status == StatusCode::NO_CONTENT {
        return Ok(Vec::new());
    }
    let kind = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let kind = String::from_utf8_lossy(kind);
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(format!("answered {status} with {:?}, not application/json", quote(essence)));
    }
    Ok(bytes)
}

/// Reads into the empty `bytes`. Can be dropped at any time: what was read by then is there.
async fn collect(body: &mut Incoming, max: usize, bytes: &mut Vec<u8>) -> Result<(), String> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the body broke off: {}", chain(&error)))?;
        let Some(data) = frame.data_ref() else { continue };
        let room = max - bytes.len();
        bytes.extend_from_slice(data.get(..room).unwrap_or(data));
        if data.len() > room {
            return Err(format!("the body exceeds {max} bytes"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_encoded_without_loss_of_difference() {
        for (id, sent) in [
            ("", ""),
            ("msg_Az09-", "msg_Az09-"),
            ("hook.invocation.1", "hook%2Einvocation%2E1"),
            ("a%2Eb", "a%252Eb"),
            ("a\r\nb: c", "a%0D%0Ab%3A%20c"),
            ("é", "%C3%A9"),
        ] {
            assert_eq!(encoded(id), sent);
        }
    }
}
