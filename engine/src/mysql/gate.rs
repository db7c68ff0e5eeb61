//! What clients may do: logins by `init_connect`, writes by `super_read_only` and `read_only`, and whose acks a commit waits for
//! by semi-sync.
//!
//! `init_connect` runs in every login but those of accounts with `CONNECTION_ADMIN`, and a login in which it fails is cut
//! (MySQL 9.7 reference manual, 7.1.8): so it is a gate that is changed in memory, at once, and asks nobody. A read-only server is
//! not one: `SET GLOBAL super_read_only = ON` waits for every commit under way, those that wait for acks included (Vitess 17288), and
//! fencing never waits for acks. Members' logins are let in by name, and only those.
//!
//! A client whose commit waits for acks and that is ended loses its connection, and its commit goes on waiting, unseen: nothing
//! was said to be committed (tried on 9.7; a test).
//!
//! Invariants, each a test in `tests/mysql/gate.rs`:
//! * `a_closed_gate_lets_nobody_in_and_does_not_wait_for_acks`.
//! * `whoever_waits_for_an_ack_and_is_ended_is_told_nothing`.
//! * `an_open_gate_waits_for_the_acks_that_it_was_told`.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_model::Member;
use holdfast_model::status::Gate;

use super::Layout;
use super::identity::login_of;
use super::layout::{AGENT, PROBE};
use super::session::{Session, SessionError};
use crate::ackers::Ackers;

/// `init_connect` while nobody is let in: a scalar subquery of two rows is an error.
pub const NOBODY: &str = "SET @holdfast = (SELECT 1 UNION SELECT 2)";

/// More acks than a server can have clients: commits wait for ever, which is what is wanted while nobody may ack.
pub const NEVER: u32 = 65_535;

/// Why a gate is not known to be in force.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The server was not reached or refused.
    #[error("apply the gate")]
    Session(#[from] SessionError),
    /// Something else sets it, or it could not be set.
    #[error("{name} is {found:?} in force and not {wanted:?}: something else sets it")]
    Setting {
        /// Which.
        name: &'static str,
        /// In force.
        found: String,
        /// What was set.
        wanted: String,
    },
    /// A client got in that should not.
    #[error("a login was let in through a closed gate: look for accounts with CONNECTION_ADMIN")]
    LetIn,
    /// A client was refused that should get in.
    #[error("a login was refused by an open gate")]
    KeptOut,
}

/// `init_connect` for a gate, with the members that may replicate.
#[must_use]
pub fn init_connect(gate: &Gate, members: &BTreeSet<Member>) -> String {
    match gate {
        Gate::Closed { .. } if members.is_empty() => NOBODY.to_owned(),
        Gate::Closed { .. } => {
            let logins: Vec<String> =
                members.iter().map(|member| format!("'{}'", login_of(member))).collect();
            let logins = logins.join(", ");
            format!(
                "SET @holdfast = IF(SUBSTRING_INDEX(USER(), '@', 1) IN ({logins}), 1, (SELECT 1 UNION SELECT 2))"
            )
        }
        Gate::ReadOnly { .. } | Gate::Open { .. } => String::new(),
    }
}

/// How many acks `ackers` ask of a commit; `None` where it waits for nobody.
#[must_use]
pub fn acks(ackers: &Ackers) -> Option<u32> {
    match ackers {
        Ackers::Alone => None,
        Ackers::AnyOf { k, .. } => Some((*k).clamp(1, NEVER)),
        Ackers::Nobody => Some(NEVER),
    }
}

/// Puts a gate of a server that writes in force, and proves it. On an error it is not known to be either way.
///
/// The order is that of safety: a gate that closes keeps clients out first; one that opens is known to wait for acks before
/// anybody can write (M2).
///
/// # Errors
/// [`GateError`].
pub async fn apply(
    session: &mut Session,
    layout: &Layout,
    gate: &Gate,
    ackers: &Ackers,
    members: &BTreeSet<Member>,
    deadline: Duration,
) -> Result<(), GateError> {
    match gate {
        Gate::Closed { .. } => {
            set_logins(session, gate, members).await?;
            wait_for(session, ackers).await?;
        }
        Gate::ReadOnly { .. } | Gate::Open { .. } => {
            wait_for(session, ackers).await?;
            let read_only = if matches!(gate, Gate::Open { .. }) { "OFF" } else { "ON" };
            set_word(session, "read_only", read_only).await?;
            set_logins(session, gate, members).await?;
        }
    }
    match (lets_in(layout, deadline).await?, gate) {
        (true, Gate::Closed { .. }) => Err(GateError::LetIn),
        (false, Gate::ReadOnly { .. } | Gate::Open { .. }) => Err(GateError::KeptOut),
        (true, _) | (false, _) => Ok(()),
    }
}

/// Says who may log in, and nothing else.
///
/// # Errors
/// [`GateError`].
pub async fn set_logins(
    session: &mut Session,
    gate: &Gate,
    members: &BTreeSet<Member>,
) -> Result<(), GateError> {
    set_text(session, "init_connect", &init_connect(gate, members)).await
}

/// Makes commits wait for the acks of `ackers`. Turning the wait off releases whoever waits: it is done only for a rule with k = 0,
/// under which what waits is durable.
async fn wait_for(session: &mut Session, ackers: &Ackers) -> Result<(), GateError> {
    let Some(acks) = acks(ackers) else {
        return set_word(session, "rpl_semi_sync_source_enabled", "OFF").await;
    };
    // First the number, which may be too high for a moment, never too low.
    set_number(session, "rpl_semi_sync_source_wait_for_replica_count", acks).await?;
    set_word(session, "rpl_semi_sync_source_enabled", "ON").await?;
    for (name, wanted) in [
        ("rpl_semi_sync_source_wait_no_replica", "1"),
        ("rpl_semi_sync_source_wait_point", "AFTER_SYNC"),
        ("rpl_semi_sync_source_timeout", "1000000000000000000"),
    ] {
        check(session, name, wanted).await?;
    }
    Ok(())
}

/// Whether a client that comes now is let in.
///
/// # Errors
/// [`SessionError`], when it was not let in for another reason.
pub async fn lets_in(layout: &Layout, deadline: Duration) -> Result<bool, SessionError> {
    let mut probe = match Session::connect_as(layout, PROBE, deadline).await {
        Ok(probe) => probe,
        Err(SessionError::Login { .. }) => return Ok(false),
        Err(err) => return Err(err),
    };
    match probe.run("ask as a client", "DO 1").await {
        Ok(()) => Ok(true),
        // The server cuts a login in which init_connect failed when its first command comes.
        Err(SessionError::Unreachable { .. }) => Ok(false),
        Err(SessionError::Query { source, .. }) if was_cut(&source) => Ok(false),
        Err(err) => Err(err),
    }
}

/// `ER_NEW_ABORTING_CONNECTION`, and `ER_INIT_CONNECT` of other releases.
fn was_cut(err: &mysql_async::Error) -> bool {
    matches!(err, mysql_async::Error::Server(err) if err.code == 1184 || err.code == 1152)
}

/// Ends every session of a client; returns how many. Those of the agent, of members and of the server itself stay.
///
/// # Errors
/// [`SessionError`].
pub async fn end_clients(session: &mut Session) -> Result<u64, SessionError> {
    let doing = "end client sessions";
    let sql = format!(
        "SELECT processlist_id FROM performance_schema.threads WHERE type = 'FOREGROUND' AND processlist_id IS NOT NULL \
         AND processlist_user IS NOT NULL AND processlist_user <> '{AGENT}' \
         AND coalesce(processlist_command, '') NOT IN ('Binlog Dump', 'Binlog Dump GTID', 'Daemon', 'Killed')"
    );
    let ids: Vec<u64> = session.rows(doing, &sql).await?;
    let mut ended = 0;
    for id in ids {
        match session.run(doing, &format!("KILL CONNECTION {id}")).await {
            Ok(()) => ended += 1,
            // It went by itself.
            Err(err) if err.code() == Some(1094) => {}
            Err(err) => return Err(err),
        }
    }
    Ok(ended)
}

async fn set_word(session: &mut Session, name: &'static str, value: &'static str) -> Result<(), GateError> {
    session.run("apply the gate", &format!("SET GLOBAL {name} = {value}")).await?;
    check(session, name, if value == "ON" { "1" } else { "0" }).await
}

async fn set_number(session: &mut Session, name: &'static str, value: u32) -> Result<(), GateError> {
    session.run("apply the gate", &format!("SET GLOBAL {name} = {value}")).await?;
    check(session, name, &value.to_string()).await
}

async fn set_text(session: &mut Session, name: &'static str, value: &str) -> Result<(), GateError> {
    session.execute("apply the gate", &format!("SET GLOBAL {name} = ?"), (value,)).await?;
    check(session, name, value).await
}

async fn check(session: &mut Session, name: &'static str, wanted: &str) -> Result<(), GateError> {
    let found: Option<String> =
        session.row("read what is in force", &format!("SELECT CAST(@@global.{name} AS CHAR)")).await?;
    let found = found.unwrap_or_default();
    if found == wanted { Ok(()) } else { Err(GateError::Setting { name, found, wanted: wanted.to_owned() }) }
}
