//! Follows the engine's log file into the agent's log, and keeps the file small.
//!
//! The engine appends to a file on the root disk and never waits for us: an agent that is stopped, slow or dead costs it
//! nothing. Above its cap the file is copied to `<name>.1` and truncated; the engine's `O_APPEND` goes on at the start. What
//! is written between copy and truncation is lost from the file, what a flood writes faster than it is read is skipped here:
//! an engine that logs too much loses log, not service. While no agent runs, nothing caps the file.
//!
//! Invariants, each a test below:
//! * `every_line_is_told_once_and_whole`.
//! * `a_log_above_its_cap_is_truncated_and_followed_on`.
//! * `a_flood_is_skipped_not_buffered`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_engine::postgres::breach::{self, Breach};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::breaches::Breaches;
use super::severity::classify;
use crate::worker::job::LogLevel;

/// Above this size the file is truncated, in bytes.
pub const CAP: u64 = 64 << 20;
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Read at one look at most, in bytes; what is beyond twice this is skipped.
const READ_MAX: u64 = 256 << 10;
/// Longest line that is told, in bytes; the rest of it is told as a line of its own.
const LINE_MAX: usize = 8 << 10;

/// One line, or the part of it that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it means to the agent's log.
    pub level: LogLevel,
    /// Its text, without severity where it has one.
    pub text: String,
}

/// Follows one file.
#[derive(Debug)]
pub struct LogTail {
    path: PathBuf,
    cap: u64,
    open: Option<Open>,
    partial: Vec<u8>,
    level: LogLevel,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    offset: u64,
}

/// What one look brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// New lines.
    pub lines: Vec<Line>,
    /// Bytes that were not read because they came too fast.
    pub skipped: u64,
    /// Commits of which these lines tell that they were answered, or became visible, without their acks.
    pub breaches: Vec<Breach>,
}

impl LogTail {
    /// Follows `path` from its present end; the file need not exist yet.
    #[must_use]
    pub fn from_end(path: &Path, cap: u64) -> Self {
        let mut tail = Self::from_start(path, cap);
        if let Ok(Some(open)) = open(path) {
            let offset = open.file.metadata().map_or(0, |meta| meta.len());
            tail.open = Some(Open { offset, ..open });
        }
        tail
    }

    /// Follows `path` from its start.
    #[must_use]
    pub fn from_start(path: &Path, cap: u64) -> Self {
        Self { path: path.to_owned(), cap, open: None, partial: Vec::new(), level: LogLevel::Info }
    }

    /// Reads what is new and truncates the file if it is above its cap.
    ///
    /// # Errors
    /// When the root disk fails; the next look starts where this one stopped.
    pub fn look(&mut self) -> io::Result<Look> {
        self.reopen_if_replaced()?;
        let Some(open) = &mut self.open else { return Ok(Look::default()) };
        let size = open.file.metadata()?.len();
        if size < open.offset {
            // Truncated by somebody else.
            open.offset = 0;
        }
        if size == open.offset && size <= self.cap {
            return Ok(Look::default());
        }
        let mut look = Look::default();
        let behind = size - open.offset;
        if behind > 2 * READ_MAX {
            look.skipped = behind - READ_MAX;
            open.offset += look.skipped;
            self.partial.clear();
        }
        open.file.seek(SeekFrom::Start(open.offset))?;
        let read = (&mut open.file).take(READ_MAX).read_to_end(&mut self.partial)?;
        open.offset += read as u64;
        if size > self.cap {
            fs::copy(&self.path, self.path.with_extension("log.1"))?;
            open.file.set_len(0)?;
            open.offset = 0;
        }
        self.take_lines(&mut look);
        Ok(look)
    }

    fn reopen_if_replaced(&mut self) -> io::Result<()> {
        let inode = match self.path.metadata() {
            Ok(meta) => Some(meta.ino()),
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => return Err(err),
        };
        if self.open.as_ref().map(|open| open.inode) != inode {
            self.open = open(&self.path)?;
        }
        Ok(())
    }

    fn take_lines(&mut self, look: &mut Look) {
        let mut rest = self.partial.as_slice();
        loop {
            let newline = rest.iter().position(|byte| *byte == b'\n');
            let (line, skip) = match newline {
                Some(at) if at <= LINE_MAX => (&rest[..at], at + 1),
                Some(_) | None if rest.len() > LINE_MAX => (&rest[..LINE_MAX], LINE_MAX),
                Some(_) | None => break,
            };
            let text = String::from_utf8_lossy(line);
            look.breaches.extend(breach::classify(&text));
            let message = match classify(&text) {
                Some((level, message)) => {
                    self.level = level;
                    message
                }
                None => text.trim(),
            };
            if !message.is_empty() {
                look.lines.push(Line { level: self.level, text: message.to_owned() });
            }
            rest = &rest[skip..];
        }
        let done = self.partial.len() - rest.len();
        self.partial.drain(..done);
    }
}

/// For reading and truncating.
fn open(path: &Path) -> io::Result<Option<Open>> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => {
            let inode = file.metadata()?.ino();
            Ok(Some(Open { file, inode, offset: 0 }))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Follows the engine's log until it is cancelled, and counts the breaches that it tells of.
pub async fn follow(path: PathBuf, breaches: Arc<Breaches>, cancel: CancellationToken) {
    let mut tail = LogTail::from_end(&path, CAP);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,                 // cancel-safe
            () = tokio::time::sleep(LOOK_EVERY) => {}          // cancel-safe
        }
        match tail.look() {
            Ok(look) => {
                look.breaches.iter().for_each(|breach| breaches.note(*breach));
                tell(&look);
            }
            Err(err) => warn!(path = %path.display(), error = %err, "engine log not readable, will retry"),
        }
    }
}

fn tell(look: &Look) {
    if look.skipped > 0 {
        warn!(bytes = look.skipped, "engine logs faster than is followed, lines skipped");
    }
    for line in &look.lines {
        match line.level {
            LogLevel::Error => error!(target: "engine", "{}", line.text),
            LogLevel::Warn => warn!(target: "engine", "{}", line.text),
            LogLevel::Info => info!(target: "engine", "{}", line.text),
            LogLevel::Debug => debug!(target: "engine", "{}", line.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn engine_log() -> (tempfile::TempDir, PathBuf, File) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.log");
        let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        (dir, path, file)
    }

    fn texts(look: &Look) -> Vec<&str> {
        look.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn every_line_is_told_once_and_whole() {
        let (_dir, path, mut engine) = engine_log();
        let mut tail = LogTail::from_start(&path, CAP);
        engine.write_all(b"[1] PANIC:  first\n\tmore\n[1] LOG:  sec").unwrap();
        let look = tail.look().unwrap();
        assert_eq!(texts(&look), ["first", "more"]);
        assert_eq!(look.lines[1].level, LogLevel::Error, "a continuation is as bad as its line");
        engine.write_all(b"ond\n").unwrap();
        assert_eq!(texts(&tail.look().unwrap()), ["second"]);
        assert_eq!(tail.look().unwrap(), Look::default());
    }

    #[test]
    fn what_was_logged_before_this_agent_is_not_told_again() {
        let (_dir, path, mut engine) = engine_log();
        engine.write_all(b"LOG:  old\n").unwrap();
        let mut tail = LogTail::from_end(&path, CAP);
        engine.write_all(b"LOG:  new\n").unwrap();
        assert_eq!(texts(&tail.look().unwrap()), ["new"]);
    }

    #[test]
    fn a_log_above_its_cap_is_truncated_and_followed_on() {
        let (dir, path, mut engine) = engine_log();
        let mut tail = LogTail::from_start(&path, 10);
        engine.write_all(b"LOG:  one\nLOG:  two\n").unwrap();
        assert_eq!(texts(&tail.look().unwrap()), ["one", "two"]);
        assert_eq!(path.metadata().unwrap().len(), 0);
        assert_eq!(fs::read(dir.path().join("engine.log.1")).unwrap(), b"LOG:  one\nLOG:  two\n");
        engine.write_all(b"LOG:  3\n").unwrap();
        assert_eq!(texts(&tail.look().unwrap()), ["3"]);
    }

    #[test]
    fn a_flood_is_skipped_not_buffered() {
        let (_dir, path, mut engine) = engine_log();
        let mut tail = LogTail::from_start(&path, CAP);
        let line = format!("LOG:  {}\n", "x".repeat(1000));
        engine.write_all(line.repeat(2000).as_bytes()).unwrap();
        let look = tail.look().unwrap();
        assert_eq!(look.skipped, 2000 * line.len() as u64 - READ_MAX);
        assert!(tail.partial.len() <= line.len());
        engine.write_all(b"\0\xff no newline for a long time").unwrap();
        engine.write_all("y".repeat(3 * LINE_MAX).as_bytes()).unwrap();
        assert!(tail.look().unwrap().lines.iter().all(|line| line.text.len() <= LINE_MAX + 8));
    }
}
