//! The privileged verbs: what the root helper's one-shot children do.
//!
//! A [`Request`] carries the specification, which the helper takes from its own configuration, and the verb, which
//! comes from the daemon. Verbs that write say what the caller saw, and [`perform`] looks again: nothing is done to
//! a device that is not, by now, what was seen.
//!
//! Every verb may be repeated, and two at once exclude each other by claiming the device. A verb on a stalled disk
//! hangs; the helper abandons it. `ShutDown` alone is meant for that case: with the descriptor that was opened at
//! mount it does not touch the disk.
//!
//! Invariants: `tests/devices/ops.rs`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use holdfast_model::Incarnation;
use holdfast_model::volume::{DeviceId, DeviceVerdict, Verdict, VolumeIdentity, VolumeKind};
use holdfast_storage_io::IoError;
use holdfast_storage_io::ioctl;
use holdfast_storage_io::root::Root;
use serde::{Deserialize, Serialize};

use crate::beside;
use crate::directory::{self, DirectoryError};
use crate::discover::{self, Wanted};
use crate::format::{EraseError, FormatError};
use crate::identity::{self, IdentityError};
use crate::judge::Owner;
use crate::mount::{self, MountError, Mounted, Unmount};
use crate::mountinfo::Mounts;
use crate::probe::{self, Claimed, Context, Ours, Probed};
use crate::spec::VolumeSpec;
use crate::sysfs::Sysfs;
use crate::wipe::{TokenId, TokenStore, VALID_FOR_MS, WipeError, WipeToken};

/// One verb on the volume that `spec` wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// From the helper's own configuration.
    pub spec: VolumeSpec,
    /// From the daemon.
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// Look at every candidate. Writes nothing.
    Plan,
    /// Issue a wipe token for a device that holds something.
    OfferWipe {
        /// What was seen.
        seen: Seen,
        /// Wall clock, milliseconds since 1970.
        now_unix_ms: u64,
    },
    /// Format a device, mount it, and write its identity.
    Format(FormatOrder),
    /// Mount a volume of ours; one that is mounted already is completed.
    Mount {
        /// What was seen.
        seen: Seen,
    },
    /// Unmount what is at the mount point. The descriptor opened at mount must be closed first, unless lazily.
    Unmount {
        /// How.
        how: Unmount,
    },
    /// Shut the mounted file system down: every write fails from here on. Nothing to do for directories.
    ShutDown,
    /// Let the directory beside take the place of a data directory that is marked as replaced. Nothing runs on either.
    TakeBeside,
}

/// What the caller saw and means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Serial of the device.
    pub serial: String,
    /// Sequence number of its medium.
    pub diskseq: u64,
    /// The word of its verdict.
    pub verdict: String,
}

impl Seen {
    /// What a plan said about one device.
    #[must_use]
    pub fn of(device: &DeviceId, verdict: &Verdict) -> Self {
        Self { serial: device.serial.clone(), diskseq: device.diskseq, verdict: verdict.word().to_owned() }
    }
}

/// How and for whom to format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatOrder {
    /// What was seen.
    pub seen: Seen,
    /// 128 fresh random bits.
    pub incarnation: Incarnation,
    /// Wall clock in RFC 3339, for people.
    pub created: String,
    /// Why it may be written.
    pub consent: Consent,
}

/// Why a device may be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "consent", rename_all = "snake_case")]
pub enum Consent {
    /// It is blank.
    Blank,
    /// An operator looked at it and repeated the token.
    Wipe {
        /// The token.
        token: TokenId,
        /// Wall clock, milliseconds since 1970.
        now_unix_ms: u64,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// Every candidate, in order of preference.
    Planned {
        /// With what was found on it.
        devices: Vec<Planned>,
    },
    /// A wipe token was issued.
    WipeOffered {
        /// What to repeat.
        token: TokenId,
        /// For which device.
        device: DeviceId,
        /// Until when, milliseconds since 1970.
        expires_unix_ms: u64,
    },
    /// The volume is mounted. A descriptor of its top directory comes with this.
    Mounted {
        /// The device.
        device: DeviceId,
        /// Whose it is.
        identity: Box<VolumeIdentity>,
    },
    /// Nothing is mounted.
    Unmounted,
    /// The file system is shut down.
    ShutDown,
    /// The directory beside is the data directory, by this request or an earlier one.
    Taken,
}

/// One candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The device and what it is.
    #[serde(flatten)]
    pub found: DeviceVerdict,
    /// Of a volume of ours: what its stamp says; its cluster id is not known before it is mounted.
    pub identity: Option<Box<VolumeIdentity>>,
    /// Whether it is mounted where it belongs.
    pub mounted: bool,
}

/// A response, and the descriptor that goes with it.
#[derive(Debug)]
pub struct Outcome {
    /// The response.
    pub response: Response,
    /// With `Mounted`: the top directory. Whoever keeps it open can shut the file system down during a stall, and
    /// must close it before a plain unmount.
    pub root: Option<Root>,
}

/// Why a verb was not done.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// The system does not answer as it should.
    #[error("{op}")]
    System {
        /// What was being done.
        op: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No candidate has that serial and sequence number.
    #[error("no candidate device has serial {serial} and sequence number {diskseq} any more: look again")]
    NotThere {
        /// Asked for.
        serial: String,
        /// Asked for.
        diskseq: u64,
    },
    /// It is not what the caller saw.
    #[error("{device} was seen as {seen}, now it is {verdict}")]
    NotAsSeen {
        /// The device.
        device: Box<DeviceId>,
        /// What the caller saw.
        seen: String,
        /// What it is.
        verdict: Verdict,
    },
    /// What the caller saw does not allow the verb.
    #[error("{device} is {verdict}: cannot {verb} it")]
    NotAllowed {
        /// The device.
        device: Box<DeviceId>,
        /// What it is.
        verdict: Verdict,
        /// What was asked.
        verb: &'static str,
    },
    /// No randomness.
    #[error("read random bytes: {why}")]
    Random {
        /// What the kernel said.
        why: String,
    },
    /// Not formatted.
    #[error("format volume")]
    Format(#[from] FormatError),
    /// Not erased.
    #[error("erase device")]
    Erase(#[from] EraseError),
    /// No consent.
    #[error("use wipe token")]
    Wipe(#[from] WipeError),
    /// Not mounted or unmounted.
    #[error("change mount")]
    Mount(#[from] MountError),
    /// A directory volume.
    #[error("use directory volume")]
    Directory(#[from] DirectoryError),
    /// The directory beside did not take the place of the data directory.
    #[error("replace the data directory")]
    Beside(#[from] IoError),
    /// What is mounted is not this node's volume.
    #[error("look whose volume it is")]
    Volume {
        /// What it is.
        #[source]
        source: Box<IdentityError>,
    },
    /// Not shut down.
    #[error("shut down file system at {}", target.display())]
    ShutDown {
        /// The mount point.
        target: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Does what is asked. `held` is the descriptor that came with `Mounted`, for `ShutDown`.
///
/// # Errors
/// [`OpError`].
pub fn perform(request: &Request, held: Option<BorrowedFd<'_>>) -> Result<Outcome, OpError> {
    let spec = &request.spec;
    if spec.kind == VolumeKind::Directory {
        return on_directories(spec, &request.verb);
    }
    match &request.verb {
        Verb::Plan => Ok(plain(Response::Planned { devices: plan(spec)? })),
        Verb::OfferWipe { seen, now_unix_ms } => offer_wipe(spec, seen, *now_unix_ms),
        Verb::Format(order) => format(spec, order),
        Verb::Mount { seen } => match find(spec, seen)? {
            Probed::Ours(claim) => mount_claim(spec, claim),
            Probed::Mounted(device, identity) => {
                mounted(mount::adopt(spec, &device, &identity).map_err(OpError::from)?)
            }
            other @ (Probed::Blank(_) | Probed::Occupied(_) | Probed::Unusable(_)) => {
                Err(not_allowed(&other, "mount"))
            }
        },
        Verb::Unmount { how } => {
            mount::unmount(&spec.mount, *how)?;
            Ok(plain(Response::Unmounted))
        }
        Verb::ShutDown => shut_down(spec, held),
        Verb::TakeBeside => take_beside(spec),
    }
}

fn plan(spec: &VolumeSpec) -> Result<Vec<Planned>, OpError> {
    let context = context(spec)?;
    let looked = candidates(spec, &context)?.into_iter().map(|path| probe::probe(&path, &context));
    Ok(looked
        .map(|probed| Planned {
            found: DeviceVerdict { device: probed.device().clone(), verdict: probed.verdict() },
            identity: probed.identity().cloned().map(Box::new),
            mounted: matches!(probed, Probed::Mounted(..)),
        })
        .collect())
}

fn offer_wipe(spec: &VolumeSpec, seen: &Seen, now_unix_ms: u64) -> Result<Outcome, OpError> {
    let probed = find(spec, seen)?;
    let Probed::Occupied(claim) = &probed else { return Err(not_allowed(&probed, "offer to wipe")) };
    let device = claim.device().clone();
    let fingerprint = claim.fingerprint().map_err(system("read content of device"))?;
    let mut bits = [0; 16];
    fill_random(&mut bits)?;
    let id = TokenId::from_random(u128::from_ne_bytes(bits));
    let expires_unix_ms = now_unix_ms.saturating_add(VALID_FOR_MS);
    let token = WipeToken { id: id.clone(), device: device.clone(), fingerprint, expires_unix_ms };
    TokenStore::open(&spec.token_dir)?.issue(&token)?;
    Ok(plain(Response::WipeOffered { token: id, device, expires_unix_ms }))
}

fn format(spec: &VolumeSpec, order: &FormatOrder) -> Result<Outcome, OpError> {
    let sysfs = Sysfs::default();
    let blank = match (find(spec, &order.seen)?, &order.consent) {
        (Probed::Blank(claim), Consent::Blank) => claim,
        (Probed::Occupied(claim), Consent::Wipe { token, now_unix_ms }) => {
            let token = TokenStore::open(&spec.token_dir)?.redeem(token, *now_unix_ms)?;
            claim.erase(&token, &sysfs)?
        }
        (other, Consent::Blank | Consent::Wipe { .. }) => return Err(not_allowed(&other, "format")),
    };
    let ours = blank.format(spec.filesystem, new_identity(spec, order)?, &sysfs)?;
    mount_claim(spec, ours)
}

fn mount_claim(spec: &VolumeSpec, claim: Claimed<Ours>) -> Result<Outcome, OpError> {
    mounted(claim.mount(spec, &Sysfs::default())?)
}

/// The identity is read through the mount first: nothing is changed below an empty mount point.
fn take_beside(spec: &VolumeSpec) -> Result<Outcome, OpError> {
    let root = Root::open(&spec.mount)?;
    let found = identity::read(&root).and_then(|found| identity::check(&found, &spec.cluster, &spec.node));
    found.map_err(|source| OpError::Volume { source: Box::new(source) })?;
    beside::take(&root, &spec.engine)?;
    Ok(plain(Response::Taken))
}

fn shut_down(spec: &VolumeSpec, held: Option<BorrowedFd<'_>>) -> Result<Outcome, OpError> {
    let failed = |source| OpError::ShutDown { target: spec.mount.clone(), source };
    match held {
        Some(fd) => ioctl::shut_down_filesystem(fd).map_err(failed)?,
        None => {
            // Without the held descriptor: the top directory of a mounted volume is in memory.
            let mounts = Mounts::of_this_process().map_err(failed)?;
            if mounts.at(&spec.mount).is_some() {
                let root = Root::open(&spec.mount).map_err(|err| failed(err.source))?;
                ioctl::shut_down_filesystem(root.as_fd()).map_err(failed)?;
            }
        }
    }
    Ok(plain(Response::ShutDown))
}

fn on_directories(spec: &VolumeSpec, verb: &Verb) -> Result<Outcome, OpError> {
    let owner = Owner { cluster: spec.cluster.clone(), node: spec.node.clone() };
    let find = |seen: &Seen| -> Result<(PathBuf, Verdict), OpError> {
        let path = Path::new(&seen.serial).to_owned();
        if !directory::candidates(spec)?.contains(&path) {
            return Err(OpError::NotThere { serial: seen.serial.clone(), diskseq: seen.diskseq });
        }
        let (device, verdict, _) = directory::probe(&path, &owner);
        if verdict.word() != seen.verdict {
            let device = Box::new(device);
            return Err(OpError::NotAsSeen { device, seen: seen.verdict.clone(), verdict });
        }
        Ok((path, verdict))
    };
    match verb {
        Verb::Plan => {
            let current = directory::current(&spec.mount)?;
            let looked = directory::candidates(spec)?.into_iter().map(|path| {
                let (device, verdict, identity) = directory::probe(&path, &owner);
                let mounted = current.as_deref() == Some(&*path) && identity.is_some();
                let found = DeviceVerdict { device, verdict };
                Planned { found, identity: identity.map(Box::new), mounted }
            });
            Ok(plain(Response::Planned { devices: looked.collect() }))
        }
        Verb::OfferWipe { seen, .. } => {
            let (path, verdict) = find(seen)?;
            let device = Box::new(directory::probe(&path, &owner).0);
            Err(OpError::NotAllowed { device, verdict, verb: "offer to wipe" })
        }
        Verb::Format(order) => {
            let (path, _) = find(&order.seen)?;
            directory::format(spec, &path, new_identity(spec, order)?)?;
            mounted(directory::mount(spec, &path)?)
        }
        Verb::Mount { seen } => mounted(directory::mount(spec, &find(seen)?.0)?),
        Verb::Unmount { .. } => {
            directory::unmount(&spec.mount)?;
            Ok(plain(Response::Unmounted))
        }
        Verb::ShutDown => Ok(plain(Response::ShutDown)),
        Verb::TakeBeside => take_beside(spec),
    }
}

/// The candidate that the caller saw, if it is still what was seen.
fn find(spec: &VolumeSpec, seen: &Seen) -> Result<Probed, OpError> {
    let context = context(spec)?;
    for path in candidates(spec, &context)? {
        let probed = probe::probe(&path, &context);
        if probed.device().serial != seen.serial || probed.device().diskseq != seen.diskseq {
            continue;
        }
        let verdict = probed.verdict();
        if verdict.word() != seen.verdict {
            let device = Box::new(probed.device().clone());
            return Err(OpError::NotAsSeen { device, seen: seen.verdict.clone(), verdict });
        }
        return Ok(probed);
    }
    Err(OpError::NotThere { serial: seen.serial.clone(), diskseq: seen.diskseq })
}

fn candidates(spec: &VolumeSpec, context: &Context) -> Result<Vec<PathBuf>, OpError> {
    match spec.kind {
        VolumeKind::Block => Ok(spec.devices.clone()),
        VolumeKind::Nvme => {
            let wanted = Wanted { models: &spec.models, serials: &spec.serials };
            discover::local_nvme(&context.sysfs, &context.mounts, wanted).map_err(system("list devices"))
        }
        VolumeKind::Directory => Ok(directory::candidates(spec)?),
    }
}

fn context(spec: &VolumeSpec) -> Result<Context, OpError> {
    let mut seed = [0; 8];
    fill_random(&mut seed)?;
    Ok(Context {
        owner: Owner { cluster: spec.cluster.clone(), node: spec.node.clone() },
        mount: spec.mount.clone(),
        sysfs: Sysfs::default(),
        mounts: Mounts::of_this_process().map_err(system("read mount table"))?,
        seed: u64::from_ne_bytes(seed),
    })
}

fn new_identity(spec: &VolumeSpec, order: &FormatOrder) -> Result<VolumeIdentity, OpError> {
    let boot_id =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(system("read boot id"))?;
    Ok(VolumeIdentity {
        cluster: spec.cluster.clone(),
        cluster_id: None,
        node: spec.node.clone(),
        incarnation: order.incarnation,
        zone: spec.zone.clone(),
        engine: spec.engine.clone(),
        serials: Vec::new(),
        fs_uuid: uuid::Uuid::nil(),
        created: order.created.clone(),
        boot_id: boot_id.trim().to_owned(),
    })
}

fn system(op: &'static str) -> impl FnOnce(io::Error) -> OpError {
    move |source| OpError::System { op, source }
}

fn fill_random(bytes: &mut [u8]) -> Result<(), OpError> {
    getrandom::fill(bytes).map_err(|err| OpError::Random { why: err.to_string() })
}

fn not_allowed(probed: &Probed, verb: &'static str) -> OpError {
    let device = Box::new(probed.device().clone());
    OpError::NotAllowed { device, verdict: probed.verdict(), verb }
}

fn mounted(mounted: Mounted) -> Result<Outcome, OpError> {
    let response = Response::Mounted { device: mounted.device, identity: Box::new(mounted.identity) };
    Ok(Outcome { response, root: Some(mounted.root) })
}

const fn plain(response: Response) -> Outcome {
    Outcome { response, root: None }
}
