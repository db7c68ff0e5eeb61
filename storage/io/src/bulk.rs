//! Positioned reads and writes of files beneath a root, for the workers that move data.
//!
//! [`BulkIo`] is the trait; [`BlockingIo`] serves it with plain system calls on the calling thread. Calls on one
//! file may run on many threads at once; the caller bounds how many.
//!
//! Direct I/O keeps a backup or restore out of the page cache. It is used for the aligned part of a request on
//! files of [`DIRECT_FROM`] or more; tails, small files and file systems that refuse it go through the cache. The
//! kernel keeps the two coherent: it writes dirty cached pages back before a direct read and drops clean ones
//! after a direct write.
//!
//! Invariants: `reads_return_what_was_written_at_any_alignment`, `create_keeps_what_was_written_before`.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FallocateFlags, OFlag, fallocate};

use crate::IoError;
use crate::buffer::ALIGNMENT;
use crate::root::{Entry, Root};

/// Files smaller than this many bytes are read and written through the page cache.
pub const DIRECT_FROM: u64 = 1 << 20;

/// An open file of a [`BulkIo`].
#[derive(Debug)]
pub struct BulkFile {
    path: PathBuf,
    size: u64,
    cached: File,
    direct: Option<File>,
    /// Set once the file system refused a direct request, so that it is not tried for each request again.
    direct_refused: AtomicBool,
}

impl BulkFile {
    /// Its path beneath the root.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size when it was opened, in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    fn direct(&self) -> Option<&File> {
        self.direct.as_ref().filter(|_| !self.direct_refused.load(Ordering::Relaxed))
    }
}

/// Bulk I/O on files beneath one root. All calls block; none may be dropped half-way.
pub trait BulkIo: Send + Sync {
    /// The root that paths are relative to; directory operations (`create_dirs`, `rename`, `list`, `sync_dir`,
    /// `remove_file`) are its own.
    fn root(&self) -> &Root;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`IoError`].
    fn open_read(&self, path: &Path) -> Result<BulkFile, IoError>;

    /// Opens a file for reading and writing, made with `mode` if it is not there, and sets its size to exactly
    /// `size` with its space allocated. What an existing file holds below `size` is kept, so that a resumed
    /// restore finds what it wrote.
    ///
    /// # Errors
    /// [`IoError`]; `ENOSPC` here rather than in the middle of writing.
    fn create(&self, path: &Path, size: u64, mode: u32) -> Result<BulkFile, IoError>;

    /// Reads from `offset` until `buf` is full or the file ends; returns the number of bytes read. Fastest when
    /// `buf` is (a part of) an [`crate::buffer::AlignedBuf`] and `offset` a multiple of its alignment.
    ///
    /// # Errors
    /// [`IoError`].
    fn read_at(&self, file: &BulkFile, offset: u64, buf: &mut [u8]) -> Result<usize, IoError>;

    /// Writes all of `bytes` at `offset`. Fastest when both are aligned. Durable only after
    /// [`Self::sync_file`].
    ///
    /// # Errors
    /// [`IoError`].
    fn write_at(&self, file: &BulkFile, offset: u64, bytes: &[u8]) -> Result<(), IoError>;

    /// Makes the file's bytes and size durable; its name only after a `sync_dir` of its directory.
    ///
    /// # Errors
    /// [`IoError`]. After a failure nothing written before may be trusted, also if a later call succeeds.
    fn sync_file(&self, file: &BulkFile) -> Result<(), IoError>;

    /// The entries of a directory.
    ///
    /// # Errors
    /// [`IoError`].
    fn list(&self, path: &Path) -> Result<Vec<Entry>, IoError> {
        self.root().list(path)
    }
}

/// [`BulkIo`] by plain system calls on the calling thread.
#[derive(Debug, Clone)]
pub struct BlockingIo {
    root: Root,
}

impl BlockingIo {
    /// Serves files beneath `root`.
    #[must_use]
    pub const fn new(root: Root) -> Self {
        Self { root }
    }

    /// Opens the file a second time for direct I/O. Never an error: without it the page cache serves.
    fn open_direct(&self, path: &Path, access: OFlag, cached: &File, size: u64) -> Option<File> {
        if size < DIRECT_FROM {
            return None;
        }
        let direct = self.root.open_file(path, access | OFlag::O_DIRECT, 0).ok()?;
        let (a, b) = (cached.metadata().ok()?, direct.metadata().ok()?);
        // The name may have come to mean another file between the two calls.
        ((a.dev(), a.ino()) == (b.dev(), b.ino())).then_some(direct)
    }
}

impl BulkIo for BlockingIo {
    fn root(&self) -> &Root {
        &self.root
    }

    fn open_read(&self, path: &Path) -> Result<BulkFile, IoError> {
        // Non-blocking, so that a pipe planted below the root cannot hang the open; files do not care.
        let cached = self.root.open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?;
        let meta = cached.metadata().map_err(IoError::at("look at", path))?;
        if !meta.is_file() {
            return Err(IoError::at("open", path)(io::Error::from(io::ErrorKind::InvalidInput)));
        }
        let direct = self.open_direct(path, OFlag::O_RDONLY, &cached, meta.len());
        let direct_refused = AtomicBool::new(false);
        Ok(BulkFile { path: path.to_owned(), size: meta.len(), cached, direct, direct_refused })
    }

    fn create(&self, path: &Path, size: u64, mode: u32) -> Result<BulkFile, IoError> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NONBLOCK;
        let cached = self.root.open_file(path, flags, mode)?;
        cached.set_len(size).map_err(IoError::at("set size of", path))?;
        allocate(&cached, size).map_err(IoError::at("allocate", path))?;
        let direct = self.open_direct(path, OFlag::O_RDWR, &cached, size);
        let direct_refused = AtomicBool::new(false);
        Ok(BulkFile { path: path.to_owned(), size, cached, direct, direct_refused })
    }

    fn read_at(&self, file: &BulkFile, offset: u64, buf: &mut [u8]) -> Result<usize, IoError> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let rest = &mut buf[done..];
            let aligned = aligned_len(rest.as_ptr().addr(), at, rest.len());
            let read = match file.direct() {
                Some(direct) if aligned > 0 => direct.read_at(&mut rest[..aligned], at),
                Some(_) | None => file.cached.read_at(rest, at),
            };
            match read {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(err) => file.after_error(err, aligned).map_err(IoError::at("read", &file.path))?,
            }
        }
        Ok(done)
    }

    fn write_at(&self, file: &BulkFile, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let rest = &bytes[done..];
            let aligned = aligned_len(rest.as_ptr().addr(), at, rest.len());
            let written = match file.direct() {
                Some(direct) if aligned > 0 => direct.write_at(&rest[..aligned], at),
                Some(_) | None => file.cached.write_at(rest, at),
            };
            match written {
                Ok(0) => {
                    return Err(IoError::at("write", &file.path)(io::Error::from(io::ErrorKind::WriteZero)));
                }
                Ok(n) => done += n,
                Err(err) => file.after_error(err, aligned).map_err(IoError::at("write", &file.path))?,
            }
        }
        Ok(())
    }

    fn sync_file(&self, file: &BulkFile) -> Result<(), IoError> {
        file.cached.sync_all().map_err(IoError::at("sync", &file.path))
    }
}

impl BulkFile {
    /// Whether to go on after `err`: yes after an interruption, and once, through the page cache, after a refused
    /// direct request.
    fn after_error(&self, err: io::Error, aligned: usize) -> io::Result<()> {
        if err.kind() == io::ErrorKind::Interrupted {
            return Ok(());
        }
        let refused = err.raw_os_error() == Some(nix::libc::EINVAL) && aligned > 0 && self.direct().is_some();
        if refused {
            self.direct_refused.store(true, Ordering::Relaxed);
            return Ok(());
        }
        Err(err)
    }
}

/// How many bytes from here on direct I/O would accept; 0 when address or offset are not aligned.
const fn aligned_len(address: usize, offset: u64, len: usize) -> usize {
    if address.is_multiple_of(ALIGNMENT) && offset.is_multiple_of(ALIGNMENT as u64) {
        len - len % ALIGNMENT
    } else {
        0
    }
}

fn allocate(file: &File, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    let len = i64::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    match fallocate(file.as_fd(), FallocateFlags::empty(), 0, len) {
        // Allocation in advance is a courtesy: without it, ENOSPC comes later.
        Ok(()) | Err(nix::Error::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::AlignedBuf;

    fn io_in(dir: &Path) -> BlockingIo {
        BlockingIo::new(Root::open(dir).unwrap())
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    #[test]
    fn reads_return_what_was_written_at_any_alignment() {
        let dir = tempfile::tempdir().unwrap();
        let io = io_in(dir.path());
        let size = usize::try_from(DIRECT_FROM).unwrap() + 8192 + 17;
        let file = io.create(Path::new("f"), size as u64, 0o600).unwrap();
        let bytes = AlignedBuf::copy_of(&pattern(size));
        io.write_at(&file, 0, &bytes).unwrap();
        io.sync_file(&file).unwrap();

        let file = io.open_read(Path::new("f")).unwrap();
        for (offset, len) in
            [(0, size), (0, size + 5000), (4096, 8192), (1, 5000), (size - 20, 100), (size, 10)]
        {
            let mut buf = AlignedBuf::zeroed(len);
            let read = io.read_at(&file, offset as u64, &mut buf).unwrap();
            let expected = &bytes[offset..size.min(offset + len)];
            assert_eq!(&buf[..read], expected, "at {offset} for {len}");
        }
    }

    #[test]
    fn create_keeps_what_was_written_before() {
        let dir = tempfile::tempdir().unwrap();
        let io = io_in(dir.path());
        let file = io.create(Path::new("f"), 10, 0o600).unwrap();
        io.write_at(&file, 0, b"0123456789").unwrap();
        let file = io.create(Path::new("f"), 12, 0o600).unwrap();
        let mut buf = [1; 20];
        assert_eq!(io.read_at(&file, 0, &mut buf).unwrap(), 12);
        assert_eq!(&buf[..12], b"0123456789\0\0");
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let io = io_in(dir.path());
        assert!(io.open_read(Path::new("d")).is_err());
        assert!(io.open_read(Path::new("pipe")).is_err());
    }
}
