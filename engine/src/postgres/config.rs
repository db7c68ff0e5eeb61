//! Renders the one `postgresql.conf` of the agent, and the settings that go on the command line.
//!
//! Two kinds of settings are the agent's own. *Pinned* ones never change while the server runs; they are repeated on
//! the command line, because `ALTER SYSTEM` writes `postgresql.auto.conf`, which beats the file but not the command
//! line. *Changing* ones (the ack list, read-only) must stay reloadable, so they are in the file alone, and
//! [`super::gate`] checks what is in force. Everything else is the operator's.
//!
//! Invariants, each a test in `config/tests.rs`:
//! * `no_user_value_can_add_a_line`.
//! * `owned_settings_are_refused_by_name_whatever_their_case`.
//! * `every_error_is_reported_at_once`.
//!
//! Not here: whether Postgres likes a user's value. `argv::print_setting` makes it read the file.

mod owned;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use holdfast_model::{ByteCount, ClusterName};

pub use owned::owned_reason;

use super::layout::path_text;
use super::links::{self, Links};
use super::{Layout, Version, sync};
use crate::ackers::Ackers;
use crate::links::Tls;

/// Everything that the file says.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// The server's places.
    pub layout: &'a Layout,
    /// The server's version.
    pub version: Version,
    /// Becomes `cluster_name`, which shows in process titles.
    pub cluster: &'a ClusterName,
    /// Whose acks a commit waits for.
    pub sync: &'a Ackers,
    /// Transactions start read-only. A courtesy that keeps a nearly full disk from filling: a client can override
    /// it, so it is never a fence.
    pub read_only: bool,
    /// Log that a replication slot may hold back (`max_slot_wal_keep_size`), so that a lost peer cannot fill the disk.
    pub slot_log_max: ByteCount,
    /// Certificates for replication; without them nobody replicates.
    pub tls: Option<&'a Tls>,
    /// Whom it replicates with.
    pub links: &'a Links,
    /// The operator's `[engine] settings`.
    pub user: &'a BTreeMap<String, String>,
}

/// Why one setting was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The agent sets it.
    #[error("setting {name:?} is holdfast's own: {reason}")]
    Owned {
        /// As the operator wrote it.
        name: String,
        /// Why the operator may not set it.
        reason: &'static str,
    },
    /// Not a name that Postgres would read as one.
    #[error("setting {name:?} is not a setting's name: use letters, digits, '_' and one '.'")]
    Name {
        /// As the operator wrote it.
        name: String,
    },
    /// Given twice in different spellings.
    #[error("setting {name:?} is given twice: names differ only in case")]
    Twice {
        /// In lower case.
        name: String,
    },
    /// A control character, such as a line feed, in a value.
    #[error("setting {name:?} has a control character in its value")]
    Control {
        /// Which setting.
        name: String,
    },
    /// A path that Postgres could not read from a text file.
    #[error("path {path:?} is not UTF-8")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// Members are told apart by their certificates.
    #[error("replication needs certificates: set [tls]")]
    NoTls,
    /// An empty list wakes every waiter as if it had been acked, and a standby may be promoted at any time.
    #[error("a server that follows another one must not have an empty ack list")]
    OpenStandby,
}

/// Renders the whole file.
///
/// # Errors
/// Every [`ConfigError`] at once.
pub fn render(settings: &Settings<'_>) -> Result<String, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let user = check_user(settings, &mut errors);
    check_links(settings, &mut errors);
    let own = match pinned(settings) {
        Ok(own) => own,
        Err(err) => {
            errors.push(err);
            Vec::new()
        }
    };
    let own = own.into_iter().chain(changing(settings));

    let mut out =
        String::from("# Written by holdfast; changes are overwritten. Set your own in [engine] settings.\n");
    for (name, value) in own {
        push(&mut out, name, &value, &mut errors);
    }
    out.push_str("\n# [engine] settings\n");
    for (name, value) in &user {
        push(&mut out, name, value, &mut errors);
    }
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

/// The agent's settings that never change while the server runs: in the file, and on the command line.
///
/// # Errors
/// [`ConfigError::Path`].
pub fn pinned(settings: &Settings<'_>) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let layout = settings.layout;
    let text = |path: PathBuf| path_text(&path).map(str::to_owned).map_err(|path| ConfigError::Path { path });
    let mut own: Vec<(&'static str, String)> =
        owned::FIXED.iter().map(|fixed| (fixed.name, fixed.value.to_owned())).collect();
    own.push(("hba_file", text(layout.hba_file())?));
    own.push(("ident_file", text(layout.ident_file())?));
    own.push(("unix_socket_directories", list_item(&text(layout.socket_dir.clone())?)));
    own.push(("listen_addresses", layout.listen.clone()));
    own.push(("port", layout.port.to_string()));
    own.push(("cluster_name", settings.cluster.to_string()));
    if let Some(tls) = settings.tls {
        own.push(("ssl", "on".to_owned()));
        own.push(("ssl_cert_file", text(tls.cert.clone())?));
        own.push(("ssl_key_file", text(tls.key.clone())?));
        own.push(("ssl_ca_file", text(tls.ca.clone())?));
    }
    if settings.version.major >= 17 {
        own.push(("allow_alter_system", "off".to_owned()));
    }
    Ok(own)
}

/// Settings for the command line alone: a restore names its timeline and its fetch program after them, and the last one
/// counts. Everything else follows whatever its upstream promotes to, and never reads a repository that another branch may
/// have written to.
pub(super) const NO_RESTORE: [(&str, &str); 2] =
    [("restore_command", ""), ("recovery_target_timeline", "latest")];

/// The agent's settings that a reload may change.
fn changing(settings: &Settings<'_>) -> [(&'static str, String); 6] {
    let read_only = if settings.read_only { "on" } else { "off" };
    let upstream = settings.links.upstream.as_ref().zip(settings.tls);
    [
        // Always there: what is taken out of a file would fall back to what `ALTER SYSTEM` set.
        (
            "primary_conninfo",
            upstream.map_or_else(String::new, |(upstream, tls)| links::conninfo(upstream, tls)),
        ),
        (
            "primary_slot_name",
            upstream.map_or_else(String::new, |(upstream, _)| links::slot_name(&upstream.member)),
        ),
        ("synchronous_standby_names", sync::render(settings.sync)),
        ("default_transaction_read_only", read_only.to_owned()),
        // A member that follows keeps log which its primary may not have shipped yet: who is promoted ships it first.
        ("wal_keep_size", if settings.tls.is_some() { "256MB" } else { "0" }.to_owned()),
        ("max_slot_wal_keep_size", format!("{}MB", settings.slot_log_max.bytes() >> 20)),
    ]
}

/// What is put together wrongly, whoever did it.
fn check_links(settings: &Settings<'_>, errors: &mut Vec<ConfigError>) {
    let Links { peers, upstream } = settings.links;
    if settings.tls.is_none() && (upstream.is_some() || !peers.is_empty()) {
        errors.push(ConfigError::NoTls);
    }
    if upstream.is_some() && sync::render(settings.sync).is_empty() {
        errors.push(ConfigError::OpenStandby);
    }
}

fn check_user(settings: &Settings<'_>, errors: &mut Vec<ConfigError>) -> BTreeMap<String, String> {
    let mut checked = BTreeMap::new();
    for (name, value) in settings.user {
        let lower = name.to_ascii_lowercase();
        let own_tls = settings.tls.and_then(|_| owned::tls_reason(&lower));
        if !is_name(&lower) {
            errors.push(ConfigError::Name { name: name.clone() });
        } else if let Some(reason) = owned_reason(&lower).or(own_tls) {
            errors.push(ConfigError::Owned { name: name.clone(), reason });
        } else if checked.insert(lower.clone(), value.clone()).is_some() {
            errors.push(ConfigError::Twice { name: lower });
        }
    }
    checked
}

/// Postgres' own rule: an identifier, or two joined by a dot for an extension's setting.
fn is_name(name: &str) -> bool {
    let word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$')
    };
    match name.split_once('.') {
        Some((class, rest)) => word(class) && word(rest),
        None => word(name),
    }
}

fn push(out: &mut String, name: &str, value: &str, errors: &mut Vec<ConfigError>) {
    if value.chars().any(char::is_control) {
        errors.push(ConfigError::Control { name: name.to_owned() });
        return;
    }
    writeln!(out, "{name} = {}", quote(value)).expect("writing to a String cannot fail");
}

/// Quotes a value the way Postgres' configuration reader takes it apart: `''` and `\\` inside single quotes.
/// The value must hold no control characters.
#[must_use]
pub fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Quotes one item of a list setting such as `unix_socket_directories`, where a comma would separate.
fn list_item(item: &str) -> String {
    format!("\"{}\"", item.replace('"', "\"\""))
}
