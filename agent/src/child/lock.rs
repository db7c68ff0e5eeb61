//! `engine.lock`: at most one engine per volume, also across containers.
//!
//! postmaster.pid fails across pid and ipc namespaces: a second server starts crash recovery on the live directory. An
//! flock is a property of the open file, so it is held as long as any process has the inherited descriptor: by the
//! postmaster, and by a backend that outlives it. It is taken before the exec and never let go by us.
//!
//! Invariants, each a test below; across namespaces and agents in `tests/supervisor/adopt.rs`:
//! * `a_held_lock_is_refused_and_the_holder_named`.
//! * `looking_never_takes_the_lock_away_from_a_starter_for_longer_than_the_look`.
//! * `a_link_in_place_of_the_lock_is_refused`.
//!
//! Not here: what to do about a holder. See [`crate::supervisor::adopt`].

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use serde::{Deserialize, Serialize};

use super::process::{ProcessFacts, holders_of};

/// The lock's file, unmistakably while its file system is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFile {
    /// Its file system.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
}

/// What a look at the lock found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockView {
    /// Nobody holds it: no engine runs on this volume.
    Free,
    /// Some process holds it.
    Held {
        /// The file.
        lock: LockFile,
        /// Processes that have it open and can be seen from here; empty when they are in another pid namespace.
        holders: Vec<ProcessFacts>,
    },
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Some process holds it.
    #[error("engine lock {} is held by {}", path.display(), describe(holders))]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// Those that can be seen from here.
        holders: Vec<ProcessFacts>,
    },
    /// It cannot be opened or asked.
    #[error("{operation} engine lock {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The lock's file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Opens the lock's file, making it if it is missing. Touches the data disk.
///
/// # Errors
/// [`LockError::File`], also when the path is a link.
pub fn open(path: &Path) -> Result<File, LockError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|source| LockError::File { operation: "open", path: path.to_owned(), source })
}

/// Takes the lock without waiting. It is held until the last copy of this descriptor is closed.
///
/// # Errors
/// [`LockError`], naming the holders that can be seen.
pub fn take(file: &File, path: &Path) -> Result<LockFile, LockError> {
    let failed = |source| LockError::File { operation: "lock", path: path.to_owned(), source };
    match file.try_lock() {
        Ok(()) => identify(file).map_err(failed),
        Err(TryLockError::WouldBlock) => {
            Err(LockError::Held { path: path.to_owned(), holders: holders(file).map_err(failed)? })
        }
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Asks who holds the lock. Touches the data disk, so it belongs into a one-shot process.
///
/// A shared lock is tried and given back at once; a start that meets it in that moment is refused and tries again.
///
/// # Errors
/// [`LockError::File`].
pub fn look(path: &Path) -> Result<LockView, LockError> {
    let failed = |operation| move |source| LockError::File { operation, path: path.to_owned(), source };
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        // No engine ever ran here: whoever starts one makes the file first.
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(LockView::Free),
        Err(source) => return Err(failed("open")(source)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(LockView::Free),
        Err(TryLockError::WouldBlock) => Ok(LockView::Held {
            lock: identify(&file).map_err(failed("stat"))?,
            holders: holders(&file).map_err(failed("find the holder of"))?,
        }),
        Err(TryLockError::Error(source)) => Err(failed("try")(source)),
    }
}

/// Names holders for people.
#[must_use]
pub fn describe(holders: &[ProcessFacts]) -> String {
    if holders.is_empty() {
        return "a process that cannot be seen from here (another pid namespace or container)".to_owned();
    }
    holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn identify(file: &File) -> io::Result<LockFile> {
    let meta = file.metadata()?;
    Ok(LockFile { dev: meta.dev(), ino: meta.ino() })
}

/// Every other process with this file open.
fn holders(file: &File) -> io::Result<Vec<ProcessFacts>> {
    use std::os::fd::AsRawFd;
    let name = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let own = nix::unistd::getpid().as_raw();
    let mut found = Vec::new();
    for pid in holders_of(&name)?.into_iter().filter(|pid| *pid != own) {
        found.extend(ProcessFacts::of(pid)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("holdfast-lock-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir.canonicalize().unwrap())
        }

        fn lock(&self) -> PathBuf {
            self.0.join("engine.lock")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    struct Held(Child);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// A process whose standard input is a descriptor with the lock, as an engine inherits one.
    #[expect(clippy::disallowed_methods, reason = "the tests need a real holder")]
    fn hold(path: &Path) -> Held {
        let file = open(path).unwrap();
        take(&file, path).unwrap();
        Held(Command::new("/bin/sleep").arg("60").stdin(Stdio::from(file)).spawn().unwrap())
    }

    #[test]
    fn a_held_lock_is_refused_and_the_holder_named() {
        let scratch = Scratch::new("held");
        let path = scratch.lock();
        assert_eq!(look(&path).unwrap(), LockView::Free, "no file yet");
        let holder = hold(&path);
        let err = take(&open(&path).unwrap(), &path).unwrap_err();
        assert!(err.to_string().contains(&format!("pid {}", holder.0.id())), "{err}");
        let LockView::Held { holders, .. } = look(&path).unwrap() else { panic!("it is held") };
        assert_eq!(holders.len(), 1);
        drop(holder);
        assert_eq!(look(&path).unwrap(), LockView::Free);
        take(&open(&path).unwrap(), &path).unwrap();
    }

    #[test]
    fn looking_never_takes_the_lock_away_from_a_starter_for_longer_than_the_look() {
        let scratch = Scratch::new("look");
        let path = scratch.lock();
        drop(open(&path).unwrap());
        assert_eq!(look(&path).unwrap(), LockView::Free);
        take(&open(&path).unwrap(), &path).unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_refused() {
        let scratch = Scratch::new("link");
        std::os::unix::fs::symlink("/etc/passwd", scratch.lock()).unwrap();
        assert!(matches!(open(&scratch.lock()), Err(LockError::File { operation: "open", .. })));
        assert!(matches!(look(&scratch.lock()), Err(LockError::File { operation: "open", .. })));
    }
}
