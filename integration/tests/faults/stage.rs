//! What every scenario stands on: an S3 server, blank disks, a node that is laid out, and clients that remember.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_integration::acked::{AckedWriter, Audit};
use holdfast_integration::daemon::{Daemon, Serving};
use holdfast_integration::logs::{Level, Line, Logs};
use holdfast_integration::loop_disk::LoopDisk;
use holdfast_integration::node::{Disks, Node, NodeSpec};
use holdfast_integration::process::{command, run};
use holdfast_integration::weed::Weed;
use holdfast_integration::{Scratch, eventually, installation};

/// Debug builds on two busy cores.
pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const DISK_BYTES: u64 = 2 << 30;
/// A scenario that restarts the agent more often than this goes round in circles.
const DEATHS_MAX: usize = 60;

/// Everything but the agent, which tests kill. Fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) store: Weed,
    pub(crate) disks: Vec<LoopDisk>,
    pub(crate) node: Node,
}

impl Stage {
    /// With so many blank disks, and a node that restores by itself.
    pub(crate) async fn with_disks(count: usize) -> Result<Self> {
        let scratch = Scratch::new()?;
        let disks: Result<Vec<_>> =
            (1..=count).map(|n| LoopDisk::blank(&scratch, &format!("disk-{n}"), DISK_BYTES)).collect();
        Self::over(&scratch, disks?, &[]).await
    }

    /// With `first` in front of the disks of the stage.
    pub(crate) async fn over(scratch: &Scratch, disks: Vec<LoopDisk>, first: &[&LoopDisk]) -> Result<Self> {
        let store = Weed::start(scratch).await?;
        let all = first.iter().copied().chain(&disks).map(|disk| disk.path().to_owned()).collect();
        let spec = NodeSpec::alone("n1", Disks::Block(all), "restore", installation::postgres(15)?);
        let node = Node::lay_out(scratch, &spec, &store)?;
        Ok(Self { store, disks, node })
    }

    /// Starts an agent.
    pub(crate) async fn agent(&self) -> Result<Daemon> {
        Daemon::start(&self.node).await
    }

    /// Starts an agent and has it bootstrapped, with a client that writes.
    pub(crate) async fn serving(&self) -> Result<(Daemon, AckedWriter)> {
        let mut agent = self.agent().await?;
        agent.logs().wait_for("run 'holdfastd bootstrap'", SOON).await?;
        agent.bootstrap()?;
        agent.becomes(Serving::Yes, SOON).await?;
        self.node.make_client_database()?;
        let writer = AckedWriter::start(self.node.client()).await?;
        acks(&writer, 50).await?;
        Ok((agent, writer))
    }

    /// The same, with a backup and log behind it.
    pub(crate) async fn backed_up(&self) -> Result<(Daemon, AckedWriter)> {
        let (agent, writer) = self.serving().await?;
        agent.holdfast(&["backup", "create"])?;
        acks(&writer, 50).await?;
        Ok((agent, writer))
    }

    pub(crate) fn logs(&self) -> Logs {
        Logs::new(self.node.folder.join("daemon.log"))
    }

    /// Lines of the agent's log that came after the first `before`.
    pub(crate) fn said_after(&self, before: usize) -> Result<Vec<Line>> {
        let mut lines = self.logs().lines()?;
        Ok(lines.split_off(before.min(lines.len())))
    }

    /// Waits for a line after the first `before` that contains `fragment`.
    pub(crate) async fn says(&self, fragment: &str, before: usize, within: Duration) -> Result<Line> {
        eventually(&format!("log line {fragment:?}"), within, async || {
            let said = self.said_after(before)?.into_iter().find(|line| line.shown().contains(fragment));
            said.context("it was not said")
        })
        .await
    }

    /// Kills each agent as soon as it says something that none said before, until one serves. Returns that one, and the
    /// number of those that were killed.
    pub(crate) async fn kill_at_each_new_word(&self) -> Result<(Daemon, usize)> {
        let mut heard: BTreeSet<String> = self.said_after(0)?.iter().map(gist).collect();
        for deaths in 0..DEATHS_MAX {
            let before = self.logs().lines()?.len();
            let agent = self.agent().await?;
            let new = eventually("a new word, or service", SOON, async || {
                let said = self.said_after(before)?;
                let words = said.iter().filter(|line| ours(line)).map(gist);
                let new: BTreeSet<String> = words.filter(|word| !heard.contains(word)).collect();
                if new.is_empty() && agent.serving().await? == Serving::No {
                    bail!("nothing new, and no service");
                }
                Ok(new)
            })
            .await?;
            if new.is_empty() {
                return Ok((agent, deaths));
            }
            heard.extend(new);
        }
        bail!("{DEATHS_MAX} agents were killed, and none came to serve");
    }

    /// Ids of the clusters in the repository.
    pub(crate) fn clusters(&self) -> Result<BTreeSet<String>> {
        let keys = self.store.keys("clusters/")?;
        Ok(keys.iter().filter_map(|key| key.split('/').nth(1)).map(str::to_owned).collect())
    }

    /// How many terms the repository knows.
    pub(crate) fn terms(&self) -> Result<usize> {
        Ok(self.store.keys("/rules/")?.len())
    }

    /// Process ids of workers of one role, of the agent `of`.
    pub(crate) fn workers(&self, of: &Daemon, role: &str) -> Result<Vec<String>> {
        let helper = run(command("pgrep").args(["--parent", &of.pid().to_string()]))?;
        let mut workers = command("pgrep");
        workers.args(["--parent", helper.trim(), "--full", &format!("holdfastd worker {role}$")]);
        // pgrep ends with 1 when there is none.
        let found = workers.output().context("look for workers")?;
        Ok(String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect())
    }

    /// A failure together with the end of the agent's log; all of it is kept in `target/faults`.
    pub(crate) fn explained<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|err| {
            let kept = installation::workspace().join("target/faults");
            let copied = fs::create_dir_all(&kept)
                .and_then(|()| fs::copy(self.logs().path(), kept.join("daemon.log")))
                .map_or_else(|err| format!("not kept: {err}"), |_bytes| "kept".to_owned());
            err.context(format!("its log ({copied}) ends with:\n{}", self.logs().tail(20)))
        })
    }
}

fn ours(line: &Line) -> bool {
    line.target.starts_with("holdfast") && line.level >= Level::Info
}

/// What a line is about: without numbers and ids, which differ from run to run.
fn gist(line: &Line) -> String {
    let word = |field: &str| line.fields.get(field).map(ToString::to_string).unwrap_or_default();
    let said = ["reason", "gate", "kind"].map(word).concat();
    format!("{} {}", line.message, said.replace(|letter: char| letter.is_ascii_digit(), ""))
}

/// Waits for more acks.
pub(crate) async fn acks(writer: &AckedWriter, more: usize) -> Result<()> {
    let wanted = writer.history().acked.len() + more;
    eventually("more acks", SOON, async || {
        let acked = writer.history().acked.len();
        ensure!(acked >= wanted, "{acked} of {wanted}");
        Ok(())
    })
    .await
}

/// Stops the client and fails if an acked id is missing, or another is there that must not be.
pub(crate) async fn nothing_lost(writer: AckedWriter) -> Result<()> {
    let audit = audited(writer).await?;
    ensure!(audit.lost.is_empty(), "acked ids lost: {:?}", audit.lost);
    ensure!(audit.repeated.is_empty() && audit.invented.is_empty(), "{audit:?}");
    Ok(())
}

/// Stops the client and compares.
pub(crate) async fn audited(writer: AckedWriter) -> Result<Audit> {
    let (history, found) = writer.stop().await?;
    Ok(history.audit(&found))
}
