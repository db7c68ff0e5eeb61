//! One function per action of `decide`. Each re-checks what it relies on on the real thing just before it acts.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_agent_decide::Action;
use holdfast_engine::Ackers;
use holdfast_engine::postgres::config::ConfigError;
use holdfast_engine::postgres::gate::{self as gate_files, InstallError};
use holdfast_engine::postgres::links::Links;
use holdfast_engine::postgres::recovery::RecoveryError;
use holdfast_model::status::{Gate, GateClosed, OperationKind};
use holdfast_model::step;
use holdfast_model::volume::{DeviceId, VolumeKind};
use holdfast_model::{ByteCount, NodeName};
use holdfast_storage::mount::Unmount;
use holdfast_storage::mountinfo::{DevNumber, Mounts};
use holdfast_storage::ops::{Consent, Seen, Verb};
use holdfast_storage::sysfs::Sysfs;
use tracing::{debug, info, warn};

use super::Reconciler;
use super::founding::{self, Replayed};
use super::rewind::{self, RewindError};
use super::volume::VolumeFacts;
use crate::data::{DataRecord, JoinStage, Joining};
use crate::disk::format::Formatting;
use crate::engine_actor::Process;
use crate::hands::{self, FilesError};
use crate::helper::CallError;
use crate::ledger::LedgerError;
use crate::peers::PeerError;
use crate::supervisor::stop::StopBy;
use crate::worker::VolumeCallError;

/// How long the gate loop may take to close: a reload and a probe login.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3);
/// Two segments of log and a little more.
const ROOM_TO_START: ByteCount = ByteCount::mib(48);
const FENCE_DEADLINE: Duration = Duration::from_secs(5);

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    /// The root helper refused or failed.
    #[error("act through the helper")]
    Helper(#[from] CallError),
    /// The helper answered another question.
    #[error("the helper's answer is not what was asked for")]
    Answer,
    /// A worker's channel could not be set up.
    #[error("talk to a worker")]
    Worker(#[source] std::io::Error),
    /// The volume worker refused or failed.
    #[error("read the volume's records")]
    Desk(#[from] VolumeCallError),
    /// The ledger could not be written; nothing was done.
    #[error("remember what is about to be done")]
    Ledger(#[from] LedgerError),
    /// The data directory could not be made one of a standby.
    #[error("prepare the start of a standby")]
    Standby(#[from] FilesError),
    /// The primary did not tell its rules.
    #[error("ask {node} for its rules")]
    Peer {
        /// Whom.
        node: NodeName,
        /// Why not.
        #[source]
        source: PeerError,
    },
    /// The engine's configuration does not render.
    #[error("render the engine's configuration: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Render(Vec<ConfigError>),
    /// It could not be written.
    #[error("write the engine's configuration")]
    Install(#[from] InstallError),
    /// What the restored server needs to replay does not fit.
    #[error("set up recovery")]
    Recovery(#[from] RecoveryError),
    /// The worker that serves recovery its log could not be started.
    #[error("serve recovery its log")]
    Log(#[source] Box<founding::FoundingError>),
    /// A copy of diverged data could not be started.
    #[error("bring the data back onto the primary's log")]
    Rewind(#[from] RewindError),
    /// The volume belongs to no cluster yet.
    #[error("the volume belongs to no cluster yet")]
    NoCluster,
    /// There is no volume any more.
    #[error("no volume is mounted")]
    NoVolume,
}

impl Reconciler {
    pub(super) async fn act(&mut self, action: Action) -> Result<(), ActError> {
        match action {
            Action::HoldGate(why) => {
                self.hold_gate(why).await;
                Ok(())
            }
            Action::StopEngine => {
                self.stop_engine().await;
                Ok(())
            }
            Action::FenceVolume => self.fence().await,
            Action::Unmount => self.unmount().await,
            Action::Format(device) => Box::pin(self.format(&device)).await,
            Action::Mount(device) => Box::pin(self.mount(&device)).await,
            Action::Bootstrap => self.begin(OperationKind::Bootstrap),
            Action::Refound => self.begin(OperationKind::Restore),
            Action::Join(_) => self.begin_join(),
            Action::Promise(rule) => self.promise(&rule).await,
            Action::Follow(node) => self.follow(&node).await,
            Action::Rewind(onto) => self.rewind(onto).await,
            Action::FailRewind => self.fail_rewind().await,
            Action::GiveUpRewind => self.give_up_rewind().await,
            Action::TakeRewound => self.take_rewound().await,
            Action::Checkpoint => {
                self.checkpoint();
                Ok(())
            }
            Action::GiveUpData => self.give_up_data().await,
            Action::StartEngine => Box::pin(self.start_engine()).await,
            Action::StartBackup => {
                self.start_first_backup();
                Ok(())
            }
            Action::StartShipping => {
                self.start_shipping();
                Ok(())
            }
        }
    }

    /// Waits until the gate is closed, but never long: an engine that does not answer is closed by being stopped.
    async fn hold_gate(&mut self, why: GateClosed) {
        self.hold = Some(why);
        self.tell_gate();
        let mut gate = self.node.gate.clone();
        let closed = gate.wait_for(|report| matches!(report.gate, Gate::Closed { .. }));
        match tokio::time::timeout(CLOSE_DEADLINE, closed).await {
            Ok(Ok(_)) => debug!("gate held closed"),
            Ok(Err(_)) | Err(_) => warn!("gate not closed in time, stopping the engine all the same"),
        }
    }

    async fn stop_engine(&mut self) {
        // It asks the engine, and another reign may begin while that is away.
        self.shipping.stop();
        let healthy = self.volume.disk().is_some_and(|disk| disk.health.is_healthy());
        let alone = self.node.gate.borrow().rule.as_ref().is_some_and(|rule| rule.k == 0);
        // A copy of one that did not end in order is recovered before it is rewound, up to a checkpoint on its newest timeline:
        // Postgres 15 goes by the timeline of the last checkpoint, and a standby writes none.
        let rewinds = self
            .volume
            .desk()
            .is_some_and(|desk| matches!(desk.facts().data, Ok(Some(DataRecord::Rewinding(_)))));
        self.node
            .engine
            .stop(if healthy && alone && !rewinds { StopBy::Fast } else { StopBy::Immediate })
            .await;
        debug!(target: step::TARGET, step = step::step_down::STOPPED.name());
    }

    /// Once a mount: XFS does not show that it was shut down, so the plan asks again and again.
    async fn fence(&mut self) -> Result<(), ActError> {
        if !self.fenced {
            self.node.helper.volume(Verb::ShutDown, FENCE_DEADLINE).await?;
            warn!("file system shut down below an engine that cannot be stopped");
            self.fenced = true;
        }
        Ok(())
    }

    /// Takes off what an agent before this one had mounted, if that disk was lost while no agent ran. What somebody
    /// else has mounted there, from a device that is no candidate and still exists, stays, and is told.
    pub(super) async fn clear_mount_point(&self, device: &DeviceId) -> Result<(), ActError> {
        let volume = &self.node.config.volume;
        let mounts = Mounts::of_this_process().map_err(ActError::Worker)?;
        let Some(mount) = mounts.at(&volume.mount).filter(|_| volume.kind != VolumeKind::Directory) else {
            return Ok(());
        };
        let number = |path: &Path| path.metadata().ok().map(|found| DevNumber::from_dev(found.rdev()));
        let lost = Sysfs::default().medium(mount.device).is_none();
        let candidate = self.search.devices().any(|path| number(path) == Some(mount.device));
        if number(&device.path) != Some(mount.device) && (lost || candidate) {
            warn!(device = %mount.device, "taking off a volume that was left mounted");
            self.node.helper.volume(Verb::Unmount { how: Unmount::Plain }, FENCE_DEADLINE).await?;
        }
        Ok(())
    }

    async fn format(&mut self, device: &DeviceId) -> Result<(), ActError> {
        self.clear_mount_point(device).await?;
        let seen =
            Seen { serial: device.serial.clone(), diskseq: device.diskseq, verdict: "blank".to_owned() };
        let formatting = Formatting::begin(&self.node.ledger, seen, Consent::Blank)?;
        let ticket = formatting.ticket(&self.node.operations);
        let formatted = formatting.run(&self.node.helper, ticket).await;
        self.search.reset();
        self.take_over(formatted?).await
    }

    /// Joining is as long as founding.
    fn begin_join(&mut self) -> Result<(), ActError> {
        let desk = self.volume.desk().ok_or(ActError::NoVolume)?;
        let space = self.volume.disk().ok_or(ActError::NoVolume)?.space;
        if space.total == ByteCount::ZERO {
            // Not measured yet: the next turn begins.
            return Ok(());
        }
        let node = Arc::clone(&self.node);
        let ticket = node.operations.begin(OperationKind::Join, "beginning");
        self.tasks.spawn(founding::join(node, desk, space.free, ticket));
        Ok(())
    }

    /// Founding is long: it runs beside the loop and is observed through its operation.
    fn begin(&mut self, kind: OperationKind) -> Result<(), ActError> {
        let desk = self.volume.desk().ok_or(ActError::NoVolume)?;
        let space = self.volume.disk().ok_or(ActError::NoVolume)?.space;
        if space.total == ByteCount::ZERO {
            // Not measured yet: the next turn begins.
            return Ok(());
        }
        let (space, node) = (space.free, Arc::clone(&self.node));
        let ticket = node.operations.begin(kind, "beginning");
        self.tasks.spawn(async move {
            match kind {
                OperationKind::Bootstrap => founding::bootstrap(node, desk, ticket).await,
                OperationKind::Restore => founding::refound(node, desk, space, ticket).await,
                OperationKind::Backup
                | OperationKind::Format
                | OperationKind::Join
                | OperationKind::Rewind
                | OperationKind::Failover
                | OperationKind::Switchover
                | OperationKind::ChangeMember => unreachable!("only founding begins here"),
            }
        });
        Ok(())
    }

    /// Recovery writes log before anything can be freed, so a full volume gets its reserve back first.
    async fn make_room(&self) -> Result<(), ActError> {
        let (Some(desk), Some(disk)) = (self.volume.desk(), self.volume.disk()) else { return Ok(()) };
        let measured = disk.space.total > ByteCount::ZERO;
        if measured && disk.space.free < ROOM_TO_START {
            warn!(free = %disk.space.free, "volume full: giving the reserve back to start the engine");
            desk.release_reserve().await?;
        }
        Ok(())
    }

    /// The files are rendered closed before the start: an engine never comes up open.
    async fn start_engine(&mut self) -> Result<(), ActError> {
        // Whatever was handed over has been: an engine that starts comes up closed, and opens by its own right.
        self.node.handover.end();
        self.make_room().await?;
        let desk = self.volume.desk().ok_or(ActError::NoVolume)?;
        let facts = desk.facts();
        let failed = |err| ActError::Log(Box::new(err));
        let replayed = match &facts.data {
            Ok(Some(DataRecord::Landed(refounding))) => {
                Some(Replayed::to_refound(refounding).map_err(failed)?)
            }
            Ok(Some(DataRecord::Joining(Joining { cluster, stage: JoinStage::Landed(landing) }))) => {
                Some(Replayed::to_join(cluster.clone(), landing))
            }
            Ok(_) | Err(_) => None,
        };
        let recovery = match replayed {
            Some(replayed) => {
                self.ensure_log_worker(&replayed).await.map_err(failed)?;
                founding::prepare(&self.node, &replayed).await.map_err(failed)?.recovery().settings()?
            }
            None => {
                self.log_worker = None;
                self.prepare_role(&facts).await?;
                BTreeMap::new()
            }
        };
        let (setup, copied) = match &facts.data {
            Ok(Some(DataRecord::Rewinding(rewinding))) => {
                (rewind::beside(&self.node.setup), self.copy_settings(rewinding)?)
            }
            Ok(_) | Err(_) => (self.node.setup.clone(), BTreeMap::new()),
        };
        let gate = Gate::Closed { why: GateClosed::Starting };
        let files = setup.files(&gate, &Ackers::Nobody, &Links::default()).map_err(ActError::Render)?;
        gate_files::install(&setup.layout, &files)?;
        let launch = setup.launch().map_err(|err| ActError::Render(vec![err]))?;
        // On the command line they last exactly as long as this server: what is taken out of a file while a server runs
        // is an error at its next reload.
        let launch = recovery.iter().fold(launch, |launch, (name, value)| launch.setting(name, value));
        let launch = copied.iter().fold(launch, |launch, (name, value)| launch.setting(name, value));
        let args = launch.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        // Its log may hold rules by now that are younger than the chain which was asked for before.
        self.follow = None;
        info!("starting the engine");
        self.node.engine.start(args).await;
        if let Process::Alive { process, .. } = self.node.engine.state() {
            self.started = Some(process);
        }
        Ok(())
    }

    /// Whoever may not resume its own reign starts as a standby: opened for writing, it would write log that nobody asked
    /// for. One that was promoted and did not come so far still has the signal, and is left to whoever promotes it again.
    async fn prepare_role(&self, facts: &VolumeFacts) -> Result<(), ActError> {
        let Ok(Some(DataRecord::Ready { reign, .. })) = &facts.data else { return Ok(()) };
        let promised = facts.promise.as_ref().map(|promise| promise.max_term);
        let data_dir = self.node.setup.layout.data_dir.clone();
        if *reign == promised && reign.is_some() {
            let mended = hands::mend_log(&self.node.helper, data_dir).await?;
            if !mended.removed.is_empty() {
                info!(removed = ?mended.removed, "a change to another timeline was cut off");
            }
        } else {
            let made = hands::make_standby(&self.node.helper, data_dir).await?;
            info!(removed = ?made.removed, "the engine will start as a standby");
            debug!(target: step::TARGET, step = step::step_down::STANDBY.name());
        }
        Ok(())
    }
}
