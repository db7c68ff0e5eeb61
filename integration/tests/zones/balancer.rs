//! A real load balancer in front of two nodes that are stubs.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_integration::haproxy::{Backend, Haproxy, Role, Seen};
use holdfast_integration::zones::{Cut, Zone, Zones};
use holdfast_integration::{Scratch, eventually};

use crate::server::{self, Running};

const SOON: Duration = Duration::from_secs(30);
const HTTP: u16 = 7431;
const ENGINE: u16 = 5432;

struct Stub {
    zone: Zone,
    name: &'static str,
    primary: Arc<AtomicBool>,
    _running: [Running; 2],
}

impl Stub {
    fn start(zones: &Zones, zone: Zone, name: &'static str, is_primary: bool) -> Result<Self> {
        let address = zone.address(1);
        let primary = Arc::new(AtomicBool::new(is_primary));
        let running = [
            server::http(zones, zone, SocketAddrV4::new(address, HTTP), Arc::clone(&primary))?,
            server::engine(zones, zone, SocketAddrV4::new(address, ENGINE), name)?,
        ];
        Ok(Self { zone, name, primary, _running: running })
    }

    fn backend(&self) -> Backend {
        Backend { name: self.name.to_owned(), address: self.zone.address(1), http: HTTP, engine: ENGINE }
    }
}

/// A connection through the load balancer, and the name of the node that it ended up at.
fn session(zones: &Zones, haproxy: &Haproxy) -> Result<(BufReader<std::net::TcpStream>, String)> {
    let stream = zones.connect(Zone::B, haproxy.listens(Role::Primary), SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    let mut stream = BufReader::new(stream);
    let mut name = String::new();
    stream.read_line(&mut name).context("hear a name")?;
    ensure!(!name.is_empty(), "nobody is behind the load balancer");
    Ok((stream, name.trim().to_owned()))
}

async fn leads_to(zones: &Zones, haproxy: &Haproxy, name: &str) -> Result<()> {
    eventually(&format!("sessions with {name}"), SOON, async || {
        let (_stream, at) = session(zones, haproxy)?;
        ensure!(at == name, "with {at}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_follows_the_primary_and_ends_sessions_with_the_old_one_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let zones = Zones::new(&scratch)?;
    let (n1, n2) = (Stub::start(&zones, Zone::A, "n1", true)?, Stub::start(&zones, Zone::B, "n2", false)?);
    let listens = SocketAddrV4::new(Zone::C.address(4), 6432);
    let haproxy = Haproxy::start(&scratch, &zones, Zone::C, listens, &[n1.backend(), n2.backend()]).await?;
    let (mut old, name) = session(&zones, &haproxy)?;
    ensure!(name == "n1", "ready, and sends clients to {name}");

    n1.primary.store(false, Ordering::SeqCst);
    n2.primary.store(true, Ordering::SeqCst);
    leads_to(&zones, &haproxy, "n2").await?;
    let mut rest = String::new();
    let end = old.read_line(&mut rest);
    ensure!(
        matches!(end, Ok(0)) || end.is_err_and(|err| err.kind() == std::io::ErrorKind::ConnectionReset),
        "the old session goes on"
    );

    n1.primary.store(true, Ordering::SeqCst);
    zones.impose(&[Cut::Between(Zone::B, Zone::C)])?;
    eventually("n2 out of sight", SOON, async || {
        let seen = haproxy.seen(Role::Primary).await?;
        ensure!(seen.get("n1") == Some(&Seen::Up) && seen.get("n2") == Some(&Seen::Down), "{seen:?}");
        Ok(())
    })
    .await
}
