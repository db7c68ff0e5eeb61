//! Copies of the data.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_engine::Ackers;
use holdfast_engine::mysql::argv::Start;
use holdfast_engine::mysql::backup::copy;
use holdfast_engine::mysql::identity::auto_cnf;
use holdfast_engine::mysql::session::{Session, SessionError};

use crate::cluster::{CLOSED, Cluster, Node, OPEN, STEP};
use crate::server::{Server, eventually, give, waiters};

/// A node alone that clients write to, and a folder for copies.
async fn alone() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::new(1).await;
    let node = &mut cluster.nodes[0];
    node.apply(&CLOSED, &Ackers::Alone, &BTreeSet::new()).await;
    node.server.prepare_clients(&mut node.session).await;
    node.apply(&OPEN, &Ackers::Alone, &BTreeSet::new()).await;
    node.client().await.write(1).await.unwrap();
    let folder = node.server.dir.path().join("copies");
    std::fs::create_dir(&folder).unwrap();
    give(&folder);
    (cluster, folder)
}

async fn own_session(node: &Node) -> Session {
    Session::connect(&node.server.layout, STEP).await.unwrap()
}

#[tokio::test]
async fn another_member_starts_on_a_copy() {
    let (mut cluster, folder) = alone().await;
    let node = &mut cluster.nodes[0];
    let copied = copy(&mut node.session, &folder.join("copy"), STEP).await.unwrap();
    assert_eq!(copied.start, copied.stop, "nobody wrote meanwhile");
    node.client().await.write(2).await.unwrap();

    let mut restored = Server::init("n2", 2);
    std::fs::remove_dir_all(&restored.layout.data_dir).unwrap();
    std::fs::rename(folder.join("copy"), &restored.layout.data_dir).unwrap();
    std::fs::write(restored.layout.identity_file(), auto_cnf(&restored.member)).unwrap();
    give(&restored.layout.identity_file());
    let mut session = restored.start(Start::Standby).await;
    assert_eq!(session.executed().await.unwrap(), copied.stop);
    let ids: Vec<u64> = session.rows("read", "SELECT id FROM app.acked").await.unwrap();
    assert_eq!(ids, [1]);
}

#[tokio::test]
async fn a_copy_waits_for_commits_that_wait() {
    let (mut cluster, folder) = alone().await;
    let node = &mut cluster.nodes[0];
    let one = Ackers::AnyOf { k: 1, members: BTreeSet::new() };
    node.apply(&OPEN, &one, &BTreeSet::new()).await;
    let mut waiting = node.server.begin_write(2).await;
    waiters(&mut node.session, 1).await;
    let mut own = own_session(node).await;
    let late = copy(&mut own, &folder.join("late"), Duration::from_secs(5)).await;
    assert!(matches!(late, Err(SessionError::Late { .. })), "{late:?}");
    assert!(!waiting.is_answered(), "nobody is answered by it");

    // Once they are acked it goes on, and the next one is made behind it.
    node.apply(&OPEN, &Ackers::Alone, &BTreeSet::new()).await;
    waiting.answer().await.unwrap();
    let mut tries = 0..;
    eventually("another copy is made", async || {
        let to = folder.join(format!("copy-{}", tries.next().unwrap()));
        copy(&mut own_session(node).await, &to, STEP).await.is_ok()
    })
    .await;
}
