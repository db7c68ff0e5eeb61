//! Turns chunks that lie near each other in a pack into one ranged GET.
//!
//! Within a page (1 GiB) chunks are fetched in the order of the packs, not of the files: writes are positioned, and
//! reading through a small gap is cheaper than another request.
//!
//! Invariants, each a test below:
//! * `every_chunk_is_in_exactly_one_group_and_within_its_range`.
//! * `small_gaps_are_read_through_and_large_ones_are_not`.

use std::ops::Range;

use crate::chunk::ChunkRef;
use crate::key::PackId;

/// A gap of at most so many bytes costs less than a request (about 10 ms at 100 MB/s).
const GAP_BYTES_MAX: u64 = 1 << 20;
/// Large enough for full speed, small enough for several to be in memory.
const GROUP_BYTES_MAX: u64 = 8 << 20;

/// One GET and what is taken from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group<T> {
    pub(super) pack: PackId,
    pub(super) range: Range<u64>,
    pub(super) items: Vec<T>,
}

pub(super) fn groups<T>(mut items: Vec<T>, chunk: impl Fn(&T) -> ChunkRef) -> Vec<Group<T>> {
    items.sort_by_key(|item| {
        let chunk = chunk(item);
        (chunk.pack, chunk.offset)
    });
    let mut groups: Vec<Group<T>> = Vec::new();
    for item in items {
        let next = chunk(&item);
        let (start, end) = (u64::from(next.offset), next.end());
        match groups.last_mut() {
            Some(group)
                if group.pack == next.pack
                    && start <= group.range.end + GAP_BYTES_MAX
                    && end.max(group.range.end) - group.range.start <= GROUP_BYTES_MAX =>
            {
                group.range.end = group.range.end.max(end);
                group.items.push(item);
            }
            Some(_) | None => groups.push(Group { pack: next.pack, range: start..end, items: vec![item] }),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::ChunkName;
    use crate::key::BackupId;
    use holdfast_model::{Lsn, Term};
    use proptest::prelude::*;

    fn chunk(pack: u64, offset: u32, stored: u32) -> ChunkRef {
        let pack = PackId::from_parts(BackupId::from_parts(Term::FIRST, Lsn::ZERO, 0), pack);
        ChunkRef { name: ChunkName::from_bytes([0; 32]), pack, offset, stored, plain: stored }
    }

    #[test]
    fn small_gaps_are_read_through_and_large_ones_are_not() {
        let near = vec![chunk(1, 300_000, 10), chunk(1, 20, 10)];
        assert_eq!(groups(near, |c| *c).len(), 1);
        let far = vec![chunk(1, 20, 10), chunk(1, 3_000_000, 10)];
        assert_eq!(groups(far, |c| *c).len(), 2);
        let other_pack = vec![chunk(1, 20, 10), chunk(2, 30, 10)];
        assert_eq!(groups(other_pack, |c| *c).len(), 2);
    }

    proptest! {
        #[test]
        fn every_chunk_is_in_exactly_one_group_and_within_its_range(
            places in prop::collection::vec((0u64..3, 0u32..20_000_000, 1u32..300_000), 0..60),
        ) {
            let chunks: Vec<_> = places.iter().map(|&(pack, offset, stored)| chunk(pack, offset, stored)).collect();
            let groups = groups(chunks.clone(), |c| *c);
            let mut seen = 0;
            for group in &groups {
                prop_assert!(group.range.end - group.range.start <= GROUP_BYTES_MAX);
                for item in &group.items {
                    prop_assert!(item.pack == group.pack);
                    prop_assert!(u64::from(item.offset) >= group.range.start && item.end() <= group.range.end);
                    seen += 1;
                }
            }
            prop_assert_eq!(seen, chunks.len());
        }
    }
}
