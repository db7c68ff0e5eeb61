//! [`Engine`] for a real Postgres: keeps the agent's session, renders files, delegates everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_model::status::{Gate, Weakened};
use holdfast_model::step;
use holdfast_model::{ByteCount, ClusterName, Lsn, Member, NodeName, Position, Rule, Term};
use holdfast_replication::catch_up::Attachment;
use tracing::debug;

use super::backup::{BackupError, BackupSession};
use super::config::{self, ConfigError, Settings};
use super::gate::{self, Files, GateError};
use super::hba::{self, ClientRule};
use super::links::Links;
use super::session::clients::TerminateError;
use super::session::rules::RuleError;
use super::session::status::ServerFacts;
use super::session::{Session, SessionError};
use super::standby::Hands;
use super::{Layout, Version, argv};
use crate::ackers::Ackers;
use crate::engine::{BackupEnd, Engine, EngineError, EngineStatus, Retry};
use crate::flushed::Flushed;
use crate::launch::Launch;
use crate::links::{Tls, Upstream};
use crate::standing::{Following, Promoted, Recruited};

/// How long the agent waits for the server.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For a login, and for each query.
    pub query: Duration,
    /// For the checkpoint with which a backup begins.
    pub backup_start: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { query: Duration::from_secs(5), backup_start: Duration::from_secs(600) }
    }
}

/// What is fixed for one server as long as its configuration file is.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its places.
    pub layout: Layout,
    /// Its version.
    pub version: Version,
    /// The cluster's name.
    pub cluster: ClusterName,
    /// Operating system users that may log in as the agent.
    pub agent_users: Vec<String>,
    /// The operator's lines for clients.
    pub clients: Vec<ClientRule>,
    /// Certificates for replication; without them nobody replicates.
    pub tls: Option<Tls>,
    /// The operator's settings.
    pub settings: BTreeMap<String, String>,
    /// Log that a replication slot may hold back.
    pub slot_log_max: ByteCount,
    /// How long to wait.
    pub deadlines: Deadlines,
}

impl Setup {
    /// Renders the three files for `gate`, `sync` and `links`.
    ///
    /// # Errors
    /// Every [`ConfigError`] at once.
    pub fn files(&self, gate: &Gate, sync: &Ackers, links: &Links) -> Result<Files, Vec<ConfigError>> {
        let users: Vec<&str> = self.agent_users.iter().map(String::as_str).collect();
        Ok(Files {
            config: config::render(&self.settings(gate, sync, links))?,
            hba: hba::render(gate, &links.peers, &self.clients),
            ident: hba::render_ident(&users, &links.peers),
        })
    }

    /// The server's command line. The files must have been installed. A restore appends its settings.
    ///
    /// # Errors
    /// [`ConfigError::Path`].
    pub fn launch(&self) -> Result<Launch, ConfigError> {
        let closed = Gate::Closed { why: holdfast_model::status::GateClosed::Starting };
        argv::postgres(&self.settings(&closed, &Ackers::Nobody, &Links::default()))
    }

    fn settings<'a>(&'a self, gate: &Gate, sync: &'a Ackers, links: &'a Links) -> Settings<'a> {
        Settings {
            layout: &self.layout,
            version: self.version,
            cluster: &self.cluster,
            sync,
            read_only: matches!(gate, Gate::ReadOnly { .. }),
            slot_log_max: self.slot_log_max,
            tls: self.tls.as_ref(),
            links,
            user: &self.settings,
        }
    }
}

/// One Postgres server.
#[derive(Debug)]
pub struct Postgres {
    pub(super) setup: Setup,
    pub(super) links: Links,
    session: Option<(Session, ServerFacts)>,
    backup: Option<BackupSession>,
}

impl Postgres {
    /// A server that was not talked to yet.
    #[must_use]
    pub const fn new(setup: Setup) -> Self {
        Self { setup, links: Links { peers: Vec::new(), upstream: None }, session: None, backup: None }
    }

    /// What is fixed for this server.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The open session, or a new one when there is none or it is spoilt.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn session(&mut self) -> Result<(&mut Session, &ServerFacts), SessionError> {
        if self.session.as_ref().is_none_or(|(session, _)| session.is_spoilt()) {
            self.session = None;
            let session = Session::connect(&self.setup.layout, self.setup.deadlines.query).await?;
            let facts = session.facts().await?;
            self.session = Some((session, facts));
        }
        let (session, facts) = self.session.as_mut().expect("a session was just made where there was none");
        Ok((session, facts))
    }

    pub(super) async fn session_for(&mut self, doing: &'static str) -> Result<&mut Session, EngineError> {
        self.session().await.map(|(session, _)| session).map_err(|err| of_session(doing, err))
    }
}

#[async_trait]
impl Engine for Postgres {
    async fn status(&mut self) -> Result<EngineStatus, EngineError> {
        let failed = |err| of_session("read the engine's status", err);
        let (session, facts) = self.session().await.map_err(failed)?;
        let status = session.status().await.map_err(failed)?;
        Ok(EngineStatus {
            version: facts.version.to_string(),
            system_identifier: facts.system_identifier,
            in_recovery: status.in_recovery(),
            term: status.timeline,
            flushed: status.flushed().into(),
        })
    }

    async fn newest_rules(&mut self) -> Result<Vec<Rule>, EngineError> {
        let doing = "read the newest rules";
        self.session_for(doing).await?.newest_rules(2).await.map_err(|err| of_session(doing, err))
    }

    async fn write_rules(&mut self, before: &[Rule], rule: &Rule) -> Result<Position, EngineError> {
        let doing = "write a rule";
        let session = self.session_for(doing).await?;
        session.ensure_schema().await.map_err(|err| of_session(doing, err))?;
        session.write_rules(before, rule).await.map(Position::from).map_err(|err| match err {
            RuleError::Session { source, .. } => of_session(doing, source),
            RuleError::Older { .. } | RuleError::Differs(_) => EngineError::refused(doing, err),
        })
    }

    async fn flushed(&mut self) -> Result<Flushed, EngineError> {
        let doing = "read flush positions";
        let flushed = self.session_for(doing).await?.flushed().await;
        flushed.map(Flushed::from).map_err(|err| of_session(doing, err))
    }

    async fn apply_gate(&mut self, gate: &Gate, ackers: &Ackers) -> Result<(), EngineError> {
        let doing = "apply the gate";
        // Its clients come in by the gate of the term that begins when the recovery ends.
        if self.status().await?.in_recovery {
            return Err(EngineError::Order("apply the gate: the server still recovers"));
        }
        let render = self.setup.files(gate, ackers, &self.links);
        let files = render.map_err(|errors| EngineError::refused(doing, RenderError(errors)))?;
        let (written, in_force) = match gate {
            Gate::Closed { .. } => (step::gate::CLOSED_WRITTEN, step::gate::CLOSED),
            Gate::ReadOnly { .. } | Gate::Open { .. } => (step::gate::OPEN_WRITTEN, step::gate::OPEN),
        };
        gate::install(&self.setup.layout, &files).map_err(|err| EngineError::refused(doing, err))?;
        debug!(target: step::TARGET, step = written.name());
        let layout = self.setup.layout.clone();
        let session = self.session_for(doing).await?;
        gate::settle(session, &layout, gate, ackers).await.map_err(|err| match err {
            GateError::Session(source) => of_session(doing, source),
            GateError::NotReloaded(_) => EngineError::unavailable(doing, err),
            GateError::Files(_) | GateError::Setting { .. } | GateError::LetIn | GateError::KeptOut => {
                EngineError::refused(doing, err)
            }
        })?;
        debug!(target: step::TARGET, step = in_force.name());
        Ok(())
    }

    async fn lets_clients_in(&mut self) -> Result<bool, EngineError> {
        let let_in = gate::lets_in(&self.setup.layout, self.setup.deadlines.query).await;
        let_in.map_err(|err| of_session("look whether clients are let in", err))
    }

    async fn end_clients(&mut self, rule: &Rule) -> Result<u64, EngineError> {
        let doing = "end client sessions";
        self.session_for(doing).await?.terminate_clients(rule).await.map_err(|err| match err {
            TerminateError::Session(source) => of_session(doing, source),
            TerminateError::Waiters(_) => EngineError::refused(doing, err),
        })
    }

    async fn rules(&mut self) -> Result<Vec<Rule>, EngineError> {
        let doing = "read every rule";
        self.session_for(doing).await?.rules().await.map_err(|err| of_session(doing, err))
    }

    async fn admit(
        &mut self,
        members: &BTreeSet<Member>,
        borrow: &BTreeSet<Member>,
    ) -> Result<(), EngineError> {
        self.admit_members(members, borrow).await
    }

    async fn checkpointed_in(&mut self) -> Result<Term, EngineError> {
        let doing = "read the term of the last checkpoint";
        self.session_for(doing).await?.checkpoint_timeline().await.map_err(|err| of_session(doing, err))
    }

    async fn expel(&mut self, member: &Member, deadline: Duration) -> Result<(), EngineError> {
        self.expel_member(member, deadline).await
    }

    async fn renew_streams(&mut self, deadline: Duration) -> Result<(), EngineError> {
        self.renew(deadline).await
    }

    async fn held_out(&mut self) -> Result<BTreeSet<NodeName>, EngineError> {
        let doing = "read who is held out";
        self.session_for(doing).await?.held_out().await.map_err(|err| of_session(doing, err))
    }

    async fn hold_out(&mut self, node: &NodeName, out: bool) -> Result<(), EngineError> {
        let doing = "hold a node out";
        self.session_for(doing).await?.hold_out(node, out).await.map_err(|err| of_session(doing, err))
    }

    async fn streams(&mut self) -> Result<BTreeMap<Member, Attachment<Position>>, EngineError> {
        let doing = "look at streams";
        let session = self.session_for(doing).await?;
        session.end_impostors().await.map_err(|err| of_session(doing, err))?;
        let streams = session.streams().await.map_err(|err| of_session(doing, err))?;
        let neutral =
            |Attachment { stream, flushed }: Attachment<Lsn>| Attachment { stream, flushed: flushed.into() };
        Ok(streams.into_iter().map(|(member, attachment)| (member, neutral(attachment))).collect())
    }

    async fn weakened(&mut self) -> Result<BTreeSet<Weakened>, EngineError> {
        let doing = "look for what weakens commits";
        self.session_for(doing).await?.weakened().await.map_err(|err| of_session(doing, err))
    }

    async fn keep_log(&mut self, from: &Position) -> Result<(), EngineError> {
        let doing = "keep log until it is shipped";
        let from = Lsn::try_from(from).map_err(|err| EngineError::refused(doing, err))?;
        let session = self.session_for(doing).await?;
        session.ensure_ship_slot().await.map_err(|err| of_session(doing, err))?;
        session.advance_ship_slot(from).await.map_err(|err| of_session(doing, err))
    }

    async fn recruit(&mut self, hands: &dyn Hands, deadline: Duration) -> Result<Recruited, EngineError> {
        self.recruit_standby(hands, deadline).await
    }

    async fn promote(
        &mut self,
        hands: &dyn Hands,
        term: Term,
        deadline: Duration,
    ) -> Result<Promoted, EngineError> {
        self.promote_standby(hands, term, deadline).await
    }

    async fn follow(&mut self, upstream: &Upstream, deadline: Duration) -> Result<Following, EngineError> {
        self.follow_upstream(upstream, deadline).await
    }

    async fn following(&mut self, upstream: &Upstream) -> Result<Option<Following>, EngineError> {
        let doing = "look at what is received";
        self.session_for(doing).await?.following(upstream).await.map_err(|err| of_session(doing, err))
    }

    async fn begin_backup(&mut self, label: &str) -> Result<Position, EngineError> {
        if self.backup.as_ref().is_some_and(|backup| !backup.is_void()) {
            return Err(EngineError::Order("begin a backup: one is under way"));
        }
        let Deadlines { query, backup_start } = self.setup.deadlines;
        let backup = BackupSession::begin(&self.setup.layout, label, query, backup_start);
        let backup = backup.await.map_err(|err| of_backup("begin a backup", err))?;
        let start = backup.start();
        self.backup = Some(backup);
        Ok(start.into())
    }

    async fn end_backup(&mut self) -> Result<BackupEnd, EngineError> {
        let backup = self.backup.take().ok_or(EngineError::Order("end a backup: none is under way"))?;
        backup.end().await.map(BackupEnd::from).map_err(|err| of_backup("end a backup", err))
    }
}

/// The operator's settings do not render. They were checked at start, so this is only met when a file changed.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub(super) struct RenderError(pub(super) Vec<ConfigError>);

pub(super) fn of_session(doing: &'static str, err: SessionError) -> EngineError {
    EngineError::by(err.retry(), doing, err)
}

fn of_backup(doing: &'static str, err: BackupError) -> EngineError {
    let retry = match &err {
        BackupError::Open(source) | BackupError::Start(source) | BackupError::Stop(source) => source.retry(),
        BackupError::Tablespaces(_) | BackupError::InRecovery => Retry::Never,
    };
    EngineError::by(retry, doing, err)
}
