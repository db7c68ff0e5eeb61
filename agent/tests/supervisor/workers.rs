//! Workers as the helper starts them: whose they are, what they can do, how they end.

use holdfast_agent::child::process::ProcessFacts;
use holdfast_agent::helper::protocol::Failure;
use holdfast_agent::worker::{JobError, JobHandle, Role, VolumeCallError, VolumeWorker};
use holdfast_model::{ClusterId, Member, Promise, Term};
use nix::unistd::User;

use crate::node::{DAEMON, ENGINE, Node, SOON, wait_until};

fn uid_of(user: &str) -> u32 {
    User::from_name(user).unwrap().unwrap().uid.as_raw()
}

#[tokio::test]
async fn a_volume_worker_keeps_the_volume_as_the_daemons_user() {
    let node = Node::new().await;
    node.format().await;
    let started = node.client().start_worker(Role::Volume, SOON).await.unwrap();
    let worker = VolumeWorker::new(started).unwrap();
    let identity = worker.identity(SOON).await.unwrap();
    assert_eq!(ProcessFacts::of(worker.process().pid).unwrap().unwrap().uid, uid_of(DAEMON));
    let cluster = ClusterId::new(identity.cluster.clone(), u128::MAX);
    let member = Member { node: identity.node.clone(), incarnation: identity.incarnation };
    let promise = Promise { cluster: cluster.clone(), member, max_term: Term::FIRST, attempt: u128::MAX };
    worker.persist_promise(identity.clone(), promise.clone(), SOON).await.unwrap();
    assert_eq!(worker.promise(identity, SOON).await.unwrap(), Some(promise));
    assert_eq!(worker.bind(cluster.clone(), SOON).await.unwrap().cluster_id, Some(cluster));
    worker.probe(SOON).await.unwrap();
    worker.reserve(SOON).await.unwrap();
    worker.release_reserve(SOON).await.unwrap();
    assert!(worker.space(SOON).await.unwrap().total.bytes() > 0);
    let process = worker.process();
    drop(worker);
    wait_until("the worker ended with its channel", || !process.is_running().unwrap()).await;
    let err = node.client().kill_worker(process, SOON).await.unwrap_err();
    assert!(matches!(err.failure(), Some(Failure::NotOurs { .. })), "{err:?}");
}

#[tokio::test]
async fn a_worker_that_is_killed_is_gone_for_its_callers() {
    let node = Node::new().await;
    node.format().await;
    let worker = VolumeWorker::new(node.client().start_worker(Role::Volume, SOON).await.unwrap()).unwrap();
    worker.probe(SOON).await.unwrap();
    node.client().kill_worker(worker.process(), SOON).await.unwrap();
    assert!(matches!(worker.probe(SOON).await, Err(VolumeCallError::Gone(_))));
}

#[tokio::test]
async fn a_job_worker_runs_as_the_engines_user_and_ends_with_its_handle() {
    let node = Node::new().await;
    node.format().await;
    for role in [Role::Backup, Role::Restore, Role::Ship] {
        let started = node.client().start_worker(role, SOON).await.unwrap();
        let process = started.0;
        let none = serde_json::json!({ "no such": "job" });
        let job = JobHandle::start(started, &none, SOON).await.unwrap();
        if let Some(facts) = ProcessFacts::of(process.pid).unwrap() {
            assert_eq!(facts.uid, uid_of(ENGINE));
        }
        let ended = job.next().await.map_err(|err| assert!(matches!(err, JobError::Failed(_)), "{err:?}"));
        drop(ended);
        wait_until("the worker ended", || !process.is_running().unwrap()).await;
    }
}
