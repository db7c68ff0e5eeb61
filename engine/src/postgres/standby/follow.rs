//! Following a primary.
//!
//! Whether it may was asked before, of [`holdfast_replication::chain::may_follow`]: Postgres refuses a timeline that is no
//! ancestor, by its history; that check comes first, says why, and also holds where the timelines do not tell.
//!
//! Not here: copying a tail, and the ways back ([`super::rewind`], restore).

use std::time::Duration;

use holdfast_model::step;
use holdfast_model::{Position, Term};
use tokio::time::{self, Instant};
use tokio_postgres::types::PgLsn;
use tracing::debug;

use crate::ackers::Ackers;
use crate::links::{Peer, Upstream};
use crate::postgres::Setup;
use crate::postgres::config::ConfigError;
use crate::postgres::gate::{self, GateError, InstallError};
use crate::postgres::links::{self, Links};
use crate::postgres::session::status::lsn_of;
use crate::postgres::session::{Session, SessionError};
use crate::standing::Following;
use holdfast_model::status::Gate;

/// How often it is looked.
const POLL: Duration = Duration::from_millis(20);

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

/// Points a running standby at `upstream` and sees it receive that reign's log. Whether it may was asked before. Clients may
/// read from now on; what they see may not be acked yet, as on any replica.
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
    let readers = Gate::ReadOnly { term: upstream.term };
    let links = Links { peers: peers.to_vec(), upstream: Some(upstream.clone()) };
    let files = setup.files(&readers, &Ackers::Nobody, &links).map_err(FollowError::Render)?;
    gate::install(&setup.layout, &files).map_err(FollowError::Install)?;
    debug!(target: step::TARGET, step = step::follow::WRITTEN.name());
    gate::reload(session).await.map_err(FollowError::Reload)?;
    let conninfo = setup.tls.as_ref().map_or_else(String::new, |tls| links::conninfo(upstream, tls));
    for (name, value) in [
        ("primary_conninfo", conninfo.as_str()),
        ("restore_command", ""),
        ("recovery_target_timeline", "latest"),
    ] {
        gate::check_setting(session, name, value).await.map_err(FollowError::Reload)?;
    }
    debug!(target: step::TARGET, step = step::follow::LOADED.name());
    session.resume_replay().await.map_err(FollowError::Session)?;
    let until = Instant::now() + deadline;
    loop {
        // Behind the fork it first receives the rest of the older term.
        match session.following(upstream).await.map_err(FollowError::Session)? {
            Some(following) if following.term == upstream.term => {
                debug!(target: step::TARGET, step = step::follow::STREAMS.name());
                return Ok(following);
            }
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
        let slot = links::slot_name(&upstream.member);
        let rows = self.rows(doing, sql, &[&host, &port, &slot]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let number: Option<i64> = row.get(0);
        let term = number.and_then(|number| u32::try_from(number).ok()).and_then(Term::new);
        // Nothing was received yet.
        let Some(term) = term else { return Ok(None) };
        let flushed = row.get::<_, Option<PgLsn>>(1).map(lsn_of);
        Ok(Some(Following { term, flushed: flushed.map(Position::from) }))
    }
}
