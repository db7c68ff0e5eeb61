//! Three availability zones on one machine: a network namespace each, joined by a bridge in a fourth. Needs root.
//!
//! The namespaces are kept by files in the scratch directory, and their links exist in no namespace but these, so that
//! the machine's own network is never touched and the janitor finds everything, processes inside included. Programs are
//! put inside by `nsenter` and not by `ip netns exec`, which would give each a mount namespace of its own: what it mounts
//! there nobody else sees.
//!
//! What all zones share, object storage say, runs where the bridge is, at an address of the bridge itself: cuts are between
//! zones and never reach it.
//!
//! * [`cut`]: links that let nothing through, or only some of it.
//! * [`door`]: a port on loopback out here that leads to an address in there.
//!
//! Tests: `tests/zones.rs`.

pub mod cut;
pub mod door;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::process::{command, run};
use crate::scratch::Scratch;

pub use cut::Cut;
pub use door::Door;

/// Addresses of one zone: enough for its nodes and a load balancer.
const HOSTS: std::ops::RangeInclusive<u8> = 1..=4;
/// Name of a zone's only link, inside.
const LINK: &str = "eth0";
const BRIDGE: &str = "bridge";

/// One availability zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Zone {
    /// `zone-a`, 10.77.1.x.
    A,
    /// `zone-b`, 10.77.2.x.
    B,
    /// `zone-c`, 10.77.3.x.
    C,
}

impl Zone {
    /// Every zone.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    /// As in a node's configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "zone-a",
            Self::B => "zone-b",
            Self::C => "zone-c",
        }
    }

    /// Address number `host` of the zone; 1 to 4 are there.
    #[must_use]
    pub const fn address(self, host: u8) -> Ipv4Addr {
        let number = match self {
            Self::A => 1,
            Self::B => 2,
            Self::C => 3,
        };
        Ipv4Addr::new(10, 77, number, host)
    }
}

/// The zones of one test. Clones share them; they go with the scratch directory.
#[derive(Debug, Clone)]
pub struct Zones {
    folder: PathBuf,
    _scratch: Scratch,
}

impl Zones {
    /// The address that every zone reaches whatever is cut.
    pub const REGION: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    /// Makes them, all reaching one another.
    ///
    /// # Errors
    /// No root, or the kernel refuses.
    pub fn new(scratch: &Scratch) -> Result<Self> {
        let zones = Self { folder: scratch.folder("zones")?, _scratch: scratch.clone() };
        let switch = zones.switch();
        make_namespace(&switch)?;
        ip(&switch, &["link", "add", BRIDGE, "type", "bridge"])?;
        ip(&switch, &["link", "set", "lo", "up"])?;
        ip(&switch, &["address", "add", &format!("{}/16", Self::REGION), "dev", BRIDGE])?;
        ip(&switch, &["link", "set", BRIDGE, "up"])?;
        for zone in Zone::ALL {
            zones.join(zone)?;
        }
        Ok(zones)
    }

    /// Makes a zone and its link to the bridge; the link's end there has the zone's name.
    fn join(&self, zone: Zone) -> Result<()> {
        let (switch, inside) = (self.switch(), self.namespace(zone));
        make_namespace(&inside)?;
        let path = inside.to_str().context("a path that is no text")?;
        ip(&switch, &["link", "add", zone.name(), "type", "veth", "peer", "name", LINK, "netns", path])?;
        ip(&switch, &["link", "set", zone.name(), "master", BRIDGE, "up"])?;
        ip(&inside, &["link", "set", "lo", "up"])?;
        for host in HOSTS {
            let address = format!("{}/16", zone.address(host));
            ip(&inside, &["address", "add", &address, "dev", LINK])?;
        }
        ip(&inside, &["link", "set", LINK, "up"])?;
        Ok(())
    }

    /// A command to fill in that runs in `zone`. Its process is the program's own.
    #[must_use]
    pub fn command(&self, zone: Zone, program: impl AsRef<OsStr>) -> Command {
        command_inside(&self.namespace(zone), program)
    }

    /// A command to fill in that runs beside the zones, at [`Self::REGION`]. Its process is the program's own.
    #[must_use]
    pub fn region_command(&self, program: impl AsRef<OsStr>) -> Command {
        command_inside(&self.switch(), program)
    }

    /// Calls `what` on a thread of its own in `zone` and waits for it. Sockets made there stay there.
    ///
    /// # Errors
    /// The zone cannot be entered.
    pub fn inside<T: Send>(&self, zone: Zone, what: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = File::open(self.namespace(zone)).context("open a namespace")?;
        std::thread::scope(|scope| {
            // The thread ends here: one that is used again would stay in the zone.
            let inside = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).context("enter a namespace")?;
                Ok(what())
            });
            inside.join().map_err(|_panic| anyhow!("it panicked in {}", zone.name()))?
        })
    }

    /// Connects from `zone` to an address in any of them.
    ///
    /// # Errors
    /// Refused, or no answer `within`.
    pub fn connect(&self, zone: Zone, to: SocketAddrV4, within: Duration) -> Result<TcpStream> {
        let connected = self.inside(zone, || TcpStream::connect_timeout(&to.into(), within))?;
        connected.with_context(|| format!("connect from {} to {to}", zone.name()))
    }

    /// Puts exactly these cuts in force, at once; none heals everything.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn impose(&self, cuts: &[Cut]) -> Result<()> {
        let rules = self.folder.join("cuts.nft");
        fs::write(&rules, cut::rules(cuts)).context("write the cuts")?;
        run(command_inside(&self.switch(), "nft").arg("--file").arg(&rules))?;
        Ok(())
    }

    /// Undoes every cut.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn heal(&self) -> Result<()> {
        self.impose(&[])
    }

    fn namespace(&self, zone: Zone) -> PathBuf {
        self.folder.join(zone.name())
    }

    fn switch(&self) -> PathBuf {
        self.folder.join("switch")
    }
}

/// A new network namespace that stays as long as it is mounted on `file`.
fn make_namespace(file: &Path) -> Result<()> {
    File::create_new(file).with_context(|| format!("make {}", file.display()))?;
    let mut keep = std::ffi::OsString::from("--net=");
    keep.push(file);
    run(command("unshare").arg(keep).arg("true"))?;
    Ok(())
}

fn command_inside(namespace: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut enter = std::ffi::OsString::from("--net=");
    enter.push(namespace);
    let mut inside = command("nsenter");
    inside.arg(enter).arg("--").arg(program);
    inside
}

fn ip(namespace: &Path, args: &[&str]) -> Result<()> {
    run(command_inside(namespace, "ip").args(args))?;
    Ok(())
}
