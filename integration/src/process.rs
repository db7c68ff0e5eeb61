//! Starting programs from tests. The only place in this crate that does.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually;

/// A command to fill in. Its standard input is empty unless set otherwise.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the harness plays the operator and the init system")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Runs `command` to its end and returns what it printed.
///
/// # Errors
/// It cannot be started, or ends with anything but 0; the message carries its standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {}", shown(command)))?;
    ensure!(
        output.status.success(),
        "{} ended with {}: {}{}",
        shown(command),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end(),
        String::from_utf8_lossy(&output.stdout).trim_end(),
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command that runs as `user` if the caller is root, and as the caller otherwise.
#[must_use]
pub fn command_as(user: &str, program: impl AsRef<OsStr>) -> Command {
    if !is_root() {
        return command(program);
    }
    let mut as_user = command("runuser");
    as_user.args(["-u", user, "--"]).arg(program);
    as_user
}

/// Whether loop devices, mounts and other users can be had.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A program in the background. Its output goes to a file, never to a pipe that could fill; dropping it kills it.
#[derive(Debug)]
pub struct Background {
    name: String,
    child: Child,
}

impl Background {
    /// Starts `command` with its output appended to `log`.
    ///
    /// # Errors
    /// The file cannot be opened or the program cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let errors = output.try_clone().context("clone a descriptor")?;
        let name = shown(command);
        let child = command.stdout(output).stderr(errors).spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name, child })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it ended by itself.
    ///
    /// # Errors
    /// It ended; the message carries how.
    pub fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("wait for a child")? {
            anyhow::bail!("{} ended with {status}", self.name);
        }
        Ok(())
    }

    /// Whether it was ended by `signal`.
    ///
    /// # Errors
    /// It ended in another way; the message carries how.
    pub fn ended_by(&mut self, signal: Signal) -> Result<bool> {
        let Some(status) = self.child.try_wait().context("wait for a child")? else { return Ok(false) };
        ensure!(status.signal() == Some(signal as i32), "{} ended with {status}", self.name);
        Ok(true)
    }

    /// Sends `signal`.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a pid that is no i32")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Waits for it to end and fails unless it ended with 0.
    ///
    /// # Errors
    /// It still runs after `within`, or ended with anything but 0.
    pub async fn ended_well(mut self, within: Duration) -> Result<()> {
        let what = format!("the end of {}", self.name);
        let status = eventually(&what, within, async || self.child.try_wait()?.context("it runs")).await?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // An error means that it has ended and was waited for.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
