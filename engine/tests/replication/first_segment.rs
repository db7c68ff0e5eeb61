//! A server that stops while it changes over to another timeline.

use std::fs;

use holdfast_engine::Ackers;
use holdfast_engine::postgres::standby::first_segment::FirstSegment;
use holdfast_engine::postgres::wal::{PAGE_BYTES, Segments, history};
use holdfast_model::Position;
use test_case::test_case;

use crate::cluster::{Cluster, Node, WAIT, term};
use crate::support::{CLOSED, client, eventually};

/// Where its log ends when it starts without anybody to follow, as a recruit would report it.
async fn end_after_start(node: &mut Node) -> Position {
    node.server.links.upstream = None;
    node.signal_standby();
    drop(node.start().await);
    let end = node.recruit(WAIT).await.unwrap().position;
    node.quit().await;
    end
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_standby_that_stops_while_it_changes_over_still_has_what_it_acked(major: u32) {
    let mut cluster = Cluster::start(major, 1).await;
    let sql = "INSERT INTO public.t SELECT generate_series(1, 2000)";
    cluster.sql(0).await.sql.batch_execute(sql).await.unwrap();
    let acked = cluster.node(0).session().await.flushed().await.unwrap().local;
    cluster.node(1).recruit(WAIT).await.unwrap();
    cluster.node(0).quit().await;
    cluster.reign(1, 3).await;
    let old = cluster.node(0);
    old.signal_standby();
    drop(old.start().await);
    cluster.follow(1, 0).await;
    // Acked: so all before it was received again.
    cluster.sql(1).await.sql.batch_execute("INSERT INTO public.t VALUES (0)").await.unwrap();
    let node = cluster.node(0);
    node.quit().await;

    let text = fs::read_to_string(node.data("pg_wal/00000003.history")).unwrap();
    let history = history::History::parse(term(3), &text).unwrap();
    let first = FirstSegment::of(term(3), &history, Segments::DEFAULT).remove(0);
    let shared = usize::try_from(first.shared()).unwrap();
    let file = |name: &str| node.data("pg_wal").join(name);
    let (mut newer, older) = (fs::read(file(&first.newer)).unwrap(), fs::read(file(&first.older)).unwrap());
    assert!(!first.is_behind(&newer[..shared], &older[..shared]) && first.is_whole(&newer));
    // As it was while it was received: zeros, where nothing had arrived yet.
    let arrived = shared - 3 * usize::try_from(PAGE_BYTES).unwrap();
    newer[arrived..].fill(0);
    fs::write(file(&first.newer), &newer).unwrap();
    node.signal_standby();
    node.server.links.upstream = None;
    node.server.install_with(&CLOSED, &Ackers::Nobody);
    node.server.spawn();
    let said = node.server.log().len();
    let waits = async || node.server.log()[said..].contains("waiting for WAL to become available");
    eventually("a server that has read all of its log", waits).await;
    let let_in = client(&node.server.setup.layout, "holdfast").await;
    assert!(let_in.is_err(), "the trap: its log ends before what it had flushed, acked and applied");
    node.quit().await;

    assert!(first.is_behind(&newer[..shared], &older[..shared]) && !first.is_whole(&newer));
    fs::remove_file(node.data("pg_wal").join(&first.newer)).unwrap();
    assert!(end_after_start(node).await >= acked.into());
}
