//! Begins a term on a recruited standby: its timeline id is the term.
//!
//! Two candidates that choose the same timeline, never having seen each other, diverge in silence, and one then acks for
//! the other (T8). Postgres takes the first number without a history file, so the numbers between are taken by empty
//! placeholders (T9), and what came out is checked. The placeholders stay: a standby that follows across the gap asks for
//! each of them.
//!
//! A placeholder without the history above it is a trap of its own: a server that is *started* as a standby goes by the
//! highest history file, looks for log of that timeline and its ancestors alone, and waits for ever, never consistent, when
//! the file names no ancestors. So a promotion that was cut short, or a follower that was stopped while it fetched, leaves
//! files that must go before the next start: [`dangling`].
//!
//! Invariants, each a test below or in `tests/replication/promote.rs`:
//! * `only_numbers_without_a_history_get_a_placeholder`.
//! * `a_history_of_the_term_or_above_refuses_the_promotion`.
//! * `a_promotion_is_refused_while_a_receiver_lives`.
//! * `the_timeline_is_the_term_and_a_standby_follows_across_the_gap` (T9).
//! * `two_candidates_never_share_a_timeline` (T8).
//! * `a_promotion_cut_short_leaves_placeholders_that_must_go_before_the_next_start`.
//!
//! Not here: the marker, and opening the gate.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_model::Term;
use holdfast_model::step;
use tokio::time::{self, Instant};
use tracing::debug;

use super::Hands;
use crate::engine::Cause;
use crate::postgres::recovery::RecoveryFile;
use crate::postgres::session::{Session, SessionError};
use crate::postgres::wal::history::{self, History};
use crate::standing::Promoted;

/// How often it is looked.
const POLL: Duration = Duration::from_millis(10);

/// Terms that may lie between two reigns; each costs an empty file.
const PLACEHOLDERS_MAX: u32 = 10_000;

/// Why a server was not promoted.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// Terms only rise.
    #[error("the server is in term {current}: it is not promoted to term {to}")]
    Term {
        /// Where it is.
        current: Term,
        /// Where it should go.
        to: Term,
    },
    /// It would take too many placeholders.
    #[error("term {to} is more than {PLACEHOLDERS_MAX} above term {current}")]
    Gap {
        /// Where it is.
        current: Term,
        /// Where it should go.
        to: Term,
    },
    /// The number is taken: Postgres would choose the one after it.
    #[error("the server knows a history of term {found}, it cannot begin term {to}")]
    Taken {
        /// The highest history.
        found: Term,
        /// Where it should go.
        to: Term,
    },
    /// It may still receive, and ack, under an older term.
    #[error("the server has {0} walreceivers: recruit it first")]
    Receives(u32),
    /// It would receive again.
    #[error("the server has an upstream: recruit it first")]
    Upstream,
    /// Between its promotion and the next reload its commits would wait for nobody.
    #[error("the ack list is empty: a standby's never is")]
    EmptyList,
    /// It wrote its own log already.
    #[error("the server is a primary of term {0}")]
    Primary(Term),
    /// It became something else. Stop it at once.
    #[error("the server was promoted to term {found} instead of {to}: stop it at once")]
    Timeline {
        /// What it chose.
        found: Term,
        /// What it should be.
        to: Term,
    },
    /// It took too long; it may still come. Stop it at once, or look again.
    #[error("the server was not promoted within {} ms", .0.as_millis())]
    Late(Duration),
    /// Processes were not looked at, or files not written.
    #[error("prepare the promotion")]
    Hands(#[source] Cause),
    /// The server was not reached or refused.
    #[error("promote the server")]
    Session(#[source] SessionError),
}

/// Placeholders that make `to` the next timeline of a server on `current` that has history files of the timelines `known`.
///
/// # Errors
/// [`PromoteError::Term`], [`PromoteError::Gap`], [`PromoteError::Taken`].
pub fn placeholders(
    current: Term,
    to: Term,
    known: &BTreeSet<Term>,
) -> Result<Vec<RecoveryFile>, PromoteError> {
    if to <= current {
        return Err(PromoteError::Term { current, to });
    }
    if let Some(found) = known.last().copied().filter(|found| *found >= to) {
        return Err(PromoteError::Taken { found, to });
    }
    if to.number() - current.number() > PLACEHOLDERS_MAX {
        return Err(PromoteError::Gap { current, to });
    }
    let between = (current.number().saturating_add(1)..to.number()).filter_map(Term::new);
    let missing = between.filter(|term| !known.contains(term));
    Ok(missing.map(placeholder).collect())
}

fn placeholder(term: Term) -> RecoveryFile {
    RecoveryFile { path: format!("pg_wal/{}", history::file_name(term)), content: String::new() }
}

/// History files in `pg_wal` that must go before the next start as a standby: placeholders above every history that names
/// ancestors. `files` are names with contents; other files are passed over.
#[must_use]
pub fn dangling<'a>(files: &[(&'a str, &str)]) -> Vec<&'a str> {
    let histories =
        || files.iter().filter_map(|(name, text)| Some((*name, *text, history::parse_file_name(name)?)));
    // A history that cannot be read is left for Postgres to complain about.
    let is_placeholder =
        |term, text: &str| History::parse(term, text).is_ok_and(|history| history.ancestors.is_empty());
    let highest =
        histories().filter(|(_, text, term)| !is_placeholder(*term, text)).map(|(_, _, term)| term).max();
    let above = histories().filter(|(_, text, term)| is_placeholder(*term, text) && Some(*term) > highest);
    above.map(|(name, _, _)| name).collect()
}

/// Promotes the server to `term` and checks what came out. A server that is the primary of `term` already is not promoted
/// again.
///
/// Not cancel-safe: a dropped call may have promoted it. Call it again.
///
/// # Errors
/// [`PromoteError`].
pub async fn promote(
    session: &Session,
    hands: &dyn Hands,
    term: Term,
    deadline: Duration,
) -> Result<Promoted, PromoteError> {
    let status = session.status().await.map_err(PromoteError::Session)?;
    if !status.in_recovery() {
        if status.timeline != term {
            return Err(PromoteError::Primary(status.timeline));
        }
        return session.promoted(term).await;
    }
    let known = session.histories().await?;
    let files = placeholders(status.timeline, term, &known)?;
    session.check_ready().await?;
    let receivers = hands.receivers().await.map_err(PromoteError::Hands)?;
    if receivers > 0 {
        return Err(PromoteError::Receives(receivers));
    }
    hands.ensure_files(&files).await.map_err(PromoteError::Hands)?;
    debug!(target: step::TARGET, step = step::promote::PREPARED.name());
    session.ask_to_promote().await?;
    debug!(target: step::TARGET, step = step::promote::ASKED.name());
    let until = Instant::now() + deadline;
    loop {
        let status = session.status().await.map_err(PromoteError::Session)?;
        if !status.in_recovery() {
            if status.timeline != term {
                return Err(PromoteError::Timeline { found: status.timeline, to: term });
            }
            debug!(target: step::TARGET, step = step::promote::BEGUN.name());
            return session.promoted(term).await;
        }
        if Instant::now() >= until {
            return Err(PromoteError::Late(deadline));
        }
        time::sleep(POLL).await;
    }
}

impl Session {
    /// Timelines of which the server has a history file.
    async fn histories(&self) -> Result<BTreeSet<Term>, PromoteError> {
        let sql = "SELECT name FROM pg_ls_waldir() WHERE name LIKE '%.history'";
        let rows = self.rows("list history files", sql, &[]).await.map_err(PromoteError::Session)?;
        Ok(rows.iter().filter_map(|row| history::parse_file_name(row.get(0))).collect())
    }

    async fn check_ready(&self) -> Result<(), PromoteError> {
        let setting = async |name| self.setting(name).await.map_err(PromoteError::Session);
        if !setting("primary_conninfo").await?.is_empty() {
            return Err(PromoteError::Upstream);
        }
        if setting("synchronous_standby_names").await?.is_empty() {
            return Err(PromoteError::EmptyList);
        }
        Ok(())
    }

    async fn ask_to_promote(&self) -> Result<(), PromoteError> {
        // Paused, it would wait for somebody to let it go on.
        self.resume_replay().await.map_err(PromoteError::Session)?;
        let asked = self.client().batch_execute("SELECT pg_promote(wait => false)");
        self.within("ask for the promotion", asked).await.map_err(PromoteError::Session)
    }

    /// Where the term begins, by the history that the server wrote.
    async fn promoted(&self, term: Term) -> Result<Promoted, PromoteError> {
        let doing = "read the history of the new term";
        let path = format!("pg_wal/{}", history::file_name(term));
        let row =
            self.row(doing, "SELECT pg_read_file($1)", &[&path]).await.map_err(PromoteError::Session)?;
        let text: &str = row.get(0);
        let promoted = History::parse(term, text).ok().and_then(|history| history.promoted());
        promoted.ok_or_else(|| {
            PromoteError::Session(SessionError::Answer { doing, found: text.escape_debug().to_string() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(number: u32) -> Term {
        Term::new(number).unwrap()
    }

    fn paths(current: u32, to: u32, known: &[u32]) -> Result<Vec<String>, PromoteError> {
        let known = known.iter().map(|number| term(*number)).collect();
        Ok(placeholders(term(current), term(to), &known)?.into_iter().map(|file| file.path).collect())
    }

    #[test]
    fn only_numbers_without_a_history_get_a_placeholder() {
        assert_eq!(paths(3, 4, &[2, 3]).unwrap(), Vec::<String>::new());
        assert_eq!(paths(3, 7, &[2, 3, 5]).unwrap(), ["pg_wal/00000004.history", "pg_wal/00000006.history"]);
    }

    #[test]
    fn a_history_of_the_term_or_above_refuses_the_promotion() {
        assert!(matches!(paths(3, 7, &[7]), Err(PromoteError::Taken { found, .. }) if found == term(7)));
        assert!(matches!(paths(3, 7, &[9]), Err(PromoteError::Taken { .. })));
        assert!(matches!(paths(7, 7, &[]), Err(PromoteError::Term { .. })));
        assert!(matches!(paths(1, 20_000, &[]), Err(PromoteError::Gap { .. })));
    }

    #[test]
    fn placeholders_that_lead_nowhere_must_go() {
        let real = "3\t0/3000000\tno recovery target specified\n";
        let files = [("00000004.history", ""), ("00000005.history", real), ("00000006.history", "")];
        assert_eq!(dangling(&files), ["00000006.history"]);
        assert_eq!(dangling(&files[..1]), ["00000004.history"]);
        assert_eq!(dangling(&[("000000010000000000000001", ""), ("00000002.history", "damaged")]), [""; 0]);
    }
}
