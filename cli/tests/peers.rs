//! One agent calls another: over real connections, with certificates of a throw-away authority.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::net::SocketAddr;
use std::time::Duration;

use fake::{Authority, Served};
use holdfast_agent::chain::Chain;
use holdfast_agent::config::TlsConfig;
use holdfast_agent::peers::{Deadlines, PeerAddress, PeerClient, PeerError};
use holdfast_cli::certs::CertFiles;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

const DEADLINES: Deadlines =
    Deadlines { connect: Duration::from_millis(400), call: Duration::from_millis(600) };

fn peer(node: &str, zone: &str, address: SocketAddr) -> PeerAddress {
    let cluster = "orders".parse().unwrap();
    PeerAddress { cluster, node: node.parse().unwrap(), zone: zone.parse().unwrap(), address }
}

fn address(served: &Served) -> SocketAddr {
    let (host, port) = served.grpc.address();
    SocketAddr::new(host.parse().unwrap(), port)
}

/// Node n2, which calls.
fn caller(served: &Served) -> TlsConfig {
    served.authority.tls(&served.authority.node("n2"))
}

async fn why_not(client: &PeerClient) -> String {
    Chain(&client.status().await.unwrap_err()).to_string()
}

#[tokio::test]
async fn a_peer_says_how_it_is() {
    let served = Served::start(false).await;
    let client = PeerClient::new(peer("n1", "eu-1a", address(&served)), caller(&served), DEADLINES);
    assert_eq!(client.status().await.unwrap(), fake::view::serving());
    served.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_node_or_zone_is_refused() {
    let served = Served::start(false).await;
    let (at, own) = (address(&served), caller(&served));
    let answer = async |node, zone| {
        let client = PeerClient::new(peer(node, zone, at), own.clone(), DEADLINES);
        why_not(&client).await
    };
    let wrong_zone = answer("n1", "eu-1b").await;
    assert!(wrong_zone.contains("is holdfast://orders/node/eu-1a/n1"), "{wrong_zone}");
    assert!(wrong_zone.contains("holdfast://orders/node/eu-1b/n1 was expected"), "{wrong_zone}");
    let wrong_name = answer("n3", "eu-1a").await;
    assert!(wrong_name.contains("certificate not valid for name"), "{wrong_name}");
    // Every certificate of a node holds this name too: the URI decides.
    let wrong_node = answer("localhost", "eu-1a").await;
    assert!(wrong_node.contains("is holdfast://orders/node/eu-1a/n1"), "{wrong_node}");
    served.stop().await;
}

#[tokio::test]
async fn a_stranger_is_refused_from_either_side() {
    let (served, other) = (Served::start(false).await, Authority::of("orders"));
    let stranger = other.tls(&other.node("n2"));
    let at = peer("n1", "eu-1a", address(&served));
    let untrusting = why_not(&PeerClient::new(at.clone(), stranger.clone(), DEADLINES)).await;
    assert!(untrusting.contains("invalid peer certificate"), "{untrusting}");
    let untrusted = TlsConfig { ca: served.authority.ca(), ..stranger };
    let untrusted = why_not(&PeerClient::new(at, untrusted, DEADLINES)).await;
    assert!(untrusted.contains("received fatal alert"), "{untrusted}");
    served.stop().await;
}

#[tokio::test]
async fn certificates_are_read_anew_for_each_connection() {
    let served = Served::start(false).await;
    let own = caller(&served);
    let CertFiles { cert, key } = served.authority.node("n9");
    let files = TlsConfig { cert: served.authority.path().join("later.pem"), key, ..own };
    let client = PeerClient::new(peer("n1", "eu-1a", address(&served)), files.clone(), DEADLINES);
    let missing = why_not(&client).await;
    assert!(missing.contains("read certificate file") && missing.contains("later.pem"), "{missing}");
    std::fs::copy(cert, files.cert).unwrap();
    client.status().await.unwrap();
    served.stop().await;
}

/// A line to a peer that passes everything on, until it is told to hold its breath.
struct Line {
    at: SocketAddr,
    flows: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Line {
    async fn to(peer: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let flows = watch::Sender::new(true);
        let (mut tasks, seen) = (JoinSet::new(), flows.subscribe());
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let mut seen = seen.clone();
                lines.spawn(async move {
                    let mut far = TcpStream::connect(peer).await.unwrap();
                    seen.wait_for(|flows| *flows).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => return,
                        _ = seen.wait_for(|flows| !flows) => {}
                    }
                    // What was cut off once stays silent, as after a partition; it is not closed.
                    std::future::pending().await
                });
            }
        });
        Self { at, flows, _tasks: tasks }
    }
}

#[tokio::test]
async fn a_peer_that_hangs_costs_one_deadline_and_no_more() {
    let served = Served::start(false).await;
    let line = Line::to(address(&served)).await;
    let client = PeerClient::new(peer("n1", "eu-1a", line.at), caller(&served), DEADLINES);
    client.status().await.unwrap();
    line.flows.send_replace(false);
    for (what, at_most) in [("its connection", DEADLINES.call), ("a new one", DEADLINES.connect)] {
        let begun = Instant::now();
        let err = client.status().await.unwrap_err();
        let told = Chain(&err).to_string();
        assert!(begun.elapsed() < at_most + Duration::from_millis(250), "{what}: {:?}", begun.elapsed());
        let late = matches!(err, PeerError::Late { .. }) || told.contains("not connected in time");
        assert!(late, "{what}: {told}");
    }
    line.flows.send_replace(true);
    client.status().await.unwrap();
    drop(line);
    served.stop().await;
}

#[tokio::test]
async fn a_peer_that_comes_back_is_heard_again() {
    let served = Served::start(false).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = nobody.local_addr().unwrap();
    drop(nobody);
    let client = PeerClient::new(peer("n1", "eu-1a", at), caller(&served), DEADLINES);
    let refused = why_not(&client).await;
    let expected = format!("call n1: transport error: connect to {at}: Connection refused (os error 111)");
    assert_eq!(refused, expected);
    let listener = TcpListener::bind(at).await.unwrap();
    let mut tasks = JoinSet::new();
    let to = address(&served);
    tasks.spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        drop(copy_bidirectional(&mut near, &mut far).await);
    });
    client.status().await.unwrap();
    served.stop().await;
}
