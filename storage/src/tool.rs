//! The one place that runs external programs: mkfs.
//!
//! The device reaches mkfs as its standard input, named `/proc/self/fd/0`: a name that cannot come to mean another
//! device, and no descriptor has to be leaked into the child. Standard input is also how both programs decide not
//! to ask questions. Never `-f` or `-F`: a program that finds something must refuse.
//!
//! Invariants: `tests/devices/format.rs`.

use std::fs::File;
use std::io;
use std::process::Stdio;

use holdfast_model::volume::Filesystem;
use uuid::Uuid;

/// The device as mkfs sees it.
const DEVICE: &str = "/proc/self/fd/0";
/// How much of what mkfs says is kept for the error.
const SAID_MAX: usize = 2000;

/// Why mkfs did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("{program} is not installed: install the package {package}")]
    Missing {
        /// The program.
        program: &'static str,
        /// Debian's package with it.
        package: &'static str,
    },
    /// It could not be run.
    #[error("run {program}")]
    Run {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: String,
        /// What it said.
        said: String,
    },
}

/// What to make.
#[derive(Debug, Clone)]
pub(crate) struct Mkfs {
    pub(crate) filesystem: Filesystem,
    pub(crate) uuid: Uuid,
    pub(crate) label: String,
    /// In bytes; a multiple of a MiB.
    pub(crate) size: u64,
}

impl Mkfs {
    const fn program(&self) -> (&'static str, &'static str) {
        match self.filesystem {
            Filesystem::Xfs => ("mkfs.xfs", "xfsprogs"),
            Filesystem::Ext4 => ("mkfs.ext4", "e2fsprogs"),
        }
    }

    fn arguments(&self) -> Vec<String> {
        let words: Vec<String> = match self.filesystem {
            // -K and nodiscard: clouds deliver instance stores trimmed, and trimming a big one takes minutes.
            Filesystem::Xfs => vec![
                "-q".to_owned(),
                "-K".to_owned(),
                "-d".to_owned(),
                format!("size={}", self.size),
                "-m".to_owned(),
                format!("uuid={},crc=1,reflink=1", self.uuid),
                "-L".to_owned(),
                self.label.clone(),
                DEVICE.to_owned(),
            ],
            // No lazy initialisation: it would go on writing under the database for hours.
            Filesystem::Ext4 => vec![
                "-q".to_owned(),
                "-m".to_owned(),
                "0".to_owned(),
                "-b".to_owned(),
                "4096".to_owned(),
                "-O".to_owned(),
                "metadata_csum,64bit".to_owned(),
                "-E".to_owned(),
                "nodiscard,lazy_itable_init=0,lazy_journal_init=0".to_owned(),
                "-U".to_owned(),
                self.uuid.to_string(),
                "-L".to_owned(),
                self.label.clone(),
                DEVICE.to_owned(),
                format!("{}k", self.size / 1024),
            ],
        };
        words
    }

    /// Makes the file system on `device`, which is open for reading and writing but not exclusively.
    pub(crate) fn run(&self, device: File) -> Result<(), ToolError> {
        let (program, package) = self.program();
        #[expect(clippy::disallowed_methods, reason = "this module is the one place that runs mkfs")]
        let run = std::process::Command::new(program)
            .args(self.arguments())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .stdin(Stdio::from(device))
            .output();
        let output = run.map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                ToolError::Missing { program, package }
            } else {
                ToolError::Run { program, source }
            }
        })?;
        if output.status.success() {
            return Ok(());
        }
        let mut said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        said.truncate(said.floor_char_boundary(SAID_MAX));
        Err(ToolError::Failed { program, status: output.status.to_string(), said })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mkfs_is_never_forced() {
        for filesystem in [Filesystem::Xfs, Filesystem::Ext4] {
            let mkfs = Mkfs { filesystem, uuid: Uuid::nil(), label: "hf".to_owned(), size: 1 << 30 };
            let arguments = mkfs.arguments();
            assert!(!arguments.iter().any(|a| a == "-f" || a == "-F"), "{arguments:?}");
        }
    }
}
