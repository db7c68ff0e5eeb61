//! A base backup: a copy that the server makes of itself, in a folder beside its data (`CLONE LOCAL`), which needs as much space
//! again. The copy is what a crash would leave behind, so a server that starts on it recovers first.
//!
//! On a server whose commits wait for acks the copy waits with them (seen on 9.7): it is for a member that follows, or for a time
//! in which acks come. It has no binlog, and nobody says up to where it goes but a server that starts on it: that is somewhere
//! between what was committed before the copy and what was after.
//!
//! Invariants, each a test in `tests/mysql/backup.rs`:
//! * `another_member_starts_on_a_copy`.
//! * `a_copy_waits_for_commits_that_wait`.

use std::path::Path;
use std::time::Duration;

use holdfast_model::GtidSet;

use super::session::{Session, SessionError, quote};

/// A copy that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// It holds at least this.
    pub start: GtidSet,
    /// It holds nothing but this.
    pub stop: GtidSet,
}

/// Copies the server's data into `folder`, which must not be there. Blocks schema changes meanwhile, and nothing else.
///
/// Not cancel-safe: the server goes on copying, and the folder stays.
///
/// # Errors
/// [`SessionError`]; the server takes away what it has written.
pub async fn copy(session: &mut Session, folder: &Path, deadline: Duration) -> Result<Copied, SessionError> {
    let doing = "copy the data beside itself";
    let start = session.executed().await?;
    let sql = format!("CLONE LOCAL DATA DIRECTORY = {}", quote(&folder.to_string_lossy()));
    session.run_within(doing, deadline, &sql).await?;
    let (state, said): (String, String) =
        session.row(doing, "SELECT state, error_message FROM performance_schema.clone_status").await?;
    if state != "Completed" {
        return Err(SessionError::Answer { doing, found: format!("{state}: {said}") });
    }
    Ok(Copied { start, stop: session.executed().await? })
}
