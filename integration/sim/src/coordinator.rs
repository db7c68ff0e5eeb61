//! Failovers and switchovers under way: the cores are `holdfast-orchestrator`'s; what carries their requests, repeats an attempt
//! and gives up a call that is not answered mirrors `orchestrator/src/drive` and `agent/src/daemon/coordinate.rs`.

use std::collections::BTreeMap;

use holdfast_model::status::NodeView;
use holdfast_model::{Member, Position, Rule, Term, Tick};
use holdfast_orchestrator::course::{Answer, Course, Request};
use holdfast_orchestrator::drive::Tries;
use holdfast_orchestrator::failover::{self, Declined, Failover, Stopped, Vote};
use holdfast_orchestrator::switchover::{self, Switchover};
use holdfast_replication::choose::{Certificate, Report};
use holdfast_replication::promise::{Attempt, Refused};

use crate::engine::name;
use crate::mutant::Mutant;
use crate::net::Body;
use crate::world::{Event, World};

const QUESTION_MS: u64 = 1_500;
const WORK_MS: u64 = 3_000;
const LOOK_MS: u64 = 250;

/// What a member is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    Vote(Member),
    Recruit(Attempt),
    Promote(Box<Certificate<Position>>),
    Follow,
    Near(Member),
    Close,
    Await(Position),
    Reopen,
    Gate,
}

/// What it answers.
#[derive(Debug, Clone)]
pub(crate) enum Answered {
    Vote(Vote),
    Recruited(Report<Position>),
    Promoted(Rule),
    Near(bool),
    Closed(Position),
    Holds,
    Reopened,
    Gate(Option<Term>),
    Declined(Declined),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Vote,
    Recruit,
    Promote,
    Follow,
    Gate,
    Near,
    Close,
    Await,
    Reopen,
}

struct Out {
    asked: Asked,
    to: Member,
    until: Tick,
}

/// One that is under way.
pub(crate) struct Coordinator {
    node: usize,
    course: Course,
    order: failover::Order,
    switches: bool,
    known: Term,
    tried: u32,
    /// Until the next attempt begins.
    pause: Option<Tick>,
    calls: BTreeMap<u64, Out>,
    look: Tick,
    due: Tick,
}

/// The newest rule that this node, or any peer that was ever heard, holds.
pub(crate) fn newest_rule(view: &NodeView) -> Option<&Rule> {
    let heard = view.peers.iter().filter_map(|peer| peer.said.as_ref()?.rule.as_ref());
    view.rule.iter().chain(heard).max_by_key(|rule| rule.id)
}

fn next_term(view: &NodeView, rule: &Rule) -> Option<Term> {
    let promised = view.peers.iter().filter_map(|peer| peer.said.as_ref()?.promised);
    let own = view.promise.as_ref().map(|promise| promise.max_term);
    promised.chain(own).chain([rule.id.term]).max()?.next()
}

impl World {
    /// An operator asks an agent for another primary; `to` names whom in peace.
    pub(crate) fn command(&mut self, n: usize, to: Option<usize>, without_votes: bool) {
        let Some(agent) = self.nodes[n].agent.as_ref().filter(|agent| agent.coordinator.is_none()) else {
            return;
        };
        let Some(rule) = newest_rule(&agent.view).cloned() else { return };
        let Some(term) = next_term(&agent.view, &rule) else { return };
        let attempt = Attempt { term, id: self.chance.bits() };
        let known = rule.id.term;
        let candidate =
            match to.map(|to| rule.voters.iter().find(|voter| voter.member.node == self.nodes[to].name)) {
                Some(None) => return,
                Some(Some(voter)) => Some(voter.member.clone()),
                None => None,
            };
        let order = failover::Order {
            attempt,
            rule: self.taken_for_all(rule),
            prefer: vec![],
            without_votes,
            until: None,
        };
        let (course, order, requests, switches) = match candidate {
            None => {
                let (course, requests) = Failover::begin(order.clone(), failover::Pace::default(), self.now);
                let requests = requests.into_iter().map(Request::Failover).collect();
                self.counts.one("failover commanded");
                (Course::Failover(Box::new(course)), order, requests, false)
            }
            Some(candidate) => {
                let planned = switchover::Order { attempt, rule: order.rule, candidate };
                let order = planned.handing_over();
                let (course, requests) = Switchover::begin(planned, switchover::Pace::default(), self.now);
                self.counts.one("switchover commanded");
                (Course::Switchover(Box::new(course)), order, requests, true)
            }
        };
        self.next_id += 1;
        let id = self.next_id;
        self.say(|| {
            format!(
                "{} coordinates {} to term {term}",
                name(n),
                if switches { "a switchover" } else { "a failover" }
            )
        });
        let now = self.now;
        let coordinator = Coordinator {
            node: n,
            course,
            order,
            switches,
            known,
            tried: 1,
            pause: None,
            calls: BTreeMap::new(),
            look: now,
            due: now,
        };
        if let Some(agent) = &mut self.nodes[n].agent {
            agent.coordinator = Some(id);
        }
        self.go_on(id, coordinator, requests);
    }

    /// The recruited are taken for all voters there are, if that is the shortcut.
    fn taken_for_all(&mut self, mut rule: Rule) -> Rule {
        if self.mutates(Mutant::WithoutU) && rule.voters.len() > 2 {
            let others: Vec<_> =
                rule.voters.iter().filter(|voter| voter.member != rule.primary).cloned().collect();
            let first = self.chance.index(others.len());
            rule.voters = (0..2).map(|at| others[(first + at) % others.len()].clone()).collect();
        }
        rule
    }

    pub(crate) fn coordinate(&mut self, id: u64) {
        let now = self.now;
        let Some(mut coordinator) = self.coordinators.remove(&id) else { return };
        if coordinator.due != now {
            self.coordinators.insert(id, coordinator);
            return;
        }
        if coordinator.pause.is_some_and(|until| until <= now) {
            coordinator.pause = None;
            let order = coordinator.order.clone();
            let (course, requests) = Failover::begin(order, failover::Pace::default(), now);
            coordinator.course = Course::Failover(Box::new(course));
            let requests = requests.into_iter().map(Request::Failover).collect();
            return self.go_on(id, coordinator, requests);
        }
        let mut requests = vec![];
        let late: Vec<u64> =
            coordinator.calls.iter().filter(|(_, out)| out.until <= now).map(|(call, _)| *call).collect();
        for call in late {
            let Some(out) = coordinator.calls.remove(&call) else { continue };
            if let Some(answer) = unanswered(out.asked) {
                requests.extend(coordinator.course.heard(&out.to, answer, now));
            }
        }
        requests.extend(coordinator.course.tick(now));
        self.go_on(id, coordinator, requests);
    }

    pub(crate) fn take_answer(&mut self, id: u64, call: u64, answered: Answered) {
        let Some(mut coordinator) = self.coordinators.remove(&id) else { return };
        let Some(out) = coordinator.calls.remove(&call) else {
            self.coordinators.insert(id, coordinator);
            return;
        };
        let answered = self.shortened(answered, &coordinator.order.rule);
        let answer = heard(out.asked, answered);
        let requests =
            answer.map(|answer| coordinator.course.heard(&out.to, answer, self.now)).unwrap_or_default();
        self.go_on(id, coordinator, requests);
    }

    /// A report as a shortcut would read it.
    fn shortened(&self, answered: Answered, rule: &Rule) -> Answered {
        let Answered::Recruited(mut report) = answered else { return answered };
        if self.mutates(Mutant::ChooseByLength) {
            report.rules = vec![rule.clone()];
        }
        if self.mutates(Mutant::WithoutU) {
            for of in &mut report.rules {
                of.voters.retain(|voter| rule.voters.contains(voter));
            }
        }
        Answered::Recruited(report)
    }

    /// Carries what is asked, begins again or ends, and comes back when something is due.
    fn go_on(&mut self, id: u64, mut coordinator: Coordinator, requests: Vec<Request>) {
        self.carry(id, &mut coordinator, requests);
        let now = self.now;
        if coordinator.pause.is_none() && coordinator.course.has_ended() && self.has_ended(&mut coordinator) {
            if let Some(agent) = &mut self.nodes[coordinator.node].agent {
                agent.coordinator = None;
            }
            return;
        }
        let looked = coordinator.course.gate_of().cloned().filter(|_| coordinator.pause.is_none());
        if let Some(member) = &looked
            && coordinator.look <= now
        {
            coordinator.look = now.after_millis(LOOK_MS);
            self.ask(id, &mut coordinator, (Asked::Gate, member), Ask::Gate, QUESTION_MS);
        }
        let mut due = coordinator.pause.unwrap_or_else(|| coordinator.course.wake_at());
        if coordinator.pause.is_none() {
            due = coordinator.calls.values().map(|out| out.until).fold(due, Tick::min);
            due = if looked.is_some() { due.min(coordinator.look) } else { due };
        }
        coordinator.due = due.max(now.after_millis(1));
        self.at(coordinator.due, Event::Coordinate { id });
        self.coordinators.insert(id, coordinator);
    }

    fn carry(&mut self, id: u64, coordinator: &mut Coordinator, requests: Vec<Request>) {
        use failover::Request as Forward;
        for request in requests {
            let (asked, to, ask, ms) = match request {
                Request::AskNear { to, candidate } => (Asked::Near, to, Ask::Near(candidate), QUESTION_MS),
                Request::Close { to } => (Asked::Close, to, Ask::Close, WORK_MS),
                Request::Await { to, position } => (Asked::Await, to, Ask::Await(position), WORK_MS),
                Request::Reopen { to } => {
                    coordinator.calls.retain(|_, out| out.asked != Asked::Close);
                    (Asked::Reopen, to, Ask::Reopen, QUESTION_MS)
                }
                Request::Failover(Forward::AskVote { to, primary }) => {
                    (Asked::Vote, to, Ask::Vote(primary), QUESTION_MS)
                }
                Request::Failover(Forward::Recruit { to, attempt }) => {
                    (Asked::Recruit, to, Ask::Recruit(attempt), WORK_MS)
                }
                Request::Failover(Forward::Promote { to, certificate }) => {
                    (Asked::Promote, to, Ask::Promote(certificate), WORK_MS)
                }
                Request::Failover(Forward::Follow { to, .. }) => (Asked::Follow, to, Ask::Follow, WORK_MS),
                Request::Failover(Forward::Keep { .. }) => {
                    self.counts.one("certificate kept");
                    continue;
                }
            };
            self.ask(id, coordinator, (asked, &to), ask, ms);
        }
    }

    fn ask(&mut self, id: u64, coordinator: &mut Coordinator, what: (Asked, &Member), ask: Ask, ms: u64) {
        let (asked, to) = what;
        if coordinator.calls.values().any(|out| out.asked == asked && out.to == *to) {
            return;
        }
        let Some(node) = self.node_of(to) else { return };
        self.next_id += 1;
        let call = self.next_id;
        let until = self.now.after_millis(ms);
        coordinator.calls.insert(call, Out { asked, to: to.clone(), until });
        let known = coordinator.known.max(coordinator.order.attempt.term);
        let known = match asked {
            Asked::Recruit | Asked::Promote | Asked::Follow => known,
            Asked::Vote | Asked::Gate | Asked::Near | Asked::Close | Asked::Await | Asked::Reopen => {
                coordinator.known
            }
        };
        let body = Body::Ask { coordinator: id, call, to: to.clone(), known, ask: Box::new(ask) };
        self.send(coordinator.node, node, body);
    }

    /// Whether it is over for good.
    fn has_ended(&mut self, coordinator: &mut Coordinator) -> bool {
        let end = match &coordinator.course {
            Course::Failover(course) => course.end().cloned(),
            Course::Switchover(course) => match course.end() {
                Some(switchover::End::Failover(end)) => Some((**end).clone()),
                Some(switchover::End::Kept(kept) | switchover::End::NotReopened(kept)) => {
                    self.say(|| format!("switchover given up: {kept}"));
                    self.counts.one("switchover given up");
                    return true;
                }
                None => None,
            },
        };
        let stopped = match end {
            None => return false,
            Some(failover::End::Opened { .. }) => {
                self.counts.one(if coordinator.switches { "switchover done" } else { "failover done" });
                return true;
            }
            Some(failover::End::Stopped(stopped)) => stopped,
        };
        self.say(|| format!("attempt ended: {stopped}"));
        self.counts.one(match &stopped {
            Stopped::NotMissed { .. } => "refused: primary not missed",
            Stopped::NotChosen { .. } => "refused: nobody chosen",
            Stopped::NotPromoted { .. } => "chosen member silent",
            Stopped::PromotionRefused { .. } => "refused: promotion",
            Stopped::NotOpened { .. } => "not opened",
        });
        let tries = Tries::default();
        let Some(term) =
            next_attempt(&coordinator.order, &stopped).filter(|_| coordinator.tried < tries.most)
        else {
            self.counts.one("coordinator gave up");
            return true;
        };
        let span = tries.pause_ms.saturating_mul(1 << (coordinator.tried - 1)).min(tries.pause_ms_max);
        coordinator.tried += 1;
        coordinator.pause = Some(self.now.after_millis(self.chance.below(span + 1)));
        coordinator.order.attempt = Attempt { term, id: self.chance.bits() };
        coordinator.calls.clear();
        false
    }
}

/// What to try after an attempt that ended so (`orchestrator/src/drive/mod.rs`).
fn next_attempt(order: &failover::Order, stopped: &Stopped) -> Option<Term> {
    let begun = |refused: &Refused| match refused {
        Refused::Begun { rule, .. } => rule.term > order.rule.id.term,
        Refused::Promised { .. } | Refused::OtherAttempt { .. } | Refused::NotRecruited { .. } => false,
    };
    let another = match stopped {
        Stopped::PromotionRefused { refused, .. } => begun(refused),
        Stopped::NotChosen { refusals, .. } => refusals.iter().any(|(_, refused)| begun(refused)),
        Stopped::NotMissed { .. } | Stopped::NotPromoted { .. } | Stopped::NotOpened { .. } => false,
    };
    if order.without_votes && another {
        return None;
    }
    let own = order.attempt.term.next()?;
    match stopped {
        Stopped::NotPromoted { .. } => Some(own),
        Stopped::PromotionRefused { .. }
        | Stopped::NotChosen { .. }
        | Stopped::NotMissed { .. }
        | Stopped::NotOpened { .. } => Some(failover::above(stopped)?.max(own)),
    }
}

/// What is heard when nothing is; nothing for what the cores have no word for.
fn unanswered(asked: Asked) -> Option<Answer> {
    let late = Declined::Unreachable { why: "late".to_owned() };
    heard(asked, Answered::Declined(late))
}

fn heard(asked: Asked, answered: Answered) -> Option<Answer> {
    use failover::Answer as Forward;
    match (asked, answered) {
        (Asked::Vote, Answered::Vote(vote)) => Some(Answer::Failover(Forward::Voted(vote))),
        (Asked::Recruit, Answered::Recruited(report)) => {
            Some(Answer::Failover(Forward::Recruited(Ok(report))))
        }
        (Asked::Recruit, Answered::Declined(declined)) => {
            Some(Answer::Failover(Forward::Recruited(Err(declined))))
        }
        (Asked::Promote, Answered::Promoted(rule)) => Some(Answer::Failover(Forward::Promoted(Ok(rule)))),
        (Asked::Promote, Answered::Declined(declined)) => {
            Some(Answer::Failover(Forward::Promoted(Err(declined))))
        }
        (Asked::Gate, Answered::Gate(Some(term))) => Some(Answer::Failover(Forward::Opened(term))),
        (Asked::Near, Answered::Near(near)) => Some(Answer::Near(near)),
        (Asked::Close, Answered::Closed(position)) => Some(Answer::Closed(Ok(position))),
        (Asked::Close, Answered::Declined(declined)) => Some(Answer::Closed(Err(declined))),
        (Asked::Await, Answered::Holds) => Some(Answer::Holds(Ok(()))),
        (Asked::Await, Answered::Declined(declined)) => Some(Answer::Holds(Err(declined))),
        (Asked::Reopen, Answered::Reopened) => Some(Answer::Reopened),
        (
            Asked::Vote
            | Asked::Recruit
            | Asked::Promote
            | Asked::Follow
            | Asked::Gate
            | Asked::Near
            | Asked::Close
            | Asked::Await
            | Asked::Reopen,
            _,
        ) => None,
    }
}
