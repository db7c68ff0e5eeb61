//! Where every scenario of three zones begins and ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_integration::acked::AckedWriter;
use holdfast_integration::cluster::seen::RuleId;
use holdfast_integration::cluster::{Cluster, ClusterSpec, NOTICED_WITHIN, WHOLE_WITHIN};
use holdfast_integration::zones::Zone;
use holdfast_integration::{eventually, throughout};

/// Long enough for a client to be acked, here.
pub(crate) const A_WHILE: Duration = Duration::from_secs(3);
/// Without acks for so long, a client waits. More than the two seconds after which it tries another connection.
const STILL: Duration = Duration::from_secs(3);

/// Said by engines when a client, a load balancer or the other end of replication goes away in the middle of something, and
/// by agents about a neighbour that does not answer.
pub(crate) const NEIGHBOURS_LEFT: &[&str] = &[
    "connection to client lost",
    "could not receive data from client",
    "could not receive data from WAL stream",
    "could not connect to the primary server",
    "Is the server running on that host and accepting TCP/IP connections?",
    "could not start WAL streaming",
    "SSL SYSCALL error",
    // libpq goes on about it for two lines.
    "server closed the connection unexpectedly",
    "This probably means the server terminated abnormally",
    "before or while processing the request.",
    "peer does not answer",
    // Whom it asked died before it answered.
    "for its rules: call",
    // Whoever is recruited stops receiving.
    "terminating walreceiver process",
    // A primary that comes back and had written what nobody acked.
    "this member's log is none of the primary's",
    "this member's log has left the cluster's",
    // It asks its engine, or ships where it stood still and hears that its term is over.
    "log not shipped",
    "log shipping ended",
    "could not send data to",
];

/// Three zones and what a scenario starts from.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    /// Where the primary is at the start.
    pub(crate) primary: Zone,
    /// The other two.
    pub(crate) others: [Zone; 2],
    /// The rule at the start.
    pub(crate) rule: RuleId,
}

impl Stage {
    /// A client that goes through the load balancer of a zone.
    pub(crate) async fn writer(&mut self, zone: Zone) -> Result<AckedWriter> {
        self.cluster.writer(zone).await
    }

    /// Tells the members of the zones that are left to fail over, and waits until one of them serves.
    pub(crate) async fn fails_over(&self) -> Result<Zone> {
        self.cluster.fail_over(self.others[0], &self.others).await
    }

    /// Nobody began another reign.
    pub(crate) fn same_reign(&self) -> Result<()> {
        let now = self.cluster.newest_rule()?.id;
        ensure!(now.term == self.rule.term, "{:?} became {now:?}", self.rule);
        Ok(())
    }
}

/// Waits until a client gets no acks any more, and fails if it gets one later.
pub(crate) async fn acks_stop(writer: &AckedWriter) -> Result<()> {
    let last = eventually("a client that waits", NOTICED_WITHIN, async || {
        let last = writer.history().acked.last().copied().context("never acked")?;
        ensure!(last.at.elapsed() > STILL, "acked {:?} ago", last.at.elapsed());
        Ok(last)
    })
    .await?;
    throughout(A_WHILE, async || {
        let now = writer.history().acked.last().copied();
        ensure!(now == Some(last), "{now:?} after {last:?}");
        Ok(())
    })
    .await
}

/// Plays `scenario` on three zones that are whole. Then every cut is healed, and they must become whole again, and hold
/// everything that any client was told was committed. `name` is the folder for logs after a failure; `expected` are the
/// warnings that the agents may have said.
pub(crate) async fn play(
    name: &str,
    spec: ClusterSpec,
    expected: &[&str],
    scenario: impl AsyncFnOnce(&mut Stage) -> Result<Vec<AckedWriter>>,
) -> Result<()> {
    let cluster = Cluster::serving(&spec).await?;
    let primary = cluster.primary()?;
    let others = cluster.others(primary).try_into().ok().context("three zones")?;
    let rule = cluster.newest_rule()?.id;
    let mut stage = Stage { cluster, primary, others, rule };
    let played = play_and_audit(&mut stage, expected, scenario).await;
    if played.is_err() {
        stage.cluster.keep_logs(&format!("cluster/{name}"))?;
    }
    stage.cluster.explained(played)
}

async fn play_and_audit(
    stage: &mut Stage,
    expected: &[&str],
    scenario: impl AsyncFnOnce(&mut Stage) -> Result<Vec<AckedWriter>>,
) -> Result<()> {
    let writers = scenario(stage).await?;
    stage.cluster.heal()?;
    stage.cluster.wait_for_three_voters(WHOLE_WITHIN).await?;
    for writer in writers {
        stage.cluster.books.close(writer).await?;
    }
    let balance = stage.cluster.audit().await?;
    ensure!(balance.acked > 0, "nobody wrote");
    stage.cluster.judge_logs(&[expected, NEIGHBOURS_LEFT].concat())
}
