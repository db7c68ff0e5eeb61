//! Amounts of bytes, with human units at the edges.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An amount of bytes. Text: a whole number with an optional binary unit, such as `512MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct ByteCount(u64);

impl ByteCount {
    /// None.
    pub const ZERO: Self = Self(0);

    /// `n` bytes.
    #[must_use]
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// `n` binary kilobytes, saturating.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 10))
    }

    /// `n` binary megabytes, saturating.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }

    /// `n` binary gigabytes, saturating.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 30))
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Sum, saturating.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl From<u64> for ByteCount {
    fn from(n: u64) -> Self {
        Self(n)
    }
}
impl From<ByteCount> for u64 {
    fn from(n: ByteCount) -> Self {
        n.0
    }
}

/// Why a size was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "size {0:?} is not valid: use a whole number of bytes or one with KiB, MiB, GiB or TiB, such as 512MiB"
)]
pub struct ParseByteCountError(pub String);

impl FromStr for ByteCount {
    type Err = ParseByteCountError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseByteCountError(text.to_owned());
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim() {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in UNITS {
            if self.0 >> shift > 0 {
                let whole = self.0 >> shift;
                let tenths = ((self.0 >> (shift - 10)) & 0x3FF) * 10 / 1024;
                return write!(f, "{whole}.{tenths} {unit}");
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_with_binary_units() {
        assert_eq!("512MiB".parse(), Ok(ByteCount::mib(512)));
        assert_eq!("7".parse(), Ok(ByteCount::new(7)));
        for bad in ["", "MiB", "1MB", "-1", "99999999999TiB", "1.5GiB"] {
            assert!(bad.parse::<ByteCount>().is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn sizes_print_with_one_decimal() {
        assert_eq!(ByteCount::new(1536 * 1024).to_string(), "1.5 MiB");
        assert_eq!(ByteCount::new(1023).to_string(), "1023 B");
    }
}
