//! The exact command lines of MySQL's program, and what it runs when it makes a data directory. Nothing is started here; see
//! [`crate::launch`].

use std::ffi::OsString;
use std::path::PathBuf;

use super::Layout;
use super::gate;
use super::layout::{AGENT, DATABASE, PROBE};
use super::session::quote;
use crate::launch::Launch;

/// As what a server starts. Whichever it is, no client gets in and nothing is acknowledged before the agent says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Read-only: it follows, or is about to be told what it is.
    Standby,
    /// It writes its own log: it goes on with its reign, or is new. Commits wait for more acks than there can be.
    Primary,
}

/// Makes a new data directory with the agent's accounts and tables, by [`init_sql`], none of which gets a GTID: members that are
/// made alike hold the same. The folder must be empty or missing. mysqld fsyncs before it ends.
#[must_use]
pub fn initialize(layout: &Layout) -> Launch {
    let mut init_file = OsString::from("--init-file=");
    init_file.push(layout.init_file());
    // Not the gate: it would be run by the initialisation itself.
    with_config(layout)
        .arg("--initialize-insecure")
        .arg(init_file)
        .arg("--init-connect=")
        .arg("--disable-log-bin")
}

/// Runs the server in the foreground.
#[must_use]
pub fn mysqld(layout: &Layout, start: Start) -> Launch {
    let launch = with_config(layout).arg("--persisted-globals-load=OFF");
    match start {
        Start::Standby => launch,
        Start::Primary => launch
            .arg("--super-read-only=OFF")
            .arg("--rpl-semi-sync-source-enabled=ON")
            .arg(format!("--rpl-semi-sync-source-wait-for-replica-count={}", gate::NEVER)),
    }
}

/// Makes the server read its configuration and end: an error on stderr names what it does not like.
#[must_use]
pub fn validate(layout: &Layout) -> Launch {
    with_config(layout).arg("--validate-config")
}

/// `mysqld --version`, for [`super::Version::parse`].
#[must_use]
pub fn version(program: PathBuf) -> Launch {
    Launch::new(program).arg("--no-defaults").arg("--version")
}

fn with_config(layout: &Layout) -> Launch {
    let mut defaults = OsString::from("--defaults-file=");
    defaults.push(layout.config_file());
    Launch::new(layout.program.clone()).arg(defaults)
}

/// What a new data directory holds of the agent's: its account, which only the operating system's user `agent` gets into; the
/// probe's; its tables. The account `root` stays, for whoever is root on the node.
///
/// No plugin is loaded while a data directory is made, whatever the configuration says, so the one that the accounts need is
/// installed for good.
///
/// Each statement has to be on one line (MySQL 9.7 reference manual, 7.1.7, `init_file`).
#[must_use]
pub fn init_sql(agent: &str) -> String {
    let agent = quote(agent);
    format!(
        "INSTALL PLUGIN auth_socket SONAME 'auth_socket.so';\n\
         CREATE USER '{AGENT}'@'localhost' IDENTIFIED WITH auth_socket AS {agent};\n\
         GRANT ALL ON *.* TO '{AGENT}'@'localhost' WITH GRANT OPTION;\n\
         ALTER USER 'root'@'localhost' IDENTIFIED WITH auth_socket;\n\
         CREATE USER '{PROBE}'@'localhost' IDENTIFIED WITH auth_socket AS {agent} WITH MAX_USER_CONNECTIONS 4;\n\
         CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n\
         CREATE TABLE {DATABASE}.rules (term INT UNSIGNED NOT NULL, version INT UNSIGNED NOT NULL, rule JSON NOT NULL, \
           written TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (term, version));\n\
         CREATE TABLE {DATABASE}.held_out (node VARCHAR(30) NOT NULL PRIMARY KEY);\n"
    )
}
