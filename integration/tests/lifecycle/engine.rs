//! An operator stops the engine and starts it again.

use anyhow::{Result, ensure};
use holdfast_integration::daemon::Serving;

use crate::processes;
use crate::stage::Stage;

#[tokio::test]
async fn an_engine_stopped_by_an_operator_stays_so_until_started_again_as_root() -> Result<()> {
    let mut stage = Stage::serving(1, "restore").await?;
    let writer = stage.write().await?;
    let (term, version) = stage.rule()?;

    stage.daemon()?.holdfast(&["engine", "stop"])?;
    stage.explains("stopped by an operator: run 'holdfast engine start'").await?;
    stage.becomes(Serving::No).await?;
    stage.logs_say("engine stopped").await?;
    // A restart of the agent is no word of an operator.
    stage.take_daemon()?.stop().await?;
    stage.start().await?;
    stage.explains("stopped by an operator").await?;
    ensure!(processes::of_engine(&stage.node).is_err(), "the engine runs");

    stage.daemon()?.holdfast(&["engine", "start"])?;
    stage.becomes(Serving::Yes).await?;
    ensure!(stage.rule()? == (term, version + 1), "{:?} after {:?}", stage.rule()?, (term, version));
    stage.writes_go_on(&writer).await?;
    stage.audit_lossless(writer).await?;
    stage.judge_logs(&["log not shipped", "terminating connection", "the database system is"])
}
