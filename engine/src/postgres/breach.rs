//! Breaches of the promise that an answered commit is held elsewhere: told by the server's log, or waiting in its
//! settings.
//!
//! A client whose wait for acks is cancelled is told that its commit is done, and others see its rows (P1). Postgres has
//! no setting against it, so it is counted. `synchronous_commit` is anybody's to lower, by session, role or database (P3):
//! what is stored for roles and databases is found here; a session's own `SET` is not to be seen from outside.
//!
//! Invariants, each a test below or in `tests/replication/breaches.rs`:
//! * `a_cancelled_wait_is_counted_by_its_line_and_nothing_else_is`.
//! * `what_a_client_writes_into_the_log_is_never_a_breach`.
//! * `a_cancelled_wait_shows_its_row_and_is_counted` (P1).
//! * `weakened_roles_and_databases_are_found` (P3).

use std::collections::BTreeSet;

use holdfast_model::status::Weakened;

use super::session::{Session, SessionError};

/// One commit that was answered, or became visible, without its acks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breach {
    /// A wait was cancelled by its client or by a timeout: the client was told that the commit is done.
    Cancelled,
    /// The waiting session was ended: its client was told nothing, and the rows became visible.
    Ended,
}

/// Texts of `SyncRepWaitForLSN` in Postgres 15 to 17, in the C locale, which is pinned.
const CANCELLED: &str = "canceling wait for synchronous replication due to user request";
const ENDED: &str =
    "canceling the wait for synchronous replication and terminating connection due to administrator command";

/// What one line of the server's log says of the promise. Both texts are warnings of the server; a text that a client
/// made it write (a query, an error) does not stand right behind that word, or is not it alone. A client that raises a
/// warning of this very text is counted: it says so itself.
#[must_use]
pub fn classify(line: &str) -> Option<Breach> {
    // "2026-11-25 16:00:00.000 UTC [123] user@database WARNING:  text": the prefix of `log_line_prefix`. Continuation lines
    // of what somebody wrote begin with a tab.
    if !line.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (prefix, text) = line.split_once(" WARNING:  ")?;
    if [" LOG:  ", " ERROR:  ", " STATEMENT:  ", " DETAIL:  ", " CONTEXT:  "]
        .iter()
        .any(|it| prefix.contains(it))
    {
        return None;
    }
    match text.trim_end() {
        CANCELLED => Some(Breach::Cancelled),
        ENDED => Some(Breach::Ended),
        _other => None,
    }
}

/// Whether `value` of `synchronous_commit` waits for a flush elsewhere. Everything that is not surely so is weak.
fn waits_for_a_flush(value: &str) -> bool {
    ["on", "remote_apply", "true", "yes", "1"].iter().any(|strong| value.eq_ignore_ascii_case(strong))
}

impl Session {
    /// Everything stored in the server that makes commits weaker than the promise: `synchronous_commit` of roles and
    /// databases, and `fsync`, `full_page_writes` and `synchronous_commit` in force for all.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn weakened(&self) -> Result<BTreeSet<Weakened>, SessionError> {
        let sql = "SELECT split_part(entry, '=', 1), substr(entry, strpos(entry, '=') + 1), rolname::text, datname::text \
            FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) entry \
            LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase \
            UNION ALL \
            SELECT name, setting, NULL, NULL FROM pg_settings \
            WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')";
        let rows = self.rows("read what weakens commits", sql, &[]).await?;
        let found = rows.iter().map(|row| Weakened {
            setting: row.get(0),
            value: row.get(1),
            role: row.get(2),
            database: row.get(3),
        });
        Ok(found.filter(is_weak).collect())
    }
}

fn is_weak(found: &Weakened) -> bool {
    match found.setting.to_ascii_lowercase().as_str() {
        "synchronous_commit" => !waits_for_a_flush(&found.value),
        "fsync" | "full_page_writes" => !found.value.eq_ignore_ascii_case("on"),
        _others => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    const PREFIX: &str = "2026-11-25 16:00:00.000 UTC [123] app@shop ";

    #[test_case(
        "WARNING:  canceling wait for synchronous replication due to user request",
        Some(Breach::Cancelled)
    )]
    #[test_case(
        "WARNING:  canceling the wait for synchronous replication and terminating connection due to administrator command",
        Some(Breach::Ended)
    )]
    #[test_case("WARNING:  there is no transaction in progress", None)]
    #[test_case("ERROR:  canceling statement due to user request", None)]
    #[test_case(
        "DETAIL:  The transaction has already committed locally, but might not have been replicated to the standby.",
        None
    )]
    fn a_cancelled_wait_is_counted_by_its_line_and_nothing_else_is(text: &str, breach: Option<Breach>) {
        assert_eq!(classify(&format!("{PREFIX}{text}")), breach);
    }

    #[test_case("STATEMENT:  SELECT ' WARNING:  canceling wait for synchronous replication due to user request"; "in a query")]
    #[test_case("ERROR:  x WARNING:  canceling wait for synchronous replication due to user request"; "in an error")]
    #[test_case("WARNING:  x canceling wait for synchronous replication due to user request"; "after other words")]
    fn what_a_client_writes_into_the_log_is_never_a_breach(text: &str) {
        assert_eq!(classify(&format!("{PREFIX}{text}")), None);
        assert_eq!(
            classify("\tWARNING:  canceling wait for synchronous replication due to user request"),
            None
        );
    }

    #[test_case("on", true)]
    #[test_case("REMOTE_APPLY", true)]
    #[test_case("remote_write", false)]
    #[test_case("local", false)]
    #[test_case("off", false)]
    #[test_case("of", false)]
    fn only_a_flush_elsewhere_is_strong(value: &str, strong: bool) {
        assert_eq!(waits_for_a_flush(value), strong);
    }
}
