//! Links between zones are cut: rows F4 and F5 of the fault matrix.

use anyhow::{Context, Result, ensure};
use holdfast_integration::cluster::order::Order;
use holdfast_integration::cluster::{ClusterSpec, WHOLE_WITHIN};
use holdfast_integration::zones::Cut;

use crate::stage::{acks_stop, play};

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_zone_is_cut_off_acks_nothing_more_and_another_serves_as_root() -> Result<()> {
    play("zone-cut-off", ClusterSpec::default(), &[], async |stage| {
        let writer = stage.writer(stage.others[1]).await?;
        let inside = stage.cluster.writer_at(stage.primary).await?;
        stage.cluster.cut_off(stage.primary)?;
        acks_stop(&inside).await?;
        let before = inside.history().acked.len();
        let new = stage.fails_over().await?;
        ensure!(new != stage.primary, "{new:?} is cut off");
        stage.cluster.writes_go_on(&writer).await?;
        let after = inside.history().acked.len();
        ensure!(after == before, "{} acks in a zone that is cut off", after - before);
        stage.cluster.heal()?;
        stage.cluster.writes_go_on(&writer).await?;
        Ok(vec![writer, inside])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_follower_less_stops_no_write_and_begins_no_reign_as_root() -> Result<()> {
    play("one-follower-cut", ClusterSpec::default(), &[], async |stage| {
        let (primary, follower) = (stage.primary, stage.others[0]);
        let writer = stage.writer(primary).await?;
        let cuts = [
            Cut::Between(primary, follower),
            Cut::OneWay { from: primary, to: follower },
            Cut::OneWay { from: follower, to: primary },
            Cut::Off(follower),
        ];
        for cut in cuts {
            stage.cluster.cut(&[cut])?;
            stage.cluster.writes_go_on(&writer).await.with_context(|| format!("{cut:?}"))?;
            stage.cluster.heal()?;
            stage
                .cluster
                .wait_for_three_voters(WHOLE_WITHIN)
                .await
                .with_context(|| format!("after {cut:?}"))?;
        }
        stage.same_reign()?;
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_ring_where_each_hears_one_and_reaches_another_writes_wait_and_go_on_as_root() -> Result<()> {
    play("ring", ClusterSpec::default(), &[], async |stage| {
        let [one, two] = stage.others;
        let writer = stage.writer(stage.primary).await?;
        stage.cluster.cut(&[
            Cut::OneWay { from: stage.primary, to: one },
            Cut::OneWay { from: one, to: two },
            Cut::OneWay { from: two, to: stage.primary },
        ])?;
        acks_stop(&writer).await?;
        stage.cluster.heal()?;
        stage.cluster.writes_go_on(&writer).await?;
        stage.same_reign()?;
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_only_misses_acks_waits_and_is_not_replaced_as_root() -> Result<()> {
    play("acks-dropped", ClusterSpec::default(), &[], async |stage| {
        let primary = stage.primary;
        let port = stage.cluster.site(primary)?.node.port;
        let writer = stage.writer(primary).await?;
        stage.cluster.cut(&stage.others.map(|from| Cut::Said { from, to: primary, port }))?;
        acks_stop(&writer).await?;
        // Waiting for acks is never a cause: those who are asked hear the primary.
        let refused = stage.cluster.order(stage.others[0], Order::Failover);
        ensure!(refused.is_err(), "a healthy primary was replaced: {refused:?}");
        stage.cluster.order(stage.others[0], Order::Failover).err().context("nor by asking again")?;
        let told = stage.cluster.explain(stage.others[0])?;
        let kept = told["refused"].as_array().context("no list of refusals")?;
        ensure!(kept.len() == 1, "of refusals the last is kept: {told}");
        let why = kept[0]["state"]["why"].as_str().unwrap_or_default();
        ensure!(why.contains("not enough members miss the primary"), "{told}");
        stage.cluster.heal()?;
        stage.cluster.writes_go_on(&writer).await?;
        stage.same_reign()?;
        Ok(vec![writer])
    })
    .await
}
