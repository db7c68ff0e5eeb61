//! `holdfast certs`, by what a node reads in the certificates that it made.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::os::unix::fs::PermissionsExt as _;

use clap::Parser as _;
use fake::Authority;
use holdfast_agent::tls::Reloader;
use holdfast_agent::tls::peer::identify;
use holdfast_cli::args::Cli;
use holdfast_cli::certs::{CertFiles, CertsError, Issue, init, issue};
use holdfast_cli::output::Output;
use holdfast_cli::run::run;
use holdfast_model::NodeName;
use holdfast_proto::identity::{Caller, Identity, Role};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// What a database server reads, which looks at nothing else.
fn common_name(files: &CertFiles) -> String {
    let der = CertificateDer::from_pem_file(&files.cert).unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    certificate.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}

fn named(files: &CertFiles) -> Identity {
    identify(Some(&[CertificateDer::from_pem_file(&files.cert).unwrap()])).unwrap()
}

#[test]
fn an_issued_certificate_names_whom_it_was_issued_for() {
    let authority = Authority::of("orders");
    let node = named(&authority.node("n1"));
    assert_eq!(node.to_string(), "holdfast://orders/node/eu-1a/n1");
    let coordinator = named(&authority.coordinator("n2"));
    assert_eq!(coordinator.to_string(), "holdfast://orders/node/eu-1a/n2?roles=promote");
    let person = named(&authority.user("ops", [Role::Observe, Role::Destroy]));
    assert_eq!(person.to_string(), "holdfast://orders/user/ops?roles=observe,destroy");
}

#[test]
fn nothing_is_ever_overwritten() {
    let authority = Authority::of("orders");
    let node = authority.node("n1");
    let before = std::fs::read(&node.key).unwrap();
    let again = Issue {
        caller: Caller::User { name: "n1".parse().unwrap(), roles: [].into() },
        addresses: Vec::new(),
        days: 1,
    };
    assert!(
        matches!(issue(authority.path(), again.clone()), Err(CertsError::Exists { file }) if file == node.cert)
    );
    std::fs::remove_file(&node.cert).unwrap();
    assert!(matches!(issue(authority.path(), again), Err(CertsError::Exists { file }) if file == node.key));
    assert_eq!(std::fs::read(&node.key).unwrap(), before);
    let cluster = "orders".parse().unwrap();
    assert!(matches!(init(authority.path(), &cluster, 1), Err(CertsError::Exists { .. })));
}

#[test]
fn keys_are_readable_by_their_owner_alone() {
    let authority = Authority::of("orders");
    let files = [CertFiles::of(authority.path(), "ca"), authority.node("n1"), authority.user("ops", [])];
    for CertFiles { key, .. } in files {
        let mode = std::fs::metadata(&key).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", key.display());
    }
}

#[test]
fn a_person_cannot_pose_as_a_node() {
    let authority = Authority::of("orders");
    let person = authority.user("n1", Role::ALL);
    let own = "holdfast://orders/node/eu-1a/n1".parse().unwrap();
    let err = Reloader::start(authority.tls(&person), own).unwrap_err();
    assert!(err.to_string().contains("issue a certificate for it"), "{err}");
}

#[test]
fn a_node_that_may_coordinate_is_the_same_node() {
    let authority = Authority::of("orders");
    let own: Identity = "holdfast://orders/node/eu-1a/n1".parse().unwrap();
    Reloader::start(authority.tls(&authority.coordinator("n1")), own.clone()).unwrap();
    let other = authority.tls(&authority.coordinator("n2"));
    Reloader::start(other, own).unwrap_err();
}

#[tokio::test]
async fn a_node_may_coordinate_unless_it_is_said_otherwise() {
    let authority = Authority::of("orders");
    for (node, more, uri) in [
        ("n1", None, "holdfast://orders/node/a/n1?roles=promote"),
        ("n2", Some("--no-promote"), "holdfast://orders/node/a/n2"),
    ] {
        let dir = authority.path().to_str().unwrap();
        let line = ["holdfast", "certs", "issue", "--dir", dir, "--node", node, "--zone", "a"];
        let cli = Cli::try_parse_from(line.into_iter().chain(more)).unwrap();
        run(cli, &mut Output::to(Box::new(std::io::sink()), false)).await.unwrap();
        assert_eq!(named(&CertFiles::of(authority.path(), node)).to_string(), uri);
    }
}

#[test]
fn a_persons_common_name_is_no_nodes_name() {
    let authority = Authority::of("orders");
    assert_eq!(common_name(&authority.node("n1")), "n1");
    let person = common_name(&authority.user("n2", Role::ALL));
    assert!(person.parse::<NodeName>().is_err(), "{person}");
}

#[test]
fn an_address_that_is_neither_name_nor_number_is_refused() {
    let authority = Authority::of("orders");
    let caller = Caller::Node { zone: "a".parse().unwrap(), node: "n1".parse().unwrap(), promote: true };
    let wrong = Issue { caller, addresses: vec!["n 1".to_owned()], days: 1 };
    assert!(matches!(issue(authority.path(), wrong), Err(CertsError::Address(address)) if address == "n 1"));
    assert!(!CertFiles::of(authority.path(), "n1").key.exists(), "nothing is left behind");
}

#[test]
fn an_authority_of_somebody_else_is_refused() {
    let authority = Authority::of("orders");
    std::fs::write(authority.ca(), "not a certificate").unwrap();
    let caller = Caller::User { name: "ops".parse().unwrap(), roles: [].into() };
    let err = issue(authority.path(), Issue { caller, addresses: Vec::new(), days: 1 }).unwrap_err();
    assert!(matches!(err, CertsError::NotOurs { .. }), "{err}");
}
