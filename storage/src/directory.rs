//! Volumes of kind `directory`: the same life as a disk's, without root and without a disk. For development.
//!
//! Below `path` each directory is a volume, as a slot holds a disk; when there is none, `volume-0` may be made.
//! "Mounted" is a symbolic link at the mount point. A directory that holds anything but a volume of ours is never
//! written.
//!
//! Invariants, each a test below:
//! * `an_empty_directory_is_blank_and_becomes_a_volume`
//! * `a_directory_with_anything_in_it_is_foreign`
//! * `an_interrupted_format_is_finished_by_the_next_one`
//! * `mounting_twice_is_fine_and_unmounting_takes_the_link_away`

use std::io;
use std::path::{Path, PathBuf};

use holdfast_model::ByteCount;
use holdfast_model::volume::{DeviceId, Verdict, VolumeIdentity};
use holdfast_storage_io::IoError;
use holdfast_storage_io::root::Root;

use crate::identity::{self, IdentityError};
use crate::judge::Owner;
use crate::mount::Mounted;
use crate::places;
use crate::spec::VolumeSpec;

/// The directory that may be made when there is none.
const FIRST: &str = "volume-0";

/// Why a directory volume was not used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The configuration does not say where the directories are.
    #[error("volume kind directory needs volume.path")]
    NoPath,
    /// It holds something.
    #[error("directory {} is not blank but {verdict}", path.display())]
    NotBlank {
        /// The directory.
        path: PathBuf,
        /// What it is.
        verdict: Verdict,
    },
    /// The mount point is no symbolic link.
    #[error("{} is in the way: for volume kind directory it becomes a symbolic link", target.display())]
    InTheWay {
        /// The mount point.
        target: PathBuf,
    },
    /// The link cannot be made or removed.
    #[error("{op} {}", target.display())]
    Link {
        /// What was being done.
        op: &'static str,
        /// The mount point.
        target: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The identity record cannot be used.
    #[error("identify directory")]
    Identity(#[from] IdentityError),
    /// The file system does not answer as it should.
    #[error("access directory")]
    Io(#[from] IoError),
}

/// Every volume directory, in order of name.
///
/// # Errors
/// [`DirectoryError::NoPath`] or `Io`.
pub fn candidates(spec: &VolumeSpec) -> Result<Vec<PathBuf>, DirectoryError> {
    let parent = spec.path.as_deref().ok_or(DirectoryError::NoPath)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent).map_err(IoError::at("list", parent))? {
        let entry = entry.map_err(IoError::at("list", parent))?;
        if entry.file_type().map_err(IoError::at("look at", parent))?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(if found.is_empty() { vec![parent.join(FIRST)] } else { found })
}

/// Says what the directory at `path` is to this node, and the identity of a volume of ours.
#[must_use]
pub fn probe(path: &Path, owner: &Owner) -> (DeviceId, Verdict, Option<VolumeIdentity>) {
    let (verdict, identity) = match judge(path, owner) {
        Ok(judged) => judged,
        Err(err) => (Verdict::Sick { why: format!("{err}: {}", err.source) }, None),
    };
    (device(path), verdict, identity)
}

fn judge(path: &Path, owner: &Owner) -> Result<(Verdict, Option<VolumeIdentity>), IoError> {
    let root = match Root::open(path) {
        Ok(root) => root,
        Err(err) if err.is_not_found() => {
            let may_be_made = path.file_name().is_some_and(|name| name == FIRST);
            let why = format!("{} is not there", path.display());
            return Ok((if may_be_made { Verdict::Blank } else { Verdict::Gone { why } }, None));
        }
        Err(err) => return Err(err),
    };
    Ok(match identity::read(&root) {
        Ok(found) if identity::check(&found, &owner.cluster, &owner.node).is_ok() => {
            (Verdict::Ours { fs_uuid: found.fs_uuid }, Some(found))
        }
        Ok(found) => {
            (Verdict::Theirs { owner: format!("node {} of cluster {}", found.node, found.cluster) }, None)
        }
        Err(IdentityError::Missing { .. }) => match places::strangers(&root)?.first() {
            None => (Verdict::Blank, None),
            Some(found) => (Verdict::Foreign { why: format!("holds {}", found.display()) }, None),
        },
        Err(err) => (Verdict::Foreign { why: err.to_string() }, None),
    })
}

/// Makes a volume of a blank directory.
///
/// # Errors
/// [`DirectoryError`].
pub fn format(
    spec: &VolumeSpec,
    path: &Path,
    mut identity: VolumeIdentity,
) -> Result<VolumeIdentity, DirectoryError> {
    let owner = Owner { cluster: spec.cluster.clone(), node: spec.node.clone() };
    let (device, verdict, _) = probe(path, &owner);
    if verdict != Verdict::Blank {
        return Err(DirectoryError::NotBlank { path: path.to_owned(), verdict });
    }
    std::fs::create_dir_all(path).map_err(IoError::at("make directory", path))?;
    let root = Root::open(path)?;
    identity.serials = vec![device.serial];
    places::ensure(&root, &spec.engine, spec.access)?;
    identity::write(&root, &identity)?;
    let (uid, gid) = (spec.access.daemon_uid, spec.access.daemon_gid);
    places::give(&root, Path::new(places::IDENTITY), uid, gid)?;
    Ok(identity)
}

/// Points the mount point at a volume of ours.
///
/// # Errors
/// [`DirectoryError`].
pub fn mount(spec: &VolumeSpec, path: &Path) -> Result<Mounted, DirectoryError> {
    let root = Root::open(path)?;
    let identity = identity::read(&root)?;
    identity::check(&identity, &spec.cluster, &spec.node)?;
    places::ensure(&root, &spec.engine, spec.access)?;
    let link = |op| move |source| DirectoryError::Link { op, target: spec.mount.clone(), source };
    let current = current(&spec.mount)?;
    if current.as_deref() != Some(path) {
        let mut temporary = spec.mount.as_os_str().to_owned();
        temporary.push(".new");
        match std::fs::remove_file(&temporary) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(link("replace")(err)),
            Ok(()) | Err(_) => {}
        }
        std::os::unix::fs::symlink(path, &temporary).map_err(link("link"))?;
        std::fs::rename(&temporary, &spec.mount).map_err(link("link"))?;
    }
    Ok(Mounted { root, device: device(path), identity })
}

/// Where the mount point points.
///
/// # Errors
/// [`DirectoryError::InTheWay`] if it is no symbolic link.
pub fn current(target: &Path) -> Result<Option<PathBuf>, DirectoryError> {
    match std::fs::read_link(target) {
        Ok(path) => Ok(Some(path)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(_) => Err(DirectoryError::InTheWay { target: target.to_owned() }),
    }
}

/// Takes the link away; none there is fine.
///
/// # Errors
/// [`DirectoryError`].
pub fn unmount(target: &Path) -> Result<(), DirectoryError> {
    if current(target)?.is_some() {
        std::fs::remove_file(target).map_err(|source| DirectoryError::Link {
            op: "unlink",
            target: target.to_owned(),
            source,
        })?;
    }
    Ok(())
}

fn device(path: &Path) -> DeviceId {
    let size = nix::sys::statvfs::statvfs(path).map_or(0, |s| s.blocks().saturating_mul(s.fragment_size()));
    DeviceId {
        path: path.to_owned(),
        model: "directory".to_owned(),
        serial: path.display().to_string(),
        diskseq: 0,
        size: ByteCount::new(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::example;
    use crate::spec::Access;
    use holdfast_model::volume::{Filesystem, VolumeKind};

    fn spec(dir: &Path) -> VolumeSpec {
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        VolumeSpec {
            kind: VolumeKind::Directory,
            devices: vec![],
            models: vec![],
            serials: vec![],
            path: Some(dir.to_owned()),
            mount: dir.join("mnt"),
            filesystem: Filesystem::Xfs,
            cluster: "orders".parse().unwrap(),
            node: "n1".parse().unwrap(),
            zone: "eu-1a".parse().unwrap(),
            engine: "postgres".to_owned(),
            access: Access { daemon_uid: uid, daemon_gid: gid, engine_uid: uid, engine_gid: gid },
            token_dir: dir.join("tokens"),
        }
    }

    fn owner() -> Owner {
        Owner { cluster: "orders".parse().unwrap(), node: "n1".parse().unwrap() }
    }

    #[test]
    fn an_empty_directory_is_blank_and_becomes_a_volume() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path());
        let path = candidates(&spec).unwrap().remove(0);
        assert_eq!(path, dir.path().join("volume-0"));
        assert_eq!(probe(&path, &owner()).1, Verdict::Blank);
        format(&spec, &path, example()).unwrap();
        assert_eq!(probe(&path, &owner()).1.word(), "ours");
        let other = Owner { node: "n2".parse().unwrap(), ..owner() };
        assert_eq!(probe(&path, &other).1.word(), "theirs");
        assert!(matches!(format(&spec, &path, example()), Err(DirectoryError::NotBlank { .. })));
    }

    #[test]
    fn a_directory_with_anything_in_it_is_foreign() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("letter"), "dear").unwrap();
        assert_eq!(probe(&path, &owner()).1.word(), "foreign");
        assert!(format(&spec(dir.path()), &path, example()).is_err());
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn an_interrupted_format_is_finished_by_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path());
        let path = dir.path().join("volume-0");
        std::fs::create_dir_all(path.join(".holdfast")).unwrap();
        std::fs::write(path.join(".holdfast/identity.new"), "HL").unwrap();
        assert_eq!(probe(&path, &owner()).1, Verdict::Blank);
        format(&spec, &path, example()).unwrap();
    }

    #[test]
    fn mounting_twice_is_fine_and_unmounting_takes_the_link_away() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path());
        let path = dir.path().join("volume-0");
        format(&spec, &path, example()).unwrap();
        for _ in 0..2 {
            mount(&spec, &path).unwrap();
            assert!(spec.mount.join("pgdata").is_dir());
        }
        for _ in 0..2 {
            unmount(&spec.mount).unwrap();
            assert!(!spec.mount.exists());
        }
        std::fs::create_dir(&spec.mount).unwrap();
        assert!(matches!(mount(&spec, &path), Err(DirectoryError::InTheWay { .. })));
    }
}
