//! A disk that stalls: what touches it is given up, everything else goes on.

use std::fs;
use std::time::Duration;

use holdfast_agent::helper::protocol::Failure;
use holdfast_agent::supervisor::adopt::Found;
use holdfast_agent::supervisor::stop::{Patience, Step, StopBy, Stopped};
use holdfast_agent::worker::{Role, VolumeCallError, VolumeWorker};
use holdfast_storage::mount::Unmount;
use holdfast_storage::ops::{Response, Seen, Verb};
use tokio::time::Instant;

use crate::disk::Disk;
use crate::node::{Node, SOON, impatient, script, wait_until};

/// Nothing that touches the disk is waited for longer in these tests.
const BRIEF: Duration = Duration::from_millis(500);

async fn worker_of(node: &Node) -> VolumeWorker {
    VolumeWorker::new(node.client().start_worker(Role::Volume, SOON).await.unwrap()).unwrap()
}

async fn mount_verb(node: &Node) -> Verb {
    let planned = node.client().volume(Verb::Plan, SOON).await.unwrap();
    let Response::Planned { devices } = planned else { panic!("{planned:?}") };
    Verb::Mount { seen: Seen::of(&devices[0].found.device, &devices[0].found.verdict) }
}

#[tokio::test]
async fn a_stalled_operation_is_given_up_and_the_helper_still_answers() {
    let disk = Disk::new();
    let node = Node::on(&disk.volume()).await;
    node.format().await;
    let mount = mount_verb(&node).await;
    let worker = worker_of(&node).await;
    worker.probe(SOON).await.unwrap();

    let stall = disk.stall();
    assert!(matches!(worker.probe(BRIEF).await, Err(VolumeCallError::Late { .. })));
    assert!(matches!(worker.space(BRIEF).await, Err(VolumeCallError::Overdue { .. })));
    let late = node.client().volume(mount.clone(), BRIEF).await.unwrap_err();
    assert!(matches!(late.failure(), Some(Failure::Late { .. })), "{late:?}");
    let busy = node.client().volume(mount.clone(), BRIEF).await.unwrap_err();
    assert!(
        matches!(busy.failure(), Some(Failure::Busy { .. })),
        "no change beside an abandoned one: {busy:?}"
    );
    let begun = Instant::now();
    assert_eq!(node.client().engine_processes(SOON).await.unwrap(), vec![]);
    assert!(begun.elapsed() < BRIEF, "the helper itself waits for nothing");

    let begun = Instant::now();
    assert_eq!(node.client().volume(Verb::ShutDown, SOON).await.unwrap(), Response::ShutDown);
    assert!(begun.elapsed() < Duration::from_secs(5), "the fence works during the stall");
    drop(stall);
    worker.settle(SOON).await.unwrap();
    let failed = worker.probe(SOON).await.unwrap_err();
    assert!(failed.blames_disk(), "no write goes through after the fence: {failed:?}");
    drop(worker);
    let unmount = Verb::Unmount { how: Unmount::Plain };
    let until = Instant::now() + SOON;
    loop {
        match node.client().volume(unmount.clone(), SOON).await {
            Ok(response) => break assert_eq!(response, Response::Unmounted),
            Err(err) => assert!(Instant::now() < until, "the abandoned operation never ends: {err:?}"),
        }
    }
}

#[tokio::test]
async fn an_engine_on_a_stalled_disk_is_unkillable_and_said_to_be() {
    let disk = Disk::new();
    let node = Node::on(&disk.volume()).await;
    node.format().await;
    let supervisor = node.supervisor();
    let file = node.mount().join("pgdata/x");
    let write = format!("dd if=/dev/zero of={} bs=4k count=1 oflag=direct,sync status=none", file.display());
    let (program, args) = script(&format!("{write}; echo ready; while :; do {write}; done"));
    let record = supervisor.start(program, args).await.unwrap();
    node.wait_for_log("ready").await;

    let stall = disk.stall();
    let patience = Patience { kill: Duration::from_secs(1), ..impatient() };
    let stopped = supervisor.stop(record.process, StopBy::Immediate, patience).await.unwrap();
    assert!(matches!(&stopped, Stopped::Unkillable(left) if !left.is_empty()), "{stopped:?}");
    assert_eq!(node.client().volume(Verb::ShutDown, SOON).await.unwrap(), Response::ShutDown);
    drop(stall);
    assert_eq!(supervisor.kill_orphans(Patience::default()).await.unwrap(), Stopped::Gone(Step::Kill));
    assert_eq!(supervisor.remembered().unwrap(), None);
    let unmounted = node.client().volume(Verb::Unmount { how: Unmount::Plain }, SOON).await.unwrap();
    assert_eq!(unmounted, Response::Unmounted);
}

#[tokio::test]
async fn an_agent_dies_at_once_during_a_stall_and_the_next_one_serves() {
    let disk = Disk::new();
    let mut node = Node::on(&disk.volume()).await;
    node.format().await;
    let (program, args) = script("trap '' INT QUIT; echo ready; while :; do sleep 0.1; done");
    let record = node.supervisor().start(program, args).await.unwrap();
    node.wait_for_log("ready").await;
    let worker = worker_of(&node).await;
    worker.probe(SOON).await.unwrap();

    let _stall = disk.stall();
    let stuck = worker.process();
    assert!(matches!(worker.probe(BRIEF).await, Err(VolumeCallError::Late { .. })));
    drop(worker);
    assert!(node.kill_agent().await < Duration::from_secs(5), "the helper does not wait for anybody");
    assert!(stuck.is_running().unwrap(), "the worker waits in the kernel");
    assert_eq!(foreign_descriptors(stuck.pid, &node), Vec::<String>::new(), "nothing that an agent needs");
    node.start_agent().await;
    let supervisor = node.supervisor();
    assert_eq!(supervisor.remembered().unwrap(), Some(record.clone()));
    assert_eq!(supervisor.find().await.unwrap(), Found::Ours(record.clone()), "the lock is in memory");
    wait_until("the worker ended after the stall", {
        let mut stall = Some(_stall);
        move || {
            drop(stall.take());
            !stuck.is_running().unwrap()
        }
    })
    .await;
}

/// What a process holds open beside standard streams, its own channel and files of the volume.
fn foreign_descriptors(pid: i32, node: &Node) -> Vec<String> {
    let link = |fd: &str| fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap().to_str().unwrap().to_owned();
    let channel = link("0");
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    fds.map(|fd| fd.unwrap().file_name().into_string().unwrap())
        .filter(|fd| !matches!(fd.as_str(), "0" | "1" | "2"))
        .map(|fd| link(&fd))
        .filter(|target| *target != channel && !target.starts_with(node.mount().to_str().unwrap()))
        .collect()
}
