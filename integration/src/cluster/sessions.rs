//! Where the sessions of clients end up: real `psql`, of one version or another, with the addresses of nodes or of load
//! balancers.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};

use super::Cluster;
use crate::process::run;
use crate::zones::Zone;
use crate::{installation, node};

/// What a client is told to connect to.
#[derive(Debug, Clone)]
pub struct Search<'a> {
    /// Version of psql and its libpq.
    pub libpq: u32,
    /// Where it runs.
    pub from: Zone,
    /// In this order.
    pub addresses: &'a [SocketAddrV4],
    /// Further parameters: `target_session_attrs=read-write`.
    pub parameters: &'a str,
}

impl Cluster {
    /// Where the engine of a zone listens.
    ///
    /// # Errors
    /// The zone has no node.
    pub fn engine_at(&self, zone: Zone) -> Result<SocketAddrV4> {
        let node = &self.site(zone)?.node;
        Ok(SocketAddrV4::new(node.placement.address(), node.port))
    }

    /// The zone of the node that a session is with.
    ///
    /// # Errors
    /// There is no session; the message is libpq's.
    pub fn session(&self, search: &Search<'_>) -> Result<Zone> {
        let conninfo = format!("{} {}", node::conninfo(search.addresses), search.parameters);
        let psql = installation::postgres(search.libpq)?.join("psql");
        let mut psql = self.zones.command(search.from, psql);
        psql.args(["--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--dbname"]).arg(conninfo);
        let told = run(psql.args(["--command", "select host(inet_server_addr())"]))?;
        let address: Ipv4Addr = told.trim().parse().with_context(|| format!("{told:?} is no address"))?;
        let at = |zone: &&Zone| self.site(**zone).is_ok_and(|site| site.node.placement.address() == address);
        Zone::ALL.iter().find(at).copied().with_context(|| format!("no node is at {address}"))
    }
}
