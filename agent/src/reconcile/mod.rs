//! The reconcile loop: observe, decide, act; about every second and whenever something changes.
//!
//! * `volume`: finding, mounting and unmounting the disk.
//! * `observe`: what the node looks like, as one [`NodeView`].
//! * `act`: one function per action of `decide`.
//! * `follow`: whom a member follows, and what it promises and gives up before.
//! * [`founding`]: how an empty volume gets its data, by bootstrap or by refounding.
//! * `rewind`: how a member whose log left the cluster's comes back as who it is.
//! * `shipping`: the worker that ships log.
//!
//! Level-triggered: each turn looks at everything again, so a turn that failed half-way needs no memory of it.
//! Actions run in order and the first failure ends the turn.

mod act;
mod follow;
pub mod founding;
mod observe;
mod rewind;
mod shipping;
mod volume;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_agent_decide::{Desired, EngineWanted, decide, members};
use holdfast_engine::postgres::Setup;
use holdfast_model::ClusterId;
use holdfast_model::status::{GateClosed, NodeView, RepositoryView};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::chain::Chain;
use crate::child::process::ProcessId;
use crate::clock::Clock;
use crate::config::{Config, WhenAllLost};
use crate::engine_actor::{EngineHandle, Process};
use crate::gate_loop::{FollowOrder, GateHandle, GateOrders, GateReport};
use crate::handover::Handover;
use crate::helper::HelperClient;
use crate::jobs::Access;
use crate::ledger::{BootstrapRequest, EngineHeld, FoundedCluster, Ledger, LedgerError, RestoreOrder};
use crate::operations::Operations;
use crate::peers::Peers;
use crate::supervisor::Supervisor;
use crate::supervisor::breaches::Breaches;
use crate::worker::JobHandle;
use volume::{Search, Volume};

pub use rewind::RewindEnded;
pub(crate) use volume::ABANDONED;
pub use volume::{Desk, VolumeFacts};

/// What every part of the daemon shares. Cheap to clone behind its `Arc`.
#[derive(Debug)]
pub struct Node {
    /// As validated.
    pub config: Config,
    /// The engine's setup.
    pub setup: Setup,
    /// Ticks.
    pub clock: Clock,
    /// What survives a restart.
    pub ledger: Ledger,
    /// Long work.
    pub operations: Operations,
    /// The root helper.
    pub helper: HelperClient,
    /// The engine's process.
    pub engine: EngineHandle,
    /// The other nodes of the cluster.
    pub peers: Peers,
    /// Asks whoever owns the engine's session.
    pub gate_loop: GateHandle,
    /// Records of the mounted volume.
    pub desk: watch::Sender<Option<Arc<Desk>>>,
    /// Whether the gate is held closed for a handover.
    pub handover: Handover,
    /// Held while a backup is begun.
    pub backup_begins: tokio::sync::Mutex<()>,
    /// What a rewind left to be counted.
    pub rewind_ended: RewindEnded,
    /// For programs of the engine that end by themselves.
    pub supervisor: Supervisor,
    /// What the gate loop is told.
    pub orders: Arc<watch::Sender<GateOrders>>,
    /// What it says.
    pub gate: watch::Receiver<GateReport>,
    /// What the engine's log tells of broken promises.
    pub breaches: Arc<Breaches>,
    /// What object storage says.
    pub repository: watch::Receiver<RepositoryView>,
    /// Makes the repository be looked at.
    pub repository_wake: Arc<Notify>,
    /// Makes the reconcile loop take a turn.
    pub wake: Notify,
    /// The newest view.
    pub view: watch::Sender<Arc<NodeView>>,
    /// This program, for the engine's restore_command.
    pub program: PathBuf,
    /// Work that goes on after the call that began it.
    pub tasks: TaskTracker,
}

impl Node {
    /// Where the cluster's repository is; `None` without one in the configuration.
    #[must_use]
    pub fn access(&self, cluster: ClusterId) -> Option<Access> {
        self.config.repository.clone().map(|repository| Access { repository, cluster })
    }

    fn desired(&self) -> Result<Desired, LedgerError> {
        let founded = self.ledger.load::<FoundedCluster>()?;
        let ordered = self.ledger.load::<RestoreOrder>()?.is_some();
        let held = self.ledger.load::<EngineHeld>()?.is_some();
        Ok(Desired {
            engine: if held { EngineWanted::Stopped } else { EngineWanted::Running },
            bootstrap: self.ledger.load::<BootstrapRequest>()?.is_some(),
            founding: founded.map(|founded| founded.cluster),
            refound: ordered || self.config.when_all_lost == WhenAllLost::Restore,
            format_blank: self.config.volume.format_blank,
            has_peers: !self.config.peers.is_empty(),
            replays: false,
        })
    }
}

/// The loop's own state: what it holds open.
#[derive(Debug)]
pub struct Reconciler {
    node: Arc<Node>,
    volume: Volume,
    search: Search,
    /// Why the gate is to be held closed, by the last plan.
    hold: Option<GateClosed>,
    /// Whether the mounted file system was shut down.
    fenced: bool,
    shipping: shipping::Shipping,
    /// Whether the replay of a restored server was seen to end where the log ends; only then may its term begin.
    replay_checked: bool,
    /// Serves recovery its log, while a restored server replays.
    /// It ends when this is dropped.
    log_worker: Option<JobHandle>,
    /// Founding work under way.
    tasks: JoinSet<()>,
    /// What was told last, by [`without_numbers`].
    last_reason: String,
    /// The engine's process, if this agent started it.
    started: Option<ProcessId>,
    /// Whom a server in recovery follows.
    follow: Option<FollowOrder>,
    rewinds: rewind::Rewinds,
}

impl Reconciler {
    /// A loop that has not looked yet.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            volume: Volume::Unmounted,
            search: Search::default(),
            hold: None,
            fenced: false,
            shipping: shipping::Shipping::default(),
            replay_checked: false,
            log_worker: None,
            tasks: JoinSet::new(),
            last_reason: String::new(),
            started: None,
            follow: None,
            rewinds: rewind::Rewinds::default(),
        }
    }

    /// Runs until cancelled. The engine and the mount stay as they are: both outlive the agent.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut gate = self.node.gate.clone();
        let mut engine = self.node.engine.changes();
        let mut repository = self.node.repository.clone();
        let mut peers = self.node.peers.changes();
        loop {
            let again = tokio::select! {
                () = cancel.cancelled() => return, // every action can be cut off anywhere and is looked at again
                again = Box::pin(self.turn()) => again,
            };
            let mut disk = self.volume.changes();
            tokio::select! {
                () = cancel.cancelled() => return, // cancel-safe
                () = self.node.wake.notified() => {} // cancel-safe
                Some(_) = self.tasks.join_next() => {} // cancel-safe
                Ok(()) = gate.changed() => {} // cancel-safe
                Ok(()) = engine.changed() => {} // cancel-safe
                Ok(()) = repository.changed() => {} // cancel-safe
                Ok(()) = peers.changed() => {} // cancel-safe
                () = volume::changed(&mut disk) => {} // cancel-safe
                () = tokio::time::sleep(again) => {} // cancel-safe
            }
            gate.borrow_and_update();
            engine.borrow_and_update();
            repository.borrow_and_update();
            peers.borrow_and_update();
        }
    }

    async fn turn(&mut self) -> Duration {
        let mut want = match self.node.desired() {
            Ok(want) => want,
            Err(err) => {
                warn!(error = %Chain(&err), "ledger not read, trying again");
                return Duration::from_secs(1);
            }
        };
        self.look_for_volume().await;
        self.settle_founding().await;
        self.tidy_rewinds();
        want.replays = self.volume.replays();
        let mut view = self.observe();
        let now = self.node.clock.now();
        let plan = decide(&want, &view, now);
        view.reason = plan.reason.to_string();
        let gist = without_numbers(&view.reason);
        if gist != self.last_reason {
            info!(reason = view.reason, "plan");
            self.last_reason = gist;
        }
        self.node.view.send_replace(Arc::new(view));
        self.hold = None;
        self.tell_gate();
        for action in plan.actions {
            debug!(?action, "act");
            if let Err(err) = self.act(action).await {
                warn!(error = %Chain(&err), "action failed, looking again");
                return Duration::from_secs(1);
            }
        }
        Duration::from_millis(plan.wake_at.millis_since(now).max(50))
    }

    /// Tells the gate loop what this loop knows. The disk's health reaches it by a shorter way as well.
    fn tell_gate(&self) {
        let state = self.node.engine.state();
        let (process, stopping) = match state {
            Process::Alive { process, .. } => (Some(process), false),
            Process::Stopping { process, .. } | Process::Unkillable { process } => (Some(process), true),
            Process::Stopped { .. } | Process::Strangers { .. } => (None, false),
        };
        let disk = self.volume.disk();
        let view = Arc::clone(&self.node.view.borrow());
        let held_out = self.node.gate.borrow().held_out.clone();
        let borrow = members::borrowers(&view, &self.node.orders.borrow().borrow);
        let orders = GateOrders {
            process,
            fresh: process.is_some() && process == self.started,
            member: self.volume.membership(self.replay_checked),
            disk_healthy: disk.as_ref().is_some_and(|disk| disk.health.is_healthy()),
            nearly_full: disk.as_ref().is_some_and(|disk| disk.space.nearly_full),
            replays: self.volume.replays(),
            hold: self.hold.or(stopping.then_some(GateClosed::Stopping)).or(self.node.handover.hold()),
            admit: members::admitted(&view, &held_out),
            borrow,
            change: members::change(&view, self.node.config.k, &held_out),
            follow: self.follow.clone(),
            keep_log: members::keeps_log_from(&view),
        };
        self.node.orders.send_if_modified(|old| {
            let changed = *old != orders;
            *old = orders;
            changed
        });
    }
}

/// What a reason says, so that one which counts milliseconds is not told anew at each turn.
fn without_numbers(reason: &str) -> String {
    reason.split(|letter: char| letter.is_ascii_digit()).collect()
}
