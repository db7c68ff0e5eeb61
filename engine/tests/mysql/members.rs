//! Who may attach, and whose acks count.

use std::collections::BTreeSet;

use holdfast_engine::Ackers;
use holdfast_engine::mysql::channel::ChannelError;
use holdfast_engine::mysql::identity::source_of;
use holdfast_engine::mysql::members::drop_login;
use holdfast_model::Member;

use crate::cluster::{CLOSED, Cluster, STEP};
use crate::server::{eventually, waiters};

#[tokio::test]
async fn a_member_needs_its_nodes_certificate() {
    let mut cluster = Cluster::new(3).await;
    let members = cluster.members();
    let (primary, followers) = cluster.nodes.split_first_mut().unwrap();
    primary.apply(&CLOSED, &Ackers::Alone, &members[1..2].iter().cloned().collect()).await;
    primary.let_in(&members[1..2]).await;
    followers[0].follow(primary, false).await.unwrap();
    let streams = primary.session.streams().await.unwrap();
    assert_eq!(streams.keys().copied().collect::<Vec<_>>(), [members[1].incarnation]);

    // The other node, with its own certificate, under that member's name: it is a thief of a name.
    followers[0].server.kill();
    let upstream = primary.upstream_for(&members[1], 1);
    let thief = &mut followers[1];
    let tls = thief.server.tls.clone();
    let short = std::time::Duration::from_secs(3);
    let refused = holdfast_engine::mysql::channel::follow(
        &mut thief.session,
        tls.as_ref(),
        &upstream,
        Some(source_of(&members[0])),
        false,
        short,
    )
    .await;
    let Err(ChannelError::NotReceiving { said, .. }) = refused else { panic!("{refused:?}") };
    assert!(said.contains("Access denied"), "{said}");
}

/// M9: the server counts whoever says that it acks.
#[tokio::test]
async fn who_acks_without_being_asked_is_cut_off() {
    let mut cluster = Cluster::running(3).await;
    let members = cluster.members();
    let only: BTreeSet<Member> = [members[1].clone()].into();
    let sync = Ackers::AnyOf { k: 1, members: only.clone() };
    let everybody = members[1..].iter().cloned().collect();
    let primary = &mut cluster.nodes[0];
    primary.apply(&crate::cluster::OPEN, &sync, &everybody).await;
    let streams = primary.session.streams().await.unwrap();
    assert!(streams.values().all(|stream| stream.acks), "{streams:?}");

    // The trap: with its only acker gone, a commit is answered by the other one's ack.
    cluster.nodes[1].server.kill();
    cluster.nodes[0].client().await.write(1).await.unwrap();

    let primary = &mut cluster.nodes[0];
    let ended = primary.session.end_impostors(&only).await.unwrap();
    assert_eq!(ended, [members[2].incarnation].into());
    // Until it asks again, and is told not to.
    let (primary, followers) = cluster.nodes.split_first_mut().unwrap();
    followers[1].follow(primary, false).await.unwrap();
    eventually("it follows and does not ack", async || {
        let streams = primary.session.streams().await.unwrap();
        streams.get(&members[2].incarnation).is_some_and(|stream| !stream.acks)
    })
    .await;
    assert_eq!(primary.session.end_impostors(&only).await.unwrap(), BTreeSet::new());
    let mut waiting = primary.server.begin_write(2).await;
    waiters(&mut primary.session, 1).await;
    assert!(!waiting.is_answered());
}

#[tokio::test]
async fn an_expelled_member_cannot_come_back() {
    let mut cluster = Cluster::running(3).await;
    let members = cluster.members();
    let primary = &mut cluster.nodes[0];
    let left: BTreeSet<Member> = [members[1].clone()].into();
    primary.apply(&CLOSED, &Ackers::AnyOf { k: 1, members: left.clone() }, &left).await;
    eventually("its stream is gone", async || {
        drop_login(&primary.server.layout, &members[2], STEP).await.unwrap()
    })
    .await;
    let said = async |cluster: &mut Cluster| {
        let receivers = cluster.nodes[2].session.receivers().await.unwrap();
        receivers.iter().any(|receiver| receiver.said.contains("Access denied"))
    };
    eventually("it is refused", async || said(&mut cluster).await).await;
    let streams = cluster.nodes[0].session.streams().await.unwrap();
    assert_eq!(streams.keys().copied().collect::<Vec<_>>(), [members[1].incarnation]);
}
