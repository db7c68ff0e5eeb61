//! What a node takes part in, and how the other nodes of its cluster look from there.
//!
//! What a peer said is never proof of anything: members judge by their own promise and their own log. It is what an agent
//! goes by when it looks for the primary, for members to admit and for who misses the primary too.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::status::Gate;
use crate::{Member, NodeName, Position, Rule, Term, Zone};

/// How a node takes part in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum Part {
    /// Its engine does not run, or does not answer yet.
    None,
    /// It writes its own log.
    Writes {
        /// Who receives it, by the member that each login proves, and how far each has flushed.
        streams: BTreeMap<Member, Position>,
        /// What is being changed about its rule, e.g. `adding n2.4f…`, or why that does not go on.
        change: Option<String>,
        /// Members that may read its files for a rewind now, its last checkpoint being of its own reign.
        lends: BTreeSet<Member>,
    },
    /// It receives log.
    Follows {
        /// From whom.
        primary: Member,
        /// Whether it is seen to receive that primary's reign.
        streaming: bool,
    },
    /// It has promised a term, receives nothing, and holds still for whoever recruited it.
    Recruited {
        /// The term.
        term: Term,
    },
    /// It receives nothing, and would follow.
    Waits {
        /// What is missing.
        why: String,
    },
    /// Its log went another way than the cluster's: a copy of its data is brought back beside it, and takes its place. Until
    /// then this member is what it was, and holds still for whoever recruits it.
    Rewinds {
        /// Onto whose log.
        primary: Member,
    },
    /// Its log went another way than the cluster's, and it could not be rewound: it is rebuilt once no rule counts on it.
    Diverged {
        /// Where, and what it waits for.
        why: String,
    },
}

/// Another node of the cluster, as it was last heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Which node, by its certificate.
    pub node: NodeName,
    /// Where it stands, by its certificate.
    pub zone: Zone,
    /// Milliseconds since it last answered; none when it never did.
    pub heard_ms: Option<u64>,
    /// What it said then.
    pub said: Option<PeerSaid>,
    /// Why it does not answer now.
    pub failing: Option<String>,
}

/// What a node says about itself to its peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSaid {
    /// Who it is; none before it has a volume.
    pub member: Option<Member>,
    /// The newest rule in its log.
    pub rule: Option<Rule>,
    /// The highest term that it promised.
    pub promised: Option<Term>,
    /// What clients may do there.
    pub gate: Gate,
    /// What it takes part in.
    pub part: Part,
    /// Where its log ends on its disk.
    pub flushed: Option<Position>,
    /// Up to where it has shipped log into the repository; only the primary ships.
    pub shipped: Option<Position>,
}
