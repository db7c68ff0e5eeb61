//! Whom a server replicates with: the peers that it lets in, the upstream that it follows, and the certificates by which they know
//! one another.
//!
//! Not here: how an engine is told ([`crate::postgres::links`], [`crate::mysql::channel`]), and who is a member. The rules in the log
//! say that.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use holdfast_model::{Member, NodeName, Term};

/// Files of this node's certificate, used as a server and as a member that follows. Off the data volume; the engine's user
/// reads them, and the key belongs to it (mode 0600) or to root (0640): Postgres refuses any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate; its common name is the node's name.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that signs nodes' certificates.
    pub ca: PathBuf,
}

/// A member that may replicate from this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub member: Member,
    /// From where; anywhere when it is not known.
    pub address: Option<IpAddr>,
    /// Whether it may read this server's files besides, which a rewind takes and nothing else.
    pub rewinds: bool,
}

/// The server that this one follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its node, which its certificate must name.
    pub node: NodeName,
    /// Where it listens.
    pub address: SocketAddr,
    /// As whom this server follows.
    pub member: Member,
    /// Whose reign it is followed in: nothing is said to follow before it receives that term's log.
    pub term: Term,
}
