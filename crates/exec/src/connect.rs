//! Reaching one HTTP server: where it is, whether one may go there, and one request.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use countersign_manifest::{internal_address, metadata_address};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HeaderValue;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::{Host, Position, Url};

use crate::quote::quote;

/// Header fields of a response. More end the exchange.
pub(crate) const HEADERS_MAX: usize = 100;
/// Bytes of the head of a response, and of what is read ahead of its body.
pub(crate) const HEAD_MAX: usize = 64 << 10;

/// Finds the addresses of a name. They are judged afterwards, and nothing is looked up twice
/// for one connection.
#[async_trait]
pub(crate) trait Resolve: Send + Sync {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// As this machine is set up.
pub(crate) struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host((name, port)).await?.collect())
    }
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    host: Host<String>,
    port: u16,
    encrypted: bool,
    /// What the certificate must name, and the error shows.
    name: Result<ServerName<'static>, String>,
    origin: String,
}

impl Target {
    /// `None` unless the URL is one of http or https with a host.
    pub(crate) fn of(url: &Url) -> Option<Self> {
        let encrypted = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let (host, port) = (url.host()?, url.port_or_known_default()?);
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| "names a host that no certificate can".to_owned()),
            Host::Ipv4(address) => Ok(ServerName::from(IpAddr::from(address))),
            Host::Ipv6(address) => Ok(ServerName::from(IpAddr::from(address))),
        };
        Some(Self { host: host.to_owned(), port, encrypted, name, origin: origin(url) })
    }

    pub(crate) fn encrypted(&self) -> bool {
        self.encrypted
    }

    /// Scheme, host and port.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The address, if the host is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        }
    }

    /// That a certificate can name the host.
    pub(crate) fn check_name(&self) -> Result<(), String> {
        self.name.as_ref().map(drop).map_err(Clone::clone)
    }

    /// Connects to the first address that `permitted` lets through and that answers: the error
    /// of one that it does not says why. The name is looked up once. Nothing of a request is
    /// sent. `within` is shared among the addresses; the caller bounds the whole.
    pub(crate) async fn connect(
        &self,
        resolver: &dyn Resolve,
        permitted: &(dyn Fn(IpAddr) -> Result<(), String> + Sync),
        tls: &TlsConnector,
        within: Duration,
    ) -> Result<Box<dyn Stream>, String> {
        let stream = self.connect_tcp(resolver, permitted, within).await?;
        if !self.encrypted {
            return Ok(Box::new(stream));
        }
        let name = self.name.clone()?;
        match tls.connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                Err(format!("no trusted connection to {}: {}", self.origin, chain(&error)))
            }
        }
    }

    async fn connect_tcp(
        &self,
        resolver: &dyn Resolve,
        permitted: &(dyn Fn(IpAddr) -> Result<(), String> + Sync),
        within: Duration,
    ) -> Result<TcpStream, String> {
        let found: Vec<SocketAddr> = match &self.host {
            Host::Ipv4(address) => vec![(*address, self.port).into()],
            Host::Ipv6(address) => vec![(*address, self.port).into()],
            Host::Domain(name) => resolver
                .resolve(name, self.port)
                .await
                .map_err(|error| format!("{name} was not found: {error}"))?,
        };
        // So that one that does not answer leaves time for the others.
        let share = within / u32::try_from(found.len().max(1)).unwrap_or(u32::MAX);
        let mut reason = "it has no address".to_owned();
        for address in found {
            if let Err(rule) = permitted(address.ip()) {
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
        Err(format!("no connection to {}: {reason}", self.origin))
    }
}

/// Whether one may go to the address: `Ok(true)` if it is in `allow`, `Ok(false)` if it is of the
/// public internet. An error says what it is instead, and which rule that breaks; `rule` is the
/// name of `allow` where the operator writes it.
pub(crate) fn permitted(address: IpAddr, allow: &[IpNet], rule: &str) -> Result<bool, String> {
    if metadata_address(address) {
        return Err(format!(
            "leads to {address}, where machines are told secrets about themselves; no \
             configuration allows that"
        ));
    }
    if covered(address, allow) {
        return Ok(true);
    }
    match internal_address(address) {
        Some(what) => Err(format!("leads to {address}, which is {what} and not in {rule}")),
        None => Ok(false),
    }
}

/// Whether the address is in one of the networks. An IPv4-mapped one also counts as the IPv4
/// address to which the operating system connects.
fn covered(address: IpAddr, networks: &[IpNet]) -> bool {
    let canonical = address.to_canonical();
    networks.iter().any(|network| network.contains(&address) || network.contains(&canonical))
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Trusts these authorities, in PEM, or those that Mozilla trusted when this was built.
pub(crate) fn tls(roots_pem: Option<&[u8]>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    match roots_pem {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for root in CertificateDer::pem_slice_iter(pem) {
                let root = root.map_err(|error| format!("is no PEM: {error}"))?;
                roots.add(root).map_err(|error| format!("holds no authority: {error}"))?;
            }
        }
    }
    if roots.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot be used: {error}"))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Scheme, host and port.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The first line's target, and the Host field; `None` if they cannot be sent.
pub(crate) fn request_target(url: &Url) -> Option<(Uri, HeaderValue)> {
    let target = url[Position::BeforePath..Position::AfterQuery].parse().ok()?;
    let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]).ok()?;
    Some((target, host))
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) reason: String,
    /// It is certain that the other side got nothing of the request.
    pub(crate) unsent: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for Failed {}

/// Sends the request once, and hands over the response. The connection lives and ends within
/// this future.
pub(crate) async fn exchange<T>(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
    read: impl AsyncFnOnce(Result<Response<Incoming>, Failed>) -> T,
) -> T {
    let mut builder = http1::Builder::new();
    builder.max_headers(HEADERS_MAX).max_header_size(HEAD_MAX).max_buf_size(HEAD_MAX);
    let (mut sender, connection) = match builder.handshake(TokioIo::new(stream)).await {
        Ok(both) => both,
        Err(error) => {
            let reason = format!("no request: {}", chain(&error));
            return read(Err(Failed { reason, unsent: true })).await;
        }
    };
    let exchange = async {
        let response = sender.try_send_request(request).await.map_err(|mut error| {
            // The request is given back only if nothing of it was written.
            let unsent = error.take_message().is_some();
            Failed { reason: format!("no response: {}", chain(&error.into_error())), unsent }
        });
        read(response).await
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What went wrong, or was still to be read, shows on the other side.
        _ = &mut connection => exchange.await,
    }
}

/// The error with its sources, safe to look at and short.
pub(crate) fn chain(error: &dyn Error) -> String {
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
    fn a_network_covers_what_is_connected_to() {
        for (address, network, covers) in [
            ("127.0.0.1", "127.0.0.0/8", true),
            ("128.0.0.1", "127.0.0.0/8", false),
            ("::ffff:127.0.0.1", "127.0.0.0/8", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.0/104", true),
            ("::1", "::1/128", true),
            ("::1", "127.0.0.0/8", false),
            ("127.0.0.1", "::/0", false),
            // Through a gateway, it is another path than the one that was declared.
            ("64:ff9b::127.0.0.1", "127.0.0.0/8", false),
            ("2002:7f00:1::", "127.0.0.0/8", false),
        ] {
            let network: IpNet = network.parse().unwrap();
            assert_eq!(covered(address.parse().unwrap(), &[network]), covers, "{address}");
        }
        assert!(!covered("127.0.0.1".parse().unwrap(), &[]));
    }
}
