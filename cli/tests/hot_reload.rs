//! Certificates change under a running acceptor.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::sync::Arc;

use fake::Authority;
use holdfast_agent::tls::reload::Looked;
use holdfast_agent::tls::{Acceptor, Reloader};
use holdfast_cli::certs::CertFiles;
use holdfast_cli::client::dial;
use holdfast_cli::endpoint::Endpoint;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// An acceptor with files that are swapped by hand; ends when dropped.
struct Accepting {
    authority: Authority,
    node: CertFiles,
    reloader: Reloader,
    endpoint: Endpoint,
    client: Arc<ClientConfig>,
    _tasks: JoinSet<()>,
    _connections: mpsc::Receiver<holdfast_agent::tls::Connection>,
}

impl Accepting {
    async fn start() -> Self {
        let authority = Authority::of("orders");
        let node = authority.node("n1");
        let client = authority.credentials(&authority.user("ops", [])).load().unwrap();
        let own = "holdfast://orders/node/eu-1a/n1".parse().unwrap();
        let reloader = Reloader::start(authority.tls(&node), own).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (connected, connections) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        tasks.spawn(Acceptor::new(listener, reloader.config()).run(connected, CancellationToken::new()));
        Self { authority, node, reloader, endpoint, client, _tasks: tasks, _connections: connections }
    }

    async fn shown(&self) -> CertificateDer<'static> {
        let stream = dial(&self.endpoint, Arc::clone(&self.client)).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    fn on_disk(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.node.cert).unwrap()
    }

    fn remove(&self) {
        std::fs::remove_file(&self.node.cert).unwrap();
        std::fs::remove_file(&self.node.key).unwrap();
    }
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart() {
    let mut accepting = Accepting::start().await;
    let first = accepting.on_disk();
    assert_eq!(accepting.shown().await, first);
    assert_eq!(accepting.reloader.look().unwrap(), Looked::Same);

    accepting.remove();
    accepting.authority.node("n1");
    assert_eq!(accepting.shown().await, first, "not before anybody looked");
    assert_eq!(accepting.reloader.look().unwrap(), Looked::Swapped);
    assert_ne!(accepting.on_disk(), first);
    assert_eq!(accepting.shown().await, accepting.on_disk());
}

#[tokio::test]
async fn a_broken_set_leaves_the_old_one_in_force() {
    let mut accepting = Accepting::start().await;
    let (first, key) = (accepting.on_disk(), std::fs::read(&accepting.node.key).unwrap());

    accepting.remove();
    accepting.reloader.look().unwrap_err();
    assert_eq!(accepting.shown().await, first, "files are gone for a moment");

    accepting.authority.node("n1");
    let new_key = std::fs::read(&accepting.node.key).unwrap();
    std::fs::write(&accepting.node.key, key).unwrap();
    accepting.reloader.look().unwrap_err();
    assert_eq!(accepting.shown().await, first, "the certificate was replaced, its key not yet");
    assert_eq!(accepting.reloader.look().unwrap(), Looked::Same, "a refused set is told once");

    std::fs::write(&accepting.node.key, new_key).unwrap();
    assert_eq!(accepting.reloader.look().unwrap(), Looked::Swapped);
    assert_eq!(accepting.shown().await, accepting.on_disk());
}

#[tokio::test]
async fn a_certificate_of_another_node_is_not_taken() {
    let mut accepting = Accepting::start().await;
    let first = accepting.on_disk();
    let other = accepting.authority.node("n2");
    std::fs::copy(&other.cert, &accepting.node.cert).unwrap();
    std::fs::copy(&other.key, &accepting.node.key).unwrap();
    let err = accepting.reloader.look().unwrap_err();
    assert!(err.to_string().contains("holdfast://orders/node/eu-1a/n2"), "{err}");
    assert_eq!(accepting.shown().await, first);
}
