//! Detecting that a disk vanished, stalled, failed or was shut down; on real devices.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use holdfast_model::volume::{DeviceId, Filesystem, VolumeKind};
use holdfast_storage::mount::Unmount;
use holdfast_storage::mountinfo::{FsState, Mounts};
use holdfast_storage::ops::{Request, Verb, perform};
use holdfast_storage::sysfs::Sysfs;
use holdfast_storage::watch::{Lookout, ProbeFile};
use holdfast_storage_io::ioctl;
use holdfast_storage_io::root::Root;
use nix::libc::{EIO, EROFS};

use crate::rig::{Disk, Rig, SMALL_MIB, SOON, TestMount, XFS_MIB, run, run_to_any_end};

/// Longer than any healthy write here, shorter than the patience of a reader of test output.
const STALL: Duration = Duration::from_secs(1);

fn volume(filesystem: Filesystem) -> (Rig, Disk, Root, DeviceId) {
    let mut rig = Rig::new(filesystem);
    let disk = rig.disk(if filesystem == Filesystem::Xfs { XFS_MIB } else { SMALL_MIB });
    let root = rig.format(&disk).root.unwrap();
    let device = rig.plan().remove(0).found.device;
    (rig, disk, root, device)
}

fn lookout(rig: &Rig, device: &DeviceId) -> Lookout {
    let mounts = Mounts::of_this_process().unwrap();
    Lookout::new(VolumeKind::Block, device, &rig.spec.mount, &mounts).unwrap()
}

fn look(lookout: &Lookout) -> (Option<String>, FsState) {
    lookout.look(&Sysfs::default(), &Mounts::of_this_process().unwrap())
}

fn state(rig: &Rig) -> FsState {
    Mounts::of_this_process().unwrap().state_at(&rig.spec.mount)
}

/// How a disk vanishes.
#[derive(Clone, Copy)]
enum Vanish {
    /// One sector is left, at once. The medium stays whole.
    Limit,
    /// The medium is emptied, then the device is told. A write in between makes the medium longer again.
    Truncate,
}

fn a_vanished_disk_fails_the_probe_at_once(filesystem: Filesystem, how: Vanish) {
    let (rig, disk, root, device) = volume(filesystem);
    let mut probe = ProbeFile::open(&root).unwrap();
    probe.write().unwrap();
    let lookout = lookout(&rig, &device);
    assert_eq!(look(&lookout), (None, FsState::ReadWrite));

    match how {
        Vanish::Limit => disk.device.limit_size(512).unwrap(),
        Vanish::Truncate => disk.truncate(),
    }
    assert!(look(&lookout).0.unwrap().contains("capacity"));
    // An idle engine would go on: reads come from memory.
    assert!(rig.spec.mount.join("pgdata").is_dir());
    let failed = probe.write().unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(EIO));
    drop((probe, root));
    rig.perform(Verb::Unmount { how: Unmount::Plain }).unwrap();
    assert_eq!(look(&lookout).1, FsState::NotMounted);
}

#[test]
fn a_vanished_disk_fails_the_probe_at_once_on_xfs() {
    a_vanished_disk_fails_the_probe_at_once(Filesystem::Xfs, Vanish::Limit);
}

#[test]
fn a_vanished_disk_fails_the_probe_at_once_on_ext4() {
    a_vanished_disk_fails_the_probe_at_once(Filesystem::Ext4, Vanish::Limit);
}

#[test]
fn a_truncated_disk_fails_the_probe_at_once_on_xfs() {
    a_vanished_disk_fails_the_probe_at_once(Filesystem::Xfs, Vanish::Truncate);
}

#[test]
fn a_truncated_disk_fails_the_probe_at_once_on_ext4() {
    a_vanished_disk_fails_the_probe_at_once(Filesystem::Ext4, Vanish::Truncate);
}

#[test]
fn another_medium_in_the_same_place_is_noticed() {
    let (rig, _disk, _root, device) = volume(Filesystem::Ext4);
    let before = DeviceId { diskseq: device.diskseq - 1, ..device };
    assert!(look(&lookout(&rig, &before)).0.unwrap().contains("another medium"));
}

#[test]
fn a_read_only_remount_shows_in_the_mount_table() {
    let (rig, _disk, _root, _) = volume(Filesystem::Ext4);
    assert_eq!(state(&rig), FsState::ReadWrite);
    run("mount", &["-o", "remount,ro", rig.spec.mount.to_str().unwrap()]);
    assert_eq!(state(&rig), FsState::ReadOnly);
}

#[test]
fn an_ext4_that_made_itself_read_only_after_an_error_shows_in_the_mount_table_and_in_the_probe() {
    let (rig, disk, root, _) = volume(Filesystem::Ext4);
    let mut probe = ProbeFile::open(&root).unwrap();
    probe.write().unwrap();
    assert_eq!(state(&rig), FsState::ReadWrite);
    // An error as the kernel would find one in the file system's structures.
    let name = disk.path().file_name().unwrap().to_str().unwrap();
    std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").unwrap();
    assert_eq!(state(&rig), FsState::ReadOnly);
    assert_eq!(probe.write().unwrap_err().raw_os_error(), Some(EROFS));
}

#[test]
fn a_remount_as_read_only_is_refused_while_the_probe_file_is_open() {
    let (rig, _disk, root, _) = volume(Filesystem::Ext4);
    let probe = ProbeFile::open(&root).unwrap();
    let remount = ["-o", "remount,ro", rig.spec.mount.to_str().unwrap()];
    let refused = run_to_any_end("mount", &remount);
    assert!(!refused.status.success(), "EBUSY was expected: the probe can be written");
    assert_eq!(state(&rig), FsState::ReadWrite);
    drop(probe);
    run("mount", &remount);
    assert_eq!(state(&rig), FsState::ReadOnly);
}

#[test]
fn a_shut_down_ext4_shows_in_the_mount_table_and_a_shut_down_xfs_only_in_the_probe() {
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs] {
        let (rig, _disk, root, _) = volume(filesystem);
        let mut probe = ProbeFile::open(&root).unwrap();
        rig.perform(Verb::ShutDown).unwrap();
        assert_eq!(probe.write().unwrap_err().raw_os_error(), Some(EIO), "{filesystem}");
        let expected = if filesystem == Filesystem::Ext4 { FsState::ShutDown } else { FsState::ReadWrite };
        assert_eq!(state(&rig), expected, "{filesystem}");
    }
}

#[test]
fn what_was_synced_before_a_shutdown_is_there_after_the_next_mount() {
    let (rig, disk, root, _) = volume(Filesystem::Xfs);
    root.replace("pgdata/kept".as_ref(), b"kept", 0o600).unwrap();
    rig.perform(Verb::ShutDown).unwrap();
    drop(root);
    rig.unmount();
    drop(rig.mount(&disk).unwrap());
    assert_eq!(std::fs::read(rig.spec.mount.join("pgdata/kept")).unwrap(), b"kept");
}

/// A disk whose medium lies on another file system, which can be frozen: then the disk stalls.
struct Stallable {
    // In this order: the volume and its device go before the file system below them.
    rig: Rig,
    root: Option<Root>,
    _disk: Disk,
    frozen: Option<File>,
    _below: TestMount,
    _below_disk: Disk,
    _below_rig: Rig,
}

impl Stallable {
    fn new() -> Self {
        let mut below_rig = Rig::new(Filesystem::Ext4);
        let below_disk = below_rig.disk(512);
        run("mkfs.ext4", &["-q", below_disk.path().to_str().unwrap()]);
        let below = TestMount::new(below_disk.path(), below_rig.dir().join("below"));
        let mut rig = Rig::new(Filesystem::Xfs);
        let medium = below.0.join("medium");
        File::create(&medium).unwrap().set_len(XFS_MIB << 20).unwrap();
        let disk = rig.attach(medium);
        let root = rig.format(&disk).root;
        let (_disk, _below, _below_disk, _below_rig) = (disk, below, below_disk, below_rig);
        Self { rig, root, _disk, frozen: None, _below, _below_disk, _below_rig }
    }

    fn stall(&mut self) {
        let below = File::open(&self._below.0).unwrap();
        ioctl::freeze(&below).unwrap();
        self.frozen = Some(below);
    }

    fn resume(&mut self) {
        if let Some(below) = self.frozen.take() {
            ioctl::thaw(&below).unwrap();
        }
    }
}

impl Drop for Stallable {
    fn drop(&mut self) {
        self.resume();
        self.root = None;
        // Plain, so that the device below is free when it is detached.
        drop(self.rig.perform(Verb::Unmount { how: Unmount::Plain }));
    }
}

/// Writes once on a thread of its own, as the worker does in a process of its own.
fn write_on_a_thread(mut probe: ProbeFile) -> (thread::JoinHandle<()>, mpsc::Receiver<Option<i32>>) {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let result = probe.write().err().map(|err| err.raw_os_error().unwrap_or(0));
        drop(probe);
        tell.send(result).unwrap();
    });
    (thread, told)
}

#[test]
fn a_stalled_disk_holds_the_probe_until_it_comes_back() {
    let mut stallable = Stallable::new();
    let probe = ProbeFile::open(stallable.root.as_ref().unwrap()).unwrap();
    stallable.stall();
    let (thread, told) = write_on_a_thread(probe);
    assert_eq!(told.recv_timeout(STALL), Err(mpsc::RecvTimeoutError::Timeout));
    // What the daemon looks at still answers, and says nothing: only the missing write tells.
    assert_eq!(state(&stallable.rig), FsState::ReadWrite);
    stallable.resume();
    assert_eq!(told.recv_timeout(SOON), Ok(None));
    thread.join().unwrap();
}

#[test]
fn a_stalled_disk_is_shut_down_by_the_held_descriptor_and_waiting_writes_fail_when_it_comes_back() {
    let mut stallable = Stallable::new();
    let root = stallable.root.clone().unwrap();
    let probe = ProbeFile::open(&root).unwrap();
    stallable.stall();
    let (thread, told) = write_on_a_thread(probe);
    assert_eq!(told.recv_timeout(STALL), Err(mpsc::RecvTimeoutError::Timeout));

    let (tell, shut) = mpsc::channel();
    let request = Request { spec: stallable.rig.spec.clone(), verb: Verb::ShutDown };
    let fence = thread::spawn(move || {
        tell.send(perform(&request, Some(root.as_fd())).is_ok()).unwrap();
    });
    assert_eq!(shut.recv_timeout(SOON), Ok(true), "the fence must not wait for the disk");
    fence.join().unwrap();

    stallable.resume();
    assert_eq!(told.recv_timeout(SOON), Ok(Some(EIO)), "a write that waited must not land as a success");
    thread.join().unwrap();
}

#[test]
fn a_frozen_file_system_holds_the_probe_too() {
    let (_rig, _disk, root, _) = volume(Filesystem::Xfs);
    let probe = ProbeFile::open(&root).unwrap();
    ioctl::freeze(&root).unwrap();
    let (thread, told) = write_on_a_thread(probe);
    let waited = told.recv_timeout(STALL);
    ioctl::thaw(&root).unwrap();
    assert_eq!(waited, Err(mpsc::RecvTimeoutError::Timeout));
    assert_eq!(told.recv_timeout(SOON), Ok(None));
    thread.join().unwrap();
}
