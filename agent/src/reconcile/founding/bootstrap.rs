//! The first member of a new cluster: an empty data directory, made by `initdb`, under term 1.
//!
//! What was begun is known from the ledger, and without it from the promise on the volume, so that a bootstrap that was
//! cut off goes on with the same cluster id.

use std::time::Duration;

use holdfast_backup::repository::{ClusterRecord, Location};
use holdfast_engine::postgres::argv;
use holdfast_model::{ClusterId, Lsn, Promise, Rule, Term};

use super::{FoundingError, run_job};
use crate::clock;
use crate::data::DataRecord;
use crate::helper::protocol::EngineProgram;
use crate::jobs::restore::{ClearJob, RestoreOrders};
use crate::ledger::{BootstrapRequest, FoundedCluster};
use crate::operations::Ticket;
use crate::reconcile::Node;
use crate::reconcile::volume::Desk;

/// `initdb` on a slow disk.
const INITDB_DEADLINE: Duration = Duration::from_secs(300);

pub(super) async fn run(node: &Node, desk: &Desk, ticket: &Ticket) -> Result<String, FoundingError> {
    let FoundedCluster { cluster, attempt, created } = what_is_founded(node, desk)?;
    let promise = Promise { cluster: cluster.clone(), member: desk.member(), max_term: Term::FIRST, attempt };
    desk.promise(promise).await?;
    desk.write_data(DataRecord::Initialising { cluster: cluster.clone(), attempt }).await?;
    desk.bind(cluster.clone()).await?;
    if let Some(config) = &node.config.repository {
        ticket.phase("telling the repository");
        let record = ClusterRecord { cluster: cluster.clone(), engine: "postgres".to_owned(), created };
        let repository = Location::connect(config)?.create(&record).await?;
        repository.put_rule(&first_rule(desk)).await?;
    }
    ticket.phase("clearing the data directory");
    let data_dir = node.setup.layout.data_dir.clone();
    run_job::<serde_json::Value>(node, &RestoreOrders::Clear(ClearJob { data_dir }), ticket).await?;
    ticket.phase("running initdb");
    let launch = argv::initdb(&node.setup.layout);
    let args = launch.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    node.supervisor.run_to_end(EngineProgram::InitDb, args, INITDB_DEADLINE).await?;
    desk.write_data(DataRecord::Ready { cluster: cluster.clone(), reign: Some(Term::FIRST) }).await?;
    Ok(cluster.to_string())
}

/// The cluster that was begun before, or a new one, which is then stored.
fn what_is_founded(node: &Node, desk: &Desk) -> Result<FoundedCluster, FoundingError> {
    match (node.ledger.load::<FoundedCluster>()?, desk.facts().promise) {
        (Some(founded), _) => Ok(founded),
        // The ledger was lost in the middle: the promise on the volume says what was begun.
        (None, Some(promise)) if promise.max_term == Term::FIRST => {
            let Promise { cluster, attempt, .. } = promise;
            Ok(FoundedCluster { cluster, attempt, created: clock::wall_clock() })
        }
        (None, _) => {
            let asked = node.ledger.load::<BootstrapRequest>()?.and_then(|request| request.cluster);
            let fresh = || ClusterId::new(node.config.cluster.clone(), clock::random_bits());
            let cluster = asked.unwrap_or_else(fresh);
            let founded =
                FoundedCluster { cluster, attempt: clock::random_bits(), created: clock::wall_clock() };
            node.ledger.store(&founded)?;
            Ok(founded)
        }
    }
}

/// As the repository has it: the log of the first reign is its whole log.
fn first_rule(desk: &Desk) -> Rule {
    crate::gate_loop::first_rule(&desk.member(), &desk.facts().identity.zone, Lsn::ZERO.into())
}
