//! What is asked of whoever coordinates.

use super::{Reader, Wire};
use crate::request::{ChangeMember, Failover, MemberChange, Switchover};
use crate::v1;

impl Wire for Failover {
    type Message = v1::FailoverRequest;

    fn to_wire(&self) -> v1::FailoverRequest {
        v1::FailoverRequest {
            target: Some(self.target.to_wire()),
            prefer_zones: self.prefer.iter().map(ToString::to_string).collect(),
            without_votes: self.without_votes,
            why: self.why.clone(),
        }
    }

    fn read(reader: &mut Reader, message: v1::FailoverRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let prefer = reader.parse_list("prefer_zones", &message.prefer_zones);
        let why = if message.without_votes && message.why.trim().is_empty() {
            reader.fault("why", "is empty: without votes, say how it is known that the primary is gone")
        } else {
            Some(message.why)
        };
        Some(Self { target: target?, prefer: prefer?, without_votes: message.without_votes, why: why? })
    }
}

impl Wire for Switchover {
    type Message = v1::SwitchoverRequest;

    fn to_wire(&self) -> v1::SwitchoverRequest {
        v1::SwitchoverRequest { target: Some(self.target.to_wire()), to: self.to.to_string() }
    }

    fn read(reader: &mut Reader, message: v1::SwitchoverRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let to = reader.parse("to", &message.to);
        Some(Self { target: target?, to: to? })
    }
}

const fn change_to_wire(change: MemberChange) -> v1::MemberChange {
    match change {
        MemberChange::Remove => v1::MemberChange::Remove,
        MemberChange::Admit => v1::MemberChange::Admit,
    }
}

const fn change_from_wire(change: v1::MemberChange) -> Option<MemberChange> {
    match change {
        v1::MemberChange::Unspecified => None,
        v1::MemberChange::Remove => Some(MemberChange::Remove),
        v1::MemberChange::Admit => Some(MemberChange::Admit),
    }
}

impl Wire for ChangeMember {
    type Message = v1::ChangeMemberRequest;

    fn to_wire(&self) -> v1::ChangeMemberRequest {
        v1::ChangeMemberRequest {
            target: Some(self.target.to_wire()),
            node: self.node.to_string(),
            change: change_to_wire(self.change).into(),
        }
    }

    fn read(reader: &mut Reader, message: v1::ChangeMemberRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let node = reader.parse("node", &message.node);
        let change = reader.choice("change", message.change).and_then(change_from_wire);
        Some(Self { target: target?, node: node?, change: change? })
    }
}
