//! A running `holdfastd` as seen from outside: its log, its plain HTTP paths and its command line.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{self, Instant};

use crate::eventually;
use crate::logs::Logs;
use crate::node::{CLUSTER, Node};
use crate::process::{Background, command, run};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// `USER_HZ`: 100 on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// Whether clients can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// `/primary` answers 200.
    Yes,
    /// It answers anything else.
    No,
}

/// What the daemon's process takes of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Resident memory.
    pub resident_mib: u64,
    cpu_seconds: f64,
    at: Instant,
}

impl Usage {
    /// The share of one core that was used since `before`.
    #[must_use]
    pub fn cpu_share_since(&self, before: &Self) -> f64 {
        (self.cpu_seconds - before.cpu_seconds) / (self.at - before.at).as_secs_f64().max(0.001)
    }
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
        let mut program = command(node.programs.join("holdfastd"));
        program.arg("run").arg("--config").arg(&node.config).current_dir("/");
        let process = Background::start(&mut program, logs.path())?;
        let mut daemon = Self { process, logs, node: node.clone() };
        eventually("a daemon that answers", Duration::from_secs(30), async || {
            daemon.process.still_runs()?;
            let (status, _body) = http_get(daemon.node.http, "/livez").await?;
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

    /// What it takes of the machine, without its helper and workers.
    ///
    /// # Errors
    /// It is gone.
    pub fn usage(&self) -> Result<Usage> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.pid());
            fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        let status = read("status")?;
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().context("read VmRSS")?;
        // proc(5): fields 14 and 15 are ticks in user and kernel mode; the name in field 2 may hold spaces.
        let stat = read("stat")?;
        let after_name = stat.rsplit_once(") ").context("no name in /proc stat")?.1;
        let ticks = after_name.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(Usage { resident_mib: kib / 1024, cpu_seconds: ticks / TICKS_PER_SECOND, at: Instant::now() })
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
        let mut bootstrap = command(self.node.programs.join("holdfastd"));
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
        let authority = &self.node.authority;
        let mut holdfast = command(self.node.programs.join("holdfast"));
        holdfast.arg("--endpoint").arg(format!("https://127.0.0.1:{}", self.node.grpc));
        holdfast.arg("--ca").arg(authority.join("ca.pem"));
        holdfast.arg("--cert").arg(authority.join("ops.pem")).arg("--key").arg(authority.join("ops.key"));
        holdfast
    }

    /// Asks `/primary`.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn serving(&self) -> Result<Serving> {
        let (status, _body) = http_get(self.node.http, "/primary").await?;
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

/// Status and body of `GET path` on loopback.
///
/// # Errors
/// No answer, or one that is no HTTP.
pub async fn http_get(port: u16, path: &str) -> Result<(u16, String)> {
    let asking = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.context("connect")?;
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
