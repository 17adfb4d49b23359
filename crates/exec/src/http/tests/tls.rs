//! Encrypted servers, with an authority of their own.

use super::*;
use crate::authority::Authority;

impl Authority {
    async fn server(&self, name: &str, replies: impl IntoIterator<Item = Reply>) -> Server {
        let acceptor = self.vouches(name);
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
