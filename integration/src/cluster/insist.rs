//! An order that is given until it is carried out, while agents die and are started again: what an operator does, and the
//! init system.

use std::time::Duration;

use anyhow::{Result, anyhow};

use super::Cluster;
use super::order::Order;
use crate::eventually;
use crate::process::Background;
use crate::zones::Zone;

/// What is left to do, by a look at the cluster while no order is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// To wait, for what is told.
    Wait(String),
    /// To give an order to the agent of a zone.
    Order(Zone, Order),
}

impl Cluster {
    /// Gives the orders that `left` wants, one after the other, until nothing is left. Agents that are killed meanwhile are
    /// started again at once. An error of `left` means that what it wants to know is not known yet. Returns how many orders
    /// were given.
    ///
    /// # Errors
    /// It does not come to that in time, or an agent ends in another way.
    pub async fn insist(
        &mut self,
        what: &str,
        within: Duration,
        mut left: impl FnMut(&Self) -> Result<Left>,
    ) -> Result<usize> {
        let mut under_way: Option<Background> = None;
        let mut given = 0;
        eventually(what, within, async || {
            for site in self.sites.values_mut() {
                site.revive().await?;
            }
            if under_way.as_mut().is_some_and(|order| order.still_runs().is_ok()) {
                return Err(anyhow!("an order is under way"));
            }
            under_way = None;
            match left(self)? {
                Left::Nothing => Ok(()),
                Left::Wait(why) => Err(anyhow!(why)),
                Left::Order(asked, order) => {
                    under_way = Some(self.site(asked)?.agent()?.holdfast_in_background(&order.args())?);
                    given += 1;
                    Err(anyhow!("{order:?} was given {given} times"))
                }
            }
        })
        .await?;
        Ok(given)
    }
}
