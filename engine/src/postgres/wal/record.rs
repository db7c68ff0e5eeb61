//! One log record and one page header, as bytes. Layouts are those of Postgres 15 to 17 on little-endian machines
//! (`xlogrecord.h`, `xlog_internal.h`).

use holdfast_model::Lsn;

/// Bytes of a record's header.
pub(super) const RECORD_HEADER: usize = 24;
/// Bytes of a page header, and of the longer one at the start of each segment.
pub(super) const PAGE_HEADER: usize = 24;
pub(super) const LONG_PAGE_HEADER: usize = 40;

const FIRST_IS_CONTRECORD: u16 = 0x1;
const LONG_HEADER: u16 = 0x2;
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x8;

/// `XLOG_PAGE_MAGIC` of 15, 16 and 17.
const MAGICS: [u16; 3] = [0xD110, 0xD113, 0xD116];

const RM_XLOG: u8 = 0;
const XLOG_SWITCH: u8 = 0x40;

/// `XLogRecordMaxSize` (16 and newer); nothing legitimate is longer.
const RECORD_BYTES_MAX: u32 = 1020 << 20;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// The start of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHeader {
    /// Bytes of a record that began on an earlier page and are still to come, 0 when a record begins here.
    pub(super) continued: u32,
    /// The record that was being continued was given up (a crash cut it short) and another begins here.
    pub(super) overwrites: bool,
    pub(super) timeline: u32,
    pub(super) bytes: usize,
}

/// Reads the header of the page at `at`; `None` when it is not one.
pub(super) fn page_header(page: &[u8], at: Lsn, segment_start: bool) -> Option<PageHeader> {
    let info = u16_at(page, 2)?;
    let long = info & LONG_HEADER != 0;
    let sound = MAGICS.contains(&u16_at(page, 0)?)
        && info & !0xF == 0
        && long == segment_start
        && u64_at(page, 8)? == at.offset();
    if !sound {
        return None;
    }
    let continues = info & FIRST_IS_CONTRECORD != 0;
    let continued = u32_at(page, 16)?;
    if continues != (continued != 0) {
        return None;
    }
    Some(PageHeader {
        continued,
        overwrites: info & FIRST_IS_OVERWRITE_CONTRECORD != 0,
        timeline: u32_at(page, 4)?,
        bytes: if long { LONG_PAGE_HEADER } else { PAGE_HEADER },
    })
}

/// The header of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) total: u32,
    pub(super) previous: Lsn,
    pub(super) is_switch: bool,
    crc: u32,
    /// CRC of the 20 header bytes before the stored one comes last in Postgres' order, so they are kept.
    checked: [u8; 20],
}

impl RecordHeader {
    /// Reads a header; `None` when no record looks like this.
    pub(super) fn read(bytes: &[u8; RECORD_HEADER]) -> Option<Self> {
        let total = u32_at(bytes, 0)?;
        if !(u32::try_from(RECORD_HEADER).ok()?..=RECORD_BYTES_MAX).contains(&total) {
            return None;
        }
        Some(Self {
            total,
            previous: Lsn::from_offset(u64_at(bytes, 8)?),
            is_switch: bytes[17] == RM_XLOG && bytes[16] & 0xF0 == XLOG_SWITCH,
            crc: u32_at(bytes, 20)?,
            checked: bytes[..20].try_into().ok()?,
        })
    }

    /// Whether the stored checksum is that of the body (whose running crc32c is `body`) followed by the header.
    pub(super) fn matches(&self, body: u32) -> bool {
        crc32c::crc32c_append(body, &self.checked) == self.crc
    }
}
