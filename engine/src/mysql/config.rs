//! Renders the one `my.cnf` of the agent, which always says *closed*: read-only, no clients, no semi-sync on either side, no
//! replication started. A server that starts by itself, or is started by an agent that then dies, harms nobody. What a role
//! needs is put in force at run time, by [`super::gate`] and [`super::channel`], and is gone with the process.
//!
//! `SET PERSIST` writes `mysqld-auto.cnf`, which beats this file and the command line both: it is not read
//! (`persisted_globals_load`, which must be on the command line to count; MySQL 9.7 reference manual, 7.1.9.3).
//!
//! Invariants, each a test below:
//! * `no_user_value_can_add_a_line`.
//! * `owned_settings_are_refused_however_they_are_spelled`.
//! * `every_error_is_reported_at_once`.

mod owned;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use holdfast_model::Member;

pub use owned::{Owned, owned};

use super::Layout;
use super::identity;
use super::layout::path_text;
use crate::links::Tls;

/// Everything that the file says.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// The server's places.
    pub layout: &'a Layout,
    /// Whose server it is.
    pub member: &'a Member,
    /// Certificates for replication and clients; without them nobody replicates.
    pub tls: Option<&'a Tls>,
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
    /// Not a name that MySQL would read as one.
    #[error("setting {name:?} is not a setting's name: use letters, digits, '_' or '-', and one '.'")]
    Name {
        /// As the operator wrote it.
        name: String,
    },
    /// Given twice in different spellings.
    #[error("setting {name:?} is given twice: '-' and '_' are the same, and so are upper and lower case")]
    Twice {
        /// As the agent spells it.
        name: String,
    },
    /// A control character, such as a line feed, in a value.
    #[error("setting {name:?} has a control character in its value")]
    Control {
        /// Which setting.
        name: String,
    },
    /// A path that MySQL could not read from a text file.
    #[error("path {path:?} is not UTF-8")]
    Path {
        /// The path.
        path: PathBuf,
    },
}

/// Renders the whole file.
///
/// # Errors
/// Every [`ConfigError`] at once.
pub fn render(settings: &Settings<'_>) -> Result<String, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let user = check_user(settings, &mut errors);
    let places = match places(settings) {
        Ok(places) => places,
        Err(err) => {
            errors.push(err);
            Vec::new()
        }
    };
    let mut out = String::from(
        "# Written by holdfast; changes are overwritten. Set your own in [engine] settings.\n[mysqld]\n",
    );
    for own in owned::FIXED {
        // A server that makes its data directory loads no plugins, and would end over their settings.
        let loose = if own.name.starts_with("rpl_semi_sync_") { "loose_" } else { "" };
        push(&mut out, &format!("{loose}{}", own.name), own.value, &mut errors);
    }
    for (name, value) in &places {
        push(&mut out, name, value, &mut errors);
    }
    out.push_str("\n# [engine] settings\n");
    for (name, value) in &user {
        push(&mut out, name, value, &mut errors);
    }
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

/// What differs between servers.
fn places(settings: &Settings<'_>) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let layout = settings.layout;
    let text = |path: PathBuf| path_text(&path).map(str::to_owned).map_err(|path| ConfigError::Path { path });
    let mut own = vec![
        ("datadir", text(layout.data_dir.clone())?),
        ("socket", text(layout.socket())?),
        ("pid_file", text(layout.pid_file())?),
        ("port", layout.port.to_string()),
        ("server_id", identity::server_id_of(settings.member).to_string()),
        ("report_host", settings.member.node.to_string()),
    ];
    if layout.listen.is_empty() {
        own.push(("skip_networking", "ON".to_owned()));
    } else {
        own.push(("bind_address", layout.listen.clone()));
    }
    if let Some(tls) = settings.tls {
        own.push(("ssl_cert", text(tls.cert.clone())?));
        own.push(("ssl_key", text(tls.key.clone())?));
        own.push(("ssl_ca", text(tls.ca.clone())?));
    }
    Ok(own)
}

fn check_user(settings: &Settings<'_>, errors: &mut Vec<ConfigError>) -> BTreeMap<String, String> {
    let mut checked = BTreeMap::new();
    for (name, value) in settings.user {
        let canonical = owned::canonical(name);
        if !is_name(&canonical) {
            errors.push(ConfigError::Name { name: name.clone() });
        } else if let Some(reason) = owned::reason(&canonical, settings.tls.is_some()) {
            errors.push(ConfigError::Owned { name: name.clone(), reason });
        } else if checked.insert(canonical.clone(), value.clone()).is_some() {
            errors.push(ConfigError::Twice { name: canonical });
        }
    }
    checked
}

/// A variable, or one of a component's or plugin's, joined by a dot.
fn is_name(name: &str) -> bool {
    let word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match name.split_once('.') {
        Some((component, rest)) => word(component) && word(rest),
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

/// Quotes a value the way MySQL's option files take it apart: `"` around it, `\\` inside (MySQL 9.7 reference manual, 6.2.2.2).
/// The value must hold no control characters.
fn quote(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', r"\\"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::Incarnation;
    use proptest::prelude::*;

    fn rendered(user: &[(&str, &str)]) -> Result<String, Vec<ConfigError>> {
        let layout = Layout {
            program: "/usr/sbin/mysqld".into(),
            data_dir: "/data/mysql".into(),
            socket_dir: "/run".into(),
            conf_dir: "/conf".into(),
            port: 3306,
            listen: "10.0.0.1".to_owned(),
        };
        let member = Member { node: "n1".parse().unwrap(), incarnation: Incarnation::from_random(7) };
        let user = user.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        render(&Settings { layout: &layout, member: &member, tls: None, user: &user })
    }

    #[test]
    fn a_server_starts_closed() {
        let text = rendered(&[]).unwrap();
        let closed = [
            "super_read_only = \"ON\"",
            "skip_replica_start = \"ON\"",
            "loose_rpl_semi_sync_source_enabled = \"OFF\"",
            "loose_rpl_semi_sync_replica_enabled = \"OFF\"",
            "datadir = \"/data/mysql\"",
        ];
        for line in closed {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    proptest! {
        #[test]
        fn no_user_value_can_add_a_line(value in ".{0,40}") {
            let plain = rendered(&[]).unwrap().lines().count();
            if let Ok(text) = rendered(&[("sort_buffer_size", &value)]) {
                prop_assert_eq!(text.lines().count(), plain + 1);
            }
        }
    }

    #[test]
    fn owned_settings_are_refused_however_they_are_spelled() {
        for name in [
            "sync_binlog",
            "Sync-Binlog",
            "loose_sync-binlog",
            "loose-skip-super-read-only",
            "disable_log_bin",
            "slave_preserve_commit_order",
            "rpl_semi_sync_master_timeout",
            "replicate-do-db",
        ] {
            let err = rendered(&[(name, "0")]).unwrap_err();
            assert!(
                matches!(&err[..], [ConfigError::Owned { name: said, .. }] if said == name),
                "{name}: {err:?}"
            );
        }
        assert!(rendered(&[("innodb-buffer-pool-size", "1G"), ("validate_password.length", "9")]).is_ok());
    }

    #[test]
    fn the_documentation_lists_every_owned_setting() {
        let documented = include_str!("../../../docs/mysql.md");
        for name in owned::FIXED.iter().map(|own| own.name).chain(owned::OTHERS.iter().map(|(name, _)| *name))
        {
            assert!(documented.contains(&format!("\n| `{name}` |")), "{name} is not in docs/mysql.md");
        }
    }

    #[test]
    fn every_error_is_reported_at_once() {
        let err = rendered(&[
            ("x;y", "1"),
            ("max-connections", "1"),
            ("max_connections", "2"),
            ("port", "1"),
            ("tmpdir", "a\nb"),
        ]);
        assert_eq!(err.unwrap_err().len(), 4);
    }
}
