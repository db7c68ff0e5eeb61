//! A port on loopback that leads to an address inside the zones: what was written for loopback (a client, `psql`, the
//! command line) works through it as if it ran in a zone.
//!
//! A door always opens. When the address behind does not answer, the connection ends; when packets are lost behind it,
//! it hangs as they would have it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, spawn_blocking};

use super::{Zone, Zones};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// An open door; dropping it closes it and every connection through it.
#[derive(Debug)]
pub struct Door {
    port: u16,
    tasks: JoinSet<()>,
}

impl Door {
    /// Opens one whose connections come out in `zone` and go to `to`.
    ///
    /// # Errors
    /// Loopback gives no port.
    pub async fn open(zones: &Zones, zone: Zone, to: SocketAddrV4) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("open a door")?;
        let port = listener.local_addr().context("read the port")?.port();
        let mut tasks = JoinSet::new();
        tasks.spawn(pass_on(listener, zones.clone(), zone, to));
        Ok(Self { port, tasks })
    }

    /// Where to knock on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

async fn pass_on(listener: TcpListener, zones: Zones, zone: Zone, to: SocketAddrV4) {
    let mut connections = JoinSet::new();
    // Whoever knocks at a listener that failed is told so by the kernel.
    while let Ok((outside, _)) = listener.accept().await {
        let zones = zones.clone();
        connections.spawn(async move {
            // Whatever goes wrong ends the connection, which is what the client sees of it.
            drop(connect_both(outside, zones, zone, to).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connect_both(mut outside: TcpStream, zones: Zones, zone: Zone, to: SocketAddrV4) -> Result<()> {
    let inside = spawn_blocking(move || zones.connect(zone, to, CONNECT_WITHIN)).await??;
    inside.set_nonblocking(true)?;
    let mut inside = TcpStream::from_std(inside)?;
    copy_bidirectional(&mut outside, &mut inside).await?;
    Ok(())
}
