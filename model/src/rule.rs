//! Who may write, and whose acks count: terms, rules and promises.
//!
//! A rule is carried by the database's own log; its copy in object storage only helps to read that log back.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, Member, Position, Zone};

/// One reign of one primary; the fencing token on mutating calls. Term 1 is made by bootstrap. For Postgres a
/// term is also the timeline id, so it fits 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(u32);

impl Term {
    /// The term that bootstrap makes.
    pub const FIRST: Self = Self(1);

    /// Term `number`; `None` for 0, which names no reign.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The next term; `None` when terms are used up.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Orders rules: by term, then by version. A primary's own changes keep the term and raise the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleId {
    /// The reign.
    pub term: Term,
    /// The change within it, from 1.
    pub version: u32,
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({},{})", self.term, self.version)
    }
}

/// What a voter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VoterKind {
    /// Log and data: may be chosen as primary.
    Full,
    /// Log only: may ack and donate, is never chosen.
    Log,
}

/// A member that may ack and be recruited.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Voter {
    /// Who.
    pub member: Member,
    /// Where; decides whose acks count for whom.
    pub zone: Zone,
    /// What it holds.
    pub kind: VoterKind,
}

/// Who may write and whose acks count, from `start` on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Which rule this is.
    pub id: RuleId,
    /// The only member that may write.
    pub primary: Member,
    /// Every voter, the primary included.
    pub voters: Vec<Voter>,
    /// How many voters of zones other than the primary's must hold a commit before it is acknowledged.
    pub k: u32,
    /// The rule that this one follows; `None` only for the first rule of a cluster.
    pub previous: Option<RuleId>,
    /// The log position at which this rule was written: log of the previous term counts only up to here.
    pub start: Position,
}

impl Rule {
    /// Voters whose acks count: those of zones other than the primary's, the primary itself left out.
    pub fn ackers(&self) -> impl Iterator<Item = &Voter> {
        let home = self.voters.iter().find(|v| v.member == self.primary).map_or(&Zone::Unknown, |v| &v.zone);
        self.voters.iter().filter(move |v| v.member != self.primary && v.zone.is_other_than(home))
    }
}

/// "I take part in nothing below term `max_term`." Persisted before it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who promises.
    pub member: Member,
    /// Nothing below this.
    pub max_term: Term,
    /// Which try for that term was promised: an equal term from another attempt is refused. 128 random bits.
    #[serde(with = "crate::hex128")]
    pub attempt: u128,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Incarnation, Lsn};

    fn voter(node: &str, zone: &str) -> Voter {
        let member = Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(1) };
        Voter { member, zone: zone.parse().unwrap(), kind: VoterKind::Full }
    }

    #[test]
    fn only_voters_of_other_zones_ack() {
        let voters = vec![voter("a", "x"), voter("b", "x"), voter("c", "y"), voter("d", "unknown")];
        let rule = Rule {
            id: RuleId { term: Term::FIRST, version: 1 },
            primary: voters[0].member.clone(),
            voters,
            k: 1,
            previous: None,
            start: Lsn::ZERO.into(),
        };
        let names: Vec<_> = rule.ackers().map(|v| v.member.node.as_str()).collect();
        assert_eq!(names, ["c"]);
    }

    #[test]
    fn terms_order_before_versions() {
        let id = |term, version| RuleId { term: Term::new(term).unwrap(), version };
        assert!(id(2, 1) > id(1, 9));
        assert!(id(2, 2) > id(2, 1));
        assert_eq!(Term::new(0), None);
    }
}
