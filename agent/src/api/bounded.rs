//! Serves the plain listener, to which anybody may connect, so that nobody keeps others from it.
//!
//! A connection is one request: it is closed after the answer, and at the latest at its deadline, whether the head of
//! the request is missing or its answer is not taken. So many connections are open at once; when one more comes, the
//! oldest is closed in its favour. Answers take far less than a millisecond, so whoever is that old is slow: clients
//! that send nothing cost those that do neither a place nor time.
//!
//! Invariants, each a test below:
//! * `slow_clients_do_not_keep_others_from_an_answer`.
//! * `a_request_that_is_not_finished_in_time_is_cut_off`.
//!
//! Not here: the gRPC listener, whose bounds are [`crate::tls::Acceptor`]'s.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// How long to wait after `accept` failed, e.g. because descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How much of the listener clients may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections that are open at once.
    pub(super) connections: usize,
    /// All of a connection, from its first byte to the last of its answer.
    pub(super) deadline: Duration,
}

/// Serves until cancelled. Connections that are open then are closed: those that get answers have them already.
pub(super) async fn serve(listener: TcpListener, router: Router, bounds: Bounds, cancel: CancellationToken) {
    let mut answering = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return, // cancel-safe; dropping the set closes what is open
            Some(_) = answering.join_next() => continue, // cancel-safe; ended tasks told for themselves
            accepted = listener.accept() => accepted, // cancel-safe
        };
        match accepted {
            Ok((stream, _address)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= bounds.connections
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                open.push_back(answering.spawn(answer(stream, router.clone(), bounds.deadline)));
            }
            Err(err) => {
                warn!(error = %err, "connection not accepted, will retry");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, router: Router, deadline: Duration) {
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().keep_alive(false);
    let service = TowerToHyperService::new(router);
    let served = http.serve_connection(TokioIo::new(stream), service);
    // Port scanners and probes do this all day: not worth more than a debug line.
    match tokio::time::timeout(deadline, served).await {
        Ok(Ok(())) => {}
        Ok(Err(err)) => debug!(error = %err, "connection broke off"),
        Err(_) => debug!("connection not finished in time"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Nothing here takes this long unless it is broken.
    const LONG: Duration = Duration::from_secs(20);
    const CONNECTIONS: usize = 4;

    async fn started(deadline: Duration) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/livez", get(|| async { "alive\n" }));
        let bounds = Bounds { connections: CONNECTIONS, deadline };
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, router, bounds, CancellationToken::new()));
        (address, serving)
    }

    /// A client that does not get beyond the first line.
    async fn slow(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
        stream
    }

    /// All that the server says before it closes; a reset counts as closed.
    async fn rest(mut stream: TcpStream) -> String {
        let mut said = Vec::new();
        let read = tokio::time::timeout(LONG, stream.read_to_end(&mut said)).await;
        drop(read.expect("the server closes the connection"));
        String::from_utf8(said).unwrap()
    }

    #[tokio::test]
    async fn slow_clients_do_not_keep_others_from_an_answer() {
        let (address, _serving) = started(10 * LONG).await;
        let mut waiting = VecDeque::new();
        for _ in 0..5 * CONNECTIONS {
            waiting.push_back(slow(address).await);
        }
        let mut prompt = slow(address).await;
        prompt.write_all(b"host: x\r\n\r\n").await.unwrap();
        let said = rest(prompt).await;
        assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("alive\n"), "{said}");
        assert_eq!(rest(waiting.pop_front().unwrap()).await, "", "the oldest gave way");
    }

    #[tokio::test]
    async fn a_request_that_is_not_finished_in_time_is_cut_off() {
        let (address, _serving) = started(Duration::from_millis(50)).await;
        assert_eq!(rest(slow(address).await).await, "");
    }
}
