//! Whose engine it is: after an agent restart, across containers, and with strangers.

use std::process::Stdio;

use holdfast_agent::child::lock;
use holdfast_agent::child::spec::Refusal;
use holdfast_agent::helper::CallError;
use holdfast_agent::helper::protocol::{Failure, ProcessState};
use holdfast_agent::supervisor::SupervisorError;
use holdfast_agent::supervisor::adopt::Found;
use holdfast_agent::supervisor::stop::{Step, StopBy, Stopped};

use crate::node::{Killed, Node, SOON, command, impatient, script};

fn held_by(err: &SupervisorError) -> Vec<i32> {
    let SupervisorError::Helper(CallError::Failed {
        source: Failure::Refused(Refusal::LockHeld { holders }),
        ..
    }) = err
    else {
        panic!("not refused for the lock: {err:?}")
    };
    holders.iter().map(|holder| holder.process.pid).collect()
}

#[tokio::test]
async fn an_engine_is_adopted_after_an_agent_restart_and_never_started_twice() {
    let mut node = Node::new().await;
    node.format().await;
    let (program, args) = script("trap 'exit 0' INT; echo ready; while :; do sleep 0.02; done");
    let record = node.supervisor().start(program, args.clone()).await.unwrap();
    node.wait_for_log("ready").await;
    node.kill_agent().await;
    assert!(record.process.is_running().unwrap(), "the engine outlives the agent");
    node.start_agent().await;
    let supervisor = node.supervisor();
    assert_eq!(supervisor.remembered().unwrap(), Some(record.clone()));
    assert_eq!(supervisor.find().await.unwrap(), Found::Ours(record.clone()));
    let err = supervisor.start(program, args).await.unwrap_err();
    assert!(held_by(&err).contains(&record.process.pid), "{err:?}");
    assert_eq!(
        supervisor.find().await.unwrap(),
        Found::Ours(record.clone()),
        "a refused start forgets nothing"
    );
    let stopped = supervisor.stop(record.process, StopBy::Fast, impatient()).await.unwrap();
    assert_eq!(stopped, Stopped::Gone(Step::Fast));
    let ended = supervisor.ended(record.process).await.unwrap();
    assert_eq!(ended, ProcessState::Unknown, "nobody can tell how an adopted engine ended");
    assert_eq!(supervisor.remembered().unwrap(), None);
}

#[tokio::test]
async fn a_lock_held_by_a_stranger_refuses_the_start_and_names_him() {
    let node = Node::new().await;
    node.format().await;
    let path = node.mount().join(".holdfast/engine.lock");
    let file = lock::open(&path).unwrap();
    lock::take(&file, &path).unwrap();
    node.give_to_daemon(&path);
    let stranger = Killed(command("/bin/sleep").arg("600").stdin(Stdio::from(file)).spawn().unwrap());
    let pid = stranger.0.id().cast_signed();
    let supervisor = node.supervisor();
    let found = supervisor.find().await.unwrap();
    assert!(matches!(&found, Found::Strangers(holders) if holders[0].process.pid == pid), "{found:?}");
    let (program, args) = script("echo started");
    assert_eq!(held_by(&supervisor.start(program, args).await.unwrap_err()), [pid]);
    assert_eq!(node.log(), "");
    supervisor.kill_orphans(impatient()).await.unwrap();
    assert_eq!(
        node.client().engine_processes(SOON).await.unwrap(),
        vec![],
        "a stranger is no process of ours"
    );
}

#[tokio::test]
async fn a_second_agent_in_other_pid_and_ipc_namespaces_starts_nothing() {
    let mut node = Node::new().await;
    node.format().await;
    let (program, args) = script("echo ready; sleep 600");
    let record = node.supervisor().start(program, args.clone()).await.unwrap();
    node.wait_for_log("ready").await;
    node.kill_agent().await;
    node.start_agent_through(&["unshare", "--pid", "--ipc", "--mount-proc", "--fork", "--kill-child"]).await;
    let err = node.supervisor().start(program, args).await.unwrap_err();
    assert_eq!(held_by(&err), Vec::<i32>::new(), "who holds it cannot be seen from there");
    assert!(err_text(&err).contains("another pid namespace"), "{}", err_text(&err));
    let found = node.supervisor().find().await.unwrap();
    assert_eq!(found, Found::Strangers(vec![]));
    assert!(record.process.is_running().unwrap());
    assert_eq!(node.log().matches("ready").count(), 1);
}

fn err_text(err: &SupervisorError) -> String {
    holdfast_agent::chain::Chain(err).to_string()
}
