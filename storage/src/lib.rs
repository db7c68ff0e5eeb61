//! Block devices and volumes: which disk may be used, formatting and mounting it, who it belongs to, and whether
//! it still works.
//!
//! From a device to a database directory:
//! 1. [`discover`] lists candidate devices from [`sysfs`], never by device name.
//! 2. [`probe`] says what each is to this node: it reads [`content`], looks for any [`signature`] and for our own
//!    [`stamp`], and hands out a typed claim. Only a claim on a blank device can be formatted.
//! 3. [`format`](mod@format) makes the file system on a claimed blank device, through [`tool`].
//! 4. [`mount`] mounts a claimed device of ours; [`places`] sets up the directories in it; [`identity`] is the
//!    record that says whose it is; [`promise`] keeps what this member promised.
//!    [`beside`] swaps the database directory for another one.
//! 5. [`watch`] and [`space`] look at a mounted volume, [`health`] judges what they saw.
//! 6. [`ops`] bundles 1 to 4 as the fixed verbs of the privileged helper. [`wipe`] is consent to erase.
//!
//! Everything here blocks: a stalled disk blocks it for ever. So it runs in processes that can be abandoned.
//!
//! **Invariant**: a disk that is not provably blank or ours is never written. Tests: `tests/devices/probe.rs`,
//! `tests/devices/format.rs`.
//!
//! Not here: when to format, mount or fence. See `holdfast-agent-decide`.

pub mod beside;
pub mod content;
pub mod device;
pub mod directory;
pub mod discover;
pub mod format;
pub mod health;
pub mod identity;
pub mod judge;
pub mod mount;
pub mod mountinfo;
pub mod ops;
pub mod places;
pub mod probe;
pub mod promise;
pub mod signature;
pub mod space;
pub mod spec;
pub mod stamp;
pub mod superblock;
pub mod sysfs;
pub mod tool;
mod users;
pub mod watch;
pub mod wipe;

pub use spec::{Access, VolumeSpec};
