//! Where an attempt is, with what is known there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use holdfast_model::{Member, Rule, RuleId, Tick};
use holdfast_replication::choose::{self, Certificate, Report};
use holdfast_replication::promise;
use serde::{Deserialize, Serialize};

/// What a member says of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vote {
    /// It has seen neither log nor a heartbeat of it for as long as it takes.
    MissesPrimary,
    /// It still hears of it. A primary whose commits wait for acks is heard of.
    SeesPrimary,
}

/// Why a member did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Declined {
    /// It was not heard in time; it may have done it all the same.
    #[error("not reached: {why}")]
    Unreachable {
        /// What was heard instead.
        why: String,
    },
    /// It stands by something else.
    #[error(transparent)]
    Refused(#[from] promise::Refused),
}

/// Why an attempt ended without another primary. What was promised stays promised; anybody may begin above it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Stopped {
    /// Too few miss the primary. Nobody was recruited, and nothing changed.
    #[error("not enough members miss the primary ({} still hear of it): {refused}", seeing.len())]
    NotMissed {
        /// Those who hear of it.
        seeing: Vec<Member>,
        /// Why the others would not suffice.
        refused: choose::Refused,
    },
    /// Nobody may be chosen.
    #[error(
        "nobody may be promoted: {refused}{}{}",
        each(refusals, "declines"),
        each(unreached, "is not reached")
    )]
    NotChosen {
        /// Why.
        refused: choose::Refused,
        /// Members that were not reached, and why.
        unreached: Vec<(Member, String)>,
        /// Members that stand by something else, and by what.
        refusals: Vec<(Member, promise::Refused)>,
    },
    /// Whoever was chosen does not answer.
    #[error("{chosen} was chosen and does not answer: begin again, it may have begun the term all the same")]
    NotPromoted {
        /// Who.
        chosen: Member,
    },
    /// Whoever was chosen stands by something else by now.
    #[error("{chosen} was chosen and declines: {refused}")]
    PromotionRefused {
        /// Who.
        chosen: Member,
        /// By what.
        refused: promise::Refused,
    },
    /// Too few follow the new primary.
    #[error(
        "{chosen} has begun the term, and too few acknowledge its marker: its gate opens once they follow"
    )]
    NotOpened {
        /// Who.
        chosen: Member,
    },
}

/// What each of `members` did, and why.
fn each(members: &[(Member, impl fmt::Display)], did: &str) -> String {
    members.iter().map(|(member, why)| format!("; {member} {did}: {why}")).collect()
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End<P> {
    /// Another primary serves.
    Opened {
        /// On what grounds.
        certificate: Box<Certificate<P>>,
        /// Its first rule.
        rule: Rule,
    },
    /// Nobody new serves.
    Stopped(Stopped),
}

/// Where an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Members are asked whether they miss the primary.
    Voting,
    /// Members promise, stop receiving and report.
    Recruiting,
    /// Whoever was chosen begins the term.
    Promoting,
    /// Its marker is to be acked, and its gate to open.
    Opening,
    /// It is over.
    Ended,
}

/// What is going on.
#[derive(Debug, Clone)]
pub(super) enum Phase<P> {
    Voting(Voting),
    Recruiting(Recruiting<P>),
    Promoting(Promoting<P>),
    Opening(Opening<P>),
    Ended(End<P>),
}

impl<P> Phase<P> {
    pub(super) const fn stage(&self) -> Stage {
        match self {
            Self::Voting(_) => Stage::Voting,
            Self::Recruiting(_) => Stage::Recruiting,
            Self::Promoting(_) => Stage::Promoting,
            Self::Opening(_) => Stage::Opening,
            Self::Ended(_) => Stage::Ended,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Voting {
    pub(super) votes: BTreeMap<Member, Vote>,
}

impl Voting {
    pub(super) fn of(&self, vote: Vote) -> impl Iterator<Item = Member> + '_ {
        self.votes.iter().filter(move |(_, theirs)| **theirs == vote).map(|(member, _)| member.clone())
    }
}

#[derive(Debug, Clone)]
pub(super) struct Recruiting<P> {
    pub(super) answers: BTreeMap<Member, Result<Report<P>, Declined>>,
    /// Who is asked besides the voters of the newest rule: those that only its predecessor names, which may be open too.
    pub(super) also: BTreeSet<Member>,
    /// Since when those who answered suffice.
    pub(super) enough_since: Option<Tick>,
    /// Since when somebody stands by something else.
    pub(super) refused_since: Option<Tick>,
}

impl<P> Default for Recruiting<P> {
    fn default() -> Self {
        Self { answers: BTreeMap::new(), also: BTreeSet::new(), enough_since: None, refused_since: None }
    }
}

impl<P: Clone> Recruiting<P> {
    /// Asks those too whom only `open` names, which was told beside the `newest` rule and which too few were recruited for.
    /// Whether there are any who were not asked before.
    pub(super) fn widen(&mut self, open: RuleId, newest: &Rule) -> bool {
        let told = self.answers.values().filter_map(|answer| answer.as_ref().ok());
        let rule = told.flat_map(|report| &report.rules).find(|rule| rule.id == open && open != newest.id);
        let voters = rule.into_iter().flat_map(|rule| rule.voters.iter().map(|voter| &voter.member));
        let named = |member: &&Member| newest.voters.iter().any(|voter| voter.member == **member);
        let only: BTreeSet<Member> = voters.filter(|member| !named(member)).cloned().collect();
        let before = self.also.len();
        self.also.extend(only);
        self.also.len() > before
    }

    pub(super) fn asks_also(&self, member: &Member) -> bool {
        self.also.contains(member)
    }

    /// Whether all of those have answered.
    pub(super) fn nobody_is_left(&self) -> bool {
        self.also.iter().all(|member| self.answers.contains_key(member))
    }

    /// A report stands; a refusal stands until a report; not being reached gives way to anything.
    pub(super) fn hear(&mut self, from: &Member, answer: Result<Report<P>, Declined>) {
        // Only what a member says of itself counts.
        if answer.as_ref().is_ok_and(|report| report.member != *from) {
            return;
        }
        let stands = self.answers.get(from).is_some_and(|there| match (there, &answer) {
            (Ok(_), _) | (Err(Declined::Refused(_)), Err(Declined::Unreachable { .. })) => true,
            (Err(_), Ok(_) | Err(_)) => false,
        });
        if !stands {
            self.answers.insert(from.clone(), answer);
        }
    }

    pub(super) fn reports(&self) -> Vec<Report<P>> {
        self.answers.values().filter_map(|answer| answer.as_ref().ok().cloned()).collect()
    }

    /// The newest rule that anybody told of.
    pub(super) fn newest_rule(&self) -> Option<&Rule> {
        let told = self.answers.values().filter_map(|answer| answer.as_ref().ok());
        told.filter_map(|report| report.rules.first()).max_by_key(|rule| rule.id)
    }

    /// Whether asking again can bring something.
    pub(super) fn may_answer(&self, member: &Member) -> bool {
        match self.answers.get(member) {
            None | Some(Err(Declined::Unreachable { .. })) => true,
            Some(Ok(_) | Err(Declined::Refused(_))) => false,
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.answers.values().any(|answer| matches!(answer, Err(Declined::Refused(_))))
    }

    pub(super) fn may_still_answer(&self) -> bool {
        self.answers.keys().any(|member| self.may_answer(member))
    }

    pub(super) fn stopped(&self, refused: choose::Refused) -> Stopped {
        let (mut unreached, mut refusals) = (vec![], vec![]);
        for (member, answer) in &self.answers {
            match answer {
                Ok(_) => {}
                Err(Declined::Unreachable { why }) => unreached.push((member.clone(), why.clone())),
                Err(Declined::Refused(refused)) => refusals.push((member.clone(), refused.clone())),
            }
        }
        Stopped::NotChosen { refused, unreached, refusals }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Promoting<P> {
    pub(super) certificate: Certificate<P>,
}

#[derive(Debug, Clone)]
pub(super) struct Opening<P> {
    pub(super) certificate: Certificate<P>,
    pub(super) rule: Rule,
}
