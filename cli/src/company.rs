//! The nodes of a cluster as one of them sees them, itself among them, and the voters that none of them claims to be.
//!
//! Invariants, each a test in `tests/company.rs`:
//! * `every_node_is_listed_once_and_the_one_that_was_asked_too`.
//! * `a_voter_that_no_node_claims_is_listed`: its disk may be lost, and while it is in the rule the next fault stops writes.

use std::collections::BTreeSet;

use holdfast_model::peer::{Part, PeerSaid, PeerView};
use holdfast_model::status::{EngineView, Gate, NodeView, VolumeView};
use holdfast_model::{Member, NodeName, Position, Rule, RuleId, VoterKind, Zone};
use serde::Serialize;

/// What the newest rule says of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Votes {
    /// It is the primary.
    Primary,
    /// It votes, and may be chosen.
    Full,
    /// It votes, and is never chosen.
    Log,
    /// It is not named: it follows at most.
    No,
}

/// When a node was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "heard", rename_all = "snake_case")]
pub enum Heard {
    /// It is the node that was asked.
    Here,
    /// By the node that was asked.
    Ago {
        /// How long ago.
        ms: u64,
    },
    /// Not since the agent that was asked started.
    Never,
    /// No node says to be this member.
    Unclaimed,
}

/// One node and its member, or one voter that no node claims to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeLine {
    /// The node.
    pub node: NodeName,
    /// Where it stands.
    pub zone: Zone,
    /// Its member; none before it has a volume, or when it was never heard.
    pub member: Option<Member>,
    /// What the newest rule says of that member.
    pub votes: Votes,
    /// What it takes part in.
    pub part: Option<Part>,
    /// What clients may do there.
    pub gate: Option<Gate>,
    /// The newest rule in its log.
    pub rule: Option<RuleId>,
    /// Where its log ends on its disk.
    pub position: Option<Position>,
    /// When it was heard.
    #[serde(flatten)]
    pub heard: Heard,
    /// Why it does not answer now.
    pub failing: Option<String>,
}

/// Everyone that `view` knows of, by name.
#[must_use]
pub fn lines(view: &NodeView) -> Vec<NodeLine> {
    let newest = newest_rule(view);
    let own = (&view.node, &view.zone, Some(own(view)));
    let mut lines = vec![line(own, Heard::Here, None, newest)];
    lines.extend(view.peers.iter().map(|peer| {
        let heard = peer.heard_ms.map_or(Heard::Never, |ms| Heard::Ago { ms });
        line((&peer.node, &peer.zone, peer.said.clone()), heard, peer.failing.clone(), newest)
    }));
    lines.extend(unclaimed(&lines, newest));
    lines.sort_by(|one, other| (&one.node, &one.member).cmp(&(&other.node, &other.member)));
    lines
}

fn own(view: &NodeView) -> PeerSaid {
    let member = match &view.volume {
        VolumeView::Mounted { identity, .. } => {
            Some(Member { node: view.node.clone(), incarnation: identity.incarnation })
        }
        VolumeView::Unknown
        | VolumeView::Absent { .. }
        | VolumeView::Blank { .. }
        | VolumeView::Unmounted { .. } => None,
    };
    let flushed = match &view.engine {
        EngineView::Running { flushed, .. } => Some(flushed.clone()),
        EngineView::Stopped { .. }
        | EngineView::Starting { .. }
        | EngineView::Stopping { .. }
        | EngineView::Unkillable { .. } => None,
    };
    PeerSaid {
        member,
        rule: view.rule.clone(),
        promised: view.promise.as_ref().map(|promise| promise.max_term),
        gate: view.gate.clone(),
        part: view.part.clone(),
        flushed,
        shipped: view.log.shipped.clone(),
    }
}

fn newest_rule(view: &NodeView) -> Option<&Rule> {
    view.rule.iter().chain(view.peers.iter().filter_map(said_rule)).max_by_key(|rule| rule.id)
}

fn said_rule(peer: &PeerView) -> Option<&Rule> {
    peer.said.as_ref()?.rule.as_ref()
}

fn line(
    (node, zone, said): (&NodeName, &Zone, Option<PeerSaid>),
    heard: Heard,
    failing: Option<String>,
    newest: Option<&Rule>,
) -> NodeLine {
    let (node, zone) = (node.clone(), zone.clone());
    let Some(said) = said else {
        let (member, votes) = (None, Votes::No);
        return NodeLine {
            node,
            zone,
            member,
            votes,
            part: None,
            gate: None,
            rule: None,
            position: None,
            heard,
            failing,
        };
    };
    NodeLine {
        node,
        zone,
        votes: votes(said.member.as_ref(), newest),
        member: said.member,
        part: Some(said.part),
        gate: Some(said.gate),
        rule: said.rule.map(|rule| rule.id),
        position: said.flushed,
        heard,
        failing,
    }
}

fn votes(member: Option<&Member>, rule: Option<&Rule>) -> Votes {
    let (Some(member), Some(rule)) = (member, rule) else { return Votes::No };
    if rule.primary == *member {
        return Votes::Primary;
    }
    match rule.voters.iter().find(|voter| voter.member == *member).map(|voter| voter.kind) {
        Some(VoterKind::Full) => Votes::Full,
        Some(VoterKind::Log) => Votes::Log,
        None => Votes::No,
    }
}

fn unclaimed(lines: &[NodeLine], newest: Option<&Rule>) -> Vec<NodeLine> {
    let claimed: BTreeSet<&Member> = lines.iter().filter_map(|line| line.member.as_ref()).collect();
    let voters = newest.into_iter().flat_map(|rule| &rule.voters);
    let lost = voters.filter(|voter| !claimed.contains(&voter.member));
    lost.map(|voter| NodeLine {
        node: voter.member.node.clone(),
        zone: voter.zone.clone(),
        member: Some(voter.member.clone()),
        votes: votes(Some(&voter.member), newest),
        part: None,
        gate: None,
        rule: None,
        position: None,
        heard: Heard::Unclaimed,
        failing: None,
    })
    .collect()
}
