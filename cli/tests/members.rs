//! What members ask of one another, over the wire of a served agent.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use fake::{Served, view};
use holdfast_cli::certs::CertFiles;
use holdfast_cli::client::connect;
use holdfast_model::{Lsn, Position, Term};
use holdfast_proto::convert::{Wire as _, list_from_wire, required_from_wire};
use holdfast_proto::identity::Role;
use holdfast_proto::refusal::{Reason, Refusal, declined};
use holdfast_proto::reply::{Closed, Vote};
use holdfast_proto::request::{AskVote, Close, Failover, Promote, Recruit, Target};
use holdfast_proto::v1;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::member_service_client::MemberServiceClient;
use holdfast_replication::choose::{Certificate, Report};
use holdfast_replication::promise::{Attempt, Refused};
use tonic::transport::Channel;

/// n1 as its peers know it.
fn target(term: u32) -> Target {
    Target {
        request: "request-1".parse().unwrap(),
        cluster: "orders".parse().unwrap(),
        node: "n1".parse().unwrap(),
        incarnation: Some(view::member().incarnation),
        term: Term::new(term),
    }
}

fn attempt(term: u32) -> Attempt {
    Attempt { term: Term::new(term).unwrap(), id: 7 }
}

fn recruit(known: u32, term: u32) -> v1::RecruitRequest {
    Recruit { target: target(known), attempt: attempt(term) }.to_wire()
}

async fn as_peer(served: &Served, files: &CertFiles) -> Channel {
    let credentials = served.authority.credentials(files).load().unwrap();
    connect(std::slice::from_ref(&served.grpc), credentials).await.unwrap().channel()
}

#[tokio::test]
async fn a_coordinating_node_recruits_and_learns_what_it_has_to_begin_above() {
    let served = Served::start(false).await;
    let channel = as_peer(&served, &served.authority.coordinator("n2")).await;
    let mut members = MemberServiceClient::new(channel);
    let answer = members.recruit(recruit(3, 6)).await.unwrap().into_inner();
    let report: Report<Position> = required_from_wire("report", answer.report).unwrap();
    assert_eq!(report, view::report(attempt(6)));
    // The caller knows an older reign than the node, which answers by its promise all the same.
    let status = members.recruit(recruit(2, 4)).await.unwrap_err();
    let promised = Refused::Promised { promised: Term::new(5).unwrap(), asked: Term::new(4).unwrap() };
    assert_eq!(declined(&status), Some(promised));
    let certificate = Certificate {
        attempt: attempt(6),
        rule: report.rules[0].clone(),
        absent: vec![],
        chosen: report.member.clone(),
        position: report.position.clone(),
        reports: vec![report],
    };
    let promote = Promote { target: target(3), certificate }.to_wire();
    let status = members.promote(promote).await.unwrap_err();
    assert_eq!(declined(&status), Some(Refused::NotRecruited { asked: Term::new(6).unwrap() }));
    assert_eq!(served.asked(), ["recruit", "recruit", "promote"]);
    served.stop().await;
}

#[tokio::test]
async fn a_call_for_another_volume_or_from_an_older_reign_does_not_reach_the_member() {
    let served = Served::start(false).await;
    let mut members = MemberServiceClient::new(as_peer(&served, &served.authority.coordinator("n2")).await);
    let elsewhere = Target { incarnation: Some(view::of_node("n1", 99).incarnation), ..target(3) };
    let recruit = Recruit { target: elsewhere, attempt: attempt(6) }.to_wire();
    let refused = |status: &tonic::Status| Refusal::from_status(status).unwrap().reason;
    let status = members.recruit(recruit).await.unwrap_err();
    assert_eq!((refused(&status), declined(&status)), (Reason::WrongTarget, None));
    let status = members.close(Close { target: target(2) }.to_wire()).await.unwrap_err();
    assert_eq!((refused(&status), declined(&status)), (Reason::StaleTerm, None));
    assert_eq!(served.asked(), [""; 0]);
    served.stop().await;
}

#[tokio::test]
async fn a_node_that_may_not_coordinate_asks_and_recruits_nobody() {
    let served = Served::start(false).await;
    let mut members = MemberServiceClient::new(as_peer(&served, &served.authority.node("n2")).await);
    let rules = members.get_rules(v1::GetRulesRequest {}).await.unwrap().into_inner().rules;
    let rules: Vec<holdfast_model::Rule> = list_from_wire("rules", rules).unwrap();
    assert_eq!(rules, [view::serving().rule.unwrap()]);
    let ask = AskVote { target: target(3), primary: view::member() }.to_wire();
    let vote = Vote::from_wire(members.ask_vote(ask).await.unwrap().into_inner()).unwrap();
    assert_eq!(vote, Vote::SeesPrimary);
    let status = members.recruit(recruit(3, 6)).await.unwrap_err();
    assert_eq!(Refusal::from_status(&status).unwrap().reason, Reason::RoleMissing);
    assert_eq!(served.asked(), ["rules", "vote"]);
    served.stop().await;
}

#[tokio::test]
async fn no_node_begins_a_failover_by_its_certificate() {
    let served = Served::start(false).await;
    let failover =
        Failover { target: target(3), prefer: vec![], vouched_until_unix_ms: None, why: String::new() }
            .to_wire();
    let node = as_peer(&served, &served.authority.coordinator("n2")).await;
    let status = ClusterServiceClient::new(node).failover(failover.clone()).await.unwrap_err();
    assert_eq!(Refusal::from_status(&status).unwrap().reason, Reason::RoleMissing);
    assert_eq!(served.asked(), [""; 0]);
    let person = as_peer(&served, &served.authority.user("ops", [Role::Promote])).await;
    ClusterServiceClient::new(person.clone()).failover(failover).await.unwrap();
    let close = Close { target: target(3) }.to_wire();
    let closed = MemberServiceClient::new(person).close(close).await.unwrap().into_inner();
    assert_eq!(Closed::from_wire(closed).unwrap().position, Lsn::from_offset(0x300_0000).into());
    served.stop().await;
}
