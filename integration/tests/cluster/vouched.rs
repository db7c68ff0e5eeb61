//! A failover without votes, on somebody's word.

use anyhow::{Context, Result, ensure};
use holdfast_integration::cluster::{Cluster, ClusterSpec, NOTICED_WITHIN, seen};
use holdfast_integration::eventually;
use holdfast_integration::zones::Zone;
use serde_json::json;

use crate::stage::play;

const WHY: &str = "the zone burnt";
/// Said about each word that is taken.
const SAID: &[&str] = &["failover without votes"];

fn remembers(cluster: &Cluster, asked: Zone) -> Result<()> {
    let told = cluster.explain(asked)?;
    let word = &told["vouch"];
    ensure!(word["why"] == WHY, "{told}");
    ensure!(word["by"].as_str().is_some_and(|by| by.contains("/user/ops?")), "{told}");
    ensure!(word["outcome"].as_str().is_some_and(|outcome| outcome.contains("serves in term")), "{told}");
    let text = cluster.holdfast(asked, &["explain"])?;
    ensure!(text.contains("a failover without votes was begun"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_in_place_of_votes_is_written_down_and_counts_once_as_root() -> Result<()> {
    play("vouched", ClusterSpec::default(), SAID, async |stage| {
        let writer = stage.writer(stage.others[1]).await?;
        let asked = stage.others[0];
        stage.cluster.cut_off(stage.primary)?;
        // Members have had no time to miss it.
        stage.cluster.holdfast(asked, &["failover", "--without-votes", "--why", WHY])?;
        let all = stage.cluster.seen_in(&stage.others)?;
        let new = seen::primary(&all)?;
        ensure!(all[&new].open_in() > Some(stage.rule.term), "{all:?}");
        stage.cluster.writes_go_on(&writer).await?;
        remembers(&stage.cluster, asked)?;
        let of_words = eventually("the word in the repository", NOTICED_WITHIN, async || {
            let keys = stage.cluster.store.keys("evidence/")?;
            let of_words = keys.iter().filter(|key| key.contains("-vouch-")).count();
            ensure!(of_words > 0, "{keys:?}");
            Ok(of_words)
        })
        .await?;
        ensure!(of_words == 1, "{of_words} words");

        let site = stage.cluster.site_mut(asked)?;
        site.kill_agent();
        site.start_agent().await?;
        remembers(&stage.cluster, asked)?;
        // An agent that has just begun does not know its volume yet, and a call names the member.
        eventually("the agent knows its volume", NOTICED_WITHIN, async || {
            let seen = stage.cluster.seen_in(&[asked])?;
            ensure!(seen[&asked].volume.identity.is_some(), "{seen:?}");
            Ok(())
        })
        .await?;
        let late = json!({"withoutVotes": true, "why": WHY, "vouchedUntilUnixMs": "1700000000000"});
        let refused = stage.cluster.call(asked, "ClusterService/Failover", late);
        let said = refused.err().context("a word that is over was taken")?.to_string();
        ensure!(said.contains("counted until"), "{said}");
        Ok(vec![writer])
    })
    .await
}
