//! A coordinator and its members over real connections: the driver of `orchestrator`, the calls of `MemberService`, and
//! members that judge by `replication`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use fake::Authority;
use holdfast_agent::clock::{Clock, random_bits};
use holdfast_agent::peers::{Deadlines, MemberLines, PeerAddress, PeerClient};
use holdfast_agent::tls::{Acceptor, Reloader};
use holdfast_model::status::{Gate, NodeView, VolumeView};
use holdfast_model::{
    ClusterId, Incarnation, Lsn, Member, Position, Promise, Rule, RuleId, Term, Voter, VoterKind,
};
use holdfast_orchestrator::drive::{Driver, Members, Tries};
use holdfast_orchestrator::failover::{self, Declined};
use holdfast_orchestrator::switchover;
use holdfast_proto::convert::Wire;
use holdfast_proto::refusal::decline;
use holdfast_proto::reply::{Closed, Vote};
use holdfast_proto::request::{AwaitPosition, Follow, Promote, Recruit, Target};
use holdfast_proto::v1;
use holdfast_proto::v1::member_service_server::{MemberService, MemberServiceServer};
use holdfast_proto::v1::node_service_server::{NodeService, NodeServiceServer};
use holdfast_replication::change;
use holdfast_replication::choose::{Certificate, Report};
use holdfast_replication::promise::{self, Attempt, Promised, Refused, Standing};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

fn member(node: &str) -> Member {
    Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(7) }
}

fn term(number: u32) -> Term {
    Term::new(number).unwrap()
}

/// Rule (3,1): n1 is the primary, k = 1, each node in a zone of its own.
fn rule() -> Rule {
    let voter = |node| Voter {
        member: member(node),
        zone: format!("zone-of-{node}").parse().unwrap(),
        kind: VoterKind::Full,
    };
    let voters = ["n1", "n2", "n3"].map(voter).to_vec();
    let id = RuleId { term: term(3), version: 1 };
    Rule { id, primary: member("n1"), voters, k: 1, previous: None, start: Lsn::from_offset(1).into() }
}

fn attempt(number: u32) -> Attempt {
    Attempt { term: term(number), id: 42 }
}

/// What a member knows and was asked.
struct State {
    member: Member,
    promise: Option<Promise>,
    rules: Vec<Rule>,
    closed: bool,
    targets: Vec<Target>,
}

#[derive(Clone)]
struct FakeMember(Arc<Mutex<State>>);

impl FakeMember {
    fn new(node: &str) -> Self {
        let (member, rules) = (member(node), vec![rule()]);
        Self(Arc::new(Mutex::new(State { member, promise: None, rules, closed: false, targets: vec![] })))
    }

    fn promises(&self, attempt: Attempt) {
        let state = &mut *self.0.lock().unwrap();
        let cluster = ClusterId::new("orders".parse().unwrap(), 1);
        let member = state.member.clone();
        state.promise = Some(Promise { cluster, member, max_term: attempt.term, attempt: attempt.id });
    }

    fn judge<T>(&self, judge: impl FnOnce(Standing<'_>) -> Result<T, Refused>) -> Result<T, Status> {
        let state = self.0.lock().unwrap();
        let last_rule = Some(state.rules[0].id);
        judge(Standing { member: &state.member, promise: state.promise.as_ref(), last_rule })
            .map_err(|refused| decline(&refused))
    }

    fn note(&self, target: Option<v1::Target>) {
        self.0.lock().unwrap().targets.push(Target::from_wire(target.unwrap()).unwrap());
    }

    fn view(&self) -> NodeView {
        let state = self.0.lock().unwrap();
        let mut view = fake::view::serving();
        view.node = state.member.node.clone();
        if let VolumeView::Mounted { identity, .. } = &mut view.volume {
            identity.incarnation = state.member.incarnation;
        }
        let serves = state.rules[0].primary == state.member && !state.closed;
        if serves {
            view.gate = Gate::Open { term: state.rules[0].id.term };
        } else {
            view.gate = Gate::Closed { why: holdfast_model::status::GateClosed::NotPrimary };
        }
        view
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl MemberService for FakeMember {
    async fn get_rules(&self, _: Request<v1::GetRulesRequest>) -> Answer<v1::GetRulesResponse> {
        Err(Status::unimplemented("nobody asks"))
    }
    async fn ask_vote(&self, request: Request<v1::AskVoteRequest>) -> Answer<v1::AskVoteResponse> {
        self.note(request.into_inner().target);
        Ok(Response::new(Vote::MissesPrimary.to_wire()))
    }
    async fn ask_near(&self, request: Request<v1::AskNearRequest>) -> Answer<v1::AskNearResponse> {
        self.note(request.into_inner().target);
        Ok(Response::new(v1::AskNearResponse { near: true }))
    }
    async fn recruit(&self, request: Request<v1::RecruitRequest>) -> Answer<v1::RecruitResponse> {
        let Recruit { target, attempt } = Recruit::from_wire(request.into_inner())?;
        self.note(Some(target.to_wire()));
        if let Promised::Now(attempt) = self.judge(|standing| promise::recruit(standing, attempt))? {
            self.promises(attempt);
        }
        let state = self.0.lock().unwrap();
        let (member, rules, position) =
            (state.member.clone(), state.rules.clone(), Lsn::from_offset(9).into());
        let report = Report { member, rules, position, promised_before: None };
        Ok(Response::new(v1::RecruitResponse { report: Some(report.to_wire()) }))
    }
    async fn promote(&self, request: Request<v1::PromoteRequest>) -> Answer<v1::PromoteResponse> {
        let Promote { target, certificate } = Promote::from_wire(request.into_inner())?;
        self.note(Some(target.to_wire()));
        self.judge(|standing| promise::promote(standing, certificate.attempt))?;
        let Certificate { rule, attempt, position, .. } = certificate;
        let state = &mut *self.0.lock().unwrap();
        let first = change::promoted(&rule, &state.member, attempt.term, position);
        state.rules.insert(0, first.clone());
        Ok(Response::new(v1::PromoteResponse { rule: Some(first.to_wire()) }))
    }
    async fn follow(&self, request: Request<v1::FollowRequest>) -> Answer<v1::FollowResponse> {
        let Follow { target, rule, attempt } = Follow::from_wire(request.into_inner())?;
        self.note(Some(target.to_wire()));
        self.judge(|standing| promise::follow(standing, &rule, attempt))?;
        self.0.lock().unwrap().rules.insert(0, rule);
        Ok(Response::new(v1::FollowResponse {}))
    }
    async fn close(&self, request: Request<v1::CloseRequest>) -> Answer<v1::CloseResponse> {
        self.note(request.into_inner().target);
        self.0.lock().unwrap().closed = true;
        Ok(Response::new(Closed { position: Lsn::from_offset(9).into() }.to_wire()))
    }
    async fn await_position(
        &self,
        request: Request<v1::AwaitPositionRequest>,
    ) -> Answer<v1::AwaitPositionResponse> {
        let AwaitPosition { target, position } = AwaitPosition::from_wire(request.into_inner())?;
        self.note(Some(target.to_wire()));
        match position.ordinal() {
            ..=9 => Ok(Response::new(v1::AwaitPositionResponse {})),
            _ => Err(Status::unavailable("the log up to there is not here yet")),
        }
    }
    async fn reopen(&self, request: Request<v1::ReopenRequest>) -> Answer<v1::ReopenResponse> {
        self.note(request.into_inner().target);
        self.0.lock().unwrap().closed = false;
        Ok(Response::new(v1::ReopenResponse {}))
    }
}

#[tonic::async_trait]
impl NodeService for FakeMember {
    type WatchStatusStream = tokio_stream::Empty<Result<v1::WatchStatusResponse, Status>>;

    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Answer<v1::GetStatusResponse> {
        Ok(Response::new(v1::GetStatusResponse { view: Some(self.view().to_wire()) }))
    }
    async fn watch_status(&self, _: Request<v1::WatchStatusRequest>) -> Answer<Self::WatchStatusStream> {
        Err(Status::unimplemented("nobody asks"))
    }
    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        Err(Status::unimplemented("nobody asks"))
    }
}

/// Members on ports of their own, until dropped; n1 coordinates.
struct Cluster {
    authority: Authority,
    addresses: Vec<(&'static str, SocketAddr)>,
    kept: Arc<Mutex<Vec<Certificate<Position>>>>,
    tasks: JoinSet<()>,
}

impl Cluster {
    /// Serves `members`; nobody listens where the other nodes are.
    async fn serve(members: [(&'static str, Option<&FakeMember>); 3]) -> Self {
        let authority = Authority::of("orders");
        let (mut addresses, mut tasks) = (Vec::new(), JoinSet::new());
        for (node, member) in members {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push((node, listener.local_addr().unwrap()));
            let own = format!("holdfast://orders/node/eu-1a/{node}").parse().unwrap();
            let reloader = Reloader::start(authority.tls(&authority.node(node)), own).unwrap();
            let Some(member) = member.cloned() else { continue };
            let (connected, connections) = mpsc::channel(4);
            tasks.spawn(Acceptor::new(listener, reloader.config()).run(connected, CancellationToken::new()));
            tasks.spawn(async move {
                let _in_force = reloader;
                let server = Server::builder()
                    .add_service(MemberServiceServer::new(member.clone()))
                    .add_service(NodeServiceServer::new(member));
                let incoming = ReceiverStream::new(connections).map(Ok::<_, std::io::Error>);
                server.serve_with_incoming(incoming).await.unwrap();
            });
        }
        Self { authority, addresses, kept: Arc::default(), tasks }
    }

    fn lines(&self) -> MemberLines {
        let path = self.authority.path();
        let files = holdfast_cli::certs::CertFiles::of(path, "n1");
        let (cluster, zone) = ("orders", "eu-1a");
        let to = |(node, address): &(&str, SocketAddr)| {
            let (cluster, zone) = (cluster.parse().unwrap(), zone.parse().unwrap());
            let peer = PeerAddress { cluster, zone, node: node.parse().unwrap(), address: *address };
            Arc::new(PeerClient::new(peer, self.authority.tls(&files), Deadlines::default()))
        };
        let kept = Arc::clone(&self.kept);
        let keep = move |certificate| kept.lock().unwrap().push(certificate);
        let (lines, promises) = (self.addresses.iter().map(to), Arc::default());
        MemberLines::new(cluster.parse().unwrap(), lines, term(3), promises, Box::new(keep))
    }

    fn driver(&self) -> Driver {
        let clock = Clock::start();
        let members = Arc::new(self.lines());
        Driver::new(members, Box::new(move || clock.now()), Box::new(random_bits), Box::new(|_| {}))
    }
}

#[tokio::test]
async fn a_failover_and_a_competing_term_over_real_connections() {
    let (n2, n3) = (FakeMember::new("n2"), FakeMember::new("n3"));
    n3.promises(Attempt { term: term(5), id: 99 });
    let mut cluster = Cluster::serve([("n1", None), ("n2", Some(&n2)), ("n3", Some(&n3))]).await;
    let order = failover::Order {
        attempt: attempt(4),
        rule: rule(),
        prefer: vec![],
        without_votes: false,
        until: None,
    };
    let mut driver = cluster.driver();
    let tries = Tries { pause_ms: 10, ..Tries::default() };
    let opened = driver.failover(order, failover::Pace::default(), tries).await.unwrap();
    assert_eq!((opened.tries, opened.rule.id.term), (2, term(6)), "{opened}");
    assert_eq!(opened.rule.primary, member("n2"));
    driver.rest().await;
    assert_eq!(*cluster.kept.lock().unwrap(), [opened.certificate]);
    assert_eq!(n3.0.lock().unwrap().rules[0], opened.rule, "it follows");
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_switchover_over_real_connections() {
    let members = ["n1", "n2", "n3"].map(FakeMember::new);
    let [n1, n2, n3] = &members;
    let mut cluster = Cluster::serve([("n1", Some(n1)), ("n2", Some(n2)), ("n3", Some(n3))]).await;
    let order = switchover::Order { attempt: attempt(4), rule: rule(), candidate: member("n3") };
    let mut driver = cluster.driver();
    let opened = driver.switchover(order, switchover::Pace::default(), Tries::default()).await.unwrap();
    assert_eq!((opened.tries, &opened.rule.primary), (1, &member("n3")), "{opened}");
    assert!(opened.took.refused_ms() < 2_000, "{opened}");
    assert!(n1.0.lock().unwrap().closed);
    cluster.lines().reopen(&member("n1")).await.unwrap();
    assert!(!n1.0.lock().unwrap().closed);
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn what_a_member_stands_by_reaches_the_coordinator() {
    let n2 = FakeMember::new("n2");
    n2.promises(Attempt { term: term(5), id: 99 });
    let mut cluster = Cluster::serve([("n1", None), ("n2", Some(&n2)), ("n3", None)]).await;
    let lines = cluster.lines();
    let refused = lines.recruit(&member("n2"), attempt(4)).await.unwrap_err();
    assert_eq!(refused, Declined::Refused(Refused::Promised { promised: term(5), asked: term(4) }));
    let behind = lines.await_position(&member("n2"), &Lsn::from_offset(10).into()).await.unwrap_err();
    assert_eq!(behind.to_string(), "not reached: call n2: the log up to there is not here yet");
    let gone = lines.ask_vote(&member("n3"), &member("n1")).await.unwrap_err().to_string();
    assert!(gone.contains("Connection refused"), "{gone}");
    let unknown = lines.close(&member("n9")).await.unwrap_err().to_string();
    assert!(unknown.contains("list it in [[cluster.peers]]"), "{unknown}");
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_node_with_another_disk_is_not_the_member() {
    let n2 = FakeMember::new("n2");
    let mut cluster = Cluster::serve([("n1", None), ("n2", Some(&n2)), ("n3", None)]).await;
    let lines = cluster.lines();
    lines.recruit(&member("n2"), attempt(4)).await.unwrap();
    lines.ask_vote(&member("n2"), &member("n1")).await.unwrap();
    let targets = n2.0.lock().unwrap().targets.clone();
    let meant = |target: &Target| (target.node.clone(), target.incarnation, target.term);
    let (node, incarnation) = (member("n2").node, Some(member("n2").incarnation));
    assert_eq!(
        targets.iter().map(meant).collect::<Vec<_>>(),
        [(node.clone(), incarnation, Some(term(4))), (node, incarnation, Some(term(3)))],
    );
    assert!(targets[0].request != targets[1].request);

    n2.0.lock().unwrap().rules[0].primary = member("n2");
    assert_eq!(lines.opened(&member("n2")).await, Some(term(3)));
    let before = Member { incarnation: Incarnation::from_random(6), ..member("n2") };
    assert_eq!(lines.opened(&before).await, None);
    cluster.tasks.shutdown().await;
}
