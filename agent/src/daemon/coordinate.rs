//! What this node coordinates for others: another primary, other members. The decisions are `holdfast_orchestrator`'s, and
//! the safety is each member's own.
//!
//! A coordinator that dies leaves promises and nothing else: whoever is asked next begins above them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use holdfast_model::peer::Part;
use holdfast_model::status::{NodeView, Operation, OperationKind, OperationState};
use holdfast_model::step;
use holdfast_model::{Member, NodeName, Position, Rule, Term, Vouch};
use holdfast_orchestrator::drive::{Driver, Failed, Members, NotSwitched, Refusal, Tries};
use holdfast_orchestrator::{failover, switchover};
use holdfast_replication::change::{self, Change};
use holdfast_replication::choose::Certificate;
use holdfast_replication::promise::Attempt;
use tracing::{debug, info};

use super::control::{failed, refused};
use super::vouched::note_outcome;
use crate::api::control::{CallError, ChangeMember, Failover, MemberChange, Reason, Switchover};
use crate::clock;
use crate::operations::Ticket;
use crate::peers::members::MemberLines;
use crate::peers::{Deadlines, PeerAddress, PeerClient};
use crate::reconcile::Node;

const HOLD_OUT_WITHIN: Duration = Duration::from_secs(5);
/// For a change of who votes: a new member first catches up.
const CHANGE_WITHIN: Duration = Duration::from_secs(300);

/// The newest rule that this node, or any peer that was ever heard, holds.
pub(super) fn newest_rule(view: &NodeView) -> Option<Rule> {
    let heard = view.peers.iter().filter_map(|peer| peer.said.as_ref()?.rule.as_ref());
    view.rule.iter().chain(heard).max_by_key(|rule| rule.id).cloned()
}

/// A term above everything that was heard of. Members refuse one that is not above what they promised, and say so.
fn next_attempt(view: &NodeView, rule: &Rule) -> Result<Attempt, CallError> {
    let promised = view.peers.iter().filter_map(|peer| peer.said.as_ref()?.promised);
    let own = view.promise.as_ref().map(|promise| promise.max_term);
    let highest = promised.chain(own).chain([rule.id.term]).max().unwrap_or(rule.id.term);
    let term = highest.next().ok_or_else(|| refused(Reason::EngineState, "terms are used up", "nothing"))?;
    Ok(Attempt { term, id: clock::random_bits() })
}

impl Node {
    fn known_rule(&self) -> Result<(Arc<NodeView>, Rule), CallError> {
        let view = Arc::clone(&self.view.borrow());
        let missing = "neither this node nor a peer that it heard holds a rule of the cluster";
        let rule = newest_rule(&view).ok_or_else(|| {
            refused(Reason::NoData, missing, "ask a node that has data: see 'holdfast status'")
        })?;
        Ok((view, rule))
    }

    /// One at a time: two attempts of one node would only take each other's terms.
    fn refuse_while_coordinating(&self) -> Result<(), CallError> {
        let busy = self.operations.list().into_iter().find(|operation| {
            matches!(operation.kind, OperationKind::Failover | OperationKind::Switchover)
                && matches!(operation.state, OperationState::Running { .. })
        });
        match busy {
            Some(busy) => {
                let resolve = format!("wait for it: 'holdfast operation watch {}'", busy.id);
                Err(refused(Reason::Busy, "this node coordinates another change of the primary", resolve))
            }
            None => Ok(()),
        }
    }

    /// Every member, this node's own included, as any other coordinator would reach them.
    fn members_of_cluster(&self, known: Term) -> Arc<dyn Members> {
        let config = &self.config;
        let own = PeerAddress {
            cluster: config.cluster.clone(),
            node: config.node.clone(),
            zone: config.zone.clone(),
            address: reachable(config.api.grpc),
        };
        let own = Arc::new(PeerClient::new(own, config.tls.clone(), Deadlines::default()));
        let shelf = self.shelf();
        let keep = move |certificate: Certificate<Position>| shelf.keep_certificate(certificate);
        let (lines, promises) = (self.peers.lines().chain([own]), self.peers.promises());
        Arc::new(MemberLines::new(config.cluster.clone(), lines, known, promises, Box::new(keep)))
    }

    fn driver(&self, known: Term, ticket: &Ticket) -> Driver {
        let (clock, told) = (self.clock, ticket.teller());
        let progress = move |phase: &str| {
            info!(phase, "coordinating");
            told.phase(phase);
        };
        Driver::new(
            self.members_of_cluster(known),
            Box::new(move || clock.now()),
            Box::new(clock::random_bits),
            Box::new(progress),
        )
    }

    /// Makes another member the primary.
    pub(super) async fn coordinate_failover(
        &self,
        request: Failover,
        by: &str,
    ) -> Result<Operation, CallError> {
        if let Some(begun) = self.operations.of_request(request.target.request.as_str()) {
            return Ok(begun);
        }
        self.refuse_while_coordinating()?;
        let (view, rule) = self.known_rule()?;
        let attempt = next_attempt(&view, &rule)?;
        let asked = request.target.request.as_str().to_owned();
        let vouch = request.vouched_until_unix_ms.map(|until_unix_ms| Vouch {
            by: by.to_owned(),
            why: request.why,
            primary: rule.primary.clone(),
            term: attempt.term,
            given_unix_ms: clock::unix_ms(),
            until_unix_ms,
            outcome: None,
        });
        let until = match vouch.clone() {
            Some(vouch) => Some(self.clock.now().after_millis(self.take_word(&asked, vouch)?)),
            None => None,
        };
        if let Some(vouch) = vouch.clone() {
            self.shelf().keep(attempt.term, format!("vouch-{:032x}", attempt.id), vouch);
        }
        let known = rule.id.term;
        let order =
            failover::Order { attempt, rule, prefer: request.prefer, without_votes: vouch.is_some(), until };
        let ticket = self.operations.begin(OperationKind::Failover, "beginning");
        self.operations.note_request(&asked, ticket.id());
        let id = ticket.id().to_owned();
        let mut driver = self.driver(known, &ticket);
        let ledger = self.ledger.clone();
        self.tasks.spawn(async move {
            let done = driver.failover(order, failover::Pace::default(), Tries::default()).await;
            match vouch {
                Some(Vouch { by, why, .. }) => {
                    let outcome = done.as_ref().map_or_else(ToString::to_string, ToString::to_string);
                    note_outcome(&ledger, &asked, &outcome);
                    let done =
                        done.map(|opened| format!("{opened}, without votes, on the word of {by}: {why}"));
                    end(ticket, done, Failed::refusal);
                }
                None => end(ticket, done, Failed::refusal),
            }
            driver.rest().await;
        });
        self.shown(|operation| operation.id == id).await
    }

    /// Holds a node out, or not any more; done when the rule says so. Only on the primary: the rule is its own.
    pub(super) async fn coordinate_change(&self, request: ChangeMember) -> Result<Operation, CallError> {
        if let Some(begun) = self.operations.of_request(request.target.request.as_str()) {
            return Ok(begun);
        }
        let (view, rule) = self.known_rule()?;
        if !matches!(view.part, Part::Writes { .. }) {
            let missing = format!("this node is not the primary, {} is", rule.primary);
            return Err(refused(Reason::WrongTarget, missing, format!("ask node {}", rule.primary.node)));
        }
        let out = match request.change {
            MemberChange::Remove => true,
            MemberChange::Admit => false,
        };
        refuse_change(&rule, &request.node, out)?;
        let held = self.gate_loop.hold_out(request.node.clone(), out, HOLD_OUT_WITHIN).await;
        held.map_err(|err| failed("remember who is held out", &err))?;
        debug!(target: step::TARGET, step = step::change::REMEMBERED.name());
        self.wake.notify_one();
        let ticket = self.operations.begin(OperationKind::ChangeMember, "waiting for the rule to say so");
        self.operations.note_request(request.target.request.as_str(), ticket.id());
        let (id, mut views) = (ticket.id().to_owned(), self.view.subscribe());
        self.tasks.spawn(async move {
            let said = |view: &Arc<NodeView>| {
                view.rule.as_ref().is_some_and(|rule| names(rule, &request.node) != out)
                    && matches!(&view.part, Part::Writes { change: None, .. })
            };
            match tokio::time::timeout(CHANGE_WITHIN, views.wait_for(said)).await {
                Ok(Ok(view)) => {
                    let rule = view.rule.as_ref().map(|rule| rule.id.to_string());
                    ticket.end(Ok(format!("rule {}", rule.unwrap_or_default())));
                }
                Ok(Err(_)) | Err(_) => ticket.end(Err(&NotChanged { node: request.node.clone() })),
            }
        });
        self.shown(|operation| operation.id == id).await
    }

    /// Makes the member of a named node the primary, while the primary serves.
    pub(super) async fn coordinate_switchover(&self, request: Switchover) -> Result<Operation, CallError> {
        if let Some(begun) = self.operations.of_request(request.target.request.as_str()) {
            return Ok(begun);
        }
        self.refuse_while_coordinating()?;
        let (view, rule) = self.known_rule()?;
        let attempt = next_attempt(&view, &rule)?;
        let candidate = voter_of(&rule, &request)?;
        let known = rule.id.term;
        let order = switchover::Order { attempt, rule, candidate };
        let ticket = self.operations.begin(OperationKind::Switchover, "beginning");
        self.operations.note_request(request.target.request.as_str(), ticket.id());
        let id = ticket.id().to_owned();
        let mut driver = self.driver(known, &ticket);
        self.tasks.spawn(async move {
            let done = driver.switchover(order, switchover::Pace::default(), Tries::default()).await;
            end(ticket, done, NotSwitched::refusal);
            driver.rest().await;
        });
        self.shown(|operation| operation.id == id).await
    }
}

fn end<E: std::error::Error + 'static>(
    ticket: Ticket,
    done: Result<impl ToString, E>,
    refusal: impl FnOnce(&E) -> Option<Refusal>,
) {
    match done {
        Ok(opened) => ticket.end(Ok(opened.to_string())),
        Err(err) => match refusal(&err) {
            Some(left) => ticket.refuse(&err, left),
            None => ticket.end(Err(&err)),
        },
    }
}

/// An address that is listened on, as one that can be called.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback =
            if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    address
}

fn names(rule: &Rule, node: &NodeName) -> bool {
    rule.voters.iter().any(|voter| voter.member.node == *node)
}

/// What the rule could not take now: said at once, and nothing is remembered.
fn refuse_change(rule: &Rule, node: &NodeName, out: bool) -> Result<(), CallError> {
    let Some(voter) = rule.voters.iter().find(|voter| voter.member.node == *node).filter(|_| out) else {
        return Ok(());
    };
    let change = Change::Remove(voter.member.clone());
    change::changed(rule, &change, rule.start.clone()).map(drop).map_err(|err| {
        refused(Reason::EngineState, err.to_string(), "see 'holdfast member list' and 'holdfast status'")
    })
}

/// The order stands; it is carried out when it can be.
#[derive(Debug, thiserror::Error)]
#[error(
    "the rule does not say so yet for {node} after {} s; the order stands: see 'holdfast status' for what it waits for",
    CHANGE_WITHIN.as_secs()
)]
struct NotChanged {
    node: NodeName,
}

fn voter_of(rule: &Rule, request: &Switchover) -> Result<Member, CallError> {
    let voter = rule.voters.iter().find(|voter| voter.member.node == request.to);
    voter.map(|voter| voter.member.clone()).ok_or_else(|| {
        let missing = format!("node {} is not a voter of rule {}", request.to, rule.id);
        refused(Reason::WrongTarget, missing, "see 'holdfast member list' for who is")
    })
}
