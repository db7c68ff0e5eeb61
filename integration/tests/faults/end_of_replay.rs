//! The last moments of a replay. Postgres makes the new timeline's first segment and removes `recovery.signal`, writes the
//! new timeline's history, and only then lets the checkpointer write the checkpoint that puts the new timeline into
//! `pg_control` (`StartupXLOG` in xlog.c). Killed in between, a server that is simply started again takes itself for
//! one that crashed on the old timeline.
//!
//! The window is held open: the end of recovery waits for the checkpointer, and the checkpointer is stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_integration::daemon::Serving;
use holdfast_integration::eventually;
use holdfast_integration::process::{command, command_as, run};
use tokio::time::Instant;

use crate::restore::{
    first_segment_replayed, loss_is_within_the_window, ship_a_long_log, the_long_log_is_there,
};
use crate::stage::{SOON, Stage};

const ENGINE_USER: &str = "postgres";
const KILLED_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_server_killed_before_its_new_timeline_is_in_pg_control_replays_again_as_root() -> Result<()> {
    let stage = Stage::with_disks(2).await?;
    stage.explained(killed_in_the_window(&stage).await)
}

async fn killed_in_the_window(stage: &Stage) -> Result<()> {
    let (agent, writer) = stage.backed_up().await?;
    ship_a_long_log(stage).await?;
    let vanished = Instant::now();
    stage.disks[0].vanish()?;
    first_segment_replayed(stage).await?;
    let server = Server::in_the_window(stage).await?;
    drop(agent);
    server.kill().await?;

    let data = stage.node.mount.join("pgdata");
    let control = control(stage, &data)?;
    ensure!(control.contains("in archive recovery") && timeline(&control)? == 1, "not the window: {control}");
    unprepared_it_comes_up_on_the_old_timeline(stage, &data)?;

    let mut agent = stage.agent().await?;
    agent.becomes(Serving::Yes, SOON).await?;
    ensure!(stage.terms()? == 2, "another term was taken: {:?}", stage.store.keys("/rules/")?);
    let segment = stage.node.sql("postgres", "select pg_walfile_name(pg_current_wal_lsn())")?;
    ensure!(segment.starts_with("00000002"), "it writes {segment}");
    the_long_log_is_there(stage)?;
    loss_is_within_the_window(writer, vanished).await?;
    agent.stop().await
}

/// The trap: what Postgres by itself makes of such a directory.
fn unprepared_it_comes_up_on_the_old_timeline(stage: &Stage, data: &Path) -> Result<()> {
    let copy = stage.node.scratch.folder("unprepared")?.join("pgdata");
    run(command("cp").arg("--archive").arg(data).arg(&copy))?;
    let mut alone = command_as(ENGINE_USER, stage.node.engine.join("postgres"));
    alone.args(["--single", "-c", "config_file=/dev/null", "-D"]).arg(&copy).arg("postgres");
    run(alone.current_dir("/"))?;
    let control = control(stage, &copy)?;
    ensure!(timeline(&control)? == 1, "there is no trap any more: {control}");
    fs::remove_dir_all(&copy).context("remove the copy")
}

/// What `pg_controldata` shows.
fn control(stage: &Stage, data: &Path) -> Result<String> {
    run(command(stage.node.engine.join("pg_controldata")).arg(data).env("LC_ALL", "C"))
}

/// The timeline of the last checkpoint.
fn timeline(control: &str) -> Result<u32> {
    let line = control.lines().find_map(|line| line.strip_prefix("Latest checkpoint's TimeLineID:"));
    line.context("no timeline in pg_control")?.trim().parse().context("read a timeline")
}

/// The processes of a server.
struct Server {
    postmaster: String,
    children: Vec<String>,
}

impl Server {
    /// Waits until the server has left recovery behind, and cannot write the checkpoint that says so.
    async fn in_the_window(stage: &Stage) -> Result<Self> {
        let data = stage.node.mount.join("pgdata");
        let signal = data.join("recovery.signal");
        // So that there is log to wait for until the checkpointer is stopped.
        stage.store.hang()?;
        let postmaster = fs::read_to_string(data.join("postmaster.pid")).context("no server")?;
        let postmaster = postmaster.lines().next().context("an empty postmaster.pid")?.to_owned();
        let checkpointer =
            run(command("pgrep").args(["--parent", &postmaster, "--full", "postgres: .*checkpointer"]))?;
        run(command("kill").args(["-STOP", checkpointer.trim()]))?;
        ensure!(signal.exists(), "it had replayed everything before its checkpointer was stopped");
        stage.store.go_on()?;
        let history: PathBuf = data.join("pg_wal/00000002.history");
        eventually("the end of replay", SOON, async || {
            ensure!(!signal.exists(), "recovery.signal is still there");
            ensure!(history.metadata()?.len() > 0, "an empty history");
            Ok(())
        })
        .await?;
        // So that it forks nobody after its children were listed.
        run(command("kill").args(["-STOP", &postmaster]))?;
        let children = run(command("pgrep").args(["--parent", &postmaster]))?;
        Ok(Self { postmaster, children: children.lines().map(str::to_owned).collect() })
    }

    /// All of it at once, as a lost machine would.
    async fn kill(self) -> Result<()> {
        run(command("kill").args(["-KILL", &self.postmaster]))?;
        for child in &self.children {
            // One that has ended meanwhile, like a login that was refused, is as good; that all are gone is seen below.
            drop(run(command("kill").args(["-KILL", child])));
        }
        let all: Vec<String> = std::iter::once(self.postmaster).chain(self.children).collect();
        eventually("the end of the server", KILLED_WITHIN, async || {
            let left: Vec<_> = all.iter().filter(|pid| Path::new("/proc").join(pid).exists()).collect();
            ensure!(left.is_empty(), "{left:?} still run");
            Ok(())
        })
        .await
    }
}
