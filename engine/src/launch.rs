//! What to run, as data: a program, its arguments and its whole environment.
//!
//! The engine crate decides *what* runs; starting it is the root helper's work, since only the helper may change
//! users. The environment is complete: whoever starts a [`Launch`] clears its own first, so that no `PG*` variable
//! of an operator's shell reaches the engine.

use std::ffi::OsString;
use std::path::PathBuf;

/// A process to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Launch {
    /// Starts a launch of `program` with the environment that every engine tool gets: a fixed `PATH` (for the shell
    /// that runs `restore_command`), the C locale (the agent reads messages) and UTC.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        let env = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC")];
        let env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { program, args: Vec::new(), env }
    }

    /// Appends one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Appends `-c name=value`, the way Postgres takes one setting on its command line.
    #[must_use]
    pub fn setting(self, name: &str, value: &str) -> Self {
        self.arg("-c").arg(format!("{name}={value}"))
    }
}
