//! A certificate authority in a folder, for development and small sites: one authority per cluster.
//!
//! `ca.pem` and `ca.key`; each certificate is `<name>.pem` with `<name>.key`. Keys are readable by their owner alone.
//! Names are those of [`holdfast_proto::identity`]. A person's certificate is good for calling only, so that nobody can
//! pose as a node with it.
//!
//! Invariants, each a test in `cli/tests/certs.rs`:
//! * `nothing_is_ever_overwritten`.
//! * `keys_are_readable_by_their_owner_alone`.
//! * `an_issued_certificate_names_whom_it_was_issued_for`.
//!
//! Not here: renewal and revocation. Certificates are short-lived instead; issue anew under another name or folder and
//! let the agent's hot reload pick it up.

mod files;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_model::{ClusterName, NodeName, ParseIdError};
use holdfast_proto::identity::{Caller, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use x509_parser::pem::parse_x509_pem;

use crate::clock;

/// Why certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// There is one of this name already.
    #[error("{} is there already and is never overwritten: remove it or choose another name", file.display())]
    Exists {
        /// Which file.
        file: PathBuf,
    },
    /// A file cannot be read.
    #[error("read {}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("write {}", file.display())]
    Write {
        /// Which file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `ca.pem` was not made by `holdfast certs init`.
    #[error("{} names no cluster: make it with holdfast certs init", file.display())]
    NotOurs {
        /// Which file.
        file: PathBuf,
    },
    /// `ca.pem` names something that is no cluster.
    #[error("read the cluster's name in {}", file.display())]
    Cluster {
        /// Which file.
        file: PathBuf,
        /// Why.
        #[source]
        source: ParseIdError,
    },
    /// An address that is neither an IP address nor a DNS name.
    #[error("address {0:?} is not valid: use an IP address or a DNS name")]
    Address(String),
    /// The key or the certificate could not be made.
    #[error("make {what}")]
    Make {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
}

/// The files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl CertFiles {
    /// Those of `name` in `dir`.
    #[must_use]
    pub fn of(dir: &Path, name: &str) -> Self {
        Self { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
    }
}

/// Whom a certificate is for.
#[derive(Debug, Clone)]
pub struct Issue {
    /// Node or person.
    pub caller: Caller,
    /// More names and addresses that a node is reached by; empty for people.
    pub addresses: Vec<String>,
    /// How long it holds, from now.
    pub days: u32,
}

const AUTHORITY: &str = "ca";
/// Clocks differ a little between machines.
const SKEW: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(86_400);

/// Makes the authority of `cluster` in `dir`, which is created if it is not there.
///
/// # Errors
/// [`CertsError`]; [`CertsError::Exists`] when there is one.
pub fn init(dir: &Path, cluster: &ClusterName, days: u32) -> Result<CertFiles, CertsError> {
    files::ensure_dir(dir)?;
    let key = generate_key("the authority's key")?;
    let mut params = valid_for(days);
    params.distinguished_name = named(cluster, &format!("holdfast authority of {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params
        .self_signed(&key)
        .map_err(|source| CertsError::Make { what: "the authority".to_owned(), source })?;
    files::write_pair(&CertFiles::of(dir, AUTHORITY), &certificate.pem(), &key.serialize_pem())
}

/// Issues a certificate by the authority in `dir`, into `dir`.
///
/// # Errors
/// [`CertsError`]; [`CertsError::Exists`] when there is one of this name.
pub fn issue(dir: &Path, issue: Issue) -> Result<CertFiles, CertsError> {
    let (authority, cluster) = open_authority(dir)?;
    let name = match &issue.caller {
        Caller::Node { node, .. } => node.clone(),
        Caller::User { name, .. } => name.clone(),
    };
    let make = |source| CertsError::Make { what: format!("the certificate of {name}"), source };
    let key = generate_key("a key")?;
    let params = leaf(&name, Identity { cluster, caller: issue.caller }, &issue.addresses, issue.days)?;
    let certificate = params.signed_by(&key, &authority).map_err(make)?;
    files::write_pair(&CertFiles::of(dir, name.as_str()), &certificate.pem(), &key.serialize_pem())
}

fn leaf(
    name: &NodeName,
    identity: Identity,
    addresses: &[String],
    days: u32,
) -> Result<CertificateParams, CertsError> {
    let uri = identity.to_string();
    let ascii = |source| CertsError::Make { what: format!("the name {uri}"), source };
    let mut params = valid_for(days);
    params.distinguished_name = named(&identity.cluster, &common_name(&identity.caller));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![SanType::URI(uri.clone().try_into().map_err(ascii)?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    match identity.caller {
        Caller::User { .. } => {}
        Caller::Node { .. } => {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names.extend(reached_by(name, addresses)?);
        }
    }
    Ok(params)
}

/// PostgreSQL's `cert` login reads the common name and nothing else, so a person's must be no node's name: node names have
/// no space.
fn common_name(caller: &Caller) -> String {
    match caller {
        Caller::Node { node, .. } => node.to_string(),
        Caller::User { name, .. } => format!("user {name}"),
    }
}

/// A node is reached by its name, by loopback, and by whatever else was given.
fn reached_by(node: &NodeName, addresses: &[String]) -> Result<Vec<SanType>, CertsError> {
    let mut names: BTreeSet<&str> = addresses.iter().map(String::as_str).collect();
    names.extend([node.as_str(), "localhost"]);
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].map(SanType::IpAddress);
    let given = names.into_iter().map(|name| {
        if let Ok(ip) = name.parse::<IpAddr>() {
            return Ok(SanType::IpAddress(ip));
        }
        let bad = || CertsError::Address(name.to_owned());
        rustls::pki_types::DnsName::try_from(name).map_err(|_| bad())?;
        Ok(SanType::DnsName(name.to_owned().try_into().map_err(|_| bad())?))
    });
    loopback.into_iter().map(Ok).chain(given).collect()
}

fn open_authority(dir: &Path) -> Result<(Issuer<'static, KeyPair>, ClusterName), CertsError> {
    let CertFiles { cert, key } = CertFiles::of(dir, AUTHORITY);
    let certificate = files::read(&cert)?;
    let cluster = cluster_of(&cert, &certificate)?;
    let open =
        |source| CertsError::Make { what: format!("use of the authority in {}", dir.display()), source };
    let key = KeyPair::from_pem(&files::read(&key)?).map_err(open)?;
    Ok((Issuer::from_ca_cert_pem(&certificate, key).map_err(open)?, cluster))
}

/// The cluster is the organisation in the authority's subject.
fn cluster_of(file: &Path, certificate: &str) -> Result<ClusterName, CertsError> {
    let not_ours = || CertsError::NotOurs { file: file.to_owned() };
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|_| not_ours())?;
    let parsed = pem.parse_x509().map_err(|_| not_ours())?;
    let organisation = parsed.subject().iter_organization().next().ok_or_else(not_ours)?;
    let name = organisation.as_str().map_err(|_| not_ours())?;
    name.parse().map_err(|source| CertsError::Cluster { file: file.to_owned(), source })
}

fn generate_key(what: &str) -> Result<KeyPair, CertsError> {
    KeyPair::generate().map_err(|source| CertsError::Make { what: what.to_owned(), source })
}

fn named(cluster: &ClusterName, name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, cluster.as_str());
    subject.push(DnType::CommonName, name);
    subject
}

fn valid_for(days: u32) -> CertificateParams {
    let since_epoch = clock::since_epoch();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + since_epoch.saturating_sub(SKEW);
    params.not_after = epoch + since_epoch + DAY * days;
    params
}
