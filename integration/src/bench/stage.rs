//! One node that serves, for one measurement.

use std::time::Duration;

use anyhow::Result;

use super::fault::Medium;
use crate::daemon::{Daemon, Serving};
use crate::installation;
use crate::node::{Disks, Node, NodeSpec};
use crate::scratch::Scratch;
use crate::weed::Weed;

/// For everything that ends in an open gate.
const OPENS_WITHIN: Duration = Duration::from_secs(60);

/// Fields are dropped in this order: what a fault left is undone before the scratch directory is taken down.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) daemon: Daemon,
    pub(super) medium: Medium,
    _store: Weed,
    pub(super) node: Node,
}

impl Stage {
    /// A node on `medium`, bootstrapped, with the clients' database.
    pub(super) async fn serving(scratch: &Scratch, medium: Medium, postgres: u32) -> Result<Self> {
        let store = Weed::start(scratch).await?;
        let disks = Disks::Block(vec![medium.disk().path().to_owned()]);
        let spec = NodeSpec::alone("n1", disks, "restore", installation::postgres(postgres)?);
        let node = Node::lay_out(scratch, &spec, &store)?;
        if let Some(filesystem) = medium.filesystem() {
            node.configure("volume", &format!("filesystem = {filesystem:?}"))?;
        }
        let mut daemon = Daemon::start(&node).await?;
        daemon.logs().wait_for("run 'holdfastd bootstrap'", OPENS_WITHIN).await?;
        daemon.bootstrap()?;
        daemon.becomes(Serving::Yes, OPENS_WITHIN).await?;
        node.make_client_database()?;
        Ok(Self { daemon, medium, _store: store, node })
    }

    /// Waits until a checkpoint has written everything out and all of the log is shipped: nothing is left to do.
    pub(super) async fn settles(&self) -> Result<()> {
        self.node.sql("postgres", "checkpoint")?;
        self.daemon.has_shipped_everything(OPENS_WITHIN).await
    }
}
