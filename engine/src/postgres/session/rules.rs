//! Rules in the database's own log: a row in `holdfast.rules`, and a transactional logical message with the same
//! JSON, by which the log can be read without SQL.
//!
//! Invariants, each a test in `tests/server.rs`:
//! * `a_rule_written_twice_is_one_rule`: after a crash between COMMIT and its answer the agent just writes it again.
//! * `an_older_or_different_rule_is_refused`.
//! * `rules_written_together_are_there_together`.
//!
//! The marker's commit does not wait for acks (`synchronous_commit = local`): it would hang the agent's only session,
//! and COMMIT returning is not an ack anyway. Whether the marker is acked is judged by [`crate::flushed`] from
//! flush positions. Other sessions' commits are not touched by it.

use holdfast_model::{Lsn, Member, Rule, RuleId, Term};
use tokio::time::timeout;
use tokio_postgres::Transaction;
use tokio_postgres::types::{Json, PgLsn};

use super::status::lsn_of;
use super::{Session, SessionError};
use crate::flushed::Flushed;
use crate::postgres::layout::{DATABASE, PROBE_ROLE};

/// Rules that are ever read at once: one per restart and change of members, for decades.
const RULES_MAX: u32 = 100_000;

/// Why a rule was not written.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// The table holds a newer one.
    #[error("rule {given} is older than rule {newest}, which is in the log")]
    Older {
        /// What was to be written.
        given: RuleId,
        /// What is there.
        newest: RuleId,
    },
    /// The table holds another rule of that name.
    #[error("rule {0} is in the log with another content")]
    Differs(RuleId),
    /// The server was not reached or refused. When it was late, the rule may have been written.
    #[error("write rule {id}")]
    Session {
        /// What was to be written.
        id: RuleId,
        /// Why.
        #[source]
        source: SessionError,
    },
}

/// What one transaction came to.
enum Written {
    Done,
    Older(RuleId),
    Differs,
}

impl Session {
    /// Makes schema, table and probe role if they are not there. Idempotent.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn ensure_schema(&mut self) -> Result<(), SessionError> {
        let sql = format!(
            "CREATE SCHEMA IF NOT EXISTS holdfast; \
             CREATE TABLE IF NOT EXISTS holdfast.rules (term bigint NOT NULL, version bigint NOT NULL, \
               rule jsonb NOT NULL, written timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (term, version)); \
             CREATE TABLE IF NOT EXISTS holdfast.held_out (node text PRIMARY KEY); \
             DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{PROBE_ROLE}') THEN \
               CREATE ROLE {PROBE_ROLE} LOGIN NOINHERIT CONNECTION LIMIT 4; \
               GRANT CONNECT ON DATABASE {DATABASE} TO {PROBE_ROLE}; END IF; END $$"
        );
        self.transact("make the schema for rules", &sql).await
    }

    /// The newest rules in this server's log, newest first, at most `count`; none before bootstrap.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn newest_rules(&self, count: u32) -> Result<Vec<Rule>, SessionError> {
        let doing = "read the newest rules";
        let exists = "SELECT to_regclass('holdfast.rules') IS NOT NULL";
        if !self.within(doing, self.client().query_one(exists, &[])).await?.get::<_, bool>(0) {
            return Ok(Vec::new());
        }
        let sql = "SELECT rule FROM holdfast.rules ORDER BY term DESC, version DESC LIMIT $1";
        let rows = self.within(doing, self.client().query(sql, &[&i64::from(count)])).await?;
        rows.iter()
            .map(|row| match row.try_get::<_, Json<Rule>>(0) {
                Ok(Json(rule)) => Ok(rule),
                Err(source) => Err(SessionError::Query { doing, source }),
            })
            .collect()
    }

    /// Every rule in this server's log, oldest first.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn rules(&self) -> Result<Vec<Rule>, SessionError> {
        let mut rules = self.newest_rules(RULES_MAX).await?;
        rules.reverse();
        Ok(rules)
    }

    /// Writes `rule` and its marker: see [`Session::write_rules`].
    ///
    /// # Errors
    /// [`RuleError`].
    pub async fn write_rule(&mut self, rule: &Rule) -> Result<Lsn, RuleError> {
        self.write_rules(&[], rule).await
    }

    /// Writes `rule` and its marker, and those `before` it, oldest first, in one transaction; returns a position that is
    /// past all of them and already durable here. Writing the newest rule again changes nothing and returns the position now.
    ///
    /// Not cancel-safe: what a dropped call did is found out with [`Session::newest_rules`].
    ///
    /// # Errors
    /// [`RuleError`].
    pub async fn write_rules(&mut self, before: &[Rule], rule: &Rule) -> Result<Lsn, RuleError> {
        let id = rule.id;
        let deadline = self.deadline();
        let doing = "write the rule and its marker";
        let session = |source| RuleError::Session { id, source };
        let written = match timeout(deadline, write(&mut self.client, before, rule)).await {
            Ok(written) => written.map_err(|source| session(SessionError::of(doing, source)))?,
            Err(_) => return Err(session(self.late(doing, deadline))),
        };
        match written {
            Written::Done => self.flushed().await.map(|flushed| flushed.local).map_err(session),
            Written::Older(newest) => Err(RuleError::Older { given: id, newest }),
            Written::Differs => Err(RuleError::Differs(id)),
        }
    }

    /// How far the log is flushed here, and on every standby whose login proves the name by which it acks: an
    /// `application_name` is anybody's to choose (P6), and a login takes the node's key.
    ///
    /// # Errors
    /// [`SessionError`], also while the server is in recovery.
    pub async fn flushed(&self) -> Result<Flushed<Lsn>, SessionError> {
        let doing = "read flush positions";
        let sql = "SELECT NULL, pg_current_wal_flush_lsn() UNION ALL \
            SELECT usename::text, flush_lsn FROM pg_stat_replication \
            WHERE usename = application_name AND flush_lsn IS NOT NULL";
        let mut flushed = Flushed::alone(Lsn::ZERO);
        for row in self.rows(doing, sql, &[]).await? {
            let position = lsn_of(row.get::<_, PgLsn>(1));
            let Some(login) = row.get::<_, Option<&str>>(0) else {
                flushed.local = position;
                continue;
            };
            // Whoever else replicates is no member, and is not counted.
            if let Ok(member) = login.parse::<Member>() {
                let known = flushed.standbys.entry(member).or_insert(position);
                *known = position.max(*known);
            }
        }
        Ok(flushed)
    }
}

async fn write(
    client: &mut tokio_postgres::Client,
    before: &[Rule],
    rule: &Rule,
) -> Result<Written, tokio_postgres::Error> {
    let transaction = client.build_transaction().read_only(false).start().await?;
    transaction.batch_execute("SET LOCAL synchronous_commit = local").await?;
    // One writer at a time, so that "newest" stays the newest until the commit.
    transaction.batch_execute("LOCK TABLE holdfast.rules IN EXCLUSIVE MODE").await?;
    match newest(&transaction).await? {
        Some((id, _)) if id > rule.id => Ok(Written::Older(id)),
        Some((id, found)) if id == rule.id => {
            Ok(if found.is_some_and(|found| found == *rule) { Written::Done } else { Written::Differs })
        }
        Some((id, _)) if before.first().is_some_and(|first| first.id <= id) => Ok(Written::Older(id)),
        Some(_) | None => {
            for rule in before.iter().chain([rule]) {
                insert(&transaction, rule).await?;
            }
            transaction.commit().await?;
            Ok(Written::Done)
        }
    }
}

async fn insert(transaction: &Transaction<'_>, rule: &Rule) -> Result<(), tokio_postgres::Error> {
    let (term, version) = (i64::from(rule.id.term.number()), i64::from(rule.id.version));
    let insert = "INSERT INTO holdfast.rules (term, version, rule) VALUES ($1, $2, $3)";
    transaction.execute(insert, &[&term, &version, &Json(rule)]).await?;
    let marker = serde_json::to_string(rule).expect("a rule holds only string keys and whole numbers");
    let emit = "SELECT pg_logical_emit_message(true, 'holdfast', $1::text)";
    transaction.query_one(emit, &[&marker]).await?;
    Ok(())
}

/// The newest row's name, and its rule if it can be read.
async fn newest(
    transaction: &Transaction<'_>,
) -> Result<Option<(RuleId, Option<Rule>)>, tokio_postgres::Error> {
    let sql = "SELECT term, version, rule FROM holdfast.rules ORDER BY term DESC, version DESC LIMIT 1";
    let Some(row) = transaction.query_opt(sql, &[]).await? else { return Ok(None) };
    let number = |at: usize| u32::try_from(row.get::<_, i64>(at)).unwrap_or(u32::MAX);
    let id = RuleId { term: Term::new(number(0)).unwrap_or(Term::FIRST), version: number(1) };
    let rule = row.try_get::<_, Json<Rule>>(2).ok().map(|Json(rule)| rule);
    Ok(Some((id, rule)))
}
