//! MySQL versions: what `mysqld --version` says, and which of them the agent runs.

use std::fmt;

/// The oldest release series: the first with tagged GTIDs and the `source`/`replica` names everywhere.
const OLDEST: (u32, u32) = (8, 4);

/// The newest major that this release was tested with. CLONE and the data directory change between majors.
pub const NEWEST_MAJOR: u32 = 9;

/// A released version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// E.g. 9.
    pub major: u32,
    /// E.g. 7.
    pub minor: u32,
    /// E.g. 4.
    pub patch: u32,
}

/// Why a version was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Not the output of a MySQL server.
    #[error("read a mysqld version from {0:?}: expected e.g. 'mysqld  Ver 8.4.6 for Linux on x86_64'")]
    Unreadable(String),
    /// Something else that is called mysqld.
    #[error("{0:?} is MariaDB, which replicates in another way: install MySQL 8.4 or newer")]
    MariaDb(String),
    /// Older than the oldest supported series.
    #[error("mysqld {0} is not supported: use 8.4 or newer")]
    TooOld(Version),
    /// Newer than this release knows.
    #[error(
        "mysqld {0} is newer than this release of holdfast knows (up to {NEWEST_MAJOR}): update holdfast"
    )]
    TooNew(Version),
}

impl Version {
    /// Reads the output of `mysqld --version`, e.g. `/usr/sbin/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))`.
    ///
    /// # Errors
    /// [`VersionError::Unreadable`], [`VersionError::MariaDb`].
    pub fn parse(output: &str) -> Result<Self, VersionError> {
        let output = output.trim();
        if output.contains("MariaDB") {
            return Err(VersionError::MariaDb(output.to_owned()));
        }
        let bad = || VersionError::Unreadable(output.to_owned());
        let (_, rest) = output.split_once(" Ver ").ok_or_else(bad)?;
        Self::of_text(rest.split_whitespace().next().ok_or_else(bad)?).ok_or_else(bad)
    }

    /// From `@@version`, e.g. `9.7.4-2`; what follows the three numbers is the distribution's.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        let numbers = text.split_once('-').map_or(text, |(numbers, _)| numbers);
        let mut numbers = numbers.split('.').map(|number| number.parse::<u32>().ok());
        let version = Self { major: numbers.next()??, minor: numbers.next()??, patch: numbers.next()?? };
        numbers.next().is_none().then_some(version)
    }

    /// Refuses what the agent must not run.
    ///
    /// # Errors
    /// [`VersionError::TooOld`], [`VersionError::TooNew`].
    pub fn check(self) -> Result<Self, VersionError> {
        if self.major > NEWEST_MAJOR {
            Err(VersionError::TooNew(self))
        } else if (self.major, self.minor) < OLDEST {
            Err(VersionError::TooOld(self))
        } else {
            Ok(self)
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_debian_and_upstream_print() {
        let found = Version { major: 9, minor: 7, patch: 4 };
        assert_eq!(
            Version::parse("/usr/sbin/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))\n"),
            Ok(found)
        );
        assert_eq!(Version::parse("mysqld  Ver 9.7.4 for Linux on x86_64 (Source distribution)"), Ok(found));
        assert_eq!(Version::of_text("9.7.4-commercial"), Some(found));
        for bad in ["", "mysqld 9.7.4", "mysqld  Ver 9.7 for Linux", "mysqld  Ver 9.7.4.1 for Linux"] {
            assert!(
                matches!(Version::parse(bad), Err(VersionError::Unreadable(_))),
                "{bad:?} must be refused"
            );
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let check = |text: &str| Version::of_text(text).unwrap().check().map_err(|err| err.to_string());
        assert!(check("8.4.0").is_ok() && check("9.9.9").is_ok());
        assert_eq!(check("8.0.42").unwrap_err(), "mysqld 8.0.42 is not supported: use 8.4 or newer");
        assert!(check("10.0.0").unwrap_err().contains("update holdfast"));
        let maria = Version::parse("mysqld  Ver 11.8.3-MariaDB for debian-linux-gnu on x86_64");
        assert!(matches!(maria, Err(VersionError::MariaDb(_))));
    }
}
