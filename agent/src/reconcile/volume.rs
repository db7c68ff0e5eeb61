//! Finding, mounting and unmounting this node's volume.
//!
//! The daemon itself opens nothing below the mount point: the root helper mounts, and two workers hold the volume open,
//! one that only probes and one (the [`Desk`]) for identity, promise and data record.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_model::status::VolumeView;
use holdfast_model::volume::{DeviceId, DeviceVerdict, DiskHealth, Verdict, VolumeIdentity};
use holdfast_model::{ByteCount, ClusterId, Member, Promise, Tick};
use holdfast_storage::mount::Unmount;
use holdfast_storage::mountinfo::Mounts;
use holdfast_storage::ops::{Planned, Response, Seen, Verb};
use holdfast_storage::watch::Lookout;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::act::ActError;
use super::{Node, Reconciler};
use crate::chain::Chain;
use crate::data::{DataRecord, JoinStage};
use crate::disk::probe::{self, DiskState, Target};
use crate::engine_actor::Process;
use crate::gate_loop::Membership;
use crate::ledger::CurrentVolume;
use crate::worker::{Role, VolumeCallError, VolumeWorker};

/// Looking reads 48 MiB of each blank candidate.
const PLAN_DEADLINE: Duration = Duration::from_secs(60);
const PLAN_DEADLINE_RUNNING: Duration = Duration::from_secs(10);
/// Between two looks that fail: each may leave a process behind that waits for the disk.
const LOOK_AGAIN_MS: u64 = 30_000;
/// Between two looks while nothing usable is there.
const LOOK_EVERY_MS: u64 = 2_000;
/// A mount may replay the file system's own log.
const MOUNT_DEADLINE: Duration = Duration::from_secs(120);
const WORKER_DEADLINE: Duration = Duration::from_secs(10);
/// Small reads and writes on the volume.
pub(super) const DESK_DEADLINE: Duration = Duration::from_secs(5);

/// What there is to say of a volume of this node that it does not live on any more.
pub(crate) const ABANDONED: &str = "an older incarnation of this node, which never comes back";

/// What was last seen of the candidate devices.
#[derive(Debug, Default)]
pub(super) struct Search {
    at: Option<Tick>,
    found: Option<Vec<Planned>>,
    /// Since when looking fails.
    failing: Option<Tick>,
}

impl Search {
    /// Every candidate that was found.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Path> {
        self.found.iter().flatten().map(|planned| planned.found.device.path.as_path())
    }

    /// Look again at once.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// This node's volume.
#[derive(Debug)]
pub(super) enum Volume {
    /// Not mounted by this agent yet.
    Unmounted,
    /// Mounted, watched and read.
    Mounted(Box<MountedVolume>),
}

/// What is held open while a volume is mounted.
#[derive(Debug)]
pub(super) struct MountedVolume {
    device: DeviceId,
    pub(super) desk: Arc<Desk>,
    disk: watch::Receiver<DiskState>,
    probing: CancellationToken,
    tasks: JoinSet<()>,
}

/// What is known of a mounted volume from its own records.
#[derive(Debug, Clone)]
pub struct VolumeFacts {
    /// Whose it is.
    pub identity: VolumeIdentity,
    /// What was promised on it. Once submitted it counts, whether or not the write was heard to land (I3).
    pub promise: Option<Promise>,
    /// How far its data is; an error when the records cannot be used.
    pub data: Result<Option<DataRecord>, String>,
}

/// Reads and writes the records of one mounted volume, and remembers them.
#[derive(Debug)]
pub struct Desk {
    worker: VolumeWorker,
    facts: Mutex<VolumeFacts>,
    /// The newest promise that is known to be on the disk.
    durable: Mutex<Option<Promise>>,
}

impl Desk {
    async fn open(worker: VolumeWorker) -> Result<Self, VolumeCallError> {
        let identity = worker.identity(DESK_DEADLINE).await?;
        let mut facts = VolumeFacts { identity: identity.clone(), promise: None, data: Ok(None) };
        match worker.promise(identity, DESK_DEADLINE).await {
            Ok(promise) => facts.promise = promise,
            Err(err) if err.blames_disk() => return Err(err),
            Err(err) => facts.data = Err(Chain(&err).to_string()),
        }
        if facts.data.is_ok() {
            match worker.data(DESK_DEADLINE).await {
                Ok(data) => facts.data = Ok(data),
                Err(err) if err.blames_disk() => return Err(err),
                Err(err) => facts.data = Err(Chain(&err).to_string()),
            }
        }
        let durable = Mutex::new(facts.promise.clone());
        Ok(Self { worker, facts: Mutex::new(facts), durable })
    }

    /// What is known.
    #[must_use]
    pub fn facts(&self) -> VolumeFacts {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut VolumeFacts)) {
        change(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// This member.
    #[must_use]
    pub fn member(&self) -> Member {
        let identity = self.facts().identity;
        Member { node: identity.node, incarnation: identity.incarnation }
    }

    /// Persists a promise. From its submission on the agent behaves as promised, since the write may land even when
    /// nobody hears of it.
    ///
    /// # Errors
    /// [`VolumeCallError`]; the promise must then not be answered.
    pub async fn promise(&self, promise: Promise) -> Result<(), VolumeCallError> {
        let identity = self.facts().identity;
        self.change(|facts| {
            let raised = facts.promise.as_ref().is_none_or(|old| old.max_term < promise.max_term);
            if raised {
                facts.promise = Some(promise.clone());
            }
        });
        self.worker.persist_promise(identity, promise.clone(), DESK_DEADLINE).await?;
        *self.durable.lock().unwrap_or_else(PoisonError::into_inner) = Some(promise);
        Ok(())
    }

    /// Sees that what this member promised is on its disk: of a write that was not heard to land nobody knows. Before a promise
    /// is answered again, or relied on (I3).
    ///
    /// # Errors
    /// [`VolumeCallError`]; the promise must then not be answered.
    pub async fn keep_promise(&self) -> Result<(), VolumeCallError> {
        let promised = self.facts().promise;
        let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match promised.filter(|promised| durable.as_ref() != Some(promised)) {
            Some(promised) => self.promise(promised).await,
            None => Ok(()),
        }
    }

    /// Binds the volume to a cluster.
    ///
    /// # Errors
    /// [`VolumeCallError`].
    pub async fn bind(&self, cluster: ClusterId) -> Result<(), VolumeCallError> {
        let identity = self.worker.bind(cluster, DESK_DEADLINE).await?;
        self.change(|facts| facts.identity = identity);
        Ok(())
    }

    /// Keeps a reserve back while there is plenty of space. Without one the volume works all the same, so that a
    /// failure is only told.
    async fn keep_reserve(&self, size: ByteCount) {
        let plenty = ByteCount::new(size.bytes().saturating_mul(3));
        let kept = match self.worker.space(DESK_DEADLINE).await {
            Ok(space) if space.free < plenty => return,
            Ok(_) => self.worker.reserve(DESK_DEADLINE).await,
            Err(err) => Err(err),
        };
        if let Err(err) = kept {
            warn!(error = %Chain(&err), "no space kept in reserve");
        }
    }

    /// Gives the reserve back, for an engine that cannot even start on a full volume.
    ///
    /// # Errors
    /// [`VolumeCallError`].
    pub async fn release_reserve(&self) -> Result<(), VolumeCallError> {
        self.worker.release_reserve(DESK_DEADLINE).await
    }

    /// Writes how far the data is.
    ///
    /// # Errors
    /// [`VolumeCallError`].
    pub async fn write_data(&self, record: DataRecord) -> Result<(), VolumeCallError> {
        self.worker.write_data(record.clone(), DESK_DEADLINE).await?;
        self.change(|facts| facts.data = Ok(Some(record)));
        Ok(())
    }
}

impl Volume {
    pub(super) fn changes(&self) -> Option<watch::Receiver<DiskState>> {
        match self {
            Self::Unmounted => None,
            Self::Mounted(mounted) => Some(mounted.disk.clone()),
        }
    }

    pub(super) fn disk(&self) -> Option<DiskState> {
        match self {
            Self::Unmounted => None,
            Self::Mounted(mounted) => Some(mounted.disk.borrow().clone()),
        }
    }

    pub(super) fn desk(&self) -> Option<Arc<Desk>> {
        match self {
            Self::Unmounted => None,
            Self::Mounted(mounted) => Some(Arc::clone(&mounted.desk)),
        }
    }

    /// Whether the data was restored and its log is still to be replayed.
    pub(super) fn replays(&self) -> bool {
        let data = self.desk().map(|desk| desk.facts().data);
        match data {
            Some(Ok(Some(DataRecord::Landed(_)))) => true,
            // What runs then is a copy, or is being stopped to be copied.
            Some(Ok(Some(DataRecord::Rewinding(_)))) => true,
            Some(Ok(Some(DataRecord::Joining(joining)))) => matches!(joining.stage, JoinStage::Landed(_)),
            Some(Ok(_) | Err(_)) | None => false,
        }
    }

    /// Who this node is. The rule of a refounding may be written only after its replay was checked.
    pub(super) fn membership(&self, replay_checked: bool) -> Option<Membership> {
        let desk = self.desk()?;
        let facts = desk.facts();
        let (opening, reign) = match &facts.data {
            Ok(Some(DataRecord::Landed(refounding))) if replay_checked => {
                (Some(refounding.rule.clone()), None)
            }
            Ok(Some(DataRecord::Ready { reign, .. })) => (None, *reign),
            Ok(_) | Err(_) => (None, None),
        };
        let VolumeFacts { identity, promise, .. } = facts;
        Some(Membership { member: desk.member(), zone: identity.zone, promise, opening, reign })
    }
}

/// The next change of a mounted volume's disk; never, without one. Cancel-safe.
pub(super) async fn changed(disk: &mut Option<watch::Receiver<DiskState>>) {
    match disk {
        Some(disk) => {
            disk.mark_unchanged();
            if disk.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

impl Reconciler {
    /// Looks at the candidate devices now and then while no volume is mounted.
    pub(super) async fn look_for_volume(&mut self) {
        let now = self.node.clock.now();
        let pause = if self.search.failing.is_some() { LOOK_AGAIN_MS } else { LOOK_EVERY_MS };
        let due = self.search.at.is_none_or(|at| now.millis_since(at) >= pause);
        if matches!(self.volume, Volume::Mounted(_)) || !due || !self.tasks.is_empty() {
            return;
        }
        // An engine runs: its volume is mounted, and a look that takes long means that its disk does not answer.
        let running =
            !matches!(self.node.engine.state(), Process::Stopped { .. } | Process::Strangers { .. });
        let deadline = if running { PLAN_DEADLINE_RUNNING } else { PLAN_DEADLINE };
        match self.node.helper.volume(Verb::Plan, deadline).await {
            Ok(Response::Planned { devices }) => {
                self.search.failing = None;
                self.search.found = Some(devices);
            }
            Ok(other) => warn!(?other, "helper answered something else than a plan"),
            Err(err) => {
                warn!(error = %Chain(&err), "devices not looked at, trying again");
                self.search.failing.get_or_insert(now);
            }
        }
        self.search.at = Some(self.node.clock.now());
    }

    /// The volume as the view has it.
    pub(super) fn volume_view(&self) -> VolumeView {
        if let Volume::Mounted(mounted) = &self.volume {
            let disk = mounted.disk.borrow().clone();
            return VolumeView::Mounted {
                device: mounted.device.clone(),
                identity: Box::new(mounted.desk.facts().identity),
                health: disk.health,
                space: disk.space,
            };
        }
        match (&self.search.found, self.search.failing) {
            (_, Some(since)) if self.node.clock.now().millis_since(since) > LOOK_EVERY_MS => {
                VolumeView::Absent { verdicts: vec![] }
            }
            (Some(found), _) => choose(found, self.current_volume().as_ref()),
            (None, _) => VolumeView::Unknown,
        }
    }

    fn current_volume(&self) -> Option<CurrentVolume> {
        self.node.ledger.load::<CurrentVolume>().ok().flatten()
    }

    /// Mounts our volume and begins to watch it.
    ///
    /// One that an earlier agent left mounted may have been shut down since, and is of no use then: it is taken off, so
    /// that the next turn can mount it afresh.
    pub(super) async fn mount(&mut self, device: &DeviceId) -> Result<(), ActError> {
        let seen =
            Seen { serial: device.serial.clone(), diskseq: device.diskseq, verdict: "ours".to_owned() };
        let mounted = self.node.helper.volume(Verb::Mount { seen }, MOUNT_DEADLINE).await;
        let left_mounted = self.search.found.iter().flatten().any(|p| p.mounted && p.found.device == *device);
        self.search.reset();
        match mounted {
            Ok(response) => self.take_over(response).await,
            Err(err) if left_mounted => {
                warn!(%device, error = %Chain(&err), "mounted volume not usable, taking it off");
                // Refused while anything is open on it: an engine that still ends, say.
                self.node.helper.volume(Verb::Unmount { how: Unmount::Plain }, DESK_DEADLINE).await?;
                Ok(())
            }
            Err(err) => Err(err.into()),
        }
    }

    /// Starts the two workers of a volume that was just mounted or formatted.
    pub(super) async fn take_over(&mut self, response: Response) -> Result<(), ActError> {
        let Response::Mounted { device, identity } = response else { return Err(ActError::Answer) };
        let current = CurrentVolume { incarnation: identity.incarnation, before: None };
        self.node.ledger.store(&current)?;
        let desk = Desk::open(self.start_volume_worker().await?).await?;
        desk.keep_reserve(self.node.config.volume.reserve).await;
        let prober = self.start_volume_worker().await?;
        let (send, disk) = watch::channel(DiskState::mounted());
        let probing = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let target = probe_target(&self.node, &device)?;
        let (clock, orders) = (self.node.clock, Arc::clone(&self.node.orders));
        tasks.spawn(probe::run(target, prober, clock, probe::Out { state: send, orders }, probing.clone()));
        self.fenced = false;
        self.rewinds.reset();
        self.replay_checked = false;
        info!(%device, incarnation = %identity.incarnation, "volume mounted");
        let desk = Arc::new(desk);
        self.node.desk.send_replace(Some(Arc::clone(&desk)));
        self.volume = Volume::Mounted(Box::new(MountedVolume { device, desk, disk, probing, tasks }));
        self.node.engine.find();
        Ok(())
    }

    async fn start_volume_worker(&self) -> Result<VolumeWorker, ActError> {
        let started = self.node.helper.start_worker(Role::Volume, WORKER_DEADLINE).await?;
        VolumeWorker::new(started).map_err(ActError::Worker)
    }

    /// Lets go of the volume and unmounts it; out of sight at once when the device does not answer.
    pub(super) async fn unmount(&mut self) -> Result<(), ActError> {
        self.shipping.stop();
        self.log_worker = None;
        self.follow = None;
        self.node.desk.send_replace(None);
        self.tasks.abort_all();
        let health = self.volume.disk().map(|disk| disk.health);
        if let Volume::Mounted(mounted) = std::mem::replace(&mut self.volume, Volume::Unmounted) {
            mounted.probing.cancel();
            drop(mounted);
        }
        self.search.reset();
        let stalled = matches!(health, Some(DiskHealth::Stalled { .. }));
        if !stalled
            && self.node.helper.volume(Verb::Unmount { how: Unmount::Plain }, DESK_DEADLINE).await.is_ok()
        {
            return Ok(());
        }
        self.node.helper.volume(Verb::Unmount { how: Unmount::Lazy }, DESK_DEADLINE).await?;
        Ok(())
    }
}

impl Drop for MountedVolume {
    fn drop(&mut self) {
        self.probing.cancel();
        self.tasks.abort_all();
    }
}

fn probe_target(node: &Node, device: &DeviceId) -> Result<Target, ActError> {
    let volume = &node.config.volume;
    let mounts = Mounts::of_this_process().map_err(ActError::Worker)?;
    let lookout = Lookout::new(volume.kind, device, &volume.mount, &mounts).ok_or(ActError::NoVolume)?;
    Ok(Target { lookout, interval: volume.probe_interval, deadline: volume.stall_deadline })
}

/// Picks the device to use. Another volume of ours than the one that this node lives on is an abandoned incarnation,
/// and one of those never comes back.
fn choose(found: &[Planned], current: Option<&CurrentVolume>) -> VolumeView {
    let ours: Vec<&Planned> =
        found.iter().filter(|planned| matches!(planned.found.verdict, Verdict::Ours { .. })).collect();
    let of = |wanted| {
        ours.iter()
            .find(|planned| planned.identity.as_ref().is_some_and(|found| Some(found.incarnation) == wanted))
    };
    let mine = match current {
        Some(current) => {
            of(Some(current.incarnation)).or_else(|| current.before.and_then(|before| of(Some(before))))
        }
        None if ours.len() == 1 => ours.first(),
        None => None,
    };
    if let Some(planned) = mine {
        return VolumeView::Unmounted { device: planned.found.device.clone() };
    }
    let blank = found.iter().find(|planned| planned.found.verdict == Verdict::Blank);
    match blank {
        Some(planned) => VolumeView::Blank { device: planned.found.device.clone() },
        None => VolumeView::Absent { verdicts: found.iter().map(abandoned).collect() },
    }
}

fn abandoned(planned: &Planned) -> DeviceVerdict {
    let mut found = planned.found.clone();
    if matches!(found.verdict, Verdict::Ours { .. }) {
        found.verdict = Verdict::Stale { why: ABANDONED.to_owned() };
    }
    found
}

#[cfg(test)]
mod tests;
