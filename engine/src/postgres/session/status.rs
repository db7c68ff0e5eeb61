//! What the server is doing, asked often; and what it is, asked once per session.

use holdfast_model::{Lsn, Term};
use tokio_postgres::types::PgLsn;

use super::{Session, SessionError};
use crate::postgres::wal::history;
use crate::postgres::{Version, recovery};

/// What does not change while a server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version.
    pub version: Version,
    /// The system identifier in its `pg_control`.
    pub system_identifier: u64,
    /// Whether data checksums are on.
    pub checksums: bool,
    /// When the postmaster started, in microseconds since 1970 by the machine's clock. Only ever compared for
    /// equality: it tells one postmaster from the next.
    pub started_us: i64,
}

/// A moment of the server's configuration, in microseconds since 1970; only ever compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfLoaded(pub(crate) i64);

/// Whether it writes its own log or replays one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRole {
    /// It writes.
    Primary {
        /// Durable on the local disk up to here.
        flushed: Lsn,
    },
    /// It replays.
    Recovery {
        /// Replayed up to here.
        replayed: Lsn,
        /// Received and flushed by streaming; `None` when nothing was streamed since the start.
        received: Option<Lsn>,
    },
}

/// What the server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Writing or replaying.
    pub log: LogRole,
    /// The timeline it writes, or that of the last checkpoint it replayed.
    pub timeline: Term,
    /// When it last read its configuration.
    pub conf_loaded: ConfLoaded,
}

impl Status {
    /// Durable on the local disk: flushed on a primary; on a standby what was received, or else replayed.
    #[must_use]
    pub fn flushed(&self) -> Lsn {
        match self.log {
            LogRole::Primary { flushed } => flushed,
            LogRole::Recovery { replayed, received } => received.map_or(replayed, |lsn| lsn.max(replayed)),
        }
    }

    /// Whether it is in recovery.
    #[must_use]
    pub const fn in_recovery(&self) -> bool {
        matches!(self.log, LogRole::Recovery { .. })
    }
}

// Reads memory only, but for the timeline in recovery, which is in pg_control.
const STATUS: &str = "SELECT r.recovering, \
    CASE WHEN r.recovering THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END, \
    CASE WHEN r.recovering THEN pg_last_wal_receive_lsn() END, \
    CASE WHEN r.recovering THEN (SELECT timeline_id::bigint FROM pg_control_checkpoint()) \
         ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::bigint END, \
    (extract(epoch FROM pg_conf_load_time()) * 1000000)::bigint \
    FROM (SELECT pg_is_in_recovery() AS recovering) r";

const FACTS: &str = "SELECT current_setting('server_version_num')::int, system_identifier, \
    current_setting('data_checksums')::bool, (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint \
    FROM pg_control_system()";

impl Session {
    /// What the server is doing now.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn status(&self) -> Result<Status, SessionError> {
        let doing = "read the server's status";
        let row = self.within(doing, self.client().query_one(STATUS, &[])).await?;
        let lsn = |at: usize| row.get::<_, Option<PgLsn>>(at).map(lsn_of);
        let position = lsn(1).unwrap_or(Lsn::ZERO);
        let log = if row.get::<_, bool>(0) {
            LogRole::Recovery { replayed: position, received: lsn(2) }
        } else {
            LogRole::Primary { flushed: position }
        };
        let number: i64 = row.get(3);
        let timeline = u32::try_from(number)
            .ok()
            .and_then(Term::new)
            .ok_or_else(|| SessionError::Answer { doing, found: format!("timeline {number}") })?;
        Ok(Status { log, timeline, conf_loaded: ConfLoaded(row.get(4)) })
    }

    /// What the server is. Reads `pg_control` from the data disk, so it is asked once per session.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn facts(&self) -> Result<ServerFacts, SessionError> {
        let doing = "read the server's facts";
        let row = self.within(doing, self.client().query_one(FACTS, &[])).await?;
        let number: i32 = row.get(0);
        let version = u32::try_from(number)
            .map(Version::from_number)
            .map_err(|_| SessionError::Answer { doing, found: format!("version {number}") })?;
        Ok(ServerFacts {
            version,
            // SQL has no unsigned type: the same 64 bits.
            system_identifier: row.get::<_, i64>(1).cast_unsigned(),
            checksums: row.get(2),
            started_us: row.get(3),
        })
    }

    /// Asks the server to read its files again. That it did shows in [`Status::conf_loaded`].
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn reload(&self) -> Result<(), SessionError> {
        self.within("ask for a reload", self.client().batch_execute("SELECT pg_reload_conf()")).await
    }

    /// What is wrong with the configuration and hba files as they are on disk now, one line each.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn file_errors(&self) -> Result<Vec<String>, SessionError> {
        let sql = "SELECT 'pg_hba.conf line ' || line_number || ': ' || error FROM pg_hba_file_rules \
            WHERE error IS NOT NULL UNION ALL \
            SELECT 'setting ' || coalesce(name, '?') || ': ' || error FROM pg_file_settings \
            WHERE error IS NOT NULL AND error <> 'setting could not be applied'";
        let rows =
            self.within("read errors of the configuration files", self.client().query(sql, &[])).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The value of a setting as the server has it in force for new sessions.
    ///
    /// # Errors
    /// [`SessionError`], also when there is no such setting.
    pub async fn setting(&self, name: &str) -> Result<String, SessionError> {
        let sql = "SELECT setting FROM pg_settings WHERE name = $1";
        let row = self.within("read a setting", self.client().query_one(sql, &[&name])).await?;
        Ok(row.get(0))
    }

    /// Writes a checkpoint. Takes as long as the dirty pages take.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn checkpoint(&self, deadline: std::time::Duration) -> Result<(), SessionError> {
        self.within_deadline("write a checkpoint", deadline, self.client().batch_execute("CHECKPOINT")).await
    }

    /// Where the server's own term branched off the one before, by the history file that it wrote when it promoted.
    ///
    /// # Errors
    /// [`SessionError`], also when the term does not follow `from` directly.
    pub async fn switch_point(&self, from: Term, to: Term) -> Result<Lsn, SessionError> {
        let doing = "read the history of the new term";
        let path = format!("pg_wal/{}", history::file_name(to));
        let row = self.within(doing, self.client().query_one("SELECT pg_read_file($1)", &[&path])).await?;
        recovery::switch_point(from, to, row.get(0))
            .map_err(|err| SessionError::Answer { doing, found: err.to_string() })
    }

    /// Where the next record will go: nothing on disk can be from beyond it.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn insert_position(&self) -> Result<Lsn, SessionError> {
        let sql = "SELECT pg_current_wal_insert_lsn()";
        let row = self.within("read the insert position", self.client().query_one(sql, &[])).await?;
        Ok(lsn_of(row.get(0)))
    }
}

pub(crate) fn lsn_of(lsn: PgLsn) -> Lsn {
    Lsn::from_offset(u64::from(lsn))
}
