//! Recruits a standby: makes sure that it receives, and acks, nothing more, applies all that it received, and only then
//! reads its position.
//!
//! Emptying `primary_conninfo` is not enough: the startup process acts on it when it runs out of log, and one that is busy,
//! paused or in a conflict lets the walreceiver stream and ack without bound (T4). Ending the walreceiver is not enough
//! either: the startup process asks for a new one by the setting that it has. And "the position stands still" says nothing:
//! the disk may be slow (P8). Nor does the startup process's sleep between two tries: when a connection broke twice in short
//! order, it sleeps *before* it has read what the receiver left behind. So, in this order:
//!
//! 1. The setting is emptied, durably, and seen in force; a fresh login afterwards proves that the postmaster has told the
//!    startup process, which then asks for no receiver by the old setting any more.
//! 2. Receivers are ended until none is found. Their end flushes what they had.
//! 3. The startup process is seen asleep between two tries ([`Replay::Asleep`]): a receiver that was on its way is stopped
//!    by that, and the next try begins with the log on disk.
//! 4. It is asked to pause, and seen paused: so it woke since. It is told to go on, and seen asleep again: then that try
//!    found nothing more on disk, and all that was received is applied.
//! 5. No receiver is found; the newest rule and the position are read, in this order.
//!
//! Positions are never compared for equality: the last record received may be a part of one.
//!
//! A deadline that passes leaves the setting empty: the caller stops the server at once, starts it again with the files as
//! they are, and recruits again. That start receives nothing.
//!
//! Invariants, each a test below or in `tests/replication/recruit.rs`:
//! * `a_receiver_found_at_any_step_starts_it_over`.
//! * `one_sleep_is_never_enough`.
//! * `a_recruited_standby_acks_nothing_more` (T4).
//! * `all_that_was_received_is_applied_before_the_position_is_read` (P8; shows the early sleep of the list above).
//! * `a_missed_deadline_leaves_the_setting_empty_for_the_next_start`.
//!
//! Not here: the promise, which is persisted before.

use std::time::Duration;

use holdfast_model::Term;
use holdfast_model::status::{Gate, GateClosed};
use holdfast_model::step::{self, recruit};
use tokio::time::{self, Instant};
use tokio_postgres::types::PgLsn;
use tracing::debug;

use super::Hands;
use crate::ackers::Ackers;
use crate::engine::Cause;
use crate::links::Peer;
use crate::postgres::gate::{self, GateError, InstallError};
use crate::postgres::links::Links;
use crate::postgres::session::status::lsn_of;
use crate::postgres::session::{Session, SessionError};
use crate::postgres::{Setup, config::ConfigError};
use crate::standing::Recruited;

/// How often it is looked.
const POLL: Duration = Duration::from_millis(10);

/// Why a standby was not recruited. Nothing may be reported then.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The files do not render.
    #[error("stop receiving: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Render(Vec<ConfigError>),
    /// The files were not written.
    #[error("stop receiving")]
    Install(#[source] InstallError),
    /// They are not in force.
    #[error("stop receiving")]
    Reload(#[source] GateError),
    /// The server was not reached or refused.
    #[error("stop receiving")]
    Session(#[source] SessionError),
    /// Processes could not be looked at or ended.
    #[error("look for walreceivers")]
    Hands(#[source] Cause),
    /// It is not a standby.
    #[error("the server is not in recovery")]
    NotInRecovery,
    /// It took too long. Stop the server at once, start it with the files as they are, and recruit again.
    #[error("the server did not stop receiving and apply all it has within {} ms ({step:?}): stop it at once and start it again", waited.as_millis())]
    Deadline {
        /// How far it came.
        step: Step,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The startup process sleeps between two tries.
    Sleep,
    /// It has paused as it was asked to, so it woke from that sleep.
    Pause,
    /// It went on from there and sleeps again.
    SleepAgain,
    /// It did, and no receiver is left: the position may be read.
    Done,
}

/// What the startup process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// It has tried all sources and sleeps before the next try.
    Asleep,
    /// It is paused.
    Paused,
    /// A reader is in its way.
    Held,
    /// It is replaying, or waits for something else.
    Busy,
}

/// What was seen at one look: receivers first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How many receivers were found, and ended.
    pub receivers: u32,
    /// What replay was doing afterwards.
    pub replay: Replay,
}

/// What to do before the next look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nudge {
    /// Nothing.
    Wait,
    /// Ask it to pause.
    Pause,
    /// Tell it to go on.
    GoOn,
    /// End the readers that are in its way.
    EndReaders,
}

/// The next step, and what to do before it.
#[must_use]
pub const fn next(step: Step, seen: Seen) -> (Step, Nudge) {
    if seen.receivers > 0 {
        return (Step::Sleep, Nudge::Wait);
    }
    match (step, seen.replay) {
        (Step::Sleep, Replay::Asleep) => (Step::Pause, Nudge::Pause),
        (Step::Pause, Replay::Paused) => (Step::SleepAgain, Nudge::GoOn),
        (Step::SleepAgain | Step::Done, Replay::Asleep) => (Step::Done, Nudge::Wait),
        // Somebody paused it, before or in between: it is to apply what it has.
        (Step::Sleep | Step::SleepAgain | Step::Done, Replay::Paused) => (Step::Sleep, Nudge::GoOn),
        (Step::Done, Replay::Held) => (Step::Sleep, Nudge::EndReaders),
        (step @ (Step::Sleep | Step::Pause | Step::SleepAgain), Replay::Held) => (step, Nudge::EndReaders),
        (Step::Done, Replay::Busy) => (Step::Sleep, Nudge::Wait),
        (step @ (Step::Sleep | Step::SleepAgain), Replay::Busy)
        | (step @ Step::Pause, Replay::Busy | Replay::Asleep) => (step, Nudge::Wait),
    }
}

/// Writes and loads files without an upstream and with a closed gate, durably: also a server that is started later receives
/// nothing. Ends whoever reads.
///
/// # Errors
/// [`StopError`].
pub async fn detach(session: &Session, setup: &Setup, peers: &[Peer]) -> Result<(), StopError> {
    let closed = Gate::Closed { why: GateClosed::NotPrimary };
    let links = Links { peers: peers.to_vec(), upstream: None };
    let files = setup.files(&closed, &Ackers::Nobody, &links).map_err(StopError::Render)?;
    gate::install(&setup.layout, &files).map_err(StopError::Install)?;
    gate::reload(session).await.map_err(StopError::Reload)?;
    for (name, value) in
        [("primary_conninfo", ""), ("restore_command", ""), ("recovery_min_apply_delay", "0")]
    {
        gate::check_setting(session, name, value).await.map_err(StopError::Reload)?;
    }
    // Who reads could write once it is promoted, before its rule is acked.
    session.end_readers().await.map_err(StopError::Session)?;
    // The postmaster tells the startup process of the reload before it accepts another login.
    let fresh = Session::connect(&setup.layout, session.deadline()).await.map_err(StopError::Session)?;
    drop(fresh);
    Ok(())
}

/// Recruits the standby; see the module. The files of [`detach`] are in force.
///
/// Cancel-safe in that it can be called again; a dropped call may leave replay paused, which the next one and
/// [`super::follow`] mend.
///
/// # Errors
/// [`StopError`].
pub async fn stop(session: &Session, hands: &dyn Hands, deadline: Duration) -> Result<Recruited, StopError> {
    let until = Instant::now() + deadline;
    let mut step = Step::Sleep;
    loop {
        let receivers = hands.end_receivers().await.map_err(StopError::Hands)?;
        let replay = session.replay().await.map_err(StopError::Session)?.ok_or(StopError::NotInRecovery)?;
        let (after, nudge) = next(step, Seen { receivers, replay });
        if after == Step::Done && step == Step::Done {
            return session.recruited().await.map_err(StopError::Session);
        }
        match (step, after) {
            (Step::Sleep, Step::Pause) => debug!(target: step::TARGET, step = recruit::ASLEEP.name()),
            (Step::Pause, Step::SleepAgain) => debug!(target: step::TARGET, step = recruit::PAUSED.name()),
            (Step::Sleep | Step::Pause | Step::SleepAgain | Step::Done, _) => {}
        }
        step = after;
        session.nudge(nudge).await.map_err(StopError::Session)?;
        if Instant::now() >= until {
            return Err(StopError::Deadline { step, waited: deadline });
        }
        time::sleep(POLL).await;
    }
}

impl Session {
    /// What the startup process is doing; `None` when the server is not in recovery.
    async fn replay(&self) -> Result<Option<Replay>, SessionError> {
        // The pause state is an error outside of recovery, and a promotion may come in between.
        let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END, \
            a.wait_event_type, a.wait_event \
            FROM (SELECT) one LEFT JOIN pg_stat_activity a ON a.backend_type = 'startup'";
        let row = self.row("read what replay is doing", sql, &[]).await?;
        let Some(pause) = row.get::<_, Option<&str>>(0) else { return Ok(None) };
        let (kind, event) = (row.get::<_, Option<&str>>(1), row.get::<_, Option<&str>>(2));
        Ok(Some(match (pause, kind, event) {
            ("paused", _, _) => Replay::Paused,
            (_, Some("Lock" | "BufferPin"), _) => Replay::Held,
            (_, _, Some("RecoveryRetrieveRetryInterval")) => Replay::Asleep,
            (_, _, Some(event)) if event.starts_with("RecoveryConflict") => Replay::Held,
            (_, _, _) => Replay::Busy,
        }))
    }

    async fn nudge(&self, nudge: Nudge) -> Result<(), SessionError> {
        let sql = match nudge {
            Nudge::Wait => return Ok(()),
            Nudge::Pause => "SELECT pg_wal_replay_pause()",
            Nudge::GoOn => "SELECT pg_wal_replay_resume()",
            // On a standby nobody waits for acks. An idle session holds nothing that replay needs.
            Nudge::EndReaders => {
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' \
                 AND pid <> pg_backend_pid() AND state <> 'idle'"
            }
        };
        self.within("move replay on", self.client().batch_execute(sql)).await
    }

    /// Lets replay go on, should somebody have paused it.
    pub(super) async fn resume_replay(&self) -> Result<(), SessionError> {
        self.nudge(Nudge::GoOn).await
    }

    /// The newest rule, then the position, which is read last.
    async fn recruited(&self) -> Result<Recruited, SessionError> {
        let rule = self.newest_rules(1).await?.into_iter().next();
        let doing = "read the position";
        let sql = "SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)::bigint, pg_last_wal_replay_lsn() \
            FROM pg_control_checkpoint() c, pg_control_recovery() r";
        let row = self.row(doing, sql, &[]).await?;
        let number: i64 = row.get(0);
        let term = u32::try_from(number)
            .ok()
            .and_then(Term::new)
            .ok_or_else(|| SessionError::Answer { doing, found: format!("timeline {number}") })?;
        Ok(Recruited { rule, term, position: lsn_of(row.get::<_, PgLsn>(1)).into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 4] = [Step::Sleep, Step::Pause, Step::SleepAgain, Step::Done];
    const REPLAYS: [Replay; 4] = [Replay::Asleep, Replay::Paused, Replay::Held, Replay::Busy];

    /// Steps after each of `replays`, with no receiver about.
    fn walk(replays: &[Replay]) -> Step {
        replays.iter().fold(Step::Sleep, |step, replay| next(step, Seen { receivers: 0, replay: *replay }).0)
    }

    #[test]
    fn a_receiver_found_at_any_step_starts_it_over() {
        for step in STEPS {
            for replay in REPLAYS {
                assert_eq!(next(step, Seen { receivers: 1, replay }), (Step::Sleep, Nudge::Wait));
            }
        }
    }

    #[test]
    fn one_sleep_is_never_enough() {
        assert_eq!(walk(&[Replay::Asleep; 100]), Step::Pause);
        assert_eq!(walk(&[Replay::Busy; 100]), Step::Sleep);
        assert_eq!(walk(&[Replay::Asleep, Replay::Paused, Replay::Busy]), Step::SleepAgain);
        assert_eq!(walk(&[Replay::Asleep, Replay::Paused, Replay::Asleep]), Step::Done);
    }

    #[test]
    fn whatever_was_seen_a_sleep_after_a_pause_after_a_sleep_comes_before_the_end() {
        // Every history of six looks.
        for number in 0..4_usize.pow(6) {
            let history: Vec<Replay> = (0..6).map(|at| REPLAYS[number / 4_usize.pow(at) % 4]).collect();
            if walk(&history) == Step::Done {
                let mut rest = history.iter();
                let found = [Replay::Asleep, Replay::Paused, Replay::Asleep]
                    .iter()
                    .all(|wanted| rest.any(|seen| seen == wanted));
                assert!(found, "{history:?}");
            }
        }
    }

    #[test]
    fn a_pause_that_nobody_asked_for_is_ended_and_readers_are_out_of_the_way() {
        assert_eq!(
            next(Step::Sleep, Seen { receivers: 0, replay: Replay::Paused }),
            (Step::Sleep, Nudge::GoOn)
        );
        for step in STEPS {
            assert_eq!(next(step, Seen { receivers: 0, replay: Replay::Held }).1, Nudge::EndReaders);
        }
    }
}
