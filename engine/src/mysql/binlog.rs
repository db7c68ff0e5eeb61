//! MySQL's binary log as bytes: which transactions a file holds, and files made of transactions.
//!
//! A file is 4 bytes of magic, a description of its format, the set of what came before it, and events; each has a header of 19
//! bytes with its kind and length, and ends with its CRC32 (MySQL Internals Manual, "Binary Log"; `libs/mysql/binlog/event` of the
//! server's sources). A transaction begins with the event that names it and ends where the next one's does, or where a file is closed.
//!
//! Relay logs are the same files, so what was shipped is replayed by a server as if it had been received: it skips what it has by
//! the names of the transactions, which makes a replay that was cut off go on by itself.
//!
//! Invariants, each a test below or in `tests/mysql/binlog.rs`:
//! * `an_event_that_is_cut_off_or_damaged_is_never_taken_for_a_whole_one`.
//! * `what_was_cut_out_of_a_log_is_replayed_once`.
//!
//! Not here: reading files, and what may be shipped.

use std::ops::Range;

use holdfast_model::{Gtid, Source};

/// How a file begins.
const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];

const HEADER: usize = 19;
const CHECKSUM: usize = 4;

/// The longest event: `max_allowed_packet` is at most 1 GiB, and rows are cut below it.
const EVENT_MAX: usize = 1 << 30;

/// Kinds of events that mean something here (`enum Log_event_type`).
mod kind {
    pub(super) const STOP: u8 = 3;
    pub(super) const ROTATE: u8 = 4;
    pub(super) const FORMAT: u8 = 15;
    pub(super) const GTID: u8 = 33;
    pub(super) const ANONYMOUS: u8 = 34;
    pub(super) const PREVIOUS: u8 = 35;
    pub(super) const TAGGED: u8 = 42;
}

/// Why bytes are not a binlog file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BinlogError {
    /// Not a binlog file, or one that is encrypted.
    #[error("the file does not begin as a binlog does: is binlog_encryption on?")]
    Magic,
    /// A checksum that is not right.
    #[error("the event at byte {at} is damaged: its checksum is not right")]
    Damaged {
        /// Where it begins.
        at: usize,
    },
    /// A length that no event has.
    #[error("the event at byte {at} says that it is {length} bytes long")]
    Length {
        /// Where it begins.
        at: usize,
        /// What it says.
        length: usize,
    },
    /// No format description first, and the set of what came before behind it.
    #[error("the file does not begin with a description of its format and a set of what came before")]
    Format,
    /// A transaction that has no name of the kind that members are compared by.
    #[error("the transaction at byte {at} {why}")]
    Name {
        /// Where it begins.
        at: usize,
        /// What is wrong.
        why: &'static str,
    },
}

/// One transaction of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its name.
    pub gtid: Gtid,
    /// Its bytes in the file.
    pub bytes: Range<usize>,
}

/// What a file holds, as far as it is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Magic, description, and the set of what came before: what a file of the same transactions begins with.
    pub head: Range<usize>,
    /// In the order in which they were committed.
    pub transactions: Vec<Transaction>,
    /// Whether the server has closed the file: nothing follows.
    pub closed: bool,
}

#[derive(Debug, Clone)]
struct Event {
    kind: u8,
    bytes: Range<usize>,
}

/// Looks through a file, or the beginning of one. What is not there whole yet is left out: the last transaction of a file that is still
/// written may be cut off, and is told only if it is named in what the server says is committed.
///
/// # Errors
/// [`BinlogError`].
pub fn read(file: &[u8]) -> Result<Contents, BinlogError> {
    if file.get(..MAGIC.len()) != Some(&MAGIC[..]) {
        return Err(BinlogError::Magic);
    }
    let format =
        event(file, MAGIC.len())?.filter(|event| event.kind == kind::FORMAT).ok_or(BinlogError::Format)?;
    let before = event(file, format.bytes.end)?
        .filter(|event| event.kind == kind::PREVIOUS)
        .ok_or(BinlogError::Format)?;
    let head = 0..before.bytes.end;
    let (mut transactions, mut open, mut closed) = (Vec::new(), None::<Transaction>, false);
    let mut at = head.end;
    while let Some(next) = event(file, at)? {
        at = next.bytes.end;
        match next.kind {
            kind::GTID => {
                transactions.extend(open.take());
                let gtid = gtid(&file[next.bytes.clone()]);
                let why = "has a name that is cut off";
                let gtid = gtid.ok_or(BinlogError::Name { at: next.bytes.start, why })?;
                open = Some(Transaction { gtid, bytes: next.bytes });
            }
            kind::ANONYMOUS => {
                return Err(BinlogError::Name {
                    at: next.bytes.start,
                    why: "has no GTID: gtid_mode was not ON",
                });
            }
            kind::TAGGED => {
                return Err(BinlogError::Name {
                    at: next.bytes.start,
                    why: "has a tagged GTID, which is not supported yet",
                });
            }
            kind::STOP | kind::ROTATE => {
                transactions.extend(open.take());
                closed = true;
            }
            kind::PREVIOUS | kind::FORMAT => {}
            _ => {
                if let Some(open) = &mut open {
                    open.bytes.end = next.bytes.end;
                }
            }
        }
    }
    transactions.extend(open);
    Ok(Contents { head, transactions, closed })
}

/// The event at `at`; none while it is not there whole.
fn event(file: &[u8], at: usize) -> Result<Option<Event>, BinlogError> {
    let Some(header) = file.get(at..at + HEADER) else { return Ok(None) };
    let length = usize::try_from(u32::from_le_bytes([header[9], header[10], header[11], header[12]]))
        .unwrap_or(EVENT_MAX);
    if !(HEADER + CHECKSUM..EVENT_MAX).contains(&length) {
        return Err(BinlogError::Length { at, length });
    }
    let Some(bytes) = file.get(at..at + length) else { return Ok(None) };
    let (body, sum) = bytes.split_at(length - CHECKSUM);
    let kind = header[4];
    // While a file is written its description says so by a flag, which the checksum leaves out (LOG_EVENT_BINLOG_IN_USE_F).
    let right = if kind == kind::FORMAT { in_use_checksum(body) } else { crc32(body) };
    if sum != right.to_le_bytes() {
        return Err(BinlogError::Damaged { at });
    }
    Ok(Some(Event { kind, bytes: at..at + length }))
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes);
    hasher.finalize()
}

fn in_use_checksum(body: &[u8]) -> u32 {
    let mut body = body.to_vec();
    body[17] &= !1;
    crc32(&body)
}

/// Flags, 16 bytes of source, 8 of number, little-endian.
fn gtid(event: &[u8]) -> Option<Gtid> {
    let body = event.get(HEADER + 1..)?;
    let source = Source(u128::from_be_bytes(body.get(..16)?.try_into().ok()?));
    let number = u64::from_le_bytes(body.get(16..24)?.try_into().ok()?);
    (number > 0).then_some(Gtid { source, number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[4] = kind;
        bytes.extend(body);
        let length = u32::try_from(bytes.len() + CHECKSUM).unwrap();
        bytes[9..13].copy_from_slice(&length.to_le_bytes());
        let sum = crc32(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    fn named(number: u64) -> Vec<u8> {
        let mut body = vec![0];
        body.extend(7_u128.to_be_bytes());
        body.extend(number.to_le_bytes());
        event(kind::GTID, &body)
    }

    fn file(numbers: &[u64]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(event(kind::FORMAT, &[4, 0]));
        bytes.extend(event(kind::PREVIOUS, &[0; 8]));
        for number in numbers {
            bytes.extend(named(*number));
            bytes.extend(event(2, b"BEGIN"));
            bytes.extend(event(16, &[0; 8]));
        }
        bytes
    }

    fn numbers(contents: &Contents) -> Vec<u64> {
        contents.transactions.iter().map(|transaction| transaction.gtid.number).collect()
    }

    #[test]
    fn transactions_are_told_apart_and_named() {
        let bytes = file(&[1, 2, 3]);
        let contents = read(&bytes).unwrap();
        assert_eq!(numbers(&contents), [1, 2, 3]);
        assert_eq!(contents.transactions[0].gtid.source, Source(7));
        assert!(!contents.closed);
        let after: Vec<usize> =
            contents.transactions.iter().map(|transaction| transaction.bytes.end).collect();
        assert_eq!(after.last(), Some(&bytes.len()));
        assert_eq!(contents.transactions[1].bytes.start, after[0]);
        let closed = [bytes, event(kind::ROTATE, b"........next")].concat();
        assert!(read(&closed).unwrap().closed);
    }

    #[test]
    fn what_is_no_binlog_is_refused_by_what_it_is() {
        assert_eq!(read(b"\xfdbin and more"), Err(BinlogError::Magic));
        assert_eq!(read(&MAGIC), Err(BinlogError::Format));
        let anonymous = [file(&[]), event(kind::ANONYMOUS, &[0; 25])].concat();
        assert!(matches!(read(&anonymous), Err(BinlogError::Name { .. })));
    }

    proptest! {
        #[test]
        fn an_event_that_is_cut_off_or_damaged_is_never_taken_for_a_whole_one(cut in 0..1000_usize, flip in 0..8_u32, damaged: bool) {
            let whole = file(&[1, 2, 3]);
            let cut = cut % whole.len();
            if damaged {
                let mut bytes = whole.clone();
                bytes[cut] ^= 1 << flip;
                // Whatever is said of it, no transaction is changed in silence.
                if let Ok(contents) = read(&bytes) {
                    let found = numbers(&contents);
                    prop_assert!([1, 2, 3].starts_with(&found), "{:?}", found);
                }
            } else if let Ok(contents) = read(&whole[..cut]) {
                prop_assert!([1, 2, 3].starts_with(&numbers(&contents)));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            drop(read(&bytes));
            drop(read(&[&MAGIC[..], &bytes].concat()));
        }
    }
}
