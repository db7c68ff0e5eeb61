//! How the promise is broken from within, and that it is noticed: P1, P3, P4, P5, P11.

use holdfast_engine::Ackers;
use holdfast_engine::postgres::breach::{Breach, classify};
use holdfast_engine::postgres::links::Links;
use holdfast_engine::postgres::session::Session;
use holdfast_engine::postgres::sync;
use holdfast_model::Rule;
use test_case::test_case;

use crate::support::{CLOSED, Client, Server, client, eventually, lone_rule};

/// A server whose commits wait for nobody that exists, with a table that is there already.
async fn waiting(major: u32) -> (Server, Session, Client) {
    let mut server = Server::init(major);
    let session = server.start().await;
    let sql = client(&server.setup.layout, "holdfast").await.unwrap();
    sql.sql.batch_execute("CREATE TABLE public.t (id int)").await.unwrap();
    put(&server, &session, &Ackers::Nobody).await;
    (server, session, sql)
}

async fn put(server: &Server, session: &Session, sync: &Ackers) {
    server.install_with(&CLOSED, sync);
    session.reload().await.unwrap();
    let wanted = sync::render(sync);
    let done = async || session.setting("synchronous_standby_names").await.unwrap() == wanted;
    eventually("the list is in force", done).await;
}

fn breaches(server: &Server) -> Vec<Breach> {
    server.log().lines().filter_map(classify).collect()
}

async fn count(sql: &Client) -> i64 {
    sql.sql.query_one("SELECT count(*) FROM public.t", &[]).await.unwrap().get(0)
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_cancelled_wait_shows_its_row_and_is_counted(major: u32) {
    let (server, session, sql) = waiting(major).await;
    let layout = server.setup.layout.clone();
    for (function, answered, breach) in
        [("pg_cancel_backend", true, Breach::Cancelled), ("pg_terminate_backend", false, Breach::Ended)]
    {
        let (before, told) = (count(&sql).await, breaches(&server).len());
        let writer = client(&layout, "holdfast").await.unwrap();
        let commit = writer.sql.batch_execute("INSERT INTO public.t VALUES (1)");
        let end = async {
            eventually("the commit waits", async || session.waiters().await.unwrap() == 1).await;
            assert_eq!(count(&sql).await, before);
            let end = format!("SELECT {function}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
            sql.sql.batch_execute(&end).await.unwrap();
        };
        let (answer, ()) = tokio::join!(commit, end);
        // The trap (P1): nobody acked it, and it is there for all to see.
        assert_eq!(answer.is_ok(), answered, "{answer:?}");
        eventually("the row shows", async || count(&sql).await == before + 1).await;
        let counted = async || breaches(&server).len() == told + 1;
        eventually("it is counted", counted).await;
        assert_eq!(breaches(&server).last(), Some(&breach));
    }
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_statement_timeout_ends_the_wait_of_a_procedures_commit_and_is_counted(major: u32) {
    let (server, session, sql) = waiting(major).await;
    // A commit that is a statement of its own is not timed any more once it waits: it waits on.
    let timed = "SET statement_timeout = '1s'";
    let alone = client(&server.setup.layout, "holdfast").await.unwrap();
    alone.sql.batch_execute(timed).await.unwrap();
    let commit = alone.sql.batch_execute("INSERT INTO public.t VALUES (1)");
    let procedure = async {
        eventually("the commit waits", async || session.waiters().await.unwrap() == 1).await;
        // The trap: one inside of a statement is.
        let writer = client(&server.setup.layout, "holdfast").await.unwrap();
        writer.sql.batch_execute(timed).await.unwrap();
        let inside = "DO $$ BEGIN INSERT INTO public.t VALUES (2); COMMIT; END $$";
        writer.sql.batch_execute(inside).await.unwrap();
        eventually("its row shows", async || count(&sql).await == 1).await;
        eventually("it is counted", async || breaches(&server) == [Breach::Cancelled]).await;
        assert_eq!(session.waiters().await.unwrap(), 1);
        put(&server, &session, &Ackers::Alone).await;
    };
    let (answer, ()) = tokio::join!(commit, procedure);
    answer.unwrap();
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn weakened_roles_and_databases_are_found(major: u32) {
    let (server, session, _sql) = waiting(major).await;
    put(&server, &session, &Ackers::Alone).await;
    assert_eq!(session.weakened().await.unwrap(), Default::default());
    let sql = client(&server.setup.layout, "holdfast").await.unwrap();
    for change in [
        "CREATE ROLE app LOGIN",
        "CREATE ROLE strong LOGIN",
        "CREATE DATABASE shop",
        "ALTER ROLE strong SET synchronous_commit = remote_apply",
        "ALTER ROLE app SET synchronous_commit = off",
        "ALTER ROLE app SET work_mem = '1MB'",
        "ALTER DATABASE shop SET synchronous_commit = remote_write",
        "ALTER ROLE app IN DATABASE shop SET synchronous_commit = local",
    ] {
        sql.sql.batch_execute(change).await.unwrap();
    }
    let found = session.weakened().await.unwrap();
    let found: Vec<_> =
        found.iter().map(|it| (it.value.as_str(), it.role.as_deref(), it.database.as_deref())).collect();
    assert_eq!(
        found,
        [
            ("local", Some("app"), Some("shop")),
            ("off", Some("app"), None),
            ("remote_write", None, Some("shop"))
        ]
    );

    // The trap (P3): such a role's commit is answered although nobody may ack. That it can be is documented, not hidden.
    put(&server, &session, &Ackers::Nobody).await;
    sql.sql.batch_execute("SET synchronous_commit = off; INSERT INTO public.t VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn an_emptied_list_answers_every_waiter_and_ours_is_never_empty() {
    let (server, session, sql) = waiting(15).await;
    let writer = client(&server.setup.layout, "holdfast").await.unwrap();
    let commit = writer.sql.batch_execute("INSERT INTO public.t VALUES (1)");
    let change = async {
        eventually("the commit waits", async || session.waiters().await.unwrap() == 1).await;
        // Ours: a rule that nobody can ack, any more or yet.
        put(&server, &session, &Ackers::of(&Rule { k: 1, ..lone_rule(1, 1) })).await;
        assert_eq!((session.waiters().await.unwrap(), count(&sql).await), (1, 0));
        // The trap (P5).
        put(&server, &session, &Ackers::Alone).await;
    };
    let (answer, ()) = tokio::join!(commit, change);
    answer.unwrap();
    assert_eq!(count(&sql).await, 1);
}

#[tokio::test]
async fn what_makes_an_ack_a_flush_cannot_be_altered() {
    let mut server = Server::init(15);
    server.start().await;
    let sql = client(&server.setup.layout, "holdfast").await.unwrap();
    // P4 and P11, and what would keep a recruited member from applying what it has.
    let pinned = [
        ("synchronous_commit", "remote_write", "on"),
        ("fsync", "off", "on"),
        ("full_page_writes", "off", "on"),
        ("data_sync_retry", "on", "off"),
        ("restart_after_crash", "on", "off"),
        ("wal_log_hints", "off", "on"),
        ("recovery_min_apply_delay", "60000", "0"),
        ("restore_command", "false", ""),
    ];
    for (name, weak, _) in pinned {
        sql.sql.batch_execute(&format!("ALTER SYSTEM SET {name} = '{weak}'")).await.unwrap();
    }
    server.kill();
    server.ended().await;
    let session = server.start().await;
    for (name, _, strong) in pinned {
        assert_eq!(session.setting(name).await.unwrap(), strong, "{name}");
    }
    assert_eq!(session.weakened().await.unwrap(), Default::default());
}

#[tokio::test]
async fn an_include_in_the_hba_file_keeps_the_old_rules() {
    // The trap (T10), on 15: the file is not loaded, and nothing says so but this view.
    let mut server = Server::init(15);
    let session = server.start().await;
    let path = server.setup.layout.hba_file();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}include \"gate.conf\"\n")).unwrap();
    let errors = session.file_errors().await.unwrap();
    assert!(errors[0].contains("invalid connection type \"include\""), "{errors:?}");
    // Ours includes nothing.
    for major in [15, 17] {
        let files = Server::empty(major).setup.files(&CLOSED, &Ackers::Nobody, &Links::default()).unwrap();
        assert!(!files.hba.lines().any(|line| line.starts_with("include")), "{}", files.hba);
    }
}
