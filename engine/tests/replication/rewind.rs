//! The way back of a deposed primary.

use holdfast_engine::Ackers;
use holdfast_engine::postgres::standby::STANDBY_SIGNAL;
use holdfast_engine::postgres::standby::rewind::launch;
use holdfast_model::RuleId;
use holdfast_replication::chain::{Diverged, Held, may_follow};
use test_case::test_case;

use crate::cluster::{Cluster, WAIT, term};
use crate::support::{eventually, run};

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_copy_of_a_deposed_primary_is_rewound_and_follows(major: u32) {
    let mut cluster = Cluster::start(major, 1).await;
    cluster.sql(0).await.sql.batch_execute("INSERT INTO public.t VALUES (1)").await.unwrap();
    cluster.node(1).recruit(WAIT).await.unwrap();
    // Nobody acks this one.
    let local = "SET synchronous_commit = local; INSERT INTO public.t VALUES (2)";
    cluster.sql(0).await.sql.batch_execute(local).await.unwrap();
    let end = cluster.node(0).session().await.flushed().await.unwrap().local;
    cluster.node(0).quit().await;
    cluster.reign(1, 3).await;

    let session = cluster.node(1).session().await;
    let chain = session.newest_rules(9).await.unwrap();
    let own = Held { rule: Some(RuleId { term: term(1), version: 1 }), reign: term(1), end: end.into() };
    assert!(matches!(may_follow(&own, &chain), Err(Diverged::PastFork { .. })));

    let deposed = cluster.nodes[0].member.clone();
    session.checkpoint(WAIT).await.unwrap();
    assert_eq!(session.checkpoint_timeline().await.unwrap(), term(3));

    let source = cluster.node(1);
    source.server.links.peers[0].rewinds = true;
    source.reload(&Ackers::Nobody).await;
    source.session().await.allow_rewind(&deposed).await.unwrap();
    let upstream = cluster.upstream(1, 0);
    let setup = &cluster.nodes[0].server.setup;
    run(&launch(&setup.layout, &upstream, setup.tls.as_ref().unwrap()));

    cluster.nodes[0].signal_standby();
    cluster.node(0).server.links.upstream = Some(upstream);
    drop(cluster.node(0).start().await);
    assert_eq!(cluster.follow(1, 0).await.term, term(3));
    eventually("the row that nobody acked is gone", async || cluster.nodes[0].rows().await == [1]).await;
}

/// A primary that dies young has no checkpoint of its own reign, and as a standby it writes none.
#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn who_was_promoted_and_died_before_a_checkpoint_is_rewound_unless_it_ended_in_order(major: u32) {
    let mut cluster = Cluster::start(major, 1).await;
    cluster.node(1).recruit(WAIT).await.unwrap();
    cluster.node(0).quit().await;
    cluster.reign(1, 3).await;
    cluster.nodes[0].signal_standby();
    drop(cluster.node(0).start().await);
    cluster.follow(1, 0).await;
    // Before it has received the first segment of the new timeline nobody could promote it.
    cluster.sql(1).await.sql.batch_execute("INSERT INTO public.t VALUES (1)").await.unwrap();
    cluster.node(0).recruit(WAIT).await.unwrap();
    let local = "SET synchronous_commit = local; INSERT INTO public.t VALUES (2)";
    cluster.sql(1).await.sql.batch_execute(local).await.unwrap();
    cluster.node(1).quit().await;
    cluster.reign(0, 4).await;
    cluster.node(0).session().await.checkpoint(WAIT).await.unwrap();
    let deposed = cluster.nodes[1].member.clone();
    let source = cluster.node(0);
    source.server.links.peers[0].rewinds = true;
    source.reload(&Ackers::Nobody).await;
    source.session().await.allow_rewind(&deposed).await.unwrap();
    let upstream = cluster.upstream(0, 1);

    cluster.nodes[1].signal_standby();
    drop(cluster.node(1).start().await);
    cluster.node(1).quit().await;
    std::fs::remove_file(cluster.nodes[1].data(STANDBY_SIGNAL)).unwrap();
    let setup = &cluster.nodes[1].server.setup;
    run(&launch(&setup.layout, &upstream, setup.tls.as_ref().unwrap()));

    cluster.nodes[1].signal_standby();
    cluster.node(1).server.links.upstream = Some(upstream);
    drop(cluster.node(1).start().await);
    assert_eq!(cluster.follow(0, 1).await.term, term(4));
    eventually("the row that nobody acked is gone", async || cluster.nodes[1].rows().await == [1]).await;
}
