//! The dependency rules of docs/architecture.md, read from `cargo metadata`. They hold for dev-dependencies too, with
//! one exception: the integration crate looks at everything from outside, and tests may use its harness.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use holdfast_integration::installation;
use holdfast_integration::process::{command, run};

use crate::none;

/// Crates that decide and do nothing else.
const PURE: [&str; 3] = ["holdfast-model", "holdfast-agent-decide", "holdfast-replication"];

/// What a pure crate may not list: everything that does I/O, waits or looks at a clock.
const IMPURE: [&str; 18] = [
    "async-trait",
    "axum",
    "getrandom",
    "hyper-util",
    "io-uring",
    "kube",
    "mysql_async",
    "nix",
    "object_store",
    "rustls",
    "tempfile",
    "tokio",
    "mysql_async",
    "tokio-postgres",
    "tokio-util",
    "tonic",
    "tower",
    "tracing-subscriber",
];

/// Domains that never see one another: the agent joins them.
const DOMAINS: [&str; 3] = ["holdfast-engine", "holdfast-storage", "holdfast-backup"];

/// Dependencies with few users.
const FEW_USERS: [(&str, &[&str]); 12] = [
    ("io-uring", &["holdfast-storage-io"]),
    ("nix", &["holdfast-storage", "holdfast-storage-io", "holdfast-engine", "holdfast-agent"]),
    ("mysql_async", &["holdfast-engine"]),
    ("tokio-postgres", &["holdfast-engine"]),
    ("mysql_async", &["holdfast-engine"]),
    ("object_store", &["holdfast-backup"]),
    ("zstd", &["holdfast-backup"]),
    ("blake3", &["holdfast-backup"]),
    ("kube", &["holdfast-agent"]),
    ("tonic", &["holdfast-proto", "holdfast-agent", "holdfast-cli"]),
    ("holdfast-storage-io", &["holdfast-storage", "holdfast-engine", "holdfast-backup", "holdfast-agent"]),
    ("holdfast-integration", &[]),
];

/// The harness, exempt.
const EXEMPT: &str = "holdfast-integration";

/// What each crate of the workspace lists.
fn listed() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let metadata = run(command(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(installation::workspace()))?;
    let metadata: Metadata = serde_json::from_str(&metadata)?;
    let of_harness =
        |dependency: &Dependency| dependency.name == EXEMPT && dependency.kind.as_deref() == Some("dev");
    let names = |package: Package| {
        let dependencies = package.dependencies.into_iter().filter(|dependency| !of_harness(dependency));
        (package.name, dependencies.map(|dependency| dependency.name).collect())
    };
    Ok(metadata.packages.into_iter().map(names).filter(|(name, _)| name != EXEMPT).collect())
}

#[derive(serde::Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(serde::Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(serde::Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[test]
fn pure_crates_list_nothing_that_does_io() -> Result<()> {
    let listed = listed()?;
    let mut offenders = Vec::new();
    for pure in PURE {
        let dependencies = &listed[pure];
        offenders.extend(
            IMPURE.iter().filter(|impure| dependencies.contains(**impure)).map(|it| format!("{pure}: {it}")),
        );
    }
    none("impure dependencies of pure crates", offenders);
    Ok(())
}

#[test]
fn engine_storage_and_backup_never_see_one_another() -> Result<()> {
    let listed = listed()?;
    let pairs = DOMAINS.iter().flat_map(|user| DOMAINS.iter().map(move |used| (user, used)));
    let offenders = pairs.filter(|(user, used)| listed[**user].contains(**used));
    none("domains that see one another", offenders.map(|(user, used)| format!("{user}: {used}")).collect());
    Ok(())
}

#[test]
fn a_dependency_with_few_users_has_no_others() -> Result<()> {
    let listed = listed()?;
    let mut offenders = Vec::new();
    for (dependency, users) in FEW_USERS {
        let others = listed.iter().filter(|(user, _)| !users.contains(&user.as_str()));
        let offending = others.filter(|(_, dependencies)| dependencies.contains(dependency));
        offenders.extend(offending.map(|(user, _)| format!("{user}: {dependency}")));
    }
    none("users that a dependency must not have", offenders);
    Ok(())
}

#[test]
fn every_rule_is_about_a_crate_that_exists() -> Result<()> {
    let listed = listed()?;
    let named = PURE.iter().chain(&DOMAINS).chain(FEW_USERS.iter().flat_map(|(_, users)| users.iter()));
    none(
        "crates that do not exist",
        named.filter(|it| !listed.contains_key(**it)).map(ToString::to_string).collect(),
    );
    Ok(())
}
