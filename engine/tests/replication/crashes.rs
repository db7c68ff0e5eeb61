//! A primary that crashes with commits that nobody acked: T5, T6, T7 and P2.

use holdfast_engine::Ackers;
use holdfast_engine::postgres::hba::ClientRule;
use holdfast_engine::postgres::session::Session;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use test_case::test_case;

use crate::support::{Client, OPEN, Server, client, eventually};

/// A server with an open gate, the role `app` and a table, whose commits wait for nobody that exists.
async fn open(major: u32, restarts_itself: bool) -> (Server, Session) {
    let mut server = Server::init(major);
    server.setup.clients = vec![ClientRule::parse("local all app trust").unwrap()];
    if restarts_itself {
        server.recovery.insert("restart_after_crash", "on".to_owned());
    }
    let session = server.start().await;
    let sql = client(&server.setup.layout, "holdfast").await.unwrap();
    let make = "CREATE ROLE app LOGIN; CREATE TABLE public.t (id int); GRANT ALL ON public.t TO app";
    sql.sql.batch_execute(make).await.unwrap();
    server.install_with(&OPEN, &Ackers::Nobody);
    session.reload().await.unwrap();
    eventually("the gate is open", async || app(&server).await.is_some()).await;
    (server, session)
}

async fn app(server: &Server) -> Option<Client> {
    client(&server.setup.layout, "app").await.ok()
}

/// Sends a commit that waits for ever, and goes on with `then` while it waits. The commit is never answered.
async fn with_waiter(server: &Server, session: &Session, then: impl AsyncFnOnce()) {
    let writer = app(server).await.unwrap();
    let commit = writer.sql.batch_execute("INSERT INTO public.t VALUES (1)");
    let crash = async {
        eventually("the commit waits", async || session.waiters().await.unwrap() == 1).await;
        then().await;
    };
    let (answer, ()) = tokio::join!(commit, crash);
    assert!(answer.is_err(), "a commit that nobody acked was answered");
}

async fn rows(client: &Client) -> i64 {
    client.sql.query_one("SELECT count(*) FROM public.t", &[]).await.unwrap().get(0)
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_server_that_restarts_itself_serves_what_nobody_acked(major: u32) {
    let kill_one = async |server: &Server| {
        let victim = app(server).await.unwrap();
        let pid: i32 = victim.sql.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    };
    // The trap (T5).
    let (server, session) = open(major, true).await;
    with_waiter(&server, &session, async || kill_one(&server).await).await;
    let served = async || match app(&server).await {
        Some(app) => rows(&app).await == 1,
        None => false,
    };
    eventually("the row is served", served).await;

    // Ours ends, and comes back behind a closed gate.
    let (mut server, session) = open(major, false).await;
    with_waiter(&server, &session, async || kill_one(&server).await).await;
    assert!(!server.ended().await.success());
    server.start().await;
    assert!(app(&server).await.is_none());
}

#[tokio::test]
async fn a_restart_makes_waiting_commits_visible_and_ours_lets_nobody_look() {
    let (mut server, session) = open(15, false).await;
    // T6: an immediate stop answers nobody.
    with_waiter(&server, &session, async || server.signal(Signal::SIGQUIT)).await;
    server.ended().await;
    // The trap (P2): started with an open gate, it serves the row.
    server.spawn();
    drop(server.session().await);
    assert_eq!(rows(&app(&server).await.unwrap()).await, 1);
    server.signal(Signal::SIGQUIT);
    server.ended().await;
    server.start().await;
    assert!(app(&server).await.is_none());
}

#[tokio::test]
async fn a_postmaster_killed_alone_leaves_readers_that_see_what_nobody_acked() {
    // Answers once it sees a row.
    let busy = "DO $$ BEGIN LOOP EXIT WHEN EXISTS (SELECT FROM public.t); END LOOP; END $$";
    let reading = async |server: &Server| {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO $$ BEGIN LOOP%' AND state = 'active'";
        let looker = client(&server.setup.layout, "holdfast").await.unwrap();
        let busy = async || looker.sql.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1;
        eventually("the reader is busy", busy).await;
    };
    // The trap (T7).
    let (server, session) = open(15, false).await;
    let reader = app(&server).await.unwrap();
    let saw = reader.sql.batch_execute(busy);
    let crash = with_waiter(&server, &session, async || {
        reading(&server).await;
        server.signal(Signal::SIGKILL);
    });
    let (saw, ()) = tokio::join!(saw, crash);
    saw.expect("the surviving reader sees the row and answers");

    // Ours ends all of them.
    let (server, session) = open(15, false).await;
    let reader = app(&server).await.unwrap();
    let saw = reader.sql.batch_execute(busy);
    let crash = with_waiter(&server, &session, async || {
        reading(&server).await;
        server.signal(Signal::SIGQUIT);
    });
    let (saw, ()) = tokio::join!(saw, crash);
    assert!(saw.is_err(), "a reader answered with what nobody acked");
}
