//! The engine's log: nothing that happens to the agent holds the engine up.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::{Node, script, wait_until};

/// More than any pipe or socket holds.
const FLOOD: &str = "trap '' PIPE; for i in 1 2 3; do head -c 8000000 /dev/zero | tr '\\0' 'x'; echo; done; \
                     echo done $i > MARK; sleep 600";

async fn floods_while(node: &Node) {
    let mark = node.mount().join("pgdata/mark");
    let (program, args) = script(&FLOOD.replace("MARK", mark.to_str().unwrap()));
    // Started while the agent is well; the flood goes on whatever comes.
    node.supervisor().start(program, args).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_is_stopped_never_blocks_the_engine() {
    let node = Node::new().await;
    node.format().await;
    floods_while(&node).await;
    let helper = Pid::from_raw(node.helper_pid());
    kill(helper, Signal::SIGSTOP).unwrap();
    let mark = node.mount().join("pgdata/mark");
    wait_until("the engine has logged all it wanted", || mark.exists()).await;
    kill(helper, Signal::SIGCONT).unwrap();
    assert!(node.log().len() > 24_000_000, "and nothing of it is lost");
}

#[tokio::test]
async fn an_agent_that_is_dead_never_blocks_the_engine() {
    let mut node = Node::new().await;
    node.format().await;
    floods_while(&node).await;
    node.kill_agent().await;
    let mark = node.mount().join("pgdata/mark");
    wait_until("the engine has logged all it wanted", || mark.exists()).await;
    assert!(node.log().len() > 24_000_000);
}
