//! Starting: two steps, nothing on the wrong disk, nothing inherited but lock and log.

use std::time::Duration;

use holdfast_agent::child::lock::LockView;
use holdfast_agent::child::spec::Refusal;
use holdfast_agent::helper::CallError;
use holdfast_agent::helper::protocol::{EngineProgram, Failure, ProcessState};
use holdfast_agent::supervisor::SupervisorError;
use holdfast_agent::supervisor::adopt::Found;
use holdfast_agent::supervisor::stop::{Step, StopBy, Stopped};
use nix::unistd::User;

use crate::node::{DAEMON, ENGINE, Node, SOON, impatient, script, wait_until};

#[tokio::test]
async fn the_engine_runs_as_its_user_with_lock_and_log_and_nothing_else_inherited() {
    let node = Node::new().await;
    node.format().await;
    let tell = "echo uid $(id -u) gids $(id -G) oom $(cat /proc/self/oom_score_adj); \
                echo mask $(grep SigBlk /proc/self/status) session $(ps -o sid= -p $$) pid $$; \
                ls -l /proc/$$/fd; env; echo told; sleep 600";
    let (program, args) = script(tell);
    let record = node.supervisor().start(program, args).await.unwrap();
    node.wait_for_log("told").await;
    let user = User::from_name(ENGINE).unwrap().unwrap();
    let log = node.log();
    let pid = record.process.pid;
    let oom = if may_lower_oom_score() { -900 } else { 0 };
    assert!(log.contains(&format!("uid {} gids {} oom {oom}\n", user.uid, user.gid)), "{log}");
    assert!(log.contains(&format!("mask SigBlk: 0000000000000000 session {pid} pid {pid}")), "{log}");
    let fds: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once(" -> ")?.1)).collect();
    let state = node.path("state/log/engine.log");
    let lock = node.mount().canonicalize().unwrap().join(".holdfast/engine.lock");
    for (name, count) in [("/dev/null", 1), (state.to_str().unwrap(), 2), (lock.to_str().unwrap(), 1)] {
        assert_eq!(fds.iter().filter(|fd| **fd == name).count(), count, "{name} in {log}");
    }
    assert_eq!(fds.len(), 4, "{log}");
    assert!(!log.contains("HOME="), "the environment is its own: {log}");
    assert_eq!(record.cgroup.as_deref(), Some(format!("/{}", node.cgroup_name()).as_str()));
    let daemon = User::from_name(DAEMON).unwrap().unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(&state.metadata().unwrap());
    assert_eq!(owner, daemon.uid.as_raw(), "the daemon truncates the log");
}

/// Many containers run without `CAP_SYS_RESOURCE`, bit 24 (capabilities(7)).
fn may_lower_oom_score() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    u64::from_str_radix(capabilities, 16).unwrap() & (1 << 24) != 0
}

#[tokio::test]
async fn a_stage_that_was_not_let_go_starts_nothing() {
    let mut node = Node::new().await;
    node.format().await;
    let (program, args) = script("echo started; sleep 600");
    let prepared = node.client().prepare_engine(program, args, SOON).await.unwrap();
    let LockView::Held { holders, .. } = node.client().look_at_lock(SOON).await.unwrap() else {
        panic!("a prepared stage holds the lock")
    };
    assert_eq!(holders[0].process, prepared.process);
    node.kill_agent().await;
    wait_until("the stage ended", || !prepared.process.is_running().unwrap()).await;
    node.start_agent().await;
    assert_eq!(node.client().look_at_lock(SOON).await.unwrap(), LockView::Free);
    assert_eq!(node.log(), "");
}

#[tokio::test]
async fn a_prepared_stage_gives_way_to_the_next_attempt() {
    let node = Node::new().await;
    node.format().await;
    let (program, args) = script("sleep 600");
    let first = node.client().prepare_engine(program, args.clone(), SOON).await.unwrap();
    let busy = node.client().prepare_engine(program, args.clone(), SOON).await.unwrap_err();
    assert!(matches!(busy.failure(), Some(Failure::Busy { .. })), "{busy:?}");
    wait_until("the first stage ended", || !first.process.is_running().unwrap()).await;
    let released = node.client().release_engine(first.process, SOON).await.unwrap_err();
    assert!(matches!(released.failure(), Some(Failure::NotOurs { .. })), "{released:?}");
    node.client().prepare_engine(program, args, SOON).await.unwrap();
}

#[tokio::test]
async fn nothing_starts_on_a_mount_point_without_its_volume() {
    let node = Node::on("kind = \"block\"\ndevices = [\"/dev/no-such-disk\"]").await;
    std::fs::create_dir_all(node.mount().join(".holdfast")).unwrap();
    std::fs::create_dir_all(node.mount().join("pgdata")).unwrap();
    let (program, args) = script("echo started");
    let err = node.client().prepare_engine(program, args, SOON).await.unwrap_err();
    assert!(matches!(err.failure(), Some(Failure::Refused(Refusal::NotMounted { .. }))), "{err:?}");
    assert!(!node.mount().join(".holdfast/engine.lock").exists(), "and nothing is written there");
}

#[tokio::test]
async fn a_link_planted_in_place_of_the_log_gains_nothing() {
    let node = Node::new().await;
    node.format().await;
    let target = node.path("only-root-may-write");
    std::fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, node.path("state/log/engine.log")).unwrap();
    let (program, args) = script("echo started");
    let err = node.client().prepare_engine(program, args, SOON).await.unwrap_err();
    assert!(matches!(err.failure(), Some(Failure::Refused(Refusal::Step { .. }))), "{err:?}");
    assert_eq!(std::fs::read(&target).unwrap(), b"");
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_told() {
    let node = Node::new().await;
    node.format().await;
    std::fs::remove_file(node.path("bin/postgres")).unwrap();
    let (program, args) = script("echo started");
    let err = node.supervisor().start(program, args).await.unwrap_err();
    let SupervisorError::Helper(CallError::Failed { source: Failure::Refused(refusal), .. }) = err else {
        panic!("{err:?}")
    };
    assert!(refusal.to_string().contains("bin/postgres: No such file"), "{refusal}");
}

#[tokio::test]
async fn without_root_the_same_shape_runs_as_one_user() {
    let mut node = Node::new().await;
    node.kill_agent().await;
    for name in ["", "dev"] {
        node.give_to_daemon(&node.path(name));
    }
    node.start_agent_through(&["setpriv", "--reuid", DAEMON, "--regid", DAEMON, "--clear-groups"]).await;
    node.format().await;
    let (program, args) =
        script("trap '' INT QUIT; setsid sleep 600 & echo uid $(id -u); while :; do sleep 0.1; done");
    let supervisor = node.supervisor();
    let record = supervisor.start(program, args).await.unwrap();
    let daemon = User::from_name(DAEMON).unwrap().unwrap();
    node.wait_for_log(&format!("uid {}\n", daemon.uid)).await;
    assert_eq!(record.cgroup, None);
    assert_eq!(supervisor.find().await.unwrap(), Found::Ours(record.clone()));
    let stopped = supervisor.stop(record.process, StopBy::Fast, impatient()).await.unwrap();
    assert_eq!(stopped, Stopped::Gone(Step::Kill));
    assert_eq!(supervisor.find().await.unwrap(), Found::Nothing);
}

#[tokio::test]
async fn a_child_that_exits_at_once_is_told_with_its_code() {
    let node = Node::new().await;
    node.format().await;
    let run = |text: &str| (EngineProgram::InitDb, vec!["-c".to_owned(), text.to_owned()]);
    let supervisor = node.supervisor();
    let (program, args) = run("exit 0");
    supervisor.run_to_end(program, args, SOON).await.unwrap();
    let (program, args) = run("exit 3");
    let err = supervisor.run_to_end(program, args, SOON).await.unwrap_err();
    assert!(
        matches!(err, SupervisorError::EndedBadly { state: ProcessState::Exited { code: 3 }, .. }),
        "{err:?}"
    );
    let (program, args) = run("kill -SEGV $$");
    let err = supervisor.run_to_end(program, args, SOON).await.unwrap_err();
    assert!(
        matches!(err, SupervisorError::EndedBadly { state: ProcessState::Killed { signal: 11 }, .. }),
        "{err:?}"
    );
}

#[tokio::test]
async fn a_child_that_hangs_in_its_start_is_killed_with_all_that_it_forked() {
    let node = Node::new().await;
    node.format().await;
    let args = vec!["-c".to_owned(), "setsid sleep 600 & sleep 600".to_owned()];
    let deadline = Duration::from_millis(300);
    let err = node.supervisor().run_to_end(EngineProgram::InitDb, args, deadline).await.unwrap_err();
    assert!(matches!(err, SupervisorError::NotEnded { .. }), "{err:?}");
    assert_eq!(node.client().engine_processes(SOON).await.unwrap(), vec![]);
    assert_eq!(node.client().look_at_lock(SOON).await.unwrap(), LockView::Free);
}
