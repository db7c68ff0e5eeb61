//! Names of objects in a cluster's place. Terms and positions are zero-padded 16-digit lower-case hex, so that keys
//! sort as numbers do.
//!
//! ```text
//! <prefix>/<cluster-id>/cluster.json, repo.json
//!                       rules/<term>
//!                       log/<term>/<start>, log/<term>/segment/<start>
//!                       packs/<backup>/<pack>, manifest/<backup>, begin/<backup>
//!                       pin/<backup>-<random>, condemned/<n>, attest/.., evidence/..
//! ```
//!
//! Invariant, a test below: `keys_survive_a_round_trip_and_sort_as_numbers`.

use std::fmt;
use std::str::FromStr;

use holdfast_model::{Lsn, ParseIdError, Term};
use serde::{Deserialize, Serialize};

pub(crate) const CLUSTER: &str = "cluster.json";
pub(crate) const REPO: &str = "repo.json";
pub(crate) const RULES: &str = "rules";
pub(crate) const LOG: &str = "log";
pub(crate) const EVIDENCE: &str = "evidence";
pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const CONDEMNED: &str = "condemned";

/// Names one backup: the term and position at which it began and 64 random bits. Text form
/// `<term>-<start>-<random>`, each 16 hex digits, so that the names of backups sort from oldest to newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId {
    term: Term,
    start: Lsn,
    random: u64,
}

impl BackupId {
    /// A fresh name for a backup of `term` that began at `start`.
    #[must_use]
    pub fn random(term: Term, start: Lsn) -> Self {
        let mut bytes = [0; 8];
        fill_random(&mut bytes);
        Self { term, start, random: u64::from_le_bytes(bytes) }
    }

    pub(crate) const fn from_parts(term: Term, start: Lsn, random: u64) -> Self {
        Self { term, start, random }
    }

    /// The reign whose data it holds.
    #[must_use]
    pub const fn term(self) -> Term {
        self.term
    }

    /// The position from which log is needed to make it whole.
    #[must_use]
    pub const fn start(self) -> Lsn {
        self.start
    }

    pub(crate) const fn random_bits(self) -> u64 {
        self.random
    }

    pub(crate) fn manifest_key(self) -> String {
        format!("{MANIFEST}/{self}")
    }

    pub(crate) fn begin_key(self) -> String {
        format!("begin/{self}")
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:016x}", term_key(self.term), position_key(self.start), self.random)
    }
}

impl FromStr for BackupId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.splitn(3, '-');
            let term = parse_term(parts.next()?)?;
            let start = parse_position(parts.next()?)?;
            Some(Self { term, start, random: parse_hex(parts.next()?)? })
        };
        parse().ok_or_else(|| ParseIdError {
            what: "backup id",
            given: text.to_owned(),
            rule: "use <term>-<start>-<random>, each 16 lower-case hex digits",
        })
    }
}
impl TryFrom<String> for BackupId {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.to_string()
    }
}

/// Names one pack: the backup that wrote it and 64 random bits. Text form `<backup>/<random>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackId {
    backup: BackupId,
    random: u64,
}

impl PackId {
    pub(crate) fn random(backup: BackupId) -> Self {
        let mut bytes = [0; 8];
        fill_random(&mut bytes);
        Self { backup, random: u64::from_le_bytes(bytes) }
    }

    pub(crate) const fn from_parts(backup: BackupId, random: u64) -> Self {
        Self { backup, random }
    }

    /// The backup that wrote it.
    #[must_use]
    pub const fn backup(self) -> BackupId {
        self.backup
    }

    pub(crate) const fn random_bits(self) -> u64 {
        self.random
    }

    pub(crate) fn key(self) -> String {
        format!("packs/{self}")
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.backup, self.random)
    }
}

impl FromStr for PackId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseIdError {
            what: "pack id",
            given: text.to_owned(),
            rule: "use <backup id>/<16 hex digits>",
        };
        let (backup, random) = text.split_once('/').ok_or_else(bad)?;
        Ok(Self { backup: backup.parse()?, random: parse_hex(random).ok_or_else(bad)? })
    }
}
impl TryFrom<String> for PackId {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<PackId> for String {
    fn from(id: PackId) -> Self {
        id.to_string()
    }
}

/// Random bytes for names; nothing here needs to be secret.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the kernel's random source answers once the machine has booted");
}

/// A name that nobody else chooses, beginning with that of a backup.
pub(crate) fn unique(backup: BackupId) -> String {
    let mut bytes = [0; 8];
    fill_random(&mut bytes);
    format!("{backup}-{:016x}", u64::from_le_bytes(bytes))
}

/// Of what happened as a term began.
pub(crate) fn evidence_key(term: Term, what: &str) -> String {
    format!("{EVIDENCE}/{}-{what}", term_key(term))
}

pub(crate) fn rule_key(term: Term) -> String {
    format!("{RULES}/{}", term_key(term))
}

pub(crate) fn log_folder(term: Term) -> String {
    format!("{LOG}/{}", term_key(term))
}

pub(crate) fn piece_key(term: Term, start: Lsn) -> String {
    format!("{LOG}/{}/{}", term_key(term), position_key(start))
}

pub(crate) fn segment_key(term: Term, start: Lsn) -> String {
    format!("{LOG}/{}/segment/{}", term_key(term), position_key(start))
}

pub(crate) fn term_key(term: Term) -> String {
    format!("{:016x}", term.number())
}

pub(crate) fn position_key(position: Lsn) -> String {
    format!("{:016x}", position.offset())
}

pub(crate) fn parse_term(text: &str) -> Option<Term> {
    parse_hex(text).and_then(|number| u32::try_from(number).ok()).and_then(Term::new)
}

pub(crate) fn parse_position(text: &str) -> Option<Lsn> {
    parse_hex(text).map(Lsn::from_offset)
}

fn parse_hex(text: &str) -> Option<u64> {
    let shape = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if shape { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_survive_a_round_trip_and_sort_as_numbers(a in 1u32.., b in 1u32.., x: u64, y: u64, random: u64) {
            let id = |term, start| BackupId { term: Term::new(term).unwrap(), start: Lsn::from_offset(start), random };
            let (one, two) = (id(a, x), id(b, y));
            prop_assert_eq!(one.to_string().parse::<BackupId>().unwrap(), one);
            prop_assert_eq!(one.to_string().cmp(&two.to_string()), one.cmp(&two));
            let pack = PackId { backup: one, random };
            prop_assert_eq!(pack.to_string().parse::<PackId>().unwrap(), pack);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,60}") {
            prop_assert!(text.parse::<BackupId>().is_err());
            prop_assert!(text.parse::<PackId>().is_err());
            prop_assert!(parse_term(&text).is_none() || text.len() == 16);
        }
    }
}
