//! Postgres versions: what `postgres --version` and `PG_VERSION` say, and which of them the agent runs.
//!
//! The minimum minors are those from which on the durability fixes that the agent relies on are in. A major above
//! [`NEWEST_MAJOR`] is refused: `pg_control`, the log's page magic and the settings change with each major, and a
//! format that nobody has checked is not guessed at.

use std::fmt;

/// The newest major whose on-disk formats this release was tested with.
pub const NEWEST_MAJOR: u32 = 17;

/// Lowest minor of each supported major.
const MINIMUM: [(u32, u32); 3] = [(15, 13), (16, 9), (17, 5)];

/// A released version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// E.g. 15.
    pub major: u32,
    /// E.g. 13.
    pub minor: u32,
}

/// Why a version was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Not the output of a released Postgres.
    #[error("read a postgres version from {0:?}: expected e.g. 'postgres (PostgreSQL) 15.13'")]
    Unreadable(String),
    /// Older than the oldest supported major.
    #[error("postgres {found} is not supported: use 15.13, 16.9, 17.5 or newer")]
    TooOld {
        /// What is installed.
        found: Version,
    },
    /// A supported major with known data loss or recovery bugs at this minor.
    #[error("postgres {found} lacks fixes that holdfast relies on: update it to {minimum} or newer")]
    MinorTooOld {
        /// What is installed.
        found: Version,
        /// The lowest that will do.
        minimum: Version,
    },
    /// The data directory was made by another major version, which this one cannot read.
    #[error("the data directory is of postgres {data}, the installed one is {found}: set [engine] bin_dir")]
    OtherMajor {
        /// Major of the data directory.
        data: u32,
        /// What is installed.
        found: Version,
    },
    /// Newer than this release knows.
    #[error(
        "postgres {found} is newer than this release of holdfast knows (up to {NEWEST_MAJOR}): update holdfast"
    )]
    TooNew {
        /// What is installed.
        found: Version,
    },
}

impl Version {
    /// Reads the output of `postgres --version`, e.g. `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
    /// Development and beta versions (`18beta1`) are not releases and are refused.
    ///
    /// # Errors
    /// [`VersionError::Unreadable`].
    pub fn parse(output: &str) -> Result<Self, VersionError> {
        let bad = || VersionError::Unreadable(output.trim().to_owned());
        let word = output.trim().strip_prefix("postgres (PostgreSQL) ").ok_or_else(bad)?;
        let word = word.split_whitespace().next().ok_or_else(bad)?;
        let (major, minor) = word.split_once('.').ok_or_else(bad)?;
        Ok(Self { major: number(major).ok_or_else(bad)?, minor: number(minor).ok_or_else(bad)? })
    }

    /// From `server_version_num`, e.g. 150013.
    #[must_use]
    pub const fn from_number(server_version_num: u32) -> Self {
        Self { major: server_version_num / 10_000, minor: server_version_num % 10_000 }
    }

    /// Refuses what the agent must not run.
    ///
    /// # Errors
    /// [`VersionError::TooOld`], [`VersionError::MinorTooOld`], [`VersionError::TooNew`].
    pub fn check(self) -> Result<Self, VersionError> {
        if self.major > NEWEST_MAJOR {
            return Err(VersionError::TooNew { found: self });
        }
        let Some((major, minor)) = MINIMUM.into_iter().find(|(major, _)| *major == self.major) else {
            return Err(VersionError::TooOld { found: self });
        };
        let minimum = Self { major, minor };
        if self < minimum { Err(VersionError::MinorTooOld { found: self, minimum }) } else { Ok(self) }
    }

    /// Refuses a data directory of another major version, by the content of its `PG_VERSION` file.
    ///
    /// # Errors
    /// [`VersionError::Unreadable`], [`VersionError::OtherMajor`].
    pub fn check_data(self, pg_version: &str) -> Result<(), VersionError> {
        let data = parse_pg_version(pg_version)?;
        if data == self.major { Ok(()) } else { Err(VersionError::OtherMajor { data, found: self }) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The major in a data directory's `PG_VERSION` file (`15\n`).
///
/// # Errors
/// [`VersionError::Unreadable`].
pub fn parse_pg_version(content: &str) -> Result<u32, VersionError> {
    number(content.trim()).ok_or_else(|| VersionError::Unreadable(content.trim().to_owned()))
}

fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) { None } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_debian_and_upstream_print() {
        let found = Version { major: 15, minor: 14 };
        assert_eq!(Version::parse("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Ok(found));
        assert_eq!(Version::parse("postgres (PostgreSQL) 15.14"), Ok(found));
        assert_eq!(Version::from_number(150_014), found);
        for bad in
            ["", "psql (PostgreSQL) 15.14", "postgres (PostgreSQL) 18beta1", "postgres (PostgreSQL) 19devel"]
        {
            assert!(Version::parse(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn versions_without_the_needed_fixes_are_refused_by_name() {
        let check = |major, minor| Version { major, minor }.check().map_err(|e| e.to_string());
        assert!(check(15, 13).is_ok() && check(16, 9).is_ok() && check(17, 9).is_ok());
        assert_eq!(
            check(16, 8).unwrap_err(),
            "postgres 16.8 lacks fixes that holdfast relies on: update it to 16.9 or newer"
        );
        assert!(check(14, 20).unwrap_err().contains("not supported"));
        assert!(check(18, 0).unwrap_err().contains("update holdfast"));
    }

    #[test]
    fn pg_version_holds_the_major_alone() {
        assert_eq!(parse_pg_version("17\n"), Ok(17));
        assert!(parse_pg_version("9.6\n").is_err());
        let version = Version { major: 15, minor: 14 };
        assert_eq!(version.check_data("15\n"), Ok(()));
        assert_eq!(version.check_data("17\n"), Err(VersionError::OtherMajor { data: 17, found: version }));
    }
}
