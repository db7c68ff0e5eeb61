//! A cluster at one moment.

use super::rules::RuleRef;

/// A member: node and incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) node: u8,
    pub(crate) incarnation: u8,
}

/// A record of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Entry {
    /// A client's.
    Write(u8),
    /// A rule's marker.
    Marker(RuleRef),
}

/// A term and the attempt that it was promised to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pledge {
    pub(crate) term: u8,
    pub(crate) attempt: u8,
}

/// What a node does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// It neither writes nor receives.
    Idle,
    /// It receives from `primary`, in the reign of `term`.
    Following { term: u8, primary: Id },
    /// It writes.
    Primary(Reign),
}

/// A primary's own view of its reign.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reign {
    pub(crate) term: u8,
    /// Whether clients write.
    pub(crate) open: bool,
    /// Where the marker of this start ends.
    pub(crate) marker: u8,
    /// The rules that commits have to satisfy, newest first.
    pub(crate) in_force: Vec<RuleRef>,
    /// How far each follower was seen to have flushed, by node.
    pub(crate) seen: Vec<(Id, u8)>,
    /// How far each follower has to come before it may be named, read when it attached.
    pub(crate) targets: Vec<(Id, u8)>,
    /// The rule that was in force before the change that is under way.
    pub(crate) changing: Option<Changing>,
}

/// A change of the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Changing {
    pub(crate) from: RuleRef,
    pub(crate) to: RuleRef,
    pub(crate) marker: Option<u8>,
}

/// "I have flushed up to `at`", on its way from a follower to a primary. Earlier ones are overtaken by later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sent {
    pub(crate) from: Id,
    pub(crate) to: Id,
    pub(crate) term: u8,
    pub(crate) at: u8,
}

/// One machine with its disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) incarnation: u8,
    /// Persisted.
    pub(crate) promise: Option<Pledge>,
    /// Persisted.
    pub(crate) log: Vec<Entry>,
    pub(crate) role: Role,
    pub(crate) sent: Option<Sent>,
}

/// What a recruited member answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Told {
    pub(crate) member: Id,
    /// Newest first, at most two.
    pub(crate) rules: Vec<RuleRef>,
    pub(crate) end: u8,
}

/// One who tries to begin a term.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Coordinator {
    Idle,
    Recruiting { pledge: Pledge, told: Vec<Told> },
    Chosen { pledge: Pledge, chosen: Id, newest: RuleRef, others: Vec<RuleRef> },
}

/// What was spent of what the bounds allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Spent {
    pub(crate) attempts: u8,
    pub(crate) writes: u8,
    pub(crate) crashes: u8,
    pub(crate) losses: u8,
    pub(crate) changes: u8,
    pub(crate) restores: u8,
    pub(crate) rewinds: u8,
    pub(crate) unheard: u8,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) coordinators: Vec<Coordinator>,
    /// The newest log in the repository and the term that it was shipped under.
    pub(crate) shipped: Option<(u8, Vec<Entry>)>,
    /// Writes that a client was told are committed, with the term that told it.
    pub(crate) acknowledged: Vec<(u8, u8)>,
    /// Writes that were shipped, with the term that shipped them.
    pub(crate) kept: Vec<(u8, u8)>,
    pub(crate) spent: Spent,
}

impl Cluster {
    pub(crate) fn id(&self, node: usize) -> Id {
        Id { node: u8::try_from(node).unwrap(), incarnation: self.nodes[node].incarnation }
    }
}

impl Node {
    pub(crate) fn end(&self) -> u8 {
        u8::try_from(self.log.len()).unwrap()
    }

    /// Rules in the log, newest first.
    pub(crate) fn rules(&self) -> impl Iterator<Item = RuleRef> + '_ {
        self.log.iter().rev().filter_map(|entry| match entry {
            Entry::Marker(rule) => Some(*rule),
            Entry::Write(_) => None,
        })
    }

    pub(crate) const fn reign(&self) -> Option<&Reign> {
        match &self.role {
            Role::Primary(reign) => Some(reign),
            Role::Idle | Role::Following { .. } => None,
        }
    }

    pub(crate) const fn reign_mut(&mut self) -> Option<&mut Reign> {
        match &mut self.role {
            Role::Primary(reign) => Some(reign),
            Role::Idle | Role::Following { .. } => None,
        }
    }
}

/// Sets the value of a key in a small sorted map.
pub(crate) fn put(map: &mut Vec<(Id, u8)>, key: Id, value: u8) {
    match map.binary_search_by_key(&key, |(id, _)| *id) {
        Ok(at) => map[at].1 = value,
        Err(at) => map.insert(at, (key, value)),
    }
}

pub(crate) fn get(map: &[(Id, u8)], key: Id) -> Option<u8> {
    map.binary_search_by_key(&key, |(id, _)| *id).ok().map(|at| map[at].1)
}
