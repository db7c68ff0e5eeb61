//! Mounting and unmounting, and the bare mount point.

use holdfast_model::volume::Filesystem;
use holdfast_storage::mount::{MountError, Unmount};
use holdfast_storage::mountinfo::Mounts;
use holdfast_storage::ops::{OpError, Verb};

use crate::rig::{Disk, Rig, SMALL_MIB, TestMount, XFS_MIB};

fn volume() -> (Rig, Disk) {
    let mut rig = Rig::new(Filesystem::Ext4);
    let disk = rig.disk(SMALL_MIB);
    rig.format(&disk);
    rig.unmount();
    (rig, disk)
}

#[test]
fn nothing_can_be_written_under_the_volume_while_it_is_away() {
    let (rig, _disk) = volume();
    let written = std::fs::write(rig.spec.mount.join("PG_VERSION"), "15");
    assert!(written.is_err(), "a file landed on the root disk");
}

#[test]
fn a_mount_point_that_holds_files_is_refused() {
    let (mut rig, disk) = volume();
    rig.spec.mount = rig.dir().join("other");
    std::fs::create_dir(&rig.spec.mount).unwrap();
    std::fs::write(rig.spec.mount.join("file"), "").unwrap();
    assert!(matches!(rig.mount(&disk), Err(OpError::Mount(MountError::NotEmpty { .. }))));
}

#[test]
fn a_mount_point_where_another_device_is_mounted_is_refused() {
    let (mut rig, disk) = volume();
    let other = rig.disk(SMALL_MIB);
    crate::rig::run("mkfs.ext4", &["-q", other.path().to_str().unwrap()]);
    rig.spec.mount = rig.dir().join("other");
    let taken = TestMount::new(other.path(), rig.spec.mount.clone());
    assert!(matches!(rig.mount(&disk), Err(OpError::Mount(MountError::Taken { .. }))));
    drop(taken);
}

#[test]
fn a_volume_is_mounted_without_access_times_devices_programs_or_set_uid() {
    let mut rig = Rig::new(Filesystem::Xfs);
    let disk = rig.disk(XFS_MIB);
    rig.format(&disk);
    let mounts = Mounts::of_this_process().unwrap();
    let mount = mounts.at(&rig.spec.mount).unwrap();
    for option in ["noatime", "nodev", "nosuid", "noexec"] {
        assert!(mount.options.iter().any(|o| o == option), "{option} is missing in {:?}", mount.options);
    }
    assert!(mount.super_options.iter().any(|o| o == "logbsize=256k"), "{:?}", mount.super_options);
}

#[test]
fn a_held_descriptor_keeps_a_plain_unmount_away_and_not_a_lazy_one() {
    let (rig, disk) = volume();
    let outcome = rig.mount(&disk).unwrap();
    let busy = rig.perform(Verb::Unmount { how: Unmount::Plain }).unwrap_err();
    assert!(matches!(busy, OpError::Mount(MountError::Refused { .. })), "{busy}");
    rig.perform(Verb::Unmount { how: Unmount::Lazy }).unwrap();
    assert!(!rig.is_mounted());
    drop(outcome);
    rig.unmount();
}
