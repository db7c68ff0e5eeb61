//! One history: everything that there is, and what happens to it, in the order of virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use holdfast_model::{ClusterId, Tick};

use crate::Settings;
use crate::chance::Chance;
use crate::check::Oracle;
use crate::coordinator::Coordinator;
use crate::counts::Counts;
use crate::faults::Fault;
use crate::mutant::Mutant;
use crate::net::{Envelope, Net};
use crate::node::Node;
use crate::store::Store;

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    Deliver(Box<Envelope>),
    /// A turn of an agent's gate loop, if it is still due then.
    Gate {
        n: usize,
        life: u64,
    },
    /// A turn of an agent's reconcile loop, if it is still due then.
    Reconcile {
        n: usize,
        life: u64,
    },
    /// An agent asks a peer how it is.
    Poll {
        n: usize,
        life: u64,
        peer: usize,
    },
    /// An agent looks at the repository.
    LookAtStore {
        n: usize,
        life: u64,
    },
    Ship {
        n: usize,
        life: u64,
    },
    Landed {
        n: usize,
        life: u64,
    },
    Copied {
        n: usize,
        life: u64,
    },
    /// An engine answers from now on.
    Ready {
        n: usize,
        process: u64,
    },
    Stopped {
        n: usize,
        process: u64,
    },
    Flush {
        n: usize,
        process: u64,
    },
    Connect {
        n: usize,
        process: u64,
    },
    /// A coordinator's time has come.
    Coordinate {
        id: u64,
    },
    StartAgent {
        n: usize,
    },
    Client,
    Fault(Fault),
    /// Faults end.
    Heal,
    /// Somebody looks whether the cluster needs a word.
    Operator,
}

struct Due {
    at: Tick,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Everything.
pub(crate) struct World {
    pub(crate) now: Tick,
    due: BinaryHeap<Reverse<Due>>,
    order: u64,
    pub(crate) chance: Chance,
    pub(crate) cluster: ClusterId,
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Net,
    pub(crate) store: Store,
    pub(crate) coordinators: BTreeMap<u64, Coordinator>,
    pub(crate) oracle: Oracle,
    pub(crate) counts: Counts,
    pub(crate) mutant: Option<Mutant>,
    /// No copy is brought back at the first tries.
    pub(crate) rewinds_fail: bool,
    /// Faults may happen between two steps of an agent.
    pub(crate) chaos: bool,
    /// How many voters of other zones the configuration asks for.
    pub(crate) k: u32,
    /// Ids of processes, streams, lives, calls and coordinators.
    pub(crate) next_id: u64,
    /// Ids of what clients write.
    pub(crate) writes: u32,
    pub(crate) settings: Settings,
    pub(crate) trace: Trace,
}

/// What happened, as text; empty unless somebody reads it.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) lines: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, settings: Settings) -> Self {
        let mut world = Self {
            now: Tick::from_millis(0),
            due: BinaryHeap::new(),
            order: 0,
            chance: Chance::of_seed(seed),
            cluster: ClusterId::new("sim".parse().expect("a name"), 1),
            nodes: vec![],
            net: Net::default(),
            store: Store::default(),
            coordinators: BTreeMap::new(),
            oracle: Oracle::default(),
            counts: Counts::default(),
            mutant: settings.mutant,
            rewinds_fail: false,
            chaos: false,
            k: 1,
            next_id: 0,
            writes: 0,
            settings,
            trace: Trace { lines: settings.trace.then(Vec::new) },
        };
        world.found();
        world.plan_faults();
        world
    }

    pub(crate) fn mutates(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn at(&mut self, at: Tick, event: Event) {
        self.order += 1;
        self.due.push(Reverse(Due { at: at.max(self.now), order: self.order, event }));
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.at(self.now.after_millis(ms), event);
    }

    /// Runs to the end, or to the first thing that must not happen.
    pub(crate) fn run(&mut self) {
        while let Some(Reverse(Due { at, event, .. })) = self.due.pop() {
            self.now = at;
            self.happen(event);
            if self.oracle.is_over() {
                return;
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver(envelope) => self.deliver(*envelope),
            Event::Gate { n, life } => self.gate_is_due(n, life),
            Event::Reconcile { n, life } => self.reconcile_is_due(n, life),
            Event::Poll { n, life, peer } => self.poll(n, life, peer),
            Event::LookAtStore { n, life } => self.look_at_store(n, life),
            Event::Ship { n, life } => self.ship(n, life),
            Event::Landed { n, life } => self.landed(n, life),
            Event::Copied { n, life } => self.copied(n, life),
            Event::Ready { n, process } => self.server_is_ready(n, process),
            Event::Stopped { n, process } => self.server_has_stopped(n, process),
            Event::Flush { n, process } => self.flush(n, process),
            Event::Connect { n, process } => self.connect(n, process),
            Event::Coordinate { id } => self.coordinate(id),
            Event::StartAgent { n } => self.start_agent(n),
            Event::Client => self.client(),
            Event::Fault(fault) => self.fault(fault),
            Event::Heal => self.heal(),
            Event::Operator => self.operator(),
        }
    }

    /// Told only when somebody reads it.
    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.trace.lines {
            lines.push(format!("{:>7} {}", self.now.millis(), what()));
        }
    }
}
