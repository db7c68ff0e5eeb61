//! Calls every RPC of the descriptor and every HTTP path of a served agent, as everybody who may not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::net::SocketAddr;
use std::sync::Arc;

use fake::{Authority, Served};
use holdfast_agent::api::authorise::required_role;
use holdfast_agent::api::plain::PATHS;
use holdfast_cli::client::{Agent, connect};
use holdfast_proto::identity::Role;
use holdfast_proto::refusal::{Reason, Refusal};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Request, Status};

fn every_path() -> Vec<String> {
    let mut paths = Vec::new();
    for encoded in [
        holdfast_proto::DESCRIPTOR,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        for file in FileDescriptorSet::decode(encoded).unwrap().file {
            for service in &file.service {
                for method in &service.method {
                    paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
    }
    paths
}

/// Calls `path` with an empty message. A stream that is admitted answers with its head, which is all that is read.
async fn call(agent: &Agent, path: &str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(agent.channel());
    client.ready().await.map_err(|err| Status::from_error(Box::new(err)))?;
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client.server_streaming(Request::new(()), path.parse().unwrap(), codec).await.map(drop)
}

#[tokio::test]
async fn every_rpc_refuses_a_caller_without_the_role() {
    let served = Served::start(true).await;
    for role in Role::ALL {
        let all_but_one = Role::ALL.into_iter().filter(|other| *other != role);
        let files = served.authority.user(&format!("no-{role}"), all_but_one);
        let agent =
            connect(std::slice::from_ref(&served.grpc), served.authority.credentials(&files).load().unwrap())
                .await
                .unwrap();
        for path in every_path().iter().filter(|path| required_role(path) == Some(role)) {
            let status = call(&agent, path).await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{path}");
            let refusal = Refusal::from_status(&status).unwrap();
            assert_eq!(refusal.reason, Reason::RoleMissing, "{path}");
            assert!(refusal.resolve.contains(role.word()), "{path}: {}", refusal.resolve);
        }
    }
    assert_eq!(served.asked(), [""; 0], "no refused call may reach the daemon");
    served.stop().await;
}

#[tokio::test]
async fn every_rpc_refuses_a_caller_without_roles_and_admits_one_with_all() {
    let served = Served::start(true).await;
    let nobody = served.authority.user("nobody", []);
    let everybody = served.authority.user("everybody", Role::ALL);
    let endpoints = std::slice::from_ref(&served.grpc);
    let poor = connect(endpoints, served.authority.credentials(&nobody).load().unwrap()).await.unwrap();
    let rich = connect(endpoints, served.authority.credentials(&everybody).load().unwrap()).await.unwrap();
    for path in every_path() {
        assert_eq!(call(&poor, &path).await.unwrap_err().code(), Code::PermissionDenied, "{path}");
        if let Err(status) = call(&rich, &path).await {
            let denied =
                matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented);
            assert!(!denied, "{path} must be open to somebody: {status}");
        }
    }
    for path in ["/holdfast.v1.NodeService/Nothing", "/metrics", "/x.Y/Z"] {
        let refusal = Refusal::from_status(&call(&poor, path).await.unwrap_err()).unwrap();
        let expected = if path.contains("NodeService") { Reason::RoleMissing } else { Reason::UnknownMethod };
        assert_eq!(refusal.reason, expected, "{path}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_caller_without_a_certificate_gets_no_connection() {
    let served = Served::start(true).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(served.authority.ca()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut bare = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    bare.alpn_protocols = vec![b"h2".to_vec()];
    // Refused by the handshake: there is no connection on which any RPC could be called.
    let failure = connect(std::slice::from_ref(&served.grpc), Arc::new(bare)).await.unwrap_err();
    assert_eq!(failure.exit_code(), 5, "{failure}");
    assert_eq!(served.asked(), [""; 0]);
    served.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_accepted() {
    let served = Served::start(true).await;
    let other = Authority::of("orders");
    let mut stranger = other.credentials(&other.user("ops", Role::ALL));
    stranger.ca = served.authority.ca();
    let failure = connect(std::slice::from_ref(&served.grpc), stranger.load().unwrap()).await.unwrap_err();
    assert_eq!(failure.exit_code(), 5, "{failure}");
    served.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused_even_by_a_trusted_authority() {
    let (orders, billing) = (Authority::of("orders"), Authority::of("billing"));
    let both = [std::fs::read(orders.ca()).unwrap(), std::fs::read(billing.ca()).unwrap()].concat();
    std::fs::write(orders.ca(), both).unwrap();
    let served = Served::start_with(orders, true).await;
    let mut credentials = billing.credentials(&billing.user("ops", Role::ALL));
    credentials.ca = served.authority.ca();
    let agent = connect(std::slice::from_ref(&served.grpc), credentials.load().unwrap()).await.unwrap();
    for path in every_path() {
        let status = call(&agent, &path).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{path}");
        assert_eq!(Refusal::from_status(&status).unwrap().reason, Reason::OtherCluster, "{path}");
    }
    served.stop().await;
}

async fn http(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A TLS port may reset a connection that speaks plain HTTP; what came before that is the answer.
    stream.read_to_end(&mut answer).await.unwrap_or_default();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(to: SocketAddr, path: &str) -> (String, String) {
    let answer = http(to, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn exactly_the_five_plain_paths_answer_without_a_certificate() {
    let served = Served::start(true).await;
    let mut told = Vec::new();
    for path in PATHS {
        let (code, body) = get(served.http, path).await;
        told.push((path, code, body));
    }
    let told: Vec<_> = told.iter().map(|(path, code, body)| (*path, code.as_str(), body.as_str())).collect();
    assert_eq!(
        told,
        [
            ("/livez", "200", "alive\n"),
            ("/readyz", "200", "open\n"),
            ("/primary", "200", "open\n"),
            ("/replica", "503", "open\n"),
            ("/metrics", "200", "# EOF\n"),
        ]
    );
    let rpcs = every_path();
    let others = ["/", "/status", "/livez/", "/metrics/x", "//livez", "/debug/pprof", "/%6civez"];
    for path in others.into_iter().chain(rpcs.iter().map(String::as_str)) {
        assert_eq!(get(served.http, path).await.0, "404", "{path}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let head =
            format!("{method} /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        assert!(http(served.http, &head).await.starts_with("HTTP/1.1 405"), "{method}");
    }
    served.stop().await;
}

#[tokio::test]
async fn the_grpc_port_answers_no_plain_http() {
    let served = Served::start(true).await;
    let (host, port) = served.grpc.address();
    let to = SocketAddr::new(host.parse().unwrap(), port);
    for path in PATHS {
        let answer = http(to, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
        assert!(!answer.contains("HTTP"), "{path}: {answer:?}");
    }
    served.stop().await;
}
