//! The replication slot for shipping on a real server: log stays until it was shipped, and no longer.

#![expect(clippy::unwrap_used, reason = "a test's tools fail the test")]

mod support;

use holdfast_engine::postgres::session::Session;
use holdfast_model::ByteCount;
use support::{Client, Server, client, eventually};
use test_case::test_case;

/// Position of every slot, as text.
async fn slots(agent: &Client) -> Vec<String> {
    let sql = "SELECT restart_lsn::text FROM pg_replication_slots";
    agent.sql.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// More log than the server keeps by itself, with a checkpoint after each segment.
async fn outgrow(server: &Server, session: &Session, agent: &Client) {
    for _ in 0..4 {
        let sql = "SELECT pg_logical_emit_message(false, 'x', 'y')";
        agent.sql.batch_execute(sql).await.unwrap();
        agent.sql.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        session.checkpoint(server.setup.deadlines.backup_start).await.unwrap();
    }
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_slot_that_was_lost_by_its_cap_is_made_anew(major: u32) {
    let mut server = Server::init(major);
    for name in ["min_wal_size", "max_wal_size"] {
        server.setup.settings.insert(name.to_owned(), "32MB".to_owned());
    }
    server.setup.slot_log_max = ByteCount::mib(16);
    let session = server.start().await;
    let agent = client(&server.setup.layout, "holdfast").await.unwrap();
    session.ensure_ship_slot().await.unwrap();
    let lost = async || {
        outgrow(&server, &session, &agent).await;
        let sql = "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'";
        agent.sql.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    };
    eventually("it is lost", lost).await;
    session.ensure_ship_slot().await.unwrap();
    let shipped = session.flushed().await.unwrap().local;
    session.advance_ship_slot(shipped).await.unwrap();
    assert_eq!(slots(&agent).await, [shipped.to_string()]);
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn the_slot_for_shipping_holds_log_until_it_was_shipped(major: u32) {
    let mut server = Server::init(major);
    for name in ["min_wal_size", "max_wal_size"] {
        server.setup.settings.insert(name.to_owned(), "32MB".to_owned());
    }
    let session = server.start().await;
    let agent = client(&server.setup.layout, "holdfast").await.unwrap();
    let begin = session.flushed().await.unwrap().local;
    session.ensure_ship_slot().await.unwrap();
    let made = slots(&agent).await;
    session.ensure_ship_slot().await.unwrap();
    assert_eq!((made.len(), slots(&agent).await), (1, made));

    let oldest = server.wal_files().into_keys().next().unwrap();
    outgrow(&server, &session, &agent).await;
    assert!(server.wal_files().contains_key(&oldest), "log went before it was shipped");

    let shipped = session.flushed().await.unwrap().local;
    session.advance_ship_slot(shipped).await.unwrap();
    assert_eq!(slots(&agent).await, [shipped.to_string()]);
    session.advance_ship_slot(begin).await.unwrap();
    assert_eq!(slots(&agent).await, [shipped.to_string()]);

    let gone = async || {
        outgrow(&server, &session, &agent).await;
        !server.wal_files().contains_key(&oldest)
    };
    eventually("shipped log goes", gone).await;
}
