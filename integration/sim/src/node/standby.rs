//! A server in recovery: whom it follows, and holding still for whoever recruits it. Mirrors
//! `agent/src/gate_loop/standby.rs`.

use holdfast_model::peer::Part;
use holdfast_model::{Member, RuleId, Term, Tick};
use holdfast_replication::chain::{self, Held};

use super::writer::Writer;
use super::{Agent, FollowOrder, GateOrders, GateReport, Upstream};
use crate::engine::{Recruited, Refused, name};
use crate::log::position;
use crate::world::World;

/// What is known about a server in recovery.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standby {
    received: Option<(usize, Tick)>,
    floor: Option<(Member, Term)>,
    state: State,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Unknown,
    Still(Recruited),
    Follows {
        primary: Member,
        upstream: Upstream,
        seen: bool,
    },
    Diverged {
        from: Member,
        why: String,
    },
}

/// What a recruited server has.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) rules: Vec<holdfast_model::Rule>,
    pub(crate) position: usize,
}

type Orders<'a> = (&'a GateOrders, u64);

impl Standby {
    pub(crate) fn of_new_process(&self) -> Self {
        Self { floor: self.floor.clone(), received: None, state: State::Unknown }
    }

    pub(crate) fn received(&self) -> Option<Tick> {
        self.received.map(|(_, at)| at)
    }

    pub(crate) fn read_in(&self, part: &Part) -> Option<Term> {
        match (&self.state, part) {
            (State::Follows { upstream, .. }, Part::Follows { streaming: true, .. }) => Some(upstream.term),
            (State::Follows { .. } | State::Unknown | State::Still(_) | State::Diverged { .. }, _) => None,
        }
    }

    fn permitted<'a>(&self, orders: &'a GateOrders) -> Option<&'a FollowOrder> {
        let membership = orders.member.as_ref()?;
        let (promise, order) = (membership.promise.as_ref()?, orders.follow.as_ref()?);
        let floor = self.floor_of(&membership.member).max(Some(promise.max_term));
        (floor <= Some(order.upstream.term)).then_some(order)
    }

    fn floor_of(&self, member: &Member) -> Option<Term> {
        self.floor.as_ref().filter(|(recruited, _)| recruited == member).map(|(_, term)| *term)
    }
}

impl World {
    pub(super) fn stand_by(
        &mut self,
        n: usize,
        agent: &mut Agent,
        orders: Orders<'_>,
        report: &mut GateReport,
    ) {
        report.rule = self.log(n).and_then(|log| log.newest_rule().cloned());
        // A call that failed is repeated by the next turn.
        self.move_on(n, agent, orders).unwrap_or_default();
        report.part = self.standby_part(n, agent, orders, report.rule.as_ref().map(|rule| rule.id));
    }

    fn move_on(&mut self, n: usize, agent: &mut Agent, orders: Orders<'_>) -> Result<(), Refused> {
        let (told, process) = orders;
        let Some(membership) = &told.member else { return Ok(()) };
        let order = agent.standby.permitted(told).cloned();
        match (&agent.standby.state, order) {
            (State::Follows { upstream, seen, .. }, Some(order)) if *upstream == order.upstream => {
                if *seen {
                    Ok(())
                } else {
                    self.point_at(n, agent, process, &order)
                }
            }
            (State::Diverged { from, .. }, Some(order)) if *from == order.primary => Ok(()),
            (State::Unknown, Some(order)) => {
                let upstream = &order.upstream;
                if self.following(n, process, (upstream.node, &upstream.member)).is_some() {
                    let (primary, upstream) = (order.primary, order.upstream);
                    agent.standby.state = State::Follows { primary, upstream, seen: true };
                    return Ok(());
                }
                self.hold_still(n, agent, process)?;
                self.attach_to(n, agent, orders)
            }
            (State::Follows { .. } | State::Diverged { .. }, Some(_)) => {
                self.hold_still(n, agent, process)?;
                self.attach_to(n, agent, orders)
            }
            (State::Still(_), Some(_)) => self.attach_to(n, agent, orders),
            (State::Follows { upstream, .. }, None)
                if membership.promise.as_ref().is_some_and(|promise| promise.max_term > upstream.term) =>
            {
                self.hold_still(n, agent, process)
            }
            (State::Unknown, None) if !told.fresh => self.hold_still(n, agent, process),
            (State::Unknown | State::Follows { .. } | State::Still(_) | State::Diverged { .. }, None) => {
                Ok(())
            }
        }
    }

    fn hold_still(&mut self, n: usize, agent: &mut Agent, process: u64) -> Result<(), Refused> {
        let recruited = self.recruit_standby(n, process)?;
        agent.standby.state = State::Still(recruited);
        Ok(())
    }

    /// Follows, if the log allows it.
    fn attach_to(&mut self, n: usize, agent: &mut Agent, orders: Orders<'_>) -> Result<(), Refused> {
        let Some(order) = agent.standby.permitted(orders.0).cloned() else { return Ok(()) };
        let State::Still(recruited) = agent.standby.state else { return Ok(()) };
        let held =
            Held { rule: recruited.rule, reign: recruited.timeline, end: position(recruited.position) };
        if let Err(diverged) = chain::may_follow(&held, &order.chain) {
            self.say(|| format!("{} has left the chain of {}: {diverged}", name(n), order.primary.node));
            self.counts.one("log left the chain");
            agent.standby.state = State::Diverged { from: order.primary, why: diverged.to_string() };
            return Ok(());
        }
        self.point_at(n, agent, orders.1, &order)
    }

    fn point_at(
        &mut self,
        n: usize,
        agent: &mut Agent,
        process: u64,
        order: &FollowOrder,
    ) -> Result<(), Refused> {
        let (primary, upstream) = (order.primary.clone(), order.upstream.clone());
        let to = (upstream.node, upstream.member.clone());
        if self.point_standby(n, process, (to.0, &to.1)).is_err() {
            agent.standby.state = State::Unknown;
            return Err(Refused);
        }
        let seen = self.following(n, process, (to.0, &to.1));
        let seen = seen.is_some_and(|following| following.timeline == upstream.term);
        agent.standby.state = State::Follows { primary, upstream, seen };
        Ok(())
    }

    fn standby_part(&self, n: usize, agent: &mut Agent, orders: Orders<'_>, rule: Option<RuleId>) -> Part {
        let promised = orders.0.member.as_ref().and_then(|membership| membership.promise.as_ref());
        let recruited = promised
            .map(|promise| promise.max_term)
            .filter(|promised| rule.is_some_and(|rule| rule.term < *promised));
        match &agent.standby.state {
            State::Follows { primary, upstream, .. } => {
                let (primary, upstream) = (primary.clone(), upstream.clone());
                let following = self.following(n, orders.1, (upstream.node, &upstream.member));
                if let Some(following) = following
                    && agent.standby.received.is_none_or(|(before, _)| before != following.flushed)
                {
                    agent.standby.received = Some((following.flushed, self.now));
                }
                let streaming = following.is_some_and(|following| following.timeline == upstream.term);
                Part::Follows { primary, streaming }
            }
            State::Diverged { why, .. } => Part::Diverged { why: why.clone() },
            State::Still(_) | State::Unknown => match (recruited, agent.standby.permitted(orders.0)) {
                (Some(term), None) => Part::Recruited { term },
                (_, Some(_)) | (None, None) => Part::Waits { why: String::new() },
            },
        }
    }

    /// Recruits the server for a term that is promised.
    pub(super) fn recruit(&mut self, n: usize, agent: &mut Agent, term: Term) -> Result<Standing, Refused> {
        let member =
            agent.orders.member.as_ref().map(|membership| membership.member.clone()).ok_or(Refused)?;
        let floor = agent.standby.floor_of(&member).map_or(term, |floor| floor.max(term));
        agent.standby.floor = Some((member, floor));
        let process = agent.orders.process.ok_or(Refused)?;
        if !matches!(agent.standby.state, State::Still(_)) {
            self.hold_still(n, agent, process)?;
        }
        let State::Still(recruited) = agent.standby.state else { return Err(Refused) };
        self.process(n).filter(|server| server.id == process).ok_or(Refused)?;
        let rules = self.log(n).ok_or(Refused)?.newest_rules();
        Ok(Standing { rules, position: recruited.position })
    }

    /// Begins a term on a server that was recruited for it. Its marker is written by the next turn.
    pub(super) fn promote(&mut self, n: usize, agent: &mut Agent, term: Term) -> Result<(), Refused> {
        let process = agent.orders.process.ok_or(Refused)?;
        let status = self.status(n, process).ok_or(Refused)?;
        if status.recovers && !matches!(agent.standby.state, State::Still(_)) {
            return Err(Refused);
        }
        self.promote_standby(n, process, term)?;
        if status.recovers {
            agent.writer = Writer::promoted();
            agent.standby.state = State::Unknown;
        }
        Ok(())
    }
}
