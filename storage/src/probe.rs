//! Says what a device is to this node, and hands out the claim that goes with it.
//!
//! Probing never opens a device for writing. Only a `Claimed<Blank>` can be formatted; it comes from here, or from
//! erasing a `Claimed<Occupied>` with a wipe token.
//!
//! Order: open exclusively, look for users, read both ends, judge them, sample the rest if they are blank, check
//! that it is still the same device. A read error anywhere is `Sick`, never `Blank`.
//!
//! Invariants, each a test of `tests/devices/probe.rs`: one per kind of content and use, each of which also asserts that
//! nothing was written.
//!
//! Not here: what the content means. See `judge`.

use std::error::Error;
use std::path::{Path, PathBuf};

use holdfast_model::ByteCount;
use holdfast_model::volume::{DeviceId, DeviceVerdict, Verdict, VolumeIdentity};

use crate::content::{self, Ends};
use crate::device::{Held, HoldError};
use crate::judge::{self, Judged, Owner};
use crate::mountinfo::Mounts;
use crate::stamp::Stamp;
use crate::sysfs::Sysfs;
use crate::users;
use crate::wipe::Fingerprint;

/// Devices below this are not looked at further: too small to be of use, and their ends would overlap.
const SMALLEST: ByteCount = ByteCount::mib(40);

/// What probing needs to know besides the device.
#[derive(Debug, Clone)]
pub struct Context {
    /// Whose devices are ours.
    pub owner: Owner,
    /// Where our volume is mounted if it is.
    pub mount: PathBuf,
    /// Block devices.
    pub sysfs: Sysfs,
    /// What is mounted now.
    pub mounts: Mounts,
    /// Chooses the sampled blocks; random.
    pub seed: u64,
}

/// State of a claim: nothing on it, or remains of our own unfinished format.
#[derive(Debug)]
pub struct Blank {
    /// Whether there are remains that mkfs would take for a file system.
    pub(crate) remains: bool,
}

/// State of a claim: a finished volume of ours.
#[derive(Debug)]
pub struct Ours {
    pub(crate) stamp: Stamp,
}

/// State of a claim: something that is not ours to write, but that consent could erase.
#[derive(Debug)]
pub struct Occupied {
    pub(crate) verdict: Verdict,
    pub(crate) ends: Ends,
}

/// A device held exclusively, and what is known of its content.
#[derive(Debug)]
pub struct Claimed<S> {
    pub(crate) held: Held,
    pub(crate) state: S,
}

impl<S> Claimed<S> {
    /// Which device.
    #[must_use]
    pub const fn device(&self) -> &DeviceId {
        &self.held.id
    }
}

impl Claimed<Ours> {
    /// What its stamp says.
    #[must_use]
    pub const fn identity(&self) -> &VolumeIdentity {
        &self.state.stamp.identity
    }
}

impl Claimed<Occupied> {
    /// What it is.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.state.verdict
    }

    /// Digest of its content, for a wipe token.
    ///
    /// # Errors
    /// The kernel's; any makes the device sick.
    pub fn fingerprint(&self) -> std::io::Result<Fingerprint> {
        content::fingerprint(&self.held.plain, &self.state.ends)
    }
}

/// What a device is to this node.
#[derive(Debug)]
pub enum Probed {
    /// It may be formatted.
    Blank(Claimed<Blank>),
    /// It may be mounted.
    Ours(Claimed<Ours>),
    /// It is ours and mounted where it belongs.
    Mounted(DeviceId, Box<VolumeIdentity>),
    /// It may be erased with consent.
    Occupied(Claimed<Occupied>),
    /// It may not be touched.
    Unusable(DeviceVerdict),
}

impl Probed {
    /// The device.
    #[must_use]
    pub const fn device(&self) -> &DeviceId {
        match self {
            Self::Blank(claim) => claim.device(),
            Self::Ours(claim) => claim.device(),
            Self::Occupied(claim) => claim.device(),
            Self::Mounted(device, _) => device,
            Self::Unusable(verdict) => &verdict.device,
        }
    }

    /// The verdict for people and for `decide`.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Blank(_) => Verdict::Blank,
            Self::Ours(claim) => Verdict::Ours { fs_uuid: claim.identity().fs_uuid },
            Self::Mounted(_, identity) => Verdict::Ours { fs_uuid: identity.fs_uuid },
            Self::Occupied(claim) => claim.verdict().clone(),
            Self::Unusable(verdict) => verdict.verdict.clone(),
        }
    }

    /// What the stamp of a volume of ours says.
    #[must_use]
    pub fn identity(&self) -> Option<&VolumeIdentity> {
        match self {
            Self::Ours(claim) => Some(claim.identity()),
            Self::Mounted(_, identity) => Some(identity),
            Self::Blank(_) | Self::Occupied(_) | Self::Unusable(_) => None,
        }
    }
}

/// Probes the device at `path`.
#[must_use]
pub fn probe(path: &Path, context: &Context) -> Probed {
    let held = match Held::open(path, &context.sysfs) {
        Ok(held) => held,
        Err(err) => return Probed::Unusable(not_held(path, &err)),
    };
    let device = held.id.clone();
    let unusable = |verdict| Probed::Unusable(DeviceVerdict { device: device.clone(), verdict });
    if !held.is_exclusive() {
        return in_use(&held, context);
    }
    let mut users = users::of(&held, &context.sysfs);
    if held.disk.read_only {
        users.push("is read-only".to_owned());
    }
    if held.id.size < SMALLEST {
        users.push(format!("is too small ({})", held.id.size));
    }
    if !users.is_empty() {
        return unusable(Verdict::Foreign { why: users.join("; ") });
    }
    match look(held, context) {
        Ok(probed) => probed,
        Err(err) => unusable(unreadable(&err)),
    }
}

/// Reads and judges a device that nobody else uses.
fn look(held: Held, context: &Context) -> Result<Probed, HoldError> {
    let reading = |source| HoldError::Io { op: "read", path: held.id.path.clone(), source };
    let size = held.id.size.bytes();
    let ends = Ends::read(&held.plain, size, content::END_LEN).map_err(reading)?;
    let judged = match judge::judge(&ends, &held.id, &context.owner) {
        Judged::Blank => {
            match content::first_nonzero_sample(&held.plain, size, context.seed).map_err(reading)? {
                None => Judged::Blank,
                Some(at) => Judged::Occupied(Verdict::Foreign {
                    why: format!("unknown content: a byte at offset {at} is not zero"),
                }),
            }
        }
        other @ (Judged::Unfinished(_) | Judged::Ours(_) | Judged::Occupied(_)) => other,
    };
    held.verify(&context.sysfs)?;
    Ok(match judged {
        Judged::Blank => Probed::Blank(Claimed { held, state: Blank { remains: false } }),
        Judged::Unfinished(_) => Probed::Blank(Claimed { held, state: Blank { remains: true } }),
        Judged::Ours(stamp) => Probed::Ours(Claimed { held, state: Ours { stamp: *stamp } }),
        Judged::Occupied(verdict) => Probed::Occupied(Claimed { held, state: Occupied { verdict, ends } }),
    })
}

/// A device that somebody has open exclusively: ours if it is mounted where it belongs, else foreign.
fn in_use(held: &Held, context: &Context) -> Probed {
    let device = held.id.clone();
    let at_its_place = context.mounts.at(&context.mount).is_some_and(|mount| mount.device == held.number);
    if at_its_place {
        let judged = Ends::read(&held.plain, held.id.size.bytes(), content::OWN_LEN)
            .map(|ends| judge::judge(&ends, &held.id, &context.owner));
        match judged {
            Ok(Judged::Ours(stamp)) => return Probed::Mounted(device, Box::new(stamp.identity)),
            Ok(Judged::Blank | Judged::Unfinished(_) | Judged::Occupied(_)) => {}
            Err(err) => {
                let verdict = Verdict::Sick { why: format!("read {}: {err}", device.path.display()) };
                return Probed::Unusable(DeviceVerdict { device, verdict });
            }
        }
    }
    let mut users: Vec<_> = context
        .mounts
        .of(held.number)
        .map(|mount| format!("is mounted at {}", mount.target.display()))
        .collect();
    users.extend(users::of(held, &context.sysfs));
    if users.is_empty() {
        users.push(
            "is mounted in another mount namespace, or held by the kernel or another program".to_owned(),
        );
    }
    let why = format!("in use: {}", users.join("; "));
    Probed::Unusable(DeviceVerdict { device, verdict: Verdict::Foreign { why } })
}

fn not_held(path: &Path, err: &HoldError) -> DeviceVerdict {
    let device = DeviceId {
        path: path.to_owned(),
        model: String::new(),
        serial: String::new(),
        diskseq: 0,
        size: ByteCount::ZERO,
    };
    DeviceVerdict { device, verdict: unreadable(err) }
}

fn unreadable(err: &HoldError) -> Verdict {
    let why = err.source().map_or_else(|| err.to_string(), |source| format!("{err}: {source}"));
    match err {
        HoldError::Gone { .. } => Verdict::Gone { why },
        HoldError::NotADisk { .. } => Verdict::Foreign { why },
        HoldError::Io { .. } => Verdict::Sick { why },
        HoldError::Changed { .. } => Verdict::Gone { why },
    }
}
