//! What goes wrong in a history, and when: drawn in advance from the seed. In the end everything is healed, and the cluster has
//! to come back.

use std::collections::BTreeSet;
use std::rc::Rc;

use holdfast_model::peer::Part;
use holdfast_model::status::Gate;
use holdfast_model::{Lsn, Member, Promise, Rule, RuleId, Term, Tick, Voter, VoterKind};
use holdfast_replication::change::{self, Change};
use holdfast_replication::coverage::{can_establish, revoked};
use holdfast_replication::faults::outlook;

use crate::engine::{Server, name};
use crate::log::{Payload, Record, position};
use crate::node::{Data, Node};
use crate::store::{Backup, Shipped};
use crate::world::{Event, World};

/// One thing that goes wrong, or that somebody asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    KillAgent(usize),
    CrashEngine(usize),
    CrashMachine(usize),
    /// Its engine stands still for so many milliseconds, and goes on as if nothing had been.
    Freeze(usize, u64),
    LoseDisk(usize),
    /// A blank one is put in.
    ReplaceDisk(usize),
    SlowDisk(usize, u64),
    /// Nodes of the mask hear nothing of the others; in one direction only, or in both.
    Cut {
        mask: u64,
        one_way: bool,
    },
    Slow(usize, usize, u64),
    Lossy(u64),
    HealNet,
    StoreAway(u64),
    StoreBack,
    Failover {
        at: usize,
        without_votes: bool,
    },
    Switchover {
        at: usize,
        to: usize,
    },
    HoldOut {
        node: usize,
        out: bool,
    },
    Backup,
}

/// Nodes by zone, and k.
const LAYOUTS: [(&[u8], u32, u64); 5] =
    [(b"abc", 1, 60), (b"abcd", 1, 20), (b"abca", 1, 8), (b"abcc", 1, 7), (b"abcde", 2, 5)];
/// When faults begin.
const FIRST_MS: u64 = 2_500;
/// Between two looks of whoever operates the cluster, once faults have ended.
const LOOK_MS: u64 = 1_000;
/// By then whoever can come back has done so.
const GIVEN_UP_MS: u64 = 40_000;
/// Within so many milliseconds after the last fault it has to be whole.
const WHOLE_MS: u64 = 180_000;

impl World {
    /// A cluster as it is some time after its bootstrap.
    pub(crate) fn found(&mut self) {
        let mut drawn = self.chance.below(LAYOUTS.iter().map(|(_, _, weight)| weight).sum());
        let mut layout = LAYOUTS[0];
        for candidate in LAYOUTS {
            layout = candidate;
            if drawn < candidate.2 {
                break;
            }
            drawn -= candidate.2;
        }
        let (zones, k, _) = self.settings.layout.unwrap_or(layout);
        self.k = k;
        self.rewinds_fail = self.chance.one_in(6);
        self.net = crate::net::Net::of(zones.len());
        self.nodes = zones.iter().enumerate().map(|(n, zone)| machine(n, *zone)).collect();
        let mut disks: Vec<_> = self.nodes.iter_mut().map(|node| node.format(false)).collect();
        let log = self.first_log(&disks.iter().map(|disk| disk.member.clone()).collect::<Vec<_>>());
        for (n, disk) in disks.iter_mut().enumerate() {
            let member = disk.member.clone();
            let cluster = self.cluster.clone();
            disk.promise = Some(Promise { cluster, member, max_term: Term::FIRST, attempt: 0 });
            disk.data = Data::Ready { reign: (n == 0).then_some(Term::FIRST) };
            disk.files.standby = n != 0;
            for record in &log {
                disk.files.log.push(record.clone());
            }
            disk.files.durable = log.len();
        }
        self.store.log.insert(Term::FIRST, Shipped { first: 0, records: log.clone(), by: Term::FIRST });
        self.store.backups.push(Backup {
            term: Term::FIRST,
            stop: log.len(),
            log: disks[0].files.log.clone(),
        });
        for (n, disk) in disks.into_iter().enumerate() {
            self.nodes[n].disk = Some(disk);
            self.start_agent(n);
        }
    }

    /// The first rule names the first node alone; the others are added one by one, and k is raised.
    fn first_log(&mut self, members: &[Member]) -> Vec<Record> {
        let voter = |n: usize| {
            let zone = self.nodes[n].zone.clone();
            Voter { member: members[n].clone(), zone, kind: VoterKind::Full }
        };
        let id = RuleId { term: Term::FIRST, version: 1 };
        let mut rules = vec![Rule {
            id,
            primary: members[0].clone(),
            voters: vec![voter(0)],
            k: 0,
            previous: None,
            start: Lsn::ZERO.into(),
        }];
        let added = (1..members.len()).map(|n| Change::Add(voter(n)));
        for what in added.chain([Change::SetK(self.k)]) {
            let current = rules.last().expect("there is a first one").clone();
            // A second node of a zone stays an observer.
            let Ok(next) = change::changed(&current, &what, position(rules.len())) else { continue };
            rules.push(next.clone());
            rules.extend(change::resumed(&next, position(rules.len())));
        }
        self.store.rules.insert(Term::FIRST, rules[0].clone());
        let record = |rule| Record { timeline: Term::FIRST, payload: Payload::Rule(Rc::new(rule)) };
        rules.into_iter().map(record).collect()
    }

    pub(crate) fn plan_faults(&mut self) {
        self.after(1_500, Event::Client);
        let lasts = self.chance.between(6_000, 16_000);
        let many = self.chance.between(3, 11);
        let mut losses = if self.chance.one_in(8) { u64::MAX } else { u64::from(self.k) };
        for _ in 0..many {
            let at = Tick::from_millis(FIRST_MS + self.chance.below(lasts));
            let fault = self.draw(&mut losses, at);
            self.at(at, Event::Fault(fault));
        }
        // Something for the faults to interfere with.
        let at = Tick::from_millis(FIRST_MS + self.chance.below(lasts));
        let fault = Fault::Failover { at: self.any_node(), without_votes: self.chance.one_in(2) };
        self.at(at, Event::Fault(fault));
        self.at(Tick::from_millis(FIRST_MS + lasts + 1_000), Event::Heal);
        self.chaos = true;
    }

    fn any_node(&mut self) -> usize {
        self.chance.index(self.nodes.len())
    }

    fn draw(&mut self, losses: &mut u64, at: Tick) -> Fault {
        let n = self.any_node();
        match self.chance.below(21) {
            0 | 1 => Fault::KillAgent(n),
            2 | 3 => Fault::CrashEngine(n),
            4 => Fault::CrashMachine(n),
            5 | 6 if *losses > 0 => {
                *losses -= 1;
                let back = at.after_millis(self.chance.between(300, 4_000));
                self.at(back, Event::Fault(Fault::ReplaceDisk(n)));
                Fault::LoseDisk(n)
            }
            5 | 6 => Fault::SlowDisk(n, self.chance.between(20, 400)),
            7..=9 => {
                self.heal_later(at);
                let mask = self.chance.between(1, (1 << self.nodes.len()) - 2);
                Fault::Cut { mask, one_way: self.chance.one_in(4) }
            }
            10 => {
                self.heal_later(at);
                Fault::Slow(n, self.any_node(), self.chance.between(50, 900))
            }
            11 => Fault::Lossy(self.chance.between(20, 300)),
            12 => {
                let back = at.after_millis(self.chance.between(500, 6_000));
                self.at(back, Event::Fault(Fault::StoreBack));
                Fault::StoreAway(self.chance.between(1, (1 << self.nodes.len()) - 1))
            }
            13 | 14 => {
                // Two who do not know of one another.
                let other = at.after_millis(self.chance.below(1_500));
                let fault = Fault::Failover { at: self.any_node(), without_votes: self.chance.one_in(2) };
                self.at(other, Event::Fault(fault));
                Fault::Failover { at: n, without_votes: self.chance.one_in(2) }
            }
            15 => Fault::Failover { at: n, without_votes: self.chance.one_in(2) },
            16 | 17 => Fault::Switchover { at: n, to: self.any_node() },
            18 => {
                let back = at.after_millis(self.chance.between(1_000, 5_000));
                self.at(back, Event::Fault(Fault::HoldOut { node: n, out: false }));
                Fault::HoldOut { node: n, out: true }
            }
            19 => Fault::Freeze(n, self.chance.between(300, 9_000)),
            _ => Fault::Backup,
        }
    }

    fn heal_later(&mut self, at: Tick) {
        if self.chance.one_in(4) {
            return;
        }
        let healed = at.after_millis(self.chance.between(300, 5_000));
        self.at(healed, Event::Fault(Fault::HealNet));
    }

    /// Clients write wherever they are let.
    pub(crate) fn client(&mut self) {
        for n in 0..self.nodes.len() {
            if self.chance.one_in(2) {
                self.commit(n);
            }
        }
        let ms = self.chance.between(60, 300);
        self.after(ms, Event::Client);
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.say(|| format!("fault: {fault:?}"));
        match fault {
            Fault::KillAgent(n) => {
                self.counts.one("fault: agent killed");
                self.kill_agent(n);
            }
            Fault::CrashEngine(n) => {
                self.counts.one("fault: engine crashed");
                self.crash_server(n);
            }
            Fault::CrashMachine(n) => {
                self.counts.one("fault: machine crashed");
                self.crash_server(n);
                self.kill_agent(n);
            }
            Fault::Freeze(n, ms) => self.freeze_server(n, ms),
            Fault::LoseDisk(n) => self.lose_disk(n),
            Fault::ReplaceDisk(n) => {
                self.nodes[n].blank = self.nodes[n].disk.is_none();
                self.wake(n);
            }
            Fault::SlowDisk(n, ms) => {
                self.counts.one("fault: slow disk");
                self.nodes[n].slow_disk_ms = ms;
            }
            Fault::Cut { mask, one_way } => {
                self.counts.one(if one_way { "fault: cut in one direction" } else { "fault: partition" });
                self.cut(mask, one_way);
            }
            Fault::Slow(from, to, ms) => {
                self.counts.one("fault: slow link");
                self.net.slow(from, to, ms);
            }
            Fault::Lossy(permille) => {
                self.counts.one("fault: messages lost, repeated and late");
                (self.net.lost, self.net.repeated) = (permille, permille);
            }
            Fault::HealNet => self.net.heal(),
            Fault::StoreAway(mask) => {
                self.counts.one("fault: store away");
                self.reach_store(mask);
            }
            Fault::StoreBack => self.reach_store(0),
            Fault::Failover { at, without_votes } => self.command(at, None, without_votes),
            Fault::Switchover { at, to } => self.command(at, Some(to), false),
            Fault::HoldOut { node, out } => self.hold_out(node, out),
            Fault::Backup => (0..self.nodes.len()).for_each(|n| self.take_backup(n)),
        }
    }

    fn lose_disk(&mut self, n: usize) {
        if self.nodes[n].disk.take().is_some() {
            self.counts.one("fault: disk lost");
            self.oracle.forget_report(n);
            self.reset_streams(n);
            self.wake(n);
        }
    }

    fn cut(&mut self, mask: u64, one_way: bool) {
        let inside = |n: usize| mask >> n & 1 == 1;
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                if inside(from) != inside(to) && (!one_way || inside(from)) {
                    self.net.cut(from, to, true);
                }
            }
        }
    }

    fn reach_store(&mut self, away: u64) {
        for (n, node) in self.nodes.iter_mut().enumerate() {
            node.reaches_store = away >> n & 1 == 0;
        }
    }

    /// Somebody tells the primary that a node is to be no voter, or may be one again (`agent/src/daemon/coordinate.rs`).
    fn hold_out(&mut self, node: usize, out: bool) {
        let Some(primary) = (0..self.nodes.len()).find(|n| self.is_open(*n)) else { return };
        let Some(log) = self.log(primary) else { return };
        if log.held_out().contains(&node) == out {
            return;
        }
        let voter = log.newest_rule().and_then(|rule| {
            let voter = rule.voters.iter().find(|voter| voter.member.node == self.nodes[node].name)?;
            Some((rule, Change::Remove(voter.member.clone())))
        });
        if out
            && voter.is_some_and(|(rule, remove)| change::changed(rule, &remove, rule.start.clone()).is_err())
        {
            self.counts.one("refused: to remove a member");
            return;
        }
        self.counts.one(if out { "member held out" } else { "member let in again" });
        self.append_durably(primary, Payload::HoldOut { node, out });
        self.wake(primary);
    }

    fn is_open(&self, n: usize) -> bool {
        self.process(n).is_some_and(|server| !server.recovers && matches!(server.gate, Gate::Open { .. }))
    }

    pub(crate) fn heal(&mut self) {
        self.say(|| "faults end".to_owned());
        self.chaos = false;
        self.net.heal();
        self.reach_store(0);
        for n in 0..self.nodes.len() {
            self.nodes[n].slow_disk_ms = 0;
            self.nodes[n].blank = self.nodes[n].disk.is_none();
            self.wake(n);
        }
        self.oracle.acked_since = Some((self.now, Term::FIRST));
        self.after(LOOK_MS, Event::Operator);
    }

    /// Whoever operates the cluster asks for a primary while there is none, and lets everybody in again.
    pub(crate) fn operator(&mut self) {
        let Some((healed, _)) = self.oracle.acked_since else { return };
        let late = self.now.millis_since(healed);
        let open: Vec<usize> = (0..self.nodes.len()).filter(|n| self.is_open(*n)).collect();
        if open.iter().any(|n| self.is_whole(*n)) {
            self.counts.one("whole again");
            self.counts.add("ms until whole", late);
            self.oracle.done = true;
            return;
        }
        let held: BTreeSet<usize> =
            open.first().and_then(|n| self.log(*n)).map(|log| log.held_out()).unwrap_or_default();
        held.into_iter().for_each(|node| self.hold_out(node, false));
        if late > GIVEN_UP_MS && self.is_lost() {
            self.counts.one("more than k lost");
            self.oracle.done = true;
            return;
        }
        if late > WHOLE_MS {
            let stands = self.stands();
            self.violated(format!("not whole {late} ms after faults ended: {stands}"));
            return;
        }
        if self.coordinators.is_empty() && (self.now.millis() / LOOK_MS).is_multiple_of(4) {
            let blocked = late > 60_000;
            if open.is_empty() || blocked {
                let at = self.any_node();
                self.command(at, None, (self.now.millis() / LOOK_MS).is_multiple_of(8));
            }
        }
        self.after(LOOK_MS, Event::Operator);
    }

    /// A write was acked by this primary since faults ended, and everybody who can be is its voter.
    fn is_whole(&self, n: usize) -> bool {
        let Some(rule) = self.log(n).and_then(|log| log.newest_rule()) else { return false };
        let acked = self.oracle.acked_since.is_some_and(|(_, newest)| newest == rule.id.term);
        let zones: BTreeSet<_> = self.nodes.iter().map(|node| &node.zone).collect();
        let of_rule = rule
            .voters
            .iter()
            .all(|voter| self.nodes.iter().any(|node| node.member() == Some(&voter.member)));
        let follows = |other: usize| {
            self.nodes[other].agent.as_ref().is_some_and(|agent| {
                matches!(&agent.report.part, Part::Follows { primary, streaming: true } if *primary == rule.primary)
            })
        };
        acked
            && rule.k == self.k
            && rule.voters.len() == zones.len()
            && of_rule
            && (0..self.nodes.len()).all(|other| other == n || follows(other))
    }

    /// Whether so many members were lost that nobody may be promoted or acked any more.
    fn is_lost(&self) -> bool {
        let live: BTreeSet<Member> = self.nodes.iter().filter_map(|node| node.member().cloned()).collect();
        let logs = (0..self.nodes.len()).filter_map(|n| self.log(n));
        let newest = logs.filter_map(|log| log.newest_id().map(|id| (id, log))).max_by_key(|(id, _)| *id);
        let Some((_, log)) = newest else { return true };
        // A primary that was recruited does not go on by itself.
        let serves = |rule: &Rule| {
            let fails_over = revoked(rule, &live).is_ok() && can_establish(rule, &live).is_ok();
            fails_over || ((0..self.nodes.len()).any(|n| self.is_open(n)) && outlook(rule, &live).serves())
        };
        !log.rules().take(2).all(|rule| serves(rule))
    }

    fn stands(&self) -> String {
        let one = |n: usize| {
            let node = &self.nodes[n];
            let agent = node.agent.as_ref();
            let rule = self.log(n).and_then(|log| log.newest_id()).map(|id| id.to_string());
            format!(
                "{} data {:?} promise {:?} rule {rule:?} part {:?} gate {:?} server {}",
                name(n),
                node.disk.as_ref().map(|disk| &disk.data),
                node.disk
                    .as_ref()
                    .and_then(|disk| disk.promise.as_ref())
                    .map(|promise| promise.max_term.number()),
                agent.map(|agent| &agent.report.part),
                agent.map(|agent| &agent.report.gate),
                match &node.server {
                    Server::Stopped { .. } => "stopped",
                    Server::Stopping { .. } => "stopping",
                    Server::Alive(_) => "alive",
                }
            )
        };
        (0..self.nodes.len()).map(one).collect::<Vec<_>>().join("; ")
    }
}

fn machine(n: usize, zone: u8) -> Node {
    Node {
        name: name(n).parse().expect("a name"),
        zone: format!("zone-{}", char::from(zone)).parse().expect("a zone"),
        disk: None,
        blank: false,
        incarnations: 0,
        slow_disk_ms: 0,
        server: Server::Stopped { crashes: 0, since: None },
        crashes: 0,
        agent: None,
        reaches_store: true,
    }
}
