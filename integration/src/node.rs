//! One configured node: its folders, its certificates and its configuration file, as an operator would lay them out.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::placement::Placement;
use crate::process::{command, command_as, is_root, run};
use crate::scratch::Scratch;
use crate::weed::{self, Weed};
use crate::zones::Zone;
use crate::{installation, ports};

/// The cluster's name, which is also the word that bootstrap wants repeated.
pub const CLUSTER: &str = "demo";
/// The user that the daemon runs as when started as root.
pub const DAEMON_USER: &str = "holdfast";
/// The role that clients log in as.
pub const CLIENT_ROLE: &str = "app";
const CLIENT_PASSWORD: &str = "app";
/// gRPC, HTTP and the engine, in a zone: each node has an address of its own there.
const PORTS_IN_A_ZONE: [u16; 3] = [7430, 7431, 5432];

/// Which disks a node may use.
#[derive(Debug, Clone)]
pub enum Disks {
    /// Block devices in order of preference. Needs root.
    Block(Vec<PathBuf>),
    /// Directories below one parent.
    Directory,
}

/// Another node of the same cluster, in a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: Zone,
    /// Which of the zone's addresses it has.
    pub host: u8,
}

/// What differs from node to node and from test to test.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// `n1`, say.
    pub name: String,
    /// The disks.
    pub disks: Disks,
    /// `refuse` or `restore`.
    pub when_all_lost: &'static str,
    /// Folder of the engine's programs.
    pub engine: PathBuf,
    /// Where it runs.
    pub placement: Placement,
    /// The other nodes of its cluster.
    pub peers: Vec<Peer>,
    /// How many voters of other zones hold a commit before it is answered; the daemon's default when not given.
    pub k: Option<u32>,
}

impl NodeSpec {
    /// A node on loopback, alone.
    #[must_use]
    pub fn alone(name: &str, disks: Disks, when_all_lost: &'static str, engine: PathBuf) -> Self {
        let (name, placement) = (name.to_owned(), Placement::Loopback);
        Self { name, disks, when_all_lost, engine, placement, peers: Vec::new(), k: None }
    }
}

/// A node that can be started. Everything of it lies in the scratch directory.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub placement: Placement,
    /// Its folder.
    pub folder: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Our programs, where every user can run them.
    pub programs: PathBuf,
    /// Where the volume is mounted.
    pub mount: PathBuf,
    /// Parent of the volume directories, for [`Disks::Directory`].
    pub directories: PathBuf,
    /// The certificate authority, with the operator's certificate.
    pub authority: PathBuf,
    /// gRPC port.
    pub grpc: u16,
    /// HTTP port.
    pub http: u16,
    /// Port for clients of the engine.
    pub port: u16,
    /// Folder of the engine's programs.
    pub engine: PathBuf,
    run_dir: PathBuf,
    /// Keeps all of it until the last user is gone.
    pub scratch: Scratch,
}

impl Node {
    /// Lays everything out; starts nothing.
    ///
    /// # Errors
    /// A program is missing, or a file cannot be written.
    pub fn lay_out(scratch: &Scratch, spec: &NodeSpec, store: &Weed) -> Result<Self> {
        let folder = scratch.folder(&spec.name)?;
        let [grpc, http, port] = match spec.placement {
            Placement::Loopback => ports::free()?,
            Placement::Zone { .. } | Placement::Region(_) => PORTS_IN_A_ZONE,
        };
        let node = Self {
            name: spec.name.clone(),
            placement: spec.placement.clone(),
            config: folder.join("holdfast.toml"),
            programs: programs_for_all_users(&folder)?,
            mount: folder.join("volume"),
            directories: folder.join("disks"),
            authority: scratch.path().join("authority"),
            run_dir: folder.join("run"),
            engine: spec.engine.clone(),
            folder,
            grpc,
            http,
            port,
            scratch: scratch.clone(),
        };
        node.issue_certificates()?;
        if matches!(spec.disks, Disks::Directory) {
            fs::create_dir_all(&node.directories).context("make the parent of volume directories")?;
        }
        fs::write(&node.config, node.render(spec, store)).context("write the configuration")?;
        Ok(node)
    }

    /// Adds `line` to `[section]` of the configuration, for what only one test wants. Takes effect with the next start.
    ///
    /// # Errors
    /// There is no such section, or the file cannot be written.
    pub fn configure(&self, section: &str, line: &str) -> Result<()> {
        let before = fs::read_to_string(&self.config).context("read the configuration")?;
        let header = format!("[{section}]\n");
        let (head, rest) = before.split_once(&header).with_context(|| format!("no [{section}]"))?;
        fs::write(&self.config, format!("{head}{header}{line}\n{rest}")).context("write the configuration")
    }

    /// The configuration file: docs/configuration.md has every field.
    fn render(&self, spec: &NodeSpec, store: &Weed) -> String {
        let Self { folder, mount, engine, grpc, http, port, directories, run_dir, .. } = self;
        let name = &spec.name;
        let (address, zone, cluster) =
            (self.placement.address(), self.placement.zone(), render_cluster(spec));
        let clients = match &self.placement {
            Placement::Loopback => "127.0.0.1/32",
            Placement::Zone { .. } | Placement::Region(_) => "10.77.0.0/16",
        };
        let volume = match &spec.disks {
            Disks::Block(devices) => format!("kind = \"block\"\ndevices = {devices:?}"),
            Disks::Directory => format!("kind = \"directory\"\npath = {directories:?}"),
        };
        format!(
            r#"{cluster}[node]
name = "{name}"
zone = "{zone}"
[daemon]
user = "{DAEMON_USER}"
state_dir = {state:?}
run_dir = {run_dir:?}
[volume]
{volume}
mount = {mount:?}
reserve = "64MiB"
[engine]
kind = "postgres"
bin_dir = {engine:?}
port = {port}
listen = "{address}"
settings = {{ shared_buffers = "64MB", max_wal_size = "256MB" }}
hba = ["host all all {clients} scram-sha-256"]
[repository]
url = "s3://{bucket}/clusters"
endpoint = "{endpoint}"
region = "{region}"
credentials_file = {credentials:?}
[recovery]
when_all_lost = "{lost}"
[api]
grpc = "{address}:{grpc}"
http = "{address}:{http}"
[tls]
ca = {ca:?}
cert = {cert:?}
key = {key:?}
"#,
            state = folder.join("state"),
            bucket = weed::BUCKET,
            endpoint = store.endpoint(),
            region = weed::REGION,
            credentials = store.credentials(),
            lost = spec.when_all_lost,
            ca = folder.join("tls/ca.pem"),
            cert = folder.join(format!("tls/{name}.pem")),
            key = folder.join(format!("tls/{name}.key")),
        )
    }

    /// Makes the authority once, and gives the node what it needs of it: the authority's own key stays away.
    fn issue_certificates(&self) -> Result<()> {
        let holdfast = self.programs.join("holdfast");
        let certs = |verb: &str| {
            let mut certs = command(&holdfast);
            certs.args(["certs", verb, "--dir"]).arg(&self.authority);
            certs
        };
        if !self.authority.exists() {
            run(certs("init").args(["--cluster", CLUSTER]))?;
            let roles = "observe,operate,promote,restore,destroy";
            run(certs("issue").args(["--user", "ops", "--roles", roles]))?;
        }
        let name = &self.name;
        let mut issue = certs("issue");
        issue.args(["--node", name, "--zone", self.placement.zone()]);
        run(issue.arg("--address").arg(self.placement.address().to_string()))?;
        let tls = self.folder.join("tls");
        fs::create_dir_all(&tls).context("make the node's folder of certificates")?;
        for file in ["ca.pem".to_owned(), format!("{name}.pem"), format!("{name}.key")] {
            let installed = tls.join(&file);
            fs::copy(self.authority.join(&file), &installed).with_context(|| format!("install {file}"))?;
            if is_root() {
                run(command("chown").arg(DAEMON_USER).arg(&installed))?;
            }
        }
        Ok(())
    }

    /// Runs SQL as the agent's own role over its socket, as an operator on the machine would.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = command_as(DAEMON_USER, self.engine.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]);
        psql.args(["--username", "holdfast", "--dbname", database, "--command", sql]);
        psql.arg("--host").arg(&self.run_dir).arg("--port").arg(self.port.to_string()).current_dir("/");
        run(&mut psql)
    }

    /// Makes the clients' role and database.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn make_client_database(&self) -> Result<()> {
        self.sql("postgres", &format!("create role {CLIENT_ROLE} login password '{CLIENT_PASSWORD}'"))?;
        self.sql("postgres", &format!("create database {CLIENT_ROLE} owner {CLIENT_ROLE}"))?;
        Ok(())
    }

    /// How a client connects that runs where the node does.
    #[must_use]
    pub fn client(&self) -> tokio_postgres::Config {
        client_of(self.placement.address(), self.port)
    }

    /// How a client of libpq connects that runs where the node does: `pgbench`, say.
    #[must_use]
    pub fn client_url(&self) -> String {
        let (address, port) = (self.placement.address(), self.port);
        format!("postgresql://{CLIENT_ROLE}:{CLIENT_PASSWORD}@{address}:{port}/{CLIENT_ROLE}")
    }
}

/// How a client connects to an engine, or to what leads to one.
#[must_use]
pub fn client_of(address: Ipv4Addr, port: u16) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host(address.to_string()).port(port);
    config.dbname(CLIENT_ROLE).user(CLIENT_ROLE).password(CLIENT_PASSWORD);
    config
}

/// The same for programs of libpq, which try the addresses in this order.
#[must_use]
pub fn conninfo(addresses: &[SocketAddrV4]) -> String {
    let listed = |each: fn(&SocketAddrV4) -> String| addresses.iter().map(each).collect::<Vec<_>>().join(",");
    let (hosts, ports) = (listed(|it| it.ip().to_string()), listed(|it| it.port().to_string()));
    format!("host={hosts} port={ports} user={CLIENT_ROLE} password={CLIENT_PASSWORD} dbname={CLIENT_ROLE}")
}

fn render_cluster(spec: &NodeSpec) -> String {
    let mut text = format!("[cluster]\nname = \"{CLUSTER}\"\n");
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes all text");
    if let Some(k) = spec.k {
        line(format!("k = {k}"));
    }
    let [grpc, _http, engine] = PORTS_IN_A_ZONE;
    for Peer { name, zone, host } in &spec.peers {
        let address = zone.address(*host);
        line(format!("[[cluster.peers]]\nnode = \"{name}\"\nzone = \"{}\"", zone.name()));
        line(format!("address = \"{address}:{grpc}\"\nengine = \"{address}:{engine}\""));
    }
    text
}

/// Links our programs into the node's folder: the checkout may lie where the daemon's and the engine's users cannot go,
/// the engine's `restore_command` runs `holdfastd` by name, and a node's processes are known by their program.
fn programs_for_all_users(folder: &Path) -> Result<PathBuf> {
    let folder = folder.join("bin");
    fs::create_dir_all(&folder).context("make the node's folder of programs")?;
    for program in ["holdfastd", "holdfast"] {
        let from = installation::own(program)?;
        let to = folder.join(program);
        if !to.exists() {
            link_or_copy(&from, &to)
                .with_context(|| format!("bring {program} into the scratch directory"))?;
        }
    }
    Ok(folder)
}

fn link_or_copy(from: &Path, to: &Path) -> std::io::Result<()> {
    // Another file system, or a kernel that protects hard links.
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(|_bytes| ()))
}
