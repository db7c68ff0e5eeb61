//! A failover that no agent coordinates: the documentation's script asks each member, decides, and tells them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_integration::cluster::{Cluster, ClusterSpec, NOTICED_WITHIN, seen};
use holdfast_integration::eventually;
use holdfast_integration::zones::Zone;
use serde_json::Value;

use crate::stage::play;

/// Members must have missed the primary for a while before they vote for another.
const FAILS_OVER_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_script_replaces_a_primary_whose_zone_is_cut_off_and_loses_nothing_as_root() -> Result<()> {
    play("by-hand", ClusterSpec::default(), &[], async |stage| {
        let writer = stage.writer(stage.others[1]).await?;
        let refused = stage.cluster.fail_over_by_hand(stage.others[0]);
        let said = refused.err().context("a healthy primary was replaced")?.to_string();
        ensure!(said.contains("too few of the others miss the primary"), "{said}");
        stage.same_reign()?;

        stage.cluster.cut_off(stage.primary)?;
        let told = eventually("members that miss the primary", FAILS_OVER_WITHIN, async || {
            stage.cluster.fail_over_by_hand(stage.others[0])
        })
        .await?;
        let certificate: Value = serde_json::from_str(&told).with_context(|| told.clone())?;
        // It ended once the gate was open: nobody waits for anything more.
        let all = stage.cluster.seen_in(&stage.others)?;
        let new = seen::primary(&all)?;
        ensure!(certificate["chosen"].as_str() == all[&new].member().as_deref(), "{told}");
        ensure!(certificate["attempt"]["term"].as_u64() == all[&new].open_in().map(u64::from), "{told}");
        ensure!(certificate["absent"].as_array().is_some_and(|absent| absent.len() == 1), "{told}");
        stage.cluster.writes_go_on(&writer).await?;
        stage.cluster.heal()?;
        for zone in Zone::ALL {
            everybody_can_tell(&stage.cluster, zone, &certificate).await?;
        }
        Ok(vec![writer])
    })
    .await
}

/// Whoever was promoted kept what the script had shown it, and every other agent finds it.
async fn everybody_can_tell(cluster: &Cluster, zone: Zone, certificate: &Value) -> Result<()> {
    eventually("how the newest reign came about", NOTICED_WITHIN, async || {
        let told = cluster.explain(zone)?;
        let loss = &told["certificate"];
        ensure!(loss["certificate"]["chosen"] == certificate["chosen"], "{told}");
        ensure!(loss["certificate"]["attempt"]["id"] == certificate["attempt"]["id"], "{told}");
        let revoked = loss["revoked"].as_array().and_then(|all| all.first()).and_then(Value::as_str);
        ensure!(revoked.is_some_and(|why| why.contains("was not recruited")), "{told}");
        ensure!(loss["established"].is_string() && loss["discarded"].is_array(), "{told}");
        let text = cluster.holdfast(zone, &["explain"])?;
        ensure!(text.contains("how the newest reign came about"), "{text}");
        Ok(())
    })
    .await
}
