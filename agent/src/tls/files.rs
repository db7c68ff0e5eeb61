//! The node's certificate files, read and checked whole: a set that could not serve is an error here, not in a handshake.
//!
//! Not here: when to read them again ([`super::reload`]); making them (`holdfast certs`).

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_proto::identity::Identity;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider};

use super::peer::{NoIdentity, identify};
use crate::config::TlsConfig;

/// Why a set of certificate files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read certificate file {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds no PEM of the kind that is wanted.
    #[error("parse certificate file {}", file.display())]
    Pem {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("certificate file {} holds no certificate", file.display())]
    Empty {
        /// Which.
        file: PathBuf,
    },
    /// The node's certificate names nobody.
    #[error("read the identity in {}", file.display())]
    NoIdentity {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: NoIdentity,
    },
    /// The node's certificate is another's.
    #[error("{} belongs to {found}, this node is {own}: issue a certificate for it", file.display())]
    NotOurs {
        /// Which.
        file: PathBuf,
        /// Whom it names.
        found: Box<Identity>,
        /// Whom it should name.
        own: Box<Identity>,
    },
    /// The key is another certificate's: one of the two was replaced and the other not yet.
    #[error("key {} does not belong to certificate {}", key.display(), cert.display())]
    OtherKey {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The authorities cannot verify anybody.
    #[error("use the authorities of {}", file.display())]
    Authorities {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
    /// Certificate and key do not serve together, or an authority is not valid.
    #[error("use {} with its key", file.display())]
    Rustls {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// What the three files held at one moment.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Contents {
    /// Shows nothing: there is a key in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contents")
    }
}

impl Contents {
    /// Reads the three files of `files`; blocks.
    ///
    /// # Errors
    /// [`TlsError::Read`], also for a file above a mebibyte.
    pub fn read(files: &TlsConfig) -> Result<Self, TlsError> {
        let read = |file: &PathBuf| {
            read_limited(file).map_err(|source| TlsError::Read { file: file.clone(), source })
        };
        Ok(Self { ca: read(&files.ca)?, cert: read(&files.cert)?, key: read(&files.key)? })
    }

    /// Authorities, certificates and key, as they were read.
    pub(crate) fn pem(&self) -> (&[u8], &[u8], &[u8]) {
        (&self.ca, &self.cert, &self.key)
    }

    /// Whether certificate and key belong together, and there is an authority: what any server needs of them.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn check(&self, files: &TlsConfig) -> Result<(), TlsError> {
        certificates(&files.ca, &self.ca)?;
        self.certified_key(files, &rustls::crypto::aws_lc_rs::default_provider())?;
        Ok(())
    }

    fn certified_key(&self, files: &TlsConfig, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&files.cert, &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|source| TlsError::Pem { file: files.key.clone(), source })?;
        CertifiedKey::from_der(chain, key, provider).map_err(|source| {
            let (cert, key) = (files.cert.clone(), files.key.clone());
            if matches!(source, rustls::Error::InconsistentKeys(_)) {
                TlsError::OtherKey { cert, key }
            } else {
                TlsError::Rustls { file: cert, source }
            }
        })
    }

    /// Makes the configuration: TLS 1.3, HTTP/2, callers must show a certificate that chains to `files.ca`, and the
    /// node's own certificate must name `own`.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn server_config(&self, files: &TlsConfig, own: &Identity) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certified = self.certified_key(files, &provider)?;
        check_own(files, &certified.cert, own)?;
        let with_key = |source| TlsError::Rustls { file: files.cert.clone(), source };
        let verifier = self.verifier(files, Arc::clone(&provider))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(with_key)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// Makes the configuration for calling other nodes as this one: TLS 1.3, HTTP/2, whoever answers must chain to
    /// `files.ca`.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn client_config(&self, files: &TlsConfig) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|source| TlsError::Pem { file: files.key.clone(), source })?;
        let with_key = |source| TlsError::Rustls { file: files.cert.clone(), source };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(with_key)?
            .with_root_certificates(self.authorities(files)?)
            .with_client_auth_cert(certificates(&files.cert, &self.cert)?, key)
            .map_err(with_key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn verifier(
        &self,
        files: &TlsConfig,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
        WebPkiClientVerifier::builder_with_provider(Arc::new(self.authorities(files)?), provider)
            .build()
            .map_err(|source| TlsError::Authorities { file: files.ca.clone(), source })
    }

    fn authorities(&self, files: &TlsConfig) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.ca, &self.ca)? {
            roots.add(authority).map_err(|source| TlsError::Rustls { file: files.ca.clone(), source })?;
        }
        Ok(roots)
    }
}

/// A certificate file is a few kilobytes; whoever owns it may not fill memory.
fn read_limited(file: &Path) -> io::Result<Vec<u8>> {
    const LIMIT: u64 = 1 << 20;
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem { file: file.to_owned(), source })?;
    if certificates.is_empty() { Err(TlsError::Empty { file: file.to_owned() }) } else { Ok(certificates) }
}

fn check_own(files: &TlsConfig, chain: &[CertificateDer<'_>], own: &Identity) -> Result<(), TlsError> {
    let file = files.cert.clone();
    match identify(Some(chain)) {
        Ok(found) if found.names_the_same_as(own) => Ok(()),
        Ok(found) => Err(TlsError::NotOurs { file, found: Box::new(found), own: Box::new(own.clone()) }),
        Err(source) => Err(TlsError::NoIdentity { file, source }),
    }
}
