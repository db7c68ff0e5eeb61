//! How clients find the primary and its followers: by libpq alone and through a load balancer. What docs/clients.md says of
//! it, it says because of these tests.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use anyhow::{Result, ensure};
use holdfast_integration::cluster::order::Order;
use holdfast_integration::cluster::sessions::Search;
use holdfast_integration::cluster::{Cluster, ClusterSpec, NOTICED_WITHIN, WHOLE_WITHIN};
use holdfast_integration::eventually;
use holdfast_integration::haproxy::Role;
use holdfast_integration::zones::Zone;
use serde_json::json;

use crate::stage::play;

/// The oldest and the newest that the project is tested with.
const LIBPQ: [u32; 2] = [15, 17];
const READ_WRITE: &str = "target_session_attrs=read-write";
const PREFER_STANDBY: &str = "target_session_attrs=prefer-standby";

/// libpq is given all three nodes, in every order that begins elsewhere.
fn libpq_finds(cluster: &Cluster, primary: Zone) -> Result<()> {
    let mut addresses =
        Zone::ALL.map(|zone| cluster.engine_at(zone)).into_iter().collect::<Result<Vec<_>>>()?;
    for libpq in LIBPQ {
        for first in Zone::ALL {
            let found = |parameters| {
                cluster.session(&Search { libpq, from: Zone::B, addresses: &addresses, parameters })
            };
            let (writes, reads) = (found(READ_WRITE)?, found(PREFER_STANDBY)?);
            ensure!(writes == primary, "libpq {libpq}, {first:?} first: writes go to {writes:?}");
            ensure!(reads != primary, "libpq {libpq}, {first:?} first: reads go to the primary");
            addresses.rotate_left(1);
        }
    }
    Ok(())
}

/// A load balancer sends who writes to the primary, and who reads to all others and to nobody else.
fn balancer_finds(cluster: &Cluster, primary: Zone) -> Result<()> {
    let session = |role| {
        let addresses = [cluster.balancer(Zone::B)?.listens(role)];
        cluster.session(&Search { libpq: 15, from: Zone::B, addresses: &addresses, parameters: "" })
    };
    let writes = session(Role::Primary)?;
    ensure!(writes == primary, "writes go to {writes:?}");
    let reads = (0..6).map(|_| session(Role::Replica)).collect::<Result<BTreeSet<Zone>>>()?;
    let others = cluster.others(primary).into_iter().collect::<BTreeSet<Zone>>();
    ensure!(reads == others, "reads go to {reads:?}, the primary is {primary:?}");
    Ok(())
}

async fn everybody_finds(cluster: &Cluster, primary: Zone) -> Result<()> {
    libpq_finds(cluster, primary)?;
    // It asks now and then.
    eventually("a load balancer that knows who is what", NOTICED_WITHIN, async || {
        balancer_finds(cluster, primary)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_find_the_primary_and_its_followers_before_and_after_a_switchover_as_root() -> Result<()> {
    play("clients", ClusterSpec::default(), &[], async |stage| {
        let writer = stage.writer(stage.others[1]).await?;
        everybody_finds(&stage.cluster, stage.primary).await?;
        let to = stage.others[0];
        stage.cluster.order(stage.others[1], Order::Switchover { to })?;
        stage.cluster.wait_for_three_voters(WHOLE_WITHIN).await?;
        everybody_finds(&stage.cluster, to).await?;
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_gate_ends_the_search_of_libpq_and_nothing_else_does_as_root() -> Result<()> {
    play("closed-gate", ClusterSpec::default(), &[], async |stage| {
        let (cluster, [one, two]) = (&stage.cluster, stage.others);
        let (closed, open) = (cluster.engine_at(stage.primary)?, cluster.engine_at(one)?);
        let nobody = SocketAddrV4::new(*closed.ip(), 1);
        let found = |libpq, addresses: &[SocketAddrV4], parameters: &str| {
            cluster.session(&Search { libpq, from: two, addresses, parameters })
        };
        for libpq in LIBPQ {
            ensure!(found(libpq, &[nobody, open], "")? == one, "a refused connection is passed over");
        }
        cluster.call(stage.primary, "MemberService/Close", json!({}))?;
        for libpq in LIBPQ {
            let ended = found(libpq, &[closed, open], "");
            let said = ended.err().map(|err| err.to_string()).unwrap_or_default();
            ensure!(said.contains("pg_hba.conf rejects connection"), "libpq {libpq}: {said}");
            ensure!(found(libpq, &[open, closed], "")? == one, "whom it finds first it takes");
        }
        // Where libpq itself changes the order, whoever tries again gets through.
        eventually("an order that begins elsewhere", NOTICED_WITHIN, async || {
            found(17, &[closed, open], "load_balance_hosts=random")
        })
        .await?;
        cluster.call(stage.primary, "MemberService/Reopen", json!({}))?;
        eventually("an open gate", NOTICED_WITHIN, async || libpq_finds(cluster, stage.primary)).await?;
        let writer = stage.writer(two).await?;
        stage.same_reign()?;
        Ok(vec![writer])
    })
    .await
}
