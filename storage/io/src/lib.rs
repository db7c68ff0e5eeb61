//! Bytes and descriptors: bulk file I/O beneath a root, descriptors over sockets, and the few ioctls that the
//! project needs. The only crate that may contain `unsafe`.
//!
//! * [`root`] holds a directory open and reaches files below it only, whatever the names say.
//! * [`bulk`] moves data of files below a root, direct where the kernel allows it.
//! * [`buffer`] is memory that direct I/O accepts.
//! * [`fdpass`] hands an open descriptor to another process.
//! * [`ioctl`] asks block devices and file systems what no file operation can.
//! * [`loopdev`] attaches files as block devices, for tests, demonstrations and development.
//!
//! Every call blocks its thread. A caller that must not block owns the threads (`spawn_blocking`, a worker
//! process) and with them the bound on how many calls are under way at once.
//!
//! Not here: what the bytes mean. See `holdfast-storage` for devices and volumes, `holdfast-backup` for chunks.

pub mod buffer;
pub mod bulk;
pub mod fdpass;
pub mod ioctl;
pub mod loopdev;
pub mod root;

use std::io;
use std::path::{Path, PathBuf};

/// A call that failed: what was being done, and to which file.
#[derive(Debug, thiserror::Error)]
#[error("{op} {}", path.display())]
pub struct IoError {
    /// What was being done, e.g. `read`.
    pub op: &'static str,
    /// The file, as the caller named it.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl IoError {
    /// For `map_err`: names the operation and its object.
    pub fn at<E: Into<io::Error>>(op: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self { op, path: path.to_owned(), source: source.into() }
    }

    /// The kernel's error number, when there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Whether the file is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}
