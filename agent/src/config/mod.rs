//! The daemon's configuration: one TOML file, validated whole, with every error at once.
//!
//! Invariants, each a test below:
//! * `every_error_is_told_at_once`.
//! * `an_unknown_field_is_an_error`: a misspelt field never silently means its default.
//!
//! Not here: what needs the machine (does the device exist, does the bucket answer). That is observed.

mod peers;
mod reader;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_backup::store::RepositoryConfig;
use holdfast_model::volume::{Filesystem, VolumeKind};
use holdfast_model::{ByteCount, ClusterName, NodeName, Zone};

pub use peers::PeerConfig;
pub use reader::Issue;
use reader::Reader;

/// Everything that `holdfastd` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where this was read from.
    pub file: PathBuf,
    /// `[cluster] name`.
    pub cluster: ClusterName,
    /// `[cluster] k`: how many voters of other zones must hold a commit before it is answered.
    pub k: u32,
    /// `[[cluster.peers]]`, without this node.
    pub peers: Vec<PeerConfig>,
    /// `[node] name`.
    pub node: NodeName,
    /// `[node] zone`.
    pub zone: Zone,
    /// `[daemon]`.
    pub daemon: DaemonConfig,
    /// `[volume]`.
    pub volume: VolumeConfig,
    /// `[engine]`.
    pub engine: EngineConfig,
    /// `[repository]`; none means no backups and no way back from a lost disk.
    pub repository: Option<RepositoryConfig>,
    /// `[log] interval`: how often acked log is shipped.
    pub log_interval: Duration,
    /// `[recovery] when_all_lost`.
    pub when_all_lost: WhenAllLost,
    /// `[api]`.
    pub api: ApiConfig,
    /// `[tls]`.
    pub tls: TlsConfig,
}

/// `[daemon]`: who it runs as and where it keeps its own state; never on the data volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonConfig {
    /// The unprivileged user of the daemon; ignored when not started as root.
    pub user: String,
    /// Ledger, engine configuration and engine log.
    pub state_dir: PathBuf,
    /// Sockets.
    pub run_dir: PathBuf,
}

/// `[volume]`: which disk, and how it is treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeConfig {
    /// How the device is found.
    pub kind: VolumeKind,
    /// `block`: candidates in order of preference.
    pub devices: Vec<PathBuf>,
    /// `nvme`: model patterns besides the built-in table.
    pub models: Vec<String>,
    /// `nvme`: only these serials, when given.
    pub serials: Vec<String>,
    /// `directory`: the parent of the volume directories.
    pub path: Option<PathBuf>,
    /// Where the volume is mounted.
    pub mount: PathBuf,
    /// What format makes.
    pub filesystem: Filesystem,
    /// Whether a provably blank device may be formatted without being told.
    pub format_blank: bool,
    /// Kept free for the agent; clients become read-only before the engine runs out.
    pub reserve: ByteCount,
    /// A probe write that takes longer means a stalled disk.
    pub stall_deadline: Duration,
    /// Time between probe writes.
    pub probe_interval: Duration,
}

/// `[engine]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Where `postgres` and `initdb` are.
    pub bin_dir: PathBuf,
    /// The user that the engine runs as; ignored when not started as root.
    pub user: String,
    /// Port for clients.
    pub port: u16,
    /// Address for clients.
    pub listen: String,
    /// Settings for postgresql.conf; those that the agent owns are refused.
    pub settings: Vec<(String, String)>,
    /// Client lines of pg_hba.conf while the gate is open.
    pub hba: Vec<String>,
}

/// What to do when every member that could hold the data is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAllLost {
    /// Wait for an operator: up to about a second of acknowledged commits would be lost.
    Refuse,
    /// Refound the cluster from the repository, and report what may be missing.
    Restore,
}

/// `[api]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// gRPC with mutual TLS.
    pub grpc: SocketAddr,
    /// Plain, read-only HTTP for probes and metrics.
    pub http: SocketAddr,
    /// Whether a volume may be formatted by RPC.
    pub remote_format: bool,
}

/// `[tls]`: files of this node; reloaded when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificates that callers must chain to.
    pub ca: PathBuf,
    /// This node's certificate chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read configuration {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("configuration {} is not valid TOML", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Its content is wrong; all of it is listed.
    #[error("configuration {} has {} problem(s):{}", file.display(), issues.len(), Bullets(issues))]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Every problem.
        issues: Vec<Issue>,
    },
}

struct Bullets<'a>(&'a [Issue]);

impl fmt::Display for Bullets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for issue in self.0 {
            write!(f, "\n  - {issue}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// [`ConfigError`], with every problem of the content at once.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &text)
    }

    /// Validates the text of a file.
    ///
    /// # Errors
    /// [`ConfigError`], never `Read`.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text
            .parse()
            .map_err(|source| ConfigError::Syntax { file: file.to_owned(), source: Box::new(source) })?;
        let mut reader = Reader::new(&table);
        let config = read_all(file, &mut reader);
        let issues = reader.finish();
        match config {
            Some(config) if issues.is_empty() => Ok(config),
            Some(_) | None => Err(ConfigError::Invalid { file: file.to_owned(), issues }),
        }
    }
}

/// Asks for every field even after a problem, so that all problems are found.
fn read_all(file: &Path, r: &mut Reader<'_>) -> Option<Config> {
    let cluster: Option<ClusterName> = r.required("cluster.name", "name the cluster");
    let node = r.required("node.name", "name this machine, unique within the cluster");
    let zone = r.required("node.zone", "name the availability zone of this machine, or \"unknown\"");
    let daemon = read_daemon(r, cluster.as_ref());
    let volume = read_volume(r, cluster.as_ref());
    let engine = read_engine(r);
    let port = engine.as_ref().map_or(0, |engine| engine.port);
    let peers = peers::read(r, node.as_ref(), port);
    let k = peers::read_k(r, &peers);
    let repository = read_repository(r);
    let second = Duration::from_secs(1);
    let log_interval = r.duration("log.interval", second, Duration::from_millis(100), 60 * second);
    let when_all_lost = match r.text("recovery.when_all_lost").as_deref() {
        None | Some("refuse") => WhenAllLost::Refuse,
        Some("restore") => WhenAllLost::Restore,
        Some(_) => {
            r.issue("recovery.when_all_lost", "must be \"refuse\" or \"restore\"");
            WhenAllLost::Refuse
        }
    };
    if when_all_lost == WhenAllLost::Restore && repository.is_none() {
        r.issue("recovery.when_all_lost", "\"restore\" needs a [repository] to restore from");
    }
    let api = ApiConfig {
        grpc: r.optional("api.grpc").unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7430))),
        http: r.optional("api.http").unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7431))),
        remote_format: r.flag("api.remote_format", false),
    };
    let hint = "make one with 'holdfast certs init' and 'holdfast certs issue'";
    let (ca, cert, key) =
        (absolute(r, "tls.ca", hint), absolute(r, "tls.cert", hint), absolute(r, "tls.key", hint));
    Some(Config {
        file: file.to_owned(),
        cluster: cluster?,
        k,
        peers,
        node: node?,
        zone: zone?,
        daemon: daemon?,
        volume: volume?,
        engine: engine?,
        repository,
        log_interval,
        when_all_lost,
        api,
        tls: TlsConfig { ca: ca?, cert: cert?, key: key? },
    })
}

fn absolute(r: &mut Reader<'_>, field: &str, hint: &str) -> Option<PathBuf> {
    let path: PathBuf = r.required(field, hint)?;
    check_absolute(r, field, path)
}

fn check_absolute(r: &mut Reader<'_>, field: &str, path: PathBuf) -> Option<PathBuf> {
    if path.is_absolute() {
        Some(path)
    } else {
        r.issue(field, "must be an absolute path");
        None
    }
}

fn absolute_or(r: &mut Reader<'_>, field: &str, default: Option<PathBuf>) -> Option<PathBuf> {
    match r.optional::<PathBuf>(field) {
        Some(path) => check_absolute(r, field, path),
        None => default,
    }
}

fn read_daemon(r: &mut Reader<'_>, cluster: Option<&ClusterName>) -> Option<DaemonConfig> {
    let below = |dir: &str| cluster.map(|name| Path::new(dir).join(name.as_str()));
    let user = r.text("daemon.user").unwrap_or_else(|| "holdfast".to_owned());
    let state_dir = absolute_or(r, "daemon.state_dir", below("/var/lib/holdfast"));
    let run_dir = absolute_or(r, "daemon.run_dir", below("/run/holdfast"));
    if let Some(dir) = &run_dir {
        // sun_path holds 107 bytes and a NUL (unix(7)); the longest socket name below it is `.s.PGSQL.65535`.
        if dir.as_os_str().len() > 90 {
            r.issue("daemon.run_dir", "must be at most 90 bytes long: socket paths are limited to 107");
        }
    }
    Some(DaemonConfig { user, state_dir: state_dir?, run_dir: run_dir? })
}

fn read_volume(r: &mut Reader<'_>, cluster: Option<&ClusterName>) -> Option<VolumeConfig> {
    let kind =
        match r.required::<String>("volume.kind", "use \"nvme\", \"block\" or \"directory\"").as_deref() {
            Some("nvme") => Some(VolumeKind::Nvme),
            Some("block") => Some(VolumeKind::Block),
            Some("directory") => Some(VolumeKind::Directory),
            Some(_) => {
                r.issue("volume.kind", "must be \"nvme\", \"block\" or \"directory\"");
                None
            }
            None => None,
        };
    let devices: Vec<PathBuf> = r.texts("volume.devices").into_iter().map(PathBuf::from).collect();
    let path = absolute_or(r, "volume.path", None);
    match kind {
        Some(VolumeKind::Block) if devices.is_empty() => {
            r.issue(
                "volume.devices",
                "kind \"block\" needs at least one device path, such as [\"/dev/sdb\"]",
            );
        }
        Some(VolumeKind::Directory) if path.is_none() => {
            r.issue("volume.path", "kind \"directory\" needs the parent directory of its volumes");
        }
        Some(VolumeKind::Nvme | VolumeKind::Block | VolumeKind::Directory) | None => {}
    }
    if devices.iter().any(|device| !device.is_absolute()) {
        r.issue("volume.devices", "every device must be an absolute path");
    }
    let filesystem = match r.text("volume.filesystem").as_deref() {
        None | Some("xfs") => Filesystem::Xfs,
        Some("ext4") => Filesystem::Ext4,
        Some(_) => {
            r.issue("volume.filesystem", "must be \"xfs\" or \"ext4\"");
            Filesystem::Xfs
        }
    };
    let default_mount = cluster.map(|name| Path::new("/srv/holdfast").join(name.as_str()));
    let mount = absolute_or(r, "volume.mount", default_mount);
    let (ms, second) = (Duration::from_millis(1), Duration::from_secs(1));
    let stall_deadline = r.duration("volume.stall_deadline", 2 * second, 500 * ms, 60 * second);
    let probe_interval = r.duration("volume.probe_interval", 200 * ms, 20 * ms, 10 * second);
    if probe_interval >= stall_deadline {
        r.issue("volume.probe_interval", "must be shorter than volume.stall_deadline");
    }
    Some(VolumeConfig {
        kind: kind?,
        devices,
        models: r.texts("volume.models"),
        serials: r.texts("volume.serials"),
        path,
        mount: mount?,
        filesystem,
        format_blank: r.flag("volume.format_blank", true),
        reserve: r.optional("volume.reserve").unwrap_or(ByteCount::mib(256)),
        stall_deadline,
        probe_interval,
    })
}

fn read_engine(r: &mut Reader<'_>) -> Option<EngineConfig> {
    match r.text("engine.kind").as_deref() {
        None | Some("postgres") => {}
        Some(_) => r.issue("engine.kind", "must be \"postgres\": no other engine is supported yet"),
    }
    let bin_dir = absolute(r, "engine.bin_dir", "name the directory of postgres and initdb");
    Some(EngineConfig {
        bin_dir: bin_dir?,
        user: r.text("engine.user").unwrap_or_else(|| "postgres".to_owned()),
        port: r.port("engine.port", 5432),
        listen: r.text("engine.listen").unwrap_or_else(|| "127.0.0.1".to_owned()),
        settings: r.settings("engine.settings"),
        hba: r.texts("engine.hba"),
    })
}

fn read_repository(r: &mut Reader<'_>) -> Option<RepositoryConfig> {
    let endpoint = r.text("repository.endpoint");
    let region = r.text("repository.region");
    let credentials_file = absolute_or(r, "repository.credentials_file", None);
    let Some(url) = r.text("repository.url") else {
        if endpoint.is_some() || region.is_some() || credentials_file.is_some() {
            r.issue("repository.url", "is missing: use s3://bucket/prefix or file:///directory");
        }
        return None;
    };
    if !(url.starts_with("s3://") || url.starts_with("file:///")) {
        r.issue("repository.url", "must start with s3:// or file:///");
    }
    Some(RepositoryConfig { url, endpoint, region, credentials_file })
}
