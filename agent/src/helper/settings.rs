//! What the helper knows by itself: users, programs and places, resolved once from the configuration file.
//!
//! Nothing here can be changed over the socket. Names of users become ids before anything is started, so that a directory
//! service that stops answering later stops nothing.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_model::volume::VolumeKind;
use holdfast_storage::{Access, VolumeSpec, places};
use nix::unistd::{Gid, Uid, User, getgrouplist};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::protocol::EngineProgram;
use super::tls::InstallTls;
use crate::child::process::ProcessFacts;
use crate::child::spec::{ChildSpec, EngineStage, RunAs};
use crate::config::{Config, TlsConfig};
use crate::worker::{Role, VolumePlace};

/// Postgres' own advice for its first process (its documentation, "Linux Memory Overcommit"); children go back to 0.
const ENGINE_OOM_SCORE: i32 = -900;
const OPEN_FILES: u64 = 65_536;

/// Why the helper cannot work with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The user database does not answer.
    #[error("look up user {user}")]
    Lookup {
        /// The configured name.
        user: String,
        /// Why.
        #[source]
        source: nix::Error,
    },
    /// There is no such user.
    #[error("user {user} does not exist")]
    NoSuchUser {
        /// The configured name.
        user: String,
    },
    /// A user that must not have root's rights has them.
    #[error("user {user} is root: configure an unprivileged one")]
    UserIsRoot {
        /// The configured name.
        user: String,
    },
    /// A directory cannot be resolved.
    #[error("resolve {}", path.display())]
    Resolve {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The helper's own view of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For the storage layer.
    pub volume: VolumeSpec,
    /// Root of the mounted volume, without links in its path.
    pub mount: PathBuf,
    kind: VolumeKind,
    bin_dir: PathBuf,
    state_dir: PathBuf,
    reserve: holdfast_model::ByteCount,
    users: Option<Users>,
    cgroup: Option<Cgroup>,
    tls: TlsConfig,
    engine_tls: PathBuf,
    worker_env: BTreeMap<String, String>,
}

/// Only as root: without it everything runs as one user.
#[derive(Debug, Clone)]
struct Users {
    daemon: RunAs,
    engine: RunAs,
}

/// The engine's cgroup in the v2 hierarchy, which may be mounted beside v1: it needs no controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// Its directory.
    pub dir: PathBuf,
    /// As `/proc/PID/cgroup` shows it.
    pub name: String,
}

/// What tells the engine's processes from others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineMark {
    uid: u32,
    bin_dir: PathBuf,
    cgroup: Option<String>,
}

impl EngineMark {
    /// Whether a process is the engine: by its user, and by its program or its cgroup.
    #[must_use]
    pub fn is_on(&self, facts: &ProcessFacts) -> bool {
        let by_program = facts.program.as_deref().and_then(Path::parent) == Some(self.bin_dir.as_path());
        let by_cgroup = self.cgroup.is_some() && facts.cgroup == self.cgroup;
        self.has_user(facts) && (by_program || by_cgroup)
    }

    fn has_user(&self, facts: &ProcessFacts) -> bool {
        facts.uid == self.uid
    }
}

impl Settings {
    /// Resolves what the configuration names.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn resolve(config: &Config) -> Result<Self, SettingsError> {
        let users = if Uid::effective().is_root() { Some(Users::resolve(config)?) } else { None };
        // Moving a process needs rights on the cgroup that it comes from as well: only root has them for sure.
        let cgroup = users.as_ref().and_then(|_| Cgroup::find(config));
        if cgroup.is_none() {
            warn!("no writable cgroup v2 hierarchy: the engine will be killed process by process");
        }
        let mount = resolve_mount(config)?;
        Ok(Self {
            volume: volume_spec(config, &mount, users.as_ref()),
            kind: config.volume.kind,
            bin_dir: canonical(&config.engine.bin_dir)?,
            state_dir: config.daemon.state_dir.clone(),
            reserve: config.volume.reserve,
            mount,
            users,
            cgroup,
            tls: config.tls.clone(),
            engine_tls: engine_tls_dir(config, Uid::effective().is_root()),
            worker_env: environment_for_workers(std::env::vars()),
        })
    }

    /// `engine.lock` on the volume.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.mount.join(places::ENGINE_LOCK)
    }

    /// The lock as links in `/proc/PID/fd` name it. Without root the mount point is a link to the directory in use.
    #[must_use]
    pub fn lock_as_held(&self) -> PathBuf {
        let lock = self.lock();
        if self.must_be_mounted() { lock } else { lock.canonicalize().unwrap_or(lock) }
    }

    /// The engine's data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.mount.join(places::data_dir(&self.volume.engine))
    }

    /// The engine's log, off the data volume.
    #[must_use]
    pub fn engine_log(&self) -> PathBuf {
        self.state_dir.join("log/engine.log")
    }

    /// The engine's cgroup; `None` where there is no writable v2 hierarchy.
    #[must_use]
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Where a program of the engine is.
    #[must_use]
    pub fn program(&self, program: EngineProgram) -> PathBuf {
        self.bin_dir.join(program.file_name())
    }

    /// What the stage before an engine does.
    #[must_use]
    pub fn engine_spec(&self, program: EngineProgram, args: Vec<String>) -> ChildSpec {
        let env = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("LC_ALL", "C"),
            ("TZ", "UTC"),
            ("PG_OOM_ADJUST_FILE", "/proc/self/oom_score_adj"),
            ("PG_OOM_ADJUST_VALUE", "0"),
        ];
        ChildSpec {
            program: self.program(program),
            arg0: None,
            args,
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            run_as: self.users.as_ref().map(|users| users.engine.clone()),
            cgroup: self.cgroup.as_ref().map(|cgroup| cgroup.dir.clone()),
            oom_score_adj: ENGINE_OOM_SCORE,
            open_files: OPEN_FILES,
            engine: Some(EngineStage {
                data_dir: self.data_dir(),
                mount: self.mount.clone(),
                must_be_mounted: self.must_be_mounted(),
                lock: self.lock(),
                log: self.engine_log(),
                daemon: self.users.as_ref().map(|users| users.daemon.clone()),
            }),
        }
    }

    /// What the stage before a worker does.
    #[must_use]
    pub fn worker_spec(&self, role: Role) -> ChildSpec {
        let run_as = self.users.as_ref().map(|users| match role {
            Role::Volume => users.daemon.clone(),
            Role::Backup | Role::Restore | Role::Ship => users.engine.clone(),
        });
        ChildSpec {
            program: PathBuf::from("/proc/self/exe"),
            arg0: Some("holdfastd".to_owned()),
            args: vec!["worker".to_owned(), role.word().to_owned()],
            env: self.worker_env.clone(),
            run_as,
            cgroup: None,
            oom_score_adj: 0,
            open_files: OPEN_FILES,
            engine: None,
        }
    }

    /// What brings the certificate files to the engine.
    pub(super) fn install_tls(&self) -> InstallTls {
        InstallTls {
            ca: self.tls.ca.clone(),
            cert: self.tls.cert.clone(),
            key: self.tls.key.clone(),
            read_as: self.users.as_ref().map(|users| users.daemon.clone()),
            dir: self.engine_tls.clone(),
            owner: self.users.as_ref().map(|users| (users.engine.uid, users.engine.gid)),
        }
    }

    /// What a `volume` worker is told before anybody else talks to it.
    #[must_use]
    pub fn volume_place(&self) -> VolumePlace {
        VolumePlace {
            mount: self.mount.clone(),
            must_be_mounted: self.must_be_mounted(),
            reserve: self.reserve,
            cluster: self.volume.cluster.clone(),
            node: self.volume.node.clone(),
        }
    }

    /// What tells the engine's processes from others.
    #[must_use]
    pub fn engine_mark(&self) -> EngineMark {
        EngineMark {
            uid: self.users.as_ref().map_or_else(|| Uid::effective().as_raw(), |users| users.engine.uid),
            bin_dir: self.bin_dir.clone(),
            cgroup: self.cgroup.as_ref().map(|cgroup| cgroup.name.clone()),
        }
    }

    /// Whether a process is the engine.
    #[must_use]
    pub fn is_engine(&self, facts: &ProcessFacts) -> bool {
        self.engine_mark().is_on(facts)
    }

    /// Whether a process has the engine's user.
    #[must_use]
    pub fn runs_as_engine(&self, facts: &ProcessFacts) -> bool {
        self.engine_mark().has_user(facts)
    }

    fn must_be_mounted(&self) -> bool {
        match self.kind {
            VolumeKind::Nvme | VolumeKind::Block => true,
            VolumeKind::Directory => false,
        }
    }
}

impl Users {
    fn resolve(config: &Config) -> Result<Self, SettingsError> {
        Ok(Self { daemon: look_up(&config.daemon.user)?, engine: look_up(&config.engine.user)? })
    }

    fn access(users: Option<&Self>) -> Access {
        match users {
            Some(users) => Access {
                daemon_uid: users.daemon.uid,
                daemon_gid: users.daemon.gid,
                engine_uid: users.engine.uid,
                engine_gid: users.engine.gid,
            },
            None => {
                let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
                Access { daemon_uid: uid, daemon_gid: gid, engine_uid: uid, engine_gid: gid }
            }
        }
    }
}

impl Cgroup {
    /// The engine's own cgroup, outside of the agent's: whoever stops the agent's does not stop the engine.
    fn find(config: &Config) -> Option<Self> {
        let (mount, root) = v2_mount(&fs::read_to_string("/proc/self/mountinfo").ok()?)?;
        let below = cgroup_name(config);
        let dir = mount.join(&below);
        fs::create_dir_all(&dir).ok()?;
        // Since Linux 5.14 (cgroups(7)).
        dir.join("cgroup.kill")
            .exists()
            .then(|| Self { dir, name: format!("{}/{below}", root.trim_end_matches('/')) })
    }
}

/// One per data volume: two agents of one machine, even of the same cluster, must never kill each other's engine.
#[must_use]
pub fn cgroup_name(config: &Config) -> String {
    format!("holdfast/{}/engine", place_name(config))
}

/// Where the engine's certificate files are: off the data volume, in a folder that only root writes, or without root in
/// a folder of the one user.
#[must_use]
pub fn engine_tls_dir(config: &Config, as_root: bool) -> PathBuf {
    if as_root {
        Path::new("/run/holdfast.tls").join(place_name(config))
    } else {
        config.daemon.state_dir.join("engine-tls")
    }
}

/// Different for any two agents of one machine.
fn place_name(config: &Config) -> String {
    let place =
        uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, config.volume.mount.as_os_str().as_encoded_bytes());
    let (place, ..) = place.as_fields();
    format!("{}.{}.{place:08x}", config.cluster, config.node)
}

/// Mount point and root of the first cgroup2 mount (proc_pid_mountinfo(5)).
fn v2_mount(mountinfo: &str) -> Option<(PathBuf, String)> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        file_system.starts_with("cgroup2 ").then(|| (PathBuf::from(point), root.to_owned()))
    })
}

fn look_up(name: &str) -> Result<RunAs, SettingsError> {
    let user = name.to_owned();
    let failed = |source| SettingsError::Lookup { user: name.to_owned(), source };
    let Some(found) = User::from_name(name).map_err(failed)? else {
        return Err(SettingsError::NoSuchUser { user });
    };
    if found.uid.is_root() {
        return Err(SettingsError::UserIsRoot { user });
    }
    let c_name = CString::new(name).map_err(|_| SettingsError::NoSuchUser { user })?;
    let groups = getgrouplist(&c_name, found.gid).map_err(failed)?;
    Ok(RunAs {
        uid: found.uid.as_raw(),
        gid: found.gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    })
}

fn volume_spec(config: &Config, mount: &Path, users: Option<&Users>) -> VolumeSpec {
    // Losing the tokens at a reboot refuses them, which is safe; the daemon must not be able to move them.
    let token_dir = match users {
        Some(_) => Path::new("/run/holdfast.tokens").join(config.cluster.as_str()),
        None => config.daemon.state_dir.join("tokens"),
    };
    VolumeSpec {
        kind: config.volume.kind,
        devices: config.volume.devices.clone(),
        models: config.volume.models.clone(),
        serials: config.volume.serials.clone(),
        path: config.volume.path.clone(),
        mount: mount.to_owned(),
        filesystem: config.volume.filesystem,
        cluster: config.cluster.clone(),
        node: config.node.clone(),
        zone: config.zone.clone(),
        engine: "postgres".to_owned(),
        access: Users::access(users),
        token_dir,
    }
}

/// The mount point itself may be on a disk that does not answer, so only its parent is looked at.
fn resolve_mount(config: &Config) -> Result<PathBuf, SettingsError> {
    let mount = &config.volume.mount;
    match (mount.parent(), mount.file_name()) {
        (Some(parent), Some(name)) if parent.exists() => Ok(canonical(parent)?.join(name)),
        (Some(_) | None, Some(_) | None) => Ok(mount.clone()),
    }
}

fn canonical(path: &Path) -> Result<PathBuf, SettingsError> {
    path.canonicalize().map_err(|source| SettingsError::Resolve { path: path.to_owned(), source })
}

/// Workers start with an empty environment but for how to reach and be known to object storage.
fn environment_for_workers(all: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    const PREFIXES: [&str; 5] = ["AWS_", "AZURE_", "GOOGLE_", "SSL_CERT_", "HOLDFAST_LOG"];
    const NAMES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];
    all.filter(|(name, _)| {
        NAMES.contains(&name.as_str()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_hierarchy_is_found_beside_v1() {
        let mountinfo = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                         36 31 0:33 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer\n\
                         41 31 0:38 /pod7 /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let expected = (PathBuf::from("/sys/fs/cgroup/unified"), "/pod7".to_owned());
        assert_eq!(v2_mount(mountinfo), Some(expected));
        assert_eq!(v2_mount("36 31 0:33 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"), None);
    }

    #[test]
    fn root_is_refused_as_daemon_or_engine() {
        assert!(matches!(look_up("root"), Err(SettingsError::UserIsRoot { .. })));
        assert!(matches!(look_up("no-such-user"), Err(SettingsError::NoSuchUser { .. })));
    }

    #[test]
    fn workers_inherit_only_what_reaches_object_storage() {
        let all = [("AWS_REGION", "r"), ("LD_PRELOAD", "x"), ("PGPASSWORD", "x"), ("NO_PROXY", "n")];
        let kept = environment_for_workers(all.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), ["AWS_REGION", "NO_PROXY"]);
    }
}
