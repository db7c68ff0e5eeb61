//! Proves, several times a second, that the volume's device takes writes; says at once when it does not.
//!
//! The write happens in a worker process. This loop only compares clocks and reads `/proc` and `/sys`, so nothing that
//! the disk does can hang it.
//!
//! Not here: the judgement ([`Watch`]), and what follows from it (`decide`).

use std::sync::Arc;
use std::time::Duration;

use holdfast_model::ByteCount;
use holdfast_model::volume::{DiskHealth, Space};
use holdfast_storage::health::Watch;
use holdfast_storage::mountinfo::Mounts;
use holdfast_storage::sysfs::Sysfs;
use holdfast_storage::watch::Lookout;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::chain::Chain;
use crate::clock::Clock;
use crate::gate_loop::GateOrders;
use crate::worker::{VolumeCallError, VolumeWorker};

/// Space and mount table are looked at every so many probe writes.
const LOOK_EVERY: u32 = 5;

/// What the probe says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskState {
    /// How the device is doing.
    pub health: DiskHealth,
    /// Free space as last measured.
    pub space: Space,
}

impl DiskState {
    /// Right after a mount, which wrote to the device.
    #[must_use]
    pub const fn mounted() -> Self {
        let space = Space { total: ByteCount::ZERO, free: ByteCount::ZERO, nearly_full: false };
        Self { health: DiskHealth::Healthy, space }
    }
}

/// What one probe loop looks at.
#[derive(Debug)]
pub struct Target {
    /// Sees that the device or its mount are no longer there.
    pub lookout: Lookout,
    /// Time between writes.
    pub interval: Duration,
    /// A write that takes longer means a stall.
    pub deadline: Duration,
}

/// Who hears of a change.
#[derive(Debug)]
pub struct Out {
    /// Whoever looks.
    pub state: watch::Sender<DiskState>,
    /// The gate loop, directly: it closes before anybody else has decided anything.
    pub orders: Arc<watch::Sender<GateOrders>>,
}

/// Probes until cancelled; `out` gets every change.
pub async fn run(target: Target, worker: VolumeWorker, clock: Clock, out: Out, cancel: CancellationToken) {
    let deadline_ms = u64::try_from(target.deadline.as_millis()).unwrap_or(u64::MAX);
    let mut seen = Watch::new(clock.now(), deadline_ms);
    let mut round = 0_u32;
    let mut pace = tokio::time::interval(target.interval);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return, // cancel-safe
            _ = pace.tick() => {} // cancel-safe
        }
        write_once(&mut seen, &worker, &target, &clock).await;
        let mut space = None;
        if round.is_multiple_of(LOOK_EVERY) {
            look(&mut seen, &target.lookout);
            space = worker.space(target.deadline).await.ok();
        }
        round = round.wrapping_add(1);
        publish(&out, seen.health(clock.now()), space);
    }
}

fn publish(out: &Out, health: DiskHealth, space: Option<Space>) {
    let healthy = health.is_healthy();
    out.orders.send_if_modified(|orders| std::mem::replace(&mut orders.disk_healthy, healthy) != healthy);
    out.state.send_if_modified(|state| {
        let before = state.clone();
        if before.health.word() != health.word() {
            match health.is_healthy() {
                true => info!("disk healthy again"),
                false => warn!(health = %health, "disk unsafe"),
            }
        }
        state.health = health;
        state.space = space.unwrap_or(state.space);
        *state != before
    });
}

async fn write_once(seen: &mut Watch, worker: &VolumeWorker, target: &Target, clock: &Clock) {
    seen.submitted(clock.now());
    match worker.probe(target.deadline).await {
        Ok(()) => seen.returned(clock.now(), Ok(())),
        Err(err) if err.blames_disk() => match err {
            VolumeCallError::Late { .. } | VolumeCallError::Overdue { .. } => {}
            VolumeCallError::Failed(_)
            | VolumeCallError::Refused(_)
            | VolumeCallError::Gone(_)
            | VolumeCallError::Answer => seen.returned(clock.now(), Err(Chain(&err).to_string())),
        },
        // Without a worker nothing proves life: silence becomes a stall by itself.
        Err(err) => {
            warn!(error = %Chain(&err), "probe worker failed");
            seen.abandoned();
        }
    }
}

fn look(seen: &mut Watch, lookout: &Lookout) {
    match Mounts::of_this_process() {
        Ok(mounts) => {
            let (gone, fs) = lookout.look(&Sysfs::default(), &mounts);
            seen.looked(gone, fs);
        }
        Err(err) => warn!(error = %Chain(&err), "mount table not read"),
    }
}
