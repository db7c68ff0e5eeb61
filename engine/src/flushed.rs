//! How far the log is flushed, here and on those who may ack.
//!
//! A COMMIT that returned is not an ack: the agent's own marker is written without waiting, and a setting can be
//! changed under a waiter. What counts is the flush position that named members were *seen* at.
//!
//! Not here: whose acks are needed ([`holdfast_replication::quorum`]).

use std::collections::BTreeMap;

use holdfast_model::{Lsn, Member, Position};
use holdfast_replication::quorum::AckQuorum;

/// Flush positions as the primary sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flushed<P = Position> {
    /// The primary's own.
    pub local: P,
    /// Of each attached standby, by the member that its login proves.
    pub standbys: BTreeMap<Member, P>,
}

impl<P> Flushed<P> {
    /// A primary with nobody attached.
    #[must_use]
    pub const fn alone(local: P) -> Self {
        Self { local, standbys: BTreeMap::new() }
    }
}

impl<P: PartialOrd> Flushed<P> {
    /// Whether everything up to `target` satisfies `quorum`.
    #[must_use]
    pub fn holds(&self, quorum: &AckQuorum, target: &P) -> bool {
        quorum.holds(target, &self.local, |member| self.standbys.get(member))
    }
}

impl<P: Ord + Copy> Flushed<P> {
    /// Everything up to here satisfies `quorum`; `None` while fewer than it needs are attached. Only where any two positions
    /// compare: where they do not, there is no such position.
    #[must_use]
    pub fn acked(&self, quorum: &AckQuorum) -> Option<P> {
        quorum.acked(self.local, |member| self.standbys.get(member).copied())
    }
}

impl From<Flushed<Lsn>> for Flushed {
    fn from(Flushed { local, standbys }: Flushed<Lsn>) -> Self {
        let standbys = standbys.into_iter().map(|(member, at)| (member, at.into())).collect();
        Self { local: local.into(), standbys }
    }
}
