//! What must hold after every step, and what must be so again once faults have ended.
//!
//! * I1: what a client was told is committed is in the log of every later primary, once.
//! * I2: a term has one writer, and a gate opens in its own term alone.
//! * I3: a promise never goes back; nothing is acked or served below a term for which a position was told.
//! * I7: an ack counts only for a member that a rule which may be open names.
//! * I13: no log that the chain discarded follows, is shipped or is restored.
//!
//! A later primary is one of a higher term, however late it comes.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_model::{Member, Promise, Rule, Term, Tick, Voter};
use holdfast_replication::quorum::AckQuorum;

use crate::engine::name;
use crate::log::{Log, Payload, Record};
use crate::world::World;

/// A write that a client was told of.
#[derive(Debug, Clone, Copy)]
struct Acked {
    id: u32,
    end: usize,
    term: Term,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) violation: Option<String>,
    pub(crate) done: bool,
    acked: Vec<Acked>,
    writers: BTreeMap<Term, Member>,
    promises: BTreeMap<Member, (Term, u128)>,
    /// By node: for which term it told how far its log goes.
    reports: BTreeMap<usize, (Term, usize)>,
    /// The newest term in which a write was acked since faults ended.
    pub(crate) acked_since: Option<(Tick, Term)>,
}

impl Oracle {
    pub(crate) const fn is_over(&self) -> bool {
        self.done || self.violation.is_some()
    }

    pub(crate) fn reported(&mut self, n: usize, term: Term, position: usize) {
        self.reports.insert(n, (term, position));
    }

    /// A shortcut makes it forget; what comes of that is for the other checks to find.
    pub(crate) fn forget_promise(&mut self, n: usize) {
        self.promises.retain(|member, _| member.node.as_str() != name(n));
        self.reports.remove(&n);
    }

    /// Another disk, another member.
    pub(crate) fn forget_report(&mut self, n: usize) {
        self.reports.remove(&n);
    }
}

impl World {
    pub(crate) fn violated(&mut self, what: String) {
        self.say(|| format!("VIOLATION: {what}"));
        self.oracle.violation.get_or_insert(what);
    }

    /// A client is told that its write is committed.
    pub(crate) fn client_was_told(&mut self, n: usize, term: Term, write: (u32, usize), quorum: &AckQuorum) {
        let (id, end) = write;
        self.oracle.acked.push(Acked { id, end, term });
        self.counts.one("writes acked");
        if let Some((_, newest)) = &mut self.oracle.acked_since {
            *newest = term.max(*newest);
        }
        if let Some((reported, _)) = self.oracle.reports.get(&n).filter(|(reported, _)| *reported > term) {
            let what = format!("{} acks in term {term} after it reported for term {reported} (I3)", name(n));
            return self.violated(what);
        }
        self.check_ackers(n, end, quorum);
        for other in 0..self.nodes.len() {
            let later = self.process(other).is_some_and(|server| !server.recovers && server.timeline > term);
            if later && !self.log(other).is_some_and(|log| holds(log, id, end)) {
                let what = format!(
                    "write {id} is acked by {} in term {term}, and {} of a later term lacks it (I1)",
                    name(n),
                    name(other)
                );
                self.violated(what);
            }
        }
    }

    fn check_ackers(&mut self, n: usize, end: usize, quorum: &AckQuorum) {
        let Some(log) = self.log(n) else { return };
        let named: BTreeSet<&Member> = log
            .rules()
            .take(2)
            .flat_map(|rule| rule.voters.iter().map(|voter: &Voter| &voter.member))
            .collect();
        let needed = log.newest_rule().map_or(0, |rule| rule.k);
        let Some(server) = self.process(n) else { return };
        let counted =
            server.senders.iter().filter(|it| it.flushed >= end && quorum.ackers.contains(&it.member));
        let counted = counted.filter(|it| named.contains(&it.member)).count();
        if counted < usize::try_from(needed.min(quorum.k)).unwrap_or(usize::MAX)
            || (needed > 0 && quorum.k == 0)
        {
            let what = format!("{} acks by {counted} members that a rule names, of {needed} (I7)", name(n));
            self.violated(what);
        }
    }

    /// A member begins a term: everything that was acked below it is there.
    pub(crate) fn check_reign(&mut self, n: usize, term: Term) {
        let Some(member) = self.nodes[n].member().cloned() else { return };
        let writer = self.oracle.writers.entry(term).or_insert_with(|| member.clone()).clone();
        if writer != member {
            return self.violated(format!("term {term} is begun by {writer} and by {member} (I2)"));
        }
        let Some(log) = self.log(n) else { return };
        let lost = self.oracle.acked.iter().find(|it| it.term < term && !holds(log, it.id, it.end));
        if let Some(lost) = lost {
            let what = format!(
                "{} begins term {term} without write {} of term {} (I1)",
                name(n),
                lost.id,
                lost.term
            );
            return self.violated(what);
        }
        let shipped = self.store.log.iter().filter(|(_, shipped)| shipped.by < term);
        let differs = |first: usize, records: &[Record]| !agrees(log, first, records);
        if let Some((of, _)) =
            shipped.into_iter().find(|(_, shipped)| differs(shipped.first, &shipped.records))
        {
            let what =
                format!("{} begins term {term} without log that was shipped of term {of} (I13)", name(n));
            self.violated(what);
        }
    }

    /// A gate opens.
    pub(crate) fn check_open(&mut self, n: usize, term: Term) {
        self.counts.one("gate opened");
        self.check_reign(n, term);
        if let Some((reported, _)) = self.oracle.reports.get(&n).filter(|(reported, _)| *reported > term) {
            let what = format!("{} opens in term {term} after it reported for term {reported} (I3)", name(n));
            return self.violated(what);
        }
        let Some(log) = self.log(n) else { return };
        let mut ids: Vec<u32> = log.records().iter().filter_map(write_of).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != all {
            self.violated(format!("{} holds a write twice (I1)", name(n)));
        }
    }

    pub(crate) fn check_rule(&mut self, n: usize, rule: &Rule) {
        // One that its reign never wrote, from whoever goes on from that.
        let late = self.log(n).is_some_and(|log| rule.id.term < log.timeline());
        let writer = self.oracle.writers.get(&rule.id.term).filter(|_| !late);
        if self.nodes[n].member() != Some(&rule.primary)
            || writer.is_some_and(|writer| *writer != rule.primary)
        {
            self.violated(format!("{} writes rule {} of {} (I2)", name(n), rule.id, rule.primary));
        }
    }

    pub(crate) fn check_promise(&mut self, n: usize, promise: &Promise) {
        let new = (promise.max_term, promise.attempt);
        if self.nodes[n].member() != Some(&promise.member) {
            self.violated(format!("{} promises for {} (I7)", name(n), promise.member));
        }
        let before = self.oracle.promises.insert(promise.member.clone(), new);
        if before.is_some_and(|before| before.0 > new.0 || (before.0 == new.0 && before.1 != new.1)) {
            self.violated(format!("{} promises {new:?} after {before:?} (I3)", name(n)));
        }
    }

    /// A standby acks.
    pub(crate) fn check_ack(&mut self, n: usize, term: Term, at: usize) {
        let told =
            self.oracle.reports.get(&n).filter(|(reported, position)| *reported > term && at > *position);
        if let Some((reported, position)) = told.copied() {
            self.violated(format!(
                "{} acks {at} in term {term} after it reported {position} for term {reported} (I3)",
                name(n)
            ));
        }
    }

    /// A standby of node `from` attaches to a primary.
    pub(crate) fn check_attached(&mut self, n: usize, from: usize, at: usize) {
        let (Some(primary), Some(standby)) = (self.log(n), self.log(from)) else { return };
        if standby.len() == at && !standby.is_prefix_of(primary) {
            self.violated(format!("{} follows {} with log that is none of it (I13)", name(from), name(n)));
        }
    }

    /// The primary of `term` ships log of its own term, or of one before.
    pub(crate) fn check_shipped(&mut self, term: Term, from: usize, records: &[Record]) {
        for n in 0..self.nodes.len() {
            let later = self.process(n).is_some_and(|server| !server.recovers && server.timeline > term);
            if later && !self.log(n).is_some_and(|log| agrees(log, from, records)) {
                self.violated(format!(
                    "log is shipped in term {term} that {} of a later term lacks (I13)",
                    name(n)
                ));
            }
        }
    }

    pub(crate) fn check_restored(&mut self, n: usize, log: &Log) {
        let newest = self.store.rules.keys().next_back().copied().max(Some(log.timeline()));
        for other in (0..self.nodes.len()).filter(|other| *other != n) {
            let later =
                self.process(other).is_some_and(|server| !server.recovers && Some(server.timeline) >= newest);
            if later && !self.log(other).is_some_and(|theirs| log.is_prefix_of(theirs)) {
                self.violated(format!("{} restores log that {} lacks (I13)", name(n), name(other)));
            }
        }
    }
}

fn write_of(record: &Record) -> Option<u32> {
    match record.payload {
        Payload::Write(id) => Some(id),
        Payload::Begin | Payload::Rule(_) | Payload::HoldOut { .. } => None,
    }
}

fn holds(log: &Log, id: u32, end: usize) -> bool {
    log.get(end - 1).and_then(write_of) == Some(id)
}

/// Whether a log has these records from `first` on.
fn agrees(log: &Log, first: usize, records: &[Record]) -> bool {
    log.records().get(first..first + records.len()).is_some_and(|there| there == records)
}
