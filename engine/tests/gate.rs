//! The gate on a real server: who gets in, who stays, and what is noticed when a file does not take.
#![expect(clippy::unwrap_used, reason = "a test's tools fail the test")]

mod support;

use std::fs;

use holdfast_engine::Ackers;
use holdfast_engine::postgres::Postgres;
use holdfast_engine::postgres::gate::{Files, GateError, install, settle};
use holdfast_engine::postgres::hba::ClientRule;
use holdfast_engine::postgres::links::Links;
use holdfast_engine::{Engine, EngineError};
use holdfast_model::Term;
use holdfast_model::status::Gate;
use support::{CLOSED, OPEN, Server, client, lone_rule};
use test_case::test_case;

/// A server with the role `app`, which an open gate lets in without a password.
async fn server_with_app(major: u32) -> (Server, Postgres) {
    let mut server = Server::init(major);
    server.setup.clients = vec![ClientRule::parse("local all app trust").unwrap()];
    server.start().await;
    let mut postgres = Postgres::new(server.setup.clone());
    postgres.write_rules(&[], &lone_rule(1, 1)).await.unwrap();
    let agent = client(&server.setup.layout, "holdfast").await.unwrap();
    let sql = "CREATE ROLE app LOGIN; CREATE TABLE public.t (id int); GRANT ALL ON public.t TO app";
    agent.sql.batch_execute(sql).await.unwrap();
    (server, postgres)
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_closed_gate_refuses_clients_and_lets_the_agent_stay(major: u32) {
    let (server, mut postgres) = server_with_app(major).await;
    let layout = &server.setup.layout;
    assert!(client(layout, "app").await.is_err());

    postgres.apply_gate(&OPEN, &Ackers::Alone).await.unwrap();
    let app = client(layout, "app").await.unwrap();
    app.sql.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();

    postgres.apply_gate(&CLOSED, &Ackers::Alone).await.unwrap();
    assert!(client(layout, "app").await.is_err());
    app.sql.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!(postgres.end_clients(&lone_rule(1, 1)).await.unwrap(), 1);
    assert!(app.sql.batch_execute("INSERT INTO t VALUES (3)").await.is_err());
    assert!(!postgres.status().await.unwrap().in_recovery);
}

#[tokio::test]
async fn a_read_only_gate_lets_clients_read() {
    let (server, mut postgres) = server_with_app(15).await;
    postgres.apply_gate(&Gate::ReadOnly { term: Term::FIRST }, &Ackers::Alone).await.unwrap();
    let app = client(&server.setup.layout, "app").await.unwrap();
    app.sql.batch_execute("SELECT * FROM t").await.unwrap();
    assert!(app.sql.batch_execute("INSERT INTO t VALUES (1)").await.is_err());
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_file_that_the_server_does_not_like_is_an_error_not_a_closed_gate(major: u32) {
    let (mut server, mut postgres) = server_with_app(major).await;
    postgres.apply_gate(&OPEN, &Ackers::Alone).await.unwrap();
    let files = server.setup.files(&CLOSED, &Ackers::Alone, &Links::default()).unwrap();
    let broken = Files { hba: format!("{}nonsense\n", files.hba), ..files };
    install(&server.setup.layout, &broken).unwrap();
    let session = server.session().await;
    let err = settle(&session, &server.setup.layout, &CLOSED, &Ackers::Alone).await.unwrap_err();
    assert!(matches!(&err, GateError::Files(errors) if errors[0].starts_with("pg_hba.conf line")), "{err}");
    // The trap: the server kept the old rules in silence.
    assert!(client(&server.setup.layout, "app").await.is_ok());
}

#[tokio::test]
async fn an_ack_list_that_alter_system_overrides_is_noticed() {
    let (server, mut postgres) = server_with_app(15).await;
    let agent = client(&server.setup.layout, "holdfast").await.unwrap();
    agent.sql.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'anybody'").await.unwrap();
    let err = postgres.apply_gate(&CLOSED, &Ackers::Alone).await.unwrap_err();
    assert!(matches!(err, EngineError::Refused { .. }), "{err}");
}

#[tokio::test]
async fn alter_system_cannot_weaken_what_is_pinned() {
    let (mut server, postgres) = server_with_app(15).await;
    drop(postgres);
    let agent = client(&server.setup.layout, "holdfast").await.unwrap();
    agent.sql.batch_execute("ALTER SYSTEM SET fsync = off").await.unwrap();
    agent.sql.batch_execute("ALTER SYSTEM SET restart_after_crash = on").await.unwrap();
    server.kill();
    server.ended().await;
    let session = server.start().await;
    assert_eq!(session.setting("fsync").await.unwrap(), "on");
    assert_eq!(session.setting("restart_after_crash").await.unwrap(), "off");
}

#[tokio::test]
async fn alter_system_is_refused_where_postgres_can() {
    let mut server = Server::init(17);
    server.start().await;
    let agent = client(&server.setup.layout, "holdfast").await.unwrap();
    assert!(agent.sql.batch_execute("ALTER SYSTEM SET fsync = off").await.is_err());
}

#[tokio::test]
async fn installing_the_same_files_again_writes_nothing() {
    let server = Server::empty(15);
    let path = server.setup.layout.hba_file();
    server.install(&CLOSED);
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    server.install(&CLOSED);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
}
