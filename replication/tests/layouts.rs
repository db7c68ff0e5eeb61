//! U and E over every layout of up to 7 voters in up to 4 zones, for k = 0, 1 and 2, and every recruited set: exhaustive,
//! against definitions that are written out here and know nothing of how the crate computes them.
#![expect(clippy::unwrap_used, reason = "a test's tools fail the test")]

use std::collections::BTreeSet;

use holdfast_model::{Incarnation, Lsn, Member, Rule, RuleId, Term, Voter, VoterKind};
use holdfast_replication::coverage::{can_establish, candidates, revoked};

const VOTERS_MAX: usize = 7;
const ZONES_MAX: usize = 4;

/// Zone numbers of voters, each layout once however zones are called: a new zone is always the next number.
fn layouts(voters: usize) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for _ in 0..voters {
        all = all
            .into_iter()
            .flat_map(|layout: Vec<usize>| {
                let used = layout.iter().max().map_or(0, |zone| zone + 1);
                (0..(used + 1).min(ZONES_MAX)).map(move |zone| [&layout[..], &[zone]].concat())
            })
            .collect();
    }
    all
}

/// A cluster, and the same as bit sets.
struct Cluster {
    rule: Rule,
    zones: Vec<usize>,
    full: Vec<bool>,
}

impl Cluster {
    fn new(zones: &[usize], full: &[bool], k: u32) -> Self {
        let voters: Vec<Voter> = zones
            .iter()
            .zip(full)
            .enumerate()
            .map(|(at, (zone, full))| Voter {
                member: Self::member(at),
                zone: format!("z{zone}").parse().unwrap(),
                kind: if *full { VoterKind::Full } else { VoterKind::Log },
            })
            .collect();
        let id = RuleId { term: Term::FIRST, version: 1 };
        let rule = Rule { id, primary: Self::member(0), voters, k, previous: None, start: Lsn::ZERO.into() };
        Self { rule, zones: zones.to_vec(), full: full.to_vec() }
    }

    fn member(at: usize) -> Member {
        Member { node: format!("n{at}").parse().unwrap(), incarnation: Incarnation::from_random(1) }
    }

    fn members(&self, set: u32) -> BTreeSet<Member> {
        (0..self.zones.len()).filter(|at| set & (1 << at) != 0).map(Self::member).collect()
    }

    fn sets(&self) -> std::ops::Range<u32> {
        0..1 << self.zones.len()
    }

    /// Those who could ack for `primary`, out of `set`.
    fn ackers(&self, primary: usize, set: u32) -> u32 {
        let counts = |at: &usize| set & (1 << at) != 0 && self.zones[*at] != self.zones[primary];
        u32::try_from((0..self.zones.len()).filter(counts).count()).unwrap()
    }

    /// Whether a commit can be durable on exactly `set`: a full voter of it is acked by k others of it.
    fn commits(&self, set: u32) -> bool {
        (0..self.zones.len())
            .any(|at| self.full[at] && set & (1 << at) != 0 && self.ackers(at, set) >= self.rule.k)
    }
}

fn ones(set: u32) -> usize {
    usize::try_from(set.count_ones()).unwrap()
}

fn all_clusters() -> impl Iterator<Item = Cluster> {
    let full = (1..=VOTERS_MAX)
        .flat_map(|voters| layouts(voters).into_iter().map(move |zones| (zones, vec![true; voters])));
    // With one log voter at each place, in clusters small enough.
    let with_log = (2..VOTERS_MAX).flat_map(|voters| {
        layouts(voters).into_iter().flat_map(move |zones| {
            (0..voters).map(move |log| (zones.clone(), (0..voters).map(|at| at != log).collect()))
        })
    });
    full.chain(with_log).flat_map(|(zones, full)| (0..=2).map(move |k| Cluster::new(&zones, &full, k)))
}

/// Every recruited set with what the crate says of it.
fn judged(cluster: &Cluster) -> Vec<(u32, bool, bool)> {
    let judge = |set| {
        let members = cluster.members(set);
        (set, revoked(&cluster.rule, &members).is_ok(), can_establish(&cluster.rule, &members).is_ok())
    };
    cluster.sets().map(judge).collect()
}

#[test]
fn a_revoked_set_meets_every_commit_quorum() {
    let (mut judged_sets, mut revoked_sets) = (0_u64, 0_u64);
    for cluster in all_clusters() {
        let everybody = cluster.sets().end - 1;
        for (set, revoked, _) in judged(&cluster) {
            // U says exactly this: nothing outside can make a commit durable.
            assert_eq!(revoked, !cluster.commits(everybody & !set), "{:?} {set:b}", cluster.rule);
            judged_sets += 1;
            revoked_sets += u64::from(revoked);
            if revoked {
                let quorums = cluster.sets().filter(|quorum| cluster.commits(*quorum));
                assert!(quorums.into_iter().all(|quorum| quorum & set != 0), "{:?} {set:b}", cluster.rule);
            }
        }
    }
    assert!(revoked_sets > 0 && revoked_sets < judged_sets, "{revoked_sets} of {judged_sets}");
}

#[test]
fn two_sets_that_can_both_establish_meet() {
    for cluster in all_clusters() {
        let judged = judged(&cluster);
        let valid: Vec<u32> = judged
            .iter()
            .filter(|(_, revoked, establish)| *revoked && *establish)
            .map(|(set, ..)| *set)
            .collect();
        for one in &valid {
            assert!(valid.iter().all(|other| one & other != 0), "{:?} {one:b}", cluster.rule);
        }
        // One of the two is enough for each: U of one and E of the other.
        for (one, ..) in judged.iter().filter(|(_, revoked, _)| *revoked) {
            for (other, ..) in judged.iter().filter(|(_, _, establish)| *establish) {
                assert!(one & other != 0, "{:?} {one:b} {other:b}", cluster.rule);
            }
        }
    }
}

#[test]
fn an_established_primary_can_be_acked_by_the_recruited_alone() {
    for cluster in all_clusters() {
        for set in cluster.sets() {
            let members = cluster.members(set);
            let found: BTreeSet<&Member> =
                candidates(&cluster.rule, &members).map(|voter| &voter.member).collect();
            for at in 0..cluster.zones.len() {
                let expected =
                    cluster.full[at] && set & (1 << at) != 0 && cluster.ackers(at, set) >= cluster.rule.k;
                assert_eq!(found.contains(&Cluster::member(at)), expected, "{:?} {set:b}", cluster.rule);
            }
        }
    }
}

/// The sizes that the documentation promises: how many voters may be lost with U and E still true.
#[test]
fn losses_that_a_layout_bears() {
    let bears = |zones: &[usize], k: u32| {
        let cluster = Cluster::new(zones, &vec![true; zones.len()], k);
        let holds = |set| {
            let members = cluster.members(set);
            revoked(&cluster.rule, &members).is_ok() && can_establish(&cluster.rule, &members).is_ok()
        };
        let losses = |lost: usize| cluster.sets().filter(move |set| zones.len() - lost == ones(*set));
        (1..=zones.len()).take_while(|lost| losses(*lost).all(holds)).last().unwrap_or(0)
    };
    for (zones, k, expected) in [
        (&[0, 1][..], 1, 0),
        (&[0, 1, 2], 1, 1),
        (&[0, 1, 2], 2, 0),
        (&[0, 0, 1, 2], 1, 1),
        (&[0, 0, 1, 1, 2], 1, 1),
        (&[0, 0, 1, 1, 2], 2, 2),
        (&[0, 1, 2, 3], 1, 1),
        (&[0, 1, 2, 3], 2, 1),
    ] {
        assert_eq!(bears(zones, k), expected, "{zones:?} k={k}");
    }
}
