//! Bringing a member whose log left the cluster's back onto it: a copy of its data is rewound beside it, replays what makes it
//! whole, and takes its place.
//!
//! The member stays the incarnation that it is. Until the copy has taken the place its data is untouched, and it is a voter as
//! before: recruited meanwhile, it gives the copy up and answers with what it has. The copy receives log under a name that
//! nobody counts. So nothing is ever acked by data that could still be given up, and nothing that was acked is given up.
//!
//! Crash-safe by order: the record before the engine stops; the mark in the data directory, durable, before the record says
//! that the copy takes the place; the exchange, which is at once; the record. What the replaced directory has beyond the
//! cluster's log is kept in the repository before it is cleared (I13).
//!
//! Not here: files ([`crate::jobs::rewind`]), the exchange ([`holdfast_storage::beside`]), whether to (`decide`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_agent_decide::members;
use holdfast_engine::links::Upstream;
use holdfast_engine::postgres::Setup;
use holdfast_engine::postgres::links;
use holdfast_engine::postgres::session::{Session, SessionError};
use holdfast_engine::postgres::standby::rewind;
use holdfast_model::peer::Part;
use holdfast_model::status::{EngineView, OperationKind, RewindStage};
use holdfast_model::{Lsn, Member, NotAnLsn, Term, Tick};
use holdfast_storage::ops::Verb;
use holdfast_storage::places;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::act::ActError;
use super::volume::{DESK_DEADLINE, Desk};
use super::{Node, Reconciler};
use crate::chain::Chain;
use crate::data::{DataRecord, Rewinding};
use crate::engine_actor::Process;
use crate::hands;
use crate::helper::CallError;
use crate::helper::protocol::EngineProgram;
use crate::jobs::restore::RestoreOrders;
use crate::jobs::rewind::{Copied, RewindOrders, Sides};
use crate::operations::Ticket;
use crate::supervisor::SupervisorError;
use crate::supervisor::stop::{Patience, StopBy};
use crate::worker::{JobError, VolumeCallError};

/// For the primary to let this member read its files: two turns of its loops, and a checkpoint.
const LENT_WITHIN: Duration = Duration::from_secs(120);
/// Reading what differs of a large database.
const REWIND_DEADLINE: Duration = Duration::from_secs(6 * 60 * 60);
const QUERY_DEADLINE: Duration = Duration::from_secs(5);
/// Until the primary's checkpoint is written.
const CHECKPOINT_DEADLINE: Duration = Duration::from_secs(600);
/// Rewinds onto one reign that may fail before the member is given up as one that is rebuilt.
const TRIES: u32 = 3;
/// Before a rewind that failed is begun again, and before the replaced directory is cleared again.
const AGAIN_MS: u64 = 3_000;
/// Before it is tried again by a member that nobody could rebuild meanwhile.
const AGAIN_LATE_MS: u64 = 15_000;

/// Why a copy was not made whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum RewindError {
    /// No worker or no helper.
    #[error("act through the helper")]
    Helper(#[from] CallError),
    /// A worker failed.
    #[error("work on the copy")]
    Job(#[from] JobError),
    /// `pg_rewind` failed.
    #[error("rewind the copy")]
    Rewind(#[from] SupervisorError),
    /// The record was not written.
    #[error("write how far the copy is")]
    Desk(#[from] VolumeCallError),
    /// The copy's server was not asked.
    #[error("ask the copy's server")]
    Session(#[from] SessionError),
    /// Another term was promised meanwhile, so that the data is needed as it is.
    #[error("another term was promised: the data is needed as it is")]
    Promised,
    /// The primary did not let this member in.
    #[error("{0} does not let this member read its files")]
    NotLent(Member),
    /// Only Postgres is rewound.
    #[error("read how far the log goes")]
    Position(#[from] NotAnLsn),
    /// Replication is not set up.
    #[error("[tls] or the primary's [[peer]] is not in the configuration")]
    NotConfigured,
}

/// What the loop remembers of rewinds.
#[derive(Debug, Default)]
pub(super) struct Rewinds {
    /// How often one failed since the last one that did not, and when.
    failed: Option<(u32, Tick)>,
    /// Whether nothing is beside that has to be kept or cleared.
    clear: bool,
    /// Whether what is beside could not be cleared when that was last tried: there is no room for another copy.
    stuck: bool,
    clearing: JoinSet<bool>,
    cleared_at: Option<Tick>,
    /// A checkpoint for members that rewind onto this node.
    checkpoint: JoinSet<()>,
}

impl Rewinds {
    /// Of a volume that was just mounted nothing is known.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whoever reigns by then: what keeps a copy from being made seldom is the primary.
    fn fails(&mut self, now: Tick) {
        self.failed = Some((self.failed.map_or(1, |(times, _)| times + 1), now));
    }

    /// Whether it makes sense to say that this member will be rewound.
    fn promising(&self, now: Tick) -> bool {
        !self.stuck
            && self.failed.is_none_or(|(times, at)| times < TRIES || now.millis_since(at) > AGAIN_LATE_MS)
    }

    /// Shortly after one that failed.
    fn pauses(&self, now: Tick) -> bool {
        self.failed.is_some_and(|(_, at)| now.millis_since(at) <= AGAIN_MS)
    }
}

/// The engine's setup with the copy as its data directory.
pub(super) fn beside(setup: &Setup) -> Setup {
    let mut setup = setup.clone();
    setup.layout.data_dir = setup.layout.data_dir.with_file_name(places::BESIDE);
    setup
}

fn sides(node: &Node) -> Sides {
    let data_dir = node.setup.layout.data_dir.clone();
    let beside: PathBuf = beside(&node.setup).layout.data_dir;
    Sides { data_dir, beside }
}

impl Node {
    fn upstream_of(&self, primary: &Member, member: Member, term: Term) -> Option<Upstream> {
        let peer = self.config.peers.iter().find(|peer| peer.node == primary.node)?;
        Some(Upstream { node: peer.node.clone(), address: peer.engine, member, term })
    }
}

impl Reconciler {
    /// What this node says of itself while a copy is made, or is about to be.
    pub(super) fn rewinding_part(&self, part: Part) -> Part {
        let Some(desk) = self.volume.desk() else { return part };
        match (desk.facts().data, part) {
            (Ok(Some(DataRecord::Rewinding(rewinding))), _) => Part::Rewinds { primary: rewinding.primary },
            (Ok(Some(DataRecord::Ready { .. })), Part::Diverged { why }) => {
                let onto = self.follow.as_ref().filter(|_| self.node.setup.tls.is_some());
                match onto {
                    Some(order) if self.rewinds.promising(self.node.clock.now()) => {
                        Part::Rewinds { primary: order.primary.clone() }
                    }
                    Some(_) | None => Part::Diverged { why },
                }
            }
            (_, part) => part,
        }
    }

    /// Begins, or goes on.
    pub(super) async fn rewind(&mut self, onto: Term) -> Result<(), ActError> {
        let desk = self.volume.desk().ok_or(ActError::NoVolume)?;
        match desk.facts().data {
            Ok(Some(DataRecord::Ready { cluster, .. })) => {
                let tail = self.node.gate.borrow().tail.clone();
                let order = self.follow.as_ref().filter(|order| order.upstream.term == onto);
                let (Some(order), Some(tail)) = (order, tail) else { return Ok(()) };
                if self.rewinds.clear && !self.rewinds.pauses(self.node.clock.now()) {
                    info!(primary = %order.primary, ?tail, "this member's log has left the cluster's: rewinding a copy");
                    let (primary, stage) = (order.primary.clone(), RewindStage::Copying);
                    let rewinding = Rewinding { cluster, primary, onto, tail, stage };
                    desk.write_data(DataRecord::Rewinding(rewinding)).await?;
                    self.follow = None;
                    self.node.wake.notify_one();
                }
                Ok(())
            }
            Ok(Some(DataRecord::Rewinding(rewinding))) if rewinding.stage == RewindStage::Copying => {
                let now = self.node.clock.now();
                if !self.rewinds.promising(now) {
                    return self.give_up_rewind().await;
                }
                if self.rewinds.pauses(now) {
                    return Ok(());
                }
                let node = Arc::clone(&self.node);
                let ticket = node.operations.begin(OperationKind::Rewind, "beginning");
                self.tasks.spawn(run(node, desk, rewinding, ticket));
                Ok(())
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The data stays what it is; what is beside is thrown away.
    pub(super) async fn give_up_rewind(&mut self) -> Result<(), ActError> {
        let desk = self.volume.desk().ok_or(ActError::NoVolume)?;
        let Ok(Some(DataRecord::Rewinding(Rewinding { cluster, onto, .. }))) = desk.facts().data else {
            return Ok(());
        };
        info!(%onto, "rewind given up");
        if matches!(self.node.engine.state(), Process::Stopped { crashes: 1.., .. }) {
            self.rewinds.fails(self.node.clock.now());
        }
        desk.write_data(DataRecord::Ready { cluster, reign: None }).await?;
        self.rewinds.clear = false;
        Ok(())
    }

    /// The copy does not become whole: another one is made, if that makes sense.
    pub(super) async fn fail_rewind(&mut self) -> Result<(), ActError> {
        let desk = self.volume.desk().ok_or(ActError::NoVolume)?;
        let Ok(Some(DataRecord::Rewinding(rewinding))) = desk.facts().data else { return Ok(()) };
        warn!(onto = %rewinding.onto, "the rewound copy does not become whole, it is thrown away");
        self.rewinds.fails(self.node.clock.now());
        let copying = Rewinding { stage: RewindStage::Copying, ..rewinding };
        desk.write_data(DataRecord::Rewinding(copying)).await?;
        Ok(())
    }

    /// The copy is whole and its server stopped: it takes the place of the data directory.
    pub(super) async fn take_rewound(&mut self) -> Result<(), ActError> {
        let desk = self.volume.desk().ok_or(ActError::NoVolume)?;
        let Ok(Some(DataRecord::Rewinding(Rewinding { cluster, onto, .. }))) = desk.facts().data else {
            return Ok(());
        };
        self.node.helper.volume(Verb::TakeBeside, DESK_DEADLINE).await?;
        step(holdfast_model::step::rewind::TAKEN);
        desk.write_data(DataRecord::Ready { cluster, reign: None }).await?;
        info!(%onto, "the rewound copy has taken the place of the data");
        (self.follow, self.rewinds.clear, self.rewinds.failed) = (None, false, None);
        Ok(())
    }

    /// The copy's server receives at once, since without what it receives it never becomes whole, and under no name that counts,
    /// since before that it must not ack.
    pub(super) fn copy_settings(
        &self,
        rewinding: &Rewinding,
    ) -> Result<BTreeMap<&'static str, String>, ActError> {
        let desk = self.volume.desk().ok_or(ActError::NoVolume)?;
        let upstream = self.node.upstream_of(&rewinding.primary, desk.member(), rewinding.onto);
        let (Some(upstream), Some(tls)) = (upstream, &self.node.setup.tls) else {
            return Err(ActError::Rewind(RewindError::NotConfigured));
        };
        let conninfo = links::uncounted_conninfo(&upstream, tls);
        Ok([("primary_conninfo", conninfo), ("primary_slot_name", links::slot_name(&upstream.member))].into())
    }

    /// Once the copy's server lets anybody in its data is consistent, with the rule of the reign in it.
    pub(super) async fn settle_rewind(
        &mut self,
        desk: &Desk,
        rewinding: &Rewinding,
    ) -> Result<(), RewindError> {
        let EngineView::Running { in_recovery: true, flushed, .. } = self.observe().engine else {
            return Ok(());
        };
        let setup = beside(&self.node.setup);
        let rules = Session::connect(&setup.layout, QUERY_DEADLINE).await?.newest_rules(1).await?;
        if rules.first().is_none_or(|rule| rule.id.term != rewinding.onto) {
            return Ok(());
        }
        info!(replayed = %flushed, "the rewound copy is whole");
        self.node.engine.stop(StopBy::Fast).await;
        let orders = RewindOrders::Mark { sides: sides(&self.node), tail: rewinding.tail.clone() };
        work::<()>(&self.node, orders).await?;
        step(holdfast_model::step::rewind::MARKED);
        let taking = Rewinding { stage: RewindStage::Taking, ..rewinding.clone() };
        desk.write_data(DataRecord::Rewinding(taking)).await?;
        step(holdfast_model::step::rewind::WHOLE);
        Ok(())
    }

    /// Counts what failed, and keeps and clears what is beside, while that is not needed.
    pub(super) fn tidy_rewinds(&mut self) {
        let now = self.node.clock.now();
        match self.node.rewind_ended.take() {
            Some(Ended::Failed) => {
                self.rewinds.fails(now);
                self.rewinds.clear = false;
            }
            Some(Ended::GivenUp) => self.rewinds.clear = false,
            None => {}
        }
        if let Some(cleared) = self.rewinds.clearing.try_join_next() {
            self.rewinds.clear = cleared.unwrap_or(false);
            self.rewinds.stuck = !self.rewinds.clear;
        }
        let Some(desk) = self.volume.desk() else { return };
        let pause_ms = if self.rewinds.stuck { AGAIN_LATE_MS } else { AGAIN_MS };
        let pause = self.rewinds.cleared_at.is_none_or(|at| now.millis_since(at) > pause_ms);
        let idle = matches!(desk.facts().data, Ok(Some(DataRecord::Ready { .. })));
        if self.rewinds.clear || !self.rewinds.clearing.is_empty() || !idle || !pause {
            return;
        }
        self.rewinds.cleared_at = Some(now);
        let node = Arc::clone(&self.node);
        let (sides, member) = (sides(&node), desk.member());
        let access = desk.facts().identity.cluster_id.and_then(|cluster| node.access(cluster));
        self.rewinds.clearing.spawn(async move {
            let cleared = work::<()>(&node, RewindOrders::Clear { sides, member, access }).await;
            if let Err(err) = &cleared {
                info!(error = %Chain(err), "what a rewind left beside the data is not cleared yet");
            }
            cleared.is_ok()
        });
    }

    /// Makes this server's files say that its reign has begun, for members that are to be rewound onto them.
    pub(super) fn checkpoint(&mut self) {
        drop(self.rewinds.checkpoint.try_join_next());
        if !self.rewinds.checkpoint.is_empty() {
            return;
        }
        let (layout, term) = (self.node.setup.layout.clone(), self.node.gate.borrow().engine.clone());
        let Some(term) = term.map(|engine| engine.term) else { return };
        self.rewinds.checkpoint.spawn(async move {
            let written = async {
                let session = Session::connect(&layout, QUERY_DEADLINE).await?;
                if session.checkpoint_timeline().await? < term {
                    session.checkpoint(CHECKPOINT_DEADLINE).await?;
                    info!(%term, "checkpoint written, so that other members can be rewound onto this one");
                }
                Ok::<(), SessionError>(())
            };
            if let Err(err) = written.await {
                info!(error = %Chain(&err), "no checkpoint written for a rewind yet");
            }
        });
    }
}

/// Makes the copy and brings it back. Runs beside the loop.
async fn run(node: Arc<Node>, desk: Arc<Desk>, rewinding: Rewinding, ticket: Ticket) {
    let result = tokio::select! {
        result = Box::pin(bring_back(&node, &desk, &rewinding, &ticket)) => result,
        // Nothing of the engine runs but perhaps pg_rewind, which outlives the call that waits for it.
        () = until_promised(&node, &desk, rewinding.onto) => match node.supervisor.kill_orphans(Patience::default()).await {
            Ok(_) => Err(RewindError::Promised),
            Err(err) => Err(err.into()),
        },
    };
    match result {
        Ok(done) => ticket.end(Ok(done)),
        Err(err) => {
            match &err {
                RewindError::Promised => {
                    info!(error = %Chain(&err), "not rewound");
                    node.rewind_ended.put(Ended::GivenUp);
                }
                RewindError::Helper(_)
                | RewindError::Job(_)
                | RewindError::Rewind(_)
                | RewindError::Desk(_)
                | RewindError::Session(_)
                | RewindError::NotLent(_)
                | RewindError::Position(_)
                | RewindError::NotConfigured => {
                    warn!(error = %Chain(&err), "not rewound, the data stays as it is");
                    node.rewind_ended.put(Ended::Failed);
                }
            }
            // A program that nobody waits for any more must not write into the next copy.
            if let Err(err) = node.supervisor.kill_orphans(Patience::default()).await {
                warn!(error = %Chain(&err), "what ran on the copy is not known to have ended");
            }
            let ready = DataRecord::Ready { cluster: rewinding.cluster, reign: None };
            if let Err(err) = desk.write_data(ready).await {
                warn!(error = %Chain(&err), "rewind not given up yet");
            }
            ticket.end(Err(&err));
        }
    }
    node.wake.notify_one();
}

async fn bring_back(
    node: &Node,
    desk: &Desk,
    rewinding: &Rewinding,
    ticket: &Ticket,
) -> Result<String, RewindError> {
    let (primary, sides, setup) = (&rewinding.primary, sides(node), beside(&node.setup));
    let upstream = node.upstream_of(primary, desk.member(), rewinding.onto);
    let (Some(upstream), Some(tls)) = (upstream, &setup.tls) else { return Err(RewindError::NotConfigured) };
    // Of an agent before this one.
    node.supervisor.kill_orphans(Patience::default()).await?;
    ticket.phase("copying the data directory");
    let copied: Copied = work(node, RewindOrders::Copy(sides.clone())).await?;
    step(holdfast_model::step::rewind::COPIED);
    ticket.phase("waiting for the primary to let this member read its files");
    let flushed = until_lent(node, desk, rewinding).await?;
    ticket.phase("rewinding the copy");
    let launch = rewind::launch(&setup.layout, &upstream, tls);
    let args = launch.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    node.supervisor.run_to_end(EngineProgram::Rewind, args, REWIND_DEADLINE).await?;
    let (onto, tail) = (rewinding.onto, rewinding.tail.clone());
    work::<()>(node, RewindOrders::Prepare { sides, onto, tail, flushed }).await?;
    step(holdfast_model::step::rewind::REWOUND);
    let replaying = Rewinding { stage: RewindStage::Replaying, ..rewinding.clone() };
    desk.write_data(DataRecord::Rewinding(replaying)).await?;
    step(holdfast_model::step::rewind::RECORDED);
    Ok(format!("a copy of {} was rewound onto {primary}", copied.bytes))
}

fn step(step: holdfast_model::step::Step) {
    debug!(target: holdfast_model::step::TARGET, step = step.name());
}

/// The primary says so itself, and says it from now on: what it said before may be over. Up to where it had flushed its log then.
async fn until_lent(node: &Node, desk: &Desk, rewinding: &Rewinding) -> Result<Lsn, RewindError> {
    let (own, began) = (desk.member(), node.clock.now());
    let mut view = node.view.subscribe();
    let lent = view.wait_for(|view| {
        members::reigning(view).is_some_and(|reigning| {
            let heard = reigning.peer.heard_ms.unwrap_or(u64::MAX);
            let since = view.at.millis_since(began) > heard;
            since && reigning.rule.primary == rewinding.primary && members::lends(&reigning, &own)
        })
    });
    match tokio::time::timeout(LENT_WITHIN, lent).await {
        Ok(Ok(view)) => {
            let said = members::reigning(&view)
                .and_then(|reigning| reigning.peer.said.as_ref()?.flushed.as_ref())
                .map(Lsn::try_from)
                .transpose()?;
            let start = Lsn::try_from(&rewinding.tail.start)?;
            Ok(said.map_or(start, |said| said.max(start)))
        }
        Ok(Err(_)) | Err(_) => Err(RewindError::NotLent(rewinding.primary.clone())),
    }
}

/// Ends when a term above is promised.
async fn until_promised(node: &Node, desk: &Desk, onto: Term) {
    let mut view = node.view.subscribe();
    loop {
        if desk.facts().promise.is_some_and(|promise| promise.max_term > onto) {
            return;
        }
        if view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn work<T: DeserializeOwned>(node: &Node, orders: RewindOrders) -> Result<T, RewindError> {
    hands::run_job(&node.helper, &RestoreOrders::Rewind(orders), drop).await
}

/// How a copy came to be of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Failed,
    GivenUp,
}

/// Left by work beside the loop for the loop.
#[derive(Debug, Default)]
pub struct RewindEnded(std::sync::Mutex<Option<Ended>>);

impl RewindEnded {
    fn put(&self, how: Ended) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(how);
    }

    fn take(&self) -> Option<Ended> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}
