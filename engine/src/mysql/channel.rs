//! Receiving log: following a primary, being recruited, and beginning a reign.
//!
//! The receiver writes an event to the relay log, syncs it and sends the ack itself, so once it has stopped there are no more acks
//! (T4's trap does not exist here). Received log that is not applied may be the only copy of acked transactions (M6): a channel is
//! pointed elsewhere only when nothing changed is not said again, and only when everything received is applied.
//!
//! Invariants, each a test in `tests/mysql/channel.rs`:
//! * `a_recruited_member_acks_nothing_more` (T14).
//! * `a_member_that_cannot_apply_is_not_recruited_and_keeps_its_relay_log` (M6, Vitess 21092).
//! * `following_the_same_primary_again_says_nothing_to_the_server`.
//! * `whoever_holds_what_the_primary_does_not_is_seen_by_its_set` (M4).
//! * `a_rule_is_told_by_what_was_only_received` (T13).

use std::time::Duration;

use holdfast_model::{GtidSet, Source};
use tokio::time::{self, Instant};

use super::identity::login_of;
use super::session::{Session, SessionError, quote};
use crate::links::{Tls, Upstream};

/// How often it is looked.
const POLL: Duration = Duration::from_millis(10);

/// Why a server is not recruited, or does not follow.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// It still receives.
    #[error("the receiver did not stop within {} ms", .0.as_millis())]
    Receives(Duration),
    /// It does not get through what it received.
    #[error("{missing} transactions that were received are not applied within {} ms", deadline.as_millis())]
    Unapplied {
        /// How many.
        missing: u64,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// It cannot apply what it received. Its relay log may be the only copy: nothing of it is thrown away.
    #[error(
        "a received transaction cannot be applied: {said}; repair it and start the applier, nothing was thrown away"
    )]
    Applier {
        /// What the server says.
        said: String,
    },
    /// It does not receive its upstream's log yet. It goes on trying.
    #[error("the server does not receive from its upstream within {} ms: {said}", deadline.as_millis())]
    NotReceiving {
        /// How long it was waited for.
        deadline: Duration,
        /// What the server says, when it says something.
        said: String,
    },
    /// Somebody else answers there.
    #[error("the server at the upstream's address writes as {found}, and the upstream as {wanted}")]
    OtherSource {
        /// Whose log it is.
        found: Source,
        /// Whose it should be.
        wanted: Source,
    },
    /// Members are told apart by certificates.
    #[error("replication needs certificates: set [tls]")]
    NoTls,
    /// It writes its own log.
    #[error("the server is not read-only: it is a primary")]
    Writes,
    /// The server was not reached or refused.
    #[error("replicate")]
    Session(#[from] SessionError),
}

/// One channel's receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Whose log it receives, as the server there says; none before it was reached.
    pub source: Option<Source>,
    /// `ON`, `OFF` or `CONNECTING`.
    pub state: String,
    /// What went wrong last.
    pub said: String,
}

impl Session {
    /// The receivers of all channels.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn receivers(&mut self) -> Result<Vec<Receiver>, SessionError> {
        let sql = "SELECT source_uuid, service_state, last_error_message FROM performance_schema.replication_connection_status";
        let rows: Vec<(String, String, String)> = self.rows("look at receivers", sql).await?;
        let receiver = |(uuid, state, said): (String, String, String)| Receiver {
            source: uuid.parse().ok(),
            state,
            said,
        };
        Ok(rows.into_iter().map(receiver).collect())
    }

    /// What keeps the applier from going on; none while nothing does.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn applier_error(&mut self) -> Result<Option<String>, SessionError> {
        let sql = "SELECT last_error_message FROM performance_schema.replication_applier_status_by_worker WHERE last_error_number <> 0 \
            UNION ALL SELECT last_error_message FROM performance_schema.replication_applier_status_by_coordinator WHERE last_error_number <> 0";
        Ok(self.rows("look at the applier", sql).await?.into_iter().next())
    }

    /// Whether a channel is set up, and the applier runs.
    async fn applier_runs(&mut self) -> Result<Option<bool>, SessionError> {
        let sql = "SELECT service_state FROM performance_schema.replication_applier_status";
        let states: Vec<String> = self.rows("look at the applier", sql).await?;
        Ok(states.first().map(|_| states.iter().all(|state| state == "ON")))
    }
}

/// Makes sure that the server receives nothing more, has applied all that it received, and only then reads how far it is.
///
/// # Errors
/// [`ChannelError`]. It receives nothing more then either, but for [`ChannelError::Receives`].
pub async fn recruit(session: &mut Session, deadline: Duration) -> Result<GtidSet, ChannelError> {
    let until = Instant::now() + deadline;
    stop_receiving(session, until, deadline).await?;
    apply_everything(session, until, deadline).await?;
    Ok(session.status().await?.held())
}

/// Stops the receiver of every channel and sees that it has stopped, and turns its acks off for whatever starts it next.
async fn stop_receiving(
    session: &mut Session,
    until: Instant,
    deadline: Duration,
) -> Result<(), ChannelError> {
    session.run("stop acks", "SET GLOBAL rpl_semi_sync_replica_enabled = OFF").await?;
    if session.receivers().await?.is_empty() {
        return Ok(());
    }
    session.run("stop the receiver", "STOP REPLICA IO_THREAD").await?;
    // STOP can time out while the thread lives.
    while session.receivers().await?.iter().any(|receiver| receiver.state != "OFF") {
        if Instant::now() >= until {
            return Err(ChannelError::Receives(deadline));
        }
        time::sleep(POLL).await;
    }
    Ok(())
}

async fn apply_everything(
    session: &mut Session,
    until: Instant,
    deadline: Duration,
) -> Result<(), ChannelError> {
    let received = session.received().await?;
    loop {
        let missing = received.minus(&session.executed().await?);
        if missing.is_empty() {
            return Ok(());
        }
        if let Some(said) = session.applier_error().await? {
            return Err(ChannelError::Applier { said });
        }
        if session.applier_runs().await? == Some(false) {
            session.run("start the applier", "START REPLICA SQL_THREAD").await?;
        }
        if Instant::now() >= until {
            return Err(ChannelError::Unapplied { missing: missing.count(), deadline });
        }
        time::sleep(POLL).await;
    }
}

/// Points the server at `upstream` and sees it receive log there, of the `source` that it is where that is known. Whether it may
/// was asked before. With `acks` the upstream's commits may wait for this server's; only whom the rule in force names says so.
///
/// Nothing is said to a server that follows there already: `CHANGE REPLICATION SOURCE` throws received log away, and is only
/// said once there is none that is not applied.
///
/// # Errors
/// [`ChannelError`]; the settings stay, so it may receive later.
pub async fn follow(
    session: &mut Session,
    tls: Option<&Tls>,
    upstream: &Upstream,
    source: Option<Source>,
    acks: bool,
    deadline: Duration,
) -> Result<(), ChannelError> {
    let tls = tls.ok_or(ChannelError::NoTls)?;
    if !session.status().await?.read_only {
        return Err(ChannelError::Writes);
    }
    let until = Instant::now() + deadline;
    if !points_at(session, upstream).await? {
        stop_receiving(session, until, deadline).await?;
        apply_everything(session, until, deadline).await?;
        session.run("stop replication", "STOP REPLICA").await?;
        session.run("point at the upstream", &change_source(tls, upstream)).await?;
    }
    set_acks(session, acks).await?;
    session.run("start replication", "START REPLICA").await?;
    receives(session, source, until, deadline).await
}

/// Makes the receiver ack, or not. It counts from the receiver's next start, so one that runs is started again.
///
/// # Errors
/// [`SessionError`].
pub async fn set_acks(session: &mut Session, acks: bool) -> Result<(), SessionError> {
    if session.acks().await? == acks {
        return Ok(());
    }
    let runs = session.receivers().await?.iter().any(|receiver| receiver.state != "OFF");
    if runs {
        session.run("stop the receiver", "STOP REPLICA IO_THREAD").await?;
    }
    let word = if acks { "ON" } else { "OFF" };
    session.run("say whether to ack", &format!("SET GLOBAL rpl_semi_sync_replica_enabled = {word}")).await?;
    if runs {
        session.run("start the receiver", "START REPLICA IO_THREAD").await?;
    }
    Ok(())
}

/// Whether the server receives from `upstream` now, and from the `source` that it is where that is known.
///
/// # Errors
/// [`SessionError`].
pub async fn receives_from(
    session: &mut Session,
    upstream: &Upstream,
    source: Option<Source>,
) -> Result<bool, SessionError> {
    if !points_at(session, upstream).await? {
        return Ok(false);
    }
    let is_it = |found: Source| source.is_none_or(|wanted| wanted == found);
    let receivers = session.receivers().await?;
    Ok(receivers.iter().any(|receiver| receiver.state == "ON" && receiver.source.is_some_and(is_it)))
}

async fn receives(
    session: &mut Session,
    wanted: Option<Source>,
    until: Instant,
    deadline: Duration,
) -> Result<(), ChannelError> {
    loop {
        let receiver = session.receivers().await?.pop();
        let said = match receiver {
            Some(Receiver { source: Some(found), state, .. }) if state == "ON" => match wanted {
                Some(wanted) if wanted != found => {
                    session.run("stop the receiver", "STOP REPLICA IO_THREAD").await?;
                    return Err(ChannelError::OtherSource { found, wanted });
                }
                Some(_) | None => return Ok(()),
            },
            // Before the other end has said who it is, there is none.
            Some(Receiver { said, .. }) => said,
            None => String::new(),
        };
        if Instant::now() >= until {
            return Err(ChannelError::NotReceiving { deadline, said });
        }
        time::sleep(POLL).await;
    }
}

impl Session {
    /// Whether this server's receiver acks.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn acks(&mut self) -> Result<bool, SessionError> {
        self.row("look whether it acks", "SELECT @@global.rpl_semi_sync_replica_enabled").await
    }
}

/// Whether the one channel is set up for `upstream` already.
async fn points_at(session: &mut Session, upstream: &Upstream) -> Result<bool, SessionError> {
    let sql = "SELECT host, port, user FROM performance_schema.replication_connection_configuration";
    let set: Vec<(String, u16, String)> = session.rows("look where it points", sql).await?;
    let wanted = (upstream.address.ip().to_string(), upstream.address.port(), login_of(&upstream.member));
    Ok(set == [wanted])
}

fn change_source(tls: &Tls, upstream: &Upstream) -> String {
    let text = |path: &std::path::Path| quote(&path.to_string_lossy());
    format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = {}, SOURCE_PORT = {}, SOURCE_USER = {}, SOURCE_PASSWORD = '', \
         SOURCE_AUTO_POSITION = 1, SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 4294967295, SOURCE_HEARTBEAT_PERIOD = 2, \
         SOURCE_SSL = 1, SOURCE_SSL_CA = {}, SOURCE_SSL_CERT = {}, SOURCE_SSL_KEY = {}, GET_SOURCE_PUBLIC_KEY = 0",
        quote(&upstream.address.ip().to_string()),
        upstream.address.port(),
        quote(&login_of(&upstream.member)),
        text(&tls.ca),
        text(&tls.cert),
        text(&tls.key),
    )
}

/// Begins a reign on a recruited server: it writes from now on, for the agent alone, and its commits wait for more acks than
/// there can be until the gate says for whose. Everything received is applied, so the channel may go. Idempotent.
///
/// # Errors
/// [`ChannelError`].
pub async fn promote(session: &mut Session, deadline: Duration) -> Result<GtidSet, ChannelError> {
    let until = Instant::now() + deadline;
    if session.receivers().await?.iter().any(|receiver| receiver.state != "OFF") {
        return Err(ChannelError::Receives(Duration::ZERO));
    }
    apply_everything(session, until, deadline).await?;
    if !session.receivers().await?.is_empty() {
        session.run("stop the applier", "STOP REPLICA").await?;
        session.run("forget the upstream", "RESET REPLICA ALL").await?;
    }
    let never = format!("SET GLOBAL rpl_semi_sync_source_wait_for_replica_count = {}", super::gate::NEVER);
    for sql in [
        never.as_str(),
        // Before anything can write (M2).
        "SET GLOBAL rpl_semi_sync_source_enabled = ON",
        "SET GLOBAL read_only = ON",
        "SET GLOBAL super_read_only = OFF",
    ] {
        session.run("begin to write", sql).await?;
    }
    Ok(session.executed().await?)
}
