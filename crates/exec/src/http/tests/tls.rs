//! Encrypted servers, with an authority of their own.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem().into_bytes();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Encrypts with a certificate for this name.
    async fn server(&self, name: &str, replies: impl IntoIterator<Item = Reply>) -> Server {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Server::accepting(replies, move |stream| {
            let acceptor = acceptor.clone();
            async move { acceptor.accept(stream).await.ok() }
        })
        .await
    }

    fn executor(&self, names: Names) -> HttpExecutor {
        let roots_pem = Some(self.pem.clone());
        let config = HttpConfig { roots_pem, ..config(&["127.0.0.1/32"]) };
        HttpExecutor::resolving(config, Box::new(names)).unwrap()
    }
}

fn names() -> Names {
    Names::new(&[("a.test", &[&["127.0.0.1"]]), ("b.test", &[&["127.0.0.1"]])])
}

#[tokio::test]
async fn a_server_is_spoken_to_only_if_a_trusted_authority_vouches_for_its_name() {
    let authority = Authority::new();
    let server = authority.server("a.test", [ok("private")]).await;
    let good = authority.executor(names());
    let done = run(&good, get(&server.at("https", "a.test", "/"))).await;
    answered(&done, true, "HTTP 200");
    assert_eq!(text(&done), "private");
    let wrong_name = run(&good, get(&server.at("https", "b.test", "/"))).await;
    not_started(&wrong_name, "no trusted connection to https://b.test");
    let by_address = run(&good, get(&server.at("https", "127.0.0.1", "/"))).await;
    not_started(&by_address, "no trusted connection");
    let unknown = Authority::new().executor(names());
    let done = run(&unknown, get(&server.at("https", "a.test", "/"))).await;
    not_started(&done, "no trusted connection");
    let silent = Server::accepting([ok("")], |_| async { None::<tokio::io::DuplexStream> }).await;
    let done = run(&good, get(&silent.at("https", "a.test", "/"))).await;
    not_started(&done, "no trusted connection");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn from_an_encrypted_server_no_redirect_leads_to_a_plain_one() {
    let authority = Authority::new();
    let plain = Server::start([ok("plain")]).await;
    let location = plain.at("http", "a.test", "/");
    let server = authority.server("a.test", [found(302, &location)]).await;
    let done = run(&authority.executor(names()), get(&server.at("https", "a.test", "/"))).await;
    answered(&done, false, "is not encrypted, and the request was");
    assert_eq!(plain.connections(), 0);
    // The other way is another origin.
    let server = authority.server("a.test", [ok("private")]).await;
    let plain = Server::start([found(302, &server.at("https", "a.test", "/"))]).await;
    let done = run(&authority.executor(names()), get(&plain.at("http", "a.test", "/"))).await;
    answered(&done, true, "HTTP 200");
    assert_eq!(text(&done), "private");
}
