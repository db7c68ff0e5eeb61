//! What callers ask for, in model terms: validated, ready to act on.
//!
//! Every mutating request carries a [`Target`]. Comparing it with the node's own view is `agent::api::target`.

mod cluster;
mod member;

use std::fmt;
use std::str::FromStr;

use holdfast_model::{ClusterId, ClusterName, Incarnation, NodeName, Term};

pub use cluster::{ChangeMember, Failover, MemberChange, Switchover};
pub use member::{AskNear, AskVote, AwaitPosition, Close, Follow, Promote, Recruit, Reopen};

/// Names one request; a repeated call with the same id must have the effect of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(String);

/// Why a request id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("request id {0:?} is not valid: use 8 to 64 letters, digits and '-'")]
pub struct ParseRequestIdError(pub String);

impl RequestId {
    /// Makes an id of 128 random bits; the caller owns the source of randomness.
    #[must_use]
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = ParseRequestIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape =
            (8..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if shape { Ok(Self(text.to_owned())) } else { Err(ParseRequestIdError(text.to_owned())) }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a mutating call is meant for, as the caller believes it to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Names the call.
    pub request: RequestId,
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    /// The node's formatted volume; `None` only while it has none.
    pub incarnation: Option<Incarnation>,
    /// The newest term that the caller knows of; `None` only while there is no rule.
    pub term: Option<Term>,
}

/// [`holdfast_model::volume::Verdict`] without its reasons: what a caller saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VerdictKind {
    /// Provably blank.
    Blank,
    /// Formatted by this node for this cluster.
    Ours,
    /// An older volume of this node.
    Stale,
    /// Another node's or another cluster's.
    Theirs,
    /// In use, or not ours.
    Foreign,
    /// Not readable throughout.
    Sick,
    /// Not there.
    Gone,
}

impl VerdictKind {
    /// Every kind, in the order of the model's enum.
    pub const ALL: [Self; 7] =
        [Self::Blank, Self::Ours, Self::Stale, Self::Theirs, Self::Foreign, Self::Sick, Self::Gone];

    /// The same word as [`holdfast_model::volume::Verdict::word`].
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Ours => "ours",
            Self::Stale => "stale",
            Self::Theirs => "theirs",
            Self::Foreign => "foreign",
            Self::Sick => "sick",
            Self::Gone => "gone",
        }
    }
}

impl FromStr for VerdictKind {
    type Err = ParseVerdictKindError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.word() == text)
            .ok_or_else(|| ParseVerdictKindError(text.to_owned()))
    }
}

/// Why a verdict word was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("verdict {0:?} is not known: use blank, ours, stale, theirs, foreign, sick or gone")]
pub struct ParseVerdictKindError(pub String);

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A device as the caller saw it; whoever writes to it must look again and find the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenDevice {
    /// As [`holdfast_model::volume::DeviceId::serial`].
    pub serial: String,
    /// As [`holdfast_model::volume::DeviceId::diskseq`]; 0 for directories.
    pub diskseq: u64,
    /// What the caller saw on it.
    pub verdict: VerdictKind,
}

/// Make the first member of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// Whom it is for.
    pub target: Target,
    /// The cluster's name once more, as consent; the receiver compares it.
    pub token: String,
    /// The id to give the cluster; its name is the target's. `None`: the node draws one.
    pub cluster_id: Option<ClusterId>,
}

/// Rebuild a node that has no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// Whom it is for.
    pub target: Target,
    /// Which backup; `None`: the newest complete one.
    pub backup: Option<String>,
}

/// Format a device that was seen blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatVolume {
    /// Whom it is for.
    pub target: Target,
    /// What the caller saw; its verdict is [`VerdictKind::Blank`].
    pub device: SeenDevice,
}

/// Look at a device again and issue a token to wipe what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowWipe {
    /// Whom it is for.
    pub target: Target,
    /// What the caller saw.
    pub device: SeenDevice,
}

/// Erase what a token names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WipeVolume {
    /// Whom it is for.
    pub target: Target,
    /// What the caller saw.
    pub device: SeenDevice,
    /// From [`AllowWipe`]; opaque to everyone but its issuer.
    pub token: String,
}
