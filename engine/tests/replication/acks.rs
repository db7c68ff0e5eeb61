//! Whose acks count, and what is to be seen before they are there: P7 and P10.

use holdfast_engine::Ackers;
use holdfast_model::{Lsn, Rule};
use holdfast_replication::quorum::AckQuorum;
use test_case::test_case;

use crate::cluster::Cluster;
use crate::support::{Client, eventually};

/// Sends a commit that waits, and goes on with `then` while it waits; the commit is answered in the end.
async fn while_waiting(
    cluster: &mut Cluster,
    insert: &Client,
    id: i32,
    then: impl AsyncFnOnce(&mut Cluster),
) {
    let sql = format!("INSERT INTO public.t VALUES ({id})");
    let commit = insert.sql.batch_execute(&sql);
    let meanwhile = async {
        let session = cluster.node(0).session().await;
        eventually("the commit waits", async || session.waiters().await.unwrap() == 1).await;
        then(cluster).await;
    };
    let (answer, ()) = tokio::join!(commit, meanwhile);
    answer.unwrap();
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_voter_in_the_primarys_own_zone_acks_nothing(major: u32) {
    let mut cluster = Cluster::start(major, 2).await;
    let whole = cluster.rule(1, 1, 0, &Lsn::ZERO.into());
    let (near, far) = (cluster.nodes[1].member.clone(), cluster.nodes[2].member.clone());
    let mut voters = whole.voters.clone();
    voters[1].zone = voters[0].zone.clone();
    let rule = Rule { voters, ..whole };

    // The trap (P7): any one of the list, wherever it is. Only the primary's own zone has this row.
    cluster.node(2).quit().await;
    let anybody = Ackers::AnyOf { k: 1, members: [near.clone(), far.clone()].into() };
    cluster.node(0).reload(&anybody).await;
    cluster.sql(0).await.sql.batch_execute("INSERT INTO public.t VALUES (1)").await.unwrap();

    // Ours names other zones alone.
    let sync = Ackers::of(&rule);
    assert_eq!(sync, Ackers::AnyOf { k: 1, members: [far].into() });
    cluster.node(0).reload(&sync).await;
    let writer = cluster.sql(0).await;
    while_waiting(&mut cluster, &writer, 2, async |cluster| {
        let session = cluster.node(0).session().await;
        let has = async || {
            let flushed = session.flushed().await.unwrap();
            flushed.standbys.get(&near) >= Some(&flushed.local)
        };
        eventually("the near one has it", has).await;
        assert_eq!(session.waiters().await.unwrap(), 1);
        assert_eq!(session.flushed().await.unwrap().acked(&AckQuorum::of(&rule)), None);
        drop(cluster.node(2).start().await);
    })
    .await;
    eventually("the other zone has both", async || cluster.nodes[2].rows().await == [1, 2]).await;
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_replica_shows_what_its_primary_does_not_show_before_it_is_acked(major: u32) {
    let mut cluster = Cluster::start(major, 1).await;
    let rule = cluster.rule(1, 1, 0, &Lsn::ZERO.into());
    cluster.node(0).reload(&Ackers::Nobody).await;
    let writer = cluster.sql(0).await;
    while_waiting(&mut cluster, &writer, 1, async |cluster| {
        // The trap (P10): who reads here and then there sees time go backwards, and two who read see two orders.
        eventually("the replica shows it", async || cluster.nodes[1].rows().await == [1]).await;
        assert_eq!(cluster.nodes[0].rows().await, [0; 0]);
        let local = "SET synchronous_commit = local; INSERT INTO public.t VALUES (2)";
        cluster.sql(0).await.sql.batch_execute(local).await.unwrap();
        assert_eq!(cluster.nodes[0].rows().await, [2], "the second without the first");
        eventually("the replica shows both", async || cluster.nodes[1].rows().await == [1, 2]).await;

        // Not at the primary, which shows what waits only once it is acked: nothing is claimed across the two.
        cluster.node(0).reload(&Ackers::of(&rule)).await;
    })
    .await;
    assert_eq!(cluster.nodes[0].rows().await, [1, 2]);
}
