//! Who gets in, and what they are told.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::{CLOSED, Cluster, OPEN, STEP};
use crate::server::{Server, eventually, waiters};
use holdfast_engine::Ackers;
use holdfast_engine::mysql::argv::Start;
use holdfast_engine::mysql::gate::{self, end_clients, lets_in};
use nix::sys::signal::Signal;

/// Commits wait for an ack that nobody gives.
fn one_ack() -> Ackers {
    Ackers::AnyOf { k: 1, members: BTreeSet::new() }
}

#[tokio::test]
async fn a_closed_gate_lets_nobody_in_and_does_not_wait_for_acks() {
    let mut cluster = Cluster::new(1).await;
    let node = &mut cluster.nodes[0];
    assert!(!lets_in(&node.server.layout, STEP).await.unwrap(), "a server starts closed");
    node.apply(&CLOSED, &Ackers::Alone, &BTreeSet::new()).await;
    node.server.prepare_clients(&mut node.session).await;
    node.apply(&OPEN, &one_ack(), &BTreeSet::new()).await;
    let mut waiting = node.server.begin_write(1).await;
    waiters(&mut node.session, 1).await;

    // What is not the gate: a read-only server waits behind whoever waits for acks (Vitess 17288).
    let stuck = node.session.run("make it read-only", "SET GLOBAL super_read_only = ON").await.unwrap_err();
    assert_eq!(stuck.code(), Some(1205), "{stuck:?}");

    node.apply(&CLOSED, &one_ack(), &BTreeSet::new()).await;
    let refused = node.server.client().await;
    let refused = match refused {
        Ok(mut client) => client.ids().await.map(|_| ()),
        Err(err) => Err(err),
    };
    assert!(refused.is_err(), "a client got in");
    assert!(!waiting.is_answered());
}

#[tokio::test]
async fn whoever_waits_for_an_ack_and_is_ended_is_told_nothing() {
    let mut cluster = Cluster::new(1).await;
    let node = &mut cluster.nodes[0];
    node.apply(&CLOSED, &Ackers::Alone, &BTreeSet::new()).await;
    node.server.prepare_clients(&mut node.session).await;
    node.apply(&OPEN, &one_ack(), &BTreeSet::new()).await;
    let mut reader = node.client().await;
    let mut waiting = node.server.begin_write(1).await;
    waiters(&mut node.session, 1).await;
    assert!(reader.ids().await.unwrap().is_empty(), "nobody sees what is not acked (M3)");

    node.apply(&CLOSED, &one_ack(), &BTreeSet::new()).await;
    assert_eq!(end_clients(&mut node.session).await.unwrap(), 2);
    assert!(waiting.answer().await.is_err(), "a write that was not acked was answered");
    assert_eq!(node.session.waiters().await.unwrap(), 1, "it waits on");
    let executed = node.session.executed().await.unwrap();
    assert!(!executed.is_empty());
}

/// M2: a graceful stop releases whoever waits.
#[tokio::test]
async fn a_primary_with_waiters_is_never_asked_to_end() {
    let mut cluster = Cluster::new(1).await;
    let node = &mut cluster.nodes[0];
    node.apply(&CLOSED, &Ackers::Alone, &BTreeSet::new()).await;
    node.server.prepare_clients(&mut node.session).await;
    node.apply(&OPEN, &one_ack(), &BTreeSet::new()).await;
    let mut waiting = node.server.begin_write(1).await;
    waiters(&mut node.session, 1).await;

    // The way that the agent takes: at once.
    node.server.kill();
    assert!(waiting.answer().await.is_err());

    // And what it is never to do.
    node.restart(Start::Primary).await;
    node.apply(&OPEN, &one_ack(), &BTreeSet::new()).await;
    let mut waiting = node.server.begin_write(2).await;
    waiters(&mut node.session, 1).await;
    node.server.signal(Signal::SIGTERM);
    node.server.ended().await;
    drop(waiting.answer().await);
    node.restart(Start::Primary).await;
    node.apply(&OPEN, &Ackers::Alone, &BTreeSet::new()).await;
    // M4: what was in the binlog is committed by the recovery, acked or not.
    assert_eq!(node.client().await.ids().await.unwrap(), [1, 2]);
}

/// M1: a timeout releases every waiter as if it were acked.
#[tokio::test]
async fn a_commit_waits_for_ever() {
    let mut cluster = Cluster::new(1).await;
    let node = &mut cluster.nodes[0];
    node.apply(&CLOSED, &Ackers::Alone, &BTreeSet::new()).await;
    node.server.prepare_clients(&mut node.session).await;
    node.apply(&OPEN, &one_ack(), &BTreeSet::new()).await;
    node.session.run("fall into the trap", "SET GLOBAL rpl_semi_sync_source_timeout = 100").await.unwrap();
    let mut waiting = node.server.begin_write(1).await;
    waiting.answer().await.expect("it was answered, and nobody has it");

    let sync = one_ack();
    let refused =
        gate::apply(&mut node.session, &node.server.layout, &OPEN, &sync, &BTreeSet::new(), STEP).await;
    assert!(matches!(refused, Err(gate::GateError::Setting { name: "rpl_semi_sync_source_timeout", .. })));
}

#[tokio::test]
async fn an_open_gate_waits_for_the_acks_that_it_was_told() {
    let mut cluster = Cluster::running(2).await;
    let mut client = cluster.nodes[0].client().await;
    client.write(1).await.unwrap();
    // Its only acker goes.
    cluster.nodes[1].server.kill();
    let mut waiting = cluster.nodes[0].server.begin_write(2).await;
    waiters(&mut cluster.nodes[0].session, 1).await;
    assert_eq!(client.ids().await.unwrap(), [1]);
    cluster.nodes[1].restart(Start::Standby).await;
    let (primary, followers) = cluster.nodes.split_first_mut().unwrap();
    followers[0].follow(primary, true).await.unwrap();
    waiting.answer().await.unwrap();
}

/// What somebody persisted by SQL is not read at the next start.
#[tokio::test]
async fn a_persisted_setting_never_opens_a_server() {
    let mut cluster = Cluster::new(1).await;
    let node = &mut cluster.nodes[0];
    for name in ["super_read_only = OFF", "rpl_semi_sync_replica_enabled = ON", "init_connect = ''"] {
        node.session.run("persist a setting", &format!("SET PERSIST {name}")).await.unwrap();
    }
    node.server.kill();
    node.restart(Start::Standby).await;
    let status = node.session.status().await.unwrap();
    assert!(status.read_only);
    assert!(!node.session.acks().await.unwrap());
    assert!(!lets_in(&node.server.layout, STEP).await.unwrap());
}

#[tokio::test]
async fn a_standby_starts_closed_and_read_only() {
    let mut server = Server::init("n1", 1);
    let mut session = server.start(Start::Standby).await;
    let err = session.run("write", "CREATE DATABASE no").await.unwrap_err();
    assert_eq!(err.code(), Some(1290), "{err:?}");
    eventually("it is seen closed", async || !lets_in(&server.layout, Duration::from_secs(5)).await.unwrap())
        .await;
}
