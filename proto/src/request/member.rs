//! What members ask of one another, on behalf of whoever coordinates.

use holdfast_model::{Member, Position, Rule};
use holdfast_replication::choose::Certificate;
use holdfast_replication::promise::Attempt;

use super::Target;

/// Say whether you miss the primary too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskVote {
    /// Whom it is for.
    pub target: Target,
    /// The primary in question.
    pub primary: Member,
}

/// As the primary: say whether a candidate lacks so little that it is sent in an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskNear {
    /// Whom it is for.
    pub target: Target,
    /// Who wants to take over.
    pub candidate: Member,
}

/// Promise a term, stop receiving, and tell how far the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recruit {
    /// Whom it is for.
    pub target: Target,
    /// Who asks, and for which term.
    pub attempt: Attempt,
}

/// Begin the term that was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promote {
    /// Whom it is for.
    pub target: Target,
    /// On what grounds; whether they hold is the receiver's to compute.
    pub certificate: Certificate<Position>,
}

/// Receive from the primary of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// Whom it is for.
    pub target: Target,
    /// The newest rule of that primary.
    pub rule: Rule,
    /// Promised with it, when the rule's term was not promised before.
    pub attempt: Attempt,
}

/// As the primary: keep clients out for a while, end what runs, and tell where the log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// Whom it is for.
    pub target: Target,
}

/// Answer once the log up to a position is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwaitPosition {
    /// Whom it is for.
    pub target: Target,
    /// Up to here.
    pub position: Position,
}

/// As the primary: let clients in again after [`Close`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reopen {
    /// Whom it is for.
    pub target: Target,
}
