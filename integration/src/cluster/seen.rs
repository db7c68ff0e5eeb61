//! What a node says about itself, as far as the harness wants to know, and whether all of them together are whole.
//!
//! Read from `holdfast --json status` and not by the product's own types: what programs are told is under test too.
//!
//! Invariants, each a test below:
//! * `a_whole_cluster_has_one_primary_and_everybody_follows_it`.
//! * `an_old_primary_that_still_says_open_is_not_the_primary`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::zones::Zone;

/// A node's answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Seen {
    /// Its name.
    pub node: String,
    /// Its volume.
    pub volume: Volume,
    /// What clients may do there.
    pub gate: Gate,
    /// The newest rule in its log.
    pub rule: Option<Rule>,
    /// What it takes part in.
    #[serde(default)]
    pub part: Part,
}

/// Its volume.
#[derive(Debug, Clone, Deserialize)]
pub struct Volume {
    /// The record on it, when it is mounted.
    pub identity: Option<Identity>,
}

/// The record on a volume.
#[derive(Debug, Clone, Deserialize)]
pub struct Identity {
    /// This formatting of the disk.
    pub incarnation: String,
}

/// What clients may do.
#[derive(Debug, Clone, Deserialize)]
pub struct Gate {
    /// `closed`, `read_only` or `open`.
    pub gate: String,
    /// In which reign.
    pub term: Option<u32>,
}

/// Orders rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct RuleId {
    /// The reign.
    pub term: u32,
    /// The change within it.
    pub version: u32,
}

/// Who may write and whose acks count.
#[derive(Debug, Clone, Deserialize)]
pub struct Rule {
    /// Which rule.
    pub id: RuleId,
    /// The member that may write.
    pub primary: String,
    /// Every voter.
    pub voters: Vec<Voter>,
    /// How many acks of other zones a commit needs.
    pub k: u32,
}

/// A member that may ack.
#[derive(Debug, Clone, Deserialize)]
pub struct Voter {
    /// `node.incarnation`.
    pub member: String,
    /// Where it stands.
    pub zone: String,
}

/// What a node takes part in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum Part {
    /// Nothing is known.
    #[default]
    None,
    /// It writes its own log.
    Writes {
        /// What is being changed about its rule.
        change: Option<String>,
    },
    /// It receives log.
    Follows {
        /// From whom.
        primary: String,
        /// Whether that is seen to work.
        streaming: bool,
    },
    /// It holds still for whoever recruited it.
    Recruited {},
    /// It would follow.
    Waits {
        /// What is missing.
        why: String,
    },
    /// A copy of its data is brought back onto the cluster's log.
    Rewinds {},
    /// Its log went another way.
    Diverged {
        /// Where.
        why: String,
    },
}

impl Seen {
    /// `node.incarnation`, when it has a volume.
    #[must_use]
    pub fn member(&self) -> Option<String> {
        let identity = self.volume.identity.as_ref()?;
        Some(format!("{}.{}", self.node, identity.incarnation))
    }

    /// The term in which clients may write here, by its own word.
    #[must_use]
    pub fn open_in(&self) -> Option<u32> {
        if self.gate.gate == "open" { self.gate.term } else { None }
    }
}

/// The node that is open under the highest term.
///
/// # Errors
/// None is open; the message says what each of them is.
pub fn primary(all: &BTreeMap<Zone, Seen>) -> Result<Zone> {
    let open = all.iter().filter_map(|(zone, seen)| seen.open_in().map(|term| (term, *zone)));
    let newest = open.max_by_key(|(term, _)| *term).map(|(_, zone)| zone);
    newest.with_context(|| format!("no node is open: {}", shown(all)))
}

/// Every node is a voter of the newest rule with the member that it is now, `k` acks are wanted, everybody follows the
/// primary and nothing is being changed. Returns the primary's zone.
///
/// # Errors
/// What is missing.
pub fn whole(all: &BTreeMap<Zone, Seen>, k: u32) -> Result<Zone> {
    let zone = primary(all)?;
    let first = &all[&zone];
    let rule = first.rule.as_ref().context("the primary has read no rule")?;
    let now: BTreeSet<String> = all.values().filter_map(Seen::member).collect();
    let named: BTreeSet<String> = rule.voters.iter().map(|voter| voter.member.clone()).collect();
    ensure!(now == named && named.len() == all.len(), "voters are {named:?}, members are {now:?}");
    ensure!(
        rule.voters.iter().map(|voter| &voter.zone).collect::<BTreeSet<_>>().len() == all.len(),
        "{rule:?}"
    );
    ensure!(rule.k == k, "k is {}, not {k}", rule.k);
    ensure!(first.member().as_ref() == Some(&rule.primary), "{} is open under {rule:?}", first.node);
    ensure!(first.open_in() == Some(rule.id.term), "{} is {:?} under {rule:?}", first.node, first.gate);
    let Part::Writes { change } = &first.part else {
        ensure!(all.len() == 1, "the primary's part is {:?}", first.part);
        return Ok(zone);
    };
    ensure!(change.is_none(), "the rule is being changed: {change:?}");
    for seen in all.iter().filter(|(other, _)| **other != zone).map(|(_, seen)| seen) {
        let follows =
            matches!(&seen.part, Part::Follows { primary, streaming: true } if *primary == rule.primary);
        ensure!(follows, "{} does not follow {}: {:?}", seen.node, rule.primary, seen.part);
        let newest = seen.rule.as_ref().map(|rule| rule.id);
        ensure!(newest == Some(rule.id), "{} has read rule {newest:?}, not {:?}", seen.node, rule.id);
        ensure!(seen.open_in().is_none(), "{} is open too", seen.node);
    }
    Ok(zone)
}

fn shown(all: &BTreeMap<Zone, Seen>) -> String {
    let each = all.values().map(|seen| format!("{} is {:?}, {:?}", seen.node, seen.gate, seen.part));
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Change = fn(&mut BTreeMap<Zone, Seen>);

    fn seen(node: &str, gate: serde_json::Value, part: serde_json::Value) -> Seen {
        let voter = |node: &str| json!({"member": format!("{node}.0"), "zone": format!("zone of {node}"), "kind": "full"});
        let status = json!({
            "node": node,
            "volume": {"volume": "mounted", "identity": {"incarnation": "0"}},
            "gate": gate,
            "rule": {
                "id": {"term": 1, "version": 3}, "primary": "n1.0", "k": 1,
                "voters": [voter("n1"), voter("n2"), voter("n3")],
            },
            "part": part,
        });
        serde_json::from_value(status).unwrap()
    }

    fn three() -> BTreeMap<Zone, Seen> {
        let (open, closed) =
            (json!({"gate": "open", "term": 1}), json!({"gate": "closed", "why": "not_primary"}));
        let follows = json!({"part": "follows", "primary": "n1.0", "streaming": true});
        let writes = json!({"part": "writes", "streams": {}, "change": null});
        BTreeMap::from([
            (Zone::A, seen("n1", open, writes)),
            (Zone::B, seen("n2", closed.clone(), follows.clone())),
            (Zone::C, seen("n3", closed, follows)),
        ])
    }

    #[test]
    fn a_whole_cluster_has_one_primary_and_everybody_follows_it() {
        assert_eq!(whole(&three(), 1).unwrap(), Zone::A);
        let broken: [(&str, Change); 6] = [
            ("k is 1, not 2", |_| {}),
            ("does not follow", |all| {
                all.get_mut(&Zone::B).unwrap().part = Part::Waits { why: String::new() }
            }),
            ("voters are", |all| {
                all.get_mut(&Zone::C).unwrap().volume.identity =
                    Some(Identity { incarnation: "1".to_owned() });
            }),
            ("is being changed", |all| {
                all.get_mut(&Zone::A).unwrap().part = Part::Writes { change: Some("adding n3".to_owned()) };
            }),
            ("has read rule", |all| {
                all.get_mut(&Zone::C).unwrap().rule.as_mut().unwrap().id.version = 2;
            }),
            ("no node is open", |all| all.get_mut(&Zone::A).unwrap().gate.gate = "closed".to_owned()),
        ];
        for (missing, change) in broken {
            let mut all = three();
            change(&mut all);
            let k = if missing.starts_with('k') { 2 } else { 1 };
            let told = whole(&all, k).expect_err(missing).to_string();
            assert!(told.contains(missing), "{told}");
        }
    }

    #[test]
    fn an_old_primary_that_still_says_open_is_not_the_primary() {
        let mut all = three();
        all.get_mut(&Zone::C).unwrap().gate = Gate { gate: "open".to_owned(), term: Some(2) };
        assert_eq!(primary(&all).unwrap(), Zone::C);
        assert!(whole(&all, 1).is_err());
    }
}
