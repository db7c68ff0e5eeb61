//! Swaps the TLS configuration when its files change, without a restart and without dropping a connection.
//!
//! Files are compared by content, so that a rename, an overwrite and a swapped symbolic link (as Kubernetes does) are
//! all seen. A set that is half written or broken leaves the old one in force and is told once.
//!
//! Invariants, each a test in `cli/tests/hot_reload.rs`:
//! * `a_new_certificate_is_served_without_a_restart`.
//! * `a_broken_set_leaves_the_old_one_in_force`.
//!
//! Not here: connections that are open already; they end by their age (`api::serve`).

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::identity::Identity;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::files::{Contents, TlsError};
use crate::chain::Chain;
use crate::config::TlsConfig;

/// What a look at the files brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// As before.
    Same,
    /// New ones are in force.
    Swapped,
}

/// Owns the TLS configuration in force.
#[derive(Debug)]
pub struct Reloader {
    files: TlsConfig,
    own: Identity,
    seen: Contents,
    in_force: watch::Sender<Arc<ServerConfig>>,
}

impl Reloader {
    /// Reads the files for the first time; blocks, as it runs before anything is served.
    ///
    /// # Errors
    /// [`TlsError`]: without a usable set nothing is served.
    pub fn start(files: TlsConfig, own: Identity) -> Result<Self, TlsError> {
        let seen = Contents::read(&files)?;
        let config = seen.server_config(&files, &own)?;
        Ok(Self { files, own, seen, in_force: watch::Sender::new(Arc::new(config)) })
    }

    /// The configuration in force, now and later.
    #[must_use]
    pub fn config(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.in_force.subscribe()
    }

    /// Reads the files again, and swaps if they changed; a set that was refused is not tried again until it changes.
    /// Blocks for the time of reading three small files.
    ///
    /// # Errors
    /// [`TlsError`]; the old set stays in force.
    pub fn look(&mut self) -> Result<Looked, TlsError> {
        let contents = Contents::read(&self.files)?;
        if contents == self.seen {
            return Ok(Looked::Same);
        }
        self.seen = contents;
        let config = self.seen.server_config(&self.files, &self.own)?;
        self.in_force.send_replace(Arc::new(config));
        Ok(Looked::Swapped)
    }

    /// Looks every `every` until cancelled. Each look runs on a blocking thread: the files may lie on a slow disk.
    pub async fn run(mut self, every: Duration, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return, // cancel-safe
                () = tokio::time::sleep(every) => {} // cancel-safe
            }
            let looked = tokio::task::spawn_blocking(move || {
                let looked = self.look();
                (self, looked)
            });
            let Ok((back, looked)) = looked.await else { return };
            self = back;
            match looked {
                Ok(Looked::Same) => {}
                Ok(Looked::Swapped) => info!(cert = %self.files.cert.display(), "certificates reloaded"),
                Err(err) => {
                    warn!(error = %Chain(&err), "certificates not reloaded, the old ones stay in force")
                }
            }
        }
    }
}
