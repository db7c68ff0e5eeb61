//! `grpc.health.v1` from the view, one service name per concern: ``, `agent`, `disk`, `engine`, `gate`.
//!
//! The empty name says what a load balancer wants to know: whether clients may write here.

use std::sync::Arc;

use holdfast_model::status::{EngineView, Gate, NodeView, VolumeView};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// What each name says for `view`.
#[must_use]
pub fn statuses(view: &NodeView) -> [(&'static str, bool); 5] {
    let open = matches!(view.gate, Gate::Open { .. });
    let disk = matches!(&view.volume, VolumeView::Mounted { health, .. } if health.is_healthy());
    let engine = matches!(view.engine, EngineView::Running { .. });
    [("", open), ("agent", true), ("disk", disk), ("engine", engine), ("gate", open)]
}

/// Reports each view until cancelled, or until the daemon no longer observes.
pub async fn follow(
    reporter: HealthReporter,
    mut view: watch::Receiver<Arc<NodeView>>,
    cancel: CancellationToken,
) {
    let mut reported = None;
    loop {
        let now = statuses(&view.borrow_and_update());
        if reported != Some(now) {
            for (name, serves) in now {
                let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
                reporter.set_service_status(name, status).await;
            }
            reported = Some(now);
        }
        let changed = tokio::select! {
            () = cancel.cancelled() => return, // cancel-safe
            changed = view.changed() => changed, // cancel-safe
        };
        if changed.is_err() {
            cancel.cancelled().await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::explain::tests::serving;
    use holdfast_model::status::GateClosed;
    use holdfast_model::volume::DiskHealth;

    #[test]
    fn each_concern_fails_by_itself() {
        assert!(statuses(&serving()).iter().all(|(_, serves)| *serves));
        let mut stalled = serving();
        stalled.gate = Gate::Closed { why: GateClosed::DiskUnsafe };
        if let VolumeView::Mounted { health, .. } = &mut stalled.volume {
            *health = DiskHealth::Stalled { for_ms: 2500 };
        }
        let failing: Vec<_> =
            statuses(&stalled).into_iter().filter(|(_, ok)| !ok).map(|(name, _)| name).collect();
        assert_eq!(failing, ["", "disk", "gate"]);
    }
}
