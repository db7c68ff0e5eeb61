//! A primary that was deposed with log which nobody acked comes back as who it is: a copy of its data is rewound, and takes its
//! place.

use anyhow::{Context, Result, ensure};
use holdfast_integration::acked::AckedWriter;
use holdfast_integration::cluster::{ClusterSpec, WHOLE_WITHIN};
use holdfast_integration::eventually;
use holdfast_integration::zones::Zone;

use crate::disks::DISK_LOST;
use crate::stage::{Stage, acks_stop, play};

/// The primary is cut off with commits that nobody acks, and another one serves. Returns who that is, who the old one was, and
/// its client.
pub(crate) async fn leave_a_tail(stage: &mut Stage, primary: Zone) -> Result<(Zone, String, AckedWriter)> {
    let inside = stage.cluster.writer_at(primary).await?;
    let member = stage.cluster.site(primary)?.seen()?.member().context("it has a volume")?;
    stage.cluster.cut_off(primary)?;
    acks_stop(&inside).await?;
    let others = stage.cluster.others(primary);
    let new = stage.cluster.fail_over(others[0], &others).await?;
    Ok((new, member, inside))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_primary_comes_back_as_who_it_is_although_another_disk_is_lost_as_root() -> Result<()> {
    play("rewound", ClusterSpec::default(), DISK_LOST, async |stage| {
        let primary = stage.primary;
        let writer = stage.writer(stage.others[1]).await?;
        let (new, member, inside) = leave_a_tail(stage, primary).await?;
        stage.cluster.writes_go_on(&writer).await?;
        let third = stage.others.into_iter().find(|zone| *zone != new).context("three zones")?;
        let lost = stage.cluster.site(third)?.lose_disk()?;
        // Nobody is left who could ack but the one that has log which nobody acked.
        acks_stop(&writer).await?;
        stage.cluster.heal()?;
        stage.cluster.writes_go_on(&writer).await?;
        let now = stage.cluster.site(primary)?.seen()?.member();
        ensure!(now.as_ref() == Some(&member), "{now:?} was {member}");
        stage.cluster.has_another_member(third, &lost).await?;
        eventually("the tail in the repository", WHOLE_WITHIN, async || {
            let kept = stage.cluster.store.keys(&format!("tail-{member}"))?;
            ensure!(!kept.is_empty(), "nothing is kept");
            Ok(())
        })
        .await?;
        Ok(vec![writer, inside])
    })
    .await
}
