//! One node on loop disks, bootstrapped and written to: where every scenario begins.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_integration::acked::{AckedWriter, Audit};
use holdfast_integration::daemon::{Daemon, Serving};
use holdfast_integration::logs::{Line, LogGate};
use holdfast_integration::loop_disk::LoopDisk;
use holdfast_integration::node::{Disks, Node, NodeSpec};
use holdfast_integration::weed::Weed;
use holdfast_integration::{Scratch, eventually, installation};

/// Room for an empty cluster, its log and the reserve; the files are sparse.
pub(crate) const DISK_BYTES: u64 = 2 << 30;
/// For everything that ends in an open gate: debug builds on busy cores.
pub(crate) const OPENS_WITHIN: Duration = Duration::from_secs(60);
/// For everything that the agent has to notice.
pub(crate) const NOTICED_WITHIN: Duration = Duration::from_secs(15);
/// Acks to wait for where "writes go on" is meant.
const GO_ON: usize = 50;

/// What is on stage. Fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct Stage {
    daemon: Option<Daemon>,
    pub(crate) node: Node,
    pub(crate) store: Weed,
    pub(crate) disks: Vec<LoopDisk>,
    pub(crate) scratch: Scratch,
}

impl Stage {
    /// Lays out node `n1` with `disks` blank disks; nothing runs but the S3 server.
    pub(crate) async fn set(disks: usize, when_all_lost: &'static str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let store = Weed::start(&scratch).await?;
        let disks = (1..=disks)
            .map(|number| LoopDisk::blank(&scratch, &format!("disk-{number}"), DISK_BYTES))
            .collect::<Result<Vec<_>>>()?;
        let node = lay_out(&scratch, &store, "n1", &disks, when_all_lost)?;
        Ok(Self { daemon: None, node, store, disks, scratch })
    }

    /// [`Self::set`], and then the daemon runs and serves a new cluster with the clients' database.
    pub(crate) async fn serving(disks: usize, when_all_lost: &'static str) -> Result<Self> {
        let mut stage = Self::set(disks, when_all_lost).await?;
        stage.start().await?;
        stage.logs_say("run 'holdfastd bootstrap'").await?;
        stage.daemon()?.bootstrap()?;
        stage.becomes(Serving::Yes).await?;
        stage.node.make_client_database()?;
        Ok(stage)
    }

    /// Starts the daemon.
    pub(crate) async fn start(&mut self) -> Result<()> {
        self.daemon = Some(Daemon::start(&self.node).await?);
        Ok(())
    }

    /// The running daemon.
    pub(crate) fn daemon(&self) -> Result<&Daemon> {
        self.daemon.as_ref().context("no daemon runs")
    }

    /// Takes the daemon off the stage: to be stopped, or dropped, which is SIGKILL.
    pub(crate) fn take_daemon(&mut self) -> Result<Daemon> {
        self.daemon.take().context("no daemon runs")
    }

    /// Waits until clients can or cannot write.
    pub(crate) async fn becomes(&mut self, wanted: Serving) -> Result<()> {
        self.daemon.as_mut().context("no daemon runs")?.becomes(wanted, OPENS_WITHIN).await
    }

    /// Waits for a line of the daemon's log.
    pub(crate) async fn logs_say(&self, fragment: &str) -> Result<Line> {
        self.daemon()?.logs().wait_for(fragment, NOTICED_WITHIN).await
    }

    /// Waits until `holdfast explain` says `fragment`.
    pub(crate) async fn explains(&self, fragment: &str) -> Result<()> {
        eventually(&format!("explain: {fragment:?}"), NOTICED_WITHIN, async || {
            let told = self.daemon()?.holdfast(&["explain"])?;
            ensure!(told.contains(fragment), "{told}");
            Ok(())
        })
        .await
    }

    /// `holdfast status` as JSON.
    pub(crate) fn status(&self) -> Result<serde_json::Value> {
        self.daemon()?.status()
    }

    /// The rule in force, as `(term, version)`.
    pub(crate) fn rule(&self) -> Result<(u64, u64)> {
        let status = self.status()?;
        let part = |name: &str| status["rule"]["id"][name].as_u64();
        part("term").zip(part("version")).with_context(|| format!("no rule in {status}"))
    }

    /// Starts the client that remembers.
    pub(crate) async fn write(&self) -> Result<AckedWriter> {
        let writer = AckedWriter::start(self.node.client()).await?;
        self.writes_go_on(&writer).await?;
        Ok(writer)
    }

    /// Waits for more acks.
    pub(crate) async fn writes_go_on(&self, writer: &AckedWriter) -> Result<()> {
        let already = writer.history().acked.len();
        eventually("more acks", OPENS_WITHIN, async || {
            let more = writer.history().acked.len() - already;
            ensure!(more >= GO_ON, "{more} of {GO_ON}");
            Ok(())
        })
        .await
        .with_context(|| self.daemon.as_ref().map(Daemon::last_words).unwrap_or_default())
    }

    /// Waits until everything that is flushed now lies in object storage.
    pub(crate) async fn everything_is_shipped(&self) -> Result<()> {
        self.daemon()?.has_shipped_everything(NOTICED_WITHIN).await
    }

    /// Stops the writer and compares what it remembers with the table: nothing twice, nothing invented.
    pub(crate) async fn audit(&self, writer: AckedWriter) -> Result<Audit> {
        let (history, found) = writer.stop().await?;
        let audit = history.audit(&found);
        ensure!(audit.repeated.is_empty(), "applied twice: {:?}", audit.repeated);
        ensure!(audit.invented.is_empty(), "nobody wrote: {:?}", audit.invented);
        Ok(audit)
    }

    /// [`Self::audit`], and nothing may be lost at all.
    pub(crate) async fn audit_lossless(&self, writer: AckedWriter) -> Result<()> {
        let audit = self.audit(writer).await?;
        ensure!(audit.lost.is_empty(), "acked and lost: {:?}", audit.lost);
        Ok(())
    }

    /// Fails on warnings that are not listed, in the logs of all daemons so far.
    pub(crate) fn judge_logs(&self, expected: &[&str]) -> Result<()> {
        LogGate { expected }.judge(&self.daemon()?.logs().lines()?)
    }
}

/// Another node beside the first one, on `disks`.
pub(crate) fn lay_out(
    scratch: &Scratch,
    store: &Weed,
    name: &str,
    disks: &[LoopDisk],
    when_all_lost: &'static str,
) -> Result<Node> {
    let disks = Disks::Block(disks.iter().map(|disk| disk.path().to_owned()).collect());
    let spec = NodeSpec::alone(name, disks, when_all_lost, installation::postgres(15)?);
    Node::lay_out(scratch, &spec, store)
}
