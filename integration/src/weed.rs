//! A real S3 server on loopback: SeaweedFS, with signed requests required.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Background, command, run};
use crate::scratch::Scratch;
use crate::{eventually, installation, ports};

/// The bucket that exists once the server is ready.
pub const BUCKET: &str = "holdfast";
/// The region that requests are signed for.
pub const REGION: &str = "us-east-1";
const ACCESS_KEY: &str = "harness";
const SECRET_KEY: &str = "harness-secret";
/// Starting took 4 s on two idle cores.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running server; dropping it kills it. Its data lies in the scratch directory.
#[derive(Debug)]
pub struct Weed {
    server: Background,
    endpoint: String,
    credentials: PathBuf,
    _scratch: Scratch,
}

impl Weed {
    /// Starts one and waits until it has stored a first object: it answers long before it can.
    ///
    /// # Errors
    /// It is not installed, does not start, or is not ready in time.
    pub async fn start(scratch: &Scratch) -> Result<Self> {
        let data = scratch.folder("weed")?;
        let identities = data.join("identities.json");
        fs::write(&identities, identities_json()).context("write the server's identities")?;
        let credentials = scratch.path().join("s3.toml");
        let keys = format!("access_key_id = \"{ACCESS_KEY}\"\nsecret_access_key = \"{SECRET_KEY}\"\n");
        fs::write(&credentials, keys).context("write the credentials")?;

        let ports: [u16; 8] = ports::free()?;
        let server = launch(&data, &identities, ports)?;
        let endpoint = format!("http://127.0.0.1:{}", ports[0]);
        let mut weed = Self { server, endpoint, credentials, _scratch: scratch.clone() };
        eventually("an S3 server that stores an object", READY_WITHIN, async || {
            weed.server.still_runs()?;
            weed.store_probe()
        })
        .await?;
        Ok(weed)
    }

    /// Where it listens, as the configuration wants it.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The credentials file, as the configuration wants it.
    #[must_use]
    pub fn credentials(&self) -> &Path {
        &self.credentials
    }

    fn store_probe(&self) -> Result<()> {
        let bucket = format!("{}/{BUCKET}", self.endpoint);
        let put = |what: &str, options: &[&str]| {
            let mut curl = command("curl");
            curl.args(["--silent", "--show-error", "--max-time", "5", "--user"]);
            curl.arg(format!("{ACCESS_KEY}:{SECRET_KEY}"))
                .arg("--aws-sigv4")
                .arg(format!("aws:amz:{REGION}:s3"));
            run(curl.args(options).arg(what)).with_context(|| format!("put {what}"))
        };
        // Refused from the second try on, since it exists; whether it does is shown by the object.
        put(&bucket, &["--request", "PUT"])?;
        put(&format!("{bucket}/ready"), &["--fail", "--upload-file", "/etc/os-release"])?;
        Ok(())
    }
}

fn launch(data: &Path, identities: &Path, ports: [u16; 8]) -> Result<Background> {
    let [s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc] = ports;
    let mut server = command(installation::weed()?);
    server.args([
        "-logtostderr=true",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
    ]);
    // Small volumes, else it grows several of 30 GB at once.
    server.args([
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=0",
        "-volume.minFreeSpace=1",
        "-filer",
        "-s3",
    ]);
    server.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
    server.arg(format!("-dir={}", data.display()));
    server.arg(format!("-s3.config={}", identities.display()));
    server.arg(format!("-s3.port={s3}")).arg(format!("-s3.port.grpc={s3_grpc}"));
    server.arg(format!("-master.port={master}")).arg(format!("-master.port.grpc={master_grpc}"));
    server.arg(format!("-volume.port={volume}")).arg(format!("-volume.port.grpc={volume_grpc}"));
    server.arg(format!("-filer.port={filer}")).arg(format!("-filer.port.grpc={filer_grpc}"));
    Background::start(server.current_dir(data), &data.join("weed.log"))
}

fn identities_json() -> String {
    let identity = serde_json::json!({
        "name": "harness",
        "credentials": [{ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY }],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    });
    serde_json::json!({ "identities": [identity] }).to_string()
}
