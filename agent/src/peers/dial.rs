//! A connection to another node, with this node's certificate, once the other has shown the one that it must have.
//!
//! Its certificate must chain to `[tls] ca`, hold its name as a DNS name and its place in the cluster as the URI of
//! `holdfast_proto::identity`: an address that was given to another machine, or a peer that is configured in a wrong zone,
//! ends here, before anything is sent.
//!
//! Invariants, each a test in `cli/tests/peers.rs`:
//! * `a_certificate_of_another_node_or_zone_is_refused`.
//! * `certificates_are_read_anew_for_each_connection`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use holdfast_model::{ClusterName, NodeName, Zone};
use holdfast_proto::identity::{Caller, Identity};
use rustls::pki_types::ServerName;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::TlsConfig;
use crate::tls::files::Contents;
use crate::tls::peer::identify;
use crate::tls::{NoIdentity, TlsError};

/// Another node: who it is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// The cluster of both.
    pub cluster: ClusterName,
    /// Which node.
    pub node: NodeName,
    /// Where it stands.
    pub zone: Zone,
    /// Where it listens for gRPC.
    pub address: SocketAddr,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// This node's own files are no good.
    #[error("use this node's certificate")]
    Own(#[source] TlsError),
    /// Reading them was cut off.
    #[error("read this node's certificate")]
    Cut(#[source] tokio::task::JoinError),
    /// A node name that is no DNS name stands in no certificate.
    #[error("node name {0} is not valid as a DNS name: no certificate can hold it")]
    Name(NodeName),
    /// No route, nobody there, or no trust on either side.
    #[error("connect to {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate is good, and names nobody.
    #[error("read the certificate of {0}")]
    NoIdentity(SocketAddr, #[source] NoIdentity),
    /// The certificate is good, and another's.
    #[error(
        "{address} is {found}, and {expected} was expected: correct [[cluster.peers]], or issue the certificate anew"
    )]
    AnotherNode {
        /// Where.
        address: SocketAddr,
        /// Who is there.
        found: Box<Identity>,
        /// Who should be.
        expected: Box<Identity>,
    },
}

/// Connects to `peer`. Has no deadline of its own.
pub(super) async fn dial(peer: &PeerAddress, files: TlsConfig) -> Result<TlsStream<TcpStream>, DialError> {
    let config = move || Contents::read(&files)?.client_config(&files);
    let config =
        tokio::task::spawn_blocking(config).await.map_err(DialError::Cut)?.map_err(DialError::Own)?;
    let name = ServerName::try_from(peer.node.to_string()).map_err(|_| DialError::Name(peer.node.clone()))?;
    let connect = |source| DialError::Connect { address: peer.address, source };
    let stream = TcpStream::connect(peer.address).await.map_err(connect)?;
    stream.set_nodelay(true).map_err(connect)?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(connect)?;
    check(peer, &stream)?;
    // With TLS 1.3 a handshake looks done before the other side has judged our certificate. Its first bytes of HTTP/2
    // come unasked; waiting for them brings up its refusal here.
    stream.fill_buf().await.map_err(connect)?;
    Ok(stream)
}

fn check(peer: &PeerAddress, stream: &TlsStream<TcpStream>) -> Result<(), DialError> {
    let found = identify(stream.get_ref().1.peer_certificates())
        .map_err(|source| DialError::NoIdentity(peer.address, source))?;
    let PeerAddress { cluster, node, zone, address } = peer;
    let is_it = found.cluster == *cluster
        && match &found.caller {
            Caller::Node { zone: in_zone, node: called, .. } => in_zone == zone && called == node,
            Caller::User { .. } => false,
        };
    if is_it {
        return Ok(());
    }
    let expected = Box::new(Identity::node(cluster.clone(), zone.clone(), node.clone()));
    Err(DialError::AnotherNode { address: *address, found: Box::new(found), expected })
}
