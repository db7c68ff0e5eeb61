//! How an empty volume gets its data: [`bootstrap`] makes the first member of a new cluster, [`refound`] begins a new
//! reign over what the repository holds. Both run as tasks beside the reconcile loop, may be cut off anywhere, and are
//! begun again by it.
//!
//! Order, for both: persist the promise; write what the data directory is about to become; tell the repository
//! (create-only, so that of two only one gets the term); fill the directory; write that it is whole.
//!
//! Invariants: `only_one_refound_gets_a_term` (in `backup`), `another_nodes_cluster_is_not_refounded_unasked`.

use std::sync::Arc;
use std::time::Duration;

use holdfast_backup::backup::Backup;
use holdfast_backup::log::{LogReader, Segment};
use holdfast_backup::manifest::Manifest;
use holdfast_backup::repository::{ClusterRecord, Repository};
use holdfast_backup::restore;
use holdfast_backup::rules::{Chain, RuleError};
use holdfast_engine::postgres::argv;
use holdfast_engine::postgres::session::Session;
use holdfast_engine::postgres::wal::Segments;
use holdfast_engine::postgres::wal::scan::Scanner;
use holdfast_model::status::{EngineView, Gate};
use holdfast_model::{ByteCount, ClusterId, Lsn, NodeName, Promise, Rule, RuleId, Term, Voter, VoterKind};
use serde::Serialize;
use tracing::{error, info, warn};

use super::volume::Desk;
use super::{Node, Reconciler};
use crate::chain::Chain as Causes;
use crate::clock;
use crate::daemon::places;
use crate::data::{DataRecord, Refounding};
use crate::helper::protocol::EngineProgram;
use crate::jobs::log::LogJob;
use crate::jobs::restore::{ClearJob, PrepareJob, Replay, RestoreDone, RestoreJob, RestoreOrders};
use crate::ledger::{BootstrapRequest, FoundedCluster, RestoreOrder};
use crate::operations::Ticket;
use crate::repo_watch;
use crate::worker::{JobEnd, JobHandle, Role};

const WORKER_DEADLINE: Duration = Duration::from_secs(10);
/// `initdb` on a slow disk.
const INITDB_DEADLINE: Duration = Duration::from_secs(300);
const QUERY_DEADLINE: Duration = Duration::from_secs(5);
/// A few small files.
const PREPARE_DEADLINE: Duration = Duration::from_secs(30);
/// Before founding that failed is begun again.
const AGAIN_AFTER: Duration = Duration::from_secs(3);

/// Why founding failed. Whatever it is, it is begun again, and goes on where it was.
pub type FoundingError = Box<dyn std::error::Error + Send + Sync>;

/// A refusal that needs a person.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "the repository holds no usable backup of this history: take one with 'holdfast backup create' while a node serves"
    )]
    NoBackup,
    #[error("the repository holds no cluster of this name any more")]
    NoCluster,
    #[error("backup {id} is of PostgreSQL {backup}, and [engine] bin_dir is of {own}: install {backup}")]
    Major { id: String, backup: u32, own: u32 },
    #[error("the log worker ended before it served")]
    NoLog,
    #[error("terms are used up")]
    NoTerm,
    #[error("replay ended at {replayed}, and the log ends at {expected}: it ended early")]
    EndedEarly { replayed: Lsn, expected: Lsn },
    #[error(
        "node {others} may still hold and serve this cluster: make sure that it never does again, then run 'holdfast restore'"
    )]
    OthersMayLive { others: String },
    #[error("no [repository] is configured")]
    NoRepository,
}

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
        let access = node.access(self.refounding.cluster.clone()).ok_or(Refused::NoRepository)?;
        let repository = access.open().await?;
        repository.keep_evidence(self.refounding.rule.id.term, "loss", self).await?;
        Ok(())
    }
}

/// Makes the first member of a new cluster.
pub async fn bootstrap(node: Arc<Node>, desk: Arc<Desk>, ticket: Ticket) {
    let result = Box::pin(try_bootstrap(&node, &desk, &ticket)).await;
    end(&node, ticket, result).await;
}

/// Begins, or goes on with, a new reign over what the repository holds.
pub async fn refound(node: Arc<Node>, desk: Arc<Desk>, space: ByteCount, ticket: Ticket) {
    let result = Box::pin(try_refound(&node, &desk, space, &ticket)).await;
    end(&node, ticket, result).await;
}

async fn end(node: &Node, ticket: Ticket, result: Result<String, FoundingError>) {
    match result {
        Ok(done) => ticket.end(Ok(done)),
        Err(err) => {
            error!(error = %Causes(&*err), "founding failed, beginning again soon");
            // While the ticket is open nothing is begun anew, so that a failure is not tried in a tight loop.
            ticket.phase(&format!("waiting to try again: {}", Causes(&*err)));
            tokio::time::sleep(AGAIN_AFTER).await;
            ticket.end(Err(&*err));
        }
    }
    node.repository_wake.notify_one();
    node.wake.notify_one();
}

async fn try_bootstrap(node: &Node, desk: &Desk, ticket: &Ticket) -> Result<String, FoundingError> {
    let founded = match (node.ledger.load::<FoundedCluster>()?, desk.facts().promise) {
        (Some(founded), _) => founded,
        // The ledger was lost in the middle: the promise on the volume says what was begun.
        (None, Some(promise)) if promise.max_term == Term::FIRST => {
            let Promise { cluster, attempt, .. } = promise;
            FoundedCluster { cluster, attempt, created: clock::wall_clock() }
        }
        (None, _) => {
            let asked = node.ledger.load::<BootstrapRequest>()?.and_then(|request| request.cluster);
            let fresh = || ClusterId::new(node.config.cluster.clone(), clock::random_bits());
            let cluster = asked.unwrap_or_else(fresh);
            let founded =
                FoundedCluster { cluster, attempt: clock::random_bits(), created: clock::wall_clock() };
            node.ledger.store(&founded)?;
            founded
        }
    };
    let FoundedCluster { cluster, attempt, created } = founded;
    let promise = Promise { cluster: cluster.clone(), member: desk.member(), max_term: Term::FIRST, attempt };
    desk.promise(promise).await?;
    desk.write_data(DataRecord::Initialising { cluster: cluster.clone(), attempt }).await?;
    desk.bind(cluster.clone()).await?;
    if let Some(config) = &node.config.repository {
        ticket.phase("telling the repository");
        let record = ClusterRecord { cluster: cluster.clone(), engine: "postgres".to_owned(), created };
        let repository = repo_watch::location(config)?.create(&record).await?;
        repository.put_rule(&first_rule(desk)).await?;
    }
    ticket.phase("clearing the data directory");
    let data_dir = node.setup.layout.data_dir.clone();
    run_job::<serde_json::Value>(node, &RestoreOrders::Clear(ClearJob { data_dir }), ticket).await?;
    ticket.phase("running initdb");
    let launch = argv::initdb(&node.setup.layout);
    let args = launch.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    node.supervisor.run_to_end(EngineProgram::InitDb, args, INITDB_DEADLINE).await?;
    desk.write_data(DataRecord::Ready { cluster: cluster.clone() }).await?;
    Ok(cluster.to_string())
}

/// As the repository has it: the log of the first reign is its whole log.
fn first_rule(desk: &Desk) -> Rule {
    crate::gate_loop::first_rule(&desk.member(), &desk.facts().identity.zone)
}

async fn try_refound(
    node: &Node,
    desk: &Desk,
    space: ByteCount,
    ticket: &Ticket,
) -> Result<String, FoundingError> {
    let config = node.config.repository.as_ref().ok_or(Refused::NoRepository)?;
    ticket.phase("reading the repository");
    let repository = repo_watch::open(config, &node.config.cluster).await?.ok_or(Refused::NoCluster)?;
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
    let access = node.access(refounding.cluster.clone()).ok_or(Refused::NoRepository)?;
    let job = RestoreJob {
        access,
        refounding: refounding.clone(),
        data_dir: node.setup.layout.data_dir.clone(),
        space,
        replay: replay(node, &refounding).await?,
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
    let newest = rules.last().ok_or(Refused::NoCluster)?;
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
    let start = if shipped_end == newest.start {
        shipped_end
    } else {
        last_whole_record(repository, reader, newest.id.term, manifest.id.start()).await?
    };
    let promised = desk.facts().promise.map(|promise| promise.max_term);
    let seen = repository.log_terms().await?.into_iter().chain(promised).chain([newest.id.term]);
    let term = seen.max().and_then(Term::next).ok_or(Refused::NoTerm)?;
    let member = desk.member();
    let voter = Voter { member: member.clone(), zone: desk.facts().identity.zone, kind: VoterKind::Full };
    let rule = Rule {
        id: RuleId { term, version: 1 },
        primary: member.clone(),
        voters: vec![voter],
        k: 0,
        previous: Some(newest.id),
        start,
    };
    let cluster = repository.cluster().clone();
    let attempt = clock::random_bits();
    desk.promise(Promise { cluster: cluster.clone(), member, max_term: term, attempt }).await?;
    let refounding =
        Refounding { cluster: cluster.clone(), rule, attempt, backup: manifest.id.to_string(), shipped_end };
    desk.write_data(DataRecord::Restoring(refounding.clone())).await?;
    desk.bind(cluster).await?;
    Ok(refounding)
}

/// Without an operator's word only what this node itself has lost may be refounded: another voter may still serve.
fn others_are_lost(newest: &Rule, own: &NodeName) -> Result<(), Refused> {
    let others: Vec<String> = newest
        .voters
        .iter()
        .filter(|voter| voter.member.node != *own)
        .map(|voter| voter.member.node.to_string())
        .collect();
    if others.is_empty() { Ok(()) } else { Err(Refused::OthersMayLive { others: others.join(", ") }) }
}

async fn choose_backup(
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
    let manifest = usable.pop().ok_or(Refused::NoBackup)?;
    let (backup, own) = (manifest.engine.major, node.setup.version.major);
    if backup != own {
        return Err(Refused::Major { id: manifest.id.to_string(), backup, own }.into());
    }
    Ok(manifest)
}

/// Where replay of the shipped log must end: behind its last whole record. Reads backwards, a segment at a time, until
/// one holds the start of a record.
async fn last_whole_record(
    repository: &Repository,
    mut reader: LogReader,
    term: Term,
    from: Lsn,
) -> Result<Lsn, FoundingError> {
    let segments = Segments::new(repository.log_segment_size())?;
    let end = reader.end();
    let mut first = segments.holding(term, Lsn::from_offset(end.offset().saturating_sub(1))).start;
    loop {
        let begin = first.max(from);
        let mut scanner = Scanner::new(segments, term, begin, first);
        let mut at = first;
        while at < end {
            match reader.segment(term, at.offset() / segments.bytes()).await? {
                Segment::Bytes(bytes) => {
                    let length = usize::try_from(end.bytes_since(at)).unwrap_or(usize::MAX).min(bytes.len());
                    scanner.push(&bytes[..length]);
                }
                Segment::PastEnd => break,
            }
            at = at.plus(segments.bytes());
        }
        let scanned = scanner.finish();
        if scanned.records > 0 || first <= from {
            return Ok(scanned.end);
        }
        first = Lsn::from_offset(first.offset() - segments.bytes());
    }
}

/// How the restored server of a refounding gets its log.
async fn replay(node: &Node, refounding: &Refounding) -> Result<Replay, FoundingError> {
    let access = node.access(refounding.cluster.clone()).ok_or(Refused::NoRepository)?;
    let rules = access.open().await?.rules().await?;
    let from = refounding.rule.previous.ok_or(Refused::NoCluster)?.term;
    let chain = Chain::to(from, &rules)?;
    let ancestors =
        chain.reigns().iter().filter_map(|reign| reign.end.map(|end| (reign.term, end))).collect();
    Ok(Replay {
        from,
        ancestors,
        to: refounding.rule.id.term,
        program: node.program.clone(),
        socket: places::fetch_socket(&node.config),
    })
}

/// Makes the landed base of a refounding ready to replay, whatever an earlier start left, and says how it replays.
pub(super) async fn prepare(node: &Node, refounding: &Refounding) -> Result<Replay, FoundingError> {
    let replay = replay(node, refounding).await?;
    let job = PrepareJob { data_dir: node.setup.layout.data_dir.clone(), replay: replay.clone() };
    let worker = node.helper.start_worker(Role::Restore, WORKER_DEADLINE).await?;
    let handle = JobHandle::start(worker, &RestoreOrders::Prepare(job), WORKER_DEADLINE).await?;
    while !matches!(tokio::time::timeout(PREPARE_DEADLINE, handle.next()).await??, JobEnd::Done(_)) {}
    Ok(replay)
}

/// Runs a job of the restore worker to its end.
async fn run_job<T: serde::de::DeserializeOwned>(
    node: &Node,
    orders: &RestoreOrders,
    ticket: &Ticket,
) -> Result<T, FoundingError> {
    let worker = node.helper.start_worker(Role::Restore, WORKER_DEADLINE).await?;
    let handle = JobHandle::start(worker, orders, WORKER_DEADLINE).await?;
    let mut progress = handle.progress();
    loop {
        tokio::select! {
            end = handle.next() => match end? { // cancel-safe
                JobEnd::Done(done) => return Ok(serde_json::from_value(done)?),
                JobEnd::Note(_) => {}
            },
            Ok(()) = progress.changed() => ticket.progress(progress.borrow_and_update().clone()), // cancel-safe
        }
    }
}

impl Reconciler {
    /// Starts the log worker if none serves, and waits until it does.
    pub(super) async fn ensure_log_worker(&mut self, refounding: &Refounding) -> Result<(), FoundingError> {
        // One that served an earlier try of the same recovery may have ended with it: always a fresh one.
        self.log_worker = None;
        let node = &self.node;
        let access = node.access(refounding.cluster.clone()).ok_or(Refused::NoRepository)?;
        let backup: holdfast_backup::BackupId = refounding.backup.parse()?;
        let job = LogJob {
            access,
            from: (backup.term(), backup.start()),
            to: refounding.rule.id.term,
            socket: places::fetch_socket(&node.config),
        };
        let worker = node.helper.start_worker(Role::Restore, WORKER_DEADLINE).await?;
        let handle = JobHandle::start(worker, &RestoreOrders::ServeLog(job), WORKER_DEADLINE).await?;
        let serving = tokio::time::timeout(Duration::from_secs(60), handle.next()).await??;
        match serving {
            JobEnd::Note(end) => info!(%end, "serving recovery its log"),
            JobEnd::Done(_) => return Err(Refused::NoLog.into()),
        }
        self.log_worker = Some(handle);
        Ok(())
    }

    /// What is left to do once a founded engine runs: check where replay ended, and forget what is done.
    pub(super) async fn settle_founding(&mut self) {
        let Some(desk) = self.volume.desk() else { return };
        match desk.facts().data {
            Ok(Some(DataRecord::Landed(refounding))) => {
                if let Err(err) = self.settle_refounding(&desk, &refounding).await {
                    error!(error = %Causes(&*err), "restored data not accepted");
                }
            }
            Ok(Some(DataRecord::Ready { .. })) => {
                let open = matches!(self.node.gate.borrow().gate, Gate::Open { .. } | Gate::ReadOnly { .. });
                if open && let Err(err) = self.forget_orders() {
                    warn!(error = %Causes(&*err), "orders that were carried out not forgotten");
                }
            }
            Ok(Some(DataRecord::Initialising { .. } | DataRecord::Restoring(_)) | None) | Err(_) => {}
        }
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
            desk.write_data(DataRecord::Ready { cluster }).await?;
            warn!(
                term = %timeline, backup = refounding.backup, shipped_end = %refounding.shipped_end,
                "refounded: commits acknowledged after the shipped end are lost"
            );
            let node = Arc::clone(&self.node);
            let report = LossReport::of(refounding);
            self.node.tasks.spawn(async move {
                if let Err(err) = report.keep(&node).await {
                    warn!(error = %Causes(&*err), "loss report not kept in the repository");
                }
            });
            return Ok(());
        }
        if !self.replay_checked {
            let session = Session::connect(&self.node.setup.layout, QUERY_DEADLINE).await?;
            let replayed = session
                .switch_point(refounding.rule.previous.ok_or(Refused::NoCluster)?.term, timeline)
                .await?;
            let expected = refounding.rule.start;
            if replayed != expected {
                return Err(Refused::EndedEarly { replayed, expected }.into());
            }
            info!(%replayed, "replay reached the end of the shipped log");
            self.replay_checked = true;
            self.log_worker = None;
        }
        Ok(())
    }

    fn forget_orders(&self) -> Result<(), FoundingError> {
        self.node.ledger.forget::<BootstrapRequest>()?;
        self.node.ledger.forget::<FoundedCluster>()?;
        self.node.ledger.forget::<RestoreOrder>()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::{Incarnation, Member};

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
            start: Lsn::ZERO,
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
