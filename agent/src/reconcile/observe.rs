//! What the node looks like now, from what its parts last said. Nothing here waits.

use holdfast_model::status::{
    DataView, EngineView, Gate, NodeView, OperationKind, OperationState, Progress, RepositoryView,
};

use super::Reconciler;
use super::volume::Volume;
use crate::data::{DataRecord, JoinStage, Joining};
use crate::engine_actor::Process;

impl Reconciler {
    pub(super) fn observe(&self) -> NodeView {
        let node = &self.node;
        let report = node.gate.borrow().clone();
        let engine = self.engine_view();
        let gate = match &engine {
            EngineView::Stopped { .. } => closed_by(&report.gate),
            EngineView::Starting { .. }
            | EngineView::Running { .. }
            | EngineView::Stopping { .. }
            | EngineView::Unkillable { .. } => report.gate,
        };
        NodeView {
            at: node.clock.now(),
            cluster: node.config.cluster.clone(),
            node: node.config.node.clone(),
            zone: node.config.zone.clone(),
            volume: self.volume_view(),
            data: self.data_view(),
            engine,
            gate,
            rule: report.rule,
            promise: self.volume.desk().and_then(|desk| desk.facts().promise),
            part: self.rewinding_part(report.part),
            peers: node.peers.view(node.clock.now()),
            repository: self.repository_view(),
            log: self.shipping.view(),
            breaches: node.breaches.view(report.weakened),
            operations: node.operations.list(),
            reason: String::new(),
        }
    }

    /// A repository that holds another cluster than this volume's is none that this node may write to.
    fn repository_view(&self) -> RepositoryView {
        let view = self.node.repository.borrow().clone();
        let own = self.volume.desk().and_then(|desk| desk.facts().identity.cluster_id);
        match (&view, own) {
            (RepositoryView::Ready { cluster, .. }, Some(own)) if *cluster != own => {
                RepositoryView::Unreachable {
                    why: format!("it holds another cluster, {cluster}, and this volume is of {own}"),
                }
            }
            (_, _) => view,
        }
    }

    fn engine_view(&self) -> EngineView {
        match self.node.engine.state() {
            Process::Stopped { crashes, since } => EngineView::Stopped { crashes, since },
            Process::Strangers { .. } => EngineView::Stopped { crashes: 0, since: None },
            Process::Stopping { process, since } => EngineView::Stopping { pid: process.pid, since },
            Process::Unkillable { process } => EngineView::Unkillable { pid: process.pid },
            Process::Alive { process, since } => {
                let report = self.node.gate.borrow();
                match report.engine.as_ref().filter(|_| report.process == Some(process)) {
                    Some(status) => EngineView::Running {
                        pid: process.pid,
                        version: status.version.clone(),
                        in_recovery: status.in_recovery,
                        timeline: status.term,
                        flushed: status.flushed.clone(),
                    },
                    None => EngineView::Starting { pid: process.pid, since },
                }
            }
        }
    }

    fn data_view(&self) -> DataView {
        let Volume::Mounted(mounted) = &self.volume else { return DataView::Unknown };
        if let Process::Strangers { who } = self.node.engine.state() {
            return DataView::Broken { why: format!("its engine lock is held by {who}: stop that first") };
        }
        let working = |kind| self.running(kind);
        match mounted.desk.facts().data {
            Err(why) => DataView::Broken { why },
            Ok(None) if working(OperationKind::Join).is_some() => DataView::Incomplete,
            Ok(None) => match (working(OperationKind::Bootstrap), working(OperationKind::Restore)) {
                (Some(_), _) => DataView::Initialising,
                (None, Some(progress)) => DataView::Restoring { progress },
                (None, None) => DataView::Absent,
            },
            Ok(Some(DataRecord::Initialising { .. })) => match working(OperationKind::Bootstrap) {
                Some(_) => DataView::Initialising,
                None => DataView::Incomplete,
            },
            Ok(Some(DataRecord::Restoring(_))) => match working(OperationKind::Restore) {
                Some(progress) => DataView::Restoring { progress },
                None => DataView::Incomplete,
            },
            Ok(Some(DataRecord::Landed(refounding))) if refounding.rule.primary != mounted.desk.member() => {
                DataView::Broken { why: format!("it was restored for {}", refounding.rule.primary) }
            }
            Ok(Some(DataRecord::Joining(Joining {
                stage: JoinStage::Begun { .. } | JoinStage::Landing(_),
                ..
            }))) => match working(OperationKind::Join) {
                Some(progress) => DataView::Restoring { progress },
                None => DataView::Incomplete,
            },
            Ok(Some(DataRecord::Rewinding(rewinding))) => {
                DataView::Rewinding { onto: rewinding.onto, stage: rewinding.stage }
            }
            Ok(Some(
                DataRecord::Landed(_)
                | DataRecord::Joining(Joining { stage: JoinStage::Landed(_), .. })
                | DataRecord::Ready { .. },
            )) => DataView::Ready,
        }
    }

    fn running(&self, kind: OperationKind) -> Option<Progress> {
        self.node.operations.list().into_iter().find_map(|operation| match operation.state {
            OperationState::Running { progress } if operation.kind == kind => Some(progress),
            OperationState::Running { .. }
            | OperationState::Done { .. }
            | OperationState::Failed { .. }
            | OperationState::Refused { .. } => None,
        })
    }
}

/// Without an engine nothing is served, whatever was last reported.
fn closed_by(reported: &Gate) -> Gate {
    use holdfast_model::status::GateClosed;
    match reported {
        Gate::Closed { why } => Gate::Closed { why: *why },
        Gate::ReadOnly { .. } | Gate::Open { .. } => Gate::Closed { why: GateClosed::NoEngine },
    }
}
