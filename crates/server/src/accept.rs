//! Connections: how many at once, how long one may take to say what it wants, and how the
//! last ones end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// After an error of `accept`, such as too many open files: waiting helps, trying again at
/// once does not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of the listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcceptLimits {
    /// Connections at once. More wait in the operating system's queue.
    pub(crate) max_connections: usize,
    /// How long a connection may take to send the head of a request, also of the next one.
    pub(crate) header_timeout: Duration,
    /// How long the last requests may take once the gateway stops.
    pub(crate) close_timeout: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            header_timeout: Duration::from_secs(15),
            close_timeout: Duration::from_secs(3),
        }
    }
}

/// Serves until `stop` fires. Then there are no new connections, and this returns once those
/// that are open have answered the requests they have, or have run out of time.
///
/// An event stream ends only when whoever writes it ends it, so that must happen first.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    limits: AcceptLimits,
    stop: CancellationToken,
) {
    let (graceful, cut) = (GracefulShutdown::new(), CancellationToken::new());
    // Whoever drops this future ends the connections, too.
    let _cut = cut.clone().drop_guard();
    // The listener is closed when this returns.
    accept(listener, &app, limits, &stop, &graceful, &cut).await;
    if tokio::time::timeout(limits.close_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections are cut that did not end in time");
    }
}

async fn accept(
    listener: TcpListener,
    app: &Router,
    limits: AcceptLimits,
    stop: &CancellationToken,
    graceful: &GracefulShutdown,
    cut: &CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    let next = async || {
        let place = Arc::clone(&places).acquire_owned().await.ok();
        (place, listener.accept().await)
    };
    loop {
        let (place, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = next() => next,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small writes, each of them waited for: events, and answers.
        let _ = socket.set_nodelay(true);
        let service = TowerToHyperService::new(app.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(socket), service));
        let cut = cut.clone();
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                },
                () = cut.cancelled() => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn start(limits: AcceptLimits) -> (std::net::SocketAddr, CancellationToken, Served) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let app = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/never", get(std::future::pending::<&'static str>));
        (address, stop.clone(), tokio::spawn(serve(listener, app, limits, stop)))
    }

    type Served = tokio::task::JoinHandle<()>;

    async fn ask(address: std::net::SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    async fn answer(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_full_house_still_stops() {
        let limits = AcceptLimits { max_connections: 1, ..AcceptLimits::default() };
        let (address, stop, served) = start(limits).await;
        let idle = TcpStream::connect(address).await.unwrap();
        stop.cancel();
        served.await.unwrap();
        drop(idle);
    }

    #[tokio::test]
    async fn silence_gives_its_place_up() {
        let header_timeout = Duration::from_millis(50);
        let limits = AcceptLimits { max_connections: 1, header_timeout, ..AcceptLimits::default() };
        let (address, stop, served) = start(limits).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        assert!(answer(ask(address, "/").await).await.ends_with("here"));
        stop.cancel();
        served.await.unwrap();
    }

    #[tokio::test]
    async fn what_never_ends_is_cut() {
        let close_timeout = Duration::from_millis(50);
        let limits = AcceptLimits { close_timeout, ..AcceptLimits::default() };
        let (address, stop, served) = start(limits).await;
        let never = ask(address, "/never").await;
        assert!(answer(ask(address, "/").await).await.ends_with("here"));
        let began = Instant::now();
        stop.cancel();
        served.await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2));
        assert_eq!(answer(never).await, "");
    }
}
