//! Recruiting, following, promoting.

use std::collections::BTreeSet;

use holdfast_engine::Ackers;
use holdfast_engine::mysql::argv::Start;
use holdfast_engine::mysql::channel::{self, ChannelError, promote, recruit};
use holdfast_engine::mysql::identity::source_of;

use crate::cluster::{CLOSED, Cluster, OPEN, STEP, caught_up, rule};
use crate::server::{eventually, markers, waiters};

/// T14: the receiver has stopped, so nobody acks.
#[tokio::test]
async fn a_recruited_member_acks_nothing_more() {
    let mut cluster = Cluster::running(2).await;
    let mut client = cluster.nodes[0].client().await;
    client.write(1).await.unwrap();
    let held = recruit(&mut cluster.nodes[1].session, STEP).await.unwrap();
    assert_eq!(held, cluster.nodes[0].session.executed().await.unwrap());
    assert_eq!(markers().last_rule(&held).unwrap().version, 1);
    let _waiting = cluster.nodes[0].server.begin_write(2).await;
    waiters(&mut cluster.nodes[0].session, 1).await;
    assert_eq!(client.ids().await.unwrap(), [1]);
    assert_eq!(recruit(&mut cluster.nodes[1].session, STEP).await.unwrap(), held, "recruited again");

    // It stays so when its server starts again.
    cluster.nodes[1].server.kill();
    cluster.nodes[1].restart(Start::Standby).await;
    assert_eq!(recruit(&mut cluster.nodes[1].session, STEP).await.unwrap(), held);
    assert_eq!(cluster.nodes[0].session.waiters().await.unwrap(), 1);
}

/// M6 and Vitess 21092: received log that cannot be applied may be the only copy of acked commits.
#[tokio::test]
async fn a_member_that_cannot_apply_is_not_recruited_and_keeps_its_relay_log() {
    let mut cluster = Cluster::running(2).await;
    let mut client = cluster.nodes[0].client().await;
    client.write(1).await.unwrap();
    let (primary, followers) = cluster.nodes.split_first_mut().unwrap();
    let follower = &mut followers[0];
    caught_up(follower, primary).await;
    // A row is in the way of the next one.
    for sql in [
        "SET GLOBAL super_read_only = OFF",
        "SET SESSION sql_log_bin = OFF",
        "INSERT INTO app.acked VALUES (2)",
        "SET SESSION sql_log_bin = ON",
        "SET GLOBAL super_read_only = ON",
    ] {
        follower.session.run("put a row in the way", sql).await.unwrap();
    }
    for id in 2..104 {
        client.write(id).await.unwrap();
    }
    let acked = primary.session.executed().await.unwrap();
    let refused = recruit(&mut follower.session, STEP).await;
    assert!(matches!(refused, Err(ChannelError::Applier { .. })), "{refused:?}");
    assert_eq!(follower.session.status().await.unwrap().held(), acked, "it holds what it acked");

    // Nothing that we do throws it away: being told to follow again, or elsewhere, or a restart.
    let again = follower.follow(primary, true).await;
    assert!(again.is_ok(), "{again:?}");
    let elsewhere = primary.upstream_for(&follower.server.member, 2);
    let elsewhere = holdfast_engine::links::Upstream { address: "127.0.0.1:1".parse().unwrap(), ..elsewhere };
    let tls = follower.server.tls.clone();
    let to = source_of(&primary.member());
    let refused =
        channel::follow(&mut follower.session, tls.as_ref(), &elsewhere, Some(to), true, STEP).await;
    assert!(matches!(refused, Err(ChannelError::Applier { .. })), "{refused:?}");
    follower.server.kill();
    follower.restart(Start::Standby).await;
    assert_eq!(follower.session.status().await.unwrap().held(), acked);

    // Repaired, it is recruited and has them all.
    for sql in [
        "SET GLOBAL super_read_only = OFF",
        "SET SESSION sql_log_bin = OFF",
        "DELETE FROM app.acked WHERE id = 2",
        "SET SESSION sql_log_bin = ON",
        "SET GLOBAL super_read_only = ON",
    ] {
        follower.session.run("repair", sql).await.unwrap();
    }
    assert_eq!(recruit(&mut follower.session, STEP).await.unwrap(), acked);
    let count: u64 = follower.session.row("count", "SELECT count(*) FROM app.acked").await.unwrap();
    assert_eq!(count, 103);
}

/// The trap itself, by hand: what the server does when it is told to receive from elsewhere.
#[tokio::test]
async fn pointing_a_channel_elsewhere_throws_received_log_away() {
    let mut cluster = Cluster::running(2).await;
    let (primary, followers) = cluster.nodes.split_first_mut().unwrap();
    let follower = &mut followers[0];
    caught_up(follower, primary).await;
    follower.session.run("stop the applier", "STOP REPLICA SQL_THREAD").await.unwrap();
    primary.client().await.write(1).await.unwrap();
    let acked = primary.session.executed().await.unwrap();
    assert_eq!(follower.session.status().await.unwrap().held(), acked);
    follower.session.run("stop", "STOP REPLICA").await.unwrap();
    follower.session.run("fall in", "CHANGE REPLICATION SOURCE TO SOURCE_PORT = 1").await.unwrap();
    let left = follower.session.status().await.unwrap().held();
    assert_eq!(acked.minus(&left).count(), 1, "the only other copy of an acked commit is gone");
}

/// T13: the newest rule of a log is known before it is applied.
#[tokio::test]
async fn a_rule_is_told_by_what_was_only_received() {
    let mut cluster = Cluster::running(2).await;
    let members = cluster.members();
    let (primary, followers) = cluster.nodes.split_first_mut().unwrap();
    let follower = &mut followers[0];
    caught_up(follower, primary).await;
    follower.session.run("stop the applier", "STOP REPLICA SQL_THREAD").await.unwrap();
    let second = rule(1, 2, 1, &members);
    let marker = primary.write_rule(&second).await.unwrap();
    eventually("the marker is received, and acked by that", async || {
        primary.session.executed().await.unwrap() >= marker
    })
    .await;
    let status = follower.session.status().await.unwrap();
    assert_eq!(markers().last_rule(&status.held()), Some(second.id));
    assert_eq!(markers().last_rule(&status.executed).unwrap().version, 1);
    assert_eq!(follower.session.newest_rules(1).await.unwrap()[0].id.version, 1);
}

#[tokio::test]
async fn following_the_same_primary_again_says_nothing_to_the_server() {
    let mut cluster = Cluster::running(2).await;
    let (primary, followers) = cluster.nodes.split_first_mut().unwrap();
    let follower = &mut followers[0];
    let before = primary.session.streams().await.unwrap();
    follower.follow(primary, true).await.unwrap();
    assert_eq!(primary.session.streams().await.unwrap(), before, "the stream is the same");
}

#[tokio::test]
async fn a_promoted_member_writes_and_the_old_primary_never_acks_again() {
    let mut cluster = Cluster::running(3).await;
    let members = cluster.members();
    cluster.nodes[0].client().await.write(1).await.unwrap();
    cluster.nodes[0].server.kill();
    for node in &mut cluster.nodes[1..] {
        recruit(&mut node.session, STEP).await.unwrap();
    }
    let [_, chosen, other] = &mut cluster.nodes[..] else { panic!("three nodes") };
    let start = promote(&mut chosen.session, STEP).await.unwrap();
    assert_eq!(promote(&mut chosen.session, STEP).await.unwrap(), start, "promoted again");
    assert!(!chosen.session.status().await.unwrap().read_only);

    let next = rule(2, 1, 1, &[members[1].clone(), members[0].clone(), members[2].clone()]);
    let others: BTreeSet<_> = [members[0].clone(), members[2].clone()].into();
    let sync = Ackers::AnyOf { k: 1, members: others.clone() };
    chosen.apply(&CLOSED, &sync, &others).await;
    chosen.let_in(&[members[0].clone(), members[2].clone()]).await;
    let marker = chosen.write_rule(&next).await.unwrap();
    assert!(marker > start && !chosen.session.executed().await.unwrap().contains(markers().gtid(next.id)));
    other.follow(chosen, true).await.unwrap();
    eventually("the marker is seen acked", async || {
        let held = other.session.status().await.unwrap().held();
        held >= marker && chosen.session.executed().await.unwrap() >= marker
    })
    .await;
    chosen.apply(&OPEN, &sync, &others).await;
    let mut client = chosen.client().await;
    client.write(2).await.unwrap();
    assert_eq!(client.ids().await.unwrap(), [1, 2]);
}

/// M4: an ex-primary's recovery commits what nobody acked.
#[tokio::test]
async fn whoever_holds_what_the_primary_does_not_is_seen_by_its_set() {
    let mut cluster = Cluster::running(3).await;
    cluster.nodes[0].client().await.write(1).await.unwrap();
    for node in &mut cluster.nodes[1..] {
        recruit(&mut node.session, STEP).await.unwrap();
    }
    let mut waiting = cluster.nodes[0].server.begin_write(2).await;
    waiters(&mut cluster.nodes[0].session, 1).await;
    cluster.nodes[0].server.kill();
    assert!(waiting.answer().await.is_err());
    let start = promote(&mut cluster.nodes[1].session, STEP).await.unwrap();
    cluster.nodes[0].restart(Start::Standby).await;
    let tail = cluster.nodes[0].session.status().await.unwrap().held();
    assert_eq!(tail.minus(&start).count(), 1, "the recovery committed it");
    assert!(tail > start);
}
