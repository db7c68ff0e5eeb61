//! While a voter is removed and admitted again: the agent of the primary dies, and clients do not notice.

use anyhow::{Context, Result, ensure};
use holdfast_integration::cluster::insist::Left;
use holdfast_integration::cluster::order::Order;
use holdfast_integration::cluster::seen::Part;
use holdfast_integration::cluster::{Cluster, ClusterSpec, site};
use holdfast_integration::zones::Zone;
use holdfast_model::step::{Step, change, expel, gate};
use tokio::time::Instant;

use super::{CARRIED_OUT_WITHIN, Death, Outages, rounds};
use crate::stage::{Stage, play};

/// What a primary does about a voter that leaves or comes, besides [`change`] and [`expel`].
const IN_FORCE: [Step; 3] = [gate::ADMITTED, gate::OPEN_WRITTEN, gate::OPEN];

/// The rule does not name the node of `whom`, and nothing is being changed.
fn is_out(cluster: &Cluster, primary: Zone, whom: Zone) -> Result<()> {
    let seen = cluster.site(primary)?.seen()?;
    let rule = seen.rule.context("no rule was read yet")?;
    let named = rule.voters.iter().any(|voter| voter.member.starts_with(&format!("{}.", site::name(whom))));
    ensure!(!named, "{rule:?}");
    ensure!(matches!(seen.part, Part::Writes { change: None }), "{:?}", seen.part);
    Ok(())
}

/// Gives `order` until `done`, while the agent of the primary dies after `step`.
async fn carried_out(
    stage: &mut Stage,
    primary: Zone,
    step: Step,
    order: Order,
    done: impl Fn(&Cluster) -> Result<()>,
) -> Result<()> {
    let death = Death::of(&stage.cluster, step, &[primary])?;
    let left = |cluster: &Cluster| match done(cluster) {
        Ok(()) if death.has_come(cluster)? => Ok(Left::Nothing),
        // Not even begun, or cut short.
        Ok(()) | Err(_) => Ok(Left::Order(primary, order)),
    };
    stage.cluster.insist(&format!("{order:?}"), CARRIED_OUT_WITHIN, left).await?;
    death.over(&stage.cluster)
}

/// A voter is removed and admitted again; the agent of the primary dies after a step of each.
async fn play_round(stage: &mut Stage, removing: Step, admitting: Step) -> Result<()> {
    let primary = stage.primary;
    let whom = stage.others[0];
    carried_out(stage, primary, removing, Order::Remove { whom }, |cluster| is_out(cluster, primary, whom))
        .await
        .with_context(|| format!("remove, {removing}"))?;
    let whole = |cluster: &Cluster| cluster.whole().map(drop);
    carried_out(stage, primary, admitting, Order::Admit { whom }, whole)
        .await
        .with_context(|| format!("admit, {admitting}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primarys_agent_may_die_after_each_step_of_a_change_of_members_as_root() -> Result<()> {
    let removing = [change::ALL, &IN_FORCE, expel::ALL].concat();
    let admitting = [change::ALL, &IN_FORCE].concat();
    play("steps-members", ClusterSpec::default(), &[], async |stage| {
        // Its engine alone: a load balancer goes elsewhere when the agent does not answer.
        let writer = stage.cluster.writer_at(stage.primary).await?;
        let mut outages = Outages::default();
        for _ in 0..rounds()? {
            for (removing, admitting) in removing.iter().zip(admitting.iter().cycle()) {
                let began = Instant::now();
                play_round(stage, *removing, *admitting).await?;
                let named = format!("removed, {removing}; admitted, {admitting}");
                outages.note(&stage.cluster, &writer, &named, began).await?;
            }
        }
        outages.tell("steps-members");
        stage.same_reign()?;
        Ok(vec![writer])
    })
    .await
}
