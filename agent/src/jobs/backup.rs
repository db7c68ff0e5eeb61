//! The backup job: a base backup of the running server into the repository, published once its log is there too.
//!
//! Order: begin the server's backup in a held session; copy all files; read `pg_control` last; end the server's
//! backup; add `backup_label`; publish when the log shipper has brought the repository past the stop position. Killed
//! anywhere, nothing is published and the chunks serve the next backup.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_backup::backup::{BackupError, BackupSpec, LateFile, Sealed, Stopped, copy};
use holdfast_backup::manifest::EngineFacts;
use holdfast_backup::{BackupId, Meter, RelPath};
use holdfast_engine::postgres::backup::BackupSession;
use holdfast_engine::postgres::control::{self, Control};
use holdfast_engine::postgres::page::PAGE_BYTES;
use holdfast_engine::postgres::session::Session;
use holdfast_engine::postgres::session::status::ServerFacts;
use holdfast_model::{ByteCount, Member, Term};
use holdfast_storage_io::bulk::BlockingIo;
use holdfast_storage_io::root::Root;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::source::DataDirectory;
use super::{Access, EnginePlaces, QUERY_DEADLINE, answer, later, never, parse};
use crate::clock;
use crate::worker::job::{JobBody, JobContext, JobFailure, Reporter};

/// How long the checkpoint with which a backup begins may take.
const START_DEADLINE: Duration = Duration::from_secs(3600);
/// How long to wait for the shipper to reach the backup's end; it ships each second.
const LOG_DEADLINE: Duration = Duration::from_secs(120);
const LOG_POLL: Duration = Duration::from_millis(500);
/// `pg_control` is written in one sector; a torn read is over in microseconds.
const CONTROL_TRIES: u32 = 10;

/// What the job is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupJob {
    /// Where to.
    pub access: Access,
    /// Of which server.
    pub engine: EnginePlaces,
    /// Who takes it.
    pub member: Member,
    /// In which reign.
    pub term: Term,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupDone {
    /// The backup's id.
    pub id: String,
    /// What it restores to.
    pub data: ByteCount,
    /// What it added to the repository, before compression.
    pub added: ByteCount,
}

/// The job's body.
#[derive(Debug)]
pub struct BackupBody;

#[async_trait]
impl JobBody for BackupBody {
    async fn run(&self, job: Value, context: JobContext) -> Result<Value, JobFailure> {
        let job: BackupJob = parse(job)?;
        let (cancelled, reporter) = (context.cancelled().clone(), context.reporter());
        tokio::select! {
            done = Box::pin(take(&job, &reporter)) => answer(&done?), // the only branch with effects
            () = cancelled.cancelled() => Err(JobFailure {
                retry: crate::worker::job::JobRetry::Later,
                why: "the backup was cancelled".to_owned(),
            }),
        }
    }
}

async fn take(job: &BackupJob, reporter: &Reporter) -> Result<BackupDone, JobFailure> {
    let repository = job.access.open().await.map_err(|err| later(&err))?;
    let layout = job.engine.layout();
    let facts = facts(&layout).await?;
    let session = BackupSession::begin(&layout, "holdfast", QUERY_DEADLINE, START_DEADLINE);
    let session = Arc::new(session.await.map_err(|err| later(&err))?);
    let source = list(job, Arc::clone(&session), facts.checksums).await?;
    let spec = BackupSpec {
        id: BackupId::random(job.term, session.start()),
        member: job.member.clone(),
        created: clock::wall_clock(),
        engine: engine_facts(&facts),
        expected: ByteCount::new(source.bytes()),
    };
    let (meter, progress) = Meter::new();
    let copying = Box::pin(copy(&repository, spec, Arc::new(source), &meter));
    let copied = reporter.metered(progress, copying).await.map_err(|err| failure(&err))?;
    let control = read_control(job).await?;
    let session = Arc::into_inner(session)
        .ok_or_else(|| later(&std::io::Error::other("a reader still holds the session")))?;
    let end = session.end().await.map_err(|err| later(&err))?;
    let stopped = Stopped {
        stop: end.stop,
        finished: clock::wall_clock(),
        files: vec![late("backup_label", end.label.into_bytes()), late(control::PATH, control)],
    };
    let sealed = copied.seal(stopped).await.map_err(|err| failure(&err))?;
    publish(&sealed, reporter).await?;
    let manifest = sealed.manifest();
    Ok(BackupDone {
        id: manifest.id.to_string(),
        data: manifest.totals.bytes,
        added: manifest.totals.new_bytes,
    })
}

async fn facts(layout: &holdfast_engine::postgres::Layout) -> Result<ServerFacts, JobFailure> {
    let session = Session::connect(layout, QUERY_DEADLINE).await.map_err(|err| later(&err))?;
    session.facts().await.map_err(|err| later(&err))
}

fn engine_facts(facts: &ServerFacts) -> EngineFacts {
    EngineFacts {
        engine: "postgres".to_owned(),
        version: facts.version.to_string(),
        major: facts.version.major,
        page_size: u32::try_from(PAGE_BYTES).expect("a page is small"),
        checksums: facts.checksums,
        system_identifier: facts.system_identifier.to_string(),
        locale_providers: BTreeMap::new(),
    }
}

async fn list(
    job: &BackupJob,
    session: Arc<BackupSession>,
    checksums: bool,
) -> Result<DataDirectory, JobFailure> {
    let data_dir = job.engine.data_dir.clone();
    let runtime = tokio::runtime::Handle::current();
    let listed = tokio::task::spawn_blocking(move || {
        let root = Root::open(&data_dir).map_err(|err| later(&err))?;
        DataDirectory::list(BlockingIo::new(root), session, checksums, runtime).map_err(|err| never(&err))
    });
    listed.await.map_err(|err| later(&err))?
}

/// Read again until its checksum matches: the server may be writing it.
async fn read_control(job: &BackupJob) -> Result<Vec<u8>, JobFailure> {
    let data_dir = job.engine.data_dir.clone();
    let read = tokio::task::spawn_blocking(move || {
        let root = Root::open(&data_dir).map_err(|err| later(&err))?;
        let mut last = None;
        for _ in 0..CONTROL_TRIES {
            let bytes =
                root.read(Path::new(control::PATH), 1 << 16).map_err(|err| later(&err))?.unwrap_or_default();
            match Control::parse(&bytes) {
                Ok(_) => return Ok(bytes),
                Err(err) => last = Some(never(&err)),
            }
        }
        Err(last.expect("there was a try"))
    });
    read.await.map_err(|err| later(&err))?
}

fn late(path: &str, content: Vec<u8>) -> LateFile {
    LateFile { path: RelPath::new(path).expect("a fixed name"), mode: 0o600, content: content.into() }
}

/// Waits for the shipper; the backup is worth nothing without its log.
async fn publish(sealed: &Sealed, reporter: &Reporter) -> Result<(), JobFailure> {
    let mut waiting = holdfast_model::status::Progress {
        phase: "waiting for log to be shipped".to_owned(),
        ..Default::default()
    };
    waiting.done = sealed.manifest().totals.bytes;
    waiting.total = waiting.done;
    reporter.progress(waiting);
    let deadline = tokio::time::Instant::now() + LOG_DEADLINE;
    loop {
        match sealed.publish().await {
            Ok(_) => return Ok(()),
            Err(BackupError::LogIncomplete { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOG_POLL).await;
            }
            Err(err) => return Err(failure(&err)),
        }
    }
}

fn failure(err: &BackupError) -> JobFailure {
    match err {
        BackupError::Source(_)
        | BackupError::Late { .. }
        | BackupError::Order(_)
        | BackupError::Record { .. } => never(err),
        BackupError::Store(_)
        | BackupError::Chunk(_)
        | BackupError::Exists { .. }
        | BackupError::Manifest { .. }
        | BackupError::LogIncomplete { .. }
        | BackupError::Aborted { .. }
        | BackupError::Panicked(_) => later(err),
    }
}
