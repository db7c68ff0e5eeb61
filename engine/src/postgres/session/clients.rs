//! Whom the server serves: waiters for acks, and ending clients.
//!
//! A backend that waits for replication is never cancelled or terminated: its client would learn of a commit that
//! nobody else holds, or the row would become visible early (I10, P1).

use holdfast_model::Rule;

use super::{Session, SessionError};
use crate::postgres::layout::SUPERUSER;

/// Why clients were not ended.
#[derive(Debug, thiserror::Error)]
pub enum TerminateError {
    /// Commits wait for acks; ending others now could show their rows.
    #[error("{0} commits wait for acks: clients are not ended before they are acked")]
    Waiters(u64),
    /// The server was not reached or refused.
    #[error("end client sessions")]
    Session(#[source] SessionError),
}

impl Session {
    /// How many commits wait for acks.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn waiters(&self) -> Result<u64, SessionError> {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'IPC' AND wait_event = 'SyncRep'";
        let row = self.within("count commits that wait for acks", self.client().query_one(sql, &[])).await?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }

    /// Ends every client session but the agent's on a server in recovery, where nobody waits for acks.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn end_readers(&self) -> Result<(), SessionError> {
        let sql = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
            WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM $1 AND pg_is_in_recovery()";
        self.rows("end readers", sql, &[&SUPERUSER]).await.map(drop)
    }

    /// Ends every client session but the agent's; returns how many. With k = 0 nobody waits, so all may go;
    /// otherwise only while no commit waits. A commit that begins to wait in between is left alone.
    ///
    /// # Errors
    /// [`TerminateError`].
    pub async fn terminate_clients(&self, rule: &Rule) -> Result<u64, TerminateError> {
        if rule.k > 0 {
            let waiters = self.waiters().await.map_err(TerminateError::Session)?;
            if waiters > 0 {
                return Err(TerminateError::Waiters(waiters));
            }
        }
        let sql = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
            WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM $1 \
            AND wait_event IS DISTINCT FROM 'SyncRep'";
        let ended = self.within("end client sessions", self.client().query_one(sql, &[&SUPERUSER])).await;
        let count: i64 = ended.map_err(TerminateError::Session)?.get(0);
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
