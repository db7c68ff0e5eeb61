//! What a disk does to a server's word: P4 and P11. Needs root.

use std::path::{Path, PathBuf};

use holdfast_engine::Ackers;
use holdfast_engine::postgres::sync;
use holdfast_integration::Scratch;
use holdfast_integration::loop_disk::{LoopDisk, StallingDisk};
use holdfast_integration::process::{command, run};
use holdfast_model::Lsn;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use test_case::test_case;

use crate::cluster::{Cluster, copy_data};
use crate::support::{Server, client, engine_folder, eventually};

const DISK_BYTES: u64 = 256 << 20;
const ROWS: i64 = 5000;

const BLOCK_BYTES: u64 = 4096;

/// A new file system on `device`, mounted at `folder`. Without a journal, so that a failed write of data is that alone, and
/// not the end of the file system.
fn make_file_system(device: &Path, folder: &Path) {
    let block = BLOCK_BYTES.to_string();
    let args = ["-q", "-m", "0", "-O", "^has_journal", "-b", &block];
    run(command("mkfs.ext4").args(args).arg(device)).unwrap();
    mount(device, folder);
}

fn mount(device: &Path, folder: &Path) {
    run(command("mount").arg(device).arg(folder)).unwrap();
}

/// Where the blocks of the file system that it needs for itself end: all of them are at its beginning.
fn end_of_its_own(device: &Path) -> u64 {
    let told = run(command("dumpe2fs").arg(device)).unwrap();
    let free = told.lines().find_map(|line| line.strip_prefix("  Free blocks: ")).unwrap();
    let first: u64 = free.split('-').next().unwrap().parse().unwrap();
    first * BLOCK_BYTES
}

/// A server with table `t` on a disk of its own, all of it written out.
struct Frail {
    server: Server,
    place: PathBuf,
    disk: LoopDisk,
    /// Where what it holds begins.
    data_from: u64,
    _scratch: Scratch,
}

impl Frail {
    async fn new(major: u32, data_sync_retry: bool) -> Self {
        let scratch = Scratch::new().unwrap();
        let disk = LoopDisk::blank(&scratch, "frail", DISK_BYTES).unwrap();
        let place = scratch.folder("place").unwrap();
        make_file_system(disk.path(), &place);
        let data_from = end_of_its_own(disk.path());
        engine_folder(&place.join("space"));
        let mut server = Server::init(major);
        server.setup.settings.insert("autovacuum".to_owned(), "off".to_owned());
        if data_sync_retry {
            server.recovery.insert("data_sync_retry", "on".to_owned());
        }
        server.start().await;
        let space = place.join("space");
        // Updates find room where the rows are: nothing but the content of blocks that are there changes.
        for sql in [
            format!("CREATE TABLESPACE frail LOCATION '{}'", space.display()),
            "CREATE TABLE public.t (id int, v int) WITH (fillfactor = 40) TABLESPACE frail".to_owned(),
            format!("INSERT INTO public.t SELECT id, 0 FROM generate_series(1, {ROWS}) id"),
            "CHECKPOINT".to_owned(),
        ] {
            client(&server.setup.layout, "holdfast").await.unwrap().sql.batch_execute(&sql).await.unwrap();
        }
        Self { server, place, disk, data_from, _scratch: scratch }
    }

    async fn execute(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        client(&self.server.setup.layout, "holdfast").await?.sql.batch_execute(sql).await
    }

    /// Updates every row, and lets the disk fail while they are written out: data alone, not what the file system knows of it.
    async fn checkpoint_fails(&self) {
        self.disk.end_at(self.data_from).unwrap();
        self.execute("UPDATE public.t SET v = 1").await.unwrap();
        let failed = self.execute("CHECKPOINT").await;
        self.disk.come_back().unwrap();
        assert!(failed.is_err(), "written to a disk that is away");
        assert!(self.server.log().contains("Input/output error"), "{}", self.server.log());
    }

    /// The power fails: what was in caches alone is gone. The server has ended. Rows that are updated when it runs again.
    async fn updated_after_a_power_loss(&mut self) -> i64 {
        run(command("umount").arg(&self.place)).unwrap();
        mount(self.disk.path(), &self.place);
        self.server.start().await;
        let sql = "SELECT count(*) FROM public.t WHERE v = 1";
        client(&self.server.setup.layout, "holdfast")
            .await
            .unwrap()
            .sql
            .query_one(sql, &[])
            .await
            .unwrap()
            .get(0)
    }
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_failed_fsync_is_never_tried_again_as_root(major: u32) {
    // The trap (P11): tried again it succeeds, since the kernel has taken the pages for clean, and the log that could
    // write them anew is let go.
    let mut trapped = Frail::new(major, true).await;
    trapped.checkpoint_fails().await;
    trapped.execute("CHECKPOINT").await.unwrap();
    trapped.server.kill();
    trapped.server.ended().await;
    assert_eq!(trapped.updated_after_a_power_loss().await, 0, "the trap did not show");

    // Ours ends instead, and writes all of it again from its log.
    let mut ours = Frail::new(major, false).await;
    ours.checkpoint_fails().await;
    assert!(!ours.server.ended().await.success());
    assert!(ours.server.log().contains("PANIC:  could not fsync file"), "{}", ours.server.log());
    assert_eq!(ours.updated_after_a_power_loss().await, ROWS);
}

/// A pair whose standby keeps its data on a disk that can stall.
async fn pair_on_a_stalling_disk(major: u32, scratch: &Scratch) -> (StallingDisk, Cluster) {
    let disk = StallingDisk::blank(scratch, "slow", DISK_BYTES).unwrap();
    let place = scratch.folder("place").unwrap();
    make_file_system(disk.disk().path(), &place);
    let mut cluster = Cluster::stopped(major, 1);
    let data = place.join("pgdata");
    engine_folder(&data);
    cluster.node(1).server.setup.layout.data_dir = data;
    copy_data(&cluster.nodes[0], &cluster.nodes[1]);
    cluster.node(0).server.setup.settings.insert("autovacuum".to_owned(), "off".to_owned());
    cluster.begin().await;
    (disk, cluster)
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn an_ack_of_what_is_only_written_is_of_memory_alone_as_root(major: u32) {
    let scratch = Scratch::new().unwrap();
    let (disk, mut cluster) = pair_on_a_stalling_disk(major, &scratch).await;
    let session = cluster.node(0).session().await;
    let member = cluster.nodes[1].member.clone();
    // It logs now and then, which the standby would stall at first.
    let writer = cluster.sql(0).await;
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'";
    let background: i32 = writer.sql.query_one(sql, &[]).await.unwrap().get(0);
    kill(Pid::from_raw(background), Signal::SIGSTOP).unwrap();
    let flushed_all = async || {
        let flushed = session.flushed().await.unwrap();
        flushed.standbys.get(&member) == Some(&flushed.local)
    };
    eventually("the standby has everything", async || flushed_all().await).await;
    disk.stall().unwrap();

    // The trap (P4): answered, and on no disk but the primary's.
    let weak = "SET synchronous_commit = remote_write; INSERT INTO public.t VALUES (1)";
    writer.sql.batch_execute(weak).await.unwrap();
    let flushed = session.flushed().await.unwrap();
    assert!(flushed.standbys[&member] < flushed.local, "{flushed:?}");

    // Ours waits for the flush.
    let strong = cluster.sql(0).await;
    let commit = strong.sql.batch_execute("INSERT INTO public.t VALUES (2)");
    let rule = cluster.rule(1, 1, 0, &Lsn::ZERO.into());
    let back = async {
        eventually("the commit waits", async || session.waiters().await.unwrap() == 1).await;
        assert_eq!(
            session.setting("synchronous_standby_names").await.unwrap(),
            sync::render(&Ackers::of(&rule))
        );
        assert!(!flushed_all().await);
        disk.resume().unwrap();
    };
    let (answer, ()) = tokio::join!(commit, back);
    answer.unwrap();
    eventually("the standby has both", async || cluster.nodes[1].rows().await == [1, 2]).await;
}
