//! `synchronous_standby_names`: whose acks Postgres itself waits for before it answers a COMMIT.
//!
//! Invariants, each a test below:
//! * `an_empty_list_is_rendered_only_for_k_zero`: `''` wakes every waiter as if it had been acked (P5).
//! * `a_rule_that_nobody_can_ack_still_blocks`.

use crate::ackers::Ackers;

/// A name that no member can have (`!` is not in a node name): commits wait for ever, which is what is wanted while
/// nobody may ack.
const NOBODY: &str = "!nobody";

/// The setting's value. Member names hold no quote (see `model::ids`), so quoting them is enough.
#[must_use]
pub fn render(ackers: &Ackers) -> String {
    match ackers {
        Ackers::Alone => String::new(),
        Ackers::AnyOf { k, members } if !members.is_empty() => {
            let names: Vec<_> = members.iter().map(|m| format!("\"{m}\"")).collect();
            format!("ANY {k} ({})", names.join(", "))
        }
        Ackers::AnyOf { .. } | Ackers::Nobody => format!("ANY 1 (\"{NOBODY}\")"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::{Incarnation, Lsn, Member, Rule, RuleId, Term, Voter, VoterKind};

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
            start: Lsn::ZERO.into(),
        }
    }

    #[test]
    fn an_empty_list_is_rendered_only_for_k_zero() {
        assert_eq!(render(&Ackers::of(&rule(0, &[("a", "x"), ("b", "y")]))), "");
        assert_ne!(render(&Ackers::of(&rule(1, &[("a", "x")]))), "");
        assert_ne!(render(&Ackers::Nobody), "");
    }

    #[test]
    fn only_voters_of_other_zones_are_listed() {
        let text = render(&Ackers::of(&rule(1, &[("a", "x"), ("b", "x"), ("c", "y"), ("d", "z")])));
        let id = Incarnation::from_random(7);
        assert_eq!(text, format!("ANY 1 (\"c.{id}\", \"d.{id}\")"));
    }

    #[test]
    fn a_rule_that_nobody_can_ack_still_blocks() {
        let text = render(&Ackers::of(&rule(2, &[("a", "x"), ("b", "x")])));
        assert_eq!(text, "ANY 1 (\"!nobody\")");
    }
}
