//! What a restore worker does: lands a base on the volume, verified and fsynced, and writes what makes the server replay the log.
//!
//! Killed anywhere, it is run again with the same job and goes on: files that are proven to be on disk are kept. The
//! data record says `Restoring` until the daemon has heard that it ended well.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use holdfast_backup::restore::{self, Restored};
use holdfast_backup::{BackupId, Meter};
use holdfast_engine::postgres::control::{self, Control};
use holdfast_engine::postgres::recovery::{Recovery, RecoveryFile};
use holdfast_engine::postgres::wal::history::History;
use holdfast_model::{ByteCount, Lsn, Member, Term};
use holdfast_storage_io::IoError;
use holdfast_storage_io::bulk::{BlockingIo, BulkIo};
use holdfast_storage_io::root::{EntryKind, Root};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evidence::{self, KeepTail};
use super::log::{self, LogJob};
use super::rewind::{self, RewindOrders};
use super::{Access, answer, later, never, parse, standby};
use crate::worker::job::{JobBody, JobContext, JobFailure, JobRetry, Reporter};

/// What a restore worker may be told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum RestoreOrders {
    /// Land a base.
    Land(Box<RestoreJob>),
    /// Serve recovery its log.
    ServeLog(LogJob),
    /// Make a landed base replay, again, from where it is.
    Prepare(PrepareJob),
    /// Empty a data directory that an initialisation left behind half made.
    Clear(ClearJob),
    /// Keep the log that a diverged member has beyond the cluster's, before its directory is emptied.
    KeepTail(KeepTail),
    /// A step of a rewind.
    Rewind(RewindOrders),
    /// Make files that a running server needs, unless they are there.
    EnsureFiles {
        /// The data directory on the volume.
        data_dir: PathBuf,
        /// Which.
        files: Vec<RecoveryFile>,
    },
    /// Make the next start one of a standby; answers [`standby::MadeStandby`].
    AsStandby {
        /// The data directory on the volume.
        data_dir: PathBuf,
    },
    /// Take away what must not be there when a server starts as what it was; answers [`standby::MadeStandby`].
    Mend {
        /// The data directory on the volume.
        data_dir: PathBuf,
    },
}

/// A landed base whose term has not begun yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PrepareJob {
    /// The data directory on the volume.
    pub data_dir: PathBuf,
    /// How the server gets its log.
    pub replay: Replay,
}

/// Which directory to empty. Only ever given while the data record says that nobody was served from it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClearJob {
    /// The data directory on the volume.
    pub data_dir: PathBuf,
}

/// What the job is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoreJob {
    /// Where from.
    pub access: Access,
    /// Which backup.
    pub backup: String,
    /// For whom.
    pub member: Member,
    /// The data directory on the volume.
    pub data_dir: PathBuf,
    /// Free space of the volume.
    pub space: ByteCount,
    /// How the server gets its log.
    pub replay: Replay,
}

/// How a restored server replays log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Replay {
    /// The reign whose log is replayed to its end.
    pub from: Term,
    /// Its ancestors, each with the position at which it was left, oldest first.
    pub ancestors: Vec<(Term, Lsn)>,
    /// The reign that begins then; none for a member that will follow.
    pub to: Option<Term>,
    /// `holdfastd` itself.
    pub program: PathBuf,
    /// The socket of the log job.
    pub socket: PathBuf,
}

impl Replay {
    /// In the engine's terms.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        Recovery {
            from: self.from,
            history: history(&self.ancestors),
            to: self.to,
            fetch_program: self.program.clone(),
            fetch_socket: self.socket.clone(),
        }
    }
}

/// The history file of a reign with these ancestors.
pub(super) fn history(ancestors: &[(Term, Lsn)]) -> History {
    ancestors.iter().fold(History::default(), |history, (term, end)| history.child(*term, *end, "holdfast"))
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoreDone {
    /// Bytes of all files.
    pub bytes: ByteCount,
    /// Parts that an earlier try had brought to disk.
    pub kept: u64,
}

/// The job's body.
#[derive(Debug)]
pub struct RestoreBody;

#[async_trait]
impl JobBody for RestoreBody {
    async fn run(&self, job: Value, context: JobContext) -> Result<Value, JobFailure> {
        let job = match parse(job)? {
            RestoreOrders::Land(job) => job,
            RestoreOrders::ServeLog(job) => return log::run(job, context).await,
            RestoreOrders::Prepare(job) => return prepare(job).await,
            RestoreOrders::Clear(job) => return clear(job).await,
            RestoreOrders::Rewind(orders) => return rewind::run(orders).await,
            RestoreOrders::KeepTail(job) => return evidence::keep_tail(job).await,
            RestoreOrders::EnsureFiles { data_dir, files } => {
                return standby::ensure_files(data_dir, files).await;
            }
            RestoreOrders::AsStandby { data_dir } => return standby::make_standby(data_dir).await,
            RestoreOrders::Mend { data_dir } => return standby::mend_log(data_dir).await,
        };
        let (cancelled, reporter) = (context.cancelled().clone(), context.reporter());
        tokio::select! {
            restored = Box::pin(land(&job, &reporter)) => {
                let Restored { bytes, pages_kept } = restored?;
                answer(&RestoreDone { bytes, kept: pages_kept })
            }
            () = cancelled.cancelled() => {
                Err(JobFailure { retry: JobRetry::Later, why: "the restore was cancelled".to_owned() })
            }
        }
    }
}

async fn land(job: &RestoreJob, reporter: &Reporter) -> Result<Restored, JobFailure> {
    let repository = job.access.open().await.map_err(|err| later(&err))?;
    let backup: BackupId = job.backup.parse().map_err(|err| never(&err))?;
    let plan = restore::plan(&repository, backup, job.space).await.map_err(|err| failure(&err))?;
    let root = Root::open(&job.data_dir).map_err(|err| later(&err))?;
    let io: Arc<dyn BulkIo> = Arc::new(BlockingIo::new(root.clone()));
    let (meter, progress) = Meter::new();
    let restoring = Box::pin(restore::run(&plan, io, &job.member, &meter));
    let restored = reporter.metered(progress, restoring).await.map_err(|err| failure(&err))?;
    let files = job.replay.recovery().files().map_err(|err| never(&err))?;
    let written = tokio::task::spawn_blocking(move || write_recovery(&root, &files));
    written.await.map_err(|err| later(&err))?.map_err(|err| later(&err))?;
    Ok(restored)
}

/// In order: `recovery.signal` is the last, and without it the server would take the base for a crashed primary.
fn write_recovery(root: &Root, files: &[RecoveryFile]) -> Result<(), IoError> {
    for file in files {
        root.replace(Path::new(&file.path), file.content.as_bytes(), 0o600)?;
    }
    Ok(())
}

/// Postgres removes `recovery.signal` before the new timeline's first checkpoint is in `pg_control`. Killed in between, it
/// would come up by crash recovery from the base, without the log that is not in `pg_wal`, on the old timeline. So before
/// each start, until the new timeline is in `pg_control`, what it left of that timeline is removed and the signal put back.
async fn prepare(job: PrepareJob) -> Result<Value, JobFailure> {
    let files = job.replay.recovery().files().map_err(|err| never(&err))?;
    let prepared = tokio::task::spawn_blocking(move || {
        let root = Root::open(&job.data_dir).map_err(|err| later(&err))?;
        let bytes =
            root.read(Path::new(control::PATH), 1 << 16).map_err(|err| later(&err))?.unwrap_or_default();
        let control = Control::parse(&bytes).map_err(|err| never(&err))?;
        let Some(to) = job.replay.to else { return write_recovery(&root, &files).map_err(|err| later(&err)) };
        if control.timeline >= to {
            return Ok(());
        }
        let of_new_term = format!("{:08X}", to.number());
        for entry in root.list(Path::new("pg_wal")).map_err(|err| later(&err))? {
            let name = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if entry.kind == EntryKind::File && name.starts_with(&of_new_term) {
                root.remove_file(&entry.path).map_err(|err| later(&err))?;
            }
        }
        root.sync_dir(Path::new("pg_wal")).map_err(|err| later(&err))?;
        write_recovery(&root, &files).map_err(|err| later(&err))
    });
    prepared.await.map_err(|err| later(&err))??;
    Ok(Value::Null)
}

/// Removes everything below the data directory, deepest first, without following a link.
async fn clear(job: ClearJob) -> Result<Value, JobFailure> {
    let cleared = tokio::task::spawn_blocking(move || {
        let root = Root::open(&job.data_dir)?;
        remove_below(&root, Path::new(""))?;
        root.sync_dir(Path::new(""))
    });
    cleared.await.map_err(|err| later(&err))?.map_err(|err: IoError| later(&err))?;
    Ok(Value::Null)
}

pub(super) fn remove_below(root: &Root, dir: &Path) -> Result<(), IoError> {
    for entry in root.list(dir)? {
        if entry.kind == EntryKind::Dir {
            remove_below(root, &entry.path)?;
            root.remove_dir(&entry.path)?;
        } else {
            root.remove_file(&entry.path)?;
        }
    }
    Ok(())
}

fn failure(err: &restore::RestoreError) -> JobFailure {
    use restore::RestoreError as E;
    match err {
        E::Refused(_)
        | E::TooLarge { .. }
        | E::ChunkSize { .. }
        | E::NotEmpty { .. }
        | E::OtherRestore { .. } => never(err),
        E::Manifest(_)
        | E::Store(_)
        | E::Chunk(_)
        | E::Disk(_)
        | E::State(_)
        | E::Changed { .. }
        | E::Panicked(_) => later(err),
    }
}
