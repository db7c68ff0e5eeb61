//! One attempt at another primary.
//!
//! Votes, recruits, choice, promotion, an open gate. A recruit stops the acks of a primary that may be healthy, so nobody
//! is recruited before members that would suffice for U and E have said that they miss the primary too; an operator who
//! knows that it is gone may leave that out, and nothing else. Requests are repeated until they are answered or their
//! phase is over: each of them can be lost, late or heard twice.
//!
//! Invariants, each a test in `tests`:
//! * `nobody_is_recruited_while_too_few_miss_the_primary`.
//! * `one_member_is_promoted_and_only_once_u_and_e_hold` (I2, I4, I5).
//! * `every_attempt_ends_and_says_why` (I14), whatever is lost, late or repeated (I16).
//!
//! Not here: which member may be chosen ([`holdfast_replication::choose`]).

mod phase;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use holdfast_model::{Member, Rule, Term, Tick, Zone};
use holdfast_replication::choose::{self, Certificate, Report};
use holdfast_replication::coverage;
use holdfast_replication::promise::{self, Attempt};

pub use phase::{Declined, End, Stage, Stopped, Vote};
use phase::{Opening, Phase, Promoting, Recruiting, Voting};

/// What an attempt is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// A term above every term that was seen, and fresh random bits.
    pub attempt: Attempt,
    /// The newest rule that is known; the members tell if there is a newer one.
    pub rule: Rule,
    /// Zones to prefer among members that hold the same, the best first.
    pub prefer: Vec<Zone>,
    /// Nobody is asked whether the primary is missed: somebody vouches that it is gone, or it is expected to take part.
    pub without_votes: bool,
    /// No attempt but the first begins from here on; absent when there is no such time.
    pub until: Option<Tick>,
}

/// How long each phase may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// For votes.
    pub vote_ms: u64,
    /// For answers to recruits: a member stops receiving and applies all that it has received.
    pub recruit_ms: u64,
    /// Once enough are recruited, or one refused: how long to wait for the others, who may hold more that nobody was told
    /// about, or suffice without the one.
    pub settle_ms: u64,
    /// For the promotion itself.
    pub promote_ms: u64,
    /// For the new primary's marker to be acked.
    pub open_ms: u64,
    /// Before a request that was not answered is repeated.
    pub again_ms: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            vote_ms: 2_000,
            recruit_ms: 10_000,
            settle_ms: 500,
            promote_ms: 10_000,
            open_ms: 30_000,
            again_ms: 1_000,
        }
    }
}

/// Something to be carried to a member. Repeating it is harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<P> {
    /// Whether it misses the primary too.
    AskVote {
        /// Whom.
        to: Member,
        /// The primary.
        primary: Member,
    },
    /// To promise, stop receiving, and tell how far its log goes.
    Recruit {
        /// Whom.
        to: Member,
        /// For which attempt.
        attempt: Attempt,
    },
    /// To begin the term.
    Promote {
        /// Whom.
        to: Member,
        /// On what grounds.
        certificate: Box<Certificate<P>>,
    },
    /// To receive from the new primary.
    Follow {
        /// Whom.
        to: Member,
        /// The new primary's first rule.
        rule: Rule,
    },
    /// To be kept in the repository. Nothing waits for it.
    Keep {
        /// What.
        certificate: Box<Certificate<P>>,
    },
}

/// What a member answered, or what was heard instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<P> {
    /// To [`Request::AskVote`].
    Voted(Vote),
    /// To [`Request::Recruit`].
    Recruited(Result<Report<P>, Declined>),
    /// To [`Request::Promote`]: its first rule is in its log.
    Promoted(Result<Rule, Declined>),
    /// Its gate is open in the new term.
    Opened(Term),
}

/// An attempt under way.
#[derive(Debug, Clone)]
pub struct Failover<P> {
    order: Order,
    pace: Pace,
    phase: Phase<P>,
    /// When the phase ends.
    until: Tick,
    /// When unanswered requests are repeated.
    again: Tick,
}

impl<P: PartialOrd + Clone> Failover<P> {
    /// Begins, and says what to ask first.
    #[must_use]
    pub fn begin(order: Order, pace: Pace, now: Tick) -> (Self, Vec<Request<P>>) {
        let first = if order.without_votes {
            Phase::Recruiting(Recruiting::default())
        } else {
            Phase::Voting(Voting::default())
        };
        let mut attempt = Self { order, pace, phase: first.clone(), until: now, again: now };
        let requests = attempt.enter(first, now);
        (attempt, requests)
    }

    /// How it ended.
    #[must_use]
    pub const fn end(&self) -> Option<&End<P>> {
        match &self.phase {
            Phase::Ended(end) => Some(end),
            Phase::Voting(_) | Phase::Recruiting(_) | Phase::Promoting(_) | Phase::Opening(_) => None,
        }
    }

    /// Where it is, for people and clocks.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.phase.stage()
    }

    /// Whose gate is waited for, once it has begun the term; its opening is told as [`Answer::Opened`].
    #[must_use]
    pub const fn gate_of(&self) -> Option<&Member> {
        match &self.phase {
            Phase::Opening(opening) => Some(&opening.certificate.chosen),
            Phase::Voting(_) | Phase::Recruiting(_) | Phase::Promoting(_) | Phase::Ended(_) => None,
        }
    }

    /// When to call [`Self::tick`] at the latest.
    #[must_use]
    pub fn wake_at(&self) -> Tick {
        let settled = match &self.phase {
            Phase::Recruiting(Recruiting { enough_since: Some(since), .. })
            | Phase::Recruiting(Recruiting { enough_since: None, refused_since: Some(since), .. }) => {
                since.after_millis(self.pace.settle_ms)
            }
            Phase::Recruiting(Recruiting { enough_since: None, refused_since: None, .. })
            | Phase::Voting(_)
            | Phase::Promoting(_)
            | Phase::Opening(_)
            | Phase::Ended(_) => self.until,
        };
        self.until.min(self.again).min(settled)
    }

    /// Takes in what `from` answered. What does not fit the phase is late, and left alone.
    pub fn heard(&mut self, from: &Member, answer: Answer<P>, now: Tick) -> Vec<Request<P>> {
        match (&mut self.phase, answer) {
            (Phase::Voting(voting), Answer::Voted(vote)) if self.order.names(from) => {
                voting.votes.insert(from.clone(), vote);
            }
            (Phase::Recruiting(recruiting), Answer::Recruited(answer))
                if self.order.names(from) || recruiting.asks_also(from) =>
            {
                recruiting.hear(from, answer);
                if let Some(newer) = recruiting.newest_rule().filter(|rule| rule.id > self.order.rule.id) {
                    // Its voters are the ones to recruit; those that were asked already are not asked anew yet.
                    let known: BTreeSet<Member> = self.order.members().collect();
                    self.order.rule = newer.clone();
                    let mut requests = self.unanswered();
                    requests.retain(|request| !known.contains(request.to()));
                    requests.extend(self.advance(now));
                    return requests;
                }
            }
            (Phase::Promoting(promoting), Answer::Promoted(answer))
                if promoting.certificate.chosen == *from =>
            {
                return self.promoted(answer, now);
            }
            (Phase::Opening(opening), Answer::Opened(term))
                if opening.certificate.chosen == *from && term == self.order.attempt.term =>
            {
                let end = End::Opened {
                    certificate: Box::new(opening.certificate.clone()),
                    rule: opening.rule.clone(),
                };
                return self.enter(Phase::Ended(end), now);
            }
            (
                Phase::Voting(_)
                | Phase::Recruiting(_)
                | Phase::Promoting(_)
                | Phase::Opening(_)
                | Phase::Ended(_),
                Answer::Voted(_) | Answer::Recruited(_) | Answer::Promoted(_) | Answer::Opened(_),
            ) => return vec![],
        }
        self.advance(now)
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Tick) -> Vec<Request<P>> {
        let requests = self.advance(now);
        if requests.is_empty() && now >= self.again && self.end().is_none() {
            self.again = now.after_millis(self.pace.again_ms);
            return self.unanswered();
        }
        requests
    }

    /// Goes on to the next phase if it can, and gives up what has taken too long.
    fn advance(&mut self, now: Tick) -> Vec<Request<P>> {
        let late = now >= self.until;
        let next = match &mut self.phase {
            Phase::Voting(voting) => match self.order.votes_suffice(voting) {
                Ok(()) => Phase::Recruiting(Recruiting::default()),
                Err(refused) if late || self.order.nobody_is_left(voting.votes.keys()) => {
                    let seeing = voting.of(Vote::SeesPrimary).collect();
                    Phase::Ended(End::Stopped(Stopped::NotMissed { seeing, refused }))
                }
                Err(_) => return vec![],
            },
            Phase::Recruiting(recruiting) => {
                let chosen = choose::choose(self.order.attempt, recruiting.reports(), &self.order.prefer);
                if let Err(choose::Refused::NotRevoked { rule, .. }) = &chosen
                    && recruiting.widen(*rule, &self.order.rule)
                {
                    let attempt = self.order.attempt;
                    return recruiting
                        .also
                        .iter()
                        .map(|to| Request::Recruit { to: to.clone(), attempt })
                        .collect();
                }
                let all = self.order.nobody_is_left(recruiting.answers.keys()) && recruiting.nobody_is_left();
                let settled = |since: Tick| now >= since.after_millis(self.pace.settle_ms);
                if recruiting.is_refused() {
                    recruiting.refused_since.get_or_insert(now);
                }
                match chosen {
                    Ok(certificate) => {
                        let since = *recruiting.enough_since.get_or_insert(now);
                        if !(all || late || settled(since)) {
                            return vec![];
                        }
                        Phase::Promoting(Promoting { certificate })
                    }
                    // A member that refused does not change its mind in this term; above it, it may be recruited.
                    Err(refused)
                        if late
                            || (all && !recruiting.may_still_answer())
                            || recruiting.refused_since.is_some_and(settled) =>
                    {
                        Phase::Ended(End::Stopped(recruiting.stopped(refused)))
                    }
                    Err(_) => {
                        recruiting.enough_since = None;
                        return vec![];
                    }
                }
            }
            Phase::Promoting(promoting) if late => Phase::Ended(End::Stopped(Stopped::NotPromoted {
                chosen: promoting.certificate.chosen.clone(),
            })),
            Phase::Opening(opening) if late => {
                Phase::Ended(End::Stopped(Stopped::NotOpened { chosen: opening.certificate.chosen.clone() }))
            }
            Phase::Promoting(_) | Phase::Opening(_) | Phase::Ended(_) => return vec![],
        };
        self.enter(next, now)
    }

    fn promoted(&mut self, answer: Result<Rule, Declined>, now: Tick) -> Vec<Request<P>> {
        let Phase::Promoting(Promoting { certificate }) = &self.phase else { return vec![] };
        let next = match answer {
            Ok(rule) => Phase::Opening(Opening { certificate: certificate.clone(), rule }),
            // Perhaps it heard, and only the answer was lost: it is asked again.
            Err(Declined::Unreachable { .. }) => return vec![],
            Err(Declined::Refused(refused)) => {
                let chosen = certificate.chosen.clone();
                Phase::Ended(End::Stopped(Stopped::PromotionRefused { chosen, refused }))
            }
        };
        self.enter(next, now)
    }

    fn enter(&mut self, phase: Phase<P>, now: Tick) -> Vec<Request<P>> {
        let pace = &self.pace;
        let lasts_ms = match &phase {
            Phase::Voting(_) => pace.vote_ms,
            Phase::Recruiting(_) => pace.recruit_ms,
            Phase::Promoting(_) => pace.promote_ms,
            Phase::Opening(_) => pace.open_ms,
            Phase::Ended(_) => 0,
        };
        self.until = now.after_millis(lasts_ms);
        self.again = now.after_millis(pace.again_ms);
        self.phase = phase;
        let mut requests = self.unanswered();
        if let Phase::Promoting(Promoting { certificate }) = &self.phase {
            requests.push(Request::Keep { certificate: Box::new(certificate.clone()) });
        }
        requests
    }

    /// What was asked in this phase and not answered yet.
    fn unanswered(&self) -> Vec<Request<P>> {
        let voters = self.order.members();
        match &self.phase {
            Phase::Voting(voting) => voters
                .filter(|to| !voting.votes.contains_key(to))
                .map(|to| Request::AskVote { to, primary: self.order.rule.primary.clone() })
                .collect(),
            Phase::Recruiting(recruiting) => voters
                .chain(recruiting.also.iter().cloned())
                .filter(|to| recruiting.may_answer(to))
                .map(|to| Request::Recruit { to, attempt: self.order.attempt })
                .collect(),
            Phase::Promoting(Promoting { certificate }) => {
                vec![Request::Promote {
                    to: certificate.chosen.clone(),
                    certificate: Box::new(certificate.clone()),
                }]
            }
            Phase::Opening(opening) => voters
                .filter(|to| *to != opening.certificate.chosen)
                .map(|to| Request::Follow { to, rule: opening.rule.clone() })
                .collect(),
            Phase::Ended(_) => vec![],
        }
    }
}

impl<P> Request<P> {
    /// Who is to get it; of what is to be kept, whom it is about.
    #[must_use]
    pub const fn to(&self) -> &Member {
        match self {
            Self::AskVote { to, .. }
            | Self::Recruit { to, .. }
            | Self::Promote { to, .. }
            | Self::Follow { to, .. } => to,
            Self::Keep { certificate } => &certificate.chosen,
        }
    }
}

impl Order {
    fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.rule.voters.iter().map(|voter| voter.member.clone())
    }

    fn names(&self, member: &Member) -> bool {
        self.rule.voters.iter().any(|voter| voter.member == *member)
    }

    fn nobody_is_left<'a>(&self, answered: impl Iterator<Item = &'a Member>) -> bool {
        let answered: BTreeSet<&Member> = answered.collect();
        self.rule.voters.iter().all(|voter| answered.contains(&voter.member))
    }

    /// Whether those who miss the primary could be recruited and suffice.
    fn votes_suffice(&self, voting: &Voting) -> Result<(), choose::Refused> {
        let missing: BTreeSet<Member> = voting.of(Vote::MissesPrimary).collect();
        let rule = self.rule.id;
        coverage::revoked(&self.rule, &missing)
            .map_err(|missing| choose::Refused::NotRevoked { rule, missing })?;
        coverage::can_establish(&self.rule, &missing).map_err(|missing| choose::Refused::NotEstablished {
            rule,
            missing,
            absent: vec![],
        })
    }
}

/// The term to try after an attempt that ended, when one was refused for a term that is promised or begun already.
#[must_use]
pub fn above(end: &Stopped) -> Option<Term> {
    let highest = match end {
        Stopped::PromotionRefused { refused, .. } => Some(term_of(refused)),
        Stopped::NotChosen { refusals, .. } => refusals.iter().map(|(_, refused)| term_of(refused)).max(),
        Stopped::NotMissed { .. } | Stopped::NotPromoted { .. } | Stopped::NotOpened { .. } => None,
    };
    highest.and_then(Term::next)
}

const fn term_of(refused: &promise::Refused) -> Term {
    match refused {
        promise::Refused::Promised { promised, .. } => *promised,
        promise::Refused::OtherAttempt { term } => *term,
        promise::Refused::Begun { rule, .. } => rule.term,
        promise::Refused::NotRecruited { asked } => *asked,
    }
}
