//! The protocol itself: no property is violated.

use std::collections::BTreeSet;

use stateright::{Checker, Model};

use super::actions::{Bounds, Protocol};
use super::properties::{FAILS_OVER, READMITS, RECOVERS, REWINDS, describe};
use super::story::story;

/// How many stories a random check tells for each case of a property test, so that `PROPTEST_CASES` sets both.
const STORIES_PER_CASE: u64 = 200;
/// And at most.
const STORIES_MAX: u64 = 1_000_000;

/// Nothing happens but writes, within three zones of one voter each.
pub(crate) fn three_zones() -> Bounds {
    Bounds {
        zones: vec![0, 1, 2],
        voters: 3,
        k: 1,
        coordinators: 1,
        attempts: 0,
        term_max: 3,
        writes: 1,
        crashes: 0,
        losses: 0,
        changes: 0,
        restores: 0,
        rewinds: 0,
        unheard: 0,
        prompt: false,
    }
}

/// Every state within the bounds.
pub(crate) fn check(bounds: Bounds, reachable: &[&'static str]) {
    let checker = Protocol::new(bounds, None).checker().threads(2).spawn_bfs().join();
    println!(
        "{} states, {} unique, depth {}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    assert_none_violated(&checker, reachable);
}

fn assert_none_violated(checker: &impl Checker<Protocol>, reachable: &[&'static str]) {
    for (name, path) in checker.discoveries() {
        let expected = [FAILS_OVER, RECOVERS, READMITS, REWINDS].contains(&name);
        let steps = path.clone().into_actions();
        let last = path.last_state();
        assert!(expected, "{name}\nafter {steps:#?}\n{}", describe(checker.model(), last));
    }
    for name in reachable {
        assert!(checker.discovery(name).is_some(), "not reached: {name}");
    }
}

#[test]
fn a_failover_with_a_crash_and_a_lost_answer() {
    let bounds = Bounds { attempts: 1, crashes: 1, term_max: 2, unheard: 1, ..three_zones() };
    check(bounds, &[FAILS_OVER]);
}

#[test]
fn two_coordinators_at_once() {
    let bounds = Bounds { coordinators: 2, attempts: 2, writes: 0, ..three_zones() };
    check(bounds, &[FAILS_OVER]);
}

#[test]
fn a_lost_disk_comes_back_as_another_voter() {
    let bounds = Bounds { attempts: 1, losses: 1, changes: 2, restores: 1, prompt: true, ..three_zones() };
    check(bounds, &[FAILS_OVER, RECOVERS, READMITS]);
}

#[test]
fn a_deposed_primary_is_rewound_beside_a_lost_disk() {
    let bounds = Bounds { attempts: 2, losses: 1, writes: 2, rewinds: 1, prompt: true, ..three_zones() };
    check(bounds, &[FAILS_OVER, RECOVERS, REWINDS]);
}

#[test]
fn everything_at_once_within_narrow_bounds() {
    let bounds = Bounds { attempts: 1, crashes: 1, losses: 1, changes: 1, prompt: true, ..three_zones() };
    check(bounds, &[FAILS_OVER, RECOVERS]);
}

/// Stories that are too many to be told each: every one is a number, and can be told again.
fn at_random(bounds: Bounds, reachable: &[&str]) {
    let model = Protocol::new(bounds, None);
    let cases = u64::from(proptest::test_runner::Config::default().cases);
    let stories = (cases * STORIES_PER_CASE).min(STORIES_MAX);
    let (mut states, mut reached) = (0, BTreeSet::new());
    for seed in 0..stories {
        let story = story(&model, seed);
        states += story.steps.len();
        if let Some(violated) = story.violated {
            panic!("seed {seed}: {violated}\nafter {:?}\n{}", story.steps, describe(&model, &story.last));
        }
        reached.extend(story.reached);
    }
    println!("{stories} stories, {states} states, reached {reached:?}");
    assert!(reachable.iter().all(|name| reached.contains(name)), "only {reached:?}");
}

/// More of everything than could be gone through.
fn plenty() -> Bounds {
    Bounds {
        coordinators: 2,
        attempts: 6,
        term_max: 7,
        writes: 6,
        crashes: 4,
        losses: 3,
        changes: 6,
        restores: 3,
        rewinds: 3,
        unheard: 2,
        ..three_zones()
    }
}

#[test]
fn everything_at_once_in_four_zones_at_random() {
    let bounds = Bounds { zones: vec![0, 1, 2, 3], ..plenty() };
    at_random(bounds, &[FAILS_OVER, RECOVERS, READMITS, REWINDS]);
}

#[test]
fn everything_at_once_with_two_acks_at_random() {
    let bounds = Bounds { zones: vec![0, 1, 2, 3, 4], voters: 4, k: 2, prompt: true, ..plenty() };
    at_random(bounds, &[FAILS_OVER, RECOVERS, READMITS]);
}
