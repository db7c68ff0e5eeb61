//! Timeline history files: from which timeline, and where, each timeline branched off.
//!
//! Postgres writes one when it promotes and needs it to follow or restore across the switch. An *empty* file is a
//! placeholder: it takes a timeline's number, so that the next promotion takes the number after it. That is how a
//! timeline id is made equal to a term (T9); see [`crate::postgres::recovery`].

use std::fmt::Write as _;

use holdfast_model::{Lsn, ParseLsnError, Term};

use super::hex8;
use crate::standing::Promoted;

/// One ancestor of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// The ancestor.
    pub timeline: Term,
    /// The first position that is no longer of the ancestor.
    pub switch: Lsn,
    /// What Postgres noted, for people.
    pub reason: String,
}

/// The ancestors of one timeline, oldest first; empty for timeline 1 and for placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Oldest first, with rising timelines and rising switch points.
    pub ancestors: Vec<Ancestor>,
}

/// Why a history file was refused.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A line that does not begin with a timeline and a position.
    #[error("line {line} of the history of timeline {of} is not 'timeline<tab>position<tab>reason'")]
    Line {
        /// Whose history.
        of: Term,
        /// Which line, from 1.
        line: usize,
    },
    /// A position that is none.
    #[error("line {line} of the history of timeline {of}: read its switch point")]
    Switch {
        /// Whose history.
        of: Term,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: ParseLsnError,
    },
    /// Timelines or switch points that go back.
    #[error("line {line} of the history of timeline {of} is out of order")]
    Order {
        /// Whose history.
        of: Term,
        /// Which line, from 1.
        line: usize,
    },
}

/// Name of a timeline's history file, e.g. `00000002.history`.
#[must_use]
pub fn file_name(timeline: Term) -> String {
    format!("{:08X}.history", timeline.number())
}

/// The timeline that a history file's name stands for; `None` for every other file.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<Term> {
    Term::new(hex8(name.strip_suffix(".history")?)?)
}

impl History {
    /// Reads the history file of timeline `of`. Empty lines and `#` comments are skipped, as Postgres does.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn parse(of: Term, content: &str) -> Result<Self, HistoryError> {
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (line, text) in (1..).zip(content.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let mut words = text.splitn(3, char::is_whitespace);
            let (Some(timeline), Some(switch)) = (words.next(), words.next()) else {
                return Err(HistoryError::Line { of, line });
            };
            let timeline =
                timeline.parse().ok().and_then(Term::new).ok_or(HistoryError::Line { of, line })?;
            let switch = switch.parse().map_err(|source| HistoryError::Switch { of, line, source })?;
            let rises = ancestors.last().is_none_or(|last| last.timeline < timeline && last.switch <= switch);
            if !rises || timeline >= of {
                return Err(HistoryError::Order { of, line });
            }
            ancestors.push(Ancestor {
                timeline,
                switch,
                reason: words.next().unwrap_or_default().trim_start().to_owned(),
            });
        }
        Ok(Self { ancestors })
    }

    /// The file's content; Postgres reads it back as it reads its own.
    #[must_use]
    pub fn render(&self) -> String {
        self.ancestors.iter().fold(String::new(), |mut out, ancestor| {
            let reason: String = ancestor.reason.chars().filter(|c| !c.is_control()).collect();
            writeln!(out, "{}\t{}\t{reason}", ancestor.timeline, ancestor.switch)
                .expect("writing to a String cannot fail");
            out
        })
    }

    /// The parent timeline and where this one branched off from it.
    #[must_use]
    pub fn branch(&self) -> Option<(Term, Lsn)> {
        self.ancestors.last().map(|last| (last.timeline, last.switch))
    }

    /// The promotion that made this the history of a timeline; none without a parent.
    #[must_use]
    pub fn promoted(&self) -> Option<Promoted> {
        let left = |ancestor: &Ancestor| (ancestor.timeline, ancestor.switch.into());
        Promoted::of(self.ancestors.iter().map(left).collect())
    }

    /// The history of a child that branches off timeline `of`, whose history this is, at `switch`.
    #[must_use]
    pub fn child(&self, of: Term, switch: Lsn, reason: &str) -> Self {
        let mut ancestors = self.ancestors.clone();
        ancestors.push(Ancestor { timeline: of, switch, reason: reason.to_owned() });
        Self { ancestors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn term(n: u32) -> Term {
        Term::new(n).unwrap()
    }

    #[test]
    fn a_history_is_read_as_postgres_writes_it() {
        let text = "1\t0/3000000\tno recovery target specified\n\n3\t0/5A3F2B0\tbefore 2000-01-01\n";
        let history = History::parse(term(8), text).unwrap();
        assert_eq!(history.branch(), Some((term(3), "0/5A3F2B0".parse().unwrap())));
        assert_eq!(history.ancestors[0].reason, "no recovery target specified");
        let promoted = history.promoted().unwrap();
        assert_eq!((promoted.from, promoted.left.len()), (term(3), 2));
        assert_eq!(History::parse(term(8), &history.render()).unwrap(), history);
    }

    #[test]
    fn a_placeholder_has_no_ancestors() {
        assert_eq!(History::parse(term(4), "").unwrap(), History::default());
        assert_eq!(History::default().promoted(), None);
    }

    #[test]
    fn a_history_that_goes_back_is_refused() {
        for bad in ["2\t0/5\tx\n1\t0/6\tx", "1\t0/6\tx\n2\t0/5\tx", "8\t0/1\tx", "1", "x\t0/1\ty", "1\tzz\ty"]
        {
            assert!(History::parse(term(8), bad).is_err(), "{bad:?} must be refused");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9A-F/\t\n #x]{0,80}") {
            if let Ok(history) = History::parse(term(9), &text) {
                prop_assert_eq!(History::parse(term(9), &history.render()).map_err(|e| e.to_string()), Ok(history));
            }
        }
    }

    #[test]
    fn a_file_name_is_the_timeline_in_hex() {
        assert_eq!(file_name(term(26)), "0000001A.history");
        assert_eq!(parse_file_name("0000001A.history"), Some(term(26)));
        assert_eq!(parse_file_name("00000000.history"), None);
    }
}
