//! A failover or a switchover, for whoever carries the requests of either.
//!
//! A switchover asks all that a failover does, so its requests and answers serve for both.

use holdfast_model::{Member, Position, Tick};

use crate::failover::Failover;
use crate::switchover::{self, Stage, Switchover};

/// What the wider of the two cores asks; the narrower one's requests are among them.
pub type Request = switchover::Request<Position>;
/// What it is answered.
pub type Answer = switchover::Answer<Position>;

/// One of the two.
#[derive(Debug)]
pub enum Course {
    /// Another primary, because the old one is gone.
    Failover(Box<Failover<Position>>),
    /// Another primary, with the old one's help.
    Switchover(Box<Switchover<Position>>),
}

impl Course {
    /// Where it is; a failover is the later part of a switchover.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Failover(failover) => Stage::HandingOver(failover.stage()),
            Self::Switchover(switchover) => switchover.stage(),
        }
    }

    /// Whether nothing more comes of it.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        match self {
            Self::Failover(failover) => failover.end().is_some(),
            Self::Switchover(switchover) => switchover.end().is_some(),
        }
    }

    /// Whose gate it waits for.
    #[must_use]
    pub const fn gate_of(&self) -> Option<&Member> {
        match self {
            Self::Failover(failover) => failover.gate_of(),
            Self::Switchover(switchover) => switchover.gate_of(),
        }
    }

    /// When to call [`Self::tick`] next.
    #[must_use]
    pub fn wake_at(&self) -> Tick {
        match self {
            Self::Failover(failover) => failover.wake_at(),
            Self::Switchover(switchover) => switchover.wake_at(),
        }
    }

    /// Takes the answer of a member; what to ask next.
    #[must_use]
    pub fn heard(&mut self, from: &Member, answer: Answer, now: Tick) -> Vec<Request> {
        match (self, answer) {
            (Self::Switchover(switchover), answer) => switchover.heard(from, answer, now),
            (Self::Failover(failover), Answer::Failover(answer)) => {
                failover.heard(from, answer, now).into_iter().map(Request::Failover).collect()
            }
            (
                Self::Failover(_),
                Answer::Near(_) | Answer::Closed(_) | Answer::Holds(_) | Answer::Reopened,
            ) => vec![],
        }
    }

    /// Time passes; what to ask next.
    #[must_use]
    pub fn tick(&mut self, now: Tick) -> Vec<Request> {
        match self {
            Self::Failover(failover) => failover.tick(now).into_iter().map(Request::Failover).collect(),
            Self::Switchover(switchover) => switchover.tick(now),
        }
    }
}
