//! A Postgres data directory as something to back up: the walk, what is left out, and pages that are checked while the
//! server writes them.
//!
//! A page that is torn is read again, as often as [`TRIES`]; a page that stays bad fails the backup, since a backup of
//! a damaged page is worth nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_backup::RelPath;
use holdfast_backup::backup::{Source, SourceEntry, SourceError, SourceFile};
use holdfast_engine::postgres::backup::BackupSession;
use holdfast_engine::postgres::files::{self, FileClass, PageFile};
use holdfast_engine::postgres::page::{self, BadPage, LogWindow, PAGE_BYTES, Page, PageVerdict};
use holdfast_model::Lsn;
use holdfast_storage_io::IoError;
use holdfast_storage_io::bulk::{BlockingIo, BulkFile, BulkIo};
use holdfast_storage_io::root::EntryKind;
use tokio::runtime::Handle;

/// How often a page is read before it counts as damaged.
const TRIES: u32 = 5;
/// Between two tries: a page is written in far less.
const PAUSE: Duration = Duration::from_millis(20);

/// The data directory of a server in backup mode.
pub(super) struct DataDirectory {
    io: BlockingIo,
    session: Arc<BackupSession>,
    checksums: bool,
    /// The insert position as last read; raised before a page may be called damaged.
    log_end: Arc<AtomicU64>,
    runtime: Handle,
    entries: Vec<SourceEntry>,
}

impl DataDirectory {
    /// Lists the directory. Blocks; to be made on a blocking thread of `runtime`.
    ///
    /// # Errors
    /// [`SourceError`], also for a tablespace outside the volume.
    pub(super) fn list(
        io: BlockingIo,
        session: Arc<BackupSession>,
        checksums: bool,
        runtime: Handle,
    ) -> Result<Self, SourceError> {
        let log_end = Arc::new(AtomicU64::new(session.start().offset()));
        let mut entries = Vec::new();
        walk(&io, Path::new(""), &mut entries)?;
        let paths: Vec<&str> = entries.iter().map(|entry| entry.path().as_str()).collect();
        let unlogged: std::collections::BTreeSet<String> =
            files::unlogged_main_forks(&paths).into_iter().map(str::to_owned).collect();
        entries.retain(|entry| !unlogged.contains(entry.path().as_str()));
        entries.sort_by(|a, b| a.path().cmp(b.path()));
        Ok(Self { io, session, checksums, log_end, runtime, entries })
    }

    /// Bytes of all files, for progress.
    pub(super) fn bytes(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| match entry {
                SourceEntry::File { size, .. } => *size,
                SourceEntry::Directory { .. } => 0,
            })
            .sum()
    }
}

fn walk(io: &BlockingIo, dir: &Path, out: &mut Vec<SourceEntry>) -> Result<(), SourceError> {
    let listed = match io.list(dir) {
        Ok(listed) => listed,
        // A database that is dropped takes its directory with it.
        Err(err) if err.is_not_found() && dir != Path::new("") => return Ok(()),
        Err(err) => return Err(read_error(&dir.display().to_string(), err)),
    };
    for entry in listed {
        let text = entry.path.to_str().unwrap_or_default();
        let refused = |why: String| SourceError::Refused { path: entry.path.display().to_string(), why };
        let path = RelPath::new(text).map_err(|err| refused(err.to_string()))?;
        let class = files::classify(text).map_err(|err| refused(err.to_string()))?;
        match (entry.kind, class) {
            (EntryKind::Dir, FileClass::LeaveOut) if !files::NEEDED_DIRS.contains(&text) => {}
            (EntryKind::Dir, _) => {
                out.push(SourceEntry::Directory { path, mode: entry.mode });
                walk(io, &entry.path, out)?;
            }
            // pg_control is read last, by the job itself.
            (_, FileClass::LeaveOut | FileClass::Control) => {}
            (EntryKind::File, FileClass::Pages(_) | FileClass::Plain) => {
                out.push(SourceEntry::File { path, mode: entry.mode, size: entry.size });
            }
            (EntryKind::Symlink | EntryKind::Other, FileClass::Pages(_) | FileClass::Plain) => {
                return Err(refused("it is neither a file nor a directory: remove it".to_owned()));
            }
        }
    }
    Ok(())
}

fn read_error(path: &str, err: IoError) -> SourceError {
    SourceError::Read { path: path.to_owned(), source: std::io::Error::other(err) }
}

impl Source for DataDirectory {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<SourceEntry, SourceError>> + Send + '_> {
        Box::new(self.entries.iter().cloned().map(Ok))
    }

    fn open(&self, path: &RelPath) -> Result<Option<Box<dyn SourceFile>>, SourceError> {
        let file = match self.io.open_read(Path::new(path.as_str())) {
            Ok(file) => file,
            Err(err) if err.is_not_found() => return Ok(None),
            Err(err) => return Err(read_error(path.as_str(), err)),
        };
        let refused =
            |err: files::FilesError| SourceError::Refused { path: path.to_string(), why: err.to_string() };
        let pages = match files::classify(path.as_str()).map_err(refused)? {
            FileClass::Pages(pages) if self.checksums => Some(pages),
            FileClass::Pages(_) | FileClass::Plain | FileClass::Control | FileClass::LeaveOut => None,
        };
        Ok(Some(Box::new(DataFile {
            path: path.to_string(),
            io: self.io.clone(),
            file,
            pages,
            session: Arc::clone(&self.session),
            log_end: Arc::clone(&self.log_end),
            runtime: self.runtime.clone(),
        })))
    }
}

struct DataFile {
    path: String,
    io: BlockingIo,
    file: BulkFile,
    pages: Option<PageFile>,
    session: Arc<BackupSession>,
    log_end: Arc<AtomicU64>,
    runtime: Handle,
}

impl SourceFile for DataFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let read = self.io.read_at(&self.file, offset, buffer).map_err(|err| read_error(&self.path, err))?;
        let Some(pages) = self.pages else { return Ok(read) };
        let whole = read - read % PAGE_BYTES;
        for at in (0..whole).step_by(PAGE_BYTES) {
            let position = offset + at as u64;
            let index = u32::try_from(position / PAGE_BYTES as u64).unwrap_or(u32::MAX);
            let block = pages.first_block().wrapping_add(index);
            self.settle(&mut buffer[at..at + PAGE_BYTES], position, block)?;
        }
        Ok(read)
    }
}

impl DataFile {
    /// Reads one page again until it passes.
    fn settle(&self, bytes: &mut [u8], position: u64, block: u32) -> Result<(), SourceError> {
        let mut last = None;
        for attempt in 0..TRIES {
            if attempt > 0 {
                self.runtime.block_on(tokio::time::sleep(PAUSE));
                let read = self.io.read_at(&self.file, position, bytes);
                if read.map_err(|err| read_error(&self.path, err))? < bytes.len() {
                    return Ok(()); // the file was cut meanwhile, and the log says so
                }
            }
            let mut judged = self.judge(bytes, block);
            if let Err(BadPage::FromTheFuture { .. }) = judged {
                // Only the position as it is after the page was read can say so.
                self.refresh_log_end()?;
                judged = self.judge(bytes, block);
            }
            match judged {
                Ok(()) => return Ok(()),
                Err(bad) => last = Some(bad),
            }
        }
        let why = last.map_or_else(String::new, |bad| bad.to_string());
        Err(SourceError::Damaged { path: self.path.clone(), offset: position, why })
    }

    fn judge(&self, bytes: &[u8], block: u32) -> Result<(), BadPage> {
        let page: &Page = bytes.try_into().expect("the caller cuts at page boundaries");
        let end = Lsn::from_offset(self.log_end.load(Ordering::Relaxed));
        match page::judge(page, block, LogWindow { start: self.session.start(), end }) {
            PageVerdict::AllZero | PageVerdict::NewerThanStart | PageVerdict::Good => Ok(()),
            PageVerdict::Bad(bad) => Err(bad),
        }
    }

    /// Also proves that the session lives, without which the backup is void.
    fn refresh_log_end(&self) -> Result<(), SourceError> {
        let end = self.runtime.block_on(self.session.log_end());
        let end = end.map_err(|err| SourceError::Read {
            path: self.path.clone(),
            source: std::io::Error::other(err),
        })?;
        self.log_end.fetch_max(end.offset(), Ordering::Relaxed);
        Ok(())
    }
}
