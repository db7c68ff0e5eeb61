//! The root helper: the only process with root's rights, and the parent of every other one.
//!
//! The daemon starts it before it drops its own rights, with one end of a channel as standard input, and talks to it
//! through [`HelperClient`]. It parses nothing from the network, knows a fixed set of verbs ([`protocol`]), takes users,
//! programs and paths from the configuration that it reads itself ([`settings`]), and never waits for a disk: what may
//! touch one runs in a one-shot process ([`op`]) with a deadline. It ends when the daemon ends; the engine does not.
//!
//! Without root the same shape runs as one user.
//!
//! Not here: when to do what. See `holdfast-agent-decide`.

mod children;
pub mod client;
mod engine;
pub mod op;
pub mod protocol;
mod receivers;
mod server;
pub mod settings;
pub(crate) mod tls;
mod volume;
pub mod wire;

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate::config::Config;
use protocol::Failure;
use settings::Settings;

pub use client::{CallError, HelperClient, HelperLink};

/// Starts the helper for the configuration file at `config`, which it reads again itself.
///
/// Must be called before the daemon drops its rights. The process ends when the returned channel is closed.
///
/// # Errors
/// When no channel can be made or the process cannot be started.
pub fn start(config: &Path) -> io::Result<(OwnedFd, std::process::Child)> {
    children::start_helper(config)
}

/// Entry of `holdfastd helper`: serves the daemon at the other end of standard input until it goes away.
///
/// # Errors
/// When the configuration cannot be resolved or the channel fails.
pub fn main(config: Config) -> anyhow::Result<ExitCode> {
    close_inherited().context("close inherited descriptors")?;
    let settings = Settings::resolve(&config).context("resolve configuration for the helper")?;
    drop(config);
    let daemon = io::stdin().as_fd().try_clone_to_owned().context("take the channel to the daemon")?;
    server::Server::new(settings, daemon).context("set up the helper")?.run().context("serve the daemon")?;
    Ok(ExitCode::SUCCESS)
}

/// Closes what whoever started the agent left open: it would reach every engine and worker.
///
/// Called before this process opens anything of its own beside the standard streams.
fn close_inherited() -> io::Result<()> {
    let open =
        std::fs::read_dir("/proc/self/fd")?.flatten().filter_map(|fd| fd.file_name().to_str()?.parse().ok());
    let open: Vec<i32> = open.filter(|fd| *fd > nix::libc::STDERR_FILENO).collect();
    for fd in open {
        match nix::unistd::close(fd) {
            // The listing itself.
            Ok(()) | Err(nix::Error::EBADF) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Turns an error of the system into one that the daemon is told.
fn failed<E: Display>(operation: &str) -> impl FnOnce(E) -> Failure {
    let operation = operation.to_owned();
    move |err| Failure::Helper { operation, error: err.to_string() }
}
