//! Puts the services on two listeners: gRPC with mutual TLS, and plain HTTP. Ends when cancelled.
//!
//! Not here: binding the listeners (the daemon does, so that a port that is taken is told before anything starts).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use holdfast_model::ClusterName;
use holdfast_proto::v1::backup_service_server::BackupServiceServer;
use holdfast_proto::v1::cluster_service_server::ClusterServiceServer;
use holdfast_proto::v1::lifecycle_service_server::LifecycleServiceServer;
use holdfast_proto::v1::member_service_server::MemberServiceServer;
use holdfast_proto::v1::node_service_server::NodeServiceServer;
use holdfast_proto::v1::operation_service_server::OperationServiceServer;
use holdfast_proto::v1::volume_service_server::VolumeServiceServer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tracing::warn;

use super::authorise::AuthoriseLayer;
use super::bounded::{self, Bounds};
use super::control::Control;
use super::health;
use super::plain::{self, MetricsText};
use super::services::Services;
use crate::chain::Chain;
use crate::crew::{Crew, CrewError};
use crate::tls::{Acceptor, Connection, Reloader};

/// How long a unary call may take before it is answered with `DEADLINE_EXCEEDED`.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long open connections may take to finish once the daemon stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How often certificate files are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// After this a connection is asked to end, so that clients come back with new certificates and are judged again.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3600);
const CONNECTION_AGE_GRACE: Duration = Duration::from_secs(60);
const KEEPALIVE: Duration = Duration::from_secs(20);
const STREAMS_PER_CONNECTION_MAX: u32 = 64;
const CALLS_PER_CONNECTION_MAX: usize = 32;
/// As many as the gRPC listener takes; an answer is a few KiB at most, and every prober asks again.
const PLAIN_BOUNDS: Bounds = Bounds { connections: 256, deadline: Duration::from_secs(10) };

/// What the configuration says about the API.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// Certificates must belong to this cluster.
    pub cluster: ClusterName,
    /// Whether volumes may be formatted and wiped by RPC.
    pub remote_format: bool,
}

/// Everything that the API is made of.
#[derive(Debug)]
pub struct Api<C> {
    /// Where gRPC listens.
    pub grpc: TcpListener,
    /// Where the plain paths listen.
    pub http: TcpListener,
    /// The node's certificates.
    pub tls: Reloader,
    /// The daemon.
    pub control: Arc<C>,
    /// The metrics.
    pub metrics: MetricsText,
    /// Configuration.
    pub options: ApiOptions,
}

/// Why the API ended.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The descriptor that was built in cannot be read.
    #[error("build the reflection service")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A loop ended by itself, or did not end in time.
    #[error("serve the API")]
    Crew(#[from] CrewError),
}

/// Serves until `cancel`, then lets calls under way finish for a few seconds.
///
/// # Errors
/// [`ApiError`].
pub async fn serve<C: Control>(api: Api<C>, cancel: CancellationToken) -> Result<(), ApiError> {
    let Api { grpc, http, tls, control, metrics, options } = api;
    let (reporter, health) = tonic_health::server::health_reporter();
    let services = Services {
        control: Arc::clone(&control),
        remote_format: options.remote_format,
        cancel: cancel.clone(),
    };
    let routes = routes(services)?.add_service(health);
    let (connected, connections) = mpsc::channel(16);
    let acceptor = Acceptor::new(grpc, tls.config());
    let view = control.view();

    let mut crew = Crew::new(cancel.child_token());
    crew.add("tls reload", |cancel| tls.run(RELOAD_EVERY, cancel));
    crew.add("tls accept", |cancel| acceptor.run(connected, cancel));
    crew.add("grpc", |cancel| serve_grpc(routes, AuthoriseLayer::new(options.cluster), connections, cancel));
    let router = plain::router(view.clone(), metrics);
    crew.add("http", |cancel| bounded::serve(http, router, PLAIN_BOUNDS, cancel));
    crew.add("health", |cancel| health::follow(reporter, view, cancel));
    match crew.run(DRAIN).await {
        // A loop may see the end before the crew does: once asked to stop, ending is what loops shall do.
        Err(CrewError::EndedEarly(_)) if cancel.is_cancelled() => Ok(()),
        ended => Ok(ended?),
    }
}

fn routes<C: Control>(services: Services<C>) -> Result<Routes, tonic_reflection::server::Error> {
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(holdfast_proto::DESCRIPTOR)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::new(NodeServiceServer::new(services.clone()))
        .add_service(OperationServiceServer::new(services.clone()))
        .add_service(VolumeServiceServer::new(services.clone()))
        .add_service(LifecycleServiceServer::new(services.clone()))
        .add_service(BackupServiceServer::new(services.clone()))
        .add_service(MemberServiceServer::new(services.clone()))
        .add_service(ClusterServiceServer::new(services))
        .add_service(described().build_v1()?)
        .add_service(described().build_v1alpha()?))
}

async fn serve_grpc(
    routes: Routes,
    authorise: AuthoriseLayer,
    connections: mpsc::Receiver<Connection>,
    cancel: CancellationToken,
) {
    let incoming = ReceiverStream::new(connections).map(Ok::<_, std::io::Error>);
    let served = Server::builder()
        .timeout(CALL_TIMEOUT)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .load_shed(true)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_connection_age(CONNECTION_AGE_MAX)
        .max_connection_age_grace(CONNECTION_AGE_GRACE)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(authorise)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, cancel.cancelled_owned())
        .await;
    if let Err(err) = served {
        warn!(error = %Chain(&err), "gRPC service ended");
    }
}
