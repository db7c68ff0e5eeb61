//! A new reign over what the repository holds: chooses the backup and the term, makes both durable on the volume before
//! anything follows from them, reserves the term, and lands the backup.
//!
//! Invariant, a test below: `another_nodes_cluster_is_not_refounded_unasked`.

use holdfast_backup::backup::Backup;
use holdfast_backup::log::LogReader;
use holdfast_backup::manifest::Manifest;
use holdfast_backup::repository::Repository;
use holdfast_backup::restore;
use holdfast_backup::rules::{Chain, RuleError};
use holdfast_model::{ByteCount, NodeName, Promise, Rule, RuleId, Term, Voter, VoterKind};
use tracing::{info, warn};

use super::log_end::last_whole_record;
use super::replay::{Replayed, replay};
use super::{FoundingError, run_job};
use crate::chain::Chain as Causes;
use crate::clock;
use crate::data::{DataRecord, Refounding};
use crate::jobs::restore::{RestoreDone, RestoreJob, RestoreOrders};
use crate::ledger::RestoreOrder;
use crate::operations::Ticket;
use crate::reconcile::Node;
use crate::reconcile::volume::Desk;
use crate::repo_watch;

pub(super) async fn run(
    node: &Node,
    desk: &Desk,
    space: ByteCount,
    ticket: &Ticket,
) -> Result<String, FoundingError> {
    let config = node.config.repository.as_ref().ok_or(FoundingError::NoRepository)?;
    ticket.phase("reading the repository");
    let repository = repo_watch::open(config, &node.config.cluster).await?.ok_or(FoundingError::NoCluster)?;
    let refounding = loop {
        let refounding = match desk.facts().data {
            Ok(Some(DataRecord::Restoring(begun))) if begun.rule.primary == desk.member() => begun,
            Ok(_) | Err(_) => begin_refounding(node, &repository, desk).await?,
        };
        match repository.put_rule(&refounding.rule).await {
            Ok(()) => break refounding,
            // Somebody else got the term: begin again above it.
            Err(RuleError::Taken { there }) => {
                warn!(term = %there.id.term, by = %there.primary, "term was taken, trying the next");
                begin_refounding(node, &repository, desk).await?;
            }
            Err(err) => return Err(err.into()),
        }
    };
    info!(term = %refounding.rule.id.term, backup = refounding.backup, start = %refounding.rule.start, "refounding");
    let access = node.access(refounding.cluster.clone()).ok_or(FoundingError::NoRepository)?;
    let job = RestoreJob {
        access,
        backup: refounding.backup.clone(),
        member: refounding.rule.primary.clone(),
        data_dir: node.setup.layout.data_dir.clone(),
        space,
        replay: replay(node, &Replayed::to_refound(&refounding)?).await?,
    };
    let done: RestoreDone = run_job(node, &RestoreOrders::Land(Box::new(job)), ticket).await?;
    desk.write_data(DataRecord::Landed(refounding.clone())).await?;
    Ok(format!(
        "restored {} of backup {} for term {}",
        done.bytes, refounding.backup, refounding.rule.id.term
    ))
}

/// Fixes everything about a refounding and makes it durable on the volume, promise first.
async fn begin_refounding(
    node: &Node,
    repository: &Repository,
    desk: &Desk,
) -> Result<Refounding, FoundingError> {
    let rules = repository.rules().await?;
    let newest = rules.last().ok_or(FoundingError::NoCluster)?;
    let chain = Chain::to(newest.id.term, &rules)?;
    let order = node.ledger.load::<RestoreOrder>()?;
    if order.is_none() {
        others_are_lost(newest, &node.config.node)?;
    }
    let wanted = order.and_then(|order| order.backup);
    let manifest = choose_backup(node, repository, &chain, wanted.as_deref()).await?;
    let reader = LogReader::open(repository, &chain, manifest.id.term(), manifest.id.start()).await?;
    let shipped_end = reader.end();
    // A reign that was reserved and never shipped anything ends where it began.
    let start = if newest.start.lsn() == Some(shipped_end) {
        shipped_end
    } else {
        last_whole_record(repository, reader, newest.id.term, manifest.id.start()).await?
    };
    let promised = desk.facts().promise.map(|promise| promise.max_term);
    let seen = repository.log_terms().await?.into_iter().chain(promised).chain([newest.id.term]);
    let term = seen.max().and_then(Term::next).ok_or(FoundingError::NoTerm)?;
    let member = desk.member();
    let voter = Voter { member: member.clone(), zone: desk.facts().identity.zone, kind: VoterKind::Full };
    let rule = Rule {
        id: RuleId { term, version: 1 },
        primary: member.clone(),
        voters: vec![voter],
        k: 0,
        previous: Some(newest.id),
        start: start.into(),
    };
    let cluster = repository.cluster().clone();
    let attempt = clock::random_bits();
    desk.promise(Promise { cluster: cluster.clone(), member, max_term: term, attempt }).await?;
    let (backup, shipped_end) = (manifest.id.to_string(), shipped_end.into());
    let refounding = Refounding { cluster: cluster.clone(), rule, attempt, backup, shipped_end };
    desk.write_data(DataRecord::Restoring(refounding.clone())).await?;
    desk.bind(cluster).await?;
    Ok(refounding)
}

/// Without an operator's word only what this node itself has lost may be refounded: another voter may still serve.
fn others_are_lost(newest: &Rule, own: &NodeName) -> Result<(), FoundingError> {
    let others: Vec<String> = newest
        .voters
        .iter()
        .filter(|voter| voter.member.node != *own)
        .map(|voter| voter.member.node.to_string())
        .collect();
    if others.is_empty() { Ok(()) } else { Err(FoundingError::OthersMayLive { others: others.join(", ") }) }
}

pub(super) async fn choose_backup(
    node: &Node,
    repository: &Repository,
    chain: &Chain,
    wanted: Option<&str>,
) -> Result<Box<Manifest>, FoundingError> {
    let mut usable = Vec::new();
    for backup in repository.backups().await? {
        match backup {
            Backup::Complete(manifest) if wanted.is_some_and(|id| id != manifest.id.to_string()) => {}
            Backup::Complete(manifest) => match restore::check_history(&manifest, chain) {
                Ok(()) => usable.push(manifest),
                Err(err) => warn!(backup = %manifest.id, error = %Causes(&err), "backup not usable"),
            },
            Backup::Unreadable { id, why } => {
                warn!(backup = %id, error = %Causes(&why), "backup not readable")
            }
        }
    }
    let manifest = usable.pop().ok_or(FoundingError::NoBackup)?;
    let (backup, own) = (manifest.engine.major, node.setup.version.major);
    if backup != own {
        return Err(FoundingError::Major { id: manifest.id.to_string(), backup, own });
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::{Incarnation, Lsn, Member};

    fn rule(nodes: &[&str]) -> Rule {
        let member =
            |node: &&str| Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(1) };
        let voter = |node| Voter { member: member(node), zone: "z".parse().unwrap(), kind: VoterKind::Full };
        Rule {
            id: RuleId { term: Term::FIRST, version: 1 },
            primary: member(&nodes[0]),
            voters: nodes.iter().map(voter).collect(),
            k: 0,
            previous: None,
            start: Lsn::ZERO.into(),
        }
    }

    #[test]
    fn another_nodes_cluster_is_not_refounded_unasked() {
        let own = "a".parse().unwrap();
        assert!(others_are_lost(&rule(&["a"]), &own).is_ok());
        let refused = others_are_lost(&rule(&["a", "b"]), &own).unwrap_err();
        assert!(refused.to_string().starts_with("node b may still hold"), "{refused}");
        assert!(others_are_lost(&rule(&["b"]), &own).is_err());
    }
}
