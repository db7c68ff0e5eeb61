//! The network: what is on its way, and what becomes of it.
//!
//! Calls between agents are delayed, lost, repeated and overtaken. Streams between engines are connections: what they carry
//! arrives in order, or the connection breaks.

use holdfast_model::peer::PeerSaid;
use holdfast_model::{Member, Rule, Term};

use crate::coordinator::{Answered, Ask};
use crate::engine::{Connected, name};
use crate::log::Record;
use crate::world::{Event, World};

/// Before it is looked whether an engine that stands still takes what was sent to it.
const FROZEN_MS: u64 = 50;

/// What is carried.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// A standby logs in.
    Attach {
        attempt: u64,
        member: Member,
        at: usize,
        timeline: Term,
    },
    /// It may.
    Attached {
        attempt: u64,
        connected: Connected,
    },
    /// Log, from a position on.
    Log {
        stream: u64,
        from: usize,
        records: Vec<Record>,
    },
    /// Flushed up to here.
    Flushed {
        stream: u64,
        at: usize,
    },
    /// An agent asks a peer how it is.
    AskStatus {
        life: u64,
        asked: u64,
    },
    Status {
        life: u64,
        asked: u64,
        said: Box<PeerSaid>,
    },
    /// An agent asks a peer for all of its rules.
    AskRules {
        life: u64,
    },
    Rules {
        life: u64,
        rules: Vec<Rule>,
    },
    /// A coordinator asks a member.
    Ask {
        coordinator: u64,
        call: u64,
        to: Member,
        known: Term,
        ask: Box<Ask>,
    },
    Answer {
        coordinator: u64,
        call: u64,
        answer: Box<Answered>,
    },
}

impl Body {
    /// The stream that it belongs to.
    const fn stream(&self) -> Option<u64> {
        match self {
            Self::Attached { connected, .. } => Some(connected.stream),
            Self::Log { stream, .. } | Self::Flushed { stream, .. } => Some(*stream),
            Self::Attach { .. }
            | Self::AskStatus { .. }
            | Self::Status { .. }
            | Self::AskRules { .. }
            | Self::Rules { .. }
            | Self::Ask { .. }
            | Self::Answer { .. } => None,
        }
    }

    const fn is_of_engines(&self) -> bool {
        matches!(self, Self::Attach { .. }) || self.stream().is_some()
    }

    /// Whether repeating it is something that networks and callers do.
    const fn may_repeat(&self) -> bool {
        matches!(self, Self::Ask { .. } | Self::Answer { .. })
    }
}

/// Something on its way.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) body: Body,
}

/// One direction between two nodes.
#[derive(Debug, Clone, Default)]
struct Link {
    cut: bool,
    slow_ms: u64,
    /// When the last message of a stream arrives.
    last: u64,
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Net {
    links: Vec<Vec<Link>>,
    /// Of a thousand messages of agents, so many are lost, and so many repeated.
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
}

impl Net {
    pub(crate) fn of(nodes: usize) -> Self {
        Self { links: vec![vec![Link::default(); nodes]; nodes], ..Self::default() }
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize, cut: bool) {
        self.links[from][to].cut = cut;
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links[from][to].cut
    }

    pub(crate) fn slow(&mut self, from: usize, to: usize, ms: u64) {
        self.links[from][to].slow_ms = ms;
    }

    pub(crate) fn heal(&mut self) {
        for link in self.links.iter_mut().flatten() {
            (link.cut, link.slow_ms) = (false, 0);
        }
        (self.lost, self.repeated) = (0, 0);
    }
}

impl World {
    /// Sends it on its way.
    pub(crate) fn send(&mut self, from: usize, to: usize, body: Body) {
        if from == to {
            self.after(1, Event::Deliver(Box::new(Envelope { from, to, body })));
            return;
        }
        if body.stream().is_none() && self.net.lost > 0 && self.chance.permille(self.net.lost) {
            self.counts.one("messages lost");
            return;
        }
        let times = if body.may_repeat() && self.net.repeated > 0 && self.chance.permille(self.net.repeated) {
            2
        } else {
            1
        };
        if times == 2 {
            self.counts.one("messages repeated");
            let body = body.clone();
            let ms = self.delay(from, to);
            self.after(ms, Event::Deliver(Box::new(Envelope { from, to, body })));
        }
        let ms = self.delay(from, to);
        let mut at = self.now.after_millis(ms);
        if body.stream().is_some() {
            let last = &mut self.net.links[from][to].last;
            *last = at.millis().max(*last);
            at = holdfast_model::Tick::from_millis(*last);
        }
        self.at(at, Event::Deliver(Box::new(Envelope { from, to, body })));
    }

    fn delay(&mut self, from: usize, to: usize) -> u64 {
        let late = if self.net.lost > 0 && self.chance.one_in(20) { self.chance.below(400) } else { 0 };
        self.net.links[from][to].slow_ms + self.chance.between(1, 8) + late
    }

    /// It arrives, unless there is no way to where it goes.
    pub(crate) fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, body } = envelope;
        if from != to && self.net.is_cut(from, to) {
            if let Some(stream) = body.stream() {
                self.break_stream(from, to, stream);
            }
            return;
        }
        if body.is_of_engines() && self.is_frozen(to) {
            let body = Box::new(Envelope { from, to, body });
            return self.after(FROZEN_MS, Event::Deliver(body));
        }
        match body {
            Body::Attach { attempt, member, at, timeline } => {
                self.attach(to, from, (attempt, member, at, timeline))
            }
            Body::Attached { attempt, connected } => self.attached(to, attempt, connected),
            Body::Log { stream, from, records } => self.receive(to, stream, from, records),
            Body::Flushed { stream, at } => self.take_ack(to, stream, at),
            Body::AskStatus { life, asked } => self.tell_status(to, from, life, asked),
            Body::Status { life, asked, said } => self.take_status(to, from, (life, asked), *said),
            Body::AskRules { life } => self.tell_rules(to, from, life),
            Body::Rules { life, rules } => self.take_rules(to, from, life, rules),
            Body::Ask { coordinator, call, to: member, known, ask } => {
                self.say(|| format!("{} is asked by {}: {ask:?}", name(to), name(from)));
                self.take_call(to, (from, (coordinator, call)), (&member, known), *ask);
            }
            Body::Answer { coordinator, call, answer } => self.take_answer(coordinator, call, *answer),
        }
    }
}
