//! What a node does about the other members: whom it follows, when it steps down, whom it admits, and what it changes about
//! its rule. Pure; goes by what peers said, which is never proof: the gate loop and the members themselves check again
//! everything that safety rests on.
//!
//! Invariants, each a test in `tests`:
//! * `only_a_reigning_peer_is_followed`.
//! * `an_incarnation_leaves_only_when_its_node_has_another_or_its_log_has_left_the_chain`.
//! * `k_rises_only_when_enough_members_receive`, and never falls by itself.
//! * `who_diverged_is_rewound_and_who_recruits_it_needs_it_as_it_is`.
//! * `a_primary_writes_a_checkpoint_for_those_who_cannot_read_its_files_yet`.
//! * `log_is_kept_from_where_the_primary_that_is_followed_has_not_shipped`.
//!
//! Not here: whether a log may follow (`replication::chain`), and whether a member caught up (`replication::catch_up`).

use std::collections::BTreeSet;

use holdfast_model::peer::{Part, PeerSaid, PeerView};
use holdfast_model::status::{Gate, NodeView, RepositoryView, VolumeView};
use holdfast_model::{Lsn, Member, NodeName, Position, Rule, Voter, VoterKind};
use holdfast_replication::change::{self, Change};

/// What a peer said longer ago than this says nothing about now.
const STALE_MS: u64 = 5_000;

/// Log is let go of by segments of this size, in bytes: what was shipped in between changes nothing.
const SEGMENT: u64 = 16 << 20;

/// A peer that writes under its own newest rule.
#[derive(Debug, Clone, Copy)]
pub struct Reigning<'a> {
    /// The peer.
    pub peer: &'a PeerView,
    /// Its rule.
    pub rule: &'a Rule,
    /// What clients may do there.
    pub gate: &'a Gate,
    /// Whether that rule was seen acked and nothing about it is being changed.
    pub settled: bool,
}

/// What a peer said lately.
fn said(peer: &PeerView) -> Option<&PeerSaid> {
    peer.said.as_ref().filter(|_| peer.heard_ms.is_some_and(|heard| heard < STALE_MS))
}

/// This node's member; none without a volume.
#[must_use]
pub fn own(view: &NodeView) -> Option<Member> {
    match &view.volume {
        VolumeView::Mounted { identity, .. } => {
            Some(Member { node: view.node.clone(), incarnation: identity.incarnation })
        }
        VolumeView::Unknown
        | VolumeView::Absent { .. }
        | VolumeView::Blank { .. }
        | VolumeView::Unmounted { .. } => None,
    }
}

/// The peer that reigns by the newest rule that any peer reigns by.
#[must_use]
pub fn reigning(view: &NodeView) -> Option<Reigning<'_>> {
    let reigns = view.peers.iter().filter_map(|peer| {
        let said = said(peer)?;
        let Part::Writes { change, .. } = &said.part else { return None };
        let rule = said.rule.as_ref().filter(|rule| Some(&rule.primary) == said.member.as_ref())?;
        let settled = matches!(said.gate, Gate::Open { .. } | Gate::ReadOnly { .. }) && change.is_none();
        Some(Reigning { peer, rule, gate: &said.gate, settled })
    });
    reigns.max_by_key(|reigning| reigning.rule.id)
}

/// Whether any peer says that it has data of the cluster.
#[must_use]
pub fn any_holds_data(view: &NodeView) -> bool {
    view.peers.iter().filter_map(said).any(|said| said.rule.is_some())
}

/// Members that may attach although no rule names them yet: what catches up, and comes to be named by it.
#[must_use]
pub fn admitted(view: &NodeView, held_out: &BTreeSet<NodeName>) -> BTreeSet<Member> {
    let wanted = view.peers.iter().filter(|peer| !held_out.contains(&peer.node));
    let said =
        wanted.filter_map(|peer| said(peer).filter(|said| !matches!(said.part, Part::Diverged { .. })));
    said.filter_map(|said| said.member.clone()).collect()
}

/// Members that are rewound onto this node, or are about to be: they have to read its files. Whoever was one `before` still is
/// while it does not say what became of that: its agent may be gone for a moment.
#[must_use]
pub fn borrowers(view: &NodeView, before: &BTreeSet<Member>) -> BTreeSet<Member> {
    let Some(own) = own(view) else { return BTreeSet::new() };
    let rewinds = view.peers.iter().filter_map(said).filter_map(|said| match &said.part {
        Part::Rewinds { primary } if *primary == own => said.member.clone(),
        Part::None
        | Part::Writes { .. }
        | Part::Follows { .. }
        | Part::Recruited { .. }
        | Part::Waits { .. }
        | Part::Rewinds { .. }
        | Part::Diverged { .. } => None,
    });
    let silent = before.iter().filter(|member| {
        let told = view.peers.iter().find(|peer| peer.node == member.node).and_then(said);
        told.is_none_or(|said| match &said.member {
            Some(now) => now == *member && matches!(said.part, Part::None),
            None => true,
        })
    });
    rewinds.chain(silent.cloned()).collect()
}

/// Whether a primary says that it lets `member` read its files.
#[must_use]
pub fn lends(reigning: &Reigning<'_>, member: &Member) -> bool {
    said(reigning.peer)
        .is_some_and(|said| matches!(&said.part, Part::Writes { lends, .. } if lends.contains(member)))
}

/// The next change of the rule, if this node is its primary: one at a time, the most urgent first. Changes that the rule
/// cannot take now are passed over.
#[must_use]
pub fn change(view: &NodeView, k: u32, held_out: &BTreeSet<NodeName>) -> Option<Change> {
    let own = own(view)?;
    let rule = view.rule.as_ref().filter(|rule| rule.primary == own)?;
    let Part::Writes { streams, .. } = &view.part else { return None };
    let possible = |change: &Change| change::changed(rule, change, rule.start.clone()).is_ok();
    let removed = rule.voters.iter().filter(|voter| voter.member != own && leaves(view, voter, held_out));
    if let Some(change) =
        removed.map(|voter| Change::Remove(voter.member.clone())).find(|change| possible(change))
    {
        return Some(change);
    }
    let added = view.peers.iter().filter(|peer| !held_out.contains(&peer.node)).filter_map(|peer| {
        let said = said(peer)?;
        let member = said.member.clone()?;
        let receives = matches!(&said.part, Part::Follows { primary, streaming: true } if *primary == own);
        (receives && streams.contains_key(&member))
            .then(|| Change::Add(Voter { member, zone: peer.zone.clone(), kind: VoterKind::Full }))
    });
    if let Some(change) = added.into_iter().find(|change| possible(change)) {
        return Some(change);
    }
    let own_zone = rule.voters.iter().find(|voter| voter.member == own).map(|voter| &voter.zone);
    let ackers = rule.voters.iter().filter(|voter| {
        voter.member != own && Some(&voter.zone) != own_zone && streams.contains_key(&voter.member)
    });
    let raised = Change::SetK(k);
    (rule.k < k && u32::try_from(ackers.count()).is_ok_and(|ackers| ackers >= k) && possible(&raised))
        .then_some(raised)
}

/// From where on this member keeps its log, since the primary that it follows has not shipped it: should it be promoted, it
/// ships that first. Everything while that is not known; `None` where no log is shipped at all, or nothing is known of
/// the own log.
#[must_use]
pub fn keeps_log_from(view: &NodeView) -> Option<Position> {
    match view.repository {
        RepositoryView::Disabled => return None,
        RepositoryView::Unknown
        | RepositoryView::Unreachable { .. }
        | RepositoryView::Empty
        | RepositoryView::Ready { .. } => {}
    }
    let shipped = match &view.part {
        Part::Follows { primary, streaming: true } => reigning(view)
            .filter(|reigning| reigning.rule.primary == *primary)
            .and_then(|reigning| said(reigning.peer)?.shipped.as_ref()),
        Part::None
        | Part::Writes { .. }
        | Part::Follows { .. }
        | Part::Recruited { .. }
        | Part::Waits { .. }
        | Part::Rewinds { .. }
        | Part::Diverged { .. } => None,
    };
    match shipped {
        // Postgres keeps whole segments.
        Some(Position::Lsn(shipped)) => Some(Lsn::from_offset(shipped.offset() / SEGMENT * SEGMENT).into()),
        Some(shipped @ Position::Gtids(_)) => Some(shipped.clone()),
        None => {
            let own = view.engine.flushed().or(view.rule.as_ref().map(|rule| &rule.start));
            own.map(Position::origin)
        }
    }
}

/// Whether a voter is known not to come back as it is: its node has another incarnation, its log has left the chain, or an
/// operator wants it out.
fn leaves(view: &NodeView, voter: &Voter, held_out: &BTreeSet<NodeName>) -> bool {
    let node = &voter.member.node;
    held_out.contains(node)
        || view.peers.iter().filter(|peer| peer.node == *node).any(|peer| {
            said(peer).is_some_and(|said| match &said.member {
                Some(member) if *member != voter.member => true,
                Some(_) => matches!(said.part, Part::Diverged { .. }),
                None => false,
            })
        })
}

#[cfg(test)]
mod tests;
