//! `holdfastd exec-child`: the stage between the helper and an engine or a worker.
//!
//! It sets itself up (cgroup, session, limits, lock, log, user) and execs the program, so that nothing has to run between
//! fork and exec in the helper, and a step that hangs on a stalled disk hangs in a process that can be given up.
//! An engine's stage reports when it is prepared and execs only when told to: the supervisor first writes down which
//! process that is. If the helper goes away or gives the stage up, the channel ends and the stage exits.
//!
//! There is no parent-death signal: it is tied to the thread that forked, and the engine is to outlive the agent.
//!
//! Invariants, each a test in `tests/supervisor/start.rs`:
//! * `a_stage_that_was_not_let_go_starts_nothing`.
//! * `nothing_starts_on_a_mount_point_without_its_volume`.
//! * `the_engine_runs_as_its_user_with_lock_and_log_and_nothing_else_inherited`.
//!
//! Not here: who may start what. See [`crate::helper`].

pub mod lock;
pub mod process;
pub(crate) mod rights;
pub mod spec;
mod stage;

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

pub use crate::helper::op::main as op_main;
use crate::helper::wire::Channel;
use spec::{ChildSpec, StageReport};

/// Entry of `holdfastd exec-child <spec>`: returns only when it could not exec.
///
/// `spec` is a [`ChildSpec`] in JSON. Failures go to the channel on standard input, where whoever started this waits.
#[must_use]
pub fn main(spec: &str) -> ExitCode {
    // Nobody to tell: the exit code is all that is left.
    let Ok(channel) = Channel::inherited() else { return ExitCode::from(2) };
    let refusal = match serde_json::from_str::<ChildSpec>(spec) {
        Ok(spec) => stage::run(&spec, &channel),
        Err(err) => stage::step("read the stage's specification")(err),
    };
    match channel.send(&StageReport::Refused(refusal), None) {
        Ok(()) => ExitCode::from(1),
        Err(_) => ExitCode::from(2),
    }
}

/// Undoes what a process inherits from the helper: blocked signals stay blocked over exec otherwise.
///
/// # Errors
/// What `sigprocmask(2)` says.
pub(crate) fn unblock_signals() -> nix::Result<()> {
    nix::sys::signal::SigSet::empty().thread_set_mask()
}

/// What a program prints on standard output; for programs that end at once and touch no data disk.
///
/// # Errors
/// When it cannot be started, or fails.
pub fn output_of(program: &Path, args: &[&str]) -> io::Result<String> {
    #[expect(clippy::disallowed_methods, reason = "the stage's own module starts processes")]
    let output = Command::new(program).args(args).env_clear().stdin(Stdio::null()).output()?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(io::Error::other(format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }
}
