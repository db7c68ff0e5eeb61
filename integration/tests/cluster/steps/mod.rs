//! An agent dies between each two steps of what changes who may write, and is started again: nothing that was acked is lost,
//! and the cluster becomes whole, whoever it was and wherever it stood.
//!
//! One cluster a protocol, one round a step, each from a cluster that is whole to one that is whole again; a step that is not
//! reached fails its round. With `HOLDFAST_ROUNDS=n` each step has n rounds, in which other members die and the primary is
//! alive or dead.
//!
//! * [`reigns`]: recruit, promote, follow, and whoever coordinates.
//! * [`rewinds`]: a deposed primary with a tail comes back.
//! * [`members`]: a voter is removed and admitted again.

mod members;
mod reigns;
mod rewinds;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_integration::acked::AckedWriter;
use holdfast_integration::cluster::Cluster;
use holdfast_integration::zones::Zone;
use holdfast_model::step::Step;
use tokio::time::Instant;

/// For orders to be given until they are carried out.
const CARRIED_OUT_WITHIN: Duration = Duration::from_secs(120);

/// How often each step is died after.
#[expect(clippy::disallowed_methods, reason = "chosen by whoever runs the tests, not by a daemon's operator")]
fn rounds() -> Result<usize> {
    match std::env::var("HOLDFAST_ROUNDS") {
        Ok(rounds) => rounds.parse().context("HOLDFAST_ROUNDS is a number"),
        Err(_) => Ok(1),
    }
}

/// Who dies after which step.
#[derive(Debug)]
struct Death {
    step: Step,
    /// Of these, whoever reaches it.
    among: Vec<Zone>,
}

impl Death {
    fn of(cluster: &Cluster, step: Step, among: &[Zone]) -> Result<Self> {
        for zone in among {
            cluster.site(*zone)?.arm(step)?;
        }
        Ok(Self { step, among: among.to_vec() })
    }

    fn has_come(&self, cluster: &Cluster) -> Result<bool> {
        let armed = self.among.iter().map(|zone| cluster.site(*zone));
        Ok(armed.collect::<Result<Vec<_>>>()?.into_iter().any(|site| !site.is_armed()))
    }

    /// Nobody dies after it any more.
    fn over(&self, cluster: &Cluster) -> Result<()> {
        let came = self.has_come(cluster)?;
        self.among.iter().try_for_each(|zone| cluster.site(*zone)?.disarm())?;
        ensure!(came, "nobody reached {}", self.step);
        Ok(())
    }
}

/// What the client noticed of each round.
#[derive(Debug, Default)]
struct Outages(Vec<Duration>);

#[expect(clippy::print_stdout, reason = "figures for whoever runs the tests")]
impl Outages {
    /// Waits until the client is served, and notes how long it was not since the round began.
    async fn note(
        &mut self,
        cluster: &Cluster,
        writer: &AckedWriter,
        round: &str,
        began: Instant,
    ) -> Result<()> {
        cluster.writes_go_on(writer).await?;
        let outage = writer.history().longest_outage_after(began);
        println!("{round}: outage {} ms, round {} ms", outage.as_millis(), began.elapsed().as_millis());
        self.0.push(outage);
        Ok(())
    }

    fn tell(mut self, protocol: &str) {
        self.0.sort_unstable();
        if let (Some(median), Some(worst)) = (self.0.get(self.0.len() / 2), self.0.last()) {
            let (rounds, median, worst) = (self.0.len(), median.as_millis(), worst.as_millis());
            println!("{protocol}: {rounds} rounds, outage {median} ms in the median, {worst} ms at worst");
        }
    }
}
