//! Terms, rules and promises.

use holdfast_model::{Promise, Rule, RuleId, Voter, VoterKind};

use super::{Reader, Wire, position_to_wire};
use crate::v1;

impl Wire for RuleId {
    type Message = v1::RuleId;

    fn to_wire(&self) -> v1::RuleId {
        v1::RuleId { term: self.term.number(), version: self.version }
    }

    fn read(reader: &mut Reader, message: v1::RuleId) -> Option<Self> {
        Some(Self { term: reader.term("term", message.term)?, version: message.version })
    }
}

impl Wire for Voter {
    type Message = v1::Voter;

    fn to_wire(&self) -> v1::Voter {
        let kind = match self.kind {
            VoterKind::Full => v1::VoterKind::Full,
            VoterKind::Log => v1::VoterKind::Log,
        };
        v1::Voter { member: self.member.to_string(), zone: self.zone.to_string(), kind: kind.into() }
    }

    fn read(reader: &mut Reader, message: v1::Voter) -> Option<Self> {
        let member = reader.parse("member", &message.member);
        let zone = reader.parse("zone", &message.zone);
        let kind = reader.choice("kind", message.kind).and_then(|kind| match kind {
            v1::VoterKind::Full => Some(VoterKind::Full),
            v1::VoterKind::Log => Some(VoterKind::Log),
            v1::VoterKind::Unspecified => None,
        });
        Some(Self { member: member?, zone: zone?, kind: kind? })
    }
}

impl Wire for Rule {
    type Message = v1::Rule;

    fn to_wire(&self) -> v1::Rule {
        v1::Rule {
            id: Some(self.id.to_wire()),
            primary: self.primary.to_string(),
            voters: self.voters.iter().map(Wire::to_wire).collect(),
            k: self.k,
            previous: self.previous.as_ref().map(Wire::to_wire),
            start: position_to_wire(&self.start),
        }
    }

    fn read(reader: &mut Reader, message: v1::Rule) -> Option<Self> {
        let id = reader.required("id", message.id);
        let primary = reader.parse("primary", &message.primary);
        let voters = reader.list("voters", message.voters);
        let previous = reader.optional("previous", message.previous);
        let start = reader.position("start", &message.start);
        Some(Self {
            id: id?,
            primary: primary?,
            voters: voters?,
            k: message.k,
            previous: previous?,
            start: start?,
        })
    }
}

impl Wire for Promise {
    type Message = v1::Promise;

    fn to_wire(&self) -> v1::Promise {
        v1::Promise {
            cluster_id: self.cluster.to_string(),
            member: self.member.to_string(),
            max_term: self.max_term.number(),
            attempt: format!("{:032x}", self.attempt),
        }
    }

    fn read(reader: &mut Reader, message: v1::Promise) -> Option<Self> {
        let cluster = reader.parse("cluster_id", &message.cluster_id);
        let member = reader.parse("member", &message.member);
        let max_term = reader.term("max_term", message.max_term);
        let attempt = reader.bits_128("attempt", &message.attempt);
        Some(Self { cluster: cluster?, member: member?, max_term: max_term?, attempt: attempt? })
    }
}
