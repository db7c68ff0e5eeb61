//! Drives over members in memory, in time that is paused: what is waited for passes at once.

mod world;

use std::sync::{Arc, Mutex};

use holdfast_model::{RuleId, Term};
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::testing::{ATTEMPT, member, rule};
use world::{Fate, Lines, World};

/// A driver over `lines`, and what it told.
fn driver(lines: &Arc<Lines>, seed: u128) -> (Driver, Arc<Mutex<Vec<String>>>) {
    let (start, told) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let clock = move || Tick::from_millis(u64::try_from(start.elapsed().as_millis()).unwrap());
    let mut drawn = seed;
    let random = move || {
        // Any numbers will do that differ between seeds: Knuth's multiplier for 64 bits.
        drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        drawn >> 17
    };
    let audience = Arc::clone(&told);
    let progress = move |phase: &str| audience.lock().unwrap().push(phase.to_owned());
    let members: Arc<dyn Members> = Arc::clone(lines) as Arc<dyn Members>;
    (Driver::new(members, Box::new(clock), Box::new(random), Box::new(progress)), told)
}

fn failover_order() -> failover::Order {
    failover::Order { attempt: ATTEMPT, rule: rule(3), prefer: vec![], without_votes: false, until: None }
}

fn switchover_order() -> switchover::Order {
    switchover::Order { attempt: ATTEMPT, rule: rule(3), candidate: member("b") }
}

async fn fail_over(lines: &Arc<Lines>, order: failover::Order) -> Result<Opened, Failed> {
    driver(lines, 1).0.failover(order, failover::Pace::default(), Tries::default()).await
}

async fn switch_over(lines: &Arc<Lines>) -> Result<Opened, NotSwitched> {
    driver(lines, 1).0.switchover(switchover_order(), switchover::Pace::default(), Tries::default()).await
}

fn lost() -> Vec<Fate> {
    vec![Fate::Lost; 100]
}

#[tokio::test(start_paused = true)]
async fn a_failover_ends_with_an_open_gate_and_says_how_long_each_part_took() {
    let (world, begun) = (World::of(&["b", "c"]), Instant::now());
    let lines = Lines::new(&world, vec![]);
    lines.set("a", "recruit", lost());
    lines.set("b", "recruit", [Fate::After(40)]);
    let (mut driver, told) = driver(&lines, 1);
    let opened =
        driver.failover(failover_order(), failover::Pace::default(), Tries::default()).await.unwrap();
    let passed = u64::try_from(begun.elapsed().as_millis()).unwrap();
    assert_eq!((opened.tries, opened.took.total_ms()), (1, passed), "{opened}");
    let Took { votes_ms, recruit_ms, promote_ms, gate_ms, .. } = opened.took;
    assert_eq!(recruit_ms, 40 + failover::Pace::default().settle_ms);
    assert!(votes_ms < 10 && promote_ms < 10 && (1..110).contains(&gate_ms), "{opened}");
    assert_eq!(world.gate(&opened.rule.primary), Some(ATTEMPT.term));
    assert_eq!(
        *told.lock().unwrap(),
        [
            "asking who else misses the primary",
            "recruiting for term 2",
            "promoting in term 2",
            "waiting for the gate to open in term 2",
            "over"
        ]
    );
    assert!(world.kept.lock().unwrap().is_empty(), "nobody waits for the repository");
    driver.rest().await;
    assert_eq!(*world.kept.lock().unwrap(), [opened.certificate]);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_not_carried_twice() {
    let lines = Lines::new(&World::of(&["b", "c"]), vec![]);
    lines.set("c", "recruit", [Fate::After(5_000)]);
    fail_over(&lines, failover_order()).await.unwrap();
    assert_eq!((lines.times("b", "recruit"), lines.times("c", "recruit")), (1, 1));
    assert_eq!(lines.times("a", "recruit"), 6, "who is gone is asked each second");
}

#[tokio::test(start_paused = true)]
async fn a_promotion_whose_answer_is_lost_is_asked_for_again_and_done_once() {
    let world = World::of(&["b", "c"]);
    let lines = Lines::new(&world, vec![]);
    lines.set("b", "promote", [Fate::Unanswered, Fate::Lost]);
    lines.set("b", "gate", [Fate::Lost, Fate::After(0)]);
    let opened = fail_over(&lines, failover_order()).await.unwrap();
    assert_eq!((opened.tries, lines.times("b", "promote")), (1, 3));
    assert_eq!(world.nodes()[&member("b")].rules.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_slow_to_follow_is_told_all_the_same() {
    let world = World::of(&["a", "b", "c"]);
    let lines = Lines::new(&world, vec![]);
    lines.set("c", "follow", [Fate::After(3_000)]);
    let (mut driver, _) = driver(&lines, 1);
    let opened =
        driver.failover(failover_order(), failover::Pace::default(), Tries::default()).await.unwrap();
    assert!(opened.took.total_ms() < 200, "nobody waits for it: {opened}");
    assert_eq!(world.nodes()[&member("c")].follows, None);
    driver.rest().await;
    assert_eq!(world.nodes()[&member("c")].follows, Some(ATTEMPT.term));
}

#[tokio::test(start_paused = true)]
async fn a_term_that_is_taken_is_tried_again_above() {
    let world = World::of(&["b", "c"]);
    world.change("c", |node| node.promises(Attempt { term: Term::new(6).unwrap(), id: 99 }));
    let lines = Lines::new(&world, vec![]);
    let opened = fail_over(&lines, failover_order()).await.unwrap();
    assert_eq!((opened.tries, opened.rule.id.term), (2, Term::new(7).unwrap()));
    assert!(opened.took.total_ms() < 3_000, "nobody waits for a primary that is gone: {opened}");
}

#[tokio::test(start_paused = true)]
async fn a_chosen_member_that_falls_silent_is_passed_over() {
    let world = World::of(&["a", "b", "c"]);
    let lines = Lines::new(&world, vec![]);
    lines.set("b", "promote", lost());
    lines.set("b", "recruit", std::iter::once(Fate::After(1)).chain(lost()));
    world.change("a", |node| node.end = 9);
    world.change("c", |node| node.end = 9);
    let opened =
        fail_over(&lines, failover::Order { without_votes: true, ..failover_order() }).await.unwrap();
    assert_eq!((opened.tries, opened.rule.id.term), (2, ATTEMPT.term.next().unwrap()));
    assert!(opened.rule.primary != member("b"));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_limited_and_the_last_reason_is_told() {
    let lines = Lines::new(&World::of(&["b", "c"]), vec![]);
    let refused = Refused::OtherAttempt { term: Term::new(9).unwrap() };
    lines.set("c", "recruit", vec![Fate::Refused(refused); 100]);
    let failed = fail_over(&lines, failover_order()).await.unwrap_err();
    assert_eq!(failed.tries, Tries::default().most);
    assert!(
        matches!(&failed.stopped, Stopped::NotChosen { refusals, .. } if refusals.len() == 1),
        "{failed}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_word_about_one_primary_is_not_used_against_the_next() {
    let world = World::of(&["a", "b", "c"]);
    world.change("c", |node| node.rules[0].id = RuleId { term: Term::new(3).unwrap(), version: 1 });
    world.change("b", |node| node.promises(Attempt { term: Term::new(3).unwrap(), id: 99 }));
    let lines = Lines::new(&world, vec![]);
    let order = failover::Order { without_votes: true, ..failover_order() };
    let failed = fail_over(&lines, order).await.unwrap_err();
    assert_eq!(failed.tries, 1, "{failed}");
    assert!(failed.to_string().contains("rule (3,1) is in the log"), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_once_the_time_for_it_is_up() {
    let lines = Lines::new(&World::of(&["b", "c"]), vec![]);
    let refused = Refused::OtherAttempt { term: Term::new(9).unwrap() };
    lines.set("c", "recruit", vec![Fate::Refused(refused); 100]);
    let order = |until| failover::Order { until: Some(Tick::from_millis(until)), ..failover_order() };
    let failed = fail_over(&lines, order(1)).await.unwrap_err();
    assert_eq!((failed.tries, failed.out_of_time), (1, true), "what was begun in time goes on to its end");
    assert!(failed.to_string().ends_with("the time for it is up"), "{failed}");
    let failed = fail_over(&lines, order(u64::MAX)).await.unwrap_err();
    assert_eq!((failed.tries, failed.out_of_time), (Tries::default().most, false));
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_seen_stays() {
    let world = World::of(&["a", "b", "c"]);
    world.nodes().values_mut().for_each(|node| node.misses_primary = false);
    let failed = fail_over(&Lines::new(&world, vec![]), failover_order()).await.unwrap_err();
    assert!(matches!(failed.stopped, Stopped::NotMissed { .. }), "{failed}");
    assert!(world.nodes().values().all(|node| node.promise.is_none()));
}

#[test]
fn one_of_two_coordinators_gets_through() {
    for seed in 0..100 {
        in_paused_time(async {
            let world = World::of(&["b", "c"]);
            let (one, other) = (Lines::new(&world, vec![]), Lines::new(&world, vec![]));
            one.set("c", "recruit", [Fate::After(30)]);
            other.set("b", "recruit", [Fate::After(30)]);
            let (mut first, mut second) = (driver(&one, seed).0, driver(&other, 1_000 + seed).0);
            let pace = failover::Pace::default();
            let rival = failover::Order { attempt: Attempt { id: 8, ..ATTEMPT }, ..failover_order() };
            let (first, second) = tokio::join!(
                first.failover(failover_order(), pace, Tries::default()),
                second.failover(rival, pace, Tries::default()),
            );
            let opened: Vec<_> = first.iter().chain(second.iter()).collect();
            assert!(!opened.is_empty(), "seed {seed}: {first:?} {second:?}");
            assert!(opened.iter().all(|opened| opened.rule.id.term > ATTEMPT.term), "{opened:?}");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_switchover_hands_over_to_the_candidate() {
    let world = World::of(&["a", "b", "c"]);
    let opened = switch_over(&Lines::new(&world, vec![])).await.unwrap();
    assert_eq!(opened.rule.primary, member("b"));
    assert!(opened.took.refused_ms() < 150, "{opened}");
}

#[tokio::test(start_paused = true)]
async fn a_switchover_that_fails_reopens_the_primary() {
    let refused = || Fate::Refused(Refused::NotRecruited { asked: ATTEMPT.term });
    for (asked, of, fates, because) in [
        ("near", "a", lost(), Kept::TooFarBehind { candidate: member("b") }),
        ("close", "a", vec![Fate::Unanswered; 100], Kept::NotClosed { primary: member("a") }),
        ("close", "a", vec![refused()], Kept::NotClosed { primary: member("a") }),
        ("await", "b", lost(), Kept::NotDrained { candidate: member("b") }),
        ("await", "b", vec![refused()], Kept::NotDrained { candidate: member("b") }),
    ] {
        let world = World::of(&["a", "b", "c"]);
        let lines = Lines::new(&world, vec![]);
        lines.set(of, asked, fates);
        lines.set("a", "reopen", [Fate::Lost]);
        assert_eq!(switch_over(&lines).await, Err(NotSwitched::Kept(because)), "{asked}");
        assert!(!world.nodes()[&member("a")].closed, "{asked}");
        assert!(world.nodes().values().all(|node| node.promise.is_none()), "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_does_not_answer_opens_by_itself() {
    let lines = Lines::new(&World::of(&["a", "b", "c"]), vec![]);
    lines.set("b", "await", lost());
    lines.set("a", "reopen", lost());
    let because = Kept::NotDrained { candidate: member("b") };
    assert_eq!(switch_over(&lines).await, Err(NotSwitched::NotReopened(because)));
    assert!(lines.times("a", "reopen") > 5);
}

#[tokio::test(start_paused = true)]
async fn what_closes_the_primary_does_not_arrive_after_what_opens_it() {
    let world = World::of(&["a", "b", "c"]);
    let lines = Lines::new(&world, vec![]);
    // It would arrive after 6 s, and is given up after 5; the first word to open arrives, and is not answered in time.
    lines.set("a", "close", [Fate::After(12_000)]);
    lines.set("a", "reopen", [Fate::Unanswered]);
    let because = Kept::NotClosed { primary: member("a") };
    assert_eq!(switch_over(&lines).await, Err(NotSwitched::Kept(because)));
    assert_eq!(world.nodes()[&member("a")].closings, 0);
}

#[tokio::test(start_paused = true)]
async fn a_switchover_whose_term_is_taken_goes_on_above() {
    let world = World::of(&["a", "b", "c"]);
    let lines = Lines::new(&world, vec![]);
    let rival = Attempt { term: ATTEMPT.term, id: 99 };
    world.change("a", |node| node.promises(rival));
    world.change("c", |node| node.promises(rival));
    let opened = switch_over(&lines).await.unwrap();
    assert_eq!((opened.tries, opened.rule.primary), (2, member("b")));
}

#[test]
fn pauses_grow_up_to_their_limit() {
    let tries = Tries { most: 99, pause_ms: 100, pause_ms_max: 1_000 };
    let longest = |tried| tries.pause(tried, u128::from(u64::MAX) * 1_001 * 101 * 201 * 401 * 801 - 1);
    assert!([1, 2, 3, 4].map(longest).windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!((longest(1).as_millis(), longest(90).as_millis()), (100, 1_000));
}

fn in_paused_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(future)
}

fn fate() -> impl Strategy<Value = Fate> {
    let refused = (2..9_u32).prop_map(|term| Refused::OtherAttempt { term: Term::new(term).unwrap() });
    prop_oneof![
        6 => (0..3_000_u64).prop_map(Fate::After),
        6 => (0..20_u64).prop_map(Fate::After),
        3 => Just(Fate::Lost),
        3 => Just(Fate::Unanswered),
        1 => refused.prop_map(Fate::Refused),
    ]
}

proptest! {
    #[test]
    fn every_drive_ends_and_says_why(
        alive in proptest::sample::subsequence(vec!["a", "b", "c"], 0..=3),
        fates in proptest::collection::vec(fate(), 0..120),
        planned in proptest::bool::ANY,
    ) {
        in_paused_time(async {
            let (world, begun) = (World::of(&alive), Instant::now());
            let lines = Lines::new(&world, fates);
            let opened = if planned {
                switch_over(&lines).await.map_err(|why| why.to_string())
            } else {
                fail_over(&lines, failover_order()).await.map_err(|why| why.to_string())
            };
            // Five attempts of at most 53 s each, their pauses, and a switchover's own 100 s.
            prop_assert!(begun.elapsed().as_secs() < 5 * 53 + 15 + 100);
            match opened {
                Ok(opened) => {
                    prop_assert!(opened.certificate.holds());
                    prop_assert_eq!(u128::from(opened.took.total_ms()), begun.elapsed().as_millis());
                }
                Err(why) => prop_assert!(!why.is_empty()),
            }
            Ok(())
        })?;
    }
}
