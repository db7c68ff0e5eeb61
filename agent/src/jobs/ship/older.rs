//! What a new primary does before it ships log of its own term: it tells the repository where its term, and each before it,
//! began, and ships what is missing of the older ones up to there.
//!
//! A primary that is lost had acked log that it had not shipped yet, and all of it is here. Until it is in the repository,
//! a restore of everything would have to stop before it. Readers cut each term where the next one began, so whatever a
//! primary that was lost for a while ships behind that is never read.
//!
//! What this server does not have any more (it keeps log back to what was shipped, capped) cannot be had anywhere: that is
//! told as an error, once, and the new term is shipped all the same. A backup of the new term makes up for it.
//!
//! Invariants, each a test in `tests` (with real servers) or in `backup/tests/terms.rs`:
//! * `a_promoted_standby_completes_the_term_before_its_own`.
//! * `the_rules_of_a_log_are_put_once_each_by_their_first_version`.
//! * `a_term_that_timelines_and_rules_disagree_about_is_not_touched`, a test below.

use std::collections::BTreeMap;

use holdfast_backup::Repository;
use holdfast_backup::log::{LogError, Missing, Shipper};
use holdfast_backup::rules::{Chain, RuleError};
use holdfast_engine::postgres::wal::history::{History, HistoryError};
use holdfast_model::{Lsn, Member, Rule, Term};
use holdfast_storage_io::IoError;

use super::wal_dir::WalDir;
use super::{ShipError, first_segment};
use crate::chain::Chain as Causes;
use crate::worker::job::{LogLevel, Reporter};

/// Why one older term is not complete.
#[derive(Debug, thiserror::Error)]
enum OlderError {
    #[error("ship log of an older term")]
    Ship(#[from] LogError),
    #[error("read log of an older term")]
    Read(#[from] IoError),
    #[error("read the history of timelines")]
    History(#[from] HistoryError),
    #[error("rules say that term {term} was left at {to}, the server's timelines say {}", at_or_never(*left))]
    LeftElsewhere { term: Term, to: Lsn, left: Option<Lsn> },
    #[error(
        "log of term {term} from {from} to {to} was not shipped before its primary was lost, and is not here any more"
    )]
    Gone { term: Term, from: Lsn, to: Lsn },
}

impl OlderError {
    /// Whether the next interval may do better. What is not there, or is broken, stays so.
    const fn retry(&self) -> bool {
        match self {
            Self::Read(_) | Self::Ship(LogError::Store(_)) => true,
            Self::Gone { .. }
            | Self::History(_)
            | Self::LeftElsewhere { .. }
            | Self::Ship(
                LogError::Object { .. }
                | LogError::Stray { .. }
                | LogError::Gap { .. }
                | LogError::Line { .. }
                | LogError::Incomplete { .. }
                | LogError::OtherHistory { .. }
                | LogError::OutOfRange { .. }
                | LogError::Misaligned { .. }
                | LogError::NotNext { .. }
                | LogError::OtherMember { .. }
                | LogError::Differs { .. },
            ) => false,
        }
    }
}

fn at_or_never(left: Option<Lsn>) -> String {
    left.map_or_else(|| "never".to_owned(), |at| at.to_string())
}

/// The rule with which each term of a log began, by term.
pub(super) fn beginnings(rules: &[Rule]) -> BTreeMap<Term, &Rule> {
    let mut first: BTreeMap<Term, &Rule> = BTreeMap::new();
    for rule in rules {
        let there = first.entry(rule.id.term).or_insert(rule);
        if rule.id.version < there.id.version {
            *there = rule;
        }
    }
    first
}

/// Puts the beginning of each term of this log into the repository, unless it is there, and returns the chain that leads to
/// `term`. Oldest first, so that a chain is never without a link in the middle.
///
/// # Errors
/// [`ShipError::Rules`] with `Taken` when the repository says that a term began otherwise.
pub(super) async fn put_rules(
    repository: &Repository,
    begun: &BTreeMap<Term, &Rule>,
    term: Term,
) -> Result<Chain, ShipError> {
    let mut known = repository.rules().await?;
    for (term, rule) in begun {
        match known.iter().find(|there| there.id.term == *term) {
            Some(there) => same_beginning(there, rule)?,
            None => {
                match repository.put_rule(rule).await {
                    Ok(()) => {}
                    Err(RuleError::Taken { there }) => same_beginning(&there, rule)?,
                    Err(err) => return Err(err.into()),
                }
                known.push((*rule).clone());
            }
        }
    }
    Ok(Chain::to(term, &known)?)
}

/// What a chain is made of; the voters do not matter to whoever reads log.
fn same_beginning(there: &Rule, here: &Rule) -> Result<(), RuleError> {
    let before = |rule: &Rule| rule.previous.map(|id| id.term);
    let same = there.primary == here.primary && before(there) == before(here) && there.start == here.start;
    if same { Ok(()) } else { Err(RuleError::Taken { there: Box::new(there.clone()) }) }
}

/// Ships what the repository lacks of the reigns before the newest of `chain`.
///
/// # Errors
/// What the next interval may do better at.
pub(super) async fn complete(
    repository: &Repository,
    wal: &WalDir,
    chain: &Chain,
    member: &Member,
    reporter: &Reporter,
) -> Result<(), ShipError> {
    let missing = match repository.missing_log(chain).await.map_err(OlderError::from) {
        Ok(missing) => missing,
        Err(err) => return tell(err, reporter).await,
    };
    let own = chain.newest().term;
    for missing in missing {
        match complete_one(repository, wal, &missing, own, member).await {
            Ok(from) => {
                let Missing { term, to, .. } = missing;
                let message = format!("log of term {term} was completed from {from} to {to}");
                reporter.log(LogLevel::Info, message).await;
            }
            Err(err) => tell(err, reporter).await?,
        }
    }
    Ok(())
}

/// A failure that may go away is the interval's; any other one is told, and the terms after it are shipped all the same.
async fn tell(err: OlderError, reporter: &Reporter) -> Result<(), ShipError> {
    if err.retry() {
        return Err(match err {
            OlderError::Ship(err) => err.into(),
            OlderError::Read(err) => err.into(),
            OlderError::Gone { .. } | OlderError::History(_) | OlderError::LeftElsewhere { .. } => {
                unreachable!("only what may go away is tried again")
            }
        });
    }
    let why = Causes(&err).to_string();
    let message = format!("{why}: older backups cannot be restored beyond that, take one of this term");
    reporter.log(LogLevel::Error, message).await;
    Ok(())
}

/// The timelines whose files may hold log of an older term: its own and, up to the fork, all that came of it. A term of which
/// the timelines know otherwise than the rules is not touched: what lies between is some other term's log.
fn timelines(history: &History, own: Term, missing: &Missing) -> Result<Vec<Term>, OlderError> {
    let Missing { term, to, .. } = *missing;
    let left = history.ancestors.iter().find(|ancestor| ancestor.timeline == term).map(|it| it.switch);
    if left != Some(to) {
        return Err(OlderError::LeftElsewhere { term, to, left });
    }
    let later = history.ancestors.iter().map(|ancestor| ancestor.timeline).filter(|it| *it >= term);
    Ok(later.chain([own]).collect())
}

/// Returns from where on it was missing.
async fn complete_one(
    repository: &Repository,
    wal: &WalDir,
    missing: &Missing,
    own: Term,
    member: &Member,
) -> Result<Lsn, OlderError> {
    let Missing { term, start, to, .. } = *missing;
    let history = History::parse(own, &wal.history(own).await?)?;
    let timelines = timelines(&history, own, missing)?;
    let mut shipper = Shipper::inherit(repository, term, member).await?;
    let from = shipper.next().unwrap_or_else(|| first_segment(wal.segments, term, start));
    let mut at = from;
    while at < to {
        let stop = wal.stop(at, to);
        let Some(bytes) = wal.read_older(&timelines, (at, stop), to).await? else {
            return Err(OlderError::Gone { term, from: at, to });
        };
        at = shipper.ship(at, &bytes).await?;
    }
    // What the lost primary had no time for. The segment with the fork stays in pieces.
    shipper.compact().await?;
    Ok(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_that_timelines_and_rules_disagree_about_is_not_touched() {
        let term = |number| Term::new(number).unwrap();
        let lsn = Lsn::from_offset;
        // Timeline 3 was begun, and its rule was never written.
        let history = History::default().child(term(1), lsn(100), "").child(term(3), lsn(200), "");
        let missing = |number, to| Missing { term: term(number), start: Lsn::ZERO, from: None, to: lsn(to) };
        let of = |number, to| timelines(&history, term(4), &missing(number, to));
        assert_eq!(of(1, 100).unwrap(), [term(1), term(3), term(4)]);
        assert_eq!(of(3, 200).unwrap(), [term(3), term(4)]);
        let refused = of(1, 200).unwrap_err();
        assert!(matches!(refused, OlderError::LeftElsewhere { left: Some(at), .. } if at == lsn(100)));
        assert!(matches!(of(2, 200), Err(OlderError::LeftElsewhere { left: None, .. })));
    }
}
