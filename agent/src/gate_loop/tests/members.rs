//! Members of a server that writes, and a server in recovery.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_engine::Ackers;
use holdfast_engine::links::Upstream;
use holdfast_model::RuleId;
use holdfast_model::peer::Part;
use holdfast_replication::change::Change;

use super::*;

fn named(node: &str, bits: u128) -> Member {
    Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(bits) }
}

fn voter(node: &str, bits: u128) -> Voter {
    Voter { member: named(node, bits), zone: node.parse().unwrap(), kind: VoterKind::Full }
}

fn part(world: &World) -> Part {
    world.report.borrow().part.clone()
}

/// What is wanted of an open primary.
fn changing(change: Change) -> GateOrders {
    let admit = [named("b", 1)].into();
    GateOrders { change: Some(change), admit, ..orders() }
}

fn attached(world: &mut World, member: &Member, flushed: u64) {
    world.gate.engine.attached.insert(member.clone(), 1);
    world.gate.engine.flushed.standbys.insert(member.clone(), Lsn::from_offset(flushed).into());
}

const FAR: u64 = 1 << 20;

#[tokio::test]
async fn a_member_is_named_only_after_it_caught_up() {
    let mut world = World::new();
    world.settle(&orders()).await;
    let orders = changing(Change::Add(voter("b", 1)));
    world.settle(&orders).await;
    assert!(world.gate.engine.admitted.contains(&named("b", 1)), "it may attach");
    attached(&mut world, &named("b", 1), 1);
    world.settle(&orders).await;
    assert_eq!(world.gate.engine.rules.len(), 1, "it lacks log that was there when it attached");
    attached(&mut world, &named("b", 1), FAR);
    world.settle(&orders).await;
    let rule = world.gate.engine.rules.last().cloned().unwrap();
    assert_eq!((rule.id.version, rule.voters.len()), (3, 2));
    assert_eq!(world.settle(&super::orders()).await, OPEN);
}

#[tokio::test]
async fn a_change_ends_with_a_rule_that_says_the_same_again() {
    let world = with_a_voter().await;
    let rules = &world.gate.engine.rules;
    let said: Vec<(usize, u32)> = rules.iter().map(|rule| (rule.voters.len(), rule.k)).collect();
    assert_eq!(said, [(1, 0), (2, 0), (2, 0), (2, 1), (2, 1)]);
}

/// An open primary with voter `b` and k = 1.
async fn with_a_voter() -> World {
    let mut world = World::new();
    world.settle(&orders()).await;
    attached(&mut world, &named("b", 1), FAR);
    world.settle(&changing(Change::Add(voter("b", 1)))).await;
    world.settle(&changing(Change::SetK(1))).await;
    let rule = world.gate.engine.rules.last().cloned().unwrap();
    assert_eq!((rule.k, world.gate.engine.sync.clone()), (1, Ackers::of(&rule)));
    world
}

#[tokio::test]
async fn an_adopted_engine_that_lets_nobody_in_lets_its_members_attach() {
    let mut engine = with_a_voter().await.gate.engine;
    // The agent that promoted it, or started it, died before it had put anything in force.
    engine.gate = Gate::Closed { why: GateClosed::Starting };
    engine.admitted.clear();
    engine.attached.clear();
    engine.flushed.standbys.clear();
    let mut world = World::of(engine);
    let gate = world.settle(&orders()).await;
    assert_eq!(gate, Gate::Closed { why: GateClosed::MarkerNotAcked });
    assert!(world.gate.engine.admitted.contains(&named("b", 1)), "without it the marker is never acked");
    attached(&mut world, &named("b", 1), FAR);
    assert_eq!(world.settle(&orders()).await, OPEN);
}

#[tokio::test]
async fn a_removed_member_is_expelled_before_the_rule_without_it_is_written() {
    let mut world = with_a_voter().await;
    attached(&mut world, &named("c", 1), FAR);
    let admit = [named("c", 1)].into();
    let add = GateOrders { admit, change: Some(Change::Add(voter("c", 1))), ..orders() };
    world.settle(&add).await;
    world.settle(&add).await;
    assert_eq!(world.gate.engine.rules.last().unwrap().voters.len(), 3);
    let before = world.gate.engine.rules.len();
    let remove = GateOrders { change: Some(Change::Remove(named("b", 1))), ..orders() };
    // Nobody acks: the list is narrow and the member gone, and the marker waits.
    world.gate.engine.flushed.standbys.insert(named("c", 1), Lsn::from_offset(1).into());
    world.settle(&remove).await;
    assert!(!world.gate.engine.attached.contains_key(&named("b", 1)));
    assert_eq!(world.gate.engine.rules.len(), before + 1);
    let narrow = Ackers::AnyOf { k: 1, members: [named("c", 1)].into() };
    assert_eq!(world.gate.engine.sync, narrow);
    assert!(matches!(part(&world), Part::Writes { change: Some(_), .. }), "{:?}", part(&world));
    world.gate.engine.flushed.standbys.insert(named("c", 1), Lsn::from_offset(FAR).into());
    assert_eq!(world.settle(&orders()).await, OPEN);
    assert!(matches!(part(&world), Part::Writes { change: None, .. }), "{:?}", part(&world));
}

#[tokio::test]
async fn a_widened_list_is_in_force_only_after_its_marker_is_acked() {
    let mut world = with_a_voter().await;
    attached(&mut world, &named("c", 1), FAR);
    world.gate.engine.flushed.standbys.insert(named("b", 1), Lsn::from_offset(1).into());
    let admit = [named("c", 1)].into();
    let add = GateOrders { admit, change: Some(Change::Add(voter("c", 1))), ..orders() };
    world.settle(&add).await;
    world.settle(&add).await;
    assert_eq!(world.gate.engine.rules.last().unwrap().voters.len(), 3, "written");
    let narrow = Ackers::AnyOf { k: 1, members: [named("b", 1)].into() };
    assert_eq!(world.gate.engine.sync, narrow, "and not in force: only b may ack it");
}

/// A standby of node `a` that holds rule (1,1), and the order to follow `b` in term 2.
async fn standby() -> (World, GateOrders) {
    let mut world = World::new();
    world.settle(&orders()).await;
    let first = world.gate.engine.rules[0].clone();
    let second = Rule {
        id: RuleId { term: Term::new(2).unwrap(), version: 1 },
        primary: named("b", 1),
        voters: vec![voter("a", 1), voter("b", 1)],
        previous: Some(first.id),
        start: Lsn::from_offset(FAR).into(),
        ..first.clone()
    };
    world.gate.engine.recovers = true;
    let upstream = Upstream {
        node: "b".parse().unwrap(),
        address: ([127, 0, 0, 1], 1).into(),
        member: member(),
        term: second.id.term,
    };
    let follow = FollowOrder { primary: named("b", 1), upstream, chain: Arc::new(vec![first, second]) };
    let orders = GateOrders {
        process: process(2),
        fresh: true,
        member: Some(membership(2)),
        follow: Some(follow),
        ..orders()
    };
    (world, orders)
}

fn follows(world: &World) -> bool {
    matches!(part(world), Part::Follows { .. }) && world.gate.engine.upstream.is_some()
}

#[tokio::test]
async fn a_member_follows_whom_its_log_allows() {
    let (mut world, orders) = standby().await;
    let gate = world.settle(&orders).await;
    assert_eq!(gate, Gate::ReadOnly { term: Term::new(2).unwrap() });
    assert!(follows(&world), "{:?}", part(&world));
}

#[tokio::test]
async fn a_follower_keeps_log_that_is_not_shipped() {
    let (mut world, orders) = standby().await;
    world.settle(&orders).await;
    assert_eq!(world.gate.engine.keeps_from, None, "nothing is shipped anywhere");
    let keeps = |from| GateOrders { keep_log: Some(Lsn::from_offset(from).into()), ..orders.clone() };
    world.settle(&keeps(0)).await;
    assert_eq!(world.gate.engine.keeps_from, Some(Lsn::ZERO.into()));
    world.settle(&keeps(70)).await;
    assert_eq!(world.gate.engine.keeps_from, Some(Lsn::from_offset(70).into()));
    // A base that was restored brings nothing along.
    world.gate.engine.keeps_from = None;
    world.settle(&GateOrders { process: process(3), ..keeps(70) }).await;
    assert_eq!(world.gate.engine.keeps_from, Some(Lsn::from_offset(70).into()));
}

#[tokio::test]
async fn a_follow_that_broke_is_asked_for_again() {
    let (mut world, orders) = standby().await;
    world.gate.engine.breaks_follow = true;
    world.settle(&orders).await;
    assert!(follows(&world), "{:?}", part(&world));
}

#[tokio::test]
async fn a_diverged_member_does_not_follow() {
    let (mut world, orders) = standby().await;
    world.gate.engine.flushed.local = Lsn::from_offset(FAR + 1).into();
    world.settle(&orders).await;
    assert!(matches!(part(&world), Part::Diverged { .. }), "{:?}", part(&world));
    assert_eq!(world.gate.engine.upstream, None);
}

#[tokio::test]
async fn a_server_that_replays_what_may_be_given_up_is_not_recruited() {
    let (mut world, orders) = standby().await;
    let replays = GateOrders { replays: true, ..orders.clone() };
    world.gate.recruit(member(), Term::new(3).unwrap(), &replays).await.unwrap_err();
    world.gate.promote(&member(), Term::new(3).unwrap(), &replays).await.unwrap_err();
    world.gate.recruit(member(), Term::new(3).unwrap(), &orders).await.unwrap();
}

#[tokio::test]
async fn files_are_lent_to_who_is_let_in_and_once_they_tell_of_the_reign() {
    let mut world = with_a_voter().await;
    let borrows = GateOrders { borrow: [named("b", 1), named("x", 1)].into(), ..orders() };
    let lends = |world: &World| {
        let Part::Writes { lends, .. } = part(world) else { panic!("{:?}", part(world)) };
        lends
    };
    world.gate.engine.term = Term::new(2).unwrap();
    world.settle(&borrows).await;
    assert_eq!(world.gate.engine.lends, [named("b", 1)].into(), "x is no member");
    assert_eq!(lends(&world), BTreeSet::new(), "its last checkpoint is of the reign before");
    world.gate.engine.checkpointed = Term::new(2).unwrap();
    world.settle(&borrows).await;
    assert_eq!(lends(&world), [named("b", 1)].into());
    world.settle(&orders()).await;
    assert_eq!((world.gate.engine.lends.clone(), lends(&world)), (BTreeSet::new(), BTreeSet::new()));
}

#[tokio::test]
async fn nobody_is_followed_below_a_recruit() {
    let (mut world, orders) = standby().await;
    world.settle(&orders).await;
    assert!(follows(&world));
    let stands = world.gate.recruit(member(), Term::new(3).unwrap(), &orders).await.unwrap();
    assert_eq!((stands.rules.len(), world.gate.engine.upstream.clone()), (1, None));
    // The order is older than the recruit.
    world.settle(&orders).await;
    assert_eq!(world.gate.engine.upstream, None, "{:?}", part(&world));
    let promised = GateOrders { member: Some(membership(3)), ..orders.clone() };
    world.settle(&promised).await;
    assert_eq!(part(&world), Part::Recruited { term: Term::new(3).unwrap() });
}

#[tokio::test]
async fn another_incarnation_is_not_bound_by_a_recruit() {
    let (mut world, orders) = standby().await;
    world.settle(&orders).await;
    world.gate.recruit(member(), Term::new(3).unwrap(), &orders).await.unwrap();
    world.settle(&orders).await;
    assert_eq!(world.gate.engine.upstream, None);
    // The disk is lost with the promise, and another one comes back with the cluster's log.
    let member = named("a", 2);
    let promise = membership(2).promise.map(|promise| Promise { member: member.clone(), ..promise });
    let again = Membership { member, promise, ..membership(2) };
    world.settle(&GateOrders { process: process(3), member: Some(again), ..orders }).await;
    assert!(follows(&world), "{:?}", part(&world));
}

#[tokio::test]
async fn a_recruit_is_not_answered_by_another_incarnation() {
    let (mut world, orders) = standby().await;
    world.settle(&orders).await;
    // While the recruited member's server was waited for, its disk was replaced, and the new one came up with restored log.
    let again = Membership { member: named("a", 2), ..membership(3) };
    let orders = GateOrders { process: process(3), member: Some(again), follow: None, ..orders };
    world.settle(&orders).await;
    let term = Term::new(3).unwrap();
    let refused = world.gate.recruit(member(), term, &orders).await.unwrap_err();
    assert_eq!(refused.to_string(), "another member's volume is there by now");
    assert!(world.gate.promote(&member(), term, &orders).await.is_err());
    assert!(world.gate.engine.recovers, "and it began no term");
}

#[tokio::test]
async fn a_promise_that_nobody_came_back_for_ends_a_stream_all_the_same() {
    let (mut world, orders) = standby().await;
    world.settle(&orders).await;
    assert!(follows(&world));
    let promised = GateOrders { member: Some(membership(3)), ..orders };
    world.settle(&promised).await;
    assert_eq!(world.gate.engine.upstream, None);
}

#[tokio::test]
async fn a_stream_that_an_earlier_agent_began_goes_on() {
    let (mut world, orders) = standby().await;
    world.gate.engine.upstream = orders.follow.as_ref().map(|order| order.upstream.clone());
    // To be recruited it would have to be asked.
    world.gate.engine.flushed.local = Lsn::from_offset(FAR + 1).into();
    world.settle(&GateOrders { fresh: false, ..orders }).await;
    assert!(follows(&world), "{:?}", part(&world));
}

#[tokio::test]
async fn a_promoted_member_opens_by_a_rule_that_begins_where_it_left_the_chain() {
    let (mut world, orders) = standby().await;
    let term = Term::new(3).unwrap();
    let still = GateOrders { follow: None, member: Some(membership(3)), ..orders };
    world.settle(&still).await;
    let end = world.gate.recruit(member(), term, &still).await.unwrap().position;
    world.gate.promote(&member(), term, &still).await.unwrap();
    world.settle(&still).await;
    assert_eq!(world.gate.engine.rules.len(), 1, "nothing on the volume says that it reigns");
    let reigns = Membership { reign: Some(term), ..membership(3) };
    let gate = world.settle(&GateOrders { member: Some(reigns), ..still }).await;
    assert_eq!(gate, Gate::Open { term });
    let rule = world.gate.engine.rules.last().cloned().unwrap();
    assert_eq!((rule.id.version, rule.start, rule.primary), (1, end, member()));
}

#[tokio::test]
async fn a_reign_without_a_rule_gets_it_with_the_next_one() {
    let (mut world, orders) = standby().await;
    let still = GateOrders { follow: None, member: Some(membership(2)), ..orders };
    world.settle(&still).await;
    let left = world.gate.recruit(member(), Term::new(2).unwrap(), &still).await.unwrap().position;
    world.gate.promote(&member(), Term::new(2).unwrap(), &still).await.unwrap();
    // Its process ends before the rule is written, with log of the new term behind it.
    let engine = &mut world.gate.engine;
    engine.recovers = true;
    engine.flushed.local = Lsn::from_offset(left.ordinal() + 64).into();
    let still = GateOrders { process: process(2), member: Some(membership(5)), ..still };
    world.settle(&still).await;
    let term = Term::new(5).unwrap();
    let end = world.gate.recruit(member(), term, &still).await.unwrap().position;
    world.gate.promote(&member(), term, &still).await.unwrap();
    let reigns = Membership { reign: Some(term), ..membership(5) };
    assert_eq!(world.settle(&GateOrders { member: Some(reigns), ..still }).await, Gate::Open { term });
    let begun = world.gate.engine.rules.iter().map(|rule| (rule.id.term.number(), rule.start.clone()));
    assert_eq!(begun.collect::<Vec<_>>(), [(1, Lsn::ZERO.into()), (2, left), (5, end)]);
}

#[tokio::test]
async fn a_change_that_was_not_acked_before_a_restart_stays_in_sight() {
    let mut world = with_a_voter().await;
    attached(&mut world, &named("c", 1), FAR);
    let admit: BTreeSet<_> = [named("c", 1)].into();
    let add = GateOrders { admit: admit.clone(), change: Some(Change::Add(voter("c", 1))), ..orders() };
    world.settle(&add).await;
    world.settle(&add).await;
    let remove = GateOrders { change: Some(Change::Remove(named("b", 1))), ..orders() };
    world.gate.engine.flushed.standbys.insert(named("c", 1), Lsn::from_offset(1).into());
    world.settle(&remove).await;
    // Restarted before c acks it.
    world.gate.engine.crash();
    world.gate.engine.running = true;
    attached(&mut world, &named("c", 1), 1);
    let again = GateOrders { process: process(2), ..orders() };
    world.settle(&again).await;
    let voters = |world: &World, newest: usize| {
        let said = world.gate.engine.rules.iter().rev().map(|rule| rule.voters.len());
        said.take(newest).collect::<Vec<_>>()
    };
    assert_eq!(
        voters(&world, 3),
        [2, 3, 2],
        "the change, what may be in force without it, and the change as it was"
    );
    // Once that is acked the newest two say the same.
    world.gate.engine.flushed.standbys.insert(named("c", 1), Lsn::from_offset(FAR).into());
    world.settle(&again).await;
    assert_eq!(world.settle(&again).await, OPEN);
    assert_eq!(voters(&world, 2), [2, 2]);
}
