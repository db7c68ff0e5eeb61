//! Worker processes: all input and output on the data disk that is not the engine's own.
//!
//! A stalled disk puts whatever touches it into a sleep that SIGKILL does not end. So that happens in processes that hold
//! nothing but a channel to the daemon, no port and no lock, and the daemon gives one up that misses its deadline.
//! `volume` workers run as the daemon's user and do small things in turn ([`volume`]); `backup`, `restore` and `ship`
//! workers run as the engine's user and do one long job each ([`job`]). A worker ends when its channel ends.
//!
//! Not here: starting them. See [`crate::helper`].

mod bodies;
pub mod job;
mod job_handle;
mod job_worker;
pub mod volume;
mod volume_handle;

use std::os::fd::AsFd;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use tracing::error;

use crate::chain::Chain;
use crate::helper::wire::{AsyncChannel, Channel, WireError};

pub use job_handle::{JobEnd, JobError, JobHandle};
pub use job_worker::JobWorkerError;
pub use volume::VolumePlace;
pub use volume_handle::{VolumeCallError, VolumeWorker};

/// Entry of `holdfastd worker <role>`: serves the daemon at the other end of standard input until it goes away.
#[must_use]
pub fn main(role: &str) -> ExitCode {
    let ended = match Role::parse(role) {
        Some(Role::Volume) => serve_volume(),
        Some(role @ (Role::Backup | Role::Restore | Role::Ship)) => serve_job(role),
        None => Err(std::io::Error::other(format!("no such role: {role}")).into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            error!(role, error = %Chain(&err), "worker ended");
            ExitCode::FAILURE
        }
    }
}

fn serve_volume() -> Result<(), JobWorkerError> {
    Ok(volume::serve(&Channel::inherited()?)?)
}

fn serve_job(role: Role) -> Result<(), JobWorkerError> {
    let body = bodies::of(role).ok_or_else(|| std::io::Error::other(format!("nothing does {role} jobs")))?;
    let end = std::io::stdin().as_fd().try_clone_to_owned()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async { job_worker::serve(AsyncChannel::new(end)?, body).await });
    // Threads that wait for a disk must not keep the process from its exit.
    runtime.shutdown_background();
    match served {
        // The daemon went away: no failure of the job.
        Err(JobWorkerError::Channel(WireError::Closed)) => Ok(()),
        other => other,
    }
}

/// What kind of worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Identity, promise, data record, probe writes, space.
    Volume,
    /// Copies the data directory into the repository.
    Backup,
    /// Copies a backup and its log from the repository.
    Restore,
    /// Ships log to the repository.
    Ship,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Volume, Self::Backup, Self::Restore, Self::Ship];

    /// As on the command line: `holdfastd worker <word>`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Ship => "ship",
        }
    }

    /// The role that a word names.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// The first thing that comes out of a worker's channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Greeting {
    /// It is set up and listens.
    Ready,
    /// The stage before it gave up; the channel ends.
    Refused(crate::child::spec::Refusal),
}
