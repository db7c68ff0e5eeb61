//! The gate loop over a simulated engine.

mod members;

use std::collections::BTreeSet;

use async_trait::async_trait;
use holdfast_engine::Ackers;
use holdfast_engine::engine::Cause;
use holdfast_engine::fake::Fake;
use holdfast_engine::postgres::recovery::RecoveryFile;
use holdfast_engine::postgres::standby::Hands;
use holdfast_model::status::{Gate, GateClosed, Weakened};
use holdfast_model::{ClusterId, Incarnation, Lsn, Member, Position, Promise, Rule, Term, Voter, VoterKind};

use super::*;
use crate::child::process::ProcessId;

fn member() -> Member {
    Member { node: "a".parse().unwrap(), incarnation: Incarnation::from_random(1) }
}

fn membership(term: u32) -> Membership {
    let cluster = ClusterId::new("c".parse().unwrap(), 7);
    let promise = Promise { cluster, member: member(), max_term: Term::new(term).unwrap(), attempt: 1 };
    let zone = "z".parse().unwrap();
    Membership { member: member(), zone, promise: Some(promise), opening: None, reign: None }
}

fn process(pid: i32) -> Option<ProcessId> {
    Some(ProcessId { pid, start_time: 1 })
}

fn orders() -> GateOrders {
    GateOrders {
        process: process(1),
        member: Some(membership(1)),
        disk_healthy: true,
        ..GateOrders::default()
    }
}

/// A simulated engine has no processes and no files.
struct NoHands;

#[async_trait]
impl Hands for NoHands {
    async fn receivers(&self) -> Result<u32, Cause> {
        Ok(0)
    }

    async fn end_receivers(&self) -> Result<u32, Cause> {
        Ok(0)
    }

    async fn ensure_files(&self, _files: &[RecoveryFile]) -> Result<(), Cause> {
        Ok(())
    }
}

fn no_hands() -> HandsOf {
    HandsOf::new(|_process| Box::new(NoHands))
}

struct World {
    gate: GateLoop<Fake>,
    report: watch::Receiver<GateReport>,
    _orders: watch::Sender<GateOrders>,
}

impl World {
    fn new() -> Self {
        Self::of(Fake { running: true, ..Fake::new() })
    }

    /// An agent that adopts `engine`.
    fn of(engine: Fake) -> Self {
        let (send_orders, receive_orders) = watch::channel(GateOrders::default());
        let (send, report) = watch::channel(GateReport::unknown());
        let (_handle, gate) = GateLoop::new(engine, no_hands(), receive_orders, send);
        Self { gate, report, _orders: send_orders }
    }

    /// Enough turns to settle.
    async fn settle(&mut self, orders: &GateOrders) -> Gate {
        for _ in 0..4 {
            self.gate.turn(orders).await;
        }
        self.report.borrow().gate.clone()
    }
}

const OPEN: Gate = Gate::Open { term: Term::FIRST };

#[tokio::test]
async fn a_marker_is_written_once_a_start_and_the_gate_opens_when_it_is_acked() {
    let mut world = World::new();
    assert_eq!(world.settle(&orders()).await, OPEN);
    assert_eq!(world.gate.engine.rules.len(), 1);
    assert_eq!(world.settle(&orders()).await, OPEN);
    assert_eq!(world.gate.engine.rules.len(), 1);
    assert_eq!(world.gate.engine.gate, OPEN);
}

#[tokio::test]
async fn a_new_process_starts_closed_again() {
    let mut world = World::new();
    world.settle(&orders()).await;
    let restarted = GateOrders { process: process(2), ..orders() };
    world.gate.engine.answers = false;
    let starting = world.settle(&restarted).await;
    assert!(matches!(starting, Gate::Closed { .. }), "{starting}");
    world.gate.engine.answers = true;
    assert_eq!(world.settle(&restarted).await, OPEN);
    let versions: Vec<u32> = world.gate.engine.rules.iter().map(|rule| rule.id.version).collect();
    assert_eq!(versions, [1, 2], "resumed in place under the next version");
}

#[tokio::test]
async fn an_adopted_engine_stays_open_while_its_volume_is_looked_up() {
    let mut world = World::new();
    world.settle(&orders()).await;
    world.gate.engine.clients = 3;
    let (_send, receive) = watch::channel(GateOrders::default());
    let (_handle, next_agent) = GateLoop::new(world.gate.engine, no_hands(), receive, world.gate.report);
    let mut world = World { gate: next_agent, ..world };
    let not_found_yet = GateOrders { member: None, disk_healthy: false, ..orders() };
    assert!(matches!(world.settle(&not_found_yet).await, Gate::Closed { .. }), "nothing is known yet");
    assert_eq!(world.settle(&orders()).await, OPEN);
    assert_eq!((world.gate.engine.gate.clone(), world.gate.engine.clients), (OPEN, 3));
}

#[tokio::test]
async fn an_unhealthy_disk_closes_an_open_gate() {
    let mut world = World::new();
    world.settle(&orders()).await;
    world.gate.engine.clients = 3;
    let sick = GateOrders { disk_healthy: false, ..orders() };
    assert_eq!(world.settle(&sick).await, Gate::Closed { why: GateClosed::DiskUnsafe });
    assert!(matches!(world.gate.engine.gate, Gate::Closed { .. }));
    assert_eq!(world.gate.engine.clients, 0);
}

#[tokio::test]
async fn an_unsafe_disk_is_told_before_the_engine_is_asked() {
    let mut world = World::new();
    world.settle(&orders()).await;
    world.gate.engine.hangs = true;
    let sick = GateOrders { disk_healthy: false, ..orders() };
    let World { mut gate, mut report, .. } = world;
    let unsafe_disk = Gate::Closed { why: GateClosed::DiskUnsafe };
    tokio::select! {
        _ = gate.turn(&sick) => panic!("the engine hangs, and so does the turn"),
        told = report.wait_for(|report| report.gate == unsafe_disk) => assert!(told.is_ok()),
    }
}

#[tokio::test]
async fn an_adopted_engine_keeps_its_clients() {
    let mut world = World::new();
    world.gate.engine.gate = OPEN;
    world.gate.engine.clients = 3;
    let adopted = GateOrders { member: None, disk_healthy: false, ..orders() };
    assert_eq!(world.settle(&adopted).await, Gate::Closed { why: GateClosed::Starting });
    assert_eq!((world.gate.engine.gate.clone(), world.gate.engine.clients), (OPEN, 3));
    assert_eq!(world.settle(&orders()).await, OPEN);
    assert_eq!(world.gate.engine.clients, 3);
}

#[tokio::test]
async fn nothing_is_written_under_a_higher_promise() {
    let mut world = World::new();
    world.settle(&orders()).await;
    let promised = GateOrders { process: process(2), member: Some(membership(2)), ..orders() };
    let gate = world.settle(&promised).await;
    assert_eq!(gate, Gate::Closed { why: GateClosed::PromisedHigher });
    assert_eq!(world.gate.engine.rules.len(), 1);
}

/// The newer of two rules, which nobody was seen to ack, names another acker.
fn widened(only: &Rule) -> [Rule; 2] {
    let named = |node: &str, bits| Voter {
        member: Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(bits) },
        zone: node.parse().unwrap(),
        kind: VoterKind::Full,
    };
    let first = Rule { k: 1, voters: vec![named("a", 1), named("b", 2)], ..only.clone() };
    let id = holdfast_model::RuleId { version: 2, ..first.id };
    let voters = [&first.voters[..], &[named("c", 3)]].concat();
    let second = Rule { id, previous: Some(first.id), voters, ..first.clone() };
    [first, second]
}

#[tokio::test]
async fn an_adopted_engine_that_may_not_go_on_counts_nobody() {
    let mut world = World::new();
    world.settle(&orders()).await;
    world.gate.engine.rules = widened(&world.gate.engine.rules[0]).to_vec();
    let mut next_agent = World::of(world.gate.engine);
    // Recruited while no agent ran: whoever waits for acks under the rule that was being changed has to go on waiting.
    let recruited = GateOrders { member: Some(membership(2)), ..orders() };
    assert_eq!(next_agent.settle(&recruited).await, Gate::Closed { why: GateClosed::PromisedHigher });
    assert_eq!(next_agent.gate.engine.sync, Ackers::Nobody);
}

#[tokio::test]
async fn a_resumed_marker_must_satisfy_every_rule_that_may_be_open() {
    let mut world = World::new();
    world.settle(&orders()).await;
    let rules = widened(&world.gate.engine.rules[0]);
    world.gate.engine.rules = rules.to_vec();
    let [_, second] = rules;
    let restarted = GateOrders { process: process(2), ..orders() };
    world.settle(&restarted).await;
    let far = Position::from(Lsn::from_offset(1 << 20));
    world.gate.engine.flushed.standbys.insert(second.voters[2].member.clone(), far.clone());
    let waiting = world.settle(&restarted).await;
    assert_eq!(waiting, Gate::Closed { why: GateClosed::MarkerNotAcked });
    world.gate.engine.flushed.standbys.insert(second.voters[1].member.clone(), far);
    assert_eq!(world.settle(&restarted).await, OPEN);
}

#[tokio::test]
async fn a_refound_cluster_opens_with_its_reserved_rule() {
    let mut world = World::new();
    world.settle(&orders()).await;
    let old = world.gate.engine.rules[0].clone();
    let term = Term::new(2).unwrap();
    world.gate.engine.term = term;
    let mut fresh = membership(2);
    let opening = Rule {
        id: holdfast_model::RuleId { term, version: 1 },
        previous: Some(old.id),
        start: Lsn::from_offset(64).into(),
        ..old
    };
    fresh.opening = Some(opening.clone());
    let refound = GateOrders { process: process(2), member: Some(fresh), ..orders() };
    assert_eq!(world.settle(&refound).await, Gate::Open { term });
    assert_eq!(world.gate.engine.rules.last(), Some(&opening));
}

#[tokio::test(start_paused = true)]
async fn what_weakens_the_promise_is_told_and_taken_back() {
    let mut world = World::new();
    world.settle(&orders()).await;
    let weakened = Weakened {
        setting: "synchronous_commit".to_owned(),
        value: "off".to_owned(),
        role: Some("app".to_owned()),
        database: None,
    };
    world.gate.engine.weakened.insert(weakened.clone());
    world.settle(&orders()).await;
    assert!(world.report.borrow().weakened.is_empty(), "not at each turn");
    tokio::time::advance(AUDIT).await;
    world.settle(&orders()).await;
    assert_eq!(world.report.borrow().weakened, BTreeSet::from([weakened]));
    world.gate.engine.weakened.clear();
    tokio::time::advance(AUDIT).await;
    world.settle(&orders()).await;
    assert!(world.report.borrow().weakened.is_empty());
}

#[tokio::test]
async fn an_engine_that_stops_answering_is_reported_and_a_hold_is_obeyed_once_it_answers() {
    let mut world = World::new();
    world.settle(&orders()).await;
    world.gate.engine.answers = false;
    let held = GateOrders { hold: Some(GateClosed::Stopping), ..orders() };
    world.settle(&held).await;
    assert!(world.report.borrow().failing.is_some());
    world.gate.engine.answers = true;
    assert_eq!(world.settle(&held).await, Gate::Closed { why: GateClosed::Stopping });
    assert!(matches!(world.gate.engine.gate, Gate::Closed { .. }));
}
