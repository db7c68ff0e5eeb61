//! Log that is taken apart, put together and replayed.

use std::collections::BTreeSet;
use std::fs;

use holdfast_engine::Ackers;
use holdfast_engine::mysql::argv::Start;
use holdfast_engine::mysql::{binlog, replay};
use holdfast_model::GtidSet;

use crate::cluster::{CLOSED, Cluster, OPEN, STEP, rule};
use crate::server::{Server, give, markers, waiters};

/// The log of `server` as files of transactions that are in `acked`.
fn shipped(server: &Server, acked: &GtidSet) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = fs::read_dir(&server.layout.data_dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("binlog.") && !name.ends_with("index"))
        .collect();
    names.sort();
    let cut = |name: &String| {
        let bytes = fs::read(server.layout.data_dir.join(name)).unwrap();
        let contents = binlog::read(&bytes).unwrap();
        let acked = contents.transactions.iter().filter(|transaction| acked.contains(transaction.gtid));
        let parts = [&bytes[contents.head.clone()]].into_iter();
        parts.chain(acked.map(|transaction| &bytes[transaction.bytes.clone()])).collect::<Vec<_>>().concat()
    };
    names.iter().map(cut).collect()
}

fn put(server: &Server, files: &[Vec<u8>]) {
    let write = |name: &str, content: &[u8]| {
        let path = server.layout.data_dir.join(name);
        fs::write(&path, content).unwrap();
        give(&path);
    };
    for (number, file) in (1..).zip(files) {
        write(&replay::file_name(number), file);
    }
    let (name, text) = replay::index(u32::try_from(files.len()).unwrap());
    write(name, text.as_bytes());
}

#[tokio::test]
async fn what_was_cut_out_of_a_log_is_replayed_once() {
    let mut cluster = Cluster::new(1).await;
    let members = cluster.members();
    let node = &mut cluster.nodes[0];
    node.apply(&CLOSED, &Ackers::Alone, &BTreeSet::new()).await;
    node.server.prepare_clients(&mut node.session).await;
    node.write_rule(&rule(1, 1, 0, &members)).await.unwrap();
    node.apply(&OPEN, &Ackers::Alone, &BTreeSet::new()).await;
    let mut client = node.client().await;
    for id in 1..=20 {
        client.write(id).await.unwrap();
        if id % 7 == 0 {
            node.session.run("begin another file", "FLUSH BINARY LOGS").await.unwrap();
        }
    }
    let acked = node.session.executed().await.unwrap();
    // What waits is in the file and not in the set.
    let one = Ackers::AnyOf { k: 1, members: BTreeSet::new() };
    node.apply(&OPEN, &one, &BTreeSet::new()).await;
    let _waiting = node.server.begin_write(21).await;
    waiters(&mut node.session, 1).await;
    let files = shipped(&node.server, &acked);
    assert_eq!(files.len(), 3, "two were closed, and one is written");

    let mut restored = Server::init("n2", 2);
    put(&restored, &files);
    let mut session = restored.start(Start::Standby).await;
    replay::begin(&mut session).await.unwrap();
    // Killed on the way; the files are put again, whole.
    restored.kill();
    put(&restored, &files);
    let mut session = restored.start(Start::Standby).await;
    replay::begin(&mut session).await.unwrap();
    replay::finish(&mut session, &acked, STEP).await.unwrap();
    assert_eq!(session.executed().await.unwrap(), acked);
    assert_eq!(markers().last_rule(&acked).unwrap().version, 1);
    let ids: Vec<u64> = session.rows("read", "SELECT id FROM app.acked ORDER BY id").await.unwrap();
    assert_eq!(ids, (1..=20).collect::<Vec<u64>>());
    assert!(session.receivers().await.unwrap().is_empty(), "nothing is left of the channel");
}
