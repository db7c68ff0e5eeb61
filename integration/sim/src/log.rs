//! A database's log: records, each of the timeline that wrote it. A position counts records.
//!
//! As in Postgres a timeline is a term, a log is of ever higher timelines, and a new one begins with a record of its own
//! before any rule of its term.

use std::collections::BTreeSet;
use std::rc::Rc;

use holdfast_model::{Lsn, Position, Rule, RuleId, Term};

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    /// A timeline begins.
    Begin,
    /// A rule and its marker.
    Rule(Rc<Rule>),
    /// A node is held out, or not any more.
    HoldOut { node: usize, out: bool },
    /// What a client wrote, by its unique id.
    Write(u32),
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) timeline: Term,
    pub(crate) payload: Payload,
}

/// A log, with what is asked of it often kept beside it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    records: Vec<Record>,
    rules: Vec<usize>,
    held: Vec<usize>,
    /// Where each timeline begins.
    begins: Vec<usize>,
}

/// A number of records as a position.
pub(crate) fn position(records: usize) -> Position {
    Lsn::from_offset(records as u64).into()
}

/// A position as a number of records.
pub(crate) fn records(position: &Position) -> usize {
    usize::try_from(position.ordinal()).expect("logs are short")
}

impl Log {
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Record> {
        self.records.get(at)
    }

    /// Of the last record.
    pub(crate) fn timeline(&self) -> Term {
        self.records.last().map_or(Term::FIRST, |record| record.timeline)
    }

    /// Returns where it ends then.
    pub(crate) fn push(&mut self, record: Record) -> usize {
        let at = self.records.len();
        if self.records.last().is_none_or(|last| last.timeline != record.timeline) {
            self.begins.push(at);
        }
        match record.payload {
            Payload::Rule(_) => self.rules.push(at),
            Payload::HoldOut { .. } => self.held.push(at),
            Payload::Begin | Payload::Write(_) => {}
        }
        self.records.push(record);
        at + 1
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.records.truncate(len);
        for index in [&mut self.rules, &mut self.held, &mut self.begins] {
            index.retain(|at| *at < len);
        }
    }

    /// The first `len` records.
    pub(crate) fn prefix(&self, len: usize) -> Self {
        let mut prefix = self.clone();
        prefix.truncate(len);
        prefix
    }

    fn rule_at(&self, at: usize) -> &Rc<Rule> {
        match &self.records[at].payload {
            Payload::Rule(rule) => rule,
            Payload::Begin | Payload::HoldOut { .. } | Payload::Write(_) => unreachable!("rules are indexed"),
        }
    }

    /// Newest first.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rc<Rule>> {
        self.rules.iter().rev().map(|at| self.rule_at(*at))
    }

    pub(crate) fn newest_rule(&self) -> Option<&Rc<Rule>> {
        self.rules().next()
    }

    /// The newest rule and the one before it, newest first.
    pub(crate) fn newest_rules(&self) -> Vec<Rule> {
        self.rules().take(2).map(|rule| (**rule).clone()).collect()
    }

    pub(crate) fn newest_id(&self) -> Option<RuleId> {
        self.newest_rule().map(|rule| rule.id)
    }

    /// Where this log left the timeline of `term` for a later one; `None` when it did not.
    pub(crate) fn left(&self, term: Term) -> Option<usize> {
        self.begins.iter().copied().find(|at| self.records[*at].timeline > term)
    }

    /// Where the timeline of `term` begins.
    pub(crate) fn began(&self, term: Term) -> Option<usize> {
        self.begins.iter().copied().find(|at| self.records[*at].timeline == term)
    }

    /// Each term after `last` that the log is of, with where it begins.
    pub(crate) fn reigns_after(&self, last: Term) -> Vec<(Term, Position)> {
        let begins = self.begins.iter().map(|at| (self.records[*at].timeline, position(*at)));
        begins.filter(|(term, _)| *term > last).collect()
    }

    pub(crate) fn held_out(&self) -> BTreeSet<usize> {
        let mut out = BTreeSet::new();
        for at in &self.held {
            match self.records[*at].payload {
                Payload::HoldOut { node, out: true } => drop(out.insert(node)),
                Payload::HoldOut { node, out: false } => drop(out.remove(&node)),
                Payload::Begin | Payload::Rule(_) | Payload::Write(_) => {}
            }
        }
        out
    }

    pub(crate) fn is_prefix_of(&self, other: &Self) -> bool {
        other.records.len() >= self.records.len() && other.records[..self.records.len()] == self.records[..]
    }

    /// Whether a server with this log would stream to a standby whose log ends at `at` on `timeline`: it goes by the history
    /// of its timelines and by nothing else.
    pub(crate) fn streams_from(&self, at: usize, timeline: Term) -> bool {
        if self.began(timeline).is_none() {
            return false;
        }
        at <= self.left(timeline).unwrap_or(self.len())
    }
}
