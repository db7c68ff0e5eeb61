//! Accepts connections and shakes hands, so that a caller is known before its first byte of HTTP is read.
//!
//! Bounds: [`CONNECTIONS_MAX`] connections at once, [`HANDSHAKE_DEADLINE`] for each handshake. A handshake that fails
//! or hangs costs its own task and nothing else.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::peer::{Peer, identify};

/// How many connections may be open or shaking hands at once.
pub const CONNECTIONS_MAX: usize = 256;
/// How long a handshake may take.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait after `accept` failed, e.g. because descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A verified connection; gives its place back when dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

/// The accepting loop.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    places: Arc<Semaphore>,
}

impl Acceptor {
    /// Accepts on `listener` with whichever configuration is in force at the time.
    #[must_use]
    pub fn new(listener: TcpListener, config: watch::Receiver<Arc<ServerConfig>>) -> Self {
        Self { listener, config, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// Runs until cancelled or until nobody takes connections any more.
    pub async fn run(self, connected: mpsc::Sender<Connection>, cancel: CancellationToken) {
        let mut handshakes = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => return, // cancel-safe; dropping the set ends handshakes
                () = connected.closed() => return, // cancel-safe
                Some(_) = handshakes.join_next() => continue, // cancel-safe; ended tasks told for themselves
                accepted = self.accept() => accepted, // cancel-safe: a place is given back when dropped
            };
            match accepted {
                Ok((stream, address, place)) => {
                    let config = Arc::clone(&self.config.borrow());
                    handshakes.spawn(shake_hands(config, stream, address, place, connected.clone()));
                }
                Err(err) => {
                    warn!(error = %err, "connection not accepted, will retry");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        let (stream, address) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, address, place))
    }
}

async fn shake_hands(
    config: Arc<ServerConfig>,
    stream: TcpStream,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
    connected: mpsc::Sender<Connection>,
) {
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = match tokio::time::timeout(HANDSHAKE_DEADLINE, handshake).await {
        Ok(Ok(stream)) => stream,
        // Port scanners and probes do this all day: not worth more than a debug line.
        Ok(Err(err)) => return debug!(from = %address, error = %err, "handshake refused"),
        Err(_) => return debug!(from = %address, "handshake not finished in time"),
    };
    let identity = identify(stream.get_ref().1.peer_certificates());
    let connection = Connection { stream, peer: Peer { address, identity }, _place: place };
    if connected.send(connection).await.is_err() {
        debug!(from = %address, "connection dropped: the service is stopping");
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
