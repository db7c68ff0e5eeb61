//! `holdfast status`, `explain` and `operation list`.

use holdfast_model::status::{NodeView, Operation};
use holdfast_proto::convert::{Wire as _, list_from_wire, required_from_wire};
use holdfast_proto::reply::Explanation;
use holdfast_proto::v1;

use super::view;
use crate::client::Agent;
use crate::failure::Failure;
use crate::output::Output;
use crate::render;

pub(super) async fn status(agent: &Agent, output: &mut Output) -> Result<(), Failure> {
    output.answer(&view(agent).await?, render::node)
}

pub(super) async fn watch(agent: &Agent, output: &mut Output) -> Result<(), Failure> {
    let mut views = agent.node().watch_status(v1::WatchStatusRequest {}).await?.into_inner();
    while let Some(answer) = views.message().await? {
        let view: NodeView = required_from_wire("view", answer.view)?;
        output.answer(&view, render::view_line)?;
    }
    Ok(())
}

pub(super) async fn explain(agent: &Agent, output: &mut Output) -> Result<(), Failure> {
    let answer = agent.node().explain(v1::ExplainRequest {}).await?.into_inner();
    output.answer(&Explanation::from_wire(answer)?, render::explanation)
}

pub(super) async fn operations(agent: &Agent, output: &mut Output) -> Result<(), Failure> {
    let answer = agent.operation().list_operations(v1::ListOperationsRequest {}).await?.into_inner();
    let operations: Vec<Operation> = list_from_wire("operations", answer.operations)?;
    output.answer(operations.as_slice(), render::operations)
}
