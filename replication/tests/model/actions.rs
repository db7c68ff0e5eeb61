//! What can happen next, and how often.

use holdfast_model::{Lsn, Rule, RuleId, Term, Voter, VoterKind};
use stateright::{Model, Property};

use super::rules::{Rules, member};
use super::state::{Cluster, Coordinator, Entry, Id, Node, Pledge, Reign, Role, Spent, get, put};

/// A shortcut that the protocol must not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naive {
    /// A node whose disk was lost comes back under the same name, as the voter that it was.
    SameName,
    /// The longest log wins, whatever its newest rule.
    ByLength,
    /// A promise is forgotten when its process ends.
    PromiseInMemory,
    /// A primary makes a term when it changes its own rule.
    TermsByChange,
    /// After a restart the newest rule in the log is taken to be in force, though its marker was never seen acked.
    ListFromUnackedMarker,
    /// It is enough to have the primary, or to leave it too few ackers.
    WeakerU,
    /// Log is shipped as soon as it is written.
    ShipsUnacked,
    /// A member whose log left the chain goes back behind the fork on its only copy, and may be recruited as it is then.
    RewindsInPlace,
}

/// How much of everything may happen.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// Zones of the nodes; the first `voters` of them are voters at the beginning, the first is the primary.
    pub(crate) zones: Vec<u8>,
    pub(crate) voters: usize,
    pub(crate) k: u32,
    pub(crate) coordinators: usize,
    pub(crate) attempts: u8,
    pub(crate) term_max: u8,
    pub(crate) writes: u8,
    pub(crate) crashes: u8,
    pub(crate) losses: u8,
    pub(crate) changes: u8,
    pub(crate) restores: u8,
    pub(crate) rewinds: u8,
    /// Answers of recruited members that are lost.
    pub(crate) unheard: u8,
    /// Followers receive all there is at once, reports arrive and agents look as soon as they can, and each attempt is at
    /// the next term. Fewer orders of events, so that longer stories can be told to their end.
    pub(crate) prompt: bool,
}

/// The protocol within bounds, with at most one shortcut.
#[derive(Debug)]
pub(crate) struct Protocol {
    pub(crate) bounds: Bounds,
    pub(crate) naive: Option<Naive>,
    pub(crate) rules: Rules,
}

/// One thing that happens. Nodes and coordinators by their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A client writes on a primary.
    Write(usize),
    /// A follower receives and flushes one more record.
    Replicate(usize),
    /// A follower's report of what it flushed arrives.
    Deliver(usize),
    /// A primary looks at what is acked: opens its gate, goes on with a change, answers clients.
    Look(usize),
    /// A coordinator begins an attempt at a term.
    Begin(usize, u8),
    /// It recruits a node, and hears the answer.
    Recruit(usize, usize),
    /// It recruits a node, and the answer is lost.
    RecruitUnheard(usize, usize),
    /// It chooses.
    Choose(usize),
    /// Its order to begin the term arrives.
    Promote(usize),
    /// It is gone; another may begin.
    Forget(usize),
    /// A node is told to follow a primary.
    Follow(usize, usize),
    /// A copy of a node whose log left the chain of a primary is brought onto that primary's log, and takes its place.
    Rewind(usize, usize),
    /// Agent and engine of a node end and start again.
    Crash(usize),
    /// Its disk is lost, and a blank one is there.
    LoseDisk(usize),
    /// A blank node takes its log from the repository.
    Restore(usize),
    /// A primary begins to name another voter.
    Add(usize, usize),
    /// A primary begins to name a voter less.
    Remove(usize, Id),
    /// A primary ships log.
    Ship(usize),
}

impl Protocol {
    pub(crate) fn new(bounds: Bounds, naive: Option<Naive>) -> Self {
        Self { bounds, naive, rules: Rules::default() }
    }

    pub(crate) fn is(&self, naive: Naive) -> bool {
        self.naive == Some(naive)
    }

    pub(crate) fn voter(&self, id: Id) -> Voter {
        let zone = format!("z{}", self.bounds.zones[usize::from(id.node)]).parse().unwrap();
        Voter { member: member(id).clone(), zone, kind: VoterKind::Full }
    }

    fn first_rule(&self) -> Rule {
        let ids =
            (0..self.bounds.voters).map(|node| Id { node: u8::try_from(node).unwrap(), incarnation: 0 });
        let voters: Vec<Voter> = ids.map(|id| self.voter(id)).collect();
        let id = RuleId { term: Term::FIRST, version: 1 };
        let primary = voters[0].member.clone();
        Rule { id, primary, voters, k: self.bounds.k, previous: None, start: Lsn::ZERO.into() }
    }
}

impl Model for Protocol {
    type State = Cluster;
    type Action = Step;

    /// Everybody holds rule (1,1) and follows its primary, which serves.
    fn init_states(&self) -> Vec<Cluster> {
        let rule = self.rules.number(&self.first_rule());
        let primary = Id { node: 0, incarnation: 0 };
        let nodes = self.bounds.zones.len();
        let mut reign = Reign {
            term: 1,
            open: true,
            marker: 1,
            in_force: vec![rule],
            seen: vec![],
            targets: vec![],
            changing: None,
        };
        for node in 1..nodes {
            let id = Id { node: u8::try_from(node).unwrap(), incarnation: 0 };
            put(&mut reign.seen, id, 1);
            put(&mut reign.targets, id, 1);
        }
        let node = |at: usize| Node {
            incarnation: 0,
            promise: Some(Pledge { term: 1, attempt: 0 }),
            log: vec![Entry::Marker(rule)],
            role: if at == 0 { Role::Primary(reign.clone()) } else { Role::Following { term: 1, primary } },
            sent: None,
        };
        vec![Cluster {
            nodes: (0..nodes).map(node).collect(),
            coordinators: vec![Coordinator::Idle; self.bounds.coordinators],
            shipped: None,
            acknowledged: vec![],
            kept: vec![],
            spent: Spent::default(),
        }]
    }

    fn actions(&self, state: &Cluster, steps: &mut Vec<Step>) {
        for node in 0..state.nodes.len() {
            self.of_node(state, node, steps);
        }
        for coordinator in 0..state.coordinators.len() {
            self.of_coordinator(state, coordinator, steps);
        }
    }

    fn next_state(&self, state: &Cluster, step: Step) -> Option<Cluster> {
        let mut next = state.clone();
        match step {
            Step::Write(node) => self.write(&mut next, node),
            Step::Replicate(node) => self.replicate(&mut next, node)?,
            Step::Deliver(node) => self.deliver(&mut next, node)?,
            Step::Look(node) => self.look(&mut next, node)?,
            Step::Follow(node, primary) => self.follow(&mut next, node, primary)?,
            Step::Rewind(node, primary) => self.rewind(&mut next, node, primary)?,
            Step::Crash(node) => self.crash(&mut next, node),
            Step::LoseDisk(node) => self.lose_disk(&mut next, node),
            Step::Restore(node) => self.restore(&mut next, node)?,
            Step::Add(node, other) => self.add(&mut next, node, other)?,
            Step::Remove(node, voter) => self.remove(&mut next, node, voter)?,
            Step::Ship(node) => self.ship(&mut next, node)?,
            Step::Begin(coordinator, term) => self.begin(&mut next, coordinator, term),
            Step::Recruit(coordinator, node) => self.recruit(&mut next, coordinator, node, true)?,
            Step::RecruitUnheard(coordinator, node) => self.recruit(&mut next, coordinator, node, false)?,
            Step::Choose(coordinator) => self.choose(&mut next, coordinator)?,
            Step::Promote(coordinator) => self.promote(&mut next, coordinator)?,
            Step::Forget(coordinator) => next.coordinators[coordinator] = Coordinator::Idle,
        }
        if self.bounds.prompt {
            self.settle(&mut next);
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        super::properties::all()
    }
}

impl Protocol {
    /// Lets everything arrive and be looked at.
    fn settle(&self, state: &mut Cluster) {
        loop {
            let moved = |node| self.deliver(state, node).is_some() | self.look(state, node).is_some();
            if (0..self.bounds.zones.len()).map(moved).filter(|moved| *moved).count() == 0 {
                return;
            }
        }
    }

    fn of_node(&self, state: &Cluster, node: usize, steps: &mut Vec<Step>) {
        let (bounds, spent) = (&self.bounds, &state.spent);
        let own = &state.nodes[node];
        let others = (0..state.nodes.len()).filter(|other| *other != node);
        if own.sent.is_some() && !bounds.prompt {
            steps.push(Step::Deliver(node));
        }
        if spent.crashes < bounds.crashes && own.promise.is_some() {
            steps.push(Step::Crash(node));
        }
        if spent.losses < bounds.losses && !own.log.is_empty() {
            steps.push(Step::LoseDisk(node));
        }
        if own.log.is_empty() && own.role == Role::Idle && spent.restores < bounds.restores {
            steps.push(Step::Restore(node));
        }
        for primary in others.clone().filter(|other| state.nodes[*other].reign().is_some()) {
            steps.push(Step::Follow(node, primary));
            if !own.log.is_empty() && spent.rewinds < bounds.rewinds {
                steps.push(Step::Rewind(node, primary));
            }
        }
        match &own.role {
            Role::Idle => {}
            Role::Following { .. } => steps.push(Step::Replicate(node)),
            Role::Primary(reign) => {
                if !bounds.prompt {
                    steps.push(Step::Look(node));
                }
                if bounds.restores > 0 {
                    steps.push(Step::Ship(node));
                }
                if reign.open && spent.writes < bounds.writes {
                    steps.push(Step::Write(node));
                }
                if reign.open && reign.changing.is_none() && spent.changes < bounds.changes {
                    steps.extend(others.map(|other| Step::Add(node, other)));
                    let rule = self.rules.get(reign.in_force[0]);
                    let removable = rule.voters.iter().map(|voter| super::rules::id(&voter.member));
                    steps.extend(removable.map(|voter| Step::Remove(node, voter)));
                }
            }
        }
    }

    fn of_coordinator(&self, state: &Cluster, coordinator: usize, steps: &mut Vec<Step>) {
        match &state.coordinators[coordinator] {
            Coordinator::Idle => {
                let next = state.spent.attempts + 2;
                let terms = if self.bounds.prompt { next..=next } else { 2..=self.bounds.term_max };
                if state.spent.attempts < self.bounds.attempts {
                    steps.extend(terms.map(|term| Step::Begin(coordinator, term)));
                }
            }
            Coordinator::Recruiting { told, .. } => {
                for node in 0..state.nodes.len() {
                    if told.iter().all(|told| told.member != state.id(node)) {
                        steps.push(Step::Recruit(coordinator, node));
                        if state.spent.unheard < self.bounds.unheard {
                            steps.push(Step::RecruitUnheard(coordinator, node));
                        }
                    }
                }
                steps.push(Step::Choose(coordinator));
            }
            Coordinator::Chosen { .. } => steps.push(Step::Promote(coordinator)),
        }
        let again = state.spent.attempts < self.bounds.attempts;
        if again && state.coordinators[coordinator] != Coordinator::Idle {
            steps.push(Step::Forget(coordinator));
        }
    }

    /// Whether `other` has received all that there was when it attached to this reign.
    pub(crate) fn caught_up(reign: &Reign, other: Id) -> bool {
        get(&reign.targets, other).zip(get(&reign.seen, other)).is_some_and(|(target, seen)| seen >= target)
    }
}
