//! A real S3 server: SeaweedFS, with signed requests required. On loopback, or where all zones reach it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::placement::Placement;
use crate::process::{Background, run};
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
    /// `None` while it is away.
    server: Option<Background>,
    placement: Placement,
    data: PathBuf,
    ports: [u16; 8],
    endpoint: String,
    credentials: PathBuf,
    _scratch: Scratch,
}

impl Weed {
    /// Starts one on loopback and waits until it has stored a first object: it answers long before it can.
    ///
    /// # Errors
    /// It is not installed, does not start, or is not ready in time.
    pub async fn start(scratch: &Scratch) -> Result<Self> {
        Self::start_at(scratch, Placement::Loopback).await
    }

    /// Starts one somewhere else in the same way.
    ///
    /// # Errors
    /// It is not installed, does not start, or is not ready in time.
    pub async fn start_at(scratch: &Scratch, placement: Placement) -> Result<Self> {
        let data = scratch.folder("weed")?;
        fs::write(identities(&data), identities_json()).context("write the server's identities")?;
        let credentials = scratch.path().join("s3.toml");
        let keys = format!("access_key_id = \"{ACCESS_KEY}\"\nsecret_access_key = \"{SECRET_KEY}\"\n");
        fs::write(&credentials, keys).context("write the credentials")?;

        let ports: [u16; 8] = ports::free()?;
        let endpoint = format!("http://{}:{}", placement.address(), ports[0]);
        let (server, scratch) = (None, scratch.clone());
        let mut weed = Self { server, placement, data, ports, endpoint, credentials, _scratch: scratch };
        weed.come_back().await?;
        Ok(weed)
    }

    /// From now on connections are refused.
    pub fn go_away(&mut self) {
        self.server = None;
    }

    /// Starts it again, with the objects that it held and at the same endpoint, and waits until it is ready.
    ///
    /// # Errors
    /// It does not start, or is not ready in time.
    pub async fn come_back(&mut self) -> Result<()> {
        self.server = Some(launch(&self.placement, &self.data, self.ports)?);
        eventually("an S3 server that stores an object", READY_WITHIN, async || {
            self.running_mut()?.still_runs()?;
            self.store_probe()
        })
        .await
    }

    /// From now on connections are taken and nothing answers.
    ///
    /// # Errors
    /// It is away.
    pub fn hang(&self) -> Result<()> {
        self.running()?.signal(Signal::SIGSTOP)
    }

    /// Undoes [`Self::hang`].
    ///
    /// # Errors
    /// It is away.
    pub fn go_on(&self) -> Result<()> {
        self.running()?.signal(Signal::SIGCONT)
    }

    /// Keys of the objects whose key contains `part`, in order.
    ///
    /// # Errors
    /// It does not answer.
    pub fn keys(&self, part: &str) -> Result<Vec<String>> {
        let listing = run(self.request("?list-type=2&max-keys=1000").arg("--fail"))?;
        let keys = listing.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        Ok(keys.filter(|key| key.contains(part)).map(str::to_owned).collect())
    }

    /// Removes an object, as nobody but a broken store would.
    ///
    /// # Errors
    /// It does not answer.
    pub fn lose(&self, key: &str) -> Result<()> {
        run(self.request(&format!("/{key}")).args(["--fail", "--request", "DELETE"]))?;
        Ok(())
    }

    /// Flips one bit in the middle of an object.
    ///
    /// # Errors
    /// There is no such object, or it does not answer.
    pub fn flip_a_bit(&self, key: &str) -> Result<()> {
        let copy = self.data.join("flipped");
        run(self.request(&format!("/{key}")).arg("--fail").arg("--output").arg(&copy))?;
        let mut bytes = fs::read(&copy).context("read the copy of an object")?;
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).context("an empty object has no bits")? ^= 1;
        fs::write(&copy, bytes).context("write the copy of an object")?;
        run(self.request(&format!("/{key}")).arg("--fail").arg("--upload-file").arg(&copy))?;
        Ok(())
    }

    fn running(&self) -> Result<&Background> {
        self.server.as_ref().context("the S3 server is away")
    }

    fn running_mut(&mut self) -> Result<&mut Background> {
        self.server.as_mut().context("the S3 server is away")
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
        // Refused from the second try on, since it exists; whether it does is shown by the object.
        run(self.request("").args(["--request", "PUT"])).context("make the bucket")?;
        run(self.request("/ready").args(["--fail", "--upload-file", "/etc/os-release"]))
            .context("store an object")?;
        Ok(())
    }

    /// A signed request for what comes behind the bucket in the URL.
    fn request(&self, what: &str) -> Command {
        let mut curl = self.placement.command("curl");
        curl.args(["--silent", "--show-error", "--max-time", "5", "--user"]);
        curl.arg(format!("{ACCESS_KEY}:{SECRET_KEY}"));
        curl.arg("--aws-sigv4").arg(format!("aws:amz:{REGION}:s3"));
        curl.arg(format!("{}/{BUCKET}{what}", self.endpoint));
        curl
    }
}

fn identities(data: &Path) -> PathBuf {
    data.join("identities.json")
}

fn launch(placement: &Placement, data: &Path, ports: [u16; 8]) -> Result<Background> {
    let [s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc] = ports;
    let mut server = placement.command(installation::weed()?);
    server.args(["-logtostderr=true", "server", "-master.telemetry=false"]);
    let address = placement.address();
    server.arg(format!("-ip={address}")).arg(format!("-ip.bind={address}"));
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
    server.arg(format!("-s3.config={}", identities(data).display()));
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
