//! While another primary comes to serve: the agents of whoever is recruited, promoted, follows, steps down or coordinates die.

use anyhow::{Context, Result};
use holdfast_integration::cluster::insist::Left;
use holdfast_integration::cluster::order::Order;
use holdfast_integration::cluster::seen::{self, Part, Seen};
use holdfast_integration::cluster::{Cluster, ClusterSpec};
use holdfast_integration::zones::Zone;
use holdfast_model::step::{Step, coordinate, follow, gate, promote, recruit, step_down};
use tokio::time::Instant;

use super::{CARRIED_OUT_WITHIN, Death, Outages, rounds};
use crate::stage::{Stage, play};

/// How another primary comes to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// With the old one's help.
    Switchover,
    /// The old one's node is dead.
    Failover,
}

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dies {
    /// Who was the primary.
    Old,
    /// Who is to be it.
    Candidate,
    /// The third.
    Third,
    /// Whoever is chosen of those two.
    Chosen,
    /// The third, when it hears only of the primary that serves already.
    Late,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    step: Step,
    how: How,
    dies: Dies,
}

/// The zones of a round.
struct Cast {
    old: Zone,
    candidate: Zone,
    third: Zone,
    /// The term before it.
    before: u32,
}

impl Cast {
    fn of(cluster: &Cluster) -> Result<Self> {
        let old = cluster.primary()?;
        let others = cluster.others(old).try_into();
        let [candidate, third] = others.ok().context("three zones")?;
        Ok(Self { old, candidate, third, before: cluster.newest_rule()?.id.term })
    }

    fn dying(&self, dies: Dies) -> Vec<Zone> {
        match dies {
            Dies::Old => vec![self.old],
            Dies::Candidate => vec![self.candidate],
            Dies::Third | Dies::Late => vec![self.third],
            Dies::Chosen => vec![self.candidate, self.third],
        }
    }

    /// Whose agent is told: one that lives, unless the coordinator itself is to die.
    fn asked(&self, round: Round) -> Zone {
        let coordinator = coordinate::ALL.contains(&round.step);
        match (round.dies, round.how) {
            (Dies::Third, How::Failover) if !coordinator => self.candidate,
            (Dies::Third | Dies::Late, How::Switchover) if !coordinator => self.old,
            (Dies::Old | Dies::Candidate | Dies::Third | Dies::Chosen | Dies::Late, _) => self.third,
        }
    }

    /// Another primary than the one before the round serves.
    fn next_reign(&self, cluster: &Cluster, asked: Zone) -> Result<Left> {
        let seen = cluster.seen()?;
        let switchover = Left::Order(asked, Order::Switchover { to: self.candidate });
        let term = |seen: &Seen| seen.rule.as_ref().map(|rule| rule.id.term);
        Ok(match seen::primary(&seen) {
            Ok(zone) if seen[&zone].open_in() > Some(self.before) => Left::Nothing,
            Ok(_) => switchover,
            Err(_) => match seen.values().find(|seen| matches!(seen.part, Part::Writes { .. })) {
                Some(writes) if term(writes) == Some(self.before) => switchover,
                Some(writes) => Left::Wait(format!("{} has begun, and is not open", writes.node)),
                None => Left::Order(asked, Order::Failover),
            },
        })
    }
}

/// One change of the primary in which an agent dies after a step.
async fn play_round(stage: &mut Stage, round: Round) -> Result<()> {
    let cast = Cast::of(&stage.cluster)?;
    let asked = cast.asked(round);
    let death = match round.dies {
        Dies::Late => {
            stage.cluster.cut_off(cast.third)?;
            None
        }
        Dies::Old | Dies::Candidate | Dies::Third | Dies::Chosen => {
            Some(Death::of(&stage.cluster, round.step, &cast.dying(round.dies))?)
        }
    };
    if round.how == How::Failover {
        stage.cluster.site_mut(cast.old)?.kill_agent();
        stage.cluster.site(cast.old)?.kill_engine()?;
    }
    let what = "another primary";
    stage.cluster.insist(what, CARRIED_OUT_WITHIN, |cluster| cast.next_reign(cluster, asked)).await?;
    if round.how == How::Failover {
        stage.cluster.site_mut(cast.old)?.start_agent().await?;
    }
    let death = match death {
        Some(death) => death,
        None => Death::of(&stage.cluster, round.step, &cast.dying(round.dies))?,
    };
    stage.cluster.heal()?;
    let whole = |cluster: &Cluster| {
        let primary = cluster.whole()?;
        if death.has_come(cluster)? {
            return Ok(Left::Nothing);
        }
        // Whoever was to reach it was not needed.
        let to = if primary == cast.candidate { cast.third } else { cast.candidate };
        Ok(Left::Order(asked, Order::Switchover { to }))
    };
    stage.cluster.insist("three members again", CARRIED_OUT_WITHIN, whole).await?;
    death.over(&stage.cluster)
}

/// Plays a round for each step, as often as each is wanted.
async fn walk(name: &str, steps: &[Step], round: impl Fn(Step, usize) -> (How, Dies)) -> Result<()> {
    play(name, ClusterSpec::default(), &[], async |stage| {
        let writer = stage.writer(stage.others[1]).await?;
        let mut outages = Outages::default();
        for nth in 0..rounds()? {
            for (index, step) in steps.iter().enumerate() {
                let (how, dies) = round(*step, nth + index);
                let began = Instant::now();
                let named = format!("{step}, {how:?}, {dies:?}");
                play_round(stage, Round { step: *step, how, dies }).await.with_context(|| named.clone())?;
                outages.note(&stage.cluster, &writer, &named, began).await?;
            }
        }
        outages.tell(name);
        Ok(vec![writer])
    })
    .await
}

const fn alternating(nth: usize) -> How {
    if nth.is_multiple_of(2) { How::Switchover } else { How::Failover }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_die_after_each_step_of_a_recruit_as_root() -> Result<()> {
    let steps = [recruit::ALL, step_down::ALL].concat();
    walk("steps-recruit", &steps, |step, nth| match alternating(nth) {
        _ if step_down::ALL.contains(&step) => (How::Switchover, Dies::Old),
        How::Switchover => (How::Switchover, Dies::Candidate),
        How::Failover => (How::Failover, Dies::Third),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_die_after_each_step_of_a_promotion_as_root() -> Result<()> {
    let steps = [promote::ALL, gate::ALL].concat();
    walk("steps-promote", &steps, |_, nth| match alternating(nth) {
        How::Switchover => (How::Switchover, Dies::Candidate),
        How::Failover => (How::Failover, Dies::Chosen),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_die_after_each_step_of_a_follow_as_root() -> Result<()> {
    walk("steps-follow", follow::ALL, |step, _| match step {
        follow::RESIGNED => (How::Switchover, Dies::Old),
        _ => (How::Switchover, Dies::Late),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_may_die_after_each_step_as_root() -> Result<()> {
    walk("steps-coordinate", coordinate::ALL, |step, nth| match step {
        coordinate::NEAR | coordinate::CLOSED => (How::Switchover, Dies::Third),
        _ => (alternating(nth + 1), Dies::Third),
    })
    .await
}
