//! Which process, unmistakably, and what `/proc` says about it.
//!
//! A pid alone is reused; with the start time it names one process until the next boot. Only files of `/proc` are read
//! that take no lock of the process's memory: those answer also while the process waits for a stalled disk (so never
//! `cmdline` or `maps`), and no link is followed onto a data disk.
//!
//! Invariants, each a test below:
//! * `a_process_is_known_by_pid_and_start_time`.
//! * `a_zombie_has_ended`.
//! * `a_command_name_cannot_forge_the_fields_after_it`.
//!
//! Not here: judging whether a process is our engine. See [`crate::supervisor::adopt`] and [`crate::helper`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// One process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number in this pid namespace.
    pub pid: i32,
    /// When it was forked, in clock ticks since boot: field 22 of `/proc/PID/stat` (proc_pid_stat(5)). `exec` keeps it.
    pub start_time: u64,
}

impl ProcessId {
    /// The calling process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn own() -> io::Result<Self> {
        Self::of(nix::unistd::getpid().as_raw())?
            .ok_or_else(|| io::Error::other("the calling process is not in /proc"))
    }

    /// The process that has this pid now; `None` when there is none, or only its exit status is left.
    ///
    /// # Errors
    /// When `/proc` cannot be read or says something unknown.
    pub fn of(pid: i32) -> io::Result<Option<Self>> {
        Ok(stat(pid)?.filter(Stat::is_running).map(|stat| Self { pid, start_time: stat.start_time }))
    }

    /// Whether it still runs. A process in uninterruptible sleep does, also after SIGKILL; a zombie does not.
    ///
    /// # Errors
    /// When `/proc` cannot be read or says something unknown.
    pub fn is_running(self) -> io::Result<bool> {
        Ok(Self::of(self.pid)? == Some(self))
    }

    /// For system calls.
    #[must_use]
    pub fn as_nix(self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.pid)
    }
}

impl std::fmt::Display for ProcessId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {}", self.pid)
    }
}

/// A process with what is needed to tell whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// Which.
    pub process: ProcessId,
    /// Its parent's pid.
    pub parent: i32,
    /// The program's file; `None` when this process may not look.
    pub program: Option<PathBuf>,
    /// Effective uid.
    pub uid: u32,
    /// Its cgroup in the v2 hierarchy, as `/proc/PID/cgroup` shows it; `None` without such a hierarchy.
    pub cgroup: Option<String>,
}

impl ProcessFacts {
    /// Of a running process; `None` when it has ended, also while it was being looked at.
    ///
    /// # Errors
    /// When `/proc` cannot be read or says something unknown.
    pub fn of(pid: i32) -> io::Result<Option<Self>> {
        let Some(found) = stat(pid)?.filter(Stat::is_running) else { return Ok(None) };
        let Some(status) = read(pid, "status")? else { return Ok(None) };
        let uid = effective_uid(&status).ok_or_else(|| unreadable(pid, "status"))?;
        let cgroup = read(pid, "cgroup")?.and_then(|text| v2_cgroup(&text));
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok().map(without_deleted_mark);
        let process = ProcessId { pid, start_time: found.start_time };
        Ok(process.is_running()?.then_some(Self { process, parent: found.parent, program, uid, cgroup }))
    }
}

impl std::fmt::Display for ProcessFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let program = self.program.as_deref().unwrap_or(Path::new("unknown program"));
        write!(f, "{} ({}, uid {}", self.process, program.display(), self.uid)?;
        match &self.cgroup {
            Some(cgroup) => write!(f, ", cgroup {cgroup})"),
            None => f.write_str(")"),
        }
    }
}

/// Whether a process has a handler for a signal; false when it has ended.
///
/// # Errors
/// When `/proc` cannot be read or says something unknown.
pub fn catches(process: ProcessId, signal: Signal) -> io::Result<bool> {
    let Some(status) = read(process.pid, "status")? else { return Ok(false) };
    let caught = caught_signals(&status).ok_or_else(|| unreadable(process.pid, "status"))?;
    Ok(process.is_running()? && caught & (1 << (signal as u32 - 1)) != 0)
}

/// Every pid that `/proc` shows now.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn all_pids() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// Pids that hold `file` open, by the text of their descriptors' links: nothing on the file's disk is touched.
///
/// Processes of other pid namespaces are not seen, and without root only those of this user.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn holders_of(file: &Path) -> io::Result<Vec<i32>> {
    let mut holders = Vec::new();
    for pid in all_pids()? {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let holds = fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == file));
        holders.extend(holds.then_some(pid));
    }
    Ok(holders)
}

/// This boot's id; a pid and start time mean nothing without it.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

struct Stat {
    state: char,
    parent: i32,
    start_time: u64,
}

impl Stat {
    /// `Z`: only its exit status is left; `X`: not even that (proc_pid_stat(5)).
    fn is_running(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

fn stat(pid: i32) -> io::Result<Option<Stat>> {
    let Some(text) = read(pid, "stat")? else { return Ok(None) };
    parse_stat(&text).map(Some).ok_or_else(|| unreadable(pid, "stat"))
}

/// The command name stands in parentheses and may itself hold any character, so the fields are counted from its end.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, start_time })
}

fn effective_uid(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// A mask in hexadecimal, signal 1 lowest (proc_pid_status(5)).
fn caught_signals(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn v2_cgroup(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// An upgrade replaces a running program's file; the kernel then marks the link.
fn without_deleted_mark(program: PathBuf) -> PathBuf {
    match program.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(path) => PathBuf::from(path),
        None => program,
    }
}

/// A file of `/proc/PID`; `None` when the process is gone (ESRCH comes when it ends during the read).
fn read(pid: i32, name: &str) -> io::Result<Option<String>> {
    match fs::read(format!("/proc/{pid}/{name}")) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) if err.raw_os_error() == Some(nix::libc::ESRCH) => Ok(None),
        Err(err) => Err(err),
    }
}

fn unreadable(pid: i32, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/{name} is not as documented"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the tests look at real processes")]
    fn start(program: &str, argument: &str) -> std::process::Child {
        Command::new(program).arg(argument).spawn().unwrap()
    }

    #[test]
    fn a_process_is_known_by_pid_and_start_time() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_running().unwrap());
        let earlier = ProcessId { start_time: own.start_time - 1, ..own };
        assert!(!earlier.is_running().unwrap(), "an earlier process of the same pid is another one");
    }

    #[test]
    fn a_zombie_has_ended() {
        let mut child = start("/bin/sleep", "60");
        let process = ProcessId::of(child.id().cast_signed()).unwrap().unwrap();
        child.kill().unwrap();
        while process.is_running().unwrap() {
            std::thread::yield_now();
        }
        assert!(Path::new(&format!("/proc/{}", process.pid)).exists(), "nobody reaped it yet");
        child.wait().unwrap();
        assert_eq!(ProcessId::of(process.pid).unwrap(), None);
    }

    #[test]
    fn a_command_name_cannot_forge_the_fields_after_it() {
        let text = format!("7 (a) Z 9 (b) S 1 {} 4242 0", "0 ".repeat(17).trim_end());
        let stat = parse_stat(&text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_time), ('S', 1, 4242));
    }

    #[test]
    fn facts_name_program_user_and_parent() {
        let facts = ProcessFacts::of(ProcessId::own().unwrap().pid).unwrap().unwrap();
        assert_eq!(facts.program, std::env::current_exe().ok());
        assert_eq!(facts.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(facts.parent, nix::unistd::getppid().as_raw());
    }

    #[test]
    fn whoever_holds_a_file_is_found_by_its_name_alone() {
        let path = std::env::current_exe().unwrap();
        let _held = File::open(&path).unwrap();
        assert!(holders_of(&path).unwrap().contains(&ProcessId::own().unwrap().pid));
        assert!(holders_of(Path::new("/no/such/file")).unwrap().is_empty());
    }
}
