//! The log job: answers recovery's requests for segments and history files from the repository, reading ahead.
//!
//! It lives as long as the replay. Everything that is not proven, such as a repository that does not answer, is an error
//! to the server, which then stops; the agent starts it again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_backup::log::{LogError, LogReader, Segment};
use holdfast_backup::rules::Chain;
use holdfast_engine::postgres::wal::history::parse_file_name;
use holdfast_engine::postgres::wal::{self, Segments};
use holdfast_model::{Lsn, Term};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::{Mutex, mpsc};

use super::restore::history;
use super::{Access, later, never};
use crate::fetch::{LogFile, LogSource, serve};
use crate::worker::job::{JobContext, JobFailure};

/// Segments that are kept ready: the one being asked for and the next.
const AHEAD: usize = 2;

/// What the job is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogJob {
    /// Where from.
    pub access: Access,
    /// The reign and position at which the restored backup begins.
    pub from: (Term, Lsn),
    /// The reign that begins when replay is done: it cuts the log of the one before.
    pub to: Term,
    /// Where requests come in.
    pub socket: PathBuf,
}

/// Serves until cancelled; a note says when it begins and where the log ends.
pub(super) async fn run(job: LogJob, context: JobContext) -> Result<Value, JobFailure> {
    let repository = job.access.open().await.map_err(|err| later(&err))?;
    let rules = repository.rules().await.map_err(|err| later(&err))?;
    let chain = Chain::to(job.to, &rules).map_err(|err| never(&err))?;
    let reader =
        LogReader::open(&repository, &chain, job.from.0, job.from.1).await.map_err(|err| later(&err))?;
    let segments = Segments::new(repository.log_segment_size()).map_err(|err| never(&err))?;
    // Left behind by a job that was killed; the directory belongs to this user alone.
    match std::fs::remove_file(&job.socket) {
        Ok(()) => {}
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
        Err(err) => return Err(later(&err)),
    }
    let listener = UnixListener::bind(&job.socket).map_err(|err| later(&err))?;
    let end = reader.end();
    let source = Arc::new(ShippedLog { chain, segments, reader: Mutex::new(Ahead::new(reader)) });
    context.reporter().note(Value::String(end.to_string())).await;
    let cancel = context.cancelled().clone();
    let (ask, asked) = mpsc::channel(AHEAD);
    let feeding = Arc::clone(&source);
    tokio::join!(
        serve(listener, Arc::new(Asking { source, ask }), cancel.clone()),
        feeding.read_ahead(asked, cancel)
    );
    Ok(Value::Null)
}

struct ShippedLog {
    chain: Chain,
    segments: Segments,
    reader: Mutex<Ahead>,
}

/// The reader with the segments that were read before they were asked for.
struct Ahead {
    reader: LogReader,
    ready: BTreeMap<wal::Segment, Segment>,
}

impl Ahead {
    const fn new(reader: LogReader) -> Self {
        Self { reader, ready: BTreeMap::new() }
    }

    async fn get(&mut self, segments: Segments, segment: wal::Segment) -> Result<Segment, LogError> {
        match self.ready.remove(&segment) {
            Some(ready) => Ok(ready),
            None => self.reader.segment(segment.timeline, segment.start.offset() / segments.bytes()).await,
        }
    }
}

impl ShippedLog {
    /// Reads the segments after the one that was last asked for, so that replay finds them ready.
    async fn read_ahead(
        &self,
        mut asked: mpsc::Receiver<wal::Segment>,
        cancel: tokio_util::sync::CancellationToken,
    ) {
        loop {
            let segment = tokio::select! {
                () = cancel.cancelled() => return, // cancel-safe
                segment = asked.recv() => segment, // cancel-safe
            };
            let Some(segment) = segment else { return };
            let next = self.segments.next(segment);
            let mut ahead = self.reader.lock().await;
            if ahead.ready.contains_key(&next) {
                continue;
            }
            while ahead.ready.len() >= AHEAD {
                ahead.ready.pop_first();
            }
            // A failure is told to whoever asks for it; here it only means that nothing is ready.
            if let Ok(read) = ahead.get(self.segments, next).await {
                ahead.ready.insert(next, read);
            }
        }
    }

    /// The history file of a reign, if it is one of this chain; any other is proven not to be.
    fn history(&self, term: Term) -> LogFile {
        let earlier = self.chain.reigns().iter().filter(|reign| reign.term < term);
        let ancestors: Vec<(Term, Lsn)> =
            earlier.filter_map(|reign| reign.end.map(|end| (reign.term, end))).collect();
        // The reign to come has none yet: the server takes its number because it finds no history of it.
        let reigned = self.chain.reign(term).is_some() && term < self.chain.newest().term;
        if term > Term::FIRST && reigned {
            LogFile::Bytes(Bytes::from(history(&ancestors).render()))
        } else {
            LogFile::PastEnd
        }
    }
}

struct Asking {
    source: Arc<ShippedLog>,
    ask: mpsc::Sender<wal::Segment>,
}

/// Why a file was not delivered.
#[derive(Debug, thiserror::Error)]
enum AskError {
    /// The repository does not have it, or does not answer.
    #[error("read shipped log")]
    Log(#[from] LogError),
    /// Recovery asks for something that is no file of the log.
    #[error("{0:?} is no segment and no history file")]
    Name(String),
}

#[async_trait]
impl LogSource for Asking {
    type Error = AskError;

    async fn file(&self, name: &str) -> Result<LogFile, AskError> {
        if let Some(term) = parse_file_name(name) {
            return Ok(self.source.history(term));
        }
        let segments = self.source.segments;
        let segment = segments.parse(name).ok_or_else(|| AskError::Name(name.to_owned()))?;
        let read = self.source.reader.lock().await.get(segments, segment).await?;
        // Full means that reading ahead is under way already.
        self.ask.try_send(segment).unwrap_or_default();
        Ok(match read {
            Segment::Bytes(bytes) => LogFile::Bytes(Bytes::from(bytes)),
            Segment::PastEnd => LogFile::PastEnd,
        })
    }
}
