//! Whom a server replicates with: the peers that it lets in, and the upstream that it follows.
//!
//! Not here: how an engine is told ([`crate::postgres::links`]), and who is a member. The rules in the log say that.

use std::net::{IpAddr, SocketAddr};

use holdfast_model::{Member, NodeName, Term};

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
