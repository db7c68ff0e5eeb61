//! The way back of a server whose log went past the fork: `pg_rewind`, which copies what differs instead of everything.
//!
//! It goes back to the last checkpoint before the fork, so it takes away log that somebody may still need, and a run that
//! is cut short leaves a directory that is neither. So it is only ever run on a copy, which takes the place of the original
//! when it is whole. The source must have written a checkpoint on its own timeline, or `pg_rewind` takes it for an older one
//! and does nothing (before Postgres 16), which shows in the copy's `pg_control`.
//!
//! Invariant, a test in `tests/replication/rewind.rs`: `a_copy_of_a_deposed_primary_is_rewound_and_follows`.

use holdfast_model::Term;

use crate::launch::Launch;
use crate::links::Tls;
use crate::links::Upstream;
use crate::postgres::Layout;
use crate::postgres::links;
use crate::postgres::session::{Session, SessionError};

/// The command that rewinds the copy in `layout` of a stopped server onto `upstream`. It first lets a copy of a crashed server
/// recover by itself, and leaves it without [`super::STANDBY_SIGNAL`].
#[must_use]
pub fn launch(layout: &Layout, upstream: &Upstream, tls: &Tls) -> Launch {
    let mut config = std::ffi::OsString::from("--config-file=");
    config.push(layout.config_file());
    let mut target = std::ffi::OsString::from("--target-pgdata=");
    target.push(&layout.data_dir);
    Launch::new(layout.program("pg_rewind"))
        .arg(target)
        .arg(format!("--source-server={}", links::rewind_conninfo(upstream, tls)))
        .arg(config)
        .arg("--progress")
}

impl Session {
    /// The timeline of the server's last checkpoint, by `pg_control`.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn checkpoint_timeline(&self) -> Result<Term, SessionError> {
        let doing = "read the timeline of the last checkpoint";
        let sql = "SELECT timeline_id::bigint FROM pg_control_checkpoint()";
        let number: i64 = self.row(doing, sql, &[]).await?.get(0);
        let timeline = u32::try_from(number).ok().and_then(Term::new);
        timeline.ok_or_else(|| SessionError::Answer { doing, found: format!("timeline {number}") })
    }
}
