//! What callers may ask of the daemon. Every order is written to the ledger before anything happens, and carried out by
//! the reconcile loop, which looks at the node afresh: a call that is repeated, or whose answer was lost, changes nothing
//! (I16).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_backup::backup::{Backup as Listed, CatalogError};
use holdfast_backup::manifest::Manifest;
use holdfast_backup::repository::Repository;
use holdfast_model::status::{
    DataView, Gate, NodeView, Operation, OperationKind, OperationState, RepositoryView, VolumeView,
};
use holdfast_model::{Lsn, Position, Rule, Vouch};
use holdfast_replication::account::LossCertificate;
use holdfast_replication::choose::Report;
use holdfast_storage::ops::Consent;
use tokio::sync::{Notify, watch};

use super::volumes;
use crate::api::control::{
    AllowWipe, AskNear, AskVote, AwaitPosition, Backup, BackupContent, BackupDetail, Bootstrap, CallError,
    ChangeMember, Close, Control, Failover, Follow, FormatVolume, LogRange, LogStatus, PlannedDevice,
    Promote, Reason, Recruit, Reopen, Restore, Switchover, Target, Vote, WipeConsent, WipeVolume,
};
use crate::chain::Chain;
use crate::clock;
use crate::jobs::EnginePlaces;
use crate::jobs::backup::{BackupDone, BackupJob};
use crate::ledger::{BootstrapRequest, EngineHeld, RestoreOrder};
use crate::operations::Ticket;
use crate::reconcile::Node;
use crate::repo_watch;
use crate::worker::{JobHandle, Role};
use holdfast_proto::refusal::Refusal;

const WORKER_DEADLINE: Duration = Duration::from_secs(10);
/// For an operation that the reconcile loop begins to appear in the view.
const BEGIN_DEADLINE: Duration = Duration::from_secs(15);

pub(super) fn failed(what: &str, err: &(dyn std::error::Error + 'static)) -> CallError {
    CallError::Failed { what: what.to_owned(), why: Chain(err).to_string() }
}

pub(super) fn refused(reason: Reason, missing: impl Into<String>, resolve: impl Into<String>) -> CallError {
    CallError::Refused(Refusal::new(reason, missing, resolve))
}

impl Node {
    async fn open_repository(&self) -> Result<Repository, CallError> {
        let none = || {
            refused(
                Reason::NoRepository,
                "no repository of this cluster",
                "configure [repository] and bootstrap or restore",
            )
        };
        let config = self.config.repository.as_ref().ok_or_else(none)?;
        match repo_watch::open(config, &self.config.cluster).await {
            Ok(Some(repository)) => self.check_own(repository),
            Ok(None) => Err(none()),
            Err(err) => Err(CallError::Unavailable { what: "the repository", why: Chain(&err).to_string() }),
        }
    }

    /// Nothing of this node goes into, or is read from, the repository of another cluster.
    fn check_own(&self, repository: Repository) -> Result<Repository, CallError> {
        let own = match &self.view.borrow().volume {
            VolumeView::Mounted { identity, .. } => identity.cluster_id.clone(),
            VolumeView::Unknown
            | VolumeView::Absent { .. }
            | VolumeView::Blank { .. }
            | VolumeView::Unmounted { .. } => None,
        };
        match own.filter(|own| own != repository.cluster()) {
            None => Ok(repository),
            Some(own) => {
                let missing = format!("the repository holds another cluster, {}", repository.cluster());
                let resolve = format!("point [repository] url to where {own} is kept");
                Err(refused(Reason::ClusterExists, missing, resolve))
            }
        }
    }

    /// The operation of a kind that runs, once the reconcile loop has begun it. One that is none of those `before` may have
    /// ended already: small work is done before it was ever seen to run.
    async fn begun(&self, kind: OperationKind, before: &[Operation]) -> Result<Operation, CallError> {
        let runs = |operation: &Operation| matches!(operation.state, OperationState::Running { .. });
        let is_new = |operation: &Operation| before.iter().all(|known| known.id != operation.id);
        self.shown(|operation| operation.kind == kind && (runs(operation) || is_new(operation))).await
    }

    /// The newest operation that is `wanted`, once it shows in the view: that is where the caller looks for it next.
    pub(super) async fn shown(&self, wanted: impl Fn(&Operation) -> bool) -> Result<Operation, CallError> {
        let mut view = self.view.subscribe();
        self.wake.notify_one();
        let shows = view.wait_for(|view| view.operations.iter().any(&wanted));
        let found = match tokio::time::timeout(BEGIN_DEADLINE, shows).await {
            Ok(Ok(view)) => view.operations.iter().rev().find(|operation| wanted(operation)).cloned(),
            Ok(Err(_)) | Err(_) => None,
        };
        found.ok_or_else(|| {
            let why = format!("the order is stored, and now: {}", self.view.borrow().reason);
            CallError::Unavailable { what: "the node", why }
        })
    }

    /// Begins a backup of the engine that serves.
    pub(crate) async fn begin_backup(&self) -> Result<Operation, CallError> {
        // Until the operation is listed, nobody else would see that one begins.
        let _begins = self.backup_begins.lock().await;
        let report = self.gate.borrow().clone();
        let (Some(rule), Gate::Open { .. } | Gate::ReadOnly { .. }) = (report.rule, report.gate) else {
            let resolve = "wait until the gate is open; see 'holdfast explain'";
            return Err(refused(Reason::EngineState, "the engine does not serve", resolve));
        };
        let running = self.operations.list().into_iter().any(|operation| {
            operation.kind == OperationKind::Backup
                && matches!(operation.state, OperationState::Running { .. })
        });
        if running {
            return Err(refused(
                Reason::Busy,
                "a backup is under way",
                "wait for it: 'holdfast operation list'",
            ));
        }
        let repository = self.open_repository().await?;
        let missing =
            || refused(Reason::NoRepository, "no repository is configured", "configure [repository]");
        let access = self.access(repository.cluster().clone()).ok_or_else(missing)?;
        let job = BackupJob {
            access,
            engine: EnginePlaces::from(&self.setup.layout),
            member: rule.primary.clone(),
            term: rule.id.term,
        };
        let worker = self.helper.start_worker(Role::Backup, WORKER_DEADLINE).await;
        let worker = worker.map_err(|err| failed("start the backup worker", &err))?;
        let handle = JobHandle::start(worker, &job, WORKER_DEADLINE).await;
        let handle = handle.map_err(|err| failed("start the backup", &err))?;
        let ticket = self.operations.begin(OperationKind::Backup, "beginning");
        let id = ticket.id().to_owned();
        let wake = Arc::clone(&self.repository_wake);
        self.tasks.spawn(follow_backup(handle, ticket, wake));
        self.shown(|operation| operation.id == id).await
    }
}

#[async_trait]
impl Control for Node {
    fn view(&self) -> watch::Receiver<Arc<NodeView>> {
        self.view.subscribe()
    }

    async fn plan_volume(&self) -> Result<Vec<PlannedDevice>, CallError> {
        volumes::plan(self).await
    }

    async fn format_volume(&self, request: FormatVolume) -> Result<Operation, CallError> {
        let begun = volumes::format(self, &request.target, &request.device, Consent::Blank)?;
        self.shown(|operation| operation.id == begun.id).await
    }

    async fn allow_wipe(&self, request: AllowWipe) -> Result<WipeConsent, CallError> {
        volumes::offer_wipe(self, &request.device).await
    }

    async fn wipe_volume(&self, request: WipeVolume) -> Result<Operation, CallError> {
        let token = request.token.clone().try_into().map_err(|_| {
            let missing = "the token is not one of this node's";
            refused(Reason::BadToken, missing, "ask for a fresh one: 'holdfast volume wipe' without --token")
        })?;
        let consent = Consent::Wipe { token, now_unix_ms: clock::unix_ms() };
        let begun = volumes::format(self, &request.target, &request.device, consent)?;
        self.shown(|operation| operation.id == begun.id).await
    }

    async fn bootstrap(&self, request: Bootstrap) -> Result<Operation, CallError> {
        let data = self.view.borrow().data.clone();
        if data == DataView::Ready {
            return Err(refused(
                Reason::DataPresent,
                "this node already holds data",
                "nothing: see 'holdfast status'",
            ));
        }
        if let RepositoryView::Ready { cluster, .. } = self.repository.borrow().clone() {
            let missing = format!("the repository already holds {cluster}");
            return Err(refused(Reason::ClusterExists, missing, "restore it, or use another name or prefix"));
        }
        let before = self.operations.list();
        let order = BootstrapRequest { at: clock::wall_clock(), cluster: request.cluster_id };
        self.ledger.store(&order).map_err(|err| failed("store the order", &err))?;
        self.begun(OperationKind::Bootstrap, &before).await
    }

    async fn start_engine(&self, _target: Target) -> Result<(), CallError> {
        self.ledger.forget::<EngineHeld>().map_err(|err| failed("store the order", &err))?;
        self.wake.notify_one();
        Ok(())
    }

    async fn stop_engine(&self, _target: Target) -> Result<(), CallError> {
        let order = EngineHeld { at: clock::wall_clock() };
        self.ledger.store(&order).map_err(|err| failed("store the order", &err))?;
        self.wake.notify_one();
        Ok(())
    }

    async fn restore(&self, request: Restore) -> Result<Operation, CallError> {
        let view = Arc::clone(&self.view.borrow());
        if view.data == DataView::Ready {
            let resolve = "nothing: a restore only ever fills an empty volume";
            return Err(refused(Reason::DataPresent, "this node already holds data", resolve));
        }
        self.open_repository().await?;
        let before = self.operations.list();
        let order = RestoreOrder { at: clock::wall_clock(), backup: request.backup };
        self.ledger.store(&order).map_err(|err| failed("store the order", &err))?;
        self.begun(OperationKind::Restore, &before).await
    }

    async fn create_backup(&self, target: Target) -> Result<Operation, CallError> {
        if let Some(begun) = self.operations.of_request(target.request.as_str()) {
            return Ok(begun);
        }
        let begun = self.begin_backup().await?;
        self.operations.note_request(target.request.as_str(), &begun.id);
        Ok(begun)
    }

    async fn list_backups(&self, limit: u32) -> Result<Vec<Backup>, CallError> {
        let repository = self.open_repository().await?;
        let listed = repository.backups().await.map_err(|err| failed("list backups", &err))?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let complete = listed.into_iter().rev().filter_map(|backup| match backup {
            Listed::Complete(manifest) => Some(line(&manifest)),
            Listed::Unreadable { .. } => None,
        });
        Ok(complete.take(limit).collect())
    }

    async fn show_backup(&self, id: &str) -> Result<BackupDetail, CallError> {
        let unknown =
            || refused(Reason::NotFound, format!("there is no backup {id}"), "see 'holdfast backup list'");
        let parsed = id.parse().map_err(|_| unknown())?;
        let repository = self.open_repository().await?;
        match repository.backup(parsed).await {
            Ok(manifest) => Ok(BackupDetail { backup: line(&manifest), content: content(&manifest) }),
            Err(CatalogError::Missing { .. }) => Err(unknown()),
            Err(err) => Err(failed("read the backup", &err)),
        }
    }

    async fn log_status(&self) -> Result<LogStatus, CallError> {
        let repository = self.open_repository().await?;
        let rules = repository.rules().await.map_err(|err| failed("read rules", &err))?;
        let log = self.view.borrow().log.clone();
        let mut ranges = Vec::new();
        for rule in &rules {
            let range =
                repository.log_range(rule.id.term).await.map_err(|err| failed("read shipped log", &err))?;
            let line = |(start, end): (Lsn, Lsn)| LogRange {
                term: rule.id.term,
                start: start.into(),
                end: end.into(),
            };
            ranges.extend(range.map(line));
        }
        Ok(LogStatus { log, ranges })
    }

    async fn rules(&self) -> Result<Vec<Rule>, CallError> {
        self.own_rules().await
    }

    async fn ask_vote(&self, request: AskVote) -> Result<Vote, CallError> {
        self.vote(request).await
    }

    async fn ask_near(&self, request: AskNear) -> Result<bool, CallError> {
        self.near(request).await
    }

    async fn recruit(&self, request: Recruit) -> Result<Report<Position>, CallError> {
        self.be_recruited(request).await
    }

    async fn promote(&self, request: Promote) -> Result<Rule, CallError> {
        self.be_promoted(request).await
    }

    async fn follow(&self, request: Follow) -> Result<(), CallError> {
        self.begin_following(request).await
    }

    async fn close(&self, request: Close) -> Result<Position, CallError> {
        self.close_gate(request).await
    }

    async fn await_position(&self, request: AwaitPosition) -> Result<(), CallError> {
        self.hold_position(request).await
    }

    async fn reopen(&self, request: Reopen) -> Result<(), CallError> {
        self.reopen_gate(request).await
    }

    async fn failover(&self, request: Failover, by: &str) -> Result<Operation, CallError> {
        self.begin_failover(request, by).await
    }

    async fn vouch(&self) -> Result<Option<Vouch>, CallError> {
        self.last_word()
    }

    async fn certificate(&self) -> Result<Option<LossCertificate>, CallError> {
        self.newest_certificate().await.map_err(|err| failed("read the newest certificate", &err))
    }

    async fn switchover(&self, request: Switchover) -> Result<Operation, CallError> {
        self.begin_switchover(request).await
    }

    async fn change_member(&self, request: ChangeMember) -> Result<Operation, CallError> {
        self.begin_change(request).await
    }
}

async fn follow_backup(handle: JobHandle, ticket: Ticket, wake: Arc<Notify>) {
    match handle.follow::<BackupDone>(|progress| ticket.progress(progress)).await {
        Ok(done) => ticket.end(Ok(done.id)),
        Err(err) => ticket.end(Err(&err)),
    }
    wake.notify_one();
}

fn line(manifest: &Manifest) -> Backup {
    Backup {
        id: manifest.id.to_string(),
        member: manifest.member.clone(),
        term: manifest.id.term(),
        start: manifest.id.start().into(),
        stop: manifest.stop.into(),
        started: manifest.created.clone(),
        finished: manifest.finished.clone(),
        engine_version: manifest.engine.version.clone(),
        data: manifest.totals.bytes,
        added: manifest.totals.new_bytes,
        parent: manifest.parent.map(|parent| parent.to_string()),
    }
}

fn content(manifest: &Manifest) -> BackupContent {
    BackupContent {
        files: manifest.totals.files,
        chunks: manifest.totals.chunks,
        packs: 0,
        shares_with: manifest.packs_of.iter().map(ToString::to_string).collect(),
    }
}
