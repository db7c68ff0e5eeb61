//! Puts rendered files in force and proves that they are.
//!
//! A rule file that the server does not like is kept out in silence, so each change is verified three ways: the
//! configuration was read again since the change, the files on disk have no error, and a fresh login of the probe role
//! is let through exactly when the gate is open. Postgres reads the hba file in the postmaster right after it tells
//! its children to reload, before it accepts the next connection: once this session has seen the new load time, the
//! probe's login is judged by the new rules.
//!
//! Invariants, each a test in `tests/gate.rs`:
//! * `a_closed_gate_refuses_clients_and_lets_the_agent_stay`.
//! * `a_file_that_the_server_does_not_like_is_an_error_not_a_closed_gate`.
//!
//! Not here: when to open (`agent/decide`), and ending the clients that are already in
//! ([`Session::terminate_clients`]).

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_model::status::Gate;
use tokio::time::{self, Instant};

use super::layout::PROBE_ROLE;
use super::session::status::ConfLoaded;
use super::session::{Session, SessionError};
use super::{Layout, sync};
use crate::ackers::Ackers;

/// How often the load time is looked at.
const POLL: Duration = Duration::from_millis(10);

/// The agent's three files, rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `postgresql.conf`.
    pub config: String,
    /// `pg_hba.conf`.
    pub hba: String,
    /// `pg_ident.conf`.
    pub ident: String,
}

/// A file could not be put in place.
#[derive(Debug, thiserror::Error)]
#[error("write {}", path.display())]
pub struct InstallError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Why a gate is not known to be as it should.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A session failed.
    #[error("change the gate")]
    Session(#[source] SessionError),
    /// The server has not read its files again.
    #[error("the server did not read its configuration again within {} ms", .0.as_millis())]
    NotReloaded(Duration),
    /// It does not like them, and keeps the old ones.
    #[error("the server refuses its configuration: {}", .0.join("; "))]
    Files(Vec<String>),
    /// A setting is not in force.
    #[error("setting {name} is {found:?}, expected {expected:?}: is it overridden?")]
    Setting {
        /// Which.
        name: &'static str,
        /// What is in force.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The probe got in through a closed gate.
    #[error("a probe login was let in although the gate is closed")]
    LetIn,
    /// The probe was kept out by an open gate.
    #[error("a probe login was refused although the gate is open")]
    KeptOut,
}

/// Writes the three files where [`Layout`] has them, each by temporary file, fsync, rename, fsync of the folder.
/// A file that is already right is left alone. Blocks on the root disk; never touches the data volume.
///
/// The configuration is written before the hba file, so that a crash in between never leaves a gate open over an
/// older ack list. Before a server is started, files of a closed gate are installed: a power loss may have brought
/// back older ones.
///
/// # Errors
/// [`InstallError`]; what was already written stays, and is right.
pub fn install(layout: &Layout, files: &Files) -> Result<(), InstallError> {
    for (path, content) in [
        (layout.config_file(), &files.config),
        (layout.ident_file(), &files.ident),
        (layout.hba_file(), &files.hba),
    ] {
        replace(&path, content).map_err(|source| InstallError { path, source })?;
    }
    // Also when nothing was written: an earlier call may have been cut short after its rename.
    let folder = &layout.conf_dir;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| InstallError { path: folder.clone(), source })
}

fn replace(path: &Path, content: &str) -> io::Result<()> {
    if fs::read(path).is_ok_and(|found| found == content.as_bytes()) {
        return Ok(());
    }
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    // The engine's user reads it, whatever our umask; nothing in it is secret.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// Makes the server read the installed files and proves that `gate` and `sync` are in force.
///
/// Cancel-safe in that it can be called again; a dropped call leaves the gate unproven.
///
/// # Errors
/// [`GateError`]: the gate is then to be treated as not what it should be.
pub async fn settle(session: &Session, layout: &Layout, gate: &Gate, sync: &Ackers) -> Result<(), GateError> {
    reload(session).await?;
    let read_only = if matches!(gate, Gate::ReadOnly { .. }) { "on" } else { "off" };
    check_setting(session, "synchronous_standby_names", &sync::render(sync)).await?;
    check_setting(session, "default_transaction_read_only", read_only).await?;
    match (gate, probe(layout, session.deadline()).await.map_err(GateError::Session)?) {
        (Gate::Closed { .. }, Probed::KeptOut)
        | (Gate::ReadOnly { .. } | Gate::Open { .. }, Probed::LetIn) => Ok(()),
        (Gate::Closed { .. }, Probed::LetIn) => Err(GateError::LetIn),
        (Gate::ReadOnly { .. } | Gate::Open { .. }, Probed::KeptOut) => Err(GateError::KeptOut),
    }
}

/// Makes the server read the installed files, sees that it did, and that it likes them. Returns when: every process that
/// started later has read them.
pub(super) async fn reload(session: &Session) -> Result<ConfLoaded, GateError> {
    let before = session.status().await.map_err(GateError::Session)?.conf_loaded;
    session.reload().await.map_err(GateError::Session)?;
    let reloaded = wait_for_reload(session, before).await;
    let errors = session.file_errors().await.map_err(GateError::Session)?;
    if errors.is_empty() { reloaded } else { Err(GateError::Files(errors)) }
}

async fn wait_for_reload(session: &Session, before: ConfLoaded) -> Result<ConfLoaded, GateError> {
    let deadline = session.deadline();
    let until = Instant::now() + deadline;
    loop {
        let loaded = session.status().await.map_err(GateError::Session)?.conf_loaded;
        if loaded > before {
            return Ok(loaded);
        }
        if Instant::now() >= until {
            return Err(GateError::NotReloaded(deadline));
        }
        time::sleep(POLL).await;
    }
}

pub(super) async fn check_setting(
    session: &Session,
    name: &'static str,
    expected: &str,
) -> Result<(), GateError> {
    let found = session.setting(name).await.map_err(GateError::Session)?;
    if found == expected {
        Ok(())
    } else {
        Err(GateError::Setting { name, found, expected: expected.to_owned() })
    }
}

/// Whether a client that comes now would be let in.
pub(super) async fn lets_in(layout: &Layout, deadline: Duration) -> Result<bool, SessionError> {
    Ok(matches!(probe(layout, deadline).await?, Probed::LetIn))
}

enum Probed {
    LetIn,
    KeptOut,
}

/// Logs in as the probe role. Refused by a rule is `KeptOut`; refused for want of a free connection or a right is
/// `LetIn`, since both come after the rules.
async fn probe(layout: &Layout, deadline: Duration) -> Result<Probed, SessionError> {
    match Session::connect_as(layout, PROBE_ROLE, deadline).await {
        Ok(_) | Err(SessionError::Query { .. }) => Ok(Probed::LetIn),
        Err(SessionError::Login { role, source }) => {
            // One SQLSTATE covers "no such role" too; messages are in the C locale, which is pinned.
            let by_rule = source.as_db_error().is_some_and(|error| error.message().contains("pg_hba.conf"));
            if by_rule { Ok(Probed::KeptOut) } else { Err(SessionError::Login { role, source }) }
        }
        Err(
            err @ (SessionError::Unreachable { .. }
            | SessionError::NotReady(_)
            | SessionError::Late { .. }
            | SessionError::Answer { .. }),
        ) => Err(err),
    }
}
