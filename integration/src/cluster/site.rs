//! One zone of a cluster: its node, its disks, its daemon, and what can be done to them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use holdfast_model::step::Step;
use nix::sys::signal::Signal;

use super::disk::{self, Disk, Fate};
use super::{ClusterSpec, NODE_HOST, Seen};
use crate::daemon::Daemon;
use crate::logs::Logs;
use crate::node::{Disks, Node, NodeSpec, Peer};
use crate::placement::Placement;
use crate::postmaster::{of_engine, of_whole_engine, signal_all};
use crate::scratch::Scratch;
use crate::weed::Weed;
use crate::zones::{Zone, Zones};
use crate::{footprint, installation};

/// A node in its zone. Fields are dropped in this order.
#[derive(Debug)]
pub struct Site {
    daemon: Option<Daemon>,
    /// The node.
    pub node: Node,
    /// Its disks, in the order in which it uses them.
    pub disks: Vec<Disk>,
}

/// The name of a zone's node.
#[must_use]
pub const fn name(zone: Zone) -> &'static str {
    match zone {
        Zone::A => "n1",
        Zone::B => "n2",
        Zone::C => "n3",
    }
}

impl Site {
    pub(super) fn lay_out(
        scratch: &Scratch,
        zones: &Zones,
        spec: &ClusterSpec,
        zone: Zone,
        store: &Weed,
    ) -> Result<Self> {
        let disks = (1..=spec.disks).map(|number| {
            let special = number == 1 && spec.zones.first() == Some(&zone);
            let fate = if special { spec.fate } else { Fate::Vanishing };
            Disk::blank(scratch, &format!("{}-disk-{number}", name(zone)), spec.disk_bytes, fate)
        });
        let disks = disks.collect::<Result<Vec<_>>>()?;
        let others = spec.zones.iter().copied().filter(|other| *other != zone);
        let node = NodeSpec {
            name: name(zone).to_owned(),
            disks: Disks::Block(disks.iter().map(|disk| disk.device().path().to_owned()).collect()),
            when_all_lost: "refuse",
            engine: installation::postgres(spec.postgres)?,
            placement: Placement::Zone { zones: zones.clone(), zone, host: NODE_HOST },
            peers: others.map(|zone| Peer { name: name(zone).to_owned(), zone, host: NODE_HOST }).collect(),
            k: spec.k(),
        };
        Ok(Self { daemon: None, node: Node::lay_out(scratch, &node, store)?, disks })
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_agent(&mut self) -> Result<()> {
        self.daemon = Some(Daemon::start(&self.node).await?);
        Ok(())
    }

    /// Kills the daemon alone with SIGKILL; its engine goes on.
    pub fn kill_agent(&mut self) {
        self.daemon = None;
    }

    /// Starts the daemon again if it was killed, as an init system would. Not one that was ended by [`Self::kill_agent`].
    ///
    /// # Errors
    /// It ended in another way, or does not start.
    pub async fn revive(&mut self) -> Result<()> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        if daemon.was_killed()? {
            self.start_agent().await?;
        }
        Ok(())
    }

    /// From now on the daemon dies when it has done `step`, once.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn arm(&self, step: Step) -> Result<()> {
        let aside = self.die_at().with_extension("tmp");
        fs::write(&aside, step.name()).context("write the name of a step")?;
        fs::rename(&aside, self.die_at()).context("arm a step")
    }

    /// Undoes [`Self::arm`].
    ///
    /// # Errors
    /// It cannot be undone.
    pub fn disarm(&self) -> Result<()> {
        if self.is_armed() { fs::remove_file(self.die_at()).context("disarm a step") } else { Ok(()) }
    }

    /// Whether it was armed, and has not done the step yet.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.die_at().exists()
    }

    fn die_at(&self) -> PathBuf {
        self.node.folder.join("state/die-at")
    }

    /// Stops the daemon with SIGTERM, if it runs; its engine goes on.
    ///
    /// # Errors
    /// It does not stop, or ends badly.
    pub async fn stop_agent(&mut self) -> Result<()> {
        match self.daemon.take() {
            Some(daemon) => daemon.stop().await,
            None => Ok(()),
        }
    }

    /// The running daemon.
    ///
    /// # Errors
    /// None runs.
    pub fn agent(&self) -> Result<&Daemon> {
        self.daemon.as_ref().with_context(|| format!("no agent runs on {}", self.node.name))
    }

    /// The same, to wait for it.
    ///
    /// # Errors
    /// None runs.
    pub fn agent_mut(&mut self) -> Result<&mut Daemon> {
        self.daemon.as_mut().with_context(|| format!("no agent runs on {}", self.node.name))
    }

    /// The logs of all its daemons so far.
    #[must_use]
    pub fn logs(&self) -> Logs {
        Logs::new(self.node.folder.join("daemon.log"))
    }

    /// What it says about itself.
    ///
    /// # Errors
    /// It does not answer, or says something else.
    pub fn seen(&self) -> Result<Seen> {
        let status = self.agent()?.status()?;
        serde_json::from_value(status.clone()).with_context(|| format!("read the status {status}"))
    }

    /// Sends a signal to the engine's first process.
    ///
    /// # Errors
    /// There is no engine.
    pub fn signal_engine(&self, signal: Signal) -> Result<()> {
        signal_all(&BTreeSet::from([of_engine(&self.node)?]), signal)
    }

    /// Kills the whole engine with SIGKILL.
    ///
    /// # Errors
    /// There is none.
    pub fn kill_engine(&self) -> Result<()> {
        signal_all(&of_whole_engine(&self.node)?, Signal::SIGKILL)
    }

    /// Stops the whole node where it stands, agent and engine; `signal` is SIGSTOP, or SIGCONT to undo it.
    ///
    /// # Errors
    /// There is no engine.
    pub fn freeze(&self, signal: Signal) -> Result<()> {
        let agent = footprint::of_agent(&self.node)?.into_iter().map(|process| process.pid.cast_signed());
        let all = agent.chain(of_whole_engine(&self.node)?).collect();
        signal_all(&all, signal)
    }

    /// The disk that its volume is on now.
    ///
    /// # Errors
    /// It is on none of them.
    pub fn disk_in_use(&self) -> Result<&Disk> {
        for disk in &self.disks {
            if disk::is_mounted_on(disk.device().path(), &self.node.mount)? {
                return Ok(disk);
            }
        }
        anyhow::bail!("{} has no volume mounted", self.node.name)
    }

    /// Lets the disk that it uses vanish, for good. Returns the member that is lost with it.
    ///
    /// # Errors
    /// It uses none, or its agent does not answer.
    pub fn lose_disk(&self) -> Result<String> {
        let member = self.seen()?.member().context("no volume")?;
        self.disk_in_use()?.device().vanish()?;
        Ok(member)
    }
}
