//! `holdfast failover`, `switchover` and `member ..`: the agent that is asked coordinates.

use holdfast_model::NodeName;
use holdfast_proto::convert::Wire as _;
use holdfast_proto::request::{ChangeMember, Failover, MemberChange, Switchover};

use super::{aim, follow, view};
use crate::args::{FailoverArgs, MemberCommand, Wait};
use crate::client::Agent;
use crate::clock;
use crate::company;
use crate::failure::Failure;
use crate::output::Output;
use crate::render;

/// How long it counts that somebody vouches for a primary to be gone: for a failover and its further attempts.
const VOUCHED_MS: u64 = 5 * 60 * 1000;

pub(super) async fn failover(agent: &Agent, args: FailoverArgs, output: &mut Output) -> Result<(), Failure> {
    let FailoverArgs { prefer_zone: prefer, without_votes, why, wait } = args;
    let target = aim(agent).await?;
    let vouched_until_unix_ms = without_votes.then(|| clock::unix_ms() + VOUCHED_MS);
    let request = Failover { target, prefer, vouched_until_unix_ms, why: why.unwrap_or_default() }.to_wire();
    let begun = agent.cluster().failover(request).await?.into_inner();
    follow::begun(agent, begun.operation, wait, output).await
}

pub(super) async fn switchover(
    agent: &Agent,
    to: NodeName,
    wait: Wait,
    output: &mut Output,
) -> Result<(), Failure> {
    let request = Switchover { target: aim(agent).await?, to }.to_wire();
    let begun = agent.cluster().switchover(request).await?.into_inner();
    follow::begun(agent, begun.operation, wait, output).await
}

pub(super) async fn member(
    agent: &Agent,
    command: MemberCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        MemberCommand::List => output.answer(company::lines(&view(agent).await?).as_slice(), render::members),
        MemberCommand::Remove { node, wait } => change(agent, node, MemberChange::Remove, wait, output).await,
        MemberCommand::Admit { node, wait } => change(agent, node, MemberChange::Admit, wait, output).await,
    }
}

async fn change(
    agent: &Agent,
    node: NodeName,
    change: MemberChange,
    wait: Wait,
    output: &mut Output,
) -> Result<(), Failure> {
    let request = ChangeMember { target: aim(agent).await?, node, change }.to_wire();
    let begun = agent.cluster().change_member(request).await?.into_inner();
    follow::begun(agent, begun.operation, wait, output).await
}
