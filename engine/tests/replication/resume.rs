//! A primary whose engine ended goes on in place, or does not: P2, and what else a plain start does.

use holdfast_engine::Ackers;
use holdfast_engine::postgres::session::status::LogRole;
use holdfast_engine::postgres::standby::STANDBY_SIGNAL;
use holdfast_model::{ClusterId, Lsn, Member, Promise};
use holdfast_replication::change;
use holdfast_replication::quorum::{AckQuorum, open_rules};
use holdfast_replication::resume::{Flushing, NotResumed, may_resume};
use nix::sys::signal::Signal;
use test_case::test_case;

use crate::cluster::{Cluster, WAIT, term};
use crate::support::{CLOSED, eventually};

/// What `member` has promised: nothing below term `number`.
fn promise(member: &Member, number: u32) -> Promise {
    let cluster = ClusterId::new("orders".parse().unwrap(), 1);
    Promise { cluster, member: member.clone(), max_term: term(number), attempt: 1 }
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_crashed_primary_goes_on_in_place_and_shows_nothing_before_its_marker_is_acked(major: u32) {
    let mut cluster = Cluster::start(major, 1).await;
    let member = cluster.nodes[0].member.clone();
    cluster.node(1).quit().await;
    let session = cluster.node(0).session().await;
    let writer = cluster.sql(0).await;
    let commit = writer.sql.batch_execute("INSERT INTO public.t VALUES (1)");
    let crash = async {
        eventually("the commit waits", async || session.waiters().await.unwrap() == 1).await;
        cluster.nodes[0].server.kill();
    };
    let (answer, ()) = tokio::join!(commit, crash);
    assert!(answer.is_err(), "a commit that nobody acked was answered");
    cluster.node(0).server.ended().await;

    // The list is in the file before the start, the gate is closed.
    let newest = cluster.rule(1, 1, 0, &Lsn::ZERO.into());
    cluster.nodes[0].server.install_with(&CLOSED, &Ackers::of(&newest));
    cluster.node(0).server.spawn();
    let mut session = cluster.node(0).session().await;
    let rules = session.newest_rules(2).await.unwrap();
    assert_eq!(rules, [newest]);
    may_resume(&promise(&member, 1), &rules[0], &member, Flushing::Strong).unwrap();
    let status = session.status().await.unwrap();
    assert!(!status.in_recovery());
    assert_eq!(status.timeline, term(1), "crash recovery begins no timeline");
    // The trap (P2): nobody acked it, and whoever gets in sees it.
    assert_eq!(cluster.nodes[0].rows().await, [1]);

    // Ours lets nobody in before a marker behind it is acked by whoever either rule asks for.
    let resumed = change::resumed(&rules[0], status.flushed().into()).unwrap();
    let quorum = AckQuorum::of_open(&resumed, open_rules(&rules));
    let marker = session.write_rule(&resumed).await.unwrap();
    let acked = async || session.flushed().await.unwrap().holds(&quorum, &marker);
    assert!(!acked().await, "acked by nobody");
    drop(cluster.node(1).start().await);
    eventually("the marker is acked", acked).await;
    eventually("so the row is held elsewhere", async || cluster.nodes[1].rows().await == [1]).await;
    cluster.sql(0).await.sql.batch_execute("INSERT INTO public.t VALUES (2)").await.unwrap();
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_primary_that_may_not_resume_starts_as_a_standby_and_follows(major: u32) {
    let mut cluster = Cluster::start(major, 1).await;
    let member = cluster.nodes[0].member.clone();
    cluster.sql(0).await.sql.batch_execute("INSERT INTO public.t VALUES (1)").await.unwrap();
    // It ends when its follower has everything, so that nothing of its own lies beyond the fork.
    cluster.nodes[0].server.signal(Signal::SIGINT);
    cluster.node(0).server.ended().await;
    let newest = cluster.rule(1, 1, 0, &Lsn::ZERO.into());
    let against = may_resume(&promise(&member, 3), &newest, &member, Flushing::Strong).unwrap_err();
    assert!(matches!(&against[..], [NotResumed::Promised { .. }]), "{against:?}");
    cluster.node(1).recruit(WAIT).await.unwrap();
    cluster.reign(1, 3).await;

    // Ours.
    cluster.nodes[0].signal_standby();
    drop(cluster.node(0).start().await);
    assert_eq!(cluster.follow(1, 0).await.term, term(3));
    cluster.sql(1).await.sql.batch_execute("INSERT INTO public.t VALUES (2)").await.unwrap();
    eventually("it has the new term's row", async || cluster.nodes[0].rows().await == [1, 2]).await;
    let newest = cluster.node(0).session().await.newest_rules(1).await.unwrap().remove(0);
    let against = may_resume(&promise(&member, 3), &newest, &member, Flushing::Strong).unwrap_err();
    assert!(matches!(&against[..], [NotResumed::NotPrimary { .. }]), "{against:?}");

    // The trap: without the signal the same files open another primary's term for writing, on its very timeline.
    let primary = cluster.node(1).session().await;
    primary.checkpoint(WAIT).await.unwrap();
    let end = primary.flushed().await.unwrap().local;
    let session = cluster.node(0).session().await;
    let replayed = async || matches!(session.status().await.unwrap().log, LogRole::Recovery { replayed, .. } if replayed >= end);
    eventually("it has written out what is of that timeline", replayed).await;
    session.checkpoint(WAIT).await.unwrap();
    cluster.node(0).quit().await;
    std::fs::remove_file(cluster.nodes[0].data(STANDBY_SIGNAL)).unwrap();
    cluster.node(0).server.links.upstream = None;
    let session = cluster.node(0).start().await;
    let status = session.status().await.unwrap();
    assert!(!status.in_recovery());
    assert_eq!(status.timeline, cluster.node(1).session().await.status().await.unwrap().timeline);
}
