//! Terms and timelines on real servers: T8 and T9.

use std::fs;

use holdfast_engine::postgres::standby::Hands as _;
use holdfast_engine::postgres::standby::promote::{PromoteError, dangling, placeholders, promote};
use holdfast_engine::postgres::standby::receiver::detach;
use holdfast_model::RuleId;
use holdfast_replication::chain::{Diverged, Held, may_follow};
use test_case::test_case;

use crate::cluster::{Cluster, WAIT, term};
use crate::support::eventually;

/// A trio whose primary is gone after one row; the others are recruited.
async fn bereft(major: u32) -> Cluster {
    let mut cluster = Cluster::start(major, 2).await;
    cluster.sql(0).await.sql.batch_execute("INSERT INTO public.t VALUES (1)").await.unwrap();
    cluster.node(0).quit().await;
    for at in [1, 2] {
        cluster.node(at).recruit(WAIT).await.unwrap();
    }
    cluster
}

/// Names and contents of a node's history files.
fn histories(cluster: &Cluster, at: usize) -> Vec<(String, String)> {
    let entries = fs::read_dir(cluster.nodes[at].data("pg_wal")).unwrap().map(|entry| entry.unwrap());
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".history"));
    named
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect()
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn the_timeline_is_the_term_and_a_standby_follows_across_the_gap(major: u32) {
    let mut cluster = bereft(major).await;
    let recruited = cluster.node(1).recruit(WAIT).await.unwrap();
    let promoted = cluster.reign(1, 8).await;
    assert_eq!((promoted.from, &promoted.start), (term(1), &recruited.position));
    let session = cluster.node(1).session().await;
    assert_eq!(session.status().await.unwrap().timeline, term(8));
    assert_eq!(promote(&session, &cluster.nodes[1].hands(), term(8), WAIT).await.unwrap(), promoted);

    // The trap (T9): a follower asks for every number between.
    let between = placeholders(term(1), term(8), &Default::default()).unwrap();
    assert_eq!(between.len(), 6);
    for file in &between {
        fs::remove_file(cluster.nodes[1].data(&file.path)).unwrap();
    }
    let upstream = cluster.upstream(1, 2);
    cluster.node(2).server.links.upstream = Some(upstream);
    cluster.node(2).reload(&holdfast_engine::Ackers::Nobody).await;
    let refused = async || cluster.nodes[2].server.log().contains("00000002.history");
    eventually("a follower without the placeholders is refused", refused).await;
    assert!(!cluster.nodes[2].server.log().contains("on timeline 8"), "{}", cluster.nodes[2].server.log());

    // Ours keeps them.
    cluster.nodes[1].hands().ensure_files(&between).await.unwrap();
    assert_eq!(cluster.follow(1, 2).await.term, term(8));
    cluster.sql(1).await.sql.batch_execute("INSERT INTO public.t VALUES (2)").await.unwrap();
    let applied = async || cluster.nodes[2].rows().await == [1, 2];
    eventually("the follower has both rows", applied).await;

    // It starts again on what it fetched.
    cluster.node(2).quit().await;
    let found = histories(&cluster, 2);
    let found: Vec<(&str, &str)> = found.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!((found.len(), dangling(&found)), (7, vec![]));
    drop(cluster.node(2).start().await);
    assert_eq!(cluster.follow(1, 2).await.term, term(8));
}

#[tokio::test]
async fn two_candidates_never_share_a_timeline() {
    // The trap (T8): promoted from the same position, never having seen each other.
    let mut cluster = bereft(15).await;
    for at in [1, 2] {
        let session = cluster.node(at).session().await;
        let sql = cluster.sql(at).await;
        sql.sql.batch_execute("SELECT pg_promote(); SET synchronous_commit = local").await.unwrap();
        sql.sql.batch_execute(&format!("INSERT INTO public.t VALUES ({at}00)")).await.unwrap();
        assert_eq!(session.status().await.unwrap().timeline, term(2));
        let other = cluster.nodes[3 - at].member.clone();
        cluster.node(at).session().await.ensure_member(&other).await.unwrap();
    }
    cluster.node(2).quit().await;
    cluster.nodes[2].signal_standby();
    let upstream = cluster.upstream(1, 2);
    cluster.node(2).server.links.upstream = Some(upstream);
    drop(cluster.node(2).start().await);
    let streams = async || {
        cluster.nodes[2]
            .server
            .log()
            .contains("started streaming WAL from primary at 0/1000000 on timeline 2")
    };
    eventually("a diverged candidate streams", streams).await;

    // Ours: one term each, so one is nobody's ancestor.
    let mut cluster = bereft(15).await;
    cluster.reign(1, 2).await;
    let fork = cluster.reign(2, 3).await;
    let chain = cluster.node(2).session().await.newest_rules(9).await.unwrap();
    let session = cluster.node(1).session().await;
    let own = Held {
        rule: Some(RuleId { term: term(2), version: 1 }),
        reign: term(2),
        end: session.status().await.unwrap().flushed().into(),
    };
    assert!(own.end > fork.start);
    assert!(matches!(may_follow(&own, &chain), Err(Diverged::UnknownRule { .. })));
    cluster.node(1).quit().await;
    cluster.nodes[1].signal_standby();
    let upstream = cluster.upstream(2, 1);
    cluster.node(1).server.links.upstream = Some(upstream);
    drop(cluster.node(1).start().await);
    let refused = async || cluster.nodes[1].server.log().contains("is not a child of");
    eventually("postgres refuses it by name", refused).await;
    assert!(!cluster.nodes[1].server.log().contains("on timeline 3"), "{}", cluster.nodes[1].server.log());
    assert!(cluster.node(2).session().await.flushed().await.unwrap().standbys.is_empty());
}

#[tokio::test]
async fn a_promotion_is_refused_while_a_receiver_lives() {
    let mut cluster = Cluster::start(15, 1).await;
    let session = cluster.node(1).session().await;
    let hands = cluster.nodes[1].hands();
    let attempt = async |number| promote(&session, &hands, term(number), WAIT).await;
    assert!(matches!(attempt(2).await, Err(PromoteError::Upstream)));
    assert!(matches!(attempt(1).await, Err(PromoteError::Term { .. })));
    // Paused, it does not look at its settings (T4).
    cluster.sql(1).await.sql.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
    let (setup, peers) = (cluster.nodes[1].server.setup.clone(), cluster.nodes[1].server.links.peers.clone());
    detach(&session, &setup, &peers).await.unwrap();
    assert!(matches!(attempt(2).await, Err(PromoteError::Receives(1))));
    assert!(session.status().await.unwrap().in_recovery());

    cluster.node(1).recruit(WAIT).await.unwrap();
    assert_eq!(attempt(2).await.unwrap().from, term(1));
    assert!(matches!(attempt(3).await, Err(PromoteError::Primary(found)) if found == term(2)));
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_promotion_cut_short_leaves_placeholders_that_must_go_before_the_next_start(major: u32) {
    let mut cluster = Cluster::start(major, 1).await;
    cluster.node(1).recruit(WAIT).await.unwrap();
    let files = placeholders(term(1), term(5), &Default::default()).unwrap();
    cluster.nodes[1].hands().ensure_files(&files).await.unwrap();
    cluster.node(1).quit().await;

    // The trap: it goes by the highest history file, which is nobody's child, and looks for log of that timeline alone.
    let before = cluster.nodes[1].server.log().len();
    cluster.node(1).server.spawn();
    let stuck =
        async || cluster.nodes[1].server.log()[before..].contains("waiting for WAL to become available");
    eventually("it waits for log that it has", stuck).await;
    let log = cluster.nodes[1].server.log();
    assert!(!log[before..].contains("consistent recovery state reached"), "{log}");
    cluster.node(1).quit().await;

    let found = histories(&cluster, 1);
    let found: Vec<(&str, &str)> = found.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mut gone = dangling(&found);
    gone.sort_unstable();
    assert_eq!(gone, ["00000002.history", "00000003.history", "00000004.history"]);
    for name in gone {
        fs::remove_file(cluster.nodes[1].data("pg_wal").join(name)).unwrap();
    }
    drop(cluster.node(1).start().await);
    assert_eq!(cluster.follow(0, 1).await.term, term(1));
}
