//! A directory for one test, and the promise that nothing in it outlives the test.
//!
//! Processes, mounts and loop devices of a test all live in its scratch directory. A janitor (a shell script in a
//! session of its own) waits for the test's end of a pipe to close and then takes everything down, so cleaning up is
//! one path: the guard's `Drop` and a SIGKILL of the test both close the pipe.
//!
//! Tests: `everything_in_a_scratch_directory_is_taken_down_with_it`, in `tests/harness.rs`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::process;

const JANITOR: &str = include_str!("janitor.sh");

/// A directory below the system's temporary one, open to all users. Clones share it; the last one takes it down.
#[derive(Debug, Clone)]
pub struct Scratch(Arc<Guard>);

#[derive(Debug)]
struct Guard {
    path: PathBuf,
    janitor: Child,
}

impl Scratch {
    /// Makes one.
    ///
    /// # Errors
    /// It cannot be made, or the janitor cannot be started.
    pub fn new() -> Result<Self> {
        let path =
            tempfile::Builder::new().prefix("hf-").tempdir().context("make a scratch directory")?.keep();
        // Engines and the daemon run as users of their own and must get in.
        fs::set_permissions(&path, Permissions::from_mode(0o755)).context("open the scratch directory")?;
        let janitor = process::command("setsid")
            .args(["--wait", "sh", "-c", JANITOR, "janitor"])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the janitor")?;
        Ok(Self(Arc::new(Guard { path, janitor })))
    }

    /// Where it is. Short enough for a unix socket inside.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Makes a folder in it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.0.path.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(folder)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        let ended = self.janitor.wait();
        if self.path.exists() && !std::thread::panicking() {
            panic!("{} could not be taken down: {ended:?}", self.path.display());
        }
    }
}
