//! `synchronous_standby_names`: whose acks Postgres itself waits for before it answers a COMMIT.
//!
//! Invariants, each a test below:
//! * `an_empty_list_is_rendered_only_for_k_zero`: `''` wakes every waiter as if it had been acked (P5).
//! * `a_rule_that_nobody_can_ack_still_blocks`.

use std::collections::BTreeSet;

use holdfast_model::{Member, Rule};
use holdfast_replication::quorum::AckQuorum;

/// A name that no member can have (`!` is not in a node name): commits wait for ever, which is what is wanted while
/// nobody may ack.
const NOBODY: &str = "!nobody";

/// Whose acks a commit needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncStandbys {
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

impl SyncStandbys {
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

    /// The setting's value. Member names hold no quote (see `model::ids`), so quoting them is enough.
    #[must_use]
    pub fn render(&self) -> String {
        match self {
            Self::Alone => String::new(),
            Self::AnyOf { k, members } if !members.is_empty() => {
                let names: Vec<_> = members.iter().map(|m| format!("\"{m}\"")).collect();
                format!("ANY {k} ({})", names.join(", "))
            }
            Self::AnyOf { .. } | Self::Nobody => format!("ANY 1 (\"{NOBODY}\")"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::{Incarnation, Lsn, RuleId, Term, Voter, VoterKind};

    fn voter(node: &str, zone: &str) -> Voter {
        let member = Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(7) };
        Voter { member, zone: zone.parse().unwrap(), kind: VoterKind::Full }
    }

    fn rule(k: u32, voters: &[(&str, &str)]) -> Rule {
        let voters: Vec<_> = voters.iter().map(|(node, zone)| voter(node, zone)).collect();
        Rule {
            id: RuleId { term: Term::FIRST, version: 1 },
            primary: voters[0].member.clone(),
            voters,
            k,
            previous: None,
            start: Lsn::ZERO,
        }
    }

    #[test]
    fn an_empty_list_is_rendered_only_for_k_zero() {
        assert_eq!(SyncStandbys::of(&rule(0, &[("a", "x"), ("b", "y")])).render(), "");
        assert_ne!(SyncStandbys::of(&rule(1, &[("a", "x")])).render(), "");
        assert_ne!(SyncStandbys::Nobody.render(), "");
    }

    #[test]
    fn only_voters_of_other_zones_are_listed() {
        let text = SyncStandbys::of(&rule(1, &[("a", "x"), ("b", "x"), ("c", "y"), ("d", "z")])).render();
        let id = Incarnation::from_random(7);
        assert_eq!(text, format!("ANY 1 (\"c.{id}\", \"d.{id}\")"));
    }

    #[test]
    fn a_rule_that_nobody_can_ack_still_blocks() {
        let text = SyncStandbys::of(&rule(2, &[("a", "x"), ("b", "x")])).render();
        assert_eq!(text, "ANY 1 (\"!nobody\")");
    }
}
