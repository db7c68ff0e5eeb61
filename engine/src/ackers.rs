//! Whose acks an engine is told to wait for before it answers a commit.
//!
//! Not here: how an engine is told ([`crate::postgres::sync`]), and whose acks are needed ([`holdfast_replication::quorum`]).

use std::collections::BTreeSet;

use holdfast_model::{Member, Rule};
use holdfast_replication::quorum::AckQuorum;

/// Whose acks a commit needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ackers {
    /// k = 0: the local flush is enough.
    Alone,
    /// `k` of `members`; fewer than `k` members means that commits wait.
    AnyOf {
        /// How many; at least 1.
        k: u32,
        /// Voters of other zones.
        members: BTreeSet<Member>,
    },
    /// No rule is known yet: nothing is acknowledged.
    Nobody,
}

impl Ackers {
    /// What `rule` asks for.
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        Self::of_quorum(AckQuorum::of(rule))
    }

    /// The same of a quorum, which may be that of several open rules.
    #[must_use]
    pub fn of_quorum(quorum: AckQuorum) -> Self {
        match quorum {
            AckQuorum { k: 0, .. } => Self::Alone,
            AckQuorum { k, ackers } => Self::AnyOf { k, members: ackers },
        }
    }
}
