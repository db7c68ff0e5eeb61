//! A node's view, and long work.

use holdfast_model::status::{
    BreachesView, DataView, EngineView, LogView, NodeView, Operation, OperationKind, OperationState,
    Progress, RepositoryView, RewindStage, VolumeView,
};
use holdfast_model::{Promise, Rule, Tick};

use super::{company, key_value, or_dash, with_header};
use crate::company::lines;

/// The whole view.
#[must_use]
pub fn node(view: &NodeView) -> String {
    let mut text = key_value([
        ("node", format!("{} of {}, zone {}", view.node, view.cluster, view.zone)),
        ("gate", view.gate.to_string()),
        ("engine", engine(&view.engine)),
        ("data", data(&view.data)),
        ("volume", volume(&view.volume)),
        ("rule", view.rule.as_ref().map_or_else(|| "none read".to_owned(), rule)),
        ("part", company::part(&view.part)),
        ("promise", view.promise.as_ref().map_or_else(|| "none read".to_owned(), promise)),
        ("repository", repository(&view.repository)),
        ("log", log(&view.log)),
        ("breaches", breaches(&view.breaches)),
        ("doing", view.reason.clone()),
    ]);
    if !view.peers.is_empty() {
        text.push_str("\n\n");
        text.push_str(&company::nodes(&lines(view)));
    }
    if !view.operations.is_empty() {
        text.push_str("\n\n");
        text.push_str(&operations(&view.operations));
    }
    text
}

/// The view on one line, for `--watch`.
#[must_use]
pub fn view_line(view: &NodeView) -> String {
    format!(
        "{}  {}  gate {}; part {}; engine {}; volume {}; {}",
        seconds(view.at),
        view.node,
        view.gate,
        company::part(&view.part),
        engine(&view.engine),
        volume_word(&view.volume),
        view.reason
    )
}

/// Long work.
#[must_use]
pub fn operations(operations: &[Operation]) -> String {
    let rows = operations.iter().map(|operation| {
        let (state, detail) = state(&operation.state);
        vec![
            operation.id.clone(),
            kind(operation.kind).to_owned(),
            seconds(operation.since),
            state.to_owned(),
            detail,
        ]
    });
    with_header(&["OPERATION", "KIND", "SINCE", "STATE", ""], rows)
}

/// One piece of long work on one line.
#[must_use]
pub fn operation_line(operation: &Operation) -> String {
    let (state, detail) = state(&operation.state);
    format!("{} {} {state} {detail}", kind(operation.kind), operation.id).trim_end().to_owned()
}

const fn kind(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Bootstrap => "bootstrap",
        OperationKind::Backup => "backup",
        OperationKind::Restore => "restore",
        OperationKind::Format => "format",
        OperationKind::Join => "join",
        OperationKind::Rewind => "rewind",
        OperationKind::Failover => "failover",
        OperationKind::Switchover => "switchover",
        OperationKind::ChangeMember => "change-member",
    }
}

fn state(state: &OperationState) -> (&'static str, String) {
    match state {
        OperationState::Running { progress: done } => ("running", progress(done)),
        OperationState::Done { result } => ("done", result.clone()),
        OperationState::Failed { why } => ("failed", why.clone()),
        OperationState::Refused { why } => ("refused", why.clone()),
    }
}

fn progress(progress: &Progress) -> String {
    let (done, total) = (progress.done.bytes(), progress.total.bytes());
    if total == 0 {
        let counted = if done == 0 { String::new() } else { format!(", {}", progress.done) };
        return format!("{}{counted}", progress.phase);
    }
    let percent = u128::from(done) * 100 / u128::from(total);
    format!("{}, {} of {} ({percent} %)", progress.phase, progress.done, progress.total)
}

fn seconds(tick: Tick) -> String {
    format!("{}.{} s", tick.millis() / 1000, tick.millis() % 1000 / 100)
}

fn engine(view: &EngineView) -> String {
    match view {
        EngineView::Stopped { crashes: 0, .. } => "stopped".to_owned(),
        EngineView::Stopped { crashes, .. } => format!("stopped, ended by itself {crashes} times"),
        EngineView::Starting { pid, since } => format!("starting since {}, pid {pid}", seconds(*since)),
        EngineView::Running { pid, version, in_recovery, timeline, flushed } => {
            let recovery = if *in_recovery { ", in recovery" } else { "" };
            format!("running {version}, pid {pid}, timeline {timeline}, at {flushed}{recovery}")
        }
        EngineView::Stopping { pid, since } => format!("stopping since {}, pid {pid}", seconds(*since)),
        EngineView::Unkillable { pid } => format!("cannot be killed, pid {pid}: waits for the disk"),
    }
}

fn data(view: &DataView) -> String {
    match view {
        DataView::Unknown => "not looked at".to_owned(),
        DataView::Absent => "none".to_owned(),
        DataView::Incomplete => "begun and not finished".to_owned(),
        DataView::Initialising => "a bootstrap is making it".to_owned(),
        DataView::Restoring { progress: done } => format!("restoring: {}", progress(done)),
        DataView::Ready => "ready".to_owned(),
        DataView::Rewinding { onto, stage } => {
            let stage = match stage {
                RewindStage::Copying => "a copy is brought back",
                RewindStage::Replaying => "a copy replays",
                RewindStage::Taking => "a copy takes its place",
            };
            format!("off the log of term {onto}: {stage}")
        }
        DataView::Broken { why } => format!("broken: {why}"),
    }
}

const fn volume_word(view: &VolumeView) -> &'static str {
    match view {
        VolumeView::Unknown => "unknown",
        VolumeView::Absent { .. } => "absent",
        VolumeView::Blank { .. } => "blank",
        VolumeView::Unmounted { .. } => "unmounted",
        VolumeView::Mounted { health, .. } => health.word(),
    }
}

fn volume(view: &VolumeView) -> String {
    match view {
        VolumeView::Unknown => "not looked at".to_owned(),
        VolumeView::Absent { verdicts } => {
            let seen: Vec<String> =
                verdicts.iter().map(|v| format!("{} is {}", v.device.path.display(), v.verdict)).collect();
            if seen.is_empty() {
                "no disk found".to_owned()
            } else {
                format!("none usable: {}", seen.join("; "))
            }
        }
        VolumeView::Blank { device } => format!("{device} is blank"),
        VolumeView::Unmounted { device } => format!("{device} is ours and not mounted"),
        VolumeView::Mounted { device, identity, health, space } => {
            let full = if space.nearly_full { ", nearly full" } else { "" };
            format!(
                "{device}, {health}, {} of {} free{full}, incarnation {}",
                space.free, space.total, identity.incarnation
            )
        }
    }
}

fn rule(rule: &Rule) -> String {
    format!(
        "{} from {}, primary {}, k = {}, {} voters",
        rule.id,
        rule.start,
        rule.primary,
        rule.k,
        rule.voters.len()
    )
}

fn promise(promise: &Promise) -> String {
    format!("nothing below term {}", promise.max_term)
}

fn repository(view: &RepositoryView) -> String {
    match view {
        RepositoryView::Unknown => "not asked yet".to_owned(),
        RepositoryView::Disabled => "not configured".to_owned(),
        RepositoryView::Unreachable { why } => format!("unreachable: {why}"),
        RepositoryView::Empty => "holds no cluster".to_owned(),
        RepositoryView::Ready { cluster, newest_term, newest_backup } => {
            format!("{cluster}, newest term {newest_term}, newest backup {}", or_dash(newest_backup.as_ref()))
        }
    }
}

pub(super) fn log(view: &LogView) -> String {
    let runs = if view.running { "shipping" } else { "not shipping" };
    let (shipped, acked) = (or_dash(view.shipped.as_ref()), or_dash(view.acked.as_ref()));
    let failing = view.failing.as_ref().map(|why| format!(", failing: {why}")).unwrap_or_default();
    format!("{runs}, shipped to {shipped}, acked to {acked}{failing}")
}

fn breaches(view: &BreachesView) -> String {
    let counted = [(view.cancelled, "answered without acks"), (view.ended, "shown without acks")];
    let counted =
        counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what}: {count}"));
    let told: Vec<String> = counted.chain(view.weakened.iter().map(ToString::to_string)).collect();
    if told.is_empty() { "none seen".to_owned() } else { told.join("; ") }
}
