//! Positions in the log of MySQL: sets of global transaction identifiers.
//!
//! A GTID is `source[:tag]:number`; a server writes its own transactions under its `server_uuid`, without gaps, from 1. A set is
//! written `source:1-5:7,source:1-3`, tagged runs behind the untagged ones of the same source (MySQL 9.7 reference manual, 19.1.3.1
//! "GTID Format and Storage"; tags since 8.3).
//!
//! Invariants, each a test below:
//! * `a_set_survives_a_round_trip`.
//! * `sets_are_ordered_by_inclusion_alone`.
//! * `union_and_difference_are_those_of_sets`.
//! * `a_set_that_the_server_could_not_have_written_is_refused`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The highest number of a transaction: 2^63 - 2, by the manual.
const NUMBER_MAX: u64 = (1 << 63) - 2;

/// Letters of a tag.
const TAG_MAX: usize = 32;

/// Why a set or an identifier was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a GTID set: use a UUID and numbers from 1 on, such as 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7, joined by commas"
)]
pub struct ParseGtidError(pub String);

/// Whose transactions: 128 bits, written as a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(pub u128);

impl FromStr for Source {
    type Err = ParseGtidError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseGtidError(text.to_owned());
        let groups: Vec<&str> = text.split('-').collect();
        let shape = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]);
        let hex = groups.concat();
        if shape && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            u128::from_str_radix(&hex, 16).map(Self).map_err(|_| bad())
        } else {
            Err(bad())
        }
    }
}
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let [a, b, c, d, e] = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

/// One transaction, untagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    /// Under whose name it was written.
    pub source: Source,
    /// Which of those; from 1.
    pub number: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.number)
    }
}

/// From the first to the last, both included.
type Run = (u64, u64);

/// A set of transactions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GtidSet {
    /// By source and tag (none is the empty one). Runs are sorted, never touch, and are never none.
    runs: BTreeMap<(Source, String), Vec<Run>>,
}

impl GtidSet {
    /// No transaction.
    pub const EMPTY: Self = Self { runs: BTreeMap::new() };

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.runs.values().flatten().fold(0, |sum, (first, last)| sum.saturating_add(last - first + 1))
    }

    /// Whether it holds `gtid`.
    #[must_use]
    pub fn contains(&self, gtid: Gtid) -> bool {
        let runs = self.runs.get(&(gtid.source, String::new()));
        runs.is_some_and(|runs| runs.iter().any(|(first, last)| (*first..=*last).contains(&gtid.number)))
    }

    /// The highest untagged number of `source`; 0 without one.
    #[must_use]
    pub fn last_of(&self, source: Source) -> u64 {
        self.runs.get(&(source, String::new())).and_then(|runs| runs.last()).map_or(0, |(_, last)| *last)
    }

    /// Under whose names it holds untagged transactions.
    pub fn sources(&self) -> impl Iterator<Item = Source> {
        self.runs.keys().filter(|(_, tag)| tag.is_empty()).map(|(source, _)| *source)
    }

    /// Whether everything in `other` is in this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.minus(self).is_empty()
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut runs = self.runs.clone();
        for (key, more) in &other.runs {
            runs.entry(key.clone()).or_default().extend(more);
        }
        runs.values_mut().for_each(normalise);
        Self { runs }
    }

    /// This set and one transaction more.
    #[must_use]
    pub fn with(&self, gtid: Gtid) -> Self {
        let one = (gtid.source, String::new());
        self.union(&Self { runs: BTreeMap::from([(one, vec![(gtid.number, gtid.number)])]) })
    }

    /// What is in this one and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let left = |(key, runs): (&(Source, String), &Vec<Run>)| {
            let less = other.runs.get(key).map_or(&[][..], Vec::as_slice);
            let left = minus(runs, less);
            (!left.is_empty()).then(|| (key.clone(), left))
        };
        Self { runs: self.runs.iter().filter_map(left).collect() }
    }
}

/// Sorts runs and joins those that touch.
fn normalise(runs: &mut Vec<Run>) {
    runs.sort_unstable();
    let mut joined: Vec<Run> = Vec::with_capacity(runs.len());
    for (first, last) in runs.drain(..) {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            Some(_) | None => joined.push((first, last)),
        }
    }
    *runs = joined;
}

/// `runs` without `less`; both sorted.
fn minus(runs: &[Run], less: &[Run]) -> Vec<Run> {
    let mut left = Vec::new();
    for (mut first, last) in runs.iter().copied() {
        for (from, to) in less.iter().copied() {
            if to < first || from > last {
                continue;
            }
            if from > first {
                left.push((first, from - 1));
            }
            first = to.saturating_add(1);
        }
        if first <= last {
            left.push((first, last));
        }
    }
    left
}

/// By inclusion; `None` when each holds what the other does not.
impl PartialOrd for GtidSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

fn run_of(text: &str) -> Option<Run> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten().filter(|number| (1..=NUMBER_MAX).contains(number))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// A tag begins with a letter or an underscore, so that it is never taken for a number.
fn tag_of(text: &str) -> Option<String> {
    let first = text.bytes().next()?;
    let word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let begins = first.is_ascii_alphabetic() || first == b'_';
    (word && begins && text.len() <= TAG_MAX).then(|| text.to_ascii_lowercase())
}

impl FromStr for GtidSet {
    type Err = ParseGtidError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseGtidError(text.to_owned());
        let mut runs: BTreeMap<(Source, String), Vec<Run>> = BTreeMap::new();
        // The server breaks long sets into lines.
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            let source: Source = fields.next().and_then(|field| field.parse().ok()).ok_or_else(bad)?;
            let (mut tag, mut empty) = (String::new(), true);
            for field in fields {
                if let Some(next) = tag_of(field) {
                    if !tag.is_empty() && empty {
                        return Err(bad());
                    }
                    (tag, empty) = (next, true);
                } else {
                    let run = run_of(field).ok_or_else(bad)?;
                    runs.entry((source, tag.clone())).or_default().push(run);
                    empty = false;
                }
            }
            if empty {
                return Err(bad());
            }
        }
        runs.values_mut().for_each(normalise);
        Ok(Self { runs })
    }
}
impl TryFrom<String> for GtidSet {
    type Error = ParseGtidError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<GtidSet> for String {
    fn from(set: GtidSet) -> Self {
        set.to_string()
    }
}

/// As the server writes it, on one line.
impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before: Option<Source> = None;
        for ((source, tag), runs) in &self.runs {
            match before {
                Some(same) if same == *source => {}
                Some(_) => write!(f, ",{source}")?,
                None => write!(f, "{source}")?,
            }
            before = Some(*source);
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            for (first, last) in runs {
                if first == last { write!(f, ":{first}")? } else { write!(f, ":{first}-{last}")? }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    /// Few sources, tags and numbers, so that sets meet.
    fn some_gtids() -> impl Strategy<Value = Vec<(u8, bool, u64)>> {
        vec((0..3_u8, any::<bool>(), 1..12_u64), 0..20)
    }

    fn of(gtids: &[(u8, bool, u64)]) -> GtidSet {
        let text: Vec<String> = gtids
            .iter()
            .map(|(source, tagged, number)| {
                format!("{}:{}{number}", Source(u128::from(*source)), if *tagged { "t:" } else { "" })
            })
            .collect();
        set(&text.join(","))
    }

    proptest! {
        #[test]
        fn a_set_survives_a_round_trip(gtids in some_gtids()) {
            let one = of(&gtids);
            prop_assert_eq!(&set(&one.to_string()), &one);
            let distinct: std::collections::BTreeSet<_> = gtids.iter().collect();
            prop_assert_eq!(one.count(), distinct.len() as u64);
        }

        #[test]
        fn union_and_difference_are_those_of_sets(one in some_gtids(), other in some_gtids()) {
            let both: Vec<_> = one.iter().chain(&other).copied().collect();
            let left: Vec<_> = one.iter().filter(|gtid| !other.contains(gtid)).copied().collect();
            prop_assert_eq!(of(&one).union(&of(&other)), of(&both));
            prop_assert_eq!(of(&one).minus(&of(&other)), of(&left));
        }

        #[test]
        fn sets_are_ordered_by_inclusion_alone(one in some_gtids(), other in some_gtids()) {
            let within = |a: &[(u8, bool, u64)], b: &[(u8, bool, u64)]| a.iter().all(|gtid| b.contains(gtid));
            prop_assert_eq!(of(&one) <= of(&other), within(&one, &other));
            prop_assert_eq!(of(&one) >= of(&other), within(&other, &one));
        }
    }

    #[test]
    fn a_set_is_read_as_the_server_writes_it() {
        let text = format!("{A}:1-5:7:tag_1:1-2,\n{B}:3");
        assert_eq!(set(&text).to_string(), text.replace('\n', ""));
        assert_eq!(set(&format!("{A}:3-4:1-2,{A}:5")).to_string(), format!("{A}:1-5"));
        assert_eq!(set("").to_string(), "");
        let gtid = Gtid { source: A.parse().unwrap(), number: 6 };
        assert!(!set(&text).contains(gtid));
        assert_eq!(set(&text).with(gtid).to_string(), format!("{A}:1-7:tag_1:1-2,{B}:3"));
        assert_eq!((set(&text).last_of(gtid.source), set(&text).last_of(Source(9))), (7, 0));
    }

    #[test]
    fn a_set_that_the_server_could_not_have_written_is_refused() {
        let bad = [
            A,
            "x:1",
            &format!("{A}:0"),
            &format!("{A}:5-3"),
            &format!("{A}:"),
            &format!("{A}:t"),
            &format!("{A}:+1"),
        ];
        for text in bad {
            assert!(text.parse::<GtidSet>().is_err(), "{text:?} must be refused");
        }
        assert!(format!("{A}:{}", u64::MAX).parse::<GtidSet>().is_err());
        assert!(format!("{A}:t:u:1").parse::<GtidSet>().is_err());
    }
}
