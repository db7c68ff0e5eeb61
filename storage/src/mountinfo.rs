//! What is mounted where, from `/proc/self/mountinfo` (format: `proc_pid_mountinfo(5)`).
//!
//! Reading it never touches a disk, so the daemon may, also during a stall. It shows this process' mount namespace
//! only: a device that is mounted elsewhere is found by claiming it exclusively, not here.
//!
//! Invariants: `escaped_paths_are_read_back`, `a_line_that_is_not_understood_is_skipped`.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Number of a block device, written `7:0` (major, minor).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevNumber {
    major: u64,
    minor: u64,
}

impl DevNumber {
    /// From a `dev_t`, as in `st_dev` and `st_rdev`.
    #[must_use]
    pub const fn from_dev(dev: u64) -> Self {
        Self { major: nix::sys::stat::major(dev), minor: nix::sys::stat::minor(dev) }
    }
}

impl fmt::Display for DevNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Not `major:minor`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("device number {0:?} is not two numbers joined by ':'")]
pub struct ParseDevNumberError(String);

impl FromStr for DevNumber {
    type Err = ParseDevNumberError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseDevNumberError(text.to_owned());
        let (major, minor) = text.trim().split_once(':').ok_or_else(bad)?;
        let number = |part: &str| part.parse().map_err(|_| bad());
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Device number of the file system.
    pub device: DevNumber,
    /// Where.
    pub target: PathBuf,
    /// `xfs`, `ext4` ...
    pub fstype: String,
    /// Options of the mount: `ro`, `noatime` ...
    pub options: Vec<String>,
    /// Options of the file system itself; ext4 shows `shutdown` here, XFS shows nothing of the kind.
    pub super_options: Vec<String>,
}

/// What ext4 shows instead of `ro` after an error with `errors=remount-ro`, since Linux 6.15. Seen on 6.18: the mount
/// stays `rw` by all other signs, and every write fails with `EROFS`.
const EMERGENCY_READ_ONLY: &str = "emergency_ro";

/// Every mount that this process sees, in mount order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

/// What the mount table says of the volume's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsState {
    /// Nothing is mounted there.
    NotMounted,
    /// Mounted for writing, as far as the table shows.
    ReadWrite,
    /// Mounted, or remounted by the kernel, read-only.
    ReadOnly,
    /// Shut down (ext4 only).
    ShutDown,
}

impl Mounts {
    /// Reads the mounts of this process.
    ///
    /// # Errors
    /// The kernel's, when `/proc` is missing.
    pub fn of_this_process() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read("/proc/self/mountinfo")?))
    }

    /// Parses the text of a mountinfo file.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        Self(text.split(|b| *b == b'\n').filter_map(parse_line).collect())
    }

    /// The mount that is visible at `target`: the last one there.
    #[must_use]
    pub fn at(&self, target: &Path) -> Option<&Mount> {
        self.0.iter().rev().find(|m| m.target == target)
    }

    /// The mounts of a device.
    pub fn of(&self, device: DevNumber) -> impl Iterator<Item = &Mount> {
        self.0.iter().filter(move |m| m.device == device)
    }

    /// What the table says of the file system at `target`.
    #[must_use]
    pub fn state_at(&self, target: &Path) -> FsState {
        let Some(mount) = self.at(target) else { return FsState::NotMounted };
        let has = |options: &[String], word: &str| options.iter().any(|o| o == word);
        let read_only = |word| has(&mount.options, word) || has(&mount.super_options, word);
        if has(&mount.super_options, "shutdown") {
            FsState::ShutDown
        } else if read_only("ro") || read_only(EMERGENCY_READ_ONLY) {
            FsState::ReadOnly
        } else {
            FsState::ReadWrite
        }
    }
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    let mut fields = line.split(|b| *b == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?.parse().ok()?;
    let target = unescape(fields.nth(1)?);
    let options = words(fields.next()?);
    let fstype = fields.by_ref().skip_while(|field| *field != b"-").nth(1)?;
    let super_options = words(fields.nth(1)?);
    let fstype = String::from_utf8_lossy(fstype).into_owned();
    Some(Mount { device, target, fstype, options, super_options })
}

fn words(field: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(field).split(',').map(str::to_owned).collect()
}

/// Spaces and the like are written as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|t| std::str::from_utf8(t).ok());
        match octal.and_then(|t| u8::from_str_radix(t, 8).ok()).filter(|_| byte == b'\\') {
            Some(escaped) => {
                out.push(escaped);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        27 1 253:0 / / rw,relatime shared:1 master:2 - ext4 /dev/root rw,errors=remount-ro\n\
        nonsense\n\
        40 27 7:0 / /srv/a\\040b rw,noatime - xfs /dev/loop0 rw,logbufs=8\n\
        41 27 7:1 / /srv/x ro - ext4 /dev/loop1 ro\n\
        42 27 7:2 / /srv/x rw - ext4 /dev/loop2 rw,shutdown\n";

    #[test]
    fn escaped_paths_are_read_back() {
        let mounts = Mounts::parse(TABLE);
        assert_eq!(mounts.at(Path::new("/srv/a b")).unwrap().fstype, "xfs");
        assert_eq!(unescape(br"a\134b\9"), PathBuf::from(r"a\b\9"));
    }

    #[test]
    fn a_line_that_is_not_understood_is_skipped() {
        assert_eq!(Mounts::parse(TABLE).0.len(), 5);
        assert_eq!(Mounts::parse(b"").0.len(), 0);
    }

    #[test]
    fn the_last_mount_on_a_target_is_the_visible_one() {
        let mounts = Mounts::parse(TABLE);
        assert_eq!(mounts.at(Path::new("/srv/x")).unwrap().device.to_string(), "7:2");
        assert_eq!(mounts.of("7:1".parse().unwrap()).count(), 1);
    }

    #[test]
    fn the_state_of_the_file_system_is_read_from_its_options() {
        let state = |line: &str| Mounts::parse(line.as_bytes()).state_at(Path::new("/m"));
        assert_eq!(state("1 1 7:0 / /m rw - ext4 /dev/loop0 rw"), FsState::ReadWrite);
        assert_eq!(state("1 1 7:0 / /m ro - ext4 /dev/loop0 rw"), FsState::ReadOnly);
        assert_eq!(state("1 1 7:0 / /m rw - ext4 /dev/loop0 ro"), FsState::ReadOnly);
        let after_error = "1 1 7:0 / /m rw - ext4 /dev/loop0 rw,errors=remount-ro,emergency_ro";
        assert_eq!(state(after_error), FsState::ReadOnly);
        assert_eq!(state("1 1 7:0 / /m rw - ext4 /dev/loop0 rw,errors=remount-ro"), FsState::ReadWrite);
        assert_eq!(state("1 1 7:0 / /m rw - ext4 /dev/loop0 rw,shutdown"), FsState::ShutDown);
        assert_eq!(state("1 1 7:0 / /n rw - ext4 /dev/loop0 rw"), FsState::NotMounted);
    }
}
