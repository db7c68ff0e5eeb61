//! A server that follows another one: attaching it, stopping it for certain, making it the primary, and coming back after
//! a reign.
//!
//! * [`receiver`]: recruits it: nothing more is received, all that was received is applied, then its position is read.
//! * [`promote`]: begins a term on it.
//! * [`follow`]: attaches it to a primary.
//! * [`first_segment`]: what must not be there when one starts that was changing over to another timeline.
//! * [`rewind`]: the guarded way back of a primary whose log went past the fork.
//!
//! What is not SQL is done by others' [`Hands`]: processes belong to another user, and the data volume to workers.
//!
//! Not here: who is recruited, chosen and promoted (crate `replication`), and promises (`storage`).

pub mod first_segment;
pub mod follow;
pub mod promote;
pub mod receiver;
pub mod rewind;

use async_trait::async_trait;

use super::recovery::RecoveryFile;
use crate::engine::Cause;

/// Its presence in the data directory makes the next start a standby; Postgres takes it away when it promotes. Durable
/// before every start that is neither a first start, a restore nor a resume in place ([`holdfast_replication::resume`]): an engine
/// that is started without it opens its own log for writing.
pub const STANDBY_SIGNAL: &str = "standby.signal";

/// What the agent does for this crate on a server that runs. All calls have deadlines of their own.
#[async_trait]
pub trait Hands: Send + Sync {
    /// How many walreceivers the server has: children of its postmaster in `/proc` whose command line
    /// [`is_receiver`] knows. SQL would not do: it answers from shared memory, not from processes (T4).
    async fn receivers(&self) -> Result<u32, Cause>;

    /// Sends SIGTERM to each of them, as [`Hands::receivers`] finds them; returns how many there were. A
    /// `pg_terminate_backend` does not reach a walreceiver (T4).
    async fn end_receivers(&self) -> Result<u32, Cause>;

    /// Makes each file below the data directory unless there is one of its name already, and fsyncs all of them and their
    /// folders. A file that is there stays as it is: a history with ancestors is never replaced by a placeholder.
    async fn ensure_files(&self, files: &[RecoveryFile]) -> Result<(), Cause>;
}

/// Whether a process of that command line (`/proc/<pid>/cmdline`, with zero bytes between and behind) is a walreceiver.
/// Postgres writes `postgres: <cluster_name>: walreceiver` there, whatever `update_process_title` says, and what it is
/// doing behind it.
#[must_use]
pub fn is_receiver(cmdline: &[u8]) -> bool {
    let text = String::from_utf8_lossy(cmdline);
    let mut words = text.split(['\0', ' ']).filter(|word| !word.is_empty());
    if words.next() != Some("postgres:") {
        return false;
    }
    // A cluster's name has no space (model::ids); a backend's title begins with its role, which follows the name too.
    let named = words.next().is_some_and(|word| word.ends_with(':'));
    named && words.next() == Some("walreceiver") && matches!(words.next(), None | Some("streaming"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case("postgres: orders: walreceiver \0\0\0", true; "starting")]
    #[test_case("postgres: orders: walreceiver streaming 0/3000148\0\0", true; "streaming")]
    #[test_case("postgres: orders: walsender n2.00 10.0.0.2(5432) streaming 0/3000148", false; "the other end")]
    #[test_case("postgres: orders: startup waiting for 000000010000000000000003", false; "startup")]
    #[test_case("postgres: orders: walreceiver shop [local] idle", false; "a role of that name")]
    #[test_case("/usr/lib/postgresql/15/bin/postgres\0-D\0walreceiver", false; "the postmaster")]
    fn a_walreceiver_is_known_by_its_command_line(cmdline: &str, is: bool) {
        assert_eq!(is_receiver(cmdline.as_bytes()), is);
    }
}
