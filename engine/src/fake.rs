//! An engine in memory, for simulation: a log that is a counter, a list of rules, a gate.
//!
//! A plain struct whose fields a test sets: `running`, `answers` and `hangs` are its faults. It keeps what a real engine keeps
//! over a crash and drops the rest.

use async_trait::async_trait;
use holdfast_model::status::{Gate, GateClosed};
use holdfast_model::{Lsn, Rule, Term};

use crate::engine::{Engine, EngineError, EngineStatus};
use crate::postgres::SyncStandbys;
use crate::postgres::backup::BackupEnd;
use crate::postgres::flushed::Flushed;

/// What each write adds to the log, in bytes.
const RECORD_BYTES: u64 = 64;

/// A simulated engine.
#[derive(Debug, Clone)]
pub struct Fake {
    /// Whether its process runs.
    pub running: bool,
    /// Whether it answers; a frozen engine runs and does not.
    pub answers: bool,
    /// Whether questions are never answered, not even by an error.
    pub hangs: bool,
    /// The term of its data.
    pub term: Term,
    /// Durable log.
    pub flushed: Flushed,
    /// Rules in its log, oldest first.
    pub rules: Vec<Rule>,
    /// What is in force.
    pub gate: Gate,
    /// Whose acks commits wait for.
    pub sync: SyncStandbys,
    /// Client sessions.
    pub clients: u64,
    /// Where the backup under way began.
    pub backup: Option<Lsn>,
}

/// Why the simulated engine did not answer.
#[derive(Debug, thiserror::Error)]
enum FakeError {
    #[error("it is not running")]
    Stopped,
    #[error("it is frozen")]
    Frozen,
    #[error("the log holds a newer or another rule")]
    Rule,
}

impl Fake {
    /// A stopped engine with an empty log.
    #[must_use]
    pub fn new() -> Self {
        Self {
            running: false,
            answers: true,
            hangs: false,
            term: Term::FIRST,
            flushed: Flushed::alone(Lsn::from_offset(RECORD_BYTES)),
            rules: Vec::new(),
            gate: Gate::Closed { why: GateClosed::Starting },
            sync: SyncStandbys::Nobody,
            clients: 0,
            backup: None,
        }
    }

    /// The process ends: sessions and the backup under way go, the log and the files stay.
    pub fn crash(&mut self) {
        self.running = false;
        self.clients = 0;
        self.backup = None;
    }

    /// A client's commit, when the gate lets clients write.
    pub fn commit(&mut self) -> Option<Lsn> {
        let serves = self.running && self.answers && matches!(self.gate, Gate::Open { .. });
        serves.then(|| self.append())
    }

    fn append(&mut self) -> Lsn {
        self.flushed.local = self.flushed.local.plus(RECORD_BYTES);
        self.flushed.local
    }

    fn check(&self, doing: &'static str) -> Result<(), EngineError> {
        let source = match (self.running, self.answers) {
            (true, true) => return Ok(()),
            (false, _) => FakeError::Stopped,
            (true, false) => FakeError::Frozen,
        };
        Err(EngineError::Unavailable { doing, source: Box::new(source) })
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Engine for Fake {
    async fn status(&mut self) -> Result<EngineStatus, EngineError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.check("read the engine's status")?;
        Ok(EngineStatus {
            version: "0.0".to_owned(),
            system_identifier: 1,
            in_recovery: false,
            term: self.term,
            flushed: self.flushed.local,
        })
    }

    async fn newest_rules(&mut self) -> Result<Vec<Rule>, EngineError> {
        self.check("read the newest rules")?;
        Ok(self.rules.iter().rev().take(2).cloned().collect())
    }

    async fn write_rule(&mut self, rule: &Rule) -> Result<Lsn, EngineError> {
        let doing = "write a rule";
        self.check(doing)?;
        match self.rules.last() {
            Some(last) if last == rule => Ok(self.flushed.local),
            Some(last) if last.id >= rule.id => {
                Err(EngineError::Refused { doing, source: Box::new(FakeError::Rule) })
            }
            Some(_) | None => {
                self.rules.push(rule.clone());
                Ok(self.append())
            }
        }
    }

    async fn flushed(&mut self) -> Result<Flushed, EngineError> {
        self.check("read flush positions")?;
        Ok(self.flushed.clone())
    }

    async fn apply_gate(&mut self, gate: &Gate, sync: &SyncStandbys) -> Result<(), EngineError> {
        // As with a real engine the files are written first, so the change may be in force at the next start.
        self.gate = gate.clone();
        self.sync = sync.clone();
        self.check("apply the gate")
    }

    async fn end_clients(&mut self, _rule: &Rule) -> Result<u64, EngineError> {
        self.check("end client sessions")?;
        Ok(std::mem::take(&mut self.clients))
    }

    async fn begin_backup(&mut self, _label: &str) -> Result<Lsn, EngineError> {
        self.check("begin a backup")?;
        if self.backup.is_some() {
            return Err(EngineError::Order("begin a backup: one is under way"));
        }
        self.backup = Some(self.flushed.local);
        Ok(self.flushed.local)
    }

    async fn end_backup(&mut self) -> Result<BackupEnd, EngineError> {
        self.check("end a backup")?;
        let start = self.backup.take().ok_or(EngineError::Order("end a backup: none is under way"))?;
        Ok(BackupEnd { start, stop: self.append(), label: String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stopped_fake_answers_nothing_and_keeps_its_rules() {
        let mut fake = Fake { running: true, ..Fake::new() };
        fake.gate = Gate::Open { term: Term::FIRST };
        let at = fake.commit().unwrap();
        fake.crash();
        assert!(fake.status().await.is_err());
        assert_eq!(fake.commit(), None);
        assert_eq!(fake.flushed.local, at);
    }
}
