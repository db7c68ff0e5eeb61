//! The database directory and the engine's process.

use holdfast_model::Tick;
use holdfast_model::status::{DataView, EngineView, RewindStage};

use super::{Reader, Wire, position_to_wire};
use crate::v1;
use crate::v1::data_view as data;
use crate::v1::engine_view as engine;

impl Wire for DataView {
    type Message = v1::DataView;

    fn to_wire(&self) -> v1::DataView {
        let state = match self {
            Self::Unknown => data::State::Unknown(data::Unknown {}),
            Self::Absent => data::State::Absent(data::Absent {}),
            Self::Incomplete => data::State::Incomplete(data::Incomplete {}),
            Self::Initialising => data::State::Initialising(data::Initialising {}),
            Self::Restoring { progress } => {
                data::State::Restoring(data::Restoring { progress: Some(progress.to_wire()) })
            }
            Self::Ready => data::State::Ready(data::Ready {}),
            Self::Rewinding { onto, stage } => {
                let stage = stage_to_wire(*stage).into();
                data::State::Rewinding(data::Rewinding { onto: onto.number(), stage })
            }
            Self::Broken { why } => data::State::Broken(data::Broken { why: why.clone() }),
        };
        v1::DataView { state: Some(state) }
    }

    fn read(reader: &mut Reader, message: v1::DataView) -> Option<Self> {
        Some(match reader.state(message.state)? {
            data::State::Unknown(_) => Self::Unknown,
            data::State::Absent(_) => Self::Absent,
            data::State::Incomplete(_) => Self::Incomplete,
            data::State::Initialising(_) => Self::Initialising,
            data::State::Restoring(restoring) => {
                Self::Restoring { progress: reader.required("progress", restoring.progress)? }
            }
            data::State::Ready(_) => Self::Ready,
            data::State::Rewinding(rewinding) => {
                let onto = reader.term("onto", rewinding.onto);
                let stage = match stage_from_wire(rewinding.stage()) {
                    Some(stage) => Some(stage),
                    None => reader.fault("stage", "is none that this program knows".to_owned()),
                };
                Self::Rewinding { onto: onto?, stage: stage? }
            }
            data::State::Broken(broken) => Self::Broken { why: broken.why },
        })
    }
}

const fn stage_to_wire(stage: RewindStage) -> data::rewinding::Stage {
    match stage {
        RewindStage::Copying => data::rewinding::Stage::Copying,
        RewindStage::Replaying => data::rewinding::Stage::Replaying,
        RewindStage::Taking => data::rewinding::Stage::Taking,
    }
}

const fn stage_from_wire(stage: data::rewinding::Stage) -> Option<RewindStage> {
    match stage {
        data::rewinding::Stage::Unspecified => None,
        data::rewinding::Stage::Copying => Some(RewindStage::Copying),
        data::rewinding::Stage::Replaying => Some(RewindStage::Replaying),
        data::rewinding::Stage::Taking => Some(RewindStage::Taking),
    }
}

impl Wire for EngineView {
    type Message = v1::EngineView;

    fn to_wire(&self) -> v1::EngineView {
        let state = match self {
            Self::Stopped { crashes, since } => engine::State::Stopped(engine::Stopped {
                crashes: *crashes,
                since_ms: since.map(Tick::millis),
            }),
            Self::Starting { pid, since } => {
                engine::State::Starting(engine::Starting { pid: *pid, since_ms: since.millis() })
            }
            Self::Running { pid, version, in_recovery, timeline, flushed } => {
                engine::State::Running(engine::Running {
                    pid: *pid,
                    version: version.clone(),
                    in_recovery: *in_recovery,
                    timeline: timeline.number(),
                    flushed: position_to_wire(flushed),
                })
            }
            Self::Stopping { pid, since } => {
                engine::State::Stopping(engine::Stopping { pid: *pid, since_ms: since.millis() })
            }
            Self::Unkillable { pid } => engine::State::Unkillable(engine::Unkillable { pid: *pid }),
        };
        v1::EngineView { state: Some(state) }
    }

    fn read(reader: &mut Reader, message: v1::EngineView) -> Option<Self> {
        Some(match reader.state(message.state)? {
            engine::State::Stopped(stopped) => {
                Self::Stopped { crashes: stopped.crashes, since: stopped.since_ms.map(Tick::from_millis) }
            }
            engine::State::Starting(starting) => {
                Self::Starting { pid: starting.pid, since: Tick::from_millis(starting.since_ms) }
            }
            engine::State::Running(running) => {
                let timeline = reader.term("timeline", running.timeline);
                let flushed = reader.position("flushed", &running.flushed);
                Self::Running {
                    pid: running.pid,
                    version: running.version,
                    in_recovery: running.in_recovery,
                    timeline: timeline?,
                    flushed: flushed?,
                }
            }
            engine::State::Stopping(stopping) => {
                Self::Stopping { pid: stopping.pid, since: Tick::from_millis(stopping.since_ms) }
            }
            engine::State::Unkillable(unkillable) => Self::Unkillable { pid: unkillable.pid },
        })
    }
}
