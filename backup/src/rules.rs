//! Rules in the repository: one create-only object per term, and the chain that they make.
//!
//! `rules/<term>` is the one place where object storage arbitrates: whoever creates it has reserved the term for a
//! refound. A term that was reserved and never reigned stays there for ever and is in no chain.
//!
//! Invariants, each a test below:
//! * `a_term_is_reserved_once`.
//! * `a_chain_cuts_each_reign_where_the_next_began`.
//! * `a_chain_with_a_missing_link_is_refused`.

use bytes::Bytes;
use holdfast_model::record::{self, RecordError};
use holdfast_model::{Lsn, NotAnLsn, Rule, Term};

use crate::repository::Repository;
use crate::store::{Created, StoreError};
use crate::{key, kind};

const RULE_BYTES_MAX: u64 = 1 << 20;

/// Why rules could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// Object storage failed.
    #[error("use rules of the repository")]
    Store(#[from] StoreError),
    /// A rule is damaged or newer than this release.
    #[error("read rule of term {term}")]
    Record {
        /// The term.
        term: Term,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// Another rule has that term.
    #[error("term {term} is taken by a rule that names {primary} as primary", term = .there.id.term, primary = .there.primary)]
    Taken {
        /// The rule that is there.
        there: Box<Rule>,
    },
    /// An object is not where its content says.
    #[error("rules/{name} holds no rule of that term")]
    Misplaced {
        /// The object's name.
        name: String,
    },
}

/// Why rules make no chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// There is no rule of that term.
    #[error("the repository holds no rule of term {term}")]
    Missing {
        /// The term.
        term: Term,
    },
    /// A rule follows one that does not come before it.
    #[error("the rule of term {term} follows term {previous} and begins before it did")]
    Backwards {
        /// The rule.
        term: Term,
        /// The one it says that it follows.
        previous: Term,
    },
    /// A rule in the log of another engine.
    #[error("read where term {term} begins")]
    Position {
        /// The term.
        term: Term,
        /// What is wrong with it.
        #[source]
        source: NotAnLsn,
    },
}

/// One term as part of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    /// The term.
    pub term: Term,
    /// Where its log begins to differ from the one before.
    pub start: Lsn,
    /// Where the next reign began: log of this term beyond it was discarded. `None` for the last.
    pub end: Option<Lsn>,
}

/// The reigns that led to one term, oldest first; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain(Vec<Reign>);

impl Chain {
    /// Follows `previous` from the rule of term `newest` back to the first.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn to(newest: Term, rules: &[Rule]) -> Result<Self, ChainError> {
        let mut reigns = Vec::new();
        let mut want = newest;
        let mut end = None;
        loop {
            let rule = rules.iter().find(|rule| rule.id.term == want);
            let rule = rule.ok_or(ChainError::Missing { term: want })?;
            let start =
                Lsn::try_from(&rule.start).map_err(|source| ChainError::Position { term: want, source })?;
            reigns.push(Reign { term: want, start, end });
            let Some(previous) = rule.previous else { break };
            let earlier = rules.iter().find(|rule| rule.id.term == previous.term);
            if previous.term >= want || earlier.is_some_and(|earlier| earlier.start > rule.start) {
                return Err(ChainError::Backwards { term: want, previous: previous.term });
            }
            end = Some(start);
            want = previous.term;
        }
        reigns.reverse();
        Ok(Self(reigns))
    }

    /// Every reign, oldest first.
    #[must_use]
    pub fn reigns(&self) -> &[Reign] {
        &self.0
    }

    /// The reign of a term; `None` if that term is not part of this history.
    #[must_use]
    pub fn reign(&self, term: Term) -> Option<Reign> {
        self.0.iter().copied().find(|reign| reign.term == term)
    }

    /// The last reign.
    #[must_use]
    pub fn newest(&self) -> Reign {
        *self.0.last().expect("a chain holds at least the term that it leads to")
    }
}

impl Repository {
    /// Writes the rule of a term, once. Repeating it with the same rule is fine.
    ///
    /// # Errors
    /// [`RuleError::Taken`] with the rule that is there.
    pub async fn put_rule(&self, rule: &Rule) -> Result<(), RuleError> {
        let term = rule.id.term;
        let bytes = Bytes::from(record::encode(kind::RULE, rule));
        match self.store().create(&key::rule_key(term), bytes).await? {
            Created::Ours => Ok(()),
            Created::Theirs(bytes) => {
                let there = record::decode(kind::RULE, &bytes);
                let there = there.map_err(|source| RuleError::Record { term, source })?;
                Err(RuleError::Taken { there: Box::new(there) })
            }
        }
    }

    /// Every rule, by term.
    ///
    /// # Errors
    /// [`RuleError`]; one damaged rule makes the whole answer fail, since a chain with a hole proves nothing.
    pub async fn rules(&self) -> Result<Vec<Rule>, RuleError> {
        let mut rules = Vec::new();
        for name in self.store().list(key::RULES).await? {
            let misplaced = || RuleError::Misplaced { name: name.clone() };
            let term = key::parse_term(&name).ok_or_else(misplaced)?;
            let bytes = self.store().get(&key::rule_key(term), RULE_BYTES_MAX).await?;
            let rule: Rule =
                record::decode(kind::RULE, &bytes).map_err(|source| RuleError::Record { term, source })?;
            if rule.id.term != term {
                return Err(misplaced());
            }
            rules.push(rule);
        }
        Ok(rules)
    }

    /// Terms of which log was shipped, ascending. Together with [`Self::rules`] this bounds the next term from below.
    ///
    /// # Errors
    /// Object storage fails.
    pub async fn log_terms(&self) -> Result<Vec<Term>, StoreError> {
        let folders = self.store().below(key::LOG).folders().await?;
        Ok(folders.iter().filter_map(|name| key::parse_term(name)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn rules() -> Vec<Rule> {
        vec![testing::rule(1, None, 100), testing::rule(2, Some(1), 200), testing::rule(4, Some(2), 300)]
    }

    fn term(number: u32) -> Term {
        Term::new(number).unwrap()
    }

    #[tokio::test]
    async fn a_term_is_reserved_once() {
        let repository = testing::repository().await;
        let [one, two] = [testing::rule(1, None, 100), testing::rule(1, None, 101)];
        repository.put_rule(&one).await.unwrap();
        repository.put_rule(&one).await.unwrap();
        let refused = repository.put_rule(&two).await.unwrap_err();
        assert!(matches!(refused, RuleError::Taken { there } if *there == one));
        assert_eq!(repository.rules().await.unwrap(), [one]);
    }

    #[test]
    fn a_chain_cuts_each_reign_where_the_next_began() {
        let mut rules = rules();
        rules.push(testing::rule(3, Some(1), 150));
        let chain = Chain::to(term(4), &rules).unwrap();
        let cuts: Vec<_> =
            chain.reigns().iter().map(|reign| (reign.term.number(), reign.end.map(Lsn::offset))).collect();
        assert_eq!(cuts, [(1, Some(200)), (2, Some(300)), (4, None)]);
        assert_eq!(chain.reign(term(3)), None, "reserved and never in this history");
    }

    #[test]
    fn a_chain_with_a_missing_link_is_refused() {
        let mut rules = rules();
        rules.remove(1);
        assert_eq!(Chain::to(term(4), &rules), Err(ChainError::Missing { term: term(2) }));
        rules.push(testing::rule(2, Some(4), 50));
        assert!(matches!(Chain::to(term(4), &rules), Err(ChainError::Backwards { .. })));
    }
}
