//! A follower keeps log that its primary has not shipped, so that it can ship it once it is promoted.

use holdfast_engine::Engine;
use holdfast_engine::postgres::Postgres;
use holdfast_model::Lsn;
use test_case::test_case;

use crate::cluster::{Cluster, WAIT};
use crate::support::eventually;

/// A pair whose follower keeps as little log by itself as a server can.
async fn thrifty(major: u32) -> Cluster {
    let mut cluster = Cluster::stopped(major, 1);
    let follower = &mut cluster.node(1).server;
    follower.recovery.insert("wal_keep_size", "0".to_owned());
    for name in ["min_wal_size", "max_wal_size"] {
        follower.setup.settings.insert(name.to_owned(), "32MB".to_owned());
    }
    cluster.begin().await;
    cluster
}

/// Writes a few segments more, which the follower has replayed and written out when this returns.
async fn outgrow(cluster: &mut Cluster) {
    let writer = cluster.sql(0).await;
    for _ in 0..4 {
        writer.sql.batch_execute("SELECT pg_logical_emit_message(false, 'x', 'y')").await.unwrap();
        writer.sql.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        writer.sql.batch_execute("CHECKPOINT").await.unwrap();
    }
    let end = cluster.node(0).session().await.flushed().await.unwrap().local;
    let session = cluster.node(1).session().await;
    let replayed = async || session.status().await.unwrap().flushed() >= end;
    eventually("the follower has it", replayed).await;
    session.checkpoint(WAIT).await.unwrap();
}

fn oldest(cluster: &Cluster) -> String {
    cluster.nodes[1].server.wal_files().into_keys().next().unwrap()
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_promoted_follower_still_has_the_log_that_was_not_shipped(major: u32) {
    // Without the slot it is gone.
    let mut cluster = thrifty(major).await;
    let gone = oldest(&cluster);
    let not_kept = async || {
        outgrow(&mut cluster).await;
        !cluster.nodes[1].server.wal_files().contains_key(&gone)
    };
    eventually("log goes", not_kept).await;

    // From now on it stays: made and advanced in recovery.
    let mut engine = Postgres::new(cluster.nodes[1].server.setup.clone());
    engine.keep_log(&Lsn::ZERO.into()).await.unwrap();
    outgrow(&mut cluster).await;
    let kept = oldest(&cluster);
    for _ in 0..3 {
        outgrow(&mut cluster).await;
    }
    assert!(cluster.nodes[1].server.wal_files().contains_key(&kept));
    let shipped = cluster.node(1).session().await.status().await.unwrap().flushed();
    let beyond = shipped.plus(1 << 30);
    for _ in 0..2 {
        engine.keep_log(&shipped.into()).await.unwrap();
    }
    let let_go = async || {
        outgrow(&mut cluster).await;
        !cluster.nodes[1].server.wal_files().contains_key(&kept)
    };
    eventually("shipped log goes", let_go).await;

    // The primary is lost before it ships the rest.
    cluster.node(0).quit().await;
    cluster.node(1).recruit(WAIT).await.unwrap();
    cluster.reign(1, 3).await;
    let session = cluster.node(1).session().await;
    for _ in 0..4 {
        cluster.sql(1).await.sql.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        session.checkpoint(WAIT).await.unwrap();
    }
    let files = cluster.nodes[1].server.wal_files();
    let first = shipped.offset() >> 24;
    assert!(
        files.contains_key(&format!("{:08X}{:08X}{:08X}", 1, first >> 8, first & 0xFF)),
        "{:?}",
        files.keys()
    );
    // What it is told on the way never takes it past its own log.
    engine.keep_log(&beyond.into()).await.unwrap();
    let slot = "SELECT restart_lsn <= pg_current_wal_flush_lsn() FROM pg_replication_slots WHERE slot_name = 'holdfast_ship'";
    assert!(cluster.sql(1).await.sql.query_one(slot, &[]).await.unwrap().get::<_, bool>(0));
}
