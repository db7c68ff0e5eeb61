//! Data page checksums: the algorithm of Postgres' `checksum_impl.h`, and what a page read for a backup is worth.
//!
//! The checksum is 32 interleaved FNV-1a sums, folded and mixed with the block number. A page may be torn while it
//! is read under a running server; that is fine when its LSN is at or after the backup's start, since the log then
//! holds a full image of it, and otherwise a second look tells damage from bad luck.
//!
//! Invariants, each a test below or in `tests/server.rs`:
//! * `every_page_of_a_real_server_is_good`.
//! * `a_flipped_bit_is_seen`.
//! * `a_page_from_beyond_the_log_is_damaged_not_new`.
//!
//! Not here: reading, re-reading (up to 5 times, with pauses) and reporting. See the backup worker.

use holdfast_model::Lsn;

/// Bytes of a data page; the only size that is supported, checked against `pg_control`.
pub const PAGE_BYTES: usize = 8192;
/// Pages in one file of a table; with it the block number of a page in a later file is adjusted.
pub const FILE_PAGES: u32 = 131_072;

const LANES: usize = 32;
const FNV_PRIME: u32 = 16_777_619;
const CHECKSUM_AT: usize = 8;
const UPPER_AT: usize = 14;

/// Starting values of the 32 sums; random numbers that are part of the on-disk format.
const BASE: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// One page.
pub type Page = [u8; PAGE_BYTES];

/// What a page read under a running server is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageVerdict {
    /// Never written since the file grew.
    AllZero,
    /// Changed since the backup began: the log restores it whole, so its checksum does not matter.
    NewerThanStart,
    /// The checksum is right.
    Good,
    /// Torn or damaged: read it again, and when it stays so, it is damaged.
    Bad(BadPage),
}

/// What is wrong with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPage {
    /// The stored checksum is another one.
    #[error("block {block} has checksum {stored:04X}, its content {computed:04X}")]
    Checksum {
        /// Block number in the table's fork.
        block: u32,
        /// What the page says.
        stored: u16,
        /// What it should say.
        computed: u16,
    },
    /// `pd_upper` is 0, as in a new page, but there is content.
    #[error("block {block} calls itself new and is not empty")]
    NotEmpty {
        /// Block number in the table's fork.
        block: u32,
    },
    /// Its LSN is beyond everything that was ever logged.
    #[error("block {block} was last changed at {lsn}, beyond the log's end at {log_end}")]
    FromTheFuture {
        /// Block number in the table's fork.
        block: u32,
        /// What the page says.
        lsn: Lsn,
        /// The insert position, read after the page.
        log_end: Lsn,
    },
}

/// Where in the log the backup stands.
#[derive(Debug, Clone, Copy)]
pub struct LogWindow {
    /// The backup's start position.
    pub start: Lsn,
    /// The server's insert position, read after the page was.
    pub end: Lsn,
}

/// Block number of page `index` of file number `file` (0 for `16384`, 3 for `16384.3`).
#[must_use]
pub const fn block_number(file: u32, index: u32) -> u32 {
    file.wrapping_mul(FILE_PAGES).wrapping_add(index)
}

/// The checksum that `page` should carry as block `block`; never 0.
#[must_use]
pub fn checksum(page: &Page, block: u32) -> u16 {
    let mut sums = BASE;
    for (row, bytes) in page.chunks_exact(LANES * 4).enumerate() {
        for (lane, word) in bytes.chunks_exact(4).enumerate() {
            let mut value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            if row == 0 && lane == CHECKSUM_AT / 4 {
                value &= 0xFFFF_0000; // the stored checksum counts as 0
            }
            sums[lane] = mix(sums[lane], value);
        }
    }
    for sum in &mut sums {
        *sum = mix(mix(*sum, 0), 0);
    }
    let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    u16::try_from(folded % 65_535 + 1).expect("at most 65535")
}

fn mix(sum: u32, value: u32) -> u32 {
    let mixed = sum ^ value;
    mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17)
}

/// Judges one page as block `block`.
#[must_use]
pub fn judge(page: &Page, block: u32, window: LogWindow) -> PageVerdict {
    if page.iter().all(|byte| *byte == 0) {
        return PageVerdict::AllZero;
    }
    let u16_at = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
    if u16_at(UPPER_AT) == 0 {
        return PageVerdict::Bad(BadPage::NotEmpty { block });
    }
    // pd_lsn is two 32-bit halves, the high one first.
    let lsn = Lsn::from_offset(u64::from(u32_at(0)) << 32 | u64::from(u32_at(4)));
    if lsn > window.end {
        return PageVerdict::Bad(BadPage::FromTheFuture { block, lsn, log_end: window.end });
    }
    if lsn >= window.start {
        return PageVerdict::NewerThanStart;
    }
    let (stored, computed) = (u16_at(CHECKSUM_AT), checksum(page, block));
    if stored == computed {
        PageVerdict::Good
    } else {
        PageVerdict::Bad(BadPage::Checksum { block, stored, computed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: LogWindow = LogWindow { start: Lsn::from_offset(2000), end: Lsn::from_offset(3000) };

    fn page(lsn: u32, block: u32) -> Box<Page> {
        let mut page = Box::new([0x5A; PAGE_BYTES]);
        page[..4].fill(0);
        page[4..8].copy_from_slice(&lsn.to_le_bytes());
        let sum = checksum(&page, block);
        page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_le_bytes());
        page
    }

    #[test]
    fn pages_are_judged_by_content_then_age_then_checksum() {
        assert_eq!(judge(&[0; PAGE_BYTES], 1, WINDOW), PageVerdict::AllZero);
        assert_eq!(judge(&page(1999, 7), 7, WINDOW), PageVerdict::Good);
        assert!(matches!(judge(&page(1999, 7), 8, WINDOW), PageVerdict::Bad(BadPage::Checksum { .. })));
        let mut torn = page(2000, 7);
        torn[8000] ^= 1;
        assert_eq!(judge(&torn, 7, WINDOW), PageVerdict::NewerThanStart);
        let mut new = page(1999, 7);
        new[UPPER_AT..UPPER_AT + 2].fill(0);
        assert_eq!(judge(&new, 7, WINDOW), PageVerdict::Bad(BadPage::NotEmpty { block: 7 }));
    }

    #[test]
    fn a_page_from_beyond_the_log_is_damaged_not_new() {
        let verdict = judge(&page(3001, 7), 7, WINDOW);
        assert!(matches!(verdict, PageVerdict::Bad(BadPage::FromTheFuture { .. })));
    }

    #[test]
    fn blocks_of_later_files_go_on_counting() {
        assert_eq!(block_number(0, 5), 5);
        assert_eq!(block_number(3, 5), 3 * FILE_PAGES + 5);
    }

    /// Sixteen bits of checksum miss about one change in 65 536, and a page has 65 376 bits behind its header.
    #[test]
    fn a_flipped_bit_is_seen() {
        let mut page = page(1, 3);
        let mut missed = 0;
        for (at, bit) in (20..PAGE_BYTES).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            page[at] ^= 1 << bit;
            missed += u32::from(!matches!(judge(&page, 3, WINDOW), PageVerdict::Bad(_)));
            page[at] ^= 1 << bit;
        }
        assert!(missed <= 8, "{missed} flips were not seen");
    }
}
