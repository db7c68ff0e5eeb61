//! What the agent does on a running server, done by the test itself.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use async_trait::async_trait;
use holdfast_engine::engine::Cause;
use holdfast_engine::postgres::recovery::RecoveryFile;
use holdfast_engine::postgres::standby::{Hands, is_receiver};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Server, children, give_to_engine};

pub(crate) struct TestHands {
    postmaster: Pid,
    data_dir: PathBuf,
}

impl TestHands {
    pub(crate) fn of(server: &Server) -> Self {
        Self { postmaster: server.postmaster(), data_dir: server.setup.layout.data_dir.clone() }
    }

    /// Walreceivers among the postmaster's children, by `/proc`.
    pub(crate) fn find(&self) -> Vec<Pid> {
        let is = |pid: &Pid| is_receiver(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default());
        children(self.postmaster).into_iter().filter(is).collect()
    }
}

#[async_trait]
impl Hands for TestHands {
    async fn receivers(&self) -> Result<u32, Cause> {
        Ok(u32::try_from(self.find().len())?)
    }

    async fn end_receivers(&self) -> Result<u32, Cause> {
        let found = self.find();
        for pid in &found {
            match kill(*pid, Signal::SIGTERM) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(u32::try_from(found.len())?)
    }

    async fn ensure_files(&self, files: &[RecoveryFile]) -> Result<(), Cause> {
        for file in files {
            let path = self.data_dir.join(&file.path);
            if path.exists() {
                continue;
            }
            let mut made = File::create_new(&path)?;
            made.write_all(file.content.as_bytes())?;
            made.sync_all()?;
            give_to_engine(&path);
        }
        Ok(())
    }
}
