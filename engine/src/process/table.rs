//! One look at `/proc`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A process, unmistakably: pids are used again, start times of one pid are not (within one boot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId {
    /// The pid in our pid namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    pub start_ticks: u64,
}

/// One process at the time of the look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Who.
    pub id: ProcessId,
    /// Its parent's pid.
    pub parent: i32,
    /// `comm`: the program's name, cut at 15 bytes.
    pub name: String,
    /// State letter: `R`, `S`, `D` (waits for a device, survives SIGKILL), `T`, `Z` (dead, not reaped) ...
    pub state: char,
}

impl Process {
    /// Dead, only its parent has not looked yet.
    #[must_use]
    pub const fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// `/proc` could not be read.
#[derive(Debug, thiserror::Error)]
#[error("list processes in {}", path.display())]
pub struct TableError {
    /// Where.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// All processes at one time, more or less: it is not atomic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessTable {
    by_pid: BTreeMap<i32, Process>,
}

impl ProcessTable {
    /// Looks at `/proc`.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn read() -> Result<Self, TableError> {
        Self::read_from(Path::new("/proc"))
    }

    /// Looks at another root, for tests.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn read_from(root: &Path) -> Result<Self, TableError> {
        let failed = |source| TableError { path: root.to_owned(), source };
        let mut by_pid = BTreeMap::new();
        for entry in fs::read_dir(root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            // A process that ends between listing and reading is simply not there.
            if let Some(process) = read_stat(root, pid) {
                by_pid.insert(pid, process);
            }
        }
        Ok(Self { by_pid })
    }

    /// The process with this pid, whoever it is.
    #[must_use]
    pub fn get(&self, pid: i32) -> Option<&Process> {
        self.by_pid.get(&pid)
    }

    /// Whether exactly this process is there and not a zombie.
    #[must_use]
    pub fn is_alive(&self, id: ProcessId) -> bool {
        self.by_pid.get(&id.pid).is_some_and(|found| found.id == id && !found.is_zombie())
    }

    /// Living children.
    pub fn children(&self, of: ProcessId) -> impl Iterator<Item = ProcessId> {
        self.by_pid.values().filter(move |p| p.parent == of.pid && !p.is_zombie()).map(|p| p.id)
    }

    /// Living descendants, children before grandchildren. A process whose parent is gone is no longer one.
    #[must_use]
    pub fn descendants(&self, of: ProcessId) -> Vec<ProcessId> {
        let mut found: Vec<ProcessId> = self.children(of).collect();
        let mut next = 0;
        while let Some(id) = found.get(next).copied() {
            next += 1;
            // Pids could form a ring only through re-use while /proc was read; never visit one twice.
            let more: Vec<_> =
                self.children(id).filter(|child| !found.contains(child) && *child != of).collect();
            found.extend(more);
        }
        found
    }
}

fn read_stat(root: &Path, pid: i32) -> Option<Process> {
    // Names are bytes, not text.
    let stat = fs::read(root.join(pid.to_string()).join("stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&stat))
}

/// Takes `pid (name) S ppid ...` apart. The name may hold spaces and parentheses, so its end is the last `)`.
fn parse_stat(stat: &str) -> Option<Process> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (pid, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    // Numbered from 1 in proc(5), where the state is field 3.
    let field = |number: usize| fields.get(number.checked_sub(3)?).copied();
    Some(Process {
        id: ProcessId { pid: pid.trim().parse().ok()?, start_ticks: field(22)?.parse().ok()? },
        parent: field(4)?.parse().ok()?,
        name: name.to_owned(),
        state: field(3)?.chars().next()?,
    })
}

/// Processes called `name` whose arguments hold `first` directly followed by `second` (`-D <data directory>`), and
/// whose parent is not one of them. Children of a postmaster overwrite their arguments, so they do not match.
///
/// Only processes of that name have their arguments read, and one whose arguments cannot be read is left out. For
/// adoption this is a hint; the engine's lock is the proof.
#[must_use]
pub fn find_by_arguments(table: &ProcessTable, name: &str, first: &OsStr, second: &OsStr) -> Vec<ProcessId> {
    let matches = |process: &&Process| {
        process.name == name && !process.is_zombie() && {
            let line = fs::read(format!("/proc/{}/cmdline", process.id.pid)).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.windows(2).any(|pair| pair[0] == first.as_bytes() && pair[1] == second.as_bytes())
        }
    };
    let found: Vec<&Process> = table.by_pid.values().filter(matches).collect();
    let is_root = |process: &&&Process| !found.iter().any(|other| other.id.pid == process.parent);
    found.iter().filter(is_root).map(|process| process.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, name: &str, state: char, parent: i32) -> String {
        format!("{pid} ({name}) {state} {parent} 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 {} 0 0", pid * 10)
    }

    fn table(processes: &[(i32, &str, char, i32)]) -> ProcessTable {
        let parse = |(pid, name, state, parent): &(i32, &str, char, i32)| {
            (*pid, parse_stat(&stat(*pid, name, *state, *parent)).unwrap())
        };
        ProcessTable { by_pid: processes.iter().map(parse).collect() }
    }

    #[test]
    fn a_name_may_hold_parentheses() {
        let process = parse_stat(&stat(7, "a) R (b", 'S', 3)).unwrap();
        assert_eq!((process.name.as_str(), process.parent, process.state), ("a) R (b", 3, 'S'));
        assert_eq!(process.id, ProcessId { pid: 7, start_ticks: 70 });
    }

    #[test]
    fn descendants_are_found_through_the_generations_without_zombies() {
        let table = table(&[
            (1, "init", 'S', 0),
            (5, "pm", 'T', 1),
            (6, "be", 'S', 5),
            (7, "sh", 'S', 6),
            (8, "be", 'Z', 5),
        ]);
        let pids: Vec<i32> = table.descendants(table.get(5).unwrap().id).iter().map(|id| id.pid).collect();
        assert_eq!(pids, [6, 7]);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let table = table(&[(5, "pm", 'S', 1)]);
        assert!(table.is_alive(ProcessId { pid: 5, start_ticks: 50 }));
        assert!(!table.is_alive(ProcessId { pid: 5, start_ticks: 49 }));
    }

    #[test]
    fn a_torn_line_is_no_process() {
        for bad in ["", "7 (x", "7 (x)", "7 (x) S", "x (y) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5"] {
            assert_eq!(parse_stat(bad), None, "{bad:?}");
        }
    }
}
