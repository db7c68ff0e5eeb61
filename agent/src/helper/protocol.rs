//! What the daemon may ask of the root helper, and what comes back.
//!
//! The verbs are fixed, and none names a user, a program, a path or a cluster: those come from the configuration that
//! the helper reads itself. A process is named by pid and start time, and is touched only if it is what the helper's own
//! configuration calls the engine or a worker.

use holdfast_storage::ops;
use serde::{Deserialize, Serialize};

use crate::child::lock::{LockFile, LockView};
use crate::child::process::{ProcessFacts, ProcessId};
use crate::child::spec::Refusal;
use crate::worker::Role;

/// One request. Several may be under way; replies come in any order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the daemon, repeated in the reply.
    pub id: u64,
    /// When a reply comes at the latest, in milliseconds; the helper caps it at ten minutes.
    pub deadline_ms: u64,
    /// What to do.
    pub verb: Verb,
}

/// The fixed verbs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Look, offer to wipe, format, mount, unmount, or shut down the file system. Runs in a one-shot process.
    Volume(ops::Verb),
    /// Who holds `engine.lock`. Runs in a one-shot process.
    LookAtLock,
    /// Sets a stage up to the point where only the exec is missing, lock held.
    PrepareEngine {
        /// Which program of the configured engine.
        program: EngineProgram,
        /// Its arguments; it runs as the engine's user whatever they say.
        args: Vec<String>,
    },
    /// Lets a prepared stage exec.
    ReleaseEngine {
        /// From [`Answer::Prepared`].
        process: ProcessId,
    },
    /// Whether a process started by this helper still runs, and how it ended.
    EngineState {
        /// Which.
        process: ProcessId,
    },
    /// Sends a signal to the engine's first process.
    SignalEngine {
        /// Which.
        process: ProcessId,
        /// What.
        signal: EngineSignal,
    },
    /// How many walreceivers the engine has.
    Receivers {
        /// The engine's first process.
        process: ProcessId,
    },
    /// Sends SIGTERM to each of them.
    EndReceivers {
        /// The engine's first process.
        process: ProcessId,
    },
    /// Brings the certificate files of `[tls]` to where the engine reads them, as files of its own.
    InstallTls,
    /// Kills everything of the engine at once: the cgroup, or without one all holders of the lock and what they forked.
    KillEngine,
    /// All processes of the engine that are left.
    EngineProcesses,
    /// Starts a worker; its channel comes with the reply.
    StartWorker {
        /// Which kind.
        role: Role,
    },
    /// Kills a worker that does not end by itself.
    KillWorker {
        /// From [`Answer::Worker`].
        process: ProcessId,
    },
}

impl Verb {
    /// For logs and errors.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Volume(verb) => volume_word(verb),
            Self::LookAtLock => "look at the engine lock",
            Self::PrepareEngine { .. } => "prepare the engine",
            Self::ReleaseEngine { .. } => "release the engine",
            Self::EngineState { .. } => "engine state",
            Self::SignalEngine { .. } => "signal the engine",
            Self::Receivers { .. } => "count walreceivers",
            Self::EndReceivers { .. } => "end walreceivers",
            Self::InstallTls => "install certificates for the engine",
            Self::KillEngine => "kill the engine",
            Self::EngineProcesses => "list engine processes",
            Self::StartWorker { .. } => "start a worker",
            Self::KillWorker { .. } => "kill a worker",
        }
    }
}

/// The volume verb, for logs and errors.
const fn volume_word(verb: &ops::Verb) -> &'static str {
    match verb {
        ops::Verb::Plan => "look at devices",
        ops::Verb::OfferWipe { .. } => "offer to wipe",
        ops::Verb::Format(_) => "format",
        ops::Verb::Mount { .. } => "mount",
        ops::Verb::Unmount { .. } => "unmount",
        ops::Verb::ShutDown => "shut down the file system",
        ops::Verb::TakeBeside => "replace the data directory",
    }
}

/// Programs of the configured engine, all in its `bin_dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineProgram {
    /// The server.
    Postgres,
    /// Makes a new data directory, and ends.
    InitDb,
    /// Brings a copy of a data directory back onto another server's log, and ends.
    Rewind,
}

impl EngineProgram {
    /// Its file name.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::InitDb => "initdb",
            Self::Rewind => "pg_rewind",
        }
    }
}

/// Signals that mean something to the engine's first process (server shutdown modes of PostgreSQL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineSignal {
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGINT: end sessions, checkpoint, stop. It would acknowledge waiting commits: only with k = 0 or no waiter.
    Fast,
    /// SIGQUIT: stop at once, recovery at the next start.
    Immediate,
}

/// A reply; a worker's channel or a file system's descriptor may come with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's.
    pub id: u64,
    /// What came of it.
    pub result: Result<Answer, Failure>,
}

/// What came of a verb.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Of [`Verb::Volume`].
    Volume(ops::Response),
    /// Of [`Verb::LookAtLock`].
    Lock(LockView),
    /// Of [`Verb::PrepareEngine`]: the stage waits.
    Prepared(Prepared),
    /// Of [`Verb::ReleaseEngine`]: the program runs.
    Released,
    /// Of [`Verb::EngineState`].
    State(ProcessState),
    /// Of [`Verb::SignalEngine`], [`Verb::KillEngine`] and [`Verb::KillWorker`]: sent, which is not yet "has ended".
    Signalled,
    /// Of [`Verb::Receivers`] and [`Verb::EndReceivers`]: how many were found.
    Receivers(u32),
    /// Of [`Verb::InstallTls`].
    InstalledTls {
        /// Whether a file was replaced: an engine that runs has to read them again.
        changed: bool,
    },
    /// Of [`Verb::EngineProcesses`].
    Processes(Vec<ProcessFacts>),
    /// Of [`Verb::StartWorker`]: the worker, or what becomes it.
    Worker(ProcessId),
}

/// A stage that only lacks the exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The process; exec keeps pid and start time.
    pub process: ProcessId,
    /// The lock that it holds.
    pub lock: LockFile,
    /// The program that it becomes.
    pub program: std::path::PathBuf,
    /// Its cgroup, as `/proc/PID/cgroup` shows it.
    pub cgroup: Option<String>,
}

/// A process and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// It runs, or waits in the kernel.
    Running,
    /// It called exit.
    Exited {
        /// With this code.
        code: i32,
    },
    /// A signal ended it.
    Killed {
        /// This one.
        signal: i32,
    },
    /// It is gone, and was not this helper's child: how it ended is not known and counts as a crash.
    Unknown,
}

/// What to make of a failure of the storage layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpFailure {
    /// The device is not what the caller saw: look again.
    LookAgain,
    /// What the device is, or the token, does not allow it: a person must look.
    NotAllowed,
    /// It was tried and failed.
    Failed,
}

/// Why a verb failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The deadline passed. What was begun was killed, but may still be under way if it waits for a disk.
    #[error("no answer within {after_ms} ms, given up")]
    Late {
        /// The deadline.
        after_ms: u64,
    },
    /// Something that must end first is still under way.
    #[error("{what} is still under way")]
    Busy {
        /// What.
        what: String,
    },
    /// The named process is not the engine or a worker by the helper's own configuration, or no longer runs.
    #[error("{process} is not a running {what} of this node")]
    NotOurs {
        /// The process.
        process: ProcessId,
        /// `engine`, `prepared stage` or `worker`.
        what: String,
    },
    /// The storage layer refused or failed.
    #[error("volume: {why}")]
    Volume {
        /// What to make of it.
        kind: OpFailure,
        /// The whole chain of causes.
        why: String,
    },
    /// Nothing was started.
    #[error("{0}")]
    Refused(Refusal),
    /// A one-shot process or a stage ended without a word.
    #[error("{verb} ended without an answer ({how})")]
    ChildDied {
        /// What it did.
        verb: String,
        /// Its exit.
        how: String,
    },
    /// The helper could not do its part.
    #[error("{operation}: {error}")]
    Helper {
        /// What it tried.
        operation: String,
        /// Why it failed.
        error: String,
    },
}
