//! A server in recovery: whom it follows, and holding still for whoever recruits it.
//!
//! Whether it may follow is judged by its own log, which is read only when it receives nothing: so it is recruited before
//! each change of its upstream. What it was told of another's chain decides, never what it was told about itself.
//!
//! Invariants, each a test in `tests`:
//! * `a_diverged_member_does_not_follow` (I13).
//! * `nobody_is_followed_below_a_recruit` (I3).
//! * `a_stream_that_an_earlier_agent_began_goes_on`.
//! * `a_follow_that_broke_is_asked_for_again`.
//! * `another_incarnation_is_not_bound_by_a_recruit`, and `a_recruit_is_not_answered_by_another_incarnation` (I7).
//! * `a_server_that_replays_what_may_be_given_up_is_not_recruited`.
//! * `a_follower_keeps_log_that_is_not_shipped`.

use std::time::Duration;

use holdfast_engine::engine::{Engine, EngineError, Retry};
use holdfast_engine::links::Upstream;
use holdfast_engine::standing::Recruited;
use holdfast_model::peer::Part;
use holdfast_model::step;
use holdfast_model::{Member, Position, Term};
use holdfast_replication::chain::{self, Held};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::GateLoop;
use super::orders::{FollowOrder, GateOrders, GateReport, Standing};
use super::writer::Writer;
use crate::chain::Chain;
use crate::data::Tail;

/// For the receiver to be gone and all of what it received to be applied.
const RECRUIT_DEADLINE: Duration = Duration::from_secs(8);
const PROMOTE_DEADLINE: Duration = Duration::from_secs(10);
/// To be seen streaming; later it is looked at each turn.
const FOLLOW_DEADLINE: Duration = Duration::from_millis(500);

/// What is known about a server in recovery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Standby {
    /// How far log was received, and since when it is no further.
    received: Option<(Position, Instant)>,
    /// Nothing below is followed: the highest term that it was recruited for, as this member. A lost disk takes it along, as
    /// it does the promise.
    floor: Option<(Member, Term)>,
    /// From where on this process was told to keep its log.
    keeps_from: Option<Position>,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum State {
    /// Not looked at: an earlier agent may have left it following.
    #[default]
    Unknown,
    /// It receives nothing; this is all that it has.
    Still(Recruited),
    /// It is to be pointed at this one, and goes on trying by itself once that was `seen` to be in force.
    Follows { primary: Member, upstream: Upstream, seen: bool },
    /// Its log is none of this primary's.
    Diverged { from: Member, why: String, tail: Tail },
}

impl Standby {
    /// What remains when the server was started again.
    pub(super) fn of_new_process(&self) -> Self {
        Self { floor: self.floor.clone(), received: None, keeps_from: None, state: State::Unknown }
    }

    fn note_received(&mut self, flushed: Option<Position>) {
        if let Some(flushed) = flushed
            && self.received.as_ref().is_none_or(|(before, _)| *before != flushed)
        {
            self.received = Some((flushed, Instant::now()));
        }
    }

    /// When log was last seen to come in.
    pub(super) fn received(&self) -> Option<Instant> {
        self.received.as_ref().map(|(_, at)| *at)
    }

    /// What it has beyond the chain.
    pub(super) const fn tail(&self) -> Option<&Tail> {
        match &self.state {
            State::Diverged { tail, .. } => Some(tail),
            State::Unknown | State::Still(_) | State::Follows { .. } => None,
        }
    }

    /// The reign that clients may read here.
    pub(super) fn read_in(&self, part: &Part) -> Option<Term> {
        match (&self.state, part) {
            (State::Follows { upstream, .. }, Part::Follows { streaming: true, .. }) => Some(upstream.term),
            (
                State::Follows { .. } | State::Unknown | State::Still(_) | State::Diverged { .. },
                Part::None
                | Part::Writes { .. }
                | Part::Follows { .. }
                | Part::Recruited { .. }
                | Part::Waits { .. }
                | Part::Rewinds { .. }
                | Part::Diverged { .. },
            ) => None,
        }
    }

    /// The order, if nothing that was promised forbids it.
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

impl<E: Engine> GateLoop<E> {
    pub(super) async fn stand_by(
        &mut self,
        orders: &GateOrders,
        report: &mut GateReport,
    ) -> Result<(), EngineError> {
        report.rule = self.engine.newest_rules().await?.into_iter().next();
        let moved = self.move_on(orders).await;
        report.part = self.part(orders, report).await;
        moved?;
        self.keep_log(orders).await
    }

    /// Until it is shipped, also while it follows nobody.
    async fn keep_log(&mut self, orders: &GateOrders) -> Result<(), EngineError> {
        let Some(from) = orders.keep_log.as_ref() else { return Ok(()) };
        if self.standby.keeps_from.as_ref() != Some(from) {
            self.engine.keep_log(from).await?;
            self.standby.keeps_from = Some(from.clone());
        }
        Ok(())
    }

    /// Brings the state one step nearer to the order.
    async fn move_on(&mut self, orders: &GateOrders) -> Result<(), EngineError> {
        // Until its volume is known nobody knows what it has promised.
        let Some(membership) = &orders.member else { return Ok(()) };
        let order = self.standby.permitted(orders);
        match (&self.standby.state, order) {
            (State::Follows { upstream, seen: true, .. }, Some(order)) if *upstream == order.upstream => {
                Ok(())
            }
            // Judged already, and it has received from nobody else since.
            (State::Follows { upstream, seen: false, .. }, Some(order)) if *upstream == order.upstream => {
                self.point_at(order.clone()).await
            }
            (State::Diverged { from, .. }, Some(order)) if *from == order.primary => Ok(()),
            (State::Unknown, Some(order)) => {
                if self.engine.following(&order.upstream).await?.is_some() {
                    let (primary, upstream) = (order.primary.clone(), order.upstream.clone());
                    self.standby.state = State::Follows { primary, upstream, seen: true };
                    return Ok(());
                }
                self.hold_still(orders).await?;
                self.attach(orders).await
            }
            (State::Follows { .. } | State::Diverged { .. }, Some(_)) => {
                self.hold_still(orders).await?;
                self.attach(orders).await
            }
            (State::Still(_), Some(_)) => self.attach(orders).await,
            // Promised, and perhaps not heard of: it must not ack any more, whether or not anybody asks again.
            (State::Follows { upstream, .. }, None)
                if membership.promise.as_ref().is_some_and(|promise| promise.max_term > upstream.term) =>
            {
                self.hold_still(orders).await
            }
            (State::Unknown, None) if !orders.fresh => self.hold_still(orders).await,
            (State::Unknown | State::Follows { .. } | State::Still(_) | State::Diverged { .. }, None) => {
                Ok(())
            }
        }
    }

    async fn hold_still(&mut self, orders: &GateOrders) -> Result<(), EngineError> {
        let process = orders.process.ok_or(EngineError::Order("recruit: no engine runs"))?;
        let hands = self.hands.of(process);
        let recruited = self.engine.recruit(&*hands, RECRUIT_DEADLINE).await?;
        debug!(position = %recruited.position, "standby holds still");
        self.standby.state = State::Still(recruited);
        Ok(())
    }

    /// Follows, if the log allows it.
    async fn attach(&mut self, orders: &GateOrders) -> Result<(), EngineError> {
        let Some(order) = self.standby.permitted(orders).cloned() else { return Ok(()) };
        let State::Still(recruited) = &self.standby.state else { return Ok(()) };
        let held = Held {
            rule: recruited.rule.as_ref().map(|rule| rule.id),
            reign: recruited.term,
            end: recruited.position.clone(),
        };
        if let Err(diverged) = chain::may_follow(&held, &order.chain) {
            warn!(primary = %order.primary, why = %diverged, "this member's log is none of the primary's");
            let why = diverged.to_string();
            let left = chain::left_by(held.reign, &order.chain).map_or(&held.end, |rule| &rule.start);
            let start = if held.end <= *left { &held.end } else { left }.clone();
            let tail = Tail { term: held.reign, start, end: held.end };
            self.standby.state = State::Diverged { from: order.primary, why, tail };
            return Ok(());
        }
        info!(primary = %order.primary, term = %order.upstream.term, "following");
        debug!(target: step::TARGET, step = step::follow::JUDGED.name());
        self.point_at(order).await
    }

    /// An upstream that is away is no error. Whether a call that failed was in force by then is not known: it is repeated.
    async fn point_at(&mut self, order: FollowOrder) -> Result<(), EngineError> {
        let upstream = order.upstream.clone();
        let mut follows = |seen| {
            let (primary, upstream) = (order.primary.clone(), order.upstream.clone());
            self.standby.state = State::Follows { primary, upstream, seen };
        };
        follows(false);
        match self.engine.follow(&upstream, FOLLOW_DEADLINE).await {
            Ok(_) => {
                follows(true);
                Ok(())
            }
            Err(err) if err.retry() == Retry::Backoff => Ok(()),
            Err(err) => {
                self.standby.state = State::Unknown;
                Err(err)
            }
        }
    }

    async fn part(&mut self, orders: &GateOrders, report: &GateReport) -> Part {
        let promised = orders.member.as_ref().and_then(|membership| membership.promise.as_ref());
        let recruited = promised
            .map(|promise| promise.max_term)
            .filter(|promised| report.rule.as_ref().is_some_and(|rule| rule.id.term < *promised));
        match &self.standby.state {
            State::Follows { primary, upstream, .. } => {
                let (primary, upstream) = (primary.clone(), upstream.clone());
                let following = self.engine.following(&upstream).await.ok().flatten();
                let streaming = following.as_ref().is_some_and(|following| following.term == upstream.term);
                self.standby.note_received(following.and_then(|following| following.flushed));
                Part::Follows { primary, streaming }
            }
            State::Diverged { why, .. } => Part::Diverged { why: why.clone() },
            State::Still(_) | State::Unknown => match (recruited, self.standby.permitted(orders)) {
                (Some(term), None) => Part::Recruited { term },
                (_, Some(order)) => Part::Waits { why: format!("about to follow {}", order.primary) },
                (None, None) => Part::Waits { why: "no primary was heard of".to_owned() },
            },
        }
    }

    /// Recruits the server of `member` for a term that it promised. Its disk may have been replaced since: then the log that
    /// is here now is none that it ever acked (I7).
    pub(super) async fn recruit(
        &mut self,
        member: Member,
        term: Term,
        orders: &GateOrders,
    ) -> Result<Standing, EngineError> {
        is_still(&member, orders)?;
        let floor = self.standby.floor_of(&member).map_or(term, |floor| floor.max(term));
        self.standby.floor = Some((member, floor));
        let position = match &self.standby.state {
            State::Still(recruited) => recruited.position.clone(),
            State::Unknown | State::Follows { .. } | State::Diverged { .. } => {
                self.hold_still(orders).await?;
                let State::Still(recruited) = &self.standby.state else {
                    return Err(EngineError::Order("recruit: it does not hold still"));
                };
                recruited.position.clone()
            }
        };
        // It receives nothing, so these are as old as the position.
        let rules = self.engine.newest_rules().await?;
        Ok(Standing { rules, position })
    }

    /// Begins a term on a server that was recruited for it. Its marker is written by the next turn.
    pub(super) async fn promote(
        &mut self,
        member: &Member,
        term: Term,
        orders: &GateOrders,
    ) -> Result<(), EngineError> {
        is_still(member, orders)?;
        let process = orders.process.ok_or(EngineError::Order("promote: no engine runs"))?;
        let status = self.engine.status().await?;
        if status.in_recovery && !matches!(self.standby.state, State::Still(_)) {
            return Err(EngineError::Order("promote: it was not recruited in this life of its agent"));
        }
        let hands = self.hands.of(process);
        let promoted = self.engine.promote(&*hands, term, PROMOTE_DEADLINE).await;
        match promoted {
            Ok(promoted) => {
                info!(%term, from = %promoted.from, start = %promoted.start, "promoted");
                if status.in_recovery {
                    self.writer = Writer::new();
                    self.standby.state = State::Unknown;
                }
                Ok(())
            }
            Err(err) => {
                warn!(%term, error = %Chain(&err), "not promoted");
                Err(err)
            }
        }
    }
}

/// Whether the volume that the orders are about is still that member's, and what runs is its data: a copy, or a base, whose
/// server replays may still be given up.
fn is_still(member: &Member, orders: &GateOrders) -> Result<(), EngineError> {
    match &orders.member {
        Some(_) if orders.replays => {
            Err(EngineError::Order("its server replays what is none of its data yet"))
        }
        Some(membership) if membership.member == *member => Ok(()),
        Some(_) => Err(EngineError::Order("another member's volume is there by now")),
        None => Err(EngineError::Order("no volume is known")),
    }
}
