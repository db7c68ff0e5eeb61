//! The acked-set oracle on real engines, without holdfast: it stays calm when nothing is lost, and speaks up when
//! something is. The engines run as their own user, so this needs root.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_integration::acked::AckedWriter;
use holdfast_integration::process::{command, command_as, run};
use holdfast_integration::{Scratch, eventually, installation, ports};

const USER: &str = "postgres";
const SOON: Duration = Duration::from_secs(30);

/// A server by itself, in a scratch directory.
struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    _scratch: Scratch,
}

impl Postgres {
    fn make(major: u32) -> Result<Self> {
        let scratch = Scratch::new()?;
        let folder = scratch.folder("engine")?;
        run(command("chown").arg(USER).arg(&folder))?;
        let [port] = ports::free()?;
        let postgres = Self { programs: installation::postgres(major)?, folder, port, _scratch: scratch };
        let mut initdb = command_as(USER, postgres.programs.join("initdb"));
        initdb.args(["--username", USER, "--auth", "trust", "--no-sync", "--pgdata"]);
        run(initdb.arg(postgres.folder.join("data")).current_dir(&postgres.folder))?;
        postgres.control(&["start", "--wait"])?;
        Ok(postgres)
    }

    fn control(&self, verb: &[&str]) -> Result<()> {
        let Self { folder, port, .. } = self;
        let mut pg_ctl = command_as(USER, self.programs.join("pg_ctl"));
        pg_ctl.args(verb).arg("--pgdata").arg(folder.join("data")).arg("--log").arg(folder.join("log"));
        pg_ctl.arg("--options").arg(format!("-p {port} -h 127.0.0.1 -k {}", folder.display()));
        // pg_ctl leaves the server with its own output; a pipe would never end.
        pg_ctl.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).current_dir(folder);
        ensure!(pg_ctl.status()?.success(), "pg_ctl {verb:?} failed");
        Ok(())
    }

    fn client(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user(USER).dbname(USER);
        config
    }

    fn sql(&self, sql: &str) -> Result<String> {
        let mut psql = command(self.programs.join("psql"));
        let port = self.port.to_string();
        psql.args([
            "--no-psqlrc",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--username",
            USER,
            "--command",
            sql,
        ]);
        run(&mut psql)
    }
}

async fn acks(writer: &AckedWriter, more: usize) -> Result<()> {
    let wanted = writer.history().acked.len() + more;
    eventually("more acks", SOON, async || {
        ensure!(writer.history().acked.len() >= wanted, "too few");
        Ok(())
    })
    .await
}

async fn crash_is_survived(major: u32) -> Result<()> {
    let postgres = Postgres::make(major)?;
    let writer = AckedWriter::start(postgres.client()).await?;
    acks(&writer, 100).await?;
    postgres.control(&["stop", "--mode", "immediate"])?;
    postgres.control(&["start", "--wait"])?;
    acks(&writer, 100).await?;
    let (history, found) = writer.stop().await?;
    let audit = history.audit(&found);
    ensure!(audit.lost.is_empty() && audit.repeated.is_empty() && audit.invented.is_empty(), "{audit:?}");
    ensure!(!history.outages(Duration::from_millis(50)).is_empty(), "the outage went unnoticed");
    Ok(())
}

#[tokio::test]
async fn an_engine_that_crashes_loses_no_acked_id_on_15_as_root() -> Result<()> {
    crash_is_survived(15).await
}

#[tokio::test]
async fn an_engine_that_crashes_loses_no_acked_id_on_17_as_root() -> Result<()> {
    crash_is_survived(17).await
}

#[tokio::test]
async fn lost_repeated_and_invented_ids_are_found_as_root() -> Result<()> {
    let postgres = Postgres::make(15)?;
    let writer = AckedWriter::start(postgres.client()).await?;
    acks(&writer, 20).await?;
    postgres.sql("delete from acked where id = 7; insert into acked values (8), (-1)")?;
    let (history, found) = writer.stop().await?;
    let audit = history.audit(&found);
    let lost: Vec<i64> = audit.lost.iter().map(|ack| ack.id).collect();
    assert_eq!((lost, audit.repeated, audit.invented), (vec![7], vec![8], vec![-1]));
    Ok(())
}
