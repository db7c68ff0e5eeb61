//! The names under which MySQL writes: a server's, and that of a rule.
//!
//! A GTID names the server that wrote a transaction. Here that is the member: `server_uuid` is the incarnation, so that a
//! transaction says whose it is, a lost disk never writes under an old name, and a follower sees in `Source_UUID` whose log it
//! receives. `server_id` has only 32 bits and has to differ between the members of one cluster; two that do not are refused
//! by the server when one follows the other.
//!
//! A rule's marker is a transaction under a name made of the cluster and the term, and its number is the version. So a log says
//! by its GTID set alone what its last rule is, received or applied (T13). Two reigns never share a name, so a discarded rule is
//! never taken for the one that came in its place.
//!
//! Invariants, each a test below:
//! * `a_set_tells_its_last_rule`.
//! * `rules_of_two_terms_never_share_a_name`.

use holdfast_model::{ClusterId, Gtid, GtidSet, Incarnation, Member, RuleId, Source, Term};

/// The server of `member`.
#[must_use]
pub fn source_of(member: &Member) -> Source {
    Source(member.incarnation.bits())
}

/// The incarnation that writes under `source`.
#[must_use]
pub const fn incarnation_of(source: Source) -> Incarnation {
    Incarnation::from_random(source.0)
}

/// `server_id` of `member`: never 0, which would not replicate.
#[must_use]
pub fn server_id_of(member: &Member) -> u32 {
    let bits = member.incarnation.bits();
    let folded = (bits ^ (bits >> 32) ^ (bits >> 64) ^ (bits >> 96)) & u128::from(u32::MAX);
    u32::try_from(folded).map_or(1, |id| id.max(1))
}

/// The login of `member`: its incarnation, since an account's name has at most 32 letters.
#[must_use]
pub fn login_of(member: &Member) -> String {
    member.incarnation.to_string()
}

/// `auto.cnf` of the server of `member`.
#[must_use]
pub fn auto_cnf(member: &Member) -> String {
    format!("[auto]\nserver-uuid={}\n", source_of(member))
}

/// Names rules of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Markers {
    cluster: u128,
}

/// The lowest bits of a name hold the term.
const TERM_BITS: u128 = u32::MAX as u128;

impl Markers {
    /// Those of `cluster`.
    #[must_use]
    pub const fn of(cluster: &ClusterId) -> Self {
        Self { cluster: cluster.bits() }
    }

    /// The transaction with which `rule` is in the log.
    #[must_use]
    pub fn gtid(self, rule: RuleId) -> Gtid {
        Gtid { source: self.source(rule.term), number: u64::from(rule.version) }
    }

    fn source(self, term: Term) -> Source {
        Source(self.cluster ^ u128::from(term.number()))
    }

    /// The newest rule that is in `set`; none when it holds none.
    #[must_use]
    pub fn last_rule(self, set: &GtidSet) -> Option<RuleId> {
        let rule = |source: Source| {
            let term = source.0 ^ self.cluster;
            let term =
                (term & !TERM_BITS == 0).then(|| u32::try_from(term).ok()).flatten().and_then(Term::new)?;
            Some(RuleId { term, version: u32::try_from(set.last_of(source)).ok()? })
        };
        set.sources().filter_map(rule).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(bits: u128) -> Markers {
        Markers { cluster: bits }
    }

    fn id(term: u32, version: u32) -> RuleId {
        RuleId { term: Term::new(term).unwrap(), version }
    }

    fn member(bits: u128) -> Member {
        Member { node: "n1".parse().unwrap(), incarnation: Incarnation::from_random(bits) }
    }

    #[test]
    fn a_set_tells_its_last_rule() {
        let markers = cluster(0x1234_5678_9abc_def0_0000_0000_dead_beef);
        let own = Gtid { source: Source(7 << 96), number: 9 };
        let set = GtidSet::EMPTY.with(own);
        assert_eq!(markers.last_rule(&set), None);
        let set =
            [id(1, 1), id(1, 2), id(4, 1)].into_iter().fold(set, |set, rule| set.with(markers.gtid(rule)));
        assert_eq!(markers.last_rule(&set), Some(id(4, 1)));
        assert_eq!(cluster(1).last_rule(&set), None, "rules of another cluster are none of this one");
    }

    #[test]
    fn rules_of_two_terms_never_share_a_name() {
        let markers = cluster(u128::MAX);
        assert_ne!(markers.gtid(id(3, 1)), markers.gtid(id(4, 1)));
        assert_ne!(markers.gtid(id(3, 1)), markers.gtid(id(3, 2)));
    }

    #[test]
    fn a_server_is_named_after_its_member() {
        let one = member(0x3e11_fa47_71ca_11e1_9e33_c80a_a942_9562);
        assert_eq!(auto_cnf(&one), "[auto]\nserver-uuid=3e11fa47-71ca-11e1-9e33-c80aa9429562\n");
        assert_eq!(incarnation_of(source_of(&one)), one.incarnation);
        assert_eq!(login_of(&one).len(), 32);
        assert_eq!(server_id_of(&member(0)), 1);
        assert_ne!(server_id_of(&one), server_id_of(&member(8)));
    }
}
