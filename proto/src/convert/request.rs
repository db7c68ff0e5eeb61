//! Requests that change something.

use holdfast_model::Term;

use super::volume::{kind_from_wire, kind_to_wire};
use super::{Reader, Wire};
use crate::request::{
    AllowWipe, Bootstrap, FormatVolume, Restore, SeenDevice, Target, VerdictKind, WipeVolume,
};
use crate::v1;

impl Wire for Target {
    type Message = v1::Target;

    fn to_wire(&self) -> v1::Target {
        v1::Target {
            request_id: self.request.to_string(),
            cluster: self.cluster.to_string(),
            node: self.node.to_string(),
            incarnation: self.incarnation.map(|id| id.to_string()).unwrap_or_default(),
            term: self.term.map_or(0, Term::number),
        }
    }

    fn read(reader: &mut Reader, message: v1::Target) -> Option<Self> {
        let request = reader.parse("request_id", &message.request_id);
        let cluster = reader.parse("cluster", &message.cluster);
        let node = reader.parse("node", &message.node);
        let named = Some(message.incarnation.as_str()).filter(|text| !text.is_empty());
        let incarnation = reader.parse_optional("incarnation", named);
        Some(Self {
            request: request?,
            cluster: cluster?,
            node: node?,
            incarnation: incarnation?,
            term: Term::new(message.term),
        })
    }
}

impl Wire for SeenDevice {
    type Message = v1::SeenDevice;

    fn to_wire(&self) -> v1::SeenDevice {
        v1::SeenDevice {
            serial: self.serial.clone(),
            diskseq: self.diskseq,
            verdict: kind_to_wire(self.verdict).into(),
        }
    }

    fn read(reader: &mut Reader, message: v1::SeenDevice) -> Option<Self> {
        let serial = reader.filled("serial", message.serial);
        let verdict = reader.choice("verdict", message.verdict).and_then(kind_from_wire);
        Some(Self { serial: serial?, diskseq: message.diskseq, verdict: verdict? })
    }
}

impl Wire for Bootstrap {
    type Message = v1::BootstrapRequest;

    fn to_wire(&self) -> v1::BootstrapRequest {
        v1::BootstrapRequest {
            target: Some(self.target.to_wire()),
            token: self.token.clone(),
            cluster_id: self.cluster_id.as_ref().map(ToString::to_string),
        }
    }

    fn read(reader: &mut Reader, message: v1::BootstrapRequest) -> Option<Self> {
        let target = reader.required::<Target>("target", message.target);
        let token = reader.filled("token", message.token);
        let cluster_id: Option<Option<holdfast_model::ClusterId>> =
            reader.parse_optional("cluster_id", message.cluster_id.as_deref());
        let bootstrap = Self { target: target?, token: token?, cluster_id: cluster_id? };
        let cluster = &bootstrap.target.cluster;
        if bootstrap.cluster_id.as_ref().is_some_and(|id| id.name() != cluster) {
            return reader
                .fault("cluster_id", format!("names another cluster than target.cluster: use {cluster}-.."));
        }
        Some(bootstrap)
    }
}

impl Wire for Restore {
    type Message = v1::RestoreRequest;

    fn to_wire(&self) -> v1::RestoreRequest {
        v1::RestoreRequest { target: Some(self.target.to_wire()), backup: self.backup.clone() }
    }

    fn read(reader: &mut Reader, message: v1::RestoreRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let backup = match message.backup {
            Some(id) => reader.filled("backup", id).map(Some),
            None => Some(None),
        };
        Some(Self { target: target?, backup: backup? })
    }
}

impl Wire for FormatVolume {
    type Message = v1::FormatVolumeRequest;

    fn to_wire(&self) -> v1::FormatVolumeRequest {
        v1::FormatVolumeRequest { target: Some(self.target.to_wire()), device: Some(self.device.to_wire()) }
    }

    fn read(reader: &mut Reader, message: v1::FormatVolumeRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let device = reader.required::<SeenDevice>("device", message.device);
        let device = device.and_then(|seen| match seen.verdict {
            VerdictKind::Blank => Some(seen),
            VerdictKind::Ours
            | VerdictKind::Stale
            | VerdictKind::Theirs
            | VerdictKind::Foreign
            | VerdictKind::Sick
            | VerdictKind::Gone => reader
                .fault("device.verdict", "must be blank: only a blank device is formatted; wipe it first"),
        });
        Some(Self { target: target?, device: device? })
    }
}

impl Wire for AllowWipe {
    type Message = v1::AllowWipeRequest;

    fn to_wire(&self) -> v1::AllowWipeRequest {
        v1::AllowWipeRequest { target: Some(self.target.to_wire()), device: Some(self.device.to_wire()) }
    }

    fn read(reader: &mut Reader, message: v1::AllowWipeRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let device = reader.required("device", message.device);
        Some(Self { target: target?, device: device? })
    }
}

impl Wire for WipeVolume {
    type Message = v1::WipeVolumeRequest;

    fn to_wire(&self) -> v1::WipeVolumeRequest {
        v1::WipeVolumeRequest {
            target: Some(self.target.to_wire()),
            device: Some(self.device.to_wire()),
            token: self.token.clone(),
        }
    }

    fn read(reader: &mut Reader, message: v1::WipeVolumeRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let device = reader.required("device", message.device);
        let token = reader.filled("token", message.token);
        Some(Self { target: target?, device: device?, token: token? })
    }
}
