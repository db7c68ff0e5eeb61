//! A loop device that can be made to stall: its backing file lies on a file system of its own, which gets frozen.
//!
//! Freezing the data file system itself is half a stall only: reads and fsyncs of clean files go on. Below the device
//! everything that reaches it waits in the kernel, as on a disk that no longer answers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use holdfast_storage_io::ioctl;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::node::command;

const OUTER_BYTES: u64 = 1 << 30;
/// Above the least that mkfs.xfs takes.
const INNER_BYTES: u64 = 400 << 20;

/// Declare it before the node that uses it: what is declared last is dropped first.
pub(crate) struct Disk {
    /// Dropped after the unmount.
    _outer: Loop,
    inner: Option<Loop>,
    mount: PathBuf,
    _dir: tempfile::TempDir,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outer = Loop::attach(&dir.path().join("outer.img"), OUTER_BYTES);
        run("mkfs.ext4", &["-q", &outer.0]);
        let mount_point = dir.path().join("outer");
        fs::create_dir(&mount_point).unwrap();
        let device = Path::new(&outer.0);
        mount(Some(device), &mount_point, Some("ext4"), MsFlags::empty(), None::<&str>).unwrap();
        let mut disk = Self { inner: None, mount: mount_point, _outer: outer, _dir: dir };
        disk.inner = Some(Loop::attach(&disk.mount.join("inner.img"), INNER_BYTES));
        disk
    }

    /// For a configuration.
    pub(crate) fn volume(&self) -> String {
        format!("kind = \"block\"\ndevices = [{:?}]", self.inner.as_ref().unwrap().0)
    }

    /// Nothing reaches the disk until the guard is dropped.
    pub(crate) fn stall(&self) -> Stall {
        let below = File::open(&self.mount).unwrap();
        ioctl::freeze(&below).unwrap();
        Stall(below)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.inner = None;
        umount2(&self.mount, MntFlags::MNT_DETACH).ok();
    }
}

/// A loop device that no process of the test holds open: one that is open somewhere is never formatted.
struct Loop(String);

impl Loop {
    fn attach(file: &Path, bytes: u64) -> Self {
        File::create(file).unwrap().set_len(bytes).unwrap();
        let output = command("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Still in use: the kernel detaches it when its last user lets go.
        run("losetup", &["--detach", &self.0]);
    }
}

fn run(program: &str, args: &[&str]) {
    let status = command(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}: {status}");
}

pub(crate) struct Stall(File);

impl Drop for Stall {
    fn drop(&mut self) {
        ioctl::thaw(&self.0).unwrap();
    }
}
