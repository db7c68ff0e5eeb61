//! What is on a device and who uses it decides what it is; whatever is not blank is never written.

use holdfast_model::volume::{Filesystem, Verdict};
use holdfast_storage::ops::{OpError, Seen, Verb};
use holdfast_storage_io::loopdev::LoopDevice;

use crate::rig::{Disk, Holding, Rig, SMALL_MIB, TestMount, XFS_MIB, run};

fn rig() -> (Rig, Disk) {
    let mut rig = Rig::new(Filesystem::Ext4);
    let disk = rig.disk(SMALL_MIB);
    (rig, disk)
}

/// The disk has this verdict, with `why` in its text; whoever believes it to be blank is refused; and nothing
/// was written to it.
#[track_caller]
fn is(rig: &Rig, disk: &Disk, word: &str, why: &str) {
    let before = disk.checksum();
    let probed = rig.probe(disk);
    let verdict = probed.verdict();
    let device = probed.device().clone();
    drop(probed);
    assert_eq!(verdict.word(), word, "{verdict}");
    assert!(verdict.to_string().contains(why), "{verdict:?} should say {why:?}");
    if word != "blank" {
        let order = Rig::order(Seen::of(&device, &Verdict::Blank));
        let refused = rig.perform(Verb::Format(order)).unwrap_err();
        assert!(matches!(refused, OpError::NotAsSeen { .. }), "{refused}");
    }
    assert_eq!(disk.checksum(), before, "something was written");
}

#[test]
fn a_disk_of_zeros_is_blank() {
    let (rig, disk) = rig();
    is(&rig, &disk, "blank", "");
}

#[test]
fn our_volume_is_ours_and_others_see_whose_it_is() {
    let (mut rig, disk) = rig();
    rig.format(&disk);
    rig.unmount();
    is(&rig, &disk, "ours", "");
    rig.spec.node = "n2".parse().unwrap();
    is(&rig, &disk, "theirs", "node n1 of cluster orders");
    rig.spec.node = "n1".parse().unwrap();
    rig.spec.cluster = "users".parse().unwrap();
    is(&rig, &disk, "theirs", "node n1 of cluster orders");
}

#[test]
fn a_copy_of_our_volume_is_stale() {
    let (mut rig, disk) = rig();
    rig.format(&disk);
    rig.unmount();
    let copy = rig.dir().join("copy");
    std::fs::copy(&disk.file, &copy).unwrap();
    let copy = rig.attach(copy);
    is(&rig, &copy, "stale", "a copy");
}

#[test]
fn signatures_of_others_are_foreign() {
    let size = SMALL_MIB << 20;
    let cases: &[(&str, u64, &[u8])] = &[
        ("lvm", 512, b"LABELONE"),
        ("luks", 0, b"LUKS\xBA\xBE"),
        ("md raid (1.2)", 4096, &[0xFC, 0x4E, 0x2B, 0xA9]),
        ("md raid (1.0)", size - 8192, &[0xFC, 0x4E, 0x2B, 0xA9]),
        ("md raid (0.90)", size - 65536, &[0xFC, 0x4E, 0x2B, 0xA9]),
        ("swap", 4086, b"SWAPSPACE2"),
        ("gpt partition table (backup)", size - 512, b"EFI PART"),
        ("dos partition table", 510, &[0x55, 0xAA]),
    ];
    let (rig, disk) = rig();
    for (name, offset, magic) in cases {
        disk.write(*offset, magic);
        is(&rig, &disk, "foreign", name);
        disk.write(*offset, &vec![0; magic.len()]);
    }
    is(&rig, &disk, "blank", "");
}

#[test]
fn file_systems_of_others_are_foreign() {
    let (mut rig, disk) = rig();
    run("mkfs.ext4", &["-q", disk.path().to_str().unwrap()]);
    is(&rig, &disk, "foreign", "ext");
    let disk = rig.disk(XFS_MIB);
    run("mkfs.xfs", &["-q", disk.path().to_str().unwrap()]);
    is(&rig, &disk, "foreign", "xfs");
}

#[test]
fn content_that_nobody_knows_is_foreign_wherever_it_lies() {
    let (rig, disk) = rig();
    let size = SMALL_MIB << 20;
    for offset in [0, 12_345, (16 << 20) - 1, size - (16 << 20), size - 1] {
        disk.write(offset, &[1]);
        is(&rig, &disk, "foreign", &format!("offset {offset}"));
        disk.write(offset, &[0]);
    }
    disk.write(28 << 20, &vec![1; 4 << 20]);
    is(&rig, &disk, "foreign", "unknown content");
}

#[test]
fn a_device_with_partitions_is_foreign_also_when_its_table_is_gone() {
    let (rig, disk) = rig();
    let mut table = [0; 512];
    table[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
    table[510..].copy_from_slice(&[0x55, 0xAA]);
    disk.write(0, &table);
    run("partx", &["--add", disk.path().to_str().unwrap()]);
    is(&rig, &disk, "foreign", "has partitions");
    disk.write(0, &[0; 512]);
    is(&rig, &disk, "foreign", "has partitions");
    run("partx", &["--delete", disk.path().to_str().unwrap()]);
    is(&rig, &disk, "blank", "");
}

#[test]
fn a_mounted_device_is_foreign() {
    let (rig, disk) = rig();
    run("mkfs.ext4", &["-q", disk.path().to_str().unwrap()]);
    let mount = TestMount::new(disk.path(), rig.dir().join("elsewhere"));
    run("sync", &[]);
    is(&rig, &disk, "foreign", "is mounted at");
    drop(mount);
}

#[test]
fn our_own_volume_mounted_elsewhere_is_foreign() {
    let (rig, disk) = rig();
    rig.format(&disk);
    rig.unmount();
    let mount = TestMount::new(disk.path(), rig.dir().join("elsewhere"));
    run("sync", &[]);
    is(&rig, &disk, "foreign", "is mounted at");
    drop(mount);
}

#[test]
fn a_device_mounted_only_in_another_mount_namespace_is_foreign() {
    let (rig, disk) = rig();
    run("mkfs.ext4", &["-q", disk.path().to_str().unwrap()]);
    let target = rig.dir().join("elsewhere");
    std::fs::create_dir(&target).unwrap();
    let script = format!("mount -o ro {} {}", disk.path().display(), target.display());
    let elsewhere = Holding::new(&["unshare", "-m"], &script);
    is(&rig, &disk, "foreign", "in use");
    drop(elsewhere);
}

#[test]
fn a_device_under_a_loop_device_is_foreign() {
    let (rig, disk) = rig();
    let on_top = LoopDevice::attach(disk.path()).unwrap();
    is(&rig, &disk, "foreign", "backs loop");
    on_top.detach().unwrap();
    is(&rig, &disk, "blank", "");
}

#[test]
fn a_device_with_a_raw_user_is_foreign() {
    let (rig, disk) = rig();
    let user = Holding::new(&[], &format!("exec 3<>{}", disk.path().display()));
    is(&rig, &disk, "foreign", "is open in process");
    drop(user);
    is(&rig, &disk, "blank", "");
}

#[test]
fn a_device_with_a_read_error_is_sick() {
    let (rig, disk) = rig();
    std::fs::OpenOptions::new().write(true).open(&disk.file).unwrap().set_len(50 << 20).unwrap();
    is(&rig, &disk, "sick", "read");
}

#[test]
fn a_device_that_is_not_there_is_gone() {
    let mut rig = Rig::new(Filesystem::Ext4);
    rig.spec.devices.push("/dev/no-such-disk".into());
    assert_eq!(rig.plan()[0].found.verdict.word(), "gone");
}

#[test]
fn what_is_no_whole_disk_is_foreign() {
    let mut rig = Rig::new(Filesystem::Ext4);
    let file = rig.dir().join("file");
    std::fs::write(&file, [0; 4096]).unwrap();
    let pipe = rig.dir().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    rig.spec.devices = vec![file, pipe, "/dev/null".into()];
    for planned in rig.plan() {
        assert_eq!(planned.found.verdict.word(), "foreign", "{}", planned.found.device);
    }
}

#[test]
fn a_vanished_device_is_not_blank() {
    let (rig, disk) = rig();
    disk.device.limit_size(512).unwrap();
    is(&rig, &disk, "foreign", "too small");
    disk.device.limit_size(0).unwrap();
    is(&rig, &disk, "blank", "");
}

#[test]
fn a_device_swapped_between_plan_and_format_is_not_written() {
    let mut rig = Rig::new(Filesystem::Ext4);
    let first = rig.disk(SMALL_MIB);
    let order = Rig::order(rig.seen(&first));
    first.device.detach().unwrap();
    // Usually under the same name; the name is looked at only to find out that it is another medium.
    let second = rig.disk(SMALL_MIB);
    let before = second.checksum();
    let refused = rig.perform(Verb::Format(order)).unwrap_err();
    assert!(matches!(refused, OpError::NotThere { .. }), "{refused}");
    assert_eq!(second.checksum(), before);
}
