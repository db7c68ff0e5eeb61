//! Reads who a verified certificate names. The chain was verified in the handshake; this only reads the name.

use std::net::SocketAddr;

use holdfast_proto::identity::{Identity, ParseIdentityError, SCHEME};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why a verified certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoIdentity {
    /// The handshake ended without one; the configuration rules this out.
    #[error("the caller showed no certificate")]
    NoCertificate,
    /// It is not X.509.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// It holds no URI of ours.
    #[error("the certificate has no {SCHEME} URI among its alternative names")]
    NoUri,
    /// It holds several; which one counts must not be a matter of order.
    #[error("the certificate has more than one {SCHEME} URI among its alternative names")]
    ManyUris,
    /// It holds one that says nothing.
    #[error("the certificate's {SCHEME} URI is not valid: {0}")]
    BadUri(ParseIdentityError),
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it calls from.
    pub address: SocketAddr,
    /// Who it is, or why that is not known; such a caller is refused by `api::authorise`.
    pub identity: Result<Identity, NoIdentity>,
}

/// Whom the first certificate of a verified chain names.
///
/// # Errors
/// [`NoIdentity`].
pub fn identify(chain: Option<&[CertificateDer<'_>]>) -> Result<Identity, NoIdentity> {
    let leaf = chain.and_then(<[_]>::first).ok_or(NoIdentity::NoCertificate)?;
    let unreadable = |err: &dyn std::error::Error| NoIdentity::Unreadable(err.to_string());
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|err| unreadable(&err))?;
    let names = certificate.subject_alternative_name().map_err(|err| unreadable(&err))?;
    let mut uris = names.iter().flat_map(|extension| &extension.value.general_names).filter_map(ours);
    match (uris.next(), uris.next()) {
        (None, _) => Err(NoIdentity::NoUri),
        (Some(uri), None) => uri.parse().map_err(NoIdentity::BadUri),
        (Some(_), Some(_)) => Err(NoIdentity::ManyUris),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "kinds of names of X.509: all but one are ignored")]
fn ours<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(uri),
        _ => None,
    }
}
