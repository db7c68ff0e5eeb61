//! The object store: rules (create-only), shipped log by term, backups. It is read as `holdfast-backup` reads it: a term counts
//! up to where the next one of the chain began, and a term that is not complete up to there ends nothing.

use std::collections::BTreeMap;

use holdfast_model::{Rule, Term};

use crate::log::{Log, Record, records};

/// Log that was shipped under one term.
#[derive(Debug, Clone)]
pub(crate) struct Shipped {
    pub(crate) first: usize,
    pub(crate) records: Vec<Record>,
    /// The latest term whose primary added to it.
    pub(crate) by: Term,
}

impl Shipped {
    pub(crate) fn end(&self) -> usize {
        self.first + self.records.len()
    }
}

/// A base: all log up to `stop`, applied.
#[derive(Debug, Clone)]
pub(crate) struct Backup {
    pub(crate) term: Term,
    pub(crate) stop: usize,
    pub(crate) log: Log,
}

/// One term as part of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reign {
    pub(crate) term: Term,
    pub(crate) start: usize,
    /// Where the next one began.
    pub(crate) end: Option<usize>,
}

/// Everything in it.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) rules: BTreeMap<Term, Rule>,
    pub(crate) log: BTreeMap<Term, Shipped>,
    pub(crate) backups: Vec<Backup>,
}

impl Store {
    pub(crate) fn newest_term(&self) -> Term {
        let of_rules = self.rules.keys().next_back();
        of_rules.max(self.log.keys().next_back()).copied().unwrap_or(Term::FIRST)
    }

    /// Creates the rule of a term; the one that is there when it is another. What a chain is made of is compared.
    pub(crate) fn put_rule(&mut self, rule: &Rule) -> Result<(), Box<Rule>> {
        let there = self.rules.entry(rule.id.term).or_insert_with(|| rule.clone());
        let before = |rule: &Rule| rule.previous.map(|id| id.term);
        let same =
            there.primary == rule.primary && before(there) == before(rule) && there.start == rule.start;
        if same { Ok(()) } else { Err(Box::new(there.clone())) }
    }

    /// The reigns that led to `newest`, oldest first.
    pub(crate) fn chain(&self, newest: Term) -> Option<Vec<Reign>> {
        let (mut reigns, mut want, mut end) = (vec![], newest, None);
        loop {
            let rule = self.rules.get(&want)?;
            let start = records(&rule.start);
            reigns.push(Reign { term: want, start, end });
            let Some(previous) = rule.previous else { break };
            if previous.term >= want {
                return None;
            }
            (end, want) = (Some(start), previous.term);
        }
        reigns.reverse();
        Some(reigns)
    }

    /// Adds log behind what is there of a term; whether it fitted.
    pub(crate) fn ship(&mut self, term: Term, by: Term, at: usize, new: &[Record]) -> bool {
        let empty = || Shipped { first: at, records: vec![], by };
        let shipped = self.log.entry(term).or_insert_with(empty);
        if shipped.end() != at {
            return false;
        }
        shipped.by = shipped.by.max(by);
        shipped.records.extend_from_slice(new);
        true
    }

    /// Where the next log of a term goes.
    pub(crate) fn next(&self, term: Term) -> Option<usize> {
        self.log.get(&term).map(Shipped::end)
    }

    /// The newest usable backup and all shipped log after it; none when that is not to be had now.
    pub(crate) fn restore(&self) -> Option<Log> {
        let newest = *self.rules.keys().next_back()?;
        let chain = self.chain(newest)?;
        let usable = |backup: &&Backup| {
            chain
                .iter()
                .any(|reign| reign.term == backup.term && reign.end.is_none_or(|end| backup.stop <= end))
        };
        let backup = self.backups.iter().rev().find(usable)?;
        let mut log = backup.log.clone();
        for reign in chain.iter().filter(|reign| reign.term >= backup.term) {
            let shipped = self.log.get(&reign.term);
            let to = match (reign.end, shipped) {
                (Some(end), _) => end,
                (None, Some(shipped)) => shipped.end(),
                (None, None) => log.len(),
            };
            if to <= log.len() {
                continue;
            }
            let shipped = shipped.filter(|shipped| shipped.first <= log.len() && shipped.end() >= to)?;
            for record in &shipped.records[log.len() - shipped.first..to - shipped.first] {
                log.push(record.clone());
            }
        }
        Some(log)
    }
}
