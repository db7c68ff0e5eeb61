//! A primary and members that follow it, each in a zone of its own, on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_engine::Ackers;
use holdfast_engine::links::Upstream;
use holdfast_engine::mysql::argv::Start;
use holdfast_engine::mysql::channel::{self, ChannelError};
use holdfast_engine::mysql::gate;
use holdfast_engine::mysql::identity::source_of;
use holdfast_engine::mysql::members;
use holdfast_engine::mysql::rules::{RuleError, Writer};
use holdfast_engine::mysql::session::Session;
use holdfast_model::status::{Gate, GateClosed};
use holdfast_model::{GtidSet, Member, Rule, RuleId, Term, Voter, VoterKind};

use crate::certificates::Authority;
use crate::server::{Client, Server, cluster_id, eventually, give, markers};

pub(crate) const CLOSED: Gate = Gate::Closed { why: GateClosed::Starting };
pub(crate) const OPEN: Gate = Gate::Open { term: Term::FIRST };

/// How long the agent would wait for one thing.
pub(crate) const STEP: Duration = Duration::from_secs(20);

/// One server and the agent's session with it.
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) session: Session,
    pub(crate) writer: Writer,
}

/// `n1`, which writes, and `n2`, ..., which follow it or are about to.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

pub(crate) fn term(number: u32) -> Term {
    Term::new(number).unwrap()
}

/// A rule whose first voter is the primary.
pub(crate) fn rule(number: u32, version: u32, k: u32, voters: &[Member]) -> Rule {
    let zone = |member: &Member| format!("zone-{}", member.node).parse().unwrap();
    let voter = |member: &Member| Voter { member: member.clone(), zone: zone(member), kind: VoterKind::Full };
    Rule {
        id: RuleId { term: term(number), version },
        primary: voters[0].clone(),
        voters: voters.iter().map(voter).collect(),
        k,
        previous: None,
        start: GtidSet::EMPTY.into(),
    }
}

impl Node {
    pub(crate) async fn start(mut server: Server, start: Start) -> Self {
        let session = server.start(start).await;
        let writer = Writer::new(server.layout.clone(), markers());
        Self { server, session, writer }
    }

    /// Starts the process again and logs in again.
    pub(crate) async fn restart(&mut self, start: Start) {
        self.session = self.server.start(start).await;
    }

    pub(crate) fn member(&self) -> Member {
        self.server.member.clone()
    }

    pub(crate) async fn client(&self) -> Client {
        self.server.client().await.unwrap()
    }

    pub(crate) async fn apply(&mut self, gate: &Gate, ackers: &Ackers, members: &BTreeSet<Member>) {
        gate::apply(&mut self.session, &self.server.layout, gate, ackers, members, STEP).await.unwrap();
    }

    pub(crate) async fn write_rule(&mut self, rule: &Rule) -> Result<GtidSet, RuleError> {
        self.writer.write(&mut self.session, &[], rule, STEP).await
    }

    pub(crate) async fn let_in(&mut self, others: &[Member]) {
        let subject = |member: &Member| members::subject_of(cluster_id().name(), member);
        let logins: BTreeMap<Member, String> =
            others.iter().map(|member| (member.clone(), subject(member))).collect();
        members::ensure_logins(&self.server.layout, &logins, STEP).await.unwrap();
    }

    pub(crate) fn upstream_for(&self, follower: &Member, reign: u32) -> Upstream {
        Upstream {
            node: self.server.member.node.clone(),
            address: format!("127.0.0.1:{}", self.server.layout.port).parse().unwrap(),
            member: follower.clone(),
            term: term(reign),
        }
    }

    pub(crate) async fn follow(&mut self, upstream: &Node, acks: bool) -> Result<(), ChannelError> {
        let upstream_of = upstream.upstream_for(&self.server.member, 1);
        let tls = self.server.tls.as_ref();
        let source = Some(source_of(&upstream.server.member));
        channel::follow(&mut self.session, tls, &upstream_of, source, acks, STEP).await
    }
}

impl Cluster {
    /// `count` servers that run, the first of which writes and is closed; nobody follows yet.
    pub(crate) async fn new(count: u32) -> Self {
        let authority = Authority::new();
        let mut nodes = Vec::new();
        for number in 1..=count {
            let name = format!("n{number}");
            let mut server = Server::init(&name, number.into());
            server.tls = Some(authority.issue(server.dir.path(), &name, give));
            let start = if number == 1 { Start::Primary } else { Start::Standby };
            nodes.push(Node::start(server, start).await);
        }
        Self { nodes }
    }

    /// The same, where the others follow and ack, and clients write under a rule with k = 1.
    pub(crate) async fn running(count: u32) -> Self {
        let mut cluster = Self::new(count).await;
        let members = cluster.members();
        let primary = &mut cluster.nodes[0];
        let others: BTreeSet<Member> = members[1..].iter().cloned().collect();
        primary.apply(&CLOSED, &Ackers::Alone, &others).await;
        primary.server.prepare_clients(&mut primary.session).await;
        primary.let_in(&members[1..]).await;
        primary.write_rule(&rule(1, 1, 1, &members)).await.unwrap();
        let sync = Ackers::AnyOf { k: 1, members: others.clone() };
        primary.apply(&CLOSED, &sync, &others).await;
        let (primary, followers) = cluster.nodes.split_first_mut().unwrap();
        for follower in followers {
            follower.follow(primary, true).await.unwrap();
        }
        primary.apply(&OPEN, &sync, &others).await;
        cluster
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        self.nodes.iter().map(Node::member).collect()
    }
}

/// Waits until `node` holds everything that is committed on `primary`.
pub(crate) async fn caught_up(node: &mut Node, primary: &mut Node) {
    let target = primary.session.executed().await.unwrap();
    eventually("the follower holds everything", async || node.session.executed().await.unwrap() >= target)
        .await;
}
