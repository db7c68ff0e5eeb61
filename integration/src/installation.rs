//! Where the programs are that tests use: ours beside the test's own executable, others where `make tools` puts them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The checkout.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// One of our own programs, as built together with this test.
///
/// # Errors
/// It is not there: `cargo nextest run -p holdfast-integration` alone does not build it.
pub fn own(program: &str) -> Result<PathBuf> {
    let me = std::env::current_exe().context("find this executable")?;
    let mut folder = me.parent().context("an executable has a folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("deps has a parent")?;
    }
    existing(folder.join(program), "cargo build --bins")
}

/// The S3 server.
///
/// # Errors
/// It was not fetched yet.
pub fn weed() -> Result<PathBuf> {
    existing(workspace().join(".cache/tools/weed"), "make tools")
}

/// The gRPC client of shell scripts.
///
/// # Errors
/// It was not fetched yet.
pub fn grpcurl() -> Result<PathBuf> {
    existing(workspace().join(".cache/grpcurl/grpcurl"), "make tools")
}

/// The load balancer.
///
/// # Errors
/// It is not installed.
pub fn haproxy() -> Result<PathBuf> {
    existing(PathBuf::from("/usr/sbin/haproxy"), "scripts/setup.sh packages")
}

/// The folder of PostgreSQL's programs of one major version.
///
/// # Errors
/// That version is not installed.
pub fn postgres(major: u32) -> Result<PathBuf> {
    let packaged = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    if packaged.join("postgres").exists() {
        return Ok(packaged);
    }
    let cached = workspace().join(format!(".cache/pg{major}/usr/lib/postgresql/{major}/bin"));
    existing(cached.join("postgres"), "make tools")?;
    Ok(cached)
}

fn existing(path: PathBuf, install: &str) -> Result<PathBuf> {
    ensure!(path.exists(), "{} is missing; run: {install}", path.display());
    Ok(path)
}
