//! What the agent must remember across its own restarts: one framed file per kind in `state_dir/ledger`.
//!
//! Invariants, each a test below:
//! * `a_record_is_whole_or_absent`: written aside, fsynced, renamed, directory fsynced.
//! * `a_damaged_record_is_moved_aside_and_forgotten`: a lost ledger is rebuilt by observing.
//!
//! Persist before effect: callers store a record before the action that it announces. Never on the data volume.
//!
//! Not here: identity, promise and [`crate::data`], which live and die with the volume.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use holdfast_model::record::{self, RecordKind};
use holdfast_model::{ClusterId, Incarnation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::chain::Chain;

/// One kind of record: its file name and its frame.
pub trait Record: Serialize + DeserializeOwned {
    /// The file in `state_dir/ledger`.
    const FILE: &'static str;
    /// The frame.
    const KIND: RecordKind;
}

macro_rules! records {
    ($($type:ident = $file:literal, $tag:literal;)*) => {
        $(impl Record for $type {
            const FILE: &'static str = $file;
            const KIND: RecordKind = RecordKind { tag: *$tag, version: 1, name: $file };
        })*
    };
}

records! {
    BootstrapRequest = "bootstrap-request", b"breq";
    FoundedCluster = "founded-cluster", b"fcls";
    EngineHeld = "engine-held", b"ehld";
    CurrentVolume = "current-volume", b"cvol";
    RestoreOrder = "restore-order", b"rord";
}

/// An operator asked, once, for a new cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapRequest {
    /// When, for people.
    pub at: String,
    /// The id that the cluster shall have; a fresh one when none was asked for.
    pub cluster: Option<ClusterId>,
}

/// The id that bootstrap drew for its cluster; stored before anything carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundedCluster {
    /// The cluster.
    pub cluster: ClusterId,
    /// The bootstrap's attempt id, which its promise carries.
    #[serde(with = "holdfast_model::hex128")]
    pub attempt: u128,
    /// When, RFC 3339, for people; the repository's record carries it too.
    pub created: String,
}

/// An operator stopped the engine; it stays so until told otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineHeld {
    /// When, for people.
    pub at: String,
}

/// The volume that this node lives on. Another volume of ours that turns up is an abandoned one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentVolume {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The one before, while the new one is only being made: until then that one still counts.
    pub before: Option<Incarnation>,
}

impl CurrentVolume {
    /// Notes, before anything is written to a device, that a new incarnation is being made.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn begin(ledger: &Ledger, incarnation: Incarnation) -> Result<(), LedgerError> {
        let before = ledger.load::<Self>()?.map(|current| current.before.unwrap_or(current.incarnation));
        ledger.store(&Self { incarnation, before })
    }

    /// Whether this node may live on a volume of that incarnation.
    #[must_use]
    pub fn may_be(&self, incarnation: Incarnation) -> bool {
        self.incarnation == incarnation || self.before == Some(incarnation)
    }
}

/// An operator ordered this node to be restored from the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreOrder {
    /// When, for people.
    pub at: String,
    /// Which backup; the newest when none is named.
    pub backup: Option<String>,
}

/// Why the ledger could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{operation} ledger record {}", path.display())]
pub struct LedgerError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The directory of records.
#[derive(Debug, Clone)]
pub struct Ledger {
    dir: PathBuf,
}

impl Ledger {
    /// Opens the ledger below `state_dir`, making its directory.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, LedgerError> {
        let dir = state_dir.join("ledger");
        fs::create_dir_all(&dir).map_err(|source| LedgerError {
            operation: "create",
            path: dir.clone(),
            source,
        })?;
        Ok(Self { dir })
    }

    fn path<R: Record>(&self) -> PathBuf {
        self.dir.join(R::FILE)
    }

    /// The record, if there is a whole one.
    ///
    /// # Errors
    /// When the file cannot be read; a damaged one is moved aside and counts as none.
    pub fn load<R: Record>(&self) -> Result<Option<R>, LedgerError> {
        let path = self.path::<R>();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LedgerError { operation: "read", path, source }),
        };
        match record::decode(R::KIND, &bytes) {
            Ok(value) => Ok(Some(value)),
            Err(err) => {
                warn!(path = %path.display(), error = %Chain(&err), "ledger record not readable, moved aside");
                let aside = path.with_extension("damaged");
                fs::rename(&path, aside).map_err(|source| LedgerError {
                    operation: "move aside",
                    path,
                    source,
                })?;
                Ok(None)
            }
        }
    }

    /// Stores a record; when this returns, it survives a power loss.
    ///
    /// # Errors
    /// When it cannot be written; the old record, if any, is then still whole.
    pub fn store<R: Record>(&self, value: &R) -> Result<(), LedgerError> {
        let path = self.path::<R>();
        let wrap = |source| LedgerError { operation: "write", path: path.clone(), source };
        let aside = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&aside)?;
            file.write_all(&record::encode(R::KIND, value))?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(wrap)
    }

    /// Forgets a record; an absent one is fine.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget<R: Record>(&self) -> Result<(), LedgerError> {
        let path = self.path::<R>();
        let remove = || -> io::Result<()> {
            match fs::remove_file(&path) {
                Ok(()) => File::open(&self.dir)?.sync_all(),
                Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(err) => Err(err),
            }
        };
        remove().map_err(|source| LedgerError { operation: "remove", path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.load::<EngineHeld>().unwrap(), None);
        let held = EngineHeld { at: "now".into() };
        ledger.store(&held).unwrap();
        // A crash while the next one is being written leaves only its unfinished file beside.
        fs::write(dir.path().join("ledger/engine-held.new"), b"HLD").unwrap();
        assert_eq!(ledger.load::<EngineHeld>().unwrap(), Some(held));
        ledger.forget::<EngineHeld>().unwrap();
        ledger.forget::<EngineHeld>().unwrap();
        assert_eq!(ledger.load::<EngineHeld>().unwrap(), None);
    }

    #[test]
    fn a_damaged_record_is_moved_aside_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.store(&EngineHeld { at: "now".into() }).unwrap();
        let path = dir.path().join("ledger/engine-held");
        let mut bytes = fs::read(&path).unwrap();
        bytes[25] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(ledger.load::<EngineHeld>().unwrap(), None);
        assert!(path.with_extension("damaged").exists());
    }
}
