//! Whether a server may follow a primary, and following it.
//!
//! A server whose log went past the point where the primary's chain of rules left it would stream over a tail of its own.
//! Postgres refuses a timeline that is no ancestor, by its history; this check comes first, says why, and also holds
//! where the timelines do not tell: it needs nothing but rules.
//!
//! Invariants, each a test below or in `tests/replication/follow.rs`:
//! * `a_log_that_ends_before_the_fork_may_follow`.
//! * `a_log_past_the_fork_is_diverged`.
//! * `a_rule_that_the_chain_does_not_have_is_diverged`.
//! * `a_reign_without_a_rule_is_diverged`.
//! * `positions_of_another_term_are_never_compared` (P9).
//!
//! Not here: copying the tail, and the ways back ([`super::rewind`], restore).

use std::time::Duration;

use holdfast_model::{Lsn, Rule, RuleId, Term};
use tokio::time::{self, Instant};
use tokio_postgres::types::PgLsn;

use crate::postgres::Setup;
use crate::postgres::SyncStandbys;
use crate::postgres::config::ConfigError;
use crate::postgres::gate::{self, GateError, InstallError};
use crate::postgres::links::{Links, Peer, Upstream};
use crate::postgres::session::status::lsn_of;
use crate::postgres::session::{Session, SessionError};
use holdfast_model::status::{Gate, GateClosed};

/// How often it is looked.
const POLL: Duration = Duration::from_millis(20);

/// What a would-be follower has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The last rule in its own log.
    pub rule: RuleId,
    /// The newest timeline that its data is known to be of.
    pub timeline: Term,
    /// Where its log ends, applied or not.
    pub end: Lsn,
}

/// Why a server must not follow. The tail is copied; then it is rewound or rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Diverged {
    /// Its last rule is none of the primary's.
    #[error("rule {own} is not in the primary's chain, which ends with {newest:?}: rewind or rebuild")]
    UnknownRule {
        /// The follower's last rule.
        own: RuleId,
        /// The newest of the chain; none in an empty one.
        newest: Option<RuleId>,
    },
    /// It was promoted to a term that never got a rule, or not one of the primary's.
    #[error("term {own} is not in the primary's chain: rewind or rebuild")]
    UnknownTerm {
        /// The follower's timeline.
        own: Term,
    },
    /// Its log goes on where the chain went another way.
    #[error("the log ends at {end}, past {left}, where rule {by} left term {own}: rewind or rebuild")]
    PastTheFork {
        /// The term that both had.
        own: Term,
        /// Where the follower's log ends.
        end: Lsn,
        /// Where the chain left that term.
        left: Lsn,
        /// The rule with which it did.
        by: RuleId,
    },
}

/// Whether a server may follow the primary whose rules, all of them, are `chain`.
///
/// Within one term there is one writer, so a log of that term is the beginning of every longer one: only the point at
/// which the chain left the *term* counts. A rule's `start` within a term is a position just before it was written.
///
/// # Errors
/// [`Diverged`].
pub fn may_follow(own: Held, chain: &[Rule]) -> Result<(), Diverged> {
    if !chain.iter().any(|rule| rule.id == own.rule) {
        let newest = chain.iter().map(|rule| rule.id).max();
        return Err(Diverged::UnknownRule { own: own.rule, newest });
    }
    // Ahead of its last rule when it followed into a term and has not received that term's rule yet.
    let term = own.timeline.max(own.rule.term);
    if !chain.iter().any(|rule| rule.id.term == term) {
        return Err(Diverged::UnknownTerm { own: term });
    }
    match chain.iter().filter(|rule| rule.id.term > term).min_by_key(|rule| rule.id) {
        Some(next) if own.end > next.start => {
            Err(Diverged::PastTheFork { own: term, end: own.end, left: next.start, by: next.id })
        }
        Some(_) | None => Ok(()),
    }
}

/// A standby that streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Following {
    /// The timeline that it receives.
    pub timeline: Term,
    /// Received and flushed up to here; none before the first message with log.
    pub flushed: Option<Lsn>,
}

/// Why a standby is not known to follow.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The files do not render.
    #[error("follow: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Render(Vec<ConfigError>),
    /// The files were not written.
    #[error("follow")]
    Install(#[source] InstallError),
    /// They are not in force.
    #[error("follow")]
    Reload(#[source] GateError),
    /// It writes its own log.
    #[error("the server is not in recovery")]
    NotInRecovery,
    /// It does not stream that term yet. It goes on trying; its log says why.
    #[error("the server does not receive its upstream's term within {} ms", .0.as_millis())]
    NotStreaming(Duration),
    /// The server was not reached or refused.
    #[error("follow")]
    Session(#[source] SessionError),
}

/// Points a running standby at `upstream` and sees it receive that reign's log. Whether it may was asked before: [`may_follow`].
///
/// # Errors
/// [`FollowError`]; the settings stay, so it may stream later.
pub async fn follow(
    session: &Session,
    setup: &Setup,
    peers: &[Peer],
    upstream: &Upstream,
    deadline: Duration,
) -> Result<Following, FollowError> {
    if !session.status().await.map_err(FollowError::Session)?.in_recovery() {
        return Err(FollowError::NotInRecovery);
    }
    let closed = Gate::Closed { why: GateClosed::NotPrimary };
    let links = Links { peers: peers.to_vec(), upstream: Some(upstream.clone()) };
    let files = setup.files(&closed, &SyncStandbys::Nobody, &links).map_err(FollowError::Render)?;
    gate::install(&setup.layout, &files).map_err(FollowError::Install)?;
    gate::reload(session).await.map_err(FollowError::Reload)?;
    let conninfo = setup.tls.as_ref().map_or_else(String::new, |tls| upstream.conninfo(tls));
    for (name, value) in [
        ("primary_conninfo", conninfo.as_str()),
        ("restore_command", ""),
        ("recovery_target_timeline", "latest"),
    ] {
        gate::check_setting(session, name, value).await.map_err(FollowError::Reload)?;
    }
    session.resume_replay().await.map_err(FollowError::Session)?;
    let until = Instant::now() + deadline;
    loop {
        // Behind the fork it first receives the rest of the older term.
        match session.following(upstream).await.map_err(FollowError::Session)? {
            Some(following) if following.timeline == upstream.term => return Ok(following),
            Some(_) | None => {}
        }
        if Instant::now() >= until {
            return Err(FollowError::NotStreaming(deadline));
        }
        time::sleep(POLL).await;
    }
}

impl Session {
    /// What the server receives from `upstream`; `None` while it streams from nobody, or still from another one.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn following(&self, upstream: &Upstream) -> Result<Option<Following>, SessionError> {
        let doing = "read what is received";
        let sql = "SELECT received_tli::bigint, flushed_lsn FROM pg_stat_wal_receiver \
            WHERE status = 'streaming' AND sender_host = $1 AND sender_port = $2 AND slot_name = $3";
        let (host, port) = (upstream.node.as_str(), i32::from(upstream.address.port()));
        let slot = upstream.slot_name();
        let rows = self.rows(doing, sql, &[&host, &port, &slot]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let number: Option<i64> = row.get(0);
        let timeline = number.and_then(|number| u32::try_from(number).ok()).and_then(Term::new);
        // Nothing was received yet.
        let Some(timeline) = timeline else { return Ok(None) };
        Ok(Some(Following { timeline, flushed: row.get::<_, Option<PgLsn>>(1).map(lsn_of) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::{Incarnation, Member};

    fn term(number: u32) -> Term {
        Term::new(number).unwrap()
    }

    fn rule(number: u32, version: u32, start: u64) -> Rule {
        Rule {
            id: RuleId { term: term(number), version },
            primary: Member { node: "n1".parse().unwrap(), incarnation: Incarnation::from_random(1) },
            voters: vec![],
            k: 1,
            previous: None,
            start: Lsn::from_offset(start),
        }
    }

    fn held(number: u32, version: u32, timeline: u32, end: u64) -> Held {
        Held {
            rule: RuleId { term: term(number), version },
            timeline: term(timeline),
            end: Lsn::from_offset(end),
        }
    }

    /// Term 4 until 1000, term 6 until 2000, term 9 since.
    fn chain() -> Vec<Rule> {
        vec![rule(4, 1, 100), rule(4, 2, 500), rule(6, 1, 1000), rule(9, 1, 2000), rule(9, 2, 2500)]
    }

    #[test]
    fn a_log_that_ends_before_the_fork_may_follow() {
        for own in [held(4, 1, 4, 400), held(4, 2, 4, 1000), held(6, 1, 6, 2000), held(9, 1, 9, 9000)] {
            assert_eq!(may_follow(own, &chain()), Ok(()), "{own:?}");
        }
        // A writer's other commits may stand between a rule's start and the rule.
        assert_eq!(may_follow(held(4, 1, 4, 510), &chain()), Ok(()));
    }

    #[test]
    fn a_log_past_the_fork_is_diverged() {
        let err = may_follow(held(4, 2, 4, 1001), &chain()).unwrap_err();
        assert_eq!(
            err.to_string(),
            "the log ends at 0/3E9, past 0/3E8, where rule (6,1) left term 4: rewind or rebuild"
        );
        assert!(matches!(may_follow(held(6, 1, 6, 2001), &chain()), Err(Diverged::PastTheFork { .. })));
    }

    #[test]
    fn a_rule_that_the_chain_does_not_have_is_diverged() {
        for own in [held(5, 1, 5, 900), held(4, 3, 4, 600), held(9, 3, 9, 2600)] {
            assert!(matches!(may_follow(own, &chain()), Err(Diverged::UnknownRule { .. })), "{own:?}");
        }
        assert!(matches!(may_follow(held(4, 1, 4, 1), &[]), Err(Diverged::UnknownRule { newest: None, .. })));
    }

    #[test]
    fn a_reign_without_a_rule_is_diverged() {
        // Promoted to 5, which got no rule; its log is short enough to look harmless.
        assert_eq!(may_follow(held(4, 2, 5, 900), &chain()), Err(Diverged::UnknownTerm { own: term(5) }));
        // Followed into 6, whose rule it has not received yet.
        assert_eq!(may_follow(held(4, 2, 6, 1010), &chain()), Ok(()));
    }

    #[test]
    fn positions_of_another_term_are_never_compared() {
        // Both end at 1500. One of term 4, which ended at 1000: only the terms tell.
        assert!(may_follow(held(4, 2, 4, 1500), &chain()).is_err());
        assert!(may_follow(held(6, 1, 6, 1500), &chain()).is_ok());
    }
}
