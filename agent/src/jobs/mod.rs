//! The long jobs that move data between the volume and the repository, each in a worker process of its own that runs as
//! the engine's user: [`backup`], [`restore`] (with [`log`], which serves recovery its log, [`standby`], the files of
//! a server that follows, and [`rewind`]) and [`ship`].
//!
//! Here the engine's knowledge of files and positions meets the engine-agnostic `backup` crate; neither knows the
//! other. What a job is told comes as JSON over its channel, what it needs to be safe is on the volume and in the
//! repository: every job may be killed at any byte.
//!
//! Not here: when to start one. See `decide` and `act`.

pub mod backup;
pub mod evidence;
pub mod log;
pub mod restore;
pub mod rewind;
pub mod ship;
mod source;
pub mod standby;

use std::path::PathBuf;
use std::time::Duration;

use holdfast_backup::repository::{Location, Repository, RepositoryError};
use holdfast_backup::store::{ConnectError, RepositoryConfig};
use holdfast_engine::postgres::Layout;
use holdfast_model::ClusterId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chain::Chain;
use crate::worker::job::{JobFailure, JobRetry};

/// For a login and for each query of a job.
const QUERY_DEADLINE: Duration = Duration::from_secs(10);

/// Where a cluster's repository is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Access {
    /// As configured.
    pub repository: RepositoryConfig,
    /// Which cluster in it.
    pub cluster: ClusterId,
}

impl Access {
    /// Opens it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self) -> Result<Repository, OpenError> {
        Ok(Location::connect(&self.repository)?.open(&self.cluster).await?)
    }
}

/// Why the repository could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No client could be made.
    #[error("connect to the repository")]
    Connect(#[from] ConnectError),
    /// It does not answer, or does not hold the cluster.
    #[error("open the repository")]
    Open(#[from] RepositoryError),
}

/// Where the engine's places are, for jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnginePlaces {
    bin_dir: PathBuf,
    /// The data directory on the volume.
    pub data_dir: PathBuf,
    socket_dir: PathBuf,
    conf_dir: PathBuf,
    port: u16,
}

impl From<&Layout> for EnginePlaces {
    fn from(layout: &Layout) -> Self {
        Self {
            bin_dir: layout.bin_dir.clone(),
            data_dir: layout.data_dir.clone(),
            socket_dir: layout.socket_dir.clone(),
            conf_dir: layout.conf_dir.clone(),
            port: layout.port,
        }
    }
}

impl EnginePlaces {
    /// For sessions over the unix socket.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout {
            bin_dir: self.bin_dir.clone(),
            data_dir: self.data_dir.clone(),
            socket_dir: self.socket_dir.clone(),
            conf_dir: self.conf_dir.clone(),
            port: self.port,
            listen: String::new(),
        }
    }
}

/// A failure that may go away by itself.
fn later(err: &(dyn std::error::Error + 'static)) -> JobFailure {
    JobFailure { retry: JobRetry::Later, why: Chain(err).to_string() }
}

/// A failure that somebody must do something about.
fn never(err: &(dyn std::error::Error + 'static)) -> JobFailure {
    JobFailure { retry: JobRetry::Never, why: Chain(err).to_string() }
}

fn parse<T: DeserializeOwned>(job: Value) -> Result<T, JobFailure> {
    serde_json::from_value(job).map_err(|err| never(&err))
}

fn answer<T: Serialize>(result: &T) -> Result<Value, JobFailure> {
    serde_json::to_value(result).map_err(|err| never(&err))
}
