//! What is left to do once a founded engine runs: check where its replay ended, say that the data is whole, keep what may
//! have been lost for people, and forget the orders that were carried out.

use std::sync::Arc;
use std::time::Duration;

use holdfast_engine::postgres::session::Session;
use holdfast_model::status::{EngineView, Gate, RewindStage};
use holdfast_model::{ClusterId, Position};
use serde::Serialize;
use tracing::{error, info, warn};

use super::FoundingError;
use crate::chain::Chain as Causes;
use crate::clock;
use crate::data::{DataRecord, JoinStage, Joining, Landing, Refounding};
use crate::ledger::{BootstrapRequest, FoundedCluster, LedgerError, RestoreOrder};
use crate::reconcile::volume::Desk;
use crate::reconcile::{Node, Reconciler};
use crate::supervisor::stop::StopBy;

const QUERY_DEADLINE: Duration = Duration::from_secs(5);

/// What a refounding may have lost; kept in the repository, for people.
#[derive(Debug, Clone, Serialize)]
struct LossReport {
    what: &'static str,
    at: String,
    refounding: Refounding,
}

impl LossReport {
    fn of(refounding: &Refounding) -> Self {
        let what =
            "every commit that was acknowledged before the shipped end is there; those after it are lost";
        Self { what, at: clock::wall_clock(), refounding: refounding.clone() }
    }

    async fn keep(&self, node: &Node) -> Result<(), FoundingError> {
        let access = node.access(self.refounding.cluster.clone()).ok_or(FoundingError::NoRepository)?;
        let repository = access.open().await?;
        repository.keep_evidence(self.refounding.rule.id.term, "loss", self).await?;
        Ok(())
    }
}

impl Reconciler {
    /// What is left to do once a founded engine runs: check where replay ended, and forget what is done.
    pub(in crate::reconcile) async fn settle_founding(&mut self) {
        let Some(desk) = self.volume.desk() else { return };
        match desk.facts().data {
            Ok(Some(DataRecord::Landed(refounding))) => {
                if let Err(err) = self.settle_refounding(&desk, &refounding).await {
                    if err.needs_a_person() {
                        error!(error = %Causes(&err), "restored data not accepted");
                    } else {
                        warn!(error = %Causes(&err), "restored data not accepted yet, trying again");
                    }
                }
            }
            Ok(Some(DataRecord::Joining(Joining { cluster, stage: JoinStage::Landed(landing) }))) => {
                if let Err(err) = self.settle_join(&desk, cluster, &landing).await {
                    warn!(error = %Causes(&err), "restored data not handed over to streaming, trying again");
                }
            }
            Ok(Some(DataRecord::Rewinding(rewinding))) if rewinding.stage == RewindStage::Replaying => {
                if let Err(err) = self.settle_rewind(&desk, &rewinding).await {
                    info!(error = %Causes(&err), "the rewound copy does not take the place yet, trying again");
                }
            }
            Ok(Some(DataRecord::Ready { .. })) => {
                let open = matches!(self.node.gate.borrow().gate, Gate::Open { .. } | Gate::ReadOnly { .. });
                if open && let Err(err) = self.forget_orders() {
                    warn!(error = %Causes(&err), "orders that were carried out not forgotten");
                }
            }
            Ok(
                Some(
                    DataRecord::Initialising { .. }
                    | DataRecord::Restoring(_)
                    | DataRecord::Joining(_)
                    | DataRecord::Rewinding(_),
                )
                | None,
            )
            | Err(_) => {}
        }
    }

    /// Once replay has reached the end of the shipped log the server is stopped, and started again as one that streams: what
    /// it replays by is on its command line, and lasts as long as it.
    async fn settle_join(
        &mut self,
        desk: &Desk,
        cluster: ClusterId,
        landing: &Landing,
    ) -> Result<(), FoundingError> {
        let EngineView::Running { in_recovery: true, flushed, .. } = self.observe().engine else {
            return Ok(());
        };
        let reached = flushed >= landing.end;
        if !reached {
            return Ok(());
        }
        info!(replayed = %flushed, "replay reached the end of the shipped log: the rest is received from the primary");
        // The log worker serves until the next start: an engine that is refused a segment while it stops complains.
        self.node.engine.stop(StopBy::Fast).await;
        desk.write_data(DataRecord::Ready { cluster, reign: None }).await?;
        Ok(())
    }

    async fn settle_refounding(&mut self, desk: &Desk, refounding: &Refounding) -> Result<(), FoundingError> {
        let EngineView::Running { in_recovery: false, timeline, .. } = self.observe().engine else {
            return Ok(());
        };
        if timeline != refounding.rule.id.term {
            return Ok(());
        }
        let served = self.node.gate.borrow().rule.as_ref().is_some_and(|rule| rule.id >= refounding.rule.id);
        if served {
            let cluster = refounding.cluster.clone();
            desk.write_data(DataRecord::Ready { cluster, reign: Some(timeline) }).await?;
            warn!(
                term = %timeline, backup = refounding.backup, shipped_end = %refounding.shipped_end,
                "refounded: commits acknowledged after the shipped end are lost"
            );
            let node = Arc::clone(&self.node);
            let report = LossReport::of(refounding);
            self.node.tasks.spawn(async move {
                if let Err(err) = report.keep(&node).await {
                    warn!(error = %Causes(&err), "loss report not kept in the repository");
                }
            });
            return Ok(());
        }
        if !self.replay_checked {
            let session = Session::connect(&self.node.setup.layout, QUERY_DEADLINE).await?;
            let replayed = session
                .switch_point(refounding.rule.previous.ok_or(FoundingError::NoCluster)?.term, timeline)
                .await?;
            let (replayed, expected) = (Position::from(replayed), refounding.rule.start.clone());
            if replayed != expected {
                return Err(FoundingError::EndedEarly { replayed, expected });
            }
            info!(%replayed, "replay reached the end of the shipped log");
            self.replay_checked = true;
            self.log_worker = None;
        }
        Ok(())
    }

    fn forget_orders(&self) -> Result<(), LedgerError> {
        self.node.ledger.forget::<BootstrapRequest>()?;
        self.node.ledger.forget::<FoundedCluster>()?;
        self.node.ledger.forget::<RestoreOrder>()?;
        Ok(())
    }
}
