//! Joining a cluster that reigns elsewhere: the newest backup and the shipped log after it, to follow whoever reigns.
//!
//! Order: promise the term that reigns, write what the directory is about to become, empty it, land. Nothing is told to the
//! repository, and no term is begun: a join that is cut off anywhere leaves nothing but its own volume behind.
//!
//! Not here: what comes after replay ([`super::settle`]), and following (`reconcile::follow`).

use std::time::Duration;

use holdfast_agent_decide::members;
use holdfast_backup::log::{LogError, LogReader};
use holdfast_backup::repository::Repository;
use holdfast_backup::rules::Chain;
use holdfast_model::{ByteCount, Promise, Rule};
use tracing::info;

use super::log_end::last_whole_record;
use super::refound::choose_backup;
use super::replay::{Replayed, replay};
use super::{FoundingError, run_job};
use crate::clock;
use crate::data::{DataRecord, JoinStage, Joining, Landing};
use crate::jobs::evidence::KeepTail;
use crate::jobs::restore::{ClearJob, RestoreDone, RestoreJob, RestoreOrders};
use crate::operations::Ticket;
use crate::reconcile::Node;
use crate::reconcile::volume::Desk;
use crate::repo_watch;

/// Between two looks for what the cluster's primary does by itself.
const AGAIN_EVERY: Duration = Duration::from_secs(2);

pub(super) async fn run(
    node: &Node,
    desk: &Desk,
    space: ByteCount,
    ticket: &Ticket,
) -> Result<String, FoundingError> {
    let config = node.config.repository.as_ref().ok_or(FoundingError::NoRepository)?;
    ticket.phase("reading the repository");
    let repository = repo_watch::open(config, &node.config.cluster).await?.ok_or(FoundingError::NoCluster)?;
    let cluster = repository.cluster().clone();
    let write =
        async |stage| desk.write_data(DataRecord::Joining(Joining { cluster: cluster.clone(), stage })).await;
    let landing = match desk.facts().data {
        Ok(Some(DataRecord::Joining(Joining { stage: JoinStage::Landing(landing), .. }))) => landing,
        known => {
            promise(node, desk, &repository).await?;
            let tail = match known {
                Ok(Some(DataRecord::Joining(Joining { stage: JoinStage::Begun { tail }, .. }))) => tail,
                Ok(_) | Err(_) => None,
            };
            write(JoinStage::Begun { tail: tail.clone() }).await?;
            desk.bind(cluster.clone()).await?;
            if let Some(tail) = tail {
                ticket.phase("keeping what the cluster discarded");
                let access = node.access(cluster.clone()).ok_or(FoundingError::NoRepository)?;
                let (wal_dir, member) = (node.setup.layout.wal_dir(), desk.member());
                let job = RestoreOrders::KeepTail(KeepTail { access, wal_dir, member, tail });
                run_job::<serde_json::Value>(node, &job, ticket).await?;
            }
            ticket.phase("clearing the data directory");
            let data_dir = node.setup.layout.data_dir.clone();
            run_job::<serde_json::Value>(node, &RestoreOrders::Clear(ClearJob { data_dir }), ticket).await?;
            let landing = begin(node, &repository, ticket).await?;
            write(JoinStage::Landing(landing.clone())).await?;
            landing
        }
    };
    info!(backup = landing.backup, from = %landing.from, end = %landing.end, "joining");
    let access = node.access(cluster.clone()).ok_or(FoundingError::NoRepository)?;
    let job = RestoreJob {
        access,
        backup: landing.backup.clone(),
        member: desk.member(),
        data_dir: node.setup.layout.data_dir.clone(),
        space,
        replay: replay(node, &Replayed::to_join(cluster.clone(), &landing)).await?,
    };
    let done: RestoreDone = run_job(node, &RestoreOrders::Land(Box::new(job)), ticket).await?;
    write(JoinStage::Landed(landing.clone())).await?;
    Ok(format!("restored {} of backup {}, to follow", done.bytes, landing.backup))
}

/// A member without a promise is a lost one: it takes part in nothing below the term that reigns.
async fn promise(node: &Node, desk: &Desk, repository: &Repository) -> Result<(), FoundingError> {
    let view = node.view.borrow().clone();
    let heard = members::reigning(&view).map(|reigning| reigning.rule.id.term);
    let kept = repository.rules().await?.last().map(|rule: &Rule| rule.id.term);
    let term = heard.max(kept).ok_or(FoundingError::NoCluster)?;
    if desk.facts().promise.is_some_and(|promise| promise.max_term >= term) {
        return Ok(desk.keep_promise().await?);
    }
    let (cluster, member) = (repository.cluster().clone(), desk.member());
    desk.promise(Promise { cluster, member, max_term: term, attempt: clock::random_bits() }).await?;
    Ok(())
}

/// Chooses what to land. The first backup of a young cluster is waited for, and so is log that is still being shipped.
async fn begin(node: &Node, repository: &Repository, ticket: &Ticket) -> Result<Landing, FoundingError> {
    loop {
        match look(node, repository).await {
            Err(FoundingError::NoBackup) => ticket.phase("waiting for the first backup of the cluster"),
            // Whoever reigns ships that, or has said that nobody can: then its next backup makes up for it.
            Err(FoundingError::Log(LogError::Incomplete { term, have, need })) if anybody_reigns(node) => {
                let missing = format!("the log of term {term} from {have} to {need}");
                ticket.phase(&format!("waiting for {missing}, which the primary of that term did not ship"));
            }
            found => return found,
        }
        tokio::time::sleep(AGAIN_EVERY).await;
    }
}

/// With nobody left who could ship what is missing, the node goes on to what else it may do.
fn anybody_reigns(node: &Node) -> bool {
    members::reigning(&node.view.borrow()).is_some()
}

/// The newest backup with the log after it.
async fn look(node: &Node, repository: &Repository) -> Result<Landing, FoundingError> {
    let rules = repository.rules().await?;
    let newest = rules.last().ok_or(FoundingError::NoCluster)?;
    let chain = Chain::to(newest.id.term, &rules)?;
    let manifest = choose_backup(node, repository, &chain, None).await?;
    let reader = LogReader::open(repository, &chain, manifest.id.term(), manifest.id.start()).await?;
    let from = newest.id.term;
    let end = if newest.start.lsn() == Some(reader.end()) {
        reader.end()
    } else {
        last_whole_record(repository, reader, from, manifest.id.start()).await?
    };
    // Before the backup's end the data is not consistent.
    let end = end.max(manifest.stop);
    Ok(Landing { backup: manifest.id.to_string(), from, end: end.into() })
}
