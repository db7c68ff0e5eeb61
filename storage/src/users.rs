//! Finds who else uses a device, where exclusive opening is blind: raw users, and loop devices on top of it.
//!
//! Looks at descriptors of other processes in `/proc`. In a container without the host's process namespace it sees
//! only its own; then content alone decides.
//!
//! Invariants: `tests/devices/probe.rs`: `a_device_under_a_loop_device_is_foreign`, `a_device_with_a_raw_user_is_foreign`.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use holdfast_storage_io::loopdev;

use crate::device::Held;
use crate::mountinfo::DevNumber;
use crate::sysfs::Sysfs;

/// Everything that stands on the device or uses it, as fragments for people; empty when it is free. Partitions,
/// devices built on it and devices that it is built on are included: all of them make it not ours to write.
pub(crate) fn of(held: &Held, sysfs: &Sysfs) -> Vec<String> {
    let disk = &held.disk;
    let mut found = Vec::new();
    if !disk.partitions.is_empty() {
        found.push(format!("has partitions: {}", disk.partitions.join(", ")));
    }
    if !disk.holders.is_empty() {
        found.push(format!("is part of {}", disk.holders.join(", ")));
    }
    if !disk.slaves.is_empty() {
        found.push(format!("is built on {}", disk.slaves.join(", ")));
    }
    found.extend(loops_on(held.number, sysfs).into_iter().map(|name| format!("backs {name}")));
    found.extend(raw_users(held.number).into_iter().map(|pid| format!("is open in process {pid}")));
    found
}

/// Names of loop devices that are backed by the device.
fn loops_on(number: DevNumber, sysfs: &Sysfs) -> Vec<String> {
    let disks = sysfs.disks().unwrap_or_default();
    let backed_by_it = |name: &str, backing_file: &Path| match std::fs::metadata(backing_file) {
        Ok(meta) => meta.file_type().is_block_device() && DevNumber::from_dev(meta.rdev()) == number,
        // A name of another mount namespace, or none any more. Only then the loop device is opened and asked:
        // whoever probes that one at this moment would take us for a user of it.
        Err(_) => File::open(Path::new("/dev").join(name))
            .ok()
            .and_then(|device| loopdev::backing(&device).ok().flatten())
            .is_some_and(|backing| backing.rdevice != 0 && DevNumber::from_dev(backing.rdevice) == number),
    };
    disks
        .into_iter()
        .filter(|disk| disk.backing_file.as_deref().is_some_and(|file| backed_by_it(&disk.name, file)))
        .map(|disk| disk.name)
        .collect()
}

/// Other processes that have the device open.
fn raw_users(number: DevNumber) -> Vec<u32> {
    let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut pids = Vec::new();
    for process in entries(Path::new("/proc")) {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let uses_it = entries(&process.path().join("fd")).any(|fd| {
            // Only what is named below /dev is looked at further: asking any other file could touch any disk.
            std::fs::read_link(fd.path()).is_ok_and(|target| target.starts_with("/dev/"))
                && is_device(&fd.path(), number)
        });
        if uses_it {
            pids.push(pid);
        }
    }
    pids
}

fn is_device(path: &Path, number: DevNumber) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.file_type().is_block_device() && DevNumber::from_dev(meta.rdev()) == number)
}
