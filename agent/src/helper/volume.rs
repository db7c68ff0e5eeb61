//! Volume verbs and workers: what the helper starts on the data disk besides the engine.

use std::os::fd::OwnedFd;

use holdfast_storage::mount::Unmount;
use holdfast_storage::ops;

use super::children::{Task, Waiter};
use super::failed;
use super::op::Question;
use super::protocol::{Answer, Failure};
use super::server::Server;
use super::wire::Channel;
use crate::child::process::ProcessId;
use crate::worker::Role;

impl Question {
    /// Whether it may change a device or a mount. Two of these never run at once, not even beside an abandoned one.
    pub(super) fn changes_volume(&self) -> bool {
        match self {
            Self::Volume(request) => match request.verb {
                ops::Verb::Format(_)
                | ops::Verb::Mount { .. }
                | ops::Verb::Unmount { .. }
                | ops::Verb::TakeBeside => true,
                // The fence must work while anything else hangs, and it only ever takes away.
                ops::Verb::Plan | ops::Verb::OfferWipe { .. } | ops::Verb::ShutDown => false,
            },
            Self::LookAtLock { .. } | Self::Receivers(_) | Self::InstallTls(_) => false,
        }
    }
}

impl Server {
    pub(super) fn start_volume_op(
        &mut self,
        verb: ops::Verb,
        word: &'static str,
        waiter: Waiter,
    ) -> Result<(), Failure> {
        let question = Question::Volume(Box::new(ops::Request { spec: self.settings.volume.clone(), verb }));
        if question.changes_volume() {
            self.refuse_beside_another_change()?;
        }
        if matches!(&question, Question::Volume(request) if request.verb == ops::Verb::TakeBeside) {
            self.refuse_beside_an_engine()?;
        }
        let held = self.descriptor_for(&question)?;
        self.start_op(&question, held, word, waiter)
    }

    /// A server keeps the directory that it was started in, whatever that is called by then.
    fn refuse_beside_an_engine(&self) -> Result<(), Failure> {
        match self.engine_processes()?.first() {
            Some(facts) => Err(Failure::Busy { what: format!("the engine, process {},", facts.process) }),
            None => Ok(()),
        }
    }

    fn refuse_beside_another_change(&self) -> Result<(), Failure> {
        let busy = self.children.iter().find_map(|child| match &child.task {
            Task::Op { word, exclusive: true, .. } => Some((*word).to_owned()),
            Task::AbandonedOp { word, exclusive: true, since } => {
                Some(format!("{word}, given up {} s ago,", since.elapsed().as_secs()))
            }
            Task::Op { .. }
            | Task::AbandonedOp { .. }
            | Task::Stage { .. }
            | Task::Prepared { .. }
            | Task::Releasing { .. }
            | Task::Engine
            | Task::Worker
            | Task::Done => None,
        });
        match busy {
            Some(what) => Err(Failure::Busy { what }),
            None => Ok(()),
        }
    }

    /// The file system's descriptor goes along where it is needed, and is closed where it would be in the way.
    fn descriptor_for(&mut self, question: &Question) -> Result<Option<OwnedFd>, Failure> {
        let Question::Volume(request) = question else { return Ok(None) };
        match &request.verb {
            ops::Verb::ShutDown => self
                .root
                .as_ref()
                .map(|root| root.try_clone().map_err(failed("copy the file system's descriptor")))
                .transpose(),
            // An open descriptor would keep the file system busy. If it stays mounted, mounting again brings a new one.
            ops::Verb::Unmount { how: Unmount::Plain } => {
                self.root = None;
                Ok(None)
            }
            // A stalled file system stays alive behind its back until its users die, and may still have to be shut down.
            ops::Verb::Unmount { how: Unmount::Lazy } => Ok(None),
            ops::Verb::Plan
            | ops::Verb::OfferWipe { .. }
            | ops::Verb::Format(_)
            | ops::Verb::Mount { .. }
            | ops::Verb::TakeBeside => Ok(None),
        }
    }

    /// Starts a worker; the other end of its channel goes to the daemon.
    pub(super) fn start_worker(&mut self, role: Role) -> Result<(Answer, Option<OwnedFd>), Failure> {
        let spec = self.settings.worker_spec(role);
        let place = self.settings.volume_place();
        let mut end = None;
        let process = self
            .children
            .start_stage(&spec, |ours| {
                if role == Role::Volume {
                    let channel = Channel::nonblocking(ours.try_clone()?)?;
                    channel.send(&place, None).map_err(std::io::Error::other)?;
                }
                end = Some(ours);
                Ok(Task::Worker)
            })
            .map_err(failed("start a worker"))?;
        Ok((Answer::Worker(process), end))
    }

    pub(super) fn kill_worker(&mut self, process: ProcessId) -> Result<Answer, Failure> {
        let not_ours = Failure::NotOurs { process, what: "worker".to_owned() };
        match self.children.find(process) {
            Some(child) if matches!(child.task, Task::Worker) => {
                super::children::Children::kill_group(process);
                Ok(Answer::Signalled)
            }
            Some(_) | None => Err(not_ours),
        }
    }
}
