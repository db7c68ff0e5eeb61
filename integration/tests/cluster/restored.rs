//! Every node is lost, and one of them is restored from the first backup through the log of every reign since, each of which
//! ended in another way. What it holds then is what the last primary held: everything acked, and nothing of a tail that a
//! reign left behind.

use anyhow::{Context, Result, ensure};
use holdfast_integration::acked::AckedWriter;
use holdfast_integration::cluster::order::Order;
use holdfast_integration::cluster::{ClusterSpec, NOTICED_WITHIN, OPENS_WITHIN, WHOLE_WITHIN};
use holdfast_integration::daemon::Serving;
use holdfast_integration::eventually;
use holdfast_integration::zones::Zone;

use crate::disks::DISK_LOST;
use crate::stage::{Stage, acks_stop, play};

/// One in use; one for the disk that vanishes on the way, and one for when all do.
const DISKS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_through_reigns_of_every_kind_holds_what_the_last_primary_held_as_root() -> Result<()> {
    let spec = ClusterSpec { disks: DISKS, ..ClusterSpec::default() };
    play(
        "restored",
        spec,
        &[DISK_LOST, &["refounded: commits acknowledged after the shipped end are lost"]].concat(),
        async |stage| {
            let first = oldest_backup(stage)?;
            resumes(stage).await?;
            cut_off_with_a_tail(stage).await?;
            loses_its_disk(stage).await?;
            let last = hands_over(stage).await?;

            stage.cluster.audit().await?;
            stage.cluster.site(last)?.agent()?.has_shipped_everything(OPENS_WITHIN).await?;
            let held = stage.cluster.digest(last)?;
            lose_everything(stage)?;
            stage.cluster.site_mut(last)?.start_agent().await?;
            let answers = async || stage.cluster.site(last)?.seen().map(drop);
            eventually("an agent that answers", NOTICED_WITHIN, answers).await?;
            stage.cluster.holdfast(last, &["restore", "--backup", &first])?;
            stage.cluster.becomes(last, Serving::Yes, OPENS_WITHIN).await?;
            let restored = stage.cluster.digest(last)?;
            ensure!(restored == held, "restored {restored}, where the last primary had {held}");

            for zone in stage.cluster.others(last) {
                stage.cluster.site_mut(zone)?.start_agent().await?;
            }
            Ok(Vec::new())
        },
    )
    .await
}

fn oldest_backup(stage: &Stage) -> Result<String> {
    let list = stage.cluster.holdfast(stage.primary, &["--json", "backup", "list"])?;
    let list: serde_json::Value = serde_json::from_str(&list).with_context(|| list.clone())?;
    let backups = list.as_array().with_context(|| format!("no list: {list}"))?;
    let oldest = backups.iter().min_by_key(|backup| backup["finished"].as_str());
    Ok(oldest.and_then(|backup| backup["id"].as_str()).context("no backup")?.to_owned())
}

/// What clients were told in one reign is closed before the next one ends.
async fn whole(stage: &mut Stage, writer: AckedWriter) -> Result<Zone> {
    stage.cluster.writes_go_on(&writer).await?;
    let primary = stage.cluster.wait_for_three_voters(WHOLE_WITHIN).await?;
    stage.cluster.books.close(writer).await?;
    Ok(primary)
}

async fn resumes(stage: &mut Stage) -> Result<()> {
    let writer = stage.writer(stage.others[0]).await?;
    stage.cluster.site(stage.primary)?.kill_engine()?;
    whole(stage, writer).await?;
    Ok(())
}

async fn cut_off_with_a_tail(stage: &mut Stage) -> Result<()> {
    let primary = stage.cluster.primary()?;
    let others = stage.cluster.others(primary);
    let writer = stage.writer(others[0]).await?;
    let inside = stage.cluster.writer_at(primary).await?;
    stage.cluster.cut_off(primary)?;
    acks_stop(&inside).await?;
    stage.cluster.fail_over(others[0], &others).await?;
    stage.cluster.heal()?;
    whole(stage, writer).await?;
    stage.cluster.books.close(inside).await?;
    Ok(())
}

async fn loses_its_disk(stage: &mut Stage) -> Result<()> {
    let primary = stage.cluster.primary()?;
    let others = stage.cluster.others(primary);
    let writer = stage.writer(others[0]).await?;
    let lost = stage.cluster.site(primary)?.lose_disk()?;
    stage.cluster.becomes(primary, Serving::No, NOTICED_WITHIN).await?;
    stage.cluster.fail_over(others[0], &others).await?;
    stage.cluster.has_another_member(primary, &lost).await?;
    whole(stage, writer).await?;
    Ok(())
}

async fn hands_over(stage: &mut Stage) -> Result<Zone> {
    let primary = stage.cluster.primary()?;
    let to = stage.cluster.others(primary)[0];
    let writer = stage.writer(to).await?;
    stage.cluster.order(primary, Order::Switchover { to })?;
    whole(stage, writer).await
}

/// Every agent, every engine and every disk in use.
fn lose_everything(stage: &mut Stage) -> Result<()> {
    for zone in Zone::ALL {
        stage.cluster.site_mut(zone)?.kill_agent();
        let site = stage.cluster.site(zone)?;
        site.kill_engine()?;
        site.disk_in_use()?.device().vanish()?;
    }
    Ok(())
}
