//! Decides whose engine it is that holds the lock when an agent starts. Pure.
//!
//! The lock says that some engine lives on this volume; the record says which one we started. Only both together, with
//! boot, start time and lock file the same, make it ours. Anything else is left alone and named.
//!
//! Invariants, each a row of the table below:
//! * our own engine is found again after an agent restart.
//! * nothing starts while anybody else holds the lock, seen or unseen.
//! * a record of another boot, of a reused pid or of another volume adopts nothing.

use super::record::EngineRecord;
use crate::child::lock::LockView;
use crate::child::process::ProcessFacts;

/// What lives on the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing: an engine may be started.
    Nothing,
    /// The engine that this node started.
    Ours(EngineRecord),
    /// What is left of it: its first process is gone, others still hold the lock. They have to be killed first.
    Orphans(Vec<ProcessFacts>),
    /// Somebody that this node does not know; nothing is started, and nothing is killed.
    Strangers(Vec<ProcessFacts>),
}

/// Judges from the lock, the ledger and this boot's id.
#[must_use]
pub fn judge(lock: &LockView, record: Option<&EngineRecord>, boot_id: &str) -> Found {
    let (lock, holders) = match lock {
        LockView::Free => return Found::Nothing,
        LockView::Held { lock, holders } => (lock, holders),
    };
    let strangers = || Found::Strangers(holders.clone());
    let Some(record) = record.filter(|record| record.boot_id == boot_id && record.lock == *lock) else {
        return strangers();
    };
    if holders.iter().any(|holder| holder.process == record.process) {
        return Found::Ours(record.clone());
    }
    let orphans = !holders.is_empty() && holders.iter().all(|holder| is_of(record, holder));
    if orphans { Found::Orphans(holders.clone()) } else { strangers() }
}

/// Whether a process came from the recorded one: the same program or cgroup, and not older.
fn is_of(record: &EngineRecord, holder: &ProcessFacts) -> bool {
    let same_cgroup = record.cgroup.is_some() && holder.cgroup == record.cgroup;
    let same_program = holder.program.as_ref() == Some(&record.program);
    (same_cgroup || same_program) && holder.process.start_time >= record.process.start_time
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::child::lock::LockFile;
    use crate::child::process::ProcessId;
    use crate::helper::protocol::EngineProgram;

    const LOCK: LockFile = LockFile { dev: 7, ino: 11 };
    const OURS: ProcessId = ProcessId { pid: 100, start_time: 5000 };

    fn record() -> EngineRecord {
        EngineRecord {
            process: OURS,
            boot_id: "this boot".into(),
            kind: EngineProgram::Postgres,
            program: "/bin/postgres".into(),
            lock: LOCK,
            cgroup: Some("/holdfast/orders/engine".into()),
        }
    }

    fn holder(pid: i32, start_time: u64, program: &str, cgroup: &str) -> ProcessFacts {
        let process = ProcessId { pid, start_time };
        ProcessFacts {
            process,
            parent: 1,
            program: Some(program.into()),
            uid: 105,
            cgroup: Some(cgroup.into()),
        }
    }

    fn engine() -> ProcessFacts {
        holder(100, 5000, "/bin/postgres", "/holdfast/orders/engine")
    }

    fn backend() -> ProcessFacts {
        holder(120, 6000, "/bin/postgres", "/holdfast/orders/engine")
    }

    fn held(holders: Vec<ProcessFacts>) -> LockView {
        LockView::Held { lock: LOCK, holders }
    }

    #[derive(Debug, PartialEq)]
    enum Is {
        Nothing,
        Ours,
        Orphans,
        Strangers,
    }

    #[test_case(&LockView::Free, Some(record()) => Is::Nothing; "a record without a lock is an engine that ended")]
    #[test_case(&held(vec![engine(), backend()]), Some(record()) => Is::Ours; "our engine after an agent restart")]
    #[test_case(&held(vec![backend()]), Some(record()) => Is::Orphans; "a backend that outlived its postmaster")]
    #[test_case(&held(vec![engine()]), None => Is::Strangers; "an engine that nobody wrote down")]
    #[test_case(&held(vec![]), Some(record()) => Is::Strangers; "a holder in another pid namespace")]
    #[test_case(&held(vec![engine()]), Some(EngineRecord { boot_id: "another".into(), ..record() }) => Is::Strangers; "a record of another boot")]
    #[test_case(&held(vec![engine()]), Some(EngineRecord { lock: LockFile { dev: 8, ino: 11 }, ..record() }) => Is::Strangers; "a record of another volume")]
    #[test_case(&held(vec![holder(100, 9000, "/bin/sleep", "/")]), Some(record()) => Is::Strangers; "a reused pid")]
    #[test_case(&held(vec![holder(90, 4000, "/bin/postgres", "/")]), Some(record()) => Is::Strangers; "an older server of the same program")]
    #[test_case(&held(vec![backend(), holder(130, 6000, "/bin/dd", "/")]), Some(record()) => Is::Strangers; "a stranger beside an orphan")]
    fn whoever_holds_the_lock(lock: &LockView, record: Option<EngineRecord>) -> Is {
        match judge(lock, record.as_ref(), "this boot") {
            Found::Nothing => Is::Nothing,
            Found::Ours(found) => {
                assert_eq!(Some(found), record);
                Is::Ours
            }
            Found::Orphans(_) => Is::Orphans,
            Found::Strangers(_) => Is::Strangers,
        }
    }
}
