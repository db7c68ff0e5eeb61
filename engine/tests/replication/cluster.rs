//! A primary and its standbys, each in a zone of its own, on loopback.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use holdfast_engine::Ackers;
use holdfast_engine::Launch;
use holdfast_engine::links::{Peer, Upstream};
use holdfast_engine::postgres::argv;
use holdfast_engine::postgres::session::Session;
use holdfast_engine::postgres::session::status::ConfLoaded;
use holdfast_engine::postgres::standby::STANDBY_SIGNAL;
use holdfast_engine::postgres::standby::follow::follow;
use holdfast_engine::postgres::standby::promote::promote;
use holdfast_engine::postgres::standby::receiver::{StopError, detach, stop};
use holdfast_engine::standing::{Following, Promoted, Recruited};
use holdfast_model::{Incarnation, Lsn, Member, Position, Rule, RuleId, Term, Voter, VoterKind};
use holdfast_replication::quorum::AckQuorum;
use nix::sys::signal::Signal;

use crate::certificates::Authority;
use crate::hands::TestHands;
use crate::support::{CLOSED, Client, Server, client, eventually, give_to_engine, run};

/// How long a step of replication may take before a test fails.
pub(crate) const WAIT: Duration = Duration::from_secs(30);

/// One node.
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) member: Member,
}

/// Nodes `n1`, `n2`, ... of which `n1` begins as the primary.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[must_use]
pub(crate) fn member(node: &str, incarnation: u128) -> Member {
    Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(incarnation) }
}

#[must_use]
pub(crate) fn term(number: u32) -> Term {
    Term::new(number).unwrap()
}

impl Node {
    fn new(major: u32, name: &str, authority: &Authority) -> Self {
        let mut server = Server::empty(major);
        server.setup.layout.listen = "127.0.0.1".to_owned();
        server.setup.layout.port = free_port();
        server.setup.tls = Some(authority.issue(server.dir.path(), name, give_to_engine));
        Self { server, member: member(name, 1) }
    }

    pub(crate) async fn session(&mut self) -> Session {
        self.server.session().await
    }

    /// SQL as the superuser: waits for acks as any client does.
    pub(crate) async fn sql(&self) -> Client {
        client(&self.server.setup.layout, "holdfast").await.unwrap()
    }

    pub(crate) fn hands(&self) -> TestHands {
        TestHands::of(&self.server)
    }

    pub(crate) fn data(&self, path: &str) -> std::path::PathBuf {
        self.server.setup.layout.data_dir.join(path)
    }

    /// Makes its next start one of a standby.
    pub(crate) fn signal_standby(&self) {
        write(&self.data(STANDBY_SIGNAL), "");
    }

    /// Stops it at once and for certain.
    pub(crate) async fn quit(&mut self) {
        self.server.signal(Signal::SIGQUIT);
        self.server.ended().await;
    }

    /// Starts it on a closed gate, waiting for nobody that exists, following whomever `links` say.
    pub(crate) async fn start(&mut self) -> Session {
        self.server.install_with(&CLOSED, &Ackers::Nobody);
        self.server.spawn();
        self.session().await
    }

    /// Puts its links and a list in force.
    pub(crate) async fn reload(&mut self, sync: &Ackers) -> ConfLoaded {
        let session = self.session().await;
        let loaded = session.status().await.unwrap().conf_loaded;
        self.server.install_with(&CLOSED, sync);
        session.reload().await.unwrap();
        let again = async || session.status().await.unwrap().conf_loaded > loaded;
        eventually("the files are read again", again).await;
        assert_eq!(session.file_errors().await.unwrap(), Vec::<String>::new());
        session.status().await.unwrap().conf_loaded
    }

    /// Recruits it, as the agent would.
    pub(crate) async fn recruit(&mut self, deadline: Duration) -> Result<Recruited, StopError> {
        let session = self.session().await;
        self.server.links.upstream = None;
        detach(&session, &self.server.setup, &self.server.links.peers).await?;
        stop(&session, &self.hands(), deadline).await
    }

    /// Rows of table `t`, in order.
    pub(crate) async fn rows(&self) -> Vec<i32> {
        let rows = self.sql().await.sql.query("SELECT id FROM public.t ORDER BY 1", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

pub(crate) fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    give_to_engine(path);
}

impl Cluster {
    /// A primary and `standbys` standbys that stream, under rule (1,1) with k = 1, and an empty table `t (id int)`.
    pub(crate) async fn start(major: u32, standbys: usize) -> Self {
        let mut cluster = Self::stopped(major, standbys);
        cluster.begin().await;
        cluster
    }

    /// What [`Self::start`] does with stopped nodes.
    pub(crate) async fn begin(&mut self) {
        let rule = self.rule(1, 1, 0, &Lsn::ZERO.into());
        let standbys: Vec<Member> = self.nodes[1..].iter().map(|node| node.member.clone()).collect();
        let primary = &mut self.nodes[0];
        primary.server.install_with(&CLOSED, &Ackers::of(&rule));
        primary.server.spawn();
        let mut session = primary.session().await;
        session.ensure_schema().await.unwrap();
        for member in &standbys {
            session.ensure_member(member).await.unwrap();
        }
        let marker = session.write_rule(&rule).await.unwrap();
        for at in 1..self.nodes.len() {
            self.nodes[at].signal_standby();
            self.nodes[at].server.links.upstream = Some(self.upstream(0, at));
            self.nodes[at].server.install_with(&CLOSED, &Ackers::Nobody);
            self.nodes[at].server.spawn();
        }
        for node in &mut self.nodes[1..] {
            drop(node.session().await);
        }
        let acked = async || {
            let flushed = session.flushed().await.unwrap();
            flushed.standbys.len() == standbys.len() && flushed.holds(&AckQuorum::of(&rule), &marker)
        };
        eventually("the marker is acked by standbys that are all there", acked).await;
        self.sql(0).await.sql.batch_execute("CREATE TABLE public.t (id int)").await.unwrap();
    }

    /// Nodes with the same data directory, none of them started.
    pub(crate) fn stopped(major: u32, standbys: usize) -> Self {
        let authority = Authority::new();
        let mut nodes: Vec<Node> =
            (1..=standbys + 1).map(|number| Node::new(major, &format!("n{number}"), &authority)).collect();
        run(&argv::initdb(&nodes[0].server.setup.layout).arg("--no-sync"));
        for node in &nodes[1..] {
            copy_data(&nodes[0], node);
        }
        let members: Vec<Member> = nodes.iter().map(|node| node.member.clone()).collect();
        for node in &mut nodes {
            let others = members.iter().filter(|member| **member != node.member);
            node.server.links.peers =
                others.map(|member| Peer { member: member.clone(), address: None, rewinds: false }).collect();
        }
        Self { nodes }
    }

    pub(crate) fn node(&mut self, at: usize) -> &mut Node {
        &mut self.nodes[at]
    }

    pub(crate) async fn sql(&self, at: usize) -> Client {
        self.nodes[at].sql().await
    }

    /// How node `follower` reaches node `primary` in its first reign.
    pub(crate) fn upstream(&self, primary: usize, follower: usize) -> Upstream {
        let (primary, follower) = (&self.nodes[primary], &self.nodes[follower]);
        Upstream {
            node: primary.member.node.clone(),
            address: ([127, 0, 0, 1], primary.server.setup.layout.port).into(),
            member: follower.member.clone(),
            term: Term::FIRST,
        }
    }

    /// Points a running standby at another primary and sees it stream.
    pub(crate) async fn follow(&mut self, primary: usize, follower: usize) -> Following {
        let term = self.node(primary).session().await.status().await.unwrap().timeline;
        let upstream = Upstream { term, ..self.upstream(primary, follower) };
        let node = self.node(follower);
        let session = node.session().await;
        node.server.links.upstream = Some(upstream.clone());
        follow(&session, &node.server.setup, &node.server.links.peers, &upstream, WAIT)
            .await
            .unwrap_or_else(|err| panic!("{err:?}\n{}", node.server.log()))
    }

    /// Promotes a recruited node to a term, lets the others in, and writes its rule; the list is that rule's.
    pub(crate) async fn reign(&mut self, at: usize, number: u32) -> Promoted {
        let mut session = self.node(at).session().await;
        let hands = self.nodes[at].hands();
        let promoted = promote(&session, &hands, term(number), WAIT).await.unwrap();
        let previous = Some(session.newest_rules(1).await.unwrap()[0].id);
        let rule = Rule { previous, ..self.rule(number, 1, at, &promoted.start) };
        for voter in rule.voters.iter().filter(|voter| voter.member != rule.primary) {
            session.ensure_member(&voter.member).await.unwrap();
        }
        session.write_rule(&rule).await.unwrap();
        self.nodes[at].reload(&Ackers::of(&rule)).await;
        promoted
    }

    /// A rule of all nodes, each in its own zone, with k = 1.
    pub(crate) fn rule(&self, number: u32, version: u32, primary: usize, start: &Position) -> Rule {
        let voters = self.nodes.iter().map(|node| Voter {
            member: node.member.clone(),
            zone: node.member.node.as_str().parse().unwrap(),
            kind: VoterKind::Full,
        });
        Rule {
            id: RuleId { term: term(number), version },
            primary: self.nodes[primary].member.clone(),
            voters: voters.collect(),
            k: 1,
            previous: None,
            start: start.clone(),
        }
    }
}

/// Gives `to` the data directory of `from`, which does not run.
#[expect(clippy::disallowed_methods, reason = "a copy of thousands of small files")]
pub(crate) fn copy_data(from: &Node, to: &Node) {
    let source = from.server.setup.layout.data_dir.join(".");
    let done = std::process::Command::new("/bin/cp")
        .arg("-a")
        .args([&source, &to.server.setup.layout.data_dir])
        .status()
        .unwrap();
    assert!(done.success());
}

/// One of Debian's client programs, run as the engine's user; what it printed when it succeeded.
pub(crate) fn client_program(name: &str, args: &[&str]) -> Result<String, String> {
    let launch = Launch::new(crate::support::bin_dir(15).join(name));
    let launch = args.iter().fold(launch, |launch, arg| launch.arg(*arg));
    let output = crate::support::command(&launch).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
