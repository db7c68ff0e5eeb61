//! The engine dies under load: it resumes in place, under the next version of its rule, and nothing acked is lost.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use holdfast_integration::daemon::Serving;
use holdfast_integration::node::Node;
use holdfast_integration::postmaster::signal_all;
use nix::sys::signal::Signal;

use crate::processes;
use crate::stage::Stage;

/// The shipper asks the engine how far it is acked, and says so when that does not answer.
const SHIPPER_ASKS: &str = "log not shipped, trying again error=ask how far log is acked";

/// Kills what `whom` names of the engine, under load.
async fn it_resumes_in_place(whom: fn(&Node) -> Result<BTreeSet<i32>>) -> Result<()> {
    let mut stage = Stage::serving(1, "restore").await?;
    let writer = stage.write().await?;
    let engine = processes::of_engine(&stage.node)?;
    let (term, version) = stage.rule()?;

    signal_all(&whom(&stage.node)?, Signal::SIGKILL)?;
    stage.logs_say("engine ended by itself").await?;
    stage.becomes(Serving::Yes).await?;

    ensure!(processes::of_engine(&stage.node)? != engine, "it is still the one that was killed");
    ensure!(stage.rule()? == (term, version + 1), "{:?} after {:?}", stage.rule()?, (term, version));
    stage.writes_go_on(&writer).await?;
    stage.everything_is_shipped().await?;
    stage.audit_lossless(writer).await?;
    stage.judge_logs(&[
        "engine ended by itself",
        "terminating connection due to unexpected postmaster exit",
        SHIPPER_ASKS,
    ])
}

#[tokio::test]
async fn a_killed_engine_resumes_in_place_and_loses_nothing_as_root() -> Result<()> {
    it_resumes_in_place(processes::of_whole_engine).await
}

/// Its children live a little longer, and hold the engine's lock.
#[tokio::test]
async fn an_engine_whose_first_process_was_killed_resumes_in_place_as_root() -> Result<()> {
    it_resumes_in_place(|node| Ok(BTreeSet::from([processes::of_engine(node)?]))).await
}
