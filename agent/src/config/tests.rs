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
fn a_run_dir_too_long_for_sockets_is_refused() {
    let long = "x".repeat(95);
    let all = issues(&format!("{GOOD}\n[daemon]\nrun_dir = \"/{long}\"\n"));
    assert_eq!(all, ["daemon.run_dir: must be at most 90 bytes long: socket paths are limited to 107"]);
}
