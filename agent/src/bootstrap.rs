//! An operator's request for a new cluster: written to the ledger by `holdfastd bootstrap`, consumed by the daemon.
//!
//! It is a file and not a call, so that it also works before the daemon runs and survives its restart. It stays until
//! the new cluster's first rule was seen acked.

use crate::clock;
use crate::config::Config;
use crate::ledger::{BootstrapRequest, Ledger, LedgerError};

/// Why the request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The token is not the cluster's name.
    #[error("--token {given:?} is not this cluster's name: repeat {cluster:?} to make exactly that cluster")]
    Token {
        /// What was given.
        given: String,
        /// What is configured.
        cluster: String,
    },
    /// It could not be stored.
    #[error("store bootstrap request")]
    Ledger(#[from] LedgerError),
}

/// Checks the token against the configuration.
///
/// # Errors
/// [`RequestError::Token`].
pub fn check_token(config: &Config, token: &str) -> Result<(), RequestError> {
    if token == config.cluster.as_str() {
        Ok(())
    } else {
        Err(RequestError::Token { given: token.to_owned(), cluster: config.cluster.to_string() })
    }
}

/// Stores the request; asking twice is the same as asking once.
///
/// # Errors
/// [`RequestError`].
pub fn request(config: &Config, token: &str) -> Result<(), RequestError> {
    check_token(config, token)?;
    let ledger = Ledger::open(&config.daemon.state_dir)?;
    ledger.store(&BootstrapRequest { at: clock::wall_clock(), cluster: None })?;
    Ok(())
}
