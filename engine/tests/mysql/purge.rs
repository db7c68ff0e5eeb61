//! Binlog that is let go of.

use std::collections::BTreeSet;

use holdfast_engine::Ackers;
use holdfast_engine::mysql::purge::let_go;
use holdfast_model::GtidSet;

use crate::cluster::{CLOSED, Cluster, OPEN};

#[tokio::test]
async fn only_whole_files_go_and_only_what_is_let_go() {
    let mut cluster = Cluster::new(1).await;
    let node = &mut cluster.nodes[0];
    node.apply(&CLOSED, &Ackers::Alone, &BTreeSet::new()).await;
    node.server.prepare_clients(&mut node.session).await;
    node.apply(&OPEN, &Ackers::Alone, &BTreeSet::new()).await;
    let mut client = node.client().await;
    let mut after = Vec::new();
    for id in 1..=3 {
        client.write(id).await.unwrap();
        node.session.run("begin another file", "FLUSH BINARY LOGS").await.unwrap();
        after.push(node.session.executed().await.unwrap());
        client.write(id + 10).await.unwrap();
    }
    assert_eq!(let_go(&mut node.session, &GtidSet::EMPTY).await.unwrap(), 0);
    // All of the first file, and one of two commits in the second.
    let shipped = after[1].minus(&after[0]).minus(&GtidSet::EMPTY);
    assert_eq!(let_go(&mut node.session, &shipped).await.unwrap(), 0, "what is older is not shipped");
    let purged = let_go(&mut node.session, &after[0]).await.unwrap();
    assert!(purged >= 1, "{purged}");
    assert_eq!(let_go(&mut node.session, &after[0]).await.unwrap(), 0, "asked again");
    let gone: String = node.session.row("read", "SELECT @@global.gtid_purged").await.unwrap();
    assert_eq!(gone.parse::<GtidSet>().unwrap(), after[0]);
    // Everything is let go of: the newest file stays.
    let all = node.session.executed().await.unwrap();
    let_go(&mut node.session, &all).await.unwrap();
    client.write(99).await.unwrap();
}
