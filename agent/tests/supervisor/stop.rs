//! Stopping: politely, firmly, and everything at once.

use std::fs;

use holdfast_agent::child::process::ProcessId;
use holdfast_agent::helper::protocol::{EngineSignal, Failure};
use holdfast_agent::supervisor::adopt::Found;
use holdfast_agent::supervisor::stop::{Patience, Step, StopBy, Stopped};
use nix::sys::signal::{Signal, kill};

use crate::node::{Killed, Node, SOON, command, impatient, script, wait_until};

#[tokio::test]
async fn a_polite_child_needs_one_signal() {
    let node = Node::new().await;
    node.format().await;
    let supervisor = node.supervisor();
    for (by, step) in [(StopBy::Fast, Step::Fast), (StopBy::Immediate, Step::Immediate)] {
        let (program, args) = script("trap 'exit 0' INT QUIT; echo ready; while :; do sleep 0.02; done");
        let record = supervisor.start(program, args).await.unwrap();
        wait_until("it is ready", || {
            node.log().matches("ready").count() > usize::from(by == StopBy::Immediate)
        })
        .await;
        let patience = Patience { fast: SOON, immediate: SOON, kill: SOON };
        let stopped = supervisor.stop(record.process, by, patience).await.unwrap();
        assert_eq!(stopped, Stopped::Gone(step));
        assert_eq!(supervisor.find().await.unwrap(), Found::Nothing);
    }
}

#[tokio::test]
async fn a_reload_reaches_the_engine() {
    let node = Node::new().await;
    node.format().await;
    let (program, args) = script("trap 'echo reloaded' HUP; echo ready; while :; do sleep 0.02; done");
    let record = node.supervisor().start(program, args).await.unwrap();
    node.wait_for_log("ready").await;
    node.supervisor().reload(record.process).await.unwrap();
    node.wait_for_log("reloaded").await;
}

/// Ignores every polite signal; its grandchildren are in sessions of their own and one has let go of the lock.
const STUBBORN: &str = "trap '' INT QUIT TERM; \
    setsid bash -c 'trap \"\" INT QUIT TERM; sleep 600 & while :; do sleep 1; done' & \
    (for fd in /proc/self/fd/*; do fd=${fd##*/}; [ $fd -gt 2 ] && eval \"exec $fd>&-\"; done; exec setsid sleep 601) & \
    sleep 0.2; echo ready; while :; do sleep 1; done";

#[tokio::test]
async fn a_child_that_ignores_signals_is_killed_with_all_that_it_forked() {
    let node = Node::new().await;
    node.format().await;
    let supervisor = node.supervisor();
    let (program, args) = script(STUBBORN);
    let record = supervisor.start(program, args).await.unwrap();
    node.wait_for_log("ready").await;
    let before = node.client().engine_processes(SOON).await.unwrap();
    assert!(before.len() >= 4, "{before:?}");
    let stopped = supervisor.stop(record.process, StopBy::Fast, impatient()).await.unwrap();
    assert_eq!(stopped, Stopped::Gone(Step::Kill));
    for facts in before {
        assert!(!facts.process.is_running().unwrap(), "{facts} still runs");
    }
}

#[tokio::test]
async fn without_its_cgroup_all_is_found_by_lock_and_parentage() {
    let node = Node::new().await;
    node.format().await;
    let supervisor = node.supervisor();
    let (program, args) = script(STUBBORN);
    let record = supervisor.start(program, args).await.unwrap();
    node.wait_for_log("ready").await;
    let root = node.cgroup().join("../../../cgroup.procs");
    let in_cgroup = || fs::read_to_string(node.cgroup().join("cgroup.procs")).unwrap();
    wait_until("all are moved, those just forked too", || {
        for pid in in_cgroup().lines() {
            // One that ended meanwhile cannot be moved.
            drop(fs::write(&root, pid));
        }
        in_cgroup().is_empty()
    })
    .await;
    let before = node.client().engine_processes(SOON).await.unwrap();
    assert!(before.len() >= 4, "{before:?}");
    let stopped = supervisor.stop(record.process, StopBy::Immediate, impatient()).await.unwrap();
    assert_eq!(stopped, Stopped::Gone(Step::Kill));
    for facts in before {
        assert!(!facts.process.is_running().unwrap(), "{facts} still runs");
    }
}

#[tokio::test]
async fn orphans_of_a_dead_engine_are_found_and_killed_before_the_next_start() {
    let node = Node::new().await;
    node.format().await;
    let supervisor = node.supervisor();
    let (program, args) = script("setsid sleep 600 & echo ready; while :; do sleep 1; done");
    let record = supervisor.start(program, args.clone()).await.unwrap();
    node.wait_for_log("ready").await;
    kill(record.process.as_nix(), Signal::SIGKILL).unwrap();
    supervisor.ended(record.process).await.unwrap();
    let found = supervisor.find().await.unwrap();
    assert!(matches!(&found, Found::Orphans(orphans) if !orphans.is_empty()), "{found:?}");
    supervisor.start(program, args.clone()).await.unwrap_err();
    assert_eq!(supervisor.kill_orphans(impatient()).await.unwrap(), Stopped::Gone(Step::Kill));
    assert_eq!(supervisor.find().await.unwrap(), Found::Nothing);
    supervisor.start(program, args).await.unwrap();
}

#[tokio::test]
async fn the_helper_signals_nothing_but_the_engine() {
    let node = Node::new().await;
    node.format().await;
    let other = Killed(command("/bin/sleep").arg("600").spawn().unwrap());
    let process = ProcessId::of(other.0.id().cast_signed()).unwrap().unwrap();
    let err = node.client().signal_engine(process, EngineSignal::Immediate, SOON).await.unwrap_err();
    assert!(matches!(err.failure(), Some(Failure::NotOurs { .. })), "{err:?}");
    let err = node.client().kill_worker(process, SOON).await.unwrap_err();
    assert!(matches!(err.failure(), Some(Failure::NotOurs { .. })), "{err:?}");
    node.client().kill_engine(SOON).await.unwrap();
    assert!(process.is_running().unwrap());
}
