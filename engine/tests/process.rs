//! Killing whole engines: every child of a postmaster has a process group of its own (T7).

#![expect(clippy::unwrap_used, reason = "a test's tools fail the test")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use holdfast_engine::Engine;
use holdfast_engine::postgres::session::clients::still_authenticating;
use holdfast_engine::postgres::{Postgres, SyncStandbys};
use holdfast_engine::process::stop::{Step, kill_all, signal_postmaster};
use holdfast_engine::process::{ProcessId, ProcessTable, find_by_arguments};
use holdfast_model::Rule;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Server, client, eventually, lone_rule};

fn alive(ids: &[ProcessId]) -> usize {
    let table = ProcessTable::read().unwrap();
    ids.iter().filter(|id| table.is_alive(**id)).count()
}

/// The postmaster and everything below it.
fn whole_engine(server: &Server) -> Vec<ProcessId> {
    let postmaster = server.postmaster();
    let mut all = ProcessTable::read().unwrap().descendants(postmaster);
    all.push(postmaster);
    all
}

#[tokio::test]
async fn no_descendant_outlives_a_postmaster_that_was_killed() {
    let mut server = Server::init(15);
    server.start().await;
    let busy = client(&server.setup.layout, "holdfast").await.unwrap();
    let pid: i32 = busy.sql.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let engine = whole_engine(&server);
    assert!(engine.iter().any(|id| id.pid == pid) && engine.len() >= 6, "{engine:?}");
    let sleeping = busy.sql.batch_execute("SELECT pg_sleep(600)");
    let kill = async {
        kill_all(server.postmaster(), None).unwrap();
        eventually("every process is gone", async || alive(&engine) == 0).await;
    };
    let (ended, ()) = tokio::join!(sleeping, kill);
    assert!(ended.is_err());
    server.ended().await;
}

#[tokio::test]
async fn a_postmaster_is_found_by_its_data_directory_alone() {
    let mut server = Server::init(15);
    server.start().await;
    let table = ProcessTable::read().unwrap();
    let data = server.setup.layout.data_dir.as_os_str();
    let found = find_by_arguments(&table, "postgres", OsStr::new("-D"), data);
    assert_eq!(found, [server.postmaster()]);
    assert_eq!(find_by_arguments(&table, "postgres", OsStr::new("-D"), OsStr::new("/nowhere")), []);
}

#[tokio::test]
async fn an_immediate_stop_ends_every_process_and_the_next_start_recovers() {
    let mut server = Server::init(15);
    let session = server.start().await;
    let engine = whole_engine(&server);
    signal_postmaster(server.postmaster(), Step::Immediate, None).unwrap();
    server.ended().await;
    eventually("every process is gone", async || alive(&engine) == 0).await;
    eventually("the session notices", async || session.is_spoilt()).await;
    server.start().await;
    assert!(server.log().contains("automatic recovery in progress"), "{}", server.log());
}

#[tokio::test]
async fn a_login_that_hangs_in_authentication_is_told_from_sessions_that_are_through() {
    let mut server = Server::init(15);
    let session = server.start().await;
    let through = client(&server.setup.layout, "holdfast").await.unwrap();
    let unlisted = async || {
        let listed = session.listed_pids().await.unwrap();
        still_authenticating(&ProcessTable::read().unwrap(), server.postmaster(), &listed)
    };
    assert!(unlisted().await.is_empty());
    let hanging = tokio::net::UnixStream::connect(server.setup.layout.socket()).await.unwrap();
    eventually("the hanging login shows", async || unlisted().await.len() == 1).await;
    through.sql.batch_execute("SELECT 1").await.unwrap();
    drop(hanging);
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
    postgres.write_rule(&lone_rule(1, 1)).await.unwrap();
    postgres.apply_gate(&support::CLOSED, &SyncStandbys::Nobody).await.unwrap();

    let commit = writer.sql.batch_execute("INSERT INTO public.t VALUES (1)");
    let stop = async {
        eventually("the commit waits", async || session.waiters().await.unwrap() == 1).await;
        let rule = Rule { k: 1, ..lone_rule(1, 1) };
        let refused = session.terminate_clients(&rule).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "1 commits wait for acks: clients are not ended before they are acked"
        );
        signal_postmaster(server.postmaster(), Step::Immediate, None).unwrap();
    };
    let (answer, ()) = tokio::join!(commit, stop);
    assert!(answer.is_err(), "a commit that nobody acked was answered");
    server.ended().await;
}

/// A cgroup v2 hierarchy of our own mounting, with one folder; both are gone with the test.
struct Cgroup {
    root: tempfile::TempDir,
    folder: PathBuf,
}

impl Cgroup {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        mount(Some("none"), root.path(), Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap();
        let folder = root.path().join(format!("holdfast-test-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Self { root, folder }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(fs::write(self.folder.join("cgroup.kill"), "1"));
        // A cgroup empties when its processes are reaped, which another guard does.
        drop(fs::remove_dir(&self.folder));
        umount2(self.root.path(), MntFlags::MNT_DETACH).ok();
    }
}

#[tokio::test]
async fn a_whole_engine_is_killed_at_once_children_in_groups_of_their_own_included() {
    let cgroup = Cgroup::new();
    let mut server = Server::init(15);
    server.start().await;
    let engine = whole_engine(&server);
    for id in &engine {
        fs::write(cgroup.folder.join("cgroup.procs"), id.pid.to_string()).unwrap();
    }
    kill_all(server.postmaster(), Some(&cgroup.folder)).unwrap();
    server.ended().await;
    eventually("every process is gone", async || alive(&engine) == 0).await;
    let events = || fs::read_to_string(cgroup.folder.join("cgroup.events")).unwrap();
    eventually("the cgroup is empty", async || events().contains("populated 0")).await;
}
