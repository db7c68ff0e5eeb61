//! What the agent must remember across its own restarts: one framed file per kind in `state_dir/ledger`.
//!
//! Invariants, each a test below:
//! * `a_record_is_whole_or_absent`: written aside, fsynced, renamed, directory fsynced.
//! * `a_damaged_record_is_moved_aside_and_forgotten`: a lost ledger is rebuilt by observing.
//! * `a_record_is_read_from_its_file_once`: the loops ask each second, and get a copy.
//! * `a_record_that_could_not_be_written_is_as_it_was`: the copy never says what the file does not.
//! * `what_another_program_writes_is_seen`.
//!
//! Persist before effect: callers store a record before the action that it announces. Never on the data volume.
//!
//! Not here: identity, promise and [`crate::data`], which live and die with the volume.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_model::record::{self, RecordKind};
use holdfast_model::{ClusterId, Incarnation, Vouch};
use holdfast_replication::account::LossCertificate;
use holdfast_storage_io::IoError;
use holdfast_storage_io::root::Root;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::chain::Chain;

/// Larger records are none of ours.
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// Readable by the daemon also when root wrote it; the directory is the daemon's alone.
const RECORD_MODE: u32 = 0o644;

/// One kind of record: its file name and its frame.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + 'static {
    /// The file in `state_dir/ledger`; no other kind has the same.
    const FILE: &'static str;
    /// The frame.
    const KIND: RecordKind;
    /// Who writes it while the daemon runs.
    const WRITERS: Writers = Writers::Daemon;
}

/// Who writes a kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// The daemon alone: what it wrote last is what is there.
    Daemon,
    /// Other programs too: only the file says what is there.
    Others,
}

macro_rules! records {
    ($($type:ident = $file:literal, $tag:literal, $writers:ident;)*) => {
        $(impl Record for $type {
            const FILE: &'static str = $file;
            const KIND: RecordKind = RecordKind { tag: *$tag, version: 1, name: $file };
            const WRITERS: Writers = Writers::$writers;
        })*
    };
}

records! {
    // `holdfastd bootstrap` writes it.
    BootstrapRequest = "bootstrap-request", b"breq", Others;
    FoundedCluster = "founded-cluster", b"fcls", Daemon;
    EngineHeld = "engine-held", b"ehld", Daemon;
    CurrentVolume = "current-volume", b"cvol", Daemon;
    RestoreOrder = "restore-order", b"rord", Daemon;
    Vouched = "vouched", b"vchd", Daemon;
    NewReign = "new-reign", b"nrgn", Daemon;
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

/// The last word that was taken in place of votes: what it allows happens once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouched {
    /// The call that carried it.
    pub request: String,
    /// The word.
    pub vouch: Vouch,
}

/// How the newest reign came about that this node coordinated, was promoted in, or was asked about. Only to be shown: the rule
/// is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewReign {
    /// On what it was decided.
    pub loss: LossCertificate,
}

/// Why the ledger could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{operation} ledger {}", path.display())]
pub struct LedgerError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: IoError,
}

/// The directory of records. Cheap to clone; clones share their copies.
#[derive(Debug, Clone)]
pub struct Ledger {
    root: Root,
    copies: Arc<Mutex<Copies>>,
}

/// What is known to be in each file, by its name; a file that is not named here is read when somebody asks.
type Copies = BTreeMap<&'static str, Option<Box<dyn Any + Send>>>;

fn copy<R: Record>(record: Option<&R>) -> Option<Box<dyn Any + Send>> {
    record.map(|record| -> Box<dyn Any + Send> { Box::new(record.clone()) })
}

impl Ledger {
    /// Opens the ledger below `state_dir`, making its directory.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, LedgerError> {
        let dir = state_dir.join("ledger");
        fs::create_dir_all(&dir)
            .map_err(IoError::at("create", &dir))
            .and_then(|()| Root::open(&dir))
            .map(|root| Self { root, copies: Arc::default() })
            .map_err(|source| LedgerError { operation: "open", path: dir, source })
    }

    /// The record, if there is a whole one.
    ///
    /// # Errors
    /// When the file cannot be read; a damaged one is moved aside and counts as none.
    pub fn load<R: Record>(&self) -> Result<Option<R>, LedgerError> {
        let mut copies = self.copies();
        if let (Writers::Daemon, Some(copy)) = (R::WRITERS, copies.get(R::FILE)) {
            let typed = |copy: &Box<dyn Any + Send>| copy.downcast_ref::<R>().cloned();
            return Ok(copy.as_ref().map(|copy| typed(copy).expect("a file name belongs to one kind")));
        }
        let found = self.read::<R>()?;
        copies.insert(R::FILE, copy(found.as_ref()));
        Ok(found)
    }

    fn read<R: Record>(&self) -> Result<Option<R>, LedgerError> {
        let file = Path::new(R::FILE);
        let Some(bytes) = self.root.read(file, RECORD_BYTES_MAX).map_err(self.failed::<R>("read"))? else {
            return Ok(None);
        };
        match record::decode(R::KIND, &bytes) {
            Ok(value) => Ok(Some(value)),
            Err(err) => {
                let path = self.path::<R>();
                warn!(path = %path.display(), error = %Chain(&err), "ledger record not readable, moved aside");
                let aside = file.with_extension("damaged");
                self.root.rename(file, &aside).map_err(self.failed::<R>("move aside"))?;
                Ok(None)
            }
        }
    }

    /// Stores a record; when this returns, it survives a power loss.
    ///
    /// # Errors
    /// When it cannot be written; the old record, if any, is then still whole.
    pub fn store<R: Record>(&self, value: &R) -> Result<(), LedgerError> {
        let bytes = record::encode(R::KIND, value);
        let write = || self.root.replace(Path::new(R::FILE), &bytes, RECORD_MODE);
        self.change("write", Some(value), write)
    }

    /// Forgets a record; an absent one is fine.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget<R: Record>(&self) -> Result<(), LedgerError> {
        if self.load::<R>()?.is_none() {
            return Ok(());
        }
        let remove =
            || self.root.remove_file(Path::new(R::FILE)).and_then(|()| self.root.sync_dir(Path::new("")));
        self.change("remove", None::<&R>, remove)
    }

    /// The copy is changed when the file is. After a failure nobody knows which of the two states the file is in, so
    /// that there is no copy and the next to ask reads it. Two changes at once happen one after the other.
    fn change<R: Record>(
        &self,
        operation: &'static str,
        becomes: Option<&R>,
        effect: impl FnOnce() -> Result<(), IoError>,
    ) -> Result<(), LedgerError> {
        let mut copies = self.copies();
        copies.remove(R::FILE);
        effect().map_err(self.failed::<R>(operation))?;
        copies.insert(R::FILE, copy(becomes));
        Ok(())
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path<R: Record>(&self) -> PathBuf {
        self.root.name().join(R::FILE)
    }

    fn failed<R: Record>(&self, operation: &'static str) -> impl FnOnce(IoError) -> LedgerError {
        let path = self.path::<R>();
        move |source| LedgerError { operation, path, source }
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
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.load::<EngineHeld>().unwrap(), None);
        assert!(path.with_extension("damaged").exists());
    }

    #[test]
    fn a_record_is_read_from_its_file_once() {
        let dir = tempfile::tempdir().unwrap();
        let held = EngineHeld { at: "now".into() };
        Ledger::open(dir.path()).unwrap().store(&held).unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.load().unwrap(), Some(held.clone()));
        fs::remove_file(dir.path().join("ledger/engine-held")).unwrap();
        assert_eq!(ledger.clone().load().unwrap(), Some(held), "a clone has the same copy");
    }

    #[test]
    fn a_record_that_could_not_be_written_is_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let held = EngineHeld { at: "now".into() };
        ledger.store(&held).unwrap();
        // Where the new file would be written there is something that cannot be written to.
        let in_the_way = dir.path().join("ledger/engine-held.new");
        fs::create_dir(&in_the_way).unwrap();
        ledger.store(&EngineHeld { at: "later".into() }).unwrap_err();
        assert_eq!(ledger.load().unwrap(), Some(held));
        fs::remove_dir(in_the_way).unwrap();
        let later = EngineHeld { at: "later".into() };
        ledger.store(&later).unwrap();
        assert_eq!(ledger.load().unwrap(), Some(later.clone()));
        assert_eq!(Ledger::open(dir.path()).unwrap().load().unwrap(), Some(later));
    }

    #[test]
    fn what_another_program_writes_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, command) = (Ledger::open(dir.path()).unwrap(), Ledger::open(dir.path()).unwrap());
        assert_eq!(daemon.load::<BootstrapRequest>().unwrap(), None);
        let request = BootstrapRequest { at: "now".into(), cluster: None };
        command.store(&request).unwrap();
        assert_eq!(daemon.load().unwrap(), Some(request));
        daemon.forget::<BootstrapRequest>().unwrap();
        assert_eq!(command.load::<BootstrapRequest>().unwrap(), None);
    }
}
