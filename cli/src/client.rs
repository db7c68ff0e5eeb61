//! A mutually verified connection to an agent.
//!
//! The agent must show a certificate that chains to the given authorities and names the host that was asked for; what it
//! may do is not judged here. TLS 1.3 only, as the agent speaks nothing older.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::v1::backup_service_client::BackupServiceClient;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::lifecycle_service_client::LifecycleServiceClient;
use holdfast_proto::v1::node_service_client::NodeServiceClient;
use holdfast_proto::v1::operation_service_client::OperationServiceClient;
use holdfast_proto::v1::volume_service_client::VolumeServiceClient;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;

use crate::endpoint::Endpoint;
use crate::failure::{Failure, tls_error};

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// A dead agent on the other end of a watch is noticed after interval + deadline.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(5);

/// Files that say who is calling, and whom to believe.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Authorities that the agent must chain to.
    pub ca: PathBuf,
    /// One's own certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read, or holds no PEM of the kind that is wanted.
    #[error("read {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key do not serve together, or an authority is not valid.
    #[error("use {}", file.display())]
    Rustls {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// [`CredentialsError`], naming the file.
    pub fn load(&self) -> Result<Arc<ClientConfig>, CredentialsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.ca)? {
            roots
                .add(authority)
                .map_err(|source| CredentialsError::Rustls { file: self.ca.clone(), source })?;
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|source| CredentialsError::Read { file: self.key.clone(), source })?;
        let mut config = tls13(roots)
            .with_client_auth_cert(certificates(&self.cert)?, key)
            .map_err(|source| CredentialsError::Rustls { file: self.cert.clone(), source })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

fn tls13(roots: RootCertStore) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("aws-lc-rs speaks TLS 1.3")
        .with_root_certificates(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|source| CredentialsError::Read { file: file.to_owned(), source })
}

/// A connected agent.
#[derive(Debug, Clone)]
pub struct Agent {
    channel: Channel,
}

/// Connects to the first of `endpoints` that answers.
///
/// # Errors
/// [`Failure::NotAccepted`] when TLS refuses, [`Failure::Unreachable`] naming each endpoint's error.
pub async fn connect(endpoints: &[Endpoint], config: Arc<ClientConfig>) -> Result<Agent, Failure> {
    let mut tried = Vec::new();
    for endpoint in endpoints {
        match connect_one(endpoint, Arc::clone(&config)).await {
            Ok(channel) => return Ok(Agent { channel }),
            Err(err) => {
                if let Some(refused) = tls_error(&err) {
                    return Err(Failure::NotAccepted(format!("{endpoint}: {refused}")));
                }
                let cause =
                    std::error::Error::source(&err).map_or_else(|| err.to_string(), ToString::to_string);
                tried.push(format!("{endpoint}: {cause}"));
            }
        }
    }
    Err(Failure::Unreachable(tried.join("; ")))
}

async fn connect_one(
    endpoint: &Endpoint,
    config: Arc<ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let to = endpoint.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (to, config) = (to.clone(), Arc::clone(&config));
        async move {
            let mut stream = dial(&to, config).await?;
            first_word(&mut stream).await?;
            io::Result::Ok(TokioIo::new(stream))
        }
    });
    tonic::transport::Endpoint::from_shared(endpoint.to_string())?
        .connect_timeout(CONNECT_DEADLINE)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_DEADLINE)
        .connect_with_connector(connector)
        .await
}

/// Waits for the agent's first bytes of HTTP/2, which it sends unasked, and leaves them to be read.
///
/// With TLS 1.3 a handshake looks done from here before the agent has judged our certificate. Without this wait its
/// refusal would come up somewhere in HTTP/2, where it is text and no longer a [`rustls::Error`].
async fn first_word(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    tokio::time::timeout(CONNECT_DEADLINE, stream.fill_buf())
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 in time")))
        .map(drop)
}

/// Connects and shakes hands; for tests that speak something else than `holdfast.v1`.
///
/// # Errors
/// Those of the socket; a TLS error is inside, see [`tls_error`].
pub async fn dial(endpoint: &Endpoint, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let shake_hands = async {
        let stream = TcpStream::connect(endpoint.address()).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(config).connect(endpoint.server_name(), stream).await
    };
    tokio::time::timeout(CONNECT_DEADLINE, shake_hands)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

impl Agent {
    /// The channel, for services that are not of `holdfast.v1`.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// `NodeService`.
    #[must_use]
    pub fn node(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel())
    }

    /// `VolumeService`.
    #[must_use]
    pub fn volume(&self) -> VolumeServiceClient<Channel> {
        VolumeServiceClient::new(self.channel())
    }

    /// `LifecycleService`.
    #[must_use]
    pub fn lifecycle(&self) -> LifecycleServiceClient<Channel> {
        LifecycleServiceClient::new(self.channel())
    }

    /// `BackupService`.
    #[must_use]
    pub fn backup(&self) -> BackupServiceClient<Channel> {
        BackupServiceClient::new(self.channel())
    }

    /// `ClusterService`.
    #[must_use]
    pub fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel())
    }

    /// `OperationService`.
    #[must_use]
    pub fn operation(&self) -> OperationServiceClient<Channel> {
        OperationServiceClient::new(self.channel())
    }
}
