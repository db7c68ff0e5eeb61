//! Directories of the daemon and who owns them, prepared while it still has root's rights.
//!
//! `state_dir` belongs to the daemon; the engine reads its configuration there and writes nothing. `run_dir` belongs to
//! the engine, whose socket is in it. Neither is on the data volume.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use holdfast_engine::links::Tls;
use nix::unistd::{Gid, Uid, User, chown, getgrouplist, setgroups, setresgid, setresuid};

use crate::config::Config;
use crate::helper::settings::engine_tls_dir;
use crate::helper::tls::{CA, CERT, KEY};

/// Where the engine's three configuration files are.
#[must_use]
pub fn conf_dir(config: &Config) -> PathBuf {
    config.daemon.state_dir.join("engine")
}

/// The engine's own copies of the certificate files, which [`crate::helper::HelperClient::install_tls`] brings there. `as_root`
/// as the daemon was started.
#[must_use]
pub fn engine_tls(config: &Config, as_root: bool) -> Tls {
    let dir = engine_tls_dir(config, as_root);
    Tls { cert: dir.join(CERT), key: dir.join(KEY), ca: dir.join(CA) }
}

/// The socket on which the log worker answers `holdfastd fetch-log`.
#[must_use]
pub fn fetch_socket(config: &Config) -> PathBuf {
    config.daemon.run_dir.join("fetch")
}

/// Why the daemon could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    /// A directory could not be made or given away.
    #[error("prepare {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A configured user does not exist.
    #[error("user {user} ([{field}]) does not exist: create it, for example with 'useradd --system {user}'")]
    NoSuchUser {
        /// The field that names it.
        field: &'static str,
        /// The name.
        user: String,
    },
    /// The kernel refuses.
    #[error("{operation}")]
    Rights {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: nix::Error,
    },
}

/// The two unprivileged users, when the daemon was started as root.
#[derive(Debug)]
pub struct Users {
    daemon: User,
    engine: User,
}

impl Users {
    /// Looks both up; `None` without root, when everything runs as one user.
    ///
    /// # Errors
    /// [`PlacesError`].
    pub fn of(config: &Config) -> Result<Option<Self>, PlacesError> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        let daemon = look_up("daemon.user", &config.daemon.user)?;
        let engine = look_up("engine.user", &config.engine.user)?;
        Ok(Some(Self { daemon, engine }))
    }
}

fn look_up(field: &'static str, user: &str) -> Result<User, PlacesError> {
    User::from_name(user)
        .map_err(|source| PlacesError::Rights { operation: "look up a user", source })?
        .ok_or_else(|| PlacesError::NoSuchUser { field, user: user.to_owned() })
}

/// Makes every directory that is missing, with its owner and mode. Running it again changes nothing.
///
/// # Errors
/// [`PlacesError`].
pub fn prepare(config: &Config, users: Option<&Users>) -> Result<(), PlacesError> {
    let state = &config.daemon.state_dir;
    let daemon = users.map(|users| &users.daemon);
    let engine = users.map(|users| &users.engine);
    make(state, 0o755, daemon)?;
    make(&state.join("ledger"), 0o700, daemon)?;
    make(&conf_dir(config), 0o755, daemon)?;
    make(&state.join("log"), 0o750, daemon)?;
    make(&config.daemon.run_dir, 0o755, engine)
}

fn make(path: &Path, mode: u32, owner: Option<&User>) -> Result<(), PlacesError> {
    let wrap = |source| PlacesError::Directory { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(wrap)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(wrap)?;
    if let Some(owner) = owner {
        chown(path, Some(owner.uid), Some(owner.gid)).map_err(|err| wrap(err.into()))?;
    }
    Ok(())
}

/// Gives up root's rights for good. Called while there is one thread.
///
/// # Errors
/// [`PlacesError`]; the process must end then.
pub fn become_daemon(users: &Users) -> Result<(), PlacesError> {
    let user = &users.daemon;
    let rights = |operation| move |source| PlacesError::Rights { operation, source };
    let name = std::ffi::CString::new(user.name.as_str()).expect("names of the user database hold no NUL");
    let groups: Vec<Gid> = getgrouplist(&name, user.gid).map_err(rights("look up groups"))?;
    setgroups(&groups).map_err(rights("set groups"))?;
    setresgid(user.gid, user.gid, user.gid).map_err(rights("set group"))?;
    setresuid(user.uid, user.uid, user.uid).map_err(rights("set user"))
}
