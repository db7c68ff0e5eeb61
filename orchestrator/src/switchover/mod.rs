//! A planned change of the primary: the candidate is brought near first, then the gate is closed, what is left is drained to
//! the candidate, and only then is anybody recruited. From there on it is a [`failover`] that everybody expects.
//!
//! Until somebody is recruited everything can be taken back: whatever fails, the primary opens again. A recruit cannot be
//! taken back, so it is the step after which there is only forward: if the candidate cannot take over, the best of the
//! recruited does, and that may be the old primary under a new term.
//!
//! Invariants, each a test in `tests`:
//! * `writes_are_refused_only_once_the_candidate_is_near`.
//! * `nobody_is_recruited_before_the_candidate_holds_everything`.
//! * `whatever_fails_before_that_reopens_the_primary` (I14).
//! * `the_candidate_serves_in_the_end`.
//!
//! Not here: how a gate is closed and drained. A drain that cannot end, since commits wait for acks, ends by its deadline.

#[cfg(test)]
mod tests;

use holdfast_model::{Member, Rule, Tick, VoterKind};
use holdfast_replication::promise::Attempt;
use serde::{Deserialize, Serialize};

use crate::failover::{self, Declined, Failover};

/// What a switchover is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// A term above every term that was seen, and fresh random bits.
    pub attempt: Attempt,
    /// The rule in force.
    pub rule: Rule,
    /// Who is to be the primary.
    pub candidate: Member,
}

impl Order {
    /// What follows the drain. Everybody is expected to take part, so nobody is asked whether the primary is missed; of
    /// those who hold everything, the candidate's zone decides.
    #[must_use]
    pub fn handing_over(&self) -> failover::Order {
        let candidate = self.rule.voters.iter().filter(|voter| voter.member == self.candidate);
        failover::Order {
            attempt: self.attempt,
            rule: self.rule.clone(),
            prefer: candidate.map(|voter| voter.zone.clone()).collect(),
            without_votes: true,
            until: None,
        }
    }
}

/// How long each phase may take, in milliseconds. Writes are refused from closing to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// For the candidate to come near.
    pub near_ms: u64,
    /// For closing the gate and ending what runs.
    pub close_ms: u64,
    /// For the candidate to hold everything.
    pub drain_ms: u64,
    /// For the primary to open again, after something failed.
    pub reopen_ms: u64,
    /// Before a request that was not answered is repeated.
    pub again_ms: u64,
    /// From the recruits on.
    pub failover: failover::Pace,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            near_ms: 60_000,
            close_ms: 5_000,
            drain_ms: 5_000,
            reopen_ms: 30_000,
            again_ms: 500,
            failover: failover::Pace::default(),
        }
    }
}

/// Something to be carried to a member. Repeating it is harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<P> {
    /// The primary: whether the candidate is so near that the rest is sent in an instant.
    AskNear {
        /// The primary.
        to: Member,
        /// The candidate.
        candidate: Member,
    },
    /// The primary: to keep clients out, end what runs, and tell where the log ends.
    Close {
        /// The primary.
        to: Member,
    },
    /// The candidate: to tell when it holds everything up to there.
    Await {
        /// The candidate.
        to: Member,
        /// Where the primary's log ends.
        position: P,
    },
    /// The primary: to let clients in again.
    Reopen {
        /// The primary.
        to: Member,
    },
    /// From the recruits on.
    Failover(failover::Request<P>),
}

/// What a member answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<P> {
    /// To [`Request::AskNear`].
    Near(bool),
    /// To [`Request::Close`]: nothing is written any more, and the log ends there.
    Closed(Result<P, Declined>),
    /// To [`Request::Await`].
    Holds(Result<(), Declined>),
    /// To [`Request::Reopen`].
    Reopened,
    /// From the recruits on.
    Failover(failover::Answer<P>),
}

/// Why the primary stayed the primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Kept {
    /// It cannot be promoted.
    #[error("{candidate} is not a full voter of rule {}: see 'holdfast status' for who is", rule)]
    NotACandidate {
        /// Who was asked for.
        candidate: Member,
        /// The rule in force.
        rule: holdfast_model::RuleId,
    },
    /// It is the primary.
    #[error("{0} is the primary already")]
    IsPrimary(Member),
    /// It did not come near.
    #[error("{candidate} is too far behind, and did not catch up in time: writes were not interrupted")]
    TooFarBehind {
        /// Who.
        candidate: Member,
    },
    /// The gate did not close.
    #[error("{primary} did not end what runs in time: end long transactions, or try again")]
    NotClosed {
        /// Who.
        primary: Member,
    },
    /// The rest did not arrive.
    #[error("{candidate} did not receive the rest of the log in time")]
    NotDrained {
        /// Who.
        candidate: Member,
    },
}

/// How a switchover ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End<P> {
    /// The primary serves as before, and nobody was recruited.
    Kept(Kept),
    /// The primary did not answer when it was told to open again; its agent does so by itself when its hold runs out.
    NotReopened(Kept),
    /// Somebody was recruited: as a failover ends.
    Failover(Box<failover::End<P>>),
}

#[derive(Debug, Clone)]
enum Phase<P> {
    Nearing,
    Closing,
    Draining { position: P },
    Reopening { because: Kept },
    HandingOver(Box<Failover<P>>),
    Ended(End<P>),
}

/// Where a switchover is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The candidate comes near.
    Nearing,
    /// The primary keeps clients out and ends what runs.
    Closing,
    /// The candidate receives what is left.
    Draining,
    /// Something failed, and the primary lets clients in again.
    Reopening,
    /// Members were recruited: there is only forward.
    HandingOver(failover::Stage),
    /// It is over.
    Ended,
}

/// A switchover under way.
#[derive(Debug, Clone)]
pub struct Switchover<P> {
    order: Order,
    pace: Pace,
    phase: Phase<P>,
    /// When the phase ends.
    until: Tick,
    /// When the request of the phase is repeated.
    again: Tick,
}

impl<P: PartialOrd + Clone> Switchover<P> {
    /// Begins, and says what to ask first.
    #[must_use]
    pub fn begin(order: Order, pace: Pace, now: Tick) -> (Self, Vec<Request<P>>) {
        let first = match refused(&order) {
            None => Phase::Nearing,
            Some(kept) => Phase::Ended(End::Kept(kept)),
        };
        let mut switchover = Self { order, pace, phase: Phase::Nearing, until: now, again: now };
        let requests = switchover.enter(first, now);
        (switchover, requests)
    }

    /// How it ended.
    #[must_use]
    pub const fn end(&self) -> Option<&End<P>> {
        match &self.phase {
            Phase::Ended(end) => Some(end),
            Phase::Nearing
            | Phase::Closing
            | Phase::Draining { .. }
            | Phase::Reopening { .. }
            | Phase::HandingOver(_) => None,
        }
    }

    /// Where it is, for people and clocks.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match &self.phase {
            Phase::Nearing => Stage::Nearing,
            Phase::Closing => Stage::Closing,
            Phase::Draining { .. } => Stage::Draining,
            Phase::Reopening { .. } => Stage::Reopening,
            Phase::HandingOver(failover) => Stage::HandingOver(failover.stage()),
            Phase::Ended(_) => Stage::Ended,
        }
    }

    /// As [`Failover::gate_of`].
    #[must_use]
    pub const fn gate_of(&self) -> Option<&Member> {
        match &self.phase {
            Phase::HandingOver(failover) => failover.gate_of(),
            Phase::Nearing
            | Phase::Closing
            | Phase::Draining { .. }
            | Phase::Reopening { .. }
            | Phase::Ended(_) => None,
        }
    }

    /// When to call [`Self::tick`] at the latest.
    #[must_use]
    pub fn wake_at(&self) -> Tick {
        match &self.phase {
            Phase::HandingOver(failover) => failover.wake_at(),
            Phase::Nearing
            | Phase::Closing
            | Phase::Draining { .. }
            | Phase::Reopening { .. }
            | Phase::Ended(_) => self.until.min(self.again),
        }
    }

    /// Takes in what `from` answered. What does not fit the phase is late, and left alone.
    pub fn heard(&mut self, from: &Member, answer: Answer<P>, now: Tick) -> Vec<Request<P>> {
        let by_primary = *from == self.order.rule.primary;
        let by_candidate = *from == self.order.candidate;
        let next = match (&mut self.phase, answer) {
            (Phase::Nearing, Answer::Near(true)) if by_primary => Phase::Closing,
            (Phase::Closing, Answer::Closed(Ok(position))) if by_primary => Phase::Draining { position },
            (Phase::Draining { .. }, Answer::Holds(Ok(()))) if by_candidate => return self.hand_over(now),
            // It stands by something else: somebody began a term meanwhile, and waiting would not change that.
            (Phase::Closing, Answer::Closed(Err(Declined::Refused(_)))) if by_primary => {
                Phase::Reopening { because: Kept::NotClosed { primary: from.clone() } }
            }
            (Phase::Draining { .. }, Answer::Holds(Err(Declined::Refused(_)))) if by_candidate => {
                Phase::Reopening { because: Kept::NotDrained { candidate: from.clone() } }
            }
            (Phase::Reopening { because }, Answer::Reopened) if by_primary => {
                Phase::Ended(End::Kept(because.clone()))
            }
            (Phase::HandingOver(failover), Answer::Failover(answer)) => {
                let requests = failover.heard(from, answer, now);
                return self.handing_over(requests, now);
            }
            (
                Phase::Nearing
                | Phase::Closing
                | Phase::Draining { .. }
                | Phase::Reopening { .. }
                | Phase::HandingOver(_)
                | Phase::Ended(_),
                Answer::Near(_)
                | Answer::Closed(_)
                | Answer::Holds(_)
                | Answer::Reopened
                | Answer::Failover(_),
            ) => return vec![],
        };
        self.enter(next, now)
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Tick) -> Vec<Request<P>> {
        if let Phase::HandingOver(failover) = &mut self.phase {
            let requests = failover.tick(now);
            return self.handing_over(requests, now);
        }
        if self.end().is_none() && now >= self.until {
            let next = self.too_late();
            return self.enter(next, now);
        }
        if self.end().is_none() && now >= self.again {
            self.again = now.after_millis(self.pace.again_ms);
            return self.request();
        }
        vec![]
    }

    fn too_late(&self) -> Phase<P> {
        let (primary, candidate) = (self.order.rule.primary.clone(), self.order.candidate.clone());
        match &self.phase {
            Phase::Nearing => Phase::Ended(End::Kept(Kept::TooFarBehind { candidate })),
            Phase::Closing => Phase::Reopening { because: Kept::NotClosed { primary } },
            Phase::Draining { .. } => Phase::Reopening { because: Kept::NotDrained { candidate } },
            Phase::Reopening { because } => Phase::Ended(End::NotReopened(because.clone())),
            same @ (Phase::HandingOver(_) | Phase::Ended(_)) => same.clone(),
        }
    }

    fn enter(&mut self, phase: Phase<P>, now: Tick) -> Vec<Request<P>> {
        let lasts_ms = match &phase {
            Phase::Nearing => self.pace.near_ms,
            Phase::Closing => self.pace.close_ms,
            Phase::Draining { .. } => self.pace.drain_ms,
            Phase::Reopening { .. } => self.pace.reopen_ms,
            Phase::HandingOver(_) | Phase::Ended(_) => 0,
        };
        self.until = now.after_millis(lasts_ms);
        self.again = now.after_millis(self.pace.again_ms);
        self.phase = phase;
        self.request()
    }

    /// What is asked in this phase.
    fn request(&self) -> Vec<Request<P>> {
        let (primary, candidate) = (self.order.rule.primary.clone(), self.order.candidate.clone());
        match &self.phase {
            Phase::Nearing => vec![Request::AskNear { to: primary, candidate }],
            Phase::Closing => vec![Request::Close { to: primary }],
            Phase::Draining { position } => {
                vec![Request::Await { to: candidate, position: position.clone() }]
            }
            Phase::Reopening { .. } => vec![Request::Reopen { to: primary }],
            Phase::HandingOver(_) | Phase::Ended(_) => vec![],
        }
    }

    fn hand_over(&mut self, now: Tick) -> Vec<Request<P>> {
        let (failover, requests) = Failover::begin(self.order.handing_over(), self.pace.failover, now);
        self.phase = Phase::HandingOver(Box::new(failover));
        self.handing_over(requests, now)
    }

    fn handing_over(&mut self, requests: Vec<failover::Request<P>>, now: Tick) -> Vec<Request<P>> {
        let ended = match &self.phase {
            Phase::HandingOver(failover) => failover.end().cloned(),
            Phase::Nearing
            | Phase::Closing
            | Phase::Draining { .. }
            | Phase::Reopening { .. }
            | Phase::Ended(_) => None,
        };
        let mut requests: Vec<Request<P>> = requests.into_iter().map(Request::Failover).collect();
        if let Some(end) = ended {
            requests.extend(self.enter(Phase::Ended(End::Failover(Box::new(end))), now));
        }
        requests
    }
}

/// Why nothing is begun.
fn refused(order: &Order) -> Option<Kept> {
    if order.rule.primary == order.candidate {
        return Some(Kept::IsPrimary(order.candidate.clone()));
    }
    let full = order
        .rule
        .voters
        .iter()
        .any(|voter| voter.member == order.candidate && voter.kind == VoterKind::Full);
    (!full).then(|| Kept::NotACandidate { candidate: order.candidate.clone(), rule: order.rule.id })
}
