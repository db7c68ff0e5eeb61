//! The gate, the repository, log shipping, and the whole view of a node.

use holdfast_model::Tick;
use holdfast_model::peer::Part;
use holdfast_model::status::{BreachesView, Gate, GateClosed, LogView, NodeView, RepositoryView, Weakened};

use super::{Reader, Wire, position_to_wire};
use crate::v1;
use crate::v1::gate;
use crate::v1::repository_view as repository;

const fn why_to_wire(why: GateClosed) -> v1::GateClosed {
    match why {
        GateClosed::Starting => v1::GateClosed::Starting,
        GateClosed::NoEngine => v1::GateClosed::NoEngine,
        GateClosed::NotPrimary => v1::GateClosed::NotPrimary,
        GateClosed::PromisedHigher => v1::GateClosed::PromisedHigher,
        GateClosed::MarkerNotAcked => v1::GateClosed::MarkerNotAcked,
        GateClosed::DiskUnsafe => v1::GateClosed::DiskUnsafe,
        GateClosed::Stopping => v1::GateClosed::Stopping,
    }
}

const fn why_from_wire(why: v1::GateClosed) -> Option<GateClosed> {
    match why {
        v1::GateClosed::Unspecified => None,
        v1::GateClosed::Starting => Some(GateClosed::Starting),
        v1::GateClosed::NoEngine => Some(GateClosed::NoEngine),
        v1::GateClosed::NotPrimary => Some(GateClosed::NotPrimary),
        v1::GateClosed::PromisedHigher => Some(GateClosed::PromisedHigher),
        v1::GateClosed::MarkerNotAcked => Some(GateClosed::MarkerNotAcked),
        v1::GateClosed::DiskUnsafe => Some(GateClosed::DiskUnsafe),
        v1::GateClosed::Stopping => Some(GateClosed::Stopping),
    }
}

impl Wire for Gate {
    type Message = v1::Gate;

    fn to_wire(&self) -> v1::Gate {
        let state = match self {
            Self::Closed { why } => gate::State::Closed(gate::Closed { why: why_to_wire(*why).into() }),
            Self::ReadOnly { term } => gate::State::ReadOnly(gate::ReadOnly { term: term.number() }),
            Self::Open { term } => gate::State::Open(gate::Open { term: term.number() }),
        };
        v1::Gate { state: Some(state) }
    }

    fn read(reader: &mut Reader, message: v1::Gate) -> Option<Self> {
        Some(match reader.state(message.state)? {
            gate::State::Closed(closed) => {
                Self::Closed { why: reader.choice("why", closed.why).and_then(why_from_wire)? }
            }
            gate::State::ReadOnly(read_only) => Self::ReadOnly { term: reader.term("term", read_only.term)? },
            gate::State::Open(open) => Self::Open { term: reader.term("term", open.term)? },
        })
    }
}

impl Wire for RepositoryView {
    type Message = v1::RepositoryView;

    fn to_wire(&self) -> v1::RepositoryView {
        let state = match self {
            Self::Unknown => repository::State::Unknown(repository::Unknown {}),
            Self::Disabled => repository::State::Disabled(repository::Disabled {}),
            Self::Unreachable { why } => {
                repository::State::Unreachable(repository::Unreachable { why: why.clone() })
            }
            Self::Empty => repository::State::Empty(repository::Empty {}),
            Self::Ready { cluster, newest_term, newest_backup } => {
                repository::State::Ready(repository::Ready {
                    cluster_id: cluster.to_string(),
                    newest_term: newest_term.number(),
                    newest_backup: newest_backup.clone(),
                })
            }
        };
        v1::RepositoryView { state: Some(state) }
    }

    fn read(reader: &mut Reader, message: v1::RepositoryView) -> Option<Self> {
        Some(match reader.state(message.state)? {
            repository::State::Unknown(_) => Self::Unknown,
            repository::State::Disabled(_) => Self::Disabled,
            repository::State::Unreachable(unreachable) => Self::Unreachable { why: unreachable.why },
            repository::State::Empty(_) => Self::Empty,
            repository::State::Ready(ready) => {
                let cluster = reader.parse("cluster_id", &ready.cluster_id);
                let newest_term = reader.term("newest_term", ready.newest_term);
                Self::Ready {
                    cluster: cluster?,
                    newest_term: newest_term?,
                    newest_backup: ready.newest_backup,
                }
            }
        })
    }
}

impl Wire for LogView {
    type Message = v1::LogView;

    fn to_wire(&self) -> v1::LogView {
        v1::LogView {
            shipped: self.shipped.as_ref().map(position_to_wire),
            acked: self.acked.as_ref().map(position_to_wire),
            failing: self.failing.clone(),
            running: self.running,
        }
    }

    fn read(reader: &mut Reader, message: v1::LogView) -> Option<Self> {
        let shipped = reader.position_optional("shipped", message.shipped.as_deref());
        let acked = reader.position_optional("acked", message.acked.as_deref());
        Some(Self { running: message.running, shipped: shipped?, acked: acked?, failing: message.failing })
    }
}

impl Wire for Weakened {
    type Message = v1::Weakened;

    fn to_wire(&self) -> v1::Weakened {
        v1::Weakened {
            setting: self.setting.clone(),
            value: self.value.clone(),
            role: self.role.clone(),
            database: self.database.clone(),
        }
    }

    fn read(reader: &mut Reader, message: v1::Weakened) -> Option<Self> {
        let setting = reader.filled("setting", message.setting)?;
        Some(Self { setting, value: message.value, role: message.role, database: message.database })
    }
}

impl Wire for BreachesView {
    type Message = v1::BreachesView;

    fn to_wire(&self) -> v1::BreachesView {
        v1::BreachesView {
            cancelled: self.cancelled,
            ended: self.ended,
            weakened: self.weakened.iter().map(Wire::to_wire).collect(),
        }
    }

    fn read(reader: &mut Reader, message: v1::BreachesView) -> Option<Self> {
        let weakened = reader.list("weakened", message.weakened)?.into_iter().collect();
        Some(Self { cancelled: message.cancelled, ended: message.ended, weakened })
    }
}

impl Wire for NodeView {
    type Message = v1::NodeView;

    fn to_wire(&self) -> v1::NodeView {
        v1::NodeView {
            at_ms: self.at.millis(),
            cluster: self.cluster.to_string(),
            node: self.node.to_string(),
            zone: self.zone.to_string(),
            volume: Some(self.volume.to_wire()),
            data: Some(self.data.to_wire()),
            engine: Some(self.engine.to_wire()),
            gate: Some(self.gate.to_wire()),
            rule: self.rule.as_ref().map(Wire::to_wire),
            promise: self.promise.as_ref().map(Wire::to_wire),
            repository: Some(self.repository.to_wire()),
            log: Some(self.log.to_wire()),
            operations: self.operations.iter().map(Wire::to_wire).collect(),
            reason: self.reason.clone(),
            part: Some(self.part.to_wire()),
            peers: self.peers.iter().map(Wire::to_wire).collect(),
            breaches: Some(self.breaches.to_wire()),
        }
    }

    fn read(reader: &mut Reader, message: v1::NodeView) -> Option<Self> {
        let cluster = reader.parse("cluster", &message.cluster);
        let node = reader.parse("node", &message.node);
        let zone = reader.parse("zone", &message.zone);
        let volume = reader.required("volume", message.volume);
        let data = reader.required("data", message.data);
        let engine = reader.required("engine", message.engine);
        let gate = reader.required("gate", message.gate);
        let rule = reader.optional("rule", message.rule);
        let promise = reader.optional("promise", message.promise);
        let repository = reader.required("repository", message.repository);
        let log = reader.required("log", message.log);
        let operations = reader.list("operations", message.operations);
        let part = reader.optional("part", message.part);
        let peers = reader.list("peers", message.peers);
        let breaches = reader.optional("breaches", message.breaches);
        Some(Self {
            at: Tick::from_millis(message.at_ms),
            cluster: cluster?,
            node: node?,
            zone: zone?,
            volume: volume?,
            data: data?,
            engine: engine?,
            gate: gate?,
            rule: rule?,
            promise: promise?,
            part: part?.unwrap_or(Part::None),
            peers: peers?,
            repository: repository?,
            log: log?,
            breaches: breaches?.unwrap_or_default(),
            operations: operations?,
            reason: message.reason,
        })
    }
}
