//! Stopping a receiver for certain: T4 and P8.

use std::time::Duration;

use holdfast_engine::postgres::session::status::LogRole;
use holdfast_engine::postgres::standby::receiver::{StopError, detach, stop};
use holdfast_model::{Lsn, Position};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use test_case::test_case;

use crate::cluster::{Cluster, WAIT, term};
use crate::support::eventually;

/// Commits a row on the primary; the commit has been acked when this returns.
async fn insert(cluster: &Cluster, id: i32) {
    let sql = cluster.sql(0).await;
    sql.sql.execute("INSERT INTO public.t VALUES ($1)", &[&id]).await.unwrap();
}

async fn flushed(cluster: &mut Cluster) -> Position {
    cluster.node(0).session().await.flushed().await.unwrap().local.into()
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_recruited_standby_acks_nothing_more(major: u32) {
    let mut cluster = Cluster::start(major, 1).await;
    let session = cluster.node(1).session().await;
    cluster.sql(1).await.sql.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();

    // The trap (T4): the setting is empty and in force, and the walreceiver goes on acking.
    cluster.node(1).server.links.upstream = None;
    let (setup, peers) = (cluster.nodes[1].server.setup.clone(), cluster.nodes[1].server.links.peers.clone());
    detach(&session, &setup, &peers).await.unwrap();
    assert_eq!(session.setting("primary_conninfo").await.unwrap(), "");
    insert(&cluster, 1).await;
    insert(&cluster, 2).await;
    let trapped = cluster.sql(1).await;
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walreceiver'";
    trapped.sql.batch_execute(sql).await.unwrap();
    insert(&cluster, 3).await;

    // Not ours: whatever was acked is in the position, and nothing is acked after it.
    let acked = flushed(&mut cluster).await;
    let recruited = stop(&session, &cluster.nodes[1].hands(), WAIT).await.unwrap();
    assert!(recruited.position >= acked, "{recruited:?}, acked {acked}");
    assert_eq!(recruited.rule, Some(cluster.rule(1, 1, 0, &Lsn::ZERO.into())));
    assert_eq!(recruited.term, term(1));
    assert_eq!(cluster.nodes[1].rows().await, [1, 2, 3]);
    assert_eq!(cluster.nodes[1].hands().find(), []);

    let writer = cluster.sql(0).await;
    let primary = cluster.node(0).session().await;
    let mut commit = Box::pin(writer.sql.batch_execute("INSERT INTO public.t VALUES (4)"));
    let waits = async || {
        tokio::select! {
            biased;
            done = &mut commit => panic!("acked by nobody: {done:?}"),
            waiters = primary.waiters() => waiters.unwrap() == 1,
        }
    };
    eventually("the commit waits", waits).await;
    let status = session.status().await.unwrap();
    assert!(
        matches!(status.log, LogRole::Recovery { replayed, .. } if Position::from(replayed) == recruited.position),
        "{status:?}"
    );
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn all_that_was_received_is_applied_before_the_position_is_read(major: u32) {
    let mut cluster = Cluster::stopped_standby_naps(major).await;
    let session = cluster.node(1).session().await;
    let standby = cluster.sql(1).await;
    let sql = "SELECT pid, wait_event FROM pg_stat_activity WHERE backend_type = 'startup'";
    let waits_in = async |event: &str| {
        let row = standby.sql.query_one(sql, &[]).await.unwrap();
        row.get::<_, Option<&str>>(1) == Some(event)
    };
    // A connection that broke a moment ago.
    let hands = cluster.nodes[1].hands();
    let broken = hands.find();
    kill(broken[0], Signal::SIGTERM).unwrap();
    let again = async || hands.find().iter().any(|pid| !broken.contains(pid));
    eventually("it receives again", again).await;
    insert(&cluster, 0).await;
    eventually("it has applied all", async || waits_in("RecoveryWalStream").await).await;
    // A startup process that is slow, as on a bad disk: the receiver goes on acking.
    let startup = Pid::from_raw(standby.sql.query_one(sql, &[]).await.unwrap().get(0));
    kill(startup, Signal::SIGSTOP).unwrap();
    for id in 1..=20 {
        insert(&cluster, id).await;
    }
    let acked = flushed(&mut cluster).await;

    // The trap (P8): the receiver is gone, nothing is paused, the startup process sleeps between two tries on look after
    // look, and what was received and acked is not applied.
    cluster.node(1).server.links.upstream = None;
    let (setup, peers) = (cluster.nodes[1].server.setup.clone(), cluster.nodes[1].server.links.peers.clone());
    detach(&session, &setup, &peers).await.unwrap();
    for pid in hands.find() {
        kill(pid, Signal::SIGTERM).unwrap();
    }
    eventually("no receiver", async || hands.find().is_empty()).await;
    kill(startup, Signal::SIGCONT).unwrap();
    eventually("it naps", async || waits_in("RecoveryRetrieveRetryInterval").await).await;
    assert!(waits_in("RecoveryRetrieveRetryInterval").await, "the nap is too short for this test");
    let LogRole::Recovery { replayed, .. } = session.status().await.unwrap().log else {
        panic!("not in recovery")
    };
    assert!(Position::from(replayed) < acked, "the trap did not show: {replayed} is past {acked}");

    let recruited = stop(&session, &hands, WAIT).await.unwrap();
    assert!(recruited.position >= acked, "{recruited:?}, acked {acked}");
    assert_eq!(cluster.nodes[1].rows().await.len(), 21);
}

#[tokio::test]
async fn a_reader_in_the_way_is_ended() {
    let mut cluster = Cluster::start(15, 1).await;
    insert(&cluster, 1).await;
    let reader = cluster.sql(1).await;
    reader.sql.batch_execute("BEGIN; SELECT * FROM public.t").await.unwrap();
    // A lock that replay cannot take while the reader has its own.
    cluster.sql(0).await.sql.batch_execute("ALTER TABLE public.t ADD COLUMN more int").await.unwrap();
    let acked = flushed(&mut cluster).await;
    let recruited = cluster.node(1).recruit(WAIT).await.unwrap();
    assert!(recruited.position >= acked, "{recruited:?}, acked {acked}");
    assert!(reader.sql.batch_execute("SELECT 1").await.is_err(), "the reader is still there");
}

#[tokio::test]
async fn a_missed_deadline_leaves_the_setting_empty_for_the_next_start() {
    let mut cluster = Cluster::start(15, 1).await;
    insert(&cluster, 1).await;
    let acked = flushed(&mut cluster).await;
    // Frozen, it answers no nudge.
    let startup = cluster.sql(1).await;
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'";
    let pid: i32 = startup.sql.query_one(sql, &[]).await.unwrap().get(0);
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    let err = cluster.node(1).recruit(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(err, StopError::Deadline { .. }), "{err:?}");

    cluster.nodes[1].server.kill();
    cluster.node(1).server.ended().await;
    let before = cluster.nodes[1].server.log().len();
    cluster.node(1).server.spawn();
    let session = cluster.node(1).session().await;
    let recruited = stop(&session, &cluster.nodes[1].hands(), WAIT).await.unwrap();
    assert!(recruited.position >= acked, "{recruited:?}, acked {acked}");
    let log = cluster.nodes[1].server.log();
    assert!(!log[before..].contains("started streaming"), "{log}");
    assert_eq!(cluster.nodes[1].rows().await, [1]);
}

#[tokio::test]
async fn a_primary_is_not_recruited_by_stopping_its_receiver() {
    let mut cluster = Cluster::start(15, 1).await;
    let session = cluster.node(0).session().await;
    let err = stop(&session, &cluster.nodes[0].hands(), WAIT).await.unwrap_err();
    assert!(matches!(err, StopError::NotInRecovery), "{err:?}");
}

impl Cluster {
    /// A pair whose standby sleeps for long between two tries, which widens a moment that is short otherwise.
    async fn stopped_standby_naps(major: u32) -> Self {
        let mut cluster = Self::start(major, 1).await;
        cluster.node(1).quit().await;
        cluster.node(1).server.recovery.insert("wal_retrieve_retry_interval", "60s".to_owned());
        let upstream = cluster.upstream(0, 1);
        cluster.node(1).server.links.upstream = Some(upstream);
        drop(cluster.node(1).start().await);
        let streams = async || !cluster.nodes[1].hands().find().is_empty();
        eventually("it streams", streams).await;
        cluster
    }
}
