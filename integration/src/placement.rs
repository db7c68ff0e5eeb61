//! Where a program runs, and how it is reached from out here: on loopback, in a zone, or beside the zones.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

use crate::process::command;
use crate::zones::{Zone, Zones};

/// An address inside the zones that does not answer is cut off.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Where a program runs.
#[derive(Debug, Clone)]
pub enum Placement {
    /// On this machine's loopback.
    Loopback,
    /// In one of three zones.
    Zone {
        /// All of them.
        zones: Zones,
        /// Which one.
        zone: Zone,
        /// Which of its addresses: see [`Zone::address`].
        host: u8,
    },
    /// Beside the zones, where each of them reaches it whatever is cut.
    Region(Zones),
}

impl Placement {
    /// Where its servers listen.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Zone { zone, host, .. } => zone.address(*host),
            Self::Region(_) => Zones::REGION,
        }
    }

    /// The zone's name as in a node's configuration. Loopback is one zone; the region is none.
    #[must_use]
    pub const fn zone(&self) -> &'static str {
        match self {
            Self::Loopback => Zone::A.name(),
            Self::Zone { zone, .. } => zone.name(),
            Self::Region(_) => "unknown",
        }
    }

    /// A command to fill in that runs there. Its process is the program's own.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Loopback => command(program),
            Self::Zone { zones, zone, .. } => zones.command(*zone, program),
            Self::Region(zones) => zones.region_command(program),
        }
    }

    /// Connects to `port` as a neighbour would, who no cut keeps away.
    ///
    /// # Errors
    /// Nobody listens, or nothing is at that place.
    pub async fn connect(&self, port: u16) -> Result<TcpStream> {
        let to = SocketAddrV4::new(self.address(), port);
        let (zones, zone) = match self {
            Self::Loopback => return TcpStream::connect(to).await.context("connect"),
            Self::Zone { zones, zone, .. } => (zones.clone(), *zone),
            Self::Region(zones) => (zones.clone(), Zone::A),
        };
        let connected = spawn_blocking(move || zones.connect(zone, to, CONNECT_WITHIN)).await??;
        connected.set_nonblocking(true).context("connect")?;
        TcpStream::from_std(connected).context("connect")
    }
}
