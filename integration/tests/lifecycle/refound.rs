//! Disks are lost one after another, and come back when nobody wants them any more.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use holdfast_integration::acked::{Ack, AckedWriter};
use holdfast_integration::daemon::Serving;
use holdfast_integration::demo::outcome::LOSS_WINDOW;
use tokio::time::Instant;

use crate::stage::Stage;

/// Said while a disk is lost and its data is restored to the next; none of it may be said before.
const SAID_OF_A_LOSS: &[&str] = &[
    "disk unsafe",
    "engine ended by itself",
    "log not shipped",
    "log shipping ended",
    "gate not closed in time",
    "refounded: commits acknowledged after the shipped end are lost",
    "client sessions not ended",
    // The engine's own words about a disk that is gone.
    "Input/output error",
    "the database system is",
    "terminating connection",
    "was terminated by signal",
];

/// Lets the disk vanish under load and waits until the next one serves. Returns when it vanished.
async fn lose_disk(stage: &mut Stage, writer: &AckedWriter, number: usize) -> Result<Instant> {
    stage.everything_is_shipped().await?;
    stage.writes_go_on(writer).await?;
    let vanished = Instant::now();
    stage.disks[number - 1].vanish()?;
    stage.becomes(Serving::No).await?;
    stage.becomes(Serving::Yes).await?;
    stage.writes_go_on(writer).await?;
    Ok(vanished)
}

/// Every lost id was acked just before one of the disks vanished.
fn only_the_youngest_are_lost(lost: &[Ack], vanished: &[Instant]) -> Result<()> {
    let allowed = |ack: &&Ack| {
        vanished
            .iter()
            .any(|at| ack.at < *at + LOSS_WINDOW && at.saturating_duration_since(ack.at) <= LOSS_WINDOW)
    };
    let too_old: Vec<i64> = lost.iter().filter(|ack| !allowed(ack)).map(|ack| ack.id).collect();
    ensure!(too_old.is_empty(), "lost although acked long before a disk vanished: {too_old:?}");
    Ok(())
}

/// A hash of every block of a sparse file that is not zero, by its number.
fn content(file: &Path) -> Result<BTreeMap<u64, u64>> {
    let mut file = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let zeros = vec![0; 1 << 20];
    let mut block = zeros.clone();
    let mut blocks = BTreeMap::new();
    for number in 0.. {
        let read = file.read(&mut block).context("read a backing file")?;
        if read == 0 {
            break;
        }
        if block[..read] != zeros[..read] {
            let mut hasher = DefaultHasher::new();
            block[..read].hash(&mut hasher);
            blocks.insert(number, hasher.finish());
        }
    }
    Ok(blocks)
}

fn is_mounted(device: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mounts")?;
    let number = fs::metadata(device).context("look at a device")?.rdev();
    let number = format!(" {}:{} ", nix::sys::stat::major(number), nix::sys::stat::minor(number));
    Ok(mounts.lines().any(|line| line.contains(&number)))
}

#[tokio::test]
async fn a_disk_that_comes_back_after_a_refound_is_never_touched_again_as_root() -> Result<()> {
    let mut stage = Stage::serving(2, "restore").await?;
    stage.daemon()?.holdfast(&["backup", "create"])?;
    let writer = stage.write().await?;
    let vanished = lose_disk(&mut stage, &writer, 1).await?;
    ensure!(stage.rule()?.0 == 2, "{:?}", stage.rule()?);

    stage.disks[0].come_back()?;
    let file = stage.scratch.path().join("disk-1");
    let before = content(&file)?;
    is_abandoned(&stage)?;
    stage.writes_go_on(&writer).await?;
    // An agent that remembers nothing but its ledger judges the same.
    drop(stage.take_daemon()?);
    stage.start().await?;
    stage.becomes(Serving::Yes).await?;
    is_abandoned(&stage)?;
    stage.writes_go_on(&writer).await?;
    ensure!(!is_mounted(stage.disks[0].path())?, "the old disk is mounted");
    ensure!(content(&file)? == before, "the old disk was written to");

    only_the_youngest_are_lost(&stage.audit(writer).await?.lost, &[vanished])?;
    stage.judge_logs(SAID_OF_A_LOSS)
}

/// `holdfast volume plan` knows the first disk and leaves it alone.
fn is_abandoned(stage: &Stage) -> Result<()> {
    let plan = stage.daemon()?.holdfast(&["volume", "plan"])?;
    let device = stage.disks[0].path().display().to_string();
    let line =
        plan.lines().find(|line| line.contains(&format!("{device} "))).with_context(|| plan.clone())?;
    ensure!(line.contains("an older incarnation of this node, which never comes back"), "{plan}");
    Ok(())
}

#[tokio::test]
async fn a_second_lost_disk_is_refounded_under_the_third_term_as_root() -> Result<()> {
    let mut stage = Stage::serving(3, "restore").await?;
    stage.daemon()?.holdfast(&["backup", "create"])?;
    let writer = stage.write().await?;
    let first = lose_disk(&mut stage, &writer, 1).await?;
    ensure!(stage.rule()?.0 == 2, "{:?}", stage.rule()?);
    let second = lose_disk(&mut stage, &writer, 2).await?;
    ensure!(stage.rule()?.0 == 3, "{:?}", stage.rule()?);
    only_the_youngest_are_lost(&stage.audit(writer).await?.lost, &[first, second])?;
    stage.judge_logs(SAID_OF_A_LOSS)
}
