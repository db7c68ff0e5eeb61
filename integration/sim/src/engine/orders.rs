//! What an agent asks of its engine: each is done or refused at once, and refused when the process is not the one that is
//! meant, or does not answer.

use std::collections::BTreeSet;

use holdfast_model::status::Gate;
use holdfast_model::{Member, Rule, RuleId, Term};
use std::rc::Rc;

use super::{Receiver, Sync, name};
use crate::log::Payload;
use crate::mutant::Mutant;
use crate::world::{Event, World};

/// The engine is away, or does not do that now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

/// What a recruited standby has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recruited {
    pub(crate) rule: Option<RuleId>,
    pub(crate) timeline: Term,
    pub(crate) position: usize,
}

/// What a standby receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Following {
    pub(crate) timeline: Term,
    pub(crate) flushed: usize,
}

impl World {
    /// It stops receiving, and everything that it received is flushed and applied.
    pub(crate) fn recruit_standby(&mut self, n: usize, process: u64) -> Result<Recruited, Refused> {
        let keeps_receiving = self.mutates(Mutant::ReceiveAfterRecruit);
        let server = self.process_mut(n).filter(|server| server.id == process && server.recovers);
        let server = server.ok_or(Refused)?;
        if !keeps_receiving {
            server.receiver = None;
        }
        let files = self.files_mut(n).ok_or(Refused)?;
        let position = files.log.len();
        files.durable = position;
        let rule = files.log.newest_id();
        let mut timeline = files.log.timeline();
        // It is known from the last restartpoint, which may lie some records back.
        if self.chaos && self.chance.one_in(4) {
            let back = self.chance.index(4) + 1;
            let before = self.log(n).and_then(|log| log.get(position.saturating_sub(back)));
            timeline = before.map_or(timeline, |record| record.timeline);
        }
        Ok(Recruited { rule, timeline, position })
    }

    /// Points it at an upstream; it goes on trying by itself.
    pub(crate) fn point_standby(
        &mut self,
        n: usize,
        process: u64,
        to: (usize, &Member),
    ) -> Result<(), Refused> {
        let server = self.process_mut(n).filter(|server| server.id == process && server.recovers);
        let server = server.ok_or(Refused)?;
        let (upstream, member) = to;
        if server.receiver.as_ref().is_some_and(|there| there.upstream == upstream && there.member == *member)
        {
            return Ok(());
        }
        let receiver = Receiver { attempt: 0, upstream, member: member.clone(), stream: None };
        self.next_id += 1;
        let attempt = self.next_id;
        if let Some(server) = self.process_mut(n) {
            server.receiver = Some(Receiver { attempt, ..receiver });
        }
        self.after(1, Event::Connect { n, process });
        Ok(())
    }

    /// What it receives from `upstream`, if it does.
    pub(crate) fn following(&self, n: usize, process: u64, upstream: (usize, &Member)) -> Option<Following> {
        let server = self.process(n).filter(|server| server.id == process && server.recovers)?;
        let receiver = server.receiver.as_ref();
        let receiver = receiver.filter(|it| it.upstream == upstream.0 && it.member == *upstream.1)?;
        let files = self.files(n)?;
        Some(Following { timeline: receiver.stream?.timeline, flushed: files.durable })
    }

    /// Begins the timeline of `term`; returns where it branched off. One that has begun it already only says so.
    pub(crate) fn promote_standby(&mut self, n: usize, process: u64, term: Term) -> Result<usize, Refused> {
        let server = self.process_mut(n).filter(|server| server.id == process).ok_or(Refused)?;
        if !server.recovers {
            let same = server.timeline == term;
            return if same {
                self.log(n).and_then(|log| log.began(term)).ok_or(Refused)
            } else {
                Err(Refused)
            };
        }
        if server.timeline >= term || server.receiver.is_some() {
            return Err(Refused);
        }
        server.recovers = false;
        server.timeline = term;
        let files = self.files_mut(n).ok_or(Refused)?;
        files.standby = false;
        let start = files.log.len();
        self.append_durably(n, Payload::Begin).ok_or(Refused)?;
        self.say(|| format!("{} begins term {term} at {start}", name(n)));
        self.check_reign(n, term);
        Ok(start)
    }

    /// Writes a rule and its marker; returns where it ends.
    pub(crate) fn write_rule(&mut self, n: usize, process: u64, rule: &Rule) -> Result<usize, Refused> {
        self.process(n).filter(|server| server.id == process && !server.recovers).ok_or(Refused)?;
        let log = self.log(n).ok_or(Refused)?;
        match log.newest_rule() {
            Some(newest) if **newest == *rule => return Ok(log.len()),
            Some(newest) if newest.id >= rule.id => return Err(Refused),
            Some(_) | None => {}
        }
        self.check_rule(n, rule);
        self.say(|| {
            let voters: Vec<_> = rule.voters.iter().map(|voter| voter.member.node.as_str()).collect();
            format!(
                "{} writes rule {} k {} over {} start {}",
                name(n),
                rule.id,
                rule.k,
                voters.join(" "),
                rule.start.ordinal()
            )
        });
        self.append_durably(n, Payload::Rule(Rc::new(rule.clone()))).ok_or(Refused)
    }

    /// Puts a gate and a list in force.
    pub(crate) fn apply_gate(
        &mut self,
        n: usize,
        process: u64,
        gate: &Gate,
        sync: &Sync,
    ) -> Result<(), Refused> {
        let server = self.process_mut(n).filter(|server| server.id == process).ok_or(Refused)?;
        let opens = server.gate != *gate && matches!(gate, Gate::Open { .. });
        server.gate = gate.clone();
        server.sync = sync.clone();
        let timeline = server.timeline;
        if opens {
            self.say(|| format!("{} is open in term {timeline}", name(n)));
            self.check_open(n, timeline);
        }
        self.release(n);
        Ok(())
    }

    pub(crate) fn admit(
        &mut self,
        n: usize,
        process: u64,
        members: &BTreeSet<Member>,
    ) -> Result<(), Refused> {
        let server = self.process_mut(n).filter(|server| server.id == process).ok_or(Refused)?;
        server.admitted.clone_from(members);
        Ok(())
    }

    /// Ends the stream of a member that may not come back.
    pub(crate) fn expel(&mut self, n: usize, process: u64, member: &Member) -> Result<(), Refused> {
        let server = self.process_mut(n).filter(|server| server.id == process).ok_or(Refused)?;
        let counted = matches!(&server.sync, Sync::Quorum(quorum) if quorum.ackers.contains(member));
        if counted || server.admitted.contains(member) {
            return Err(Refused);
        }
        let streams: Vec<_> =
            server.senders.iter().filter(|it| it.member == *member).map(|it| (it.stream, it.node)).collect();
        for (stream, node) in streams {
            self.break_stream(n, node, stream);
        }
        Ok(())
    }

    /// Makes every standby connect anew.
    pub(crate) fn renew_streams(&mut self, n: usize, process: u64) -> Result<(), Refused> {
        let server = self.process_mut(n).filter(|server| server.id == process).ok_or(Refused)?;
        let streams: Vec<_> = server.senders.iter().map(|sender| (sender.stream, sender.node)).collect();
        for (stream, node) in streams {
            self.break_stream(n, node, stream);
        }
        Ok(())
    }
}
