//! One-shot processes, `holdfastd op`: one question on standard input, one answer, exit.
//!
//! Whatever may touch a device happens here, since a stalled one never lets go of who touched it. The helper kills the
//! process group of a late one and forgets about it; it may finish when the disk comes back, or never.
//!
//! Not here: deadlines and what may run beside what. See `server`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use holdfast_storage::ops::{self, OpError};
use holdfast_storage_io::root::Root;
use serde::{Deserialize, Serialize};

use super::protocol::{Answer, Failure, OpFailure};
use super::receivers::Receivers;
use super::tls::InstallTls;
use super::wire::{Channel, WireError};
use crate::chain::Chain;
use crate::child::lock;

/// The question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Question {
    /// A verb of the storage layer. The file system's descriptor comes along if the verb needs it.
    Volume(Box<ops::Request>),
    /// Who holds the engine lock.
    LookAtLock { path: PathBuf },
    /// The engine's walreceivers: reading command lines waits for whoever holds the process' memory.
    Receivers(Receivers),
    /// The engine's certificate files: they may come from a disk that hangs.
    InstallTls(Box<InstallTls>),
}

/// The answer; the file system's descriptor comes along after a mount.
pub(super) type Verdict = Result<Answer, Failure>;

/// Entry of `holdfastd op`. It blocks as long as the disk does.
#[must_use]
pub fn main() -> ExitCode {
    match answer_one() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer_one() -> Result<(), WireError> {
    let socket = |source| WireError::Socket { operation: "open", source };
    crate::child::unblock_signals().map_err(|errno| socket(errno.into()))?;
    let channel = Channel::inherited().map_err(socket)?;
    let (question, held) = channel.receive::<Question>()?;
    let (verdict, root) = answer(question, held);
    channel.send(&verdict, root.as_ref().map(AsFd::as_fd))
}

fn answer(question: Question, held: Option<OwnedFd>) -> (Verdict, Option<Root>) {
    match question {
        Question::Volume(request) => match ops::perform(&request, held.as_ref().map(AsFd::as_fd)) {
            Ok(outcome) => (Ok(Answer::Volume(outcome.response)), outcome.root),
            Err(err) => (Err(Failure::Volume { kind: kind_of(&err), why: Chain(&err).to_string() }), None),
        },
        Question::LookAtLock { path } => (
            lock::look(&path).map(Answer::Lock).map_err(|err| Failure::Helper {
                operation: "look at the engine lock".to_owned(),
                error: Chain(&err).to_string(),
            }),
            None,
        ),
        Question::Receivers(question) => (question.answer().map(Answer::Receivers), None),
        Question::InstallTls(install) => {
            let installed = install.run().map_err(|err| Failure::Helper {
                operation: "install certificates for the engine".to_owned(),
                error: Chain(&err).to_string(),
            });
            (installed.map(|changed| Answer::InstalledTls { changed }), None)
        }
    }
}

fn kind_of(err: &OpError) -> OpFailure {
    match err {
        OpError::NotThere { .. } | OpError::NotAsSeen { .. } => OpFailure::LookAgain,
        OpError::NotAllowed { .. } | OpError::Wipe(_) => OpFailure::NotAllowed,
        OpError::System { .. }
        | OpError::Random { .. }
        | OpError::Format(_)
        | OpError::Erase(_)
        | OpError::Mount(_)
        | OpError::Directory(_)
        | OpError::Beside(_)
        | OpError::Volume { .. }
        | OpError::ShutDown { .. } => OpFailure::Failed,
    }
}
