//! Letting go of binlog that everybody who may need it has.
//!
//! The server's own expiry goes by age and asks nobody, so it is off. A file may go once everything in it is in a set that the agent
//! names; what is in it is told by the set that the next file begins with.
//!
//! Invariant: `only_whole_files_go_and_only_what_is_let_go`, a test in `tests/mysql/purge.rs`.

use holdfast_model::GtidSet;

use super::session::{Session, SessionError, quote};

/// Lets go of every file all of whose transactions are in `shipped`; returns how many files went. The newest stays.
///
/// # Errors
/// [`SessionError`].
pub async fn let_go(session: &mut Session, shipped: &GtidSet) -> Result<u64, SessionError> {
    let files: Vec<(String, u64, String)> = session.rows("list binlog files", "SHOW BINARY LOGS").await?;
    let mut keep_from = None;
    for (count, (file, _, _)) in (0_u64..).zip(&files).skip(1) {
        if !shipped.covers(&before(session, file).await?) {
            break;
        }
        keep_from = Some((count, file));
    }
    let Some((count, file)) = keep_from else { return Ok(0) };
    session.run("let go of shipped binlog", &format!("PURGE BINARY LOGS TO {}", quote(file))).await?;
    Ok(count)
}

/// What was in the log before `file`: its second event.
async fn before(session: &mut Session, file: &str) -> Result<GtidSet, SessionError> {
    let doing = "read what a binlog file begins with";
    let sql = format!("SHOW BINLOG EVENTS IN {} LIMIT 2", quote(file));
    let events: Vec<(String, u64, String, u64, u64, String)> = session.rows(doing, &sql).await?;
    let bad = |found: String| SessionError::Answer { doing, found };
    match events.last() {
        Some((_, _, kind, _, _, info)) if kind == "Previous_gtids" => {
            info.parse().map_err(|err| bad(format!("{err}")))
        }
        Some((_, _, kind, _, _, _)) => Err(bad(kind.clone())),
        None => Err(bad("no events".to_owned())),
    }
}
