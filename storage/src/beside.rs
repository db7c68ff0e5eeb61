//! A second data directory beside the first, and how it takes the first one's place: at once or not at all.
//!
//! Whoever fills it marks the directory that is to be replaced with [`REPLACED`], durably, when the other one is whole. The
//! mark goes along with the directory, so that it says on which side the replaced one is: taking twice changes nothing more.
//!
//! Invariants, each a test below:
//! * `only_a_marked_directory_is_replaced_and_only_once`.
//!
//! Not here: what is in them. The engine's user alone looks into them.

use std::path::Path;

use holdfast_storage_io::IoError;
use holdfast_storage_io::root::Root;

use crate::places;

/// In the directory that is to be replaced, or was.
pub const REPLACED: &str = "holdfast.replaced";

/// Lets the directory beside take the place of a data directory that is marked as [`REPLACED`], durably. Whether it did now.
///
/// # Errors
/// [`IoError`]; it may be called again.
pub fn take(root: &Root, engine: &str) -> Result<bool, IoError> {
    let data = Path::new(places::data_dir(engine));
    if root.look(&data.join(REPLACED))?.is_none() {
        // It may have been before, and not be durable yet.
        root.sync_dir(Path::new(""))?;
        return Ok(false);
    }
    root.exchange(Path::new(places::BESIDE), data)?;
    root.sync_dir(Path::new(""))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_marked_directory_is_replaced_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let access = crate::Access { daemon_uid: uid, daemon_gid: gid, engine_uid: uid, engine_gid: gid };
        places::ensure(&root, "postgres", access).unwrap();
        std::fs::write(dir.path().join("beside/new"), "").unwrap();
        assert!(!take(&root, "postgres").unwrap(), "nobody said that it is whole");
        std::fs::write(dir.path().join("pgdata").join(REPLACED), "").unwrap();
        assert!(take(&root, "postgres").unwrap());
        for _ in 0..2 {
            assert!(dir.path().join("pgdata/new").exists());
            assert!(dir.path().join("beside").join(REPLACED).exists());
            assert!(!take(&root, "postgres").unwrap());
        }
    }
}
