//! A client that remembers what it was told was committed, and the audit of that memory.
//!
//! Ids are inserted one by one, each in its own transaction and never twice: an id is *acked* when the server said so,
//! *unknown* when the connection broke before it said anything. The audit compares both with what is in the table.
//! This is the oracle of every test about loss: an acked id that is not there was lost; one that is there twice, or that
//! was never tried, is worse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_postgres::{Client, Config, NoTls};
use tokio_util::sync::CancellationToken;

/// An answer that takes longer makes its id unknown, and the connection a new one.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Between two attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Between two inserts: the writer is a witness, not the load.
const INSERT_PAUSE: Duration = Duration::from_millis(2);
/// Long enough for a restore; a server that is down for longer fails the test elsewhere.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// An id and when the server said that it was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The id.
    pub id: i64,
    /// When the answer came.
    pub at: Instant,
}

/// A time without acks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// The last ack before it.
    pub from: Instant,
    /// The first ack after it.
    pub until: Instant,
}

/// What a writer remembers.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// In the order of answers, which is the order of ids.
    pub acked: Vec<Ack>,
    /// Tried, and no answer came.
    pub unknown: BTreeSet<i64>,
}

impl History {
    /// Times without acks that lasted longer than `longer_than`.
    #[must_use]
    pub fn outages(&self, longer_than: Duration) -> Vec<Outage> {
        let pairs = self.acked.iter().zip(self.acked.iter().skip(1));
        let gaps = pairs.map(|(last, next)| Outage { from: last.at, until: next.at });
        gaps.filter(|gap| gap.until - gap.from > longer_than).collect()
    }

    /// The longest time without acks, if there were two acks.
    #[must_use]
    pub fn longest_outage(&self) -> Option<Outage> {
        self.outages(Duration::ZERO).into_iter().max_by_key(|gap| gap.until - gap.from)
    }

    /// The longest time without acks that ended after `since`.
    #[must_use]
    pub fn longest_outage_after(&self, since: Instant) -> Duration {
        let gaps = self.outages(Duration::ZERO).into_iter().filter(|gap| gap.until > since);
        gaps.map(|gap| gap.until - gap.from).max().unwrap_or_default()
    }

    /// Compares with `found`: how many times each id is in the table.
    #[must_use]
    pub fn audit(&self, found: &BTreeMap<i64, i64>) -> Audit {
        let acked: BTreeSet<i64> = self.acked.iter().map(|ack| ack.id).collect();
        Audit {
            acked: acked.len(),
            lost: self.acked.iter().filter(|ack| !found.contains_key(&ack.id)).copied().collect(),
            repeated: found.iter().filter(|(_, times)| **times > 1).map(|(id, _)| *id).collect(),
            invented: found
                .keys()
                .filter(|id| !acked.contains(id) && !self.unknown.contains(id))
                .copied()
                .collect(),
            unknown_found: self.unknown.iter().filter(|id| found.contains_key(id)).count(),
        }
    }
}

/// What became of the ids of a [`History`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Ids that were acked.
    pub acked: usize,
    /// Acked and not there.
    pub lost: Vec<Ack>,
    /// There more than once.
    pub repeated: Vec<i64>,
    /// There and never tried.
    pub invented: Vec<i64>,
    /// Without an answer, and there all the same: allowed.
    pub unknown_found: usize,
}

/// The client, in the background.
#[derive(Debug)]
pub struct AckedWriter {
    config: Config,
    table: String,
    history: Arc<Mutex<History>>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl AckedWriter {
    /// Makes the table and starts to insert into it.
    ///
    /// # Errors
    /// The server does not take the table.
    pub async fn start(config: Config) -> Result<Self> {
        Self::start_in(config, "acked").await
    }

    /// The same in a table of its own, for one of several writers.
    ///
    /// # Errors
    /// The server does not take the table.
    pub async fn start_in(config: Config, table: &str) -> Result<Self> {
        let mut connections = JoinSet::new();
        let client = connect(&config, &mut connections).await?;
        // No unique index: it would hide an id that was applied twice.
        client
            .batch_execute(&format!("create table if not exists {table} (id bigint not null)"))
            .await
            .context("make the table")?;
        let history = Arc::new(Mutex::new(History::default()));
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let insert = format!("insert into {table} (id) values ($1)");
        tasks.spawn(write_until_cancelled(config.clone(), insert, Arc::clone(&history), cancel.clone()));
        Ok(Self { config, table: table.to_owned(), history, cancel, tasks })
    }

    /// Where it writes.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// What it remembers so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops and returns everything that it remembers, and what is in the table.
    ///
    /// # Errors
    /// It does not stop, or the table cannot be read.
    pub async fn stop(self) -> Result<(History, BTreeMap<i64, i64>)> {
        let (config, select) = (self.config.clone(), count_each(&self.table));
        let history = self.halt().await?;
        let mut connections = JoinSet::new();
        let client = connect(&config, &mut connections).await?;
        let rows = client.query(&select, &[]).await.context("read the table")?;
        Ok((history, rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
    }

    /// Stops and returns everything that it remembers; whoever reads the table does so by other means.
    ///
    /// # Errors
    /// It does not stop.
    pub async fn halt(mut self) -> Result<History> {
        self.cancel.cancel();
        time::timeout(STOP_WITHIN, async { while self.tasks.join_next().await.is_some() {} })
            .await
            .context("the acked writer does not stop")?;
        Ok(self.history())
    }
}

/// The query for how many times each id is in a writer's table: what [`History::audit`] wants to know.
#[must_use]
pub fn count_each(table: &str) -> String {
    format!("select id, count(*) from {table} group by id")
}

async fn connect(config: &Config, connections: &mut JoinSet<()>) -> Result<Client> {
    let connecting = time::timeout(ANSWER_WITHIN, config.connect(NoTls));
    let (client, connection) = connecting.await.context("no answer to a connect")?.context("connect")?;
    connections.spawn(async move {
        // Its end, good or bad, shows in the next statement.
        drop(connection.await);
    });
    Ok(client)
}

async fn write_until_cancelled(
    config: Config,
    insert: String,
    history: Arc<Mutex<History>>,
    cancel: CancellationToken,
) {
    let remember =
        |change: &dyn Fn(&mut History)| change(&mut history.lock().unwrap_or_else(PoisonError::into_inner));
    let mut next = 1;
    while !cancel.is_cancelled() {
        // A new set per connection: dropping it ends the old one.
        let mut connections = JoinSet::new();
        let Ok(client) = connect(&config, &mut connections).await else {
            time::sleep(RECONNECT_PAUSE).await;
            continue;
        };
        while !cancel.is_cancelled() {
            let id = next;
            next += 1;
            let answer = time::timeout(ANSWER_WITHIN, client.execute(&insert, &[&id])).await;
            if matches!(answer, Ok(Ok(_))) {
                let ack = Ack { id, at: Instant::now() };
                remember(&|history| history.acked.push(ack));
            } else {
                remember(&|history| history.unknown.extend([id]));
                break;
            }
            time::sleep(INSERT_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(acked: &[(i64, u64)], unknown: &[i64]) -> History {
        let start = Instant::now();
        let acked =
            acked.iter().map(|(id, ms)| Ack { id: *id, at: start + Duration::from_millis(*ms) }).collect();
        History { acked, unknown: unknown.iter().copied().collect() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_acked_and_is_there_once_is_well() {
        let audit = history(&[(1, 0), (2, 10)], &[]).audit(&BTreeMap::from([(1, 1), (2, 1)]));
        assert_eq!((audit.acked, audit.lost, audit.repeated, audit.invented), (2, vec![], vec![], vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_acked_id_that_is_missing_is_lost() {
        let history = history(&[(1, 0), (2, 10)], &[]);
        assert_eq!(history.audit(&BTreeMap::from([(1, 1)])).lost, vec![history.acked[1]]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unanswered_id_may_be_there_or_not_but_an_untried_one_may_not() {
        let audit = history(&[(1, 0)], &[2, 3]).audit(&BTreeMap::from([(1, 1), (2, 1), (9, 1)]));
        assert_eq!((audit.unknown_found, audit.invented), (1, vec![9]));
        assert!(audit.lost.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_applied_twice_is_told() {
        assert_eq!(history(&[(1, 0)], &[]).audit(&BTreeMap::from([(1, 2)])).repeated, vec![1]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_a_long_time_between_two_acks() {
        let history = history(&[(1, 0), (2, 10), (4, 5010), (5, 5020)], &[3]);
        let outages = history.outages(Duration::from_secs(1));
        assert_eq!(outages.len(), 1);
        assert_eq!(outages[0].until - outages[0].from, Duration::from_secs(5));
        assert_eq!(history.longest_outage(), Some(outages[0]));
    }
}
