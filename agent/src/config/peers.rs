//! `[[cluster.peers]]` and `k`: the other nodes of the cluster, and how many of them must hold a commit.
//!
//! A list is not an identity: who a peer is, its certificate says, and who counts, the rules in the log say.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use holdfast_model::{NodeName, Zone};

use super::reader::Reader;

/// Another node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Which, as its certificate must say.
    pub node: NodeName,
    /// Where it stands, as its certificate must say.
    pub zone: Zone,
    /// Where its agent listens for gRPC.
    pub address: SocketAddr,
    /// Where its engine listens.
    pub engine: SocketAddr,
}

/// More than this could be asked for by mistake only: the durability argument was checked for k = 0, 1, 2.
const K_MAX: u32 = 2;

/// Reads the peers, without this node's own entry.
pub(super) fn read(r: &mut Reader<'_>, own: Option<&NodeName>, port: u16) -> Vec<PeerConfig> {
    let mut peers = Vec::new();
    let mut named = BTreeSet::new();
    for at in 0..r.entries("cluster.peers", &["node", "zone", "address", "engine"]) {
        let field = |name: &str| format!("cluster.peers[{at}].{name}");
        let node: Option<NodeName> = r.entry(&field("node"), "name the other machine");
        let zone = r.entry(&field("zone"), "name its availability zone");
        let address: Option<SocketAddr> =
            r.entry(&field("address"), "where its agent listens, such as \"10.0.2.1:7430\"");
        let engine = match r.entry_text(&field("engine")) {
            Some(_) => r.entry(&field("engine"), ""),
            None => address.map(|address| SocketAddr::new(address.ip(), port)),
        };
        let (Some(node), Some(zone), Some(address), Some(engine)) = (node, zone, address, engine) else {
            continue;
        };
        if !named.insert(node.clone()) {
            r.issue(&field("node"), format!("node {node} is listed twice"));
        } else if Some(&node) != own {
            peers.push(PeerConfig { node, zone, address, engine });
        }
    }
    peers
}

/// Reads `k`: 1 with peers, 0 without, unless it is set.
pub(super) fn read_k(r: &mut Reader<'_>, peers: &[PeerConfig]) -> u32 {
    let default = u32::from(!peers.is_empty());
    let k = r.number("cluster.k", default, K_MAX);
    if k > 0 && peers.is_empty() {
        r.issue(
            "cluster.k",
            "needs other nodes that can hold commits: list them in [[cluster.peers]], or leave it out",
        );
    }
    k
}
