//! Finds where the last whole record of a stretch of log ends, the way recovery does: by length, back link and
//! CRC-32C of each record, through page headers and continuations.
//!
//! Restored log is cut at the acked end and padded with zeros, so replay must stop exactly at the last whole record
//! before the cut. The agent scans the log that it delivered and compares the answer with the replayed position: a
//! difference means that recovery ended early (S20, S21). What is scanned is what was delivered, padding included:
//! zeros can complete a record whose cut-off bytes were zeros, for the server as for the scan.
//!
//! Memory is bounded by one page whatever the records' sizes: bodies are only checksummed.
//!
//! Invariants, each a test below or in `tests/wal.rs`, against the log of a real server:
//! * `the_scan_ends_where_the_server_says_its_log_ends`.
//! * `a_cut_anywhere_ends_the_scan_at_a_record_before_the_cut`.
//! * `no_bytes_make_the_scan_panic`.

use holdfast_model::{Lsn, Term};

use super::record::{PageHeader, RECORD_HEADER, RecordHeader, page_header, u32_at};
use super::{PAGE_BYTES, Segments};

/// Why the scan stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// All that was pushed was read; the log may go on, or the last record may be incomplete.
    OutOfBytes,
    /// Zeros, or another length that no record has.
    Length,
    /// A page that does not belong at this place.
    Page,
    /// A page of a timeline that cannot follow the one before.
    Timeline,
    /// A record that does not point back at the one before it.
    BackLink,
    /// A record whose checksum does not match.
    Checksum,
}

/// Where a scan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// End of the last whole record, as `pg_last_wal_replay_lsn()` would say it; the start while there was none.
    pub end: Lsn,
    /// Records read.
    pub records: u64,
    /// What is at `end`.
    pub stop: Stop,
}

/// Reads log pushed piece by piece, without gaps.
#[derive(Debug)]
pub struct Scanner {
    segments: Segments,
    timeline_max: Term,
    timeline: u32,
    /// Start of the page that `page` collects.
    page_start: Lsn,
    page: Vec<u8>,
    from: Lsn,
    state: State,
    previous: Option<Lsn>,
    end: Lsn,
    records: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Before `from`, or in the rest of a segment after a switch record: bytes up to here mean nothing.
    Skip { to: Lsn },
    /// At a record boundary.
    Between,
    /// Inside a record's header.
    Header { at: Lsn, bytes: [u8; RECORD_HEADER], have: usize },
    /// Inside a record's body.
    Body { at: Lsn, header: RecordHeader, left: u32, crc: u32 },
    /// Nothing after this place counts.
    Stopped(Stop),
}

impl Scanner {
    /// A scan of timeline `timeline` (and of its ancestors before it) that begins with the record at `from`: a
    /// record's start, or the page start just before it. Bytes are pushed from the start of the page that holds
    /// `from`, or from any page start before that.
    #[must_use]
    pub fn new(segments: Segments, timeline: Term, from: Lsn, first_byte: Lsn) -> Self {
        Self {
            segments,
            timeline_max: timeline,
            timeline: 0,
            page_start: first_byte,
            page: Vec::with_capacity(8192),
            from,
            state: State::Skip { to: from },
            previous: None,
            end: from,
            records: 0,
        }
    }

    /// Reads on. Bytes after a stop are ignored.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !matches!(self.state, State::Stopped(_)) {
            let want = page_len() - self.page.len();
            let (now, rest) = bytes.split_at(want.min(bytes.len()));
            self.page.extend_from_slice(now);
            bytes = rest;
            if self.page.len() == page_len() {
                let page = std::mem::take(&mut self.page);
                self.read_page(&page);
                self.page = page;
                self.page.clear();
                self.page_start = self.page_start.plus(PAGE_BYTES);
            }
        }
    }

    /// Reads the last, partial page and says where the log ends.
    #[must_use]
    pub fn finish(mut self) -> Scanned {
        let page = std::mem::take(&mut self.page);
        if !page.is_empty() && !matches!(self.state, State::Stopped(_)) {
            self.read_page(&page);
        }
        let stop = match self.state {
            State::Stopped(stop) => stop,
            State::Skip { .. } | State::Between | State::Header { .. } | State::Body { .. } => {
                Stop::OutOfBytes
            }
        };
        Scanned { end: self.end, records: self.records, stop }
    }

    fn read_page(&mut self, page: &[u8]) {
        let page_end = self.page_start.plus(PAGE_BYTES);
        if let State::Skip { to } = self.state
            && to >= page_end
        {
            return;
        }
        let segment_start = self.page_start.offset().is_multiple_of(self.segments.bytes());
        let Some(header) = page_header(page, self.page_start, segment_start) else {
            let blank = page.len() < super::record::LONG_PAGE_HEADER;
            self.state = State::Stopped(if blank { Stop::OutOfBytes } else { Stop::Page });
            return;
        };
        if header.timeline < self.timeline || header.timeline > self.timeline_max.number() {
            self.state = State::Stopped(Stop::Timeline);
            return;
        }
        self.timeline = header.timeline;
        let mut at = self.enter_page(&header);
        while at < page.len() && !matches!(self.state, State::Stopped(_)) {
            at = self.step(page, at);
        }
    }

    /// Fits the page's header to what was being read; returns where reading goes on in the page.
    fn enter_page(&mut self, header: &PageHeader) -> usize {
        let left = match self.state {
            State::Skip { to } => {
                let inside = usize::try_from(to.bytes_since(self.page_start)).unwrap_or(usize::MAX);
                self.state = State::Between;
                if inside > header.bytes {
                    return inside;
                }
                // `to` names the page itself: its first record begins after the header and after what continues,
                // which may fill this page and more.
                let first = header.bytes.saturating_add(align8(header.continued));
                if first >= page_len() {
                    self.state = State::Skip { to: self.page_start.plus(PAGE_BYTES) };
                }
                return first;
            }
            State::Between | State::Stopped(_) => 0,
            State::Header { bytes, have, .. } => {
                u32_at(&bytes, 0).unwrap_or(0).saturating_sub(u32::try_from(have).unwrap_or(0))
            }
            State::Body { left, .. } => left,
        };
        if header.overwrites {
            self.state = State::Between;
        } else if left != header.continued {
            self.state = State::Stopped(Stop::Page);
        }
        header.bytes
    }

    /// Takes one step in the page from `at`; returns where the next one begins.
    fn step(&mut self, page: &[u8], at: usize) -> usize {
        let rest = &page[at..];
        match self.state {
            State::Skip { to } => {
                // Only a switch record leads here: the rest of its segment is padding.
                let inside = usize::try_from(to.bytes_since(self.page_start)).unwrap_or(usize::MAX);
                inside.min(page.len())
            }
            State::Stopped(_) => page.len(),
            State::Between => {
                if let Some(total) = u32_at(rest, 0)
                    && total == 0
                {
                    self.state = State::Stopped(Stop::Length);
                    return page.len();
                }
                let lsn = self.page_start.plus(at as u64);
                self.state = State::Header { at: lsn, bytes: [0; RECORD_HEADER], have: 0 };
                at
            }
            State::Header { at: record, mut bytes, have } => {
                let take = rest.len().min(RECORD_HEADER - have);
                bytes[have..have + take].copy_from_slice(&rest[..take]);
                if have + take < RECORD_HEADER {
                    self.state = State::Header { at: record, bytes, have: have + take };
                } else {
                    self.begin_body(record, &bytes);
                    if let State::Body { left: 0, .. } = self.state {
                        return self.end_record(at + take);
                    }
                }
                at + take
            }
            State::Body { at: record, header, left, crc } => {
                let take = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let crc = crc32c::crc32c_append(crc, &rest[..take]);
                let left = left.saturating_sub(u32::try_from(take).unwrap_or(u32::MAX));
                self.state = State::Body { at: record, header, left, crc };
                if left == 0 { self.end_record(at + take) } else { at + take }
            }
        }
    }

    fn begin_body(&mut self, at: Lsn, bytes: &[u8; RECORD_HEADER]) {
        let Some(header) = RecordHeader::read(bytes) else {
            self.state = State::Stopped(Stop::Length);
            return;
        };
        let linked = match self.previous {
            Some(previous) => header.previous == previous,
            None => header.previous < at,
        };
        let left = header.total.saturating_sub(u32::try_from(RECORD_HEADER).unwrap_or(0));
        self.state =
            if linked { State::Body { at, header, left, crc: 0 } } else { State::Stopped(Stop::BackLink) };
    }

    /// Judges the record whose last byte is just before `at` in the page; returns where the next one begins.
    fn end_record(&mut self, at: usize) -> usize {
        let State::Body { at: record, header, crc, .. } = self.state else { return at };
        if !header.matches(crc) {
            self.state = State::Stopped(Stop::Checksum);
            return at;
        }
        let next = at.next_multiple_of(8);
        let mut end = self.page_start.plus(next as u64);
        self.state = State::Between;
        if header.is_switch {
            end = Lsn::from_offset(end.offset().next_multiple_of(self.segments.bytes()));
            self.state = State::Skip { to: end };
        }
        self.previous = Some(record);
        self.records += 1;
        self.end = self.from.max(end);
        next
    }
}

fn page_len() -> usize {
    usize::try_from(PAGE_BYTES).expect("8192 fits")
}

fn align8(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(7) & !7
}

/// Scans `bytes`, which begin at `first_byte` (a page start), for the end of the last whole record from `from` on.
#[must_use]
pub fn last_whole_record(
    segments: Segments,
    timeline: Term,
    from: Lsn,
    first_byte: Lsn,
    bytes: &[u8],
) -> Scanned {
    let mut scanner = Scanner::new(segments, timeline, from, first_byte);
    scanner.push(bytes);
    scanner.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_scan_panic(bytes in prop::collection::vec(any::<u8>(), 0..20_000), from in 0u64..20_000) {
            let mut bytes = bytes;
            if bytes.len() > 24 {
                // A page that passes, so that the bytes behind it are looked at.
                bytes[..4].copy_from_slice(&[0x10, 0xD1, 2, 0]);
                bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
                bytes[8..20].fill(0);
            }
            let from = Lsn::from_offset(from);
            let scanned = last_whole_record(Segments::DEFAULT, Term::FIRST, from, Lsn::ZERO, &bytes);
            prop_assert!(scanned.end >= from);
        }
    }

    #[test]
    fn zeros_are_the_end_of_the_log() {
        let from = Lsn::from_offset(1 << 24);
        let scanned = last_whole_record(Segments::DEFAULT, Term::FIRST, from, from, &[0; 16384]);
        assert_eq!(scanned, Scanned { end: from, records: 0, stop: Stop::Page });
    }
}
