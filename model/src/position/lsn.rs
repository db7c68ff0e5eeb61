//! Positions in the log of Postgres.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why an LSN was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "log position {0:?} is not valid: use two hex numbers of 1 to 8 digits joined by '/', such as 0/16B3748"
)]
pub struct ParseLsnError(pub String);

/// A position in the write-ahead log of Postgres: a byte offset, written `hi/lo` in hex (`pg_lsn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(u64);

impl Lsn {
    /// Before any log (`0/0`, Postgres' `InvalidXLogRecPtr`).
    pub const ZERO: Self = Self(0);

    /// The position `offset` bytes from the start of the log.
    #[must_use]
    pub const fn from_offset(offset: u64) -> Self {
        Self(offset)
    }

    /// Bytes from the start of the log.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0
    }

    /// This position moved on by `bytes`, saturating at the end of the address space.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// Bytes from `earlier` to here; 0 when `earlier` is later.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl FromStr for Lsn {
    type Err = ParseLsnError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseLsnError(text.to_owned());
        let hex = |part: &str| {
            let shape = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            if shape { u64::from_str_radix(part, 16).map_err(|_| bad()) } else { Err(bad()) }
        };
        let (hi, lo) = text.split_once('/').ok_or_else(bad)?;
        Ok(Self(hex(hi)? << 32 | hex(lo)?))
    }
}
impl TryFrom<String> for Lsn {
    type Error = ParseLsnError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_lsn_is_two_hex_numbers() {
        assert_eq!("0/16B3748".parse::<Lsn>().unwrap(), Lsn::from_offset(0x16B_3748));
        assert_eq!(Lsn::from_offset(0x1_0000_00FF).to_string(), "1/FF");
        for bad in ["", "/", "1", "1/", "/1", "g/1", "1/123456789", "+1/2"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?} must be refused");
        }
    }

    proptest! {
        #[test]
        fn an_lsn_survives_a_round_trip(offset: u64) {
            let lsn = Lsn::from_offset(offset);
            prop_assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }
    }
}
