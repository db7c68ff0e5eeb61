//! Puts evidence into the repository, for people. Nobody waits for it: what cannot be kept now is tried again for a while, and
//! the ledger has it too.

use std::time::Duration;

use holdfast_model::{ClusterId, Term};
use serde::Serialize;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::chain::Chain;
use crate::jobs::Access;
use crate::reconcile::Node;

/// Between two tries. A primary's zone that is lost takes a store with it that is to come back, too.
const AGAIN_AFTER: Duration = Duration::from_secs(15);
/// An hour.
const TRIES: u32 = 240;

/// Where evidence goes.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    /// None without a repository, or before the volume belongs to a cluster.
    access: Option<Access>,
    tasks: TaskTracker,
}

impl Shelf {
    /// Keeps `evidence` of something that happens as `term` begins. What is there of that name stays.
    pub(super) fn keep<T: Serialize + Send + Sync + 'static>(&self, term: Term, what: String, evidence: T) {
        let Some(access) = self.access.clone() else { return };
        self.tasks.spawn(async move {
            for tried in 1..=TRIES {
                let Err(err) = put(&access, term, &what, &evidence).await else { return };
                // Said once: what follows is told by the repository's own state.
                if tried == 1 {
                    warn!(error = %Chain(&*err), %term, what, "evidence not kept in the repository, trying again");
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            warn!(%term, what, "evidence not kept in the repository");
        });
    }
}

async fn put<T: Serialize + Sync>(
    access: &Access,
    term: Term,
    what: &str,
    evidence: &T,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Ok(access.open().await?.keep_evidence(term, what, evidence).await?)
}

impl Node {
    /// The cluster that the volume belongs to.
    pub(super) fn volume_cluster(&self) -> Option<ClusterId> {
        let desk = self.desk.borrow().clone();
        desk.and_then(|desk| desk.facts().identity.cluster_id)
    }

    pub(super) fn shelf(&self) -> Shelf {
        let access = self.volume_cluster().and_then(|cluster| self.access(cluster));
        Shelf { access, tasks: self.tasks.clone() }
    }
}
