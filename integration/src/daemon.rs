//! A running `holdfastd` as seen from outside: its log, its plain HTTP paths and its command line.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time;

use crate::eventually;
use crate::logs::Logs;
use crate::node::{CLUSTER, Node};
use crate::process::{Background, run};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// Whether clients can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// `/primary` answers 200.
    Yes,
    /// It answers anything else.
    No,
}

/// One run of the daemon. Dropping it kills the daemon alone, as a crash would: the engine lives on until the scratch
/// directory is taken down.
#[derive(Debug)]
pub struct Daemon {
    process: Background,
    logs: Logs,
    node: Node,
}

impl Daemon {
    /// Starts `holdfastd run` and waits until it answers `/livez`.
    ///
    /// # Errors
    /// It ends, or does not answer in time.
    pub async fn start(node: &Node) -> Result<Self> {
        let logs = Logs::new(node.folder.join("daemon.log"));
        let mut program = node.placement.command(node.programs.join("holdfastd"));
        program.arg("run").arg("--config").arg(&node.config).current_dir("/");
        let process = Background::start(&mut program, logs.path())?;
        let mut daemon = Self { process, logs, node: node.clone() };
        eventually("a daemon that answers", Duration::from_secs(30), async || {
            daemon.process.still_runs()?;
            let (status, _body) = http_get(&daemon.node, "/livez").await?;
            ensure!(status == 200, "/livez answers {status}");
            Ok(())
        })
        .await
        .map_err(|err| err.context(daemon.last_words()))?;
        Ok(daemon)
    }

    /// The node that it runs.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Its log.
    #[must_use]
    pub const fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it was killed, by whomever.
    ///
    /// # Errors
    /// It ended in another way.
    pub fn was_killed(&mut self) -> Result<bool> {
        self.process.ended_by(Signal::SIGKILL).with_context(|| self.last_words())
    }

    /// The end of its log, for the message of a failure.
    #[must_use]
    pub fn last_words(&self) -> String {
        format!("the daemon's log ends with:\n{}\n", self.logs.tail(30))
    }

    /// Asks for a bootstrap on the machine, as its operator.
    ///
    /// # Errors
    /// It is refused.
    pub fn bootstrap(&self) -> Result<()> {
        let mut bootstrap = self.node.placement.command(self.node.programs.join("holdfastd"));
        run(bootstrap.args(["bootstrap", "--token", CLUSTER, "--config"]).arg(&self.node.config))?;
        Ok(())
    }

    /// Runs `holdfast ARGS` with an operator's certificate and returns what it prints.
    ///
    /// # Errors
    /// It ends with anything but 0.
    pub fn holdfast(&self, args: &[&str]) -> Result<String> {
        run(self.command_line().args(args)).map_err(|err| err.context(self.last_words()))
    }

    /// Starts `holdfast ARGS` in the same way and does not wait for its end. Its output is in the node's folder.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn holdfast_in_background(&self, args: &[&str]) -> Result<Background> {
        Background::start(self.command_line().args(args), &self.node.folder.join("holdfast.log"))
    }

    fn command_line(&self) -> Command {
        let Node { authority, placement, grpc, .. } = &self.node;
        let mut holdfast = placement.command(self.node.programs.join("holdfast"));
        holdfast.arg("--endpoint").arg(format!("https://{}:{grpc}", placement.address()));
        holdfast.arg("--ca").arg(authority.join("ca.pem"));
        holdfast.arg("--cert").arg(authority.join("ops.pem")).arg("--key").arg(authority.join("ops.key"));
        holdfast
    }

    /// `holdfast status` as JSON.
    ///
    /// # Errors
    /// It is refused, or answers something else.
    pub fn status(&self) -> Result<serde_json::Value> {
        let told = self.holdfast(&["--json", "status"])?;
        serde_json::from_str(&told).with_context(|| told)
    }

    /// Waits until everything that is flushed now lies in object storage.
    ///
    /// # Errors
    /// It does not, in time.
    pub async fn has_shipped_everything(&self, within: Duration) -> Result<()> {
        let flushed = position(self.node.sql("postgres", "select pg_current_wal_flush_lsn()")?.trim())?;
        eventually("all of the log shipped", within, async || {
            let status = self.status()?;
            let shipped = status["log"]["shipped"].as_str().with_context(|| format!("none: {status}"))?;
            ensure!(position(shipped)? >= flushed, "shipped only up to {shipped}");
            Ok(())
        })
        .await
    }

    /// Asks `/primary`.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn serving(&self) -> Result<Serving> {
        let (status, _body) = http_get(&self.node, "/primary").await?;
        Ok(if status == 200 { Serving::Yes } else { Serving::No })
    }

    /// Waits until `/primary` says `wanted`.
    ///
    /// # Errors
    /// It does not, in time.
    pub async fn becomes(&mut self, wanted: Serving, within: Duration) -> Result<()> {
        eventually(&format!("serving: {wanted:?}"), within, async || {
            self.process.still_runs()?;
            let serving = self.serving().await?;
            ensure!(serving == wanted, "serving: {serving:?}");
            Ok(())
        })
        .await
        .map_err(|err| err.context(self.last_words()))
    }

    /// Ends it with SIGTERM and waits.
    ///
    /// # Errors
    /// It does not end in time, or ends badly.
    pub async fn stop(self) -> Result<()> {
        let Self { process, logs, .. } = self;
        process.signal(Signal::SIGTERM)?;
        process
            .ended_well(STOP_WITHIN)
            .await
            .with_context(|| format!("the daemon's log ends with:\n{}", logs.tail(30)))
    }
}

/// A position as the engine writes it, as a number that can be compared.
fn position(text: &str) -> Result<u64> {
    let (high, low) = text.split_once('/').with_context(|| format!("{text:?} is no position"))?;
    Ok(u64::from_str_radix(high, 16)? << 32 | u64::from_str_radix(low, 16)?)
}

/// Status and body of `GET path`, asked by a neighbour of the node.
///
/// # Errors
/// No answer, or one that is no HTTP.
pub async fn http_get(node: &Node, path: &str) -> Result<(u16, String)> {
    let asking = async {
        let mut stream = node.placement.connect(node.http).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.context("ask")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.context("read the answer")?;
        Ok::<_, anyhow::Error>(answer)
    };
    let answer =
        time::timeout(ANSWER_WITHIN, asking).await.with_context(|| format!("no answer to GET {path}"))??;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    let status =
        head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("an answer without a status")?;
    Ok((status, body.to_owned()))
}
