//! What must never be, and what must be reachable.

use holdfast_model::Member;
use stateright::Property;

use super::actions::Protocol;
use super::nodes::write_of;
use super::rules::member;
use super::state::{Cluster, Entry, Node, Reign, Role};

pub(crate) const NO_ACKED_LOSS: &str =
    "I1 every open primary has every write that was acknowledged in its term or before";
pub(crate) const ONE_WRITER: &str = "I2 a term has one primary";
pub(crate) const PREFIX: &str = "a follower holds a prefix of its primary's log";
pub(crate) const SHIPPED_STAYS: &str = "a shipped write is in every later open primary";
pub(crate) const PROMISE: &str = "I3 nobody follows or reigns below its promise";
pub(crate) const FAILS_OVER: &str = "a failover opens";
pub(crate) const RECOVERS: &str = "a write is acknowledged after a failover";
pub(crate) const READMITS: &str = "a new incarnation becomes a voter";

pub(crate) const REWINDS: &str = "a write is acknowledged by whoever was rewound";

fn open_primaries(state: &Cluster) -> impl Iterator<Item = (&Node, &Reign)> {
    let reigns = state.nodes.iter().filter_map(|node| node.reign().map(|reign| (node, reign)));
    reigns.filter(|(_, reign)| reign.open)
}

/// Whether every open primary of a term that is not below a write's holds that write.
fn held(state: &Cluster, writes: &[(u8, u8)]) -> bool {
    open_primaries(state).all(|(node, reign)| {
        writes
            .iter()
            .filter(|(_, term)| *term <= reign.term)
            .all(|(write, _)| node.log.iter().filter_map(write_of).any(|held| held == *write))
    })
}

fn one_writer(_: &Protocol, state: &Cluster) -> bool {
    let terms: Vec<u8> = state.nodes.iter().filter_map(|node| node.reign().map(|reign| reign.term)).collect();
    terms.iter().enumerate().all(|(at, term)| !terms[at + 1..].contains(term))
}

fn prefix(_: &Protocol, state: &Cluster) -> bool {
    state.nodes.iter().all(|node| match &node.role {
        Role::Following { term, primary } => {
            let upstream = &state.nodes[usize::from(primary.node)];
            let same = upstream.incarnation == primary.incarnation
                && upstream.reign().is_some_and(|reign| reign.term == *term);
            !same || upstream.log.starts_with(&node.log)
        }
        Role::Idle | Role::Primary(_) => true,
    })
}

fn keeps_its_promise(_: &Protocol, state: &Cluster) -> bool {
    state.nodes.iter().all(|node| {
        let promised = node.promise.map_or(0, |pledge| pledge.term);
        match &node.role {
            Role::Idle => true,
            Role::Following { term, .. } => *term >= promised,
            Role::Primary(reign) => reign.term >= promised,
        }
    })
}

fn names_a_new_incarnation(model: &Protocol, state: &Cluster) -> bool {
    open_primaries(state).any(|(_, reign)| {
        let rule = model.rules.get(reign.in_force[0]);
        let new = |member: &Member| member.incarnation.bits() > 1;
        reign.changing.is_none() && rule.voters.iter().any(|voter| new(&voter.member))
    })
}

/// The first primary follows another reign, and without it the newest acknowledged write would not be.
fn acked_by_who_was_rewound(model: &Protocol, state: &Cluster) -> bool {
    let first = &state.nodes[0];
    let rewound = matches!(first.role, Role::Following { term: 2.., .. })
        && (first.incarnation, state.spent.rewinds > 0) == (0, true);
    let newest = state.acknowledged.last().filter(|(_, term)| *term > 1);
    let holds = |node: &&Node| {
        newest.is_some_and(|(newest, _)| node.log.iter().filter_map(write_of).any(|held| held == *newest))
    };
    let others = state.nodes[1..].iter().filter(|node| node.reign().is_none()).filter(holds).count();
    rewound && holds(&first) && others < usize::try_from(model.bounds.k).unwrap()
}

pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(NO_ACKED_LOSS, |_, state: &Cluster| held(state, &state.acknowledged)),
        Property::always(ONE_WRITER, one_writer),
        Property::always(PREFIX, prefix),
        Property::always(SHIPPED_STAYS, |_, state: &Cluster| held(state, &state.kept)),
        Property::always(PROMISE, keeps_its_promise),
        Property::sometimes(FAILS_OVER, |_, state: &Cluster| {
            open_primaries(state).any(|(_, reign)| reign.term > 1)
        }),
        Property::sometimes(RECOVERS, |_, state: &Cluster| {
            state.acknowledged.iter().any(|(_, term)| *term > 1)
        }),
        Property::sometimes(READMITS, names_a_new_incarnation),
        Property::sometimes(REWINDS, acked_by_who_was_rewound),
    ]
}

/// A trace as a person reads it.
pub(crate) fn describe(model: &Protocol, state: &Cluster) -> String {
    let node = |at: usize, node: &Node| {
        let log: Vec<String> = node
            .log
            .iter()
            .map(|entry| match entry {
                Entry::Write(write) => format!("w{write}"),
                Entry::Marker(rule) => model.rules.get(*rule).id.to_string(),
            })
            .collect();
        format!("{} promise {:?} log [{}] {:?}", member(state.id(at)), node.promise, log.join(" "), node.role)
    };
    let nodes: Vec<String> = state.nodes.iter().enumerate().map(|(at, it)| node(at, it)).collect();
    format!("{}\nacknowledged {:?}, shipped {:?}", nodes.join("\n"), state.acknowledged, state.kept)
}
