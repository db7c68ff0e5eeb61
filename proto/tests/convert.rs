//! Whatever comes in is accepted or refused with its fields named; what goes out comes back the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod arbitrary;

use arbitrary::{certificate, node_view};
use holdfast_model::peer::Part;
use holdfast_model::status::NodeView;
use holdfast_model::{GtidSet, Position, Vouch};
use holdfast_proto::convert::{Invalid, Wire};
use holdfast_proto::reply::{BackupDetail, Closed, Explanation, LogStatus, PlannedDevice, Vote, WipeConsent};
use holdfast_proto::request::{
    AllowWipe, AskNear, AskVote, AwaitPosition, Bootstrap, ChangeMember, Close, Failover, Follow,
    FormatVolume, Promote, Recruit, Reopen, Restore, Switchover, Target, VerdictKind, WipeVolume,
};
use holdfast_proto::v1;
use holdfast_replication::account::LossCertificate;
use holdfast_replication::choose::{Certificate, Report};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use prost::Message;
use tonic_types::StatusExt as _;

/// Decodes `bytes` as the message of `T` and reads it; a refusal must name at least one field.
fn read<T: Wire>(bytes: &[u8]) -> Result<(), TestCaseError>
where
    T::Message: Message + Default,
{
    let Ok(message) = T::Message::decode(bytes) else { return Ok(()) };
    if let Err(Invalid(fields)) = T::from_wire(message) {
        prop_assert!(!fields.is_empty());
        prop_assert!(fields.iter().all(|error| !error.field.is_empty() && !error.problem.is_empty()));
    }
    Ok(())
}

fn read_all(bytes: &[u8]) -> Result<(), TestCaseError> {
    read::<NodeView>(bytes)?;
    read::<Target>(bytes)?;
    read::<Bootstrap>(bytes)?;
    read::<Restore>(bytes)?;
    read::<FormatVolume>(bytes)?;
    read::<AllowWipe>(bytes)?;
    read::<WipeVolume>(bytes)?;
    read::<PlannedDevice>(bytes)?;
    read::<WipeConsent>(bytes)?;
    read::<Explanation>(bytes)?;
    read::<BackupDetail>(bytes)?;
    read::<LogStatus>(bytes)?;
    read::<AskVote>(bytes)?;
    read::<Vote>(bytes)?;
    read::<AskNear>(bytes)?;
    read::<Recruit>(bytes)?;
    read::<Report<Position>>(bytes)?;
    read::<Promote>(bytes)?;
    read::<Follow>(bytes)?;
    read::<Close>(bytes)?;
    read::<Closed>(bytes)?;
    read::<AwaitPosition>(bytes)?;
    read::<Reopen>(bytes)?;
    read::<Failover>(bytes)?;
    read::<Switchover>(bytes)?;
    read::<ChangeMember>(bytes)
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes)?;
    }

    #[test]
    fn a_view_with_a_flipped_byte_never_panics(view in node_view(), at: prop::sample::Index, flip in 1_u8..) {
        let mut bytes = view.to_wire().encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        read_all(&bytes)?;
    }

    #[test]
    fn a_node_view_survives_the_wire(view in node_view()) {
        let bytes = view.to_wire().encode_to_vec();
        let back = NodeView::from_wire(v1::NodeView::decode(bytes.as_slice()).unwrap()).unwrap();
        prop_assert_eq!(back, view);
    }

    #[test]
    fn a_loss_certificate_survives_the_wire(certificate in certificate()) {
        let bytes = certificate.to_wire().encode_to_vec();
        let back = Certificate::from_wire(v1::Certificate::decode(bytes.as_slice()).unwrap()).unwrap();
        prop_assert_eq!(&back, &certificate);
        for report in certificate.reports {
            prop_assert_eq!(Report::from_wire(report.to_wire()).unwrap(), report);
        }
    }

    #[test]
    fn an_explanation_survives_the_wire(view in node_view(), certificate in certificate(), said in ".{0,20}") {
        let told = Explanation {
            gate: view.gate,
            reason: view.reason,
            blockers: vec![],
            would_stop_writes: vec![],
            vouch: Some(Vouch {
                by: said.clone(),
                why: said.clone(),
                primary: certificate.chosen.clone(),
                term: certificate.attempt.term,
                given_unix_ms: 1,
                until_unix_ms: u64::MAX,
                outcome: Some(said.clone()),
            }),
            certificate: Some(LossCertificate::new(certificate, said)),
            refused: view.operations,
            breaches: vec![],
        };
        prop_assert_eq!(Explanation::from_wire(told.to_wire()).unwrap(), told);
    }

    #[test]
    fn a_flipped_byte_of_a_promotion_never_panics(
        certificate in certificate(),
        at: prop::sample::Index,
        flip in 1_u8..,
    ) {
        let request =
            v1::PromoteRequest { target: Some(target()), certificate: Some(certificate.to_wire()) };
        let mut bytes = request.encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        read_all(&bytes)?;
    }
}

fn target() -> v1::Target {
    v1::Target {
        request_id: "request-1".to_owned(),
        cluster: "orders".to_owned(),
        node: "n1".to_owned(),
        incarnation: format!("{:032x}", 7),
        term: 3,
    }
}

fn seen(verdict: v1::VerdictKind) -> v1::SeenDevice {
    v1::SeenDevice { serial: "s".to_owned(), diskseq: 9, verdict: verdict.into() }
}

#[track_caller]
fn refused_fields<T: Wire>(message: T::Message) -> Vec<String> {
    let Err(Invalid(fields)) = T::from_wire(message) else { panic!("must be refused") };
    fields.into_iter().map(|error| error.field).collect()
}

#[test]
fn every_fault_is_named_at_once() {
    let wrong = v1::Target {
        request_id: "short".to_owned(),
        cluster: "Orders".to_owned(),
        node: String::new(),
        incarnation: "7".to_owned(),
        term: 0,
    };
    let request = v1::FormatVolumeRequest { target: Some(wrong), device: None };
    assert_eq!(
        refused_fields::<FormatVolume>(request),
        ["target.request_id", "target.cluster", "target.node", "target.incarnation", "device"]
    );
}

#[test]
fn unspecified_is_refused() {
    let request =
        v1::AllowWipeRequest { target: Some(target()), device: Some(seen(v1::VerdictKind::Unspecified)) };
    assert_eq!(refused_fields::<AllowWipe>(request), ["device.verdict"]);
    let beyond = v1::SeenDevice { verdict: 99, ..seen(v1::VerdictKind::Blank) };
    let request = v1::AllowWipeRequest { target: Some(target()), device: Some(beyond) };
    assert_eq!(refused_fields::<AllowWipe>(request), ["device.verdict"]);
    let gate = v1::gate::State::Closed(v1::gate::Closed { why: 0 });
    let gate = v1::Gate { state: Some(gate) };
    assert_eq!(refused_fields::<holdfast_model::status::Gate>(gate), ["why"]);
}

#[test]
fn only_a_blank_device_may_be_formatted() {
    for kind in VerdictKind::ALL {
        let wire = v1::VerdictKind::try_from(i32::try_from(kind as usize).unwrap() + 1).unwrap();
        let request = v1::FormatVolumeRequest { target: Some(target()), device: Some(seen(wire)) };
        let read = FormatVolume::from_wire(request);
        assert_eq!(read.is_ok(), kind == VerdictKind::Blank, "{kind}");
    }
}

#[test]
fn a_cluster_id_of_another_cluster_is_refused() {
    let id = |name: &str| Some(format!("{name}-{:032x}", 1));
    let request =
        |cluster_id| v1::BootstrapRequest { target: Some(target()), token: "orders".to_owned(), cluster_id };
    Bootstrap::from_wire(request(id("orders"))).unwrap();
    Bootstrap::from_wire(request(None)).unwrap();
    assert_eq!(refused_fields::<Bootstrap>(request(id("billing"))), ["cluster_id"]);
}

#[test]
fn a_request_survives_the_wire() {
    let request = v1::WipeVolumeRequest {
        target: Some(v1::Target { incarnation: String::new(), term: 0, ..target() }),
        device: Some(seen(v1::VerdictKind::Foreign)),
        token: "t".to_owned(),
    };
    assert_eq!(WipeVolume::from_wire(request.clone()).unwrap().to_wire(), request);
}

#[test]
fn what_members_ask_survives_the_wire() {
    let (target, attempt) = (Some(target()), v1::Attempt { term: 4, id: format!("{:032x}", 9) });
    let member = format!("n2.{:032x}", 8);
    let vote = v1::AskVoteRequest { target: target.clone(), primary: member.clone() };
    assert_eq!(AskVote::from_wire(vote.clone()).unwrap().to_wire(), vote);
    let near = v1::AskNearRequest { target: target.clone(), candidate: member.clone() };
    assert_eq!(AskNear::from_wire(near.clone()).unwrap().to_wire(), near);
    let recruit = v1::RecruitRequest { target: target.clone(), attempt: Some(attempt.clone()) };
    assert_eq!(Recruit::from_wire(recruit.clone()).unwrap().to_wire(), recruit);
    let rule = v1::Rule {
        id: Some(v1::RuleId { term: 4, version: 1 }),
        primary: member,
        voters: vec![],
        k: 1,
        previous: None,
        start: "0/16B3748".to_owned(),
    };
    let follow = v1::FollowRequest { target: target.clone(), rule: Some(rule), attempt: Some(attempt) };
    assert_eq!(Follow::from_wire(follow.clone()).unwrap().to_wire(), follow);
    let wait = v1::AwaitPositionRequest { target: target.clone(), position: "1/AB".to_owned() };
    assert_eq!(AwaitPosition::from_wire(wait.clone()).unwrap().to_wire(), wait);
    let change = v1::ChangeMemberRequest {
        target: target.clone(),
        node: "n3".to_owned(),
        change: v1::MemberChange::Admit.into(),
    };
    assert_eq!(ChangeMember::from_wire(change.clone()).unwrap().to_wire(), change);
    let failover = v1::FailoverRequest {
        target,
        prefer_zones: vec!["zone-b".to_owned(), "zone-c".to_owned()],
        without_votes: true,
        why: "the machine burnt".to_owned(),
        vouched_until_unix_ms: 1_700_000_000_000,
    };
    assert_eq!(Failover::from_wire(failover.clone()).unwrap().to_wire(), failover);
}

#[test]
fn every_fault_of_what_members_ask_is_named_at_once() {
    let attempt = v1::Attempt { term: 0, id: "F".repeat(32) };
    let follow = v1::FollowRequest { target: None, rule: None, attempt: Some(attempt) };
    assert_eq!(refused_fields::<Follow>(follow), ["target", "rule", "attempt.term", "attempt.id"]);
    let certificate = v1::Certificate {
        attempt: None,
        reports: vec![v1::Report { promised_before: Some(0), ..v1::Report::default() }],
        rule: None,
        absent: vec![format!("n2.{:032x}", 8), "n3".to_owned()],
        chosen: String::new(),
        position: "here".to_owned(),
    };
    let promote = v1::PromoteRequest { target: Some(target()), certificate: Some(certificate) };
    assert_eq!(
        refused_fields::<Promote>(promote),
        [
            "certificate.attempt",
            "certificate.reports[0].member",
            "certificate.reports[0].position",
            "certificate.reports[0].promised_before",
            "certificate.rule",
            "certificate.absent[1]",
            "certificate.chosen",
            "certificate.position",
        ]
    );
    let change = v1::ChangeMemberRequest { target: Some(target()), node: "N3".to_owned(), change: 0 };
    assert_eq!(refused_fields::<ChangeMember>(change), ["node", "change"]);
    assert_eq!(refused_fields::<Vote>(v1::AskVoteResponse { vote: 0 }), ["vote"]);
}

#[test]
fn a_position_that_was_left_out_is_refused() {
    assert_eq!(refused_fields::<Closed>(v1::CloseResponse::default()), ["position"]);
    let set = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5";
    for text in ["0/16B3748", set, "none"] {
        let closed = v1::CloseResponse { position: text.to_owned() };
        assert_eq!(Closed::from_wire(closed.clone()).unwrap().to_wire(), closed);
    }
    let nothing = Closed { position: GtidSet::EMPTY.into() };
    assert_eq!(Closed::from_wire(nothing.to_wire()).unwrap(), nothing);
}

#[test]
fn a_failover_without_votes_says_why_and_until_when() {
    let failover = |without_votes, why: &str, vouched_until_unix_ms| v1::FailoverRequest {
        target: Some(target()),
        prefer_zones: vec!["not a zone".to_owned()],
        without_votes,
        why: why.to_owned(),
        vouched_until_unix_ms,
    };
    assert_eq!(
        refused_fields::<Failover>(failover(true, " ", 0)),
        ["prefer_zones[0]", "why", "vouched_until_unix_ms"]
    );
    assert_eq!(refused_fields::<Failover>(failover(true, "burnt", 1)), ["prefer_zones[0]"]);
    assert_eq!(refused_fields::<Failover>(failover(false, "", 0)), ["prefer_zones[0]"]);
}

#[test]
fn a_member_is_not_streamed_to_twice() {
    let stream =
        |number| v1::part::Stream { member: format!("n2.{:032x}", number), flushed: "0/1".to_owned() };
    let part = |streams| v1::Part {
        state: Some(v1::part::State::Writes(v1::part::Writes { streams, change: None, lends: vec![] })),
    };
    Part::from_wire(part(vec![stream(1), stream(2)])).unwrap();
    assert_eq!(refused_fields::<Part>(part(vec![stream(1), stream(1)])), ["streams"]);
}

#[test]
fn a_view_of_an_agent_that_knows_no_parts_is_read() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let view = node_view().new_tree(&mut runner).unwrap().current();
    let old = v1::NodeView { part: None, peers: vec![], breaches: None, ..view.to_wire() };
    let read = NodeView::from_wire(old).unwrap();
    assert_eq!((read.part, read.breaches), (Part::None, Default::default()));
}

#[test]
fn an_invalid_message_becomes_a_bad_request_with_its_fields() {
    let invalid =
        Restore::from_wire(v1::RestoreRequest { target: None, backup: Some(String::new()) }).unwrap_err();
    let status = tonic::Status::from(invalid);
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let details = status.get_error_details();
    let fields: Vec<_> = details
        .bad_request()
        .unwrap()
        .field_violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(fields, ["target", "backup"]);
}
