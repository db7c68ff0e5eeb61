//! Names of clusters, nodes, zones and members.
//!
//! Invariants, each a test below:
//! * `names_hold_only_lower_case_digits_and_dashes`: they go into SQL, paths and file system labels unescaped.
//! * `an_unknown_zone_is_never_another_zone`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not valid: {rule}")]
pub struct ParseIdError {
    /// What was being parsed, e.g. `node name`.
    pub what: &'static str,
    /// What was given.
    pub given: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

const NAME_RULE: &str = "use 1 to 30 of a-z, 0-9 and '-', starting with a letter or digit";

fn check_name(what: &'static str, given: &str) -> Result<(), ParseIdError> {
    let shape = !given.is_empty()
        && given.len() <= 30
        && !given.starts_with('-')
        && given.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if shape { Ok(()) } else { Err(ParseIdError { what, given: given.to_owned(), rule: NAME_RULE }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $type {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check_name($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }
        impl TryFrom<String> for $type {
            type Error = ParseIdError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// What people call a cluster; unique within a site.
    ClusterName,
    "cluster name"
);
name!(
    /// A machine with an agent. At most 30 bytes, because Postgres cuts `application_name` at 63 (NAMEDATALEN - 1)
    /// and a member is `<node>.<32 hex digits>`.
    NodeName,
    "node name"
);

/// An availability zone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Zone {
    /// A zone that was named.
    Named(String),
    /// Nobody said. Never counts as another zone.
    Unknown,
}

impl Zone {
    /// Whether an ack from `other` counts as coming from another zone.
    #[must_use]
    pub fn is_other_than(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Named(a), Self::Named(b)) => a != b,
            (Self::Unknown, _) | (_, Self::Unknown) => false,
        }
    }
}

impl FromStr for Zone {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unknown" {
            return Ok(Self::Unknown);
        }
        let shape = !text.is_empty()
            && text.len() <= 63
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if shape {
            Ok(Self::Named(text.to_owned()))
        } else {
            Err(ParseIdError {
                what: "zone",
                given: text.to_owned(),
                rule: "use 1 to 63 of letters, digits, '-', '_' and '.'",
            })
        }
    }
}

impl TryFrom<String> for Zone {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.to_string()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

pub(crate) fn parse_hex_128(what: &'static str, text: &str) -> Result<u128, ParseIdError> {
    let bad = || ParseIdError { what, given: text.to_owned(), rule: "use exactly 32 lower-case hex digits" };
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(bad());
    }
    u128::from_str_radix(text, 16).map_err(|_| bad())
}

/// Random 128-bit id written when a data volume is formatted. A lost disk is a new incarnation; one never returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(u128);

impl Incarnation {
    /// Wraps 128 random bits; the caller owns the source of randomness.
    #[must_use]
    pub const fn from_random(bits: u128) -> Self {
        Self(bits)
    }

    /// The 128 bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl FromStr for Incarnation {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex_128("incarnation", text).map(Self)
    }
}
impl TryFrom<String> for Incarnation {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<Incarnation> for String {
    fn from(id: Incarnation) -> Self {
        id.to_string()
    }
}
impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A cluster, unmistakably: its name and 128 random bits made once by bootstrap. Text form `<name>-<32 hex>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterId {
    name: ClusterName,
    bits: u128,
}

impl ClusterId {
    /// Joins a name and 128 random bits.
    #[must_use]
    pub const fn new(name: ClusterName, bits: u128) -> Self {
        Self { name, bits }
    }

    /// What people call the cluster.
    #[must_use]
    pub const fn name(&self) -> &ClusterName {
        &self.name
    }

    /// The random part.
    #[must_use]
    pub const fn bits(&self) -> u128 {
        self.bits
    }
}

impl FromStr for ClusterId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseIdError {
            what: "cluster id",
            given: text.to_owned(),
            rule: "use <cluster name>-<32 hex digits>",
        };
        let (name, bits) = text.rsplit_once('-').ok_or_else(bad)?;
        Ok(Self { name: name.parse()?, bits: parse_hex_128("cluster id", bits)? })
    }
}
impl TryFrom<String> for ClusterId {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<ClusterId> for String {
    fn from(id: ClusterId) -> Self {
        id.to_string()
    }
}
impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:032x}", self.name, self.bits)
    }
}

/// `node.incarnation`: the only thing that may ack, vote or be counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Member {
    /// The machine.
    pub node: NodeName,
    /// The formatted volume on it.
    pub incarnation: Incarnation,
}

impl FromStr for Member {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (node, incarnation) = text.split_once('.').ok_or_else(|| ParseIdError {
            what: "member",
            given: text.to_owned(),
            rule: "use <node>.<32 hex digits>",
        })?;
        Ok(Self { node: node.parse()?, incarnation: incarnation.parse()? })
    }
}
impl TryFrom<String> for Member {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<Member> for String {
    fn from(member: Member) -> Self {
        member.to_string()
    }
}
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_hold_only_lower_case_digits_and_dashes() {
        for bad in ["", "-a", "A", "a_b", "a/b", "a.b", "ä", "a b", &"x".repeat(31)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?} must be refused");
        }
        assert_eq!("n-1".parse::<NodeName>().unwrap().as_str(), "n-1");
    }

    #[test]
    fn an_unknown_zone_is_never_another_zone() {
        let a: Zone = "eu-1a".parse().unwrap();
        let b: Zone = "eu-1b".parse().unwrap();
        assert!(a.is_other_than(&b));
        assert!(!a.is_other_than(&a));
        assert!(!a.is_other_than(&Zone::Unknown));
        assert!(!Zone::Unknown.is_other_than(&a));
        assert!(!Zone::Unknown.is_other_than(&Zone::Unknown));
    }

    #[test]
    fn a_member_fits_an_application_name() {
        let member = Member {
            node: "x".repeat(30).parse().unwrap(),
            incarnation: Incarnation::from_random(u128::MAX),
        };
        assert_eq!(member.to_string().len(), 63);
    }

    proptest! {
        #[test]
        fn ids_survive_a_round_trip(bits: u128, name in "[a-z0-9][a-z0-9-]{0,29}") {
            let member = Member { node: name.parse().unwrap(), incarnation: Incarnation::from_random(bits) };
            prop_assert_eq!(member.to_string().parse::<Member>().unwrap(), member);
            let cluster = ClusterId::new(name.parse().unwrap(), bits);
            prop_assert_eq!(cluster.to_string().parse::<ClusterId>().unwrap(), cluster);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,80}") {
            prop_assert_eq!(text.parse::<Member>().is_ok(), text.parse::<Member>().is_ok());
            prop_assert_eq!(text.parse::<ClusterId>().is_ok(), text.parse::<ClusterId>().is_ok());
        }
    }
}
