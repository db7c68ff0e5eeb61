//! What no node can do alone; the target is the node that is asked to coordinate.

use holdfast_model::{NodeName, Zone};

use super::Target;

/// Make another member the primary, because the primary is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    /// Who is asked to coordinate.
    pub target: Target,
    /// Zones to prefer among members that hold the same, the best first.
    pub prefer: Vec<Zone>,
    /// Somebody vouches that the primary is gone, and nobody is asked whether it is missed: until when that counts, in
    /// milliseconds since 1970.
    pub vouched_until_unix_ms: Option<u64>,
    /// How that is known; never empty when somebody vouches.
    pub why: String,
}

/// Make a named node's member the primary while the primary serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switchover {
    /// Who is asked to coordinate.
    pub target: Target,
    /// Whose member shall be the primary.
    pub to: NodeName,
}

/// What is to become of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberChange {
    /// It votes no more, and may not receive log.
    Remove,
    /// It may receive log, and votes once it has caught up.
    Admit,
}

/// Change who votes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeMember {
    /// Who is asked to coordinate.
    pub target: Target,
    /// Whose member it is about.
    pub node: NodeName,
    /// What shall become of it.
    pub change: MemberChange,
}
