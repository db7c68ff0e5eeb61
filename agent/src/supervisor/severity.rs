//! What a line of the engine's log means to the agent's log. Pure.
//!
//! PostgreSQL prints `<prefix><SEVERITY>:  <message>` with two spaces (its documentation, "Error Reporting and Logging"),
//! and continuation lines without a severity of their own. A failed statement is the client's business; what ends a session
//! may be ours; a panic always is.
//!
//! Invariant: `each_severity_has_its_level`.

use crate::worker::job::LogLevel;

/// Severities in the order in which they are looked for.
const SEVERITIES: [(&str, LogLevel); 13] = [
    ("PANIC", LogLevel::Error),
    ("FATAL", LogLevel::Warn),
    ("ERROR", LogLevel::Info),
    ("WARNING", LogLevel::Info),
    ("NOTICE", LogLevel::Debug),
    ("INFO", LogLevel::Debug),
    ("LOG", LogLevel::Info),
    ("DEBUG1", LogLevel::Debug),
    ("DEBUG2", LogLevel::Debug),
    ("DEBUG3", LogLevel::Debug),
    ("DEBUG4", LogLevel::Debug),
    ("DEBUG5", LogLevel::Debug),
    ("DEBUG", LogLevel::Debug),
];

/// Ends of sessions that clients bring about, or that the gate brings about on purpose.
const EXPECTED_FATAL: [&str; 9] = [
    "pg_hba.conf",
    "authentication failed",
    "the database system is",
    "terminating connection due to administrator command",
    "terminating connection because of",
    "too many clients",
    "too many connections",
    "remaining connection slots",
    "does not exist",
];

/// Level and message of a line; `None` when it continues the line before.
#[must_use]
pub fn classify(line: &str) -> Option<(LogLevel, &str)> {
    let (at, word, level) = SEVERITIES
        .iter()
        .filter_map(|(word, level)| position(line, word).map(|at| (at, *word, *level)))
        .min_by_key(|(at, ..)| *at)?;
    let message = line[at + word.len() + 1..].trim_start();
    let expected = word == "FATAL" && EXPECTED_FATAL.iter().any(|text| message.contains(text));
    Some((if expected { LogLevel::Info } else { level }, message))
}

/// Where `word:  ` stands as a word of its own.
fn position(line: &str, word: &str) -> Option<usize> {
    let at = line.find(&format!("{word}:  "))?;
    let before = line[..at].chars().next_back();
    before.is_none_or(|c| !c.is_alphanumeric() && c != '_').then_some(at)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(
        "2026-11-23 06:00:00.000 UTC [7] LOG:  database system is ready",
        LogLevel::Info,
        "database system is ready"
    )]
    #[test_case("[7] PANIC:  could not fdatasync file", LogLevel::Error, "could not fdatasync file")]
    #[test_case("[7] FATAL:  could not create lock file", LogLevel::Warn, "could not create lock file")]
    #[test_case(
        "[7] FATAL:  pg_hba.conf rejects connection for host",
        LogLevel::Info,
        "pg_hba.conf rejects connection for host"
    )]
    #[test_case("[7] ERROR:  relation \"x\" does not exist", LogLevel::Info, "relation \"x\" does not exist")]
    #[test_case("ERROR:  LOG:  twice", LogLevel::Info, "LOG:  twice")]
    #[test_case("x DEBUG1:  detail", LogLevel::Debug, "detail")]
    fn each_severity_has_its_level(line: &str, level: LogLevel, message: &str) {
        assert_eq!(classify(line), Some((level, message)));
    }

    #[test_case("\tat character 7")]
    #[test_case("[7] DETAIL:  more of it")]
    #[test_case("[7] STATEMENT:  select 'x'")]
    #[test_case("CATALOG:  not a severity")]
    #[test_case("")]
    fn other_lines_continue_the_one_before(line: &str) {
        assert_eq!(classify(line), None);
    }
}
