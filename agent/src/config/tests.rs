//! What the configuration accepts, and how it refuses.

use std::path::Path;

use super::*;

const GOOD: &str = r#"
[cluster]
name = "orders"
[node]
name = "n1"
zone = "eu-1a"
[volume]
kind = "block"
devices = ["/dev/loop0"]
[engine]
bin_dir = "/usr/lib/postgresql/15/bin"
settings = { max_connections = 200, shared_buffers = "256MB" }
[tls]
ca = "/e/ca.pem"
cert = "/e/n.pem"
key = "/e/n.key"
"#;

fn issues(text: &str) -> Vec<String> {
    match Config::parse(Path::new("/t.toml"), text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(ConfigError::Invalid { issues, .. }) => issues.iter().map(ToString::to_string).collect(),
        Err(err @ (ConfigError::Read { .. } | ConfigError::Syntax { .. })) => panic!("{err}"),
    }
}

#[test]
fn defaults_are_filled_in() {
    let config = Config::parse(Path::new("/t.toml"), GOOD).unwrap();
    assert_eq!(config.daemon.state_dir, Path::new("/var/lib/holdfast/orders"));
    assert_eq!(config.volume.mount, Path::new("/srv/holdfast/orders"));
    assert_eq!(config.volume.stall_deadline, Duration::from_secs(2));
    assert_eq!(config.when_all_lost, WhenAllLost::Refuse);
    assert_eq!(config.engine.settings[0], ("max_connections".to_owned(), "200".to_owned()));
    assert!(config.repository.is_none());
}

#[test]
fn every_error_is_told_at_once() {
    let text = r#"
        [cluster]
        name = "Bad Name"
        [volume]
        kind = "floppy"
        probe_interval = "3s"
        reserve = "lots"
        [engine]
        port = 70000
        [recovery]
        when_all_lost = "pray"
        [tls]
        ca = "relative.pem"
    "#;
    let all = issues(text).join("\n");
    for field in [
        "cluster.name",
        "node.name",
        "node.zone",
        "volume.kind",
        "volume.probe_interval",
        "volume.reserve",
        "engine.bin_dir",
        "engine.port",
        "recovery.when_all_lost",
        "tls.ca",
        "tls.cert",
        "tls.key",
    ] {
        assert!(all.contains(&format!("{field}:")), "{field} is missing in:\n{all}");
    }
}

#[test]
fn an_unknown_field_is_an_error() {
    let all = issues(&format!("{GOOD}\n[log]\nintervall = \"1s\"\n[lgo]\nx = 1\n"));
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all.contains(&"log.intervall: is not a known field: [log] takes interval".to_owned()), "{all:?}");
    assert!(all.iter().any(|issue| issue.starts_with("lgo: is not a known section")), "{all:?}");
}

#[test]
fn restoring_needs_a_repository() {
    let all = issues(&format!("{GOOD}\n[recovery]\nwhen_all_lost = \"restore\"\n"));
    assert_eq!(all, ["recovery.when_all_lost: \"restore\" needs a [repository] to restore from"]);
}

#[test]
fn peers_are_read_without_the_node_itself() {
    let peers = r#"
[[cluster.peers]]
node = "n1"
zone = "eu-1a"
address = "10.0.1.1:7430"
[[cluster.peers]]
node = "n2"
zone = "eu-1b"
address = "10.0.2.1:7430"
[[cluster.peers]]
node = "n3"
zone = "eu-1c"
address = "10.0.3.1:7430"
engine = "10.0.3.9:6432"
"#;
    let config = Config::parse(Path::new("/t.toml"), &format!("{GOOD}{peers}")).unwrap();
    let engines: Vec<_> =
        config.peers.iter().map(|peer| (peer.node.as_str(), peer.engine.to_string())).collect();
    assert_eq!(engines, [("n2", "10.0.2.1:5432".to_owned()), ("n3", "10.0.3.9:6432".to_owned())]);
    assert_eq!(config.k, 1);
    assert_eq!(Config::parse(Path::new("/t.toml"), GOOD).unwrap().k, 0);
}

#[test]
fn every_mistake_in_a_peer_is_told() {
    let peers =
        "[[cluster.peers]]\nnode = \"n2\"\nzone = 7\nadress = \"x\"\n[[cluster.peers]]\nnode = \"N3\"\n";
    let all = issues(&format!("{GOOD}{peers}")).join("\n");
    for field in [
        "cluster.peers[0].adress",
        "cluster.peers[0].address",
        "cluster.peers[0].zone",
        "cluster.peers[1].node",
    ] {
        assert!(all.contains(&format!("{field}:")), "{field} is missing in:\n{all}");
    }
    let lonely = issues(&GOOD.replace("name = \"orders\"", "name = \"orders\"\nk = 1"));
    assert!(lonely[0].starts_with("cluster.k: needs other nodes"), "{lonely:?}");
    let many = issues(&GOOD.replace("name = \"orders\"", "name = \"orders\"\nk = 3"));
    assert_eq!(many, ["cluster.k: must be a whole number from 0 to 2"]);
}

#[test]
fn a_run_dir_too_long_for_sockets_is_refused() {
    let long = "x".repeat(95);
    let all = issues(&format!("{GOOD}\n[daemon]\nrun_dir = \"/{long}\"\n"));
    assert_eq!(all, ["daemon.run_dir: must be at most 90 bytes long: socket paths are limited to 107"]);
}
