//! What an operator tells a cluster: failover, switchover, members. The one place that knows how it is typed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Cluster, seen, site};
use crate::eventually;
use crate::zones::Zone;

/// Members must have missed the primary for a while before they agree to another.
const FAILS_OVER_WITHIN: Duration = Duration::from_secs(90);

/// An order to a cluster; any of its agents takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Another primary, chosen by what the members hold.
    Failover,
    /// Another primary, this one, with the old one's help.
    Switchover {
        /// Its zone.
        to: Zone,
    },
    /// One voter less.
    Remove {
        /// Its zone.
        whom: Zone,
    },
    /// One voter more.
    Admit {
        /// Its zone.
        whom: Zone,
    },
}

impl Order {
    /// What is typed behind `holdfast`.
    #[must_use]
    pub fn args(self) -> Vec<&'static str> {
        match self {
            Self::Failover => vec!["failover", "--why", "the harness wants it"],
            Self::Switchover { to } => vec!["switchover", "--to", site::name(to)],
            Self::Remove { whom } => vec!["member", "remove", site::name(whom)],
            Self::Admit { whom } => vec!["member", "admit", site::name(whom)],
        }
    }
}

impl Cluster {
    /// Runs `holdfast ARGS` at the agent of a zone, as an operator there, and returns what it prints.
    ///
    /// # Errors
    /// It ends with anything but 0.
    pub fn holdfast(&self, zone: Zone, args: &[&str]) -> Result<String> {
        self.site(zone)?.agent()?.holdfast(args)
    }

    /// What `holdfast explain` tells programs, at the agent of a zone.
    ///
    /// # Errors
    /// It does not answer, or says something else.
    pub fn explain(&self, zone: Zone) -> Result<Value> {
        let told = self.holdfast(zone, &["--json", "explain"])?;
        serde_json::from_str(&told).with_context(|| told)
    }

    /// Gives an order to the agent of a zone and waits for its end.
    ///
    /// # Errors
    /// It is refused or fails; the message is the agent's.
    pub fn order(&self, asked: Zone, order: Order) -> Result<String> {
        self.holdfast(asked, &order.args())
    }

    /// Tells the agent of a zone to fail over, again and again until the members agree, and waits until one of `among` is
    /// open under a higher term than any rule had before. Returns its zone.
    ///
    /// # Errors
    /// It does not come to that; the message is that of the last refusal.
    pub async fn fail_over(&self, asked: Zone, among: &[Zone]) -> Result<Zone> {
        let rules = self.seen_in(among)?.into_values().filter_map(|seen| seen.rule);
        let before = rules.map(|rule| rule.id.term).max();
        eventually("another primary", FAILS_OVER_WITHIN, async || {
            let look = || {
                let all = self.seen_in(among)?;
                let zone = seen::primary(&all)?;
                ensure!(all[&zone].open_in() > before, "no reign after {before:?}");
                Ok(zone)
            };
            // Looked at first: an order whose answer was lost is not given twice.
            if let Ok(zone) = look() {
                return Ok(zone);
            }
            self.order(asked, Order::Failover)?;
            look()
        })
        .await
    }
}
