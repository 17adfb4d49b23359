//! A client of one HTTP endpoint that recognises the gateway by its signature.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_ports::clock::Clock;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::{Host, Position, Url};
use zeroize::Zeroizing;

use crate::address::{covered, internal};
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
    /// is refused otherwise: loopback, private and link-local addresses, metadata services, and
    /// the IPv6 addresses that stand for them.
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
    host: Host<String>,
    port: u16,
    /// `None` is plain HTTP.
    tls: Option<(TlsConnector, ServerName<'static>)>,
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
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(bad_url("must name a host".to_owned()));
        };
        let literal: Option<IpAddr> = match host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        };
        match literal {
            Some(address) => permitted(address, encrypted, &config.allow).map_err(bad_url)?,
            None if encrypted || !config.allow.is_empty() => {}
            None => return Err(bad_url("must begin with https:// or be in `allow`".to_owned())),
        }
        let unsendable = || bad_url("holds what cannot be sent".to_owned());
        let target = url[Position::BeforePath..Position::AfterQuery].parse();
        let authority = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]);
        let tls = encrypted.then(|| {
            let name = match literal {
                Some(address) => ServerName::from(address),
                None => ServerName::try_from(url.host_str().unwrap_or_default().to_owned())
                    .map_err(|_| bad_url("names a host that no certificate can".to_owned()))?,
            };
            Ok((tls(config.roots_pem.as_deref())?, name))
        });
        Ok(Self {
            target: target.map_err(|_| unsendable())?,
            authority: authority.map_err(|_| unsendable())?,
            host: host.to_owned(),
            port,
            tls: tls.transpose()?,
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
        let stream = timeout(self.connect_timeout, self.connect()).await.map_err(|_| {
            format!("no connection to {} in {:?}", origin(&self.url), self.connect_timeout)
        })??;
        exchange(stream, request, read).await
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

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let stream = self.connect_tcp().await?;
        let Some((tls, name)) = &self.tls else {
            return Ok(Box::new(stream));
        };
        match tls.connect(name.clone(), stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                let reason = chain(&error);
                Err(format!("no trusted connection to {}: {reason}", origin(&self.url)))
            }
        }
    }

    async fn connect_tcp(&self) -> Result<TcpStream, String> {
        let found: Vec<SocketAddr> = match &self.host {
            Host::Ipv4(address) => vec![(*address, self.port).into()],
            Host::Ipv6(address) => vec![(*address, self.port).into()],
            Host::Domain(name) => lookup_host((name.as_str(), self.port))
                .await
                .map_err(|error| format!("{name} was not found: {error}"))?
                .collect(),
        };
        // So that one that does not answer leaves time for the others.
        let share = self.connect_timeout / u32::try_from(found.len().max(1)).unwrap_or(u32::MAX);
        let mut reason = "it has no address".to_owned();
        for address in found {
            if let Err(rule) = permitted(address.ip(), self.tls.is_some(), &self.allow) {
                reason = format!("it {rule}");
                continue;
            }
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).ok();
                    return Ok(stream);
                }
                Ok(Err(error)) => reason = format!("{}: {error}", address.ip()),
                Err(_) => reason = format!("{} does not answer", address.ip()),
            }
        }
        Err(format!("no connection to {}: {reason}", origin(&self.url)))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An error says what the address is, and which rule that breaks.
fn permitted(address: IpAddr, encrypted: bool, allow: &[IpNet]) -> Result<(), String> {
    match internal(address) {
        _ if covered(address, allow) => Ok(()),
        Some(what) => Err(format!("leads to {address}, which is {what} and not in `allow`")),
        None if encrypted => Ok(()),
        None => Err(format!("leads to {address}, which is not in `allow` and thus needs https://")),
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

fn tls(roots_pem: Option<&[u8]>) -> Result<TlsConnector, WebhookConfigError> {
    let bad = |rule: String| WebhookConfigError { field: "roots_pem", rule };
    let mut roots = RootCertStore::empty();
    match roots_pem {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for root in CertificateDer::pem_slice_iter(pem) {
                let root = root.map_err(|error| bad(format!("is no PEM: {error}")))?;
                roots.add(root).map_err(|error| bad(format!("holds no authority: {error}")))?;
            }
        }
    }
    if roots.is_empty() {
        return Err(bad("holds no certificate".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(format!("cannot be used: {error}")))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
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

/// The connection lives and ends within this future.
async fn exchange<T>(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, String>,
) -> Result<T, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("no request: {}", chain(&error)))?;
    let exchange = async {
        let response = sender.send_request(request).await;
        read(response.map_err(|error| format!("no response: {}", chain(&error)))?).await
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What went wrong, or was still to be read, shows on the other side.
        _ = &mut connection => exchange.await,
    }
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

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The error with its sources, safe to look at and short.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        write!(text, ": {error}").ok();
        source = error.source();
    }
    quote(&text)
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
