//! The engine's copies of the node's certificate files.
//!
//! Postgres reads them as its own user, and its key must be its own and closed to everybody else; the files of `[tls]`
//! are the daemon's. So they are copied: read with the daemon's rights, so that a link in their place leads to nothing
//! that the daemon could not read itself, checked, and only then written, each whole or not at all.
//!
//! Certificate and key are two files, so an engine that reads between the two renames may find a pair that does not fit: it
//! then keeps the pair that it has (SIGHUP), or does not start and is started again.
//!
//! Invariants, each a test in `tests/supervisor/certificates.rs`:
//! * `the_engine_serves_with_its_copies_of_the_nodes_certificate`.
//! * `a_key_of_another_certificate_replaces_nothing`.
//! * `the_helper_copies_nothing_that_the_daemon_may_not_read`.
//!
//! Not here: when to copy. See [`crate::daemon`].

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use holdfast_storage_io::IoError;
use holdfast_storage_io::root::Root;
use nix::fcntl::OFlag;
use nix::unistd::fchown;
use serde::{Deserialize, Serialize};

use crate::child::rights::with_rights_of;
use crate::child::spec::RunAs;
use crate::config::TlsConfig;
use crate::tls::TlsError;
use crate::tls::files::Contents;

/// Name of the authorities' file.
pub(crate) const CA: &str = "ca.pem";
/// Name of the certificate's file.
pub(crate) const CERT: &str = "cert.pem";
/// Name of the key's file.
pub(crate) const KEY: &str = "key.pem";

const DIR_MODE: u32 = 0o755;
const OPEN_MODE: u32 = 0o644;
/// Postgres refuses a key that others may read ("Secure TCP/IP Connections with SSL" in its documentation).
const KEY_MODE: u32 = 0o600;

/// From where, to where, for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InstallTls {
    pub(super) ca: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    /// With whose rights they are read; none without root.
    pub(super) read_as: Option<RunAs>,
    pub(super) dir: PathBuf,
    /// Whose the key becomes; none without root.
    pub(super) owner: Option<(u32, u32)>,
}

/// Why nothing, or not everything, was installed.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    #[error("take the daemon's rights")]
    Rights(#[source] nix::Error),
    #[error("use the certificates of [tls]")]
    Files(#[source] TlsError),
    #[error("prepare {}", dir.display())]
    Folder {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write the engine's certificates")]
    Write(#[source] IoError),
}

/// One file as it should be.
struct Wanted<'a> {
    name: &'static str,
    bytes: &'a [u8],
    mode: u32,
    owner: Option<(u32, u32)>,
}

impl InstallTls {
    /// Whether a file was replaced.
    pub(super) fn run(&self) -> Result<bool, InstallError> {
        let files = TlsConfig { ca: self.ca.clone(), cert: self.cert.clone(), key: self.key.clone() };
        let read = with_rights_of(self.read_as.as_ref(), || Contents::read(&files));
        let contents = read.map_err(InstallError::Rights)?.map_err(InstallError::Files)?;
        contents.check(&files).map_err(InstallError::Files)?;
        let folder = |source| InstallError::Folder { dir: self.dir.clone(), source };
        make_folders(&self.dir, self.owner.is_some()).map_err(folder)?;
        self.write(&contents).map_err(InstallError::Write)
    }

    fn write(&self, contents: &Contents) -> Result<bool, IoError> {
        let root = Root::open(&self.dir)?;
        let (ca, cert, key) = contents.pem();
        let wanted = [
            Wanted { name: CA, bytes: ca, mode: OPEN_MODE, owner: None },
            Wanted { name: CERT, bytes: cert, mode: OPEN_MODE, owner: None },
            Wanted { name: KEY, bytes: key, mode: KEY_MODE, owner: self.owner },
        ];
        let mut changed = false;
        for wanted in wanted {
            if !wanted.is_there(&root)? {
                wanted.put(&root)?;
                changed = true;
            }
        }
        Ok(changed)
    }
}

/// The folder and, as root, the one above it, which are both root's.
fn make_folders(dir: &Path, as_root: bool) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    // The mask of whoever started the agent may have closed them to the engine's user.
    if let Some(parent) = dir.parent().filter(|_| as_root) {
        fs::set_permissions(parent, Permissions::from_mode(DIR_MODE))?;
    }
    fs::set_permissions(dir, Permissions::from_mode(DIR_MODE))
}

impl Wanted<'_> {
    fn is_there(&self, root: &Root) -> Result<bool, IoError> {
        let path = Path::new(self.name);
        let file = match root.open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0) {
            Ok(file) => file,
            Err(err) if err.is_not_found() => return Ok(false),
            Err(err) => return Err(err),
        };
        let found = file.metadata().map_err(IoError::at("look at", path))?;
        let as_wanted = found.len() == self.bytes.len() as u64
            && found.mode() & 0o7777 == self.mode
            && self.owner.is_none_or(|owner| owner == (found.uid(), found.gid()));
        Ok(as_wanted && root.read(path, found.len())?.as_deref() == Some(self.bytes))
    }

    /// Nobody else can open it between any two steps.
    fn put(&self, root: &Root) -> Result<(), IoError> {
        let temporary = format!("{}.new", self.name);
        let temporary = Path::new(&temporary);
        root.remove_file(temporary)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut file = root.open_file(temporary, flags, 0o600)?;
        if let Some((uid, gid)) = self.owner {
            fchown(file.as_fd(), Some(uid.into()), Some(gid.into()))
                .map_err(IoError::at("set owner of", temporary))?;
        }
        file.set_permissions(Permissions::from_mode(self.mode))
            .map_err(IoError::at("set mode of", temporary))?;
        io::Write::write_all(&mut file, self.bytes).map_err(IoError::at("write", temporary))?;
        file.sync_all().map_err(IoError::at("sync", temporary))?;
        root.rename(temporary, Path::new(self.name))?;
        root.sync_dir(Path::new(""))
    }
}
