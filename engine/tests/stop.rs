//! How a real server ends: with all its processes, never by restarting itself (T5), never by answering a commit that
//! waits for acks (T6).

mod support;

use holdfast_engine::Ackers;
use holdfast_engine::Engine;
use holdfast_engine::postgres::Postgres;
use holdfast_model::Rule;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Server, client, eventually, lone_rule};

#[tokio::test]
async fn an_immediate_stop_ends_every_process_and_the_next_start_recovers() {
    let mut server = Server::init(15);
    let session = server.start().await;
    let children = server.children();
    assert!(children.len() >= 5, "{children:?}");
    server.signal(Signal::SIGQUIT);
    server.ended().await;
    eventually("every process is gone", async || children.iter().all(|pid| kill(*pid, None).is_err())).await;
    eventually("the session notices", async || session.is_spoilt()).await;
    server.start().await;
    assert!(server.log().contains("automatic recovery in progress"), "{}", server.log());
}

#[tokio::test]
async fn one_killed_backend_ends_the_server_instead_of_restarting_it_behind_the_agents_back() {
    let mut server = Server::init(15);
    server.start().await;
    let victim = client(&server.setup.layout, "holdfast").await.unwrap();
    let pid: i32 = victim.sql.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert!(!server.ended().await.success());
}

#[tokio::test]
async fn a_commit_that_waits_for_acks_is_counted_left_alone_and_never_answered() {
    let mut server = Server::init(15);
    let session = server.start().await;
    let layout = server.setup.layout.clone();
    let writer = client(&layout, "holdfast").await.unwrap();
    writer.sql.batch_execute("CREATE TABLE public.t (id int)").await.unwrap();
    let mut postgres = Postgres::new(server.setup.clone());
    postgres.write_rules(&[], &lone_rule(1, 1)).await.unwrap();
    postgres.apply_gate(&support::CLOSED, &Ackers::Nobody).await.unwrap();

    let commit = writer.sql.batch_execute("INSERT INTO public.t VALUES (1)");
    let stop = async {
        eventually("the commit waits", async || session.waiters().await.unwrap() == 1).await;
        let rule = Rule { k: 1, ..lone_rule(1, 1) };
        let refused = session.terminate_clients(&rule).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "1 commits wait for acks: clients are not ended before they are acked"
        );
        server.signal(Signal::SIGQUIT);
    };
    let (answer, ()) = tokio::join!(commit, stop);
    assert!(answer.is_err(), "a commit that nobody acked was answered");
    server.ended().await;
}
