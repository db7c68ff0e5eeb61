//! Engine positions. Parsing and comparing them lives here and nowhere else; only the engine crate and the pipelines of one
//! engine look at what kind one is.
//!
//! Postgres counts log bytes: an [`Lsn`]. MySQL names transactions: a [`GtidSet`]. Two LSNs compare only on one timeline, and
//! timelines are terms, so a position is always compared as `(last rule in the log, position)`. GTID sets are ordered only in part:
//! of two members that each hold a transaction which the other does not, neither is ahead.
//!
//! Invariants, each a test below:
//! * `positions_of_two_engines_never_compare`.
//! * `a_position_says_by_its_shape_of_which_engine_it_is`.

mod gtid;
mod lsn;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use gtid::{Gtid, GtidSet, ParseGtidError, Source};
pub use lsn::{Lsn, ParseLsnError};

/// Why a position was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePositionError {
    /// It looks like one of Postgres.
    #[error(transparent)]
    Lsn(#[from] ParseLsnError),
    /// It looks like one of MySQL.
    #[error(transparent)]
    Gtids(#[from] ParseGtidError),
}

/// A position of another engine, where Postgres alone is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("position '{0}' is not one of Postgres")]
pub struct NotAnLsn(pub Position);

/// How far a log goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Position {
    /// Of Postgres: everything before this byte.
    Lsn(Lsn),
    /// Of MySQL: these transactions.
    Gtids(GtidSet),
}

impl Position {
    /// One number that grows with the position, for names, progress and distances: bytes, or transactions. It orders positions
    /// of one chain of rules only; whether one log holds another is for [`PartialOrd`] to say.
    #[must_use]
    pub fn ordinal(&self) -> u64 {
        match self {
            Self::Lsn(lsn) => lsn.offset(),
            Self::Gtids(set) => set.count(),
        }
    }

    /// Before any log of the same engine.
    #[must_use]
    pub const fn origin(&self) -> Self {
        match self {
            Self::Lsn(_) => Self::Lsn(Lsn::ZERO),
            Self::Gtids(_) => Self::Gtids(GtidSet::EMPTY),
        }
    }

    /// The position as Postgres counts; `None` when it is of another engine.
    #[must_use]
    pub const fn lsn(&self) -> Option<Lsn> {
        match self {
            Self::Lsn(lsn) => Some(*lsn),
            Self::Gtids(_) => None,
        }
    }

    /// The position as MySQL names it; `None` when it is of another engine.
    #[must_use]
    pub const fn gtids(&self) -> Option<&GtidSet> {
        match self {
            Self::Lsn(_) => None,
            Self::Gtids(set) => Some(set),
        }
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Lsn(one), Self::Lsn(other)) => Some(one.cmp(other)),
            (Self::Gtids(one), Self::Gtids(other)) => one.partial_cmp(other),
            (Self::Lsn(_), Self::Gtids(_)) | (Self::Gtids(_), Self::Lsn(_)) => None,
        }
    }
}

impl From<Lsn> for Position {
    fn from(lsn: Lsn) -> Self {
        Self::Lsn(lsn)
    }
}
impl TryFrom<&Position> for Lsn {
    type Error = NotAnLsn;
    fn try_from(position: &Position) -> Result<Self, Self::Error> {
        position.lsn().ok_or_else(|| NotAnLsn(position.clone()))
    }
}
impl From<GtidSet> for Position {
    fn from(set: GtidSet) -> Self {
        Self::Gtids(set)
    }
}

impl FromStr for Position {
    type Err = ParsePositionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // No GTID set has a slash, and no LSN is empty or has a colon.
        if text.is_empty() || text.contains(':') {
            Ok(Self::Gtids(text.parse()?))
        } else {
            Ok(Self::Lsn(text.parse()?))
        }
    }
}
impl TryFrom<String> for Position {
    type Error = ParsePositionError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<Position> for String {
    fn from(position: Position) -> Self {
        position.to_string()
    }
}
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lsn(lsn) => lsn.fmt(f),
            Self::Gtids(set) => set.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn positions_of_two_engines_never_compare() {
        let (lsn, set) = (Position::from(Lsn::ZERO), Position::from(GtidSet::EMPTY));
        assert_eq!(lsn.partial_cmp(&set), None);
        assert_ne!(lsn, set);
        assert!(Position::from(Lsn::from_offset(1)) > lsn);
    }

    #[test]
    fn a_position_says_by_its_shape_of_which_engine_it_is() {
        let lsn: Position = "0/16B3748".parse().unwrap();
        assert_eq!(lsn.lsn(), Some(Lsn::from_offset(0x16B_3748)));
        let set: Position = format!("{UUID}:1-5").parse().unwrap();
        assert_eq!(set.ordinal(), 5);
        assert_eq!("".parse::<Position>().unwrap(), Position::Gtids(GtidSet::EMPTY));
        assert!(matches!("0x1".parse::<Position>(), Err(ParsePositionError::Lsn(_))));
        assert!(matches!("0:x".parse::<Position>(), Err(ParsePositionError::Gtids(_))));
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), set);
        assert!(set > set.origin() && lsn > lsn.origin());
        assert_eq!(Lsn::try_from(&lsn), Ok(Lsn::from_offset(0x16B_3748)));
        let refused = Lsn::try_from(&set).unwrap_err().to_string();
        assert_eq!(refused, format!("position '{UUID}:1-5' is not one of Postgres"));
    }
}
