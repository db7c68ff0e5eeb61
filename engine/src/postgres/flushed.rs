//! How far the log is flushed, here and on those who may ack.
//!
//! A COMMIT that returned is not an ack: the agent's own marker is written without waiting, and a setting can be
//! changed under a waiter. What counts is the flush position that named members were *seen* at.
//!
//! Not here: whose acks are needed ([`holdfast_replication::quorum`]).

use std::collections::BTreeMap;

use holdfast_model::{Lsn, Member};
use holdfast_replication::quorum::AckQuorum;

/// Flush positions as the primary sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flushed {
    /// The primary's own.
    pub local: Lsn,
    /// Of each attached standby, by the member that its login proves.
    pub standbys: BTreeMap<Member, Lsn>,
}

impl Flushed {
    /// A primary with nobody attached.
    #[must_use]
    pub const fn alone(local: Lsn) -> Self {
        Self { local, standbys: BTreeMap::new() }
    }

    /// Everything up to here satisfies `quorum`; `None` while fewer than it needs are attached.
    #[must_use]
    pub fn acked(&self, quorum: &AckQuorum) -> Option<Lsn> {
        quorum.acked(self.local, |member| self.standbys.get(member).copied())
    }
}
