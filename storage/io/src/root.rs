//! A directory held open, and file operations that cannot leave it.
//!
//! Every path is resolved by `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`: a
//! hostile name (absolute, `..`, through a symbolic link) is refused by the kernel, without a race.
//!
//! Invariants: `no_name_leads_out_of_the_root`, `create_dirs_is_idempotent`, `what_is_there_is_never_replaced_by_ensure`.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, renameat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::IoError;

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A socket, pipe or device.
    Other,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path beneath the root.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// A directory held open; cheap to clone. Paths given to its methods are relative to it.
#[derive(Debug, Clone)]
pub struct Root {
    dir: Arc<OwnedFd>,
    name: Arc<PathBuf>,
}

impl Root {
    /// Opens the directory `path`; symbolic links in `path` itself are followed.
    ///
    /// # Errors
    /// [`IoError`], also when it is no directory.
    pub fn open(path: &Path) -> Result<Self, IoError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir =
            nix::fcntl::open(path, flags, Mode::empty()).map_err(IoError::at("open directory", path))?;
        Ok(Self::from_fd(dir, path))
    }

    /// Takes over an open directory; `name` is used in errors.
    #[must_use]
    pub fn from_fd(dir: OwnedFd, name: &Path) -> Self {
        Self { dir: Arc::new(dir), name: Arc::new(name.to_owned()) }
    }

    /// How the root was named when it was opened; for messages only.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Opens a file beneath the root.
    ///
    /// # Errors
    /// [`IoError`]; `EXDEV` or `ELOOP` when the name leads out of the root or through a symbolic link.
    pub fn open_file(&self, path: &Path, flags: OFlag, mode: u32) -> Result<File, IoError> {
        self.open_at(path, flags, mode).map(File::from).map_err(IoError::at("open", path))
    }

    fn open_at(&self, path: &Path, flags: OFlag, mode: u32) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(Mode::from_bits_truncate(mode))
            .resolve(resolve);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(self.dir.as_fd(), path, how)
    }

    fn open_dir(&self, path: &Path) -> nix::Result<OwnedFd> {
        self.open_at(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)
    }

    /// Opens the directory that holds `path`, and its last name.
    fn parent<'p>(&self, path: &'p Path) -> nix::Result<(OwnedFd, &'p OsStr)> {
        match path.components().next_back() {
            Some(Component::Normal(name)) => {
                Ok((self.open_dir(path.parent().unwrap_or(Path::new("")))?, name))
            }
            Some(Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir)
            | None => Err(nix::Error::EXDEV),
        }
    }

    /// A root further down.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn descend(&self, path: &Path) -> Result<Self, IoError> {
        let dir = self.open_dir(path).map_err(IoError::at("open directory", path))?;
        Ok(Self::from_fd(dir, &self.name.join(path)))
    }

    /// Looks at one entry; a symbolic link is not followed. `None` if there is no such entry.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn look(&self, path: &Path) -> Result<Option<Entry>, IoError> {
        let looked = self.parent(path).and_then(|(dir, name)| {
            fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map(|stat| entry(path.to_owned(), &stat))
        });
        match looked {
            Ok(entry) => Ok(Some(entry)),
            Err(nix::Error::ENOENT) => Ok(None),
            Err(errno) => Err(IoError::at("look at", path)(errno)),
        }
    }

    /// The entries of a directory, sorted by name, without `.` and `..`. An entry that disappears while the list
    /// is made is left out.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn list(&self, path: &Path) -> Result<Vec<Entry>, IoError> {
        let at = || IoError::at("list", path);
        let mut dir = nix::dir::Dir::from_fd(self.open_dir(path).map_err(at())?).map_err(at())?;
        let mut names = Vec::new();
        for item in dir.iter() {
            let name = item.map_err(at())?.file_name().to_owned();
            if name.as_c_str() != c"." && name.as_c_str() != c".." {
                names.push(name);
            }
        }
        names.sort();
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            match fstatat(&dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let name: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name.as_bytes());
                    entries.push(entry(path.join(name), &stat));
                }
                Err(nix::Error::ENOENT) => {}
                Err(errno) => return Err(at()(errno)),
            }
        }
        Ok(entries)
    }

    /// Makes a directory and every missing one above it, each with `mode`.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn create_dirs(&self, path: &Path, mode: u32) -> Result<(), IoError> {
        let mut made = PathBuf::new();
        for part in path.components() {
            made.push(part);
            let one = self
                .parent(&made)
                .and_then(|(dir, name)| mkdirat(&dir, name, Mode::from_bits_truncate(mode)));
            match one {
                Ok(()) | Err(nix::Error::EEXIST) => {}
                Err(errno) => return Err(IoError::at("make directory", path)(errno)),
            }
        }
        Ok(())
    }

    /// Renames within the root, replacing what is there. Durable only after [`Self::sync_dir`] of both parents.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        let renamed = || {
            let (from_dir, from_name) = self.parent(from)?;
            let (to_dir, to_name) = self.parent(to)?;
            renameat(&from_dir, from_name, &to_dir, to_name)
        };
        renamed().map_err(IoError::at("rename", from))
    }

    /// Exchanges two entries within the root, at once. Durable only after [`Self::sync_dir`] of both parents.
    ///
    /// # Errors
    /// [`IoError`]; `EINVAL` where the file system cannot.
    pub fn exchange(&self, one: &Path, other: &Path) -> Result<(), IoError> {
        let exchanged = || {
            let (one_dir, one_name) = self.parent(one)?;
            let (other_dir, other_name) = self.parent(other)?;
            let flags = RenameFlags::RENAME_EXCHANGE;
            renameat2(&one_dir, one_name, &other_dir, other_name, flags)
        };
        exchanged().map_err(IoError::at("exchange", one))
    }

    /// Removes a file or symbolic link; one that is not there is fine.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn remove_file(&self, path: &Path) -> Result<(), IoError> {
        self.unlink("remove", path, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes an empty directory; one that is not there is fine.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn remove_dir(&self, path: &Path) -> Result<(), IoError> {
        self.unlink("remove directory", path, UnlinkatFlags::RemoveDir)
    }

    fn unlink(&self, op: &'static str, path: &Path, flag: UnlinkatFlags) -> Result<(), IoError> {
        match self.parent(path).and_then(|(dir, name)| unlinkat(&dir, name, flag)) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(errno) => Err(IoError::at(op, path)(errno)),
        }
    }

    /// Makes the entries of a directory durable.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn sync_dir(&self, path: &Path) -> Result<(), IoError> {
        self.open_dir(path).and_then(nix::unistd::fsync).map_err(IoError::at("sync directory", path))
    }

    /// Reads a whole small file; `None` if there is no such file. A file above `limit` bytes is an error, so that
    /// a hostile one cannot fill memory.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, IoError> {
        let file = match self.open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0) {
            Ok(file) => file,
            Err(err) if err.is_not_found() => return Ok(None),
            Err(err) => return Err(err),
        };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(&file, limit.saturating_add(1)), &mut bytes)
            .map_err(IoError::at("read", path))?;
        if bytes.len() as u64 > limit {
            return Err(IoError::at("read", path)(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        Ok(Some(bytes))
    }

    /// Replaces a small file so that, whatever happens, it holds either the old bytes or all of the new ones:
    /// temporary name, fsync, rename, fsync of the directory. Durable when it returns.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn replace(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), IoError> {
        let temporary = self.write_beside(path, bytes, mode)?;
        self.rename(&temporary, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new("")))
    }

    /// Makes a small file unless there is something of its name, which then stays as it is, whoever made it and when.
    /// Whole or not there, and durable either way when it returns; says whether it was made.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn ensure(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<bool, IoError> {
        let temporary = self.write_beside(path, bytes, mode)?;
        let made = match self.rename_unless_there(&temporary, path) {
            Ok(()) => true,
            Err(nix::Error::EEXIST) => {
                self.remove_file(&temporary)?;
                let there = self.open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?;
                there.sync_all().map_err(IoError::at("sync", path))?;
                false
            }
            Err(errno) => return Err(IoError::at("rename", &temporary)(errno)),
        };
        self.sync_dir(path.parent().unwrap_or(Path::new("")))?;
        Ok(made)
    }

    fn rename_unless_there(&self, from: &Path, to: &Path) -> nix::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        renameat2(&from_dir, from_name, &to_dir, to_name, RenameFlags::RENAME_NOREPLACE)
    }

    /// Writes the bytes to `<path>.new`, durably but for its name.
    fn write_beside(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, IoError> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let mut file = self.open_file(&temporary, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC, mode)?;
        io::Write::write_all(&mut file, bytes).map_err(IoError::at("write", &temporary))?;
        file.sync_all().map_err(IoError::at("sync", &temporary))?;
        Ok(temporary)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

fn entry(path: PathBuf, stat: &FileStat) -> Entry {
    let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => EntryKind::File,
        SFlag::S_IFDIR => EntryKind::Dir,
        SFlag::S_IFLNK => EntryKind::Symlink,
        _ => EntryKind::Other,
    };
    let size = u64::try_from(stat.st_size).expect("sizes of files are not negative");
    Entry { path, kind, size, mode: stat.st_mode & 0o7777 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_name_leads_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        symlink("../secret", dir.path().join("in/link")).unwrap();
        symlink("..", dir.path().join("in/up")).unwrap();
        let root = Root::open(&dir.path().join("in")).unwrap();
        for name in ["../secret", "/etc/passwd", "link", "up/secret", "a/../../secret", ".."] {
            let path = Path::new(name);
            assert!(root.open_file(path, OFlag::O_RDONLY, 0).is_err(), "{name} must be refused");
            assert!(root.replace(path, b"x", 0o600).is_err() || name == "link", "{name} must be refused");
            assert!(root.remove_file(&path.join("x")).is_err() || name == "a/../../secret", "{name}");
        }
        assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), b"s");
    }

    #[test]
    fn create_dirs_is_idempotent() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        for _ in 0..2 {
            root.create_dirs(Path::new("a/b/c"), 0o700).unwrap();
        }
        assert!(root.create_dirs(Path::new("a/../../x"), 0o700).is_err());
        let listed = root.list(Path::new("a")).unwrap();
        assert_eq!((listed[0].path.as_path(), listed[0].kind), (Path::new("a/b"), EntryKind::Dir));
        assert_eq!(root.look(Path::new("a/none")).unwrap(), None);
    }

    #[test]
    fn a_replaced_file_holds_the_new_bytes_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let path = Path::new("file");
        root.replace(path, b"one", 0o600).unwrap();
        root.replace(path, b"two", 0o600).unwrap();
        assert_eq!(root.read(path, 3).unwrap().as_deref(), Some(b"two".as_slice()));
        assert!(root.read(path, 2).is_err());
        assert_eq!(root.list(Path::new("")).unwrap().len(), 1);
    }

    #[test]
    fn what_is_there_is_never_replaced_by_ensure() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let path = Path::new("file");
        assert!(root.ensure(path, b"one", 0o600).unwrap());
        assert!(!root.ensure(path, b"two", 0o600).unwrap());
        assert_eq!(root.read(path, 3).unwrap().as_deref(), Some(b"one".as_slice()));
        // A link is something of that name as well, and is not followed.
        symlink("elsewhere", dir.path().join("link")).unwrap();
        assert!(root.ensure(Path::new("link"), b"two", 0o600).is_err());
        assert!(!dir.path().join("elsewhere").exists());
        let names: Vec<_> = root.list(Path::new("")).unwrap().into_iter().map(|e| e.path).collect();
        assert_eq!(names, [PathBuf::from("file"), "link".into()]);
    }
}
