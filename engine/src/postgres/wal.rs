//! The write-ahead log as files: names, timeline history, and where its last whole record ends.
//!
//! * [`Segments`] turns positions into file names and back.
//! * [`history`] reads and writes timeline history files. A timeline id is a term.
//! * [`scan`] walks records in the bytes of segments and says where the last whole one ends.
//!
//! Not here: shipping, cutting and assembling segments (`backup` and the agent).

pub mod history;
mod record;
pub mod scan;

use holdfast_model::{Lsn, Term};

/// Bytes of one page of the log (`XLOG_BLCKSZ`); a build option that nobody changes, checked by [`super::control`].
pub const PAGE_BYTES: u64 = 8192;

/// What may follow on the last record of a part of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: the log goes on to the end of the part.
    Log,
    /// Zeros, up to the end of the segment: the log goes on in the next one. A switch to another segment (`pg_switch_wal`,
    /// the end of a backup) leaves the rest of one blank.
    Blank,
}

/// Whether `bytes` can be the log from `from` on: each page that begins in them is headed as the page of its place, but for a
/// blank `rest`. A segment file that is kept for later use holds pages of other places, and so does one that was cut short.
#[must_use]
pub fn are_in_place(bytes: &[u8], from: Lsn, segments: Segments, rest: Rest) -> bool {
    let end = from.offset() + bytes.len() as u64;
    let mut at = from.offset().next_multiple_of(PAGE_BYTES);
    while at < end {
        let skip = usize::try_from(at - from.offset()).expect("within a slice in memory");
        let page = &bytes[skip..];
        // The end may cut a header short: then there is nothing to tell it by.
        let segment_start = at.is_multiple_of(segments.bytes());
        let whole = page.len() >= record::PAGE_HEADER;
        if whole && record::page_header(page, Lsn::from_offset(at), segment_start).is_none() {
            return rest == Rest::Blank && !segment_start && page.iter().all(|byte| *byte == 0);
        }
        at += PAGE_BYTES;
    }
    true
}

/// Cuts the log into segment files of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    bytes: u64,
}

/// One segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// The timeline in its name; pages before a switch inside it may be of an earlier one.
    pub timeline: Term,
    /// Where it begins.
    pub start: Lsn,
}

/// Why a segment size was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("log segment size {0} is not a power of two from 1 MiB to 1 GiB")]
pub struct SegmentSizeError(pub u64);

impl Segments {
    /// 16 MiB, which is what [`super::argv::initdb`] asks for.
    pub const DEFAULT: Self = Self { bytes: super::argv::SEGMENT_BYTES as u64 };

    /// Segments of `bytes`, as found in `pg_control`.
    ///
    /// # Errors
    /// [`SegmentSizeError`].
    pub fn new(bytes: u64) -> Result<Self, SegmentSizeError> {
        let valid = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        if valid { Ok(Self { bytes }) } else { Err(SegmentSizeError(bytes)) }
    }

    /// Size of one segment.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// The segment that holds the byte at `lsn`.
    #[must_use]
    pub const fn holding(self, timeline: Term, lsn: Lsn) -> Segment {
        Segment { timeline, start: Lsn::from_offset(lsn.offset() / self.bytes * self.bytes) }
    }

    /// The segment after `segment` on the same timeline.
    #[must_use]
    pub const fn next(self, segment: Segment) -> Segment {
        Segment { timeline: segment.timeline, start: segment.start.plus(self.bytes) }
    }

    /// The file's name: timeline, and the segment's number in two parts, each 8 upper-case hex digits.
    #[must_use]
    pub fn name(self, segment: Segment) -> String {
        let number = segment.start.offset() / self.bytes;
        let per_part = (1 << 32) / self.bytes;
        format!("{:08X}{:08X}{:08X}", segment.timeline.number(), number / per_part, number % per_part)
    }

    /// The segment that a file name stands for; `None` for every other file.
    #[must_use]
    pub fn parse(self, name: &str) -> Option<Segment> {
        if name.len() != 24 {
            return None;
        }
        let timeline = Term::new(hex8(name.get(..8)?)?)?;
        let (high, low) = (u64::from(hex8(name.get(8..16)?)?), u64::from(hex8(name.get(16..)?)?));
        let per_part = (1 << 32) / self.bytes;
        if low >= per_part {
            return None;
        }
        let start = (high * per_part + low).checked_mul(self.bytes)?;
        Some(Segment { timeline, start: Lsn::from_offset(start) })
    }
}

/// Upper-case hex only: Postgres writes no other, and two spellings of one file must not both pass.
fn hex8(text: &str) -> Option<u32> {
    let shape = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    if shape { u32::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_position_has_the_file_name_that_postgres_gives_it() {
        let name = |lsn: &str, timeline| {
            let segment = Segments::DEFAULT.holding(Term::new(timeline).unwrap(), lsn.parse().unwrap());
            Segments::DEFAULT.name(segment)
        };
        // What pg_walfile_name says for a position inside a segment.
        assert_eq!(name("0/16B3748", 1), "000000010000000000000001");
        assert_eq!(name("2A/FF000028", 17), "000000110000002A000000FF");
    }

    #[test]
    fn only_pages_of_their_place_are_in_place() {
        let segments = Segments::DEFAULT;
        let page = |at: u64| {
            let mut page = vec![7; 8192];
            let long = at.is_multiple_of(segments.bytes());
            page[..20].fill(0);
            page[..2].copy_from_slice(&0xD110_u16.to_le_bytes());
            page[2] = if long { 2 } else { 0 };
            page[8..16].copy_from_slice(&at.to_le_bytes());
            page
        };
        let start = 3 * segments.bytes();
        let log: Vec<u8> = (0..4).flat_map(|n| page(start + n * PAGE_BYTES)).collect();
        let holds = |skip: usize, take: usize| {
            are_in_place(&log[skip..skip + take], Lsn::from_offset(start + skip as u64), segments, Rest::Log)
        };
        assert!(holds(0, log.len()) && holds(100, 20_000) && holds(100, 50) && holds(8000, 200));
        let at = |offset| are_in_place(&log, Lsn::from_offset(offset), segments, Rest::Log);
        assert!(!at(start + PAGE_BYTES) && !at(2 * segments.bytes()), "log of another place");
        let mut zeroed = log.clone();
        zeroed[2 * 8192..].fill(0);
        assert!(!are_in_place(&zeroed, Lsn::from_offset(start), segments, Rest::Log), "ends before");
        assert!(are_in_place(&zeroed, Lsn::from_offset(start), segments, Rest::Blank), "goes on in the next");
        *zeroed.last_mut().unwrap() = 1;
        assert!(!are_in_place(&zeroed, Lsn::from_offset(start), segments, Rest::Blank), "not blank");
        let blank = vec![0; zeroed.len()];
        assert!(!are_in_place(&blank, Lsn::from_offset(start), segments, Rest::Blank), "never written");
    }

    #[test]
    fn other_files_are_not_segments() {
        for bad in [
            "",
            "00000001.history",
            "00000001000000000000000a",
            "000000000000000000000001",
            "000000010000000000000100",
            "000000010000000000000001.partial",
            "0000000100000000000000é",
        ] {
            assert_eq!(Segments::DEFAULT.parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_sizes_that_postgres_allows_pass() {
        assert!(Segments::new(1 << 20).is_ok() && Segments::new(1 << 30).is_ok());
        assert!(
            Segments::new(0).is_err() && Segments::new(3 << 20).is_err() && Segments::new(1 << 31).is_err()
        );
    }

    proptest! {
        #[test]
        fn a_name_survives_a_round_trip(timeline in 1u32.., offset: u64, power in 20u32..=30) {
            let segments = Segments::new(1 << power).unwrap();
            let segment = segments.holding(Term::new(timeline).unwrap(), Lsn::from_offset(offset));
            prop_assert_eq!(segments.parse(&segments.name(segment)), Some(segment));
        }
    }
}
