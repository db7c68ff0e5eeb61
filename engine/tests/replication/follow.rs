//! Following on real servers.

use std::time::Duration;

use holdfast_engine::links::Upstream;
use holdfast_engine::postgres::standby::follow::{FollowError, follow};
use holdfast_replication::chain::{Held, may_follow};

use crate::cluster::{Cluster, WAIT, term};
use crate::support::eventually;

#[tokio::test]
async fn a_loser_whose_log_ends_before_the_fork_follows_the_winner() {
    let mut cluster = Cluster::start(15, 2).await;
    cluster.sql(0).await.sql.batch_execute("INSERT INTO public.t VALUES (1)").await.unwrap();
    // One that was recruited early, and has less.
    let less = cluster.node(2).recruit(WAIT).await.unwrap();
    cluster.sql(0).await.sql.batch_execute("INSERT INTO public.t VALUES (2)").await.unwrap();
    cluster.node(0).quit().await;
    let more = cluster.node(1).recruit(WAIT).await.unwrap();
    assert!(more.position > less.position);
    cluster.reign(1, 2).await;
    let chain = cluster.node(1).session().await.newest_rules(9).await.unwrap();
    let own = Held { rule: less.rule.map(|rule| rule.id), reign: less.term, end: less.position };
    may_follow(&own, &chain).unwrap();
    assert_eq!(cluster.follow(1, 2).await.term, term(2));
    eventually("it has the winner's rows", async || cluster.nodes[2].rows().await == [1, 2]).await;
    let session = cluster.node(2).session().await;
    let newest = async || session.newest_rules(1).await.unwrap()[0].id.term == term(2);
    eventually("and its rule", newest).await;
}

#[tokio::test]
async fn an_upstream_whose_certificate_names_another_node_is_not_followed() {
    let mut cluster = Cluster::start(15, 1).await;
    let upstream = Upstream { node: "n9".parse().unwrap(), ..cluster.upstream(0, 1) };
    let node = cluster.node(1);
    let session = node.session().await;
    let brief = Duration::from_millis(500);
    let err =
        follow(&session, &node.server.setup, &node.server.links.peers, &upstream, brief).await.unwrap_err();
    assert!(matches!(err, FollowError::NotStreaming(_)), "{err:?}");
    let refused = async || cluster.nodes[1].server.log().contains("does not match host name \"n9\"");
    eventually("the certificate is refused", refused).await;
    assert_eq!(cluster.follow(0, 1).await.term, term(1));
}
