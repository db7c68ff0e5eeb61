//! Devices, verdicts and the volume.

use std::path::PathBuf;

use holdfast_model::ByteCount;
use holdfast_model::status::VolumeView;
use holdfast_model::volume::{DeviceId, DeviceVerdict, DiskHealth, Space, Verdict, VolumeIdentity};

use super::{Reader, Wire};
use crate::request::VerdictKind;
use crate::v1;
use crate::v1::disk_health as health;
use crate::v1::volume_view as view;

impl Wire for DeviceId {
    type Message = v1::DeviceId;

    /// A path that is not UTF-8 is shown with replacement characters; devices below `/dev` never have one.
    fn to_wire(&self) -> v1::DeviceId {
        v1::DeviceId {
            path: self.path.to_string_lossy().into_owned(),
            model: self.model.clone(),
            serial: self.serial.clone(),
            diskseq: self.diskseq,
            size_bytes: self.size.bytes(),
        }
    }

    fn read(_reader: &mut Reader, message: v1::DeviceId) -> Option<Self> {
        Some(Self {
            path: PathBuf::from(message.path),
            model: message.model,
            serial: message.serial,
            diskseq: message.diskseq,
            size: ByteCount::new(message.size_bytes),
        })
    }
}

pub(super) const fn kind_to_wire(kind: VerdictKind) -> v1::VerdictKind {
    match kind {
        VerdictKind::Blank => v1::VerdictKind::Blank,
        VerdictKind::Ours => v1::VerdictKind::Ours,
        VerdictKind::Stale => v1::VerdictKind::Stale,
        VerdictKind::Theirs => v1::VerdictKind::Theirs,
        VerdictKind::Foreign => v1::VerdictKind::Foreign,
        VerdictKind::Sick => v1::VerdictKind::Sick,
        VerdictKind::Gone => v1::VerdictKind::Gone,
    }
}

pub(super) const fn kind_from_wire(kind: v1::VerdictKind) -> Option<VerdictKind> {
    match kind {
        v1::VerdictKind::Unspecified => None,
        v1::VerdictKind::Blank => Some(VerdictKind::Blank),
        v1::VerdictKind::Ours => Some(VerdictKind::Ours),
        v1::VerdictKind::Stale => Some(VerdictKind::Stale),
        v1::VerdictKind::Theirs => Some(VerdictKind::Theirs),
        v1::VerdictKind::Foreign => Some(VerdictKind::Foreign),
        v1::VerdictKind::Sick => Some(VerdictKind::Sick),
        v1::VerdictKind::Gone => Some(VerdictKind::Gone),
    }
}

impl From<&Verdict> for VerdictKind {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Blank => Self::Blank,
            Verdict::Ours { .. } => Self::Ours,
            Verdict::Stale { .. } => Self::Stale,
            Verdict::Theirs { .. } => Self::Theirs,
            Verdict::Foreign { .. } => Self::Foreign,
            Verdict::Sick { .. } => Self::Sick,
            Verdict::Gone { .. } => Self::Gone,
        }
    }
}

impl Wire for Verdict {
    type Message = v1::Verdict;

    fn to_wire(&self) -> v1::Verdict {
        let detail = match self {
            Self::Blank => String::new(),
            Self::Ours { fs_uuid } => fs_uuid.to_string(),
            Self::Theirs { owner } => owner.clone(),
            Self::Stale { why } | Self::Foreign { why } | Self::Sick { why } | Self::Gone { why } => {
                why.clone()
            }
        };
        v1::Verdict { kind: kind_to_wire(self.into()).into(), detail }
    }

    fn read(reader: &mut Reader, message: v1::Verdict) -> Option<Self> {
        let kind = reader.choice("kind", message.kind).and_then(kind_from_wire)?;
        let why = message.detail;
        Some(match kind {
            VerdictKind::Blank => Self::Blank,
            VerdictKind::Ours => Self::Ours { fs_uuid: reader.parse("detail", &why)? },
            VerdictKind::Stale => Self::Stale { why },
            VerdictKind::Theirs => Self::Theirs { owner: why },
            VerdictKind::Foreign => Self::Foreign { why },
            VerdictKind::Sick => Self::Sick { why },
            VerdictKind::Gone => Self::Gone { why },
        })
    }
}

impl Wire for DeviceVerdict {
    type Message = v1::DeviceVerdict;

    fn to_wire(&self) -> v1::DeviceVerdict {
        v1::DeviceVerdict { device: Some(self.device.to_wire()), verdict: Some(self.verdict.to_wire()) }
    }

    fn read(reader: &mut Reader, message: v1::DeviceVerdict) -> Option<Self> {
        let device = reader.required("device", message.device);
        let verdict = reader.required("verdict", message.verdict);
        Some(Self { device: device?, verdict: verdict? })
    }
}

impl Wire for VolumeIdentity {
    type Message = v1::VolumeIdentity;

    fn to_wire(&self) -> v1::VolumeIdentity {
        v1::VolumeIdentity {
            cluster: self.cluster.to_string(),
            cluster_id: self.cluster_id.as_ref().map(ToString::to_string),
            node: self.node.to_string(),
            incarnation: self.incarnation.to_string(),
            zone: self.zone.to_string(),
            engine: self.engine.clone(),
            serials: self.serials.clone(),
            fs_uuid: self.fs_uuid.to_string(),
            created: self.created.clone(),
            boot_id: self.boot_id.clone(),
        }
    }

    fn read(reader: &mut Reader, message: v1::VolumeIdentity) -> Option<Self> {
        let cluster = reader.parse("cluster", &message.cluster);
        let cluster_id = reader.parse_optional("cluster_id", message.cluster_id.as_deref());
        let node = reader.parse("node", &message.node);
        let incarnation = reader.parse("incarnation", &message.incarnation);
        let zone = reader.parse("zone", &message.zone);
        let fs_uuid = reader.parse("fs_uuid", &message.fs_uuid);
        Some(Self {
            cluster: cluster?,
            cluster_id: cluster_id?,
            node: node?,
            incarnation: incarnation?,
            zone: zone?,
            engine: message.engine,
            serials: message.serials,
            fs_uuid: fs_uuid?,
            created: message.created,
            boot_id: message.boot_id,
        })
    }
}

impl Wire for DiskHealth {
    type Message = v1::DiskHealth;

    fn to_wire(&self) -> v1::DiskHealth {
        let state = match self {
            Self::Healthy => health::State::Healthy(health::Healthy {}),
            Self::Stalled { for_ms } => health::State::Stalled(health::Stalled { for_ms: *for_ms }),
            Self::Sick { why } => health::State::Sick(health::Sick { why: why.clone() }),
            Self::Gone { why } => health::State::Gone(health::Gone { why: why.clone() }),
            Self::ReadOnly => health::State::ReadOnly(health::ReadOnly {}),
            Self::ShutDown => health::State::ShutDown(health::ShutDown {}),
        };
        v1::DiskHealth { state: Some(state) }
    }

    fn read(reader: &mut Reader, message: v1::DiskHealth) -> Option<Self> {
        Some(match reader.state(message.state)? {
            health::State::Healthy(_) => Self::Healthy,
            health::State::Stalled(stalled) => Self::Stalled { for_ms: stalled.for_ms },
            health::State::Sick(sick) => Self::Sick { why: sick.why },
            health::State::Gone(gone) => Self::Gone { why: gone.why },
            health::State::ReadOnly(_) => Self::ReadOnly,
            health::State::ShutDown(_) => Self::ShutDown,
        })
    }
}

impl Wire for Space {
    type Message = v1::Space;

    fn to_wire(&self) -> v1::Space {
        v1::Space {
            total_bytes: self.total.bytes(),
            free_bytes: self.free.bytes(),
            nearly_full: self.nearly_full,
        }
    }

    fn read(_reader: &mut Reader, message: v1::Space) -> Option<Self> {
        Some(Self {
            total: ByteCount::new(message.total_bytes),
            free: ByteCount::new(message.free_bytes),
            nearly_full: message.nearly_full,
        })
    }
}

impl Wire for VolumeView {
    type Message = v1::VolumeView;

    fn to_wire(&self) -> v1::VolumeView {
        let state = match self {
            Self::Unknown => view::State::Unknown(view::Unknown {}),
            Self::Absent { verdicts } => {
                view::State::Absent(view::Absent { verdicts: verdicts.iter().map(Wire::to_wire).collect() })
            }
            Self::Blank { device } => view::State::Blank(view::Blank { device: Some(device.to_wire()) }),
            Self::Unmounted { device } => {
                view::State::Unmounted(view::Unmounted { device: Some(device.to_wire()) })
            }
            Self::Mounted { device, identity, health, space } => view::State::Mounted(view::Mounted {
                device: Some(device.to_wire()),
                identity: Some(identity.to_wire()),
                health: Some(health.to_wire()),
                space: Some(space.to_wire()),
            }),
        };
        v1::VolumeView { state: Some(state) }
    }

    fn read(reader: &mut Reader, message: v1::VolumeView) -> Option<Self> {
        Some(match reader.state(message.state)? {
            view::State::Unknown(_) => Self::Unknown,
            view::State::Absent(absent) => {
                Self::Absent { verdicts: reader.list("verdicts", absent.verdicts)? }
            }
            view::State::Blank(blank) => Self::Blank { device: reader.required("device", blank.device)? },
            view::State::Unmounted(unmounted) => {
                Self::Unmounted { device: reader.required("device", unmounted.device)? }
            }
            view::State::Mounted(mounted) => {
                let device = reader.required("device", mounted.device);
                let identity = reader.required("identity", mounted.identity);
                let health = reader.required("health", mounted.health);
                let space = reader.required("space", mounted.space);
                Self::Mounted {
                    device: device?,
                    identity: Box::new(identity?),
                    health: health?,
                    space: space?,
                }
            }
        })
    }
}
