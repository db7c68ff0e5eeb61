//! `holdfast bootstrap`, `restore` and `engine ..`.

use holdfast_proto::convert::Wire as _;
use holdfast_proto::request::{Bootstrap, Restore};
use holdfast_proto::v1;

use super::{aim, follow};
use crate::args::{BootstrapArgs, EngineCommand, Wait};
use crate::client::Agent;
use crate::failure::Failure;
use crate::output::Output;

pub(super) async fn bootstrap(
    agent: &Agent,
    args: BootstrapArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let BootstrapArgs { token, cluster_id, wait } = args;
    let request = Bootstrap { target: aim(agent).await?, token, cluster_id }.to_wire();
    let begun = agent.lifecycle().bootstrap(request).await?.into_inner();
    follow::begun(agent, begun.operation, wait, output).await
}

pub(super) async fn restore(
    agent: &Agent,
    backup: Option<String>,
    wait: Wait,
    output: &mut Output,
) -> Result<(), Failure> {
    let request = Restore { target: aim(agent).await?, backup }.to_wire();
    let begun = agent.lifecycle().restore(request).await?.into_inner();
    follow::begun(agent, begun.operation, wait, output).await
}

pub(super) async fn engine(
    agent: &Agent,
    command: EngineCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    let target = Some(aim(agent).await?.to_wire());
    let recorded = match command {
        EngineCommand::Start => {
            agent.lifecycle().start_engine(v1::StartEngineRequest { target }).await?;
            "start recorded"
        }
        EngineCommand::Stop => {
            agent.lifecycle().stop_engine(v1::StopEngineRequest { target }).await?;
            "stop recorded"
        }
    };
    output.answer(recorded, |recorded| format!("{recorded}; holdfast status --watch shows what comes of it"))
}
