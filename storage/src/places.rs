//! Names, owners and modes of what is on a volume.
//!
//! ```text
//! <mount>/                 0711 root      the engine may pass through, not look around
//!   .holdfast/             0700 daemon    identity, promise.0, promise.1, engine.lock, probe, reserve
//!   pgdata/                0700 engine    the database directory (mysql/ for MySQL); empty means "no data"
//!   beside/                0700 engine    another one, while it is made ready to take that one's place
//! ```
//! Without root everything belongs to the one user.
//!
//! Invariant: `ensure_is_idempotent`.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use holdfast_storage_io::IoError;
use holdfast_storage_io::root::{EntryKind, Root};
use nix::fcntl::OFlag;

use crate::spec::Access;

/// Our own directory on the volume.
pub const AGENT_DIR: &str = ".holdfast";
/// The identity record.
pub const IDENTITY: &str = ".holdfast/identity";
/// The two slots of the promise.
pub const PROMISE_SLOTS: [&str; 2] = [".holdfast/promise.0", ".holdfast/promise.1"];
/// Locked (flock) by whoever runs the engine, through a descriptor that the engine inherits.
pub const ENGINE_LOCK: &str = ".holdfast/engine.lock";
/// Overwritten again and again to prove that the device takes writes.
pub const PROBE: &str = ".holdfast/probe";
/// A second database directory.
pub const BESIDE: &str = "beside";
/// Space kept back so that a full volume can be made to work again.
pub const RESERVE: &str = ".holdfast/reserve";

/// Mode of the top directory: others may pass through to what they own.
const TOP_MODE: u32 = 0o711;
/// Mode of directories with one owner.
const PRIVATE_MODE: u32 = 0o700;

/// Name of the database directory of `engine`.
#[must_use]
pub fn data_dir(engine: &str) -> &'static str {
    if engine == "mysql" { "mysql" } else { "pgdata" }
}

/// Makes the directories of a volume with their owners and modes, where they are missing, and makes them durable.
///
/// # Errors
/// [`IoError`].
pub fn ensure(root: &Root, engine: &str, access: Access) -> Result<(), IoError> {
    let here = Path::new(".");
    let top = root.open_file(here, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?;
    set_mode(&top, here, TOP_MODE)?;
    let data = data_dir(engine);
    for (name, uid, gid) in [
        (AGENT_DIR, access.daemon_uid, access.daemon_gid),
        (data, access.engine_uid, access.engine_gid),
        (BESIDE, access.engine_uid, access.engine_gid),
    ] {
        let path = Path::new(name);
        root.create_dirs(path, PRIVATE_MODE)?;
        let dir = root.open_file(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?;
        set_owner(&dir, path, uid, gid)?;
    }
    root.sync_dir(here)
}

/// Gives the file `path` to `uid` and `gid`, if it is not theirs already.
///
/// # Errors
/// [`IoError`].
pub fn give(root: &Root, path: &Path, uid: u32, gid: u32) -> Result<(), IoError> {
    let file = root.open_file(path, OFlag::O_RDONLY, 0)?;
    set_owner(&file, path, uid, gid)
}

/// What is on a volume besides what an empty file system has and [`ensure`] makes: a proof that nobody has stored
/// anything on it yet when it is empty.
///
/// # Errors
/// [`IoError`].
pub fn strangers(root: &Root) -> Result<Vec<PathBuf>, IoError> {
    let mut found = Vec::new();
    for entry in root.list(Path::new(""))? {
        let name = entry.path.to_str().unwrap_or_default();
        let scaffold = matches!(name, AGENT_DIR | BESIDE | "pgdata" | "mysql" | "lost+found");
        if !scaffold || entry.kind != EntryKind::Dir {
            found.push(entry.path);
        } else {
            found.extend(root.list(&entry.path)?.into_iter().map(|e| e.path).filter(|p| !is_leftover(p)));
        }
    }
    Ok(found)
}

/// Left by an identity write that was interrupted.
fn is_leftover(path: &Path) -> bool {
    path == Path::new(".holdfast/identity.new")
}

fn set_mode(file: &File, path: &Path, mode: u32) -> Result<(), IoError> {
    let now = file.metadata().map_err(IoError::at("look at", path))?.mode() & 0o7777;
    if now == mode {
        return Ok(());
    }
    file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(IoError::at("set mode of", path))
}

fn set_owner(file: &File, path: &Path, uid: u32, gid: u32) -> Result<(), IoError> {
    let now = file.metadata().map_err(IoError::at("look at", path))?;
    if (now.uid(), now.gid()) == (uid, gid) {
        return Ok(());
    }
    nix::unistd::fchown(file.as_fd(), Some(uid.into()), Some(gid.into()))
        .map_err(IoError::at("set owner of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_access() -> Access {
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        Access { daemon_uid: uid, daemon_gid: gid, engine_uid: uid, engine_gid: gid }
    }

    #[test]
    fn ensure_is_idempotent() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        for _ in 0..2 {
            ensure(&root, "postgres", own_access()).unwrap();
            let modes: Vec<_> =
                root.list(Path::new("")).unwrap().into_iter().map(|e| (e.path, e.mode)).collect();
            let private = |name: &str| (PathBuf::from(name), 0o700);
            assert_eq!(modes, [private(".holdfast"), private("beside"), private("pgdata")]);
            assert_eq!(strangers(&root).unwrap(), Vec::<PathBuf>::new());
        }
    }

    #[test]
    fn anything_stored_on_the_volume_is_a_stranger() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        ensure(&root, "postgres", own_access()).unwrap();
        std::fs::write(dir.path().join("pgdata/PG_VERSION"), "15").unwrap();
        std::fs::write(dir.path().join("note"), "").unwrap();
        assert_eq!(strangers(&root).unwrap(), [PathBuf::from("note"), "pgdata/PG_VERSION".into()]);
    }
}
