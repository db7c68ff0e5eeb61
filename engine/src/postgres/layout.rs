//! Where one Postgres server's programs, data, socket and configuration are.
//!
//! Configuration, hba and ident files lie in `conf_dir`, off the data volume, so that closing the gate never touches
//! a disk that may have stalled.

use std::path::{Path, PathBuf};

/// The bootstrap superuser: the role that the agent logs in as over the unix socket.
pub const SUPERUSER: &str = "holdfast";
/// A role without rights that only proves whether a login is let through; see [`super::gate`].
pub const PROBE_ROLE: &str = "holdfast_probe";
/// The group of all members' roles, which no client rule reaches; see [`super::members`].
pub const MEMBERS_ROLE: &str = "holdfast_members";
/// The database that the agent connects to. Always there: initdb makes it, and it is never a template.
pub const DATABASE: &str = "postgres";

/// The places of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Folder of `postgres` and `initdb`.
    pub bin_dir: PathBuf,
    /// The data directory, on the data volume. The daemon never opens or stats it.
    pub data_dir: PathBuf,
    /// Folder of the unix socket, in the agent's run directory.
    pub socket_dir: PathBuf,
    /// Folder of the three files that the agent renders, in the agent's state directory.
    pub conf_dir: PathBuf,
    /// TCP port; names the unix socket as well.
    pub port: u16,
    /// `listen_addresses`; empty means unix socket only.
    pub listen: String,
}

impl Layout {
    /// A program of the server, e.g. `postgres`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    /// The rendered `postgresql.conf`.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.conf_dir.join("postgresql.conf")
    }

    /// The rendered `pg_hba.conf`.
    #[must_use]
    pub fn hba_file(&self) -> PathBuf {
        self.conf_dir.join("pg_hba.conf")
    }

    /// The rendered `pg_ident.conf`.
    #[must_use]
    pub fn ident_file(&self) -> PathBuf {
        self.conf_dir.join("pg_ident.conf")
    }

    /// The log directory inside the data directory.
    #[must_use]
    pub fn wal_dir(&self) -> PathBuf {
        self.data_dir.join("pg_wal")
    }

    /// The unix socket itself; named by Postgres after the port.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{}", self.port))
    }
}

/// A path as text, for places (configuration, command lines of SQL) that Postgres reads as text.
///
/// # Errors
/// The path itself, when it is not UTF-8.
pub(crate) fn path_text(path: &Path) -> Result<&str, PathBuf> {
    path.to_str().ok_or_else(|| path.to_owned())
}
