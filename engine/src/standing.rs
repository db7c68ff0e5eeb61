//! How a server stands in a reign: stopped for a recruit, promoted, or following.

use holdfast_model::{Position, Rule, Term};

/// What a recruited server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recruited {
    /// The newest rule in its log; none before bootstrap.
    pub rule: Option<Rule>,
    /// The newest reign that its data is known to be of; it may lag behind the log, never run ahead of it.
    pub term: Term,
    /// The end of its log, all of it applied.
    pub position: Position,
}

/// A server that receives log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// The reign that it receives.
    pub term: Term,
    /// Received and flushed up to here; none before the first message with log.
    pub flushed: Option<Position>,
}

/// What a promotion came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    /// The reign that it went on from.
    pub from: Term,
    /// Where the new term begins; everything before is of older terms.
    pub start: Position,
    /// The reigns that its log went through, oldest first, each with where the log left it; `from` with `start` is the last.
    /// Among them may be terms that never wrote a rule.
    pub left: Vec<(Term, Position)>,
}

impl Promoted {
    /// By the reigns that the log went through, oldest first; none when it went through none.
    #[must_use]
    pub fn of(left: Vec<(Term, Position)>) -> Option<Self> {
        let (from, start) = left.last().cloned()?;
        Some(Self { from, start, left })
    }

    /// Each term after `last`, up to this one, `term`, with where its log begins; oldest first. None unless the log is of
    /// the term `last` as well, and so holds where that was left.
    #[must_use]
    pub fn reigns_after(&self, last: Term, term: Term) -> Option<Vec<(Term, Position)>> {
        let at = self.left.iter().position(|(left, _)| *left == last)?;
        let left = &self.left[at..];
        let terms = left.iter().skip(1).map(|(term, _)| *term).chain([term]);
        Some(terms.zip(left.iter().map(|(_, end)| end.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::Lsn;

    #[test]
    fn reigns_without_a_rule_are_told_with_where_they_begin() {
        let term = |number| Term::new(number).unwrap();
        let at = |offset| Position::from(Lsn::from_offset(offset));
        let left = vec![(term(2), at(100)), (term(4), at(200)), (term(5), at(300))];
        let promoted = Promoted::of(left).unwrap();
        assert_eq!((promoted.from, &promoted.start), (term(5), &at(300)));
        let after = |last| promoted.reigns_after(term(last), term(9));
        assert_eq!(after(5), Some(vec![(term(9), at(300))]));
        assert_eq!(after(2), Some(vec![(term(4), at(100)), (term(5), at(200)), (term(9), at(300))]));
        assert_eq!(after(3), None);
        assert_eq!(Promoted::of(Vec::new()), None);
    }
}
