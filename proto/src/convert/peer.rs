//! What a node takes part in, and how the other nodes of its cluster look from there.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_model::peer::{Part, PeerSaid, PeerView};
use holdfast_model::{Member, Position};

use super::{Reader, Wire, position_to_wire};
use crate::v1;
use crate::v1::part;

impl Wire for Part {
    type Message = v1::Part;

    fn to_wire(&self) -> v1::Part {
        let state = match self {
            Self::None => part::State::None(part::None {}),
            Self::Writes { streams, change, lends } => part::State::Writes(part::Writes {
                streams: streams.iter().map(stream_to_wire).collect(),
                change: change.clone(),
                lends: lends.iter().map(ToString::to_string).collect(),
            }),
            Self::Follows { primary, streaming } => {
                part::State::Follows(part::Follows { primary: primary.to_string(), streaming: *streaming })
            }
            Self::Recruited { term } => part::State::Recruited(part::Recruited { term: term.number() }),
            Self::Waits { why } => part::State::Waits(part::Waits { why: why.clone() }),
            Self::Rewinds { primary } => part::State::Rewinds(part::Rewinds { primary: primary.to_string() }),
            Self::Diverged { why } => part::State::Diverged(part::Diverged { why: why.clone() }),
        };
        v1::Part { state: Some(state) }
    }

    fn read(reader: &mut Reader, message: v1::Part) -> Option<Self> {
        Some(match reader.state(message.state)? {
            part::State::None(_) => Self::None,
            part::State::Writes(writes) => {
                let streams = read_streams(reader, writes.streams);
                let lends: Option<BTreeSet<Member>> =
                    writes.lends.iter().map(|member| reader.parse("lends", member)).collect();
                Self::Writes { streams: streams?, change: writes.change, lends: lends? }
            }
            part::State::Follows(follows) => Self::Follows {
                primary: reader.parse("primary", &follows.primary)?,
                streaming: follows.streaming,
            },
            part::State::Recruited(recruited) => {
                Self::Recruited { term: reader.term("term", recruited.term)? }
            }
            part::State::Waits(waits) => Self::Waits { why: waits.why },
            part::State::Rewinds(rewinds) => {
                Self::Rewinds { primary: reader.parse("primary", &rewinds.primary)? }
            }
            part::State::Diverged(diverged) => Self::Diverged { why: diverged.why },
        })
    }
}

fn stream_to_wire((member, flushed): (&Member, &Position)) -> part::Stream {
    part::Stream { member: member.to_string(), flushed: position_to_wire(flushed) }
}

/// One end of a stream, before it is known that no member is listed twice.
struct Stream(Member, Position);

impl Wire for Stream {
    type Message = part::Stream;

    fn to_wire(&self) -> part::Stream {
        stream_to_wire((&self.0, &self.1))
    }

    fn read(reader: &mut Reader, message: part::Stream) -> Option<Self> {
        let member = reader.parse("member", &message.member);
        let flushed = reader.position("flushed", &message.flushed);
        Some(Self(member?, flushed?))
    }
}

fn read_streams(reader: &mut Reader, messages: Vec<part::Stream>) -> Option<BTreeMap<Member, Position>> {
    let mut streams = BTreeMap::new();
    for Stream(member, flushed) in reader.list("streams", messages)? {
        if streams.contains_key(&member) {
            return reader.fault("streams", format!("lists {member} twice: a member has one stream"));
        }
        streams.insert(member, flushed);
    }
    Some(streams)
}

impl Wire for PeerView {
    type Message = v1::PeerView;

    fn to_wire(&self) -> v1::PeerView {
        v1::PeerView {
            node: self.node.to_string(),
            zone: self.zone.to_string(),
            heard_ms: self.heard_ms,
            said: self.said.as_ref().map(Wire::to_wire),
            failing: self.failing.clone(),
        }
    }

    fn read(reader: &mut Reader, message: v1::PeerView) -> Option<Self> {
        let node = reader.parse("node", &message.node);
        let zone = reader.parse("zone", &message.zone);
        let said = reader.optional("said", message.said);
        Some(Self {
            node: node?,
            zone: zone?,
            heard_ms: message.heard_ms,
            said: said?,
            failing: message.failing,
        })
    }
}

impl Wire for PeerSaid {
    type Message = v1::PeerSaid;

    fn to_wire(&self) -> v1::PeerSaid {
        v1::PeerSaid {
            member: self.member.as_ref().map(ToString::to_string),
            rule: self.rule.as_ref().map(Wire::to_wire),
            promised: self.promised.map(holdfast_model::Term::number),
            gate: Some(self.gate.to_wire()),
            part: Some(self.part.to_wire()),
            flushed: self.flushed.as_ref().map(position_to_wire),
            shipped: self.shipped.as_ref().map(position_to_wire),
        }
    }

    fn read(reader: &mut Reader, message: v1::PeerSaid) -> Option<Self> {
        let member = reader.parse_optional("member", message.member.as_deref());
        let rule = reader.optional("rule", message.rule);
        let promised = reader.term_optional("promised", message.promised);
        let gate = reader.required("gate", message.gate);
        let part = reader.required("part", message.part);
        let flushed = reader.position_optional("flushed", message.flushed.as_deref());
        let shipped = reader.position_optional("shipped", message.shipped.as_deref());
        Some(Self {
            member: member?,
            rule: rule?,
            promised: promised?,
            gate: gate?,
            part: part?,
            flushed: flushed?,
            shipped: shipped?,
        })
    }
}
