//! Rules and members by number, so that a state is small and quick to hash.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, RwLock};

use holdfast_model::{Incarnation, Member, Rule};
use holdfast_replication::quorum::AckQuorum;

use super::state::Id;

/// Names a rule of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RuleRef(u16);

/// Every rule that was met so far. Numbers differ from run to run; nothing depends on them.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    known: RwLock<Vec<Arc<Rule>>>,
    quorums: RwLock<BTreeMap<Vec<RuleRef>, Arc<AckQuorum>>>,
}

impl Rules {
    pub(crate) fn get(&self, rule: RuleRef) -> Arc<Rule> {
        Arc::clone(&self.known.read().unwrap()[usize::from(rule.0)])
    }

    pub(crate) fn number(&self, rule: &Rule) -> RuleRef {
        let position = |known: &[Arc<Rule>]| known.iter().position(|it| **it == *rule);
        let found = position(&self.known.read().unwrap());
        let at = found.unwrap_or_else(|| {
            let mut known = self.known.write().unwrap();
            position(&known).unwrap_or_else(|| {
                known.push(Arc::new(rule.clone()));
                known.len() - 1
            })
        });
        RuleRef(u16::try_from(at).unwrap())
    }

    /// What satisfies all of these, the newest first.
    pub(crate) fn quorum(&self, open: &[RuleRef]) -> Arc<AckQuorum> {
        if let Some(known) = self.quorums.read().unwrap().get(open) {
            return Arc::clone(known);
        }
        let rules: Vec<Rule> = open.iter().map(|rule| (*self.get(*rule)).clone()).collect();
        let quorum = Arc::new(AckQuorum::of_open(&rules[0], &rules[1..]));
        Arc::clone(self.quorums.write().unwrap().entry(open.to_vec()).or_insert(quorum))
    }
}

/// Members of up to 5 nodes with up to 4 incarnations each.
static MEMBERS: LazyLock<Vec<Vec<Member>>> = LazyLock::new(|| {
    let member = |node: u8, incarnation: u8| Member {
        node: format!("n{node}").parse().unwrap(),
        incarnation: Incarnation::from_random(u128::from(incarnation) + 1),
    };
    (0..5).map(|node| (0..4).map(|incarnation| member(node, incarnation)).collect()).collect()
});

pub(crate) fn member(id: Id) -> &'static Member {
    &MEMBERS[usize::from(id.node)][usize::from(id.incarnation)]
}

pub(crate) fn id(member: &Member) -> Id {
    let node = member.node.as_str()[1..].parse().unwrap();
    Id { node, incarnation: u8::try_from(member.incarnation.bits() - 1).unwrap() }
}
