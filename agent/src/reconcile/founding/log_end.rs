//! Where replay of the shipped log must end: behind its last whole record.

use holdfast_backup::log::{LogReader, Segment};
use holdfast_backup::repository::Repository;
use holdfast_engine::postgres::wal::Segments;
use holdfast_engine::postgres::wal::scan::Scanner;
use holdfast_model::{Lsn, Term};

use super::FoundingError;

/// Reads backwards, a segment at a time, until one holds the start of a record; never before `from`.
pub(super) async fn last_whole_record(
    repository: &Repository,
    mut reader: LogReader,
    term: Term,
    from: Lsn,
) -> Result<Lsn, FoundingError> {
    let segments = Segments::new(repository.log_segment_size())?;
    let end = reader.end();
    let mut first = segments.holding(term, Lsn::from_offset(end.offset().saturating_sub(1))).start;
    loop {
        let begin = first.max(from);
        let mut scanner = Scanner::new(segments, term, begin, first);
        let mut at = first;
        while at < end {
            match reader.segment(term, at.offset() / segments.bytes()).await? {
                Segment::Bytes(bytes) => {
                    let length = usize::try_from(end.bytes_since(at)).unwrap_or(usize::MAX).min(bytes.len());
                    scanner.push(&bytes[..length]);
                }
                Segment::PastEnd => break,
            }
            at = at.plus(segments.bytes());
        }
        let scanned = scanner.finish();
        if scanned.records > 0 || first <= from {
            return Ok(scanned.end);
        }
        first = Lsn::from_offset(first.offset() - segments.bytes());
    }
}
