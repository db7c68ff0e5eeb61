//! How an empty volume gets its data: [`bootstrap()`] makes the first member of a new cluster, [`refound()`] begins a new
//! reign over what the repository holds. Both run as tasks beside the reconcile loop, may be cut off anywhere, and are
//! begun again by it.
//!
//! Order, for both: persist the promise; write what the data directory is about to become; tell the repository
//! (create-only, so that of two only one gets the term); fill the directory; write that it is whole.
//!
//! * `bootstrap`: the first member.
//! * `join`: behind a cluster that reigns elsewhere.
//! * `refound`: which backup, which term, and landing it; `log_end` finds where its replay must end.
//! * `replay`: what a landed base needs to replay its log.
//! * `settle`: what is left to do once a founded engine runs.
//! * `error`: why founding fails, and whether a person must do something.
//!
//! Invariants: `only_one_refound_gets_a_term` (in `backup`), `another_nodes_cluster_is_not_refounded_unasked`.

mod bootstrap;
mod error;
mod join;
mod log_end;
mod refound;
mod replay;
mod settle;

use std::sync::Arc;
use std::time::Duration;

use holdfast_model::ByteCount;
use serde::de::DeserializeOwned;
use tracing::{error, warn};

use super::Node;
use super::volume::Desk;
use crate::chain::Chain as Causes;
use crate::hands;
use crate::jobs::restore::RestoreOrders;
use crate::operations::Ticket;

pub use error::FoundingError;
pub(super) use replay::{Replayed, prepare};

const WORKER_DEADLINE: Duration = Duration::from_secs(10);
/// Before founding that failed is begun again.
const AGAIN_AFTER: Duration = Duration::from_secs(3);

/// Makes the first member of a new cluster.
pub async fn bootstrap(node: Arc<Node>, desk: Arc<Desk>, ticket: Ticket) {
    let result = Box::pin(bootstrap::run(&node, &desk, &ticket)).await;
    end(&node, ticket, result).await;
}

/// Begins, or goes on with, a new reign over what the repository holds.
pub async fn refound(node: Arc<Node>, desk: Arc<Desk>, space: ByteCount, ticket: Ticket) {
    let result = Box::pin(refound::run(&node, &desk, space, &ticket)).await;
    end(&node, ticket, result).await;
}

/// Restores behind a cluster that reigns elsewhere.
pub async fn join(node: Arc<Node>, desk: Arc<Desk>, space: ByteCount, ticket: Ticket) {
    let result = Box::pin(join::run(&node, &desk, space, &ticket)).await;
    end(&node, ticket, result).await;
}

async fn end(node: &Node, ticket: Ticket, result: Result<String, FoundingError>) {
    match result {
        Ok(done) => ticket.end(Ok(done)),
        Err(err) => {
            if err.needs_a_person() {
                error!(error = %Causes(&err), "founding failed, beginning again soon");
            } else {
                warn!(error = %Causes(&err), "founding failed, beginning again soon");
            }
            // While the ticket is open nothing is begun anew, so that a failure is not tried in a tight loop.
            ticket.phase(&format!("waiting to try again: {}", Causes(&err)));
            tokio::time::sleep(AGAIN_AFTER).await;
            ticket.end(Err(&err));
        }
    }
    node.repository_wake.notify_one();
    node.wake.notify_one();
}

/// Runs a job of the restore worker to its end.
async fn run_job<T: DeserializeOwned>(
    node: &Node,
    orders: &RestoreOrders,
    ticket: &Ticket,
) -> Result<T, FoundingError> {
    hands::run_job(&node.helper, orders, |progress| ticket.progress(progress)).await
}
