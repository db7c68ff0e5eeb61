//! The other nodes of the cluster: asked about twice a second, which is also how it is noticed that one is gone.
//!
//! * [`client`]: calls to one of them. `dial`: a connection to it, once it has proven who it is.
//! * [`members`]: a coordinator's requests to all members.
//! * `promises`: who comes with less than it promised.
//!
//! Invariants, each a test below:
//! * `a_peer_that_falls_silent_keeps_what_it_said_and_grows_old`.
//! * `positions_alone_wake_nobody`.
//! * `a_peer_whose_promise_went_back_says_nothing`.
//!
//! Not here: what follows from it. See `holdfast_agent_decide::members`.

pub mod client;
mod dial;
pub mod members;
mod promises;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_model::peer::{Part, PeerSaid, PeerView};
use holdfast_model::status::{NodeView, VolumeView};
use holdfast_model::{ClusterName, Member, NodeName, Rule, Tick, Zone};
use holdfast_proto::convert::Wire as _;
use holdfast_proto::v1;
use holdfast_proto::v1::member_service_client::MemberServiceClient;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::chain::Chain;
use crate::clock::Clock;
use crate::config::{PeerConfig, TlsConfig};

pub use client::{Deadlines, PeerClient, PeerError};
pub use dial::PeerAddress;
pub use members::MemberLines;
pub use promises::{Promises, WentBack};

/// For all of a peer's rules.
const RULES_WITHIN: Duration = Duration::from_secs(3);
/// Between two questions to the same peer.
const EVERY: Duration = Duration::from_millis(500);

/// What is known of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    zone: Zone,
    heard: Option<Tick>,
    said: Option<PeerSaid>,
    failing: Option<String>,
}

/// The peers, and what they last said.
#[derive(Debug, Clone)]
pub struct Peers {
    clients: Arc<BTreeMap<NodeName, Arc<PeerClient>>>,
    promises: Arc<Promises>,
    known: watch::Receiver<BTreeMap<NodeName, Known>>,
}

/// Asks all peers until it is told to stop.
#[derive(Debug)]
pub struct Polling {
    clients: Arc<BTreeMap<NodeName, Arc<PeerClient>>>,
    promises: Arc<Promises>,
    known: watch::Sender<BTreeMap<NodeName, Known>>,
    clock: Clock,
}

impl Peers {
    /// None was heard yet.
    #[must_use]
    pub fn new(
        peers: &[PeerConfig],
        cluster: &ClusterName,
        files: &TlsConfig,
        clock: Clock,
    ) -> (Self, Polling) {
        let silent = |peer: &PeerConfig| {
            let known = Known { zone: peer.zone.clone(), heard: None, said: None, failing: None };
            (peer.node.clone(), known)
        };
        let (send, known) = watch::channel(peers.iter().map(silent).collect());
        let client = |peer: &PeerConfig| {
            let PeerConfig { node, zone, address, .. } = peer.clone();
            let address = PeerAddress { cluster: cluster.clone(), node: node.clone(), zone, address };
            (node, Arc::new(PeerClient::new(address, files.clone(), Deadlines::default())))
        };
        let clients: BTreeMap<_, _> = peers.iter().map(client).collect();
        let clients = Arc::new(clients);
        let promises = Arc::new(Promises::default());
        let peers = Self { clients: Arc::clone(&clients), promises: Arc::clone(&promises), known };
        (peers, Polling { clients, promises, known: send, clock })
    }

    /// What its members are known to have promised.
    #[must_use]
    pub fn promises(&self) -> Arc<Promises> {
        Arc::clone(&self.promises)
    }

    /// A line to each peer.
    pub fn lines(&self) -> impl Iterator<Item = Arc<PeerClient>> + '_ {
        self.clients.values().cloned()
    }

    /// Every peer as it looks at `now`.
    #[must_use]
    pub fn view(&self, now: Tick) -> Vec<PeerView> {
        let known = self.known.borrow();
        known
            .iter()
            .map(|(node, known)| PeerView {
                node: node.clone(),
                zone: known.zone.clone(),
                heard_ms: known.heard.map(|heard| now.millis_since(heard)),
                said: known.said.clone(),
                failing: known.failing.clone(),
            })
            .collect()
    }

    /// Told of everything but positions.
    #[must_use]
    pub fn changes(&self) -> PeersChanged {
        PeersChanged(self.known.clone())
    }

    /// Every rule in a peer's log.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn rules(&self, node: &NodeName) -> Result<Vec<Rule>, PeerError> {
        let unknown = || tonic::Status::not_found("no such peer is configured");
        let client = self
            .clients
            .get(node)
            .ok_or_else(|| PeerError::Status { node: node.clone(), status: Box::new(unknown()) })?;
        let answer = client.call(RULES_WITHIN, v1::GetRulesRequest {}, async |channel, request| {
            MemberServiceClient::new(channel).get_rules(request).await
        });
        let rules = answer.await?.rules;
        client.read(rules.into_iter().map(Rule::from_wire).collect())
    }
}

/// Waits for peers to say something else.
#[derive(Debug)]
pub struct PeersChanged(watch::Receiver<BTreeMap<NodeName, Known>>);

impl PeersChanged {
    /// The next change. Cancel-safe.
    ///
    /// # Errors
    /// When nobody asks them any more.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.0.changed().await
    }

    /// What there is was looked at.
    pub fn borrow_and_update(&mut self) {
        drop(self.0.borrow_and_update());
    }
}

impl Polling {
    /// Runs until cancelled. A peer that does not answer holds up nobody but itself.
    pub async fn run(self, cancel: CancellationToken) {
        let mut asking = JoinSet::new();
        let polling = Arc::new(self);
        for node in polling.clients.keys() {
            let (polling, node) = (Arc::clone(&polling), node.clone());
            asking.spawn(async move {
                let mut pace = tokio::time::interval(EVERY);
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    pace.tick().await;
                    let Some(client) = polling.clients.get(&node) else { return };
                    let answer = client.status().await;
                    polling.take(&node, answer.map(|view| said(&view)));
                }
            });
        }
        cancel.cancelled().await; // dropping the tasks ends them: a question that is cut off changes nothing
    }

    /// Who said this has promised more before. What it has log of it promised, and that was on its disk before.
    fn went_back(&self, said: &PeerSaid) -> Option<WentBack> {
        let member = said.member.as_ref()?;
        if let Some(rule) = said.rule.as_ref().filter(|rule| said.promised >= Some(rule.id.term)) {
            self.promises.note(member, rule.id.term);
        }
        self.promises.check(member, said.promised).err()
    }

    fn take(&self, node: &NodeName, answer: Result<PeerSaid, PeerError>) {
        let now = self.clock.now();
        self.known.send_if_modified(|all| {
            let Some(known) = all.get_mut(node) else { return false };
            match answer {
                Ok(said) => match self.went_back(&said) {
                    Some(back) => known.refuse(now, &back),
                    None => known.hear(node, now, said),
                },
                Err(err) => {
                    let why = Chain(&err).to_string();
                    // Once: the text of each failure is a little different.
                    if known.failing.is_none() && known.said.is_some() {
                        warn!(%node, error = why, "peer does not answer");
                    }
                    let changed = known.failing.is_none();
                    known.failing = Some(why);
                    changed
                }
            }
        });
    }
}

impl Known {
    /// Whether it says something new.
    fn hear(&mut self, node: &NodeName, now: Tick, said: PeerSaid) -> bool {
        if self.said.is_none() || self.failing.is_some() {
            info!(%node, "peer heard");
        }
        let changed = self.failing.is_some()
            || self.said.as_ref().map(without_positions) != Some(without_positions(&said));
        (self.heard, self.said, self.failing) = (Some(now), Some(said), None);
        changed
    }

    /// What it says counts for nothing. Whether that is new.
    fn refuse(&mut self, now: Tick, back: &WentBack) -> bool {
        let why = back.to_string();
        let new = self.failing.as_ref() != Some(&why);
        if new {
            error!(member = %back.member, error = why, "promise went back");
        }
        (self.heard, self.said, self.failing) = (Some(now), None, Some(why));
        new
    }
}

/// What a node's view says about its part in the cluster.
fn said(view: &NodeView) -> PeerSaid {
    let member = match &view.volume {
        VolumeView::Mounted { identity, .. } => {
            Some(Member { node: view.node.clone(), incarnation: identity.incarnation })
        }
        VolumeView::Unknown
        | VolumeView::Absent { .. }
        | VolumeView::Blank { .. }
        | VolumeView::Unmounted { .. } => None,
    };
    PeerSaid {
        member,
        rule: view.rule.clone(),
        promised: view.promise.as_ref().map(|promise| promise.max_term),
        gate: view.gate.clone(),
        part: view.part.clone(),
        flushed: view.engine.flushed().cloned(),
        shipped: view.log.shipped.clone(),
    }
}

fn without_positions(said: &PeerSaid) -> PeerSaid {
    let part = match &said.part {
        Part::Writes { streams, change, lends } => {
            let streams = streams.iter().map(|(member, at)| (member.clone(), at.origin())).collect();
            Part::Writes { streams, change: change.clone(), lends: lends.clone() }
        }
        part @ (Part::None
        | Part::Follows { .. }
        | Part::Recruited { .. }
        | Part::Waits { .. }
        | Part::Rewinds { .. }
        | Part::Diverged { .. }) => part.clone(),
    };
    PeerSaid { flushed: None, shipped: None, part, ..said.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::Lsn;
    use holdfast_model::status::{Gate, GateClosed};

    fn peers() -> (Peers, Polling, NodeName) {
        let node: NodeName = "n2".parse().unwrap();
        let peer = PeerConfig {
            node: node.clone(),
            zone: "z".parse().unwrap(),
            address: ([127, 0, 0, 1], 1).into(),
            engine: ([127, 0, 0, 1], 2).into(),
        };
        let files = TlsConfig { ca: "/none".into(), cert: "/none".into(), key: "/none".into() };
        let (peers, polling) = Peers::new(&[peer], &"c".parse().unwrap(), &files, Clock::start());
        (peers, polling, node)
    }

    fn writes(flushed: u64) -> PeerSaid {
        PeerSaid {
            member: None,
            rule: None,
            promised: None,
            gate: Gate::Closed { why: GateClosed::Starting },
            part: Part::Writes { streams: BTreeMap::new(), change: None, lends: [].into() },
            flushed: Some(Lsn::from_offset(flushed).into()),
            shipped: Some(Lsn::from_offset(flushed).into()),
        }
    }

    #[tokio::test]
    async fn a_peer_that_falls_silent_keeps_what_it_said_and_grows_old() {
        let (peers, polling, node) = peers();
        assert_eq!(peers.view(polling.clock.now())[0].heard_ms, None);
        polling.take(&node, Ok(writes(1)));
        polling.take(&node, Err(PeerError::Late { node: node.clone(), within: EVERY }));
        let later = polling.clock.now().after_millis(700);
        let view = peers.view(later).remove(0);
        assert_eq!(view.said, Some(writes(1)));
        assert!(view.heard_ms.is_some_and(|heard| heard >= 700) && view.failing.is_some(), "{view:?}");
        polling.take(&node, Ok(writes(2)));
        assert_eq!(peers.view(later)[0].failing, None);
    }

    #[tokio::test]
    async fn a_peer_whose_promise_went_back_says_nothing() {
        let (peers, polling, node) = peers();
        let member = Member { node: node.clone(), incarnation: holdfast_model::Incarnation::from_random(1) };
        let term = |number| holdfast_model::Term::new(number).unwrap();
        let said =
            |promised| PeerSaid { member: Some(member.clone()), promised: Some(term(promised)), ..writes(1) };
        peers.promises().note(&member, term(3));
        polling.take(&node, Ok(said(3)));
        assert!(peers.view(polling.clock.now())[0].said.is_some());
        for promised in [2, 2, 4] {
            polling.take(&node, Ok(said(promised)));
            let view = peers.view(polling.clock.now()).remove(0);
            assert_eq!(view.said, None);
            assert!(view.failing.is_some_and(|why| why.contains("rolled back")));
        }
        polling.take(&node, Ok(PeerSaid { member: None, ..said(1) }));
        assert!(peers.view(polling.clock.now())[0].said.is_some(), "it has another disk");
    }

    #[tokio::test]
    async fn positions_alone_wake_nobody() {
        let (peers, polling, node) = peers();
        let mut changes = peers.changes();
        polling.take(&node, Ok(writes(1)));
        assert!(changes.0.has_changed().unwrap());
        changes.borrow_and_update();
        polling.take(&node, Ok(writes(2)));
        assert!(!changes.0.has_changed().unwrap());
        polling.take(&node, Ok(PeerSaid { part: Part::None, ..writes(2) }));
        assert!(changes.0.has_changed().unwrap());
    }
}
