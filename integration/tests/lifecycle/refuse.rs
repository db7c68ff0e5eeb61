//! A node that may not restore by itself waits for a person, and says for what.

use anyhow::{Result, ensure};
use holdfast_integration::daemon::Serving;

use crate::stage::Stage;

#[tokio::test]
async fn without_leave_to_restore_the_node_waits_for_an_order_and_then_comes_back_as_root() -> Result<()> {
    let mut stage = Stage::serving(2, "refuse").await?;
    stage.daemon()?.holdfast(&["backup", "create"])?;
    let writer = stage.write().await?;
    let already = writer.history().acked.len();
    stage.everything_is_shipped().await?;

    stage.disks[0].vanish()?;
    stage.becomes(Serving::No).await?;
    stage.explains("run 'holdfast restore'").await?;
    // Also after a restart, and a bootstrap is no way out.
    drop(stage.take_daemon()?);
    stage.start().await?;
    stage.explains("run 'holdfast restore'").await?;
    ensure!(stage.daemon()?.serving().await? == Serving::No, "it serves without leave");

    stage.daemon()?.holdfast(&["restore"])?;
    stage.becomes(Serving::Yes).await?;
    ensure!(stage.rule()?.0 == 2, "{:?}", stage.rule()?);
    stage.writes_go_on(&writer).await?;
    let audit = stage.audit(writer).await?;
    let old = audit.lost.iter().filter(|ack| ack.id <= i64::try_from(already).unwrap_or(0));
    ensure!(old.count() == 0, "lost although shipped: {:?}", audit.lost);
    Ok(())
}
