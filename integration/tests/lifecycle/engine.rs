//! An operator stops the engine and starts it again; somebody weakens what it promises.

use anyhow::{Result, ensure};
use holdfast_integration::daemon::{Serving, http_get};
use holdfast_integration::eventually;

use crate::processes;
use crate::stage::{NOTICED_WITHIN, Stage};

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

#[tokio::test]
async fn a_role_that_weakens_its_commits_is_named_and_forgotten_as_root() -> Result<()> {
    let stage = Stage::serving(1, "restore").await?;
    let status = stage.daemon()?.holdfast(&["status"])?;
    ensure!(status.contains("breaches    none seen"), "{status}");

    stage.node.sql("postgres", "create role hasty login; alter role hasty set synchronous_commit = off")?;
    let named = "synchronous_commit = off for role hasty";
    stage.explains(named).await?;
    stage.explains("ALTER ROLE \"hasty\" RESET synchronous_commit").await?;
    let status = stage.daemon()?.holdfast(&["status"])?;
    ensure!(status.contains(&format!("breaches    {named}")), "{status}");
    let metric = "holdfast_promise_weakened{setting=\"synchronous_commit\",value=\"off\",role=\"hasty\",database=\"\"} 1";
    let (_, metrics) = http_get(&stage.node, "/metrics").await?;
    ensure!(metrics.lines().any(|line| line == metric), "{metrics}");

    stage.node.sql("postgres", "alter role hasty reset synchronous_commit")?;
    eventually("that it is forgotten", NOTICED_WITHIN, async || {
        let (_, metrics) = http_get(&stage.node, "/metrics").await?;
        ensure!(!metrics.contains("hasty"), "{metrics}");
        Ok(())
    })
    .await?;
    stage.judge_logs(&["commits may be answered before they are held elsewhere"])
}
