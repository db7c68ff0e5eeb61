//! Everything that the clients of a cluster were told was committed, from the first scene to the last, and its audit at
//! whoever is primary now.
//!
//! A table for each writer: ids of two never meet. A table that was audited once is audited again each time: what survived
//! one failover must survive the next.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::{Cluster, NOTICED_WITHIN};
use crate::acked::{Ack, AckedWriter, Audit, History, count_each};
use crate::eventually;
use crate::node::{CLIENT_ROLE, Node};
use crate::zones::Zone;

/// What clients remember.
#[derive(Debug, Default)]
pub struct Books {
    tables: u32,
    closed: Vec<Page>,
}

/// What one writer remembers.
#[derive(Debug)]
struct Page {
    table: String,
    history: History,
}

/// The sum over all pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    /// Ids that were acked.
    pub acked: usize,
    /// Tried without an answer.
    pub unknown: usize,
    /// Of these, committed all the same.
    pub unknown_found: usize,
    /// Acked and not there.
    pub lost: Vec<Ack>,
    /// There more than once, or never tried.
    pub wrong: Vec<i64>,
}

impl Balance {
    fn add(&mut self, page: &Page, audit: Audit) {
        self.acked += audit.acked;
        self.unknown += page.history.unknown.len();
        self.unknown_found += audit.unknown_found;
        self.lost.extend(audit.lost);
        self.wrong.extend(audit.repeated.into_iter().chain(audit.invented));
    }

    /// # Errors
    /// Something was lost, is there twice or was invented.
    pub fn judge(&self) -> Result<()> {
        ensure!(self.lost.is_empty(), "acked lost: {}: {:?}", self.lost.len(), self.lost);
        ensure!(self.wrong.is_empty(), "there more than once, or never tried: {:?}", self.wrong);
        Ok(())
    }
}

impl Books {
    /// The name of the next writer's table.
    pub(super) fn next_table(&mut self) -> String {
        self.tables += 1;
        format!("acked_{}", self.tables)
    }

    /// Stops a writer and keeps what it remembers. Returns it, for its outages.
    ///
    /// # Errors
    /// It does not stop.
    pub async fn close(&mut self, writer: AckedWriter) -> Result<History> {
        let table = writer.table().to_owned();
        let history = writer.halt().await?;
        self.closed.push(Page { table, history: history.clone() });
        Ok(history)
    }

    /// Compares every page with its table on `node`.
    ///
    /// # Errors
    /// A table cannot be read there.
    pub fn audit(&self, node: &Node) -> Result<Balance> {
        let mut balance = Balance::default();
        for page in &self.closed {
            let rows = node.sql(CLIENT_ROLE, &count_each(&page.table))?;
            balance.add(page, page.history.audit(&parse(&rows)?));
        }
        Ok(balance)
    }

    /// A query whose answer differs when any table of the books differs.
    fn digest(&self) -> String {
        let each = |page: &Page| format!("select count(*), coalesce(sum(id), 0) from {}", page.table);
        self.closed.iter().map(each).collect::<Vec<_>>().join(" union all ")
    }
}

/// `7|1` a line: an id and how many times it is there.
fn parse(rows: &str) -> Result<BTreeMap<i64, i64>> {
    let row = |line: &str| {
        let (id, times) = line.split_once('|').with_context(|| format!("not a row: {line:?}"))?;
        Ok((id.parse()?, times.parse()?))
    };
    rows.lines().filter(|line| !line.is_empty()).map(row).collect()
}

impl Cluster {
    /// Audits every page at the primary, where nothing may be missing, and waits until every other node holds the same.
    /// No writer runs meanwhile.
    ///
    /// # Errors
    /// Something was lost, is there twice or was invented; or a copy differs.
    pub async fn audit(&self) -> Result<Balance> {
        let primary = self.primary()?;
        let balance = self.books.audit(&self.site(primary)?.node)?;
        balance.judge()?;
        let digest = self.books.digest();
        let ours = self.digest(primary)?;
        for other in self.others(primary) {
            self.holds(other, &digest, &ours).await?;
        }
        Ok(balance)
    }

    /// What the node of a zone holds of all pages, in a form that differs when anything does.
    ///
    /// # Errors
    /// It cannot be read there.
    pub fn digest(&self, zone: Zone) -> Result<String> {
        self.site(zone)?.node.sql(CLIENT_ROLE, &self.books.digest())
    }

    async fn holds(&self, zone: Zone, digest: &str, expected: &str) -> Result<()> {
        let node = &self.site(zone)?.node;
        eventually(&format!("what the primary holds, on {}", node.name), NOTICED_WITHIN, async || {
            let found = node.sql(CLIENT_ROLE, digest)?;
            ensure!(found == expected, "{found} where the primary has {expected}");
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::time::Instant;

    use super::*;

    #[test]
    fn rows_are_ids_and_how_many_times_they_are_there() {
        assert_eq!(parse("1|1\n7|2\n").unwrap(), BTreeMap::from([(1, 1), (7, 2)]));
        assert_eq!(parse("\n").unwrap(), BTreeMap::new());
        assert!(parse("what").is_err());
    }

    #[test]
    fn a_loss_on_any_page_shows_in_the_balance() {
        let acked = |ids: &[i64]| ids.iter().map(|id| Ack { id: *id, at: Instant::now() }).collect();
        let page = |ids: &[i64]| Page {
            table: String::new(),
            history: History { acked: acked(ids), unknown: BTreeSet::from([90, 91]) },
        };
        let found = BTreeMap::from([(1, 1), (2, 1), (90, 1)]);
        let mut balance = Balance::default();
        let whole = page(&[1, 2]);
        balance.add(&whole, whole.history.audit(&found));
        balance.judge().expect("nothing is lost");
        assert_eq!((balance.acked, balance.unknown, balance.unknown_found), (2, 2, 1));

        let short = page(&[1, 2, 3]);
        balance.add(&short, short.history.audit(&found));
        let told = balance.judge().expect_err("3 is lost").to_string();
        assert!(told.starts_with("acked lost: 1"), "{told}");
    }
}
