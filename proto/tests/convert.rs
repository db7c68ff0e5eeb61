//! Whatever comes in is accepted or refused with its fields named; what goes out comes back the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod arbitrary;

use arbitrary::node_view;
use holdfast_model::status::NodeView;
use holdfast_proto::convert::{Invalid, Wire};
use holdfast_proto::reply::{BackupDetail, Explanation, LogStatus, PlannedDevice, WipeConsent};
use holdfast_proto::request::{AllowWipe, Bootstrap, FormatVolume, Restore, Target, VerdictKind, WipeVolume};
use holdfast_proto::v1;
use proptest::prelude::*;
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
    read::<LogStatus>(bytes)
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
