//! The `volume` worker: small things on the mounted volume, one at a time, each durable when it is answered.
//!
//! It holds the volume open, so it must have ended before an unmount. While one verb hangs on a stalled disk the next ones
//! wait in the channel: the daemon runs one of these for probing and another for everything else.
//!
//! Invariants, each a test below:
//! * `what_was_answered_is_on_the_volume`.
//! * `nothing_is_read_or_written_below_a_mount_point_without_its_volume`.
//! * `a_lost_promise_is_told_apart_from_a_disk_that_fails`.
//!
//! Not here: deadlines and lateness. See [`super::VolumeWorker`].

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_model::record::{self, RecordError};
use holdfast_model::volume::{Space, VolumeIdentity};
use holdfast_model::{ByteCount, ClusterId, ClusterName, NodeName, Promise};
use holdfast_storage::identity::{self, IdentityError};
use holdfast_storage::promise::{self, PromiseError};
use holdfast_storage::space;
use holdfast_storage::watch::ProbeFile;
use holdfast_storage_io::IoError;
use holdfast_storage_io::root::Root;
use serde::{Deserialize, Serialize};

use super::Greeting;
use crate::chain::Chain;
use crate::data::{DATA_RECORD, DataRecord};
use crate::helper::wire::{Channel, WireError};

/// Where the data record is on the volume.
pub const DATA: &str = ".holdfast/data";
const DATA_BYTES_MAX: u64 = 64 << 10;
const DATA_MODE: u32 = 0o600;

/// The volume that this worker is for; the helper tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePlace {
    /// Root of the mounted volume.
    pub mount: PathBuf,
    /// Whether that must be a mount point; not so for kind `directory`.
    pub must_be_mounted: bool,
    /// Size of the reserve, and the free space below which the volume counts as nearly full.
    pub reserve: ByteCount,
    /// Whose volume it must be: the cluster.
    pub cluster: ClusterName,
    /// Whose volume it must be: the machine.
    pub node: NodeName,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeRequest {
    /// Repeated in the reply.
    pub id: u64,
    /// What to do.
    pub verb: VolumeVerb,
}

/// What the worker does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeVerb {
    /// Reads the identity and checks that it is this node's.
    Identity,
    /// Binds the volume to a cluster, for good.
    Bind(ClusterId),
    /// Reads the newest promise of the volume with this identity.
    Promise(VolumeIdentity),
    /// Persists a promise on the volume with this identity.
    PersistPromise {
        /// Read again first, and compared.
        identity: VolumeIdentity,
        /// It never goes down.
        promise: Promise,
    },
    /// Reads the record about the data directory.
    Data,
    /// Writes it.
    WriteData(DataRecord),
    /// Overwrites a block of the device.
    Probe,
    /// Free space; an answer proves nothing about the device.
    Space,
    /// Allocates the reserve.
    Reserve,
    /// Gives the reserve back.
    ReleaseReserve,
}

/// One reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeReply {
    /// The request's.
    pub id: u64,
    /// What came of it.
    pub result: Result<VolumeAnswer, VolumeFailure>,
}

/// What came of a verb.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeAnswer {
    /// Of [`VolumeVerb::Identity`] and [`VolumeVerb::Bind`].
    Identity(Box<VolumeIdentity>),
    /// Of [`VolumeVerb::Promise`]; none only on a volume that belongs to no cluster yet.
    Promise(Option<Promise>),
    /// Of [`VolumeVerb::Data`]; none on a volume without data.
    Data(Option<DataRecord>),
    /// Of [`VolumeVerb::Space`].
    Space(Space),
    /// Of everything else.
    Done,
}

/// Why a verb failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum VolumeFailure {
    /// The mount point is just a directory.
    #[error("volume is not mounted at {}", mount.display())]
    NotMounted {
        /// The directory.
        mount: PathBuf,
    },
    /// The identity is missing, damaged, another one's, or changed.
    #[error("{why}")]
    Identity {
        /// Which of these.
        why: String,
    },
    /// Neither slot holds the promise of a volume that belongs to a cluster: this member is lost.
    #[error("{why}")]
    PromiseLost {
        /// What is wrong with the slots.
        why: String,
    },
    /// The promise goes down, or is another's.
    #[error("{why}")]
    PromiseRefused {
        /// Which.
        why: String,
    },
    /// The data record is damaged or too new.
    #[error("{why}")]
    DataRecord {
        /// How.
        why: String,
    },
    /// The disk failed. On a write nothing on it is trusted until it was remounted and verified.
    #[error("{why}")]
    Disk {
        /// The chain of causes.
        why: String,
        /// The kernel's number, e.g. 5 for `EIO`.
        errno: Option<i32>,
    },
}

impl From<IoError> for VolumeFailure {
    fn from(err: IoError) -> Self {
        Self::Disk { errno: err.errno(), why: Chain(&err).to_string() }
    }
}

impl From<IdentityError> for VolumeFailure {
    fn from(err: IdentityError) -> Self {
        match err {
            IdentityError::Io(err) => err.into(),
            IdentityError::Missing { .. }
            | IdentityError::Record { .. }
            | IdentityError::SomebodyElses { .. }
            | IdentityError::OtherCluster { .. }
            | IdentityError::Changed { .. } => Self::Identity { why: Chain(&err).to_string() },
        }
    }
}

impl From<PromiseError> for VolumeFailure {
    fn from(err: PromiseError) -> Self {
        match err {
            PromiseError::Io(err) => err.into(),
            PromiseError::Identity(err) => err.into(),
            PromiseError::Lost { .. } => Self::PromiseLost { why: err.to_string() },
            PromiseError::OtherMember { .. }
            | PromiseError::Lower { .. }
            | PromiseError::OtherAttempt { .. } => Self::PromiseRefused { why: err.to_string() },
        }
    }
}

impl From<RecordError> for VolumeFailure {
    fn from(err: RecordError) -> Self {
        Self::DataRecord { why: Chain(&err).to_string() }
    }
}

/// Serves one daemon until its end of the channel closes.
///
/// # Errors
/// When the channel fails; its end is no failure.
pub fn serve(channel: &Channel) -> Result<(), WireError> {
    match serve_until_closed(channel) {
        Err(WireError::Closed) => Ok(()),
        other => other,
    }
}

fn serve_until_closed(channel: &Channel) -> Result<(), WireError> {
    let (place, _) = channel.receive::<VolumePlace>()?;
    let mut volume = Volume { place, open: None, probe: None };
    channel.send(&Greeting::Ready, None)?;
    loop {
        let (request, _) = channel.receive::<VolumeRequest>()?;
        let result = volume.perform(request.verb);
        channel.send(&VolumeReply { id: request.id, result }, None)?;
    }
}

struct Volume {
    place: VolumePlace,
    open: Option<Root>,
    probe: Option<ProbeFile>,
}

impl Volume {
    fn perform(&mut self, verb: VolumeVerb) -> Result<VolumeAnswer, VolumeFailure> {
        let root = self.root()?;
        match verb {
            VolumeVerb::Identity => {
                let identity = identity::read(&root)?;
                identity::check(&identity, &self.place.cluster, &self.place.node)?;
                return Ok(VolumeAnswer::Identity(Box::new(identity)));
            }
            VolumeVerb::Bind(cluster) => {
                return Ok(VolumeAnswer::Identity(Box::new(identity::bind(&root, &cluster)?)));
            }
            VolumeVerb::Promise(identity) => {
                return Ok(VolumeAnswer::Promise(promise::load(&root, &identity)?));
            }
            VolumeVerb::PersistPromise { identity, promise } => {
                promise::persist(&root, &identity, &promise)?;
            }
            VolumeVerb::Data => return Ok(VolumeAnswer::Data(read_data(&root)?)),
            VolumeVerb::WriteData(record) => {
                root.replace(Path::new(DATA), &record::encode(DATA_RECORD, &record), DATA_MODE)?;
            }
            VolumeVerb::Probe => self.probe(&root)?,
            VolumeVerb::Space => return Ok(VolumeAnswer::Space(space::measure(&root, self.place.reserve)?)),
            VolumeVerb::Reserve => space::reserve(&root, self.place.reserve)?,
            VolumeVerb::ReleaseReserve => space::release(&root)?,
        }
        Ok(VolumeAnswer::Done)
    }

    /// Opened once: what is mounted there later is another volume, for another worker.
    fn root(&mut self) -> Result<Root, VolumeFailure> {
        if let Some(root) = &self.open {
            return Ok(root.clone());
        }
        let mount = &self.place.mount;
        let dev = |path: &Path| Ok(path.metadata().map_err(IoError::at("look at", path))?.dev());
        let is_mount_point =
            |mount: &Path| -> Result<bool, IoError> { Ok(dev(mount)? != dev(&mount.join(".."))?) };
        if self.place.must_be_mounted && !is_mount_point(mount)? {
            return Err(VolumeFailure::NotMounted { mount: mount.clone() });
        }
        // The daemon's user may pass through the top directory to what it owns, not read it: `O_PATH` asks for no more.
        let flags = nix::libc::O_PATH | nix::libc::O_DIRECTORY;
        let top = OpenOptions::new().read(true).custom_flags(flags).open(mount);
        let top = top.map_err(IoError::at("open", mount))?;
        Ok(self.open.insert(Root::from_fd(top.into(), mount)).clone())
    }

    fn probe(&mut self, root: &Root) -> Result<(), VolumeFailure> {
        let probe = match &mut self.probe {
            Some(probe) => probe,
            None => self.probe.insert(ProbeFile::open(root)?),
        };
        Ok(probe.write().map_err(IoError::at("write probe on", root.name()))?)
    }
}

fn read_data(root: &Root) -> Result<Option<DataRecord>, VolumeFailure> {
    let Some(bytes) = root.read(Path::new(DATA), DATA_BYTES_MAX)? else { return Ok(None) };
    Ok(Some(record::decode(DATA_RECORD, &bytes)?))
}

#[cfg(test)]
mod tests {
    use holdfast_model::{Incarnation, Member, Term};

    use super::*;

    fn identity() -> VolumeIdentity {
        VolumeIdentity {
            cluster: "orders".parse().unwrap(),
            cluster_id: None,
            node: "n1".parse().unwrap(),
            incarnation: Incarnation::from_random(7),
            zone: "eu-1a".parse().unwrap(),
            engine: "postgres".to_owned(),
            serials: vec![],
            fs_uuid: uuid::Uuid::nil(),
            created: String::new(),
            boot_id: String::new(),
        }
    }

    fn volume() -> (tempfile::TempDir, Volume) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".holdfast")).unwrap();
        identity::write(&Root::open(dir.path()).unwrap(), &identity()).unwrap();
        let place = VolumePlace {
            mount: dir.path().to_owned(),
            must_be_mounted: false,
            reserve: ByteCount::mib(1),
            cluster: identity().cluster,
            node: identity().node,
        };
        (dir, Volume { place, open: None, probe: None })
    }

    #[test]
    fn what_was_answered_is_on_the_volume() {
        let (dir, mut volume) = volume();
        let cluster = ClusterId::new(identity().cluster, u128::MAX);
        let record = DataRecord::Initialising { cluster: cluster.clone(), attempt: u128::MAX };
        let promise = Promise {
            cluster: cluster.clone(),
            member: Member { node: identity().node, incarnation: identity().incarnation },
            max_term: Term::FIRST,
            attempt: u128::MAX,
        };
        for verb in [
            VolumeVerb::PersistPromise { identity: identity(), promise: promise.clone() },
            VolumeVerb::WriteData(record.clone()),
            VolumeVerb::Probe,
            VolumeVerb::Reserve,
        ] {
            assert_eq!(volume.perform(verb).unwrap(), VolumeAnswer::Done);
        }
        let bound = VolumeIdentity { cluster_id: Some(cluster.clone()), ..identity() };
        let answer = volume.perform(VolumeVerb::Bind(cluster)).unwrap();
        assert_eq!(answer, VolumeAnswer::Identity(Box::new(bound.clone())));
        let mut again = Volume {
            place: VolumePlace { mount: dir.path().into(), ..volume.place },
            open: None,
            probe: None,
        };
        let answer = again.perform(VolumeVerb::Promise(bound)).unwrap();
        assert_eq!(answer, VolumeAnswer::Promise(Some(promise)));
        assert_eq!(again.perform(VolumeVerb::Data).unwrap(), VolumeAnswer::Data(Some(record)));
    }

    #[test]
    fn nothing_is_read_or_written_below_a_mount_point_without_its_volume() {
        let (_dir, mut volume) = volume();
        volume.place.must_be_mounted = true;
        let refused = volume.perform(VolumeVerb::Identity);
        assert!(matches!(refused, Err(VolumeFailure::NotMounted { .. })), "{refused:?}");
    }

    #[test]
    fn a_lost_promise_is_told_apart_from_a_disk_that_fails() {
        let (dir, mut volume) = volume();
        let cluster = ClusterId::new(identity().cluster, 1);
        volume.perform(VolumeVerb::Bind(cluster.clone())).unwrap();
        let bound = VolumeIdentity { cluster_id: Some(cluster), ..identity() };
        let lost = volume.perform(VolumeVerb::Promise(bound));
        assert!(matches!(lost, Err(VolumeFailure::PromiseLost { .. })), "{lost:?}");
        std::fs::create_dir(dir.path().join(DATA)).unwrap();
        let failed = volume.perform(VolumeVerb::Data);
        assert!(matches!(failed, Err(VolumeFailure::Disk { errno: Some(_), .. })), "{failed:?}");
    }

    #[test]
    fn every_message_survives_the_channel() {
        let cluster = ClusterId::new(identity().cluster, u128::MAX);
        let record = DataRecord::Initialising { cluster, attempt: u128::MAX };
        let request = VolumeRequest { id: 1, verb: VolumeVerb::WriteData(record) };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<VolumeRequest>(&text).unwrap(), request);
    }
}
