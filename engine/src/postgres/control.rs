//! Reads `pg_control`, the file in which Postgres notes what state a data directory is in.
//!
//! Offsets are those of `ControlFileData` in Postgres 15 to 17 (control versions 1300 and 1700, alike in the fields
//! read here) on a 64-bit little-endian machine; another version, a foreign byte order or a wrong CRC-32C is refused by name. The one thing here that
//! says which cluster's files a directory holds is the system identifier.
//!
//! Invariants, each a test below or in `tests/server.rs`:
//! * `a_flipped_bit_in_the_checked_part_is_refused`.
//! * `pg_control_of_a_real_server_says_what_the_server_says`.

use holdfast_model::{Lsn, Term};

use super::page::FILE_PAGES;
use super::wal::{SegmentSizeError, Segments};

/// Path of the file below the data directory.
pub const PATH: &str = "global/pg_control";

/// Of 13 to 16, and of 17.
const CONTROL_VERSIONS: [u32; 2] = [1300, 1700];
const CRC_AT: usize = 288;
/// `FLOATFORMAT_VALUE`, by which Postgres itself detects a foreign machine's file.
const FLOAT_FORMAT: f64 = 1_234_567.0;

/// Options that are fixed when Postgres is built, which [`super::page`] and [`super::wal`] take for granted.
const BUILD_OPTIONS: [(&str, u32, usize); 3] =
    [("page size", 8192, 216), ("pages per file", FILE_PAGES, 220), ("log page size", 8192, 224)];

/// What the server was doing when it last wrote the file (`DBState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// initdb has not finished.
    StartingUp,
    /// Stopped cleanly.
    ShutDown,
    /// Stopped cleanly while in recovery.
    ShutDownInRecovery,
    /// Writing its shutdown checkpoint.
    ShuttingDown,
    /// In crash recovery.
    InCrashRecovery,
    /// In archive recovery, or a standby.
    InArchiveRecovery,
    /// Running, or crashed while running.
    InProduction,
}

/// The fields that the agent goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Made by initdb; the same in every copy of a cluster.
    pub system_identifier: u64,
    /// `catalog_version_no`: one per major version.
    pub catalog_version: u32,
    /// What the server was doing.
    pub state: ClusterState,
    /// The last checkpoint's record.
    pub checkpoint: Lsn,
    /// Where recovery from that checkpoint begins.
    pub redo: Lsn,
    /// Timeline of that checkpoint.
    pub timeline: Term,
    /// In recovery: data on disk is consistent only from here on; zero otherwise.
    pub min_recovery: Lsn,
    /// 0 when the cluster has no data checksums.
    pub checksum_version: u32,
    /// Size of the log's segments.
    pub segments: Segments,
}

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Too short.
    #[error("pg_control is cut short at {0} bytes")]
    Short(usize),
    /// Another version of the file.
    #[error("pg_control has version {0}, this release reads 1300 and 1700 (postgres 15 to 17)")]
    Version(u32),
    /// Damaged, or read while it was being written: read it again.
    #[error("pg_control does not match its checksum: it is damaged, or was being written")]
    Checksum,
    /// Written on a machine of another kind.
    #[error("pg_control was written on another kind of machine")]
    Machine,
    /// A value that no server writes.
    #[error("pg_control has {field} = {value}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: u32,
    },
    /// A segment size that no server has.
    #[error("read the log segment size from pg_control")]
    SegmentSize(#[source] SegmentSizeError),
}

impl Control {
    /// Reads the file's content.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let file = bytes.get(..CRC_AT + 4).ok_or(ControlError::Short(bytes.len()))?;
        let u32_at = |at: usize| u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let version = u32_at(8);
        if !CONTROL_VERSIONS.contains(&version) {
            return Err(ControlError::Version(version));
        }
        if crc32c::crc32c(&file[..CRC_AT]) != u32_at(CRC_AT) {
            return Err(ControlError::Checksum);
        }
        if u64_at(208) != FLOAT_FORMAT.to_bits() {
            return Err(ControlError::Machine);
        }
        let field = |field, value| ControlError::Field { field, value };
        for (name, expected, at) in BUILD_OPTIONS {
            if u32_at(at) != expected {
                return Err(field(name, u32_at(at)));
            }
        }
        let timeline = Term::new(u32_at(48)).ok_or_else(|| field("timeline", 0))?;
        Ok(Self {
            system_identifier: u64_at(0),
            catalog_version: u32_at(12),
            state: state(u32_at(16)).ok_or_else(|| field("state", u32_at(16)))?,
            checkpoint: Lsn::from_offset(u64_at(32)),
            redo: Lsn::from_offset(u64_at(40)),
            timeline,
            min_recovery: Lsn::from_offset(u64_at(136)),
            segments: Segments::new(u64::from(u32_at(228))).map_err(ControlError::SegmentSize)?,
            checksum_version: u32_at(252),
        })
    }
}

const fn state(number: u32) -> Option<ClusterState> {
    Some(match number {
        0 => ClusterState::StartingUp,
        1 => ClusterState::ShutDown,
        2 => ClusterState::ShutDownInRecovery,
        3 => ClusterState::ShuttingDown,
        4 => ClusterState::InCrashRecovery,
        5 => ClusterState::InArchiveRecovery,
        6 => ClusterState::InProduction,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut file = vec![0; 8192];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &7_123_456_789_u64.to_le_bytes());
        put(8, &CONTROL_VERSIONS[0].to_le_bytes());
        put(16, &6u32.to_le_bytes());
        put(32, &0x16B_3748_u64.to_le_bytes());
        put(40, &0x16B_3710_u64.to_le_bytes());
        put(48, &3u32.to_le_bytes());
        put(208, &FLOAT_FORMAT.to_bits().to_le_bytes());
        put(216, &8192u32.to_le_bytes());
        put(220, &131_072u32.to_le_bytes());
        put(224, &8192u32.to_le_bytes());
        put(228, &(16u32 << 20).to_le_bytes());
        put(252, &1u32.to_le_bytes());
        let crc = crc32c::crc32c(&file[..CRC_AT]);
        file[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        file
    }

    #[test]
    fn the_fields_are_where_postgres_puts_them() {
        let control = Control::parse(&sample()).unwrap();
        assert_eq!(control.system_identifier, 7_123_456_789);
        assert_eq!(control.timeline.number(), 3);
        assert_eq!(control.state, ClusterState::InProduction);
        assert_eq!(control.checkpoint.to_string(), "0/16B3748");
        assert_eq!(control.segments, Segments::DEFAULT);
    }

    #[test]
    fn a_flipped_bit_in_the_checked_part_is_refused() {
        for at in 0..CRC_AT + 4 {
            let mut file = sample();
            file[at] ^= 1;
            assert!(Control::parse(&file).is_err(), "byte {at}");
        }
        assert!(matches!(Control::parse(&sample()[..100]), Err(ControlError::Short(100))));
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let mut file = sample();
        file[8..12].copy_from_slice(&1800u32.to_le_bytes());
        let text = Control::parse(&file).unwrap_err().to_string();
        assert_eq!(text, "pg_control has version 1800, this release reads 1300 and 1700 (postgres 15 to 17)");
    }
}
