//! A real load balancer in a zone: HAProxy, which asks `GET /primary` of every node and sends clients to the one that
//! answers 200. Its sessions to a node end when that node stops being it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::process::Background;
use crate::scratch::Scratch;
use crate::zones::{Zone, Zones};
use crate::{eventually, installation};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// A node as the load balancer knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: Ipv4Addr,
    /// The port that is asked for `/primary`.
    pub http: u16,
    /// The port that clients are sent to.
    pub engine: u16,
}

/// What the load balancer thinks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It was not asked yet.
    Unchecked,
    /// It is the primary.
    Up,
    /// It is not, or does not answer.
    Down,
}

/// A running HAProxy; dropping it kills it.
#[derive(Debug)]
pub struct Haproxy {
    process: Background,
    socket: PathBuf,
    listens: SocketAddrV4,
}

impl Haproxy {
    /// Starts one in `zone` that listens on `listens`, an address of that zone, and waits until it has asked every node.
    ///
    /// # Errors
    /// It is not installed, does not start, or is not ready in time.
    pub async fn start(
        scratch: &Scratch,
        zones: &Zones,
        zone: Zone,
        listens: SocketAddrV4,
        nodes: &[Backend],
    ) -> Result<Self> {
        let folder = scratch.folder(&format!("haproxy-{listens}"))?;
        let (config, socket) = (folder.join("haproxy.cfg"), folder.join("stats"));
        fs::write(&config, render(&socket.display().to_string(), listens, nodes))
            .context("write the load balancer's configuration")?;
        // In the foreground, one process.
        let mut haproxy = zones.command(zone, installation::haproxy()?);
        haproxy.arg("-db").arg("-f").arg(&config).current_dir(&folder);
        let process = Background::start(&mut haproxy, &folder.join("haproxy.log"))?;
        let mut started = Self { process, socket, listens };
        eventually("a load balancer that has asked every node", READY_WITHIN, async || {
            started.process.still_runs()?;
            let seen = started.seen().await?;
            ensure!(seen.len() == nodes.len() && !seen.values().any(|it| *it == Seen::Unchecked), "{seen:?}");
            Ok(())
        })
        .await
        .with_context(|| fs::read_to_string(folder.join("haproxy.log")).unwrap_or_default())?;
        Ok(started)
    }

    /// Where clients connect, inside.
    #[must_use]
    pub const fn listens(&self) -> SocketAddrV4 {
        self.listens
    }

    /// What it thinks of each node.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn seen(&self) -> Result<BTreeMap<String, Seen>> {
        let mut stats = UnixStream::connect(&self.socket).await.context("connect to the load balancer")?;
        stats.write_all(b"show stat\n").await.context("ask the load balancer")?;
        let mut answer = String::new();
        stats.read_to_string(&mut answer).await.context("read the load balancer's answer")?;
        parse(&answer)
    }
}

fn render(socket: &str, listens: SocketAddrV4, nodes: &[Backend]) -> String {
    let mut config = format!(
        "global
    stats socket {socket} mode 600 level user
    user haproxy
    group haproxy
    maxconn 1000
    nbthread 1
defaults
    mode tcp
    timeout connect 1s
    timeout check 500ms
    timeout client 1h
    timeout server 1h
    default-server inter 200ms fall 1 rise 1 on-marked-down shutdown-sessions
listen primary
    bind {listens}
    option httpchk GET /primary
    http-check expect status 200
"
    );
    for Backend { name, address, http, engine } in nodes {
        writeln!(config, "    server {name} {address}:{engine} check port {http}")
            .expect("a string takes all text");
    }
    config
}

/// Of the table that `show stat` prints: a header of names behind `# `, then a line each.
fn parse(table: &str) -> Result<BTreeMap<String, Seen>> {
    let mut lines = table.lines();
    let header = lines.next().and_then(|line| line.strip_prefix("# ")).context("a table without a header")?;
    let column =
        |name: &str| header.split(',').position(|it| it == name).with_context(|| format!("no column {name}"));
    let (name, status, check) = (column("svname")?, column("status")?, column("check_status")?);
    let mut seen = BTreeMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or_default();
        // The two rows of the listener itself have no checks.
        if matches!(field(name), "FRONTEND" | "BACKEND") {
            continue;
        }
        let is = match (field(check).contains("INI"), field(status)) {
            (true, _) => Seen::Unchecked,
            (false, status) if status.starts_with("UP") => Seen::Up,
            (false, _) => Seen::Down,
        };
        seen.insert(field(name).to_owned(), is);
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_thinks_is_read_from_its_table() {
        let table = "# pxname,svname,status,check_status\n\
            primary,FRONTEND,OPEN,\n\
            primary,n1,UP,L7OK\n\
            primary,n2,DOWN,* L7STS\n\
            primary,n3,UP,INI\n\
            primary,BACKEND,UP,\n\n";
        let expected = [("n1", Seen::Up), ("n2", Seen::Down), ("n3", Seen::Unchecked)];
        assert_eq!(parse(table).unwrap(), expected.map(|(name, seen)| (name.to_owned(), seen)).into());
    }

    #[test]
    fn a_table_without_a_header_is_no_table() {
        assert!(parse("Unknown command\n").is_err());
    }
}
