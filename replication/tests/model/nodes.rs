//! What nodes do: write, receive, look at what is acked, follow, crash, lose their disk, change the rule.

use std::sync::{Arc, LazyLock};

use holdfast_model::{ClusterId, Lsn, Member, Position, Promise, Rule, RuleId, Term};
use holdfast_replication::chain::{self, Held};
use holdfast_replication::change::{self, Change, Marker, Seen, Step as ChangeStep, Underway};
use holdfast_replication::promise::{self, Attempt, Promised, Standing};
use holdfast_replication::quorum::AckQuorum;
use holdfast_replication::resume::{Flushing, may_resume};

use super::actions::{Naive, Protocol};
use super::rules::{RuleRef, id, member};
use super::state::{Changing, Cluster, Entry, Id, Node, Pledge, Reign, Role, Sent, get, put};

pub(crate) fn position(end: u8) -> Position {
    Lsn::from_offset(u64::from(end)).into()
}

pub(crate) fn attempt(pledge: Pledge) -> Attempt {
    Attempt { term: Term::new(u32::from(pledge.term)).unwrap(), id: u128::from(pledge.attempt) }
}

static CLUSTER: LazyLock<ClusterId> = LazyLock::new(|| ClusterId::new("c".parse().unwrap(), 1));

/// What a node stands by, in the crate's types.
pub(crate) struct Stand {
    member: &'static Member,
    promise: Option<Promise>,
    last_rule: Option<RuleId>,
}

impl Stand {
    pub(crate) fn as_standing(&self) -> Standing<'_> {
        Standing { member: self.member, promise: self.promise.as_ref(), last_rule: self.last_rule }
    }
}

impl Protocol {
    pub(crate) fn stand(&self, state: &Cluster, node: usize) -> Stand {
        let own = &state.nodes[node];
        let member = member(state.id(node));
        let promise = own.promise.map(|pledge| {
            let Attempt { term, id } = attempt(pledge);
            Promise { cluster: CLUSTER.clone(), member: member.clone(), max_term: term, attempt: id }
        });
        let last_rule = own.rules().next().map(|rule| self.rules.get(rule).id);
        Stand { member, promise, last_rule }
    }

    /// How far the log of a primary is acked.
    pub(crate) fn acked(&self, node: &Node, reign: &Reign) -> Option<u8> {
        self.rules.quorum(&reign.in_force).acked(node.end(), |member| get(&reign.seen, id(member)))
    }

    /// Whether what lies before `marker` is seen acked there.
    fn is_acked(&self, node: &Node, reign: &Reign, marker: u8) -> bool {
        let quorum = self.rules.quorum(&reign.in_force);
        quorum.holds(marker, node.end(), |member| get(&reign.seen, id(member)))
    }

    /// The engine answers clients by itself, as soon as enough is acked.
    fn acknowledge(&self, state: &mut Cluster, node: usize) {
        let own = &state.nodes[node];
        let Some(reign) = own.reign() else { return };
        let (term, acked) = (reign.term, self.acked(own, reign).unwrap_or(0));
        let told: Vec<u8> = own.log[..usize::from(acked)].iter().filter_map(write_of).collect();
        for write in told {
            if state.acknowledged.iter().all(|(known, _)| *known != write) {
                state.acknowledged.push((write, term));
                state.acknowledged.sort_unstable();
            }
        }
    }

    pub(crate) fn write(&self, state: &mut Cluster, node: usize) {
        state.nodes[node].log.push(Entry::Write(state.spent.writes));
        state.spent.writes += 1;
    }

    pub(crate) fn replicate(&self, state: &mut Cluster, node: usize) -> Option<()> {
        let Role::Following { term, primary } = state.nodes[node].role else { return None };
        let upstream = &state.nodes[usize::from(primary.node)];
        upstream.reign().filter(|reign| reign.term == term && upstream.incarnation == primary.incarnation)?;
        let missing = upstream.log.get(state.nodes[node].log.len()..)?;
        let received = if self.bounds.prompt { missing } else { &missing[..missing.len().min(1)] }.to_vec();
        if received.is_empty() {
            return None;
        }
        let from = state.id(node);
        let own = &mut state.nodes[node];
        own.log.extend(received);
        own.sent = Some(Sent { from, to: primary, term, at: own.end() });
        Some(())
    }

    pub(crate) fn deliver(&self, state: &mut Cluster, node: usize) -> Option<()> {
        let sent = state.nodes[node].sent.take()?;
        let primary = &mut state.nodes[usize::from(sent.to.node)];
        if primary.incarnation == sent.to.incarnation {
            let end = primary.end();
            if let Some(reign) = primary.reign_mut().filter(|reign| reign.term == sent.term) {
                put(&mut reign.seen, sent.from, sent.at.min(end));
            }
            self.acknowledge(state, usize::from(sent.to.node));
        }
        Some(())
    }

    /// The agent of a primary opens its gate when the marker is acked, and goes on with a change.
    pub(crate) fn look(&self, state: &mut Cluster, node: usize) -> Option<()> {
        let own = &state.nodes[node];
        let reign = own.reign().filter(|reign| !reign.open || reign.changing.is_some())?;
        let due = match (reign.open, reign.changing) {
            (true, Some(changing)) => changing.marker,
            (true, None) | (false, _) => Some(reign.marker),
        };
        let marker = match due {
            None => Marker::Due,
            Some(due) if self.is_acked(own, reign, due) => Marker::Acked,
            Some(_) => Marker::Written,
        };
        let in_force = self.rules.quorum(&reign.in_force);
        let (newest, end) = (own.rules().next()?, own.end());
        let reign = state.nodes[node].reign_mut()?;
        if !reign.open {
            if marker != Marker::Acked {
                return None;
            }
            reign.open = true;
            reign.in_force = vec![newest];
        } else if let Some(changing) = reign.changing {
            let rule = |rule| (*self.rules.get(rule)).clone();
            let underway = Underway { from: rule(changing.from), to: rule(changing.to) };
            let new = AckQuorum::of(&underway.to);
            match underway.next(Seen { in_force: Some(&in_force), marker }) {
                ChangeStep::Enforce(quorum) if quorum == new && changing.marker.is_some() => {
                    reign.in_force = vec![changing.to];
                }
                ChangeStep::Enforce(_) => reign.in_force = vec![changing.to, changing.from],
                ChangeStep::Write(_) => {
                    reign.changing = Some(Changing { marker: Some(end + 1), ..changing });
                    state.nodes[node].log.push(Entry::Marker(changing.to));
                }
                ChangeStep::Wait => return None,
                ChangeStep::Done => {
                    reign.in_force = vec![changing.to];
                    reign.changing = None;
                }
            }
        }
        self.acknowledge(state, node);
        Some(())
    }

    pub(crate) fn follow(&self, state: &mut Cluster, node: usize, primary: usize) -> Option<()> {
        let upstream = &state.nodes[primary];
        let reign = upstream.reign()?;
        let (term, own_id, primary_id, end) = (reign.term, state.id(node), state.id(primary), upstream.end());
        let following = Role::Following { term, primary: primary_id };
        if state.nodes[node].role == following && get(&reign.targets, own_id).is_some() {
            return None;
        }
        let chain: Vec<Arc<Rule>> = upstream.rules().map(|rule| self.rules.get(rule)).collect();
        let rule = chain.iter().rev().find(|rule| rule.id.term.number() == u32::from(term))?;
        let (stand, own_end) = (self.stand(state, node), state.nodes[node].end());
        let pledge = Pledge { term, attempt: 0 };
        let promised = promise::follow(stand.as_standing(), rule, attempt(pledge)).ok()?;
        let reign = stand.last_rule.map_or(Term::FIRST, |rule| rule.term);
        chain::may_follow(&Held { rule: stand.last_rule, reign, end: position(own_end) }, &chain).ok()?;
        put(&mut state.nodes[primary].reign_mut()?.targets, own_id, end);
        let own = &mut state.nodes[node];
        if promised != Promised::Already {
            own.promise = Some(pledge);
        }
        own.role = following;
        own.sent = Some(Sent { from: own_id, to: primary_id, term, at: own_end });
        Some(())
    }

    /// What is on the copy before that counts for nothing, so that it is one step.
    pub(crate) fn rewind(&self, state: &mut Cluster, node: usize, primary: usize) -> Option<()> {
        let (upstream, own) = (&state.nodes[primary], &state.nodes[node]);
        let term = upstream.reign()?.term;
        let rules: Vec<Arc<Rule>> = upstream.rules().map(|rule| self.rules.get(rule)).collect();
        let rule = rules.iter().find(|rule| rule.id.term.number() == u32::from(term))?;
        let pledge = Pledge { term, attempt: 0 };
        let stand = Stand { last_rule: None, ..self.stand(state, node) };
        let promised = promise::follow(stand.as_standing(), rule, attempt(pledge)).ok()?;
        let same = own.log.iter().zip(&upstream.log).take_while(|(own, other)| own == other).count();
        if same == own.log.len() {
            return None;
        }
        let log = upstream.log.clone();
        state.spent.rewinds += 1;
        let in_place = self.is(Naive::RewindsInPlace);
        let own = &mut state.nodes[node];
        own.log = if in_place { log[..same.saturating_sub(1)].to_vec() } else { log };
        if promised != Promised::Already {
            own.promise = Some(pledge);
        }
        own.role = Role::Idle;
        Some(())
    }

    /// Everything in memory is gone. A primary resumes in place if it may; everybody else waits to be told.
    pub(crate) fn crash(&self, state: &mut Cluster, node: usize) {
        state.spent.crashes += 1;
        if self.is(Naive::PromiseInMemory) {
            state.nodes[node].promise = None;
        }
        let was_primary = state.nodes[node].reign().is_some();
        state.nodes[node].role = Role::Idle;
        let newest = state.nodes[node].rules().next();
        let stand = self.stand(state, node);
        let Some(newest) = newest.filter(|_| was_primary) else { return };
        let rule = self.rules.get(newest);
        let Some(promise) = stand.promise.as_ref() else { return };
        if may_resume(promise, &rule, stand.member, Flushing::Strong).is_err() {
            return;
        }
        let own = &state.nodes[node];
        let resumed = self.rules.number(&change::resumed(&rule, position(own.end())).unwrap());
        let before: Vec<RuleRef> = own.rules().take(2).collect();
        self.reign(&mut state.nodes[node], resumed, &before);
    }

    /// Begins to reign with `rule`, the gate closed, everything that may be in force until its marker is acked.
    pub(crate) fn reign(&self, own: &mut Node, rule: RuleRef, before: &[RuleRef]) {
        own.log.push(Entry::Marker(rule));
        let open = if self.is(Naive::ListFromUnackedMarker) { &[][..] } else { before };
        own.role = Role::Primary(Reign {
            term: u8::try_from(self.rules.get(rule).id.term.number()).unwrap(),
            open: false,
            marker: own.end(),
            in_force: [&[rule], open].concat(),
            seen: vec![],
            targets: vec![],
            changing: None,
        });
    }

    /// What it had sent may still arrive.
    pub(crate) fn lose_disk(&self, state: &mut Cluster, node: usize) {
        state.spent.losses += 1;
        let incarnation = state.nodes[node].incarnation + u8::from(!self.is(Naive::SameName));
        let sent = state.nodes[node].sent;
        state.nodes[node] = Node { incarnation, promise: None, log: vec![], role: Role::Idle, sent };
    }

    pub(crate) fn restore(&self, state: &mut Cluster, node: usize) -> Option<()> {
        let (_, log) = state.shipped.clone()?;
        state.spent.restores += 1;
        state.nodes[node].log = log;
        Some(())
    }

    pub(crate) fn ship(&self, state: &mut Cluster, node: usize) -> Option<()> {
        let own = &state.nodes[node];
        let reign = own.reign()?;
        let acked = self.acked(own, reign).filter(|acked| *acked >= reign.marker);
        let until = if self.is(Naive::ShipsUnacked) { own.end() } else { acked? };
        let (term, log) = (reign.term, own.log[..usize::from(until)].to_vec());
        if state.shipped.as_ref().is_some_and(|(newest, known)| *newest > term || known.len() >= log.len()) {
            return None;
        }
        for write in log.iter().filter_map(write_of) {
            if state.kept.iter().all(|(known, _)| *known != write) {
                state.kept.push((write, term));
                state.kept.sort_unstable();
            }
        }
        state.shipped = Some((term, log));
        Some(())
    }

    pub(crate) fn add(&self, state: &mut Cluster, node: usize, other: usize) -> Option<()> {
        let other = state.id(other);
        let reign = state.nodes[node].reign()?;
        if !Self::caught_up(reign, other) {
            return None;
        }
        self.begin_change(state, node, &Change::Add(self.voter(other)))
    }

    pub(crate) fn remove(&self, state: &mut Cluster, node: usize, voter: Id) -> Option<()> {
        self.begin_change(state, node, &Change::Remove(member(voter).clone()))
    }

    fn begin_change(&self, state: &mut Cluster, node: usize, change: &Change) -> Option<()> {
        let end = state.nodes[node].end();
        let reign = state.nodes[node].reign()?;
        let from = reign.in_force[0];
        let mut to = change::changed(&self.rules.get(from), change, position(end)).ok()?;
        if self.is(Naive::TermsByChange) {
            to.id = RuleId { term: to.id.term.next().unwrap(), version: 1 };
        }
        let to = self.rules.number(&to);
        state.spent.changes += 1;
        let own = &mut state.nodes[node];
        let reign = own.reign_mut()?;
        reign.changing = Some(Changing { from, to, marker: None });
        Some(())
    }
}

pub(crate) fn write_of(entry: &Entry) -> Option<u8> {
    match entry {
        Entry::Write(write) => Some(*write),
        Entry::Marker(_) => None,
    }
}

/// Whether the newest rule of this log is of this member.
pub(crate) fn is_own(rule: &Rule, own: Id) -> bool {
    id(&rule.primary) == own
}
