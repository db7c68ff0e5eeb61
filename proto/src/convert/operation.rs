//! Long work and its progress.

use holdfast_model::status::{Operation, OperationKind, OperationState, Progress};
use holdfast_model::{ByteCount, Tick};

use super::{Reader, Wire};
use crate::v1;
use crate::v1::operation::{Done, Failed, Running, State};

impl Wire for Progress {
    type Message = v1::Progress;

    fn to_wire(&self) -> v1::Progress {
        v1::Progress {
            phase: self.phase.clone(),
            done_bytes: self.done.bytes(),
            total_bytes: self.total.bytes(),
        }
    }

    fn read(_reader: &mut Reader, message: v1::Progress) -> Option<Self> {
        Some(Self {
            phase: message.phase,
            done: ByteCount::new(message.done_bytes),
            total: ByteCount::new(message.total_bytes),
        })
    }
}

impl Wire for OperationState {
    type Message = State;

    fn to_wire(&self) -> State {
        match self {
            Self::Running { progress } => State::Running(Running { progress: Some(progress.to_wire()) }),
            Self::Done { result } => State::Done(Done { result: result.clone() }),
            Self::Failed { why } => State::Failed(Failed { why: why.clone(), refused: false }),
            Self::Refused { why } => State::Failed(Failed { why: why.clone(), refused: true }),
        }
    }

    fn read(reader: &mut Reader, message: State) -> Option<Self> {
        Some(match message {
            State::Running(running) => {
                Self::Running { progress: reader.required("progress", running.progress)? }
            }
            State::Done(done) => Self::Done { result: done.result },
            State::Failed(Failed { why, refused: true }) => Self::Refused { why },
            State::Failed(Failed { why, refused: false }) => Self::Failed { why },
        })
    }
}

const fn kind_to_wire(kind: OperationKind) -> v1::OperationKind {
    match kind {
        OperationKind::Bootstrap => v1::OperationKind::Bootstrap,
        OperationKind::Backup => v1::OperationKind::Backup,
        OperationKind::Restore => v1::OperationKind::Restore,
        OperationKind::Format => v1::OperationKind::Format,
        OperationKind::Join => v1::OperationKind::Join,
        OperationKind::Rewind => v1::OperationKind::Rewind,
        OperationKind::Failover => v1::OperationKind::Failover,
        OperationKind::Switchover => v1::OperationKind::Switchover,
        OperationKind::ChangeMember => v1::OperationKind::ChangeMember,
    }
}

const fn kind_from_wire(kind: v1::OperationKind) -> Option<OperationKind> {
    match kind {
        v1::OperationKind::Unspecified => None,
        v1::OperationKind::Bootstrap => Some(OperationKind::Bootstrap),
        v1::OperationKind::Backup => Some(OperationKind::Backup),
        v1::OperationKind::Restore => Some(OperationKind::Restore),
        v1::OperationKind::Format => Some(OperationKind::Format),
        v1::OperationKind::Join => Some(OperationKind::Join),
        v1::OperationKind::Rewind => Some(OperationKind::Rewind),
        v1::OperationKind::Failover => Some(OperationKind::Failover),
        v1::OperationKind::Switchover => Some(OperationKind::Switchover),
        v1::OperationKind::ChangeMember => Some(OperationKind::ChangeMember),
    }
}

impl Wire for Operation {
    type Message = v1::Operation;

    fn to_wire(&self) -> v1::Operation {
        v1::Operation {
            id: self.id.clone(),
            kind: kind_to_wire(self.kind).into(),
            since_ms: self.since.millis(),
            state: Some(self.state.to_wire()),
        }
    }

    fn read(reader: &mut Reader, message: v1::Operation) -> Option<Self> {
        let id = reader.filled("id", message.id);
        let kind = reader.choice("kind", message.kind).and_then(kind_from_wire);
        let state = reader.required("state", message.state);
        Some(Self { id: id?, kind: kind?, since: Tick::from_millis(message.since_ms), state: state? })
    }
}
