//! Calls to one other node, over one connection that is made when it is needed and made anew when it fails.
//!
//! A call ends by its deadline, whatever the other node and the network do. A connection on which a call was late is not
//! used for another: after a partition it may take TCP much longer to find out than to connect again.
//!
//! Invariants, each a test in `cli/tests/peers.rs`:
//! * `a_peer_that_hangs_costs_one_deadline_and_no_more`.
//! * `a_peer_that_comes_back_is_heard_again`.
//!
//! Not here: when to call, and what to make of the answer.

use std::error::Error as _;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_model::status::NodeView;
use holdfast_proto::convert::{Invalid, required_from_wire};
use holdfast_proto::v1;
use holdfast_proto::v1::node_service_client::NodeServiceClient;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::dial::{PeerAddress, dial};
use crate::chain::Chain;
use crate::config::TlsConfig;

/// How long to wait for another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For a connection, with its handshake.
    pub connect: Duration,
    /// For the answer to a question that needs no work, its connection included.
    pub call: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect: Duration::from_secs(1), call: Duration::from_millis(1_500) }
    }
}

/// Why another node did not answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Not in time. It may have done what it was asked.
    #[error("{node} did not answer within {} ms", within.as_millis())]
    Late {
        /// Which.
        node: holdfast_model::NodeName,
        /// How long was waited.
        within: Duration,
    },
    /// It declined, or was not reached; the status tells which.
    #[error("call {node}: {}", told(status))]
    Status {
        /// Which.
        node: holdfast_model::NodeName,
        /// What was heard.
        status: Box<Status>,
    },
    /// The answer makes no sense: the agents may be of different versions.
    #[error("read the answer of {node}")]
    Answer {
        /// Which.
        node: holdfast_model::NodeName,
        /// What is wrong.
        #[source]
        source: Invalid,
    },
}

/// A status in words: what the other node says, or all causes of not having heard it.
fn told(status: &Status) -> String {
    status.source().map_or_else(|| status.message().to_owned(), |cause| Chain(cause).to_string())
}

/// The way to one other node.
#[derive(Debug)]
pub struct PeerClient {
    peer: PeerAddress,
    files: TlsConfig,
    deadlines: Deadlines,
    channel: Mutex<Line>,
}

/// The connection in use, if there is one; counted, so that a late call gives up its own and none that came after.
#[derive(Debug, Default)]
struct Line {
    channel: Option<Channel>,
    number: u64,
}

impl PeerClient {
    /// To `peer`, as the node of `files`, which are read at each connection. Connects when it is first used.
    #[must_use]
    pub fn new(peer: PeerAddress, files: TlsConfig, deadlines: Deadlines) -> Self {
        Self { peer, files, deadlines, channel: Mutex::default() }
    }

    /// Who is called.
    #[must_use]
    pub const fn peer(&self) -> &PeerAddress {
        &self.peer
    }

    /// What the node says about itself.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn status(&self) -> Result<NodeView, PeerError> {
        let answer = self.call(self.deadlines.call, v1::GetStatusRequest {}, async |channel, request| {
            NodeServiceClient::new(channel).get_status(request).await
        });
        self.read(required_from_wire("view", answer.await?.view))
    }

    /// Makes one call and waits for its answer until `within` has passed; the other node hears of the deadline too.
    ///
    /// # Errors
    /// [`PeerError::Late`] or [`PeerError::Status`].
    pub async fn call<M, T>(
        &self,
        within: Duration,
        message: M,
        ask: impl AsyncFnOnce(Channel, Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, PeerError> {
        let (channel, number) = self.line();
        let mut request = Request::new(message);
        request.set_timeout(within);
        let node = self.peer.node.clone();
        match tokio::time::timeout(within, ask(channel, request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            // The deadline that the request carries is kept on both sides: it may be told before ours is over.
            Ok(Err(status)) if !matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) => {
                Err(PeerError::Status { node, status: Box::new(status) })
            }
            Ok(Err(_)) | Err(_) => {
                self.give_up(number);
                Err(PeerError::Late { node, within })
            }
        }
    }

    /// Names the node in what was wrong with its answer.
    ///
    /// # Errors
    /// [`PeerError::Answer`].
    pub fn read<T>(&self, answer: Result<T, Invalid>) -> Result<T, PeerError> {
        answer.map_err(|source| PeerError::Answer { node: self.peer.node.clone(), source })
    }

    fn line(&self) -> (Channel, u64) {
        let mut line = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = line.channel.get_or_insert_with(|| self.connect_lazily()).clone();
        (channel, line.number)
    }

    fn give_up(&self, number: u64) {
        let mut line = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if line.number == number {
            *line = Line { channel: None, number: number + 1 };
        }
    }

    /// A channel that connects at its first call, and again at the next one after it lost its connection.
    fn connect_lazily(&self) -> Channel {
        let (peer, files, within) = (self.peer.clone(), self.files.clone(), self.deadlines.connect);
        let connector = tower::service_fn(move |_: http::Uri| {
            let (peer, files) = (peer.clone(), files.clone());
            async move {
                match tokio::time::timeout(within, dial(&peer, files)).await {
                    Ok(Ok(stream)) => Ok(TokioIo::new(stream)),
                    Ok(Err(err)) => Err(io::Error::other(err)),
                    Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "not connected in time")),
                }
            }
        });
        Endpoint::from_shared(format!("https://{}", self.peer.address))
            .expect("a socket address is an authority")
            .connect_with_connector_lazy(connector)
    }
}
