//! The ship job: brings acked log from the volume into the repository, each interval, for as long as the reign lasts.
//!
//! * `older` tells the repository of this reign and completes the log of the reigns before it; only then
//! * this module ships log of the reign itself,
//! * as far as `acking` says, out of `wal_dir`.
//!
//! It asks the server itself how far log is acked, by the same code that opens the gate, and never ships a byte beyond
//! (what was not acked may be discarded by the next reign). Complete segments are compacted. Killed anywhere, the
//! next one goes on where the repository's log ends.

mod acking;
mod older;
#[cfg(test)]
mod tests;
mod wal_dir;

use std::time::Duration;

use async_trait::async_trait;
use holdfast_backup::Repository;
use holdfast_backup::log::{LogError, Shipper};
use holdfast_backup::rules::{ChainError, RuleError};
use holdfast_engine::postgres::session::{Session, SessionError};
use holdfast_engine::postgres::wal::Segments;
use holdfast_model::{Lsn, Rule, RuleId, Term};
use holdfast_storage_io::IoError;
use holdfast_storage_io::bulk::BlockingIo;
use holdfast_storage_io::root::Root;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::acking::Acking;
use self::wal_dir::WalDir;
use super::{Access, EnginePlaces, QUERY_DEADLINE, later, never, parse};
use crate::chain::Chain;
use crate::worker::job::{JobBody, JobContext, JobFailure, LogLevel, Reporter};

/// The newest rule and the one before it: more are never open ([`holdfast_replication::quorum::open_rules`]).
const OPEN_RULES_MAX: u32 = 2;
/// More than any log has: each failover and each change of members is one.
const RULES_MAX: u32 = 1_000_000;

/// What the job is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShipJob {
    /// Where to.
    pub access: Access,
    /// Of which server.
    pub engine: EnginePlaces,
    /// Whose reign it is. Whose acks count is read from the server, since the reign's rule changes.
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
    #[error("tell the repository of this reign")]
    Rules(#[from] RuleError),
    #[error("find the reigns before this one")]
    Chain(#[from] ChainError),
    #[error("log of term {own} was to be shipped, and rule {newest} is in the log: that reign is over")]
    Over { own: Term, newest: RuleId },
}

impl ShipError {
    /// Whether the next interval may do better.
    const fn retry(&self) -> bool {
        match self {
            Self::Session(_) | Self::Read(_) | Self::Short { .. } | Self::Rules(RuleError::Store(_)) => true,
            Self::Rules(RuleError::Record { .. } | RuleError::Taken { .. } | RuleError::Misplaced { .. })
            | Self::Chain(_)
            | Self::Over { .. } => false,
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

/// Where the log of a reign begins in the repository: at the start of the segment that holds the reign's own start.
fn first_segment(segments: Segments, term: Term, start: Lsn) -> Lsn {
    // Postgres leaves the first segment of a new cluster out.
    segments.holding(term, start.max(Lsn::from_offset(segments.bytes()))).start
}

struct Ship<'a> {
    job: &'a ShipJob,
    repository: Repository,
    wal: WalDir,
    session: Option<Session>,
    acking: Acking,
    /// The reign's own log; none before the older ones are complete.
    own: Option<OwnLog>,
    acked: Option<Lsn>,
    compacted: Option<Lsn>,
}

/// The log of this reign.
struct OwnLog {
    shipper: Shipper,
    /// Where it begins in the repository.
    first: Lsn,
}

impl<'a> Ship<'a> {
    async fn start(job: &'a ShipJob) -> Result<Self, JobFailure> {
        let repository = job.access.open().await.map_err(|err| later(&err))?;
        let segments = Segments::new(repository.log_segment_size()).map_err(|err| never(&err))?;
        let root = Root::open(&job.engine.layout().wal_dir()).map_err(|err| later(&err))?;
        Ok(Self {
            job,
            repository,
            wal: WalDir { io: BlockingIo::new(root), segments },
            session: None,
            acking: Acking::default(),
            own: None,
            acked: None,
            compacted: None,
        })
    }

    const fn term(&self) -> Term {
        self.job.rule.id.term
    }

    fn report(&self, failing: Option<String>) -> Shipped {
        let shipped = self.own.as_ref().and_then(|own| own.shipper.next());
        Shipped { shipped, acked: self.acked, failing }
    }

    async fn turn(&mut self, reporter: &Reporter) -> Result<(), ShipError> {
        let acked = self.acked().await?;
        self.acked = acked.or(self.acked);
        let own = match self.own.take() {
            Some(own) => own,
            None => self.begin(reporter).await?,
        };
        let own = self.own.insert(own);
        let Some(acked) = acked else { return Ok(()) };
        loop {
            let from = own.shipper.next().unwrap_or(own.first);
            if from >= acked {
                break;
            }
            let (term, to) = (self.job.rule.id.term, self.wal.stop(from, acked));
            let Some(bytes) = self.wal.read(term, from, to).await? else {
                return Err(ShipError::Short { name: self.wal.name(term, from), at: to });
            };
            own.shipper.ship(from, &bytes).await?;
        }
        self.compact(reporter).await
    }

    /// Everything that comes before the reign's own log. Cut off anywhere, it is begun again.
    async fn begin(&mut self, reporter: &Reporter) -> Result<OwnLog, ShipError> {
        let term = self.term();
        let rules = self.session().await?.newest_rules(RULES_MAX).await?;
        let begun = older::beginnings(&rules);
        let chain = older::put_rules(&self.repository, &begun, term).await?;
        let member = &self.job.rule.primary;
        older::complete(&self.repository, &self.wal, &chain, member, reporter).await?;
        let shipper = Shipper::resume(&self.repository, term, member).await?;
        Ok(OwnLog { shipper, first: first_segment(self.wal.segments, term, chain.newest().start) })
    }

    async fn session(&mut self) -> Result<&Session, ShipError> {
        if self.session.as_ref().is_none_or(Session::is_spoilt) {
            self.session = None;
            let session = Session::connect(&self.job.engine.layout(), QUERY_DEADLINE).await?;
            session.ensure_ship_slot().await?;
            self.session = Some(session);
        }
        Ok(self.session.as_ref().expect("a session was just made where there was none"))
    }

    /// Rules first, flush positions then: see [`Acking::see`].
    async fn acked(&mut self) -> Result<Option<Lsn>, ShipError> {
        let own = self.term();
        let session = self.session().await?;
        let rules = session.newest_rules(OPEN_RULES_MAX).await?;
        let flushed = session.flushed().await?;
        if let Some(newest) = rules.first().map(|rule| rule.id).filter(|id| id.term != own) {
            return Err(ShipError::Over { own, newest });
        }
        Ok(self.acking.see(&rules, &flushed))
    }

    /// Once per segment that became complete.
    async fn compact(&mut self, reporter: &Reporter) -> Result<(), ShipError> {
        let Some(own) = &self.own else { return Ok(()) };
        let Some(next) = own.shipper.next() else { return Ok(()) };
        let segment = self.wal.segments.holding(self.term(), next).start;
        if self.compacted == Some(segment) {
            return Ok(());
        }
        if let Some(session) = &self.session {
            // It may have been lost by its cap since.
            session.ensure_ship_slot().await?;
            session.advance_ship_slot(segment).await?;
        }
        let compacted = own.shipper.compact().await?;
        self.compacted = Some(segment);
        if compacted > 0 {
            reporter.log(LogLevel::Debug, format!("compacted {compacted} segments of shipped log")).await;
        }
        Ok(())
    }
}
