//! Keeps what a deposed primary wrote and nobody acknowledged, before it is overwritten (I13): each segment from where the
//! cluster left its reign to its end, as it is on the volume.
//!
//! Segments that were recycled are gone, and what is there is all that can be kept: a file that is missing is passed over.
//! Done twice it keeps the same again.

use std::path::{Path, PathBuf};

use holdfast_engine::postgres::wal::Segments;
use holdfast_model::{Lsn, Member};
use holdfast_storage_io::IoError;
use holdfast_storage_io::root::Root;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Access, later, never};
use crate::data::Tail;
use crate::worker::job::JobFailure;

/// What the job is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeepTail {
    /// Where to.
    pub access: Access,
    /// `pg_wal` of the member.
    pub wal_dir: PathBuf,
    /// Whose it was.
    pub member: Member,
    /// Which part of its log.
    pub tail: Tail,
}

pub(super) async fn keep_tail(job: KeepTail) -> Result<Value, JobFailure> {
    let repository = job.access.open().await.map_err(|err| later(&err))?;
    let segments = Segments::new(repository.log_segment_size()).map_err(|err| never(&err))?;
    let Tail { term, start, end } = &job.tail;
    let lsn = |position| Lsn::try_from(position).map_err(|err| never(&err));
    let (term, mut at, end) = (*term, lsn(start)?, lsn(end)?);
    while at < end {
        let segment = segments.holding(term, at);
        let next = Lsn::from_offset(segment.start.offset() + segments.bytes());
        let (dir, name) = (job.wal_dir.clone(), segments.name(segment));
        let (skip, length) = (at.bytes_since(segment.start), end.min(next).bytes_since(at));
        let read = tokio::task::spawn_blocking(move || part_of(&dir, &name, skip, length));
        if let Some(bytes) = read.await.map_err(|err| later(&err))?.map_err(|err| later(&err))? {
            repository.keep_tail(term, &job.member, at, bytes).await.map_err(|err| later(&err))?;
        }
        at = next;
    }
    Ok(Value::Null)
}

/// A part of a file, which may end early; none when there is no such file.
fn part_of(dir: &Path, name: &str, skip: u64, length: u64) -> Result<Option<Vec<u8>>, IoError> {
    /// The largest segment that Postgres knows.
    const SEGMENT_BYTES_MAX: u64 = 1 << 30;
    let Some(file) = Root::open(dir)?.read(Path::new(name), SEGMENT_BYTES_MAX)? else { return Ok(None) };
    let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(file.len());
    Ok(Some(file[within(skip)..within(skip + length)].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_there_is_read_and_one_that_is_gone_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("segment"), b"0123456789").unwrap();
        let part = |name, skip, length| part_of(dir.path(), name, skip, length).unwrap();
        assert_eq!(part("segment", 3, 4).as_deref(), Some(&b"3456"[..]));
        assert_eq!(part("segment", 8, 100).as_deref(), Some(&b"89"[..]));
        assert_eq!(part("recycled", 0, 1), None);
    }
}
