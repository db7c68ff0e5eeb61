//! What a restore worker does for a rewind: makes a copy of a stopped server's data directory, makes the copy ready to start
//! once `pg_rewind` has brought it back, marks the directory that the copy replaces, and clears the replaced one away.
//!
//! The data directory itself is only ever read, but for the mark. Every step may be cut off at any byte and is done again from
//! its beginning.
//!
//! Invariants, each a test below:
//! * `a_copy_has_what_a_rewind_needs_and_nothing_that_starts_a_server`.
//! * `a_copy_that_was_not_brought_back_is_not_made_ready`.
//! * `log_that_only_the_rewound_server_still_has_is_brought_along`.
//! * `log_that_the_source_may_still_lose_is_not_in_a_copy`.
//! * `the_mark_is_in_the_directory_that_is_replaced_and_nowhere_else`.
//!
//! Not here: `pg_rewind`, which runs as a program of the engine, and when any of this may be done (`reconcile::rewind`).

use std::io;
use std::path::{Path, PathBuf};

use holdfast_engine::postgres::control::{self, Control};
use holdfast_engine::postgres::standby::STANDBY_SIGNAL;
use holdfast_engine::postgres::wal::Segments;
use holdfast_model::{ByteCount, Lsn, Member, Term};
use holdfast_storage::beside::REPLACED;
use holdfast_storage_io::IoError;
use holdfast_storage_io::root::{EntryKind, Root};
use nix::fcntl::OFlag;
use nix::sys::statfs::{XFS_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evidence::{KeepTail, keep_tail};
use super::{Access, answer, later, never};
use crate::data::Tail;
use crate::worker::job::{JobFailure, JobRetry};

const WAL_DIR: &str = "pg_wal";
/// Left out of a copy: what makes a server start as something, and what says that one runs.
const LEFT_OUT: [&str; 4] = [STANDBY_SIGNAL, "recovery.signal", "postmaster.pid", REPLACED];
const MARK_BYTES_MAX: u64 = 4 << 10;

/// The two directories of a rewind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sides {
    /// The data directory, whose server does not run.
    pub data_dir: PathBuf,
    /// The copy.
    pub beside: PathBuf,
}

/// A step of a rewind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "rewind", rename_all = "snake_case")]
pub enum RewindOrders {
    /// Make the copy, from nothing; answers [`Copied`].
    Copy(Sides),
    /// Make the copy, which was brought onto the log of this term, ready to start as a standby.
    Prepare {
        /// Where.
        sides: Sides,
        /// The term.
        onto: Term,
        /// What the data directory has beyond that log.
        tail: Tail,
        /// Up to where the source had flushed its log when `pg_rewind` began.
        flushed: Lsn,
    },
    /// Say in the data directory that it is replaced, and what it has that the cluster went without.
    Mark {
        /// Where.
        sides: Sides,
        /// What it has.
        tail: Tail,
    },
    /// Clear away whatever is beside. What a replaced directory has beyond the cluster's log is kept first.
    Clear {
        /// Where.
        sides: Sides,
        /// Whose it was.
        member: Member,
        /// Where to keep it.
        access: Option<Access>,
    },
}

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Bytes of all files. On XFS they share their blocks with the originals.
    pub bytes: ByteCount,
}

pub(super) async fn run(orders: RewindOrders) -> Result<Value, JobFailure> {
    match orders {
        RewindOrders::Copy(sides) => answer(&blocking(move || copy(&sides)).await?),
        RewindOrders::Prepare { sides, onto, tail, flushed } => {
            answer(&blocking(move || prepare(&sides, onto, &tail, flushed)).await?)
        }
        RewindOrders::Mark { sides, tail } => answer(&blocking(move || mark(&sides, tail)).await?),
        RewindOrders::Clear { sides, member, access } => clear(sides, member, access).await,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JobFailure> + Send + 'static,
) -> Result<T, JobFailure> {
    tokio::task::spawn_blocking(work).await.map_err(|err| later(&err))?
}

fn copy(sides: &Sides) -> Result<Copied, JobFailure> {
    let open = |path: &Path| Root::open(path).map_err(|err| later(&err));
    let (from, to) = (open(&sides.data_dir)?, open(&sides.beside)?);
    super::restore::remove_below(&to, Path::new("")).map_err(|err| later(&err))?;
    check_room(&sides.data_dir, &from)?;
    let mut copied = Copied { bytes: ByteCount::ZERO };
    copy_below(&from, &to, Path::new(""), &mut copied)?;
    Ok(copied)
}

/// Copies share their blocks on XFS (as `mkfs.xfs` makes it since 5.1). Elsewhere there must be room for all of them.
fn check_room(data_dir: &Path, from: &Root) -> Result<(), JobFailure> {
    let found = statfs(data_dir).map_err(|err| later(&err))?;
    if found.filesystem_type() == XFS_SUPER_MAGIC {
        return Ok(());
    }
    let block = u64::try_from(found.block_size()).unwrap_or(0);
    let (free, needed) = (found.blocks_available().saturating_mul(block), size_below(from, Path::new(""))?);
    if needed >= free {
        let (needed, free) = (ByteCount::new(needed), ByteCount::new(free));
        let why = format!("a copy of the data takes {needed}, and {free} are free");
        return Err(JobFailure { retry: JobRetry::Never, why });
    }
    Ok(())
}

fn size_below(root: &Root, dir: &Path) -> Result<u64, JobFailure> {
    let mut bytes = 0;
    for entry in root.list(dir).map_err(|err| later(&err))? {
        bytes += match entry.kind {
            EntryKind::Dir => size_below(root, &entry.path)?,
            EntryKind::File | EntryKind::Symlink | EntryKind::Other => entry.size,
        };
    }
    Ok(bytes)
}

fn copy_below(from: &Root, to: &Root, dir: &Path, copied: &mut Copied) -> Result<(), JobFailure> {
    for entry in from.list(dir).map_err(|err| later(&err))? {
        if dir == Path::new("") && LEFT_OUT.iter().any(|name| entry.path == Path::new(name)) {
            continue;
        }
        match entry.kind {
            EntryKind::Dir => {
                to.create_dirs(&entry.path, 0o700).map_err(|err| later(&err))?;
                copy_below(from, to, &entry.path, copied)?;
            }
            EntryKind::File => {
                let bytes = copy_file(from, to, &entry.path).map_err(|err| later(&err))?;
                copied.bytes = ByteCount::new(copied.bytes.bytes() + bytes);
            }
            EntryKind::Symlink | EntryKind::Other => {
                let why = format!("{} is no plain file: it cannot be copied", entry.path.display());
                return Err(JobFailure { retry: JobRetry::Never, why });
            }
        }
    }
    Ok(())
}

/// By `copy_file_range(2)`, which shares blocks where the file system can.
fn copy_file(from: &Root, to: &Root, path: &Path) -> Result<u64, IoError> {
    let mut source = from.open_file(path, OFlag::O_RDONLY, 0)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let mut target = to.open_file(path, flags, 0o600)?;
    io::copy(&mut source, &mut target).map_err(IoError::at("copy", path))
}

/// `pg_rewind` ends well as well when it takes the source for one of the same timeline, and has done nothing then.
fn prepare(sides: &Sides, onto: Term, tail: &Tail, flushed: Lsn) -> Result<(), JobFailure> {
    let open = |path: &Path| Root::open(path).map_err(|err| later(&err));
    let (from, to) = (open(&sides.data_dir)?, open(&sides.beside)?);
    let bytes = to.read(Path::new(control::PATH), 1 << 16).map_err(|err| later(&err))?.unwrap_or_default();
    let control = Control::parse(&bytes).map_err(|err| later(&err))?;
    if control.timeline != onto {
        let why = format!("the copy is of term {} after its rewind, not of term {onto}", control.timeline);
        return Err(JobFailure { retry: JobRetry::Later, why });
    }
    let start = Lsn::try_from(&tail.start).map_err(|err| never(&err))?;
    let fork = control.segments.name(control.segments.holding(tail.term, start));
    bring_log(&from, &to, &fork).map_err(|err| later(&err))?;
    cut_log(&to, onto, flushed, control.segments).map_err(|err| later(&err))?;
    to.ensure(Path::new(STANDBY_SIGNAL), b"", 0o600).map_err(|err| later(&err))?;
    to.sync_dir(Path::new("")).map_err(|err| later(&err))?;
    Ok(())
}

/// The copy replays from a checkpoint before the fork. Log from there up to the fork may be gone from the source, which has no
/// use for it; whoever is rewound has it, or could not have been.
fn bring_log(from: &Root, to: &Root, fork: &str) -> Result<(), IoError> {
    // A segment's name is its timeline and its number, of eight and of sixteen digits.
    let number = |name: &str| name.get(8..24).map(str::to_owned);
    let dir = Path::new(WAL_DIR);
    for entry in from.list(dir)? {
        let name = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_segment = name.len() == 24 && name.bytes().all(|letter| letter.is_ascii_hexdigit());
        let is_older = is_segment && number(name) < number(fork);
        if entry.kind != EntryKind::File || !is_older || to.look(&entry.path)?.is_some() {
            continue;
        }
        copy_file(from, to, &entry.path)?;
        let file = to.open_file(&entry.path, OFlag::O_RDONLY, 0)?;
        file.sync_all().map_err(IoError::at("sync", &entry.path))?;
    }
    to.sync_dir(dir)
}

/// `pg_rewind` copies log as the source has written it, flushed or not. What was not may be other log once the source's machine
/// comes back from a loss of power, so that the copy must not apply it: it receives that from the source, which sends only what it
/// has flushed. Pages that were copied are of flushed log, as all that a server writes.
fn cut_log(to: &Root, onto: Term, flushed: Lsn, segments: Segments) -> Result<(), IoError> {
    let last = segments.holding(onto, flushed);
    let (last_name, prefix) = (segments.name(last), format!("{:08X}", onto.number()));
    for entry in to.list(Path::new(WAL_DIR))? {
        let name = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_segment = name.len() == 24 && name.starts_with(&prefix);
        if entry.kind != EntryKind::File || !is_segment || name < last_name.as_str() {
            continue;
        }
        if name > last_name.as_str() {
            to.remove_file(&entry.path)?;
            continue;
        }
        let file = to.open_file(&entry.path, OFlag::O_WRONLY, 0)?;
        let cut = || {
            file.set_len(flushed.bytes_since(last.start))?;
            file.set_len(segments.bytes())?;
            file.sync_all()
        };
        cut().map_err(IoError::at("cut", &entry.path))?;
    }
    to.sync_dir(Path::new(WAL_DIR))
}

/// First away from the copy, should the source's own files have brought one along: on both sides it would say nothing.
fn mark(sides: &Sides, tail: Tail) -> Result<(), JobFailure> {
    let marked = || {
        let beside = Root::open(&sides.beside)?;
        beside.remove_file(Path::new(REPLACED))?;
        beside.sync_dir(Path::new(""))?;
        let text = serde_json::to_vec(&tail).expect("a tail is three numbers");
        Root::open(&sides.data_dir)?.replace(Path::new(REPLACED), &text, 0o600)
    };
    marked().map_err(|err| later(&err))
}

async fn clear(sides: Sides, member: Member, access: Option<Access>) -> Result<Value, JobFailure> {
    let beside = sides.beside.clone();
    let tail = blocking(move || tail_of(&beside)).await?;
    match (tail, access) {
        (None, _) => {}
        (Some(tail), Some(access)) => {
            let wal_dir = sides.beside.join(WAL_DIR);
            keep_tail(KeepTail { access, wal_dir, member, tail }).await?;
        }
        (Some(_), None) => {
            let why = "there is no repository to keep what the cluster went without: it stays on the volume";
            return Err(JobFailure { retry: JobRetry::Never, why: why.to_owned() });
        }
    }
    blocking(move || {
        let cleared = || {
            let beside = Root::open(&sides.beside)?;
            super::restore::remove_below(&beside, Path::new(""))?;
            beside.sync_dir(Path::new(""))?;
            // Of a rewind that was given up between its mark and its end.
            let data_dir = Root::open(&sides.data_dir)?;
            data_dir.remove_file(Path::new(REPLACED))?;
            data_dir.sync_dir(Path::new(""))
        };
        cleared().map_err(|err: IoError| later(&err))
    })
    .await?;
    Ok(Value::Null)
}

fn tail_of(beside: &Path) -> Result<Option<Tail>, JobFailure> {
    let root = Root::open(beside).map_err(|err| later(&err))?;
    let Some(mark) = root.read(Path::new(REPLACED), MARK_BYTES_MAX).map_err(|err| later(&err))? else {
        return Ok(None);
    };
    serde_json::from_slice(&mark).map(Some).map_err(|err| never(&err))
}

#[cfg(test)]
mod tests;
