//! A cluster in three zones: a node in each, with disks of its own, a load balancer in each, and object storage that all of
//! them reach. Needs root.
//!
//! * [`site`]: one zone of it: the node, its disks, its daemon.
//! * [`seen`]: what the nodes say, and whether they are whole together.
//! * [`order`]: what an operator tells the cluster. [`by_hand`]: the same from outside, call by call.
//! * [`insist`]: what an operator tells it until it is so, while agents die and are started again.
//! * [`sessions`]: where sessions of clients end up.
//! * [`books`]: everything that clients were told was committed, and its audit.
//! * [`disk`]: disks that vanish, stall or fail.
//!
//! Tests: `tests/cluster/`.

pub mod books;
pub mod by_hand;
pub mod disk;
pub mod insist;
pub mod order;
pub mod seen;
pub mod sessions;
pub mod site;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::acked::AckedWriter;
use crate::daemon::Serving;
use crate::haproxy::{Backend, Haproxy};
use crate::logs::LogGate;
use crate::node::{self, Node};
use crate::placement::Placement;
use crate::scratch::Scratch;
use crate::weed::Weed;
use crate::zones::{Cut, Door, Zone, Zones};
use crate::{eventually, installation};

pub use books::Books;
pub use disk::Fate;
pub use seen::Seen;
pub use site::Site;

/// The address of every node in its zone.
const NODE_HOST: u8 = 1;
/// The address of every zone's load balancer, and its port.
const BALANCER: (u8, u16) = (4, 6432);
/// Debug builds on two busy cores, three nodes at once.
pub const OPENS_WITHIN: Duration = Duration::from_secs(60);
/// For a base to be restored, log to be caught up with and two rules to be written.
pub const WHOLE_WITHIN: Duration = Duration::from_secs(150);
/// For everything that an agent has to notice.
pub const NOTICED_WITHIN: Duration = Duration::from_secs(15);
/// Acks to wait for where "writes go on" is meant.
const GO_ON: usize = 50;

/// What differs from cluster to cluster.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// Zones that have a node, the one that is bootstrapped first.
    pub zones: Vec<Zone>,
    /// Disks of each node: the first is used, the others are spare.
    pub disks: usize,
    /// Size of each; the files are sparse.
    pub disk_bytes: u64,
    /// What can happen to the first disk of the first zone besides vanishing.
    pub fate: Fate,
    /// Major version of PostgreSQL.
    pub postgres: u32,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        let zones = Zone::ALL.to_vec();
        Self { zones, disks: 2, disk_bytes: 2 << 30, fate: Fate::Vanishing, postgres: 15 }
    }
}

impl ClusterSpec {
    /// `[cluster] k` of its nodes; not written for one that is alone.
    fn k(&self) -> Option<u32> {
        if self.zones.len() > 1 { Some(1) } else { None }
    }
}

/// How clients of one zone get to the primary.
#[derive(Debug)]
struct Way {
    balancer: Haproxy,
    door: Door,
}

/// A running cluster. Fields are dropped in this order: the scratch directory, which the others live in, last.
#[derive(Debug)]
pub struct Cluster {
    sites: BTreeMap<Zone, Site>,
    ways: BTreeMap<Zone, Way>,
    /// Doors to single nodes.
    doors: Vec<Door>,
    /// Object storage.
    pub store: Weed,
    /// The links between zones.
    pub zones: Zones,
    /// What clients remember.
    pub books: Books,
    spec: ClusterSpec,
    scratch: Scratch,
}

impl Cluster {
    /// Starts object storage, every node's daemon and every zone's load balancer. There is no cluster in them yet.
    ///
    /// # Errors
    /// A part is missing or does not start.
    pub async fn start(spec: &ClusterSpec) -> Result<Self> {
        let scratch = Scratch::new()?;
        let zones = Zones::new(&scratch)?;
        let store = Weed::start_at(&scratch, Placement::Region(zones.clone())).await?;
        let mut sites = BTreeMap::new();
        for zone in &spec.zones {
            let mut site = Site::lay_out(&scratch, &zones, spec, *zone, &store)?;
            site.start_agent().await?;
            sites.insert(*zone, site);
        }
        let (ways, doors, books) = (BTreeMap::new(), Vec::new(), Books::default());
        let spec = spec.clone();
        let mut cluster = Self { sites, ways, doors, store, zones, books, spec, scratch };
        for zone in Zone::ALL {
            let way = cluster.make_way(zone).await?;
            cluster.ways.insert(zone, way);
        }
        Ok(cluster)
    }

    /// [`Self::start`], then bootstrapped on the first node, and whole.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn serving(spec: &ClusterSpec) -> Result<Self> {
        let mut cluster = Self::start(spec).await?;
        let outcome = cluster.bootstrap().await;
        cluster.explained(outcome)?;
        let outcome = cluster.wait_for_three_voters(WHOLE_WITHIN).await;
        cluster.explained(outcome)?;
        Ok(cluster)
    }

    async fn make_way(&self, zone: Zone) -> Result<Way> {
        let (host, port) = BALANCER;
        let listens = SocketAddrV4::new(zone.address(host), port);
        let backend = |node: &Node| Backend {
            name: node.name.clone(),
            address: node.placement.address(),
            http: node.http,
            engine: node.port,
        };
        let backends: Vec<Backend> = self.sites.values().map(|site| backend(&site.node)).collect();
        let balancer = Haproxy::start(&self.scratch, &self.zones, zone, listens, &backends).await?;
        let door = Door::open(&self.zones, zone, listens).await?;
        Ok(Way { balancer, door })
    }

    /// Makes the cluster on the first node, and the clients' database in it. Its agent takes the first backup by itself, and the
    /// others join from that.
    ///
    /// # Errors
    /// It does not open, or the backup fails.
    pub async fn bootstrap(&mut self) -> Result<()> {
        let first = *self.spec.zones.first().context("a cluster without nodes")?;
        self.site(first)?.agent()?.bootstrap()?;
        self.becomes(first, Serving::Yes, OPENS_WITHIN).await?;
        self.site(first)?.node.make_client_database()?;
        Ok(())
    }

    /// The node of a zone.
    ///
    /// # Errors
    /// It has none.
    pub fn site(&self, zone: Zone) -> Result<&Site> {
        self.sites.get(&zone).with_context(|| format!("no node in {}", zone.name()))
    }

    /// The same, to change it.
    ///
    /// # Errors
    /// It has none.
    pub fn site_mut(&mut self, zone: Zone) -> Result<&mut Site> {
        self.sites.get_mut(&zone).with_context(|| format!("no node in {}", zone.name()))
    }

    /// Every node.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        self.sites.values()
    }

    /// The zones that have a node, but for `zone`.
    #[must_use]
    pub fn others(&self, zone: Zone) -> Vec<Zone> {
        self.sites.keys().copied().filter(|other| *other != zone).collect()
    }

    /// The load balancer of a zone.
    ///
    /// # Errors
    /// It has none.
    pub fn balancer(&self, zone: Zone) -> Result<&Haproxy> {
        Ok(&self.way(zone)?.balancer)
    }

    fn way(&self, zone: Zone) -> Result<&Way> {
        self.ways.get(&zone).with_context(|| format!("no way from {}", zone.name()))
    }

    /// Waits until clients can or cannot write at one node.
    ///
    /// # Errors
    /// It does not come to that in time.
    pub async fn becomes(&mut self, zone: Zone, wanted: Serving, within: Duration) -> Result<()> {
        self.site_mut(zone)?.agent_mut()?.becomes(wanted, within).await
    }

    /// What every node with a running agent says.
    ///
    /// # Errors
    /// One of them does not answer.
    pub fn seen(&self) -> Result<BTreeMap<Zone, Seen>> {
        let running = self.sites.iter().filter(|(_, site)| site.agent().is_ok());
        self.seen_in(&running.map(|(zone, _)| *zone).collect::<Vec<_>>())
    }

    /// What the nodes of some zones say.
    ///
    /// # Errors
    /// One of them does not answer.
    pub fn seen_in(&self, zones: &[Zone]) -> Result<BTreeMap<Zone, Seen>> {
        zones.iter().map(|zone| Ok((*zone, self.site(*zone)?.seen()?))).collect()
    }

    /// Whether every node is a voter and follows the primary. Returns the primary's zone.
    ///
    /// # Errors
    /// What is missing.
    pub fn whole(&self) -> Result<Zone> {
        let seen = self.seen()?;
        ensure!(seen.len() == self.sites.len(), "only {} agents run", seen.len());
        seen::whole(&seen, self.spec.k().unwrap_or(0))
    }

    /// The zone of the primary: of the nodes that say that they are open, the one with the highest term.
    ///
    /// # Errors
    /// None is, or a running agent does not answer.
    pub fn primary(&self) -> Result<Zone> {
        seen::primary(&self.seen()?)
    }

    /// The newest rule that any node has read.
    ///
    /// # Errors
    /// None has read one, or a running agent does not answer.
    pub fn newest_rule(&self) -> Result<seen::Rule> {
        let rules = self.seen()?.into_values().filter_map(|seen| seen.rule);
        rules.max_by_key(|rule| rule.id).context("no node has read a rule")
    }

    /// Waits until every node is a voter and follows the primary, and `k` acks are wanted. Returns the primary's zone.
    ///
    /// # Errors
    /// It does not come to that in time; the message says what is missing.
    pub async fn wait_for_three_voters(&self, within: Duration) -> Result<Zone> {
        eventually("every node a voter", within, async || self.whole()).await
    }

    /// Waits until the node of `zone` has another volume than `old`: until then a cluster that has lost it may still look
    /// whole.
    ///
    /// # Errors
    /// It has not, in time.
    pub async fn has_another_member(&self, zone: Zone, old: &str) -> Result<String> {
        eventually(&format!("another member than {old}"), WHOLE_WITHIN, async || {
            let now = self.site(zone)?.seen()?.member().context("no volume")?;
            ensure!(now != old, "it is the old one");
            Ok(now)
        })
        .await
    }

    /// Puts exactly these cuts in force.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn cut(&self, cuts: &[Cut]) -> Result<()> {
        self.zones.impose(cuts)
    }

    /// Cuts one zone off from the others. Object storage is still reached from everywhere.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn cut_off(&self, zone: Zone) -> Result<()> {
        self.cut(&[Cut::Off(zone)])
    }

    /// Undoes every cut.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn heal(&self) -> Result<()> {
        self.zones.heal()
    }

    /// A client in `zone` that writes through its load balancer and remembers, in a table of its own.
    ///
    /// # Errors
    /// It gets no acks.
    pub async fn writer(&mut self, zone: Zone) -> Result<AckedWriter> {
        let port = self.way(zone)?.door.port();
        self.writer_through(port).await
    }

    /// A client in `zone` that knows nothing but the node there.
    ///
    /// # Errors
    /// It gets no acks.
    pub async fn writer_at(&mut self, zone: Zone) -> Result<AckedWriter> {
        let Node { placement, port, .. } = &self.site(zone)?.node;
        let to = SocketAddrV4::new(placement.address(), *port);
        let door = Door::open(&self.zones, zone, to).await?;
        let port = door.port();
        self.doors.push(door);
        self.writer_through(port).await
    }

    async fn writer_through(&mut self, port: u16) -> Result<AckedWriter> {
        let table = self.books.next_table();
        let config = node::client_of(Ipv4Addr::LOCALHOST, port);
        let writer = eventually("a table to write to", OPENS_WITHIN, async || {
            AckedWriter::start_in(config.clone(), &table).await
        })
        .await?;
        self.writes_go_on(&writer).await?;
        Ok(writer)
    }

    /// Waits for more acks.
    ///
    /// # Errors
    /// They do not come.
    pub async fn writes_go_on(&self, writer: &AckedWriter) -> Result<()> {
        let already = writer.history().acked.len();
        eventually("more acks", OPENS_WITHIN, async || {
            let more = writer.history().acked.len() - already;
            ensure!(more >= GO_ON, "{more} of {GO_ON}");
            Ok(())
        })
        .await
    }

    /// Fails on warnings that are not listed, in the logs of all daemons so far.
    ///
    /// # Errors
    /// All of them, by node.
    pub fn judge_logs(&self, expected: &[&str]) -> Result<()> {
        for site in self.sites() {
            LogGate { expected }.judge(&site.logs().lines()?).with_context(|| site.node.name.clone())?;
        }
        Ok(())
    }

    /// A failure together with the end of every agent's log.
    ///
    /// # Errors
    /// That of `outcome`.
    pub fn explained<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|err| {
            let words =
                |site: &Site| format!("{}'s log ends with:\n{}\n", site.node.name, site.logs().tail(15));
            err.context(self.sites().map(words).collect::<String>())
        })
    }

    /// Copies every node's logs to `target/<folder>` for a person to read after a failure.
    ///
    /// # Errors
    /// They cannot be copied.
    pub fn keep_logs(&self, folder: &str) -> Result<()> {
        let kept = installation::workspace().join("target").join(folder);
        fs::create_dir_all(&kept).context("make a folder for logs")?;
        for site in self.sites() {
            for log in ["daemon.log", "state/log/engine.log", "holdfast.log"] {
                let from = site.node.folder.join(log);
                let name = Path::new(log).file_name().context("a log has a name")?.to_string_lossy();
                if from.exists() {
                    fs::copy(&from, kept.join(format!("{}-{name}", site.node.name))).context("keep a log")?;
                }
            }
        }
        Ok(())
    }

    /// Stops every agent; the engines go with the scratch directory.
    ///
    /// # Errors
    /// One does not stop.
    pub async fn stop(mut self) -> Result<()> {
        for site in self.sites.values_mut() {
            site.stop_agent().await?;
        }
        Ok(())
    }
}
