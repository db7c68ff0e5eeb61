//! Lists the devices that may be looked at, from sysfs; never by device name.
//!
//! Local NVMe is recognised by the model that each cloud gives it, on the PCIe bus. Remote volumes (EBS, Persistent
//! Disk, remote Azure disks) carry other models and must not match. Bare metal has no model in common: there the
//! operator names serials or model patterns. The disk that carries the root file system is never a candidate.
//!
//! Invariants: `tests/devices/discover.rs`, on recorded trees of AWS, GCP, Azure and bare metal.
//!
//! Not here: what is on a device. See `probe`.

use std::io;
use std::path::{Path, PathBuf};

use crate::mountinfo::{DevNumber, Mounts};
use crate::sysfs::{Disk, Sysfs};

/// Models of local NVMe: the text, and whether digits may follow it.
const MODELS: &[(&str, Tail)] = &[
    // AWS instance store; EBS is "Amazon Elastic Block Store".
    ("Amazon EC2 NVMe Instance Storage", Tail::Nothing),
    // GCP local SSD, with or without a number; Persistent Disk is "nvme_card-pd".
    ("nvme_card", Tail::Digits),
    // Azure local NVMe, also "v2"; remote disks are "MSFT NVMe Accelerator v1.0".
    ("Microsoft NVMe Direct Disk", Tail::Anything),
];

#[derive(Debug, Clone, Copy)]
enum Tail {
    Nothing,
    Digits,
    Anything,
}

/// What the configuration says about which NVMe devices may be looked at.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Model patterns besides the built-in table; `*` stands for anything.
    pub models: &'a [String],
    /// Only these serials, when there are any; then the model does not matter.
    pub serials: &'a [String],
}

/// Paths of the local NVMe devices that may be looked at, in order of serial, so that a node with several always
/// prefers the same.
///
/// # Errors
/// The kernel's, when there is no `/sys/block`.
pub fn local_nvme(sysfs: &Sysfs, mounts: &Mounts, wanted: Wanted<'_>) -> io::Result<Vec<PathBuf>> {
    let disks = sysfs.disks()?;
    let root_disks = root_disks(&disks, mounts);
    let mut found: Vec<_> = disks
        .iter()
        .filter(|disk| disk.name.starts_with("nvme") && disk.transport.as_deref() == Some("pcie"))
        .filter(|disk| !disk.read_only && !disk.removable && !root_disks.contains(&disk.number))
        .filter(|disk| is_wanted(disk, wanted))
        .collect();
    found.sort_by(|a, b| (&a.serial, &a.name).cmp(&(&b.serial, &b.name)));
    Ok(found.into_iter().map(|disk| Path::new("/dev").join(&disk.name)).collect())
}

fn is_wanted(disk: &Disk, wanted: Wanted<'_>) -> bool {
    if !wanted.serials.is_empty() {
        return wanted.serials.contains(&disk.serial);
    }
    is_local_model(&disk.model) || wanted.models.iter().any(|pattern| matches(pattern, &disk.model))
}

fn is_local_model(model: &str) -> bool {
    MODELS.iter().any(|(text, tail)| {
        model.strip_prefix(text).is_some_and(|rest| match tail {
            Tail::Nothing => rest.is_empty(),
            Tail::Digits => rest.bytes().all(|b| b.is_ascii_digit()),
            Tail::Anything => true,
        })
    })
}

/// Whether `text` matches `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(tail) = text.strip_prefix(start) else { return false };
    (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| matches(rest, &tail[at..]))
}

/// Disks that carry the root file system, directly, by a partition, or below device mapper and md.
fn root_disks(disks: &[Disk], mounts: &Mounts) -> Vec<DevNumber> {
    let Some(root) = mounts.at(Path::new("/")) else { return Vec::new() };
    let mut carriers = vec![root.device];
    let mut next = 0;
    while let Some(number) = carriers.get(next).copied() {
        next += 1;
        for disk in disks {
            let has_it = disk.partition_numbers.contains(&number);
            if has_it && !carriers.contains(&disk.number) {
                carriers.push(disk.number);
            }
            if disk.number == number {
                let below = disks.iter().filter(|d| {
                    disk.slaves.contains(&d.name) || d.partitions.iter().any(|p| disk.slaves.contains(p))
                });
                let below: Vec<_> = below.map(|d| d.number).filter(|n| !carriers.contains(n)).collect();
                carriers.extend(below);
            }
        }
    }
    carriers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("SAMSUNG MZ*", "SAMSUNG MZQL2", true),
            ("*MZ*2", "SAMSUNG MZQL2", true),
            ("MZ*", "SAMSUNG MZQL2", false),
            ("QEMU NVMe Ctrl", "QEMU NVMe Ctrl", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn remote_disks_of_clouds_are_not_local() {
        for model in ["Amazon Elastic Block Store", "nvme_card-pd", "MSFT NVMe Accelerator v1.0", ""] {
            assert!(!is_local_model(model), "{model}");
        }
        for model in
            ["Amazon EC2 NVMe Instance Storage", "nvme_card", "nvme_card12", "Microsoft NVMe Direct Disk v2"]
        {
            assert!(is_local_model(model), "{model}");
        }
    }
}
