//! What is asked of whoever coordinates.

use holdfast_model::Vouch;

use super::{Reader, Wire};
use crate::request::{ChangeMember, Failover, MemberChange, Switchover};
use crate::v1;

impl Wire for Failover {
    type Message = v1::FailoverRequest;

    fn to_wire(&self) -> v1::FailoverRequest {
        v1::FailoverRequest {
            target: Some(self.target.to_wire()),
            prefer_zones: self.prefer.iter().map(ToString::to_string).collect(),
            without_votes: self.vouched_until_unix_ms.is_some(),
            why: self.why.clone(),
            vouched_until_unix_ms: self.vouched_until_unix_ms.unwrap_or_default(),
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
        let until = match (message.without_votes, message.vouched_until_unix_ms) {
            (false, _) => Some(None),
            (true, 0) => reader.fault(
                "vouched_until_unix_ms",
                "is missing: without votes, say until when it counts that you vouch for it",
            ),
            (true, until) => Some(Some(until)),
        };
        Some(Self { target: target?, prefer: prefer?, vouched_until_unix_ms: until?, why: why? })
    }
}

impl Wire for Vouch {
    type Message = v1::Vouch;

    fn to_wire(&self) -> v1::Vouch {
        v1::Vouch {
            by: self.by.clone(),
            why: self.why.clone(),
            primary: self.primary.to_string(),
            term: self.term.number(),
            given_unix_ms: self.given_unix_ms,
            until_unix_ms: self.until_unix_ms,
            outcome: self.outcome.clone(),
        }
    }

    fn read(reader: &mut Reader, message: v1::Vouch) -> Option<Self> {
        let primary = reader.parse("primary", &message.primary);
        let term = reader.term("term", message.term);
        Some(Self {
            by: message.by,
            why: message.why,
            primary: primary?,
            term: term?,
            given_unix_ms: message.given_unix_ms,
            until_unix_ms: message.until_unix_ms,
            outcome: message.outcome,
        })
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
