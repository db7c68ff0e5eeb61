//! Block devices as sysfs shows them (`/sys/block`, kernel documentation `ABI/stable/sysfs-block`).
//!
//! The root is a parameter, so that recorded trees of clouds can be read in tests. Reading sysfs never touches a
//! disk.
//!
//! Invariants: `tests/devices/discover.rs`, and `what_is_missing_reads_as_absent`.

use std::io;
use std::path::{Path, PathBuf};

use holdfast_model::ByteCount;

use crate::mountinfo::DevNumber;

/// Sysfs counts in sectors of 512 bytes, whatever the device's own block size is.
const SECTOR: u64 = 512;

/// A sysfs tree.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
}

/// One whole block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its name, e.g. `nvme1n1`.
    pub name: String,
    /// Its number.
    pub number: DevNumber,
    /// Its capacity.
    pub size: ByteCount,
    /// Model, without padding; empty if the device has none.
    pub model: String,
    /// Serial, without padding; empty if the device has none.
    pub serial: String,
    /// How an NVMe controller is attached: `pcie`, `tcp`, `rdma` ...
    pub transport: Option<String>,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// Names of its partitions, as the kernel knows them.
    pub partitions: Vec<String>,
    /// Device numbers of its partitions.
    pub partition_numbers: Vec<DevNumber>,
    /// Devices built on it (LVM, md, dm).
    pub holders: Vec<String>,
    /// Devices that it is built on.
    pub slaves: Vec<String>,
    /// The file behind it, for loop devices in use.
    pub backing_file: Option<PathBuf>,
}

/// What tells one medium from another in the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Medium {
    /// As `BLKGETDISKSEQ`.
    pub diskseq: u64,
    /// Its capacity.
    pub size: ByteCount,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at(Path::new("/sys"))
    }
}

impl Sysfs {
    /// The tree below `root`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Every whole block device, sorted by name. Devices that are hidden (paths of a multipath device) are left
    /// out; one that disappears while it is read, too.
    ///
    /// # Errors
    /// The kernel's, when there is no `/sys/block`.
    pub fn disks(&self) -> io::Result<Vec<Disk>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.root.join("block"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names.into_iter().filter_map(|name| self.disk(name)).collect())
    }

    /// The whole block device with this number; `None` for partitions too.
    ///
    /// # Errors
    /// As [`Self::disks`].
    pub fn disk_numbered(&self, number: DevNumber) -> io::Result<Option<Disk>> {
        Ok(self.disks()?.into_iter().find(|disk| disk.number == number))
    }

    /// The medium in the device with this number; `None` if there is no such device.
    #[must_use]
    pub fn medium(&self, number: DevNumber) -> Option<Medium> {
        let dir = self.root.join("dev/block").join(number.to_string());
        let size = sectors(&dir)?;
        Some(Medium { diskseq: number_in(&dir.join("diskseq")).unwrap_or(0), size })
    }

    fn disk(&self, name: String) -> Option<Disk> {
        let dir = self.root.join("block").join(&name);
        if text_in(&dir.join("hidden")).as_deref() == Some("1") {
            return None;
        }
        let partitions: Vec<_> =
            names_in(&dir).into_iter().filter(|entry| dir.join(entry).join("partition").exists()).collect();
        let number_of = |dir: &Path| text_in(&dir.join("dev"))?.parse().ok();
        let device = dir.join("device");
        let attribute =
            |name: &str| text_in(&device.join(name)).or_else(|| text_in(&dir.join(name))).unwrap_or_default();
        Some(Disk {
            number: number_of(&dir)?,
            size: sectors(&dir)?,
            model: attribute("model"),
            serial: attribute("serial"),
            transport: transport(&device),
            read_only: text_in(&dir.join("ro")).as_deref() == Some("1"),
            removable: text_in(&dir.join("removable")).as_deref() == Some("1"),
            partition_numbers: partitions.iter().filter_map(|p| number_of(&dir.join(p))).collect(),
            partitions,
            holders: names_in(&dir.join("holders")),
            slaves: names_in(&dir.join("slaves")),
            backing_file: text_in(&dir.join("loop/backing_file")).map(PathBuf::from),
            name,
        })
    }
}

/// How an NVMe device is attached. Behind native multipath the device belongs to a subsystem, whose controllers
/// know; they must agree.
fn transport(device: &Path) -> Option<String> {
    if let Some(own) = text_in(&device.join("transport")) {
        return Some(own);
    }
    let mut of_controllers =
        names_in(device).into_iter().filter_map(|name| text_in(&device.join(name).join("transport")));
    let first = of_controllers.next()?;
    of_controllers.all(|other| other == first).then_some(first)
}

fn text_in(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn number_in(path: &Path) -> Option<u64> {
    text_in(path)?.parse().ok()
}

fn sectors(dir: &Path) -> Option<ByteCount> {
    Some(ByteCount::new(number_in(&dir.join("size"))?.saturating_mul(SECTOR)))
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_reads_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("block/sda");
        std::fs::create_dir_all(disk.join("sda1")).unwrap();
        for (name, value) in
            [("dev", "8:0\n"), ("size", "2048\n"), ("sda1/partition", "1"), ("sda1/dev", "8:1")]
        {
            std::fs::write(disk.join(name), value).unwrap();
        }
        let disks = Sysfs::at(dir.path()).disks().unwrap();
        assert_eq!(disks[0].size, ByteCount::mib(1));
        assert_eq!((disks[0].model.as_str(), disks[0].transport.as_ref()), ("", None));
        assert_eq!(disks[0].partitions, ["sda1"]);
        assert!(Sysfs::at(dir.path()).disk_numbered("8:1".parse().unwrap()).unwrap().is_none());
        assert_eq!(Sysfs::at(dir.path()).medium("8:0".parse().unwrap()), None);
    }
}
