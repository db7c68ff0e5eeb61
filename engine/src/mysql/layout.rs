//! Where one MySQL server's program, data, socket and configuration are.
//!
//! The configuration lies in `conf_dir`, off the data volume, like that of Postgres. The server finds its messages and
//! plugins by where its program is.

use std::path::{Path, PathBuf};

/// The account that the agent logs in with over the unix socket.
pub const AGENT: &str = "holdfast";
/// An account without rights that only proves whether a login is let through; see [`super::gate`].
pub const PROBE: &str = "holdfast_probe";
/// The database of the agent's own tables.
pub const DATABASE: &str = "holdfast";

/// The places of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `mysqld` itself.
    pub program: PathBuf,
    /// The data directory, on the data volume. The daemon never opens or stats it.
    pub data_dir: PathBuf,
    /// Folder of the unix socket and of the pid file, in the agent's run directory.
    pub socket_dir: PathBuf,
    /// Folder of the rendered `my.cnf`, in the agent's state directory.
    pub conf_dir: PathBuf,
    /// TCP port.
    pub port: u16,
    /// `bind_address`; empty means unix socket only.
    pub listen: String,
}

impl Layout {
    /// The rendered `my.cnf`.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.conf_dir.join("my.cnf")
    }

    /// What the server runs once, when its data directory is made.
    #[must_use]
    pub fn init_file(&self) -> PathBuf {
        self.conf_dir.join("init.sql")
    }

    /// The unix socket itself.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket_dir.join("mysqld.sock")
    }

    /// Where the server writes its process id, which nobody reads: it is found by `engine.lock`.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.socket_dir.join("mysqld.pid")
    }

    /// The file that names the server: see [`super::identity`].
    #[must_use]
    pub fn identity_file(&self) -> PathBuf {
        self.data_dir.join("auto.cnf")
    }
}

/// A path as text, for places that MySQL reads as text.
///
/// # Errors
/// The path itself, when it is not UTF-8.
pub(crate) fn path_text(path: &Path) -> Result<&str, PathBuf> {
    path.to_str().ok_or_else(|| path.to_owned())
}
