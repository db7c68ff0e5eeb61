//! Why founding fails. Whatever it is, it is begun again and goes on where it was; what differs is whether it can get
//! better by itself ([`FoundingError::needs_a_person`]), which decides how loudly it is told.
//!
//! Invariant, a test below: `what_may_pass_by_itself_calls_nobody`.

use std::time::Duration;

use holdfast_backup::log::LogError;
use holdfast_backup::repository::RepositoryError;
use holdfast_backup::rules::{ChainError, RuleError};
use holdfast_backup::store::{ConnectError, StoreError};
use holdfast_engine::postgres::session::SessionError;
use holdfast_engine::postgres::wal::SegmentSizeError;
use holdfast_model::{ParseIdError, Position};

use crate::helper::CallError;
use crate::jobs::OpenError;
use crate::ledger::LedgerError;
use crate::repo_watch::LookError;
use crate::supervisor::SupervisorError;
use crate::worker::job::JobRetry;
use crate::worker::{JobError, VolumeCallError};

/// Why founding failed.
#[derive(Debug, thiserror::Error)]
pub enum FoundingError {
    /// The repository has nothing to found from.
    #[error(
        "the repository holds no usable backup of this history: take one with 'holdfast backup create' while a node serves"
    )]
    NoBackup,
    /// The repository has lost the cluster since it was decided to refound it.
    #[error("the repository holds no cluster of this name any more")]
    NoCluster,
    /// The backup is of another major version than the engine here.
    #[error("backup {id} is of PostgreSQL {backup}, and [engine] bin_dir is of {own}: install {backup}")]
    Major {
        /// The backup.
        id: String,
        /// Its major version.
        backup: u32,
        /// The major version of `bin_dir`.
        own: u32,
    },
    /// The worker that was to serve recovery its log ended.
    #[error("the log worker ended before it served")]
    NoLog,
    /// There is no term above those that were seen.
    #[error("terms are used up")]
    NoTerm,
    /// Rows are missing: recovery took something else for the end of the log.
    #[error("replay ended at {replayed}, and the log ends at {expected}: it ended early")]
    EndedEarly {
        /// Where it ended.
        replayed: Position,
        /// Where it should have.
        expected: Position,
    },
    /// The newest rule names other nodes, and no operator said that they are lost.
    #[error(
        "node {others} may still hold and serve this cluster: make sure that it never does again, then run 'holdfast restore'"
    )]
    OthersMayLive {
        /// Their names.
        others: String,
    },
    /// The configuration names none.
    #[error("no [repository] is configured")]
    NoRepository,
    /// The ledger could not be read or written.
    #[error("use the ledger")]
    Ledger(#[from] LedgerError),
    /// The volume's records could not be written.
    #[error("write the volume's records")]
    Desk(#[from] VolumeCallError),
    /// No client of the repository could be made.
    #[error("connect to the repository")]
    Connect(#[from] ConnectError),
    /// The repository does not take the new cluster.
    #[error("tell the repository of the cluster")]
    Create(#[from] RepositoryError),
    /// The repository could not be looked at.
    #[error("look at the repository")]
    Look(#[from] LookError),
    /// The cluster's part of it could not be opened.
    #[error("use the repository")]
    Open(#[from] OpenError),
    /// Rules could not be read, or one could not be reserved.
    #[error("read and reserve rules")]
    Rules(#[from] RuleError),
    /// The rules make no chain.
    #[error("follow the chain of rules")]
    Chain(#[from] ChainError),
    /// Something in the repository could not be listed or kept.
    #[error("list or keep what is in the repository")]
    Store(#[from] StoreError),
    /// Shipped log could not be read.
    #[error("find the end of the shipped log")]
    Log(#[from] LogError),
    /// The repository declares segments that no server has.
    #[error("cut shipped log into segments")]
    Segments(#[from] SegmentSizeError),
    /// The data record names something else than a backup.
    #[error("read the name of the backup to restore")]
    BackupName(#[from] ParseIdError),
    /// The root helper did not start a worker.
    #[error("start a worker")]
    Helper(#[from] CallError),
    /// A worker failed.
    #[error("run a worker")]
    Job(#[from] JobError),
    /// A worker took too long.
    #[error("worker gave no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// `initdb` failed.
    #[error("run initdb")]
    InitDb(#[from] SupervisorError),
    /// The restored server did not say where its replay ended.
    #[error("ask where replay ended")]
    Session(#[from] SessionError),
}

impl FoundingError {
    /// Whether it stays as it is until somebody does something. What nobody can tell counts as passing.
    #[must_use]
    pub const fn needs_a_person(&self) -> bool {
        match self {
            Self::NoBackup
            | Self::NoCluster
            | Self::Major { .. }
            | Self::NoTerm
            | Self::EndedEarly { .. }
            | Self::OthersMayLive { .. }
            | Self::NoRepository
            | Self::Connect(_)
            | Self::Chain(_)
            | Self::Segments(_)
            | Self::BackupName(_) => true,
            Self::Create(err) | Self::Open(OpenError::Open(err)) | Self::Look(LookError::Find(err)) => {
                of_repository(err)
            }
            Self::Open(OpenError::Connect(_)) | Self::Look(LookError::Connect(_) | LookError::Several(_)) => {
                true
            }
            Self::Rules(err) | Self::Look(LookError::Rules(err)) => of_rules(err),
            Self::Store(err) | Self::Look(LookError::List(err)) => !err.fault.is_transient(),
            Self::Log(err) => of_log(err),
            Self::Job(JobError::Failed(failure)) => match failure.retry {
                JobRetry::Later => false,
                JobRetry::Never => true,
            },
            Self::Look(LookError::Catalog(_) | LookError::Late)
            | Self::NoLog
            | Self::Ledger(_)
            | Self::Desk(_)
            | Self::Helper(_)
            | Self::Job(
                JobError::Refused(_)
                | JobError::NotStarted { .. }
                | JobError::Gone(_)
                | JobError::Setup(_)
                | JobError::Result(_),
            )
            | Self::Late(_)
            | Self::InitDb(_)
            | Self::Session(_) => false,
        }
    }
}

const fn of_repository(err: &RepositoryError) -> bool {
    match err {
        RepositoryError::Store(err) => !err.fault.is_transient(),
        RepositoryError::Connect(_)
        | RepositoryError::Record { .. }
        | RepositoryError::NameTaken { .. }
        | RepositoryError::NoCluster { .. }
        | RepositoryError::OtherCluster { .. }
        | RepositoryError::Format { .. } => true,
    }
}

const fn of_rules(err: &RuleError) -> bool {
    match err {
        RuleError::Store(err) => !err.fault.is_transient(),
        // Begun again above it.
        RuleError::Taken { .. } => false,
        RuleError::Record { .. } | RuleError::Misplaced { .. } => true,
    }
}

const fn of_log(err: &LogError) -> bool {
    match err {
        LogError::Store(err) => !err.fault.is_transient(),
        LogError::Object { .. }
        | LogError::Stray { .. }
        | LogError::Gap { .. }
        | LogError::Line { .. }
        | LogError::Incomplete { .. }
        | LogError::OtherHistory { .. }
        | LogError::OutOfRange { .. }
        | LogError::Misaligned { .. }
        | LogError::NotNext { .. }
        | LogError::OtherMember { .. }
        | LogError::Differs { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::job::JobFailure;
    use holdfast_backup::store::StoreFault;

    fn store(fault: StoreFault) -> StoreError {
        StoreError { doing: "read", key: "k".to_owned(), fault, source: None }
    }

    fn job(retry: JobRetry) -> FoundingError {
        FoundingError::Job(JobError::Failed(JobFailure { retry, why: "w".to_owned() }))
    }

    #[test]
    fn what_may_pass_by_itself_calls_nobody() {
        let passing = [
            store(StoreFault::Unreachable).into(),
            RepositoryError::Store(store(StoreFault::Busy)).into(),
            LookError::List(store(StoreFault::Unreachable)).into(),
            LogError::Store(store(StoreFault::Busy)).into(),
            FoundingError::Late(Duration::from_secs(1)),
            job(JobRetry::Later),
        ];
        let lasting = [
            store(StoreFault::Denied).into(),
            RepositoryError::Store(store(StoreFault::BucketMissing)).into(),
            LookError::List(store(StoreFault::Credentials)).into(),
            LookError::Several("a, b".to_owned()).into(),
            FoundingError::NoBackup,
            job(JobRetry::Never),
        ];
        assert!(passing.iter().all(|err| !err.needs_a_person()), "{passing:?}");
        assert!(lasting.iter().all(FoundingError::needs_a_person), "{lasting:?}");
    }
}
