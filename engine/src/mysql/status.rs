//! What the server is doing, and how far its log goes.
//!
//! On a server that writes, `gtid_executed` holds what is acked: a commit that waits is in the binlog, and not in the set yet
//! (T14). On one that follows, what it received counts as well: it was synced before it was acked.

use holdfast_model::{GtidSet, Source};

use super::session::{Session, SessionError};
use super::version::Version;

/// What the server is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its version.
    pub version: Version,
    /// Under which name it writes.
    pub source: Source,
    /// Whether nobody at all may write.
    pub read_only: bool,
    /// What is committed.
    pub executed: GtidSet,
    /// What was received and may not be applied yet.
    pub received: GtidSet,
    /// Seconds since the server started; tells one from the next.
    pub uptime: u64,
}

impl Status {
    /// Everything that it holds on its disk.
    #[must_use]
    pub fn held(&self) -> GtidSet {
        self.executed.union(&self.received)
    }
}

impl Session {
    /// What the server is doing now.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn status(&mut self) -> Result<Status, SessionError> {
        let doing = "read the server's status";
        let sql = "SELECT @@version, @@server_uuid, @@global.super_read_only, @@global.gtid_executed, \
            (SELECT CAST(variable_value AS UNSIGNED) FROM performance_schema.global_status WHERE variable_name = 'Uptime')";
        // What was received is read first: it may be applied in between, and then it is in the other.
        let received = self.received().await?;
        let (version, uuid, read_only, executed, uptime): (String, String, bool, String, u64) =
            self.row(doing, sql).await?;
        let bad = |found: String| SessionError::Answer { doing, found };
        Ok(Status {
            version: Version::of_text(&version).ok_or_else(|| bad(version))?,
            source: uuid.parse().map_err(|err| bad(format!("{err}")))?,
            read_only,
            executed: executed.parse().map_err(|err| bad(format!("{err}")))?,
            received,
            uptime,
        })
    }

    /// What is committed.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn executed(&mut self) -> Result<GtidSet, SessionError> {
        let doing = "read what is committed";
        let text: String = self.row(doing, "SELECT @@global.gtid_executed").await?;
        text.parse().map_err(|err| SessionError::Answer { doing, found: format!("{err}") })
    }

    /// What all channels have received, by their relay logs.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn received(&mut self) -> Result<GtidSet, SessionError> {
        let doing = "read what was received";
        let sql = "SELECT received_transaction_set FROM performance_schema.replication_connection_status";
        let sets: Vec<String> = self.rows(doing, sql).await?;
        sets.iter().try_fold(GtidSet::EMPTY, |all, text| {
            let set: GtidSet =
                text.parse().map_err(|err| SessionError::Answer { doing, found: format!("{err}") })?;
            Ok(all.union(&set))
        })
    }

    /// Commits that wait for acks.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn waiters(&mut self) -> Result<u64, SessionError> {
        self.counter("Rpl_semi_sync_source_wait_sessions").await
    }

    /// A number of `SHOW GLOBAL STATUS`.
    ///
    /// # Errors
    /// [`SessionError`], also when there is no such number.
    pub async fn counter(&mut self, name: &'static str) -> Result<u64, SessionError> {
        let doing = "read a counter";
        let sql = format!(
            "SELECT variable_value FROM performance_schema.global_status WHERE variable_name = '{name}'"
        );
        let text: String = self.row(doing, &sql).await?;
        text.parse().map_err(|_| SessionError::Answer { doing, found: format!("{name} = {text}") })
    }
}
