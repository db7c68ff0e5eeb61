//! The harness itself: disks that vanish and stall, servers that are ready when they say so, and nothing left behind.
//! Needs root.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_integration::loop_disk::{FailingDisk, LoopDisk, StallingDisk};
use holdfast_integration::process::{Background, command, run};
use holdfast_integration::weed::Weed;
use holdfast_integration::{Scratch, eventually};

const MIB: u64 = 1 << 20;
const DISK: u64 = 320 * MIB;

/// Writes one block and asks the device itself for it.
fn write_block(device: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(device)?;
    file.write_all(&[1; 4096])?;
    file.sync_all()
}

#[test]
fn a_vanished_disk_refuses_writes_until_it_comes_back_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let disk = LoopDisk::blank(&scratch, "disk", MIB)?;
    write_block(disk.path()).context("a disk that is there")?;
    disk.vanish()?;
    ensure!(write_block(disk.path()).is_err(), "a vanished disk took a write");
    disk.come_back()?;
    write_block(disk.path()).context("a disk that came back")
}

#[test]
fn a_truncated_disk_refuses_writes_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let disk = LoopDisk::blank(&scratch, "disk", MIB)?;
    write_block(disk.path()).context("a disk that is there")?;
    disk.truncate()?;
    ensure!(write_block(disk.path()).is_err(), "a truncated disk took a write");
    Ok(())
}

#[test]
fn a_failing_disk_keeps_its_capacity_and_refuses_writes_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let failing = FailingDisk::blank(&scratch, "disk", 16 * MIB)?;
    let device = failing.disk().path();
    let name = device.file_name().context("a device has a name")?;
    let capacity = || fs::read_to_string(Path::new("/sys/block").join(name).join("size"));
    let before = capacity()?;
    write_block(device).context("a disk that works")?;
    failing.fail()?;
    let failed = write_block(device).expect_err("a failing disk took a write");
    ensure!(failed.raw_os_error() == Some(nix::libc::EIO), "{failed}");
    ensure!(capacity()? == before, "its capacity changed");
    Ok(())
}

#[tokio::test]
async fn a_write_to_a_stalled_disk_hangs_until_it_is_resumed_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let stalling = StallingDisk::blank(&scratch, "disk", 16 * MIB)?;
    stalling.stall()?;
    let mut write = command("dd");
    write.args(["if=/dev/zero", "bs=4096", "count=1", "oflag=direct,dsync"]);
    let mut hung = Background::start(
        write.arg(format!("of={}", stalling.disk().path().display())),
        &scratch.path().join("dd.log"),
    )?;
    let state = format!("/proc/{}/stat", hung.pid());
    eventually("uninterruptible sleep", Duration::from_secs(10), async || {
        let stat = fs::read_to_string(&state)?;
        ensure!(stat.contains(") D "), "{stat}");
        Ok(())
    })
    .await?;
    hung.still_runs()?;
    stalling.resume()?;
    hung.ended_well(Duration::from_secs(10)).await
}

#[test]
fn everything_in_a_scratch_directory_is_taken_down_with_it_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let path = scratch.path().to_owned();
    let image = path.join("disk");
    File::create_new(&image)?.set_len(DISK)?;
    // Nobody holds any of what follows, as if the test that made it had been killed.
    let device = run(command("losetup").args(["--find", "--show"]).arg(&image))?;
    run(command("mkfs.xfs").args(["-q", device.trim()]))?;
    let mount = scratch.folder("mount")?;
    run(command("mount").arg(device.trim()).arg(&mount))?;
    run(command("sh").args(["-c", "setsid sleep 1000 > /dev/null 2>&1 &"]).current_dir(&mount))?;
    run(command("chattr").arg("+i").arg(scratch.folder("immutable")?))?;

    drop(scratch);

    ensure!(!path.exists(), "{} is still there", path.display());
    let loops = run(command("losetup").args(["--noheadings", "--raw", "--output", "BACK-FILE"]))?;
    ensure!(!loops.contains(&path.display().to_string()), "a loop device is left: {loops}");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&path.display().to_string()), "a mount is left");
    Ok(())
}

#[tokio::test]
async fn an_s3_server_is_ready_when_it_was_started() -> Result<()> {
    let scratch = Scratch::new()?;
    let weed = Weed::start(&scratch).await?;
    ensure!(weed.endpoint().starts_with("http://127.0.0.1:"), "{}", weed.endpoint());
    ensure!(File::open(weed.credentials()).is_ok(), "no credentials file");
    Ok(())
}
