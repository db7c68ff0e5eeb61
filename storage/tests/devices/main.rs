//! Storage on real loop devices, and discovery on recorded sysfs trees. Needs root, `mkfs.xfs`, `mkfs.ext4`,
//! `partx` and `unshare`.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails, fails the test")]

mod discover;
mod format;
mod mount;
mod ops;
mod probe;
mod rig;
mod watch;
mod wipe;
