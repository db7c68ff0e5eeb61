//! Walreceivers: only children of the engine, of its user, with that command line, are counted and ended.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use holdfast_agent::child::process::{ProcessFacts, ProcessId, all_pids};
use holdfast_agent::hands::{self, EngineHands};
use holdfast_agent::helper::protocol::Failure;
use holdfast_engine::postgres::recovery::RecoveryFile;
use holdfast_engine::postgres::standby::{Hands, STANDBY_SIGNAL};

use crate::node::{Killed, Node, SOON, command, script, wait_until};

/// A process that looks like a walreceiver to anyone who reads its command line.
const RECEIVER: &str = "exec -a 'postgres: orders: walreceiver streaming 0/' /bin/sleep";

/// Those that sleep for that many seconds; each test has numbers of its own.
fn sleepers(seconds: u32) -> Vec<ProcessId> {
    let suffix = format!("\0{seconds}\0").into_bytes();
    let sleeps = |pid: &i32| {
        fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"))
            .is_ok_and(|cmdline| cmdline.ends_with(&suffix))
    };
    let pids = all_pids().unwrap().into_iter().filter(sleeps);
    pids.filter_map(|pid| ProcessId::of(pid).unwrap()).collect()
}

/// An engine that keeps two walreceivers and one that is called so by another program's child.
fn engine(base: u32) -> String {
    let (first, second, grandchild, other) = (base, base + 1, base + 2, base + 3);
    format!(
        "trap : TERM; ({RECEIVER} {first}) & ({RECEIVER} {second}) & (({RECEIVER} {grandchild}) & wait) & \
         (exec -a 'postgres: orders: walwriter' /bin/sleep {other}) & \
         echo started; while :; do wait; /bin/sleep 0.05; done"
    )
}

#[tokio::test]
async fn only_walreceivers_of_the_engine_are_counted_and_ended() {
    let node = Node::new().await;
    node.format().await;
    let base = 700_100;
    let (program, args) = script(&engine(base));
    let record = node.supervisor().start(program, args).await.unwrap();
    let all = || (0..4).all(|n| sleepers(base + n).len() == 1);
    wait_until("the engine's children sleep", all).await;
    assert_eq!(node.client().receivers(record.process, SOON).await.unwrap(), 2);
    assert!(all(), "counting ends nobody");
    assert_eq!(node.client().end_receivers(record.process, SOON).await.unwrap(), 2);
    wait_until("both have ended", || sleepers(base).is_empty() && sleepers(base + 1).is_empty()).await;
    assert_eq!(node.client().end_receivers(record.process, SOON).await.unwrap(), 0);
    assert_eq!((sleepers(base + 2).len(), sleepers(base + 3).len()), (1, 1), "these are no walreceivers");
    assert!(record.process.is_running().unwrap());
}

#[tokio::test]
async fn a_process_of_another_user_or_parent_is_never_touched() {
    let node = Node::new().await;
    node.format().await;
    let base = 700_200;
    // A set-user-id program is how a child of the engine's comes to run as somebody else.
    let another_users = node.path("another-users");
    fs::copy("/bin/sleep", &another_users).unwrap();
    node.give_to_daemon(&another_users);
    fs::set_permissions(&another_users, fs::Permissions::from_mode(0o4755)).unwrap();
    let of_another_parent = command("/bin/bash")
        .args(["-c", &format!("{RECEIVER} {base}")])
        .stdin(Stdio::null())
        .spawn()
        .map(Killed)
        .unwrap();
    let child = RECEIVER.replace("/bin/sleep", another_users.to_str().unwrap());
    let (program, args) = script(&format!("({child} {}) & while :; do /bin/sleep 0.05; done", base + 1));
    let record = node.supervisor().start(program, args).await.unwrap();
    wait_until("both sleep", || sleepers(base).len() == 1 && sleepers(base + 1).len() == 1).await;
    let child = ProcessFacts::of(sleepers(base + 1)[0].pid).unwrap().unwrap();
    assert_eq!(child.parent, record.process.pid);
    assert_ne!(child.uid, ProcessFacts::of(record.process.pid).unwrap().unwrap().uid);
    assert_eq!(node.client().end_receivers(record.process, SOON).await.unwrap(), 0);
    assert_eq!((sleepers(base).len(), sleepers(base + 1).len()), (1, 1), "neither was touched");
    // Its own parent is not the engine of this node, whoever asks.
    let parent = ProcessId::own().unwrap();
    let refused = node.client().end_receivers(parent, SOON).await.unwrap_err();
    assert!(matches!(refused.failure(), Some(Failure::NotOurs { .. })), "{refused:?}");
    let earlier = ProcessId { start_time: record.process.start_time - 1, ..record.process };
    let refused = node.client().receivers(earlier, SOON).await.unwrap_err();
    assert!(matches!(refused.failure(), Some(Failure::NotOurs { .. })), "{refused:?}");
    assert_eq!(sleepers(base).len(), 1);
    drop(of_another_parent);
}

#[tokio::test]
async fn the_hands_reach_processes_and_files_of_a_running_engine() {
    let node = Node::new().await;
    node.format().await;
    let base = 700_300;
    let data_dir = node.mount().join("pgdata");
    let (program, args) = script(&format!(
        "mkdir {}/pg_wal; ({RECEIVER} {base}) & while :; do /bin/sleep 0.05; done",
        data_dir.display()
    ));
    let record = node.supervisor().start(program, args).await.unwrap();
    wait_until("it sleeps", || sleepers(base).len() == 1).await;
    let hands = EngineHands { helper: node.client(), process: record.process, data_dir: data_dir.clone() };
    assert_eq!(hands.receivers().await.unwrap(), 1);
    assert_eq!(hands.end_receivers().await.unwrap(), 1);
    wait_until("it has ended", || sleepers(base).is_empty()).await;
    assert_eq!(hands.receivers().await.unwrap(), 0);

    let history = data_dir.join("pg_wal/00000002.history");
    let files = [RecoveryFile { path: "pg_wal/00000002.history".to_owned(), content: String::new() }];
    hands.ensure_files(&files).await.unwrap();
    let owner = |path: &Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
    assert_eq!(owner(&history), ProcessFacts::of(record.process.pid).unwrap().unwrap().uid);
    let client = node.client();
    assert!(
        hands::mend_log(&client, data_dir.clone()).await.unwrap().removed.is_empty(),
        "it may yet be promoted"
    );
    assert!(!data_dir.join(STANDBY_SIGNAL).exists());
    let made = hands::make_standby(&client, data_dir.clone()).await.unwrap();
    assert_eq!(made.removed, ["00000002.history"], "a placeholder above every history leads nowhere");
    assert!(data_dir.join(STANDBY_SIGNAL).exists() && !history.exists());
}
