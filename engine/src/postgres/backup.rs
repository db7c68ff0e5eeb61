//! A base backup's frame: `pg_backup_start` and `pg_backup_stop` in one held session.
//!
//! The session must stay open in between; when it is lost, the backup is void, and only its chunks remain of use.
//! So the stop consumes the session, and [`BackupSession::is_void`] is asked while files are being read.
//!
//! Not here: which files ([`super::files`]), what pages are worth ([`super::page`]), and moving them (`backup`).

use std::time::Duration;

use holdfast_model::Lsn;
use tokio_postgres::types::PgLsn;

use super::Layout;
use super::session::status::lsn_of;
use super::session::{Session, SessionError};
use crate::engine;

/// Why a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The session could not be opened.
    #[error("open a session for the backup")]
    Open(#[source] SessionError),
    /// The start failed.
    #[error("begin the backup")]
    Start(#[source] SessionError),
    /// The stop failed, or the session was lost: the backup is void.
    #[error("end the backup: it is void")]
    Stop(#[source] SessionError),
    /// The server has tablespaces outside its data directory.
    #[error("the server has tablespaces outside the data volume: {0}")]
    Tablespaces(String),
    /// It is in recovery: backups of a standby come with the second node.
    #[error("the server is in recovery")]
    InRecovery,
}

/// A backup under way.
#[derive(Debug)]
pub struct BackupSession {
    session: Session,
    start: Lsn,
}

/// What a restore needs besides the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupEnd {
    /// Replay begins here.
    pub start: Lsn,
    /// Replay must come at least to here before the data is consistent.
    pub stop: Lsn,
    /// Content of `backup_label`, which must be in the restored directory before the server starts.
    pub label: String,
}

impl From<BackupEnd> for engine::BackupEnd {
    fn from(BackupEnd { start, stop, label }: BackupEnd) -> Self {
        Self { start: start.into(), stop: stop.into(), label }
    }
}

impl BackupSession {
    /// Begins a backup with an immediate checkpoint, which `start_deadline` must leave time for.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn begin(
        layout: &Layout,
        label: &str,
        query_deadline: Duration,
        start_deadline: Duration,
    ) -> Result<Self, BackupError> {
        let session = Session::connect(layout, query_deadline).await.map_err(BackupError::Open)?;
        if session.status().await.map_err(BackupError::Open)?.in_recovery() {
            return Err(BackupError::InRecovery);
        }
        let sql = "SELECT pg_backup_start($1, fast => true)";
        let row = session
            .within_deadline("pg_backup_start", start_deadline, session.client().query_one(sql, &[&label]))
            .await
            .map_err(BackupError::Start)?;
        let start = lsn_of(row.get::<_, PgLsn>(0));
        Ok(Self { session, start })
    }

    /// Replay will begin here.
    #[must_use]
    pub const fn start(&self) -> Lsn {
        self.start
    }

    /// Whether the session is lost, and the backup with it.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.session.is_spoilt()
    }

    /// The insert position now, against which pages are judged; also proves that the session lives.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn log_end(&self) -> Result<Lsn, SessionError> {
        self.session.insert_position().await
    }

    /// Ends the backup. Not cancel-safe: a dropped call voids it.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn end(self) -> Result<BackupEnd, BackupError> {
        // The agent ships the log itself and publishes only when it holds [start, stop], so there is nothing to wait for.
        let sql = "SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(wait_for_archive => false)";
        let stop = self.session.client().query_one(sql, &[]);
        let row = self.session.within("pg_backup_stop", stop).await.map_err(BackupError::Stop)?;
        let tablespaces: Option<String> = row.get(2);
        match tablespaces {
            Some(map) if !map.trim().is_empty() => {
                Err(BackupError::Tablespaces(map.trim().replace('\n', ", ")))
            }
            Some(_) | None => {
                Ok(BackupEnd { start: self.start, stop: lsn_of(row.get::<_, PgLsn>(0)), label: row.get(1) })
            }
        }
    }
}
