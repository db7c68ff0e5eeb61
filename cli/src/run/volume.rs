//! `holdfast volume ..`: the verbs that write name the node, the device and what was seen on it.

use holdfast_proto::convert::{Wire as _, list_from_wire};
use holdfast_proto::refusal::{Reason, Refusal};
use holdfast_proto::reply::{PlannedDevice, WipeConsent};
use holdfast_proto::request::{AllowWipe, FormatVolume, SeenDevice, Target, WipeVolume};
use holdfast_proto::v1;

use super::{aim, follow};
use crate::args::{SeenArgs, VolumeCommand};
use crate::client::Agent;
use crate::failure::Failure;
use crate::output::Output;
use crate::render;

pub(super) async fn run(agent: &Agent, command: VolumeCommand, output: &mut Output) -> Result<(), Failure> {
    match command {
        VolumeCommand::Plan => plan(agent, output).await,
        VolumeCommand::Format { seen, wait } => {
            let (target, device) = aim_at(agent, seen).await?;
            let request = FormatVolume { target, device }.to_wire();
            let begun = agent.volume().format_volume(request).await?.into_inner();
            follow::begun(agent, begun.operation, wait, output).await
        }
        VolumeCommand::Wipe { seen, token: None, .. } => {
            let (target, device) = aim_at(agent, seen).await?;
            let request = AllowWipe { target, device }.to_wire();
            let answer = agent.volume().allow_wipe(request).await?.into_inner();
            output.answer(&WipeConsent::from_wire(answer)?, render::consent)
        }
        VolumeCommand::Wipe { seen, token: Some(token), wait } => {
            let (target, device) = aim_at(agent, seen).await?;
            let request = WipeVolume { target, device, token }.to_wire();
            let begun = agent.volume().wipe_volume(request).await?.into_inner();
            follow::begun(agent, begun.operation, wait, output).await
        }
    }
}

async fn plan(agent: &Agent, output: &mut Output) -> Result<(), Failure> {
    let answer = agent.volume().plan_volume(v1::PlanVolumeRequest {}).await?.into_inner();
    let devices: Vec<PlannedDevice> = list_from_wire("devices", answer.devices)?;
    output.answer(devices.as_slice(), render::plan)
}

/// The node was named by a person: another one at this endpoint is refused before anything is sent to it.
async fn aim_at(agent: &Agent, seen: SeenArgs) -> Result<(Target, SeenDevice), Failure> {
    let target = aim(agent).await?;
    if target.node != seen.node {
        return Err(Failure::Refused(Refusal::new(
            Reason::WrongTarget,
            format!("the agent at this endpoint is node {}, not {}", target.node, seen.node),
            format!("ask the agent of node {} with --endpoint", seen.node),
        )));
    }
    let device = SeenDevice { serial: seen.serial, diskseq: seen.diskseq, verdict: seen.verdict };
    Ok((target, device))
}
