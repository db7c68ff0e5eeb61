//! The members' side of [`super::Postgres`]: who attaches to a server that writes, and what one that follows does.
//!
//! Each function turns the errors of [`super::members`] and [`super::standby`] into what the agent's loops go by: whether
//! trying again can help.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_model::step::{self, gate, recruit};
use holdfast_model::{Member, Term};
use tracing::debug;

use super::config::ConfigError;
use super::driver::{Postgres, RenderError, of_session};
use super::gate::GateError;
use super::members::{RemoveError, RenewError};
use super::standby::Hands;
use super::standby::follow::FollowError;
use super::standby::promote::PromoteError;
use super::standby::receiver::StopError;
use super::standby::{follow, promote, receiver};
use crate::engine::EngineError;
use crate::links::{Peer, Upstream};
use crate::standing::{Following, Promoted, Recruited};

impl Postgres {
    pub(super) async fn admit_members(
        &mut self,
        members: &BTreeSet<Member>,
        borrow: &BTreeSet<Member>,
    ) -> Result<(), EngineError> {
        let doing = "admit members";
        let session = self.session_for(doing).await?;
        for member in members {
            session.ensure_member(member).await.map_err(|err| of_session(doing, err))?;
        }
        for member in members.intersection(borrow) {
            session.allow_rewind(member).await.map_err(|err| of_session(doing, err))?;
        }
        let peer = |member: &Member| Peer {
            member: member.clone(),
            address: None,
            rewinds: borrow.contains(member),
        };
        self.links.peers = members.iter().map(peer).collect();
        debug!(target: step::TARGET, step = gate::ADMITTED.name());
        Ok(())
    }

    pub(super) async fn expel_member(
        &mut self,
        member: &Member,
        deadline: Duration,
    ) -> Result<(), EngineError> {
        let doing = "expel a member";
        let expelled = self.session_for(doing).await?.remove_member(member, deadline).await;
        expelled.map_err(|err| match err {
            RemoveError::Session { source, .. } => of_session(doing, source),
            RemoveError::StillThere { .. } => EngineError::unavailable(doing, err),
            RemoveError::StillCounted { .. } | RemoveError::StillLetIn(_) => EngineError::refused(doing, err),
        })
    }

    pub(super) async fn renew(&mut self, deadline: Duration) -> Result<(), EngineError> {
        let doing = "renew streams";
        let session = self.session_for(doing).await?;
        let loaded = session.status().await.map_err(|err| of_session(doing, err))?.conf_loaded;
        session.renew_walsenders(loaded, deadline).await.map_err(|err| match err {
            RenewError::Session(source) => of_session(doing, source),
            RenewError::StillThere { .. } => EngineError::unavailable(doing, err),
        })
    }

    pub(super) async fn recruit_standby(
        &mut self,
        hands: &dyn Hands,
        deadline: Duration,
    ) -> Result<Recruited, EngineError> {
        let setup = self.setup.clone();
        let session = self.session_for("recruit").await?;
        receiver::detach(session, &setup, &[]).await.map_err(of_stop)?;
        debug!(target: step::TARGET, step = recruit::DETACHED.name());
        let recruited = receiver::stop(session, hands, deadline).await.map_err(of_stop)?;
        debug!(target: step::TARGET, step = recruit::STILL.name());
        Ok(recruited)
    }

    pub(super) async fn promote_standby(
        &mut self,
        hands: &dyn Hands,
        term: Term,
        deadline: Duration,
    ) -> Result<Promoted, EngineError> {
        let doing = "promote";
        let session = self.session_for(doing).await?;
        promote::promote(session, hands, term, deadline).await.map_err(|err| match err {
            PromoteError::Session(source) => of_session(doing, source),
            PromoteError::Late(_) | PromoteError::Hands(_) | PromoteError::Receives(_) => {
                EngineError::unavailable(doing, err)
            }
            PromoteError::Term { .. }
            | PromoteError::Gap { .. }
            | PromoteError::Taken { .. }
            | PromoteError::Upstream
            | PromoteError::EmptyList
            | PromoteError::Primary(_)
            | PromoteError::Timeline { .. } => EngineError::refused(doing, err),
        })
    }

    pub(super) async fn follow_upstream(
        &mut self,
        upstream: &Upstream,
        deadline: Duration,
    ) -> Result<Following, EngineError> {
        let doing = "follow";
        let setup = self.setup.clone();
        let session = self.session_for(doing).await?;
        follow::follow(session, &setup, &[], upstream, deadline).await.map_err(|err| match err {
            FollowError::Session(source) => of_session(doing, source),
            FollowError::Render(errors) => render(doing, errors),
            FollowError::Reload(source) => of_gate(doing, source),
            FollowError::NotStreaming(_) => EngineError::unavailable(doing, err),
            FollowError::Install(_) | FollowError::NotInRecovery => EngineError::refused(doing, err),
        })
    }
}

fn render(doing: &'static str, errors: Vec<ConfigError>) -> EngineError {
    EngineError::refused(doing, RenderError(errors))
}

fn of_gate(doing: &'static str, err: GateError) -> EngineError {
    match err {
        GateError::Session(source) => of_session(doing, source),
        GateError::NotReloaded(_) => EngineError::unavailable(doing, err),
        GateError::Files(_) | GateError::Setting { .. } | GateError::LetIn | GateError::KeptOut => {
            EngineError::refused(doing, err)
        }
    }
}

fn of_stop(err: StopError) -> EngineError {
    let doing = "recruit";
    match err {
        StopError::Session(source) => of_session(doing, source),
        StopError::Render(errors) => render(doing, errors),
        StopError::Reload(source) => of_gate(doing, source),
        StopError::Hands(_) | StopError::Deadline { .. } => EngineError::unavailable(doing, err),
        StopError::Install(_) | StopError::NotInRecovery => EngineError::refused(doing, err),
    }
}
