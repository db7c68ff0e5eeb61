//! Long work: begun, then observed. What runs and what ended lately, for the view and for who asked.
//!
//! Invariants, each a test below:
//! * `what_ended_stays_to_be_read_but_not_for_ever`.
//! * `of_refusals_the_last_is_kept`: asking again and again leaves one line, and an end of another kind none.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_model::ByteCount;
use holdfast_model::status::{Operation, OperationKind, OperationState, Progress};
use holdfast_orchestrator::drive::Refusal;
use tracing::{error, info, warn};

use crate::chain::Chain;
use crate::clock::{Clock, random_bits};

/// Calls that are remembered.
const REQUESTS_MAX: usize = 256;
/// Ended operations that are kept to be read.
const ENDED_MAX: usize = 32;

/// All operations of this daemon's life.
#[derive(Debug, Clone)]
pub struct Operations {
    clock: Clock,
    all: Arc<Mutex<Vec<Operation>>>,
    /// Which call began which operation: a call that is repeated is answered, not obeyed again.
    asked: Arc<Mutex<VecDeque<(String, String)>>>,
}

impl Operations {
    /// None yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, all: Arc::default(), asked: Arc::default() }
    }

    /// Every operation, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Operation> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that work begins. Whoever does it reports through the ticket.
    #[must_use]
    pub fn begin(&self, kind: OperationKind, phase: &str) -> Ticket {
        let id = format!("{:016x}", random_bits() >> 64);
        let progress = Progress { phase: phase.to_owned(), ..Progress::default() };
        let state = OperationState::Running { progress };
        let operation = Operation { id: id.clone(), kind, since: self.clock.now(), state };
        info!(operation = id, ?kind, "operation begun");
        self.change(|all| all.push(operation));
        Ticket { operations: self.clone(), id, open: true }
    }

    /// The operation that the call `request` began, if it did and that is still to be read.
    #[must_use]
    pub fn of_request(&self, request: &str) -> Option<Operation> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let id = asked.iter().find(|(asked, _)| asked == request).map(|(_, id)| id.clone())?;
        drop(asked);
        self.list().into_iter().find(|operation| operation.id == id)
    }

    /// Notes that the call `request` began the operation `id`.
    pub fn note_request(&self, request: &str, id: &str) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push_back((request.to_owned(), id.to_owned()));
        if asked.len() > REQUESTS_MAX {
            asked.pop_front();
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Operation>)) {
        change(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn set(&self, id: &str, state: OperationState) {
        self.change(|all| {
            let of = all.iter().find(|operation| operation.id == id).map(|operation| operation.kind);
            if !matches!(state, OperationState::Running { .. }) {
                all.retain(|old| {
                    Some(old.kind) != of || !matches!(old.state, OperationState::Refused { .. })
                });
            }
            if let Some(operation) = all.iter_mut().find(|operation| operation.id == id) {
                operation.state = state;
            }
            let ended = |operation: &Operation| !matches!(operation.state, OperationState::Running { .. });
            while all.iter().filter(|operation| ended(operation)).count() > ENDED_MAX {
                let Some(oldest) = all.iter().position(ended) else { break };
                all.remove(oldest);
            }
        });
    }
}

/// The right to report on one operation. Dropped without an end, it says that the work was cut off.
#[derive(Debug)]
pub struct Ticket {
    operations: Operations,
    id: String,
    open: bool,
}

impl Ticket {
    /// Names the operation.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The operation as it stands.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        self.operations.list().into_iter().find(|operation| operation.id == self.id)
    }

    /// How far it is.
    pub fn progress(&self, progress: Progress) {
        self.operations.set(&self.id, OperationState::Running { progress });
    }

    /// What it does now, with nothing to count.
    pub fn phase(&self, phase: &str) {
        self.progress(Progress { phase: phase.to_owned(), done: ByteCount::ZERO, total: ByteCount::ZERO });
    }

    /// For who only tells phases, and does not know how it ends.
    #[must_use]
    pub fn teller(&self) -> Teller {
        Teller { operations: self.operations.clone(), id: self.id.clone() }
    }

    /// It ended.
    pub fn end(mut self, result: Result<String, &(dyn std::error::Error + 'static)>) {
        self.open = false;
        let state = match result {
            Ok(result) => {
                info!(operation = self.id, result, "operation done");
                OperationState::Done { result }
            }
            Err(err) => {
                let why = Chain(err).to_string();
                error!(operation = self.id, error = why, "operation failed");
                OperationState::Failed { why }
            }
        };
        self.operations.set(&self.id, state);
    }

    /// It must not be done as things are. Whoever asked is told so; a person looks only at what that left.
    pub fn refuse(mut self, err: &(dyn std::error::Error + 'static), left: Refusal) {
        self.open = false;
        let why = Chain(err).to_string();
        match left {
            Refusal::NothingChanged => info!(operation = self.id, why, "operation refused"),
            Refusal::MembersHoldStill => {
                warn!(
                    operation = self.id,
                    why, "operation refused, and members that were recruited hold still"
                );
            }
        }
        self.operations.set(&self.id, OperationState::Refused { why });
    }
}

/// Tells phases of an operation.
#[derive(Debug, Clone)]
pub struct Teller {
    operations: Operations,
    id: String,
}

impl Teller {
    /// What it does now.
    pub fn phase(&self, phase: &str) {
        let progress = Progress { phase: phase.to_owned(), ..Progress::default() };
        self.operations.set(&self.id, OperationState::Running { progress });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            let why = "cut off before it ended".to_owned();
            self.operations.set(&self.id, OperationState::Failed { why });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_repeated_call_finds_the_operation_that_it_began() {
        let operations = Operations::new(Clock::start());
        assert_eq!(operations.of_request("r1"), None);
        let ticket = operations.begin(OperationKind::Backup, "reading");
        operations.note_request("r1", ticket.id());
        assert_eq!(operations.of_request("r1"), ticket.operation());
        assert_eq!(operations.of_request("r2"), None);
    }

    #[tokio::test]
    async fn what_ended_stays_to_be_read_but_not_for_ever() {
        let operations = Operations::new(Clock::start());
        let running = operations.begin(OperationKind::Backup, "reading");
        for _ in 0..ENDED_MAX + 5 {
            operations.begin(OperationKind::Backup, "reading").end(Ok("b".into()));
        }
        drop(operations.begin(OperationKind::Restore, "reading"));
        let all = operations.list();
        assert_eq!(all.len(), ENDED_MAX + 1);
        assert!(all.iter().any(|operation| operation.id == running.id()), "what runs is never dropped");
        let last = all.last().map(|operation| operation.state.clone());
        assert_eq!(last, Some(OperationState::Failed { why: "cut off before it ended".into() }));
    }

    #[tokio::test]
    async fn of_refusals_the_last_is_kept() {
        let operations = Operations::new(Clock::start());
        let refuse = |why: &str| {
            let ticket = operations.begin(OperationKind::Failover, "asking");
            ticket.refuse(&std::io::Error::other(why.to_owned()), Refusal::NothingChanged);
        };
        let backup = operations.begin(OperationKind::Backup, "reading");
        ["one", "two", "three"].into_iter().for_each(refuse);
        let states = || operations.list().into_iter().map(|operation| operation.state).collect::<Vec<_>>();
        assert_eq!(states()[1..], [OperationState::Refused { why: "three".to_owned() }]);
        backup.end(Ok("b".into()));
        assert_eq!(states().len(), 2, "of another kind");
        operations.begin(OperationKind::Failover, "asking").end(Ok("n2 serves".into()));
        assert_eq!(states()[1..], [OperationState::Done { result: "n2 serves".to_owned() }]);
    }
}
