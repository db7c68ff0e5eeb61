//! File systems that stop taking writes below an engine that has nothing to write.
//!
//! Not here: a remount as read-only, which the kernel refuses while the engine has files open for writing.

use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_integration::acked::AckedWriter;
use holdfast_integration::daemon::Serving;
use holdfast_integration::process::{command, run};

use crate::stage::{SOON, Stage, acks, audited};

/// Five probe writes, one of which looks at the mount table, and a busy machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_file_system_that_shuts_down_is_noticed_and_mounted_afresh_as_root() -> Result<()> {
    let stage = Stage::with_disks(1).await?;
    stage.explained(shut_down(&stage).await)
}

async fn shut_down(stage: &Stage) -> Result<()> {
    let (mut agent, writer) = stage.serving().await?;
    // An idle engine: nobody but the probe can notice.
    let audit = audited(writer).await?;
    let before = stage.logs().lines()?.len();
    run(command("xfs_io").args(["-x", "-c", "shutdown"]).arg(&stage.node.mount))?;
    stage.says("disk unsafe", before, NOTICED_WITHIN).await?;
    stage.says("gate changed gate=closed", before, NOTICED_WITHIN).await?;
    stage.says("volume mounted", before, SOON).await?;
    agent.becomes(Serving::Yes, SOON).await?;
    let found = stage.node.sql("app", "select count(distinct id) from acked")?;
    let found: usize = found.trim().parse()?;
    ensure!(found >= audit.acked, "{} ids were acked, and {found} are there", audit.acked);
    let writer = AckedWriter::start(stage.node.client()).await?;
    acks(&writer, 50).await?;
    agent.stop().await
}
