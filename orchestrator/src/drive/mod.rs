//! Runs a [`Failover`] or a [`Switchover`] to its end: carries what it asks to [`Members`], tells it what they answer and
//! when time has passed, and begins again above a term that turned out to be taken.
//!
//! Two coordinators that compete for a term refuse one another's members; each tries again above what it was told, after a
//! pause that is random and grows, so that one of them gets through. An attempt whose chosen member fell silent is tried
//! again too: members stay promised and silent until somebody begins above. Where nobody was asked whether the primary is
//! missed (an operator's word, a switchover), a term that has *begun* ends it instead: the word was about another primary
//! than the one that serves now.
//!
//! Invariants, each a test in `tests`:
//! * `every_drive_ends_and_says_why` (I14), whatever is lost, late or done without an answer (I16).
//! * `one_of_two_coordinators_gets_through`.
//! * `nothing_is_begun_once_the_time_for_it_is_up`.
//! * `what_is_under_way_is_not_carried_twice`.
//! * `a_switchover_that_fails_reopens_the_primary`, at each step before the recruits.
//!
//! Not here: how a request travels (the agent), that a failover is due, safety (members judge for themselves). A drive that
//! is dropped leaves what it asked for as it is: promises, or a primary whose hold runs out. Run it in a task of its own.

mod carry;
mod members;
#[cfg(test)]
mod tests;
mod took;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use holdfast_model::step::{self, Step, coordinate};
use holdfast_model::{Member, Position, Rule, Tick};
use holdfast_replication::choose::Certificate;
use holdfast_replication::promise::{Attempt, Refused};
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;
use tracing::debug;

pub use members::Members;
pub use took::Took;

use crate::course::{Answer, Course, Request};
use crate::failover::{self, Failover, Stopped};
use crate::switchover::{self, Kept, Stage, Switchover};
use carry::Carrying;

/// Time between two looks at the gate of whoever has begun the term.
const GATE_EVERY: Duration = Duration::from_millis(100);

/// How often it is tried to get a term, and how long to wait in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// Attempts in all, the first one included.
    pub most: u32,
    /// The longest pause after the first attempt, in milliseconds; it doubles with each that follows.
    pub pause_ms: u64,
    /// No pause is longer.
    pub pause_ms_max: u64,
}

impl Default for Tries {
    fn default() -> Self {
        Self { most: 5, pause_ms: 500, pause_ms_max: 10_000 }
    }
}

impl Tries {
    /// How long to wait after attempt `tried`, out of `random` bits.
    fn pause(self, tried: u32, random: u128) -> Duration {
        let doubled = self.pause_ms.saturating_mul(1 << tried.saturating_sub(1).min(32));
        let span = u128::from(doubled.min(self.pause_ms_max)) + 1;
        Duration::from_millis(u64::try_from(random % span).unwrap_or(self.pause_ms_max))
    }
}

/// Another primary serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// On what grounds.
    pub certificate: Certificate<Position>,
    /// Its first rule.
    pub rule: Rule,
    /// How many attempts it took.
    pub tries: u32,
    /// How long.
    pub took: Took,
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} serves in term {} after {}", self.rule.primary, self.rule.id.term, self.took)
    }
}

/// Nobody new serves. What was promised stays promised; anybody may begin above it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{stopped}; attempts: {tries}, in {took}{}", if *out_of_time { "; the time for it is up" } else { "" })]
pub struct Failed {
    /// Why the last attempt ended.
    pub stopped: Stopped,
    /// How many attempts there were.
    pub tries: u32,
    /// How long.
    pub took: Took,
    /// Whether there would have been another one, had it not been too late for that.
    pub out_of_time: bool,
}

/// Not done because it must not be as things are: an answer to whoever asked, and nothing that is wrong with the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody was recruited, and the primary was left alone.
    NothingChanged,
    /// Those who were recruited hold still until somebody begins above.
    MembersHoldStill,
}

impl Failed {
    /// Whether it was refused, and what that left.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        match self.stopped {
            Stopped::NotMissed { .. } => Some(Refusal::NothingChanged),
            Stopped::NotChosen { .. } => Some(Refusal::MembersHoldStill),
            Stopped::NotPromoted { .. } | Stopped::PromotionRefused { .. } | Stopped::NotOpened { .. } => {
                None
            }
        }
    }
}

impl NotSwitched {
    /// Whether it was refused, and what that left. A primary that was closed and opened again was tried.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Kept(Kept::NotACandidate { .. } | Kept::IsPrimary(_) | Kept::TooFarBehind { .. }) => {
                Some(Refusal::NothingChanged)
            }
            Self::Kept(Kept::NotClosed { .. } | Kept::NotDrained { .. }) | Self::NotReopened(_) => None,
            Self::Failed(failed) => failed.refusal(),
        }
    }
}

/// Why a switchover did not end with another primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NotSwitched {
    /// Nobody was recruited.
    #[error("the primary serves as before: {0}")]
    Kept(Kept),
    /// Nobody was recruited, and the primary was not heard when it was told to open again.
    #[error("{0}; the primary does not answer, and opens by itself when its hold runs out")]
    NotReopened(Kept),
    /// Members were recruited, and nobody serves: whoever fails over now goes on above.
    #[error("members were recruited, and {0}")]
    Failed(Box<Failed>),
}

/// Carries out decisions. Holds whatever a core must not have: members to talk to, a clock, chance, and an audience.
pub struct Driver {
    members: Arc<dyn Members>,
    clock: Box<dyn Fn() -> Tick + Send + Sync>,
    random: Box<dyn FnMut() -> u128 + Send>,
    progress: Box<dyn FnMut(&str) + Send>,
    loose: TaskTracker,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// What happened.
enum Event {
    Heard(Member, Option<Answer>),
    Time,
    Look,
}

impl Driver {
    /// `clock` is monotonic and goes with tokio's time; `random` draws 128 bits; `progress` is told each phase as text.
    #[must_use]
    pub fn new(
        members: Arc<dyn Members>,
        clock: Box<dyn Fn() -> Tick + Send + Sync>,
        random: Box<dyn FnMut() -> u128 + Send>,
        progress: Box<dyn FnMut(&str) + Send>,
    ) -> Self {
        Self { members, clock, random, progress, loose: TaskTracker::new() }
    }

    /// Runs a failover, and up to `tries.most` attempts in all.
    ///
    /// # Errors
    /// [`Failed`], with the reason of the last attempt.
    pub async fn failover(
        &mut self,
        order: failover::Order,
        pace: failover::Pace,
        tries: Tries,
    ) -> Result<Opened, Failed> {
        let mut took = Took::default();
        let end = self.attempt(&order, pace, &mut took).await;
        self.go_on(order, pace, tries, end, took).await
    }

    /// Runs a switchover. Once members were recruited it goes on as a failover that prefers the candidate's zone.
    ///
    /// # Errors
    /// [`NotSwitched`].
    pub async fn switchover(
        &mut self,
        order: switchover::Order,
        pace: switchover::Pace,
        tries: Tries,
    ) -> Result<Opened, NotSwitched> {
        let mut took = Took::default();
        let (switchover, requests) = Switchover::begin(order.clone(), pace, (self.clock)());
        let course =
            self.run(Course::Switchover(Box::new(switchover)), requests, order.attempt, &mut took).await;
        let end = match course {
            Course::Switchover(switchover) => switchover.end().cloned(),
            Course::Failover(_) => None,
        };
        match end.expect("it ran to its end") {
            switchover::End::Kept(kept) => Err(NotSwitched::Kept(kept)),
            switchover::End::NotReopened(kept) => Err(NotSwitched::NotReopened(kept)),
            switchover::End::Failover(end) => {
                let opened = self.go_on(order.handing_over(), pace.failover, tries, *end, took).await;
                opened.map_err(|failed| NotSwitched::Failed(Box::new(failed)))
            }
        }
    }

    /// Waits for what nobody waited for: a certificate to be kept, a last member to be told whom to follow.
    pub async fn rest(self) {
        self.loose.close();
        self.loose.wait().await;
    }

    /// Tries again after `end` for as long as that may help.
    async fn go_on(
        &mut self,
        mut order: failover::Order,
        pace: failover::Pace,
        tries: Tries,
        mut end: failover::End<Position>,
        mut took: Took,
    ) -> Result<Opened, Failed> {
        let mut tried = 1;
        loop {
            let stopped = match end {
                failover::End::Opened { certificate, rule } => {
                    return Ok(Opened { certificate: *certificate, rule, tries: tried, took });
                }
                failover::End::Stopped(stopped) => stopped,
            };
            let Some(next) = self.next_attempt(&order, &stopped).filter(|_| tried < tries.most) else {
                return Err(Failed { stopped, tries: tried, took, out_of_time: false });
            };
            let pause = tries.pause(tried, (self.random)());
            if order.until.is_some_and(|until| (self.clock)().after_millis(whole_ms(pause)) >= until) {
                return Err(Failed { stopped, tries: tried, took, out_of_time: true });
            }
            tried += 1;
            let (term, of, ms) = (next.term, tries.most, pause.as_millis());
            (self.progress)(&format!("{stopped}; trying term {term} in {ms} ms, attempt {tried} of {of}"));
            let since = (self.clock)();
            tokio::time::sleep(pause).await;
            took.pause_ms = took.pause_ms.saturating_add((self.clock)().millis_since(since));
            order.attempt = next;
            end = self.attempt(&order, pace, &mut took).await;
        }
    }

    /// What to try after an attempt that ended so; none when trying again would not help, or might harm.
    fn next_attempt(&mut self, order: &failover::Order, stopped: &Stopped) -> Option<Attempt> {
        if order.without_votes && another_has_begun(order, stopped) {
            return None;
        }
        let own = order.attempt.term.next()?;
        let term = match stopped {
            Stopped::NotPromoted { .. } => own,
            Stopped::PromotionRefused { .. }
            | Stopped::NotChosen { .. }
            | Stopped::NotMissed { .. }
            | Stopped::NotOpened { .. } => failover::above(stopped)?.max(own),
        };
        Some(Attempt { term, id: (self.random)() })
    }

    async fn attempt(
        &mut self,
        order: &failover::Order,
        pace: failover::Pace,
        took: &mut Took,
    ) -> failover::End<Position> {
        let (failover, requests) = Failover::begin(order.clone(), pace, (self.clock)());
        let requests = requests.into_iter().map(Request::Failover).collect();
        let end = match self.run(Course::Failover(Box::new(failover)), requests, order.attempt, took).await {
            Course::Failover(failover) => failover.end().cloned(),
            Course::Switchover(_) => None,
        };
        end.expect("it ran to its end")
    }

    /// Runs `course` to its end and gives it back.
    async fn run(
        &mut self,
        mut course: Course,
        first: Vec<Request>,
        attempt: Attempt,
        took: &mut Took,
    ) -> Course {
        let mut carrying = Carrying::new(Arc::clone(&self.members), attempt, self.loose.clone());
        let mut looks = tokio::time::interval(GATE_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut stage, mut since) = (course.stage(), (self.clock)());
        (self.progress)(&told(stage, attempt));
        carrying.carry(first);
        while !course.has_ended() {
            // A tick that is due changes something; the least wait is for one that a bug would have due for ever.
            let patience = Duration::from_millis(course.wake_at().millis_since((self.clock)()).max(1));
            let event = tokio::select! {
                biased;
                Some((from, answer)) = carrying.heard() => Event::Heard(from, answer), // cancel-safe
                _ = looks.tick(), if course.gate_of().is_some() => Event::Look, // cancel-safe
                () = tokio::time::sleep(patience) => Event::Time, // cancel-safe
            };
            let now = (self.clock)();
            let requests = match event {
                Event::Heard(from, Some(answer)) => course.heard(&from, answer, now),
                Event::Heard(_, None) => vec![],
                Event::Time => course.tick(now),
                Event::Look => {
                    course.gate_of().into_iter().for_each(|member| carrying.look_at_gate(member));
                    vec![]
                }
            };
            if course.stage() != stage
                && let Some(done) = done(course.stage())
            {
                debug!(target: step::TARGET, step = done.name());
            }
            carrying.carry(requests);
            if course.stage() != stage {
                took.add(stage, now.millis_since(since));
                (stage, since) = (course.stage(), now);
                (self.progress)(&told(stage, attempt));
            }
        }
        course
    }
}

fn whole_ms(pause: Duration) -> u64 {
    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a refusal tells of a reign that is newer than the one that is to be ended.
fn another_has_begun(order: &failover::Order, stopped: &Stopped) -> bool {
    let begun = |refused: &Refused| match refused {
        Refused::Begun { rule, .. } => rule.term > order.rule.id.term,
        Refused::Promised { .. } | Refused::OtherAttempt { .. } | Refused::NotRecruited { .. } => false,
    };
    match stopped {
        Stopped::PromotionRefused { refused, .. } => begun(refused),
        Stopped::NotChosen { refusals, .. } => refusals.iter().any(|(_, refused)| begun(refused)),
        Stopped::NotMissed { .. } | Stopped::NotPromoted { .. } | Stopped::NotOpened { .. } => false,
    }
}

/// What is done when a stage begins.
const fn done(stage: Stage) -> Option<Step> {
    use failover::Stage as Forward;
    match stage {
        Stage::Nearing | Stage::Reopening | Stage::HandingOver(Forward::Voting) => None,
        Stage::Closing => Some(coordinate::NEAR),
        Stage::Draining => Some(coordinate::CLOSED),
        Stage::HandingOver(Forward::Recruiting) => Some(coordinate::AGREED),
        Stage::HandingOver(Forward::Promoting) => Some(coordinate::CHOSEN),
        Stage::HandingOver(Forward::Opening) => Some(coordinate::BEGUN),
        Stage::HandingOver(Forward::Ended) | Stage::Ended => Some(coordinate::ENDED),
    }
}

/// A phase in words.
fn told(stage: Stage, attempt: Attempt) -> String {
    use failover::Stage as Forward;
    let term = attempt.term;
    match stage {
        Stage::Nearing => "waiting for the candidate to come near".to_owned(),
        Stage::Closing => "closing the primary".to_owned(),
        Stage::Draining => "sending the rest of the log to the candidate".to_owned(),
        Stage::Reopening => "opening the primary again".to_owned(),
        Stage::HandingOver(Forward::Voting) => "asking who else misses the primary".to_owned(),
        Stage::HandingOver(Forward::Recruiting) => format!("recruiting for term {term}"),
        Stage::HandingOver(Forward::Promoting) => format!("promoting in term {term}"),
        Stage::HandingOver(Forward::Opening) => format!("waiting for the gate to open in term {term}"),
        Stage::HandingOver(Forward::Ended) | Stage::Ended => "over".to_owned(),
    }
}
