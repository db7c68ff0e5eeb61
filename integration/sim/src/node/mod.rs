//! A machine: its disk, its engine, and the agent on it.
//!
//! What is decided here is decided by the product's own functions (`holdfast-agent-decide`, `holdfast-replication`). What lies
//! between them in the daemon, which waits for processes, files and sockets, is told again here in the same order of steps:
//! each file says which of the daemon's it mirrors.
//!
//! * `gate`, `writer`, `standby`: the gate loop.
//! * `reconcile`, `join`, `rewind`: the reconcile loop.
//! * `calls`: what coordinators ask of a member.
//! * `peers`: what agents hear of one another.
//! * `ship`: log on its way to the object store.

mod calls;
mod gate;
mod join;
mod peers;
mod reconcile;
mod rewind;
mod ship;
mod standby;
mod writer;

use std::collections::BTreeSet;
use std::rc::Rc;

use holdfast_model::peer::{Part, PeerView};
use holdfast_model::status::{
    BreachesView, DataView, EngineView, Gate, GateClosed, LogView, NodeView, RepositoryView, VolumeView,
};
use holdfast_model::{Incarnation, Member, NodeName, Promise, Rule, Term, Tick, Zone};
use holdfast_replication::change::Change;

pub(crate) use calls::Call;
use rewind::Rewinds;
use ship::Shipping;
use standby::Standby;
use writer::Writer;

use crate::engine::{Files, Server, Status, name};
use crate::mutant::Mutant;
use crate::world::{Event, World};

/// What stands on the volume about its data (`agent/src/data.rs`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Absent,
    /// A join was begun.
    Joining,
    /// The base and the shipped log are there up to `end`, and are replayed.
    Landed {
        end: usize,
    },
    Ready {
        reign: Option<Term>,
    },
    /// A copy is brought onto the log of a reign, and is to take the place of the data.
    Rewinding {
        onto: Term,
        primary: Member,
        taking: bool,
    },
}

/// A formatted disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) member: Member,
    pub(crate) promise: Option<Promise>,
    pub(crate) data: Data,
    pub(crate) files: Files,
    /// A copy that is whole.
    pub(crate) beside: Option<Files>,
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) zone: Zone,
    /// Formatted, and there.
    pub(crate) disk: Option<Disk>,
    /// A blank one is there.
    pub(crate) blank: bool,
    pub(crate) incarnations: u128,
    pub(crate) slow_disk_ms: u64,
    pub(crate) server: Server,
    pub(crate) crashes: u32,
    pub(crate) agent: Option<Box<Agent>>,
    /// Whether it reaches the object store.
    pub(crate) reaches_store: bool,
}

/// Who this node is (`agent/src/gate_loop/orders.rs`).
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) member: Member,
    pub(crate) promise: Option<Promise>,
    pub(crate) reign: Option<Term>,
}

/// Whom to follow.
#[derive(Debug, Clone)]
pub(crate) struct FollowOrder {
    pub(crate) primary: Member,
    pub(crate) upstream: Upstream,
    pub(crate) chain: Rc<Vec<Rule>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) node: usize,
    pub(crate) member: Member,
    pub(crate) term: Term,
}

/// What the gate loop is told.
#[derive(Debug, Clone)]
pub(crate) struct GateOrders {
    pub(crate) process: Option<u64>,
    pub(crate) fresh: bool,
    pub(crate) member: Option<Membership>,
    pub(crate) disk_healthy: bool,
    pub(crate) replays: bool,
    pub(crate) hold: Option<GateClosed>,
    pub(crate) admit: BTreeSet<Member>,
    pub(crate) change: Option<Change>,
    pub(crate) follow: Option<FollowOrder>,
}

/// What the gate loop says.
#[derive(Debug, Clone)]
pub(crate) struct GateReport {
    pub(crate) gate: Gate,
    pub(crate) engine: Option<Status>,
    pub(crate) rule: Option<Rc<Rule>>,
    pub(crate) part: Part,
    pub(crate) received: Option<Tick>,
    pub(crate) held_out: BTreeSet<NodeName>,
    pub(crate) process: Option<u64>,
}

impl GateReport {
    fn unknown() -> Self {
        Self {
            gate: Gate::Closed { why: GateClosed::Starting },
            engine: None,
            rule: None,
            part: Part::None,
            received: None,
            held_out: BTreeSet::new(),
            process: None,
        }
    }
}

/// An agent's memory: gone when it dies.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) life: u64,
    /// It dies at the end of this step.
    pub(crate) dies: bool,
    pub(crate) gate_due: Tick,
    pub(crate) reconcile_due: Tick,
    pub(crate) orders: Rc<GateOrders>,
    pub(crate) report: GateReport,
    pub(crate) writer: Writer,
    pub(crate) standby: Standby,
    /// The member whose volume it has mounted.
    pub(crate) mounted: Option<Member>,
    pub(crate) view: NodeView,
    pub(crate) heard: Vec<Option<Tick>>,
    /// The question to each peer that is not answered yet.
    pub(crate) asked: Vec<Option<u64>>,
    pub(crate) hold: Option<GateClosed>,
    pub(crate) handover_until: Option<Tick>,
    pub(crate) follow: Option<FollowOrder>,
    /// Whose rules were asked for, by which rule, and until when an answer is waited for.
    pub(crate) asks_rules: Option<(Rule, usize, Tick)>,
    pub(crate) started: Option<u64>,
    pub(crate) joining: bool,
    pub(crate) rewinds: Rewinds,
    pub(crate) shipping: Option<Shipping>,
    pub(crate) calls: Vec<Call>,
    /// The promise that a shortcut keeps here only.
    pub(crate) promise_in_memory: Option<Promise>,
    pub(crate) coordinator: Option<u64>,
}

/// Between two looks at the object store.
const STORE_MS: u64 = 2_000;

impl Node {
    pub(crate) fn member(&self) -> Option<&Member> {
        self.disk.as_ref().map(|disk| &disk.member)
    }

    /// A disk with nothing on it yet, as the next incarnation.
    pub(crate) fn format(&mut self, same: bool) -> Disk {
        if !same || self.incarnations == 0 {
            self.incarnations += 1;
        }
        let member =
            Member { node: self.name.clone(), incarnation: Incarnation::from_random(self.incarnations) };
        Disk { member, promise: None, data: Data::Absent, files: Files::default(), beside: None }
    }
}

impl World {
    pub(crate) fn start_agent(&mut self, n: usize) {
        if self.nodes[n].agent.is_some() {
            return;
        }
        self.next_id += 1;
        let life = self.next_id;
        let (now, many) = (self.now, self.nodes.len());
        let agent = Agent {
            life,
            dies: false,
            gate_due: now,
            reconcile_due: now,
            orders: Rc::new(GateOrders::unknown()),
            report: GateReport::unknown(),
            writer: Writer::new(),
            standby: Standby::default(),
            mounted: None,
            view: self.first_view(n),
            heard: vec![None; many],
            asked: vec![None; many],
            hold: None,
            handover_until: None,
            follow: None,
            asks_rules: None,
            started: None,
            joining: false,
            rewinds: Rewinds::default(),
            shipping: None,
            calls: vec![],
            promise_in_memory: None,
            coordinator: None,
        };
        self.nodes[n].agent = Some(Box::new(agent));
        self.say(|| format!("{} agent starts", name(n)));
        self.after(0, Event::LookAtStore { n, life });
        for peer in (0..many).filter(|peer| *peer != n) {
            let ms = self.chance.below(300);
            self.after(ms, Event::Poll { n, life, peer });
        }
        self.wake(n);
    }

    fn first_view(&self, n: usize) -> NodeView {
        let node = &self.nodes[n];
        let silent = |(at, peer): (usize, &Node)| {
            (at != n).then(|| PeerView {
                node: peer.name.clone(),
                zone: peer.zone.clone(),
                heard_ms: None,
                said: None,
                failing: None,
            })
        };
        NodeView {
            at: self.now,
            cluster: self.cluster.name().clone(),
            node: node.name.clone(),
            zone: node.zone.clone(),
            volume: VolumeView::Unknown,
            data: DataView::Unknown,
            engine: EngineView::Stopped { crashes: 0, since: None },
            gate: Gate::Closed { why: GateClosed::Starting },
            rule: None,
            promise: None,
            part: Part::None,
            peers: self.nodes.iter().enumerate().filter_map(silent).collect(),
            repository: RepositoryView::Unknown,
            log: LogView::default(),
            breaches: BreachesView::default(),
            operations: vec![],
            reason: String::new(),
        }
    }

    /// The agent's memory is lost; its engine goes on.
    pub(crate) fn kill_agent(&mut self, n: usize) {
        let Some(agent) = self.nodes[n].agent.take() else { return };
        self.agent_is_gone(n, &agent);
    }

    pub(crate) fn agent_is_gone(&mut self, n: usize, agent: &Agent) {
        self.say(|| format!("{} agent dies", name(n)));
        if let Some(id) = agent.coordinator {
            self.coordinators.remove(&id);
        }
        if self.mutates(Mutant::PromiseInMemory)
            && let (Some(disk), Some(_)) = (&mut self.nodes[n].disk, &agent.promise_in_memory)
        {
            disk.promise.clone_from(&agent.promise_in_memory);
            self.oracle.forget_promise(n);
        }
        let ms = self.chance.between(100, 3_000);
        self.after(ms, Event::StartAgent { n });
    }

    /// Runs a step of an agent that may die in it.
    pub(crate) fn with_agent(&mut self, n: usize, step: impl FnOnce(&mut Self, &mut Agent)) {
        let Some(mut agent) = self.nodes[n].agent.take() else { return };
        step(self, &mut agent);
        if agent.dies {
            self.counts.one("agent died between two steps");
            self.agent_is_gone(n, &agent);
        } else {
            self.nodes[n].agent = Some(agent);
        }
    }

    /// Whether the agent dies right here.
    pub(crate) fn cut_here(&mut self, agent: &mut Agent) -> bool {
        if !agent.dies && self.chaos && self.chance.one_in(self.settings.cut_one_in) {
            agent.dies = true;
        }
        agent.dies
    }

    pub(crate) fn wake(&mut self, n: usize) {
        self.wake_gate(n);
        self.wake_reconcile(n);
    }

    pub(crate) fn wake_gate(&mut self, n: usize) {
        let at = self.now.after_millis(1);
        if let Some(agent) = &mut self.nodes[n].agent {
            let life = agent.life;
            if agent.gate_due != at {
                agent.gate_due = at;
                self.at(at, Event::Gate { n, life });
            }
        }
    }

    pub(crate) fn wake_reconcile(&mut self, n: usize) {
        let at = self.now.after_millis(1);
        if let Some(agent) = &mut self.nodes[n].agent {
            let life = agent.life;
            if agent.reconcile_due != at {
                agent.reconcile_due = at;
                self.at(at, Event::Reconcile { n, life });
            }
        }
    }

    /// Persists a promise; whoever is asked hears of it afterwards.
    pub(crate) fn persist_promise(&mut self, n: usize, agent: &mut Agent, promise: Promise) -> bool {
        if self.cut_here(agent) {
            return false;
        }
        if self.mutates(Mutant::PromiseInMemory) && agent.promise_in_memory.is_none() {
            agent.promise_in_memory = self.nodes[n].disk.as_ref().and_then(|disk| disk.promise.clone());
        }
        self.check_promise(n, &promise);
        self.say(|| format!("{} promises term {}", name(n), promise.max_term));
        let Some(disk) = &mut self.nodes[n].disk else { return false };
        disk.promise = Some(promise);
        !self.cut_here(agent)
    }

    /// Writes the record about the data.
    pub(crate) fn write_data(&mut self, n: usize, agent: &mut Agent, data: Data) -> bool {
        if self.cut_here(agent) {
            return false;
        }
        let Some(disk) = &mut self.nodes[n].disk else { return false };
        disk.data = data;
        !self.cut_here(agent)
    }

    pub(crate) fn look_at_store(&mut self, n: usize, life: u64) {
        if self.nodes[n].agent.as_ref().is_none_or(|agent| agent.life != life) {
            return;
        }
        let seen = if self.nodes[n].reaches_store {
            RepositoryView::Ready {
                cluster: self.cluster.clone(),
                newest_term: self.store.newest_term(),
                newest_backup: Some(String::new()),
            }
        } else {
            RepositoryView::Unreachable { why: String::new() }
        };
        if let Some(agent) = &mut self.nodes[n].agent {
            agent.view.repository = seen;
        }
        self.after(STORE_MS, Event::LookAtStore { n, life });
    }

    /// The node of a member.
    pub(crate) fn node_of(&self, member: &Member) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == member.node)
    }
}

impl GateOrders {
    fn unknown() -> Self {
        Self {
            process: None,
            fresh: false,
            member: None,
            disk_healthy: false,
            replays: false,
            hold: None,
            admit: BTreeSet::new(),
            change: None,
            follow: None,
        }
    }
}
