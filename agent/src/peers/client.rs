//! One peer over its gRPC: mutual TLS, a deadline on each call, and a channel that reconnects by itself.
//!
//! The peer must show a certificate that names its node as host and says, by its identity, that it is the configured node
//! in the configured zone: a list is not an identity. The own certificate is read anew for each connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_model::status::NodeView;
use holdfast_model::{ClusterName, NodeName, Rule};
use holdfast_proto::convert::{Invalid, Wire as _};
use holdfast_proto::identity::{Caller, Identity};
use holdfast_proto::v1;
use holdfast_proto::v1::member_service_client::MemberServiceClient;
use holdfast_proto::v1::node_service_client::NodeServiceClient;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::config::{PeerConfig, TlsConfig};
use crate::tls;

const CONNECT_DEADLINE: Duration = Duration::from_millis(1_000);
const STATUS_DEADLINE: Duration = Duration::from_millis(1_500);
const RULES_DEADLINE: Duration = Duration::from_secs(3);

/// Why a peer gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Nobody of that name is configured.
    #[error("no such peer is configured")]
    Unknown,
    /// It was not reached, did not answer in time, or refused.
    #[error("call the peer")]
    Call(#[from] tonic::Status),
    /// It answered something that this release does not understand.
    #[error("read the peer's answer")]
    Answer(#[from] Invalid),
    /// It answered nothing.
    #[error("the peer's answer is empty")]
    Empty,
}

/// A peer that can be called.
#[derive(Debug, Clone)]
pub struct PeerClient {
    channel: Channel,
}

impl PeerClient {
    /// Connects when it is first called.
    #[must_use]
    pub fn new(cluster: ClusterName, peer: &PeerConfig, files: TlsConfig) -> Self {
        let expected = Identity::node(cluster, peer.zone.clone(), peer.node.clone());
        let (node, address) = (peer.node.clone(), peer.address);
        let connector = tower::service_fn(move |_: http::Uri| {
            let (files, node, expected) = (files.clone(), node.clone(), expected.clone());
            async move { dial(&files, &node, address, &expected).await.map(TokioIo::new) }
        });
        Self { channel: endpoint(peer).connect_with_connector_lazy(connector) }
    }

    /// One that is never reached.
    #[cfg(test)]
    pub(crate) fn nowhere(peer: &PeerConfig) -> Self {
        Self { channel: endpoint(peer).connect_lazy() }
    }

    /// The channel, for services with deadlines of their own.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What it says about itself.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn status(&self) -> Result<NodeView, PeerError> {
        let mut request = tonic::Request::new(v1::GetStatusRequest {});
        request.set_timeout(STATUS_DEADLINE);
        let asked = async { NodeServiceClient::new(self.channel()).get_status(request).await };
        let answer = within(STATUS_DEADLINE, asked).await?;
        Ok(NodeView::from_wire(answer.into_inner().view.ok_or(PeerError::Empty)?)?)
    }

    /// Every rule in its log, oldest first.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn rules(&self) -> Result<Vec<Rule>, PeerError> {
        let mut request = tonic::Request::new(v1::GetRulesRequest {});
        request.set_timeout(RULES_DEADLINE);
        let asked = async { MemberServiceClient::new(self.channel()).get_rules(request).await };
        let answer = within(RULES_DEADLINE, asked).await?;
        Ok(answer.into_inner().rules.into_iter().map(Rule::from_wire).collect::<Result<_, _>>()?)
    }
}

/// A server that hangs keeps no deadline of its own.
async fn within<T>(
    deadline: Duration,
    asked: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, tonic::Status> {
    let late = |_| tonic::Status::deadline_exceeded(format!("no answer within {} ms", deadline.as_millis()));
    tokio::time::timeout(deadline, asked).await.map_err(late)?
}

fn endpoint(peer: &PeerConfig) -> Endpoint {
    // The name is what the certificate is checked against; where the connection goes the connector knows.
    let uri = format!("https://{}:{}", peer.node, peer.address.port());
    Endpoint::from_shared(uri).expect("a node's name is a host name").connect_timeout(CONNECT_DEADLINE)
}

async fn dial(
    files: &TlsConfig,
    node: &NodeName,
    address: SocketAddr,
    expected: &Identity,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let config = tls::files::client_config(files).map_err(io::Error::other)?;
    let name = ServerName::try_from(node.to_string()).map_err(io::Error::other)?;
    let shake_hands = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let stream = tokio::time::timeout(CONNECT_DEADLINE, shake_hands).await.map_err(late)??;
    let found = tls::peer::identify(stream.get_ref().1.peer_certificates()).map_err(io::Error::other)?;
    if is_same_node(&found, expected) {
        Ok(stream)
    } else {
        Err(io::Error::other(format!("its certificate is that of {found}, expected {expected}")))
    }
}

/// Whatever roles either has.
fn is_same_node(found: &Identity, expected: &Identity) -> bool {
    match (&found.caller, &expected.caller) {
        (Caller::Node { zone, node, .. }, Caller::Node { zone: of_zone, node: of_node, .. }) => {
            found.cluster == expected.cluster && zone == of_zone && node == of_node
        }
        (Caller::Node { .. } | Caller::User { .. }, _) => false,
    }
}
