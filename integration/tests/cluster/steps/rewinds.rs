//! While a deposed primary with a tail is rewound: its agent dies, and it comes back as who it was all the same.

use anyhow::{Context, Result, ensure};
use holdfast_integration::cluster::insist::Left;
use holdfast_integration::cluster::{Cluster, ClusterSpec};
use holdfast_model::step::{Step, rewind};
use tokio::time::Instant;

use super::{CARRIED_OUT_WITHIN, Death, Outages, rounds};
use crate::rewound::leave_a_tail;
use crate::stage::{Stage, play};

/// Said by a server that was just asked to stop, or by one that is being started; and by an agent of a server that the agent before it
/// had asked to stop, which it cannot know.
const SAID: &[&str] = &["the database system is", "engine ended by itself"];

async fn play_round(stage: &mut Stage, step: Step) -> Result<()> {
    let old = stage.cluster.primary()?;
    let (_, member, inside) = leave_a_tail(stage, old).await?;
    let death = Death::of(&stage.cluster, step, &[old])?;
    stage.cluster.heal()?;
    let whole = |cluster: &Cluster| {
        cluster.whole()?;
        Ok(if death.has_come(cluster)? {
            Left::Nothing
        } else {
            Left::Wait(format!("{step} is not reached"))
        })
    };
    stage.cluster.insist("three members again", CARRIED_OUT_WITHIN, whole).await?;
    death.over(&stage.cluster)?;
    let now = stage.cluster.site(old)?.seen()?.member();
    ensure!(now.as_ref() == Some(&member), "{now:?} was {member}");
    stage.cluster.books.close(inside).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_die_after_each_step_of_a_rewind_as_root() -> Result<()> {
    play("steps-rewind", ClusterSpec::default(), SAID, async |stage| {
        let writer = stage.writer(stage.others[1]).await?;
        let mut outages = Outages::default();
        for step in (0..rounds()?).flat_map(|_| rewind::ALL) {
            let began = Instant::now();
            play_round(stage, *step).await.with_context(|| step.to_string())?;
            outages.note(&stage.cluster, &writer, step.name(), began).await?;
        }
        outages.tell("steps-rewind");
        Ok(vec![writer])
    })
    .await
}
