//! The ship job: brings acked log from the volume into the repository, each interval, for as long as the reign lasts.
//!
//! It asks the server itself how far log is acked, by the same code that opens the gate, and never ships a byte beyond
//! (what was not acked may be discarded by the next reign). Complete segments are compacted. Killed anywhere, the
//! next one goes on where the repository's log ends.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_backup::log::{LogError, Shipper};
use holdfast_engine::postgres::session::{Session, SessionError};
use holdfast_engine::postgres::wal::Segments;
use holdfast_model::{Lsn, Member, Rule, Term};
use holdfast_replication::quorum::AckQuorum;
use holdfast_storage_io::IoError;
use holdfast_storage_io::bulk::{BlockingIo, BulkIo};
use holdfast_storage_io::root::Root;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Access, EnginePlaces, QUERY_DEADLINE, later, never, parse};
use crate::chain::Chain;
use crate::worker::job::{JobBody, JobContext, JobFailure, LogLevel, Reporter};

/// Log that is read and shipped at once at most, so that memory stays bounded however far behind it is.
const BYTES_AT_ONCE_MAX: u64 = 4 << 20;

/// What the job is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShipJob {
    /// Where to.
    pub access: Access,
    /// Of which server.
    pub engine: EnginePlaces,
    /// Whose acks count.
    pub rule: Rule,
    /// Time between two shipments, in milliseconds.
    pub interval_ms: u64,
}

/// How far it is; a note after each interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipped {
    /// Shipped without a gap up to here.
    pub shipped: Option<Lsn>,
    /// Acked up to here.
    pub acked: Option<Lsn>,
    /// The failure of this interval, if it failed.
    pub failing: Option<String>,
}

/// The job's body.
#[derive(Debug)]
pub struct ShipBody;

#[async_trait]
impl JobBody for ShipBody {
    async fn run(&self, job: Value, context: JobContext) -> Result<Value, JobFailure> {
        let job: ShipJob = parse(job)?;
        let reporter = context.reporter();
        let mut ship = Ship::start(&job).await?;
        let mut pace = tokio::time::interval(Duration::from_millis(job.interval_ms));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            tokio::select! {
                () = context.cancelled().cancelled() => return Ok(Value::Null), // cancel-safe
                _ = pace.tick() => {} // cancel-safe
            }
            let outcome = ship.turn(&reporter).await;
            if let Err(err) = &outcome
                && !err.retry()
            {
                return Err(never(err));
            }
            let now = ship.report(outcome.err().map(|err| Chain(&err).to_string()));
            if told.as_ref() != Some(&now) {
                reporter.note(serde_json::to_value(&now).map_err(|err| never(&err))?).await;
                told = Some(now);
            }
        }
    }
}

/// Why an interval shipped nothing, or not everything.
#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error("ask how far log is acked")]
    Session(#[from] SessionError),
    #[error("read log")]
    Read(#[from] IoError),
    #[error("ship log")]
    Ship(#[from] LogError),
    #[error("log file {name} ends before {at}, which is acked")]
    Short { name: String, at: Lsn },
}

impl ShipError {
    /// Whether the next interval may do better.
    const fn retry(&self) -> bool {
        match self {
            Self::Session(_) | Self::Read(_) | Self::Short { .. } => true,
            Self::Ship(err) => match err {
                LogError::Differs { .. } | LogError::OtherMember { .. } | LogError::Line { .. } => false,
                LogError::Store(_)
                | LogError::Object { .. }
                | LogError::Stray { .. }
                | LogError::Gap { .. }
                | LogError::Incomplete { .. }
                | LogError::OtherHistory { .. }
                | LogError::OutOfRange { .. }
                | LogError::Misaligned { .. }
                | LogError::NotNext { .. } => true,
            },
        }
    }
}

struct Ship<'a> {
    job: &'a ShipJob,
    start: Lsn,
    shipper: Shipper,
    segments: Segments,
    io: BlockingIo,
    session: Option<Session>,
    acked: Option<Lsn>,
    compacted: Option<Lsn>,
}

impl<'a> Ship<'a> {
    async fn start(job: &'a ShipJob) -> Result<Self, JobFailure> {
        let repository = job.access.open().await.map_err(|err| later(&err))?;
        let segments = Segments::new(repository.log_segment_size()).map_err(|err| never(&err))?;
        let (term, member): (Term, &Member) = (job.rule.id.term, &job.rule.primary);
        // The rule that began the term, not its newest: log of the term starts there.
        let rules = repository.rules().await.map_err(|err| later(&err))?;
        let start = rules.iter().find(|rule| rule.id.term == term).map_or(job.rule.start, |rule| rule.start);
        let shipper = Shipper::resume(&repository, term, member).await.map_err(|err| later(&err))?;
        let root = Root::open(&job.engine.layout().wal_dir()).map_err(|err| later(&err))?;
        Ok(Self {
            job,
            start,
            shipper,
            segments,
            io: BlockingIo::new(root),
            session: None,
            acked: None,
            compacted: None,
        })
    }

    fn report(&self, failing: Option<String>) -> Shipped {
        Shipped { shipped: self.shipper.next(), acked: self.acked, failing }
    }

    async fn turn(&mut self, reporter: &Reporter) -> Result<(), ShipError> {
        let acked = self.acked().await?;
        self.acked = acked.or(self.acked);
        let Some(acked) = acked else { return Ok(()) };
        loop {
            let from = self.shipper.next().unwrap_or_else(|| self.first());
            if from >= acked {
                break;
            }
            let boundary =
                from.offset() / self.segments.bytes() * self.segments.bytes() + self.segments.bytes();
            let to = acked.min(from.plus(BYTES_AT_ONCE_MAX)).min(Lsn::from_offset(boundary));
            let bytes = self.read(from, to).await?;
            self.shipper.ship(from, &bytes).await?;
        }
        self.compact(reporter).await
    }

    /// Where the log of a reign begins in the repository: at the start of the segment that holds the reign's own start.
    fn first(&self) -> Lsn {
        // Postgres leaves the first segment of a new cluster out.
        let start = self.start.max(Lsn::from_offset(self.segments.bytes()));
        self.segments.holding(self.job.rule.id.term, start).start
    }

    async fn acked(&mut self) -> Result<Option<Lsn>, ShipError> {
        if self.session.as_ref().is_none_or(Session::is_spoilt) {
            self.session = None;
            let session = Session::connect(&self.job.engine.layout(), QUERY_DEADLINE).await?;
            session.ensure_ship_slot().await?;
            self.session = Some(session);
        }
        let session = self.session.as_ref().expect("a session was just made where there was none");
        let flushed = session.flushed().await?;
        Ok(flushed.acked(&AckQuorum::of(&self.job.rule)))
    }

    async fn read(&self, from: Lsn, to: Lsn) -> Result<Vec<u8>, ShipError> {
        let segment = self.segments.holding(self.job.rule.id.term, from);
        let name = self.segments.name(segment);
        let offset = from.bytes_since(segment.start);
        let length = usize::try_from(to.bytes_since(from)).expect("bounded above");
        let io = self.io.clone();
        let path = name.clone();
        let read = tokio::task::spawn_blocking(move || -> Result<(Vec<u8>, usize), IoError> {
            let file = io.open_read(Path::new(&path))?;
            let mut bytes = vec![0; length];
            let read = io.read_at(&file, offset, &mut bytes)?;
            Ok((bytes, read))
        });
        let (bytes, read) = read.await.expect("reading does not panic")?;
        if read < length { Err(ShipError::Short { name, at: to }) } else { Ok(bytes) }
    }

    /// Once per segment that became complete.
    async fn compact(&mut self, reporter: &Reporter) -> Result<(), ShipError> {
        let Some(next) = self.shipper.next() else { return Ok(()) };
        let segment = self.segments.holding(self.job.rule.id.term, next).start;
        if self.compacted == Some(segment) {
            return Ok(());
        }
        if let Some(session) = &self.session {
            session.advance_ship_slot(segment).await?;
        }
        let compacted = self.shipper.compact().await?;
        self.compacted = Some(segment);
        if compacted > 0 {
            reporter.log(LogLevel::Debug, format!("compacted {compacted} segments of shipped log")).await;
        }
        Ok(())
    }
}
