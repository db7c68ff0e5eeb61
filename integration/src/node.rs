//! One configured node: its folders, its certificates and its configuration file, as an operator would lay them out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::{command, command_as, is_root, run};
use crate::scratch::Scratch;
use crate::weed::{self, Weed};
use crate::{installation, ports};

/// The cluster's name, which is also the word that bootstrap wants repeated.
pub const CLUSTER: &str = "demo";
/// The user that the daemon runs as when started as root.
pub const DAEMON_USER: &str = "holdfast";
const ZONE: &str = "zone-a";
/// The role that clients log in as.
pub const CLIENT_ROLE: &str = "app";
const CLIENT_PASSWORD: &str = "app";

/// Which disks a node may use.
#[derive(Debug, Clone)]
pub enum Disks {
    /// Block devices in order of preference. Needs root.
    Block(Vec<PathBuf>),
    /// Directories below one parent.
    Directory,
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
}

/// A node that can be started. Everything of it lies in the scratch directory.
#[derive(Debug, Clone)]
pub struct Node {
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
        let [grpc, http, port] = ports::free()?;
        let node = Self {
            config: folder.join("holdfast.toml"),
            programs: programs_for_all_users(scratch)?,
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
        node.issue_certificates(&spec.name)?;
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
        let volume = match &spec.disks {
            Disks::Block(devices) => format!("kind = \"block\"\ndevices = {devices:?}"),
            Disks::Directory => format!("kind = \"directory\"\npath = {directories:?}"),
        };
        format!(
            r#"[cluster]
name = "{CLUSTER}"
[node]
name = "{name}"
zone = "{ZONE}"
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
listen = "127.0.0.1"
settings = {{ shared_buffers = "64MB", max_wal_size = "256MB" }}
hba = ["host all all 127.0.0.1/32 scram-sha-256"]
[repository]
url = "s3://{bucket}/clusters"
endpoint = "{endpoint}"
region = "{region}"
credentials_file = {credentials:?}
[recovery]
when_all_lost = "{lost}"
[api]
grpc = "127.0.0.1:{grpc}"
http = "127.0.0.1:{http}"
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
    fn issue_certificates(&self, name: &str) -> Result<()> {
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
        run(certs("issue").args(["--node", name, "--zone", ZONE]))?;
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

    /// How a client connects.
    #[must_use]
    pub fn client(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .dbname(CLIENT_ROLE)
            .user(CLIENT_ROLE)
            .password(CLIENT_PASSWORD);
        config
    }

    /// How a client of libpq connects: `pgbench`, say.
    #[must_use]
    pub fn client_url(&self) -> String {
        format!("postgresql://{CLIENT_ROLE}:{CLIENT_PASSWORD}@127.0.0.1:{}/{CLIENT_ROLE}", self.port)
    }
}

/// Links our programs into the scratch directory: the checkout may lie where the daemon's and the engine's users
/// cannot go, and the engine's `restore_command` runs `holdfastd` by name.
fn programs_for_all_users(scratch: &Scratch) -> Result<PathBuf> {
    let folder = scratch.folder("bin")?;
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
