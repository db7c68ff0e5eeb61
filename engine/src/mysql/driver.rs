//! [`Engine`] for a real MySQL: keeps the agent's session, delegates everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_model::status::{Gate, GateClosed, Weakened};
use holdfast_model::step;
use holdfast_model::{ClusterId, GtidSet, Member, NodeName, Position, Rule, Term};
use holdfast_replication::catch_up::Attachment;
use tokio::time::{self, Instant};
use tracing::{debug, warn};

use super::argv::{self, Start};
use super::backup::{self, Copied};
use super::channel::{self, ChannelError};
use super::config::{self, ConfigError, Settings};
use super::gate::{self, GateError};
use super::identity::{Markers, source_of};
use super::rules::{RuleError, Writer, term_of};
use super::session::{Session, SessionError};
use super::{Layout, members, purge, weakened};
use crate::ackers::Ackers;
use crate::engine::{BackupEnd, Engine, EngineError, EngineStatus};
use crate::flushed::Flushed;
use crate::launch::Launch;
use crate::links::{Tls, Upstream};
use crate::postgres::standby::Hands;
use crate::standing::{Following, Promoted, Recruited};

/// How often it is looked whether a member is gone.
const POLL: Duration = Duration::from_millis(20);

/// How long the agent waits for the server.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For a login, and for each query.
    pub query: Duration,
    /// For the copy that a backup is made of.
    pub copy: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { query: Duration::from_secs(5), copy: Duration::from_secs(6 * 3600) }
    }
}

/// What is fixed for one server as long as its configuration file is.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its places.
    pub layout: Layout,
    /// Whose data it serves.
    pub cluster: ClusterId,
    /// Whose server it is.
    pub member: Member,
    /// Certificates for replication; without them nobody replicates.
    pub tls: Option<Tls>,
    /// The operator's settings.
    pub settings: BTreeMap<String, String>,
    /// Where a copy for a backup is made; on the data volume, and not there while none is.
    pub copy_dir: PathBuf,
    /// How long to wait.
    pub deadlines: Deadlines,
}

impl Setup {
    /// Renders the configuration.
    ///
    /// # Errors
    /// Every [`ConfigError`] at once.
    pub fn file(&self) -> Result<String, Vec<ConfigError>> {
        config::render(&Settings {
            layout: &self.layout,
            member: &self.member,
            tls: self.tls.as_ref(),
            user: &self.settings,
        })
    }

    /// The server's command line. The file must have been installed.
    #[must_use]
    pub fn launch(&self, start: Start) -> Launch {
        argv::mysqld(&self.layout, start)
    }

    const fn markers(&self) -> Markers {
        Markers::of(&self.cluster)
    }
}

/// One MySQL server.
#[derive(Debug)]
pub struct Mysql {
    setup: Setup,
    session: Option<Session>,
    writer: Writer,
    /// Who may attach.
    peers: BTreeSet<Member>,
    /// What members said that they hold.
    heard: BTreeMap<Member, GtidSet>,
    copied: Option<Copied>,
}

impl Mysql {
    /// A server that was not talked to yet.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let writer = Writer::new(setup.layout.clone(), setup.markers());
        let (peers, heard) = (BTreeSet::new(), BTreeMap::new());
        Self { setup, session: None, writer, peers, heard, copied: None }
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
    pub async fn session(&mut self) -> Result<&mut Session, SessionError> {
        if self.session.as_ref().is_none_or(Session::is_spoilt) {
            self.session = None;
            self.session = Some(Session::connect(&self.setup.layout, self.setup.deadlines.query).await?);
        }
        Ok(self.session.as_mut().expect("a session was just made where there was none"))
    }

    async fn session_for(&mut self, doing: &'static str) -> Result<&mut Session, EngineError> {
        self.session().await.map_err(|err| of_session(doing, err))
    }

    /// Whom `upstream` is, and whether the rule in this server's log asks this one for acks of its commits.
    async fn asked_by(&mut self, upstream: &Upstream) -> Result<(Option<Member>, bool), EngineError> {
        let doing = "read whose acks count";
        let me = self.setup.member.clone();
        let newest = self.session_for(doing).await?.newest_rules(1).await;
        let newest = newest.map_err(|err| of_session(doing, err))?.pop();
        let Some(rule) = newest else { return Ok((None, false)) };
        let voter = rule.voters.iter().find(|voter| voter.member.node == upstream.node);
        let Some(primary) = voter.map(|voter| voter.member.clone()) else { return Ok((None, false)) };
        let under = Rule { primary: primary.clone(), ..rule };
        let asked = under.ackers().any(|voter| voter.member == me);
        Ok((Some(primary), asked))
    }

    async fn close_to_clients(&mut self, doing: &'static str) -> Result<(), EngineError> {
        let gate = Gate::Closed { why: GateClosed::Starting };
        let session = self.session_for(doing).await?;
        gate::set_logins(session, &gate, &BTreeSet::new()).await.map_err(|err| of_gate(doing, err))?;
        gate::end_clients(session).await.map(|_| ()).map_err(|err| of_session(doing, err))
    }
}

#[async_trait]
impl Engine for Mysql {
    async fn status(&mut self) -> Result<EngineStatus, EngineError> {
        let doing = "read the engine's status";
        let (markers, cluster) = (self.setup.markers(), self.setup.cluster.bits());
        let status = self.session_for(doing).await?.status().await.map_err(|err| of_session(doing, err))?;
        let held = status.held();
        // Only a log that has rules of the cluster says whose it is.
        let mark = if markers.last_rule(&held).is_some() { cluster >> 64 } else { 0 };
        Ok(EngineStatus {
            version: status.version.to_string(),
            system_identifier: u64::try_from(mark).unwrap_or(0),
            in_recovery: status.read_only,
            term: term_of(markers, &held),
            flushed: held.into(),
        })
    }

    async fn newest_rules(&mut self) -> Result<Vec<Rule>, EngineError> {
        let doing = "read the newest rules";
        self.session_for(doing).await?.newest_rules(2).await.map_err(|err| of_session(doing, err))
    }

    async fn rules(&mut self) -> Result<Vec<Rule>, EngineError> {
        let doing = "read every rule";
        self.session_for(doing).await?.rules().await.map_err(|err| of_session(doing, err))
    }

    async fn write_rules(&mut self, before: &[Rule], rule: &Rule) -> Result<Position, EngineError> {
        let doing = "write a rule";
        let deadline = self.setup.deadlines.query;
        self.session_for(doing).await?;
        let session = self.session.as_mut().expect("it was just opened");
        let written = self.writer.write(session, before, rule, deadline).await;
        written.map(Position::from).map_err(|err| match err {
            RuleError::Session { source, .. } => of_session(doing, source),
            RuleError::Late { .. } => EngineError::unavailable(doing, err),
            RuleError::Older { .. } | RuleError::Differs(_) => EngineError::refused(doing, err),
        })
    }

    async fn flushed(&mut self) -> Result<Flushed, EngineError> {
        let doing = "read what is held";
        let local = self.session_for(doing).await?.executed().await.map_err(|err| of_session(doing, err))?;
        let streams = self.streams().await?;
        let standbys = streams.into_iter().map(|(member, stream)| (member, stream.flushed)).collect();
        Ok(Flushed { local: local.into(), standbys })
    }

    fn hear(&mut self, held: &BTreeMap<Member, Position>) {
        let sets = held.iter().filter_map(|(member, at)| Some((member.clone(), at.gtids()?.clone())));
        self.heard = sets.collect();
    }

    async fn apply_gate(&mut self, gate: &Gate, ackers: &Ackers) -> Result<(), EngineError> {
        let doing = "apply the gate";
        if self.status().await?.in_recovery {
            return Err(EngineError::Order("apply the gate: the server is read-only"));
        }
        let (layout, peers, query) =
            (self.setup.layout.clone(), self.peers.clone(), self.setup.deadlines.query);
        let in_force = match gate {
            Gate::Closed { .. } => step::gate::CLOSED,
            Gate::ReadOnly { .. } | Gate::Open { .. } => step::gate::OPEN,
        };
        let session = self.session_for(doing).await?;
        gate::apply(session, &layout, gate, ackers, &peers, query)
            .await
            .map_err(|err| of_gate(doing, err))?;
        let named = match ackers {
            Ackers::AnyOf { members, .. } => members.clone(),
            Ackers::Alone | Ackers::Nobody => BTreeSet::new(),
        };
        let impostors = session.end_impostors(&named).await.map_err(|err| of_session(doing, err))?;
        if !impostors.is_empty() {
            warn!(members = ?impostors, "members acked whom the rule does not name: their streams were ended");
        }
        debug!(target: step::TARGET, step = in_force.name());
        Ok(())
    }

    async fn lets_clients_in(&mut self) -> Result<bool, EngineError> {
        let let_in = gate::lets_in(&self.setup.layout, self.setup.deadlines.query).await;
        let_in.map_err(|err| of_session("look whether clients are let in", err))
    }

    async fn end_clients(&mut self, _rule: &Rule) -> Result<u64, EngineError> {
        let doing = "end client sessions";
        gate::end_clients(self.session_for(doing).await?).await.map_err(|err| of_session(doing, err))
    }

    async fn admit(
        &mut self,
        members: &BTreeSet<Member>,
        _borrow: &BTreeSet<Member>,
    ) -> Result<(), EngineError> {
        let doing = "admit members";
        let cluster = self.setup.cluster.name();
        let subject = |member: &Member| (member.clone(), members::subject_of(cluster, member));
        let logins: BTreeMap<Member, String> = members.iter().map(subject).collect();
        let made = members::ensure_logins(&self.setup.layout, &logins, self.setup.deadlines.query).await;
        made.map_err(|err| of_session(doing, err))?;
        self.peers.clone_from(members);
        debug!(target: step::TARGET, step = step::gate::ADMITTED.name());
        Ok(())
    }

    async fn checkpointed_in(&mut self) -> Result<Term, EngineError> {
        self.status().await.map(|status| status.term)
    }

    async fn expel(&mut self, member: &Member, deadline: Duration) -> Result<(), EngineError> {
        let doing = "expel a member";
        if self.peers.contains(member) {
            return Err(EngineError::Order("expel a member: it is still let in"));
        }
        let until = Instant::now() + deadline;
        loop {
            let gone = members::drop_login(&self.setup.layout, member, self.setup.deadlines.query).await;
            if gone.map_err(|err| of_session(doing, err))? {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(EngineError::unavailable(doing, StillThere { member: member.clone(), deadline }));
            }
            time::sleep(POLL).await;
        }
    }

    async fn renew_streams(&mut self, _deadline: Duration) -> Result<(), EngineError> {
        // How many acks a commit waits for is counted in one place, not by each stream.
        Ok(())
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
        let streams = self.session_for(doing).await?.streams().await.map_err(|err| of_session(doing, err))?;
        let attached = |member: &Member| {
            let stream = streams.get(&member.incarnation)?.session;
            let flushed = self.heard.get(member).cloned().unwrap_or_default().into();
            Some((member.clone(), Attachment { stream, flushed }))
        };
        Ok(self.peers.iter().filter_map(attached).collect())
    }

    async fn weakened(&mut self) -> Result<BTreeSet<Weakened>, EngineError> {
        let doing = "look for what weakens commits";
        weakened::look(self.session_for(doing).await?).await.map_err(|err| of_session(doing, err))
    }

    async fn keep_log(&mut self, from: &Position) -> Result<(), EngineError> {
        let doing = "let go of shipped log";
        let Some(shipped) = from.gtids().cloned() else { return Err(EngineError::Order(OTHER_ENGINE)) };
        let session = self.session_for(doing).await?;
        purge::let_go(session, &shipped).await.map(|_| ()).map_err(|err| of_session(doing, err))
    }

    async fn recruit(&mut self, _hands: &dyn Hands, deadline: Duration) -> Result<Recruited, EngineError> {
        let doing = "recruit";
        let markers = self.setup.markers();
        self.close_to_clients(doing).await?;
        let session = self.session_for(doing).await?;
        debug!(target: step::TARGET, step = step::recruit::DETACHED.name());
        let held = channel::recruit(session, deadline).await.map_err(|err| of_channel(doing, err))?;
        let rule = session.newest_rules(1).await.map_err(|err| of_session(doing, err))?.pop();
        debug!(target: step::TARGET, step = step::recruit::STILL.name());
        Ok(Recruited { rule, term: term_of(markers, &held), position: held.into() })
    }

    async fn promote(
        &mut self,
        _hands: &dyn Hands,
        _term: Term,
        deadline: Duration,
    ) -> Result<Promoted, EngineError> {
        let doing = "promote";
        let markers = self.setup.markers();
        let session = self.session_for(doing).await?;
        let start = channel::promote(session, deadline).await.map_err(|err| of_channel(doing, err))?;
        let from = term_of(markers, &start);
        // Its rule is the first that a reign writes, so there is none without one.
        let left = vec![(from, start.clone().into())];
        Ok(Promoted { from, start: start.into(), left })
    }

    async fn follow(&mut self, upstream: &Upstream, deadline: Duration) -> Result<Following, EngineError> {
        let doing = "follow";
        let (primary, acks) = self.asked_by(upstream).await?;
        let tls = self.setup.tls.clone();
        let session = self.session_for(doing).await?;
        let source = primary.as_ref().map(source_of);
        channel::follow(session, tls.as_ref(), upstream, source, acks, deadline)
            .await
            .map_err(|err| of_channel(doing, err))?;
        let readers = Gate::ReadOnly { term: upstream.term };
        gate::set_logins(session, &readers, &BTreeSet::new()).await.map_err(|err| of_gate(doing, err))?;
        debug!(target: step::TARGET, step = step::follow::STREAMS.name());
        let held = session.status().await.map_err(|err| of_session(doing, err))?.held();
        Ok(Following { term: upstream.term, flushed: Some(held.into()) })
    }

    async fn following(&mut self, upstream: &Upstream) -> Result<Option<Following>, EngineError> {
        let doing = "look at what is received";
        let (primary, acks) = self.asked_by(upstream).await?;
        let session = self.session_for(doing).await?;
        let receives = channel::receives_from(session, upstream, primary.as_ref().map(source_of)).await;
        if !receives.map_err(|err| of_session(doing, err))? {
            return Ok(None);
        }
        channel::set_acks(session, acks).await.map_err(|err| of_session(doing, err))?;
        let held = session.status().await.map_err(|err| of_session(doing, err))?.held();
        Ok(Some(Following { term: upstream.term, flushed: Some(held.into()) }))
    }

    async fn begin_backup(&mut self, _label: &str) -> Result<Position, EngineError> {
        let doing = "begin a backup";
        if self.copied.is_some() {
            return Err(EngineError::Order("begin a backup: one is under way"));
        }
        let (folder, deadline) = (self.setup.copy_dir.clone(), self.setup.deadlines.copy);
        // The copy takes as long as it takes; the agent's own session is for what does not.
        let own = Session::connect(&self.setup.layout, self.setup.deadlines.query).await;
        let mut own = own.map_err(|err| of_session(doing, err))?;
        let copied = backup::copy(&mut own, &folder, deadline).await.map_err(|err| of_session(doing, err))?;
        let start = copied.start.clone();
        self.copied = Some(copied);
        Ok(start.into())
    }

    async fn end_backup(&mut self) -> Result<BackupEnd, EngineError> {
        let Copied { start, stop } =
            self.copied.take().ok_or(EngineError::Order("end a backup: none is under way"))?;
        Ok(BackupEnd { start: start.into(), stop: stop.into(), label: String::new() })
    }
}

const OTHER_ENGINE: &str = "the position is of another engine";

/// A member whose stream has not ended.
#[derive(Debug, thiserror::Error)]
#[error("the stream of {member} did not end within {} ms: it may still ack", deadline.as_millis())]
struct StillThere {
    member: Member,
    deadline: Duration,
}

fn of_session(doing: &'static str, err: SessionError) -> EngineError {
    EngineError::by(err.retry(), doing, err)
}

fn of_gate(doing: &'static str, err: GateError) -> EngineError {
    match err {
        GateError::Session(source) => of_session(doing, source),
        GateError::Setting { .. } | GateError::LetIn | GateError::KeptOut => EngineError::refused(doing, err),
    }
}

fn of_channel(doing: &'static str, err: ChannelError) -> EngineError {
    match err {
        ChannelError::Session(source) => of_session(doing, source),
        ChannelError::Receives(_) | ChannelError::Unapplied { .. } | ChannelError::NotReceiving { .. } => {
            EngineError::unavailable(doing, err)
        }
        ChannelError::Applier { .. }
        | ChannelError::OtherSource { .. }
        | ChannelError::NoTls
        | ChannelError::Writes => EngineError::refused(doing, err),
    }
}
