//! Formatting makes a volume of ours, and a crash at any point of it is recognised and done again.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use holdfast_model::volume::{Filesystem, Verdict, VolumeIdentity};
use holdfast_model::{ByteCount, Incarnation};
use holdfast_storage::device::HoldError;
use holdfast_storage::format::FormatError;
use holdfast_storage::mount::MountError;
use holdfast_storage::ops::{OpError, Response, Verb};
use holdfast_storage::probe::Probed;
use holdfast_storage::stamp::{self, Stamp, Step};
use holdfast_storage::sysfs::Sysfs;
use holdfast_storage::{identity, places};
use holdfast_storage_io::root::Root;

use crate::rig::{Disk, Rig, SMALL_MIB, XFS_MIB, run_to_any_end};

fn identity_of(rig: &Rig, disk: &Disk) -> VolumeIdentity {
    let fs_uuid = stamp::fs_uuid(&rig.spec.cluster, &rig.spec.node, Incarnation::from_random(42));
    VolumeIdentity {
        cluster: rig.spec.cluster.clone(),
        cluster_id: None,
        node: rig.spec.node.clone(),
        incarnation: Incarnation::from_random(42),
        zone: rig.spec.zone.clone(),
        engine: rig.spec.engine.clone(),
        serials: vec![rig.probe(disk).device().serial.clone()],
        fs_uuid,
        created: "2026-11-23T06:00:00Z".to_owned(),
        boot_id: "b".to_owned(),
    }
}

/// Puts the device back to "formatting", as a crash before the second stamp leaves it.
fn forget_that_it_was_finished(rig: &Rig, disk: &Disk) {
    let stamp = Stamp {
        step: Step::Formatting,
        device_size: ByteCount::new(disk.size()),
        identity: identity_of(rig, disk),
    };
    disk.write(stamp::offset(disk.size()), &stamp::encode(&stamp));
}

fn format_and_use(filesystem: Filesystem, mib: u64) {
    let mut rig = Rig::new(filesystem);
    let disk = rig.disk(mib);
    let outcome = rig.format(&disk);
    let Response::Mounted { device, identity } = outcome.response else { panic!("{outcome:?}") };
    assert_eq!(device.path, disk.path());
    assert_eq!(identity.incarnation, Incarnation::from_random(42));
    let root = outcome.root.unwrap();
    assert_eq!(identity::read(&root).unwrap(), *identity);
    assert!(places::strangers(&root).unwrap().iter().all(|p| p.ends_with("identity")));
    std::fs::write(rig.spec.mount.join("pgdata/PG_VERSION"), "15").unwrap();
    drop(root);

    let planned = rig.plan().remove(0);
    assert!(planned.mounted);
    assert_eq!(planned.found.verdict, Verdict::Ours { fs_uuid: identity.fs_uuid });
    drop(rig.mount(&disk).unwrap());
    rig.unmount();
    assert!(!rig.is_mounted());
    drop(rig.mount(&disk).unwrap());
    assert_eq!(std::fs::read(rig.spec.mount.join("pgdata/PG_VERSION")).unwrap(), b"15");
}

#[test]
fn an_xfs_volume_is_made_mounted_and_found_again() {
    format_and_use(Filesystem::Xfs, XFS_MIB);
}

#[test]
fn an_ext4_volume_is_made_mounted_and_found_again() {
    format_and_use(Filesystem::Ext4, SMALL_MIB);
}

#[test]
fn a_device_with_an_odd_number_of_sectors_is_formatted() {
    let mut rig = Rig::new(Filesystem::Xfs);
    let file = rig.dir().join("odd");
    std::fs::File::create(&file).unwrap().set_len((XFS_MIB << 20) + 3 * 512).unwrap();
    let disk = rig.attach(file);
    rig.format(&disk);
    rig.unmount();
    assert_eq!(rig.verdict(&disk).word(), "ours");
}

#[test]
fn owners_and_modes_keep_daemon_and_engine_apart() {
    use std::os::unix::fs::MetadataExt;
    let mut rig = Rig::new(Filesystem::Ext4);
    let disk = rig.disk(SMALL_MIB);
    rig.format(&disk);
    let look = |name: &str| {
        let meta = rig.spec.mount.join(name).metadata().unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(look("."), (0, 0, 0o711));
    assert_eq!(look(".holdfast"), (1234, 1234, 0o700));
    assert_eq!(look(".holdfast/identity"), (1234, 1234, 0o600));
    assert_eq!(look("pgdata"), (2345, 2345, 0o700));
}

fn a_crash_is_recovered_from(filesystem: Filesystem, mib: u64) {
    let mut rig = Rig::new(filesystem);
    let disk = rig.disk(mib);
    // After the first stamp.
    forget_that_it_was_finished(&rig, &disk);
    assert_eq!(rig.verdict(&disk), Verdict::Blank);
    rig.format(&disk);
    rig.unmount();
    // After mkfs, before the second stamp.
    forget_that_it_was_finished(&rig, &disk);
    assert_eq!(rig.verdict(&disk), Verdict::Blank);
    rig.format(&disk);
    rig.unmount();
    // In the middle of mkfs: the superblock is not there yet, other blocks are.
    forget_that_it_was_finished(&rig, &disk);
    disk.write(0, &[0; 8192]);
    assert_eq!(rig.verdict(&disk), Verdict::Blank);
    rig.format(&disk);
    rig.unmount();
    assert_eq!(rig.verdict(&disk).word(), "ours");
}

#[test]
fn an_xfs_format_that_crashed_anywhere_is_done_again() {
    a_crash_is_recovered_from(Filesystem::Xfs, XFS_MIB);
}

#[test]
fn an_ext4_format_that_crashed_anywhere_is_done_again() {
    a_crash_is_recovered_from(Filesystem::Ext4, SMALL_MIB);
}

#[test]
fn a_format_whose_mkfs_was_killed_at_any_moment_is_done_again() {
    let mut rig = Rig::new(Filesystem::Xfs);
    let disk = rig.disk(XFS_MIB);
    let identity = identity_of(&rig, &disk);
    for after in ["0.001", "0.004", "0.008", "0.016", "0.030", "0.060"] {
        forget_that_it_was_finished(&rig, &disk);
        disk.write(0, &[0; 4096]);
        let size = format!("size={}", stamp::fs_size(disk.size()));
        let uuid = format!("uuid={}", identity.fs_uuid);
        let path = disk.path().to_str().unwrap();
        let mkfs = ["-s", "KILL", after, "mkfs.xfs", "-q", "-K", "-d", &size, "-m", &uuid, path];
        // Killed or, late enough, done: both are states that a crash can leave.
        run_to_any_end("timeout", &mkfs);
        assert_eq!(rig.verdict(&disk), Verdict::Blank, "killed after {after} s");
        rig.format(&disk);
        rig.unmount();
        assert_eq!(rig.verdict(&disk).word(), "ours");
    }
}

#[test]
fn a_crash_before_the_identity_record_is_completed_by_mounting() {
    let mut rig = Rig::new(Filesystem::Ext4);
    let disk = rig.disk(SMALL_MIB);
    let Probed::Blank(claim) = rig.probe(&disk) else { panic!("zeros are blank") };
    claim.format(Filesystem::Ext4, identity_of(&rig, &disk), &Sysfs::default()).unwrap();
    assert_eq!(rig.verdict(&disk).word(), "ours");
    let outcome = rig.mount(&disk).unwrap();
    let written = identity::read(&outcome.root.unwrap()).unwrap();
    assert_eq!(written, identity_of_mounted(&rig));
}

fn identity_of_mounted(rig: &Rig) -> VolumeIdentity {
    *rig.plan().remove(0).identity.unwrap()
}

#[test]
fn data_without_an_identity_record_is_refused_and_not_left_mounted() {
    let mut rig = Rig::new(Filesystem::Ext4);
    let disk = rig.disk(SMALL_MIB);
    rig.format(&disk);
    std::fs::write(rig.spec.mount.join("pgdata/PG_VERSION"), "15").unwrap();
    std::fs::remove_file(rig.spec.mount.join(places::IDENTITY)).unwrap();
    rig.unmount();
    let refused = rig.mount(&disk).unwrap_err();
    assert!(matches!(refused, OpError::Mount(MountError::IdentityLost { .. })), "{refused}");
    assert!(!rig.is_mounted());
}

#[test]
fn an_identity_record_that_is_not_the_stamps_is_refused() {
    let mut rig = Rig::new(Filesystem::Ext4);
    let disk = rig.disk(SMALL_MIB);
    rig.format(&disk);
    let root = Root::open(&rig.spec.mount).unwrap();
    let other = VolumeIdentity { incarnation: Incarnation::from_random(9), ..identity::read(&root).unwrap() };
    identity::write(&root, &other).unwrap();
    drop(root);
    rig.unmount();
    assert!(matches!(rig.mount(&disk), Err(OpError::Mount(MountError::Identity(_)))));
    assert!(!rig.is_mounted());
}

#[test]
fn a_device_that_vanishes_between_claim_and_format_is_not_written() {
    let mut rig = Rig::new(Filesystem::Ext4);
    let disk = rig.disk(SMALL_MIB);
    let before = disk.checksum();
    let identity = identity_of(&rig, &disk);
    let Probed::Blank(claim) = rig.probe(&disk) else { panic!("zeros are blank") };
    disk.device.limit_size(512).unwrap();
    let refused = claim.format(Filesystem::Ext4, identity, &Sysfs::default()).unwrap_err();
    assert!(matches!(refused, FormatError::Hold(HoldError::Changed { .. })), "{refused}");
    disk.device.limit_size(0).unwrap();
    assert_eq!(disk.checksum(), before);
}

#[test]
fn a_claimed_device_can_be_taken_by_nobody_else() {
    let mut rig = Rig::new(Filesystem::Ext4);
    let disk = rig.disk(SMALL_MIB);
    let claim = rig.probe(&disk);
    assert!(matches!(claim, Probed::Blank(_)));
    let second = rig.verdict(&disk);
    assert!(second.to_string().contains("in use"), "{second}");
    drop(claim);
    assert_eq!(rig.verdict(&disk), Verdict::Blank);
}

#[test]
fn a_device_that_is_too_small_is_refused_and_not_written() {
    let mut rig = Rig::new(Filesystem::Xfs);
    let disk = rig.disk(SMALL_MIB);
    let before = disk.checksum();
    let refused = rig.perform(Verb::Format(Rig::order(rig.seen(&disk)))).unwrap_err();
    assert!(matches!(refused, OpError::Format(FormatError::TooSmall { .. })), "{refused}");
    assert_eq!(disk.checksum(), before);
}

#[test]
fn a_finished_volume_with_a_damaged_superblock_is_never_formatted_again() {
    let mut rig = Rig::new(Filesystem::Xfs);
    let disk = rig.disk(XFS_MIB);
    rig.format(&disk);
    rig.unmount();
    let file = OpenOptions::new().read(true).write(true).open(&disk.file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 300).unwrap();
    disk.write(300, &[byte[0] ^ 1]);
    assert_eq!(rig.verdict(&disk).word(), "stale");
}
