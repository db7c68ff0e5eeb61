//! Rules in the database's own log: a row in `holdfast.rules`, in a transaction whose GTID is the rule's name
//! ([`super::identity::Markers`]), by which the log can be dated without SQL.
//!
//! Invariants, each a test in `tests/mysql/rules.rs`:
//! * `a_rule_written_twice_is_one_rule`: after a crash between COMMIT and its answer the agent just writes it again.
//! * `an_older_or_different_rule_is_refused`.
//! * `a_rule_that_waits_for_its_acks_is_in_sight`.
//!
//! The marker's commit waits for acks as every commit does: MySQL lets no session out of it. So it is written by a session of
//! its own, which is left to wait, and is known to be on its way by the GTID that it owns: commits behind one that waits are in
//! the binlog as well, and wait for that one. Rows that wait are read as well
//! (`READ UNCOMMITTED`): the newest rule of a log is the newest that is written, acked or not.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_model::{Gtid, GtidSet, NodeName, Rule, RuleId, Term};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use super::Layout;
use super::identity::Markers;
use super::layout::DATABASE;
use super::session::{Session, SessionError, quote};

/// How often it is looked whether a marker is in the log.
const POLL: Duration = Duration::from_millis(5);

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
    /// It is not seen in the log in time; it may come there.
    #[error("rule {id} is not in the log within {} ms", deadline.as_millis())]
    Late {
        /// What was to be written.
        id: RuleId,
        /// How long it was waited for.
        deadline: Duration,
    },
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

/// Writes rules; holds those that wait for acks. What is dropped goes on waiting in the server.
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    markers: Markers,
    waiting: JoinSet<Result<(), SessionError>>,
}

impl Session {
    /// The newest rules in this server's log, newest first, at most `count`; none before bootstrap.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn newest_rules(&mut self, count: u32) -> Result<Vec<Rule>, SessionError> {
        let doing = "read the newest rules";
        let sql = format!("SELECT rule FROM {DATABASE}.rules ORDER BY term DESC, version DESC LIMIT {count}");
        let rows: Vec<String> = self.rows(doing, &sql).await?;
        let rule = |text: &String| {
            serde_json::from_str(text)
                .map_err(|err| SessionError::Answer { doing, found: format!("{err}: {text}") })
        };
        rows.iter().map(rule).collect()
    }

    /// Every rule in this server's log, oldest first.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn rules(&mut self) -> Result<Vec<Rule>, SessionError> {
        let mut rules = self.newest_rules(RULES_MAX).await?;
        rules.reverse();
        Ok(rules)
    }

    /// Nodes that an operator holds out.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn held_out(&mut self) -> Result<BTreeSet<NodeName>, SessionError> {
        let doing = "read who is held out";
        let rows: Vec<String> = self.rows(doing, &format!("SELECT node FROM {DATABASE}.held_out")).await?;
        let node = |text: String| text.parse().map_err(|_| SessionError::Answer { doing, found: text });
        rows.into_iter().map(node).collect()
    }

    /// Holds a node out, or not any more. Waits for acks, as every commit does.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn hold_out(&mut self, node: &NodeName, out: bool) -> Result<(), SessionError> {
        // A node's name holds no quote (model::ids).
        let sql = if out {
            format!("INSERT IGNORE INTO {DATABASE}.held_out (node) VALUES ('{node}')")
        } else {
            format!("DELETE FROM {DATABASE}.held_out WHERE node = '{node}'")
        };
        self.run("hold a node out", &sql).await
    }

    /// Whether the transaction `gtid` is committed or being committed: in the binlog, waiting for acks or for one before it that
    /// waits for them, or a moment before that.
    async fn is_underway(&mut self, gtid: Gtid) -> Result<bool, SessionError> {
        if self.executed().await?.contains(gtid) {
            return Ok(true);
        }
        let doing = "look for a marker that is being committed";
        let owned: String = self.row(doing, "SELECT @@global.gtid_owned").await?;
        let Some(thread) = owner_of(&owned, gtid) else { return Ok(false) };
        let sql = format!(
            "SELECT count(*) FROM performance_schema.threads WHERE processlist_id = {thread} AND processlist_info = '{COMMIT}'"
        );
        Ok(self.row::<u64>(doing, &sql).await? > 0)
    }
}

/// The session that owns `gtid`, by `gtid_owned`: `uuid:1#12:2#13,uuid:..`.
fn owner_of(owned: &str, gtid: Gtid) -> Option<u64> {
    let source = gtid.source.to_string();
    let of_source = owned.split(',').map(str::trim).find_map(|part| part.strip_prefix(&source))?;
    of_source.split(':').find_map(|field| {
        let (number, thread) = field.split_once('#')?;
        (number.parse() == Ok(gtid.number)).then(|| thread.parse().ok()).flatten()
    })
}

impl Writer {
    /// For one server of one cluster.
    #[must_use]
    pub fn new(layout: Layout, markers: Markers) -> Self {
        Self { layout, markers, waiting: JoinSet::new() }
    }

    /// Writes `rule` and, in the same transaction, those `before` it, oldest first; returns a set that holds it and what is
    /// committed before it: whoever is seen to hold that has the rule. Writing the newest rule again changes nothing.
    ///
    /// Not cancel-safe: what a dropped call did is found out with [`Session::newest_rules`].
    ///
    /// # Errors
    /// [`RuleError`].
    pub async fn write(
        &mut self,
        session: &mut Session,
        before: &[Rule],
        rule: &Rule,
        deadline: Duration,
    ) -> Result<GtidSet, RuleError> {
        let id = rule.id;
        let failed = |source| RuleError::Session { id, source };
        // Those that are acked by now.
        while self.waiting.try_join_next().is_some() {}
        let newest = session.newest_rules(1).await.map_err(failed)?.pop();
        match newest {
            Some(newest) if newest == *rule => {}
            Some(newest) if newest.id == id => return Err(RuleError::Differs(id)),
            Some(newest) if newest.id > id => {
                return Err(RuleError::Older { given: id, newest: newest.id });
            }
            Some(_) | None => {
                let own = Session::connect(&self.layout, deadline).await.map_err(failed)?;
                let statements = statements(self.markers, before, rule);
                self.waiting.spawn(write(own, statements));
            }
        }
        self.underway(session, id, deadline).await
    }

    /// Sees the marker on its way.
    async fn underway(
        &mut self,
        session: &mut Session,
        id: RuleId,
        deadline: Duration,
    ) -> Result<GtidSet, RuleError> {
        let gtid = self.markers.gtid(id);
        let failed = |source| RuleError::Session { id, source };
        let until = Instant::now() + deadline;
        loop {
            if session.is_underway(gtid).await.map_err(failed)? {
                let executed = session.executed().await.map_err(failed)?;
                return Ok(executed.with(gtid));
            }
            if let Some(Ok(Err(source))) = self.waiting.try_join_next() {
                return Err(failed(source));
            }
            if Instant::now() >= until {
                return Err(RuleError::Late { id, deadline });
            }
            time::sleep(POLL).await;
        }
    }
}

/// What one transaction says.
fn statements(markers: Markers, before: &[Rule], rule: &Rule) -> Vec<String> {
    let insert = |rule: &Rule| {
        let json = serde_json::to_string(rule).expect("a rule holds only string keys and whole numbers");
        let (term, version) = (rule.id.term.number(), rule.id.version);
        let json = quote(&json);
        format!("INSERT INTO {DATABASE}.rules (term, version, rule) VALUES ({term}, {version}, {json})")
    };
    let begin =
        [format!("SET SESSION gtid_next = '{}'", markers.gtid(rule.id)), "START TRANSACTION".to_owned()];
    let inserts = before.iter().chain([rule]).map(insert);
    begin.into_iter().chain(inserts).chain([COMMIT.to_owned()]).collect()
}

/// As long as it takes: a commit that waits for acks is not given up.
async fn write(mut session: Session, statements: Vec<String>) -> Result<(), SessionError> {
    for sql in statements {
        session.run_within("write the rule and its marker", FOREVER, &sql).await?;
    }
    Ok(())
}

/// The last statement of [`statements`].
const COMMIT: &str = "COMMIT";

/// A year.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// The last rule's term of what a log holds; the first one before there is a rule.
#[must_use]
pub fn term_of(markers: Markers, held: &GtidSet) -> Term {
    markers.last_rule(held).map_or(Term::FIRST, |id| id.term)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::Source;

    #[test]
    fn the_owner_of_a_marker_is_read_from_gtid_owned() {
        let (a, b) = (Source(1), Source(2));
        let owned = format!("{a}:7#10:8#31,\n{b}:7#12");
        assert_eq!(owner_of(&owned, Gtid { source: a, number: 8 }), Some(31));
        assert_eq!(owner_of(&owned, Gtid { source: b, number: 7 }), Some(12));
        assert_eq!(owner_of(&owned, Gtid { source: b, number: 8 }), None);
        assert_eq!(owner_of("", Gtid { source: a, number: 8 }), None);
    }
}
