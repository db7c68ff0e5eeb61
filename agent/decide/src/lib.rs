//! Decides what the agent does next. Pure: what is wanted, what was observed and the time go in; actions, the
//! reason and the time of the next look come out.
//!
//! Two answers, for the agent's two loops: [`decide`] for the reconcile loop, [`gate::judge`] for the gate loop.
//!
//! Invariants, each a test in `tests`:
//! * `an_engine_never_starts_on_data_that_is_not_ready`.
//! * `an_unhealthy_disk_is_taken_down_in_order`: fence and stop, then unmount, then look again.
//! * `an_adopted_engine_is_stopped_only_when_its_volume_was_not_found`: it outlives the restart of its agent.
//! * `an_empty_disk_never_means_a_new_cluster`: nothing is initialised without an operator's request.
//! * `only_a_blank_device_is_formatted_and_only_for_a_reason`.
//! * `who_is_deposed_promises_before_it_stops_and_never_resumes`.
//! * `a_lost_node_joins_whoever_reigns_and_never_refounds_beside_it`.
//!
//! Not here: doing anything. Each [`Action`] has a file of its name in the agent's `act`.

pub mod gate;
pub mod members;
mod reason;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use holdfast_model::peer::Part;
use holdfast_model::status::{
    DataView, EngineView, Gate, GateClosed, NodeView, OperationKind, OperationState, RepositoryView,
    RewindStage, VolumeView,
};
use holdfast_model::volume::{DeviceId, DiskHealth};
use holdfast_model::{ClusterId, NodeName, Rule, Term, Tick};

pub use reason::Reason;

/// What the operator and the configuration want of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Whether the engine is to run.
    pub engine: EngineWanted,
    /// An operator's one-time request to make a new cluster is pending.
    pub bootstrap: bool,
    /// The cluster that a bootstrap of this node began to make; its record in the repository is this node's own.
    pub founding: Option<ClusterId>,
    /// Refounding from the repository is allowed, by configuration or by an operator's word.
    pub refound: bool,
    /// A provably blank device may be formatted without being told.
    pub format_blank: bool,
    /// The cluster has other nodes.
    pub has_peers: bool,
    /// The data was restored, and its engine replays log: it is left alone until that has ended.
    pub replays: bool,
}

/// Whether the engine is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineWanted {
    /// The normal case.
    Running,
    /// An operator stopped it.
    Stopped,
}

/// One thing to do. Actions run in order; the first failure ends the turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask the gate loop to close the gate and keep it closed, and wait until it is.
    HoldGate(GateClosed),
    /// Begin to stop the engine; escalates by itself.
    StopEngine,
    /// Shut the file system down below an engine that cannot be stopped.
    FenceVolume,
    /// Unmount the volume.
    Unmount,
    /// Begin to make a file system and an identity on a blank device.
    Format(DeviceId),
    /// Mount our volume.
    Mount(DeviceId),
    /// Begin, or go on with, making the first member of a new cluster.
    Bootstrap,
    /// Begin, or go on with, restoring from the repository under a new term.
    Refound,
    /// Begin, or go on with, restoring behind the cluster that reigns elsewhere, to follow it.
    Join(NodeName),
    /// Promise the term of this rule, which has begun: nothing below it is taken part in any more.
    Promise(Rule),
    /// Follow this node, which reigns, if the log allows it.
    Follow(NodeName),
    /// Begin, or go on with, bringing a copy of the data, whose log left the chain, back onto the log of this term.
    Rewind(Term),
    /// Throw the copy away, which does not become whole, and make another.
    FailRewind,
    /// Go on with the data as it is: the copy is of no use any more.
    GiveUpRewind,
    /// Let the copy, which is whole, take the place of the data.
    TakeRewound,
    /// Write a checkpoint, for members that are rewound onto this one.
    Checkpoint,
    /// Give up data whose log left the chain, after keeping what it has beyond; nobody counts on it any more.
    GiveUpData,
    /// Start the engine with a closed gate, as a standby unless it may resume in place.
    StartEngine,
    /// Begin a backup: the repository has none, and no other node could join.
    StartBackup,
    /// Begin to ship acked log to the repository.
    StartShipping,
}

/// What to do, why, and when to look again at the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// Logged when it changes, served by `Explain`.
    pub reason: Reason,
    /// Look again then even if nothing happens.
    pub wake_at: Tick,
}

/// The loop's own pace.
const TURN_MS: u64 = 1_000;
/// An engine that ended by itself for the first time is started again after this: a probe write tells by then whether it was
/// its disk that went away.
const FIRST_PAUSE_MS: u64 = 300;
/// One that goes on crashing is started again after 1, 2, 4 ... seconds, at most this many.
const BACKOFF_MAX_MS: u64 = 60_000;
/// For the copy's server to replay from the last checkpoint before the fork, and to receive what it takes to be whole. What it
/// waits for longer is gone.
const COPY_PATIENCE_MS: u64 = 600_000;
/// A copy whose server ends by itself so often is of no use.
const COPY_CRASHES_MAX: u32 = 2;
/// Before the first backup is tried again.
const BACKUP_AGAIN_MS: u64 = 10_000;

/// Decides the next step from what is wanted and what is.
#[must_use]
pub fn decide(want: &Desired, view: &NodeView, now: Tick) -> Plan {
    let (actions, reason) = match &view.volume {
        VolumeView::Mounted { health, .. } if !health.is_healthy() => take_down(&view.engine, health),
        VolumeView::Mounted { .. } => on_healthy_volume(want, view, now),
        // An agent that has just started knows the engine before the disks: only once those were looked at, and its
        // volume is not among them, is an adopted engine one without a volume.
        VolumeView::Unknown => (vec![], Reason::LookingAtDisks),
        VolumeView::Absent { .. } | VolumeView::Blank { .. } if engine_may_run(&view.engine) => {
            (vec![Action::HoldGate(GateClosed::DiskUnsafe), Action::StopEngine], Reason::EngineWithoutVolume)
        }
        VolumeView::Absent { verdicts } => (vec![], Reason::NoUsableDisk(verdicts.clone())),
        VolumeView::Blank { device } => on_blank_device(want, view, device),
        VolumeView::Unmounted { device } => (vec![Action::Mount(device.clone())], Reason::VolumeFound),
    };
    let pause = if let Reason::EngineCrashed { again_in_ms } = &reason { *again_in_ms } else { TURN_MS };
    let wake_at = now.after_millis(pause.min(TURN_MS));
    Plan { actions, reason, wake_at }
}

const fn engine_may_run(engine: &EngineView) -> bool {
    match engine {
        EngineView::Starting { .. } | EngineView::Running { .. } => true,
        EngineView::Stopped { .. } | EngineView::Stopping { .. } | EngineView::Unkillable { .. } => false,
    }
}

/// An unhealthy disk: close and stop, fence what cannot be stopped, unmount when nothing runs on it any more.
fn take_down(engine: &EngineView, health: &DiskHealth) -> (Vec<Action>, Reason) {
    let reason = Reason::DiskUnsafe(health.clone());
    let actions = match engine {
        EngineView::Starting { .. } | EngineView::Running { .. } => {
            vec![Action::HoldGate(GateClosed::DiskUnsafe), Action::StopEngine]
        }
        EngineView::Stopping { .. } => vec![],
        EngineView::Unkillable { .. } => match health {
            DiskHealth::ShutDown => vec![],
            DiskHealth::Healthy
            | DiskHealth::Stalled { .. }
            | DiskHealth::Sick { .. }
            | DiskHealth::Gone { .. }
            | DiskHealth::ReadOnly => vec![Action::FenceVolume],
        },
        EngineView::Stopped { .. } => vec![Action::Unmount],
    };
    (actions, reason)
}

/// A blank device is formatted when there is something to put on it, and not before.
fn on_blank_device(want: &Desired, view: &NodeView, device: &DeviceId) -> (Vec<Action>, Reason) {
    if let Some(kind) = running_operation(view) {
        return (vec![], Reason::Working(kind));
    }
    if !want.format_blank {
        return (vec![], Reason::FormatNotAllowed(device.clone()));
    }
    match purpose(want, view) {
        Ok(_) => (vec![Action::Format(device.clone())], Reason::FormattingBlank(device.clone())),
        Err(reason) => (vec![], reason),
    }
}

/// What would fill an empty volume.
enum Purpose {
    Bootstrap,
    Refound,
    Join(NodeName),
}

/// Why an empty volume may be filled, or what is missing. Empty never means "new cluster".
fn purpose(want: &Desired, view: &NodeView) -> Result<Purpose, Reason> {
    let reigning = members::reigning(view).map(|reigning| reigning.peer.node.clone());
    match (&view.repository, want.bootstrap) {
        (RepositoryView::Unknown, _) => Err(Reason::AskingRepository),
        (RepositoryView::Unreachable { why }, _) => Err(Reason::RepositoryUnreachable(why.clone())),
        (RepositoryView::Disabled | RepositoryView::Empty, true) => Ok(Purpose::Bootstrap),
        (RepositoryView::Disabled | RepositoryView::Empty, false) => Err(Reason::NoClusterYet),
        (RepositoryView::Ready { cluster, .. }, true) if want.founding.as_ref() == Some(cluster) => {
            Ok(Purpose::Bootstrap)
        }
        // Whoever reigns has everything that was acknowledged.
        (RepositoryView::Ready { .. }, _) if want.has_peers && reigning.is_some() => {
            reigning.map(Purpose::Join).ok_or(Reason::NoPrimary)
        }
        // Others may be waiting for a primary: while any of them answers, nothing is lost for certain.
        (RepositoryView::Ready { .. }, _) if want.has_peers && members::any_holds_data(view) => {
            Err(Reason::NoPrimary)
        }
        (RepositoryView::Ready { .. }, _) if want.refound => Ok(Purpose::Refound),
        (RepositoryView::Ready { cluster, .. }, true) => Err(Reason::ClusterExists(cluster.clone())),
        (RepositoryView::Ready { cluster, .. }, false) => Err(Reason::AllLost(cluster.clone())),
    }
}

fn on_healthy_volume(want: &Desired, view: &NodeView, now: Tick) -> (Vec<Action>, Reason) {
    match &view.data {
        DataView::Unknown => (vec![], Reason::LookingAtData),
        DataView::Broken { why } => (vec![], Reason::DataBroken(why.clone())),
        DataView::Initialising => (vec![], Reason::Working(OperationKind::Bootstrap)),
        DataView::Restoring { .. } => (vec![], Reason::Working(OperationKind::Restore)),
        DataView::Absent | DataView::Incomplete => on_empty_volume(want, view),
        DataView::Ready => on_ready_data(want, view, now),
        DataView::Rewinding { onto, stage } => on_rewinding(want, view, *onto, *stage, now),
    }
}

/// A copy is brought back beside the data. Whoever recruits this member, or reigns above, needs the data as it is.
fn on_rewinding(
    want: &Desired,
    view: &NodeView,
    onto: Term,
    stage: RewindStage,
    now: Tick,
) -> (Vec<Action>, Reason) {
    if let Some(kind) = running_operation(view) {
        return (vec![], Reason::Working(kind));
    }
    let promised = view.promise.as_ref().is_some_and(|promise| promise.max_term > onto);
    let superseded = members::reigning(view).is_some_and(|reigning| reigning.rule.id.term > onto);
    let unwanted = promised || superseded || want.engine == EngineWanted::Stopped;
    let stop = vec![Action::HoldGate(GateClosed::NoEngine), Action::StopEngine];
    let (going_on, given_up) = (Reason::Rewinding(onto, stage), Reason::RewindGivenUp(onto));
    match (stage, &view.engine) {
        (_, EngineView::Stopping { .. }) => (vec![], Reason::EngineStopping),
        (_, EngineView::Unkillable { pid }) => (vec![], Reason::EngineUnkillable(*pid)),
        (RewindStage::Taking, EngineView::Stopped { .. }) => (vec![Action::TakeRewound], going_on),
        (
            RewindStage::Taking | RewindStage::Copying,
            EngineView::Starting { .. } | EngineView::Running { .. },
        ) => (stop, going_on),
        (RewindStage::Replaying, EngineView::Starting { .. } | EngineView::Running { .. }) if unwanted => {
            (stop, given_up)
        }
        (RewindStage::Replaying, EngineView::Starting { since, .. })
            if now.millis_since(*since) > COPY_PATIENCE_MS =>
        {
            (stop.into_iter().chain([Action::FailRewind]).collect(), going_on)
        }
        (RewindStage::Replaying, EngineView::Starting { .. } | EngineView::Running { .. }) => {
            (vec![], going_on)
        }
        (_, EngineView::Stopped { .. }) if unwanted => (vec![Action::GiveUpRewind], given_up),
        (RewindStage::Copying, EngineView::Stopped { .. }) => (vec![Action::Rewind(onto)], going_on),
        (RewindStage::Replaying, EngineView::Stopped { crashes, .. }) if *crashes >= COPY_CRASHES_MAX => {
            (vec![Action::GiveUpRewind], given_up)
        }
        (RewindStage::Replaying, EngineView::Stopped { crashes, since }) => {
            match backoff_left_ms(*crashes, *since, now) {
                0 => (vec![Action::StartEngine], going_on),
                again_in_ms => (vec![], Reason::EngineCrashed { again_in_ms }),
            }
        }
    }
}

/// No data, or data that was begun and not finished: both are filled from the beginning or resumed.
fn on_empty_volume(want: &Desired, view: &NodeView) -> (Vec<Action>, Reason) {
    if let Some(kind) = running_operation(view) {
        return (vec![], Reason::Working(kind));
    }
    if engine_may_run(&view.engine) {
        return (vec![Action::HoldGate(GateClosed::NoEngine), Action::StopEngine], Reason::EngineWithoutData);
    }
    match purpose(want, view) {
        Ok(Purpose::Bootstrap) => (vec![Action::Bootstrap], Reason::Working(OperationKind::Bootstrap)),
        Ok(Purpose::Refound) => (vec![Action::Refound], Reason::Working(OperationKind::Restore)),
        Ok(Purpose::Join(node)) => (vec![Action::Join(node.clone())], Reason::Joining(node)),
        Err(reason) => (vec![], reason),
    }
}

fn on_ready_data(want: &Desired, view: &NodeView, now: Tick) -> (Vec<Action>, Reason) {
    match (want.engine, &view.engine) {
        (EngineWanted::Running, EngineView::Stopped { crashes, since }) => {
            on_stopped_engine(view, backoff_left_ms(*crashes, *since, now))
        }
        (EngineWanted::Running, EngineView::Starting { .. }) => (vec![], Reason::EngineStarting),
        (EngineWanted::Running, EngineView::Running { in_recovery: true, .. }) if !want.replays => {
            on_standby(view)
        }
        (EngineWanted::Running, EngineView::Running { timeline, .. }) => match deposed(want, view, *timeline)
        {
            Some(step_down) => step_down,
            None => on_running_engine(want, view),
        },
        (EngineWanted::Stopped, EngineView::Starting { .. } | EngineView::Running { .. }) => {
            (vec![Action::HoldGate(GateClosed::Stopping), Action::StopEngine], Reason::StoppedByOperator)
        }
        (EngineWanted::Stopped, EngineView::Stopped { .. }) => (vec![], Reason::StoppedByOperator),
        (_, EngineView::Stopping { .. }) => (vec![], Reason::EngineStopping),
        (_, EngineView::Unkillable { pid }) => (vec![], Reason::EngineUnkillable(*pid)),
    }
}

/// A reign that has ended elsewhere, or that this member promised to take no part in any more. The promise comes first: by it
/// the engine starts as a standby from now on.
fn deposed(want: &Desired, view: &NodeView, timeline: Term) -> Option<(Vec<Action>, Reason)> {
    let promised = view.promise.as_ref().map(|promise| promise.max_term);
    if want.replays {
        return None;
    }
    let stop = [Action::HoldGate(GateClosed::PromisedHigher), Action::StopEngine];
    match members::reigning(view) {
        Some(reigning) if promised.is_some_and(|promised| promised < reigning.rule.id.term) => {
            let promise = Action::Promise(reigning.rule.clone());
            let actions = std::iter::once(promise).chain(stop).collect();
            Some((actions, Reason::Deposed(reigning.rule.id)))
        }
        Some(_) | None => promised
            .filter(|promised| *promised > timeline)
            .map(|promised| (stop.to_vec(), Reason::Recruited(promised))),
    }
}

/// A server in recovery follows whoever reigns, once that term is promised.
fn on_standby(view: &NodeView) -> (Vec<Action>, Reason) {
    let promised = view.promise.as_ref().map(|promise| promise.max_term);
    let Some(reigning) = members::reigning(view) else {
        return (vec![], Reason::NoPrimary);
    };
    let (node, rule) = (&reigning.peer.node, reigning.rule);
    match (&view.part, promised) {
        (_, Some(promised)) if promised > rule.id.term => (vec![], Reason::Recruited(promised)),
        (_, Some(promised)) if promised < rule.id.term => (
            vec![Action::Promise(rule.clone()), Action::Follow(node.clone())],
            Reason::Following(node.clone()),
        ),
        (Part::Rewinds { .. }, _) => {
            let onto = rule.id.term;
            (vec![Action::Rewind(onto)], Reason::Rewinding(onto, RewindStage::Copying))
        }
        (Part::Diverged { why }, _) => {
            let own = members::own(view);
            let counted = rule.voters.iter().any(|voter| Some(&voter.member) == own.as_ref());
            if counted || !reigning.settled {
                return (vec![], Reason::Diverged(why.clone()));
            }
            (vec![Action::GiveUpData, Action::StopEngine], Reason::Diverged(why.clone()))
        }
        (
            Part::None
            | Part::Writes { .. }
            | Part::Follows { .. }
            | Part::Recruited { .. }
            | Part::Waits { .. },
            _,
        ) => (vec![Action::Follow(node.clone())], Reason::Following(node.clone())),
    }
}

/// A disk that was away may hold an older reign than the repository knows of: what was acknowledged since is not on it.
/// A repository that does not answer holds nothing up (I12).
fn on_stopped_engine(view: &NodeView, again_in_ms: u64) -> (Vec<Action>, Reason) {
    let promised = view.promise.as_ref().map(|promise| promise.max_term);
    // It comes up as a standby then, whatever it was, and follows if its log allows it.
    let begun = members::reigning(view).filter(|reigning| promised < Some(reigning.rule.id.term));
    if let (Some(reigning), 0) = (begun, again_in_ms) {
        return (vec![Action::Promise(reigning.rule.clone()), Action::StartEngine], Reason::StartingEngine);
    }
    match &view.repository {
        RepositoryView::Unknown => (vec![], Reason::AskingRepository),
        RepositoryView::Ready { newest_term, .. }
            if promised.is_some_and(|promised| promised < *newest_term) =>
        {
            (vec![], Reason::Superseded(*newest_term))
        }
        RepositoryView::Ready { .. }
        | RepositoryView::Disabled
        | RepositoryView::Unreachable { .. }
        | RepositoryView::Empty => {
            if again_in_ms == 0 {
                (vec![Action::StartEngine], Reason::StartingEngine)
            } else {
                (vec![], Reason::EngineCrashed { again_in_ms })
            }
        }
    }
}

fn on_running_engine(want: &Desired, view: &NodeView) -> (Vec<Action>, Reason) {
    let shipping_wanted = match (&view.gate, &view.repository) {
        (Gate::Open { .. } | Gate::ReadOnly { .. }, RepositoryView::Ready { .. }) => !view.log.running,
        (Gate::Open { .. } | Gate::ReadOnly { .. } | Gate::Closed { .. }, _) => false,
    };
    let mut actions = if shipping_wanted { vec![Action::StartShipping] } else { vec![] };
    if want.has_peers && !shipping_wanted && needs_a_backup(view) {
        actions.push(Action::StartBackup);
    }
    let borrowers = members::borrowers(view, &BTreeSet::new());
    if let Part::Writes { lends, .. } = &view.part
        && !borrowers.is_subset(lends)
    {
        actions.push(Action::Checkpoint);
    }
    let reason = match &view.gate {
        Gate::Open { term } => Reason::Serving(*term),
        Gate::ReadOnly { term } => Reason::ServingReads(*term),
        Gate::Closed { why } => Reason::GateClosed(*why),
    };
    (actions, reason)
}

/// Nodes join by restoring: without a backup none can.
fn needs_a_backup(view: &NodeView) -> bool {
    let none = matches!(&view.repository, RepositoryView::Ready { newest_backup: None, .. });
    let serves = matches!(view.gate, Gate::Open { .. } | Gate::ReadOnly { .. });
    let lately = view.operations.iter().any(|operation| {
        operation.kind == OperationKind::Backup
            && (matches!(operation.state, OperationState::Running { .. })
                || view.at.millis_since(operation.since) < BACKUP_AGAIN_MS)
    });
    none && serves && !lately
}

fn running_operation(view: &NodeView) -> Option<OperationKind> {
    view.operations.iter().find_map(|operation| match operation.state {
        OperationState::Running { .. } if holds_the_node(operation.kind) => Some(operation.kind),
        OperationState::Running { .. }
        | OperationState::Done { .. }
        | OperationState::Failed { .. }
        | OperationState::Refused { .. } => None,
    })
}

/// Whether work is about this node's own volume or data. A backup only reads; the others are about the cluster, and this
/// node goes on with its part in it.
const fn holds_the_node(kind: OperationKind) -> bool {
    match kind {
        OperationKind::Bootstrap
        | OperationKind::Restore
        | OperationKind::Format
        | OperationKind::Join
        | OperationKind::Rewind => true,
        OperationKind::Backup
        | OperationKind::Failover
        | OperationKind::Switchover
        | OperationKind::ChangeMember => false,
    }
}

/// Milliseconds until the engine may be started again; 0 when it may now.
fn backoff_left_ms(crashes: u32, since: Option<Tick>, now: Tick) -> u64 {
    let (1.., Some(since)) = (crashes, since) else { return 0 };
    let pause = match crashes.checked_sub(2) {
        None => FIRST_PAUSE_MS,
        Some(more) => (1_000 << more.min(BACKOFF_MAX_MS.ilog2())).min(BACKOFF_MAX_MS),
    };
    pause.saturating_sub(now.millis_since(since))
}
