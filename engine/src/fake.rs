//! An engine in memory, for simulation: a log that is a counter, a list of rules, a gate.
//!
//! A plain struct whose fields a test sets: `running`, `answers` and `hangs` are its faults. It keeps what a real engine keeps
//! over a crash and drops the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_model::status::{Gate, GateClosed, Weakened};
use holdfast_model::{Lsn, Member, NodeName, Position, Rule, Term};
use holdfast_replication::catch_up::Attachment;

use crate::ackers::Ackers;
use crate::engine::{BackupEnd, Engine, EngineError, EngineStatus};
use crate::flushed::Flushed;
use crate::links::Upstream;
use crate::postgres::standby::Hands;
use crate::standing::{Following, Promoted, Recruited};

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
    /// Whether it was started as a standby.
    pub recovers: bool,
    /// Whether the next call to follow breaks before it has an effect.
    pub breaks_follow: bool,
    /// Whom it follows.
    pub upstream: Option<Upstream>,
    /// Who may attach.
    pub admitted: BTreeSet<Member>,
    /// Who of them may read its files.
    pub lends: BTreeSet<Member>,
    /// The term of its last checkpoint.
    pub checkpointed: Term,
    /// Nodes that are held out.
    pub held_out: BTreeSet<NodeName>,
    /// Settings that weaken its commits.
    pub weakened: BTreeSet<Weakened>,
    /// From where on it keeps log that may not be shipped.
    pub keeps_from: Option<Position>,
    /// Who is attached; the flush positions are those of [`Self::flushed`].
    pub attached: BTreeMap<Member, u64>,
    /// The term of its data.
    pub term: Term,
    /// The terms before that, oldest first, with where its log left each.
    pub left: Vec<(Term, Position)>,
    /// Durable log.
    pub flushed: Flushed,
    /// Rules in its log, oldest first.
    pub rules: Vec<Rule>,
    /// What is in force.
    pub gate: Gate,
    /// Whose acks commits wait for.
    pub sync: Ackers,
    /// Client sessions.
    pub clients: u64,
    /// Where the backup under way began.
    pub backup: Option<Position>,
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
    #[error("it is in recovery")]
    Recovers,
    #[error("it is not in recovery")]
    Writes,
    #[error("the member is still counted or let in")]
    Counted,
    #[error("it is in a later term")]
    Term,
}

impl Fake {
    /// A stopped engine with an empty log.
    #[must_use]
    pub fn new() -> Self {
        Self {
            running: false,
            answers: true,
            hangs: false,
            recovers: false,
            breaks_follow: false,
            upstream: None,
            admitted: BTreeSet::new(),
            lends: BTreeSet::new(),
            checkpointed: Term::FIRST,
            held_out: BTreeSet::new(),
            weakened: BTreeSet::new(),
            keeps_from: None,
            attached: BTreeMap::new(),
            term: Term::FIRST,
            left: Vec::new(),
            flushed: Flushed::alone(Lsn::from_offset(RECORD_BYTES).into()),
            rules: Vec::new(),
            gate: Gate::Closed { why: GateClosed::Starting },
            sync: Ackers::Nobody,
            clients: 0,
            backup: None,
        }
    }

    /// The process ends: sessions and the backup under way go, the log and the files stay.
    pub fn crash(&mut self) {
        self.running = false;
        self.clients = 0;
        self.backup = None;
        self.attached.clear();
    }

    /// A client's commit, when the gate lets clients write.
    pub fn commit(&mut self) -> Option<Position> {
        let serves = self.running && self.answers && !self.recovers && matches!(self.gate, Gate::Open { .. });
        serves.then(|| self.append())
    }

    fn append(&mut self) -> Position {
        self.flushed.local = Lsn::from_offset(self.flushed.local.ordinal() + RECORD_BYTES).into();
        self.flushed.local.clone()
    }

    fn refuse<T>(doing: &'static str, why: FakeError) -> Result<T, EngineError> {
        Err(EngineError::Refused { doing, source: Box::new(why) })
    }

    fn check_role(&self, doing: &'static str, recovers: bool) -> Result<(), EngineError> {
        self.check(doing)?;
        match (self.recovers, recovers) {
            (true, false) => Self::refuse(doing, FakeError::Recovers),
            (false, true) => Self::refuse(doing, FakeError::Writes),
            (true, true) | (false, false) => Ok(()),
        }
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
            in_recovery: self.recovers,
            term: self.term,
            flushed: self.flushed.local.clone(),
        })
    }

    async fn newest_rules(&mut self) -> Result<Vec<Rule>, EngineError> {
        self.check("read the newest rules")?;
        Ok(self.rules.iter().rev().take(2).cloned().collect())
    }

    async fn rules(&mut self) -> Result<Vec<Rule>, EngineError> {
        self.check("read every rule")?;
        Ok(self.rules.clone())
    }

    async fn admit(
        &mut self,
        members: &BTreeSet<Member>,
        borrow: &BTreeSet<Member>,
    ) -> Result<(), EngineError> {
        self.check_role("admit members", false)?;
        self.admitted.clone_from(members);
        self.lends = members & borrow;
        Ok(())
    }

    async fn checkpointed_in(&mut self) -> Result<Term, EngineError> {
        self.check("read the term of the last checkpoint")?;
        Ok(self.checkpointed)
    }

    async fn expel(&mut self, member: &Member, _deadline: Duration) -> Result<(), EngineError> {
        let doing = "expel a member";
        self.check_role(doing, false)?;
        let counted = matches!(&self.sync, Ackers::AnyOf { members, .. } if members.contains(member));
        if counted || self.admitted.contains(member) {
            return Self::refuse(doing, FakeError::Counted);
        }
        self.attached.remove(member);
        self.flushed.standbys.remove(member);
        Ok(())
    }

    async fn renew_streams(&mut self, _deadline: Duration) -> Result<(), EngineError> {
        self.check("renew streams")
    }

    async fn held_out(&mut self) -> Result<BTreeSet<NodeName>, EngineError> {
        self.check("read who is held out")?;
        Ok(self.held_out.clone())
    }

    async fn hold_out(&mut self, node: &NodeName, out: bool) -> Result<(), EngineError> {
        self.check_role("hold a node out", false)?;
        if out {
            self.held_out.insert(node.clone());
        } else {
            self.held_out.remove(node);
        }
        Ok(())
    }

    async fn streams(&mut self) -> Result<BTreeMap<Member, Attachment<Position>>, EngineError> {
        self.check("look at streams")?;
        let flushed = |member: &Member| self.flushed.standbys.get(member).cloned();
        let stream = |(member, stream): (&Member, &u64)| {
            Some((member.clone(), Attachment { stream: *stream, flushed: flushed(member)? }))
        };
        Ok(self.attached.iter().filter_map(stream).collect())
    }

    async fn weakened(&mut self) -> Result<BTreeSet<Weakened>, EngineError> {
        self.check("look for what weakens commits")?;
        Ok(self.weakened.clone())
    }

    async fn keep_log(&mut self, from: &Position) -> Result<(), EngineError> {
        self.check_role("keep log until it is shipped", true)?;
        if self.keeps_from.as_ref().is_none_or(|kept| kept < from) {
            self.keeps_from = Some(from.clone());
        }
        Ok(())
    }

    async fn recruit(&mut self, _hands: &dyn Hands, _deadline: Duration) -> Result<Recruited, EngineError> {
        self.check_role("recruit", true)?;
        (self.upstream, self.gate) = (None, Gate::Closed { why: GateClosed::NotPrimary });
        let position = self.flushed.local.clone();
        Ok(Recruited { rule: self.rules.last().cloned(), term: self.term, position })
    }

    async fn promote(
        &mut self,
        _hands: &dyn Hands,
        term: Term,
        _deadline: Duration,
    ) -> Result<Promoted, EngineError> {
        let doing = "promote";
        self.check(doing)?;
        if self.recovers && term > self.term {
            self.left.push((self.term, self.flushed.local.clone()));
            (self.recovers, self.term) = (false, term);
        } else if self.recovers || term != self.term {
            return Self::refuse(doing, FakeError::Term);
        }
        Promoted::of(self.left.clone()).map_or_else(|| Self::refuse(doing, FakeError::Term), Ok)
    }

    async fn follow(&mut self, upstream: &Upstream, _deadline: Duration) -> Result<Following, EngineError> {
        let doing = "follow";
        self.check_role(doing, true)?;
        if std::mem::take(&mut self.breaks_follow) {
            return Err(EngineError::Unavailable { doing, source: Box::new(FakeError::Frozen) });
        }
        self.upstream = Some(upstream.clone());
        Ok(Following { term: upstream.term, flushed: Some(self.flushed.local.clone()) })
    }

    async fn following(&mut self, upstream: &Upstream) -> Result<Option<Following>, EngineError> {
        self.check("look at what is received")?;
        let same = self.upstream.as_ref() == Some(upstream);
        Ok(same.then_some(Following { term: upstream.term, flushed: Some(self.flushed.local.clone()) }))
    }

    async fn write_rules(&mut self, before: &[Rule], rule: &Rule) -> Result<Position, EngineError> {
        let doing = "write a rule";
        self.check(doing)?;
        match self.rules.last() {
            Some(last) if last == rule => Ok(self.flushed.local.clone()),
            Some(last) if before.first().unwrap_or(rule).id <= last.id => {
                Err(EngineError::Refused { doing, source: Box::new(FakeError::Rule) })
            }
            Some(_) | None => {
                self.rules.extend(before.iter().chain([rule]).cloned());
                Ok(self.append())
            }
        }
    }

    async fn flushed(&mut self) -> Result<Flushed, EngineError> {
        self.check("read flush positions")?;
        Ok(self.flushed.clone())
    }

    async fn apply_gate(&mut self, gate: &Gate, ackers: &Ackers) -> Result<(), EngineError> {
        // As with a real engine the files are written first, so the change may be in force at the next start.
        self.gate = gate.clone();
        self.sync = ackers.clone();
        self.check("apply the gate")
    }

    async fn lets_clients_in(&mut self) -> Result<bool, EngineError> {
        self.check("look whether clients are let in")?;
        Ok(!matches!(self.gate, Gate::Closed { .. }))
    }

    async fn end_clients(&mut self, _rule: &Rule) -> Result<u64, EngineError> {
        self.check("end client sessions")?;
        Ok(std::mem::take(&mut self.clients))
    }

    async fn begin_backup(&mut self, _label: &str) -> Result<Position, EngineError> {
        self.check("begin a backup")?;
        if self.backup.is_some() {
            return Err(EngineError::Order("begin a backup: one is under way"));
        }
        self.backup = Some(self.flushed.local.clone());
        Ok(self.flushed.local.clone())
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
