//! Reads log out of `pg_wal`.
//!
//! Log of an older term is in segments of its own timeline for as long as the server keeps them, and up to the fork also in the
//! first segment of each later timeline: Postgres begins a timeline with a copy of the segment in which it forks off.
//!
//! Invariants, each a test below:
//! * `log_of_an_older_term_is_read_from_whichever_timeline_has_it`.
//! * `a_segment_that_was_left_for_the_next_is_blank_at_its_end`.

use std::path::Path;

use holdfast_engine::postgres::wal::{PAGE_BYTES, Rest, Segments, are_in_place, history};
use holdfast_model::{Lsn, Term};
use holdfast_storage_io::IoError;
use holdfast_storage_io::bulk::{BlockingIo, BulkIo};

/// Log that is read at once at most, so that memory stays bounded however far behind it is.
const BYTES_AT_ONCE_MAX: u64 = 4 << 20;
/// A line per reign, of less than a hundred bytes.
const HISTORY_BYTES_MAX: usize = 4 << 20;

/// The log of one server.
#[derive(Debug, Clone)]
pub(super) struct WalDir {
    pub(super) io: BlockingIo,
    pub(super) segments: Segments,
}

impl WalDir {
    /// Up to where to read at once, from `from` towards `to`: never across a segment.
    pub(super) fn stop(&self, from: Lsn, to: Lsn) -> Lsn {
        let size = self.segments.bytes();
        let boundary = from.offset() / size * size + size;
        to.min(from.plus(BYTES_AT_ONCE_MAX)).min(Lsn::from_offset(boundary))
    }

    /// The file of `timeline` that holds `at`.
    pub(super) fn name(&self, timeline: Term, at: Lsn) -> String {
        self.segments.name(self.segments.holding(timeline, at))
    }

    /// What the file of `timeline` holds from `from` to `to`; `None` when there is none, or it ends before.
    pub(super) async fn read(&self, timeline: Term, from: Lsn, to: Lsn) -> Result<Option<Vec<u8>>, IoError> {
        let (name, io) = (self.name(timeline, from), self.io.clone());
        let offset = from.bytes_since(self.segments.holding(timeline, from).start);
        let length = usize::try_from(to.bytes_since(from)).expect("bounded by the caller");
        let read = tokio::task::spawn_blocking(move || {
            let file = match io.open_read(Path::new(&name)) {
                Ok(file) => file,
                Err(err) if err.is_not_found() => return Ok(None),
                Err(err) => return Err(err),
            };
            let mut bytes = vec![0; length];
            let read = io.read_at(&file, offset, &mut bytes)?;
            Ok((read == length).then_some(bytes))
        });
        read.await.expect("reading does not panic")
    }

    /// The history file of `timeline`; empty when there is none, as for the first.
    pub(super) async fn history(&self, timeline: Term) -> Result<String, IoError> {
        let io = self.io.clone();
        let read = tokio::task::spawn_blocking(move || {
            let file = match io.open_read(Path::new(&history::file_name(timeline))) {
                Ok(file) => file,
                Err(err) if err.is_not_found() => return Ok(String::new()),
                Err(err) => return Err(err),
            };
            let mut bytes = vec![0; HISTORY_BYTES_MAX];
            let read = io.read_at(&file, 0, &mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
        });
        read.await.expect("reading does not panic")
    }

    /// What the first of `timelines` that has it holds from `from` to `to`, which are of one segment; `None` when none has it any
    /// more. The log goes on up to `left`, which is no later than where the first of them was left, and each begins before the
    /// next.
    pub(super) async fn read_older(
        &self,
        timelines: &[Term],
        (from, to): (Lsn, Lsn),
        left: Lsn,
    ) -> Result<Option<Vec<u8>>, IoError> {
        let start = self.segments.holding(Term::FIRST, from).start;
        let rest = if left >= start.plus(self.segments.bytes()) { Rest::Blank } else { Rest::Log };
        for timeline in timelines {
            // A file that waits for its use under a name of later log holds log of an earlier place, or was never written.
            let first = self.read(*timeline, start, start.plus(PAGE_BYTES)).await?;
            let is_it = first.is_some_and(|page| are_in_place(&page, start, self.segments, Rest::Log));
            let found = if is_it { self.read(*timeline, from, to).await? } else { None };
            if let Some(bytes) = found.filter(|bytes| are_in_place(bytes, from, self.segments, rest)) {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use holdfast_storage_io::root::Root;

    use super::*;

    const PAGE: u64 = 8192;

    fn term(number: u32) -> Term {
        Term::new(number).unwrap()
    }

    fn lsn(offset: u64) -> Lsn {
        Lsn::from_offset(offset)
    }

    /// Pages of the place `start`, each filled with `fill`.
    fn pages(start: u64, count: u64, fill: u8) -> Vec<u8> {
        let size = Segments::DEFAULT.bytes();
        let page = |at: u64| {
            let mut page = vec![fill; 8192];
            page[..24].fill(0);
            page[..2].copy_from_slice(&0xD110_u16.to_le_bytes());
            page[2] = if at.is_multiple_of(size) { 2 } else { 0 };
            page[8..16].copy_from_slice(&at.to_le_bytes());
            page
        };
        (0..count).flat_map(|n| page(start + n * PAGE)).collect()
    }

    #[tokio::test]
    async fn log_of_an_older_term_is_read_from_whichever_timeline_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let io = BlockingIo::new(Root::open(dir.path()).unwrap());
        let wal = WalDir { io, segments: Segments::DEFAULT };
        let start = 3 * Segments::DEFAULT.bytes();
        let put = |timeline, bytes: Vec<u8>| {
            fs::write(dir.path().join(wal.name(term(timeline), lsn(start))), bytes).unwrap();
        };
        let (from, to) = (lsn(start + 100), lsn(start + 2 * PAGE));
        let read = async |timelines: &[u32]| {
            let timelines: Vec<Term> = timelines.iter().map(|number| term(*number)).collect();
            let bytes = wal.read_older(&timelines, (from, to), to).await.unwrap();
            bytes.map(|bytes| (bytes.len() as u64, bytes[8191]))
        };
        let length = 2 * PAGE - 100;
        put(2, pages(start, 4, 2));
        assert_eq!(read(&[1, 2]).await, Some((length, 2)), "the file of the first timeline is gone");
        put(1, pages(start, 1, 1));
        assert_eq!(read(&[1, 2]).await, Some((length, 2)), "or was cut short");
        put(1, pages(start - 2 * Segments::DEFAULT.bytes(), 4, 7));
        assert_eq!(read(&[1, 2]).await, Some((length, 2)), "or waits for its use");
        put(1, pages(start, 4, 1));
        assert_eq!(read(&[1, 2]).await, Some((length, 1)));
        assert_eq!(read(&[3]).await, None);
    }

    #[tokio::test]
    async fn a_segment_that_was_left_for_the_next_is_blank_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let io = BlockingIo::new(Root::open(dir.path()).unwrap());
        let wal = WalDir { io, segments: Segments::DEFAULT };
        let size = Segments::DEFAULT.bytes();
        let start = 3 * size;
        let mut segment = pages(start, 2, 1);
        segment.resize(usize::try_from(size).unwrap(), 0);
        fs::write(dir.path().join(wal.name(term(1), lsn(start))), segment).unwrap();
        let read = async |from: u64, left| {
            let part = (lsn(from), lsn(from + 4 * PAGE));
            wal.read_older(&[term(1)], part, lsn(left)).await.unwrap().is_some()
        };
        for from in [start + 100, start + 6 * PAGE] {
            assert!(read(from, start + size).await);
            assert!(!read(from, from + 4 * PAGE).await, "the log ends here, and before");
        }
        fs::write(dir.path().join(wal.name(term(1), lsn(start))), vec![0; 1 << 20]).unwrap();
        assert!(!read(start + 100, start + size).await, "never written");
    }

    #[test]
    fn nothing_is_read_across_a_segment() {
        let dir = tempfile::tempdir().unwrap();
        let io = BlockingIo::new(Root::open(dir.path()).unwrap());
        let wal = WalDir { io, segments: Segments::DEFAULT };
        let size = Segments::DEFAULT.bytes();
        assert_eq!(wal.stop(lsn(size - 10), lsn(size + 10)), lsn(size));
        assert_eq!(wal.stop(lsn(size), lsn(size + 10)), lsn(size + 10));
        assert_eq!(wal.stop(lsn(size), lsn(9 * size)), lsn(size + BYTES_AT_ONCE_MAX));
    }
}
