//! Which of the recruited has what was acked: P9.

use holdfast_engine::standing::Recruited;
use holdfast_model::Position;
use holdfast_replication::choose::{Report, choose};
use holdfast_replication::promise::Attempt;
use test_case::test_case;

use crate::cluster::{Cluster, WAIT, term};
use crate::support::eventually;

/// What a recruited node answers.
async fn report(cluster: &mut Cluster, at: usize) -> Report<Position> {
    let Recruited { position, .. } = cluster.node(at).recruit(WAIT).await.unwrap();
    let node = cluster.node(at);
    let rules = node.session().await.newest_rules(2).await.unwrap();
    Report { member: node.member.clone(), rules, position, promised_before: None }
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_longer_log_of_an_older_reign_loses(major: u32) {
    let mut cluster = Cluster::start(major, 2).await;
    cluster.sql(0).await.sql.batch_execute("INSERT INTO public.t VALUES (1)").await.unwrap();
    for at in [1, 2] {
        cluster.node(at).recruit(WAIT).await.unwrap();
    }
    // A primary that is cut off goes on writing what nobody acks.
    let tail = "SET synchronous_commit = local; INSERT INTO public.t SELECT generate_series(100, 20100)";
    cluster.sql(0).await.sql.batch_execute(tail).await.unwrap();
    cluster.node(0).quit().await;
    cluster.reign(1, 3).await;
    assert_eq!(cluster.follow(1, 2).await.term, term(3));
    cluster.sql(1).await.sql.batch_execute("INSERT INTO public.t VALUES (2)").await.unwrap();
    cluster.node(1).quit().await;

    cluster.nodes[0].signal_standby();
    cluster.node(0).server.links.upstream = None;
    drop(cluster.node(0).start().await);
    let (deposed, follower) = (report(&mut cluster, 0).await, report(&mut cluster, 2).await);
    // The trap (P9): the most log is that of the deposed, and what was acked since is not in it.
    assert!(deposed.position > follower.position, "{deposed:?}, {follower:?}");
    assert!(!cluster.nodes[0].rows().await.contains(&2));

    // Ours goes by the rule first.
    let attempt = Attempt { term: term(4), id: 1 };
    let certificate = choose(attempt, vec![deposed, follower.clone()], &[]).unwrap();
    assert_eq!(certificate.chosen, follower.member);
    eventually("it has what was acked", async || cluster.nodes[2].rows().await == [1, 2]).await;
}
