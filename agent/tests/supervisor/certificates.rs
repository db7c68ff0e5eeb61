//! The engine's certificates: copies of the node's own, which a real server reads, and nothing that the daemon may not read.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_agent::child::process::ProcessId;
use holdfast_agent::helper::protocol::{EngineProgram, Failure};
use nix::unistd::User;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::node::{DAEMON, ENGINE, Node, SOON};

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Puts the certificate files of `n1` where the configuration names them, readable by the daemon alone.
    fn issue(&self, node: &Node) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["n1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::create_dir_all(node.path("pki")).unwrap();
        put(node, "pki/ca.pem", &self.pem);
        put(node, "pki/node.pem", &certificate.pem());
        put(node, "pki/node.key", &key.serialize_pem());
    }
}

fn put(node: &Node, name: &str, text: &str) {
    let path = node.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    node.give_to_daemon(&path);
}

fn owner_and_mode(path: &Path) -> (u32, u32) {
    let found = fs::metadata(path).unwrap();
    (found.uid(), found.mode() & 0o7777)
}

/// Postgres 15, as Debian has it.
fn bin_dir() -> PathBuf {
    let dir = PathBuf::from("/usr/lib/postgresql/15/bin");
    assert!(dir.join("postgres").exists(), "postgres 15 is not installed: run make tools");
    dir
}

/// Starts a real server with the engine's copies on a port of its own, and waits until it listens.
async fn start_postgres(node: &mut Node) -> (ProcessId, u16) {
    let config = fs::read_to_string(node.path("holdfast.toml")).unwrap();
    let bin = format!("bin_dir = \"{}\"", node.path("bin").display());
    assert!(config.contains(&bin), "{config}");
    let config = config.replace(&bin, &format!("bin_dir = \"{}\"", bin_dir().display()));
    fs::write(node.path("holdfast.toml"), config).unwrap();
    node.kill_agent().await;
    node.start_agent().await;
    let data = node.mount().join("pgdata").display().to_string();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let args = words(&["-D", &data, "--username=holdfast", "--auth=reject", "--locale=C", "--no-sync"]);
    node.supervisor().run_to_end(EngineProgram::InitDb, args, SOON).await.unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tls = node.engine_tls();
    let mut args = words(&["-D", &data]);
    for setting in [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        "ssl=on".to_owned(),
        format!("ssl_ca_file={}", tls.ca.display()),
        format!("ssl_cert_file={}", tls.cert.display()),
        format!("ssl_key_file={}", tls.key.display()),
    ] {
        args.extend(["-c".to_owned(), setting]);
    }
    let record = node.supervisor().start(EngineProgram::Postgres, args).await.unwrap();
    node.wait_for_log("database system is ready to accept connections").await;
    (record.process, port)
}

/// The certificate that the server shows, verified with the authorities that the engine has.
async fn shown(node: &Node, port: u16) -> CertificateDer<'static> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(node.engine_tls().ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // SSLRequest: its length and its code ("Message Formats" in the documentation of PostgreSQL).
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
    let name = ServerName::try_from("n1").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn the_engine_serves_with_its_copies_of_the_nodes_certificate() {
    let mut node = Node::new().await;
    node.format().await;
    Authority::new().issue(&node);
    assert!(node.client().install_tls(SOON).await.unwrap());
    assert!(!node.client().install_tls(SOON).await.unwrap(), "nothing changed");
    let tls = node.engine_tls();
    let engine = User::from_name(ENGINE).unwrap().unwrap().uid.as_raw();
    assert_eq!(owner_and_mode(&tls.key), (engine, 0o600));
    for open in [&tls.ca, &tls.cert] {
        assert_eq!(owner_and_mode(open), (0, 0o644));
    }
    assert_eq!(owner_and_mode(tls.key.parent().unwrap()), (0, 0o755));

    let (process, port) = start_postgres(&mut node).await;
    let before = shown(&node, port).await;
    assert_eq!(before, CertificateDer::from_pem_file(node.path("pki/node.pem")).unwrap());

    // Another authority as well: the whole set is taken over.
    Authority::new().issue(&node);
    assert!(node.client().install_tls(SOON).await.unwrap());
    node.supervisor().reload(process).await.unwrap();
    node.wait_for_log("received SIGHUP, reloading configuration files").await;
    let after = shown(&node, port).await;
    assert_ne!(after, before);
    assert_eq!(after, CertificateDer::from_pem_file(node.path("pki/node.pem")).unwrap());
    assert!(!node.log().contains("could not load"), "{}", node.log());
}

#[tokio::test]
async fn a_key_of_another_certificate_replaces_nothing() {
    let node = Node::new().await;
    Authority::new().issue(&node);
    node.client().install_tls(SOON).await.unwrap();
    let tls = node.engine_tls();
    let read = || [&tls.ca, &tls.cert, &tls.key].map(|path| fs::read(path).unwrap());
    let before = read();
    let key = fs::read_to_string(node.path("pki/node.key")).unwrap();
    Authority::new().issue(&node);
    put(&node, "pki/node.key", &key);
    let err = node.client().install_tls(SOON).await.unwrap_err();
    let Some(Failure::Helper { error, .. }) = err.failure() else { panic!("{err:?}") };
    let (key, cert) = (node.path("pki/node.key"), node.path("pki/node.pem"));
    let named = format!("key {} does not belong to certificate {}", key.display(), cert.display());
    assert!(error.contains(&named), "{error}");
    assert_eq!(read(), before);
}

#[tokio::test]
async fn the_helper_copies_nothing_that_the_daemon_may_not_read() {
    let node = Node::new().await;
    Authority::new().issue(&node);
    // A key that is root's, with its certificate for anybody to see: a link to it must not give it to the engine.
    fs::rename(node.path("pki/node.key"), node.path("roots.key")).unwrap();
    nix::unistd::chown(&node.path("roots.key"), Some(0.into()), Some(0.into())).unwrap();
    symlink(node.path("roots.key"), node.path("pki/node.key")).unwrap();
    let err = node.client().install_tls(SOON).await.unwrap_err();
    let Some(Failure::Helper { error, .. }) = err.failure() else { panic!("{err:?}") };
    assert!(error.contains("pki/node.key: Permission denied"), "{error}");
    assert!(!node.engine_tls().key.exists());
}

#[tokio::test]
async fn without_root_the_certificates_are_the_one_users() {
    let mut node = Node::new().await;
    node.kill_agent().await;
    Authority::new().issue(&node);
    for name in ["", "dev"] {
        node.give_to_daemon(&node.path(name));
    }
    node.start_agent_through(&["setpriv", "--reuid", DAEMON, "--regid", DAEMON, "--clear-groups"]).await;
    assert!(node.client().install_tls(SOON).await.unwrap());
    let daemon = User::from_name(DAEMON).unwrap().unwrap().uid.as_raw();
    assert_eq!(owner_and_mode(&node.path("state/engine-tls/key.pem")), (daemon, 0o600));
    assert!(!node.engine_tls().key.exists());
}
