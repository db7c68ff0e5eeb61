//! A real load balancer in a zone: HAProxy, which asks `GET /primary` of every node and sends clients to the one that
//! answers 200. Its sessions to a node end when that node stops being it. At its next port it does the same with
//! `GET /replica`, for clients that only read. docs/clients.md shows this configuration.

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
    /// The port that is asked for `/primary` and `/replica`.
    pub http: u16,
    /// The port that clients are sent to.
    pub engine: u16,
}

/// Whom the load balancer sends clients to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The node where clients can write.
    Primary,
    /// Nodes that follow it, where clients can read.
    Replica,
}

impl Role {
    const ALL: [Self; 2] = [Self::Primary, Self::Replica];

    /// The name of its listener, and of the path that is asked.
    const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// What the load balancer thinks of a node in a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It was not asked yet.
    Unchecked,
    /// It has the role.
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
    /// Starts one in `zone` that listens on `listens`, an address of that zone, and on the port after it, and waits until
    /// it has asked every node.
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
            for role in Role::ALL {
                let seen = started.seen(role).await?;
                let unchecked = seen.values().any(|it| *it == Seen::Unchecked);
                ensure!(seen.len() == nodes.len() && !unchecked, "{role:?}: {seen:?}");
            }
            Ok(())
        })
        .await
        .with_context(|| fs::read_to_string(folder.join("haproxy.log")).unwrap_or_default())?;
        Ok(started)
    }

    /// Where clients of a role connect, inside.
    #[must_use]
    pub const fn listens(&self, role: Role) -> SocketAddrV4 {
        at(self.listens, role)
    }

    /// What it thinks of each node in a role.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn seen(&self, role: Role) -> Result<BTreeMap<String, Seen>> {
        let mut stats = UnixStream::connect(&self.socket).await.context("connect to the load balancer")?;
        stats.write_all(b"show stat\n").await.context("ask the load balancer")?;
        let mut answer = String::new();
        stats.read_to_string(&mut answer).await.context("read the load balancer's answer")?;
        parse(&answer, role)
    }
}

const fn at(primary: SocketAddrV4, role: Role) -> SocketAddrV4 {
    match role {
        Role::Primary => primary,
        Role::Replica => SocketAddrV4::new(*primary.ip(), primary.port() + 1),
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
"
    );
    let mut line = |line: String| writeln!(config, "{line}").expect("a string takes all text");
    for role in Role::ALL {
        let (name, listens) = (role.name(), at(listens, role));
        line(format!("listen {name}\n    bind {listens}\n    balance roundrobin"));
        line(format!("    option httpchk GET /{name}\n    http-check expect status 200"));
        for Backend { name, address, http, engine } in nodes {
            line(format!("    server {name} {address}:{engine} check port {http}"));
        }
    }
    config
}

/// Of the table that `show stat` prints, the servers of one listener: a header of names behind `# `, then a line each.
fn parse(table: &str, role: Role) -> Result<BTreeMap<String, Seen>> {
    let mut lines = table.lines();
    let header = lines.next().and_then(|line| line.strip_prefix("# ")).context("a table without a header")?;
    let column =
        |name: &str| header.split(',').position(|it| it == name).with_context(|| format!("no column {name}"));
    let (listener, name) = (column("pxname")?, column("svname")?);
    let (status, check) = (column("status")?, column("check_status")?);
    let mut seen = BTreeMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or_default();
        // The two rows of the listener itself have no checks.
        if field(listener) != role.name() || matches!(field(name), "FRONTEND" | "BACKEND") {
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
            primary,BACKEND,UP,\n\
            replica,n1,DOWN,L7STS\n\n";
        let of = |role| parse(table, role).unwrap().into_iter().collect::<Vec<_>>();
        let named = |name: &str, seen| (name.to_owned(), seen);
        let expected = [named("n1", Seen::Up), named("n2", Seen::Down), named("n3", Seen::Unchecked)];
        assert_eq!(of(Role::Primary), expected);
        assert_eq!(of(Role::Replica), [named("n1", Seen::Down)]);
    }

    #[test]
    fn a_table_without_a_header_is_no_table() {
        assert!(parse("Unknown command\n", Role::Primary).is_err());
    }
}
